/* release.c - athanor release */
#include "client/control.h"
#include "client/verbs.h"

#include <limits.h>

static const struct option options[] = {CONTROL_JOB_OPTIONS};

static int run(struct client *client, const struct args *args)
{
    return control_jobs(client, args, "release");
}

const struct verb verb_release = {
    .name = "release",
    .words = "[JOB...]",
    .summary = "let held jobs start",
    .text = "Releases jobs that were held, by 'athanor hold' or by 'hold: true' in their spec.",
    .word_kind = WORD_JOB,
    .words_max = UINT_MAX,
    VERB_OPTIONS(options),
    .run = run,
};
