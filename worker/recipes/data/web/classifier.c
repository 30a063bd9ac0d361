/* classifier.c - see classifier.h. */
#include "worker/recipes/data/web/classifier.h"

#include "common/base/file.h"
#include "common/base/mem.h"
#include "worker/engine/io/model_files.h"
#include "worker/recipes/data/web/chars.h"
#include "worker/recipes/text/words.h"

#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define GRAM_MAX 4

int classifier_new(enum classifier_features features, unsigned buckets_log2,
                   const char *const *labels, size_t label_count, struct classifier **out,
                   struct err *err)
{
    if (label_count < 2 || label_count > CLASSIFIER_LABELS_MAX)
        return err_set(err, ERR_INVALID, "a classifier has 2 to %d labels, not %zu",
                       CLASSIFIER_LABELS_MAX, label_count);
    if (buckets_log2 < 10 || buckets_log2 > 24)
        return err_set(err, ERR_INVALID, "a classifier has 2^10 to 2^24 buckets, not 2^%u",
                       buckets_log2);
    if (label_count << buckets_log2 > CLASSIFIER_WEIGHTS_MAX)
        return err_set(err, ERR_INVALID, "%zu labels of 2^%u buckets are more than 2^26 weights",
                       label_count, buckets_log2);
    size_t bytes = ((size_t)1 << buckets_log2) * label_count * sizeof(float);
    float *weights = calloc(1, bytes);
    if (!weights)
        return err_set(err, ERR_MEMORY, "a classifier of 2^%u buckets and %zu labels needs %zu "
                       "bytes", buckets_log2, label_count, bytes);
    struct classifier *made = mem_zalloc(sizeof *made);
    made->features = features;
    made->buckets_log2 = buckets_log2;
    made->label_count = label_count;
    made->weights = weights;
    made->labels = mem_array(label_count, sizeof *made->labels);
    made->bias = mem_array(label_count, sizeof *made->bias);
    made->threshold = mem_array(label_count, sizeof *made->threshold);
    for (size_t l = 0; l < label_count; l++)
        made->labels[l] = mem_strdup(labels[l]);
    *out = made;
    return 0;
}

void classifier_free(struct classifier *classifier)
{
    if (!classifier)
        return;
    for (size_t l = 0; l < classifier->label_count; l++)
        mem_free(classifier->labels[l]);
    mem_free(classifier->labels);
    mem_free(classifier->bias);
    mem_free(classifier->threshold);
    free(classifier->weights);
    mem_free(classifier);
}

size_t classifier_label(const struct classifier *classifier, const char *name)
{
    size_t l = 0;

    while (l < classifier->label_count && strcmp(classifier->labels[l], name) != 0)
        l++;
    return l;
}

/* ---- features --------------------------------------------------------------------------- */

static void add_feature(struct features *features, uint64_t hash, unsigned buckets_log2)
{
    VEC_RESERVE(features->bucket, features->count, features->capacity);
    hash ^= hash >> 31;
    features->bucket[features->count++] = (uint32_t)(hash * 0x9E3779B97F4A7C15u >>
                                                     (64 - buckets_log2));
}

static void add_chars(struct features *features, unsigned log2, const char *text, size_t length)
{
    uint64_t recent[GRAM_MAX] = {0}; /* the newest first */
    size_t bytes, known = 0;

    for (size_t i = 0; i < length; i += bytes) {
        uint32_t c = char_lower(char_at(text + i, length - i, &bytes));
        c = char_is_space(c) ? ' ' : c;
        if (c == ' ' && recent[0] == ' ')
            continue;
        memmove(recent + 1, recent, (GRAM_MAX - 1) * sizeof *recent);
        recent[0] = c;
        known += known < GRAM_MAX;
        uint64_t hash = 0;
        for (size_t n = 1; n <= known; n++) {
            hash = (hash + recent[n - 1] + 1) * 0xBF58476D1CE4E5B9u;
            hash ^= hash >> 27;
            add_feature(features, hash + n, log2);
        }
    }
}

static void add_words(struct features *features, unsigned log2, const char *text, size_t length)
{
    struct words words = {0};

    words_split(&words, WORDS_ROUGE, text, length);
    for (size_t i = 0; i < words.count; i++) {
        add_feature(features, words.word[i], log2);
        if (i > 0)
            add_feature(features, (words.word[i - 1] ^ 0x94D049BB133111EBu) *
                        0xBF58476D1CE4E5B9u + words.word[i], log2);
    }
    words_done(&words);
}

void features_set(struct features *features, const struct classifier *classifier, const char *text,
                  size_t length)
{
    features->count = 0;
    (classifier->features == FEATURES_CHARS ? add_chars : add_words)(
        features, classifier->buckets_log2, text, length);
}

void features_done(struct features *features)
{
    mem_free(features->bucket);
    *features = (struct features){0};
}

/* ---- prediction and learning ------------------------------------------------------------ */

