/* sweep.c - athanor sweep */
#include "client/client.h"
#include "client/follow.h"
#include "client/verbs.h"

static const struct option options[] = {
    {"experiment", 'e', VALUE_TEXT, "NAME", "without a name: sweeps of this experiment", false},
    {"live", 'l', VALUE_NONE, NULL, "without a name: sweeps that have not ended", false},
    {"wait", 'w', VALUE_NONE, NULL, "first follow the trials until all have ended", false},
    OPTION_LIMIT,
    OPTION_COLUMN,
    OPTION_JSON,
};

static const struct heading sweep_columns[] = {
    {"sweep_id", "SWEEP"},  {"name", NULL},           {"experiment", NULL},
    {"method", NULL},       {"trials", NULL},         {"live", NULL},
    {"pruned", NULL},       {"failed", NULL},         {"metric", NULL},
    {"best_value", "BEST"}, {"best_setting", "WITH"}, {"resource_spent", "SPENT"},
    {"created_at", "CREATED"},
};

static const struct heading trial_columns[] = {
    {"trial", NULL},        {"job_id", "JOB"},        {"setting", NULL},
    {"state", NULL},        {"cause", NULL},          {"rung", NULL},
    {"best_value", "BEST"}, {"best_step", "AT"},      {"resource", "SPENT"},
    {"run_ms", "RAN"},
};

static const struct heading facts[] = {
    {"sweep_id", "sweep"},           {"name", "name"},
    {"experiment", "experiment"},    {"account", "account"},
    {"method", "method"},            {"metric", "metric"},
    {"mode", "best is the"},         {"trials", "trials"},
    {"live", "live"},                {"succeeded", "succeeded"},
    {"pruned", "pruned"},            {"failed", "failed"},
    {"cancelled", "cancelled"},      {"resource", "resource"},
    {"min_resource", "first rung"},  {"max_resource", "whole trial"},
    {"reduction", "one goes on of"}, {"resource_spent", "spent"},
    {"best_trial", "best trial"},    {"best_value", "its value"},
    {"best_setting", "its setting"}, {"created_at", "created"},
    {"ended_at", "ended"},
};

static int sweeps_list(struct client *client, const struct args *args)
{
    struct pairs pairs = {0};
    pairs_add(&pairs, "experiment", args_text(args, "experiment"));
    pairs_add_flag(&pairs, "live", args_has(args, "live"));
    int code = client_list(client, "sweeps", &pairs, args_count(args, "limit", 50), sweep_columns,
                           ARRAY_COUNT(sweep_columns), "no sweeps");
    pairs_done(&pairs);
    return code;
}

static int trials_follow(struct client *client, const struct pairs *pairs)
{
    struct msg_table table;
    int code = client_query(client, "trials", pairs, UINT32_MAX, &table);
    if (code != EXIT_DONE)
        return code;
    size_t count = table_rows(&table);
    const char **ids = arena_alloc(&client->arena, (count + 1) * sizeof *ids);
    for (size_t i = 0; i < count; i++)
        ids[i] = table_text(&table, i, "job_id");
    return follow_jobs(client, ids, count);
}

/* The sweep's facts above its trials; --json and --column show the trials alone. */
static int trials_print(struct client *client, const struct args *args, const struct pairs *pairs)
{
    struct msg_table table;
    struct buf out = {0};
    int code = client_query(client, "sweeps", pairs, 1, &table);
    if (code == EXIT_DONE && table_rows(&table) == 0)
        code = client_failf(client, EXIT_REFUSED, "there is no sweep '%s'", args->words[0]);
    if (code == EXIT_DONE && !args_has(args, "json") && !args_has(args, "column")) {
        table_print_row(&table, 0, facts, ARRAY_COUNT(facts), &client->style, &out);
        buf_putc(&out, '\n');
        code = client_print(client, &out);
    }
    if (code == EXIT_DONE)
        code = client_list(client, "trials", pairs, args_count(args, "limit", UINT32_MAX),
                           trial_columns, ARRAY_COUNT(trial_columns), "no trials");
    buf_done(&out);
    return code;
}

static int run(struct client *client, const struct args *args)
{
    struct pairs pairs = {0};
    int followed = EXIT_DONE;
    if (args->word_count == 0)
        return sweeps_list(client, args);
    pairs_add(&pairs, "sweep", args->words[0]);
    if (args_has(args, "wait"))
        followed = trials_follow(client, &pairs);
    int code = followed == EXIT_DONE || followed == EXIT_JOB_FAILED
                   ? trials_print(client, args, &pairs)
                   : followed;
    pairs_done(&pairs);
    return code == EXIT_DONE ? followed : code;
}

const struct verb verb_sweep = {
    .name = "sweep",
    .words = "[SWEEP]",
    .summary = "the state of a search: its trials, best first",
    .text = "Lists sweeps, or shows one: its trials with their values, how far each came, and the "
            "best value of the metric. SWEEP is a name, EXPERIMENT/NAME (the newest of that name) "
            "or a number. A trial that was stopped to make room for better ones has cause "
            "`pruned`, which is no failure. --json prints the trials; the same is in SQL: "
            "athanor.sweeps, trials, best_trials, trial_table and rungs.",
    .words_max = 1,
    VERB_OPTIONS(options),
    .run = run,
};
