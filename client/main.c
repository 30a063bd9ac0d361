/* main.c - athanor: finds the verb, reads its arguments, runs it. */
#include "client/client.h"

#include "common/base/mem.h"
#include "common/base/parse.h"

#include <locale.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

/* What other schedulers call it, or people do. */
static const struct verb *verb_meant(const char *name)
{
    static const struct {
        const char *name, *verb;
    } meant[] = {
        {"nodes", "workers"},  {"sinfo", "workers"}, {"jobs", "ls"},      {"list", "ls"},
        {"ps", "ls"},          {"squeue", "ls"},     {"qstat", "ls"},     {"run", "submit"},
        {"sbatch", "submit"},  {"qsub", "submit"},   {"kill", "cancel"},  {"stop", "cancel"},
        {"scancel", "cancel"}, {"qdel", "cancel"},   {"info", "show"},    {"describe", "show"},
        {"log", "logs"},       {"tail", "logs"},     {"start", "up"},     {"shell", "attach"},
        {"ssh", "attach"},     {"sacct", "history"}, {"requeue", "retry"}, {"plan", "check"},
    };
    for (size_t i = 0; i < ARRAY_COUNT(meant); i++)
        if (strcmp(name, meant[i].name) == 0)
            return verb_find(meant[i].verb);
    return NULL;
}

static int unknown_verb(const char *name)
{
    const struct verb *verb, *nearest = verb_meant(name);
    unsigned best = nearest ? 0 : 3;
    for (size_t i = 0; (verb = verb_at(i)); i++) {
        unsigned distance = text_distance(name, verb->name);
        if (distance < best) {
            best = distance;
            nearest = verb;
        }
    }
    fprintf(stderr, "athanor: there is no verb '%.60s'", name);
    if (nearest)
        fprintf(stderr, ", did you mean '%s'?\n", nearest->name);
    else
        fprintf(stderr, ", see 'athanor help'\n");
    return EXIT_USAGE;
}

static int print_help(const struct verb *verb)
{
    struct buf out = {0};
    page_help(verb, &out);
    fputs(buf_text(&out), stdout);
    buf_done(&out);
    return EXIT_DONE;
}

static int run(const struct verb *verb, const struct args *args)
{
    struct client client;
    struct err err;
    if (args_has(args, "help"))
        return print_help(verb);
    int code;
    if (client_init(&client, args, &err) < 0)
        code = client_fail(&client, EXIT_USAGE, &err);
    else
        code = verb->run(&client, args);
    client_done(&client);
    return code;
}

/* The names that people try first. */
static const char *alias_of(const char *word)
{
    if (strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0)
        return "help";
    if (strcmp(word, "--version") == 0)
        return "version";
    return word;
}

int main(int argc, char **argv)
{
    setlocale(LC_CTYPE, "C.UTF-8");
    signal(SIGPIPE, SIG_IGN);
    const char *name = argc > 1 ? alias_of(argv[1]) : "help";
    const struct verb *verb = verb_find(name);
    struct args args;
    struct err err;
    if (!verb)
        return unknown_verb(name);
    if (args_parse(verb, argc > 2 ? argc - 2 : 0, argv + 2, &args, &err) < 0) {
        fprintf(stderr, "athanor %s: %s\n", verb->name, err.text);
        return EXIT_USAGE;
    }
    int code = run(verb, &args);
    args_done(&args);
    return code;
}
