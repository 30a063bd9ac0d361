/* choices.c - see choices.h. */
#include "worker/recipes/eval/choices.h"

#include "common/base/file.h"
#include "common/base/mem.h"
#include "common/base/parse.h"

#include <ctype.h>
#include <jansson.h>
#include <math.h>
#include <string.h>

#define FILE_BYTES_MAX ((size_t)1 << 32)

/* -- reading -------------------------------------------------------------------------------- */

static char *copy_text(json_t *value)
{
    return mem_strndup(json_string_value(value), json_string_length(value));
}

static int read_choices(json_t *root, struct choice_item *out, struct err *err)
{
    json_t *list = json_object_get(root, "choices"), *text;
    size_t index;

    if (!json_is_array(list) || json_array_size(list) < 2 || json_array_size(list) > CHOICES_MAX)
        return err_set(err, ERR_INVALID, "'choices' is no list of 2 to %d texts", CHOICES_MAX);
    out->choice = mem_zalloc(json_array_size(list) * sizeof *out->choice);
    out->count = json_array_size(list);
    json_array_foreach(list, index, text)
    {
        if (!json_is_string(text) || json_string_length(text) == 0)
            return err_set(err, ERR_INVALID, "choices[%zu] is no text, or an empty one", index);
        out->choice[index] = copy_text(text);
    }
    return 0;
}

static int read_labels(json_t *list, struct choice_item *out, struct err *err)
{
    json_t *label;
    size_t index, trues = 0;

    if (json_array_size(list) != out->count)
        return err_set(err, ERR_INVALID, "'labels' has %zu entries for %zu choices",
                       json_array_size(list), out->count);
    out->label = mem_zalloc(out->count * sizeof *out->label);
    json_array_foreach(list, index, label)
    {
        json_int_t value = json_is_integer(label) ? json_integer_value(label) : -1;

        if (value != 0 && value != 1)
            return err_set(err, ERR_INVALID, "labels[%zu] is neither 0 nor 1", index);
        out->label[index] = value == 1;
        if (value == 1 && trues++ == 0)
            out->gold = index;
    }
    return trues > 0 ? 0 : err_set(err, ERR_INVALID, "'labels' has no 1: one choice must be true");
}

static int read_gold(json_t *root, struct choice_item *out, struct err *err)
{
    json_t *gold = json_object_get(root, "gold"), *labels = json_object_get(root, "labels");

    if (gold && labels)
        return err_set(err, ERR_INVALID, "both 'gold' and 'labels' are given; one of them says "
                       "what is true");
    if (labels)
        return json_is_array(labels) ? read_labels(labels, out, err)
                                     : err_set(err, ERR_INVALID, "'labels' is no list");
    if (!json_is_integer(gold) || json_integer_value(gold) < 0 ||
        json_integer_value(gold) >= (json_int_t)out->count)
        return err_set(err, ERR_INVALID, "'gold' is no number from 0 to %zu", out->count - 1);
    out->gold = (size_t)json_integer_value(gold);
    return 0;
}

static int read_item(json_t *root, struct choice_item *out, struct err *err)
{
    json_t *context = json_object_get(root, "context"), *id = json_object_get(root, "id");

    if (!json_is_object(root))
        return err_set(err, ERR_INVALID, "not an object");
    if (!json_is_string(context))
        return err_set(err, ERR_INVALID, "'context' is no text");
    out->context = copy_text(context);
    if (json_is_string(id))
        out->id = copy_text(id);
    else if (id)
        return err_set(err, ERR_INVALID, "'id' is no text");
    if (read_choices(root, out, err) < 0)
        return -1;
    return read_gold(root, out, err);
}

int choice_item_parse(const char *json, size_t length, struct choice_item *out, struct err *err)
{
    struct choice_item item = {0};
    json_error_t why;
    json_t *root = json_loadb(json, length, JSON_REJECT_DUPLICATES, &why);
    int rc;

    if (!root)
        return err_set(err, ERR_PROTOCOL, "column %d: %s", why.column, why.text);
    rc = read_item(root, &item, err);
    json_decref(root);
    if (rc == 0)
        *out = item;
    else
        choice_item_done(&item);
    return rc;
}

void choice_item_done(struct choice_item *item)
{
    for (size_t i = 0; i < item->count; i++)
        mem_free(item->choice[i]);
    mem_free(item->choice);
    mem_free(item->label);
    mem_free(item->context);
    mem_free(item->id);
    memset(item, 0, sizeof *item);
}

