/* logit_kd.c - a student matches its teacher's next-token distributions on fixed data.
 *
 *   L = alpha tau^2 D(teacher || student; tau) + (1 - alpha) CE(data)
 *
 * as token means over the whole batch. The teacher is frozen: it runs on a tape of its own
 * that records nothing. State: student, AdamW moments and the step number. */
#include "common/base/mem.h"
#include "worker/engine/comm.h"
#include "worker/recipes/arch.h"
#include "worker/recipes/rows.h"
#include "worker/recipes/score.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct logit_kd {
    struct trainer trainer;
    struct scorer scorer;
    struct corpus train, valid;
    struct rows rows;
    struct windows valid_windows;
    struct model *teacher;
    struct tape *teacher_tape;
    float *kd_weight;
    enum divergence divergence; /* DIVERGENCE_NONE: plain cross-entropy, the control arm */
    double alpha, temperature, beta;
    int64_t eval_every;
};

/* -- the student -------------------------------------------------------------------------- */

/* What the parameters leave at 0 is as in the teacher. */
static int student_config(struct run *run, const struct logit_kd *kd, struct model_config *out,
                          struct err *err)
{
    struct model_config config = kd->teacher->config;

    if (run_int(run, "layers") > 0)
        config.layers = run_int(run, "layers");
    if (run_int(run, "d_model") > 0) {
        config.width = run_int(run, "d_model");
        config.head_width = 0;
        config.ffn_width = 0;
    }
    if (run_int(run, "heads") > 0) {
        config.heads = run_int(run, "heads");
        config.kv_heads = 0;
        config.head_width = 0;
    }
    if (run_int(run, "kv_heads") > 0)
        config.kv_heads = run_int(run, "kv_heads");
    if (run_int(run, "d_ff") > 0)
        config.ffn_width = run_int(run, "d_ff");
    if (model_config_complete(&config, err) < 0)
        return err_wrap(err, "shape of the student");
    *out = config;
    return 0;
}

/* Which teacher block the student's block starts from: both ends kept, the rest evenly
 * spaced. 12 to 6 gives 0 2 4 7 9 11, DistilBERT's choice (Sanh et al. 2019, code). */
static int64_t teacher_block(int64_t block, int64_t student_layers, int64_t teacher_layers)
{
    if (student_layers == 1)
        return 0;
    return (2 * block * (teacher_layers - 1) + student_layers - 1) / (2 * (student_layers - 1));
}

/* The teacher's name of a student weight: "block.1.qkv.weight" becomes "block.3.qkv.weight". */
static void teacher_name(const char *name, const struct model *student, const struct model *teacher,
                         char out[MODEL_NAME_SIZE])
{
    long long block;
    int rest = 0;

    if (sscanf(name, "block.%lld.%n", &block, &rest) == 1 && rest > 0)
        snprintf(out, MODEL_NAME_SIZE, "block.%lld.%s",
                 (long long)teacher_block(block, student->config.layers, teacher->config.layers),
                 name + rest);
    else
        snprintf(out, MODEL_NAME_SIZE, "%s", name);
}

static int copy_weight(struct model_weight *to, const struct model_weight *from, struct err *err)
{
    int64_t count = tensor_count(&to->tensor);
    float *host;

    if (!from || tensor_count(&from->tensor) != count)
        return err_set(err, ERR_INVALID,
                       "parameter 'student_init' is teacher-layers, but weight "
                       "'%s' has another shape in the teacher: leave d_model, heads, kv_heads and "
                       "d_ff at 0",
                       to->name);
    host = malloc((size_t)count * sizeof *host);
    if (!host)
        return err_set(err, ERR_MEMORY, "cannot allocate %lld bytes to copy '%s'",
                       (long long)count * 4, to->name);
    model_weight_read(from, host);
    model_weight_write(to, host);
    free(host);
    return 0;
}

static int copy_layers(struct logit_kd *kd, struct err *err)
{
    struct model *student = kd->trainer.model;

    for (int64_t i = 0; i < student->weight_count; i++) {
        char name[MODEL_NAME_SIZE];

        teacher_name(student->weight[i].name, student, kd->teacher, name);
        if (copy_weight(&student->weight[i], model_weight_find(kd->teacher, name), err) < 0)
            return -1;
    }
    return 0;
}

