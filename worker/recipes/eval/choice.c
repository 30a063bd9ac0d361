/* choice.c - recipe eval/choice: which of some continuations a model finds likeliest.
 *
 * Scores are sums of log p over the choice's tokens after the context (choices.h). The context is
 * read once for all choices that begin after the same tokens. What does not fit into the model's
 * context loses tokens on the left, which is counted as `truncated`. Item i is scored by rank
 * i modulo ranks, alone, so the numbers are the same bits on any number of ranks. */
#include "worker/recipes/eval/choices.h"
#include "common/base/file.h"
#include "common/base/mem.h"
#include "worker/engine/comm.h"
#include "worker/engine/generate.h"
#include "worker/recipes/eval/interval.h"
#include "worker/recipes/eval/results.h"
#include "worker/recipes/train.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ITEMS_A_STEP 64

struct choice {
    struct device *device;
    struct model *model;
    struct tokenizer *tokenizer;
    struct choice_encoding encoding;
    struct choice_items items;
    size_t *base;     /* (items + 1) first choice of an item among all */
    double *log_p;    /* one a choice */
    double *mutual;   /* one a choice; NULL: not asked for */
    double truncated; /* choices that lost tokens */
};

/* -- opening -------------------------------------------------------------------------------- */

static int open_tokenizer(struct run *run, struct choice *choice, struct err *err)
{
    const char *folder = run_input(run, "model")->path;
    uint32_t size;

    if (tokenizer_read(folder, &choice->tokenizer, err) < 0)
        return err_wrap(err, "tokenizer of input 'model'");
    size = tokenizer_vocab_size(choice->tokenizer);
    if ((int64_t)size > choice->model->config.vocab_size)
        return err_set(err, ERR_INVALID, "the tokenizer of input 'model' has %u tokens, the model "
                       "only %lld", (unsigned)size, (long long)choice->model->config.vocab_size);
    choice->encoding = (struct choice_encoding){
        choice->tokenizer, run_string(run, "delimiter"),
        tokenizer_begin_of_text(choice->tokenizer),
        strcmp(run_string(run, "prefix"), "always") == 0};
    if (choice->encoding.prefix >= size)
        return err_set(err, ERR_INVALID, "the tokenizer of input 'model' has no end of text to "
                       "stand for an empty context");
    return 0;
}

static int open_items(struct run *run, struct choice *choice, struct err *err)
{
    const struct run_input *given = run_input(run, "items");
    size_t limit = (size_t)run_int(run, "limit"), total = 0;

    if (choice_items_read(given->path, &choice->items, err) < 0)
        return err_wrap(err, "input 'items'");
    while (limit > 0 && choice->items.count > limit)
        choice_item_done(&choice->items.items[--choice->items.count]);
    choice->base = mem_array(choice->items.count + 1, sizeof *choice->base);
    for (size_t i = 0; i < choice->items.count; i++) {
        choice->base[i] = total;
        total += choice->items.items[i].count;
    }
    choice->base[choice->items.count] = total;
    choice->log_p = mem_zalloc(total * sizeof *choice->log_p);
    if (run_bool(run, "mutual_info"))
        choice->mutual = mem_zalloc(total * sizeof *choice->mutual);
    return 0;
}

static int choice_open(struct run *run, void *state, struct err *err)
{
    struct choice *choice = state;

    if (!run_input(run, "items"))
        return err_set(err, ERR_INVALID, "input 'items' is missing; give it as file:PATH");
    if (run_device_open(run, &choice->device, err) < 0 ||
        run_writer_open(run, "model", choice->device, false, &choice->model, err) < 0 ||
        open_tokenizer(run, choice, err) < 0 || open_items(run, choice, err) < 0)
        return -1;
    run->step_count = (choice->items.count + ITEMS_A_STEP - 1) / ITEMS_A_STEP;
    run->phase = "evaluate";
    return 0;
}

/* -- scores --------------------------------------------------------------------------------- */

/* One choice as prefix and continuation, cut on the left to the model's context: its inputs are
 * all tokens but the last. Returns whether it was cut. */
