/* batch.h - the rows of one transaction, grouped by table and merged by key.
 *
 * A job that is submitted, started and finished within one batch is one INSERT: an UPDATE of a
 * row that the batch inserts goes into that INSERT, and of several UPDATEs of one row the last
 * remains. Tables without mutable columns (metrics, logs, events) are passed through. */
#ifndef ATHANOR_STORE_BATCH_H
#define ATHANOR_STORE_BATCH_H

#include "coordinator/core/effect.h"
#include "coordinator/store/sql.h"

struct batch_rows {
    const void **rows; /* row structs, in the order of their first appearance */
    size_t count, capacity;
};

struct batch {
    struct arena arena; /* merged rows and keys */
    struct batch_rows groups[ROW_TABLE_END][SQL_VERB_END];
};

/* A zeroed struct is a valid empty batch. */
void batch_group(struct batch *batch, const struct effects *effects);
void batch_reset(struct batch *batch); /* keeps memory */
void batch_done(struct batch *batch);

#endif
