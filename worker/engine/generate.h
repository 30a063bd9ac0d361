/* generate.h - continues prompts by sampling or beams, and scores given continuations.
 *
 * Draws depend on (seed, sequence index, position) only, so a batch gives the same texts
 * as its members alone. */
#ifndef ATHANOR_ENGINE_GENERATE_H
#define ATHANOR_ENGINE_GENERATE_H

#include "worker/engine/cache.h"

struct sampling {
    double temperature; /* 0: greedy (ties: lowest id)                    */
    int64_t top_k;      /* 0: all                                         */
    double top_p;       /* 0 or 1: all; else the smallest set of that mass */
    uint64_t seed;
    int32_t stop_token; /* -1: none. It, or any other end_token of the model, ends a text and is
                           not returned                                   */
    /* Called before each draw of text `index`, which has `count` tokens so far: may change the
     * V logits, say to -INFINITY what must not follow. One must stay finite. NULL: none. */
    void (*constrain)(void *context, uint64_t index, const int32_t *token, int64_t count,
                      float *logits, int64_t V);
    void *context;
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

/* Continues each of `count` prompts by at most most_tokens (fewer at the context's end). Prompts
 * that are one array are read once, for all of them. A T5's encoder reads the prompts, as they
 * are, and its decoder writes the texts; so in all searches here.
 * Errors: ERR_INVALID (empty prompt, token out of range, prompt over context), ERR_MEMORY. */
int generate(const struct model *model, const struct prompt *prompts, struct generation *texts,
             int64_t count, int64_t most_tokens, const struct sampling *sampling,
             struct err *err) WARN_UNUSED;

/* One draw from V logits, scaled and cut as `sampling` says; unit is uniform in [0, 1). */
int32_t sample_token(const float *logits, int64_t V, const struct sampling *sampling, double unit);

struct beam_config {
    int64_t beams;         /* texts kept at each step, and given; 1..1024             */
    int64_t most_tokens;
    int32_t stop_token;    /* -1: none; as in struct sampling                         */
    double length_power;   /* ranks by log p / count^power; 0: by log p alone         */
};

struct beam_text {
    int32_t *token; /* given by the caller, room for most_tokens                      */
    int64_t count;  /* out; without the stop token                                    */
    double log_p;   /* out: of the tokens, and of the stop token where there was one  */
    bool ended;     /* out: by the stop token                                         */
};

/* Fills `beams` texts, best first: at each step the likeliest extensions of all unfinished beams
 * are kept (ties: lower beam, then lower id), until as many have ended and no other can pass
 * them. With one beam: greedy decoding. Errors: as generate. */
int beam_search(const struct model *model, const struct prompt *prompt,
                const struct beam_config *config, struct beam_text *out_texts,
                struct err *err) WARN_UNUSED;

/* The sum of log p of each continuation's tokens after one prefix, which is computed once; and
 * whether each token is the likeliest (greedy NULL: not asked for). Empty continuations give 0.
 * Errors: ERR_INVALID (empty prefix, prefix and continuation over the context), ERR_MEMORY. */
int score_continuations(const struct model *model, const struct prompt *prefix,
                        const struct prompt *continuations, int64_t count, double *out_log_p,
                        bool *out_greedy, struct err *err) WARN_UNUSED;

#endif
