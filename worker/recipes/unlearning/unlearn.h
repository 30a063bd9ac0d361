/* unlearn.h - what the unlearning recipes share: forget and retain batches, the retain term,
 * reference losses, evaluation and stop rules. A method is how it weighs a forget document.
 *
 *   minimise  forget_weight L_forget + retain_weight L_retain
 *
 * Forget documents are the anchor: each comes once per epoch; as many retain documents are
 * drawn beside them. theta_0, the model before unlearning, is the reference: frozen, and its
 * losses are computed once when the job opens. AdamW starts fresh.
 * Source: card unlearning-baselines, sections 2, 4, 8 (TOFU and NPO codes, Maini et al. 2024,
 * Zhang et al. 2024). */
#ifndef ATHANOR_UNLEARN_H
#define ATHANOR_UNLEARN_H

#include "worker/recipes/score.h"
#include "worker/recipes/train.h"

struct unlearn;

/* A forget document in this step. Losses are positive sums over its tokens, in nats. */
struct forget_document {
    double nll;             /* l_theta(s)                                    */
    double reference_nll;   /* l_theta0(s); 0 unless the method asks for it  */
    int64_t count;          /* n(s)                                          */
    int64_t token_total;    /* N: targets of the global forget batch         */
    int64_t document_total; /* S: documents of the global forget batch     */
};

struct unlearn_method {
    bool retains;         /* has the parameters of UNLEARN_RETAIN_PARAMS                */
    bool sequence_losses; /* nll and reference_nll are wanted before the weights are */
    /* d L_forget / d nll of each token of the document; may read nll only with the above. */
    double (*weigh)(const struct unlearn *unlearn, const struct forget_document *document);
    /* The document's part of L_forget. */
    double (*value)(const struct unlearn *unlearn, const struct forget_document *document);
};

extern const struct unlearn_method unlearn_grad_ascent, unlearn_grad_diff, unlearn_npo;

enum retain_loss { RETAIN_NONE = 1, RETAIN_GD, RETAIN_KL };
enum stop_rule { STOP_NONE = 1, STOP_ORACLE_NLL, STOP_HOLDOUT_NLL };

struct unlearn {
    struct trainer trainer;
    struct scorer scorer;
    struct corpus forget, retain, holdout;
    const struct unlearn_method *method;
    double forget_weight, retain_weight, beta;
    enum retain_loss retain_loss;
    struct pack pack;
    float *weight, *nll;     /* one a cell of the pack                        */
    float *zero;             /* no cross-entropy weight beside a divergence   */
    double *reference_nll;   /* one a forget document; NULL: not wanted       */
    struct model *reference; /* theta_0, for the KL retain term               */
    struct tape *reference_tape;
    enum stop_rule stop;
    double stop_level;   /* nats a token of the forget set                */
    double retain_limit; /* nats a token of the retain set; 0: none       */
    int64_t eval_every;
    int64_t eval_documents; /* most of each set; 0: all */
};

/* Parameters of every method; each adds its own. */
/* clang-format off */
#define UNLEARN_PARAMS \
    {"epochs", PARAM_FLOAT, "5", 0.001, 1e6, NULL, "passes over the forget set"}, \
    {"steps", PARAM_INT, "0", 0, 1e9, NULL, "optimiser steps; 0: as many as epochs need"}, \
    {"forget_weight", PARAM_FLOAT, "1", 0, 1e4, NULL, "weight of the forget term"}, \
    {"eval_every", PARAM_INT, "0", 0, 1e9, NULL, \
     "steps between evaluations on forget, retain and holdout documents; 0: once an epoch"}, \
    {"eval_documents", PARAM_INT, "0", 0, 1e12, NULL, \
     "most documents of each set in an evaluation, spread evenly over it; 0: all"}, \
    {"stop", PARAM_CHOICE, "none", 0, 0, "none|oracle_nll|holdout_nll", \
     "end at the first evaluation whose forget loss reaches the input `oracle`'s, or what the " \
     "model before unlearning had on the input `holdout`"}, \
    {"retain_abort", PARAM_FLOAT, "3", 0, 1e4, NULL, \
     "end when the retain loss exceeds this times its start plus 0.1 nats; 0: never"}, \
    TRAIN_PARAMS("1e-4", "linear", "32", "0.01")

#define UNLEARN_RETAIN_PARAMS(loss) \
    {"retain_loss", PARAM_CHOICE, loss, 0, 0, "none|gd|kl", \
     "gd: cross-entropy; kl: divergence from the model before unlearning"}, \
    {"retain_weight", PARAM_FLOAT, "1", 0, 1e4, NULL, "weight of the retain term"}

#define UNLEARN_INPUTS(retain_required) \
    {"model", INPUT_CHECKPOINT, true, "model to unlearn from"}, \
    {"forget", INPUT_DATASET, true, "documents to forget"}, \
    {"retain", INPUT_DATASET, retain_required, "documents whose loss must not rise"}, \
    {"holdout", INPUT_DATASET, false, \
     "documents of the forget set's kind that were never trained on"}, \
    {"oracle", INPUT_CHECKPOINT, false, \
     "model retrained without the forget set, for stop: oracle_nll"}
/* clang-format on */

/* Opens everything the parameters and inputs name; sets run->step_count. */
int unlearn_open(struct run *run, struct unlearn *unlearn, const struct unlearn_method *method,
                 struct err *err) WARN_UNUSED;
/* Both terms, one update, metrics forget_loss, retain_loss, weight_mean, the norms of both
 * gradients; then evaluation and stop rules when due. */
int unlearn_step(struct run *run, struct unlearn *unlearn, struct err *err) WARN_UNUSED;
int unlearn_load(struct run *run, void *state, struct checkpoint_reader *reader,
                 struct err *err) WARN_UNUSED;
int unlearn_save(struct run *run, void *state, struct checkpoint_writer *writer,
                 struct err *err) WARN_UNUSED;
void unlearn_close(struct run *run, void *state);

#endif
