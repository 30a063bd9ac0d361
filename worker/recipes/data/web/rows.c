/* rows.c - see rows.h. */
#include "worker/recipes/data/web/rows.h"

#include "common/base/buf.h"
#include "common/base/file.h"
#include "common/base/mem.h"
#include "common/base/parse.h"

#include <glob.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#define FILE_BYTES_MAX ((size_t)1 << 34)
#define FIELDS_MAX     4096 /* of a row */
#define MARK           "?text="
#define SET_LEAST      0.5

/* ---- the query -------------------------------------------------------------------------- */

struct names {
    char **items;
    size_t count, capacity;
};

struct query {
    char *pattern, *text, *field, *value; /* field, value: of is=; NULL without */
    struct names any, none;
};

static void names_done(struct names *names)
{
    for (size_t i = 0; i < names->count; i++)
        mem_free(names->items[i]);
    mem_free(names->items);
}

static void query_done(struct query *query)
{
    mem_free(query->pattern);
    mem_free(query->text);
    mem_free(query->field);
    mem_free(query->value);
    names_done(&query->any);
    names_done(&query->none);
}

static void take_names(struct names *names, char *list)
{
    char *name;

    while ((name = strsep(&list, "|"))) {
        VEC_RESERVE(names->items, names->count, names->capacity);
        names->items[names->count++] = mem_strdup(name);
    }
}

static bool take_option(struct query *query, char *option)
{
    char *value = strchr(option, '='), *colon;

    if (!value || !value[1])
        return false;
    *value++ = 0;
    if (strcmp(option, "text") == 0 && !query->text)
        query->text = mem_strdup(value);
    else if (strcmp(option, "any") == 0)
        take_names(&query->any, value);
    else if (strcmp(option, "none") == 0)
        take_names(&query->none, value);
    else if (strcmp(option, "is") == 0 && !query->field && (colon = strchr(value, ':'))) {
        query->field = mem_strndup(value, (size_t)(colon - value));
        query->value = mem_strdup(colon + 1);
    } else
        return false;
    return true;
}

bool rows_is_query(const char *pattern)
{
    return strstr(pattern, MARK) != NULL;
}

static int query_parse(const char *text, struct query *out, struct err *err)
{
    const char *mark = strstr(text, MARK);
    struct query query = {0};
    char *options = mem_strdup(mark ? mark + 1 : ""), *rest = options, *option;
    bool good = mark != NULL;

    while (good && (option = strsep(&rest, "&")))
        good = take_option(&query, option);
    mem_free(options);
    if (good) {
        query.pattern = mem_strndup(text, (size_t)(mark - text));
        *out = query;
        return 0;
    }
    query_done(&query);
    return err_set(err, ERR_INVALID, "'%s' is not FILES?text=FIELD, then maybe &any=A|B, &none=A|B "
                   "or &is=FIELD:VALUE", text);
}

/* ---- a row ------------------------------------------------------------------------------ */

struct row {
    /* The field's value as text; NULL when there is none. */
    const char *(*get)(struct row *row, const char *name, size_t *length);
    const json_t *object;
    char number[40];
    const struct names *columns;
    const struct names *values;
};

/* *out: 1 set, 0 not. Errors: no such field. */
static int is_set(struct row *row, const char *name, bool *out, struct err *err)
{
    size_t length;
    struct err unused;
    double number;
    const char *value = row->get(row, name, &length);

    if (!value)
        return err_set(err, ERR_PROTOCOL, "has no field '%s'", name);
    *out = strcmp(value, "true") == 0 ||
           (parse_f64(value, &number, &unused) == 0 && number >= SET_LEAST);
    return 0;
}

static int count_set(struct row *row, const struct names *names, size_t *out, struct err *err)
{
    bool set;

    *out = 0;
    for (size_t i = 0; i < names->count; i++) {
        if (is_set(row, names->items[i], &set, err) < 0)
            return -1;
        *out += set;
    }
    return 0;
}

