/* causal.c - see causal.h. */
#include "worker/recipes/causal.h"

#include "common/base/mem.h"
#include "worker/engine/comm.h"
#include "worker/engine/spread.h"
#include "worker/recipes/arch.h"
#include "worker/recipes/ngram.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* The init model with some of its blocks twice, and a fresh optimiser for all of them. */
static int causal_deepen(struct run *run, struct trainer *trainer, struct err *err)
{
    const char *range = run_string(run, "upscale");
    struct model *deeper = NULL;
    int64_t *map = NULL, count = 0;
    int rc;

    if (!*range)
        return 0;
    if (arch_upscale(range, trainer->model->config.layers, &map, &count, err) < 0)
        return -1;
    rc = model_deepen(trainer->model, map, count, &deeper, err);
    mem_free(map);
    if (rc < 0)
        return -1;
    run_note(run, "%lld blocks from %lld: blocks %s twice", (long long)count,
             (long long)trainer->model->config.layers, range);
    model_free(trainer->model);
    trainer->model = deeper;
    return 0;
}

/* The init model with other positions (REACH_PARAMS). */
static int causal_reach(struct run *run, struct causal *causal, struct err *err)
{
    struct model *model = causal->trainer.model;
    int64_t context = run_int(run, "new_context");
    double theta = run_float(run, "new_rope_theta");

    if (context == 0 && theta == 0)
        return 0;
    if (causal->adapts && (theta != 0 || context > model->config.context))
        return err_set(err, ERR_INVALID, "parameters 'new_rope_theta' and a larger 'new_context' "
                       "exclude 'lora_rank': adapters are read over a base, whose config.json "
                       "stays");
    if (model_reach(model, context, theta, err) < 0)
        return err_wrap(err, "parameters 'new_context' and 'new_rope_theta'");
    run_note(run, "the init model goes on with %lld positions, rotary base %g",
             (long long)model->config.context, model->config.rope_theta);
    return 0;
}

/* The init model fits the corpus, or is widened by the special tokens that the corpus has more. */
static int causal_match(struct run *run, struct causal *causal, const char *folder,
                        struct err *err)
{
    struct trainer *trainer = &causal->trainer;
    struct model *wider = NULL;
    int64_t known = trainer->model->config.vocab_size, tokens;

    if (corpus_widens_model(&causal->train, folder, &tokens, err) < 0)
        return -1;
    if (tokens == 0)
        return corpus_match_model(&causal->train, folder, trainer->model, err);
    if (tokens <= known) /* rows that the model has beyond its tokenizer */
        return 0;
    if (model_widen(trainer->model, tokens, trainer->seed, &wider, err) < 0)
        return -1;
    run_note(run, "%lld tokens more than the %lld of the init model", (long long)(tokens - known),
             (long long)known);
    model_free(trainer->model);
    trainer->model = wider;
    return 0;
}

/* A new model: of experts, where they are spread, only this rank's. */
static int causal_new(struct run *run, struct causal *causal, struct err *err)
{
    struct trainer *trainer = &causal->trainer;
    struct model_config config = {0};

    if (*run_string(run, "upscale"))
        return err_set(err, ERR_INVALID, "parameter 'upscale' needs an input 'init': the model "
                       "whose blocks are doubled");
    if (run_int(run, "new_context") != 0 || run_float(run, "new_rope_theta") != 0)
        return err_set(err, ERR_INVALID, "parameters 'new_context' and 'new_rope_theta' need an "
                       "input 'init': a new model has 'context' and 'rope_theta'");
    if (arch_config(run, &causal->train, &config, err) < 0)
        return -1;
    if (causal->spreads && config.family != MODEL_MOE)
        return err_set(err, ERR_INVALID, "parameter 'expert_parallel' is true, but a model of "
                       "arch %s has no experts", model_family_name(config.family));
    if (causal->spreads) {
        config.expert_ranks = run->comm->size;
        config.expert_rank = run->comm->rank;
        trainer->device->comm = run->comm;
    }
    return model_new(trainer->device, &config, trainer->seed, &trainer->model, err);
}

