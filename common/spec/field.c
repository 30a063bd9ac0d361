/* field.c - reading fields by the table, from YAML and from JSON; see field.h. */
#include "common/spec/field.h"

#include "common/base/buf.h"
#include "common/base/mem.h"
#include "common/base/parse.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

size_t field_index(const char *path)
{
    size_t i = 0;
    while (i < field_count && strcmp(fields[i].path, path) != 0)
        i++;
    CHECK(i < field_count);
    return i;
}

const struct place *draft_place(const struct draft *draft)
{
    return draft->is_document ? NULL : &draft->place;
}

const struct node *draft_given(const struct draft *draft, const char *path)
{
    return draft->given[field_index(path)];
}

bool draft_gives(const struct draft *draft, const char *path)
{
    return draft_given(draft, path) != NULL;
}

/* ---- what a row accepts ----------------------------------------------------------------- */

/* "wait|replace" as "wait, replace". */
static const char *choices_text(struct arena *arena, const char *choices)
{
    struct buf text = {0};
    for (const char *at = choices; *at; at++)
        buf_puts(&text, *at == '|' ? ", " : (char[]){*at, '\0'});
    char *copy = arena_strdup(arena, buf_text(&text));
    buf_done(&text);
    return copy;
}

const char *field_accepts(struct arena *arena, const struct field *field)
{
    char low[PARSE_TEXT_SIZE], high[PARSE_TEXT_SIZE];
    switch (field->type) {
    case FIELD_COUNT:
    case FIELD_STEPS:
    case FIELD_INT:
        return arena_printf(arena, "a whole number from %" PRId64 " to %" PRId64, field->min,
                            field->max);
    case FIELD_FLAG:
        return "true or false";
    case FIELD_DURATION:
        return arena_printf(arena, "a duration from %s to %s%s",
                            format_duration_ms((uint64_t)field->min, low),
                            format_duration_ms((uint64_t)field->max, high),
                            field->min > 0 ? ", or none" : "");
    case FIELD_SIZE:
        return arena_printf(arena, "a size from %s to %s",
                            format_size_bytes((uint64_t)field->min, low),
                            format_size_bytes((uint64_t)field->max, high));
    case FIELD_FACTOR:
        return arena_printf(arena, "a number from %g to %g", (double)field->min / 1000,
                            (double)field->max / 1000);
    case FIELD_REAL:
        return "a number, or none";
    case FIELD_TEXT:
        return arena_printf(arena, "text of at most %" PRId64 " bytes", field->max);
    case FIELD_NAME:
        return arena_printf(arena, "a name of at most %u letters, digits, '.', '_' and '-'",
                            SPEC_NAME_BYTES_MAX);
    case FIELD_CHOICE:
        return arena_printf(arena, "one of %s", choices_text(arena, field->choices));
    case FIELD_CUSTOM:
        return field->form;
    }
    return "";
}

/* ---- values ----------------------------------------------------------------------------- */

static void *field_at(const struct field *field, struct spec_job *job)
{
    return (char *)job + field->offset;
}

/* Of the number, truth value or choice that the row stores. */
static size_t field_size(const struct field *field)
{
    switch (field->type) {
    case FIELD_FLAG:
        return sizeof(bool);
    case FIELD_STEPS:
    case FIELD_DURATION:
    case FIELD_SIZE:
        return sizeof(uint64_t);
    case FIELD_REAL:
        return sizeof(double);
    default:
        return sizeof(uint32_t);
    }
}

static bool in_range(const struct field *field, uint64_t value)
{
    return value >= (uint64_t)field->min && value <= (uint64_t)field->max;
}

static unsigned choice_index(const char *choices, const char *text)
{
    size_t length = strlen(text);
    unsigned index = 1;
    for (const char *at = choices; length > 0; index++) {
        size_t span = strcspn(at, "|");
        if (span == length && strncmp(at, text, length) == 0)
            return index;
        if (at[span] == '\0')
            break;
        at += span + 1;
    }
    return 0;
}

