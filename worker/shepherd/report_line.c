/* report_line.c - see report_line.h. */
#include "worker/shepherd/report_line.h"

#include "common/base/buf.h"
#include "common/base/mem.h"
#include "common/spec/spec.h"

#include <ctype.h>
#include <jansson.h>
#include <math.h>
#include <string.h>

/* ---- Python's bare NaN and Infinity ---------------------------------------------------------- */

static const char *const bare_words[] = {"NaN", "-Infinity", "Infinity"};

static const char *bare_word_at(const char *at, size_t left)
{
    for (size_t i = 0; i < ARRAY_COUNT(bare_words); i++) {
        size_t length = strlen(bare_words[i]);
        if (left >= length && memcmp(at, bare_words[i], length) == 0)
            return bare_words[i];
    }
    return NULL;
}

/* Puts quotes around bare words outside of texts. */
static void quote_bare_words(const char *line, size_t length, struct buf *out)
{
    bool in_text = false;
    for (size_t i = 0; i < length; i++) {
        const char *word = in_text ? NULL : bare_word_at(line + i, length - i);
        if (word) {
            buf_printf(out, "\"%s\"", word);
            i += strlen(word) - 1;
            continue;
        }
        if (in_text && line[i] == '\\' && i + 1 < length)
            buf_putc(out, line[i++]);
        else if (line[i] == '"')
            in_text = !in_text;
        buf_putc(out, line[i]);
    }
}

static json_t *line_load(const char *line, size_t length, struct err *err)
{
    json_error_t why;
    json_t *root = json_loadb(line, length, 0, &why);
    if (!root) {
        struct buf quoted = {0};
        json_error_t again;
        quote_bare_words(line, length, &quoted);
        if (quoted.length > length)
            root = json_loadb(quoted.bytes, quoted.length, 0, &again);
        buf_done(&quoted);
    }
    if (!root) {
        err_set(err, ERR_INVALID, "not a JSON line: %s at column %d", why.text, why.column);
        return NULL;
    }
    if (!json_is_object(root)) {
        json_decref(root);
        err_set(err, ERR_INVALID,
                "a report line is a JSON object, such as "
                "{\"type\": \"metric\", \"step\": 1, \"values\": {\"loss\": 3}}");
        return NULL;
    }
    return root;
}

/* ---- fields ---------------------------------------------------------------------------------- */

struct reading {
    const json_t *root;
    struct arena *arena;
    struct report_line *line;
    struct err *err;
};

static int count_get(struct reading *r, const char *name, bool required, uint64_t *out)
{
    const json_t *value = json_object_get(r->root, name);
    if (!value && !required)
        return 0;
    /* 2^53: what every JSON writer can express, and more steps than any run has. */
    if (!json_is_integer(value) || json_integer_value(value) < 0 ||
        json_integer_value(value) > ((json_int_t)1 << 53))
        return err_set(r->err, ERR_INVALID, "%s: %s, expected a whole number from 0", name,
                       value ? "not a count" : "missing");
    *out = (uint64_t)json_integer_value(value);
    return 0;
}

static int text_get(struct reading *r, const char *name, bool required, size_t limit,
                    const char **out)
{
    const json_t *value = json_object_get(r->root, name);
    *out = "";
    if (!value && !required)
        return 0;
    const char *text = json_string_value(value);
    if (!text || (required && !text[0]))
        return err_set(r->err, ERR_INVALID, "%s: %s, expected a text", name,
                       value ? "not a text, or empty" : "missing");
    if (json_string_length(value) > limit)
        return err_set(r->err, ERR_INVALID, "%s: %zu bytes, expected at most %zu", name,
                       json_string_length(value), limit);
    *out = arena_strdup(r->arena, text);
    return 0;
}

static int object_get(struct reading *r, const char *name, const char **out)
{
    const json_t *value = json_object_get(r->root, name);
    if (value && !json_is_object(value))
        return err_set(r->err, ERR_INVALID, "%s: expected an object", name);
    char *text = value ? json_dumps(value, JSON_COMPACT) : mem_strdup("{}");
    CHECK(text);
    *out = arena_strdup(r->arena, text);
    mem_free(text);
    return 0;
}

static bool number_of(const json_t *value, double *out)
{
    static const struct {
        const char *text;
        double value;
    } names[] = {{"NaN", NAN},
                 {"nan", NAN},
                 {"Infinity", INFINITY},
                 {"inf", INFINITY},
                 {"-Infinity", -INFINITY},
                 {"-inf", -INFINITY}};
    if (json_is_number(value)) {
        *out = json_number_value(value);
        return true;
    }
    if (json_is_null(value)) {
        *out = NAN;
        return true;
    }
    for (size_t i = 0; json_is_string(value) && i < ARRAY_COUNT(names); i++)
        if (strcmp(json_string_value(value), names[i].text) == 0) {
            *out = names[i].value;
            return true;
        }
    return false;
}

static int values_get(struct reading *r)
{
    json_t *values = json_object_get(r->root, "values"), *value;
    size_t count = json_object_size(values);
    const char *name;
    if (count == 0 || count > REPORT_VALUES_MAX)
        return err_set(r->err, ERR_INVALID,
                       "values: expected an object of 1 to %u numbers, such as {\"loss\": 3.2}",
                       REPORT_VALUES_MAX);
    r->line->values = arena_alloc(r->arena, count * sizeof *r->line->values);
    json_object_foreach(values, name, value)
    {
        struct report_value *at = &r->line->values[r->line->value_count++];
        if (!name[0] || strlen(name) > REPORT_NAME_BYTES_MAX)
            return err_set(r->err, ERR_INVALID, "values: a name has 1 to %u bytes",
                           REPORT_NAME_BYTES_MAX);
        if (!number_of(value, &at->value))
            return err_set(r->err, ERR_INVALID, "values.%s: expected a number", name);
        at->name = arena_strdup(r->arena, name);
    }
    return 0;
}

