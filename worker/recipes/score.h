/* score.h - teacher-forced scores of many sequences, spread over the ranks.
 *
 * Items are packed (pack.h) into blocks in their own order. A block's composition follows
 * from the items alone and one rank scores it (block number modulo ranks), so the numbers
 * are the same bits for every number of ranks. */
#ifndef ATHANOR_SCORE_H
#define ATHANOR_SCORE_H

#include "worker/recipes/corpus.h"
#include "worker/recipes/pack.h"
#include "worker/recipes/sourced.h"

struct comm;

/* Sequences to score: `count` items, spread evenly over `total` numbered ones. fill writes the
 * tokens of one number and their targets (-1: not scored) into arrays with room for T, and
 * returns how many, 1..T. */
struct score_source {
    int64_t count;
    int64_t total;
    int64_t (*fill)(void *argument, int64_t number, int64_t T, int32_t *token, int32_t *target);
    void *argument;
};

/* One scored item, handed to the visitor; borrowed for the call. */
struct score_item {
    int64_t item; /* 0 .. count-1 */
    int64_t count;
    const int32_t *target; /* -1: not scored */
    const float *nll;      /* nats */
    const float *kd;       /* divergence from the teacher, nats; NULL without a teacher */
    const int32_t *argmax; /* greedy prediction */
};
typedef void (*score_visit)(void *argument, const struct score_item *item);

struct scorer {
    struct comm *comm;
    struct tape *tape;
    struct tape *teacher_tape;
    struct pack pack;
    struct sourced sourced; /* of a model with an encoder */
    int32_t *token, *target; /* one item */
    float *nll, *kd, *weight;
    int32_t *argmax;
};

/* T: longest item. Errors: ERR_MEMORY. */
int scorer_open(struct comm *comm, struct device *device, int64_t T, struct scorer *out,
                struct err *err) WARN_UNUSED;
void scorer_close(struct scorer *scorer); /* a zeroed struct is fine */

/* Which items make up which block: block b holds items first[b] .. first[b+1]-1. */
struct score_plan {
    int64_t *first;
    int64_t block_count;
};
int score_plan_init(struct scorer *scorer, const struct score_source *source,
                    struct score_plan *out, struct err *err) WARN_UNUSED;
void score_plan_done(struct score_plan *plan);

/* Scores this rank's blocks among from..to-1. teacher: NULL, or a model with the same tokens
 * whose forward KL is taken. Results of other ranks are the caller's to sum. */
int score_blocks(struct scorer *scorer, const struct score_source *source,
                 const struct score_plan *plan, int64_t from, int64_t to, const struct model *model,
                 const struct model *teacher, score_visit visit, void *argument,
                 struct err *err) WARN_UNUSED;

/* Totals over all items and ranks. */
struct score_sum {
    double nll; /* nats */
    double kd;
    double tokens; /* scored ones */
};
int score_total(struct scorer *scorer, const struct score_source *source, const struct model *model,
                const struct model *teacher, struct score_sum *out, struct err *err) WARN_UNUSED;

/* The NLL sum of each item, on every rank: out has room for source->count. */
int score_each(struct scorer *scorer, const struct score_source *source, const struct model *model,
               double *out_nll, struct err *err) WARN_UNUSED;

/* The documents of a corpus, at most `most` of them (0: all), and the windows of a part. */
struct score_source score_documents(struct corpus *corpus, int64_t most);
struct score_source score_windows(const struct windows *windows);

#endif
