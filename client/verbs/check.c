/* check.c - athanor check */
#include "client/code.h"
#include "client/render/reasons.h"
#include "client/spec_file.h"
#include "client/verbs.h"
#include "common/base/parse.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

static const struct option options[] = {
    SPEC_OPTIONS,
    {"json", 0, VALUE_NONE, NULL, "print the resolved specs, placement and cost as JSON", false},
};

#define ROWS_MAX 40u

static struct rec_column columns[] = {
    {"job", "text"},
    {"jobs", "int"},
    {"ranks", "int"},
    {"nodes", "text"},
    {"cores", "int"},
    {"gpus", "int"},
    {"wall_ms", "duration_ms"},
    {"core_hours", "float"},
    {"gpu_hours", "float"},
    {"could_run", "int"},
    {"starts", "text"},
};

static const struct heading headings[] = {
    {"job", NULL},
    {"jobs", NULL},
    {"ranks", NULL},
    {"nodes", NULL},
    {"cores", NULL},
    {"gpus", NULL},
    {"wall_ms", "WALL TIME"},
    {"core_hours", "CORE-H"},
    {"gpu_hours", "GPU-H"},
    {"could_run", "WORKERS"},
    {"starts", NULL},
};

static const char *text_of(struct client *client, const json_t *object, const char *name)
{
    const json_t *value = json_object_get(object, name);
    if (json_is_integer(value))
        return arena_printf(&client->arena, "%" JSON_INTEGER_FORMAT, json_integer_value(value));
    return json_is_string(value) ? arena_strdup(&client->arena, json_string_value(value)) : "";
}

static double number_of(const json_t *object, const char *name)
{
    return (double)json_integer_value(json_object_get(object, name));
}

/* Waiting does not help: no present worker could ever run it. */
static bool is_impossible(const json_t *job)
{
    const json_t *reason;
    size_t i;
    json_array_foreach(json_object_get(job, "waits_for"), i, reason)
    {
        const char *name = json_string_value(json_object_get(reason, "reason"));
        if (name && (strcmp(name, "size") == 0 || strcmp(name, "constraint") == 0))
            return true;
    }
    return false;
}

/* When the job would start: by the plan, but not before its parents. */
static const char *start_of(struct client *client, const json_t *job)
{
    struct arena *arena = &client->arena;
    json_int_t parents = json_integer_value(json_object_get(job, "parents"));
    const json_t *in_ms = json_object_get(job, "starts_in_ms");
    const char *worker = text_of(client, job, "worker");
    char span[PARSE_TEXT_SIZE];
    if (is_impossible(job))
        return "never, see below";
    if (parents > 0)
        return arena_printf(arena, "after %" JSON_INTEGER_FORMAT " job%s", parents,
                            parents == 1 ? "" : "s");
    if (*worker)
        return arena_printf(arena, "now on %s", worker);
    if (!json_is_integer(in_ms))
        return "unknown, see below";
    return arena_printf(arena, "in %s",
                        format_duration_short((uint64_t)json_integer_value(in_ms), span));
}

static const char *nodes_of(struct client *client, const json_t *needs)
{
    const json_t *nodes = json_object_get(needs, "nodes");
    return nodes ? text_of(client, needs, "nodes") : "1";
}

/* What all jobs may cost at most, and how many of them nobody can say that of. */
struct cost {
    double core_hours, gpu_hours;
    size_t unlimited;
};

static struct cost cost_of(const json_t *job)
{
    double hours = number_of(job, "wall_time_ms") / 3.6e6;
    return (struct cost){number_of(job, "cores") * hours, number_of(job, "gpus") * hours,
                         hours <= 0};
}

