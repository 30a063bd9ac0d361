/* mlm.c - recipe pretraining/mlm: an encoder learns to tell hidden tokens (masks.h).
 *
 * State: model, AdamW moments and the step number; rows and masks are functions of (seed, step). */
#include "worker/engine/comm.h"
#include "worker/recipes/masks.h"

#include <stdlib.h>

struct mlm {
    struct trainer trainer;
    struct corpus train, valid;
    struct rows rows;
    struct masks masks;
    float *nll; /* of a pass */
    int64_t eval_every;
};

static int new_model(struct run *run, struct mlm *mlm, struct err *err)
{
    struct model_config config = {
        .family = MODEL_BERT,
        .top = MODEL_TOP_TOKENS,
        .vocab_size = dataset_vocab_size(mlm->train.dataset),
        .context = run_int(run, "context"),
        .width = run_int(run, "d_model"),
        .layers = run_int(run, "layers"),
        .heads = run_int(run, "heads"),
        .ffn_width = run_int(run, "d_ff"),
        .tied = true,
        .bos_token = mlm->train.begin_of_text,
        .eos_token = mlm->train.end_of_text,
    };

    if (model_config_complete(&config, err) < 0)
        return err_wrap(err, "shape of the new model");
    return model_new(mlm->trainer.device, &config, mlm->trainer.seed, &mlm->trainer.model, err);
}

static int open_model(struct run *run, struct mlm *mlm, struct err *err)
{
    const struct run_input *init = run_input(run, "init");
    struct trainer *trainer = &mlm->trainer;

    if (!init)
        return new_model(run, mlm, err);
    if (run_model_open(run, "init", trainer->device, true, &trainer->model, err) < 0)
        return -1;
    if (trainer->model->config.family != MODEL_BERT ||
        trainer->model->config.top != MODEL_TOP_TOKENS)
        return err_set(err, ERR_INVALID, "input 'init' (%s) is no BertForMaskedLM: it has nothing "
                       "that tells hidden tokens", init->ref);
    return corpus_match_model(&mlm->train, init->path, trainer->model, err);
}

static int mlm_open(struct run *run, void *state, struct err *err)
{
    struct mlm *mlm = state;
    struct trainer *trainer = &mlm->trainer;
    int64_t cells;

    run->step_count = (uint64_t)run_int(run, "steps");
    mlm->eval_every = run_int(run, "eval_every");
    if (corpus_open(run, "data", &mlm->train, err) < 0 || trainer_open(run, trainer, err) < 0 ||
        open_model(run, mlm, err) < 0 || trainer_start(trainer, err) < 0 ||
        rows_init(trainer, &mlm->train, run_string(run, "unit"), &mlm->rows, err) < 0)
        return -1;
    cells = trainer_pass_most(trainer) * trainer->model->config.context;
    mlm->nll = malloc((size_t)cells * sizeof *mlm->nll);
    if (!mlm->nll)
        return err_set(err, ERR_MEMORY, "cannot allocate losses of %lld tokens", (long long)cells);
    if (masks_init(run, &mlm->train, cells, trainer->seed, &mlm->masks, err) < 0)
        return -1;
    run_note(run, "bert with %lld weights, %lld tokens of '%s' in %lld documents",
             (long long)model_weight_count(&trainer->model->config),
             (long long)mlm->train.part->token_count, mlm->train.part->name,
             (long long)mlm->train.part->document_count);
    if (!run_input(run, "valid"))
        return 0;
    if (corpus_open(run, "valid", &mlm->valid, err) < 0)
        return -1;
    return corpus_match(&mlm->valid, &mlm->train, err);
}

static int mlm_pass(struct mlm *mlm, int64_t pass, int64_t count, double *loss, struct err *err)
{
    struct trainer *trainer = &mlm->trainer;
    struct tensor *hidden;

    masks_fill(&mlm->masks, &mlm->rows, pass);
    if (trainer_forward(trainer, &mlm->masks.batch, &hidden, err) < 0 ||
        masks_loss(trainer->tape, trainer->model, &mlm->masks, hidden, 1.0 / (double)count,
                   mlm->nll, NULL, err) < 0 ||
        trainer_backward(trainer, err) < 0)
        return -1;
    for (int64_t i = 0; i < mlm->masks.count; i++)
        *loss += (double)mlm->nll[i] / (double)count;
    return 0;
}

