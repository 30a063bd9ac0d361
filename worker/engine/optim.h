/* optim.h - AdamW on a model's flat arrays, gradient clipping, learning-rate schedules.
 *
 * One step = one read of the gradients for the norm, one update pass. m and v are those of the
 * whole flat array, or, with a reducer of owners only (ZeRO-1), of this rank's segments one after
 * the other: 8 bytes a weight become 8 / ranks. `held` says which elements they are. */
#ifndef ATHANOR_ENGINE_OPTIM_H
#define ATHANOR_ENGINE_OPTIM_H

#include "worker/engine/reduce.h"

struct optim_config {
    double beta1;        /* 0: 0.9   */
    double beta2;        /* 0: 0.95  */
    double eps;          /* 0: 1e-8  */
    double weight_decay; /* decoupled, on weights with `decays`. Loshchilov and Hutter 2019 */
    double clip_norm;    /* global norm; 0: no clipping                                     */
};

/* Elements at..at+count-1 of the flat array, whose moments begin at `state` of m and v. */
struct optim_range {
    int64_t at, count, state;
};

struct optim {
    struct optim_config config;
    struct model *model;
    struct reducer *reducer; /* NULL: this rank trains alone, or sums by itself */
    struct optim_range *held; /* ascending */
    int64_t held_count;
    struct tensor m; /* (all that is held) */
    struct tensor v;
    int64_t step;    /* updates done; restored together with m and v */
    struct tensor square; /* (1): scratch of the norm */
    double *squares;      /* NULL, or of all ranks: scratch of the norm */
};

/* Errors: ERR_MEMORY, ERR_INVALID. */
int optim_new(struct model *model, const struct optim_config *config, struct optim **out,
              struct err *err) WARN_UNUSED;
/* For ranks whose gradients the reducer sums (reducer_finish before each step). With owners only
 * each rank updates its segments and all get the weights: the same bits as without, on the same
 * ranks, because either way squares are summed by segment and added in one order. */
int optim_new_shared(struct reducer *reducer, struct model *model,
                     const struct optim_config *config, struct optim **out,
                     struct err *err) WARN_UNUSED;
void optim_free(struct optim *optim);
/* Clips, updates, then zeroes the gradients. *out_norm is the norm before clipping.
 * ERR_LIMIT when the norm is not finite, then on all ranks: nothing is changed, the caller reports
 * divergence. */
int optim_step(struct optim *optim, double learning_rate, double *out_norm, struct err *err)
    WARN_UNUSED;

enum schedule {
    SCHEDULE_CONSTANT = 1,
    SCHEDULE_LINEAR,
    SCHEDULE_COSINE,
    SCHEDULE_WSD,
    SCHEDULE_END,
};

struct schedule_config {
    enum schedule kind;
    double learning_rate;   /* peak                                             */
    double final_fraction;  /* of the peak, at the last step                    */
    int64_t steps;          /* in all                                           */
    int64_t warmup_steps;   /* linear from 1/warmup                             */
    int64_t decay_steps;    /* WSD: length of the last, linear part; 0: a fifth */
};

int schedule_parse(const char *name, enum schedule *out, struct err *err) WARN_UNUSED;
/* Learning rate of update `step`, counted from 0. */
double schedule_rate(const struct schedule_config *config, int64_t step);

#endif