static int causal_spread(struct causal *causal, struct comm *comm, struct err *err)
{
    struct trainer *trainer = &causal->trainer;
    struct model *spread = NULL;

    if (!causal->spreads)
        return 0;
    if (spread_new(trainer->model, comm, &spread, err) < 0)
        return err_wrap(err, "parameter 'expert_parallel'");
    model_free(trainer->model);
    trainer->model = spread;
    return 0;
}

static int causal_model(struct run *run, struct causal *causal, struct err *err)
{
    struct trainer *trainer = &causal->trainer;
    const struct run_input *init = run_input(run, "init");

    if (causal->adapts && !init)
        return err_set(err, ERR_INVALID, "parameter 'lora_rank' needs an input 'init': the model "
                       "that gets adapters");
    if (causal->adapts && *run_string(run, "upscale"))
        return err_set(err, ERR_INVALID, "parameters 'lora_rank' and 'upscale' exclude each "
                       "other: new blocks have to be trained");
    if (init) {
        if (run_writer_open(run, "init", trainer->device, !causal->adapts, &trainer->model, err) <
            0)
            return -1;
        trainer->model->config.dropout = run_float(run, "dropout");
        if (causal_match(run, causal, init->path, err) < 0 || causal_reach(run, causal, err) < 0)
            return -1;
        if (causal->adapts)
            return trainer_adapt(trainer, err);
        return causal_deepen(run, trainer, err) < 0 ? -1 : causal_spread(causal, run->comm, err);
    }
    return causal_new(run, causal, err);
}

/* A model with an encoder needs to know where its sources end. */
static int check_separator(const struct causal *causal, struct err *err)
{
    const struct model *model = causal->trainer.model;

    if (!sourced_is_needed(model) || (causal->documents && causal->separator))
        return 0;
    return err_set(err, ERR_INVALID, "a %s reads a source and writes a target: train it with "
                   "finetuning/sft, whose 'separator' divides them, or with "
                   "pretraining/span_corruption",
                   model_family_name(model->config.family));
}

static int causal_open_valid(struct run *run, struct causal *causal, struct err *err)
{
    int64_t T = causal->trainer.model->config.context;

    if (!run_input(run, "valid"))
        return 0;
    if (corpus_open(run, "valid", &causal->valid, err) < 0 ||
        (causal->separator && corpus_mask_prompts(&causal->valid, causal->separator, err) < 0) ||
        corpus_match(&causal->valid, &causal->train, err) < 0 ||
        windows_init(&causal->valid_windows, causal->valid.part, T, err) < 0)
        return -1;
    return scorer_open(run->comm, causal->trainer.device, T, &causal->scorer, err);
}

int causal_open(struct run *run, struct causal *causal, const char *unit, const char *separator,
                struct err *err)
{
    struct trainer *trainer = &causal->trainer;

    run->step_count = (uint64_t)run_int(run, "steps");
    causal->eval_every = run_int(run, "eval_every");
    causal->documents = strcmp(unit, "documents") == 0;
    if (separator && !*separator)
        separator = NULL;
    causal->separator = separator;
    if (corpus_open(run, "data", &causal->train, err) < 0 ||
        (separator && corpus_mask_prompts(&causal->train, separator, err) < 0) ||
        trainer_open(run, trainer, err) < 0 || causal_model(run, causal, err) < 0 ||
        check_separator(causal, err) < 0 || trainer_start(trainer, err) < 0 ||
        rows_init(trainer, &causal->train, unit, &causal->rows, err) < 0)
        return -1;
    run_note(run, "%s with %lld weights, %lld tokens of '%s' in %lld documents",
             model_family_name(trainer->model->config.family),
             (long long)model_weight_count(&trainer->model->config),
             (long long)causal->train.part->token_count, causal->train.part->name,
             (long long)causal->train.part->document_count);
    return causal_open_valid(run, causal, err);
}

static int forward(struct causal *causal, struct tensor **out_hidden, struct err *err)
{
    struct model_batch windows;

    if (causal->documents)
        return documents_train(&causal->trainer, &causal->rows.pack, &causal->sourced, out_hidden,
                               err);
    windows = rows_batch(&causal->rows);
    return trainer_forward(&causal->trainer, &windows, out_hidden, err);
}

