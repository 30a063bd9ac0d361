/* usage.c - athanor usage */
#include "client/client.h"
#include "client/verbs.h"

#include <string.h>

static const struct option options[] = {
    {"by", 'b', VALUE_TEXT, "WHOM", "job, user, worker or cause (default user)", false},
    {"since", 0, VALUE_DURATION, "DURATION", "only what was placed in this time before now", false},
    {"experiment", 'e', VALUE_TEXT, "NAME", "jobs of this experiment", false},
    {"user", 'u', VALUE_TEXT, "NAME", "jobs of this account", false},
    {"gpus", 0, VALUE_NONE, NULL, "what GPU hours were used for, instead of core hours", false},
    OPTION_LIMIT,
    OPTION_COLUMN,
    OPTION_JSON,
};

static const char *const whom[] = {"job", "user", "worker", "cause"};

#define CLASS_COLUMNS 12u
static const struct heading core_columns[CLASS_COLUMNS] = {
    {"who", NULL},
    {"jobs", NULL},
    {"runs", NULL},
    {"queued_ms", "QUEUED"},
    {"gpu_hours", "GPU-H"},
    {"core_hours", "CORE-H"},
    {"core_hours_useful", "USEFUL"},
    {"core_hours_checkpointing", "SAVING"},
    {"core_hours_launching", "LAUNCHING"},
    {"core_hours_recomputed", "RECOMPUTED"},
    {"core_hours_abandoned", "ABANDONED"},
    {"core_hours_idle", "IDLE"},
};
static const struct heading gpu_columns[CLASS_COLUMNS] = {
    {"who", NULL},
    {"jobs", NULL},
    {"runs", NULL},
    {"queued_ms", "QUEUED"},
    {"core_hours", "CORE-H"},
    {"gpu_hours", "GPU-H"},
    {"gpu_hours_useful", "USEFUL"},
    {"gpu_hours_checkpointing", "SAVING"},
    {"gpu_hours_launching", "LAUNCHING"},
    {"gpu_hours_recomputed", "RECOMPUTED"},
    {"gpu_hours_abandoned", "ABANDONED"},
    {"gpu_hours_idle", "IDLE"},
};

static int by_check(struct client *client, const char *by)
{
    for (size_t i = 0; by && i < ARRAY_COUNT(whom); i++)
        if (strcmp(whom[i], by) == 0)
            return EXIT_DONE;
    return by ? client_failf(client, EXIT_USAGE,
                             "--by '%s', expected job, user, worker or cause", by)
              : EXIT_DONE;
}

/* Adds the sum of the rows as a last one: hours of different jobs add up, and so do waits. */
static void total_add(struct client *client, struct msg_table *table)
{
    size_t rows = table_rows(table), count = table->columns_count;
    struct rec_cell *total = arena_alloc(&client->arena, count * sizeof *total);
    struct msg_table last = *table;
    for (size_t i = 0; i < count; i++) {
        const char *name = table->columns[i].name;
        double sum = 0;
        for (size_t row = 0; row < rows; row++)
            sum += table_f64(table, row, name);
        total[i] = (struct rec_cell){.text = arena_printf(&client->arena, "%.15g", sum)};
    }
    total[0].text = "total";
    last.cells = total;
    last.cells_count = count;
    table_append(table, &last, &client->arena);
}

/* Hours to a thousandth: an hour of one core on a table of a month. */
static void hours_round(struct client *client, struct msg_table *table)
{
    for (size_t i = 0; i < table->cells_count; i++) {
        const struct rec_column *column = &table->columns[i % table->columns_count];
        if (strcmp(column->type, "float") == 0)
            table->cells[i].text =
                arena_printf(&client->arena, "%.3f",
                             table_f64(table, i / table->columns_count, column->name));
    }
}

/* Rounded figures keep their zeroes, as texts do, and stand to the right, as numbers do. */
static void as_figures(struct client *client, struct msg_table *table)
{
    hours_round(client, table);
    struct rec_column *columns =
        arena_alloc(&client->arena, table->columns_count * sizeof *columns);
    memcpy(columns, table->columns, table->columns_count * sizeof *columns);
    for (size_t i = 0; i < table->columns_count; i++)
        if (strcmp(columns[i].type, "float") == 0)
            columns[i].type = "int";
    table->columns = columns;
}

static int run(struct client *client, const struct args *args)
{
    struct pairs pairs = {0};
    struct msg_table table;
    const char *job = NULL;
    int code = by_check(client, args_text(args, "by"));
    if (code == EXIT_DONE && args->word_count)
        code = client_job_id(client, args->words[0], &job);
    if (code != EXIT_DONE)
        return code;
    pairs_add(&pairs, "by", args_text(args, "by") ? args_text(args, "by") : job ? "job" : NULL);
    if (args_has(args, "since"))
        pairs_add(&pairs, "since_ms",
                  arena_printf(&client->arena, "%llu",
                               (unsigned long long)args_duration_ms(args, "since", 0)));
    pairs_add(&pairs, "experiment", args_text(args, "experiment"));
    pairs_add(&pairs, "account", args_text(args, "user"));
    pairs_add(&pairs, "job", job);
    code = client_query(client, "usage", &pairs, args_count(args, "limit", UINT32_MAX), &table);
    pairs_done(&pairs);
    if (code != EXIT_DONE)
        return code;
    if (client_for_people(client)) {
        if (table_rows(&table) > 1)
            total_add(client, &table);
        as_figures(client, &table);
    }
    return client_table(client, &table, args_has(args, "gpus") ? gpu_columns : core_columns,
                        CLASS_COLUMNS, "nothing was used");
}

const struct verb verb_usage = {
    .name = "usage",
    .words = "[JOB]",
    .summary = "what core and GPU hours were used for",
    .text =
        "Every moment of an attempt is in one class, so the classes add up to the hours held: "
        "launching (until its ranks run), useful, saving (checkpoints, as far as programs tell "
        "how long it took), recomputed (work behind the last checkpoint, thrown away and made "
        "again), abandoned (the same of jobs that ended without success), idle (stopping, or held "
        "for a lost node). Queued is waiting, which holds nothing.\n\nIn SQL: "
        "athanor.usage_ledger, one row an attempt, its sums athanor.usage_of_jobs, _accounts, "
        "_workers and _causes, and athanor.lost_work.",
    .word_kind = WORD_JOB,
    .words_max = 1,
    VERB_OPTIONS(options),
    .run = run,
};
