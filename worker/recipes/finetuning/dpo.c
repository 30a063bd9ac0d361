/* dpo.c - recipe finetuning/dpo: a model learns to prefer one response of a prompt to another.
 *
 * With D = (lp_w - ref_w) - (lp_l - ref_l), lp the log probability of a response under the model
 * and ref under the model it started from, the mean over pairs of
 *   sigmoid  -(1 - e) log s(beta D) - e log s(-beta D)      Rafailov et al. 2023, eq. 7
 *   ipo      (D - 1 / (2 beta))^2                           Azar et al. 2023, eq. 17
 *   hinge    max(0, 1 - beta D)                             Zhao et al. 2023
 * Log probabilities are sums over the response's tokens, or means of them (logp: mean; `auto` takes
 * means for ipo, as its implementations do). The reference is scored once, when the job starts.
 * Pairs are documents of two parts: document i of `chosen` and of `rejected` have the same prompt.
 * State: model (or adapters), AdamW moments and the step number. */
#include "common/base/mem.h"
#include "worker/engine/comm.h"
#include "worker/recipes/order.h"
#include "worker/recipes/score.h"
#include "worker/recipes/train.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum preference { PREFER_SIGMOID = 1, PREFER_IPO, PREFER_HINGE };

/* Two parts whose documents belong together, and what the reference says of them. */
struct pairs {
    struct corpus side[2]; /* chosen, rejected */
    double *reference[2];  /* log p of each response */
};

struct dpo {
    struct trainer trainer;
    struct pairs train, valid;
    struct scorer scorer;
    struct pack pack;
    float *weight; /* a cell of the largest pass */
    enum preference loss;
    double beta, smoothing;
    bool means;
    int64_t eval_every;
};

/* Sums over pairs. */
struct tally {
    double loss, chosen, rejected, margin, correct, logp_chosen, logp_rejected, pairs;
};
_Static_assert(sizeof(struct tally) == 8 * sizeof(double), "summed as an array of doubles");

/* -- the loss of one pair ------------------------------------------------------------------- */

static double log_sigmoid(double x)
{
    return x >= 0 ? -log1p(exp(-x)) : x - log1p(exp(x));
}

/* The loss of a difference D; *slope is its derivative. */
static double pair_loss(const struct dpo *dpo, double D, double *slope)
{
    double beta = dpo->beta, e = dpo->smoothing, x = beta * D;

    switch (dpo->loss) {
    case PREFER_SIGMOID:
        *slope = beta * (e * exp(log_sigmoid(x)) - (1 - e) * exp(log_sigmoid(-x)));
        return -(1 - e) * log_sigmoid(x) - e * log_sigmoid(-x);
    case PREFER_IPO:
        *slope = 2 * (D - 0.5 / beta);
        return (D - 0.5 / beta) * (D - 0.5 / beta);
    case PREFER_HINGE:
        *slope = x < 1 ? -beta : 0;
        return x < 1 ? 1 - x : 0;
    }
    CHECK(!"preference is known");
    return 0;
}

/* One response: its negative log probability and number of tokens. */
struct response {
    double nll, tokens;
};

/* What a response counts in D: its sum, or its mean. */
static double reduced(const struct dpo *dpo, double sum, double tokens)
{
    return dpo->means && tokens > 0 ? sum / tokens : sum;
}

/* Adds a pair to the tally; gives the derivative of its loss by D. */
static double tally_pair(const struct dpo *dpo, const struct pairs *pairs, int64_t item,
                         const struct response response[2], struct tally *tally)
{
    double gain[2], slope;

    for (int side = 0; side < 2; side++)
        gain[side] = reduced(dpo, -response[side].nll - pairs->reference[side][item],
                             response[side].tokens);
    tally->loss += pair_loss(dpo, gain[0] - gain[1], &slope);
    tally->chosen += dpo->beta * gain[0];
    tally->rejected += dpo->beta * gain[1];
    tally->margin += dpo->beta * (gain[0] - gain[1]);
    tally->correct += gain[0] > gain[1];
    tally->logp_chosen -= response[0].nll;
    tally->logp_rejected -= response[1].nll;
    tally->pairs += 1;
    return slope;
}