static bool duration_parse(const struct field *field, const char *text, uint64_t *out,
                           struct err *err)
{
    if (field->min > 0 && strcmp(text, "none") == 0) {
        *out = 0;
        return true;
    }
    return parse_duration_ms(text, out, err) == 0 && in_range(field, *out);
}

static bool name_fits(const struct field *field, const char *text)
{
    /* A job called 17 could not be told from the job with the id 17. */
    bool is_job = strcmp(field->path, "name") == 0;
    return spec_name_is_valid(text) && !(is_job && spec_name_is_id(text));
}

/* Reads a scalar into the job; false when it does not fit the row. One case a type, so longer
 * than most. */
static bool scalar_read(struct arena *arena, const struct field *field, const struct node *node,
                        struct spec_job *job)
{
    struct err err;
    uint64_t number = 0;
    int64_t whole;
    double real;
    const char *text = node->text;
    void *at = field_at(field, job);
    switch (field->type) {
    case FIELD_COUNT:
    case FIELD_STEPS:
        if (!node->plain || parse_u64(text, &number, &err) < 0 || !in_range(field, number))
            return false;
        if (field->type == FIELD_COUNT)
            *(uint32_t *)at = (uint32_t)number;
        else
            *(uint64_t *)at = number;
        return true;
    case FIELD_INT:
        if (!node->plain || parse_i64(text, &whole, &err) < 0 || whole < field->min ||
            whole > field->max)
            return false;
        *(int32_t *)at = (int32_t)whole;
        return true;
    case FIELD_FLAG:
        return node->plain && parse_bool(text, at, &err) == 0;
    case FIELD_DURATION:
        if (!duration_parse(field, text, &number, &err))
            return false;
        *(uint64_t *)at = number;
        return true;
    case FIELD_SIZE:
        if (parse_size_bytes(text, &number, &err) < 0 || !in_range(field, number))
            return false;
        *(uint64_t *)at = number;
        return true;
    case FIELD_FACTOR:
        if (!node->plain || parse_f64(text, &real, &err) < 0 || real * 1000 < (double)field->min ||
            real * 1000 > (double)field->max)
            return false;
        *(uint32_t *)at = (uint32_t)lround(real * 1000);
        return true;
    case FIELD_REAL:
        if (strcmp(text, "none") == 0)
            real = (double)NAN;
        else if (!node->plain || parse_f64(text, &real, &err) < 0)
            return false;
        *(double *)at = real;
        return true;
    case FIELD_TEXT:
    case FIELD_NAME:
        if (field->type == FIELD_NAME ? !name_fits(field, text)
                                      : strlen(text) > (size_t)field->max)
            return false;
        *(const char **)at = arena_strdup(arena, text);
        return true;
    case FIELD_CHOICE:
        if (choice_index(field->choices, text) == 0)
            return false;
        *(unsigned *)at = choice_index(field->choices, text);
        return true;
    case FIELD_CUSTOM:
        break;
    }
    return false;
}
_Static_assert(sizeof(enum spec_launcher) == sizeof(unsigned), "FIELD_CHOICE stores an unsigned");

/* Why a value that is no more than slightly wrong was refused. */
static const char *scalar_remark(const struct field *field, const struct node *node)
{
    struct err err;
    uint64_t number;
    double real;
    bool is_number = parse_f64(node->text, &real, &err) == 0;
    bool wants_number = field->type == FIELD_COUNT || field->type == FIELD_STEPS ||
                        field->type == FIELD_INT || field->type == FIELD_FACTOR ||
                        field->type == FIELD_REAL;
    if ((wants_number || field->type == FIELD_FLAG) && !node->plain)
        return ", without quotes";
    if (field->type == FIELD_DURATION && (is_number || strchr(node->text, ':')))
        return ", with a unit (ms, s, m, h, d) such as 30s or 1h30m";
    if (field->type == FIELD_SIZE && is_number)
        return ", with a unit (B, KiB, MiB, GiB, TiB, KB, MB, GB, TB) such as 512MiB";
    if (field->type == FIELD_DURATION && parse_duration_ms(node->text, &number, &err) < 0)
        return ", in ms, s, m, h or d, such as 30s or 1h30m";
    if (field->type == FIELD_SIZE && parse_size_bytes(node->text, &number, &err) < 0)
        return ", in B, KiB, MiB, GiB, TiB, KB, MB, GB or TB, such as 512MiB";
    if (field->type == FIELD_NAME && spec_name_is_id(node->text))
        return ", and not only digits: that would be a job id";
    return "";
}

