/* logit_kd.c - a student matches its teacher's next-token distributions on fixed data (kd.h). */
#include "worker/recipes/distillation/kd.h"
#include "worker/recipes/rows.h"

struct logit_kd {
    struct kd kd;
    struct rows rows;
};

static int logit_kd_open(struct run *run, void *state, struct err *err)
{
    struct logit_kd *logit = state;
    const char *unit = run_string(run, "unit");

    if (kd_open(run, &logit->kd, unit, run_string(run, "separator"), err) < 0)
        return -1;
    return rows_init(&logit->kd.trainer, &logit->kd.train, unit, &logit->rows, err);
}

static int logit_kd_step(struct run *run, void *state, struct err *err)
{
    struct logit_kd *logit = state;
    int64_t target_count = rows_count(&logit->rows);
    struct kd_sums sums = {0};

    (void)run;
    for (int64_t pass = 0; pass < logit->kd.trainer.pass_count; pass++) {
        struct kd_rows rows;

        rows_fill(&logit->rows, pass);
        rows = (struct kd_rows){.batch = rows_batch(&logit->rows), .target = logit->rows.target,
                                .pack = logit->rows.documents ? &logit->rows.pack : NULL};
        if (kd_pass(&logit->kd, &rows, target_count, &sums, err) < 0)
            return -1;
    }
    return kd_finish(&logit->kd, target_count, &sums, err);
}

static int logit_kd_load(struct run *run, void *state, struct checkpoint_reader *reader,
                         struct err *err)
{
    (void)run;
    return kd_load(&((struct logit_kd *)state)->kd, reader, err);
}

static int logit_kd_save(struct run *run, void *state, struct checkpoint_writer *writer,
                         struct err *err)
{
    (void)run;
    return kd_save(&((struct logit_kd *)state)->kd, writer, err);
}

static void logit_kd_close(struct run *run, void *state)
{
    struct logit_kd *logit = state;

    (void)run;
    rows_done(&logit->rows);
    kd_close(&logit->kd);
}

static const struct param logit_kd_params[] = {
    KD_LOSS_PARAMS("fkl", "1"),
    KD_STUDENT_PARAMS,
    {"steps", PARAM_INT, "200", 1, 1e9, NULL, "optimiser steps"},
    {"unit", PARAM_CHOICE, "windows", 0, 0, "windows|documents",
     "what a row is: `context` tokens of the stream, or one document that sees only itself"},
    {"separator", PARAM_STRING, "", 0, 0, NULL,
     "one token between prompt and response: only what follows its last place in a document "
     "counts; empty: everything does"},
    {"eval_every", PARAM_INT, "50", 0, 1e9, NULL,
     "steps between validations; 0: only after the last step"},
    TRAIN_PARAMS("1e-3", "cosine", "32", "0.01"),
};

static const struct input logit_kd_inputs[] = {
    {"data", INPUT_DATASET, true, "documents to train on"},
    {"valid", INPUT_DATASET, false, "documents for val_loss and kl_to_teacher"},
    {"teacher", INPUT_CHECKPOINT, true, "model to match, same tokenizer"},
    {"student", INPUT_CHECKPOINT, false, "student's weights, with student_init: checkpoint"},
};

const struct recipe recipe_distillation_logit_kd = {
    .name = "logit_kd",
    .kind = RECIPE_DISTILLATION,
    .version = 1,
    .summary = "Trains a small model to match a larger one's next-token distributions.",
    .source = "Hinton et al. 2015; divergences: Agarwal et al. 2023 (jsd), Ko et al. 2024 (skew)",
    .params = logit_kd_params,
    .param_count = ARRAY_COUNT(logit_kd_params),
    .inputs = logit_kd_inputs,
    .input_count = ARRAY_COUNT(logit_kd_inputs),
    .outputs = "checkpoint|metrics",
    .state_size = sizeof(struct logit_kd),
    .open = logit_kd_open,
    .load = logit_kd_load,
    .step = logit_kd_step,
    .save = logit_kd_save,
    .close = logit_kd_close,
};
