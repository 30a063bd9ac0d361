/* texts.c - see texts.h. */
#include "worker/recipes/data/web/texts.h"

#include "common/base/buf.h"
#include "common/base/file.h"
#include "common/base/mem.h"
#include "worker/recipes/data/web/document.h"

#include <glob.h>
#include <jansson.h>
#include <string.h>

#define FILE_BYTES_MAX ((size_t)1 << 34)

struct reading {
    enum texts_mode mode;
    texts_visit visit;
    void *argument;
};

/* ---- JSON and CSV ----------------------------------------------------------------------- */

#define DEPTH_MAX 2048 /* as jansson's own bound */

/* A value that is walked: its next child. */
struct place {
    const json_t *value;
    size_t index; /* of arrays */
    void *at;     /* of objects */
};

static struct place place_of(const json_t *value)
{
    bool object = json_is_object(value);

    return (struct place){value, 0, object ? json_object_iter((json_t *)value) : NULL};
}

static const json_t *next_child(struct place *place)
{
    if (json_is_array(place->value))
        return json_array_get(place->value, place->index++);
    if (!place->at)
        return NULL;
    const json_t *child = json_object_iter_value(place->at);
    place->at = json_object_iter_next((json_t *)place->value, place->at);
    return child;
}

static int visit_json(const json_t *root, texts_visit visit, void *argument, struct err *err)
{
    struct place *stack = mem_array(DEPTH_MAX, sizeof *stack);
    const json_t *value = root;
    size_t depth = 0;
    int rc = 0;

    while (value && rc == 0) {
        if (json_is_string(value))
            rc = visit(argument, json_string_value(value), json_string_length(value), err);
        else if (depth < DEPTH_MAX)
            stack[depth++] = place_of(value);
        for (value = NULL; depth > 0 && !value; depth -= !value)
            value = next_child(&stack[depth - 1]);
    }
    mem_free(stack);
    return rc;
}

int texts_of_json(const char *json, size_t length, texts_visit visit, void *argument,
                  struct err *err)
{
    json_error_t where;
    json_t *root = json_loadb(json, length, JSON_ALLOW_NUL | JSON_DECODE_ANY, &where);

    if (!root)
        return err_set(err, ERR_PROTOCOL, "line %d, column %d: %s", where.line, where.column,
                       where.text);
    int rc = visit_json(root, visit, argument, err);
    json_decref(root);
    return rc;
}

int texts_of_csv(const char *csv, size_t length, texts_visit visit, void *argument,
                 struct err *err)
{
    struct buf field = {0};
    int rc = 0;

    for (size_t at = 0; at < length && rc == 0; at++) {
        bool quoted = csv[at] == '"', open = quoted;
        buf_clear(&field);
        for (at += quoted; at < length; at++) {
            if (quoted && csv[at] == '"') {
                if (at + 1 < length && csv[at + 1] == '"')
                    at++;
                else {
                    open = quoted = false;
                    continue;
                }
            } else if (!quoted && strchr(",\n", csv[at]) && csv[at]) {
                break;
            }
            buf_putc(&field, csv[at]);
        }
        if (open)
            rc = err_set(err, ERR_PROTOCOL, "a quoted field does not end");
        else if (field.length)
            rc = visit(argument, field.bytes, field.length, err);
    }
    buf_done(&field);
    return rc;
}

/* ---- files ------------------------------------------------------------------------------ */

static bool ends_with(const char *text, const char *end)
{
    size_t length = strlen(text), bytes = strlen(end);

    return length >= bytes && strcmp(text + length - bytes, end) == 0;
}

static bool is_blank(const char *text, size_t length)
{
    for (size_t i = 0; i < length; i++)
        if (!strchr(" \t\r\n", text[i]) || !text[i])
            return false;
    return true;
}

static int visit_plain(const struct reading *reading, const char *text, size_t length,
                       struct err *err)
{
    size_t begin = 0;
    int rc = 0;

    for (size_t at = 0; at <= length && rc == 0;) {
        const char *newline = at < length ? memchr(text + at, '\n', length - at) : NULL;
        size_t end = newline ? (size_t)(newline - text) : length;
        if (is_blank(text + at, end - at) || end == length) {
            size_t stop = end == length && !is_blank(text + at, end - at) ? end : at;
            if (!is_blank(text + begin, stop - begin))
                rc = reading->visit(reading->argument, text + begin, stop - begin, err);
            begin = end + 1;
        }
        at = end + 1;
    }
    return rc;
}

static int visit_document(void *argument, struct document_line *line, struct err *err)
{
    const struct reading *reading = argument;

    if (line->no_page)
        return 0;
    if (!line->document)
        return err_set(err, ERR_PROTOCOL, "%s:%llu %s", line->file->path,
                       (unsigned long long)line->number, line->malformed);
    return reading->visit(reading->argument, line->document->text, line->document->length, err);
}

static int read_documents(const struct reading *reading, const char *path, struct err *err)
{
    struct document_list list = {0};
    int rc = document_list_add(&list, path, UINT64_MAX / 2, err);

    for (size_t b = 0; b < list.block_count && rc == 0; b++)
        rc = document_read(&list, b, visit_document, (void *)reading, err);
    document_list_done(&list);
    return rc;
}

static int read_lines_of_json(const struct reading *reading, const char *bytes, size_t length,
                              struct err *err)
{
    unsigned long long number = 1;

    for (size_t at = 0; at < length; number++) {
        const char *newline = memchr(bytes + at, '\n', length - at);
        size_t end = newline ? (size_t)(newline - bytes) : length;
        if (!is_blank(bytes + at, end - at) &&
            texts_of_json(bytes + at, end - at, reading->visit, reading->argument, err) < 0)
            return err_wrap(err, "line %llu", number);
        at = end + 1;
    }
    return 0;
}

static int read_file(const struct reading *reading, const char *path, struct err *err)
{
    bool lines = ends_with(path, ".jsonl");
    char *bytes;
    size_t length;
    int rc;

    if (ends_with(path, ".gz") || ends_with(path, ".warc") ||
        (lines && reading->mode == TEXTS_DOCUMENTS))
        return read_documents(reading, path, err);
    if (file_read(path, FILE_BYTES_MAX, &bytes, &length, err) < 0)
        return -1;
    if (lines)
        rc = read_lines_of_json(reading, bytes, length, err);
    else if (ends_with(path, ".json"))
        rc = texts_of_json(bytes, length, reading->visit, reading->argument, err);
    else if (ends_with(path, ".csv"))
        rc = texts_of_csv(bytes, length, reading->visit, reading->argument, err);
    else
        rc = visit_plain(reading, bytes, length, err);
    mem_free(bytes);
    return rc < 0 ? err_wrap(err, "'%s'", path) : 0;
}

int texts_read(const char *pattern, enum texts_mode mode, texts_visit visit, void *argument,
               struct err *err)
{
    struct reading reading = {mode, visit, argument};
    glob_t found = {0};
    int rc = 0, status = glob(pattern, 0, NULL, &found);

    if (status == GLOB_NOMATCH)
        rc = err_set(err, ERR_NOT_FOUND, "no file matches '%s'", pattern);
    else if (status != 0)
        rc = err_set(err, ERR_IO, "the pattern '%s' could not be read", pattern);
    for (size_t i = 0; i < found.gl_pathc && rc == 0; i++)
        rc = read_file(&reading, found.gl_pathv[i], err);
    globfree(&found);
    return rc;
}
