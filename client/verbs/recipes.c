/* recipes.c - athanor recipes */
#include "client/client.h"
#include "client/verbs.h"

#include <jansson.h>
#include <string.h>

static const struct option options[] = {
    {"kind", 0, VALUE_TEXT, "KIND", "recipes of this kind", false},
    OPTION_COLUMN,
    OPTION_JSON,
};

static const struct heading columns[] = {{"kind", NULL},
                                         {"name", "RECIPE"},
                                         {"version", NULL},
                                         {"summary", NULL}};

static const struct heading facts[] = {
    {"kind", "kind"},     {"name", "recipe"},     {"version", "version"}, {"engine", "engine"},
    {"source", "source"}, {"summary", "summary"}, {"outputs", "outputs"},
};

/* A JSON value as a spec would write it. */
static const char *json_text(struct arena *arena, const json_t *value)
{
    if (!value || json_is_null(value))
        return "";
    if (json_is_string(value))
        return json_string_value(value);
    char *text = json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT | JSON_REAL_PRECISION(6));
    const char *copy = text ? arena_strdup(arena, text) : "";
    free(text);
    return copy;
}

static const char *member(struct arena *arena, const json_t *object, const char *name)
{
    return json_text(arena, json_object_get(object, name));
}

static const char *range_of(struct arena *arena, const json_t *param)
{
    const char *low = member(arena, param, "min"), *high = member(arena, param, "max");
    const json_t *choices = json_object_get(param, "choices"), *choice;
    struct buf text = {0};
    size_t i;
    json_array_foreach(choices, i, choice)
    {
        buf_printf(&text, "%s%s", i ? " | " : "", json_text(arena, choice));
    }
    if (!text.length && (*low || *high))
        buf_printf(&text, "%s..%s", low, high);
    const char *copy = arena_strdup(arena, buf_text(&text));
    buf_done(&text);
    return copy;
}

/* Prints the JSON arrays `params` or `inputs` of a recipe as a table. */
static void print_part(struct client *client, const char *json, bool params, struct buf *out)
{
    static struct rec_column names[] = {{"name", "text"},
                                        {"type", "text"},
                                        {"default", "text"},
                                        {"accepts", "text"},
                                        {"help", "text"}};
    json_t *list = json_loads(json, 0, NULL), *item;
    size_t i, rows = json_array_size(list);
    struct arena *arena = &client->arena;
    struct msg_table table = {.columns = names, .columns_count = ARRAY_COUNT(names)};
    table.cells_count = rows * table.columns_count;
    table.cells = arena_alloc(arena, (table.cells_count + 1) * sizeof *table.cells);
    json_array_foreach(list, i, item)
    {
        struct rec_cell *row = &table.cells[i * table.columns_count];
        bool required = params ? !json_object_get(item, "default")
                               : json_is_true(json_object_get(item, "required"));
        row[0].text = arena_strdup(arena, member(arena, item, "name"));
        row[1].text = arena_strdup(arena, member(arena, item, "type"));
        row[2].text = required ? "required" : arena_strdup(arena, member(arena, item, "default"));
        row[3].text = range_of(arena, item);
        row[4].text = arena_strdup(arena, member(arena, item, "help"));
    }
    if (rows) {
        buf_printf(out, "\n%s\n", params ? "params:" : "inputs:");
        table_print(&table, NULL, 0, &client->style, out);
    }
    json_decref(list);
}

static int print_recipe(struct client *client, const struct args *args)
{
    struct pairs pairs = {0};
    struct msg_table table;
    struct buf out = {0};
    pairs_add(&pairs, "name", args->words[0]);
    int code = client_query(client, "recipe", &pairs, UINT32_MAX, &table);
    pairs_done(&pairs);
    if (code != EXIT_DONE)
        return code;
    if (table_rows(&table) == 0)
        return client_failf(client, EXIT_REFUSED,
                            "no worker announced a recipe '%s', see 'athanor recipes'",
                            args->words[0]);
    if (args_has(args, "json")) {
        table_print_json(&table, &out);
    } else {
        for (size_t row = 0; row < table_rows(&table); row++) {
            buf_puts(&out, row ? "\n" : "");
            table_print_row(&table, row, facts, ARRAY_COUNT(facts), &client->style, &out);
            print_part(client, table_text(&table, row, "inputs"), false, &out);
            print_part(client, table_text(&table, row, "params"), true, &out);
        }
    }
    code = client_print(client, &out);
    buf_done(&out);
    return code;
}

static int run(struct client *client, const struct args *args)
{
    struct pairs pairs = {0};
    if (args->word_count)
        return print_recipe(client, args);
    pairs_add(&pairs, "kind", args_text(args, "kind"));
    int code = client_list(client, "recipes", &pairs, UINT32_MAX, columns, ARRAY_COUNT(columns),
                           "no worker has announced recipes yet");
    pairs_done(&pairs);
    return code;
}

const struct verb verb_recipes = {
    .name = "recipes",
    .words = "[RECIPE]",
    .summary = "list methods, or what one accepts",
    .text =
        "Without a word lists the methods that the workers' engines announced. With RECIPE, or "
        "KIND/RECIPE, prints its inputs and parameters with defaults and ranges: the same table "
        "that specs are checked against.",
    .word_kind = WORD_RECIPE,
    .words_max = 1,
    VERB_OPTIONS(options),
    .run = run,
};
