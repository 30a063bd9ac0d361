/* classifier.c - recipe data/classifier: learns which of several kinds a text is of.
 *
 * A step is an epoch of stochastic gradient steps. Each draws a label (evenly, so that rare labels
 * count as much as frequent ones, or as often as it has texts) and a text of that label from
 * (seed, step); the held-out texts are a function of (seed, text), so a resume ends as a run that
 * was not disturbed. Only rank 0 works. The last step also measures the held-out texts and sets
 * each label's threshold. */
#include "worker/recipes/data/web/classifier.h"

#include "common/base/arena.h"
#include "common/base/file.h"
#include "common/base/hash.h"
#include "common/base/mem.h"
#include "common/base/rng.h"
#include "worker/engine/io/checkpoint.h"
#include "worker/recipes/data/web/chars.h"
#include "worker/recipes/data/web/rows.h"
#include "worker/recipes/data/web/texts.h"
#include "worker/recipes/recipe.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define RATE_LABELS_MAX 48 /* of which recall and precision are metrics: 2 each, 256 in all */

struct sample {
    const char *text;
    size_t length;
};

struct samples {
    struct sample *items;
    size_t count, capacity;
};

struct learning {
    struct classifier *classifier;
    struct arena arena; /* texts */
    struct samples *train, *held; /* by label */
    size_t label_count, train_count, held_count;
    size_t window; /* characters of a sample; 0: whole texts */
    struct features features;
    float *p;
    /* of the pattern that is read */
    struct run *run;
    size_t label;
};

static void add_sample(struct learning *learning, const char *text, size_t length)
{
    struct hash hash;
    uint64_t bits;

    hash_bytes(text, length, &hash);
    memcpy(&bits, hash.bytes, sizeof bits);
    bool held = rng_unit_at((uint64_t)run_int(learning->run, "seed"), bits, 0) <
                run_float(learning->run, "holdout_share");
    struct samples *list = &(held ? learning->held : learning->train)[learning->label];
    VEC_RESERVE(list->items, list->count, list->capacity);
    list->items[list->count++] =
        (struct sample){arena_strndup(&learning->arena, text, length), length};
}

/* Cuts a text into windows; what is left over is a sample if it is at least half of one. */
static int add_text(void *argument, const char *text, size_t length, struct err *err)
{
    struct learning *learning = argument;
    size_t begin = 0, chars = 0, bytes;

    (void)err;
    for (size_t i = 0; i < length && learning->window; i += bytes) {
        char_at(text + i, length - i, &bytes);
        if (++chars == learning->window) {
            add_sample(learning, text + begin, i + bytes - begin);
            begin = i + bytes;
            chars = 0;
        }
    }
    if (!learning->window || 2 * chars >= learning->window)
        add_sample(learning, text + begin, length - begin);
    return 0;
}

/* The items are LABEL=PATTERN; a label may have several. */
static int read_labels(struct run *run, struct learning *learning, struct err *err)
{
    const char *names[CLASSIFIER_LABELS_MAX];
    char *copies[CLASSIFIER_LABELS_MAX];
    size_t items = run_list_count(run, "classes"), count = 0;
    int rc = 0;

    for (size_t i = 0; i < items && rc == 0; i++) {
        const char *item = run_list_item(run, "classes", i), *equals = strchr(item, '=');
        if (!equals || equals == item || !equals[1]) {
            rc = err_set(err, ERR_INVALID, "params.classes: '%s' is not LABEL=PATTERN", item);
            break;
        }
        char *name = mem_strndup(item, (size_t)(equals - item));
        size_t l = 0;
        while (l < count && strcmp(names[l], name) != 0)
            l++;
        if (l < count) {
            mem_free(name);
        } else if (count == CLASSIFIER_LABELS_MAX) {
            mem_free(name);
            rc = err_set(err, ERR_LIMIT, "more than %d classes", CLASSIFIER_LABELS_MAX);
        } else {
            names[count] = copies[count] = name;
            count++;
        }
    }
    if (rc == 0)
        rc = classifier_new(strcmp(run_string(run, "features"), "chars") == 0 ? FEATURES_CHARS
                                                                             : FEATURES_WORDS,
                            (unsigned)run_int(run, "buckets_log2"), names, count,
                            &learning->classifier, err);
    for (size_t l = 0; l < count; l++)
        mem_free(copies[l]);
    return rc < 0 ? err_wrap(err, "params.classes") : 0;
}

