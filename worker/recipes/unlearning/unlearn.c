/* unlearn.c - see unlearn.h. */
#include "worker/recipes/unlearning/unlearn.h"

#include "worker/engine/comm.h"
#include "worker/recipes/order.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A second stream of the seed, so that retain order is not the forget order. */
#define RETAIN_STREAM UINT64_C(0x72657461696e)

/* -- opening ------------------------------------------------------------------------------ */

static void read_params(struct run *run, struct unlearn *unlearn)
{
    const char *stop = run_string(run, "stop");

    unlearn->forget_weight = run_float(run, "forget_weight");
    unlearn->eval_every = run_int(run, "eval_every");
    unlearn->eval_documents = run_int(run, "eval_documents");
    unlearn->stop = strcmp(stop, "oracle_nll") == 0    ? STOP_ORACLE_NLL
                    : strcmp(stop, "holdout_nll") == 0 ? STOP_HOLDOUT_NLL
                                                       : STOP_NONE;
    unlearn->retain_loss = RETAIN_NONE;
    if (unlearn->method->retains) {
        const char *loss = run_string(run, "retain_loss");

        unlearn->retain_weight = run_float(run, "retain_weight");
        unlearn->retain_loss = strcmp(loss, "gd") == 0   ? RETAIN_GD
                               : strcmp(loss, "kl") == 0 ? RETAIN_KL
                                                         : RETAIN_NONE;
    }
}

static int open_corpora(struct run *run, struct unlearn *unlearn, struct err *err)
{
    if (corpus_open(run, "forget", &unlearn->forget, err) < 0)
        return -1;
    if (run_input(run, "retain") && (corpus_open(run, "retain", &unlearn->retain, err) < 0 ||
                                     corpus_match(&unlearn->retain, &unlearn->forget, err) < 0))
        return -1;
    if (run_input(run, "holdout") && (corpus_open(run, "holdout", &unlearn->holdout, err) < 0 ||
                                      corpus_match(&unlearn->holdout, &unlearn->forget, err) < 0))
        return -1;
    if (unlearn->retain_loss != RETAIN_NONE && !corpus_is_open(&unlearn->retain))
        return err_set(err, ERR_INVALID,
                       "a retain term needs the input 'retain'; give it, or set "
                       "parameter 'retain_loss' to none");
    if (unlearn->stop == STOP_HOLDOUT_NLL && !corpus_is_open(&unlearn->holdout))
        return err_set(err, ERR_INVALID,
                       "parameter 'stop' is holdout_nll, which needs the input "
                       "'holdout'");
    if (unlearn->stop == STOP_ORACLE_NLL && !run_input(run, "oracle"))
        return err_set(err, ERR_INVALID,
                       "parameter 'stop' is oracle_nll, which needs the input "
                       "'oracle': a model retrained without the forget set");
    return 0;
}

static int open_models(struct run *run, struct unlearn *unlearn, struct err *err)
{
    struct trainer *trainer = &unlearn->trainer;
    struct device *device = trainer->device;
    int64_t T, most;

    if (run_writer_open(run, "model", device, true, &trainer->model, err) < 0 ||
        corpus_match_model(&unlearn->forget, run_input(run, "model")->path, trainer->model, err) <
            0)
        return -1;
    if (unlearn->retain_loss == RETAIN_KL &&
        (model_clone_frozen(trainer->model, device, &unlearn->reference, err) < 0 ||
         tape_new(device, TAPE_INFER, &unlearn->reference_tape, err) < 0))
        return -1;
    T = trainer->model->config.context;
    most = trainer_pass_most(trainer);
    unlearn->weight = malloc((size_t)(T * most) * sizeof *unlearn->weight);
    unlearn->nll = calloc((size_t)(T * most), sizeof *unlearn->nll);
    unlearn->zero = calloc((size_t)(T * most), sizeof *unlearn->zero);
    if (!unlearn->weight || !unlearn->nll || !unlearn->zero)
        return err_set(err, ERR_MEMORY, "cannot allocate weights of %lld documents",
                       (long long)most);
    if (pack_init(&unlearn->pack, T, most, err) < 0)
        return -1;
    return scorer_open(run->comm, device, T, &unlearn->scorer, err);
}