static bool cut_left(const struct choice *choice, const struct token_list *list, size_t start,
                     struct prompt *prefix, struct prompt *rest)
{
    size_t most = (size_t)choice->model->config.context + 1, from = 0;

    if (list->count > most)
        from = list->count - most;
    if (from >= start) /* something must stand before the first token that is scored */
        from = start - 1;
    *prefix = (struct prompt){(const int32_t *)list->ids + from, (int64_t)(start - from)};
    *rest = (struct prompt){(const int32_t *)list->ids + start, (int64_t)(list->count - start)};
    return from > 0;
}

static bool same_prompt(const struct prompt *a, const struct prompt *b)
{
    return a->count == b->count &&
           memcmp(a->token, b->token, (size_t)a->count * sizeof *a->token) == 0;
}

/* Scores runs of choices with one prefix together. */
static int score_groups(const struct choice *choice, const struct prompt *prefix,
                        const struct prompt *rest, size_t count, double *out, struct err *err)
{
    for (size_t from = 0; from < count;) {
        size_t to = from + 1;

        while (to < count && same_prompt(&prefix[from], &prefix[to]))
            to++;
        if (score_continuations(choice->model, &prefix[from], &rest[from], (int64_t)(to - from),
                                out + from, NULL, err) < 0)
            return -1;
        from = to;
    }
    return 0;
}

static int score_item(struct choice *choice, const struct choice_item *item, const char *context,
                      double *out, double *truncated, struct err *err)
{
    struct token_list *lists = mem_zalloc(item->count * sizeof *lists);
    struct prompt *prefix = mem_array(item->count, sizeof *prefix);
    struct prompt *rest = mem_array(item->count, sizeof *rest);
    int rc = 0;

    for (size_t i = 0; i < item->count && rc == 0; i++) {
        size_t start;

        choice_encode(&choice->encoding, context, item->choice[i], &lists[i], &start);
        if (start >= lists[i].count)
            rc = err_set(err, ERR_INVALID, "choice %zu ('%.60s') has no token of its own after the "
                         "context", i, item->choice[i]);
        else
            *truncated += cut_left(choice, &lists[i], start, &prefix[i], &rest[i]);
    }
    if (rc == 0)
        rc = score_groups(choice, prefix, rest, item->count, out, err);
    for (size_t i = 0; i < item->count; i++)
        token_list_done(&lists[i]);
    mem_free(lists);
    mem_free(prefix);
    mem_free(rest);
    return rc;
}

static int score_both(struct choice *choice, size_t i, struct err *err)
{
    const struct choice_item *item = &choice->items.items[i];
    double ignored = 0;

    if (score_item(choice, item, item->context, choice->log_p + choice->base[i],
                   &choice->truncated, err) < 0)
        return -1;
    if (!choice->mutual)
        return 0;
    return score_item(choice, item, "", choice->mutual + choice->base[i], &ignored, err);
}

/* -- results -------------------------------------------------------------------------------- */

/* What the items' verdicts add up to. */
struct tally {
    size_t acc, acc_norm, acc_bytes, acc_mutual_info;
    double *brier, *mc2, *confidence;
    bool *correct;
    size_t labelled;
};

static void add_share(struct results *results, const char *name, size_t hits, size_t count)
{
    double share = (double)hits / (double)count;
    struct interval interval = proportion_interval(hits, count);
    char *low = mem_printf("%s_low", name), *high = mem_printf("%s_high", name);
    char *error = mem_printf("%s_stderr", name);

    results_add(results, name, share);
    results_add(results, error,
                count > 1 ? sqrt(share * (1 - share) / (double)(count - 1)) : NAN);
    results_add(results, low, interval.low);
    results_add(results, high, interval.high);
    mem_free(low);
    mem_free(high);
    mem_free(error);
}