static int read_samples(struct run *run, struct learning *learning, struct err *err)
{
    learning->train = mem_array(learning->label_count, sizeof *learning->train);
    learning->held = mem_array(learning->label_count, sizeof *learning->held);
    for (size_t i = 0; i < run_list_count(run, "classes"); i++) {
        const char *item = run_list_item(run, "classes", i), *equals = strchr(item, '=');
        char *name = mem_strndup(item, (size_t)(equals - item));
        learning->label = classifier_label(learning->classifier, name);
        mem_free(name);
        if ((rows_is_query(equals + 1)
                 ? rows_read(equals + 1, add_text, learning, err)
                 : texts_read(equals + 1, TEXTS_DOCUMENTS, add_text, learning, err)) < 0)
            return err_wrap(err, "params.classes");
    }
    for (size_t l = 0; l < learning->label_count; l++) {
        learning->train_count += learning->train[l].count;
        learning->held_count += learning->held[l].count;
        if (learning->train[l].count == 0)
            return err_set(err, ERR_INVALID, "class '%s' has no text to learn from",
                           learning->classifier->labels[l]);
    }
    run_note(run, "%zu texts of %zu classes to learn from, %zu held out", learning->train_count,
             learning->label_count, learning->held_count);
    return 0;
}

static int open_recipe(struct run *run, void *state, struct err *err)
{
    struct learning *learning = state;

    learning->run = run;
    learning->window = (size_t)run_int(run, "window");
    run->step_count = (uint64_t)run_int(run, "epochs");
    if (read_labels(run, learning, err) < 0)
        return -1;
    learning->label_count = learning->classifier->label_count;
    learning->p = mem_array(learning->label_count, sizeof *learning->p);
    return run->rank == 0 ? read_samples(run, learning, err) : 0;
}

static int compare(const void *a, const void *b)
{
    float left = *(const float *)a, right = *(const float *)b;

    return (left > right) - (left < right);
}

/* Held-out texts: how many are told right, and the score that a share of `pass` of them reach. */
static void measure(struct run *run, struct learning *learning)
{
    struct classifier *classifier = learning->classifier;
    size_t labels = learning->label_count, right = 0;
    size_t *hit = mem_array(labels, sizeof *hit), *called = mem_array(labels, sizeof *called);
    double pass = run_float(run, "pass_share");

    for (size_t l = 0; l < labels; l++) {
        const struct samples *held = &learning->held[l];
        float *score = mem_array(held->count + 1, sizeof *score);
        for (size_t i = 0; i < held->count; i++) {
            size_t best = 0;
            features_set(&learning->features, classifier, held->items[i].text,
                         held->items[i].length);
            classifier_predict(classifier, &learning->features, learning->p);
            for (size_t k = 1; k < labels; k++)
                best = learning->p[k] > learning->p[best] ? k : best;
            score[i] = learning->p[l];
            hit[l] += best == l;
            called[best]++;
        }
        qsort(score, held->count, sizeof *score, compare);
        size_t below = (size_t)((1 - pass) * (double)held->count);
        classifier->threshold[l] = held->count ? score[below] : 0.5f;
        right += hit[l];
        mem_free(score);
    }
    if (learning->held_count)
        run_metric(run, "accuracy", (double)right / (double)learning->held_count);
    run_metric(run, "held_out_texts", (double)learning->held_count);
    for (size_t l = 0; l < labels && l < RATE_LABELS_MAX; l++) {
        char name[80];
        snprintf(name, sizeof name, "recall_%.60s", classifier->labels[l]);
        if (learning->held[l].count)
            run_metric(run, name, (double)hit[l] / (double)learning->held[l].count);
        snprintf(name, sizeof name, "precision_%.60s", classifier->labels[l]);
        if (called[l])
            run_metric(run, name, (double)hit[l] / (double)called[l]);
    }
    mem_free(hit);
    mem_free(called);
}

/* All labels as often, or as often as they have texts. */
static size_t draw_label(const struct learning *learning, uint64_t draw, bool even)
{
    size_t l = 0;

    if (even)
        return draw % learning->label_count;
    for (draw %= learning->train_count; draw >= learning->train[l].count; l++)
        draw -= learning->train[l].count;
    return l;
}

static int step(struct run *run, void *state, struct err *err)
{
    struct learning *learning = state;
    uint64_t seed = (uint64_t)run_int(run, "seed"), last = run->step_count;
    double rate = run_float(run, "learning_rate");
    bool even = strcmp(run_string(run, "draw"), "even") == 0;

    (void)err;
    run->phase = "learn";
    if (run->rank != 0)
        return 0;
    for (size_t i = 0; i < learning->train_count; i++) {
        uint64_t draw = run->step * learning->train_count + i;
        size_t l = draw_label(learning, rng_at(seed, draw, 1), even);
        const struct samples *list = &learning->train[l];
        const struct sample *sample = &list->items[rng_at(seed, draw, 2) % list->count];
        double left = 1 - (double)draw / (double)(last * learning->train_count);
        features_set(&learning->features, learning->classifier, sample->text, sample->length);
        classifier_learn(learning->classifier, &learning->features, l, (float)(rate * left),
                         learning->p);
    }
    if (run->step + 1 == last)
        measure(run, learning);
    return 0;
}

