/* generation.c - recipe eval/generation: what a model writes after prompts, against references.
 *
 * Documents are a prompt, a separator and a response: the reference. The model continues each
 * prompt `samples` times, greedily, by sampling or by its best beams. A text follows from (seed,
 * prompt, number of the sample), never from ranks or blocks; prompt i is written by rank i modulo
 * ranks, then every rank has all texts and measures the same.
 *   rouge_l, rouge_1, rouge_2, exact   means over texts of F against the reference
 *   bleu                               of the corpus of all texts, each against its reference
 *   distinct_1 .. distinct_4           over all texts
 *   self_bleu                          with samples over 1, mean over prompts of the BLEU of each
 *                                      text against the prompt's others; else among the first
 *                                      `self_bleu_texts` texts
 * Intervals draw prompts, and then samples of each. Definitions: text/overlap.h. */
#include "common/base/file.h"
#include "common/base/mem.h"
#include "common/base/rng.h"
#include "worker/engine/comm.h"
#include "worker/engine/generate.h"
#include "worker/recipes/eval/interval.h"
#include "worker/recipes/eval/results.h"
#include "worker/recipes/text/overlap.h"
#include "worker/recipes/train.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PROMPTS_A_STEP 16
#define CELLS_MAX ((int64_t)1 << 27) /* 1 GiB of token numbers at most */

struct generation_eval {
    struct device *device;
    struct model *model;
    struct corpus corpus;
    int64_t prompts, samples, most_tokens;
    int64_t beams; /* 0: sampling */
    struct sampling sampling;
    double length_power;
    int64_t *token; /* (prompts, samples, most_tokens), token + 1; 0 beyond a text's end */
    double short_prompts; /* documents that leave no room to write */
};

/* What is measured of each text, (prompts, samples). */
struct measures {
    double *rouge_l, *rouge_1, *rouge_2, *exact, *tokens;
    struct bleu *bleu;    /* of each text alone */
    struct words *words;  /* WORDS_13A of each text */
    double *self_bleu; /* one a prompt, or a text */
    size_t self_bleu_count;
    struct buf lines;
};

/* -- opening -------------------------------------------------------------------------------- */

static void read_params(struct run *run, struct generation_eval *eval)
{
    int64_t limit = run_int(run, "limit");

    eval->prompts = corpus_count(&eval->corpus);
    if (limit > 0 && limit < eval->prompts)
        eval->prompts = limit;
    eval->samples = run_int(run, "samples");
    eval->most_tokens = run_int(run, "max_new_tokens");
    eval->beams = run_int(run, "beams");
    eval->length_power = run_float(run, "length_power");
    eval->sampling = (struct sampling){.temperature = run_float(run, "temperature"),
                                       .top_p = run_float(run, "top_p"),
                                       .top_k = run_int(run, "top_k"),
                                       .seed = (uint64_t)run_int(run, "seed"),
                                       .stop_token = eval->corpus.end_of_text};
}

static int check_params(const struct generation_eval *eval, struct err *err)
{
    if (eval->beams > 0 && eval->samples > eval->beams)
        return err_set(err, ERR_INVALID, "parameter 'samples' is %lld, but a search with %lld "
                       "beams gives no more texts than that", (long long)eval->samples,
                       (long long)eval->beams);
    if (eval->beams == 0 && eval->samples > 1 && eval->sampling.temperature == 0)
        return err_set(err, ERR_INVALID, "parameter 'samples' is %lld at temperature 0, where all "
                       "are the same: raise the temperature or ask for beams",
                       (long long)eval->samples);
    if (eval->prompts * eval->samples > CELLS_MAX / eval->most_tokens)
        return err_set(err, ERR_LIMIT, "%lld prompts, %lld samples of %lld tokens each are more "
                       "than the %lld tokens that are kept at once: set 'limit'",
                       (long long)eval->prompts, (long long)eval->samples,
                       (long long)eval->most_tokens, (long long)CELLS_MAX);
    return 0;
}

