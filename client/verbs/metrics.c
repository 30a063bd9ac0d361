/* metrics.c - athanor metrics */
#include "client/client.h"
#include "client/verbs.h"

#include <limits.h>

static const struct option options[] = {
    {"points", 'p', VALUE_COUNT, "N", "thin each series to about N points", false},
    {"from", 0, VALUE_COUNT, "STEP", "from this step on", false},
    {"to", 0, VALUE_COUNT, "STEP", "up to this step", false},
    {"rank", 'r', VALUE_COUNT, "RANK", "of this rank alone", false},
    {"all", 'a', VALUE_NONE, NULL, "every point of every metric", false},
    OPTION_LIMIT,
    OPTION_COLUMN,
    OPTION_JSON,
};

static const struct heading summary[] = {
    {"name", "METRIC"}, {"points", NULL},      {"last", NULL},    {"last_step", "AT"},
    {"lowest", NULL},   {"lowest_step", "AT"}, {"highest", NULL}, {"highest_step", "AT"},
};

static const struct heading points[] = {
    {"name", "METRIC"}, {"rank", NULL}, {"step", NULL}, {"value", NULL}, {"at", "AT"}};

static const char *names_of(struct client *client, const struct args *args)
{
    struct buf names = {0};
    for (size_t i = 1; i < args->word_count; i++)
        buf_printf(&names, "%s%s", i > 1 ? "," : "", args->words[i]);
    const char *copy = arena_strdup(&client->arena, buf_text(&names));
    buf_done(&names);
    return copy;
}

static int run(struct client *client, const struct args *args)
{
    struct pairs pairs = {0};
    bool all = args_has(args, "all") || args->word_count > 1;
    const char *id = NULL;
    int code = client_job_id(client, args->words[0], &id);
    if (code != EXIT_DONE)
        return code;
    pairs_add(&pairs, "job", id);
    if (all) {
        pairs_add(&pairs, "name", names_of(client, args));
        pairs_add(&pairs, "rank", args_text(args, "rank"));
        pairs_add(&pairs, "points", args_text(args, "points"));
        pairs_add(&pairs, "from", args_text(args, "from"));
        pairs_add(&pairs, "to", args_text(args, "to"));
        code = client_list(client, "metrics", &pairs, args_count(args, "limit", UINT32_MAX), points,
                           ARRAY_COUNT(points), "no points");
    } else {
        code = client_list(client, "best_metrics", &pairs, UINT32_MAX, summary,
                           ARRAY_COUNT(summary), "no metrics");
    }
    pairs_done(&pairs);
    return code;
}

const struct verb verb_metrics = {
    .name = "metrics",
    .words = "JOB [METRIC...]",
    .summary = "last and best values, or every point",
    .text =
        "With JOB alone prints the last, lowest and highest value of each metric and their steps. "
        "With metrics named, or --all, prints their points, each step once: where a retry "
        "repeated steps, the newest attempt counts.",
    .word_kind = WORD_JOB,
    .words_min = 1,
    .words_max = UINT_MAX,
    VERB_OPTIONS(options),
    .run = run,
};
