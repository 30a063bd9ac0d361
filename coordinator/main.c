/* main.c - athanor-coordinator: stores experiments, dispatches their jobs, records what comes back.
 *
 * Reads its options, becomes the leader or stands by, rebuilds its memory from PostgreSQL, and
 * serves until told to end. Everything it knows is in the database: it may be killed at any time.
 * With --simulate it does none of this: a trace runs through the policies (coordinator/replay).
 */
#include "coordinator/replay/replay.h"
#include "coordinator/shell/options.h"
#include "coordinator/shell/shell.h"

#include "common/base/log.h"
#include "common/base/mem.h"
#include "common/net/notify.h"

#include <stdio.h>

static int simulate_trace(const struct options *options)
{
    const struct replay_config config = {
        .trace = options->simulate,
        .machine = options->machine,
        .policies = options->policy,
        .starts = options->starts,
        .nodes = options->nodes,
        .cores = options->cores,
        .memory_bytes = options->memory_bytes,
        .gpus = options->gpus,
        .load_permille = options->load_permille,
        .json = options->json,
    };
    struct err err;

    if (replay(&config, &err) < 0) {
        fprintf(stderr, "athanor-coordinator: %s\n", err.text);
        return err.kind == ERR_INVALID ? EXIT_OPTIONS : EXIT_START;
    }
    return EXIT_ENDED;
}

int main(int argc, char **argv)
{
    struct options options;
    struct err err;

    if (options_parse(argc, argv, &options, &err) < 0) {
        fprintf(stderr, "athanor-coordinator: %s\n", err.text);
        return EXIT_OPTIONS;
    }
    if (options.help || options.man) {
        char *page = options.help ? options_help() : options_man("Athanor " ATHANOR_VERSION);
        fputs(page, stdout);
        mem_free(page);
        return EXIT_ENDED;
    }
    if (options.version) {
        puts("athanor-coordinator " ATHANOR_VERSION);
        return EXIT_ENDED;
    }
    if (options.alive)
        return notify_health() ? EXIT_START : EXIT_ENDED;
    if (options.simulate)
        return simulate_trace(&options);
    log_init("coordinator", (enum log_level)options.log_level);
    return serve(&options);
}