static int mean_loss(struct unlearn *unlearn, struct corpus *corpus, const struct model *model,
                     double *out, struct err *err)
{
    struct score_source source = score_documents(corpus, unlearn->eval_documents);
    struct score_sum sum;

    if (score_total(&unlearn->scorer, &source, model, NULL, &sum, err) < 0)
        return -1;
    *out = sum.nll / sum.tokens;
    return 0;
}

static int oracle_level(struct run *run, struct unlearn *unlearn, struct err *err)
{
    struct model *oracle = NULL;
    int rc = -1;

    if (run_writer_open(run, "oracle", unlearn->trainer.device, false, &oracle, err) == 0 &&
        corpus_match_model(&unlearn->forget, run_input(run, "oracle")->path, oracle, err) == 0)
        rc = mean_loss(unlearn, &unlearn->forget, oracle, &unlearn->stop_level, err);
    model_free(oracle);
    return rc;
}

/* All of this is a function of theta_0 and the inputs, so a resumed job finds it again. */
static int measure_start(struct run *run, struct unlearn *unlearn, struct err *err)
{
    const struct model *start = unlearn->trainer.model;
    struct score_source forget = score_documents(&unlearn->forget, 0);
    double abort_factor = run_float(run, "retain_abort");
    double retain;

    if (unlearn->method->sequence_losses) {
        unlearn->reference_nll = malloc((size_t)forget.count * sizeof *unlearn->reference_nll);
        if (!unlearn->reference_nll)
            return err_set(err, ERR_MEMORY, "cannot allocate %lld reference losses",
                           (long long)forget.count);
        if (score_each(&unlearn->scorer, &forget, start, unlearn->reference_nll, err) < 0)
            return -1;
    }
    if (unlearn->stop == STOP_HOLDOUT_NLL &&
        mean_loss(unlearn, &unlearn->holdout, start, &unlearn->stop_level, err) < 0)
        return -1;
    if (unlearn->stop == STOP_ORACLE_NLL && oracle_level(run, unlearn, err) < 0)
        return -1;
    if (unlearn->stop != STOP_NONE)
        run_note(run, "stops when the forget loss reaches %.4f nats a token", unlearn->stop_level);
    if (abort_factor > 0 && corpus_is_open(&unlearn->retain)) {
        if (mean_loss(unlearn, &unlearn->retain, start, &retain, err) < 0)
            return -1;
        unlearn->retain_limit = abort_factor * retain + 0.1;
    }
    return 0;
}

int unlearn_open(struct run *run, struct unlearn *unlearn, const struct unlearn_method *method,
                 struct err *err)
{
    struct trainer *trainer = &unlearn->trainer;
    double epoch;

    unlearn->method = method;
    read_params(run, unlearn);
    if (open_corpora(run, unlearn, err) < 0 || trainer_open(run, trainer, err) < 0 ||
        open_models(run, unlearn, err) < 0)
        return -1;
    epoch = (double)corpus_count(&unlearn->forget) / (double)trainer->batch;
    run->step_count = (uint64_t)run_int(run, "steps");
    if (run->step_count == 0)
        run->step_count = (uint64_t)ceil(run_float(run, "epochs") * epoch);
    if (unlearn->eval_every == 0)
        unlearn->eval_every = (int64_t)ceil(epoch);
    if (trainer_start(trainer, err) < 0)
        return -1;
    order_tell(trainer, &unlearn->forget, trainer->seed, NULL);
    if (unlearn->retain_loss != RETAIN_NONE)
        order_tell(trainer, &unlearn->retain, trainer->seed ^ RETAIN_STREAM, NULL);
    return measure_start(run, unlearn, err);
}

