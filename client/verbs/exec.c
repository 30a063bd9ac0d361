/* exec.c - athanor exec */
#include "client/inside.h"
#include "client/verbs.h"

#include <limits.h>
#include <stdlib.h>
#include <unistd.h>

static const struct option options[] = {
    {"rank", 'r', VALUE_COUNT, "RANK", "beside this rank (default: 0)", false},
    {"terminal", 't', VALUE_NONE, NULL, "give it our terminal, for programs that draw on one",
     false},
};

static int run(struct client *client, const struct args *args)
{
    struct inside inside = {.job = args->words[0],
                            .rank = args_count(args, "rank", 0),
                            .arguments = args->words + 1,
                            .argument_count = args->word_count - 1,
                            .terminal = args_has(args, "terminal"),
                            .detach = -1};
    if (inside.terminal && !isatty(STDIN_FILENO))
        return client_failf(client, EXIT_USAGE, "--terminal: standard input is no terminal");
    return inside_run(client, &inside);
}

const struct verb verb_exec = {
    .name = "exec",
    .words = "JOB -- PROGRAM [ARGUMENT...]",
    .summary = "run a program within a running job",
    .text = "Runs a program beside a rank of a running job: with its environment, in its folder, "
            "on its cores, within its memory, as its account. Input, output and error are ours, "
            "and so is the exit code (128 and the number of a signal; 127 when there is no such "
            "program, 126 when it cannot be executed; 255 when the connection broke). It ends with "
            "the job, and with this command.\n\n"
            "Only the account that submitted the job and administrators may; 'athanor sql' shows "
            "who did in athanor.events.",
    .word_kind = WORD_JOB,
    .words_min = 2,
    .words_max = UINT_MAX,
    VERB_OPTIONS(options),
    .run = run,
};
