/* drain.c - athanor drain */
#include "client/control.h"
#include "client/verbs.h"

#include <limits.h>

static const struct option options[] = {
    {"by", 0, VALUE_TEXT, "TIME",
     "stop what still runs there then, and run it elsewhere: +2h, 18:00, 2026-03-01 12:00", false},
    {"reason", 0, VALUE_TEXT, "TEXT", "kept with the change, for others to read", false},
};

static int run(struct client *client, const struct args *args)
{
    return control_workers(client, args, "drain");
}

const struct verb verb_drain = {
    .name = "drain",
    .words = "WORKER...",
    .summary = "give workers no new jobs",
    .text = "What runs on a drained worker runs to its end; nothing new starts there. For "
            "maintenance: drain, wait until 'athanor workers' shows no runs, then stop the "
            "daemon.\n\n"
            "With --by, what has not ended by then is asked to save a checkpoint, stopped (cause "
            "drained, which counts against no retry) and started again elsewhere.",
    .word_kind = WORD_WORKER,
    .words_min = 1,
    .words_max = UINT_MAX,
    VERB_OPTIONS(options),
    .run = run,
};
