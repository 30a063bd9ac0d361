/* up.c - athanor up: a whole cluster on this machine, or what is missing of it. */
#include "client/client.h"
#include "client/cluster.h"
#include "client/daemons.h"
#include "client/postgres.h"
#include "client/verbs.h"
#include "common/base/clock.h"
#include "common/base/file.h"
#include "common/net/keys.h"
#include "common/net/loop.h"

#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#define READY_MS  60000u
#define POLL_MS   100u
#define PARTS_MAX (CLUSTER_WORKERS_MAX + CLUSTER_COORDINATORS_MAX + 1)
#define END_MS    20000u

static const struct option options[] = {
    {"workers", 'w', VALUE_COUNT, "N", "worker daemons on this machine (default: as before, or 1)",
     false},
    {"cores", 'c', VALUE_COUNT, "N", "cores that each offers (default: the machine's, shared out)",
     false},
    {"coordinators", 0, VALUE_COUNT, "N",
     "coordinators: one leads, the others take over when it ends (default: as before, or 1)",
     false},
    {"listen", 0, VALUE_TEXT, "ENDPOINT",
     "where the coordinator listens: tcp://ADDRESS:PORT or ipc://PATH (default: a unix socket); "
     "further ones choose a port of the same address",
     true},
};

/* What is printed at the end. */
struct part {
    const char *name, *where;
    pid_t pid;
    bool started; /* now; false: it ran already */
};

struct up {
    struct client *client;
    struct arena *arena;
    const char *home, *programs;
    struct cluster cluster;
    uint64_t coordinators_before;
    struct part parts[PARTS_MAX];
    size_t part_count;
};

static const char *in_home(const struct up *up, const char *name)
{
    return arena_printf(up->arena, "%s/%s", up->home, name);
}

static void note(struct up *up, const char *name, pid_t pid, bool started, const char *where)
{
    CHECK(up->part_count < PARTS_MAX);
    up->parts[up->part_count++] = (struct part){name, where, pid, started};
}

/* ---- preparing ---------------------------------------------------------------------------- */

static int read_wishes(struct up *up, const struct args *args, struct err *err)
{
    struct cluster *cluster = &up->cluster;
    if (cluster_load(up->arena, up->home, cluster, err) < 0)
        return -1;
    cluster->workers = args_count(args, "workers", cluster->workers);
    cluster->cores = args_count(args, "cores", cluster->cores);
    up->coordinators_before = cluster->coordinators;
    cluster->coordinators = args_count(args, "coordinators", cluster->coordinators);
    if (cluster->coordinators < 1 || cluster->coordinators > CLUSTER_COORDINATORS_MAX)
        return err_set(err, ERR_INVALID, "--coordinators is %" PRIu64 ", expected 1..%u",
                       cluster->coordinators, CLUSTER_COORDINATORS_MAX);
    if (cluster->workers > CLUSTER_WORKERS_MAX)
        return err_set(err, ERR_INVALID, "--workers is %" PRIu64 ", expected at most %u",
                       cluster->workers, CLUSTER_WORKERS_MAX);
    if (args_has(args, "listen")) {
        cluster->listen_count = 0;
        memset(cluster->others, 0, sizeof cluster->others);
    }
    for (size_t i = 0; i < args->given_count; i++)
        if (strcmp(args->given[i].option->name, "listen") == 0 &&
            home_endpoints_split(up->arena, args->given[i].value, cluster->listen,
                                 &cluster->listen_count, err) < 0)
            return -1;
    return 0;
}

static int make_folders(const struct up *up, struct err *err)
{
    static const char *const names[] = {"keys", "run", "log", "workers", "jobs"};
    /* As root others must pass through: the database and jobs run under other accounts. */
    unsigned mode = geteuid() == 0 ? 0755 : 0700;
    if (file_make_folders(up->home, mode, err) < 0)
        return -1;
    for (size_t i = 0; i < ARRAY_COUNT(names); i++)
        if (file_make_folders(in_home(up, names[i]), strcmp(names[i], "keys") ? mode : 0700, err) <
            0)
            return -1;
    return 0;
}