static int take_line(struct choice_items *items, const char *line, size_t length, size_t number,
                     struct err *err)
{
    if (strspn(line, " \t\r") >= length)
        return 0;
    if (length > CHOICES_TEXT_MAX)
        return err_set(err, ERR_LIMIT, "line %zu has %zu bytes; at most %d are accepted", number,
                       length, CHOICES_TEXT_MAX);
    VEC_RESERVE(items->items, items->count, items->capacity);
    if (choice_item_parse(line, length, &items->items[items->count], err) < 0)
        return err_wrap(err, "line %zu", number);
    items->count++;
    return 0;
}

int choice_items_read(const char *path, struct choice_items *out, struct err *err)
{
    struct choice_items items = {0};
    char *bytes = NULL;
    size_t length, number = 1;
    int rc = file_read(path, FILE_BYTES_MAX, &bytes, &length, err);

    for (size_t at = 0; rc == 0 && at < length; number++) {
        const char *end = memchr(bytes + at, '\n', length - at);
        size_t next = end ? (size_t)(end - bytes) : length;

        rc = take_line(&items, bytes + at, next - at, number, err);
        at = next + 1;
    }
    mem_free(bytes);
    if (rc == 0 && items.count == 0)
        rc = err_set(err, ERR_INVALID, "no item in it");
    if (rc < 0) {
        choice_items_done(&items);
        return err_wrap(err, "'%s'", path);
    }
    *out = items;
    return 0;
}

void choice_items_done(struct choice_items *items)
{
    for (size_t i = 0; i < items->count; i++)
        choice_item_done(&items->items[i]);
    mem_free(items->items);
    memset(items, 0, sizeof *items);
}

/* -- tokens --------------------------------------------------------------------------------- */

void choice_encode(const struct choice_encoding *how, const char *context, const char *choice,
                   struct token_list *out, size_t *out_start)
{
    size_t kept = strlen(context);
    struct token_list alone = {0};
    char *whole = mem_printf("%s%s%s", context, how->delimiter, choice);

    while (kept > 0 && isspace((unsigned char)context[kept - 1]))
        kept--;
    out->count = 0;
    if (how->always || kept == 0)
        token_list_add(out, how->prefix);
    *out_start = out->count;
    if (kept > 0) {
        tokenizer_encode(how->tokenizer, context, kept, &alone);
        *out_start += alone.count;
    }
    tokenizer_encode(how->tokenizer, whole, strlen(whole), out);
    token_list_done(&alone);
    mem_free(whole);
}

/* -- judging -------------------------------------------------------------------------------- */

size_t text_characters(const char *text)
{
    size_t count = 0;

    for (; *text; text++)
        count += ((unsigned char)*text & 0xC0) != 0x80;
    return count;
}

static size_t first_best(const double *values, size_t count)
{
    size_t best = 0;

    for (size_t i = 1; i < count; i++)
        if (values[i] > values[best])
            best = i;
    return best;
}

/* log sum exp of those that count; all when label is NULL. */
static double log_total(const double *log_p, size_t count, const bool *label)
{
    double highest = -INFINITY, sum = 0;

    for (size_t i = 0; i < count; i++)
        if (!label || label[i])
            highest = fmax(highest, log_p[i]);
    for (size_t i = 0; i < count; i++)
        if (!label || label[i])
            sum += exp(log_p[i] - highest);
    return highest + log(sum);
}

void choice_judge(const struct choice_item *item, const double *log_p, const double *mutual,
                  struct choice_verdict *out)
{
    double scaled[CHOICES_MAX], total = log_total(log_p, item->count, NULL);

    *out = (struct choice_verdict){.best = first_best(log_p, item->count), .mc2 = NAN};
    out->acc = out->best == item->gold;
    for (size_t i = 0; i < item->count; i++)
        scaled[i] = log_p[i] / (double)text_characters(item->choice[i]);
    out->acc_norm = first_best(scaled, item->count) == item->gold;
    for (size_t i = 0; i < item->count; i++)
        scaled[i] = log_p[i] / (double)strlen(item->choice[i]);
    out->acc_bytes = first_best(scaled, item->count) == item->gold;
    for (size_t i = 0; mutual && i < item->count; i++)
        scaled[i] = log_p[i] - mutual[i];
    out->acc_mutual_info = mutual && first_best(scaled, item->count) == item->gold;
    for (size_t i = 0; i < item->count; i++) {
        double wrong = exp(log_p[i] - total) - (i == item->gold);

        out->brier += wrong * wrong;
    }
    out->confidence = exp(log_p[out->best] - total);
    if (item->label)
        out->mc2 = exp(log_total(log_p, item->count, item->label) - total);
}