/* One pass: cross-entropy of its rows, each target weighing 1/N of the whole batch. */
static int causal_pass(struct causal *causal, int64_t pass, int64_t target_count, double *loss,
                       struct err *err)
{
    struct trainer *trainer = &causal->trainer;
    struct loss_head head = {.head = trainer->model->head};
    struct loss_values values = {0};

    rows_fill(&causal->rows, pass);
    head.target = causal->rows.target;
    head.ce_weight = rows_weigh(&causal->rows, 1.0 / (double)target_count);
    if (forward(causal, &head.hidden, err) < 0 ||
        loss_head(trainer->tape, &head, &values, err) < 0 || trainer_backward(trainer, err) < 0)
        return -1;
    *loss += values.total;
    return 0;
}

/* Validation loss as the training rows are cut: windows of the stream, or single documents. */
static int causal_validate(struct run *run, struct causal *causal, double *out_loss,
                           struct err *err)
{
    struct score_source source = causal->documents ? score_documents(&causal->valid, 0)
                                                   : score_windows(&causal->valid_windows);
    struct model *model = causal->trainer.model, *whole = NULL;
    struct score_sum sum;
    int rc;

    if (causal->spreads && spread_gather(model, true, &whole, err) < 0)
        return -1;
    rc = score_total(&causal->scorer, &source, whole ? whole : model, NULL, &sum, err);
    model_free(whole);
    if (rc < 0)
        return -1;
    *out_loss = sum.nll / sum.tokens;
    run_metric(run, "val_loss", *out_loss);
    return 0;
}

/* Whether the model has learned more than counts tell. */
static int causal_compare(struct run *run, struct causal *causal, double val_loss, struct err *err)
{
    struct ngram_losses counts;

    if (ngram_losses(causal->train.part, causal->valid.part, &counts, err) < 0)
        return -1;
    run_metric(run, "unigram_loss", counts.unigram);
    run_metric(run, "bigram_loss", counts.bigram);
    run_note(run,
             "val_loss %.4f nats a token; counts of the same tokens give unigram_loss %.4f "
             "and bigram_loss %.4f",
             val_loss, counts.unigram, counts.bigram);
    return 0;
}

static int causal_report(struct run *run, struct causal *causal, struct err *err)
{
    uint64_t done = run->step + 1;
    bool last = done == run->step_count;
    double val_loss = 0;

    if (!corpus_is_open(&causal->valid))
        return 0;
    if (!last && (causal->eval_every == 0 || done % (uint64_t)causal->eval_every != 0))
        return 0;
    if (causal_validate(run, causal, &val_loss, err) < 0)
        return -1;
    return last && !causal->separator ? causal_compare(run, causal, val_loss, err) : 0;
}

int causal_step(struct run *run, void *state, struct err *err)
{
    struct causal *causal = state;
    int64_t target_count = rows_count(&causal->rows);
    double loss = 0;

    for (int64_t pass = 0; pass < causal->trainer.pass_count; pass++) {
        if (causal_pass(causal, pass, target_count, &loss, err) < 0)
            return -1;
    }
    comm_sum_f64(run->comm, &loss, 1);
    run_metric(run, "loss", loss);
    if (trainer_update(&causal->trainer, err) < 0)
        return -1;
    trainer_speed(&causal->trainer, target_count);
    return causal_report(run, causal, err);
}

int causal_load(struct run *run, void *state, struct checkpoint_reader *reader, struct err *err)
{
    struct causal *causal = state;

    (void)run;
    return trainer_load(&causal->trainer, reader, err);
}

int causal_save(struct run *run, void *state, struct checkpoint_writer *writer, struct err *err)
{
    struct causal *causal = state;

    (void)run;
    if (trainer_save(&causal->trainer, writer, err) < 0)
        return -1;
    return checkpoint_copy_tokenizer(writer, dataset_path(causal->train.dataset), err);
}

void causal_close(struct run *run, void *state)
{
    struct causal *causal = state;

    (void)run;
    rows_done(&causal->rows);
    sourced_done(&causal->sourced);
    windows_done(&causal->valid_windows);
    scorer_close(&causal->scorer);
    corpus_close(&causal->valid);
    corpus_close(&causal->train);
    trainer_close(&causal->trainer);
}