/* -- the two terms ------------------------------------------------------------------------ */

struct forget_sums {
    double objective; /* forget_weight excluded                                  */
    double nll;       /* sum over tokens                                         */
    double weight;    /* sum of |weight| over documents: the mean of NPO's w_s   */
};

/* Targets of this step's batch over all passes and ranks. */
static int64_t batch_targets(struct unlearn *unlearn, struct corpus *corpus, uint64_t seed)
{
    int64_t count = 0;

    for (int64_t pass = 0; pass < unlearn->trainer.pass_count; pass++) {
        trainer_documents(&unlearn->trainer, corpus, seed, pass, &unlearn->pack);
        count += unlearn->pack.target_count;
    }
    comm_sum_i64(unlearn->trainer.run->comm, &count, 1);
    return count;
}

static double span_nll(const struct unlearn *unlearn, const struct pack_span *span)
{
    double nll = 0;

    for (int64_t i = span->start; i < span->start + span->count; i++)
        nll += unlearn->pack.target[i] >= 0 ? (double)unlearn->nll[i] : 0;
    return nll;
}

static struct forget_document describe(const struct unlearn *unlearn, const struct pack_span *span,
                                       int64_t token_total)
{
    const double *reference = unlearn->reference_nll;

    return (struct forget_document){.nll = span_nll(unlearn, span),
                                    .reference_nll = reference ? reference[span->item] : 0,
                                    .count = span->count,
                                    .token_total = token_total,
                                    .document_total = unlearn->trainer.batch};
}

/* Gives every token of every document its weight. */
static void weigh_forget(struct unlearn *unlearn, int64_t token_total, struct forget_sums *sums)
{
    const struct pack *pack = &unlearn->pack;

    memset(unlearn->weight, 0, (size_t)pack_cells(pack) * sizeof *unlearn->weight);
    for (int64_t s = 0; s < pack->span_count; s++) {
        const struct pack_span *span = &pack->span[s];
        struct forget_document document = describe(unlearn, span, token_total);
        double weight = unlearn->method->weigh(unlearn, &document);

        sums->weight += fabs(weight);
        for (int64_t i = span->start; i < span->start + span->count; i++)
            unlearn->weight[i] = (float)(unlearn->forget_weight * weight);
    }
}

static void sum_forget(const struct unlearn *unlearn, int64_t token_total, struct forget_sums *sums)
{
    for (int64_t s = 0; s < unlearn->pack.span_count; s++) {
        struct forget_document document = describe(unlearn, &unlearn->pack.span[s], token_total);

        sums->objective += unlearn->method->value(unlearn, &document);
        sums->nll += document.nll;
    }
}

static int forget_pass(struct unlearn *unlearn, int64_t pass, int64_t token_total,
                       struct forget_sums *sums, struct err *err)
{
    struct trainer *trainer = &unlearn->trainer;
    struct pack *pack = &unlearn->pack;
    struct loss_head head = {.head = trainer->model->head,
                             .target = pack->target,
                             .ce_weight = unlearn->weight};
    struct loss_values values = {.nll = unlearn->nll};
    struct model_batch rows;

    trainer_documents(trainer, &unlearn->forget, trainer->seed, pass, pack);
    rows = pack_batch(pack);
    if (trainer_forward(trainer, &rows, &head.hidden, err) < 0)
        return -1;
    if (unlearn->method->sequence_losses &&
        loss_nll(trainer->tape, head.hidden, head.head, pack->target, unlearn->nll, err) < 0)
        return -1;
    weigh_forget(unlearn, token_total, sums);
    if (loss_head(trainer->tape, &head, &values, err) < 0)
        return -1;
    sum_forget(unlearn, token_total, sums);
    return tape_backward(trainer->tape, err);
}

/* Fills head's divergence from theta_0 on the same rows. */
static int reference_term(struct unlearn *unlearn, const struct model_batch *rows,
                          struct loss_head *head, struct err *err)
{
    struct model_states states = {0};