static int generation_open(struct run *run, void *state, struct err *err)
{
    struct generation_eval *eval = state;
    size_t cells;

    if (!*run_string(run, "separator"))
        return err_set(err, ERR_INVALID, "parameter 'separator' is empty: the model needs to know "
                       "where its prompts end");
    if (corpus_open(run, "data", &eval->corpus, err) < 0 ||
        corpus_mask_prompts(&eval->corpus, run_string(run, "separator"), err) < 0 ||
        run_device_open(run, &eval->device, err) < 0 ||
        run_writer_open(run, "model", eval->device, false, &eval->model, err) < 0 ||
        corpus_match_model(&eval->corpus, run_input(run, "model")->path, eval->model, err) < 0)
        return -1;
    read_params(run, eval);
    if (check_params(eval, err) < 0)
        return -1;
    cells = (size_t)(eval->prompts * eval->samples * eval->most_tokens);
    eval->token = calloc(cells, sizeof *eval->token);
    if (!eval->token)
        return err_set(err, ERR_MEMORY, "cannot allocate %zu tokens of texts", cells);
    run->step_count = (uint64_t)((eval->prompts + PROMPTS_A_STEP - 1) / PROMPTS_A_STEP);
    run->phase = "generate";
    return 0;
}

/* -- writing -------------------------------------------------------------------------------- */

/* A document's tokens: inputs in the first half of cells, targets in the second. Returns the
 * prompt's length; 0 when the document has no response within the context. */
static int64_t read_document(struct generation_eval *eval, int64_t item, int32_t *cells,
                             int64_t *out_count)
{
    int64_t T = eval->model->config.context;

    *out_count = corpus_document(&eval->corpus, item, T, cells, cells + T, NULL);
    for (int64_t i = 0; i < *out_count; i++)
        if (cells[T + i] >= 0)
            return i + 1 < T ? i + 1 : 0;
    return 0;
}

static void keep_text(struct generation_eval *eval, int64_t item, int64_t sample,
                      const int32_t *token, int64_t count)
{
    int64_t *out = eval->token + (item * eval->samples + sample) * eval->most_tokens;

    for (int64_t i = 0; i < count; i++)
        out[i] = token[i] + 1;
}

static int search(struct generation_eval *eval, int64_t item, const struct prompt *prompt,
                  struct err *err)
{
    struct beam_config config = {.beams = eval->beams, .most_tokens = eval->most_tokens,
                                 .stop_token = eval->sampling.stop_token,
                                 .length_power = eval->length_power};
    struct beam_text *texts = mem_zalloc((size_t)eval->beams * sizeof *texts);
    int32_t *room = mem_array((size_t)(eval->beams * eval->most_tokens), sizeof *room);
    int rc;

    for (int64_t b = 0; b < eval->beams; b++)
        texts[b].token = room + b * eval->most_tokens;
    rc = beam_search(eval->model, prompt, &config, texts, err);
    for (int64_t s = 0; s < eval->samples && rc == 0; s++)
        keep_text(eval, item, s, texts[s].token, texts[s].count);
    mem_free(texts);
    mem_free(room);
    return rc;
}

/* All samples of one prompt together: the prompt is read once. */
static int sample(struct generation_eval *eval, int64_t item, const struct prompt *prompt,
                  struct err *err)
{
    size_t count = (size_t)eval->samples;
    struct prompt *prompts = mem_array(count, sizeof *prompts);
    struct generation *texts = mem_array(count, sizeof *texts);
    int32_t *room = mem_array(count * (size_t)eval->most_tokens, sizeof *room);
    int rc;

    for (size_t s = 0; s < count; s++) {
        prompts[s] = *prompt;
        texts[s] = (struct generation){.token = room + s * (size_t)eval->most_tokens,
                                       .index = (uint64_t)item * count + s};
    }
    rc = generate(eval->model, prompts, texts, (int64_t)count, eval->most_tokens, &eval->sampling,
                  err);
    for (size_t s = 0; s < count && rc == 0; s++)
        keep_text(eval, item, (int64_t)s, texts[s].token, texts[s].count);
    mem_free(prompts);
    mem_free(texts);
    mem_free(room);
    return rc;
}

