/* submit.c - athanor submit */
#include "client/code.h"
#include "client/follow.h"
#include "client/spec_file.h"
#include "client/verbs.h"
#include "common/base/hash.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define SUBMIT_KEY_BYTES 16
#define JOBS_SHOWN       20u

static const struct option options[] = {
    SPEC_OPTIONS,
    {"ids", 0, VALUE_NONE, NULL, "print the job numbers only, one a line", false},
    {"wait", 'w', VALUE_NONE, NULL, "wait until the jobs have ended, as 'athanor wait' does",
     false},
    {"reuse", 0, VALUE_NONE, NULL,
     "a job identical to one that succeeded takes its results instead of running again", false},
    {"submit-key", 0, VALUE_TEXT, "HEX",
     "32 hexadecimal digits: a repeat with the same key is the same submit (default: random)",
     false},
    OPTION_JSON,
};

static int submit_key(struct client *client, const struct args *args, uint8_t out[SUBMIT_KEY_BYTES])
{
    const char *text = args_text(args, "submit-key");
    random_bytes(out, SUBMIT_KEY_BYTES);
    if (!text)
        return EXIT_DONE;
    if (strlen(text) != 2 * SUBMIT_KEY_BYTES ||
        strspn(text, "0123456789abcdefABCDEF") != 2 * SUBMIT_KEY_BYTES)
        return client_failf(client, EXIT_USAGE, "--submit-key '%s' is not %d hexadecimal digits",
                            text, 2 * SUBMIT_KEY_BYTES);
    for (size_t i = 0; i < SUBMIT_KEY_BYTES; i++) {
        const char pair[3] = {text[2 * i], text[2 * i + 1], 0};
        out[i] = (uint8_t)strtoul(pair, NULL, 16);
    }
    return EXIT_DONE;
}

/* The answer as a table, so that --json and the listing are made as everywhere. */
static struct msg_table jobs_table(struct client *client, const struct msg_submitted *answer)
{
    static struct rec_column columns[] = {{"job_id", "int"},
                                          {"name", "text"},
                                          {"experiment", "text"}};
    struct msg_table table = {.columns = columns, .columns_count = ARRAY_COUNT(columns)};
    table.cells_count = answer->jobs_count * table.columns_count;
    table.cells = arena_alloc(&client->arena, (table.cells_count + 1) * sizeof *table.cells);
    for (size_t i = 0; i < answer->jobs_count; i++) {
        struct rec_cell *row = &table.cells[i * table.columns_count];
        row[0].text = arena_printf(&client->arena, "%" PRIu64, answer->jobs[i].job_id);
        row[1].text = answer->jobs[i].name;
        row[2].text = answer->experiment;
    }
    return table;
}

static void print_submitted(const struct client *client, const struct msg_submitted *answer,
                            const struct msg_table *table, struct buf *out)
{
    static const struct heading columns[] = {{"job_id", "JOB"}, {"name", NULL}};
    struct msg_table shown = *table;
    size_t more = 0;
    if (answer->jobs_count > JOBS_SHOWN) {
        more = answer->jobs_count - JOBS_SHOWN;
        shown.cells_count = JOBS_SHOWN * shown.columns_count;
    }
    buf_puts(out, "experiment ");
    text_add_clean(out, answer->experiment, 0);
    buf_printf(out, ": %zu job%s%s\n", answer->jobs_count, answer->jobs_count == 1 ? "" : "s",
               answer->repeated ? ", submitted before with this key" : "");
    table_print(&shown, columns, ARRAY_COUNT(columns), &client->style, out);
    if (more)
        buf_printf(out, "and %zu more\n", more);
}

static int print_answer(struct client *client, const struct args *args,
                        const struct msg_submitted *answer)
{
    struct msg_table table = jobs_table(client, answer);
    struct buf out = {0};
    if (args_has(args, "json"))
        table_print_json(&table, &out);
    else if (args_has(args, "ids"))
        table_print_column(&table, "job_id", &out);
    else
        print_submitted(client, answer, &table, &out);
    int code = client_print(client, &out);
    buf_done(&out);
    if (code != EXIT_DONE || !args_has(args, "wait"))
        return code;
    const char **ids = arena_alloc(&client->arena, (answer->jobs_count + 1) * sizeof *ids);
    for (size_t i = 0; i < answer->jobs_count; i++)
        ids[i] = table_text(&table, i, "job_id");
    return follow_jobs(client, ids, answer->jobs_count);
}

static int run(struct client *client, const struct args *args)
{
    uint8_t key[SUBMIT_KEY_BYTES];
    struct message request, reply;
    int code = submit_key(client, args, key);
    if (code == EXIT_DONE)
        code = spec_file_message(client, args, &request);
    if (code == EXIT_DONE)
        code = code_attach(client, &request, true);
    if (code != EXIT_DONE)
        return code;
    request.u.submit.reuse = args_has(args, "reuse");
    request.u.submit.submit_key = (struct wire_bytes){(const char *)key, sizeof key};
    code = client_ask(client, &request, MSG_SUBMITTED, &reply);
    return code == EXIT_DONE ? print_answer(client, args, &reply.u.submitted) : code;
}

const struct verb verb_submit = {
    .name = "submit",
    .words = "FILE",
    .summary = "submit the jobs of a spec",
    .text =
        "Sends a YAML (or JSON) spec; '-' reads standard input. The jobs are on disk when this "
        "returns. A wrong spec gets one report of everything that is wrong with it, and nothing "
        "is kept.\n\nWith --reuse a job ends at once with cause `reused` when one has succeeded "
        "that was identical: the same resolved spec (but for name, experiment, description, "
        "priority, hold, needs, queue and project), inputs of the same content, and the same "
        "engine program. Only jobs of recipes, and commands with code, whose inputs are datasets "
        "and checkpoints of ended jobs are compared; what hangs on files or programs outside of "
        "Athanor always runs, as do trials of a sweep with method asha. Folders named by code: "
        "{snapshot: DIR} are packed and sent first, unless they are known already.",
    .word_kind = WORD_FILE,
    .words_min = 1,
    .words_max = 1,
    VERB_OPTIONS(options),
    .run = run,
};
