/* perplexity.c - loss, perplexity and bits per byte of a model on a text, exactly.
 *
 * Sums come first and divisions after; per-document perplexities are never averaged. Only
 * values per byte or word compare models with different tokenizers. Windows: rolling.h.
 * Each step scores one group of blocks, so that a long evaluation shows progress. */
#include "common/base/mem.h"
#include "worker/engine/comm.h"
#include "worker/recipes/eval/interval.h"
#include "worker/recipes/eval/results.h"
#include "worker/recipes/eval/rolling.h"
#include "worker/recipes/score.h"
#include "worker/recipes/train.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define BLOCKS_A_STEP 64 /* of 2048 tokens: seconds on one core for models of a CPU's size */

/* One window of one document (or of one shard's stream). */
struct piece {
    int64_t text;
    struct rolling_window window;
};

struct perplexity {
    struct device *device;
    struct model *model;
    struct corpus corpus;
    struct scorer scorer;
    struct rolling rolling;
    bool by_document;
    struct token_list text; /* the text now loaded */
    int64_t text_now;       /* its number; -1: none */
    int64_t text_count;
    struct piece *piece;
    size_t piece_count, piece_capacity;
    struct score_source source;
    struct score_plan plan;
    struct score_sum *sum; /* one a text; kd holds the sum of squared nll */
};

/* -- texts -------------------------------------------------------------------------------- */

/* A document without its end, or the tokens of a whole shard; y[0] begins texts. */
static void load_text(struct perplexity *ppl, int64_t number)
{
    struct token_list *list = &ppl->text;
    const struct shard *shard;

    if (ppl->text_now == number)
        return;
    ppl->text_now = number;
    if (ppl->by_document) {
        dataset_document(ppl->corpus.part, (uint64_t)number, list);
    } else {
        shard = ppl->corpus.part->shards[number];
        list->count = 0;
        for (uint64_t i = 0; i < shard->token_count; i++) {
            VEC_RESERVE(list->ids, list->count, list->capacity);
            list->ids[list->count++] = shard_token(shard, i);
        }
    }
    if (list->count > 0 && (int32_t)list->ids[0] == ppl->corpus.begin_of_text)
        return;
    VEC_RESERVE(list->ids, list->count, list->capacity);
    memmove(list->ids + 1, list->ids, list->count++ * sizeof *list->ids);
    list->ids[0] = (uint32_t)ppl->corpus.begin_of_text;
}

static void cut_texts(struct perplexity *ppl)
{
    for (int64_t text = 0; text < ppl->text_count; text++) {
        int64_t n, windows;

        load_text(ppl, text);
        n = (int64_t)ppl->text.count - 1;
        windows = rolling_count(&ppl->rolling, n);
        for (int64_t i = 0; i < windows; i++) {
            struct rolling_window window = rolling_at(&ppl->rolling, n, i);

            if (window.count < 1)
                continue;
            VEC_RESERVE(ppl->piece, ppl->piece_count, ppl->piece_capacity);
            ppl->piece[ppl->piece_count++] = (struct piece){text, window};
        }
    }
}

static int64_t fill_piece(void *argument, int64_t item, int64_t T, int32_t *token, int32_t *target)
{
    struct perplexity *ppl = argument;
    const struct rolling_window *window = &ppl->piece[item].window;

    CHECK(window->count <= T);
    load_text(ppl, ppl->piece[item].text);
    for (int64_t i = 0; i < window->count; i++) {
        int64_t predicted = window->from + i + 1;

        token[i] = (int32_t)ppl->text.ids[window->from + i];
        target[i] = predicted >= window->score_from ? (int32_t)ppl->text.ids[predicted] : -1;
    }
    return window->count;
}

/* -- life --------------------------------------------------------------------------------- */