/* ---- one function per type ------------------------------------------------------------------- */

static int hello_read(struct reading *r)
{
    (void)r; /* nothing beyond the rank, which every line may carry */
    return 0;
}

static int metric_read(struct reading *r)
{
    return count_get(r, "step", false, &r->line->step) < 0 || values_get(r) < 0 ? -1 : 0;
}

static int progress_read(struct reading *r)
{
    if (count_get(r, "step", true, &r->line->step) < 0 ||
        count_get(r, "total", false, &r->line->total) < 0)
        return -1;
    return text_get(r, "phase", false, REPORT_NAME_BYTES_MAX, &r->line->name);
}

static int path_get(struct reading *r)
{
    if (text_get(r, "path", true, 4095, &r->line->path) < 0)
        return -1;
    if (r->line->path[0] != '/')
        return err_set(r->err, ERR_INVALID, "path: '%.200s', expected an absolute path",
                       r->line->path);
    return 0;
}

static int checkpoint_read(struct reading *r)
{
    if (count_get(r, "step", true, &r->line->step) < 0 ||
        count_get(r, "save_ms", false, &r->line->save_ms) < 0 || path_get(r) < 0)
        return -1;
    return object_get(r, "metrics", &r->line->meta);
}

/* The report's meta is the user's object with "kind" put in. */
static int artifact_meta(struct reading *r)
{
    const json_t *given = json_object_get(r->root, "meta");
    if (given && !json_is_object(given))
        return err_set(r->err, ERR_INVALID, "meta: expected an object");
    json_t *meta = given ? json_copy((json_t *)given) : json_object();
    json_object_set_new(meta, "kind", json_string(r->line->artifact_kind));
    char *text = json_dumps(meta, JSON_COMPACT);
    json_decref(meta);
    CHECK(text);
    r->line->meta = arena_strdup(r->arena, text);
    mem_free(text);
    return 0;
}

static int artifact_read(struct reading *r)
{
    if (text_get(r, "kind", true, REPORT_NAME_BYTES_MAX, &r->line->artifact_kind) < 0 ||
        text_get(r, "name", true, REPORT_NAME_BYTES_MAX, &r->line->name) < 0 || path_get(r) < 0)
        return -1;
    if (!spec_name_is_valid(r->line->name))
        return err_set(r->err, ERR_INVALID,
                       "name: '%.200s', expected 1 to %u letters, digits, '.', '_' and '-', a "
                       "letter or digit first",
                       r->line->name, SPEC_NAME_BYTES_MAX);
    return artifact_meta(r);
}

static int event_read(struct reading *r)
{
    if (text_get(r, "name", true, REPORT_NAME_BYTES_MAX, &r->line->name) < 0 ||
        text_get(r, "text", false, (size_t)64 << 10, &r->line->text) < 0 ||
        count_get(r, "step", false, &r->line->step) < 0)
        return -1;
    return object_get(r, "fields", &r->line->meta);
}

static const struct {
    const char *name;
    int (*read)(struct reading *r);
} kinds[LINE_KIND_END] = {
    [LINE_HELLO] = {"hello", hello_read},
    [LINE_METRIC] = {"metric", metric_read},
    [LINE_PROGRESS] = {"progress", progress_read},
    [LINE_CHECKPOINT] = {"checkpoint", checkpoint_read},
    [LINE_ARTIFACT] = {"artifact", artifact_read},
    [LINE_EVENT] = {"event", event_read},
};

static int kind_get(struct reading *r)
{
    const char *type = json_string_value(json_object_get(r->root, "type"));
    for (int i = 1; type && i < LINE_KIND_END; i++)
        if (strcmp(kinds[i].name, type) == 0) {
            r->line->kind = (enum report_line_kind)i;
            return 0;
        }
    return err_set(r->err, ERR_INVALID,
                   "type: '%.40s', expected hello, metric, progress, checkpoint, artifact or event",
                   type ? type : "");
}

static int common_read(struct reading *r)
{
    const json_t *reply = json_object_get(r->root, "reply");
    r->line->reply = json_is_true(reply);
    r->line->has_rank = json_object_get(r->root, "rank") != NULL;
    return count_get(r, "rank", false, &r->line->rank);
}

int report_line_parse(const char *line, size_t length, struct arena *arena, struct report_line *out,
                      struct err *err)
{
    json_t *root = line_load(line, length, err);
    if (!root) { /* it cannot be asked, but whoever waits for an answer must not wait for ever */
        out->reply = memmem(line, length, "\"reply\"", strlen("\"reply\"")) != NULL;
        return -1;
    }
    struct report_line result = {
        .name = "", .path = "", .text = "", .meta = "", .artifact_kind = ""};
    struct reading reading = {root, arena, &result, err};
    int rc = -1;
    if (common_read(&reading) == 0 && kind_get(&reading) == 0)
        rc = kinds[result.kind].read(&reading);
    json_decref(root);
    out->reply = result.reply; /* also for refusals: they are answered when asked for */
    if (rc == 0)
        *out = result;
    return rc;
}
