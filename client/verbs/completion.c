/* completion.c - athanor completion */
#include "client/client.h"
#include "client/verbs.h"

#include <string.h>

static int run(struct client *client, const struct args *args)
{
    struct buf out = {0};
    if (strcmp(args->words[0], "bash") != 0)
        return client_failf(client, EXIT_USAGE, "there is no completion for '%s', expected bash",
                            args->words[0]);
    page_completion_bash(&out);
    int code = client_print(client, &out);
    buf_done(&out);
    return code;
}

const struct verb verb_completion = {
    .name = "completion",
    .words = "bash",
    .summary = "print completions for a shell",
    .text = "Prints a script to be sourced: source <(athanor completion bash). It completes verbs, "
            "options, files, and the names of jobs, workers and recipes.",
    .choices = "bash",
    .words_min = 1,
    .words_max = 1,
    .run = run,
};
