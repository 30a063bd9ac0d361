/* clm.c - causal language modelling: next-token cross-entropy on windows or documents.
 *
 * State: model, AdamW moments and the step number; which rows a step sees is a function of
 * (seed, step), so a resumed run goes on with the same bits. */
#include "worker/engine/comm.h"
#include "worker/recipes/arch.h"
#include "worker/recipes/ngram.h"
#include "worker/recipes/rows.h"
#include "worker/recipes/score.h"
#include "worker/recipes/train.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct clm {
    struct trainer trainer;
    struct scorer scorer;
    struct corpus train, valid;
    struct rows rows;
    struct windows valid_windows;
    int64_t eval_every;
};

static int clm_model(struct run *run, struct clm *clm, struct err *err)
{
    struct trainer *trainer = &clm->trainer;
    const struct run_input *init = run_input(run, "init");
    struct model_config config = {0};

    if (init) {
        if (run_model_open(run, "init", trainer->device, true, &trainer->model, err) < 0)
            return -1;
        return corpus_match_model(&clm->train, init->path, trainer->model, err);
    }
    if (arch_config(run, &clm->train, &config, err) < 0)
        return -1;
    return model_new(trainer->device, &config, trainer->seed, &trainer->model, err);
}

static int clm_open_valid(struct run *run, struct clm *clm, struct err *err)
{
    int64_t T = clm->trainer.model->config.context;

    if (!run_input(run, "valid"))
        return 0;
    if (corpus_open(run, "valid", &clm->valid, err) < 0 ||
        corpus_match(&clm->valid, &clm->train, err) < 0 ||
        windows_init(&clm->valid_windows, clm->valid.part, T, err) < 0)
        return -1;
    return scorer_open(run->comm, clm->trainer.device, T, &clm->scorer, err);
}

static int clm_open(struct run *run, void *state, struct err *err)
{
    struct clm *clm = state;
    struct trainer *trainer = &clm->trainer;

    run->step_count = (uint64_t)run_int(run, "steps");
    clm->eval_every = run_int(run, "eval_every");
    if (corpus_open(run, "data", &clm->train, err) < 0 || trainer_open(run, trainer, err) < 0 ||
        clm_model(run, clm, err) < 0 || trainer_start(trainer, err) < 0 ||
        rows_init(trainer, &clm->train, run_string(run, "unit"), &clm->rows, err) < 0)
        return -1;
    run_note(run, "%s with %lld weights, %lld tokens of '%s' in %lld documents",
             model_family_name(trainer->model->config.family),
             (long long)model_weight_count(&trainer->model->config),
             (long long)clm->train.part->token_count, clm->train.part->name,
             (long long)clm->train.part->document_count);
    return clm_open_valid(run, clm, err);
}

/* One pass: cross-entropy of its rows, each target weighing 1/N of the whole batch. */
static int clm_pass(struct clm *clm, int64_t pass, int64_t target_count, double *loss,
                    struct err *err)
{
    struct trainer *trainer = &clm->trainer;
    struct loss_head head = {.head = trainer->model->head};
    struct loss_values values = {0};
    struct model_batch rows;

    rows_fill(&clm->rows, pass);
    rows = rows_batch(&clm->rows);
    head.target = clm->rows.target;
    head.ce_weight = rows_weigh(&clm->rows, 1.0 / (double)target_count);
    if (trainer_forward(trainer, &rows, &head.hidden, err) < 0 ||
        loss_head(trainer->tape, &head, &values, err) < 0 || tape_backward(trainer->tape, err) < 0)
        return -1;
    *loss += values.total;
    return 0;
}

/* Validation loss as the training rows are cut: windows of the stream, or single documents. */
static int clm_validate(struct run *run, struct clm *clm, double *out_loss, struct err *err)
{
    bool by_document = strcmp(run_string(run, "unit"), "documents") == 0;
    struct score_source source =
        by_document ? score_documents(&clm->valid, 0) : score_windows(&clm->valid_windows);
    struct score_sum sum;

    if (score_total(&clm->scorer, &source, clm->trainer.model, NULL, &sum, err) < 0)
        return -1;
    *out_loss = sum.nll / sum.tokens;
    run_metric(run, "val_loss", *out_loss);
    return 0;
}