static int make_key(const struct up *up, const char *name, struct err *err)
{
    const char *path = arena_printf(up->arena, "%s/keys/%s.key", up->home, name);
    struct keypair keys;
    if (file_exists(path))
        return 0;
    keypair_make(&keys);
    int rc = keypair_write(path, &keys, err);
    keypair_wipe(&keys);
    return rc;
}

/* ---- the database ------------------------------------------------------------------------- */

static int database_up(struct up *up, struct err *err)
{
    const char *given = getenv("ATHANOR_DB");
    bool started;
    pid_t pid;
    if (given && *given) {
        const char *line = arena_printf(up->arena, "%s\n", given);
        up->cluster.external_db = true;
        return file_replace(in_home(up, "conninfo"), line, strlen(line), 0600, err);
    }
    if (up->cluster.external_db)
        return 0;
    if (postgres_up(up->arena, up->home, &started, &pid, err) < 0)
        return -1;
    note(up, "postgres", pid, started, in_home(up, "db"));
    return 0;
}

/* ---- the coordinator ---------------------------------------------------------------------- */

static const char *joined(const struct up *up, const char *const *texts, size_t count)
{
    const char *out = texts[0];
    for (size_t i = 1; i < count; i++)
        out = arena_printf(up->arena, "%s,%s", out, texts[i]);
    return out;
}

static const char *coordinator_listen(const struct up *up, size_t index)
{
    return index ? up->cluster.others[index]
                 : joined(up, up->cluster.listen, up->cluster.listen_count);
}

static int coordinator_start(struct up *up, size_t index, pid_t *out_pid, struct err *err)
{
    const char *conninfo;
    if (home_conninfo(up->arena, up->home, &conninfo, err) < 0)
        return -1;
    const char *const settings[] = {arena_printf(up->arena, "ATHANOR_DB=%s", conninfo), NULL};
    const char *const arguments[] = {"athanor-coordinator",
                                     "--key",
                                     in_home(up, "keys/server.key"),
                                     "--listen",
                                     coordinator_listen(up, index),
                                     "--admin",
                                     arena_printf(up->arena, "%s:%s", home_user(up->arena),
                                                  in_home(up, "keys/client.key.pub")),
                                     up->cluster.coordinators == 1 ? "--single" : NULL,
                                     NULL};
    struct daemon_spec spec = {.home = up->home,
                               .name = cluster_coordinator_name(up->arena, index),
                               .arguments = arguments,
                               .settings = settings};
    spec.program = arena_printf(up->arena, "%s/athanor-coordinator", up->programs);
    return daemon_start(up->arena, &spec, out_pid, err);
}

/* Sleeps between two looks at something that is to come. */
static int look_again(struct up *up, const char *name, uint64_t until_ms, struct err *err)
{
    if (!daemon_find(up->arena, up->home, name))
        return err_set(err, ERR_CLOSED, "%s ended:\n%s", name,
                       daemon_log_tail(up->arena, up->home, name));
    uint64_t now_ms = clock_steady_ms(), next_ms = now_ms + POLL_MS;
    if (now_ms >= until_ms)
        return err_set(err, ERR_TIMEOUT, "%s is not ready after %u s:\n%s", name, READY_MS / 1000,
                       daemon_log_tail(up->arena, up->home, name));
    while ((now_ms = clock_steady_ms()) < next_ms)
        if (loop_once(up->client->loop, next_ms - now_ms, err) < 0)
            return -1;
    return 0;
}

static int coordinators_await(struct up *up, struct err *err)
{
    uint64_t until_ms = clock_steady_ms() + READY_MS;
    struct message request = {.tag = MSG_QUERY, .u.query = {.name = "status", .limit = 1}}, reply;
    struct err ignored;
    uint64_t timeout_ms = up->client->timeout_ms;
    up->client->timeout_ms = 1000; /* a look; what catches up after an outage takes longer */
    while (client_try(up->client, &request, up->arena, &reply, &ignored) < 0 ||
           reply.tag != MSG_TABLE)
        for (size_t i = 0; i < up->cluster.coordinators; i++)
            if (look_again(up, cluster_coordinator_name(up->arena, i), until_ms, err) < 0)
                return -1;
    up->client->timeout_ms = timeout_ms;
    return 0;
}

/* Ends those that are too many, and all when a lonely one is to get company or the other way
 * round: it would not compete. Jobs run on meanwhile. */
