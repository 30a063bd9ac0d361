/* pack.h - documents side by side in rows of T tokens, each seeing only itself.
 *
 * Most documents are much shorter than the context, so one document a row would be mostly
 * padding. Here a row holds as many as fit; `first` hides the neighbours from attention and
 * positions restart, so that every document gets the same states as it would alone. */
#ifndef ATHANOR_PACK_H
#define ATHANOR_PACK_H

#include "worker/engine/model.h"

/* Where one document lies: `count` cells from `start` on, in one row. */
struct pack_span {
    int64_t item;
    int64_t start;
    int64_t count;
};

struct pack {
    int64_t T;
    int64_t rows_most;
    int32_t *token;         /* (rows_most, T); 0 on padding                  */
    int32_t *target;        /* (rows_most, T); -1 where nothing is predicted */
    int32_t *position;      /* (rows_most, T) within the document            */
    int32_t *first;         /* (rows_most, T) see op_attention               */
    int64_t rows;           /* in use                                        */
    int64_t *used;          /* cells in use of each row                      */
    int32_t *room;          /* (2, T) for the caller: a document on its way in */
    struct pack_span *span; /* in order of pack_add */
    int64_t span_count;
    int64_t span_capacity;
    int64_t target_count; /* targets that are not -1 */
};

/* Errors: ERR_MEMORY. */
int pack_init(struct pack *pack, int64_t T, int64_t rows_most, struct err *err) WARN_UNUSED;
void pack_done(struct pack *pack);
void pack_clear(struct pack *pack);
/* Adds 1..T cells of one document (copied) to the first row with room; false when there is
 * none. */
bool pack_add(struct pack *pack, int64_t item, const int32_t *token, const int32_t *target,
              int64_t count);
int64_t pack_cells(const struct pack *pack); /* rows * T */
/* Borrows the pack's arrays. An empty pack gives one row of padding. */
struct model_batch pack_batch(const struct pack *pack);

#endif
