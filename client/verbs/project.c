/* project.c - athanor project */
#include "client/configure.h"
#include "client/verbs.h"

#include <string.h>

static const struct option options[] = {
    {"open", 0, VALUE_TEXT, "true|false",
     "set: whether everybody may use it, or only its members (default true)", false},
    {"member", 0, VALUE_TEXT, "USER", "set: let a principal use it", true},
    {"drop", 0, VALUE_TEXT, "USER", "set: not any more", true},
    {"weight", 0, VALUE_TEXT, "N", "set: its part of the machine against the other projects",
     false},
    OPTION_COLUMN,
    OPTION_JSON,
};

static const struct setting_option settings[] = {
    {"open", "open", SETTING_TEXT},
    {"member", "member", SETTING_TEXT},
    {"drop", "drop", SETTING_TEXT},
    {"weight", "weight", SETTING_TEXT},
};

static const struct heading columns[] = {
    {"name", "PROJECT"}, {"open", NULL}, {"members", NULL}, {"weight", NULL}, {"live", NULL},
};

static int run(struct client *client, const struct args *args)
{
    struct pairs pairs = {0};
    const char *action = args->word_count ? args->words[0] : "ls";
    bool set = strcmp(action, "set") == 0, remove = strcmp(action, "rm") == 0;
    int code;
    if ((set || remove) && args->word_count < 2)
        return client_failf(client, EXIT_USAGE, "'project %s' needs the name of a project", action);
    if (!set && !remove && strcmp(action, "ls") != 0)
        return client_failf(client, EXIT_USAGE, "there is no 'project %s', expected ls, set or rm",
                            action);
    if (set || remove) {
        code = configure_settings(client, args, settings, ARRAY_COUNT(settings), &pairs);
        if (code == EXIT_DONE)
            code =
                configure_send(client, "project", set ? "set" : "remove", args->words[1], &pairs);
    } else {
        pairs_add(&pairs, "name", args->word_count > 1 ? args->words[1] : NULL);
        code = client_list(client, "projects", &pairs, UINT32_MAX, columns, ARRAY_COUNT(columns),
                           "no projects");
    }
    pairs_done(&pairs);
    return code;
}

const struct verb verb_project = {
    .name = "project",
    .words = "[ls|set|rm [PROJECT]]",
    .summary = "list projects, make, change and remove them",
    .text = "A job belongs to the project that its spec names (project:, otherwise 'default'); "
            "quotas and fair share count what a project uses. project set makes one or changes "
            "what the options say; a project that is not open takes jobs of its members only. "
            "Operators only.",
    .choices = "ls set rm",
    .words_max = 2,
    VERB_OPTIONS(options),
    .run = run,
};
