/* rows.h - the training rows of a step: shuffled windows of a stream, or packed documents. */
#ifndef ATHANOR_ROWS_H
#define ATHANOR_ROWS_H

#include "worker/recipes/train.h"

struct rows {
    const struct trainer *trainer;
    struct corpus *corpus;
    bool documents;
    struct windows windows;
    struct batch batch;    /* windows of a pass   */
    struct pack pack;      /* documents of a pass */
    const int32_t *target; /* of the pass now     */
    int64_t cells;         /* of the pass now     */
    float *weight;         /* one a cell          */
};

/* unit: "windows" (of the model's context) or "documents". The trainer's model must be set.
 * Errors: ERR_MEMORY. */
int rows_init(const struct trainer *trainer, struct corpus *corpus, const char *unit,
              struct rows *rows, struct err *err) WARN_UNUSED;
void rows_done(struct rows *rows); /* a zeroed struct is fine */
/* Targets of this step over all passes and ranks: the N of a global mean. */
int64_t rows_count(struct rows *rows);
void rows_fill(struct rows *rows, int64_t pass);
struct model_batch rows_batch(const struct rows *rows);
/* `each` where there is a target, 0 elsewhere; borrowed until the next call. */
const float *rows_weigh(struct rows *rows, double each);

#endif
