/* metrics.c - athanor metrics */
#include "client/metric_names.h"
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
    {"nans", "NANS"},   {"diverged", NULL},
};

static const struct heading points[] = {
    {"name", "METRIC"}, {"rank", NULL}, {"step", NULL}, {"value", NULL}, {"at", "AT"}};

static int run(struct client *client, const struct args *args)
{
    struct pairs pairs = {0};
    bool all = args_has(args, "all") || args->word_count > 1;
    const char *id = NULL, *const *names = args->words + 1;
    size_t name_count = args->word_count - 1;
    int code = client_job_id(client, args->words[0], &id);
    if (code == EXIT_DONE)
        code = metric_names_check(client, args->words[0], id, names, name_count);
    if (code != EXIT_DONE)
        return code;
    pairs_add(&pairs, "job", id);
    if (all) {
        pairs_add(&pairs, "name", metric_names_join(client, names, name_count));
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
        "With JOB alone prints the last, lowest and highest value of each metric and their steps, "
        "and how many values are NaN. "
        "With metrics named, or --all, prints their points, each step once: where a retry "
        "repeated steps, the newest attempt counts.",
    .word_kind = WORD_JOB,
    .words_min = 1,
    .words_max = UINT_MAX,
    VERB_OPTIONS(options),
    .run = run,
};