/* Whether the model has learned more than counts tell. */
static int clm_compare(struct run *run, struct clm *clm, double val_loss, struct err *err)
{
    struct ngram_losses counts;

    if (ngram_losses(clm->train.part, clm->valid.part, &counts, err) < 0)
        return -1;
    run_metric(run, "unigram_loss", counts.unigram);
    run_metric(run, "bigram_loss", counts.bigram);
    run_note(run,
             "val_loss %.4f nats a token; counts of the same tokens give unigram_loss %.4f "
             "and bigram_loss %.4f",
             val_loss, counts.unigram, counts.bigram);
    return 0;
}

static int clm_report(struct run *run, struct clm *clm, struct err *err)
{
    uint64_t done = run->step + 1;
    bool last = done == run->step_count;
    double val_loss = 0;

    if (!corpus_is_open(&clm->valid))
        return 0;
    if (!last && (clm->eval_every == 0 || done % (uint64_t)clm->eval_every != 0))
        return 0;
    if (clm_validate(run, clm, &val_loss, err) < 0)
        return -1;
    return last ? clm_compare(run, clm, val_loss, err) : 0;
}

static int clm_step(struct run *run, void *state, struct err *err)
{
    struct clm *clm = state;
    int64_t target_count = rows_count(&clm->rows);
    double loss = 0;

    for (int64_t pass = 0; pass < clm->trainer.pass_count; pass++) {
        if (clm_pass(clm, pass, target_count, &loss, err) < 0)
            return -1;
    }
    comm_sum_f64(run->comm, &loss, 1);
    run_metric(run, "loss", loss);
    if (trainer_update(&clm->trainer, err) < 0)
        return -1;
    trainer_speed(&clm->trainer, target_count);
    return clm_report(run, clm, err);
}

static int clm_load(struct run *run, void *state, struct checkpoint_reader *reader, struct err *err)
{
    struct clm *clm = state;

    (void)run;
    return trainer_load(&clm->trainer, reader, err);
}

static int clm_save(struct run *run, void *state, struct checkpoint_writer *writer, struct err *err)
{
    struct clm *clm = state;

    (void)run;
    if (trainer_save(&clm->trainer, writer, err) < 0)
        return -1;
    return checkpoint_copy_tokenizer(writer, dataset_path(clm->train.dataset), err);
}

static void clm_close(struct run *run, void *state)
{
    struct clm *clm = state;

    (void)run;
    rows_done(&clm->rows);
    windows_done(&clm->valid_windows);
    scorer_close(&clm->scorer);
    corpus_close(&clm->valid);
    corpus_close(&clm->train);
    trainer_close(&clm->trainer);
}

static const struct param clm_params[] = {
    {"steps", PARAM_INT, "400", 1, 1e9, NULL, "optimiser steps"},
    {"unit", PARAM_CHOICE, "windows", 0, 0, "windows|documents",
     "what a row is: `context` tokens of the stream, or one document that sees only itself"},
    {"eval_every", PARAM_INT, "50", 0, 1e9, NULL,
     "steps between validation losses; 0: only after the last step"},
    ARCH_PARAMS,
    TRAIN_PARAMS("1e-3", "cosine", "32", "0.1"),
};

static const struct input clm_inputs[] = {
    {"data", INPUT_DATASET, true, "documents to train on"},
    {"valid", INPUT_DATASET, false, "documents for val_loss, same tokenizer"},
    {"init", INPUT_CHECKPOINT, false,
     "model to go on from (its shape then holds, not the parameters'); fresh optimiser"},
};

const struct recipe recipe_pretraining_clm = {
    .name = "clm",
    .kind = RECIPE_PRETRAINING,
    .version = 1,
    .summary = "Trains a GPT-2 or Llama language model to predict the next token.",
    .source = "Radford et al. 2019 (gpt2); Touvron et al. 2023 (llama)",
    .params = clm_params,
    .param_count = ARRAY_COUNT(clm_params),
    .inputs = clm_inputs,
    .input_count = ARRAY_COUNT(clm_inputs),
    .outputs = "checkpoint|metrics",
    .state_size = sizeof(struct clm),
    .open = clm_open,
    .load = clm_load,
    .step = clm_step,
    .save = clm_save,
    .close = clm_close,
};