static int open_student(struct run *run, struct logit_kd *kd, struct err *err)
{
    const char *init = run_string(run, "student_init");
    struct trainer *trainer = &kd->trainer;
    struct model_config config;

    if (strcmp(init, "checkpoint") == 0) {
        if (run_model_open(run, "student", trainer->device, true, &trainer->model, err) < 0)
            return -1;
        if (trainer->model->config.vocab_size == kd->teacher->config.vocab_size)
            return corpus_match_model(&kd->train, run_input(run, "student")->path, trainer->model,
                                      err);
        return err_set(err, ERR_INVALID,
                       "the student knows %lld tokens, the teacher %lld: both "
                       "must have the same",
                       (long long)trainer->model->config.vocab_size,
                       (long long)kd->teacher->config.vocab_size);
    }
    if (student_config(run, kd, &config, err) < 0 ||
        model_new(trainer->device, &config, trainer->seed, &trainer->model, err) < 0)
        return -1;
    return strcmp(init, "teacher-layers") == 0 ? copy_layers(kd, err) : 0;
}

static int open_teacher(struct run *run, struct logit_kd *kd, struct err *err)
{
    if (run_model_open(run, "teacher", kd->trainer.device, false, &kd->teacher, err) < 0 ||
        corpus_match_model(&kd->train, run_input(run, "teacher")->path, kd->teacher, err) < 0)
        return -1;
    return tape_new(kd->trainer.device, TAPE_INFER, &kd->teacher_tape, err);
}

/* -- opening ------------------------------------------------------------------------------ */

static int read_params(struct run *run, struct logit_kd *kd, struct err *err)
{
    const char *loss = run_string(run, "loss");
    bool skewed;

    kd->alpha = run_float(run, "alpha");
    kd->temperature = run_float(run, "temperature");
    kd->eval_every = run_int(run, "eval_every");
    if (strcmp(loss, "ce") == 0) {
        kd->alpha = 0;
        return 0;
    }
    if (divergence_parse(loss, &kd->divergence, err) < 0)
        return -1;
    skewed = kd->divergence == DIVERGENCE_SKEW_FORWARD || kd->divergence == DIVERGENCE_SKEW_REVERSE;
    kd->beta = run_float(run, skewed ? "skew" : "beta");
    if (kd->divergence == DIVERGENCE_JSD && (kd->beta <= 0 || kd->beta >= 1))
        return err_set(err, ERR_INVALID,
                       "parameter 'beta' is %g, where jsd and its gradient "
                       "vanish: take a value between 0 and 1, or loss fkl or rkl",
                       kd->beta);
    return 0;
}

static int open_valid(struct run *run, struct logit_kd *kd, struct err *err)
{
    int64_t T = kd->trainer.model->config.context;

    if (!run_input(run, "valid"))
        return 0;
    if (corpus_open(run, "valid", &kd->valid, err) < 0 ||
        corpus_match(&kd->valid, &kd->train, err) < 0 ||
        windows_init(&kd->valid_windows, kd->valid.part, T, err) < 0)
        return -1;
    return scorer_open(run->comm, kd->trainer.device, T, &kd->scorer, err);
}

static int logit_kd_open(struct run *run, void *state, struct err *err)
{
    struct logit_kd *kd = state;
    struct trainer *trainer = &kd->trainer;
    size_t cells;

    run->step_count = (uint64_t)run_int(run, "steps");
    if (read_params(run, kd, err) < 0 || corpus_open(run, "data", &kd->train, err) < 0 ||
        trainer_open(run, trainer, err) < 0 || open_teacher(run, kd, err) < 0 ||
        open_student(run, kd, err) < 0 || trainer_start(trainer, err) < 0 ||
        rows_init(trainer, &kd->train, run_string(run, "unit"), &kd->rows, err) < 0)
        return -1;
    if (trainer->model->config.context > kd->teacher->config.context)
        return err_set(err, ERR_INVALID, "the student sees %lld tokens, the teacher only %lld",
                       (long long)trainer->model->config.context,
                       (long long)kd->teacher->config.context);
    cells = (size_t)(trainer_pass_most(trainer) * trainer->model->config.context);
    kd->kd_weight = malloc(cells * sizeof *kd->kd_weight);
    if (!kd->kd_weight)
        return err_set(err, ERR_MEMORY, "cannot allocate weights of %zu tokens", cells);
    run_note(run, "student of %lld weights, teacher of %lld",
             (long long)model_weight_count(&trainer->model->config),
             (long long)model_weight_count(&kd->teacher->config));
    return open_valid(run, kd, err);
}