static void add_mean(struct results *results, const char *name, const double *values, size_t count)
{
    struct run *run = results->run;
    struct interval interval = mean_interval(values, count, (uint64_t)run_int(run, "seed"),
                                             (unsigned)run_int(run, "bootstrap"));
    char *low = mem_printf("%s_low", name), *high = mem_printf("%s_high", name);

    results_add(results, name, mean_of(values, count));
    results_add(results, low, interval.low);
    results_add(results, high, interval.high);
    mem_free(low);
    mem_free(high);
}

static void put_item(struct buf *out, const struct choice *choice, size_t i,
                     const struct choice_verdict *verdict)
{
    const struct choice_item *item = &choice->items.items[i];

    buf_puts(out, "{\"item\": ");
    if (item->id)
        json_put_text(out, item->id, strlen(item->id));
    else
        buf_printf(out, "%zu", i);
    buf_printf(out, ", \"gold\": %zu, \"best\": %zu, \"acc\": %d, \"acc_norm\": %d, \"log_p\": [",
               item->gold, verdict->best, verdict->acc, verdict->acc_norm);
    for (size_t k = 0; k < item->count; k++)
        buf_printf(out, "%s%.9g", k ? ", " : "", choice->log_p[choice->base[i] + k]);
    buf_puts(out, "]}\n");
}

static void judge_all(const struct choice *choice, struct tally *tally, struct buf *lines)
{
    for (size_t i = 0; i < choice->items.count; i++) {
        const struct choice_item *item = &choice->items.items[i];
        struct choice_verdict verdict;

        choice_judge(item, choice->log_p + choice->base[i],
                     choice->mutual ? choice->mutual + choice->base[i] : NULL, &verdict);
        tally->acc += verdict.acc;
        tally->acc_norm += verdict.acc_norm;
        tally->acc_bytes += verdict.acc_bytes;
        tally->acc_mutual_info += verdict.acc_mutual_info;
        tally->brier[i] = verdict.brier;
        tally->confidence[i] = verdict.confidence;
        tally->correct[i] = verdict.acc;
        if (item->label)
            tally->mc2[tally->labelled++] = verdict.mc2;
        put_item(lines, choice, i, &verdict);
    }
}

static int write_items(struct run *run, const struct buf *lines, struct err *err)
{
    char *path;
    int rc;

    if (run->rank != 0)
        return 0;
    path = mem_printf("%s/choice_items.jsonl", run->job_dir);
    rc = file_replace(path, lines->bytes, lines->length, 0644, err);
    mem_free(path);
    return rc;
}

static void put_settings(struct results *results, const struct choice *choice)
{
    struct run *run = results->run;
    char hex[HASH_HEX_SIZE];

    hash_to_hex(tokenizer_identity(choice->tokenizer), hex);
    results_text(results, "items", run_input(run, "items")->ref);
    results_text(results, "model", run_input(run, "model")->ref);
    results_text(results, "tokenizer", hex);
    results_text(results, "prefix", run_string(run, "prefix"));
    results_text(results, "delimiter", run_string(run, "delimiter"));
    results_number(results, "context", (double)choice->model->config.context);
    results_number(results, "limit", (double)run_int(run, "limit"));
}

static int put_results(struct run *run, const struct choice *choice, const struct tally *tally,
                       struct err *err)
{
    size_t count = choice->items.count;
    struct results results;
    int rc;

    results_init(&results, run);
    put_settings(&results, choice);
    add_share(&results, "acc", tally->acc, count);
    add_share(&results, "acc_norm", tally->acc_norm, count);
    add_share(&results, "acc_bytes", tally->acc_bytes, count);
    if (choice->mutual)
        add_share(&results, "acc_mutual_info", tally->acc_mutual_info, count);
    add_mean(&results, "brier", tally->brier, count);
    results_add(&results, "ece",
                calibration_error(tally->confidence, tally->correct, count,
                                  (unsigned)run_int(run, "ece_bins")));
    if (tally->labelled > 0)
        add_mean(&results, "mc2", tally->mc2, tally->labelled);
    results_add(&results, "items", (double)count);
    results_add(&results, "truncated", choice->truncated);
    rc = results_write(&results, "choice", err);
    results_done(&results);
    run_note(run, "acc %.4f, acc_norm %.4f of %zu items", (double)tally->acc / (double)count,
             (double)tally->acc_norm / (double)count, count);
    return rc;
}

