/* npo.c - negative preference optimisation: ascent that lets go of what is forgotten.
 *
 *   L_forget = -(2/beta) mean_s log sigmoid(beta D_s),  D_s = l_theta(s) - l_theta0(s)
 *   d L_forget / d l(s) = -w_s / S,                     w_s = 2 sigmoid(-beta D_s)
 *
 * l(s) is the sum over the document's tokens and the mean is over the S documents of the
 * batch. At D = 0 the weight is 1 (a step of ascent); it falls to 0 as D grows past 1/beta, so
 * beta has the unit of one over the nats that a document should lose.
 * l_theta0 is cached per document: no second model in memory. */
#include "worker/recipes/unlearning/unlearn.h"

static double npo_weigh(const struct unlearn *unlearn, const struct forget_document *document)
{
    return -loss_npo_weight(document->nll, document->reference_nll, unlearn->beta) /
           (double)document->document_total;
}

static double npo_value(const struct unlearn *unlearn, const struct forget_document *document)
{
    return loss_npo_value(document->nll, document->reference_nll, unlearn->beta) /
           (double)document->document_total;
}

const struct unlearn_method unlearn_npo = {.retains = true,
                                           .sequence_losses = true,
                                           .weigh = npo_weigh,
                                           .value = npo_value};

/* With few tokens a small beta never saturates, and NPO is plain ascent. */
static void npo_warn(struct run *run, const struct unlearn *npo)
{
    double tokens = (double)npo->forget.part->token_count / (double)corpus_count(&npo->forget);

    if (npo->beta * tokens < 1)
        run_event(run, "weak_beta",
                  "beta times the mean tokens of a forget document is under 1: "
                  "npo will act like gradient ascent; raise beta");
}

static int npo_open(struct run *run, void *state, struct err *err)
{
    struct unlearn *npo = state;

    npo->beta = run_float(run, "beta");
    if (unlearn_open(run, npo, &unlearn_npo, err) < 0)
        return -1;
    npo_warn(run, npo);
    return 0;
}

static int npo_step(struct run *run, void *state, struct err *err)
{
    return unlearn_step(run, state, err);
}

static const struct param npo_params[] = {
    {"beta", PARAM_FLOAT, "0.1", 1e-6, 100, NULL,
     "how soon a document counts as forgotten, per nat of its loss"},
    UNLEARN_RETAIN_PARAMS("gd"),
    UNLEARN_PARAMS,
};
static const struct input npo_inputs[] = {UNLEARN_INPUTS(true)};

const struct recipe recipe_unlearning_npo = {
    .name = "npo",
    .kind = RECIPE_UNLEARNING,
    .version = 1,
    .summary = "Unlearns by ascent whose weight on a document fades once it is forgotten.",
    .source = "Zhang et al. 2024 (NPO), equations as in its released code",
    .params = npo_params,
    .param_count = ARRAY_COUNT(npo_params),
    .inputs = npo_inputs,
    .input_count = ARRAY_COUNT(npo_inputs),
    .outputs = "checkpoint|metrics",
    .state_size = sizeof(struct unlearn),
    .open = npo_open,
    .load = unlearn_load,
    .step = npo_step,
    .save = unlearn_save,
    .close = unlearn_close,
};