static void report_tally(struct run *run, const char *prefix, const struct tally *t)
{
    const struct {
        const char *name;
        double value;
    } metrics[] = {{"loss", t->loss},
                   {"reward_chosen", t->chosen},
                   {"reward_rejected", t->rejected},
                   {"reward_margin", t->margin},
                   {"reward_accuracy", t->correct},
                   {"logp_chosen", t->logp_chosen},
                   {"logp_rejected", t->logp_rejected}};

    for (size_t i = 0; i < ARRAY_COUNT(metrics); i++) {
        char *name = mem_printf("%s%s", prefix, metrics[i].name);

        run_metric(run, name, metrics[i].value / t->pairs);
        mem_free(name);
    }
}

/* -- opening -------------------------------------------------------------------------------- */

/* Cells up to the separator, which both documents of a pair must share. */
static int64_t prompt_of(struct corpus *corpus, int64_t item, int64_t T, int32_t *token,
                         int32_t *target)
{
    int64_t cells = corpus_document(corpus, item, T, token, target, NULL);

    for (int64_t i = 0; i < cells; i++)
        if (target[i] >= 0)
            return i + 1;
    return cells;
}

static int check_prompts(struct pairs *pairs, int64_t T, struct err *err)
{
    int32_t *cells = mem_array(4 * (size_t)T, sizeof *cells);
    int rc = 0;

    for (int64_t i = 0; i < corpus_count(&pairs->side[0]) && rc == 0; i++) {
        int64_t a = prompt_of(&pairs->side[0], i, T, cells, cells + T);
        int64_t b = prompt_of(&pairs->side[1], i, T, cells + 2 * T, cells + 3 * T);

        if (a != b || memcmp(cells, cells + 2 * T, (size_t)a * sizeof *cells) != 0)
            rc = err_set(err, ERR_INVALID, "document %lld of input '%s' and of input '%s' have "
                         "different prompts; pairs are documents of the same number",
                         (long long)i, pairs->side[0].input, pairs->side[1].input);
    }
    mem_free(cells);
    return rc;
}

/* The reference's log probabilities: the model as it is now. */
static int score_reference(struct dpo *dpo, struct pairs *pairs, struct err *err)
{
    for (int side = 0; side < 2; side++) {
        struct score_source source = score_documents(&pairs->side[side], 0);

        pairs->reference[side] = calloc((size_t)source.count, sizeof(double));
        if (!pairs->reference[side])
            return err_set(err, ERR_MEMORY, "cannot allocate %lld scores of the reference",
                           (long long)source.count);
        if (score_each(&dpo->scorer, &source, dpo->trainer.model, pairs->reference[side], err) < 0)
            return err_wrap(err, "scores of the reference");
        for (int64_t i = 0; i < source.count; i++)
            pairs->reference[side][i] = -pairs->reference[side][i];
    }
    return 0;
}

static int open_pairs(struct run *run, struct dpo *dpo, const char *chosen, const char *rejected,
                      struct pairs *pairs, struct err *err)
{
    const char *names[2] = {chosen, rejected};

    for (int side = 0; side < 2; side++)
        if (corpus_open(run, names[side], &pairs->side[side], err) < 0 ||
            corpus_mask_prompts(&pairs->side[side], run_string(run, "separator"), err) < 0 ||
            corpus_match_model(&pairs->side[side], run_input(run, "init")->path,
                               dpo->trainer.model, err) < 0)
            return -1;
    if (corpus_count(&pairs->side[0]) != corpus_count(&pairs->side[1]))
        return err_set(err, ERR_INVALID, "input '%s' has %lld documents and input '%s' %lld; "
                       "pairs are documents of the same number", chosen,
                       (long long)corpus_count(&pairs->side[0]), rejected,
                       (long long)corpus_count(&pairs->side[1]));
    if (check_prompts(pairs, dpo->trainer.model->config.context, err) < 0)
        return -1;
    return score_reference(dpo, pairs, err);
}

static void close_pairs(struct pairs *pairs)
{
    for (int side = 0; side < 2; side++) {
        corpus_close(&pairs->side[side]);
        free(pairs->reference[side]);
    }
}

