/* undrain.c - athanor undrain */
#include "client/control.h"
#include "client/verbs.h"

#include <limits.h>

static const struct option options[] = {
    {"reason", 0, VALUE_TEXT, "TEXT", "kept with the change, for others to read", false},
};

static int run(struct client *client, const struct args *args)
{
    return control_workers(client, args, "undrain");
}

const struct verb verb_undrain = {
    .name = "undrain",
    .words = "WORKER...",
    .summary = "let drained workers take jobs again",
    .text = "Undoes 'athanor drain', and ends the quarantine of a worker that failed jobs: what "
            "went wrong before no longer counts.",
    .word_kind = WORD_WORKER,
    .words_min = 1,
    .words_max = UINT_MAX,
    VERB_OPTIONS(options),
    .run = run,
};
