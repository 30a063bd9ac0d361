/* pilot.c - athanor pilot */
#include "client/pilot/pilot.h"
#include "client/verbs.h"
#include "common/base/clock.h"
#include "common/base/file.h"
#include "common/base/log.h"
#include "common/base/mem.h"
#include "common/net/loop.h"
#include "common/net/notify.h"

#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

static const struct option options[] = {
    {"config", 'c', VALUE_FILE, "FILE", "pools (default /etc/athanor/pilot.yaml)", false},
    {"once", 0, VALUE_NONE, NULL, "run: look once, then end", false},
    OPTION_COLUMN,
    OPTION_JSON,
};

static const struct heading headings[] = {
    {"pool", NULL},     {"state", NULL},       {"jobs", NULL},    {"nodes_wanted", "NODES WANTED"},
    {"waiting", NULL},  {"running", NULL},     {"workers", NULL}, {"started", NULL},
    {"failures", NULL}, {"retry_at", "RETRY"}, {"trouble", NULL},
};

static int config_load(struct client *client, const struct args *args, struct pilot_config *out)
{
    const char *path = args_text(args, "config");
    struct spec_errors errors = {0};
    struct err err;
    char *bytes = NULL;
    size_t length;
    path = path ? path : "/etc/athanor/pilot.yaml";
    if (file_read(path, PILOT_CONFIG_BYTES, &bytes, &length, &err) < 0)
        return client_fail(client, EXIT_USAGE, &err);
    int rc = pilot_config_read(path, bytes ? bytes : "", length, out, &errors);
    mem_free(bytes);
    if (rc < 0) {
        spec_errors_sort(&errors);
        char *text = spec_errors_text(&errors);
        fputs(text, stderr);
        mem_free(text);
    }
    spec_errors_done(&errors);
    return rc < 0 ? client_failf(client, EXIT_USAGE, "'%s' cannot be used", path) : EXIT_DONE;
}

/* True when it is time to end. */
static bool wait_or_end(int signals, uint64_t ms)
{
    struct pollfd pollfd = {.fd = signals, .events = POLLIN};
    uint64_t until_ms = clock_steady_ms() + ms, now_ms;
    while ((now_ms = clock_steady_ms()) < until_ms)
        if (poll(&pollfd, 1, (int)min_u64(until_ms - now_ms, 60000)) > 0)
            return true;
    return false;
}

static int pilot_run(struct client *client, const struct pilot_config *config, bool once)
{
    struct pilot pilot;
    struct err err;
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigprocmask(SIG_BLOCK, &set, NULL);
    int signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    if (signals < 0)
        return client_failf(client, EXIT_LOCAL, "signals cannot be waited for");
    log_init("athanor-pilot", LOG_LEVEL_INFO);
    if (pilot_open(client, config, &pilot, &err) < 0) {
        close(signals);
        return client_fail(client, EXIT_LOCAL, &err);
    }
    notify_ready();
    do
        pilot_look(&pilot);
    while (!once && !wait_or_end(signals, config->interval_ms));
    int code = once && pilot.trouble[0] ? EXIT_UNREACHABLE : EXIT_DONE;
    notify_stopping();
    pilot_close(&pilot);
    close(signals);
    return code;
}

static int pilot_status(struct client *client, const struct pilot_config *config)
{
    struct msg_table table;
    struct err err;
    if (status_table(config, &client->arena, &table, &err) < 0)
        return client_fail(client, EXIT_LOCAL, &err);
    return client_table(client, &table, headings, ARRAY_COUNT(headings), "no pools");
}

static int run(struct client *client, const struct args *args)
{
    const char *action = args->word_count ? args->words[0] : "status";
    struct pilot_config config;
    bool runs = strcmp(action, "run") == 0, checks = strcmp(action, "check") == 0;
    if (!runs && !checks && strcmp(action, "status") != 0)
        return client_failf(client, EXIT_USAGE,
                            "there is no 'pilot %s', expected run, status or check", action);
    int code = config_load(client, args, &config);
    if (code != EXIT_DONE)
        return code;
    if (runs)
        code = pilot_run(client, &config, args_has(args, "once"));
    else if (!checks)
        code = pilot_status(client, &config);
    pilot_config_done(&config);
    return code;
}

const struct verb verb_pilot = {
    .name = "pilot",
    .words = "[run|status|check]",
    .summary = "workers in allocations of Slurm, as many as jobs wait for",
    .text =
        "pilot run watches the jobs that wait for room and asks Slurm for allocations whose "
        "workers "
        "could take them, within the bounds of its pools; workers leave when there is nothing to "
        "do, "
        "and allocations that have not begun are taken back when nobody waits any more. After one "
        "that failed a pool waits, longer each time; one that was preempted or cancelled, or lost "
        "a "
        "node, counts as what it is and not as a failure. It may be killed at any time and goes on "
        "where it was. Its key has role pilot: it can ask, and bring in workers of its own.\n\n"
        "pilot status shows what it last saw and did; pilot check reads the configuration alone. "
        "deploy/slurm/README.md explains the file.",
    .choices = "run status check",
    .words_max = 1,
    VERB_OPTIONS(options),
    .run = run,
};
