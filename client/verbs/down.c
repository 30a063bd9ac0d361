/* down.c - athanor down: stops what up started, in order. */
#include "client/client.h"
#include "client/cluster.h"
#include "client/daemons.h"
#include "client/postgres.h"
#include "client/verbs.h"
#include "common/base/clock.h"
#include "common/base/file.h"

#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define JOBS_END_MS   120000u /* a stop_grace of a minute, twice; else as --timeout says */
#define DAEMON_END_MS 20000u
#define POLL_MS       100
#define PROBE_MS      3000u

static const struct option options[] = {
    {"force", 'f', VALUE_NONE, NULL, "cancel running jobs first", false},
    {"keep-jobs", 'k', VALUE_NONE, NULL,
     "let running jobs run on; the next 'athanor up' finds them again", false},
};

/* Once by the coordinator, and once by the shepherds themselves. */
static uint64_t jobs_end_ms(const struct client *client)
{
    return clock_steady_ms() + args_duration_ms(client->args, "timeout", JOBS_END_MS);
}

static void pause_a_little(void)
{
    const struct timespec pause = {0, POLL_MS * 1000000L};
    nanosleep(&pause, NULL);
}

/* Jobs that occupy workers, as a table; false when the coordinator does not answer. */
static bool running_jobs(struct client *client, struct msg_table *out)
{
    struct rec_name_value argument = {"state", "placed,running,stopping"};
    struct message request = {.tag = MSG_QUERY}, reply;
    struct err err;
    request.u.query = (struct msg_query){"jobs", &argument, 1, QUERY_ROWS_MAX, NULL};
    if (client_try(client, &request, &client->arena, &reply, &err) < 0 || reply.tag != MSG_TABLE ||
        table_check(&reply.u.table, &err) < 0)
        return false;
    *out = reply.u.table;
    return true;
}

static bool cancel_jobs(struct client *client, const struct msg_table *jobs)
{
    size_t count = table_rows(jobs);
    struct rec_name_value *targets = arena_alloc(&client->arena, (count + 1) * sizeof *targets);
    struct message request = {.tag = MSG_CONTROL}, reply;
    struct err err;
    for (size_t i = 0; i < count; i++)
        targets[i] = (struct rec_name_value){"job", table_text(jobs, i, "job_id")};
    request.u.control = (struct msg_control){"cancel", targets, count, "athanor down --force"};
    return client_try(client, &request, &client->arena, &reply, &err) == 0;
}

/* Held jobs and those that wait stay for the next `up`. What is placed while others are cancelled
 * is cancelled in the next round. */
static bool end_jobs_by_coordinator(struct client *client)
{
    uint64_t until_ms = jobs_end_ms(client);
    struct msg_table jobs;
    while (running_jobs(client, &jobs)) {
        if (table_rows(&jobs) == 0)
            return true;
        if (clock_steady_ms() >= until_ms || !cancel_jobs(client, &jobs))
            return false;
        for (int i = 0; i < 5; i++)
            pause_a_little();
    }
    return false;
}

static size_t shepherds_left(struct client *client, int signal_number, uint64_t until_ms)
{
    size_t left = daemon_shepherds(&client->arena, client->home, signal_number);
    while (left > 0 && clock_steady_ms() < until_ms) {
        pause_a_little();
        left = daemon_shepherds(&client->arena, client->home, 0);
    }
    return left;
}

/* Without a coordinator, or when it could not: the shepherds themselves, by their stop ladder. One
 * that waits for room on a full disk gives that up some seconds later. One that does not react at
 * all, as when it is stopped, is killed, which its ranks do not outlive. */
static void end_shepherds(struct client *client, struct buf *out)
{
    size_t left = shepherds_left(client, SIGTERM,
                                 max_u64(jobs_end_ms(client), clock_steady_ms() + DAEMON_END_MS));
    if (left == 0)
        return;
    buf_printf(out,
               "%zu shepherd%s did not end and %s killed: the next 'athanor up' sweeps what %s "
               "left\n",
               left, left == 1 ? "" : "s", left == 1 ? "was" : "were",
               left == 1 ? "it has" : "they have");
    (void)shepherds_left(client, SIGKILL, clock_steady_ms() + DAEMON_END_MS);
}

