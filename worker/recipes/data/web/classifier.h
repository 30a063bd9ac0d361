/* classifier.h - a linear classifier over hashed n-grams: language, quality, toxicity.
 *
 * p(label | text) = softmax(bias + SCALE/N * sum over the text's N n-grams of weight[bucket]).
 * Features are character 1- to 4-grams (lower case, white space as one space) or word uni- and
 * bigrams (words.h's ROUGE words). Cards data-dolma ("Language") and data-yi-pipeline (quality
 * scorer) name these forms; fastText's models are what they stand for (Joulin et al. 2017).
 *
 * On disk it is a checkpoint of recipe data/classifier: model.safetensors with weights (buckets,
 * labels), bias and threshold (labels), and classifier.json with the rest. */
#ifndef ATHANOR_WEB_CLASSIFIER_H
#define ATHANOR_WEB_CLASSIFIER_H

#include "common/base/buf.h"
#include "common/base/err.h"

#define CLASSIFIER_LABELS_MAX 512 /* languages of the largest published identifier: 176 */
#define CLASSIFIER_WEIGHTS_MAX ((size_t)1 << 26) /* 256 MiB: 256 labels of 2^18 buckets */
#define CLASSIFIER_SCALE 32.0f    /* a mean of unit features would need huge weights */

enum classifier_features { FEATURES_CHARS = 1, FEATURES_WORDS };

struct classifier {
    enum classifier_features features;
    unsigned buckets_log2; /* 10 .. 24 */
    size_t label_count;
    char **labels;
    float *weights;   /* (buckets, labels) */
    float *bias;      /* (labels) */
    float *threshold; /* (labels): p that the stated share of held-out texts of a label reaches */
};

/* All weights zero. labels are copied. Errors: ERR_INVALID, ERR_MEMORY. */
int classifier_new(enum classifier_features features, unsigned buckets_log2,
                   const char *const *labels, size_t label_count, struct classifier **out,
                   struct err *err) WARN_UNUSED;
void classifier_free(struct classifier *classifier);
/* The label's number; label_count when there is none of that name. */
size_t classifier_label(const struct classifier *classifier, const char *name);

/* The buckets of a text's n-grams, reused from call to call. */
struct features {
    uint32_t *bucket;
    size_t count, capacity;
};
void features_set(struct features *features, const struct classifier *classifier, const char *text,
                  size_t length);
void features_done(struct features *features);

/* p (labels) of a text. A text without features gets the bias alone. */
void classifier_predict(const struct classifier *classifier, const struct features *features,
                        float *p);
/* One step of stochastic gradient ascent on log p(label). p: room for labels. */
void classifier_learn(struct classifier *classifier, const struct features *features, size_t label,
                      float rate, float *p);

/* classifier.json (mem_free), and the reverse without weights. Errors: ERR_PROTOCOL. */
char *classifier_text(const struct classifier *classifier);
int classifier_parse(const char *json, size_t length, struct classifier **out,
                     struct err *err) WARN_UNUSED;
/* Both files of a folder. Errors: ERR_NOT_FOUND, ERR_PROTOCOL naming the file. */
int classifier_open(const char *folder, struct classifier **out, struct err *err) WARN_UNUSED;

#endif
