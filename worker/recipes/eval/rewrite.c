/* rewrite.c - recipe eval/rewrite: how well a model says sentences again, otherwise or shorter.
 *
 * Each source is rewritten once; a critic says whether both entail each other. A document may be
 * a source alone, or a source, a newline and a reference. */
#include "common/base/buf.h"
#include "common/base/file.h"
#include "common/base/mem.h"
#include "worker/engine/comm.h"
#include "worker/recipes/distillation/impossible/block.h"
#include "worker/recipes/distillation/impossible/sampler.h"
#include "worker/recipes/distillation/impossible/sentence.h"
#include "worker/recipes/eval/bert_score.h"
#include "worker/recipes/eval/interval.h"
#include "worker/recipes/eval/results.h"
#include "worker/recipes/text/overlap.h"
#include "worker/recipes/train.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SOURCES_A_STEP 64
#define SAMPLES_SHOWN 10

struct rewrite {
    struct device *device;
    struct model *model;
    struct tokenizer *tokenizer;
    struct token_list prompt; /* before each source */
    struct critic *critic;
    const char *critic_name; /* resolved */
    struct embedder *embedder; /* NULL: no BERTScore */
    struct sentence_sampler sampler;
    struct dataset *dataset;
    struct dataset_texts texts;
    size_t count;     /* of texts that are sources */
    struct buf lines; /* of this rank */
    char *path;
    bool summary;
    double tau, rouge_max, compression, beta;
};

/* ---- opening ---------------------------------------------------------------------------- */

static int open_tokenizer(const struct run *run, const char *input, struct tokenizer **out,
                          struct err *err)
{
    if (tokenizer_read(run_input(run, input)->path, out, err) < 0)
        return err_wrap(err, "input '%s'", input);
    return 0;
}

static int open_sources(struct run *run, struct rewrite *state, struct err *err)
{
    const struct run_input *given = run_input(run, "data");
    const struct dataset_part *part;

    if (dataset_open(given->path, &state->dataset, err) < 0 ||
        dataset_part(state->dataset, given->part, &part, err) < 0 ||
        dataset_texts_read(part, &state->texts, err) < 0)
        return err_wrap(err, "input 'data' (%s)", given->ref);
    state->count = state->texts.count;
    if (run_int(run, "sources"))
        state->count = (size_t)min_u64(state->count, (uint64_t)run_int(run, "sources"));
    if (state->count == 0)
        return err_set(err, ERR_INVALID, "input 'data' (%s) holds no documents", given->ref);
    return 0;
}

static int open_critic(struct run *run, struct rewrite *state, struct err *err)
{
    const struct run_input *judge = run_input(run, "judge");
    struct critic_choice choice = {.name = critic_resolve(run_string(run, "critic"),
                                                          judge ? judge->path : NULL),
                                   .folder = judge ? judge->path : NULL,
                                   .device = state->device};

    state->critic_name = choice.name;
    state->tau = run_float(run, "tau");
    if (critic_choose(&choice, &state->critic, err) < 0)
        return judge ? err_wrap(err, "input 'judge' (%s)", judge->ref) : -1;
    if (state->tau == 0 && !critic_is_scaled(state->critic))
        return err_set(err, ERR_INVALID, "critic %s needs the parameter 'tau': the job that made "
                                         "the pairs reports the one it calibrated as metric tau",
                       choice.name);
    if (state->tau == 0)
        state->tau = 0.75;
    return 0;
}

static int open_embedder(struct run *run, struct rewrite *state, struct err *err)
{
    const struct run_input *given = run_input(run, "embedder");

    if (given && embedder_open(given->path, state->device, &state->embedder, err) < 0)
        return err_wrap(err, "input 'embedder' (%s)", given->ref);
    return 0;
}

