/* wait.c - athanor wait */
#include "client/follow.h"
#include "client/verbs.h"

#include <limits.h>
#include <string.h>

static const struct option options[] = {
    {"experiment", 'e', VALUE_TEXT, "NAME", "all jobs of this experiment", false},
};

static int experiment_ids(struct client *client, const char *name, const char ***out,
                          size_t *out_count)
{
    struct pairs pairs = {0};
    struct msg_table table;
    pairs_add(&pairs, "experiment", name);
    int code = client_query(client, "jobs", &pairs, UINT32_MAX, &table);
    pairs_done(&pairs);
    if (code != EXIT_DONE)
        return code;
    size_t count = table_rows(&table);
    if (count == 0)
        return client_failf(client, EXIT_REFUSED, "experiment '%s' has no jobs", name);
    const char **ids = arena_alloc(&client->arena, count * sizeof *ids);
    for (size_t i = 0; i < count; i++) /* oldest first */
        ids[i] = table_text(&table, count - 1 - i, "job_id");
    *out = ids;
    *out_count = count;
    return EXIT_DONE;
}

static int run(struct client *client, const struct args *args)
{
    const char *experiment = args_text(args, "experiment");
    const char **ids = arena_alloc(&client->arena, (args->word_count + 1) * sizeof *ids);
    size_t count = args->word_count;
    int code = EXIT_DONE;
    if (count == 0 && !experiment)
        return client_failf(client, EXIT_USAGE, "name jobs, or --experiment NAME");
    for (size_t i = 0; i < count && code == EXIT_DONE; i++)
        code = client_job_id(client, args->words[i], &ids[i]);
    if (code == EXIT_DONE && experiment)
        code = experiment_ids(client, experiment, &ids, &count);
    return code == EXIT_DONE ? follow_jobs(client, ids, count) : code;
}

const struct verb verb_wait = {
    .name = "wait",
    .words = "[JOB...]",
    .summary = "follow jobs until they have ended",
    .text =
        "Shows live progress on a terminal, a line per change elsewhere. Exits 0 when every job "
        "succeeded and 1 when one failed or was cancelled; a trial that its sweep stopped (cause "
        "`pruned`) counts as neither. Ending this command does nothing to "
        "the jobs. A restart of the coordinator is waited out.",
    .word_kind = WORD_JOB,
    .words_max = UINT_MAX,
    VERB_OPTIONS(options),
    .run = run,
};
