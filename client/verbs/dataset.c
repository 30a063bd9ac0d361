/* dataset.c - athanor dataset */
#include "client/client.h"
#include "client/verbs.h"

#include "common/base/file.h"
#include "common/base/mem.h"
#include "common/base/parse.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BLOCK_BYTES_MAX ((size_t)1 << 33)

static const struct option options[] = {
    {"pair", 0, VALUE_TEXT, "CONTEXT.X.Y", "why this pair was kept or dropped, and what made it",
     false},
    {"export", 0, VALUE_NONE, NULL, "print its pairs with what made them, a JSON object a line",
     false},
    OPTION_COLUMN,
    OPTION_JSON,
};

static const struct heading listed[] = {
    {"name", NULL}, {"pairs", NULL}, {"task", NULL}, {"job", NULL}, {"size_bytes", "SIZE"},
    {"created_at", "MADE"}, {"path", NULL},
};

static const struct heading facts[] = {
    {"name", "name"},
    {"job", "made by"},
    {"job_id", "job"},
    {"task", "task"},
    {"pairs", "pairs"},
    {"held_out", "held out"},
    {"duplicates", "duplicates"},
    {"contexts", "contexts"},
    {"critic", "critic"},
    {"tau", "tau"},
    {"temperature", "temperature"},
    {"top_p", "top_p"},
    {"context_source", "contexts from"},
    {"teacher", "teacher"},
    {"teacher_hash", "its hash"},
    {"student", "student"},
    {"student_hash", "its hash"},
    {"seed", "seed"},
    {"created_at", "made"},
    {"content_hash", "hash"},
    {"size_bytes", "size"},
    {"path", "path"},
    {"worker", "worker"},
};

static const struct section {
    const char *query, *title;
    struct heading columns[6];
    size_t count;
} sections[] = {
    {"dataset_verdicts", "what became of the judged pairs",
     {{"verdict", NULL}, {"asked", NULL}, {"pairs", NULL}, {"share", NULL}, {"why", NULL}}, 5},
    {"dataset_lengths", "by sentences of the context",
     {{"context_sentences", "SENTENCES"}, {"contexts", NULL}, {"pool", NULL}, {"kept", NULL},
      {"share", NULL}}, 5},
    {"dropped_pairs", "some that were dropped",
     {{"pair", NULL}, {"verdict", NULL}, {"x", NULL}, {"y", NULL}}, 4},
    {"dataset_filters", "what filters made of the documents",
     {{"filter", NULL}, {"documents", NULL}, {"bytes", NULL}, {"share", NULL}, {"rule", NULL}}, 5},
    {"dataset_clusters", "groups of alike documents",
     {{"cluster", NULL}, {"documents", NULL}, {"words", NULL}, {"quality", NULL}, {"kept", NULL},
      {"sample", NULL}}, 6},
};

static int print_sections(struct client *client, const struct pairs *pairs, struct buf *out)
{
    for (size_t i = 0; i < ARRAY_COUNT(sections); i++) {
        struct msg_table table;
        int code = client_query(client, sections[i].query, pairs, 100, &table);
        if (code != EXIT_DONE)
            return code;
        if (table_rows(&table) == 0)
            continue;
        buf_printf(out, "\n%s%s%s\n", tint_on(&client->style, TINT_STRONG), sections[i].title,
                   tint_off(&client->style, TINT_STRONG));
        table_print(&table, sections[i].columns, sections[i].count, &client->style, out);
    }
    return EXIT_DONE;
}

/* ---- files ------------------------------------------------------------------------------ */

static int cannot_read(struct client *client, const struct msg_table *table, struct err *err)
{
    return client_failf(client, EXIT_LOCAL, "%s; the files of '%s' are on worker %s", err->text,
                        table_text(table, 0, "name"), table_text(table, 0, "worker"));
}

/* "17.3.5" as three numbers. */
static bool pair_read(const char *text, uint64_t out[3])
{
    char end;

    return strspn(text, "0123456789.") == strlen(text) && strlen(text) < 40 &&
           sscanf(text, "%lu.%lu.%lu%c", &out[0], &out[1], &out[2], &end) == 3;
}

/* The number-th line of a file, from 1, parsed; NULL: it has none such. */
static json_t *line_of(const char *bytes, uint64_t number)
{
    const char *at = bytes;

    for (uint64_t i = 1; i < number && at; i++) {
        at = strchr(at, '\n');
        at = at ? at + 1 : NULL;
    }
    return at && strchr(at, '\n') ? json_loadb(at, (size_t)(strchr(at, '\n') - at), 0, NULL) : NULL;
}

static const char *sample_of(const json_t *line, uint64_t sample)
{
    return json_string_value(json_array_get(json_object_get(line, "samples"), sample));
}

