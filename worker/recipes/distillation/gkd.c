/* gkd.c - on-policy distillation: the student is corrected on what it writes itself.
 *
 * With probability lambda the responses of a step are samples of the student as it is now (one
 * coin a step, the same on all ranks; no gradient through the sampling), else those of the
 * data; either way the divergence from the teacher on these tokens is what is trained (kd.h).
 * lambda 0 is logit_kd on documents, bit for bit. Where the student wrote, cross-entropy would
 * teach it its own words, so only the divergence counts. */
#include "common/base/rng.h"
#include "worker/engine/comm.h"
#include "worker/recipes/distillation/kd.h"
#include "worker/recipes/distillation/responses.h"

#include <string.h>

#define COIN_STREAM 0x6b64636f696eu /* "kdcoin", "kddraw": streams apart from the data order */
#define DRAW_STREAM 0x6b6464726177u

struct gkd {
    struct kd kd;
    struct responses responses;
    struct sampling sampling;
    double lambda;
    uint64_t first_step; /* the first that may be on-policy */
};

static void read_sampling(struct run *run, struct gkd *gkd)
{
    int64_t warmup = run_int(run, "onpolicy_warmup");
    bool fitted = strcmp(run_string(run, "student_init"), "checkpoint") == 0;

    gkd->lambda = run_float(run, "lambda");
    gkd->first_step = warmup >= 0 ? (uint64_t)warmup : fitted ? 0 : run->step_count / 2;
    gkd->sampling = (struct sampling){.temperature = run_float(run, "gen_temperature"),
                                      .top_p = run_float(run, "gen_top_p"),
                                      .top_k = run_int(run, "gen_top_k")};
    if (gkd->sampling.temperature != 1 || gkd->sampling.top_p != 1 || gkd->sampling.top_k != 0)
        run_note(run, "samples at temperature %g, top_p %g, top_k %lld are not the student's own "
                 "distribution", gkd->sampling.temperature, gkd->sampling.top_p,
                 (long long)gkd->sampling.top_k);
}

static int gkd_open(struct run *run, void *state, struct err *err)
{
    struct gkd *gkd = state;

    if (strcmp(run_string(run, "loss"), "ce") == 0)
        return err_set(err, ERR_INVALID, "parameter 'loss' is ce: without a teacher there is "
                       "nothing to learn from samples; finetuning/sft trains on the data alone");
    if (run_float(run, "alpha") <= 0)
        return err_set(err, ERR_INVALID, "parameter 'alpha' is 0: samples teach by the divergence "
                       "only, so it must be above 0");
    if (!*run_string(run, "separator"))
        return err_set(err, ERR_INVALID, "parameter 'separator' is empty: the student needs to "
                       "know where its prompts end");
    if (kd_open(run, &gkd->kd, "documents", run_string(run, "separator"), err) < 0)
        return -1;
    read_sampling(run, gkd);
    return responses_init(&gkd->kd.trainer, &gkd->kd.train, run_int(run, "max_new_tokens"),
                          &gkd->responses, err);
}

static bool is_on_policy(const struct gkd *gkd)
{
    const struct run *run = gkd->kd.trainer.run;

    return run->step >= gkd->first_step &&
           rng_unit_at(gkd->kd.trainer.seed, COIN_STREAM, run->step + run->data_skip) <
               gkd->lambda;
}

/* How long the student writes, and whether it finds an end: what collapses first. */
static void report_samples(struct gkd *gkd, bool on_policy, double entropy)
{
    struct run *run = gkd->kd.trainer.run;
    int64_t sums[3] = {gkd->responses.written, gkd->responses.written_tokens,
                       gkd->responses.written_ends};

    run_metric(run, "on_policy", on_policy);
    if (!on_policy)
        return;
    comm_sum_i64(run->comm, sums, 3);
    if (sums[0] == 0)
        return;
    run_metric(run, "sample_tokens", (double)sums[1] / (double)sums[0]);
    run_metric(run, "sample_ended", (double)sums[2] / (double)sums[0]);
    run_metric(run, "sample_entropy", entropy);
}

static int gkd_passes(struct gkd *gkd, bool on_policy, int64_t target_count, struct kd_sums *sums,
                      struct err *err)
{
    struct responses *responses = &gkd->responses;