/* A row stands for neighbours that differ in nothing that it shows: an array, a sweep. */
static bool are_alike(const json_t *a, const json_t *b)
{
    static const char *const same[] = {"parents",      "starts",         "waits_for",
                                       "cores",        "gpus",           "memory_bytes",
                                       "wall_time_ms", "could_run_count"};
    const json_t *needs_a = json_object_get(json_object_get(a, "spec"), "resources");
    const json_t *needs_b = json_object_get(json_object_get(b, "spec"), "resources");
    bool alike = a && b && json_equal(needs_a, needs_b);
    for (size_t i = 0; alike && i < ARRAY_COUNT(same); i++)
        alike = json_equal(json_object_get(a, same[i]), json_object_get(b, same[i]));
    return alike;
}

/* How many jobs from `from` on are alike. */
static size_t alike_count(const json_t *jobs, size_t from)
{
    size_t count = 1;
    while (are_alike(json_array_get(jobs, from), json_array_get(jobs, from + count)))
        count++;
    return count;
}

static void fill_row(struct client *client, const json_t *jobs, size_t from, size_t count,
                     struct rec_cell *row)
{
    const json_t *job = json_array_get(jobs, from), *last = json_array_get(jobs, from + count - 1);
    const json_t *needs = json_object_get(json_object_get(job, "spec"), "resources");
    struct arena *arena = &client->arena;
    struct cost cost = cost_of(job);
    row[0].text = text_of(client, job, "name");
    if (count > 1)
        row[0].text = arena_printf(arena, "%s .. %s", row[0].text, text_of(client, last, "name"));
    row[1].text = arena_printf(arena, "%zu", count);
    row[2].text = text_of(client, needs, "ranks");
    row[3].text = nodes_of(client, needs);
    row[4].text = text_of(client, job, "cores");
    row[5].text = text_of(client, job, "gpus");
    row[6].text = text_of(client, job, "wall_time_ms");
    row[7].text = arena_printf(arena, "%.3g", (double)count * cost.core_hours);
    row[8].text = arena_printf(arena, "%.3g", (double)count * cost.gpu_hours);
    row[9].text = text_of(client, job, "could_run_count");
    row[10].text = start_of(client, job);
    row[6].is_null = row[7].is_null = row[8].is_null = cost.unlimited > 0;
}

static void print_total(const json_t *jobs, struct buf *out)
{
    struct cost total = {0};
    const json_t *job;
    size_t i, count = json_array_size(jobs);
    json_array_foreach(jobs, i, job)
    {
        struct cost cost = cost_of(job);
        total.core_hours += cost.core_hours;
        total.gpu_hours += cost.gpu_hours;
        total.unlimited += cost.unlimited;
    }
    buf_printf(out, "%zu job%s, at most %.3g core-hours and %.3g GPU-hours", count,
               count == 1 ? "" : "s", total.core_hours, total.gpu_hours);
    if (total.unlimited)
        buf_printf(out, "; not counted: %zu without a wall time (limits.wall_time)",
                   total.unlimited);
    buf_puts(out, "\n");
}

static void print_jobs(struct client *client, const json_t *jobs, struct buf *out)
{
    struct msg_table table = {.columns = columns, .columns_count = ARRAY_COUNT(columns)};
    size_t count = json_array_size(jobs), at = 0, rows = 0;
    table.cells =
        arena_alloc(&client->arena, ROWS_MAX * ARRAY_COUNT(columns) * sizeof *table.cells);
    for (size_t alike; at < count && rows < ROWS_MAX; at += alike, rows++) {
        alike = alike_count(jobs, at);
        fill_row(client, jobs, at, alike, &table.cells[rows * table.columns_count]);
    }
    table.cells_count = rows * table.columns_count;
    if (rows)
        table_print(&table, headings, ARRAY_COUNT(headings), &client->style, out);
    if (at < count)
        buf_printf(out, "and %zu more\n", count - at);
    if (rows)
        print_total(jobs, out);
}

