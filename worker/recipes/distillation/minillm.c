/* minillm.c - the student's own texts, judged as wholes: reverse KL by policy gradient.
 *
 * A step samples the responses of a batch from a p + (1 - a) q, teacher and student mixed token by
 * token, and makes `ppo_epochs` updates on them, each of
 *
 *   sum_t KL(q_t || p_t) - sum_t slope(w_t A_t) log q(y_t)
 *
 * as means over the tokens, A_t being what follows token t (rollouts.h) a token, brought to mean 0
 * and deviation 1 over all ranks where `whiten` says so. All that a step needs it samples itself:
 * its state is kd.h's. Not here: a language-model loss on other text beside it, and rollouts that
 * outlive their step. */
#include "common/base/mem.h"
#include "common/base/rng.h"
#include "worker/engine/comm.h"
#include "worker/recipes/distillation/kd.h"
#include "worker/recipes/distillation/responses.h"
#include "worker/recipes/distillation/rollouts.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define DRAW_STREAM 0x6d696e69647261u /* "minidra" */

struct minillm {
    struct kd kd;
    struct responses responses;
    double mix, most; /* teacher's share; how far from 1 a ratio goes */
    int64_t epochs;
    bool whiten;
    int64_t cells;        /* of the largest pass                                           */
    float *old_nll;       /* (passes, cells) -log q as the texts were written              */
    double *gain;         /* (passes, cells) w_t A_t                                       */
    float *teacher_nll;   /* (cells)                                                       */
    int64_t pass;         /* the one at hand                                               */
    double each;          /* one over the targets of the step                              */
    double cut, asked;    /* targets of the last epoch: ratio let go, all                  */
};

/* ---- the mixture ------------------------------------------------------------------------ */

/* The teacher reads along, text by text: what it has read of each is kept. */
struct mixer {
    struct minillm *minillm;
    struct tape *tape;
    struct kv_cache **cache; /* one a document, NULL until its first token */
    float *logits;
    struct err err;
    bool failed;
};

static int64_t row_of(const struct responses *responses, uint64_t position)
{
    int64_t row = 0;

    while (responses->position[row] != position)
        row++;
    return row;
}

static int read_along(struct mixer *mixer, int64_t row, const int32_t *token, int64_t count)
{
    struct responses *responses = &mixer->minillm->responses;
    const struct model *teacher = mixer->minillm->kd.teacher;
    struct tensor *hidden, *logits;
    int64_t columns = 1, last = 0;
    int32_t at;

    tape_reset(mixer->tape);
    if (count == 0) {
        struct prompt prompt = responses_given(responses, row, teacher);
        int64_t begun = kv_cache_begun(teacher, prompt.count);

        if (kv_cache_new(teacher, 1, min_i64(begun + responses->most_tokens,
                                             teacher->config.context),
                         &mixer->cache[row], &mixer->err) < 0 ||
            kv_cache_begin(mixer->tape, mixer->cache[row], prompt.token, prompt.count, NULL,
                           &hidden, &columns, &mixer->err) < 0)
            return -1;
        last = begun - 1;
    } else if (kv_cache_extend(mixer->tape, mixer->cache[row], token + count - 1, 1, NULL, &hidden,
                               &mixer->err) < 0) {
        return -1;
    }
    at = (int32_t)last;
    logits = model_logits(mixer->tape, teacher,
                          op_gather(mixer->tape, hidden, tape_i32(mixer->tape, &at, 1)));
    if (tape_check(mixer->tape, &mixer->err) < 0)
        return -1;
    tensor_read(logits, mixer->logits);
    return 0;
}

static void mix_in(void *context, uint64_t index, const int32_t *token, int64_t count,
                   float *logits, int64_t V)
{
    struct mixer *mixer = context;

    if (mixer->failed)
        return;
    mixer->failed = read_along(mixer, row_of(&mixer->minillm->responses, index), token, count) < 0;
    if (!mixer->failed)
        rollout_mix(logits, mixer->logits, V, mixer->minillm->mix);
}

