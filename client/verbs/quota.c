/* quota.c - athanor quota */
#include "client/configure.h"
#include "client/verbs.h"
#include "common/base/parse.h"

#include <limits.h>
#include <string.h>

static const struct option options[] = {
    {"user", 'u', VALUE_TEXT, "NAME", "of this user; '*' for each user alone", false},
    {"project", 0, VALUE_TEXT, "NAME", "of this project; '*' for each project alone", false},
    {"queue", 0, VALUE_TEXT, "NAME", "in this queue; '*' for each queue alone", false},
    {"jobs", 0, VALUE_TEXT, "N", "set: jobs that may run at once, or none for no limit", false},
    {"cores", 0, VALUE_TEXT, "N", "set: cores that may be in use at once, or none", false},
    {"gpus", 0, VALUE_TEXT, "N", "set: GPUs that may be in use at once, or none", false},
    {"queued", 0, VALUE_TEXT, "N", "set: jobs that may wait; more are refused at submit; or none",
     false},
    {"gpu-hours", 0, VALUE_TEXT, "N/PERIOD",
     "set: GPU hours in each day, week (from Monday) or month (30 days), or none; a job starts "
     "only if its GPUs x limits.wall_time are left",
     false},
    {"weight", 0, VALUE_TEXT, "N", "set: a user's part of the machine against the others", false},
    OPTION_COLUMN,
    OPTION_JSON,
};

static const struct setting_option settings[] = {
    {"user", "user", SETTING_TEXT},     {"project", "project", SETTING_TEXT},
    {"queue", "queue", SETTING_TEXT},   {"jobs", "jobs", SETTING_TEXT},
    {"cores", "cores", SETTING_TEXT},   {"gpus", "gpus", SETTING_TEXT},
    {"queued", "queued", SETTING_TEXT}, {"weight", "weight", SETTING_TEXT},
};

static const struct heading use_columns[] = {
    {"scope", "QUOTA"},      {"instance", "OF"}, {"jobs_used", "JOBS"},         {"jobs", "MAX"},
    {"cores_used", "CORES"}, {"cores", "MAX"},   {"gpus_used", "GPUS"},         {"gpus", "MAX"},
    {"queued_used", "WAIT"}, {"queued", "MAX"},  {"gpu_time_used", "GPU TIME"}, {"gpu_time", "MAX"},
    {"period_ms", "IN"},
};

static const struct heading share_columns[] = {
    {"kind", NULL},       {"name", NULL}, {"weight", NULL},           {"share", "DUE"},
    {"core_hours", NULL}, {"used", NULL}, {"cores_now", "CORES NOW"}, {"factor", NULL},
};

static const struct heading setting_columns[] = {{"name", NULL}, {"value", NULL}};

/* "100/week": GPU hours per period. */
static int gpu_hours_add(struct client *client, const char *text, struct pairs *pairs)
{
    static const struct {
        const char *name;
        const char *ms;
    } periods[] = {{"day", "86400000"}, {"week", "604800000"}, {"month", "2592000000"}};
    const char *slash = strchr(text, '/');
    struct err err;
    double hours;
    if (strcmp(text, "none") == 0) {
        pairs_add(pairs, "gpu_ms", "none");
        return EXIT_DONE;
    }
    for (size_t i = 0; slash && i < ARRAY_COUNT(periods); i++) {
        if (strcmp(slash + 1, periods[i].name) != 0 ||
            parse_f64(arena_strndup(&client->arena, text, (size_t)(slash - text)), &hours, &err) <
                0 ||
            hours < 0 || hours > 1e9)
            continue;
        pairs_add(pairs, "gpu_ms", arena_printf(&client->arena, "%.0f", hours * 3600000));
        pairs_add(pairs, "period_ms", periods[i].ms);
        return EXIT_DONE;
    }
    return client_failf(client, EXIT_USAGE,
                        "option --gpu-hours: '%.40s' is not understood, expected HOURS/day, "
                        "HOURS/week or HOURS/month, such as 100/week, or none",
                        text);
}

