/* control.c - recipe eval/control: whether rewrites are as their control codes ask.
 *
 * Every source is rewritten once without a code and once with each code. What a code asks for is
 * a fifth of the pairs that the dataset `codes` was made of: a rewrite obeys when its value is in
 * that fifth (one in five would by chance). Means leave out what is no sentence; it obeys nothing.
 * spearman is the rank correlation of the five codes with the mean values of their rewrites: 1
 * when each code's mean is above that of the code before. */
#include "common/base/buf.h"
#include "common/base/file.h"
#include "common/base/mem.h"
#include "common/base/rng.h"
#include "worker/engine/comm.h"
#include "worker/recipes/distillation/impossible/block.h"
#include "worker/recipes/distillation/impossible/control.h"
#include "worker/recipes/distillation/impossible/sampler.h"
#include "worker/recipes/eval/interval.h"
#include "worker/recipes/eval/results.h"
#include "worker/recipes/train.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SOURCES_A_STEP 16
#define ROWS_MAX (1 + CONTROL_END * CONTROL_BUCKETS)
#define PLAIN "plain" /* the row without a code */

struct control_eval {
    struct device *device;
    struct model *model;
    struct tokenizer *tokenizer;
    struct sentence_sampler sampler;
    struct control control;
    struct dataset *dataset;
    struct dataset_texts texts;
    struct buf lines; /* of this rank */
    size_t sources, row_count;
    char row_name[ROWS_MAX][CONTROL_TOKEN_SIZE];
    uint32_t row_code[ROWS_MAX];
    char *path;
    double *value[ROWS_MAX][CONTROL_END]; /* of each source; NAN: no sentence */
};

/* ---- opening ---------------------------------------------------------------------------- */

static int open_rows(struct run *run, struct control_eval *state, struct err *err)
{
    const struct run_input *codes = run_input(run, "codes");

    if (control_read(codes->path, &state->control, err) < 0)
        return err_wrap(err, "input 'codes' (%s)", codes->ref);
    snprintf(state->row_name[state->row_count++], CONTROL_TOKEN_SIZE, PLAIN);
    for (enum control_kind kind = 0; kind < state->control.count; kind++)
        for (unsigned b = 1; b <= CONTROL_BUCKETS; b++) {
            char *name = state->row_name[state->row_count];
            control_token(kind, b, name);
            uint32_t id = tokenizer_find(state->tokenizer, name, strlen(name));
            if (id >= TOKENIZER_VOCAB_MAX)
                return err_set(err, ERR_INVALID, "input 'model' (%s): its tokenizer has no %s; it "
                               "was not trained on a dataset of data/codes",
                               run_input(run, "model")->ref, name);
            state->row_code[state->row_count++] = id;
        }
    return 0;
}

static int open_sources(struct run *run, struct control_eval *state, struct err *err)
{
    const struct run_input *given = run_input(run, "data");
    const struct dataset_part *part;
    size_t most = (size_t)run_int(run, "sources");

    if (dataset_open(given->path, &state->dataset, err) < 0 ||
        dataset_part(state->dataset, given->part, &part, err) < 0 ||
        dataset_texts_read(part, &state->texts, err) < 0)
        return err_wrap(err, "input 'data' (%s)", given->ref);
    if (state->texts.count == 0)
        return err_set(err, ERR_INVALID, "input 'data' (%s) holds no documents", given->ref);
    state->sources = most && most < state->texts.count ? most : state->texts.count;
    return 0;
}

static int control_open(struct run *run, void *opaque, struct err *err)
{
    struct control_eval *state = opaque;

    state->path = mem_printf("%s/control.jsonl", run->job_dir);
    if (run_device_open(run, &state->device, err) < 0 ||
        run_writer_open(run, "model", state->device, false, &state->model, err) < 0)
        return -1;
    if (tokenizer_read(run_input(run, "model")->path, &state->tokenizer, err) < 0)
        return err_wrap(err, "input 'model'");
    if (open_rows(run, state, err) < 0 || open_sources(run, state, err) < 0)
        return -1;
    state->sampler = (struct sentence_sampler){
        .model = state->model,
        .tokenizer = state->tokenizer,
        .newline = true,
        .max_tokens = min_u64((uint64_t)run_int(run, "max_tokens"),
                              (uint64_t)state->model->config.context / 2),
        .sampling = {.temperature = run_float(run, "temperature"),
                     .top_p = run_float(run, "top_p"),
                     .seed = (uint64_t)run_int(run, "seed"),
                     .stop_token = (int32_t)tokenizer_end_of_text(state->tokenizer)}};
    run->step_count = (state->sources + SOURCES_A_STEP - 1) / SOURCES_A_STEP + 1;
    return 0;
}