static void value_read(struct reader *reader, const struct field *field, const struct node *node,
                       const struct place *place, struct draft *draft)
{
    if (field->type == FIELD_CUSTOM) {
        field->read(reader, node, place, draft);
        return;
    }
    if (node->kind == NODE_SCALAR && !node_is_null(node) &&
        scalar_read(reader->arena, field, node, &draft->job))
        return;
    const char *remark = node->kind == NODE_SCALAR ? scalar_remark(field, node) : "";
    const char *hint = "";
    if (field->type == FIELD_CHOICE && node->kind == NODE_SCALAR) {
        struct nearest nearest = nearest_of(reader, node->text);
        char choices[100];
        snprintf(choices, sizeof choices, "%s", field->choices);
        for (char *rest = choices, *choice; (choice = strsep(&rest, "|"));)
            nearest_offer(&nearest, choice);
        hint = nearest_hint(reader, &nearest);
    }
    reader_refuse(reader, node, place, "is %s, expected %s%s%s", shown(reader, node),
                  field_accepts(reader->arena, field), remark, hint);
}

void fields_init(struct reader *reader, struct draft *draft)
{
    draft->job = (struct spec_job){.name = "", .recipe = "", .kind = "", .params = "{}"};
    draft->job.checkpoint.best_metric = "";
    draft->job.checkpoint.best_mode = SPEC_BEST_MIN;
    for (size_t i = 0; i < field_count; i++) {
        if (!fields[i].initial)
            continue;
        struct node_source text = {.file = fields[i].path,
                                   .bytes = fields[i].initial,
                                   .length = strlen(fields[i].initial)};
        struct node *value = node_read(&text, reader->arena, reader->errors);
        CHECK(value);
        struct place place = {.key = fields[i].path};
        value_read(reader, &fields[i], value, &place, draft);
    }
    CHECK(reader->error_count == 0); /* fields_init comes first, and the table's texts are right */
}

/* ---- mappings --------------------------------------------------------------------------- */

/* The row whose path is `prefix` and `key`; or with group set, whether any row lies below it. */
static const struct field *row_find(const char *prefix, const char *key, bool *out_group)
{
    size_t before = strlen(prefix), length = strlen(key);
    *out_group = false;
    for (size_t i = 0; i < field_count; i++) {
        const char *path = fields[i].path;
        if (fields[i].scopes == 0 || strncmp(path, prefix, before) != 0 ||
            strncmp(path + before, key, length) != 0)
            continue;
        if (path[before + length] == '\0')
            return &fields[i];
        *out_group = *out_group || path[before + length] == '.';
    }
    return NULL;
}

/* Names of the fields directly below a prefix, each once, in the table's order. */
static void names_below(struct reader *reader, const char *prefix, unsigned scope,
                        struct nearest *nearest, struct buf *list)
{
    size_t before = strlen(prefix);
    const char *last = "";
    for (size_t i = 0; i < field_count; i++) {
        if (!(fields[i].scopes & scope) || strncmp(fields[i].path, prefix, before) != 0)
            continue;
        const char *start = fields[i].path + before;
        const char *name = arena_strndup(reader->arena, start, strcspn(start, "."));
        if (strcmp(name, last) == 0)
            continue;
        nearest_offer(nearest, name);
        buf_printf(list, "%s%s", list->length ? ", " : "", name);
        last = name;
    }
}