static int sample(struct minillm *minillm, struct err *err)
{
    struct responses *responses = &minillm->responses;
    struct trainer *trainer = &minillm->kd.trainer;
    size_t rows = (size_t)responses_rows(responses);
    struct mixer mixer = {.minillm = minillm, .cache = mem_zalloc(rows * sizeof(void *))};
    struct sampling sampling = {.temperature = 1, .top_p = 1};
    int rc = tape_new(trainer->device, TAPE_INFER, &mixer.tape, err);

    mixer.logits = mem_array((size_t)minillm->kd.teacher->config.vocab_size, sizeof(float));
    if (minillm->mix > 0) {
        sampling.constrain = mix_in;
        sampling.context = &mixer;
    }
    if (rc == 0)
        rc = responses_sample(responses, trainer->model, rng_at(trainer->seed, DRAW_STREAM, 0),
                              &sampling, err);
    if (rc == 0 && mixer.failed) {
        *err = mixer.err;
        rc = -1;
    }
    for (size_t row = 0; row < rows; row++)
        kv_cache_free(mixer.cache[row]);
    mem_free(mixer.cache);
    mem_free(mixer.logits);
    tape_free(mixer.tape);
    return rc;
}

/* ---- what the texts are worth ----------------------------------------------------------- */

/* Sums over the texts of this rank. */
struct worth {
    double reward, texts; /* of whole texts */
    double sum, squares, count; /* of A_t   */
};

/* One document's gains, still with A_t apart from w_t: returns in gain, weights in place of the
 * teacher's values, which are needed no more. */
static void value_text(struct minillm *minillm, const struct pack_span *span, const float *nll,
                       double *gain, struct worth *worth)
{
    const int32_t *target = minillm->responses.pack.target;
    double *reward = mem_array((size_t)span->count + 1, sizeof *reward);
    double *returns = mem_array((size_t)span->count + 1, sizeof *returns);
    float *teacher = minillm->teacher_nll;
    int64_t n = 0;

    for (int64_t i = span->start; i < span->start + span->count; i++)
        if (target[i] >= 0)
            reward[n++] = (double)nll[i] - teacher[i];
    rollout_returns(reward, n, true, returns);
    n = 0;
    for (int64_t i = span->start; i < span->start + span->count; i++) {
        if (target[i] < 0)
            continue;
        gain[i] = returns[n];
        worth->reward += reward[n];
        worth->sum += returns[n];
        worth->squares += returns[n] * returns[n];
        worth->count++;
        n++;
        teacher[i] = (float)rollout_weight(-(double)nll[i], -(double)teacher[i], minillm->mix);
    }
    worth->texts += n > 0;
    mem_free(reward);
    mem_free(returns);
}

/* Weights of a pass lie where its gains do until all ranks know the deviation: gain w_t A_t =
 * w_t (A_t - mean) / deviation, so both are kept. */
static int value_pass(struct minillm *minillm, int64_t pass, double *weight, struct worth *worth,
                      struct err *err)
{
    struct responses *responses = &minillm->responses;
    float *nll = minillm->old_nll + pass * minillm->cells;
    double *gain = minillm->gain + pass * minillm->cells;
    const struct pack *pack = &responses->pack;

    responses_pack(responses, pass);
    if (kd_read(&minillm->kd, minillm->kd.trainer.model, pack, nll, err) < 0 ||
        kd_read(&minillm->kd, minillm->kd.teacher, pack, minillm->teacher_nll, err) < 0)
        return -1;
    for (int64_t i = 0; i < pack->span_count; i++)
        value_text(minillm, &pack->span[i], nll, gain, worth);
    for (int64_t i = 0; i < pack_cells(pack); i++)
        weight[i] = pack->target[i] >= 0 ? minillm->teacher_nll[i] : 0;
    return 0;
}

static int value(struct minillm *minillm, struct err *err)
{
    int64_t passes = minillm->kd.trainer.pass_count;
    double *weight = mem_zalloc((size_t)(passes * minillm->cells) * sizeof *weight);
    struct run *run = minillm->kd.trainer.run;
    struct worth worth = {0};
    double mean = 0, deviation = 1;
    int rc = 0;

    memset(minillm->gain, 0, (size_t)(passes * minillm->cells) * sizeof *minillm->gain);
    for (int64_t pass = 0; pass < passes && rc == 0; pass++)
        rc = value_pass(minillm, pass, weight + pass * minillm->cells, &worth, err);
    if (rc == 0) {
        comm_sum_f64(run->comm, &worth.reward, sizeof worth / sizeof worth.reward);
        if (minillm->whiten) {
            mean = worth.sum / worth.count;
            deviation = sqrt(fmax(worth.squares / worth.count - mean * mean, 0)) + 1e-8;
        }
        for (int64_t i = 0; i < passes * minillm->cells; i++)
            minillm->gain[i] = weight[i] * (minillm->gain[i] - mean) / deviation;
        run_metric(run, "reward", worth.reward / worth.texts);
    }
    mem_free(weight);
    return rc;
}

