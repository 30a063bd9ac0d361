/* seq_kd.c - sequence-level distillation: the teacher's own responses become the data.
 *
 * The response of each document is the teacher's best beam, or one sample of it, after the
 * document's prompt; the document's own response is never read. loss ce (Kim and Rush) is
 * cross-entropy on what the teacher wrote; with another loss its distributions count too. A
 * response follows from the teacher, the prompt and, sampled, (seed, document): it is written
 * when a step first needs it and kept for later epochs. */
#include "common/base/mem.h"
#include "common/base/rng.h"
#include "worker/engine/comm.h"
#include "worker/recipes/distillation/kd.h"
#include "worker/recipes/distillation/responses.h"

#include <stdlib.h>
#include <string.h>

#define DRAW_STREAM 0x736571647261u /* "seqdra" */

/* What the teacher wrote after one document's prompt. */
struct written {
    int32_t *token; /* NULL: not yet */
    int64_t count;
    bool ended;
};

struct seq_kd {
    struct kd kd;
    struct responses responses;
    struct written *written; /* one a document of the corpus */
    int64_t beams;           /* 0: samples                   */
    double length_power, temperature;
    int64_t in_all, fresh; /* responses used by this rank's steps so far, and written for them */
};

static int seq_kd_open(struct run *run, void *state, struct err *err)
{
    struct seq_kd *seq = state;
    bool sampled = strcmp(run_string(run, "mode"), "sample") == 0;

    if (!*run_string(run, "separator"))
        return err_set(err, ERR_INVALID, "parameter 'separator' is empty: the teacher needs to "
                       "know where its prompts end");
    if (kd_open(run, &seq->kd, "documents", run_string(run, "separator"), err) < 0)
        return -1;
    seq->beams = sampled ? 0 : run_int(run, "beams");
    seq->length_power = run_float(run, "length_power");
    seq->temperature = run_float(run, "gen_temperature");
    seq->written = calloc((size_t)corpus_count(&seq->kd.train), sizeof *seq->written);
    if (!seq->written)
        return err_set(err, ERR_MEMORY, "cannot allocate a list of %lld responses",
                       (long long)corpus_count(&seq->kd.train));
    return responses_init(&seq->kd.trainer, &seq->kd.train, run_int(run, "max_new_tokens"),
                          &seq->responses, err);
}

/* The best of the beams after one prompt. */
static int search(struct seq_kd *seq, const struct prompt *prompt, struct written *out,
                  struct err *err)
{
    int64_t most = seq->responses.most_tokens;
    struct beam_config config = {.beams = seq->beams, .most_tokens = most,
                                 .stop_token = seq->kd.train.end_of_text,
                                 .length_power = seq->length_power};
    struct beam_text *texts = mem_zalloc((size_t)seq->beams * sizeof *texts);
    int32_t *room = mem_array((size_t)(seq->beams * most), sizeof *room);
    int rc;

    for (int64_t b = 0; b < seq->beams; b++)
        texts[b].token = room + b * most;
    rc = beam_search(seq->kd.teacher, prompt, &config, texts, err);
    if (rc == 0) {
        out->token = mem_array((size_t)texts[0].count + 1, sizeof *out->token);
        memcpy(out->token, texts[0].token, (size_t)texts[0].count * sizeof *out->token);
        out->count = texts[0].count;
        out->ended = texts[0].ended;
    }
    mem_free(texts);
    mem_free(room);
    return rc;
}

/* One sample, drawn by the document's number. */
static int sample(struct seq_kd *seq, const struct prompt *prompt, int64_t item,
                  struct written *out, struct err *err)
{
    int64_t most = seq->responses.most_tokens, room = seq->responses.T - prompt->count;
    struct sampling sampling = {.temperature = seq->temperature, .top_p = 1,
                                .seed = rng_at(seq->kd.trainer.seed, DRAW_STREAM, 0),
                                .stop_token = seq->kd.train.end_of_text};
    struct generation text = {.token = mem_array((size_t)most, sizeof *text.token),
                              .index = (uint64_t)item};
    int rc = generate(seq->kd.teacher, prompt, &text, 1, most, &sampling, err);

    if (rc < 0) {
        mem_free(text.token);
        return -1;
    }
    *out = (struct written){text.token, text.count, text.count < (most < room ? most : room)};
    return 0;
}

static int write_response(struct seq_kd *seq, int64_t row, struct err *err)
{
    struct responses *responses = &seq->responses;
    int64_t item = responses->item[row];
    struct written *written = &seq->written[item];
    struct prompt prompt = responses_given(responses, row, seq->kd.teacher);
    int64_t room = responses->T - responses_prompt(responses, row);

    if (prompt.count == 0 || room <= 0)
        return 0;
    seq->in_all++;
    if (!written->token) {
        int rc = seq->beams > 0 ? search(seq, &prompt, written, err)
                                : sample(seq, &prompt, item, written, err);

        if (rc < 0)
            return err_wrap(err, "the teacher's response to document %lld", (long long)item);
        seq->fresh++;
    }
    responses_put(responses, row, written->token, min_i64(written->count, room),
                  written->ended && written->count < room);
    return 0;
}