static int refuse_running(struct client *client, size_t count)
{
    return client_failf(
        client, EXIT_REFUSED,
        "%zu job%s running: 'athanor down --keep-jobs' lets them run on until the next "
        "'athanor up', 'athanor down --force' cancels them",
        count, count == 1 ? " is" : "s are");
}

static int settle_jobs(struct client *client, const struct args *args, bool can_ask)
{
    struct msg_table jobs = {0};
    client->timeout_ms = PROBE_MS; /* of each question */
    if (args_has(args, "keep-jobs"))
        return EXIT_DONE;
    if (args_has(args, "force")) {
        if (can_ask)
            (void)end_jobs_by_coordinator(client); /* what is left is ended below */
        return EXIT_DONE;
    }
    size_t count = daemon_shepherds(&client->arena, client->home, 0);
    if (can_ask && running_jobs(client, &jobs))
        count = max_u64(count, table_rows(&jobs));
    return count ? refuse_running(client, count) : EXIT_DONE;
}

/* Workers that run: also those of an earlier, larger `up`. */
static void stop_workers(struct client *client, struct buf *out)
{
    for (size_t i = 0; i < CLUSTER_WORKERS_MAX; i++) {
        const char *name = cluster_worker_name(&client->arena, i);
        if (daemon_stop(&client->arena, client->home, name, SIGTERM, DAEMON_END_MS))
            buf_printf(out, "%s stopped\n", name);
    }
}

static bool coordinator_runs(struct client *client)
{
    for (size_t i = 0; i < CLUSTER_COORDINATORS_MAX; i++)
        if (daemon_find(&client->arena, client->home, cluster_coordinator_name(&client->arena, i)))
            return true;
    return false;
}

/* The later ones first: mostly they stand by, and need not take over for a moment. */
static void stop_coordinators(struct client *client, struct buf *out)
{
    for (size_t i = CLUSTER_COORDINATORS_MAX; i-- > 0;) {
        const char *name = cluster_coordinator_name(&client->arena, i);
        if (daemon_stop(&client->arena, client->home, name, SIGTERM, DAEMON_END_MS))
            buf_printf(out, "%s stopped\n", name);
    }
}

static int run(struct client *client, const struct args *args)
{
    struct arena *arena = &client->arena;
    struct buf out = {0};
    struct err err;
    if (args_has(args, "force") && args_has(args, "keep-jobs"))
        return client_failf(client, EXIT_USAGE, "--force and --keep-jobs exclude each other");
    if (!file_exists(arena_printf(arena, "%s/run", client->home)))
        return client_failf(client, EXIT_USAGE, "there is no cluster in '%s'", client->home);
    if (daemon_lock(arena, client->home, &err) < 0)
        return client_fail(client, EXIT_LOCAL, &err);
    int code = settle_jobs(client, args, coordinator_runs(client));
    if (code != EXIT_DONE)
        return code;
    stop_workers(client, &out);
    if (args_has(args, "force")) {
        end_shepherds(client, &out);
    }
    stop_coordinators(client, &out);
    if (postgres_down(arena, client->home))
        buf_puts(&out, "postgres stopped\n");
    if (out.length == 0)
        buf_printf(&out, "nothing was running in %s\n", client->home);
    int printed = client_print(client, &out);
    buf_done(&out);
    return code != EXIT_DONE ? code : printed;
}

const struct verb verb_down = {
    .name = "down",
    .words = "",
    .summary = "stop the cluster on this machine",
    .text =
        "Stops the workers, the coordinator and the private PostgreSQL, in this order. Refuses "
        "while jobs run, unless told what is to become of them. Everything stored stays; 'athanor "
        "up' brings it back.\n\n"
        "With --force jobs get --timeout (default: 2m) to end after they are cancelled, and once "
        "more after their nodes have; then they are killed. How a job ended that a full disk keeps "
        "from saying so is not known to the next 'athanor up', which takes it for lost.",
    VERB_OPTIONS(options),
    .run = run,
};