static int read_params(struct run *run, struct dpo *dpo, struct err *err)
{
    const char *loss = run_string(run, "loss"), *logp = run_string(run, "logp");

    dpo->loss = strcmp(loss, "ipo") == 0     ? PREFER_IPO
                : strcmp(loss, "hinge") == 0 ? PREFER_HINGE
                                             : PREFER_SIGMOID;
    dpo->beta = run_float(run, "beta");
    dpo->smoothing = run_float(run, "label_smoothing");
    dpo->means = strcmp(logp, "mean") == 0 ||
                 (strcmp(logp, "auto") == 0 && dpo->loss == PREFER_IPO);
    if (dpo->smoothing > 0 && dpo->loss != PREFER_SIGMOID)
        return err_set(err, ERR_INVALID, "parameter 'label_smoothing' is %g, but loss is %s: it "
                       "belongs to sigmoid", dpo->smoothing, loss);
    if (!*run_string(run, "separator"))
        return err_set(err, ERR_INVALID, "parameter 'separator' is empty: only responses are "
                       "compared, so it must say where they begin");
    return 0;
}

static int open_model(struct run *run, struct dpo *dpo, struct err *err)
{
    bool adapts = run_int(run, "lora_rank") > 0;

    if (run_writer_open(run, "init", dpo->trainer.device, !adapts, &dpo->trainer.model, err) < 0)
        return -1;
    return adapts ? trainer_adapt(&dpo->trainer, err) : 0;
}

static int open_room(struct dpo *dpo, struct err *err)
{
    int64_t T = dpo->trainer.model->config.context, rows = 2 * trainer_pass_most(&dpo->trainer);

    dpo->weight = malloc((size_t)(rows * T) * sizeof *dpo->weight);
    if (!dpo->weight)
        return err_set(err, ERR_MEMORY, "cannot allocate weights of %lld rows", (long long)rows);
    return pack_init(&dpo->pack, T, rows, err);
}

/* The reference is scored before a checkpoint is loaded, so a resume finds the same. */
static int dpo_open(struct run *run, void *state, struct err *err)
{
    struct dpo *dpo = state;
    struct trainer *trainer = &dpo->trainer;

    run->step_count = (uint64_t)run_int(run, "steps");
    dpo->eval_every = run_int(run, "eval_every");
    if (read_params(run, dpo, err) < 0 || trainer_open(run, trainer, err) < 0 ||
        open_model(run, dpo, err) < 0 || trainer_start(trainer, err) < 0 ||
        open_room(dpo, err) < 0 ||
        scorer_open(run->comm, trainer->device, trainer->model->config.context, &dpo->scorer,
                    err) < 0 ||
        open_pairs(run, dpo, "chosen", "rejected", &dpo->train, err) < 0)
        return -1;
    for (int side = 0; side < 2; side++)
        order_tell(trainer, &dpo->train.side[side], trainer->seed, NULL);
    if (!run_input(run, "valid_chosen") != !run_input(run, "valid_rejected"))
        return err_set(err, ERR_INVALID, "inputs 'valid_chosen' and 'valid_rejected' belong "
                       "together: give both or none");
    if (!run_input(run, "valid_chosen"))
        return 0;
    return open_pairs(run, dpo, "valid_chosen", "valid_rejected", &dpo->valid, err);
}

/* -- one step ------------------------------------------------------------------------------- */

/* Both responses of every pair of this pass, side by side. */
static void fill(struct dpo *dpo, int64_t pass)
{
    const struct trainer *trainer = &dpo->trainer;
    int64_t T = dpo->pack.T, count;
    int32_t *cells = mem_array(2 * (size_t)T, sizeof *cells);
    uint64_t first, documents = (uint64_t)corpus_count(&dpo->train.side[0]);

    pack_clear(&dpo->pack);
    trainer_share(trainer, pass, &first, &count);
    for (int64_t i = 0; i < count; i++) {
        int64_t item = (int64_t)sampler_item(trainer->seed, documents, first + (uint64_t)i);

        for (int side = 0; side < 2; side++) {
            int64_t length = corpus_document(&dpo->train.side[side], item, T, cells, cells + T,
                                             NULL);

            CHECK(pack_add(&dpo->pack, item, cells, cells + T, length));
        }
    }
    mem_free(cells);
}