    tape_reset(unlearn->reference_tape);
    if (model_forward(unlearn->reference_tape, unlearn->reference, rows, &states, err) < 0)
        return -1;
    head->divergence = DIVERGENCE_FORWARD_KL;
    head->teacher_hidden = states.hidden;
    head->teacher_head = unlearn->reference->head;
    head->kd_weight = unlearn->weight;
    head->ce_weight = unlearn->zero;
    return 0;
}

/* sums: cross-entropy, and divergence from theta_0, of this rank's tokens. */
static int retain_pass(struct unlearn *unlearn, int64_t pass, int64_t token_total, double sums[2],
                       struct err *err)
{
    struct trainer *trainer = &unlearn->trainer;
    struct pack *pack = &unlearn->pack;
    struct loss_head head = {.head = trainer->model->head,
                             .target = pack->target,
                             .ce_weight = unlearn->weight};
    struct loss_values values = {.nll = unlearn->nll};
    struct model_batch rows;

    trainer_documents(trainer, &unlearn->retain, trainer->seed ^ RETAIN_STREAM, pass, pack);
    rows = pack_batch(pack);
    for (int64_t i = 0; i < pack_cells(pack); i++)
        unlearn->weight[i] =
            pack->target[i] >= 0 ? (float)(unlearn->retain_weight / (double)token_total) : 0.0f;
    if (unlearn->retain_loss == RETAIN_KL && reference_term(unlearn, &rows, &head, err) < 0)
        return -1;
    if (trainer_forward(trainer, &rows, &head.hidden, err) < 0 ||
        loss_head(trainer->tape, &head, &values, err) < 0)
        return -1;
    for (int64_t i = 0; i < pack_cells(pack); i++)
        sums[0] += pack->target[i] >= 0 ? (double)unlearn->nll[i] : 0;
    sums[1] += unlearn->retain_loss == RETAIN_KL ? values.total : 0;
    return tape_backward(trainer->tape, err);
}

static int forget_term(struct run *run, struct unlearn *unlearn, int64_t *out_tokens,
                       struct err *err)
{
    int64_t tokens = batch_targets(unlearn, &unlearn->forget, unlearn->trainer.seed);
    struct forget_sums sums = {0};

    for (int64_t pass = 0; pass < unlearn->trainer.pass_count; pass++) {
        if (forget_pass(unlearn, pass, tokens, &sums, err) < 0)
            return -1;
    }
    comm_sum_f64(run->comm, &sums.objective, 3);
    run_metric(run, "forget_loss", sums.nll / (double)tokens);
    run_metric(run, "forget_objective", sums.objective);
    if (unlearn->method->sequence_losses)
        run_metric(run, "weight_mean", sums.weight);
    *out_tokens = tokens;
    return 0;
}

_Static_assert(sizeof(struct forget_sums) == 3 * sizeof(double), "summed as an array of doubles");

static int retain_term(struct run *run, struct unlearn *unlearn, int64_t *out_tokens,
                       struct err *err)
{
    uint64_t seed = unlearn->trainer.seed ^ RETAIN_STREAM;
    int64_t tokens = batch_targets(unlearn, &unlearn->retain, seed);
    double sums[2] = {0, 0};
    double norm;

    if (trainer_grad_park(&unlearn->trainer, &norm, err) < 0)
        return -1;
    run_metric(run, "forget_grad_norm", norm);
    for (int64_t pass = 0; pass < unlearn->trainer.pass_count; pass++) {
        if (retain_pass(unlearn, pass, tokens, sums, err) < 0)
            return -1;
    }
    if (trainer_grad_join(&unlearn->trainer, &norm, err) < 0)
        return -1;
    comm_sum_f64(run->comm, sums, 2);
    run_metric(run, "retain_grad_norm", norm);
    run_metric(run, "retain_loss", sums[0] / (double)tokens);
    if (unlearn->retain_loss == RETAIN_KL)
        run_metric(run, "retain_kl_term", sums[1]);
    *out_tokens += tokens;
    return 0;
}