void classifier_predict(const struct classifier *classifier, const struct features *features,
                        float *p)
{
    size_t labels = classifier->label_count;
    float scale = features->count ? CLASSIFIER_SCALE / (float)features->count : 0, most = -INFINITY;
    float sum = 0;

    memset(p, 0, labels * sizeof *p);
    for (size_t i = 0; i < features->count; i++) {
        const float *row = classifier->weights + (size_t)features->bucket[i] * labels;
        for (size_t l = 0; l < labels; l++)
            p[l] += row[l];
    }
    for (size_t l = 0; l < labels; l++) {
        p[l] = classifier->bias[l] + scale * p[l];
        most = p[l] > most ? p[l] : most;
    }
    for (size_t l = 0; l < labels; l++)
        sum += p[l] = expf(p[l] - most);
    for (size_t l = 0; l < labels; l++)
        p[l] /= sum;
}

void classifier_learn(struct classifier *classifier, const struct features *features, size_t label,
                      float rate, float *p)
{
    size_t labels = classifier->label_count;
    float scale = features->count ? CLASSIFIER_SCALE / (float)features->count : 0;

    classifier_predict(classifier, features, p);
    for (size_t l = 0; l < labels; l++) {
        p[l] = rate * ((l == label) - p[l]);
        classifier->bias[l] += p[l];
        p[l] *= scale;
    }
    for (size_t i = 0; i < features->count; i++) {
        float *row = classifier->weights + (size_t)features->bucket[i] * labels;
        for (size_t l = 0; l < labels; l++)
            row[l] += p[l];
    }
}

/* ---- files ------------------------------------------------------------------------------ */

char *classifier_text(const struct classifier *classifier)
{
    json_t *labels = json_array();

    for (size_t l = 0; l < classifier->label_count; l++)
        json_array_append_new(labels, json_string(classifier->labels[l]));
    json_t *root = json_pack("{s:i, s:s, s:i, s:o}", "format", 1, "features",
                             classifier->features == FEATURES_CHARS ? "chars" : "words",
                             "buckets_log2", (int)classifier->buckets_log2, "labels", labels);
    CHECK(root);
    char *text = json_dumps(root, JSON_INDENT(1)), *out = mem_strdup(text);
    free(text);
    json_decref(root);
    return out;
}

static int parse_root(const json_t *root, struct classifier **out, struct err *err)
{
    const json_t *labels = json_object_get(root, "labels");
    const char *features = json_string_value(json_object_get(root, "features"));
    json_int_t log2 = json_integer_value(json_object_get(root, "buckets_log2"));
    const char *names[CLASSIFIER_LABELS_MAX];
    size_t count = json_array_size(labels);

    if (json_integer_value(json_object_get(root, "format")) != 1)
        return err_set(err, ERR_PROTOCOL, "'format' is not 1");
    if (!features || (strcmp(features, "chars") != 0 && strcmp(features, "words") != 0))
        return err_set(err, ERR_PROTOCOL, "'features' is neither \"chars\" nor \"words\"");
    if (log2 < 10 || log2 > 24)
        return err_set(err, ERR_PROTOCOL, "'buckets_log2' is not 10 to 24");
    if (count < 2 || count > CLASSIFIER_LABELS_MAX)
        return err_set(err, ERR_PROTOCOL, "'labels' has not 2 to %d items", CLASSIFIER_LABELS_MAX);
    for (size_t l = 0; l < count; l++)
        if (!(names[l] = json_string_value(json_array_get(labels, l))))
            return err_set(err, ERR_PROTOCOL, "a label is no text");
    if (count << log2 > CLASSIFIER_WEIGHTS_MAX)
        return err_set(err, ERR_PROTOCOL, "more than 2^26 weights");
    return classifier_new(*features == 'c' ? FEATURES_CHARS : FEATURES_WORDS, (unsigned)log2, names,
                          count, out, err);
}

int classifier_parse(const char *json, size_t length, struct classifier **out, struct err *err)
{
    json_error_t where;
    json_t *root = json_loadb(json, length, JSON_REJECT_DUPLICATES, &where);
    int rc = root ? parse_root(root, out, err)
                  : err_set(err, ERR_PROTOCOL, "line %d: %s", where.line, where.text);

    json_decref(root);
    return rc;
}

static int read_weights(const char *folder, struct classifier *classifier, struct err *err)
{
    uint64_t labels = classifier->label_count;
    struct named_array arrays[] = {
        {.name = "weights", .dim_count = 2, .values = classifier->weights,
         .shape = {(uint64_t)1 << classifier->buckets_log2, labels}},
        {.name = "bias", .dim_count = 1, .shape = {labels}, .values = classifier->bias},
        {.name = "threshold", .dim_count = 1, .shape = {labels}, .values = classifier->threshold}};

    return arrays_read(folder, false, arrays, ARRAY_COUNT(arrays), err);
}

int classifier_open(const char *folder, struct classifier **out, struct err *err)
{
    char *path = mem_printf("%s/classifier.json", folder), *text = NULL;
    struct classifier *read = NULL;
    size_t length;
    int rc = file_read(path, 1 << 20, &text, &length, err);

    if (rc == 0 && (rc = classifier_parse(text, length, &read, err)) < 0)
        err_wrap(err, "'%s'", path);
    if (rc == 0)
        rc = read_weights(folder, read, err);
    if (rc == 0)
        *out = read;
    else
        classifier_free(read);
    mem_free(text);
    mem_free(path);
    return rc;
}
