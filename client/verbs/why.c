/* why.c - athanor why */
#include "client/client.h"
#include "client/verbs.h"

static const struct option options[] = {OPTION_COLUMN, OPTION_JSON};

static int run(struct client *client, const struct args *args)
{
    struct pairs pairs = {0};
    const char *id = NULL;
    int code = client_job_id(client, args->words[0], &id);
    if (code == EXIT_DONE) {
        pairs_add(&pairs, "job", id);
        code = client_list(client, "why", &pairs, UINT32_MAX, NULL, 0,
                           "nothing keeps this job waiting");
    }
    pairs_done(&pairs);
    return code;
}

const struct verb verb_why = {
    .name = "why",
    .words = "JOB",
    .summary = "every reason that keeps a job waiting",
    .text =
        "Prints all constraints that keep a job from starting now, not only the first, and what "
        "would have to change.",
    .word_kind = WORD_JOB,
    .words_min = 1,
    .words_max = 1,
    VERB_OPTIONS(options),
    .run = run,
};
