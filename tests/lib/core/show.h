/* show.h - rows and messages as one short line each, for traces and failure reports. */
#ifndef ATHANOR_TESTS_SHOW_H
#define ATHANOR_TESTS_SHOW_H

#include "common/base/buf.h"
#include "coordinator/core/core.h"

/* base_us: wall time shown as 0; times are printed in milliseconds after it. */
void show_persist(const struct persist *persist, uint64_t base_us, struct buf *out);
void show_message(const struct message *message, struct buf *out);

#endif
