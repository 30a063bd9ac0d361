/* generate.h - continues prompts, with a cache of keys and values.
 *
 * Draws depend on (seed, sequence index, position) only, so a batch gives the same texts
 * as its members alone. */
#ifndef ATHANOR_ENGINE_GENERATE_H
#define ATHANOR_ENGINE_GENERATE_H

#include "worker/engine/model.h"

struct sampling {
    double temperature; /* 0: greedy (ties: lowest id)                    */
    int64_t top_k;      /* 0: all                                         */
    double top_p;       /* 0 or 1: all; else the smallest set of that mass */
    uint64_t seed;
    int32_t stop_token; /* -1: none. It ends a text and is not returned   */
};

struct generation {
    int32_t *token; /* given by the caller, room for most_tokens */
    int64_t count;  /* out                                       */
    uint64_t index; /* in: number of the sequence, for its draws */
};

struct prompt {
    const int32_t *token;
    int64_t count; /* at least 1 */
};

/* Continues each of `count` prompts by at most most_tokens (fewer at the context's end).
 * Errors: ERR_INVALID (empty prompt, token out of range, prompt over context), ERR_MEMORY. */
int generate(const struct model *model, const struct prompt *prompts, struct generation *texts,
             int64_t count, int64_t most_tokens, const struct sampling *sampling,
             struct err *err) WARN_UNUSED;

/* One draw from V logits, scaled and cut as `sampling` says; unit is uniform in [0, 1). */
int32_t sample_token(const float *logits, int64_t V, const struct sampling *sampling, double unit);

/* The cache itself, for recipes that score step by step. */
struct kv_cache;

int kv_cache_new(const struct model *model, int64_t B, int64_t capacity, struct kv_cache **out,
                 struct err *err) WARN_UNUSED;
void kv_cache_free(struct kv_cache *cache);
/* Appends T tokens to each of B rows (tape: TAPE_INFER) and gives hidden (B*T, D).
 * advance[b] <= T says how many of them count; the rest is padding. NULL: all. */
int kv_cache_extend(struct tape *tape, struct kv_cache *cache, const int32_t *token, int64_t T,
                    const int64_t *advance, struct tensor **out_hidden, struct err *err)
    WARN_UNUSED;

#endif
