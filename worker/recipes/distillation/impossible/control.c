/* control.c - see control.h. */
#include "worker/recipes/distillation/impossible/control.h"

#include "common/base/file.h"
#include "common/base/mem.h"
#include "worker/recipes/distillation/impossible/sentence.h"
#include "worker/recipes/text/overlap.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const names[CONTROL_END] = {"len", "abs"};

const char *control_kind_name(enum control_kind kind)
{
    return names[kind];
}

void control_token(enum control_kind kind, unsigned bucket, char out[CONTROL_TOKEN_SIZE])
{
    snprintf(out, CONTROL_TOKEN_SIZE, "<%s:%u>", names[kind], bucket);
}

void control_measure(const char *x, const char *y, double out[CONTROL_END])
{
    struct words a = {0}, b = {0};
    struct lcs_pattern pattern;

    out[CONTROL_LEN] = out[CONTROL_ABS] = NAN;
    if (!*x || !*y)
        return;
    words_split(&a, WORDS_ROUGE, y, strlen(y));
    words_split(&b, WORDS_ROUGE, x, strlen(x));
    lcs_pattern_init(&a, &pattern);
    out[CONTROL_LEN] = (double)sentence_characters(y) / (double)sentence_characters(x);
    out[CONTROL_ABS] = 1 - rouge_l(&pattern, &b).f;
    lcs_pattern_done(&pattern);
    words_done(&a);
    words_done(&b);
}

static int compare(const void *a, const void *b)
{
    double left = *(const double *)a, right = *(const double *)b;

    return (left > right) - (left < right);
}

void control_set_limits(struct control *control, enum control_kind kind, double *values,
                        size_t count)
{
    qsort(values, count, sizeof *values, compare);
    for (size_t b = 1; b < CONTROL_BUCKETS; b++)
        control->limit[kind][b - 1] = values[b * count / CONTROL_BUCKETS];
}

unsigned control_bucket(const struct control *control, enum control_kind kind, double value)
{
    unsigned bucket = 1;

    while (bucket < CONTROL_BUCKETS && value >= control->limit[kind][bucket - 1])
        bucket++;
    return bucket;
}

json_t *control_json(const struct control *control)
{
    json_t *root = json_object();

    for (enum control_kind kind = 0; kind < control->count; kind++) {
        json_t *limits = json_array();
        for (size_t b = 0; b + 1 < CONTROL_BUCKETS; b++)
            json_array_append_new(limits, json_real(control->limit[kind][b]));
        json_object_set_new(root, names[kind], json_pack("{s:o}", "limits", limits));
    }
    CHECK(root);
    return root;
}

static int read_limits(json_t *codes, enum control_kind kind, struct control *out, struct err *err)
{
    json_t *limits = json_object_get(json_object_get(codes, names[kind]), "limits"), *value;
    size_t b;

    if (!limits)
        return 0;
    if (json_array_size(limits) != CONTROL_BUCKETS - 1 || kind != out->count)
        return err_set(err, ERR_PROTOCOL, "codes.%s.limits is no list of %d numbers", names[kind],
                       CONTROL_BUCKETS - 1);
    json_array_foreach(limits, b, value)
    {
        if (!json_is_number(value))
            return err_set(err, ERR_PROTOCOL, "codes.%s.limits[%zu] is no number", names[kind], b);
        out->limit[kind][b] = json_number_value(value);
    }
    out->count++;
    return 0;
}

int control_read(const char *folder, struct control *out, struct err *err)
{
    char *path = mem_printf("%s/dataset.json", folder);
    json_error_t why;
    json_t *root = json_load_file(path, JSON_REJECT_DUPLICATES, &why);
    json_t *codes = json_object_get(root, "codes");
    int rc = 0;

    *out = (struct control){0};
    if (!root)
        rc = err_set(err, ERR_PROTOCOL, "'%s':%d: %s", path, why.line, why.text);
    for (enum control_kind kind = 0; kind < CONTROL_END && rc == 0; kind++)
        rc = read_limits(codes, kind, out, err);
    if (rc == 0 && out->count == 0)
        rc = err_set(err, ERR_NOT_FOUND, "dataset '%s' has no control codes: data/codes makes one "
                     "that has", folder);
    json_decref(root);
    mem_free(path);
    return rc;
}