/* -- one step ----------------------------------------------------------------------------- */

/* Splits each target's weight 1/N: alpha to the divergence, the rest to cross-entropy. */
static void weigh(struct logit_kd *kd, double each, struct loss_head *head)
{
    const float *both = rows_weigh(&kd->rows, each);

    if (kd->divergence == DIVERGENCE_NONE) {
        head->ce_weight = both;
        return;
    }
    for (int64_t i = 0; i < kd->rows.cells; i++) {
        kd->kd_weight[i] = (float)kd->alpha * both[i];
        kd->rows.weight[i] = (float)(1.0 - kd->alpha) * both[i];
    }
    head->kd_weight = kd->kd_weight;
    head->ce_weight = both;
}

static int teach(struct logit_kd *kd, const struct model_batch *rows, struct loss_head *head,
                 struct err *err)
{
    struct model_states states = {0};

    if (kd->divergence == DIVERGENCE_NONE)
        return 0;
    tape_reset(kd->teacher_tape);
    if (model_forward(kd->teacher_tape, kd->teacher, rows, &states, err) < 0)
        return -1;
    head->divergence = kd->divergence;
    head->teacher_hidden = states.hidden;
    head->teacher_head = kd->teacher->head;
    head->temperature = kd->temperature;
    head->beta = kd->beta;
    return 0;
}

/* sum: loss, cross-entropy and divergence (unscaled by alpha) over this rank's targets. */
static int logit_kd_pass(struct logit_kd *kd, int64_t pass, int64_t target_count, double sum[3],
                         struct err *err)
{
    struct trainer *trainer = &kd->trainer;
    struct loss_head head = {.head = trainer->model->head};
    struct loss_values values = {0};
    struct model_batch rows;
    float *row_values;

    rows_fill(&kd->rows, pass);
    rows = rows_batch(&kd->rows);
    head.target = kd->rows.target;
    weigh(kd, 1.0 / (double)target_count, &head);
    row_values = calloc(2 * (size_t)kd->rows.cells, sizeof *row_values);
    if (!row_values)
        return err_set(err, ERR_MEMORY, "cannot allocate losses of %lld tokens",
                       (long long)kd->rows.cells);
    values.nll = row_values;
    values.kd = kd->divergence == DIVERGENCE_NONE ? NULL : row_values + kd->rows.cells;
    if (teach(kd, &rows, &head, err) < 0 ||
        trainer_forward(trainer, &rows, &head.hidden, err) < 0 ||
        loss_head(trainer->tape, &head, &values, err) < 0 ||
        tape_backward(trainer->tape, err) < 0) {
        free(row_values);
        return -1;
    }
    sum[0] += values.total;
    for (int64_t i = 0; i < kd->rows.cells; i++) {
        if (kd->rows.target[i] < 0)
            continue;
        sum[1] += (double)row_values[i] / (double)target_count;
        sum[2] += (double)row_values[kd->rows.cells + i] / (double)target_count;
    }
    free(row_values);
    return 0;
}

/* Forward KL at temperature 1 whatever the loss was, so that arms can be compared. */
static int logit_kd_report(struct run *run, struct logit_kd *kd, struct err *err)
{
    uint64_t done = run->step + 1;
    bool by_document = strcmp(run_string(run, "unit"), "documents") == 0;
    struct score_source source;
    struct score_sum sum;

    if (!corpus_is_open(&kd->valid))
        return 0;
    if (done != run->step_count && (kd->eval_every == 0 || done % (uint64_t)kd->eval_every != 0))
        return 0;
    source = by_document ? score_documents(&kd->valid, 0) : score_windows(&kd->valid_windows);
    if (score_total(&kd->scorer, &source, kd->trainer.model, kd->teacher, &sum, err) < 0)
        return -1;
    run_metric(run, "val_loss", sum.nll / sum.tokens);
    run_metric(run, "kl_to_teacher", sum.kd / sum.tokens);
    if (done == run->step_count)
        run_note(run, "val_loss %.4f, forward KL to the teacher %.4f nats a token",
                 sum.nll / sum.tokens, sum.kd / sum.tokens);
    return 0;
}