static int write_texts(struct generation_eval *eval, int64_t item, struct err *err)
{
    int64_t T = eval->model->config.context, count;
    int32_t *cells = mem_array(2 * (size_t)T, sizeof *cells);
    struct prompt prompt = {cells, read_document(eval, item, cells, &count)};
    int rc = 0;

    if (prompt.count == 0)
        eval->short_prompts += 1;
    else
        rc = eval->beams > 0 ? search(eval, item, &prompt, err)
                             : sample(eval, item, &prompt, err);
    mem_free(cells);
    return rc;
}

/* -- measuring ------------------------------------------------------------------------------ */

static void decode(const struct generation_eval *eval, const int32_t *token, int64_t count,
                   struct buf *out)
{
    buf_clear(out);
    for (int64_t i = 0; i < count; i++) {
        uint32_t id = (uint32_t)token[i];

        tokenizer_decode(dataset_tokenizer(eval->corpus.dataset), &id, 1, out);
    }
}

static int64_t decode_text(const struct generation_eval *eval, int64_t at, struct buf *out)
{
    const int64_t *token = eval->token + at * eval->most_tokens;
    int64_t count = 0;

    buf_clear(out);
    for (; count < eval->most_tokens && token[count] > 0; count++) {
        uint32_t id = (uint32_t)(token[count] - 1);

        tokenizer_decode(dataset_tokenizer(eval->corpus.dataset), &id, 1, out);
    }
    return count;
}

/* The reference: targets up to the end of text. */
static void decode_reference(struct generation_eval *eval, int64_t item, int32_t *cells,
                             struct buf *prompt, struct buf *out)
{
    int64_t T = eval->model->config.context, count;
    int64_t start = read_document(eval, item, cells, &count), end;

    decode(eval, cells + 1, start > 0 ? start - 1 : 0, prompt);
    for (end = start > 0 ? start - 1 : 0;
         start > 0 && end < count && cells[T + end] != eval->corpus.end_of_text;)
        end++;
    decode(eval, cells + T + (start > 0 ? start - 1 : 0), start > 0 ? end - start + 1 : 0, out);
}

/* One text against its reference. */
static void measure_text(struct measures *m, int64_t at, const struct buf *text,
                         const struct words *reference_rouge, const struct words *reference_bleu,
                         const char *reference, size_t reference_length)
{
    struct words mine = {0};
    struct lcs_pattern pattern;

    words_split(&mine, WORDS_ROUGE, text->bytes, text->length);
    lcs_pattern_init(&mine, &pattern);
    m->rouge_l[at] = rouge_l(&pattern, reference_rouge).f;
    m->rouge_1[at] = rouge_n(&mine, reference_rouge, 1).f;
    m->rouge_2[at] = rouge_n(&mine, reference_rouge, 2).f;
    m->exact[at] = text->length == reference_length &&
                   (reference_length == 0 || memcmp(text->bytes, reference, reference_length) == 0);
    lcs_pattern_done(&pattern);
    words_done(&mine);
    words_split(&m->words[at], WORDS_13A, text->bytes, text->length);
    bleu_add(&m->bleu[at], &m->words[at], &reference_bleu, 1);
}

static void put_line(struct buf *out, int64_t item, int64_t sample, const struct buf *prompt,
                     const struct buf *text, const struct buf *reference, double rouge)
{
    buf_printf(out, "{\"item\": %lld, \"sample\": %lld, \"prompt\": ", (long long)item,
               (long long)sample);
    json_put_text(out, buf_text(prompt), prompt->length);
    buf_puts(out, ", \"text\": ");
    json_put_text(out, buf_text(text), text->length);
    buf_puts(out, ", \"reference\": ");
    json_put_text(out, buf_text(reference), reference->length);
    buf_printf(out, ", \"rouge_l\": %.6f}\n", rouge);
}