static int read_rolling(struct run *run, struct perplexity *ppl, struct err *err)
{
    int64_t most = ppl->model->config.context;
    int64_t K = run_int(run, "max_length");

    if (K > most)
        return err_set(err, ERR_INVALID,
                       "parameter 'max_length' is %lld, the model sees at most "
                       "%lld tokens",
                       (long long)K, (long long)most);
    ppl->rolling.K = K > 0 ? K : most;
    ppl->rolling.context = run_int(run, "context");
    ppl->rolling.stride = run_int(run, "stride");
    if (ppl->rolling.context > ppl->rolling.K || ppl->rolling.stride > ppl->rolling.K)
        return err_set(err, ERR_INVALID,
                       "parameters 'context' (%lld) and 'stride' (%lld) must not "
                       "exceed the window of %lld tokens",
                       (long long)ppl->rolling.context, (long long)ppl->rolling.stride,
                       (long long)ppl->rolling.K);
    return 0;
}

static int perplexity_open(struct run *run, void *state, struct err *err)
{
    struct perplexity *ppl = state;

    ppl->text_now = -1;
    ppl->by_document = strcmp(run_string(run, "unit"), "document") == 0;
    if (corpus_open(run, "data", &ppl->corpus, err) < 0 ||
        run_device_open(run, &ppl->device, err) < 0 ||
        run_writer_open(run, "model", ppl->device, false, &ppl->model, err) < 0 ||
        corpus_match_model(&ppl->corpus, run_input(run, "model")->path, ppl->model, err) < 0 ||
        read_rolling(run, ppl, err) < 0 ||
        scorer_open(run->comm, ppl->device, ppl->rolling.K, &ppl->scorer, err) < 0)
        return -1;
    ppl->text_count =
        ppl->by_document ? corpus_count(&ppl->corpus) : (int64_t)ppl->corpus.part->shard_count;
    cut_texts(ppl);
    ppl->source = (struct score_source){(int64_t)ppl->piece_count, (int64_t)ppl->piece_count,
                                        fill_piece, ppl};
    ppl->sum = calloc((size_t)ppl->text_count, sizeof *ppl->sum);
    if (!ppl->sum)
        return err_set(err, ERR_MEMORY, "cannot allocate sums of %lld texts",
                       (long long)ppl->text_count);
    if (score_plan_init(&ppl->scorer, &ppl->source, &ppl->plan, err) < 0)
        return -1;
    run->step_count = (uint64_t)(ppl->plan.block_count + BLOCKS_A_STEP - 1) / BLOCKS_A_STEP;
    if (run->step_count == 0)
        return err_set(err, ERR_INVALID, "input 'data' has no token to score");
    run->phase = "evaluate";
    return 0;
}

static void visit_piece(void *argument, const struct score_item *item)
{
    struct perplexity *ppl = argument;
    struct score_sum *sum = &ppl->sum[ppl->piece[item->item].text];

    for (int64_t i = 0; i < item->count; i++) {
        if (item->target[i] < 0)
            continue;
        sum->nll += (double)item->nll[i];
        sum->kd += (double)item->nll[i] * (double)item->nll[i];
        sum->tokens += 1;
    }
}

/* Standard error of sum(nll) / sum(tokens) over independent texts, to first order:
 * sqrt(n/(n-1) sum_i (L_i - loss n_i)^2) / sum n_i. With one text, over its tokens. */
static double standard_error(const struct perplexity *ppl, const struct score_sum *total)
{
    double loss = total->nll / total->tokens;
    double squares = 0, n = (double)ppl->text_count;

    if (ppl->text_count == 1)
        return sqrt((total->kd / total->tokens - loss * loss) / (total->tokens - 1));
    for (int64_t i = 0; i < ppl->text_count; i++) {
        double residual = ppl->sum[i].nll - loss * ppl->sum[i].tokens;

        squares += residual * residual;
    }
    return sqrt(n / (n - 1) * squares) / total->tokens;
}

/* White-space separated words. */
static double count_words(const char *text)
{
    double words = 0;
    bool inside = false;

    for (const char *c = text; *c; c++) {
        bool space = strchr(" \t\r\n\v\f", *c) != NULL;

        words += !space && !inside;
        inside = !space;
    }
    return words;
}