/* Place of a text among the distinct ones; SIZE_MAX: none. */
static size_t place_of(const json_t *line, const char *text)
{
    const json_t *distinct = json_object_get(line, "distinct");

    for (size_t i = 0; i < json_array_size(distinct); i++) {
        const char *other =
            sample_of(line, (uint64_t)json_integer_value(json_array_get(distinct, i)));
        if (other && strcmp(other, text) == 0)
            return i;
    }
    return SIZE_MAX;
}

/* The letter of a pair's verdict: M where one of them is no sentence, C where both are one text,
 * '-' where it is no pair of the pool. */
static char letter_of(const json_t *line, const char *x, const char *y)
{
    if (!*x || !*y)
        return 'M';
    size_t row = place_of(line, x), column = place_of(line, y);
    const char *letters = json_string_value(
        json_array_get(json_object_get(line, "verdicts"), row));
    return letters && column < strlen(letters) ? letters[column] : '-';
}

static const json_t *reason_of(const json_t *card, char letter)
{
    const json_t *reasons = json_object_get(card, "critics");

    for (size_t i = 0; i < json_array_size(reasons); i++) {
        const json_t *reason = json_array_get(reasons, i);
        const char *its = json_string_value(json_object_get(reason, "letter"));
        if (its && its[0] == letter)
            return reason;
    }
    return NULL;
}

static json_t *pair_object(const struct msg_table *table, const char *pair, const json_t *line,
                           const char *x, const char *y)
{
    json_t *card = json_loads(table_text(table, 0, "card"), 0, NULL);
    const json_t *reason = reason_of(card, letter_of(line, x, y));
    const char *verdict = json_string_value(json_object_get(reason, "verdict"));
    const char *why = json_string_value(json_object_get(reason, "text"));
    json_t *out = json_pack(
        "{s:s, s:s, s:s, s:s, s:O?, s:O?, s:s, s:s, s:s, s:s, s:s, s:I}", "pair", pair, "verdict",
        verdict ? verdict : "none", "why", why ? why : "it is no pair of the pool", "x", x,
        "context", json_object_get(line, "text"), "origin", json_object_get(line, "origin"), "y",
        y, "dataset", table_text(table, 0, "name"), "teacher", table_text(table, 0, "teacher"),
        "teacher_hash", table_text(table, 0, "teacher_hash"), "student",
        table_text(table, 0, "student"), "seed", (json_int_t)table_u64(table, 0, "seed"));
    json_decref(card);
    return out;
}

static void print_pair(const json_t *pair, struct buf *out)
{
    static const char *const names[] = {"pair", "verdict", "why", "context", "origin", "x", "y",
                                        "dataset", "teacher", "teacher_hash", "student"};

    for (size_t i = 0; i < ARRAY_COUNT(names); i++) {
        const char *value = json_string_value(json_object_get(pair, names[i]));
        if (!value || !*value)
            continue;
        buf_printf(out, "%-13s ", names[i]);
        for (; *value; value++) /* a model wrote it: no control characters on a terminal */
            buf_putc(out, (unsigned char)*value < 0x20 || *value == 0x7f ? '?' : *value);
        buf_putc(out, '\n');
    }
    buf_printf(out, "%-13s %lld\n", "seed",
               (long long)json_integer_value(json_object_get(pair, "seed")));
}

static int tell_pair(struct client *client, const struct msg_table *table, const char *text,
                     const char *bytes, const uint64_t id[3], uint64_t number, struct buf *out)
{
    json_t *line = line_of(bytes, number);
    const char *x = sample_of(line, id[1]), *y = sample_of(line, id[2]);
    int code = EXIT_DONE;

    if (!x || !y || (uint64_t)json_integer_value(json_object_get(line, "context")) != id[0]) {
        code = client_failf(client, EXIT_REFUSED, "there is no pair '%s' in '%s'", text,
                            table_text(table, 0, "name"));
    } else {
        json_t *pair = pair_object(table, text, line, x, y);
        char *json = json_dumps(pair, JSON_COMPACT);
        CHECK(pair && json);
        if (args_has(client->args, "json"))
            buf_printf(out, "%s\n", json);
        else
            print_pair(pair, out);
        free(json);
        json_decref(pair);
    }
    json_decref(line);
    return code;
}

static int show_pair(struct client *client, const struct msg_table *table, const char *text,
                     struct buf *out)
{
    uint64_t id[3], first = table_u64(table, 0, "first_context");
    uint64_t size = table_u64(table, 0, "block_contexts");
    char *bytes = NULL;
    size_t length;
    struct err err;