static void coordinators_end(struct up *up)
{
    bool all = (up->coordinators_before == 1) != (up->cluster.coordinators == 1);
    for (size_t i = CLUSTER_COORDINATORS_MAX; i-- > (all ? 0 : up->cluster.coordinators);)
        daemon_stop(up->arena, up->home, cluster_coordinator_name(up->arena, i), SIGTERM, END_MS);
}

static int coordinators_up(struct up *up, struct err *err)
{
    pid_t pids[CLUSTER_COORDINATORS_MAX];
    bool started[CLUSTER_COORDINATORS_MAX];
    coordinators_end(up);
    for (size_t i = 0; i < up->cluster.coordinators; i++) {
        pids[i] = daemon_find(up->arena, up->home, cluster_coordinator_name(up->arena, i));
        started[i] = pids[i] == 0;
        if (started[i] && coordinator_start(up, i, &pids[i], err) < 0)
            return -1;
    }
    if (coordinators_await(up, err) < 0)
        return -1;
    for (size_t i = 0; i < up->cluster.coordinators; i++)
        note(up, cluster_coordinator_name(up->arena, i), pids[i], started[i],
             coordinator_listen(up, i));
    return 0;
}

/* ---- workers ------------------------------------------------------------------------------ */

static int worker_enrol(struct up *up, const char *name, struct err *err)
{
    char key[KEY_TEXT_SIZE];
    struct message request = {.tag = MSG_KEY_CHANGE,
                              .u.key_change = {"enrol", name, "worker", key}},
                   reply;
    const char *path = arena_printf(up->arena, "%s/keys/%s.key", up->home, name);
    if (make_key(up, name, err) < 0 || public_key_read(path, key, err) < 0 ||
        client_try(up->client, &request, up->arena, &reply, err) < 0)
        return -1;
    if (reply.tag == MSG_REFUSED)
        return err_set(err, ERR_DENIED, "enrolling %s: %s", name, reply.u.refused.text);
    return 0;
}

static int worker_start(struct up *up, size_t index, const char *name, pid_t *out_pid,
                        struct err *err)
{
    const char *endpoints[HOME_ENDPOINTS_MAX], *arguments[24];
    const char *cpus = cluster_worker_cpus(up->arena, &up->cluster, index);
    uint64_t memory_bytes = cluster_worker_memory(&up->cluster);
    size_t endpoint_count, count = 0;
    if (home_endpoints(up->arena, up->home, endpoints, &endpoint_count, err) < 0)
        return -1;
    const char *const always[] = {"athanor-worker",
                                  "--name",
                                  name,
                                  "--keys",
                                  arena_printf(up->arena, "%s/keys/%s.key", up->home, name),
                                  "--server-key",
                                  in_home(up, "keys/server.key.pub"),
                                  "--coordinator",
                                  joined(up, endpoints, endpoint_count),
                                  "--state",
                                  arena_printf(up->arena, "%s/workers/%s", up->home, name),
                                  "--jobs-dir",
                                  in_home(up, "jobs")};
    for (; count < ARRAY_COUNT(always); count++)
        arguments[count] = always[count];
    if (*cpus) {
        arguments[count++] = "--cores";
        arguments[count++] = cpus;
    }
    if (memory_bytes) {
        arguments[count++] = "--memory";
        arguments[count++] = arena_printf(up->arena, "%" PRIu64 "B", memory_bytes);
    }
    if (geteuid() == 0)
        arguments[count++] = "--allow-root-jobs";
    arguments[count] = NULL;
    struct daemon_spec spec = {.home = up->home, .name = name, .arguments = arguments};
    spec.program = arena_printf(up->arena, "%s/athanor-worker", up->programs);
    return daemon_start(up->arena, &spec, out_pid, err);
}

static bool worker_is_ok(struct up *up, const char *name)
{
    struct rec_name_value argument = {"name", name};
    struct message request = {.tag = MSG_QUERY}, reply;
    struct err err;
    request.u.query = (struct msg_query){"workers", &argument, 1, 1, NULL};
    return client_try(up->client, &request, up->arena, &reply, &err) == 0 &&
           reply.tag == MSG_TABLE && table_check(&reply.u.table, &err) == 0 &&
           strcasecmp(table_text(&reply.u.table, 0, "state"), "ok") == 0;
}