/* Of the original texts: words of all, and where texts are scored one by one, the bytes of each;
 * 0 and nothing when the part keeps no texts. */
static int measure_texts(const struct perplexity *ppl, double *out_words, double *bytes,
                         struct err *err)
{
    struct dataset_texts texts = {0};

    *out_words = 0;
    if (!ppl->corpus.part->texts_path)
        return 0;
    if (dataset_texts_read(ppl->corpus.part, &texts, err) < 0)
        return -1;
    for (size_t i = 0; i < texts.count; i++) {
        *out_words += count_words(texts.items[i].text);
        if (ppl->by_document && (int64_t)i < ppl->text_count)
            bytes[i] = (double)strlen(texts.items[i].text);
    }
    dataset_texts_done(&texts);
    return 0;
}

static void put_settings(struct results *results, const struct perplexity *ppl)
{
    const struct tokenizer *tokenizer = dataset_tokenizer(ppl->corpus.dataset);
    char hex[HASH_HEX_SIZE];
    size_t length;

    hash_to_hex(tokenizer_identity(tokenizer), hex);
    results_text(results, "split", run_input(results->run, "data")->ref);
    results_text(results, "model", run_input(results->run, "model")->ref);
    results_text(results, "tokenizer", hex);
    results_text(results, "prefix",
                 tokenizer_token(tokenizer, (uint32_t)ppl->corpus.begin_of_text, &length));
    results_text(results, "unit", ppl->by_document ? "document" : "concatenated");
    results_text(results, "windows", ppl->rolling.stride > 0 ? "strided" : "rolling");
    results_number(results, "max_length", (double)ppl->rolling.K);
    results_number(results, "context", (double)ppl->rolling.context);
    results_number(results, "stride", (double)ppl->rolling.stride);
}

/* The byte count is the part's, so it is only right where every token was scored. */
static bool scored_all(const struct perplexity *ppl)
{
    return ppl->rolling.stride == 0;
}

/* Bootstrap over documents: a stream has no independent parts to draw, so it gets none. */
static void put_intervals(struct results *results, const struct perplexity *ppl,
                          const double *bytes)
{
    size_t count = (size_t)ppl->text_count;
    unsigned draws = (unsigned)run_int(results->run, "bootstrap");
    uint64_t seed = (uint64_t)run_int(results->run, "seed");
    double *nll = mem_array(count, sizeof *nll), *tokens = mem_array(count, sizeof *tokens);
    struct interval loss = {NAN, NAN}, bits = {NAN, NAN};

    for (size_t i = 0; i < count; i++) {
        nll[i] = ppl->sum[i].nll;
        tokens[i] = ppl->sum[i].tokens;
    }
    if (ppl->by_document)
        loss = ratio_interval(nll, tokens, count, seed, draws);
    if (ppl->by_document && scored_all(ppl) && ppl->corpus.part->texts_path)
        bits = ratio_interval(nll, bytes, count, seed, draws);
    results_add(results, "loss_low", loss.low);
    results_add(results, "loss_high", loss.high);
    results_add(results, "perplexity_low", exp(loss.low));
    results_add(results, "perplexity_high", exp(loss.high));
    results_add(results, "bits_per_byte_low", bits.low / log(2));
    results_add(results, "bits_per_byte_high", bits.high / log(2));
    mem_free(nll);
    mem_free(tokens);
}