static void list_arrays(struct learning *learning, struct named_array out[3])
{
    const struct classifier *classifier = learning->classifier;
    uint64_t labels = classifier->label_count;

    out[0] = (struct named_array){.name = "weights", .dim_count = 2, .values = classifier->weights,
                                  .shape = {(uint64_t)1 << classifier->buckets_log2, labels}};
    out[1] = (struct named_array){.name = "bias", .dim_count = 1, .shape = {labels},
                                  .values = classifier->bias};
    out[2] = (struct named_array){.name = "threshold", .dim_count = 1, .shape = {labels},
                                  .values = classifier->threshold};
}

static int save(struct run *run, void *state, struct checkpoint_writer *writer, struct err *err)
{
    struct learning *learning = state;
    struct named_array arrays[3];
    char *text = classifier_text(learning->classifier);

    (void)run;
    list_arrays(learning, arrays);
    int rc = checkpoint_add_arrays(writer, arrays, ARRAY_COUNT(arrays), err);
    if (rc == 0)
        rc = checkpoint_add_file(writer, "classifier.json", text, strlen(text), err);
    mem_free(text);
    return rc;
}

static int load(struct run *run, void *state, struct checkpoint_reader *reader, struct err *err)
{
    struct learning *learning = state;
    struct named_array arrays[3];

    (void)run;
    list_arrays(learning, arrays);
    return checkpoint_read_arrays(reader, false, arrays, ARRAY_COUNT(arrays), err);
}

static void close_recipe(struct run *run, void *state)
{
    struct learning *learning = state;

    (void)run;
    for (size_t l = 0; l < learning->label_count && learning->train; l++) {
        mem_free(learning->train[l].items);
        mem_free(learning->held[l].items);
    }
    mem_free(learning->train);
    mem_free(learning->held);
    mem_free(learning->p);
    features_done(&learning->features);
    classifier_free(learning->classifier);
    arena_done(&learning->arena);
}

static const struct param classifier_params[] = {
    {"classes", PARAM_LIST, NULL, 0, 0, NULL,
     "texts of each class, as LABEL=PATTERN: .jsonl and .gz with a text a line, or plain text cut "
     "at blank lines; or rows of tables, LABEL=FILES?text=FIELD&any=A|B&none=A|B&is=FIELD:VALUE "
     "(.csv, .jsonl); a label may have several"},
    {"features", PARAM_CHOICE, "chars", 0, 0, "chars|words",
     "characters 1- to 4-grams tell languages, words and pairs of them tell quality or content"},
    {"buckets_log2", PARAM_INT, "18", 10, 24, NULL, "features are hashed to 2^this places"},
    {"window", PARAM_INT, "200", 0, 1e9, NULL,
     "characters of a sample: texts are cut into windows; 0: whole texts"},
    {"epochs", PARAM_INT, "10", 1, 1000, NULL, "times that as many samples are drawn as there are"},
    {"draw", PARAM_CHOICE, "even", 0, 0, "even|natural",
     "classes are drawn evenly, or as often as they have texts: p then knows how rare one is"},
    {"learning_rate", PARAM_FLOAT, "0.5", 1e-6, 100, NULL, "at the start; falls to 0"},
    {"holdout_share", PARAM_FLOAT, "0.1", 0, 0.9, NULL,
     "share of the samples that only measures: accuracy, and the thresholds"},
    {"pass_share", PARAM_FLOAT, "0.9", 0.5, 0.999, NULL,
     "share of a class's held-out samples that reach its threshold"},
    {"seed", PARAM_INT, "1337", 0, 9e15, NULL, "of what is held out and drawn"},
};

const struct recipe recipe_data_classifier = {
    .name = "classifier",
    .kind = RECIPE_DATA,
    .version = 1,
    .summary = "A linear classifier of texts by language, quality or content, for dolma and yi",
    .source = "Joulin et al. 2017 (fastText); form and thresholds: Soldaini et al. 2024, Yi 2024",
    .params = classifier_params,
    .param_count = ARRAY_COUNT(classifier_params),
    .outputs = "checkpoint|metrics",
    .state_size = sizeof(struct learning),
    .open = open_recipe,
    .load = load,
    .step = step,
    .save = save,
    .close = close_recipe,
};