static int rewrite_open(struct run *run, void *opaque, struct err *err)
{
    struct rewrite *state = opaque;

    state->summary = strcmp(run_string(run, "task"), "summarize") == 0;
    state->rouge_max = run_float(run, "rouge_max");
    state->compression = run_float(run, "compression");
    state->beta = run_float(run, "bert_beta");
    state->path = mem_printf("%s/rewrites.jsonl", run->job_dir);
    if (run_device_open(run, &state->device, err) < 0 ||
        run_writer_open(run, "model", state->device, false, &state->model, err) < 0 ||
        open_tokenizer(run, "model", &state->tokenizer, err) < 0 ||
        open_critic(run, state, err) < 0 ||
        open_embedder(run, state, err) < 0 || open_sources(run, state, err) < 0)
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
    tokenizer_encode_special(state->tokenizer, run_string(run, "prompt"),
                             strlen(run_string(run, "prompt")), &state->prompt);
    state->sampler.code = state->prompt.ids;
    state->sampler.code_count = state->prompt.count;
    run->step_count = (state->count + SOURCES_A_STEP - 1) / SOURCES_A_STEP + 1;
    return 0;
}

/* ---- rewriting -------------------------------------------------------------------------- */

static int judge(struct rewrite *state, const char *x, const char *y, double out[2],
                 struct err *err)
{
    struct critic_pair pairs[] = {{x, y}, {y, x}};

    out[0] = out[1] = -INFINITY;
    return *y ? critic_score(state->critic, pairs, 2, out, err) : 0;
}

static double bleu_of(const char *candidate, const char *reference)
{
    struct words a = {0}, b = {0};

    words_split(&a, WORDS_13A, candidate, strlen(candidate));
    words_split(&b, WORDS_13A, reference, strlen(reference));
    double bleu = a.count ? bleu_sentence(&a, &b) : 0;
    words_done(&a);
    words_done(&b);
    return bleu;
}

/* BERTScore F with the source, and BERT-iBLEU; zeros for a rewrite that is no sentence. */
static int liken(struct rewrite *state, const char *x, const char *y, double out[2],
                 struct err *err)
{
    struct overlap bert;

    out[0] = out[1] = 0;
    if (!state->embedder || !*y)
        return 0;
    if (bert_score(state->embedder, y, x, &bert, err) < 0)
        return err_wrap(err, "input 'embedder'");
    out[0] = bert.f;
    out[1] = bert_ibleu(bert.f, bleu_of(y, x), state->beta);
    return 0;
}

static void write_line(struct rewrite *state, const char *x, const char *reference, const char *y,
                       const double score[2], const double bert[2])
{
    bool forward = score[0] >= state->tau, back = score[1] >= state->tau;
    double rouge = rouge_l_texts(y, x);
    double ratio = (double)sentence_characters(y) / (double)(sentence_characters(x) + !*x);
    bool success = state->summary ? forward && ratio < state->compression
                                  : forward && back && rouge <= state->rouge_max;
    json_t *line = json_pack("{s:s, s:s?, s:s, s:b, s:b, s:b, s:b, s:f, s:f, s:f, s:f}", "source",
                             x, "reference", reference, "rewrite", y, "well_formed", *y != 0,
                             "entailed", forward, "entails", back, "success", success, "rouge_l",
                             rouge, "length_ratio", ratio, "bert_score", bert[0], "bert_ibleu",
                             bert[1]);
    CHECK(line);
    char *text = json_dumps(line, JSON_COMPACT);
    CHECK(text);
    buf_puts(&state->lines, text);
    buf_putc(&state->lines, '\n');
    free(text);
    json_decref(line);
}

static int rewrite_one(struct rewrite *state, size_t index, struct err *err)
{
    const char *document = state->texts.items[index].text, *end = strchr(document, '\n');
    char *x = mem_strndup(document, end ? (size_t)(end - document) : strlen(document));
    char *y = NULL;
    uint64_t tokens = 0;
    double score[2], bert[2];
    int rc = sampler_sentences(&state->sampler, x, index, 1, false, &y, &tokens, err);

    if (rc == 0)
        rc = judge(state, x, y, score, err);
    if (rc == 0)
        rc = liken(state, x, y, bert, err);
    if (rc == 0)
        write_line(state, x, end ? end + 1 : NULL, y, score, bert);
    mem_free(x);
    mem_free(y);
    return rc;
}

/* ---- measuring, on rank 0 --------------------------------------------------------------- */