static void measure_prompt(struct generation_eval *eval, struct measures *m, int64_t item,
                           int32_t *cells)
{
    struct buf prompt = {0}, reference = {0}, text = {0};
    struct words rouge = {0}, bleu = {0};

    decode_reference(eval, item, cells, &prompt, &reference);
    words_split(&rouge, WORDS_ROUGE, buf_text(&reference), reference.length);
    words_split(&bleu, WORDS_13A, buf_text(&reference), reference.length);
    for (int64_t s = 0; s < eval->samples; s++) {
        int64_t at = item * eval->samples + s;

        m->tokens[at] = (double)decode_text(eval, at, &text);
        buf_text(&text);
        measure_text(m, at, &text, &rouge, &bleu, buf_text(&reference), reference.length);
        put_line(&m->lines, item, s, &prompt, &text, &reference, m->rouge_l[at]);
    }
    words_done(&rouge);
    words_done(&bleu);
    buf_done(&prompt);
    buf_done(&reference);
    buf_done(&text);
}

/* Diversity: of the samples of a prompt where there are several, else of the first texts. What it
 * is the mean of, m->self_bleu (m->self_bleu_count): of prompts, or of texts. */
static void measure_self_bleu(struct run *run, const struct generation_eval *eval,
                              const struct words *const *list, struct measures *m)
{
    int64_t most = run_int(run, "self_bleu_texts");

    if (eval->samples == 1) {
        m->self_bleu_count = (size_t)(eval->prompts < most ? eval->prompts : most);
        self_bleu_each(list, m->self_bleu_count, m->self_bleu);
        return;
    }
    m->self_bleu_count = (size_t)eval->prompts;
    for (int64_t i = 0; i < eval->prompts; i++)
        m->self_bleu[i] = self_bleu(list + i * eval->samples, (size_t)eval->samples);
}

/* Corpus BLEU of drawn prompts, with drawn samples of each. */
static struct interval bleu_interval(struct run *run, const struct generation_eval *eval,
                                     const struct measures *m)
{
    unsigned draws = (unsigned)run_int(run, "bootstrap");
    double *values = mem_array(draws + 1, sizeof *values);

    bleu_draws(m->bleu, (size_t)eval->prompts, (size_t)eval->samples,
               (uint64_t)run_int(run, "seed"), draws, values);
    struct interval out = percentiles(values, draws);
    mem_free(values);
    return out;
}

static void add_interval(struct results *results, const char *name, struct interval interval)
{
    char *low = mem_printf("%s_low", name), *high = mem_printf("%s_high", name);

    results_add(results, low, interval.low);
    results_add(results, high, interval.high);
    mem_free(low);
    mem_free(high);
}

static void add_mean(struct results *results, const struct generation_eval *eval, const char *name,
                     const double *values)
{
    struct run *run = results->run;
    size_t groups = (size_t)eval->prompts, each = (size_t)eval->samples;

    results_add(results, name, mean_of(values, groups * each));
    add_interval(results, name,
                 grouped_interval(values, groups, each, (uint64_t)run_int(run, "seed"),
                                  (unsigned)run_int(run, "bootstrap")));
}

static void put_settings(struct results *results, const struct generation_eval *eval)
{
    struct run *run = results->run;
    char hex[HASH_HEX_SIZE];

    hash_to_hex(tokenizer_identity(dataset_tokenizer(eval->corpus.dataset)), hex);
    results_text(results, "data", run_input(run, "data")->ref);
    results_text(results, "model", run_input(run, "model")->ref);
    results_text(results, "tokenizer", hex);
    results_text(results, "bleu", "13a, exp smoothing, order 4");
    results_text(results, "rouge", "lower case, no stemming");
    results_text(results, "self_bleu_of", eval->samples > 1 ? "samples of a prompt" : "texts");
    results_number(results, "prompts", (double)eval->prompts);
    results_number(results, "samples", (double)eval->samples);
    results_number(results, "max_new_tokens", (double)eval->most_tokens);
    results_number(results, "beams", (double)eval->beams);
    results_number(results, "temperature", eval->sampling.temperature);
    results_number(results, "top_p", eval->sampling.top_p);
    results_number(results, "top_k", (double)eval->sampling.top_k);
    results_number(results, "seed", (double)eval->sampling.seed);
}

