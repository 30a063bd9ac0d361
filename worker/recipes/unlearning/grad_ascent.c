/* grad_ascent.c - gradient ascent: climbs the loss of the forget documents.
 *
 *   L = - (1/N) sum of -log p over the N tokens of the batch
 *
 * It has no floor and its gradient never vanishes, so it destroys the model unless it is
 * stopped: give `stop`, or few steps. */
#include "worker/recipes/unlearning/unlearn.h"

static double grad_ascent_weigh(const struct unlearn *unlearn,
                                const struct forget_document *document)
{
    (void)unlearn;
    return -1.0 / (double)document->token_total;
}

static double grad_ascent_value(const struct unlearn *unlearn,
                                const struct forget_document *document)
{
    (void)unlearn;
    return -document->nll / (double)document->token_total;
}

const struct unlearn_method unlearn_grad_ascent = {.weigh = grad_ascent_weigh,
                                                   .value = grad_ascent_value};

static int grad_ascent_open(struct run *run, void *state, struct err *err)
{
    return unlearn_open(run, state, &unlearn_grad_ascent, err);
}

static int grad_ascent_step(struct run *run, void *state, struct err *err)
{
    return unlearn_step(run, state, err);
}

static const struct param grad_ascent_params[] = {UNLEARN_PARAMS};
static const struct input grad_ascent_inputs[] = {UNLEARN_INPUTS(false)};

const struct recipe recipe_unlearning_grad_ascent = {
    .name = "grad_ascent",
    .kind = RECIPE_UNLEARNING,
    .version = 1,
    .summary = "Unlearns by climbing the loss of the forget documents; no retain term.",
    .source = "Jang et al. 2022; Maini et al. 2024 (GA)",
    .params = grad_ascent_params,
    .param_count = ARRAY_COUNT(grad_ascent_params),
    .inputs = grad_ascent_inputs,
    .input_count = ARRAY_COUNT(grad_ascent_inputs),
    .outputs = "checkpoint|metrics",
    .state_size = sizeof(struct unlearn),
    .open = grad_ascent_open,
    .load = unlearn_load,
    .step = grad_ascent_step,
    .save = unlearn_save,
    .close = unlearn_close,
};