static void add_reasons(struct client *client, const json_t *job, size_t alike, struct buf *out)
{
    static struct rec_column names[] = {{"reason", "text"}, {"detail", "text"}, {"remedy", "text"}};
    const json_t *reasons = json_object_get(job, "waits_for"), *reason;
    struct msg_table table = {.columns = names, .columns_count = ARRAY_COUNT(names)};
    size_t i;
    table.cells_count = json_array_size(reasons) * ARRAY_COUNT(names);
    if (table.cells_count == 0)
        return;
    table.cells = arena_alloc(&client->arena, table.cells_count * sizeof *table.cells);
    json_array_foreach(reasons, i, reason)
    {
        for (size_t k = 0; k < ARRAY_COUNT(names); k++)
            table.cells[i * ARRAY_COUNT(names) + k].text = text_of(client, reason, names[k].name);
    }
    buf_puts(out, "\n");
    text_add_clean(out, text_of(client, job, "name"), 0);
    if (alike)
        buf_printf(out, " and %zu more", alike);
    buf_puts(out, " would wait:\n");
    reasons_add(out, &table, &client->style);
}

/* Prints the reasons, of neighbours with equal ones once. */
static void print_reasons(struct client *client, const json_t *jobs, struct buf *out)
{
    for (size_t i = 0, alike; i < json_array_size(jobs); i += alike) {
        alike = alike_count(jobs, i);
        add_reasons(client, json_array_get(jobs, i), alike - 1, out);
    }
}

static size_t count_impossible(const json_t *jobs)
{
    const json_t *job;
    size_t i, impossible = 0;
    json_array_foreach(jobs, i, job)
    {
        impossible += is_impossible(job);
    }
    return impossible;
}

static int print_answer(struct client *client, const struct args *args,
                        const struct msg_checked *answer)
{
    json_t *jobs = json_loads(answer->resolved, 0, NULL);
    struct buf out = {0};
    size_t impossible = 0;
    if (!json_is_array(jobs)) {
        json_decref(jobs);
        return client_failf(client, EXIT_UNREACHABLE,
                            "the answer is not understood: is the coordinator of another version?");
    }
    if (args_has(args, "json")) {
        char *text = json_dumps(jobs, JSON_INDENT(2));
        buf_printf(&out, "%s\n", text ? text : answer->resolved);
        free(text);
    } else {
        print_jobs(client, jobs, &out);
        print_reasons(client, jobs, &out);
    }
    impossible = count_impossible(jobs);
    json_decref(jobs);
    int code = client_print(client, &out);
    buf_done(&out);
    if (code == EXIT_DONE && impossible)
        code = client_failf(client, EXIT_REFUSED, "%zu job%s could not run on any worker there is",
                            impossible, impossible == 1 ? "" : "s");
    return code;
}

static int run(struct client *client, const struct args *args)
{
    static const char no_key[16];
    struct message request, reply;
    int code = spec_file_message(client, args, &request);
    if (code == EXIT_DONE)
        code = code_attach(client, &request, false);
    if (code != EXIT_DONE)
        return code;
    request.u.submit.submit_key = (struct wire_bytes){no_key, sizeof no_key};
    request.u.submit.check_only = true;
    code = client_ask(client, &request, MSG_CHECKED, &reply);
    if (code != EXIT_DONE)
        return code;
    const struct msg_checked *answer = &reply.u.checked;
    code = print_answer(client, args, answer);
    if (answer->refusals_count == 0)
        return code;
    client_print_refusals(request.u.submit.file, answer->refusals, answer->refusals_count);
    return client_failf(client, EXIT_REFUSED, "%zu thing%s in the way", answer->refusals_count,
                        answer->refusals_count == 1 ? " is" : "s are");
}

const struct verb verb_check = {
    .name = "check",
    .words = "FILE",
    .summary = "try a spec without submitting it",
    .text =
        "Prints what the jobs of a spec need and may cost at most (cores and GPUs times wall time, "
        "their own or that of their queue), how many workers could run them, when they would start "
        "by the scheduler's present plan, and everything that stands in their way; with --json "
        "also the specs with every default filled in. Nothing is kept. Exits 4 when the spec would "
        "be refused, or no worker could "
        "ever run it.",
    .word_kind = WORD_FILE,
    .words_min = 1,
    .words_max = 1,
    VERB_OPTIONS(options),
    .run = run,
};