static struct response read_response(const struct dpo *dpo, const struct pack_span *span,
                                     const float *nll)
{
    struct response out = {0};

    for (int64_t n = span->start; n < span->start + span->count; n++)
        if (dpo->pack.target[n] >= 0) {
            out.nll += nll[n];
            out.tokens += 1;
        }
    return out;
}

/* d loss / d nll of a response's tokens: -slope for the chosen one, +slope for the other, over its
 * tokens where means are compared. */
static void weigh(struct dpo *dpo, const struct pack_span *span, double each)
{
    for (int64_t n = span->start; n < span->start + span->count; n++)
        dpo->weight[n] = dpo->pack.target[n] >= 0 ? (float)each : 0.0f;
}

static void weigh_pairs(struct dpo *dpo, const float *nll, struct tally *tally)
{
    memset(dpo->weight, 0, (size_t)pack_cells(&dpo->pack) * sizeof *dpo->weight);
    for (int64_t i = 0; i < dpo->pack.span_count; i += 2) {
        const struct pack_span *span = &dpo->pack.span[i];
        struct response response[2] = {read_response(dpo, span, nll),
                                       read_response(dpo, span + 1, nll)};
        double slope = tally_pair(dpo, &dpo->train, span->item, response, tally) /
                       (double)dpo->trainer.batch;

        weigh(dpo, span, -reduced(dpo, slope, response[0].tokens));
        weigh(dpo, span + 1, reduced(dpo, slope, response[1].tokens));
    }
}

static int dpo_pass(struct dpo *dpo, int64_t pass, struct tally *tally, struct err *err)
{
    struct trainer *trainer = &dpo->trainer;
    struct loss_head head = {.head = trainer->model->head, .ce_weight = dpo->weight};
    struct loss_values values = {0};
    struct model_batch batch;
    float *nll;
    int rc;

    fill(dpo, pass);
    batch = pack_batch(&dpo->pack);
    head.target = dpo->pack.target;
    if (trainer_forward(trainer, &batch, &head.hidden, err) < 0)
        return -1;
    nll = mem_array((size_t)pack_cells(&dpo->pack), sizeof *nll);
    rc = loss_nll(trainer->tape, head.hidden, head.head, head.target, nll, err);
    if (rc == 0) {
        weigh_pairs(dpo, nll, tally);
        rc = loss_head(trainer->tape, &head, &values, err);
    }
    mem_free(nll);
    return rc == 0 ? trainer_backward(trainer, err) : -1;
}

/* Tokens of a response, as the reference counted them. */
static double count_targets(struct corpus *corpus, int64_t item, int64_t T, int32_t *cells)
{
    int64_t length = corpus_document(corpus, item, T, cells, cells + T, NULL);
    double count = 0;

    for (int64_t i = 0; i < length; i++)
        count += cells[T + i] >= 0;
    return count;
}

static int validate(struct run *run, struct dpo *dpo, struct err *err)
{
    int64_t count = corpus_count(&dpo->valid.side[0]), T = dpo->trainer.model->config.context;
    double *nll[2] = {mem_zalloc((size_t)count * sizeof(double)),
                      mem_zalloc((size_t)count * sizeof(double))};
    int32_t *cells = mem_array(2 * (size_t)T, sizeof *cells);
    struct tally tally = {0};
    int rc = 0;

    for (int side = 0; side < 2 && rc == 0; side++) {
        struct score_source source = score_documents(&dpo->valid.side[side], 0);

        rc = score_each(&dpo->scorer, &source, dpo->trainer.model, nll[side], err);
    }
    for (int64_t i = 0; i < count && rc == 0; i++) {
        struct response response[2];

        for (int side = 0; side < 2; side++)
            response[side] = (struct response){
                nll[side][i], count_targets(&dpo->valid.side[side], i, T, cells)};
        tally_pair(dpo, &dpo->valid, i, response, &tally);
    }
    if (rc == 0)
        report_tally(run, "val_", &tally);
    mem_free(nll[0]);
    mem_free(nll[1]);
    mem_free(cells);
    return rc;
}

