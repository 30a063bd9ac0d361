/* workers.c - athanor workers */
#include "client/client.h"
#include "client/verbs.h"

static const struct option options[] = {
    {"all", 'a', VALUE_NONE, NULL, "also workers that have left", false},
    OPTION_COLUMN,
    OPTION_JSON,
};

static const struct heading columns[] = {
    {"name", "WORKER"},      {"state", NULL}, {"drained", NULL},      {"drain_by_at", "BY"},
    {"host", NULL},
    {"runs", NULL},          {"cores", NULL}, {"cores_used", "USED"}, {"memory_bytes", "MEMORY"},
    {"memory_used", "USED"}, {"gpus", NULL},  {"gpus_used", "USED"},  {"joined_at", "JOINED"},
};

static int run(struct client *client, const struct args *args)
{
    struct pairs pairs = {0};
    pairs_add(&pairs, "name", args->word_count ? args->words[0] : NULL);
    pairs_add_flag(&pairs, "all", args_has(args, "all"));
    int code = client_list(client, "workers", &pairs, UINT32_MAX, columns, ARRAY_COUNT(columns),
                           "no workers");
    pairs_done(&pairs);
    return code;
}

const struct verb verb_workers = {
    .name = "workers",
    .words = "[WORKER]",
    .summary = "list workers, what they offer and what is used",
    .text = "States: ok; suspect (silent for a while: gets nothing new, nothing is stopped); lost "
            "(its lease ran out, its attempts count as worker_lost); left (stopped).",
    .word_kind = WORD_WORKER,
    .words_max = 1,
    VERB_OPTIONS(options),
    .run = run,
};