static int visit_row(const struct query *query, struct row *row, texts_visit visit, void *argument,
                     struct err *err)
{
    size_t any, none, length;
    const char *value = NULL;

    if (count_set(row, &query->any, &any, err) < 0 || count_set(row, &query->none, &none, err) < 0)
        return -1;
    if (query->field && !(value = row->get(row, query->field, &length)))
        return err_set(err, ERR_PROTOCOL, "has no field '%s'", query->field);
    if ((query->any.count && any == 0) || none > 0 || (value && strcmp(value, query->value) != 0))
        return 0;
    value = row->get(row, query->text, &length);
    if (!value)
        return err_set(err, ERR_PROTOCOL, "has no field '%s'", query->text);
    return visit(argument, value, length, err);
}

/* ---- CSV -------------------------------------------------------------------------------- */

static const char *csv_get(struct row *row, const char *name, size_t *length)
{
    for (size_t i = 0; i < row->columns->count && i < row->values->count; i++)
        if (strcmp(row->columns->items[i], name) == 0) {
            *length = strlen(row->values->items[i]);
            return row->values->items[i];
        }
    return NULL;
}

/* Zero characters end no text here: they become spaces. */
static void add_value(struct names *values, struct buf *field)
{
    for (size_t i = 0; i < field->length; i++)
        if (!field->bytes[i])
            field->bytes[i] = ' ';
    VEC_RESERVE(values->items, values->count, values->capacity);
    values->items[values->count++] = mem_strdup(buf_text(field));
    buf_clear(field);
}

/* One row from *at on, its line's end included. */
static int csv_row(const char *csv, size_t length, size_t *at, struct names *values,
                   struct err *err)
{
    struct buf field = {0};
    bool quoted = false, ends = false;

    for (; *at < length && !ends; (*at)++) {
        char c = csv[*at];
        if (quoted && c == '"' && *at + 1 < length && csv[*at + 1] == '"')
            buf_putc(&field, csv[(*at)++]);
        else if (c == '"' && (quoted || field.length == 0))
            quoted = !quoted;
        else if (!quoted && (c == ',' || c == '\n')) {
            ends = c == '\n';
            add_value(values, &field);
        } else if (quoted || c != '\r' || *at + 1 >= length || csv[*at + 1] != '\n')
            buf_putc(&field, c);
        if (values->count > FIELDS_MAX)
            break;
    }
    if (!ends)
        add_value(values, &field);
    buf_done(&field);
    if (values->count > FIELDS_MAX)
        return err_set(err, ERR_PROTOCOL, "has more than %d fields", FIELDS_MAX);
    return quoted ? err_set(err, ERR_PROTOCOL, "has a quoted field that does not end") : 0;
}

static int visit_csv(const struct query *query, const char *csv, size_t length, texts_visit visit,
                     void *argument, struct err *err)
{
    struct names columns = {0}, values = {0};
    struct row row = {.get = csv_get, .columns = &columns, .values = &values};
    unsigned long long number = 2;
    size_t at = length >= 3 && memcmp(csv, "\xEF\xBB\xBF", 3) == 0 ? 3 : 0;
    int rc = csv_row(csv, length, &at, &columns, err);

    for (; rc == 0 && at < length; number++) {
        rc = csv_row(csv, length, &at, &values, err);
        bool blank = values.count == 1 && !*values.items[0];
        if (rc == 0 && !blank)
            rc = visit_row(query, &row, visit, argument, err);
        names_done(&values);
        values = (struct names){0};
    }
    names_done(&columns);
    return rc < 0 ? err_wrap(err, "row %llu", number - 1) : 0;
}

int rows_of_csv(const char *text, const char *csv, size_t length, texts_visit visit, void *argument,
                struct err *err)
{
    struct query query;

    if (query_parse(text, &query, err) < 0)
        return -1;
    int rc = visit_csv(&query, csv, length, visit, argument, err);
    query_done(&query);
    return rc;
}