static int dpo_step(struct run *run, void *state, struct err *err)
{
    struct dpo *dpo = state;
    uint64_t done = run->step + 1;
    struct tally tally = {0};
    int64_t tokens = 0;

    for (int64_t pass = 0; pass < dpo->trainer.pass_count; pass++) {
        if (dpo_pass(dpo, pass, &tally, err) < 0)
            return -1;
        tokens += dpo->pack.target_count;
    }
    comm_sum_f64(run->comm, &tally.loss, 8);
    comm_sum_i64(run->comm, &tokens, 1);
    report_tally(run, "", &tally);
    if (trainer_update(&dpo->trainer, err) < 0)
        return -1;
    trainer_speed(&dpo->trainer, tokens);
    if (!corpus_is_open(&dpo->valid.side[0]) ||
        (done != run->step_count &&
         (dpo->eval_every == 0 || done % (uint64_t)dpo->eval_every != 0)))
        return 0;
    return validate(run, dpo, err);
}

static int dpo_load(struct run *run, void *state, struct checkpoint_reader *reader,
                    struct err *err)
{
    (void)run;
    return trainer_load(&((struct dpo *)state)->trainer, reader, err);
}

static int dpo_save(struct run *run, void *state, struct checkpoint_writer *writer,
                    struct err *err)
{
    struct dpo *dpo = state;

    (void)run;
    if (trainer_save(&dpo->trainer, writer, err) < 0)
        return -1;
    return checkpoint_copy_tokenizer(writer, dataset_path(dpo->train.side[0].dataset), err);
}

static void dpo_close(struct run *run, void *state)
{
    struct dpo *dpo = state;

    (void)run;
    free(dpo->weight);
    pack_done(&dpo->pack);
    scorer_close(&dpo->scorer);
    close_pairs(&dpo->valid);
    close_pairs(&dpo->train);
    trainer_close(&dpo->trainer);
}

static const struct param dpo_params[] = {
    {"loss", PARAM_CHOICE, "sigmoid", 0, 0, "sigmoid|ipo|hinge", "what a preference costs"},
    {"beta", PARAM_FLOAT, "0.1", 0.001, 5, NULL,
     "how much the model is held to where it started; rewards are beta times log ratios"},
    {"label_smoothing", PARAM_FLOAT, "0", 0, 0.49, NULL,
     "share of the preferences taken to be the wrong way round (sigmoid)"},
    {"logp", PARAM_CHOICE, "auto", 0, 0, "auto|sum|mean",
     "log probability of a response: sum or mean over its tokens; auto: sum, for ipo mean"},
    {"separator", PARAM_STRING, "\n", 0, 0, NULL,
     "one token between prompt and response, its last place in a document"},
    {"steps", PARAM_INT, "100", 1, 1e9, NULL, "optimiser steps"},
    {"eval_every", PARAM_INT, "50", 0, 1e9, NULL,
     "steps between validations; 0: only after the last step"},
    LORA_PARAMS,
    TRAIN_PARAMS("1e-5", "linear", "32", "0"),
};

static const struct input dpo_inputs[] = {
    {"chosen", INPUT_DATASET, true, "documents of a prompt, the separator and the better response"},
    {"rejected", INPUT_DATASET, true, "the same prompts in the same order, the worse responses"},
    {"valid_chosen", INPUT_DATASET, false, "the same for val_loss, val_reward_accuracy and others"},
    {"valid_rejected", INPUT_DATASET, false, "its counterpart"},
    {"init", INPUT_CHECKPOINT, true, "model to start from, which is also the reference"},
};

const struct recipe recipe_finetuning_dpo = {
    .name = "dpo",
    .kind = RECIPE_FINETUNING,
    .version = 1,
    .summary = "Trains a model on which of two responses is preferred.",
    .source = "Rafailov et al. 2023 (DPO), eq. 7; Azar et al. 2023 (IPO), eq. 17",
    .params = dpo_params,
    .param_count = ARRAY_COUNT(dpo_params),
    .inputs = dpo_inputs,
    .input_count = ARRAY_COUNT(dpo_inputs),
    .outputs = "checkpoint|metrics",
    .state_size = sizeof(struct dpo),
    .open = dpo_open,
    .load = dpo_load,
    .step = dpo_step,
    .save = dpo_save,
    .close = dpo_close,
};