    if (!pair_read(text, id))
        return client_failf(client, EXIT_USAGE, "--pair is '%s', expected CONTEXT.X.Y such as "
                            "17.3.5", text);
    if (!*table_text(table, 0, "blocks") || size == 0 || id[0] < first)
        return client_failf(client, EXIT_REFUSED, "there is no pair '%s' in '%s'", text,
                            table_text(table, 0, "name"));
    const char *path = arena_printf(&client->arena, "%s/block-%06llu.jsonl",
                                    table_text(table, 0, "blocks"),
                                    (unsigned long long)((id[0] - first) / size));
    if (file_read(path, BLOCK_BYTES_MAX, &bytes, &length, &err) < 0)
        return cannot_read(client, table, &err);
    int code = tell_pair(client, table, text, bytes, id, (id[0] - first) % size + 2, out);
    mem_free(bytes);
    return code;
}

/* The dataset's own lines, each with what made it. */
static int export_pairs(struct client *client, const struct msg_table *table)
{
    const char *path = arena_printf(&client->arena, "%s/pairs.jsonl", table_text(table, 0, "path"));
    FILE *file = fopen(path, "re");
    char *line = NULL;
    size_t room = 0;
    struct err err;

    if (!file) {
        (void)!err_errno(&err, "open '%s'", path);
        return cannot_read(client, table, &err);
    }
    json_t *made = json_pack(
        "{s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:I}", "dataset", table_text(table, 0, "name"),
        "dataset_hash", table_text(table, 0, "content_hash"), "teacher",
        table_text(table, 0, "teacher"), "teacher_hash", table_text(table, 0, "teacher_hash"),
        "student", table_text(table, 0, "student"), "student_hash",
        table_text(table, 0, "student_hash"), "context_source",
        table_text(table, 0, "context_source"), "seed", (json_int_t)table_u64(table, 0, "seed"));
    CHECK(made);
    char *tail = json_dumps(made, JSON_COMPACT);
    CHECK(tail);
    int code = EXIT_DONE;
    for (ssize_t got; code == EXIT_DONE && (got = getline(&line, &room, file)) > 0;) {
        size_t length = (size_t)got - (line[got - 1] == '\n');
        if (length < 2 || line[length - 1] != '}')
            code = client_failf(client, EXIT_LOCAL, "'%s' is damaged", path);
        else if (printf("%.*s,%s\n", (int)length - 1, line, tail + 1) < 0)
            code = client_failf(client, EXIT_LOCAL, "writing: %s", strerror(errno));
    }
    free(line);
    free(tail);
    json_decref(made);
    fclose(file);
    return code;
}

/* ---- the verb --------------------------------------------------------------------------- */

static int show_one(struct client *client, const struct args *args, const struct pairs *pairs,
                    struct buf *out)
{
    struct msg_table table;
    int code = client_query(client, "dataset", pairs, 1, &table);

    if (code != EXIT_DONE)
        return code;
    if (table_rows(&table) == 0)
        return client_failf(client, EXIT_REFUSED, "there is no dataset '%s'", args->words[0]);
    if (args_has(args, "pair"))
        return show_pair(client, &table, args_text(args, "pair"), out);
    if (args_has(args, "export"))
        return export_pairs(client, &table);
    if (!client_for_people(client))
        return client_table(client, &table, NULL, 0, "");
    table_print_row(&table, 0, facts, ARRAY_COUNT(facts), &client->style, out);
    return print_sections(client, pairs, out);
}

static int run(struct client *client, const struct args *args)
{
    struct pairs pairs = {0};
    struct buf out = {0};
    int code;

    if (args->word_count == 0 && (args_has(args, "pair") || args_has(args, "export")))
        return client_failf(client, EXIT_USAGE, "name the dataset");
    if (args->word_count == 0)
        return client_list(client, "datasets", &pairs, UINT32_MAX, listed, ARRAY_COUNT(listed),
                           "no datasets");
    pairs_add(&pairs, "name", args->words[0]);
    code = show_one(client, args, &pairs, &out);
    if (code == EXIT_DONE)
        code = client_print(client, &out);
    pairs_done(&pairs);
    buf_done(&out);
    return code;
}

const struct verb verb_dataset = {
    .name = "dataset",
    .words = "[NAME]",
    .summary = "list datasets, or show one: its pairs, yields, filters and lineage",
    .text =
        "Of a dataset of sentence pairs (recipes data/pairs and distillation/impossible) prints "
        "what it holds and what made it, what became of all pairs that were judged, and some of "
        "those that were dropped. --pair tells it of any of them, by the numbers of its context "
        "and its two samples; it and --export read the dataset's files, so they run where those "
        "are. The same in SQL: athanor.dataset_cards, dataset_yields, dropped_pairs and "
        "pair_lineage('NAME', 'CONTEXT.X.Y'). Of a dataset that went through filters (data/dolma, "
        "data/yi) it prints what each made of the documents, and their clusters; in SQL: "
        "athanor.dataset_filters, dataset_drops and dataset_clusters.",
    .words_max = 1,
    VERB_OPTIONS(options),
    .run = run,
};
