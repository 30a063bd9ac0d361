/* why.c - athanor why */
#include "client/client.h"
#include "client/render/reasons.h"
#include "client/verbs.h"

#include <string.h>

static const struct option options[] = {
    {"what-if", 'w', VALUE_PAIR, "NAME=VALUE",
     "as if the job asked for this: cores, gpus, memory, ranks, nodes, wall_time, queue", true},
    {"history", 0, VALUE_NONE, NULL, "why it waited, over time, also when it has ended", false},
    OPTION_COLUMN,
    OPTION_JSON,
};

static const struct heading history_columns[] = {
    {"from_at", "FROM"}, {"until_at", "UNTIL"}, {"held_ms", "FOR"},
    {"reason", NULL},    {"detail", NULL},
};

static int print_reasons(struct client *client, const struct msg_table *table)
{
    const struct style *style = &client->style;
    const char *state = table_text(table, 0, "state");
    struct buf out = {0};
    buf_printf(&out, "job %s, ", table_text(table, 0, "job_id"));
    text_add_clean(&out, table_text(table, 0, "name"), 0);
    buf_printf(&out, ", is %s%s%s%s\n", tint_on(style, tint_of_state(state)), state,
               tint_off(style, tint_of_state(state)),
               args_has(client->args, "what-if") ? "; with the changes:" : "");
    reasons_add(&out, table, style);
    int code = client_print(client, &out);
    buf_done(&out);
    return code;
}

static const char *changes_join(struct client *client, const struct args *args)
{
    const char *text = "";
    for (size_t i = 0; i < args->given_count; i++)
        if (strcmp(args->given[i].option->name, "what-if") == 0)
            text = arena_printf(&client->arena, "%s%s%s", text, *text ? "," : "",
                                args->given[i].value);
    return text;
}

static int print_why(struct client *client, const struct args *args, struct pairs *pairs)
{
    struct msg_table table;
    pairs_add(pairs, "what_if", changes_join(client, args));
    int code = client_query(client, "why", pairs, UINT32_MAX, &table);
    if (code == EXIT_DONE && table_rows(&table) == 0)
        code = client_failf(client, EXIT_REFUSED, "there is no job '%s'", args->words[0]);
    if (code != EXIT_DONE)
        return code;
    return client_for_people(client) ? print_reasons(client, &table)
                                     : client_table(client, &table, NULL, 0, "");
}

static int run(struct client *client, const struct args *args)
{
    struct pairs pairs = {0};
    const char *id = NULL;
    int code = client_job_id(client, args->words[0], &id);
    if (code != EXIT_DONE)
        return code;
    pairs_add(&pairs, "job", id);
    code = args_has(args, "history")
               ? client_list(client, "reasons", &pairs, UINT32_MAX, history_columns,
                             ARRAY_COUNT(history_columns), "nothing kept it waiting for long")
               : print_why(client, args, &pairs);
    pairs_done(&pairs);
    return code;
}

const struct verb verb_why = {
    .name = "why",
    .words = "JOB",
    .summary = "every reason that keeps a job waiting, and when it will start",
    .text =
        "Prints all constraints that keep a job from starting now, not only the first, what would "
        "have to change, and when it would start by the scheduler's present plan: 'at the latest' "
        "as far as limits of what runs promise it, 'about' by the present queue. 'inputs' tells "
        "where what the job reads lies, when not every worker that may take it has that.\n\n"
        "--what-if asks the same about a changed copy of the job: --what-if gpus=4 --what-if "
        "wall_time=1h. Nothing is changed by asking.",
    .word_kind = WORD_JOB,
    .words_min = 1,
    .words_max = 1,
    VERB_OPTIONS(options),
    .run = run,
};