static int mlm_step(struct run *run, void *state, struct err *err)
{
    struct mlm *mlm = state;
    int64_t read, count = masks_count(&mlm->masks, &mlm->rows, &read);
    double loss = 0;

    if (count == 0)
        return err_set(err, ERR_INVALID, "input 'data' has only special tokens in this step");
    for (int64_t pass = 0; pass < mlm->trainer.pass_count; pass++)
        if (mlm_pass(mlm, pass, count, &loss, err) < 0)
            return -1;
    comm_sum_f64(run->comm, &loss, 1);
    run_metric(run, "loss", loss);
    if (trainer_update(&mlm->trainer, err) < 0)
        return -1;
    trainer_speed(&mlm->trainer, read);
    return masks_report(run, &mlm->masks, &mlm->valid, mlm->trainer.model, mlm->eval_every, err);
}

static int mlm_load(struct run *run, void *state, struct checkpoint_reader *reader,
                    struct err *err)
{
    (void)run;
    return trainer_load(&((struct mlm *)state)->trainer, reader, err);
}

static int mlm_save(struct run *run, void *state, struct checkpoint_writer *writer,
                    struct err *err)
{
    struct mlm *mlm = state;

    (void)run;
    if (trainer_save(&mlm->trainer, writer, err) < 0)
        return -1;
    return checkpoint_copy_tokenizer(writer, dataset_path(mlm->train.dataset), err);
}

static void mlm_close(struct run *run, void *state)
{
    struct mlm *mlm = state;

    (void)run;
    free(mlm->nll);
    masks_done(&mlm->masks);
    rows_done(&mlm->rows);
    corpus_close(&mlm->valid);
    corpus_close(&mlm->train);
    trainer_close(&mlm->trainer);
}

static const struct param mlm_params[] = {
    {"steps", PARAM_INT, "400", 1, 1e9, NULL, "optimiser steps"},
    {"unit", PARAM_CHOICE, "documents", 0, 0, "windows|documents",
     "what a sequence is: `context` tokens of the stream, or one document that sees only itself"},
    {"eval_every", PARAM_INT, "50", 0, 1e9, NULL,
     "steps between validation losses; 0: only after the last step"},
    MASK_PARAMS,
    {"layers", PARAM_INT, "4", 1, 1000, NULL, "blocks of a new model"},
    {"d_model", PARAM_INT, "128", 1, 65536, NULL, "width of the residual stream"},
    {"heads", PARAM_INT, "4", 1, 1024, NULL, "attention heads; divides d_model"},
    {"d_ff", PARAM_INT, "0", 0, 1048576, NULL,
     "width inside a feed-forward block; 0: 4 times d_model"},
    {"context", PARAM_INT, "128", 2, 1048576, NULL, "most tokens the model sees at once"},
    TRAIN_PARAMS("1e-3", "linear", "32", "0.01"),
};

static const struct input mlm_inputs[] = {
    {"data", INPUT_DATASET, true, "documents to train on; the tokenizer has a [MASK]"},
    {"valid", INPUT_DATASET, false, "documents for val_loss, same tokenizer"},
    {"init", INPUT_CHECKPOINT, false,
     "encoder to go on from (its shape then holds, not the parameters'); fresh optimiser"},
};

const struct recipe recipe_pretraining_mlm = {
    .name = "mlm",
    .kind = RECIPE_PRETRAINING,
    .version = 1,
    .summary = "Trains a BERT encoder to tell hidden tokens.",
    .source = "Devlin et al. 2019, section 3.1 (masked language model, whole words as released)",
    .params = mlm_params,
    .param_count = ARRAY_COUNT(mlm_params),
    .inputs = mlm_inputs,
    .input_count = ARRAY_COUNT(mlm_inputs),
    .outputs = "checkpoint|metrics",
    .state_size = sizeof(struct mlm),
    .open = mlm_open,
    .load = mlm_load,
    .step = mlm_step,
    .save = mlm_save,
    .close = mlm_close,
};
