/* retry.c - athanor retry */
#include "client/control.h"
#include "client/verbs.h"

#include <limits.h>

static const struct option options[] = {CONTROL_JOB_OPTIONS};

static int run(struct client *client, const struct args *args)
{
    return control_jobs(client, args, "retry");
}

const struct verb verb_retry = {
    .name = "retry",
    .words = "[JOB...]",
    .summary = "run failed or cancelled jobs again",
    .text = "Gives jobs that failed or were cancelled a new attempt. It resumes from the newest "
            "complete checkpoint, if there is one.",
    .word_kind = WORD_JOB,
    .words_max = UINT_MAX,
    VERB_OPTIONS(options),
    .run = run,
};
