/* grad_diff.c - gradient difference: ascent on forget documents, descent on retain ones.
 *
 *   L = - forget_weight L(B_F) + retain_weight R(B_R)
 *
 * with R the cross-entropy (gd), or the divergence from the model before unlearning (kl, known
 * as KL minimisation). The sum says nothing by itself: watch the two terms. */
#include "worker/recipes/unlearning/unlearn.h"

static double grad_diff_weigh(const struct unlearn *unlearn, const struct forget_document *document)
{
    (void)unlearn;
    return -1.0 / (double)document->token_total;
}

static double grad_diff_value(const struct unlearn *unlearn, const struct forget_document *document)
{
    (void)unlearn;
    return -document->nll / (double)document->token_total;
}

const struct unlearn_method unlearn_grad_diff = {.retains = true,
                                                 .weigh = grad_diff_weigh,
                                                 .value = grad_diff_value};

static int grad_diff_open(struct run *run, void *state, struct err *err)
{
    return unlearn_open(run, state, &unlearn_grad_diff, err);
}

static int grad_diff_step(struct run *run, void *state, struct err *err)
{
    return unlearn_step(run, state, err);
}

static const struct param grad_diff_params[] = {UNLEARN_RETAIN_PARAMS("gd"), UNLEARN_PARAMS};
static const struct input grad_diff_inputs[] = {UNLEARN_INPUTS(true)};

const struct recipe recipe_unlearning_grad_diff = {
    .name = "grad_diff",
    .kind = RECIPE_UNLEARNING,
    .version = 1,
    .summary = "Unlearns by climbing the forget loss while descending the retain loss.",
    .source = "Liu et al. 2022; Maini et al. 2024 (GradDiff, KL)",
    .params = grad_diff_params,
    .param_count = ARRAY_COUNT(grad_diff_params),
    .inputs = grad_diff_inputs,
    .input_count = ARRAY_COUNT(grad_diff_inputs),
    .outputs = "checkpoint|metrics",
    .state_size = sizeof(struct unlearn),
    .open = grad_diff_open,
    .load = unlearn_load,
    .step = grad_diff_step,
    .save = unlearn_save,
    .close = unlearn_close,
};