static int perplexity_report(struct run *run, struct perplexity *ppl, struct err *err)
{
    struct results results;
    struct score_sum total = {0};
    double bytes = (double)ppl->corpus.part->byte_count, words = 0, loss, error;
    double *each = mem_array((size_t)ppl->text_count, sizeof *each);
    int rc;

    comm_sum_f64(run->comm, &ppl->sum->nll, 3 * ppl->text_count);
    for (int64_t i = 0; i < ppl->text_count; i++) {
        total.nll += ppl->sum[i].nll;
        total.kd += ppl->sum[i].kd;
        total.tokens += ppl->sum[i].tokens;
    }
    if (measure_texts(ppl, &words, each, err) < 0) {
        mem_free(each);
        return -1;
    }
    loss = total.nll / total.tokens;
    error = standard_error(ppl, &total);
    results_init(&results, run);
    put_settings(&results, ppl);
    results_add(&results, "loss", loss);
    results_add(&results, "loss_stderr", error);
    results_add(&results, "perplexity", exp(loss));
    results_add(&results, "perplexity_stderr", exp(loss) * error);
    results_add(&results, "bits_per_byte",
                scored_all(ppl) && bytes > 0 ? total.nll / (bytes * log(2)) : NAN);
    results_add(&results, "byte_perplexity",
                scored_all(ppl) && bytes > 0 ? exp(total.nll / bytes) : NAN);
    results_add(&results, "word_perplexity",
                scored_all(ppl) && words > 0 ? exp(total.nll / words) : NAN);
    put_intervals(&results, ppl, each);
    results_add(&results, "tokens", total.tokens);
    results_add(&results, "documents", (double)corpus_count(&ppl->corpus));
    results_add(&results, "bytes", bytes);
    rc = results_write(&results, "perplexity", err);
    results_done(&results);
    mem_free(each);
    run_note(run, "loss %.4f nats a token (standard error %.4f), perplexity %.3f", loss, error,
             exp(loss));
    return rc;
}

static int perplexity_step(struct run *run, void *state, struct err *err)
{
    struct perplexity *ppl = state;
    int64_t from = (int64_t)run->step * BLOCKS_A_STEP;
    int64_t to = from + BLOCKS_A_STEP;

    if (to > ppl->plan.block_count)
        to = ppl->plan.block_count;
    if (score_blocks(&ppl->scorer, &ppl->source, &ppl->plan, from, to, ppl->model, NULL,
                     visit_piece, ppl, err) < 0)
        return -1;
    return run->step + 1 == run->step_count ? perplexity_report(run, ppl, err) : 0;
}

static void perplexity_close(struct run *run, void *state)
{
    struct perplexity *ppl = state;

    (void)run;
    free(ppl->sum);
    score_plan_done(&ppl->plan);
    mem_free(ppl->piece);
    token_list_done(&ppl->text);
    scorer_close(&ppl->scorer);
    model_free(ppl->model);
    device_close(ppl->device);
    corpus_close(&ppl->corpus);
}

static const struct param perplexity_params[] = {
    {"unit", PARAM_CHOICE, "document", 0, 0, "document|concatenated",
     "texts scored one by one, or each shard as one stream with its separators"},
    {"context", PARAM_INT, "1", 1, 1048576, NULL,
     "tokens before the first new one of a later window; 1: disjoint windows"},
    {"stride", PARAM_INT, "0", 0, 1048576, NULL,
     "tokens between the starts of overlapping windows; 0: cut by `context` instead"},
    {"max_length", PARAM_INT, "0", 0, 1048576, NULL, "tokens of a window; 0: the model's context"},
    {"bootstrap", PARAM_INT, "1000", 0, 100000, NULL, "draws of the 95 % intervals over documents"},
    {"seed", PARAM_INT, "0", 0, 9e15, NULL, "of the bootstrap"},
    DEVICE_PARAMS,
};

static const struct input perplexity_inputs[] = {
    {"model", INPUT_CHECKPOINT, true, "model to measure"},
    {"data", INPUT_DATASET, true, "documents to score"},
};

const struct recipe recipe_eval_perplexity = {
    .name = "perplexity",
    .kind = RECIPE_EVAL,
    .version = 1,
    .summary = "Measures loss, perplexity and bits per byte with exact windows.",
    .source = "lm-evaluation-harness (rolling windows); transformers documentation (strided)",
    .params = perplexity_params,
    .param_count = ARRAY_COUNT(perplexity_params),
    .inputs = perplexity_inputs,
    .input_count = ARRAY_COUNT(perplexity_inputs),
    .outputs = "metrics",
    .state_size = sizeof(struct perplexity),
    .open = perplexity_open,
    .step = perplexity_step,
    .close = perplexity_close,
};