/* ---- rewriting -------------------------------------------------------------------------- */

static char *source_of(const struct control_eval *state, size_t index)
{
    const char *text = state->texts.items[index].text, *end = strchr(text, '\n');

    return mem_strndup(text, end ? (size_t)(end - text) : strlen(text));
}

/* {"source", "plain": rewrite, "<len:1>": rewrite, ...} */
static int rewrite_one(struct control_eval *state, size_t index, struct err *err)
{
    char *x = source_of(state, index);
    json_t *line = json_pack("{s:s}", "source", x);
    uint64_t tokens = 0;
    int rc = 0;

    for (size_t r = 0; r < state->row_count && rc == 0; r++) {
        struct sentence_sampler sampler = state->sampler;
        char *y = NULL;
        sampler.code = &state->row_code[r];
        sampler.code_count = r > 0;
        rc = sampler_sentences(&sampler, x, index * ROWS_MAX + r, 1, false, &y, &tokens, err);
        if (rc == 0)
            json_object_set_new(line, state->row_name[r], json_string(y));
        mem_free(y);
    }
    char *text = json_dumps(line, JSON_COMPACT);
    CHECK(text);
    buf_puts(&state->lines, text);
    buf_putc(&state->lines, '\n');
    free(text);
    json_decref(line);
    mem_free(x);
    return rc;
}

/* ---- measuring, on rank 0 --------------------------------------------------------------- */

static void measure_line(struct control_eval *state, size_t index, json_t *line)
{
    const char *x = json_string_value(json_object_get(line, "source"));

    for (size_t r = 0; r < state->row_count; r++) {
        double value[CONTROL_END];
        control_measure(x, json_string_value(json_object_get(line, state->row_name[r])), value);
        for (enum control_kind kind = 0; kind < CONTROL_END; kind++)
            state->value[r][kind][index] = value[kind];
    }
}

static int read_lines(struct control_eval *state, struct err *err)
{
    char *bytes, *at, *end;
    size_t length, count = 0;

    for (size_t r = 0; r < state->row_count; r++)
        for (enum control_kind kind = 0; kind < CONTROL_END; kind++)
            state->value[r][kind] = mem_array(state->sources, sizeof(double));
    if (file_read(state->path, (size_t)1 << 33, &bytes, &length, err) < 0)
        return -1;
    for (at = strchr(bytes, '\n') + 1; (end = strchr(at, '\n')); at = end + 1) {
        json_t *line = json_loadb(at, (size_t)(end - at), 0, NULL);
        CHECK(line && count < state->sources); /* written a moment ago */
        measure_line(state, count++, line);
        json_decref(line);
    }
    mem_free(bytes);
    return 0;
}

/* Mean of the values that are there, of the sources that `draw` chooses (NULL: each once). */
static double mean_drawn(const double *value, size_t count, const size_t *draw)
{
    double sum = 0;
    size_t there = 0;

    for (size_t i = 0; i < count; i++) {
        double v = value[draw ? draw[i] : i];
        if (!isnan(v)) {
            sum += v;
            there++;
        }
    }
    return there ? sum / (double)there : NAN;
}

/* Rank of mean[b] among all, ties sharing theirs; 1 the lowest. */
static double rank_of(const double mean[CONTROL_BUCKETS], size_t b)
{
    double rank = 0.5;

    for (size_t o = 0; o < CONTROL_BUCKETS; o++)
        rank += mean[o] < mean[b] ? 1 : mean[o] == mean[b] ? 0.5 : 0;
    return rank;
}

/* Spearman's correlation of the codes 1..5 with their means; NAN without one of the means, 0 when
 * all are equal. */
static double spearman_of(const double mean[CONTROL_BUCKETS])
{
    double middle = (CONTROL_BUCKETS + 1) / 2.0, both = 0, own = 0, codes = 0;

    for (size_t b = 0; b < CONTROL_BUCKETS; b++) {
        double code = (double)b + 1 - middle, rank = rank_of(mean, b) - middle;
        if (isnan(mean[b]))
            return NAN;
        both += code * rank;
        own += rank * rank;
        codes += code * code;
    }
    return own > 0 ? both / sqrt(own * codes) : 0;
}

