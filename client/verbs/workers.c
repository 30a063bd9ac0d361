/* workers.c - athanor workers */
#include "client/client.h"
#include "client/verbs.h"

static const struct option options[] = {
    {"all", 'a', VALUE_NONE, NULL, "also workers that have left", false},
    {"incidents", 'i', VALUE_NONE, NULL,
     "instead, what went wrong on nodes by their own fault, newest first", false},
    OPTION_COLUMN,
    OPTION_JSON,
};

static const struct heading columns[] = {
    {"name", "WORKER"},      {"state", NULL}, {"drained", NULL},      {"drain_by_at", "BY"},
    {"host", NULL},
    {"runs", NULL},          {"cores", NULL}, {"cores_used", "USED"}, {"memory_bytes", "MEMORY"},
    {"memory_used", "USED"}, {"gpus", NULL},  {"gpus_used", "USED"},  {"joined_at", "JOINED"},
    {"until_at", "UNTIL"},
    {"kept_away", "KEPT FROM WORK"},
};

static const struct heading incident_columns[] = {
    {"worker", NULL}, {"at", NULL}, {"kind", NULL}, {"job_id", "JOB"}, {"evidence", NULL},
    {"cleared_at", "CLEARED"},
};

static int run(struct client *client, const struct args *args)
{
    struct pairs pairs = {0};
    pairs_add(&pairs, "name", args->word_count ? args->words[0] : NULL);
    if (args_has(args, "incidents")) {
        int listed = client_list(client, "incidents", &pairs, UINT32_MAX, incident_columns,
                                 ARRAY_COUNT(incident_columns), "no incidents");
        pairs_done(&pairs);
        return listed;
    }
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
    .text =
        "States: ok; suspect (silent for a while: gets nothing new, nothing is stopped); lost "
        "(its lease ran out, its attempts count as worker_lost); left (stopped). A worker is "
        "kept from work while it is drained, while a health check of its node fails, and in "
        "quarantine: after an incident on the node itself, such as a failed epilog or a GPU that "
        "does not come free, or several that met different jobs. 'athanor undrain' ends a "
        "quarantine. UNTIL: when its time is over, as in an allocation of another scheduler; jobs "
        "start there only if their wall time is over before.",
    .word_kind = WORD_WORKER,
    .words_max = 1,
    VERB_OPTIONS(options),
    .run = run,
};
