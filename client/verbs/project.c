/* project.c - athanor project */
#include "client/configure.h"
#include "client/verbs.h"

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
    static const struct configured what = {
        "project", "projects",          "no projects", settings, ARRAY_COUNT(settings),
        columns,   ARRAY_COUNT(columns)};
    return configured_run(client, args, &what);
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