/* The last two only with an embedder. */
static const char *const means[] = {"success",      "entailed",    "entails",    "rouge_l",
                                    "length_ratio", "well_formed", "bert_score", "bert_ibleu"};

struct measured {
    double *value[ARRAY_COUNT(means)]; /* one a source */
    struct words *rewrites, *source_words;
    const struct words **list;
    struct bleu *to_source, *to_reference; /* one a source; zero: it has no reference */
    double *rouge_reference;               /* of those that have one */
    size_t count, references;
    json_t *samples;
};

static void add_texts(struct measured *measured, json_t *line)
{
    const char *y = json_string_value(json_object_get(line, "rewrite"));
    const char *x = json_string_value(json_object_get(line, "source"));
    const char *reference = json_string_value(json_object_get(line, "reference"));
    struct words *mine = &measured->rewrites[measured->count];
    struct words theirs = {0};
    const struct words *one = &theirs;

    measured->list[measured->count] = mine;
    words_split(mine, WORDS_13A, y, strlen(y));
    words_split(&theirs, WORDS_13A, x, strlen(x));
    bleu_add(&measured->to_source[measured->count], mine, &one, 1);
    if (reference) {
        words_split(&theirs, WORDS_13A, reference, strlen(reference));
        bleu_add(&measured->to_reference[measured->count], mine, &one, 1);
        measured->rouge_reference[measured->references++] = rouge_l_texts(y, reference);
    }
    words_done(&theirs);
}

static double number_of(const json_t *value)
{
    return json_is_boolean(value) ? json_is_true(value) : json_number_value(value);
}

static void add_measured(struct measured *measured, json_t *line)
{
    for (size_t m = 0; m < ARRAY_COUNT(means); m++)
        measured->value[m][measured->count] = number_of(json_object_get(line, means[m]));
    add_texts(measured, line);
    if (json_array_size(measured->samples) < SAMPLES_SHOWN)
        json_array_append(measured->samples, line);
    measured->count++;
}