static void put_values(struct results *results, struct generation_eval *eval,
                       const struct measures *m, const struct words *const *list)
{
    struct run *run = results->run;
    size_t count = (size_t)(eval->prompts * eval->samples);
    struct bleu all = {0};

    for (size_t i = 0; i < count; i++)
        bleu_join(&all, &m->bleu[i]);
    add_mean(results, eval, "rouge_l", m->rouge_l);
    add_mean(results, eval, "rouge_1", m->rouge_1);
    add_mean(results, eval, "rouge_2", m->rouge_2);
    add_mean(results, eval, "exact", m->exact);
    results_add(results, "bleu", bleu_score(&all, false));
    add_interval(results, "bleu", bleu_interval(run, eval, m));
    for (unsigned n = 1; n <= 4; n++) {
        char name[16];

        snprintf(name, sizeof name, "distinct_%u", n);
        results_add(results, name, distinct_n(list, count, n));
    }
    results_add(results, "self_bleu", mean_of(m->self_bleu, m->self_bleu_count));
    add_interval(results, "self_bleu",
                 mean_interval(m->self_bleu, m->self_bleu_count, (uint64_t)run_int(run, "seed"),
                               (unsigned)run_int(run, "bootstrap")));
    results_add(results, "tokens", mean_of(m->tokens, count));
    results_add(results, "texts", (double)count);
    results_add(results, "without_room", eval->short_prompts);
}

static int write_lines(struct run *run, const struct buf *lines, struct err *err)
{
    char *path;
    int rc;

    if (run->rank != 0)
        return 0;
    path = mem_printf("%s/generation_texts.jsonl", run->job_dir);
    rc = file_replace(path, lines->bytes, lines->length, 0644, err);
    mem_free(path);
    return rc;
}

static void measures_open(struct measures *m, size_t count)
{
    *m = (struct measures){.rouge_l = mem_array(count, sizeof(double)),
                           .rouge_1 = mem_array(count, sizeof(double)),
                           .rouge_2 = mem_array(count, sizeof(double)),
                           .exact = mem_array(count, sizeof(double)),
                           .tokens = mem_array(count, sizeof(double)),
                           .self_bleu = mem_array(count, sizeof(double)),
                           .bleu = mem_zalloc(count * sizeof(struct bleu)),
                           .words = mem_zalloc(count * sizeof(struct words))};
}

static void measures_done(struct measures *m, size_t count)
{
    for (size_t i = 0; i < count; i++)
        words_done(&m->words[i]);
    mem_free(m->rouge_l);
    mem_free(m->rouge_1);
    mem_free(m->rouge_2);
    mem_free(m->exact);
    mem_free(m->tokens);
    mem_free(m->self_bleu);
    mem_free(m->bleu);
    mem_free(m->words);
    buf_done(&m->lines);
}

