/* batch.h - rows of token ids for the model: contiguous windows, or one document a row.
 *
 * Row b, column t: token[b*T + t] is the input and target[b*T + t] the id that follows it, or
 * -1 on padding, where nothing is predicted (as loss.h wants it). Padding inputs are 0. */
#ifndef ATHANOR_BATCH_H
#define ATHANOR_BATCH_H

#include "worker/engine/data/dataset.h"

struct batch {
    int64_t B, T;         /* rows, columns */
    int32_t *token;       /* (B, T) */
    int32_t *target;      /* (B, T); -1 on padding */
    int64_t *item;        /* (B) window or document number: provenance; -1: all padding */
    int64_t target_count; /* targets that are not -1 */
};

int batch_init(struct batch *batch, int64_t B, int64_t T, struct err *err) WARN_UNUSED;
void batch_done(struct batch *batch);

/* Windows of T+1 tokens, T apart, over a part as one stream per shard; a shard of n tokens
 * has (n-1)/T windows, and a remainder is padded up as one last window, so that every token
 * is a target once per epoch. */
struct windows {
    const struct dataset_part *part;
    int64_t T;
    int64_t *window_base; /* shard_count + 1 prefix sums */
    int64_t window_count;
};
int windows_init(struct windows *windows, const struct dataset_part *part, int64_t T,
                 struct err *err) WARN_UNUSED;
void windows_done(struct windows *windows);
/* Fills all B rows of the batch (batch->T == windows->T): row b is the item at position
 * first + b of the shuffled stream of that seed. */
void windows_fill(const struct windows *windows, uint64_t seed, uint64_t first,
                  struct batch *batch);
/* The documents first..last that the window has tokens of, as inputs or targets. */
void windows_documents(const struct windows *windows, int64_t index, uint64_t *out_first,
                       uint64_t *out_last);
/* In stored order without repeats, for evaluation: windows first .. first+B-1; rows past the
 * last window are all padding. Returns the rows that hold a window. */
int64_t windows_fill_ordered(const struct windows *windows, uint64_t first, struct batch *batch);

/* One document a row: what begins texts, then its tokens as inputs; its tokens, then what ends
 * texts as targets (tokenizer.h). Documents longer than T are cut to T targets. */
void documents_fill(const struct dataset_part *part, uint64_t seed, uint64_t first,
                    struct batch *batch);
int64_t documents_fill_ordered(const struct dataset_part *part, uint64_t first,
                              struct batch *batch);
/* The most targets any document of the part needs (a T that cuts none). */
int64_t documents_longest(const struct dataset_part *part);

#endif
