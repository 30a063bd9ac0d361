/* reserve.c - athanor reserve */
#include "client/configure.h"
#include "client/verbs.h"

#include <string.h>

static const struct option options[] = {
    {"from", 0, VALUE_TEXT, "TIME", "begin: now, +2h, 18:00, 2026-03-01 12:00 (Z at the end: UTC)",
     false},
    {"until", 0, VALUE_TEXT, "TIME", "end, as for --from; +DURATION counts from now", false},
    {"workers", 'w', VALUE_TEXT, "NAME,...", "these workers; default: all", true},
    {"where", 0, VALUE_PAIR, "LABEL=VALUE",
     "workers that carry this label, and every other --where", true},
    {"for", 0, VALUE_TEXT, "user:NAME|project:NAME", "who may use them; default: nobody", true},
    {"stop", 0, VALUE_TEXT, "true|false",
     "whether jobs of others that still run at the begin are stopped and run elsewhere", false},
    {"reason", 0, VALUE_TEXT, "TEXT", "kept with it, for others to read", false},
    OPTION_COLUMN,
    OPTION_JSON,
};

static const struct setting_option settings[] = {
    {"from", "from", SETTING_TIME},   {"until", "until", SETTING_TIME},
    {"where", "where", SETTING_TEXT}, {"for", "for", SETTING_TEXT},
    {"stop", "stop", SETTING_TEXT},   {"reason", "reason", SETTING_TEXT},
};

static const struct heading columns[] = {
    {"name", "RESERVATION"}, {"state", NULL},   {"from_at", "FROM"},
    {"until_at", "UNTIL"},   {"workers", NULL}, {"worker_constraint", "WHERE"},
    {"entitled", "FOR"},     {"stop", NULL},    {"reason", NULL},
};

static void workers_add(struct client *client, const struct args *args, struct pairs *pairs)
{
    for (size_t i = 0; i < args->given_count; i++) {
        if (strcmp(args->given[i].option->name, "workers") != 0)
            continue;
        char *list = arena_strdup(&client->arena, args->given[i].value);
        for (char *name; (name = strsep(&list, ","));)
            pairs_add(pairs, "worker", name);
    }
}

static int change(struct client *client, const struct args *args, const char *action)
{
    struct pairs pairs = {0};
    if (args->word_count < 2)
        return client_failf(client, EXIT_USAGE, "'reserve %s' needs a name", action);
    int code = configure_settings(client, args, settings, ARRAY_COUNT(settings), &pairs);
    workers_add(client, args, &pairs);
    if (code == EXIT_DONE)
        code = configure_send(client, "reservation", action, args->words[1], &pairs);
    pairs_done(&pairs);
    return code;
}

static int run(struct client *client, const struct args *args)
{
    struct pairs pairs = {0};
    const char *action = args->word_count ? args->words[0] : "ls";
    if (strcmp(action, "add") == 0 || strcmp(action, "set") == 0)
        return change(client, args, action);
    if (strcmp(action, "rm") == 0)
        return change(client, args, "remove");
    if (strcmp(action, "ls") != 0)
        return client_failf(client, EXIT_USAGE,
                            "there is no 'reserve %s', expected ls, add, set or rm", action);
    pairs_add(&pairs, "name", args->word_count > 1 ? args->words[1] : NULL);
    int code = client_list(client, "reservations", &pairs, UINT32_MAX, columns,
                           ARRAY_COUNT(columns), "no reservations");
    pairs_done(&pairs);
    return code;
}

const struct verb verb_reserve = {
    .name = "reserve",
    .words = "[ls|add|set|rm [NAME]]",
    .summary = "keep workers free for some users or projects, or for maintenance",
    .text =
        "A reservation is a window of time on some workers. Others start a job there only if its "
        "wall time (limits.wall_time, or its queue's default) is over before the window begins; "
        "a job without one waits until the window is over. Without --for nobody may start "
        "anything: a maintenance.\n\n"
        "reserve add makes one, reserve set changes what the options say, reserve rm ends it "
        "before its time. Operators only.",
    .choices = "ls add set rm",
    .words_max = 2,
    VERB_OPTIONS(options),
    .run = run,
};