static int logit_kd_step(struct run *run, void *state, struct err *err)
{
    struct logit_kd *kd = state;
    int64_t target_count = rows_count(&kd->rows);
    double sum[3] = {0, 0, 0};

    for (int64_t pass = 0; pass < kd->trainer.pass_count; pass++) {
        if (logit_kd_pass(kd, pass, target_count, sum, err) < 0)
            return -1;
    }
    comm_sum_f64(run->comm, sum, 3);
    run_metric(run, "loss", sum[0]);
    run_metric(run, "ce_loss", sum[1]);
    if (kd->divergence != DIVERGENCE_NONE)
        run_metric(run, "kd_loss", sum[2]);
    if (trainer_update(&kd->trainer, err) < 0)
        return -1;
    trainer_speed(&kd->trainer, target_count);
    return logit_kd_report(run, kd, err);
}

static int logit_kd_load(struct run *run, void *state, struct checkpoint_reader *reader,
                         struct err *err)
{
    struct logit_kd *kd = state;

    (void)run;
    return trainer_load(&kd->trainer, reader, err);
}

static int logit_kd_save(struct run *run, void *state, struct checkpoint_writer *writer,
                         struct err *err)
{
    struct logit_kd *kd = state;

    (void)run;
    if (trainer_save(&kd->trainer, writer, err) < 0)
        return -1;
    return checkpoint_copy_tokenizer(writer, dataset_path(kd->train.dataset), err);
}

static void logit_kd_close(struct run *run, void *state)
{
    struct logit_kd *kd = state;

    (void)run;
    free(kd->kd_weight);
    rows_done(&kd->rows);
    windows_done(&kd->valid_windows);
    scorer_close(&kd->scorer);
    tape_free(kd->teacher_tape);
    model_free(kd->teacher);
    corpus_close(&kd->valid);
    corpus_close(&kd->train);
    trainer_close(&kd->trainer);
}

static const struct param logit_kd_params[] = {
    {"loss", PARAM_CHOICE, "fkl", 0, 0, "fkl|rkl|jsd|sfkl|srkl|tv|ce",
     "divergence from the teacher; ce: none, the student alone"},
    {"temperature", PARAM_FLOAT, "1", 0.25, 20, NULL, "temperature of both distributions"},
    {"alpha", PARAM_FLOAT, "1", 0, 1, NULL, "share of the divergence; the rest is cross-entropy"},
    {"beta", PARAM_FLOAT, "0.5", 0, 1, NULL, "weight of the teacher in jsd's mixture"},
    {"skew", PARAM_FLOAT, "0.1", 0.01, 0.5, NULL, "weight of the teacher in sfkl and srkl"},
    {"student_init", PARAM_CHOICE, "scratch", 0, 0, "scratch|teacher-layers|checkpoint",
     "new weights, evenly spaced blocks of the teacher, or the input `student`"},
    {"layers", PARAM_INT, "0", 0, 1000, NULL, "student's blocks; 0: as the teacher"},
    {"d_model", PARAM_INT, "0", 0, 65536, NULL, "student's width; 0: as the teacher"},
    {"heads", PARAM_INT, "0", 0, 1024, NULL, "student's attention heads; 0: as the teacher"},
    {"kv_heads", PARAM_INT, "0", 0, 1024, NULL,
     "student's heads of keys and values; 0: as the teacher, or as heads where that is set"},
    {"d_ff", PARAM_INT, "0", 0, 1048576, NULL, "student's feed-forward width; 0: as the teacher"},
    {"steps", PARAM_INT, "200", 1, 1e9, NULL, "optimiser steps"},
    {"unit", PARAM_CHOICE, "windows", 0, 0, "windows|documents",
     "what a row is: `context` tokens of the stream, or one document that sees only itself"},
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