/* ---- JSON lines ------------------------------------------------------------------------- */

static const char *json_get(struct row *row, const char *name, size_t *length)
{
    const json_t *value = json_object_get(row->object, name);

    if (json_is_string(value)) {
        *length = json_string_length(value);
        return json_string_value(value);
    }
    if (json_is_boolean(value))
        snprintf(row->number, sizeof row->number, "%s", json_is_true(value) ? "true" : "false");
    else if (json_is_number(value))
        snprintf(row->number, sizeof row->number, "%.17g", json_number_value(value));
    else
        return NULL;
    *length = strlen(row->number);
    return row->number;
}

static int visit_json_line(const struct query *query, const char *line, size_t length,
                           texts_visit visit, void *argument, struct err *err)
{
    json_error_t where;
    json_t *object = json_loadb(line, length, 0, &where);
    struct row row = {.get = json_get, .object = object};
    int rc;

    if (!object)
        return err_set(err, ERR_PROTOCOL, "is no JSON: %s at column %d", where.text, where.column);
    rc = json_is_object(object) ? visit_row(query, &row, visit, argument, err)
                                : err_set(err, ERR_PROTOCOL, "is no JSON object");
    json_decref(object);
    return rc;
}

static int visit_json_lines(const struct query *query, const char *lines, size_t length,
                            texts_visit visit, void *argument, struct err *err)
{
    unsigned long long number = 1;

    for (size_t at = 0; at < length; number++) {
        const char *newline = memchr(lines + at, '\n', length - at);
        size_t end = newline ? (size_t)(newline - lines) : length, blank = at;
        while (blank < end && memchr(" \t\r", lines[blank], 3))
            blank++;
        if (blank < end &&
            visit_json_line(query, lines + at, end - at, visit, argument, err) < 0)
            return err_wrap(err, "line %llu", number);
        at = end + 1;
    }
    return 0;
}

int rows_of_json_lines(const char *text, const char *lines, size_t length, texts_visit visit,
                       void *argument, struct err *err)
{
    struct query query;

    if (query_parse(text, &query, err) < 0)
        return -1;
    int rc = visit_json_lines(&query, lines, length, visit, argument, err);
    query_done(&query);
    return rc;
}

/* ---- files ------------------------------------------------------------------------------ */

static int read_file(const struct query *query, const char *path, texts_visit visit, void *argument,
                     struct err *err)
{
    const char *dot = strrchr(path, '.');
    bool csv = dot && strcmp(dot, ".csv") == 0;
    char *bytes;
    size_t length;

    if (!csv && (!dot || strcmp(dot, ".jsonl") != 0))
        return err_set(err, ERR_INVALID, "'%s' is neither .csv nor .jsonl, of which rows are read",
                       path);
    if (file_read(path, FILE_BYTES_MAX, &bytes, &length, err) < 0)
        return -1;
    int rc = (csv ? visit_csv : visit_json_lines)(query, bytes, length, visit, argument, err);
    mem_free(bytes);
    return rc < 0 ? err_wrap(err, "'%s'", path) : 0;
}

int rows_read(const char *text, texts_visit visit, void *argument, struct err *err)
{
    struct query query;
    glob_t found = {0};
    int rc = 0;

    if (query_parse(text, &query, err) < 0)
        return -1;
    int status = glob(query.pattern, 0, NULL, &found);
    if (status == GLOB_NOMATCH)
        rc = err_set(err, ERR_NOT_FOUND, "no file matches '%s'", query.pattern);
    else if (status != 0)
        rc = err_set(err, ERR_IO, "the pattern '%s' could not be read", query.pattern);
    for (size_t i = 0; i < found.gl_pathc && rc == 0; i++)
        rc = read_file(&query, found.gl_pathv[i], visit, argument, err);
    globfree(&found);
    query_done(&query);
    return rc;
}
