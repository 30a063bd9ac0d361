/* kd.c - see kd.h. */
#include "worker/recipes/distillation/kd.h"

#include "worker/engine/comm.h"

#include <stdlib.h>
#include <string.h>

/* -- opening ------------------------------------------------------------------------------ */

static int read_params(struct run *run, struct kd *kd, struct err *err)
{
    const char *loss = run_string(run, "loss");
    bool skewed;

    kd->alpha = run_float(run, "alpha");
    kd->temperature = run_float(run, "temperature");
    kd->scale = 1;
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
    if (!run_bool(run, "beta_rescale"))
        return 0;
    if (kd->divergence != DIVERGENCE_JSD)
        return err_set(err, ERR_INVALID, "parameter 'beta_rescale' is true, but loss is %s: only "
                       "jsd has a beta", loss);
    kd->scale = 1 / (kd->beta * (1 - kd->beta));
    return 0;
}

static int open_teacher(struct run *run, struct kd *kd, struct err *err)
{
    if (run_writer_open(run, "teacher", kd->trainer.device, false, &kd->teacher, err) < 0 ||
        corpus_match_model(&kd->train, run_input(run, "teacher")->path, kd->teacher, err) < 0)
        return -1;
    return tape_new(kd->trainer.device, TAPE_INFER, &kd->teacher_tape, err);
}