static int seq_kd_passes(struct seq_kd *seq, int64_t target_count, struct kd_sums *sums,
                         struct err *err)
{
    for (int64_t pass = 0; pass < seq->kd.trainer.pass_count; pass++) {
        struct kd_rows rows;

        responses_pack(&seq->responses, pass);
        rows = (struct kd_rows){.batch = pack_batch(&seq->responses.pack),
                                .target = seq->responses.pack.target,
                                .pack = &seq->responses.pack};
        if (kd_pass(&seq->kd, &rows, target_count, sums, err) < 0)
            return -1;
    }
    return 0;
}

static int seq_kd_step(struct run *run, void *state, struct err *err)
{
    struct seq_kd *seq = state;
    struct kd_sums sums = {0};
    int64_t target_count, lengths[2];

    responses_read(&seq->responses);
    for (int64_t row = 0; row < responses_rows(&seq->responses); row++)
        if (write_response(seq, row, err) < 0)
            return -1;
    target_count = responses_count(&seq->responses);
    if (target_count == 0)
        return err_set(err, ERR_INVALID, "no prompt of this step leaves room for a response in "
                       "the context of %lld tokens", (long long)seq->responses.T);
    lengths[0] = seq->responses.written_tokens;
    lengths[1] = seq->responses.written;
    comm_sum_i64(run->comm, lengths, 2);
    if (lengths[1] > 0)
        run_metric(run, "response_tokens", (double)lengths[0] / (double)lengths[1]);
    if (seq_kd_passes(seq, target_count, &sums, err) < 0)
        return -1;
    return kd_finish(&seq->kd, target_count, &sums, err);
}

static int seq_kd_load(struct run *run, void *state, struct checkpoint_reader *reader,
                       struct err *err)
{
    (void)run;
    return kd_load(&((struct seq_kd *)state)->kd, reader, err);
}

static int seq_kd_save(struct run *run, void *state, struct checkpoint_writer *writer,
                       struct err *err)
{
    (void)run;
    return kd_save(&((struct seq_kd *)state)->kd, writer, err);
}

static void seq_kd_close(struct run *run, void *state)
{
    struct seq_kd *seq = state;
    int64_t count = seq->written ? corpus_count(&seq->kd.train) : 0;

    if (seq->in_all > 0)
        run_note(run, "rank 0 used %lld responses, %lld of them written anew",
                 (long long)seq->in_all, (long long)seq->fresh);
    for (int64_t i = 0; i < count; i++)
        mem_free(seq->written[i].token);
    free(seq->written);
    responses_done(&seq->responses);
    kd_close(&seq->kd);
}

static const struct param seq_kd_params[] = {
    {"mode", PARAM_CHOICE, "beam", 0, 0, "beam|sample",
     "what the teacher writes: its best beam, or one sample of its distribution"},
    {"beams", PARAM_INT, "5", 1, 1024, NULL, "texts kept at each step of the search"},
    {"length_power", PARAM_FLOAT, "0", 0, 2, NULL,
     "beams are ranked by log probability over length to this power"},
    {"gen_temperature", PARAM_FLOAT, "1", 0, 5, NULL, "of samples; 0: greedy"},
    {"max_new_tokens", PARAM_INT, "128", 1, 1048576, NULL,
     "longest response in tokens; the context also ends it"},
    KD_LOSS_PARAMS("ce", "1"),
    KD_STUDENT_PARAMS,
    {"steps", PARAM_INT, "200", 1, 1e9, NULL, "optimiser steps"},
    {"separator", PARAM_STRING, "\n", 0, 0, NULL,
     "one token between prompt and response, its last place in a document"},
    {"eval_every", PARAM_INT, "50", 0, 1e9, NULL,
     "steps between validations; 0: only after the last step"},
    TRAIN_PARAMS("1e-3", "cosine", "32", "0.01"),
};

static const struct input seq_kd_inputs[] = {
    {"data", INPUT_DATASET, true,
     "documents of a prompt, the separator and a response (which is replaced)"},
    {"valid", INPUT_DATASET, false, "the same for val_loss and kl_to_teacher"},
    {"teacher", INPUT_CHECKPOINT, true, "model that writes the responses, same tokenizer"},
    {"student", INPUT_CHECKPOINT, false, "student's weights, with student_init: checkpoint"},
};

const struct recipe recipe_distillation_seq_kd = {
    .name = "seq_kd",
    .kind = RECIPE_DISTILLATION,
    .version = 1,
    .summary = "Trains a small model on responses that a larger one writes.",
    .source = "Kim and Rush 2016 (sequence-level knowledge distillation), section 3.2",
    .params = seq_kd_params,
    .param_count = ARRAY_COUNT(seq_kd_params),
    .inputs = seq_kd_inputs,
    .input_count = ARRAY_COUNT(seq_kd_inputs),
    .outputs = "checkpoint|metrics",
    .state_size = sizeof(struct seq_kd),
    .open = seq_kd_open,
    .load = seq_kd_load,
    .step = seq_kd_step,
    .save = seq_kd_save,
    .close = seq_kd_close,
};
