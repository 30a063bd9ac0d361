/* batch.h - rows of token ids for the model: contiguous windows, or one document a row.
 *
 * Row b, column t: tokens[b*T + t] is the input, targets[b*T + t] the id that follows it,
 * mask[b*T + t] 1 where the target counts in the loss and 0 on padding. */
#ifndef ATHANOR_BATCH_H
#define ATHANOR_BATCH_H

#include "worker/engine/data/dataset.h"

struct batch {
    size_t B, T;      /* rows, columns */
    int32_t *tokens;  /* (B, T) */
    int32_t *targets; /* (B, T); 0 on padding */
    float *mask;      /* (B, T) */
    uint64_t *items;  /* (B) window or document number: provenance */
    double mask_sum;  /* targets that count */
};

int batch_init(struct batch *batch, size_t B, size_t T, struct err *err) WARN_UNUSED;
void batch_done(struct batch *batch);

/* Windows of T+1 tokens, T apart, over a part as one stream per shard; a shard of n tokens
 * has (n-1)/T windows, and a remainder is padded up as one last window, so that every token
 * is a target once per epoch. */
struct windows {
    const struct dataset_part *part;
    size_t T;
    uint64_t *window_base; /* shard_count + 1 prefix sums */
    uint64_t window_count;
};
int windows_init(struct windows *windows, const struct dataset_part *part, size_t T,
                 struct err *err) WARN_UNUSED;
void windows_done(struct windows *windows);
/* Fills all B rows of the batch (batch->T == windows->T): row b is the item at position
 * first + b of the shuffled stream of that seed. */
void windows_fill(const struct windows *windows, uint64_t seed, uint64_t first,
                  struct batch *batch);
/* In stored order without repeats, for evaluation: windows first .. first+B-1; rows past the
 * last window are all padding (mask 0). Returns the rows that hold a window. */
size_t windows_fill_ordered(const struct windows *windows, uint64_t first, struct batch *batch);

/* One document a row: <|endoftext|> then its tokens as inputs, its tokens then <|endoftext|>
 * as targets. Documents longer than T are cut to T targets. */
void documents_fill(const struct dataset_part *part, uint64_t seed, uint64_t first,
                    struct batch *batch);
size_t documents_fill_ordered(const struct dataset_part *part, uint64_t first,
                              struct batch *batch);
/* The most targets any document of the part needs (a T that cuts none). */
uint64_t documents_longest(const struct dataset_part *part);

#endif