static int read_lines(const struct rewrite *state, struct measured *measured, struct err *err)
{
    char *bytes, *at, *end;
    size_t length;

    if (file_read(state->path, (size_t)1 << 33, &bytes, &length, err) < 0)
        return -1;
    at = strchr(bytes, '\n') + 1; /* past the settings */
    for (; (end = strchr(at, '\n')); at = end + 1) {
        json_t *line = json_loadb(at, (size_t)(end - at), 0, NULL);
        CHECK(line && measured->count < state->count); /* written a moment ago */
        add_measured(measured, line);
        json_decref(line);
    }
    mem_free(bytes);
    return 0;
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

static void put_mean(struct run *run, struct results *results, const char *name,
                     const double *values, size_t count)
{
    put(results, name, mean_of(values, count),
        mean_interval(values, count, (uint64_t)run_int(run, "seed"),
                      (unsigned)run_int(run, "bootstrap")));
}

static double corpus_bleu(const struct bleu *parts, size_t count)
{
    struct bleu sum = {0};

    for (size_t i = 0; i < count; i++)
        bleu_join(&sum, &parts[i]);
    return bleu_score(&sum, false);
}

/* Corpus figures: each draw of sources is of both BLEU at once, so that iBLEU has an interval of
 * its own. Without references those of BLEU and iBLEU are NAN, which is no metric. */
static void put_bleu(struct run *run, struct results *results, const struct measured *measured)
{
    unsigned draws = (unsigned)run_int(run, "bootstrap");
    uint64_t seed = (uint64_t)run_int(run, "seed");
    double alpha = run_float(run, "ibleu_alpha");
    double *source = mem_array(draws + 1, sizeof *source);
    double *reference = mem_array(draws + 1, sizeof *reference);
    double *both = mem_array(draws + 1, sizeof *both);
    double to_source = corpus_bleu(measured->to_source, measured->count);
    double to_reference = NAN;
    unsigned known = measured->references ? draws : 0;

    if (measured->references)
        to_reference = corpus_bleu(measured->to_reference, measured->count);
    bleu_draws(measured->to_source, measured->count, 1, seed, draws, source);
    bleu_draws(measured->to_reference, measured->count, 1, seed, known, reference);
    for (unsigned d = 0; d < known; d++)
        both[d] = ibleu(reference[d], source[d], alpha);
    put(results, "bleu_source", to_source, percentiles(source, draws));
    put(results, "bleu", to_reference, percentiles(reference, known));
    put(results, "ibleu", ibleu(to_reference, to_source, alpha), percentiles(both, known));
    mem_free(source);
    mem_free(reference);
    mem_free(both);
}

/* Each text's BLEU against the others is one value of the interval. */
static void put_self_bleu(struct run *run, struct results *results, const struct measured *measured)
{
    size_t few = measured->count < 200 ? measured->count : 200;
    double *each = mem_array(few + 1, sizeof *each);

    self_bleu_each(measured->list, few, each);
    put_mean(run, results, "self_bleu", each, few);
    mem_free(each);
}

static int report(struct run *run, const struct rewrite *state, struct measured *measured,
                  struct err *err)
{
    struct results results;
    char *samples = json_dumps(measured->samples, 0);

    results_init(&results, run);
    results_text(&results, "model", run_input(run, "model")->ref);
    results_text(&results, "split", run_input(run, "data")->ref);
    results_text(&results, "critic", state->critic_name);
    results_number(&results, "tau", state->tau);
    results_raw(&results, "samples", samples);
    for (size_t m = 0; m < ARRAY_COUNT(means) - (state->embedder ? 0 : 2); m++)
        put_mean(run, &results, means[m], measured->value[m], measured->count);
    put_bleu(run, &results, measured);
    put_mean(run, &results, "rouge_l_reference", measured->rouge_reference, measured->references);
    put_self_bleu(run, &results, measured);
    results_add(&results, "distinct_1", distinct_n(measured->list, measured->count, 1));
    results_add(&results, "distinct_2", distinct_n(measured->list, measured->count, 2));
    int rc = results_write(&results, "rewrite", err);
    results_done(&results);
    free(samples);
    return rc;
}

static int measure(struct run *run, const struct rewrite *state, struct err *err)
{
    struct measured measured = {.samples = json_array()};
    size_t room = state->count + 1;

    measured.rewrites = mem_array(room, sizeof *measured.rewrites);
    measured.list = mem_array(room, sizeof *measured.list);
    measured.to_source = mem_zalloc(room * sizeof *measured.to_source);
    measured.to_reference = mem_zalloc(room * sizeof *measured.to_reference);
    measured.rouge_reference = mem_array(room, sizeof *measured.rouge_reference);
    for (size_t m = 0; m < ARRAY_COUNT(means); m++)
        measured.value[m] = mem_array(room, sizeof *measured.value[m]);
    int rc = read_lines(state, &measured, err);
    if (rc == 0)
        rc = report(run, state, &measured, err);
    for (size_t i = 0; i < measured.count; i++)
        words_done(&measured.rewrites[i]);
    for (size_t m = 0; m < ARRAY_COUNT(means); m++)
        mem_free(measured.value[m]);
    mem_free(measured.rewrites);
    mem_free(measured.list);
    mem_free(measured.to_source);
    mem_free(measured.to_reference);
    mem_free(measured.rouge_reference);
    json_decref(measured.samples);
    return rc;
}

static int finish(struct run *run, struct rewrite *state, struct err *err)
{
    int rc = block_write_part(state->path, run->rank, &state->lines, err);

    if (rc < 0)
        return -1;
    comm_barrier(run->comm);
    if (run->rank != 0)
        return 0;
    if (block_merge(state->path, "rewrites", 0, state->count, run->rank_count, err) < 0 ||
        measure(run, state, err) < 0)
        return -1;
    return run_artifact(run, "texts", "rewrites", state->path, NULL, err);
}

static int rewrite_step(struct run *run, void *opaque, struct err *err)
{
    struct rewrite *state = opaque;
    size_t first = (size_t)run->step * SOURCES_A_STEP;

    run->phase = "rewrite";
    if (run->step + 1 == run->step_count)
        return finish(run, state, err);
    for (size_t i = first; i < first + SOURCES_A_STEP && i < state->count; i++)
        if (i % run->rank_count == run->rank && rewrite_one(state, i, err) < 0)
            return err_wrap(err, "document %zu", i);
    return 0;
}

static void rewrite_close(struct run *run, void *opaque)
{
    struct rewrite *state = opaque;

    (void)run;
    critic_free(state->critic);
    embedder_close(state->embedder);
    dataset_texts_done(&state->texts);
    dataset_close(state->dataset);
    model_free(state->model);
    tokenizer_free(state->tokenizer);
    token_list_done(&state->prompt);
    device_close(state->device);
    buf_done(&state->lines);
    mem_free(state->path);
}

static const struct param rewrite_params[] = {
    {"task", PARAM_CHOICE, "paraphrase", 0, 0, "paraphrase|summarize",
     "what a success is: entailment both ways in other words, or of less by its source"},
    {"prompt", PARAM_STRING, "", 0, 0, NULL,
     "put before each source, such as <len:2><abs:5> (data/codes): special tokens are recognised"},
    {"temperature", PARAM_FLOAT, "0.7", 0, 2, NULL, "of the rewrites; 0: greedy"},
    {"top_p", PARAM_FLOAT, "0.9", 0.01, 1, NULL, "mass of the tokens they are drawn from"},
    {"max_tokens", PARAM_INT, "100", 4, 4096, NULL,
     "most tokens of a rewrite; at most half of the model's context"},
    {"sources", PARAM_INT, "0", 0, 1e9, NULL, "most sources, the first of them; 0: all"},
    {"critic", PARAM_CHOICE, "auto", 0, 0, "auto|lm_mi|pmi|nli|oracle",
     "who judges entailment: mutual information (also pmi) or classes of the input judge, or "
     "exact truth; auto: nli if the judge is a classifier, else lm_mi"},
    {"tau", PARAM_FLOAT, "0", -100, 100, NULL,
     "least score of an entailment; 0: 0.75 for oracle and nli"},
    {"rouge_max", PARAM_FLOAT, "0.75", 0, 1, NULL, "most ROUGE-L F of a successful paraphrase"},
    {"compression", PARAM_FLOAT, "0.8", 0.05, 1, NULL,
     "a successful summary has fewer characters than this for one of its source"},
    {"ibleu_alpha", PARAM_FLOAT, "0.7", 0, 1, NULL,
     "weight of the reference in ibleu; the rest is the source's"},
    {"bert_beta", PARAM_FLOAT, "4", 0.01, 100, NULL,
     "weight of likeness in bert_ibleu; that of other words is 1"},
    {"bootstrap", PARAM_INT, "1000", 0, 100000, NULL, "draws of the 95 % intervals over sources"},
    {"seed", PARAM_INT, "0", 0, 9e15, NULL, "of samples and intervals"},
    DEVICE_PARAMS,
};

static const struct input rewrite_inputs[] = {
    {"model", INPUT_CHECKPOINT, true, "model that rewrites"},
    {"data", INPUT_DATASET, true, "sources, each alone or with a newline and a reference after it"},
    {"judge", INPUT_CHECKPOINT, false,
     "the critic's own model: language model of lm_mi, classifier of nli"},
    {"embedder", INPUT_CHECKPOINT, false,
     "sentence encoder of bert_score and bert_ibleu, which are left out without it"},
};

const struct recipe recipe_eval_rewrite = {
    .name = "rewrite",
    .kind = RECIPE_EVAL,
    .version = 1,
    .summary = "Measures paraphrases or summaries: entailment, overlap, length, diversity.",
    .source = "Jung et al. 2024; BLEU, ROUGE, iBLEU, self-BLEU as text/overlap.h states",
    .params = rewrite_params,
    .param_count = ARRAY_COUNT(rewrite_params),
    .inputs = rewrite_inputs,
    .input_count = ARRAY_COUNT(rewrite_inputs),
    .outputs = "metrics",
    .state_size = sizeof(struct rewrite),
    .open = rewrite_open,
    .step = rewrite_step,
    .close = rewrite_close,
};
