/* check.c - athanor check */
#include "client/spec_file.h"
#include "client/verbs.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

static const struct option options[] = {
    SPEC_OPTIONS,
    {"json", 0, VALUE_NONE, NULL, "print the resolved specs, placement and cost as JSON", false},
};

static struct rec_column columns[] = {
    {"job", "text"}, {"kind", "text"},      {"recipe", "text"}, {"ranks", "int"}, {"cores", "int"},
    {"gpus", "int"}, {"rank_bytes", "int"}, {"hours", "float"}, {"now", "text"},
};

static const struct heading headings[] = {
    {"job", NULL},
    {"kind", NULL},
    {"recipe", NULL},
    {"ranks", NULL},
    {"cores", NULL},
    {"gpus", NULL},
    {"rank_bytes", "MEMORY/RANK"},
    {"hours", "CORE-HOURS"},
    {"now", NULL},
};

static const char *text_of(struct client *client, const json_t *object, const char *name)
{
    const json_t *value = json_object_get(object, name);
    if (json_is_integer(value))
        return arena_printf(&client->arena, "%" JSON_INTEGER_FORMAT, json_integer_value(value));
    return json_is_string(value) ? arena_strdup(&client->arena, json_string_value(value)) : "";
}

/* Where the job would start now: a worker, after its parents, or what it waits for. */
static const char *placement_of(struct client *client, const json_t *job)
{
    const char *worker = text_of(client, job, "worker"), *text = "";
    json_int_t parents = json_integer_value(json_object_get(job, "parents"));
    const json_t *reason;
    size_t i;
    json_array_foreach(json_object_get(job, "waits_for"), i, reason)
    {
        text = arena_printf(&client->arena, "%s%s%s", text, i ? ", " : "waits for ",
                            text_of(client, reason, "reason"));
    }
    if (parents > 0)
        return arena_printf(&client->arena, "after %" JSON_INTEGER_FORMAT " job%s%s%s", parents,
                            parents == 1 ? "" : "s", *text ? ", " : "", text);
    return *worker ? worker : text;
}

static void fill_row(struct client *client, const json_t *job, struct rec_cell *row)
{
    const json_t *spec = json_object_get(job, "spec"), *needs = json_object_get(spec, "resources");
    double wall_ms = (double)json_integer_value(json_object_get(job, "wall_time_ms"));
    double cores = (double)json_integer_value(json_object_get(job, "cores"));
    row[0].text = text_of(client, job, "name");
    row[1].text = text_of(client, spec, "kind");
    row[2].text = text_of(client, spec, "recipe");
    row[3].text = text_of(client, needs, "ranks");
    row[4].text = text_of(client, job, "cores");
    row[5].text = text_of(client, job, "gpus");
    row[6].text = text_of(client, needs, "memory_bytes");
    row[7].is_null = wall_ms <= 0;
    row[7].text = arena_printf(&client->arena, "%.3g", cores * wall_ms / 3.6e6);
    row[8].text = placement_of(client, job);
}

static void print_jobs(struct client *client, const json_t *jobs, struct buf *out)
{
    struct msg_table table = {.columns = columns, .columns_count = ARRAY_COUNT(columns)};
    const json_t *job;
    size_t i;
    table.cells_count = json_array_size(jobs) * table.columns_count;
    table.cells = arena_alloc(&client->arena, (table.cells_count + 1) * sizeof *table.cells);
    json_array_foreach(jobs, i, job)
    {
        fill_row(client, job, &table.cells[i * table.columns_count]);
    }
    table_print(&table, headings, ARRAY_COUNT(headings), &client->style, out);
    buf_puts(out, "CORE-HOURS: at most, from limits.wall_time; '-' without such a limit.\n");
}

/* Prints the reasons of every job. Returns how many jobs no present worker could ever run. */
static size_t print_reasons(struct client *client, const json_t *jobs, struct buf *out)
{
    const json_t *job, *reason;
    size_t i, k, impossible = 0;
    json_array_foreach(jobs, i, job)
    {
        bool never = false;
        json_array_foreach(json_object_get(job, "waits_for"), k, reason)
        {
            const char *name = text_of(client, reason, "reason");
            never = never || strcmp(name, "size") == 0 || strcmp(name, "constraint") == 0;
            buf_puts(out, "\n");
            text_add_clean(out, text_of(client, job, "name"), 0);
            buf_printf(out, ": %s: ", name);
            text_add_clean(out, text_of(client, reason, "detail"), 0);
            buf_puts(out, "\n    ");
            text_add_clean(out, text_of(client, reason, "remedy"), 0);
            buf_puts(out, "\n");
        }
        impossible += never;
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
    }
    struct buf reasons = {0};
    impossible = print_reasons(client, jobs, &reasons);
    if (!args_has(args, "json"))
        buf_add(&out, buf_text(&reasons), reasons.length);
    buf_done(&reasons);
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
        "Prints where the jobs of a spec could start now, what they need and may cost at most, "
        "and everything that stands in their way; with --json also the specs with every default "
        "filled in. Nothing is kept. Exits 4 when the spec would be refused, or no worker could "
        "ever run it.",
    .word_kind = WORD_FILE,
    .words_min = 1,
    .words_max = 1,
    VERB_OPTIONS(options),
    .run = run,
};
