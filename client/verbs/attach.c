/* attach.c - athanor attach */
#include "client/inside.h"
#include "client/verbs.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define DETACH_DEFAULT 0x1d /* Ctrl-] as of telnet */

static const struct option options[] = {
    {"rank", 'r', VALUE_COUNT, "RANK", "beside this rank (default: 0)", false},
    {"detach-key", 0, VALUE_TEXT, "KEY", "leaves the terminal: a character, or ^X for Ctrl and X "
     "(default: ^])", false},
};

/* -1 when it is no key. */
static int key_of(const char *text)
{
    if (!text)
        return DETACH_DEFAULT;
    if (text[0] == '^' && text[1] >= '@' && text[1] <= '_' && !text[2])
        return text[1] & 0x1f;
    if (text[0] == '^' && text[1] >= 'a' && text[1] <= 'z' && !text[2])
        return text[1] & 0x1f;
    return text[0] && !text[1] ? (unsigned char)text[0] : -1;
}

static int run(struct client *client, const struct args *args)
{
    static const char *const shell[] = {"sh", "-c", "exec \"${SHELL:-/bin/sh}\""};
    bool given = args->word_count > 1;
    struct inside inside = {.job = args->words[0],
                            .rank = args_count(args, "rank", 0),
                            .arguments = given ? args->words + 1 : shell,
                            .argument_count = given ? args->word_count - 1 : ARRAY_COUNT(shell),
                            .terminal = true,
                            .detach = key_of(args_text(args, "detach-key"))};
    if (inside.detach < 0)
        return client_failf(client, EXIT_USAGE,
                            "--detach-key is '%s', expected a character, or ^ and a letter",
                            args_text(args, "detach-key"));
    if (!isatty(STDIN_FILENO))
        return client_failf(client, EXIT_USAGE,
                            "standard input is no terminal: see 'athanor exec'");
    return inside_run(client, &inside);
}

const struct verb verb_attach = {
    .name = "attach",
    .words = "JOB [-- PROGRAM [ARGUMENT...]]",
    .summary = "an interactive terminal within a running job",
    .text = "Opens a shell (or the program) beside a rank of a running job, as 'athanor exec "
            "--terminal' does. Ctrl-] leaves it; the shell then ends, the job goes on.",
    .word_kind = WORD_JOB,
    .words_min = 1,
    .words_max = UINT_MAX,
    VERB_OPTIONS(options),
    .run = run,
};
