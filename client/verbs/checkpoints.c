/* checkpoints.c - athanor checkpoints */
#include "client/client.h"
#include "client/verbs.h"

static const struct option options[] = {
    {"experiment", 'e', VALUE_TEXT, "NAME", "of all jobs of this experiment", false},
    {"all", 'a', VALUE_NONE, NULL, "also those whose files were removed", false},
    OPTION_LIMIT,
    OPTION_COLUMN,
    OPTION_JSON,
};

static const struct heading columns[] = {
    {"job_id", "JOB"}, {"name", NULL},        {"step", NULL}, {"size_bytes", "SIZE"},
    {"metrics", NULL}, {"saved_at", "SAVED"}, {"path", NULL},
};

static int run(struct client *client, const struct args *args)
{
    struct pairs pairs = {0};
    const char *job = NULL;
    if (!args->word_count && !args_has(args, "experiment"))
        return client_failf(client, EXIT_USAGE, "name a job, or --experiment NAME");
    int code = args->word_count ? client_job_id(client, args->words[0], &job) : EXIT_DONE;
    if (code != EXIT_DONE)
        return code;
    pairs_add(&pairs, "job", job);
    pairs_add(&pairs, "experiment", args_text(args, "experiment"));
    pairs_add_flag(&pairs, "all", args_has(args, "all"));
    code = client_list(client, "checkpoints", &pairs, args_count(args, "limit", UINT32_MAX),
                       columns, ARRAY_COUNT(columns), "no checkpoints");
    pairs_done(&pairs);
    return code;
}

const struct verb verb_checkpoints = {
    .name = "checkpoints",
    .words = "[JOB]",
    .summary = "list a job's checkpoints, newest first",
    .text =
        "Only complete checkpoints are registered: their files were written, hashed and renamed "
        "into place before. The directories can be loaded by Hugging Face transformers.",
    .word_kind = WORD_JOB,
    .words_max = 1,
    VERB_OPTIONS(options),
    .run = run,
};
