/* reasons.h - answers to "why" as paragraphs: a table would cut what matters. */
#ifndef ATHANOR_CLIENT_REASONS_H
#define ATHANOR_CLIENT_REASONS_H

#include "client/render/table.h"

/* Adds the columns reason, detail and remedy of every row, then when the job starts, broken
 * before the terminal's edge. */
void reasons_add(struct buf *out, const struct msg_table *table, const struct style *style);

#endif