/* ---- updates ---------------------------------------------------------------------------- */

static void weigh(void *context, const float *nll, float *weight)
{
    struct minillm *minillm = context;
    const struct pack *pack = &minillm->responses.pack;
    const float *old = minillm->old_nll + minillm->pass * minillm->cells;
    const double *gain = minillm->gain + minillm->pass * minillm->cells;

    for (int64_t i = 0; i < pack_cells(pack); i++) {
        double slope = 0;

        if (pack->target[i] >= 0) {
            slope = rollout_slope(gain[i], exp((double)old[i] - nll[i]), minillm->most);
            minillm->asked++;
            minillm->cut += slope == 0 && gain[i] != 0;
        }
        weight[i] = (float)(slope * minillm->each);
    }
}

static int epoch(struct minillm *minillm, int64_t target_count, struct kd_sums *sums,
                 struct err *err)
{
    struct responses *responses = &minillm->responses;

    *sums = (struct kd_sums){0};
    minillm->each = 1.0 / (double)target_count;
    minillm->cut = minillm->asked = 0;
    for (int64_t pass = 0; pass < minillm->kd.trainer.pass_count; pass++) {
        struct kd_rows rows;

        minillm->pass = pass;
        responses_pack(responses, pass);
        rows = (struct kd_rows){.batch = pack_batch(&responses->pack),
                                .target = responses->pack.target, .pack = &responses->pack,
                                .sampled = true, .weigh = weigh, .context = minillm};
        if (kd_pass(&minillm->kd, &rows, target_count, sums, err) < 0)
            return -1;
    }
    return 0;
}

static void report(struct minillm *minillm)
{
    struct run *run = minillm->kd.trainer.run;
    double cuts[2] = {minillm->cut, minillm->asked};
    int64_t sums[3] = {minillm->responses.written, minillm->responses.written_tokens,
                       minillm->responses.written_ends};

    comm_sum_f64(run->comm, cuts, 2);
    comm_sum_i64(run->comm, sums, 3);
    run_metric(run, "clipped", cuts[1] > 0 ? cuts[0] / cuts[1] : 0);
    if (sums[0] == 0)
        return;
    run_metric(run, "sample_tokens", (double)sums[1] / (double)sums[0]);
    run_metric(run, "sample_ended", (double)sums[2] / (double)sums[0]);
}

static int minillm_step(struct run *run, void *state, struct err *err)
{
    struct minillm *minillm = state;
    struct kd_sums sums;
    int64_t target_count;

    (void)run;
    responses_read(&minillm->responses);
    if (sample(minillm, err) < 0)
        return err_wrap(err, "samples of student and teacher");
    target_count = responses_count(&minillm->responses);
    if (target_count == 0)
        return err_set(err, ERR_INVALID, "no prompt of this step leaves room for a response in "
                       "the context of %lld tokens", (long long)minillm->responses.T);
    if (value(minillm, err) < 0)
        return -1;
    for (int64_t e = 0; e < minillm->epochs; e++) {
        if (epoch(minillm, target_count, &sums, err) < 0)
            return -1;
        if (e + 1 < minillm->epochs && trainer_update(&minillm->kd.trainer, err) < 0)
            return -1;
    }
    report(minillm);
    return kd_finish(&minillm->kd, target_count, &sums, err);
}

/* ---- life ------------------------------------------------------------------------------- */

static int open_room(struct minillm *minillm, struct err *err)
{
    const struct trainer *trainer = &minillm->kd.trainer;
    size_t cells;

    minillm->cells = trainer_pass_most(trainer) * trainer->model->config.context;
    cells = (size_t)(minillm->cells * trainer->pass_count);
    minillm->old_nll = calloc(cells, sizeof *minillm->old_nll);
    minillm->gain = calloc(cells, sizeof *minillm->gain);
    minillm->teacher_nll = calloc((size_t)minillm->cells, sizeof *minillm->teacher_nll);
    if (minillm->old_nll && minillm->gain && minillm->teacher_nll)
        return 0;
    return err_set(err, ERR_MEMORY, "cannot allocate values of %zu tokens", cells);
}