static int choice_report(struct run *run, struct choice *choice, struct err *err)
{
    size_t count = choice->items.count;
    int64_t total = (int64_t)choice->base[count];
    struct tally tally = {.brier = mem_array(count, sizeof(double)),
                          .mc2 = mem_array(count, sizeof(double)),
                          .confidence = mem_array(count, sizeof(double)),
                          .correct = mem_array(count, sizeof(bool))};
    struct buf lines = {0};
    int rc;

    comm_sum_f64(run->comm, choice->log_p, total);
    if (choice->mutual)
        comm_sum_f64(run->comm, choice->mutual, total);
    comm_sum_f64(run->comm, &choice->truncated, 1);
    judge_all(choice, &tally, &lines);
    rc = write_items(run, &lines, err);
    if (rc == 0)
        rc = put_results(run, choice, &tally, err);
    buf_done(&lines);
    mem_free(tally.brier);
    mem_free(tally.mc2);
    mem_free(tally.confidence);
    mem_free(tally.correct);
    return rc;
}

static int choice_step(struct run *run, void *state, struct err *err)
{
    struct choice *choice = state;
    size_t from = (size_t)run->step * ITEMS_A_STEP, to = from + ITEMS_A_STEP;

    for (size_t i = from; i < to && i < choice->items.count; i++)
        if (i % run->rank_count == run->rank && score_both(choice, i, err) < 0)
            return err_wrap(err, "item %zu", i);
    return run->step + 1 == run->step_count ? choice_report(run, choice, err) : 0;
}

static void choice_close(struct run *run, void *state)
{
    struct choice *choice = state;

    (void)run;
    mem_free(choice->base);
    mem_free(choice->log_p);
    mem_free(choice->mutual);
    choice_items_done(&choice->items);
    tokenizer_free(choice->tokenizer);
    model_free(choice->model);
    device_close(choice->device);
}

static const struct param choice_params[] = {
    {"prefix", PARAM_CHOICE, "always", 0, 0, "always|empty",
     "when what begins texts (<|endoftext|>, <s>) begins a context: always, as models trained "
     "here saw their documents, or only where it stands for an empty one"},
    {"delimiter", PARAM_STRING, " ", 0, 0, NULL, "text between context and choice"},
    {"mutual_info", PARAM_BOOL, "false", 0, 0, NULL,
     "also score choices without their context, for acc_mutual_info: twice the work"},
    {"ece_bins", PARAM_INT, "15", 2, 100, NULL, "bins of equal width of the calibration error"},
    {"limit", PARAM_INT, "0", 0, 1e9, NULL, "at most so many items; 0: all"},
    {"bootstrap", PARAM_INT, "1000", 0, 100000, NULL, "draws of the 95 % intervals of means"},
    {"seed", PARAM_INT, "0", 0, 9e15, NULL, "of the bootstrap"},
    DEVICE_PARAMS,
};

static const struct input choice_inputs[] = {
    {"model", INPUT_CHECKPOINT, true, "decoder to ask"},
    {"items", INPUT_FILE, true,
     "JSON lines {\"context\", \"choices\": [..], \"gold\": index}, or \"labels\": [0, 1, ..]"},
};

const struct recipe recipe_eval_choice = {
    .name = "choice",
    .kind = RECIPE_EVAL,
    .version = 1,
    .summary = "Multiple choice by log likelihood: accuracies, normalised by length in three ways.",
    .source = "lm-evaluation-harness (multiple_choice); Clopper and Pearson 1934 (intervals)",
    .params = choice_params,
    .param_count = ARRAY_COUNT(choice_params),
    .inputs = choice_inputs,
    .input_count = ARRAY_COUNT(choice_inputs),
    .outputs = "metrics",
    .state_size = sizeof(struct choice),
    .open = choice_open,
    .step = choice_step,
    .close = choice_close,
};