static void put(struct results *results, const char *name, double value, struct interval interval)
{
    char full[64];

    results_add(results, name, value);
    snprintf(full, sizeof full, "%s_low", name);
    results_add(results, full, interval.low);
    snprintf(full, sizeof full, "%s_high", name);
    results_add(results, full, interval.high);
}

static int compare(const void *a, const void *b)
{
    double left = *(const double *)a, right = *(const double *)b;

    return (left > right) - (left < right);
}

/* Percentiles over draws of sources, the same sources for all codes. */
static struct interval spearman_interval(const struct run *run, const struct control_eval *state,
                                         enum control_kind kind)
{
    size_t draws = (size_t)run_int(run, "bootstrap");
    size_t *draw = mem_array(state->sources, sizeof *draw);
    double *found = mem_array(draws + 1, sizeof *found);
    struct interval out = {NAN, NAN};

    for (size_t d = 0; d < draws; d++) {
        double mean[CONTROL_BUCKETS];
        for (size_t i = 0; i < state->sources; i++)
            draw[i] = rng_at((uint64_t)run_int(run, "seed"), d, i) % state->sources;
        for (size_t b = 0; b < CONTROL_BUCKETS; b++)
            mean[b] = mean_drawn(state->value[1 + kind * CONTROL_BUCKETS + b][kind],
                                 state->sources, draw);
        found[d] = spearman_of(mean);
    }
    if (draws) {
        qsort(found, draws, sizeof *found, compare);
        out.low = found[(size_t)(0.025 * (double)(draws - 1) + 0.5)];
        out.high = found[(size_t)(0.975 * (double)(draws - 1) + 0.5)];
    }
    mem_free(draw);
    mem_free(found);
    return out;
}

/* The mean value of a row, of the sources whose rewrite is a sentence. */
static double put_row(struct run *run, struct results *results, const struct control_eval *state,
                      enum control_kind kind, size_t row, const char *suffix)
{
    double *there = mem_array(state->sources, sizeof *there);
    const double *value = state->value[row][kind];
    size_t count = 0;
    char name[48];

    for (size_t i = 0; i < state->sources; i++)
        if (!isnan(value[i]))
            there[count++] = value[i];
    snprintf(name, sizeof name, "%s_%s", control_kind_name(kind), suffix);
    put(results, name, mean_of(there, count),
        mean_interval(there, count, (uint64_t)run_int(run, "seed"),
                      (unsigned)run_int(run, "bootstrap")));
    double mean = mean_of(there, count);
    mem_free(there);
    return mean;
}

/* Share of (source, code) whose rewrite is in the fifth that was asked for; of each source the
 * share of its codes is one value of the interval. */
static void put_accuracy(struct run *run, struct results *results,
                         const struct control_eval *state, enum control_kind kind)
{
    double *share = mem_array(state->sources, sizeof *share);
    char name[48];

    for (size_t i = 0; i < state->sources; i++)
        for (unsigned b = 1; b <= CONTROL_BUCKETS; b++) {
            double value = state->value[kind * CONTROL_BUCKETS + b][kind][i];
            if (!isnan(value) && control_bucket(&state->control, kind, value) == b)
                share[i] += 1.0 / CONTROL_BUCKETS;
        }
    snprintf(name, sizeof name, "%s_accuracy", control_kind_name(kind));
    put(results, name, mean_of(share, state->sources),
        mean_interval(share, state->sources, (uint64_t)run_int(run, "seed"),
                      (unsigned)run_int(run, "bootstrap")));
    mem_free(share);
}

static void put_kind(struct run *run, struct results *results, const struct control_eval *state,
                     enum control_kind kind)
{
    double mean[CONTROL_BUCKETS];
    char name[48];

    put_row(run, results, state, kind, 0, PLAIN);
    for (size_t b = 0; b < CONTROL_BUCKETS; b++) {
        char suffix[8];
        snprintf(suffix, sizeof suffix, "%zu", b + 1);
        mean[b] = put_row(run, results, state, kind, 1 + kind * CONTROL_BUCKETS + b, suffix);
    }
    snprintf(name, sizeof name, "%s_spearman", control_kind_name(kind));
    put(results, name, spearman_of(mean), spearman_interval(run, state, kind));
    put_accuracy(run, results, state, kind);
}

