/* loss.h - losses at the vocabulary head, in chunks of rows: logits never exist all at once.
 *
 * All are one op, HEAD: for each row n
 *   L += ce_weight[n] * -log p(target[n]) + kd_weight[n] * tau^2 * D(teacher || student)
 * with p = softmax(hidden w'), and D at temperature tau. Since the weights are given, the
 * gradient of the head is formed in the same pass (it is added to w's gradient at once, and
 * kept for `hidden` until backward). A tape's loss is the sum of its HEAD terms.
 *
 * Unlearning losses are choices of ce_weight (N tokens, S sequences of the global batch):
 *   CE, retain   1/N          gradient ascent  -1/N
 *   NPO          -w_s/S,       w_s = 2 sigmoid(-beta (l_s - l0_s))
 *   SimNPO       -w_s/(n_s S), w_s = 2 sigmoid(-beta (l_s/n_s - delta))
 * where l_s is the sequence's sum of NLL: first loss_nll, then weights, then loss_head.
 * Always divide by counts over all ranks and micro-batches of the optimiser step.
 * Formulas: Zhang et al. 2024 (NPO), Fan et al. 2024 (SimNPO), Hinton et al. 2015 (tau^2). */
#ifndef ATHANOR_ENGINE_LOSS_H
#define ATHANOR_ENGINE_LOSS_H

#include "worker/engine/tape.h"

enum divergence {
    DIVERGENCE_NONE = 0,
    DIVERGENCE_FORWARD_KL,   /* KL(p || q), p teacher, q student                 */
    DIVERGENCE_REVERSE_KL,   /* KL(q || p)                                       */
    DIVERGENCE_JSD,          /* b KL(p||m) + (1-b) KL(q||m), m = b p + (1-b) q   */
    DIVERGENCE_SKEW_FORWARD, /* KL(p || m), m = a p + (1-a) q                    */
    DIVERGENCE_SKEW_REVERSE, /* KL(q || m)                                       */
    DIVERGENCE_TOTAL_VARIATION,
    DIVERGENCE_END,
};

int divergence_parse(const char *name, enum divergence *out, struct err *err) WARN_UNUSED;
const char *divergence_name(enum divergence divergence); /* "fkl rkl jsd sfkl srkl tv" */

struct loss_head {
    struct tensor *hidden;       /* (N, D) after the final norm                               */
    struct tensor *head;         /* (V, D): model->head                                       */
    const int32_t *target;       /* N on the host; -1: row has no target, its CE is 0         */
    const float *ce_weight;      /* N on the host; NULL: no cross-entropy term in the loss    */
    enum divergence divergence;
    struct tensor *teacher_hidden; /* (N, D') of another model; no gradient flows into it     */
    struct tensor *teacher_head;   /* (V, D')                                                 */
    const float *kd_weight;      /* N on the host; needed with a divergence                   */
    double temperature;          /* of the divergence; 0 means 1                              */
    double beta;                 /* b of JSD, a of skew                                       */
};

struct loss_values {
    double total;  /* sum of weighted terms                                        */
    float *nll;    /* in: NULL or room for N; out: -log p(target), 0 where none    */
    float *kd;     /* in: NULL or room for N; out: tau^2 D                         */
    int32_t *argmax; /* in: NULL or room for N; out: likeliest token, lowest id in a tie */
};

/* Adds the terms to the tape's loss. With a TAPE_INFER tape: values only.
 * Errors: ERR_MEMORY, ERR_INVALID (a target outside 0..V-1). */
int loss_head(struct tape *tape, const struct loss_head *loss, struct loss_values *values,
              struct err *err) WARN_UNUSED;

/* -log p(target) per row without gradient, 0 where target is -1. */
int loss_nll(struct tape *tape, struct tensor *hidden, struct tensor *head, const int32_t *target,
             float *out_nll, struct err *err) WARN_UNUSED;

/* Sums of nll and counts of targets per sequence of T rows. */
void loss_sequences(const float *nll, const int32_t *target, int64_t B, int64_t T,
                    double *out_nll_sum, int64_t *out_count);

/* w_s of the table above, in double. */
double loss_npo_weight(double nll, double reference_nll, double beta);
double loss_npo_value(double nll, double reference_nll, double beta); /* -(2/b) log sig(b D) */
double loss_simnpo_weight(double nll, int64_t count, double beta, double delta);
double loss_simnpo_value(double nll, int64_t count, double beta, double delta);

#endif