static int workers_up(struct up *up, struct err *err)
{
    bool started[CLUSTER_WORKERS_MAX] = {false};
    for (size_t i = 0; i < up->cluster.workers; i++) {
        const char *name = cluster_worker_name(up->arena, i);
        pid_t pid = daemon_find(up->arena, up->home, name);
        started[i] = pid == 0;
        if (worker_enrol(up, name, err) < 0 ||
            (started[i] && worker_start(up, i, name, &pid, err) < 0))
            return -1;
        const char *cpus = cluster_worker_cpus(up->arena, &up->cluster, i);
        note(up, name, pid, started[i],
             *cpus ? arena_printf(up->arena, "cores %s", cpus) : "all cores");
    }
    for (size_t i = 0; i < up->cluster.workers; i++) {
        const char *name = cluster_worker_name(up->arena, i);
        uint64_t until_ms = clock_steady_ms() + READY_MS;
        while (!worker_is_ok(up, name))
            if (look_again(up, name, until_ms, err) < 0)
                return -1;
    }
    return 0;
}

/* ---- all of it ---------------------------------------------------------------------------- */

static int bring_up(struct up *up, const struct args *args, struct err *err)
{
    if (home_programs(up->arena, &up->programs, err) < 0 || read_wishes(up, args, err) < 0 ||
        make_folders(up, err) < 0 || daemon_lock(up->arena, up->home, err) < 0 ||
        make_key(up, "server", err) < 0 || make_key(up, "client", err) < 0 ||
        database_up(up, err) < 0)
        return -1;
    bool running = daemon_find(up->arena, up->home, "coordinator") != 0;
    if (running && args_has(args, "listen"))
        return err_set(err, ERR_EXISTS,
                       "the coordinator runs already: 'athanor down' before another "
                       "--listen");
    if (cluster_endpoints(up->arena, up->home, &up->cluster, err) < 0 ||
        cluster_save(up->arena, up->home, &up->cluster, err) < 0)
        return -1;
    if (coordinators_up(up, err) < 0 || workers_up(up, err) < 0)
        return -1;
    return 0;
}

static int print_parts(const struct up *up)
{
    static struct rec_column columns[] = {{"part", "text"},
                                          {"state", "text"},
                                          {"pid", "int"},
                                          {"where", "text"}};
    struct msg_table table = {.columns = columns, .columns_count = ARRAY_COUNT(columns)};
    struct buf out = {0};
    table.cells_count = up->part_count * table.columns_count;
    table.cells = arena_alloc(up->arena, (table.cells_count + 1) * sizeof *table.cells);
    for (size_t i = 0; i < up->part_count; i++) {
        struct rec_cell *row = &table.cells[i * table.columns_count];
        row[0].text = up->parts[i].name;
        row[1].text = up->parts[i].started ? "started" : "running";
        row[2].text = arena_printf(up->arena, "%d", (int)up->parts[i].pid);
        row[3].text = up->parts[i].where;
    }
    table_print(&table, NULL, 0, &up->client->style, &out);
    buf_printf(&out, "home: %s\n", up->home);
    int code = client_print(up->client, &out);
    buf_done(&out);
    return code;
}

static int run(struct client *client, const struct args *args)
{
    struct up up = {.client = client, .arena = &client->arena, .home = client->home};
    struct err err;
    if (bring_up(&up, args, &err) < 0)
        return client_fail(client, err.kind == ERR_INVALID ? EXIT_USAGE : EXIT_LOCAL, &err);
    return print_parts(&up);
}

const struct verb verb_up = {
    .name = "up",
    .words = "",
    .summary = "start a cluster on this machine",
    .text =
        "Makes keys and a private PostgreSQL on a unix socket, starts coordinators and workers "
        "in the background, and returns when they are ready. Run again it starts what is "
        "missing, with the wishes of the last time; jobs that run are not touched. Everything "
        "lies below ATHANOR_HOME, so that several clusters fit on one machine.\n\n"
        "With ATHANOR_DB set to a connection string, that PostgreSQL server is used instead of a "
        "private one, now and by later calls of 'athanor up'.",
    VERB_OPTIONS(options),
    .run = run,
};