static int generation_report(struct run *run, struct generation_eval *eval, struct err *err)
{
    size_t count = (size_t)(eval->prompts * eval->samples);
    const struct words **list = mem_array(count, sizeof *list);
    int32_t *cells = mem_array(2 * (size_t)eval->model->config.context, sizeof *cells);
    struct results results;
    struct measures m;
    int rc;

    measures_open(&m, count);
    comm_sum_i64(run->comm, eval->token, (int64_t)count * eval->most_tokens);
    comm_sum_f64(run->comm, &eval->short_prompts, 1);
    for (int64_t i = 0; i < eval->prompts; i++)
        measure_prompt(eval, &m, i, cells);
    for (size_t i = 0; i < count; i++)
        list[i] = &m.words[i];
    measure_self_bleu(run, eval, list, &m);
    results_init(&results, run);
    put_settings(&results, eval);
    put_values(&results, eval, &m, list);
    rc = write_lines(run, &m.lines, err);
    if (rc == 0)
        rc = results_write(&results, "generation", err);
    run_note(run, "rouge_l %.4f over %zu texts", mean_of(m.rouge_l, count), count);
    results_done(&results);
    measures_done(&m, count);
    mem_free(cells);
    mem_free(list);
    return rc;
}

static int generation_step(struct run *run, void *state, struct err *err)
{
    struct generation_eval *eval = state;
    int64_t from = (int64_t)run->step * PROMPTS_A_STEP, to = from + PROMPTS_A_STEP;

    for (int64_t i = from; i < to && i < eval->prompts; i++)
        if (i % run->rank_count == run->rank && write_texts(eval, i, err) < 0)
            return err_wrap(err, "document %lld", (long long)i);
    return run->step + 1 == run->step_count ? generation_report(run, eval, err) : 0;
}

static void generation_close(struct run *run, void *state)
{
    struct generation_eval *eval = state;

    (void)run;
    free(eval->token);
    model_free(eval->model);
    device_close(eval->device);
    corpus_close(&eval->corpus);
}

static const struct param generation_params[] = {
    {"separator", PARAM_STRING, "\n", 0, 0, NULL,
     "one token between prompt and response, its last place in a document"},
    {"samples", PARAM_INT, "1", 1, 1024, NULL, "texts of each prompt"},
    {"temperature", PARAM_FLOAT, "0", 0, 5, NULL, "of samples; 0: the likeliest token each time"},
    {"top_p", PARAM_FLOAT, "1", 0.01, 1, NULL, "samples come from the likeliest of this mass"},
    {"top_k", PARAM_INT, "0", 0, 1e6, NULL, "samples come from so many tokens; 0: all"},
    {"beams", PARAM_INT, "0", 0, 1024, NULL, "search with so many beams instead; 0: no"},
    {"length_power", PARAM_FLOAT, "0", 0, 2, NULL,
     "beams are ranked by log probability over length to this power"},
    {"max_new_tokens", PARAM_INT, "128", 1, 1048576, NULL,
     "longest text in tokens; the context also ends it"},
    {"limit", PARAM_INT, "0", 0, 1e9, NULL, "at most so many documents; 0: all"},
    {"self_bleu_texts", PARAM_INT, "200", 2, 10000, NULL,
     "texts among which self_bleu is measured where prompts have one each: its value grows with "
     "their number"},
    {"bootstrap", PARAM_INT, "1000", 0, 100000, NULL, "draws of the 95 % intervals over prompts"},
    {"seed", PARAM_INT, "0", 0, 9e15, NULL, "of samples and intervals"},
    DEVICE_PARAMS,
};

static const struct input generation_inputs[] = {
    {"model", INPUT_CHECKPOINT, true, "decoder that writes"},
    {"data", INPUT_DATASET, true, "documents of a prompt, the separator and a reference"},
};

const struct recipe recipe_eval_generation = {
    .name = "generation",
    .kind = RECIPE_EVAL,
    .version = 1,
    .summary = "Measures what a model writes: ROUGE, BLEU, exact matches, diversity.",
    .source = "Lin 2004 (ROUGE), Papineni et al. 2002 (BLEU), Zhu et al. 2018 (self-BLEU), Li et "
              "al. 2016 (distinct-n)",
    .params = generation_params,
    .param_count = ARRAY_COUNT(generation_params),
    .inputs = generation_inputs,
    .input_count = ARRAY_COUNT(generation_inputs),
    .outputs = "metrics",
    .state_size = sizeof(struct generation_eval),
    .open = generation_open,
    .step = generation_step,
    .close = generation_close,
};