static double sentence_share(const struct control_eval *state)
{
    size_t sentences = 0;

    for (size_t r = 0; r < state->row_count; r++)
        for (size_t i = 0; i < state->sources; i++)
            sentences += !isnan(state->value[r][CONTROL_LEN][i]);
    return (double)sentences / (double)(state->row_count * state->sources);
}

static int report(struct run *run, const struct control_eval *state, struct err *err)
{
    struct results results;

    results_init(&results, run);
    results_text(&results, "model", run_input(run, "model")->ref);
    results_text(&results, "codes", run_input(run, "codes")->ref);
    results_text(&results, "split", run_input(run, "data")->ref);
    for (enum control_kind kind = 0; kind < state->control.count; kind++)
        put_kind(run, &results, state, kind);
    results_add(&results, "well_formed", sentence_share(state));
    int rc = results_write(&results, "control", err);
    results_done(&results);
    return rc;
}

static int finish(struct run *run, struct control_eval *state, struct err *err)
{
    if (block_write_part(state->path, run->rank, &state->lines, err) < 0)
        return -1;
    comm_barrier(run->comm);
    if (run->rank != 0)
        return 0;
    if (block_merge(state->path, "control", 0, state->sources, run->rank_count, err) < 0 ||
        read_lines(state, err) < 0 || report(run, state, err) < 0)
        return -1;
    return run_artifact(run, "texts", "control_rewrites", state->path, NULL, err);
}

static int control_step(struct run *run, void *opaque, struct err *err)
{
    struct control_eval *state = opaque;
    size_t first = (size_t)run->step * SOURCES_A_STEP;

    run->phase = "rewrite";
    if (run->step + 1 == run->step_count)
        return finish(run, state, err);
    for (size_t i = first; i < first + SOURCES_A_STEP && i < state->sources; i++)
        if (i % run->rank_count == run->rank && rewrite_one(state, i, err) < 0)
            return err_wrap(err, "document %zu", i);
    return 0;
}

static void control_close(struct run *run, void *opaque)
{
    struct control_eval *state = opaque;

    (void)run;
    for (size_t r = 0; r < ROWS_MAX; r++)
        for (enum control_kind kind = 0; kind < CONTROL_END; kind++)
            mem_free(state->value[r][kind]);
    dataset_texts_done(&state->texts);
    dataset_close(state->dataset);
    model_free(state->model);
    tokenizer_free(state->tokenizer);
    device_close(state->device);
    buf_done(&state->lines);
    mem_free(state->path);
}

static const struct param control_params[] = {
    {"sources", PARAM_INT, "0", 0, 1e9, NULL, "most documents that are rewritten; 0: all"},
    {"temperature", PARAM_FLOAT, "0.7", 0, 2, NULL, "of the rewrites; 0: greedy"},
    {"top_p", PARAM_FLOAT, "0.9", 0.01, 1, NULL, "mass of the tokens they are drawn from"},
    {"max_tokens", PARAM_INT, "100", 4, 4096, NULL,
     "most tokens of a rewrite; at most half of the model's context"},
    {"bootstrap", PARAM_INT, "1000", 0, 100000, NULL, "draws of the 95 % intervals over sources"},
    {"seed", PARAM_INT, "0", 0, 9e15, NULL, "of samples and intervals"},
    DEVICE_PARAMS,
};

static const struct input control_inputs[] = {
    {"model", INPUT_CHECKPOINT, true, "model finetuned on a dataset of data/codes"},
    {"codes", INPUT_DATASET, true, "that dataset: what each code asks for"},
    {"data", INPUT_DATASET, true, "sources, each alone or with a newline and more after it"},
};

const struct recipe recipe_eval_control = {
    .name = "control",
    .kind = RECIPE_EVAL,
    .version = 1,
    .summary = "Measures whether rewrites have the length and the words that codes ask for.",
    .source = "Spearman 1904 over the codes' means; the codes of data/codes: Athanor",
    .params = control_params,
    .param_count = ARRAY_COUNT(control_params),
    .inputs = control_inputs,
    .input_count = ARRAY_COUNT(control_inputs),
    .outputs = "metrics",
    .state_size = sizeof(struct control_eval),
    .open = control_open,
    .step = control_step,
    .close = control_close,
};
