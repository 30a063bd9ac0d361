/* bar.h - progress bars of running jobs. */
#ifndef ATHANOR_CLIENT_BAR_H
#define ATHANOR_CLIENT_BAR_H

#include "client/render/style.h"

/* Adds a bar of `columns` columns for done of total (total 0: not known, an empty bar), in eighths
 * of a column. */
void bar_add(struct buf *out, uint64_t done, uint64_t total, unsigned columns);

#endif
