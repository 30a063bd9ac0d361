/* help.c - athanor help */
#include "client/client.h"
#include "client/verbs.h"

static const struct option options[] = {
    {"man", 0, VALUE_NONE, NULL, "print the man page athanor(1) as roff", false},
};

static int run(struct client *client, const struct args *args)
{
    struct buf out = {0};
    const struct verb *verb = args->word_count ? verb_find(args->words[0]) : NULL;
    if (args->word_count && !verb)
        return client_failf(client, EXIT_USAGE, "there is no verb '%s', see 'athanor help'",
                            args->words[0]);
    if (args_has(args, "man"))
        page_man(&out);
    else if (verb)
        page_help(verb, &out);
    else
        page_usage(&out);
    int code = client_print(client, &out);
    buf_done(&out);
    return code;
}

const struct verb verb_help = {
    .name = "help",
    .words = "[VERB]",
    .summary = "explain this program or a verb",
    .text = "Lists the verbs, or prints what 'athanor VERB --help' prints.",
    .word_kind = WORD_VERB,
    .words_max = 1,
    VERB_OPTIONS(options),
    .run = run,
};