    for (int64_t pass = 0; pass < gkd->kd.trainer.pass_count; pass++) {
        struct kd_rows rows;

        responses_pack(responses, pass);
        rows = (struct kd_rows){.batch = pack_batch(&responses->pack),
                                .target = responses->pack.target,
                                .pack = &responses->pack, .sampled = on_policy};
        if (kd_pass(&gkd->kd, &rows, target_count, sums, err) < 0)
            return -1;
    }
    return 0;
}

static int gkd_step(struct run *run, void *state, struct err *err)
{
    struct gkd *gkd = state;
    struct trainer *trainer = &gkd->kd.trainer;
    bool on_policy = is_on_policy(gkd);
    struct kd_sums sums = {0};
    int64_t target_count;

    (void)run;
    responses_read(&gkd->responses);
    if (on_policy && responses_sample(&gkd->responses, trainer->model,
                                      rng_at(trainer->seed, DRAW_STREAM, 0), &gkd->sampling,
                                      err) < 0)
        return err_wrap(err, "samples of the student");
    target_count = responses_count(&gkd->responses);
    if (target_count == 0)
        return err_set(err, ERR_INVALID, "no document of this step has a response within the "
                       "context of %lld tokens", (long long)trainer->model->config.context);
    if (gkd_passes(gkd, on_policy, target_count, &sums, err) < 0 ||
        kd_finish(&gkd->kd, target_count, &sums, err) < 0)
        return -1;
    report_samples(gkd, on_policy, sums.ce);
    return 0;
}

static int gkd_load(struct run *run, void *state, struct checkpoint_reader *reader,
                    struct err *err)
{
    (void)run;
    return kd_load(&((struct gkd *)state)->kd, reader, err);
}

static int gkd_save(struct run *run, void *state, struct checkpoint_writer *writer,
                    struct err *err)
{
    (void)run;
    return kd_save(&((struct gkd *)state)->kd, writer, err);
}

static void gkd_close(struct run *run, void *state)
{
    struct gkd *gkd = state;

    (void)run;
    responses_done(&gkd->responses);
    kd_close(&gkd->kd);
}

static const struct param gkd_params[] = {
    KD_LOSS_PARAMS("jsd", "1"),
    {"lambda", PARAM_FLOAT, "0.5", 0, 1, NULL,
     "share of the steps whose responses the student writes itself"},
    {"onpolicy_warmup", PARAM_INT, "-1", -1, 1e9, NULL,
     "steps on the data alone before the first sample; -1: half of all, or none where the "
     "student comes from a checkpoint"},
    {"gen_temperature", PARAM_FLOAT, "1", 0, 5, NULL, "of the student's samples; 0: greedy"},
    {"gen_top_p", PARAM_FLOAT, "1", 0.01, 1, NULL, "samples come from the likeliest of this mass"},
    {"gen_top_k", PARAM_INT, "0", 0, 1e6, NULL, "samples come from so many tokens; 0: all"},
    {"max_new_tokens", PARAM_INT, "128", 1, 1048576, NULL,
     "longest response in tokens; the context also ends it"},
    KD_STUDENT_PARAMS,
    {"steps", PARAM_INT, "200", 1, 1e9, NULL, "optimiser steps"},
    {"separator", PARAM_STRING, "\n", 0, 0, NULL,
     "one token between prompt and response, its last place in a document"},
    {"eval_every", PARAM_INT, "50", 0, 1e9, NULL,
     "steps between validations; 0: only after the last step"},
    TRAIN_PARAMS("1e-3", "cosine", "32", "0.01"),
};

static const struct input gkd_inputs[] = {
    {"data", INPUT_DATASET, true, "documents of a prompt, the separator and a response"},
    {"valid", INPUT_DATASET, false, "the same for val_loss and kl_to_teacher"},
    {"teacher", INPUT_CHECKPOINT, true, "model to match, same tokenizer"},
    {"student", INPUT_CHECKPOINT, false, "student's weights, with student_init: checkpoint"},
};

const struct recipe recipe_distillation_gkd = {
    .name = "gkd",
    .kind = RECIPE_DISTILLATION,
    .version = 1,
    .summary = "Distils on the student's own samples, mixed with the data.",
    .source = "Agarwal et al. 2023 (GKD), algorithm 1",
    .params = gkd_params,
    .param_count = ARRAY_COUNT(gkd_params),
    .inputs = gkd_inputs,
    .input_count = ARRAY_COUNT(gkd_inputs),
    .outputs = "checkpoint|metrics",
    .state_size = sizeof(struct gkd),
    .open = gkd_open,
    .load = gkd_load,
    .step = gkd_step,
    .save = gkd_save,
    .close = gkd_close,
};