static const char *scope_text(unsigned scopes)
{
    if (scopes == SCOPE_PIPELINE)
        return "at the top of a spec with `jobs:`";
    return scopes & SCOPE_JOB ? "in a job" : "at the top of a spec";
}

/* What other schedulers call our fields: nearer in meaning than any spelling is. */
static const struct {
    const char *theirs, *ours;
} synonyms[] = {
    {"cpus", "cores"},       {"cpu", "cores"},        {"threads", "cores"}, {"mem", "memory"},
    {"ram", "memory"},       {"tasks", "ranks"},   {"ntasks", "ranks"},
    {"procs", "ranks"},      {"time", "wall_time"},   {"timeout", "wall_time"},
    {"grace", "stop_grace"}, {"max", "attempts"},     {"max_retries", "attempts"},
    {"dependencies", "needs"}, {"depends_on", "needs"}, {"after", "needs"},
    {"environment", "env"},  {"args", "command"},     {"script", "command"},
    {"constraints", "constraint"}, {"parameters", "params"},
};

static const char *synonym_hint(struct reader *reader, const char *key, const char *prefix,
                                unsigned scope)
{
    bool group;
    for (size_t i = 0; i < ARRAY_COUNT(synonyms); i++) {
        if (strcmp(synonyms[i].theirs, key) != 0)
            continue;
        const struct field *field = row_find(prefix, synonyms[i].ours, &group);
        if (field && (field->scopes & scope))
            return arena_printf(reader->arena, ", did you mean '%s'?", synonyms[i].ours);
    }
    return "";
}

static void unknown_refuse(struct reader *reader, const struct node *key,
                           const struct place *place, const char *prefix, unsigned scope)
{
    struct nearest nearest = nearest_of(reader, key->text);
    struct buf list = {0};
    if (!reader_is_full(reader))
        names_below(reader, prefix, scope, &nearest, &list);
    const char *hint = synonym_hint(reader, key->text, prefix, scope);
    if (!hint[0])
        hint = nearest_hint(reader, &nearest);
    if (strcmp(key->text, "<<") == 0)
        reader_refuse(reader, key, place,
                      "merge keys are not used here: a pipeline shares fields under `defaults:`");
    else if (key->plain && strchr(key->text, ' '))
        reader_refuse(reader, key, place,
                      "there is no field %s here: within { } and [ ] text that holds a comma needs "
                      "quotes",
                      quoted(reader, key->text));
    else if (hint[0])
        reader_refuse(reader, key, place, "there is no field %s here%s", quoted(reader, key->text),
                      hint);
    else
        reader_refuse(reader, key, place, "there is no field %s here, expected one of %s",
                      quoted(reader, key->text), buf_text(&list));
    buf_done(&list);
}

static unsigned group_scopes(const char *prefix, const char *key)
{
    struct buf path = {0};
    unsigned scopes = 0;
    buf_printf(&path, "%s%s.", prefix, key);
    for (size_t i = 0; i < field_count; i++)
        if (strncmp(fields[i].path, buf_text(&path), path.length) == 0)
            scopes |= fields[i].scopes;
    buf_done(&path);
    return scopes;
}

static void group_read(struct reader *reader, const struct node *map, const struct place *place,
                       const char *prefix, enum field_scope scope, struct draft *draft);

static void pair_read(struct reader *reader, const struct node_pair *pair,
                      const struct place *place, const char *prefix, enum field_scope scope,
                      struct draft *draft)
{
    const char *key = pair->key->text;
    struct place here = {.up = place, .key = key};
    bool group;
    const struct field *field = row_find(prefix, key, &group);
    unsigned scopes = field ? field->scopes : group ? group_scopes(prefix, key) : 0;
    if (scopes == 0)
        unknown_refuse(reader, pair->key, place, prefix, scope);
    else if (!(scopes & scope))
        reader_refuse(reader, pair->key, &here, "belongs %s, not here", scope_text(scopes));
    else if (field) {
        draft->given[field - fields] = pair->value;
        value_read(reader, field, pair->value, &here, draft);
    } else {
        struct buf below = {0};
        buf_printf(&below, "%s%s.", prefix, key);
        group_read(reader, pair->value, &here, buf_text(&below), scope, draft);
        buf_done(&below);
    }
}