/* -- evaluation and stop rules ------------------------------------------------------------ */

static void end_here(struct run *run, const char *event, const char *text)
{
    run_event(run, event, text);
    run_note(run, "%s", text);
    run->step_count = run->step + 1;
}

static void apply_rules(struct run *run, const struct unlearn *unlearn, double forget,
                        double retain)
{
    char text[200];

    if (unlearn->retain_limit > 0 && retain > unlearn->retain_limit) {
        snprintf(text, sizeof text, "step %llu: retain loss %.4f passed its limit %.4f",
                 (unsigned long long)run->step + 1, retain, unlearn->retain_limit);
        end_here(run, "retain_abort", text);
    } else if (unlearn->stop != STOP_NONE && forget >= unlearn->stop_level) {
        snprintf(text, sizeof text, "step %llu: forget loss %.4f reached %.4f",
                 (unsigned long long)run->step + 1, forget, unlearn->stop_level);
        end_here(run, "forgotten", text);
    }
}

static int evaluate(struct run *run, struct unlearn *unlearn, struct err *err)
{
    const struct model *model = unlearn->trainer.model;
    double forget = 0, retain = 0, holdout = 0;

    if (mean_loss(unlearn, &unlearn->forget, model, &forget, err) < 0)
        return -1;
    run_metric(run, "forget_nll", forget);
    if (corpus_is_open(&unlearn->retain)) {
        if (mean_loss(unlearn, &unlearn->retain, model, &retain, err) < 0)
            return -1;
        run_metric(run, "retain_nll", retain);
    }
    if (corpus_is_open(&unlearn->holdout)) {
        if (mean_loss(unlearn, &unlearn->holdout, model, &holdout, err) < 0)
            return -1;
        run_metric(run, "holdout_nll", holdout);
    }
    /* Every rank holds the same bits, so all stop together without another message. */
    apply_rules(run, unlearn, forget, retain);
    return 0;
}

int unlearn_step(struct run *run, struct unlearn *unlearn, struct err *err)
{
    uint64_t done = run->step + 1;
    int64_t tokens = 0;

    if (forget_term(run, unlearn, &tokens, err) < 0)
        return -1;
    if (unlearn->retain_loss == RETAIN_NONE) {
        if (trainer_update(&unlearn->trainer, err) < 0)
            return -1;
    } else if (retain_term(run, unlearn, &tokens, err) < 0 ||
               trainer_apply(&unlearn->trainer, err) < 0) {
        return -1;
    }
    trainer_speed(&unlearn->trainer, tokens);
    if (done == run->step_count || done % (uint64_t)unlearn->eval_every == 0)
        return evaluate(run, unlearn, err);
    return 0;
}

/* -- state -------------------------------------------------------------------------------- */

int unlearn_load(struct run *run, void *state, struct checkpoint_reader *reader, struct err *err)
{
    struct unlearn *unlearn = state;

    (void)run;
    return trainer_load(&unlearn->trainer, reader, err);
}

int unlearn_save(struct run *run, void *state, struct checkpoint_writer *writer, struct err *err)
{
    struct unlearn *unlearn = state;

    (void)run;
    if (trainer_save(&unlearn->trainer, writer, err) < 0)
        return -1;
    return checkpoint_copy_tokenizer(writer, dataset_path(unlearn->forget.dataset), err);
}

void unlearn_close(struct run *run, void *state)
{
    struct unlearn *unlearn = state;

    (void)run;
    free(unlearn->weight);
    free(unlearn->nll);
    free(unlearn->zero);
    free(unlearn->reference_nll);
    pack_done(&unlearn->pack);
    scorer_close(&unlearn->scorer);
    tape_free(unlearn->reference_tape);
    model_free(unlearn->reference);
    corpus_close(&unlearn->holdout);
    corpus_close(&unlearn->retain);
    corpus_close(&unlearn->forget);
    trainer_close(&unlearn->trainer);
}