static int open_student(struct run *run, struct kd *kd, struct err *err)
{
    const char *init = run_string(run, "student_init");
    struct trainer *trainer = &kd->trainer;
    struct model_config config;

    if (strcmp(init, "checkpoint") == 0) {
        if (run_writer_open(run, "student", trainer->device, true, &trainer->model, err) < 0)
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
    if (student_config(run, kd->teacher, &config, err) < 0 ||
        model_new(trainer->device, &config, trainer->seed, &trainer->model, err) < 0)
        return -1;
    return strcmp(init, "teacher-layers") == 0
               ? student_copy_layers(trainer->model, kd->teacher, err)
               : 0;
}

/* A model with an encoder needs to know where its sources end. */
static int check_sources(const struct kd *kd, const char *separator, struct err *err)
{
    if ((!sourced_is_needed(kd->trainer.model) && !sourced_is_needed(kd->teacher)) ||
        (kd->documents && separator))
        return 0;
    return err_set(err, ERR_INVALID, "the student is a %s and the teacher a %s: a t5 reads "
                   "prompts and writes responses, so it needs unit documents and a 'separator'",
                   model_family_name(kd->trainer.model->config.family),
                   model_family_name(kd->teacher->config.family));
}

static int open_valid(struct run *run, struct kd *kd, const char *separator, struct err *err)
{
    int64_t T = kd->trainer.model->config.context;

    if (!run_input(run, "valid"))
        return 0;
    if (corpus_open(run, "valid", &kd->valid, err) < 0 ||
        (separator && corpus_mask_prompts(&kd->valid, separator, err) < 0) ||
        corpus_match(&kd->valid, &kd->train, err) < 0 ||
        windows_init(&kd->valid_windows, kd->valid.part, T, err) < 0)
        return -1;
    return scorer_open(run->comm, kd->trainer.device, T, &kd->scorer, err);
}

static int open_weights(struct run *run, struct kd *kd, struct err *err)
{
    const struct model *student = kd->trainer.model, *teacher = kd->teacher;
    size_t cells = (size_t)(trainer_pass_most(&kd->trainer) * student->config.context);

    if (student->config.context > teacher->config.context)
        return err_set(err, ERR_INVALID, "the student sees %lld tokens, the teacher only %lld",
                       (long long)student->config.context, (long long)teacher->config.context);
    kd->kd_weight = malloc(cells * sizeof *kd->kd_weight);
    kd->ce_weight = malloc(cells * sizeof *kd->ce_weight);
    if (!kd->kd_weight || !kd->ce_weight)
        return err_set(err, ERR_MEMORY, "cannot allocate weights of %zu tokens", cells);
    run_note(run, "student of %lld weights, teacher of %lld",
             (long long)model_weight_count(&student->config),
             (long long)model_weight_count(&teacher->config));
    return 0;
}

int kd_open(struct run *run, struct kd *kd, const char *unit, const char *separator,
            struct err *err)
{
    return read_params(run, kd, err) < 0 ? -1 : kd_open_as(run, kd, unit, separator, err);
}

int kd_open_as(struct run *run, struct kd *kd, const char *unit, const char *separator,
               struct err *err)
{
    struct trainer *trainer = &kd->trainer;

    run->step_count = (uint64_t)run_int(run, "steps");
    kd->eval_every = run_int(run, "eval_every");
    kd->documents = strcmp(unit, "documents") == 0;
    if (separator && !*separator)
        separator = NULL;
    if (separator && !kd->documents)
        return err_set(err, ERR_INVALID, "parameter 'separator' divides documents; with it, unit "
                       "must be documents");
    if (corpus_open(run, "data", &kd->train, err) < 0 ||
        (separator && corpus_mask_prompts(&kd->train, separator, err) < 0) ||
        trainer_open(run, trainer, err) < 0 || open_teacher(run, kd, err) < 0 ||
        open_student(run, kd, err) < 0 || check_sources(kd, separator, err) < 0 ||
        trainer_start(trainer, err) < 0 || open_weights(run, kd, err) < 0)
        return -1;
    return open_valid(run, kd, separator, err);
}

void kd_close(struct kd *kd)
{
    free(kd->kd_weight);
    free(kd->ce_weight);
    sourced_done(&kd->sourced);
    windows_done(&kd->valid_windows);
    scorer_close(&kd->scorer);
    tape_free(kd->teacher_tape);
    model_free(kd->teacher);
    corpus_close(&kd->valid);
    corpus_close(&kd->train);
    trainer_close(&kd->trainer);
}

/* -- one step ----------------------------------------------------------------------------- */

/* Splits each target's weight 1/N: alpha to the divergence, the rest to cross-entropy. */
static void weigh(struct kd *kd, const struct kd_rows *rows, double each, struct loss_head *head)
{
    int64_t cells = rows->batch.B * rows->batch.T;
    bool taught = kd->divergence != DIVERGENCE_NONE;
    double kd_share = kd->alpha * kd->scale;
    double ce_share = !taught ? 1 : rows->sampled ? 0 : 1.0 - kd->alpha;

    for (int64_t i = 0; i < cells; i++) {
        float whole = rows->target[i] >= 0 ? (float)each : 0.0f;

        kd->kd_weight[i] = (float)kd_share * whole;
        kd->ce_weight[i] = (float)ce_share * whole;
    }
    head->ce_weight = kd->ce_weight;
    head->kd_weight = taught ? kd->kd_weight : NULL;
}

static int read_windows(struct tape *tape, const struct model *model,
                        const struct model_batch *batch, struct tensor **out_hidden,
                        struct err *err)
{
    struct model_states states = {0};
    int rc;

    tape_reset(tape);
    rc = model_forward(tape, model, batch, &states, err);
    *out_hidden = states.hidden;
    return rc;
}

static int teach(struct kd *kd, const struct kd_rows *rows, struct loss_head *head,
                 struct err *err)
{
    struct tensor **hidden = &head->teacher_hidden;

    if (kd->divergence == DIVERGENCE_NONE)
        return 0;
    if ((rows->pack
             ? documents_forward(kd->teacher_tape, kd->teacher, rows->pack, &kd->sourced, hidden,
                                 err)
             : read_windows(kd->teacher_tape, kd->teacher, &rows->batch, hidden, err)) < 0)
        return -1;
    head->divergence = kd->divergence;
    head->teacher_head = kd->teacher->head;
    head->temperature = kd->temperature;
    head->beta = kd->beta;
    return 0;
}

static int learn(struct kd *kd, const struct kd_rows *rows, struct loss_head *head,
                 struct err *err)
{
    if (rows->pack)
        return documents_train(&kd->trainer, rows->pack, &kd->sourced, &head->hidden, err);
    return trainer_forward(&kd->trainer, &rows->batch, &head->hidden, err);
}

int kd_read(struct kd *kd, const struct model *model, const struct pack *pack, float *out_nll,
            struct err *err)
{
    struct tensor *hidden;

    if (documents_forward(kd->teacher_tape, model, pack, &kd->sourced, &hidden, err) < 0)
        return -1;
    return loss_nll(kd->teacher_tape, hidden, model->head, pack->target, out_nll, err);
}

/* From what the student now gives its targets; row_nll: room for a float a cell. */
static int weigh_again(struct kd *kd, const struct kd_rows *rows, const struct loss_head *head,
                       float *row_nll, struct err *err)
{
    if (!rows->weigh)
        return 0;
    if (loss_nll(kd->trainer.tape, head->hidden, head->head, rows->target, row_nll, err) < 0)
        return -1;
    rows->weigh(rows->context, row_nll, kd->ce_weight);
    return 0;
}

int kd_pass(struct kd *kd, const struct kd_rows *rows, int64_t target_count, struct kd_sums *sums,
            struct err *err)
{
    struct trainer *trainer = &kd->trainer;
    struct loss_head head = {.head = trainer->model->head, .target = rows->target};
    struct loss_values values = {0};
    int64_t cells = rows->batch.B * rows->batch.T;
    float *row_values = calloc(2 * (size_t)cells, sizeof *row_values);

    if (!row_values)
        return err_set(err, ERR_MEMORY, "cannot allocate losses of %lld tokens", (long long)cells);
    weigh(kd, rows, 1.0 / (double)target_count, &head);
    values.nll = row_values;
    values.kd = kd->divergence == DIVERGENCE_NONE ? NULL : row_values + cells;
    if (teach(kd, rows, &head, err) < 0 || learn(kd, rows, &head, err) < 0 ||
        weigh_again(kd, rows, &head, row_values, err) < 0 ||
        loss_head(trainer->tape, &head, &values, err) < 0 ||
        trainer_backward(trainer, err) < 0) {
        free(row_values);
        return -1;
    }
    sums->loss += values.total;
    for (int64_t i = 0; i < cells; i++) {
        if (rows->target[i] < 0)
            continue;
        sums->ce += (double)row_values[i] / (double)target_count;
        sums->kd += (double)row_values[cells + i] / (double)target_count;
    }
    free(row_values);
    return 0;
}

static int kd_report(struct run *run, struct kd *kd, struct err *err)
{
    uint64_t done = run->step + 1;
    struct score_source source;
    struct score_sum sum;

    if (!corpus_is_open(&kd->valid))
        return 0;
    if (done != run->step_count && (kd->eval_every == 0 || done % (uint64_t)kd->eval_every != 0))
        return 0;
    source = kd->documents ? score_documents(&kd->valid, 0) : score_windows(&kd->valid_windows);
    if (score_total(&kd->scorer, &source, kd->trainer.model, kd->teacher, &sum, err) < 0)
        return -1;
    run_metric(run, "val_loss", sum.nll / sum.tokens);
    run_metric(run, "kl_to_teacher", sum.kd / sum.tokens);
    if (done == run->step_count)
        run_note(run, "val_loss %.4f, forward KL to the teacher %.4f nats a token",
                 sum.nll / sum.tokens, sum.kd / sum.tokens);
    return 0;
}

int kd_finish(struct kd *kd, int64_t target_count, struct kd_sums *sums, struct err *err)
{
    struct run *run = kd->trainer.run;

    comm_sum_f64(run->comm, &sums->loss, 3);
    run_metric(run, "loss", sums->loss);
    run_metric(run, "ce_loss", sums->ce);
    if (kd->divergence != DIVERGENCE_NONE)
        run_metric(run, "kd_loss", sums->kd);
    if (trainer_update(&kd->trainer, err) < 0)
        return -1;
    trainer_speed(&kd->trainer, target_count);
    return kd_report(run, kd, err);
}

int kd_load(struct kd *kd, struct checkpoint_reader *reader, struct err *err)
{
    return trainer_load(&kd->trainer, reader, err);
}

int kd_save(struct kd *kd, struct checkpoint_writer *writer, struct err *err)
{
    if (trainer_save(&kd->trainer, writer, err) < 0)
        return -1;
    return checkpoint_copy_tokenizer(writer, dataset_path(kd->train.dataset), err);
}
