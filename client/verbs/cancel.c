/* cancel.c - athanor cancel */
#include "client/control.h"
#include "client/verbs.h"

#include <limits.h>

static const struct option options[] = {CONTROL_JOB_OPTIONS};

static int run(struct client *client, const struct args *args)
{
    return control_jobs(client, args, "cancel");
}

const struct verb verb_cancel = {
    .name = "cancel",
    .words = "[JOB...]",
    .summary = "stop jobs, or drop them from the queue",
    .text = "Cancels jobs in any state: a waiting job never starts; a running one gets the stop "
            "message, then SIGTERM, then, after its stop_grace, SIGKILL. Jobs that need a "
            "cancelled one are cancelled too. Jobs that have ended stay as they are.\n\nJOB is a "
            "number, NAME or EXPERIMENT/NAME; a name means its newest job.",
    .word_kind = WORD_JOB,
    .words_max = UINT_MAX,
    VERB_OPTIONS(options),
    .run = run,
};