static int minillm_open(struct run *run, void *state, struct err *err)
{
    struct minillm *minillm = state;
    struct kd *kd = &minillm->kd;

    if (!*run_string(run, "separator"))
        return err_set(err, ERR_INVALID, "parameter 'separator' is empty: the student needs to "
                       "know where its prompts end");
    kd->divergence = DIVERGENCE_REVERSE_KL;
    kd->alpha = kd->temperature = kd->scale = 1;
    minillm->mix = run_float(run, "mix");
    minillm->most = run_float(run, "clip_ratio");
    minillm->epochs = run_int(run, "ppo_epochs");
    minillm->whiten = run_bool(run, "whiten");
    if (kd_open_as(run, kd, "documents", run_string(run, "separator"), err) < 0 ||
        responses_init(&kd->trainer, &kd->train, run_int(run, "max_new_tokens"),
                       &minillm->responses, err) < 0)
        return -1;
    return open_room(minillm, err);
}

static int minillm_load(struct run *run, void *state, struct checkpoint_reader *reader,
                        struct err *err)
{
    (void)run;
    return kd_load(&((struct minillm *)state)->kd, reader, err);
}

static int minillm_save(struct run *run, void *state, struct checkpoint_writer *writer,
                        struct err *err)
{
    (void)run;
    return kd_save(&((struct minillm *)state)->kd, writer, err);
}

static void minillm_close(struct run *run, void *state)
{
    struct minillm *minillm = state;

    (void)run;
    free(minillm->old_nll);
    free(minillm->gain);
    free(minillm->teacher_nll);
    responses_done(&minillm->responses);
    kd_close(&minillm->kd);
}

static const struct param minillm_params[] = {
    {"mix", PARAM_FLOAT, "0.2", 0, 1, NULL, "share of the teacher in the samples"},
    {"ppo_epochs", PARAM_INT, "4", 1, 16, NULL, "updates on the samples of a step"},
    {"clip_ratio", PARAM_FLOAT, "0.2", 0.01, 1, NULL,
     "a token whose probability has gone so far from 1 times its old one is pulled no further"},
    {"whiten", PARAM_BOOL, "true", 0, 0, NULL,
     "what follows a token counts by its deviations from the mean over the step's tokens"},
    {"max_new_tokens", PARAM_INT, "128", 1, 1048576, NULL,
     "longest response in tokens; the context also ends it"},
    KD_STUDENT_PARAMS,
    {"steps", PARAM_INT, "200", 1, 1e9, NULL, "samplings, each with its updates"},
    {"separator", PARAM_STRING, "\n", 0, 0, NULL,
     "one token between prompt and response, its last place in a document"},
    {"eval_every", PARAM_INT, "50", 0, 1e9, NULL,
     "steps between validations; 0: only after the last step"},
    TRAIN_PARAMS("5e-6", "constant", "256", "0.01"),
};

static const struct input minillm_inputs[] = {
    {"data", INPUT_DATASET, true,
     "documents of a prompt, the separator and a response (which is replaced)"},
    {"valid", INPUT_DATASET, false, "the same for val_loss and kl_to_teacher"},
    {"teacher", INPUT_CHECKPOINT, true, "model to match, same tokenizer"},
    {"student", INPUT_CHECKPOINT, false, "student's weights, with student_init: checkpoint"},
};

const struct recipe recipe_distillation_minillm = {
    .name = "minillm",
    .kind = RECIPE_DISTILLATION,
    .version = 1,
    .summary = "Distils by policy gradient of the reverse KL of whole texts.",
    .source = "Gu et al. 2023 (MiniLLM), section 2.2 and algorithm 1",
    .params = minillm_params,
    .param_count = ARRAY_COUNT(minillm_params),
    .inputs = minillm_inputs,
    .input_count = ARRAY_COUNT(minillm_inputs),
    .outputs = "checkpoint|metrics",
    .state_size = sizeof(struct minillm),
    .open = minillm_open,
    .load = minillm_load,
    .step = minillm_step,
    .save = minillm_save,
    .close = minillm_close,
};