/* Recurses once for each level of the table's own paths, which is two. */
static void group_read(struct reader *reader, const struct node *map, const struct place *place,
                       const char *prefix, enum field_scope scope, struct draft *draft)
{
    size_t errors_before = reader->error_count;
    if (map->kind == NODE_MAP) {
        for (size_t i = 0; i < map->count; i++)
            pair_read(reader, &map->pairs[i], place, prefix, scope, draft);
    } else if (!node_is_null(map)) {
        struct nearest unused = {0};
        struct buf list = {0};
        names_below(reader, prefix, scope, &unused, &list);
        reader_refuse(reader, map, place, "is %s, expected a mapping of %s", shown(reader, map),
                      buf_text(&list));
        buf_done(&list);
    }
    draft->failed = draft->failed || reader->error_count > errors_before;
}

void fields_read(struct reader *reader, const struct node *map, const struct place *place,
                 enum field_scope scope, struct draft *draft)
{
    group_read(reader, map, place, "", scope, draft);
}

/* ---- help ------------------------------------------------------------------------------- */

char *spec_fields_text(void)
{
    struct buf text = {0};
    struct arena arena = {0};
    for (size_t i = 0; i < field_count; i++) {
        const struct field *field = &fields[i];
        if (field->scopes == 0)
            continue;
        buf_printf(&text, "%s\n    %s.\n    Accepts %s", field->path, field->help,
                   field_accepts(&arena, field));
        if (field->initial && strcmp(field->initial, "\"\"") != 0)
            buf_printf(&text, "; default %s", field->initial);
        buf_puts(&text, ".\n");
    }
    arena_done(&arena);
    return buf_take(&text);
}

/* ---- JSON ------------------------------------------------------------------------------- */

static const char *choice_name(const struct field *field, unsigned index, char out[32])
{
    const char *at = field->choices;
    for (; index > 1; index--)
        at += strcspn(at, "|") + 1;
    snprintf(out, 32, "%.*s", (int)strcspn(at, "|"), at);
    return out;
}

static json_t *field_to_json(const struct field *field, const struct spec_job *job)
{
    char choice[32];
    const void *at = (const char *)job + field->offset;
    switch (field->type) {
    case FIELD_COUNT:
    case FIELD_FACTOR:
        return json_integer(*(const uint32_t *)at);
    case FIELD_STEPS:
    case FIELD_DURATION:
    case FIELD_SIZE:
        return json_integer((json_int_t) * (const uint64_t *)at);
    case FIELD_INT:
        return json_integer(*(const int32_t *)at);
    case FIELD_REAL:
        return json_real(*(const double *)at);
    case FIELD_FLAG:
        return json_boolean(*(const bool *)at);
    case FIELD_TEXT:
    case FIELD_NAME:
        return json_string(*(const char *const *)at);
    case FIELD_CHOICE:
        return json_string(choice_name(field, *(const unsigned *)at, choice));
    case FIELD_CUSTOM:
        break;
    }
    return NULL;
}

/* The object that holds the last part of a dotted path; *last is that part. */
static json_t *group_of(json_t *object, const char *path, const char **last)
{
    char group[64];
    size_t length = strcspn(path, ".");
    *last = path;
    if (path[length] == '\0')
        return object;
    snprintf(group, sizeof group, "%.*s", (int)length, path);
    *last = path + length + 1;
    if (!json_object_get(object, group))
        CHECK(json_object_set_new(object, group, json_object()) == 0);
    return json_object_get(object, group);
}

