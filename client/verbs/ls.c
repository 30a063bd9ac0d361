/* ls.c - athanor ls */
#include "client/client.h"
#include "client/verbs.h"

#include <string.h>
#include <strings.h>

#include <limits.h>

#define ROWS_DEFAULT 50u

static const struct option options[] = {
    {"experiment", 'e', VALUE_TEXT, "NAME", "jobs of this experiment", false},
    {"state", 's', VALUE_TEXT, "STATE,...",
     "jobs in these states: waiting, ready, placed, running, stopping, backoff, succeeded, failed, "
     "cancelled",
     false},
    {"name", 0, VALUE_TEXT, "NAME", "jobs of this name", false},
    {"kind", 0, VALUE_TEXT, "KIND", "jobs of this kind: pretraining, unlearning, command ...",
     false},
    {"user", 'u', VALUE_TEXT, "NAME", "jobs of this account", false},
    {"queue", 0, VALUE_TEXT, "NAME", "jobs of this queue", false},
    {"project", 0, VALUE_TEXT, "NAME", "jobs of this project", false},
    {"live", 'l', VALUE_NONE, NULL, "jobs that have not ended", false},
    {"experiments", 0, VALUE_NONE, NULL, "list experiments instead of jobs", false},
    {"all", 'a', VALUE_NONE, NULL, "every row, not only the newest", false},
    OPTION_LIMIT,
    OPTION_COLUMN,
    OPTION_JSON,
};

static const struct heading job_columns[] = {
    {"job_id", "JOB"},
    {"name", NULL},
    {"experiment", NULL},
    {"kind", NULL},
    {"state", NULL},
    {"cause", NULL},
    {"attempt_count", "TRIES"},
    {"progress_step", "STEP"},
    {"progress_total", "OF"},
    {"submitted_at", "SUBMITTED"},
    {"run_ms", "RAN"},
};

static const struct heading experiment_columns[] = {
    {"name", "EXPERIMENT"}, {"account", NULL},   {"created_at", "CREATED"}, {"jobs", NULL},
    {"live", NULL},         {"succeeded", NULL}, {"failed", NULL},          {"cancelled", NULL},
};

/* Words between commas, in any case: a typo must not look like "there are none". */
static int states_check(const char *states, struct err *err)
{
    static const char *const known[] = {"waiting", "ready",     "placed", "running",  "stopping",
                                        "backoff", "succeeded", "failed", "cancelled"};
    while (states) {
        size_t length = strcspn(states, ","), i = 0;
        while (i < ARRAY_COUNT(known) &&
               !(strlen(known[i]) == length && strncasecmp(states, known[i], length) == 0))
            i++;
        if (i == ARRAY_COUNT(known))
            return err_set(err, ERR_INVALID,
                           "option --state: '%.*s' is no state, see 'athanor ls --help'",
                           (int)length, states);
        states = states[length] ? states + length + 1 : NULL;
    }
    return 0;
}

static int run(struct client *client, const struct args *args)
{
    struct err err;
    struct pairs pairs = {0};
    uint64_t limit = args_has(args, "all") ? UINT32_MAX : args_count(args, "limit", ROWS_DEFAULT);
    int code;
    if (states_check(args_text(args, "state"), &err) < 0)
        return client_fail(client, EXIT_USAGE, &err);
    if (args_has(args, "experiments")) {
        pairs_add(&pairs, "name", args_text(args, "experiment"));
        code = client_list(client, "experiments", &pairs, limit, experiment_columns,
                           ARRAY_COUNT(experiment_columns), "no experiments");
    } else {
        pairs_add(&pairs, "experiment", args_text(args, "experiment"));
        pairs_add(&pairs, "state", args_text(args, "state"));
        pairs_add(&pairs, "name", args_text(args, "name"));
        pairs_add(&pairs, "kind", args_text(args, "kind"));
        pairs_add(&pairs, "account", args_text(args, "user"));
        pairs_add(&pairs, "queue", args_text(args, "queue"));
        pairs_add(&pairs, "project", args_text(args, "project"));
        pairs_add_flag(&pairs, "live", args_has(args, "live"));
        struct msg_table table;
        code = client_query(client, "jobs", &pairs, limit, &table);
        if (code == EXIT_DONE && client_for_people(client)) {
            client_tell_lost(client, &table);
            client_tell_held(&table);
        }
        if (code == EXIT_DONE)
            code = client_table(client, &table, job_columns, ARRAY_COUNT(job_columns), "no jobs");
    }
    pairs_done(&pairs);
    return code;
}

const struct verb verb_ls = {
    .name = "ls",
    .words = "",
    .summary = "list jobs, newest first",
    .text = "Lists the newest 50 jobs, or those that the options select.",
    VERB_OPTIONS(options),
    .run = run,
};
