/* hold.c - athanor hold */
#include "client/control.h"
#include "client/verbs.h"

#include <limits.h>

static const struct option options[] = {CONTROL_JOB_OPTIONS};

static int run(struct client *client, const struct args *args)
{
    return control_jobs(client, args, "hold");
}

const struct verb verb_hold = {
    .name = "hold",
    .words = "[JOB...]",
    .summary = "keep waiting jobs from starting",
    .text =
        "Held jobs keep their place in the queue and do not start until they are released. Only "
        "jobs that wait can be held, also between two attempts; one that runs can be cancelled.",
    .word_kind = WORD_JOB,
    .words_max = UINT_MAX,
    VERB_OPTIONS(options),
    .run = run,
};