static int quota_change(struct client *client, const struct args *args, const char *action)
{
    struct pairs pairs = {0};
    int code = configure_settings(client, args, settings, ARRAY_COUNT(settings), &pairs);
    if (code == EXIT_DONE && args_has(args, "gpu-hours"))
        code = gpu_hours_add(client, args_text(args, "gpu-hours"), &pairs);
    if (code == EXIT_DONE)
        code = configure_send(client, "quota", action, "", &pairs);
    pairs_done(&pairs);
    return code;
}

static int weights(struct client *client, const struct args *args)
{
    struct pairs pairs = {0};
    int code = EXIT_DONE;
    for (size_t i = 1; i < args->word_count && code == EXIT_DONE; i++) {
        char *word = arena_strdup(&client->arena, args->words[i]);
        char *equals = strchr(word, '=');
        if (!equals)
            code = client_failf(client, EXIT_USAGE, "'%s' is not NAME=VALUE", word);
        else
            *equals = 0;
        if (equals)
            pairs_add(&pairs, word, equals + 1);
    }
    if (code == EXIT_DONE)
        code = args->word_count > 1
                   ? configure_send(client, "setting", "set", "", &pairs)
                   : client_list(client, "settings", &pairs, UINT32_MAX, setting_columns,
                                 ARRAY_COUNT(setting_columns), "no settings");
    pairs_done(&pairs);
    return code;
}

static int list(struct client *client, const struct args *args)
{
    struct pairs pairs = {0};
    pairs_add(&pairs, "user", args_text(args, "user"));
    pairs_add(&pairs, "project", args_text(args, "project"));
    pairs_add(&pairs, "queue", args_text(args, "queue"));
    int code = client_list(client, "quotas", &pairs, UINT32_MAX, use_columns,
                           ARRAY_COUNT(use_columns), "no quotas");
    pairs_done(&pairs);
    return code;
}

static int shares(struct client *client, const struct args *args)
{
    struct pairs pairs = {0};
    pairs_add(&pairs, "name",
              args_text(args, "user") ? args_text(args, "user") : args_text(args, "project"));
    int code = client_list(client, "shares", &pairs, UINT32_MAX, share_columns,
                           ARRAY_COUNT(share_columns), "nobody has used anything yet");
    pairs_done(&pairs);
    return code;
}

static int run(struct client *client, const struct args *args)
{
    const char *action = args->word_count ? args->words[0] : "ls";
    if (args->word_count > 1 && strcmp(action, "weights") != 0)
        return client_failf(
            client, EXIT_USAGE,
            "'%s' is too much: name whose quota it is by --user, --project, --queue",
            args->words[1]);
    if (strcmp(action, "ls") == 0)
        return list(client, args);
    if (strcmp(action, "set") == 0 || strcmp(action, "rm") == 0)
        return quota_change(client, args, strcmp(action, "set") == 0 ? "set" : "remove");
    if (strcmp(action, "shares") == 0)
        return shares(client, args);
    if (strcmp(action, "weights") == 0)
        return weights(client, args);
    return client_failf(client, EXIT_USAGE,
                        "there is no 'quota %s', expected ls, set, rm, shares or weights", action);
}

const struct verb verb_quota = {
    .name = "quota",
    .words = "[ls|set|rm|shares|weights [NAME=VALUE...]]",
    .summary = "how much users, projects and queues may use, and have used",
    .text =
        "quota lists the limits and what is used of them. quota set gives a user, a project, a "
        "queue or a crossing of them a limit on running jobs, cores, GPUs, waiting jobs, or GPU "
        "hours per period, and leaves what no option names; '*' means each one for itself, and "
        "a name goes before '*'. quota rm takes it away. Jobs beyond a limit wait ('athanor why'), "
        "submits beyond --queued are refused. Lowering a limit stops nothing that runs.\n\n"
        "quota shares shows the fair share: what is due to each user and project by weight, what "
        "was used lately (halved every half-life, a GPU counting as several cores), and the "
        "factor 2^-(used/due) that orders their jobs. quota weights shows and sets the numbers "
        "behind it: half_life_ms, gpu_cores, weight_account, weight_project, weight_size, "
        "age_per_hour. Operators only, but for reading.",
    .choices = "ls set rm shares weights",
    .words_max = UINT_MAX,
    VERB_OPTIONS(options),
    .run = run,
};
