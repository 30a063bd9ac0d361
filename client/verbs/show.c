/* show.c - athanor show */
#include "client/client.h"
#include "client/code.h"
#include "client/render/reasons.h"
#include "client/verbs.h"

#include <strings.h>
#include <unistd.h>

static const struct option options[] = {
    {"spec", 0, VALUE_NONE, NULL, "print the resolved spec as JSON, nothing else", false},
    {"source", 0, VALUE_NONE, NULL, "print the YAML as it was submitted, nothing else", false},
    {"code", 0, VALUE_NONE, NULL, "list the files of the code it runs, with the archive's hash",
     false},
    OPTION_JSON,
};

static const struct heading facts[] = {
    {"job_id", "job"},
    {"name", "name"},
    {"experiment", "experiment"},
    {"kind", "kind"},
    {"recipe", "recipe"},
    {"account", "account"},
    {"state", "state"},
    {"worker", "worker"},
    {"held", "held"},
    {"cause", "cause"},
    {"detail", "detail"},
    {"queue", "queue"},
    {"project", "project"},
    {"priority", "priority"},
    {"ranks", "ranks"},
    {"cores", "cores"},
    {"memory_bytes", "memory"},
    {"gpus", "gpus"},
    {"progress_step", "step"},
    {"progress_total", "of"},
    {"progress_phase", "phase"},
    {"submitted_at", "submitted"},
    {"eligible_at", "eligible"},
    {"started_at", "started"},
    {"ended_at", "ended"},
    {"needs", "needs"},
    {"needed_by", "needed by"},
};

/* What follows the facts: other questions about the same job. */
static const struct section {
    const char *query, *title;
    struct heading columns[10];
    size_t count;
} sections[] = {
    {"attempts",
     "attempts",
     {{"number", "TRY"},
      {"state", NULL},
      {"worker", NULL},
      {"cause", NULL},
      {"code", NULL},
      {"resume_step", "RESUMED"},
      {"started_at", "STARTED"},
      {"run_ms", "RAN"},
      {"evidence", NULL}},
     9},
    {"lineage",
     "inputs",
     {{"input", NULL},
      {"ref", NULL},
      {"source_job", "FROM JOB"},
      {"checkpoint_step", "STEP"},
      {"path", NULL}},
     5},
    {"reads",
     "where that is",
     {{"number", "TRY"},
      {"input", NULL},
      {"size_bytes", "SIZE"},
      {"made_on", "MADE ON"},
      {"copies_on", "COPIES ON"},
      {"worker", "READ ON"},
      {"fetched_from", "FETCHED FROM"},
      {"fetched_bytes", "FETCHED"}},
     8},
    {"blocks",
     "blocks of contexts",
     {{"stage", NULL},
      {"blocks", NULL},
      {"of", "OF AT MOST"},
      {"contexts", NULL},
      {"pairs", NULL},
      {"ranks", NULL},
      {"expired", "EXPIRED LEASES"},
      {"seconds", NULL}},
     8},
    {"best_metrics",
     "metrics",
     {{"name", NULL},
      {"points", NULL},
      {"last", NULL},
      {"last_step", "AT"},
      {"lowest", NULL},
      {"lowest_step", "AT"},
      {"highest", NULL},
      {"highest_step", "AT"},
      {"nans", "NANS"}},
     9},
    {"checkpoints",
     "checkpoints",
     {{"step", NULL},
      {"size_bytes", "SIZE"},
      {"metrics", NULL},
      {"saved_at", "SAVED"},
      {"path", NULL}},
     5},
    {"artifacts",
     "artifacts",
     {{"kind", NULL}, {"name", NULL}, {"size_bytes", "SIZE"}, {"path", NULL}},
     4},
};

static int add_section(struct client *client, const struct section *section,
                       const struct pairs *pairs, struct buf *out)
{
    struct msg_table table;
    int code = client_query(client, section->query, pairs, 100, &table);
    if (code != EXIT_DONE || table_rows(&table) == 0)
        return code;
    buf_printf(out, "\n%s%s%s\n", tint_on(&client->style, TINT_STRONG), section->title,
               tint_off(&client->style, TINT_STRONG));
    table_print(&table, section->columns, section->count, &client->style, out);
    return EXIT_DONE;
}

static int add_why(struct client *client, const struct pairs *pairs, struct buf *out)
{
    struct msg_table table;
    int code = client_query(client, "why", pairs, UINT32_MAX, &table);
    if (code != EXIT_DONE || table_rows(&table) == 0)
        return code;
    buf_printf(out, "\n%swhy it waits%s\n", tint_on(&client->style, TINT_STRONG),
               tint_off(&client->style, TINT_STRONG));
    reasons_add(out, &table, &client->style);
    return EXIT_DONE;
}

static bool is_waiting(const struct msg_table *table)
{
    const char *state = table_text(table, 0, "state");
    return strcasecmp(state, "waiting") == 0 || strcasecmp(state, "ready") == 0 ||
           strcasecmp(state, "backoff") == 0;
}

static int print_job(struct client *client, struct msg_table *table,
                     const struct pairs *pairs, struct buf *out)
{
    int code = EXIT_DONE;
    bool asks_why = is_waiting(table) || !table_is_null(table, 0, "node_lost_at");
    client_tell_lost(client, table);
    table_print_row(table, 0, facts, ARRAY_COUNT(facts), &client->style, out);
    if (asks_why)
        code = add_why(client, pairs, out);
    for (size_t i = 0; i < ARRAY_COUNT(sections) && code == EXIT_DONE; i++)
        code = add_section(client, &sections[i], pairs, out);
    return code;
}

static int print_code(struct client *client, const char *job)
{
    const char *hex = NULL;
    int fd = -1, code = code_of_job(client, job, &hex);
    if (code == EXIT_DONE)
        code = code_fetch(client, hex, &fd);
    if (code != EXIT_DONE)
        return code;
    code = code_print(client, fd);
    close(fd);
    return code;
}

static int run(struct client *client, const struct args *args)
{
    if (args_has(args, "code"))
        return print_code(client, args->words[0]);
    struct pairs pairs = {0};
    struct msg_table table;
    struct buf out = {0};
    const char *id = NULL;
    int code = client_job_id(client, args->words[0], &id);
    if (code != EXIT_DONE)
        return code;
    pairs_add(&pairs, "job", id);
    code = client_query(client, "job", &pairs, 1, &table);
    if (code == EXIT_DONE && table_rows(&table) == 0)
        code = client_failf(client, EXIT_REFUSED, "there is no job '%s'", args->words[0]);
    if (code == EXIT_DONE && args_has(args, "json"))
        table_print_json(&table, &out);
    else if (code == EXIT_DONE && args_has(args, "spec"))
        buf_printf(&out, "%s\n", table_text(&table, 0, "spec"));
    else if (code == EXIT_DONE && args_has(args, "source"))
        buf_puts(&out, table_text(&table, 0, "spec_source"));
    else if (code == EXIT_DONE)
        code = print_job(client, &table, &pairs, &out);
    if (code == EXIT_DONE)
        code = client_print(client, &out);
    pairs_done(&pairs);
    buf_done(&out);
    return code;
}

const struct verb verb_show = {
    .name = "show",
    .words = "JOB",
    .summary = "everything about one job",
    .text = "Prints a job's facts, attempts and why they ended, inputs, metrics, checkpoints and "
            "artifacts, and, while it waits, why.",
    .word_kind = WORD_JOB,
    .words_min = 1,
    .words_max = 1,
    VERB_OPTIONS(options),
    .run = run,
};