/* Jobs outlive versions: what a late row's JSON does not say is its default. */
static void late_default(const struct field *field, struct spec_job *job)
{
    const char *text = field->initial ? field->initial : "";
    const struct node value = {.kind = NODE_SCALAR, .text = text, .plain = true};
    if (field->type == FIELD_TEXT || field->type == FIELD_NAME)
        *(const char **)field_at(field, job) = ""; /* the only default of a late text */
    else if (*text)
        CHECK(scalar_read(NULL, field, &value, job));
    else
        memset(field_at(field, job), 0, field_size(field));
}

static bool text_is_empty(const char *text)
{
    return !text || *text == '\0';
}

static bool is_late_default(const struct field *field, const struct spec_job *job)
{
    struct spec_job plain;
    if (!field->late)
        return false;
    if (field->type == FIELD_TEXT || field->type == FIELD_NAME)
        return text_is_empty(*(const char *const *)((const char *)job + field->offset));
    late_default(field, &plain);
    return memcmp(field_at(field, &plain), (const char *)job + field->offset,
                  field_size(field)) == 0;
}

void fields_to_json(const struct spec_job *job, json_t *object)
{
    for (size_t i = 0; i < field_count; i++) {
        const char *last;
        if (!fields[i].json || is_late_default(&fields[i], job))
            continue;
        json_t *group = group_of(object, fields[i].json, &last);
        CHECK(json_object_set_new(group, last, field_to_json(&fields[i], job)) == 0);
    }
}

/* False when the JSON has another type, or a number that does not fit. */
static bool field_from_json(const struct field *field, const struct json_tree *value,
                            struct spec_job *job)
{
    void *at = field_at(field, job);
    int64_t number = json_tree_integer(value);
    bool is_whole = json_tree_is(value, JSON_TREE_INTEGER);
    switch (field->type) {
    case FIELD_COUNT:
    case FIELD_FACTOR:
        *(uint32_t *)at = (uint32_t)number;
        return is_whole && number >= 0 && number <= UINT32_MAX;
    case FIELD_STEPS:
    case FIELD_DURATION:
    case FIELD_SIZE:
        *(uint64_t *)at = (uint64_t)number;
        return is_whole && number >= 0;
    case FIELD_INT:
        *(int32_t *)at = (int32_t)number;
        return is_whole && number >= INT32_MIN && number <= INT32_MAX;
    case FIELD_REAL:
        *(double *)at = is_whole ? (double)number : value ? value->real : 0;
        return is_whole || json_tree_is(value, JSON_TREE_REAL);
    case FIELD_FLAG:
        *(bool *)at = json_tree_is(value, JSON_TREE_TRUE);
        return *(bool *)at || json_tree_is(value, JSON_TREE_FALSE);
    case FIELD_TEXT:
    case FIELD_NAME:
        *(const char **)at = json_tree_text(value);
        return *(const char **)at != NULL;
    case FIELD_CHOICE:
        *(unsigned *)at = json_tree_text(value)
                              ? choice_index(field->choices, json_tree_text(value))
                              : 0;
        return *(unsigned *)at > 0;
    case FIELD_CUSTOM:
        break;
    }
    return false;
}

int fields_from_json(const struct json_tree *object, struct arena *arena, struct spec_job *job,
                     struct err *err)
{
    for (size_t i = 0; i < field_count; i++) {
        const char *json = fields[i].json, *absent = fields[i].absent;
        if (!json)
            continue;
        struct json_tree meant;
        const struct json_tree *value = json_tree_at(object, json);
        if (!value && fields[i].late) {
            late_default(&fields[i], job);
            continue;
        }
        if (!value && absent) {
            CHECK(json_tree_read(absent, strlen(absent), arena, &meant, err) == 0);
            value = &meant;
        }
        if (!field_from_json(&fields[i], value, job))
            return err_set(err, ERR_PROTOCOL, "resolved job: '%s' is missing or of another type",
                           json);
    }
    return 0;
}
