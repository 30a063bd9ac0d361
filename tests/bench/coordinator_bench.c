/* link: coordinator-store common-net
 *
 * coordinator_bench.c - the real coordinator on a real PostgreSQL, with workers that only pretend.
 *
 *   coordinator_bench [--program PATH] [--jobs N] [--workers N] [--points N] [--history N]
 *
 * --history puts so many finished jobs, with attempts and events, into the database first.
 * Prints, each with its base of the same run:
 *   - submit: durable submits/s of one client, against a multi-row INSERT of the same rows
 *   - jobs: submit to done, of jobs whose workers answer at once
 *   - latency: submit to START received, one job at a time on an idle cluster
 *   - metrics: points/s until acknowledged, that is durable
 * Absolute figures belong to the machine; ratios are what to compare. */
#include "common/base/clock.h"
#include "common/base/mem.h"
#include "common/net/keys.h"
#include "common/net/peer.h"

#include "tests/lib/pg.h"

#define WORKERS_MAX     64
#define JOBS_PER_SUBMIT 5000u
#define REPORT_POINTS   2048u

struct bench;

struct fake_worker {
    struct bench *bench;
    struct peer *peer;
    struct keypair keys;
    char name[32];
    bool joined, quiet; /* quiet: starts are noted, not answered */
};

struct bench {
    struct pg_server server;
    char folder[200], endpoint[256], db[512];
    const char *program;
    pid_t coordinator;
    struct loop *loop;
    struct keypair server_keys, client_keys;
    struct peer *client;
    struct fake_worker workers[WORKERS_MAX];
    size_t worker_count, joined;
    uint64_t started, finished, start_us, acked_seq, attempt_id;
    struct fake_worker *last_started;
};

static void die(const char *what, const struct err *err)
{
    printf("%s: %s\n", what, err ? err->text : "");
    abort();
}

/* ---- pretending workers -----------------------------------------------------------------------
 */

static void worker_join(struct fake_worker *worker)
{
    struct err err;
    struct message message = {.tag = MSG_WORKER_JOIN};

    message.u.worker_join = (struct msg_worker_join){.name = worker->name,
                                                     .incarnation = 1,
                                                     .host = "bench",
                                                     .cores = 512,
                                                     .memory_bytes = (uint64_t)1 << 42};
    if (peer_send(worker->peer, &message, NULL, &err) < 0)
        die("joining", &err);
}

static void worker_up(void *user, const struct msg_welcome *welcome)
{
    (void)welcome;
    worker_join(user);
}

static void on_start(struct fake_worker *worker, const struct msg_start *start)
{
    struct bench *bench = worker->bench;
    struct err err;
    struct rec_report reports[2] = {
        {.seq = 1, .kind = REPORT_STARTED, .time_us = clock_wall_us(), .meta = "{\"cores\":[0]}"},
        {.seq = 2,
         .kind = REPORT_FINISHED,
         .time_us = clock_wall_us(),
         .cause = "success",
         .meta = "{\"wall_ms\":1}"}};
    struct message message = {.tag = MSG_REPORT};

    bench->started++;
    bench->start_us = clock_steady_us();
    bench->attempt_id = start->attempt_id;
    bench->last_started = worker;
    message.u.report = (struct msg_report){.attempt_id = start->attempt_id,
                                           .reports = reports,
                                           .reports_count = worker->quiet ? 1 : 2};
    if (peer_send(worker->peer, &message, NULL, &err) < 0)
        die("reporting", &err);
}

static void worker_message(void *user, const struct envelope *envelope,
                           const struct message *message)
{
    struct fake_worker *worker = user;
    struct bench *bench = worker->bench;

    (void)envelope;
    if (message->tag == MSG_WORKER_WELCOME) {
        bench->joined += !worker->joined;
        worker->joined = true;
    } else if (message->tag == MSG_START) {
        on_start(worker, &message->u.start);
    } else if (message->tag == MSG_REPORT_ACK) {
        bench->finished += message->u.report_ack.seq == 2;
        bench->acked_seq = message->u.report_ack.seq;
    } else if (message->tag == MSG_REFUSED) {
        printf("worker refused: %s\n", message->u.refused.text);
        abort();
    }
}

/* ---- set-up ------------------------------------------------------------------------------------
 */

static struct peer *connect_peer(struct bench *bench, const struct keypair *keys,
                                 const char *program, void *user, struct fake_worker *worker)
{
    const char *endpoints[] = {bench->endpoint};
    struct peer_config config = {.endpoints = endpoints,
                                 .endpoint_count = 1,
                                 .server_key = bench->server_keys.public_key,
                                 .keys = keys,
                                 .program = program,
                                 .version = "bench",
                                 .queue_messages = 100000,
                                 .user = user,
                                 .on_up = worker ? worker_up : NULL,
                                 .on_message = worker ? worker_message : NULL};
    struct peer *peer;
    struct err err;

    if (peer_open(bench->loop, &config, &peer, &err) < 0)
        die("connecting", &err);
    return peer;
}

static void run_until(struct bench *bench, const uint64_t *counter, uint64_t wanted)
{
    struct err err;
    uint64_t end_ms = clock_steady_ms() + 300000;

    while (*counter < wanted) {
        if (loop_once(bench->loop, 100, &err) < 0)
            die("loop", &err);
        if (clock_steady_ms() > end_ms) {
            printf("only %llu of %llu within 300 s\n", (unsigned long long)*counter,
                   (unsigned long long)wanted);
            abort();
        }
    }
}

static void start_coordinator(struct bench *bench)
{
    char key[300], principals[300], text[WORKERS_MAX * 100];
    size_t used =
        (size_t)snprintf(text, sizeof text, "bench admin %s\n", bench->client_keys.public_key);
    struct err err;

    for (size_t i = 0; i < bench->worker_count; i++)
        used += (size_t)snprintf(text + used, sizeof text - used, "%s worker %s\n",
                                 bench->workers[i].name, bench->workers[i].keys.public_key);
    snprintf(key, sizeof key, "%s/server.key", bench->folder);
    snprintf(principals, sizeof principals, "%s/principals", bench->folder);
    if (file_replace(principals, text, used, 0600, &err) < 0 ||
        keypair_write(key, &bench->server_keys, &err) < 0)
        die("writing keys", &err);
    bench->coordinator = fork();
    if (bench->coordinator == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        execl(bench->program, bench->program, "--db", bench->db, "--key", key, "--listen",
              bench->endpoint, "--principals", principals, "--single", "--log-level", "warn", NULL);
        _exit(127);
    }
}

/* Jobs that ended before: what a cluster of some years holds. Numbers are as if they had come
 * through the coordinator, which goes on behind the greatest. */
static void fill_history(struct bench *bench, uint64_t jobs)
{
    static const char *const statements[] = {
        "INSERT INTO athanor.experiment (experiment_id, name, account, created_at)"
        " VALUES (1, 'past', 'bench', now() - interval '1 day')",
        "INSERT INTO athanor.job (job_id, experiment_id, name, kind, recipe, account, submit_key,"
        " submit_index, spec, ranks, cores, memory_bytes, gpus, submitted_at, priority, state,"
        " held, cause, attempt_count, attempts_spent, started_at, ended_at)"
        " SELECT i, 1, 'past-' || i, 'command', '', 'bench', decode(md5(i::text), 'hex'), 0,"
        " '{\"command\": [\"true\"]}', 1, 1, 16777216, 0, now() - interval '1 day', 0,"
        " 'SUCCEEDED', false, 'success', 1, 1, now() - interval '1 day', now() - interval '1 day'"
        " FROM generate_series(1, %1$llu::bigint) AS i",
        "INSERT INTO athanor.attempt (attempt_id, job_id, number, worker_id, epoch, placed_at,"
        " state, cause, placement, usage, started_at, ended_at)"
        " SELECT i, i, 1, 1, 1, now() - interval '1 day', 'ENDED', 'success', '{}', '{}',"
        " now() - interval '1 day', now() - interval '1 day'"
        " FROM generate_series(1, %1$llu::bigint) AS i",
        "INSERT INTO athanor.job_event (event_id, at, job_id, attempt_id, worker_id, name)"
        " SELECT 3 * i + k, now() - interval '1 day', i, i, 1, 'past'"
        " FROM generate_series(1, %1$llu::bigint) AS i, generate_series(0, 2) AS k",
        "INSERT INTO athanor.report_cursor (attempt_id, node, seq)"
        " SELECT i, 0, 2 FROM generate_series(1, %1$llu::bigint) AS i",
        "VACUUM ANALYZE",
    };
    char statement[1200];
    pid_t pid = fork();

    if (pid == 0) {
        execl(bench->program, bench->program, "--db", bench->db, "--migrate", "--log-level",
              "error", NULL);
        _exit(127);
    }
    waitpid(pid, NULL, 0);
    PGconn *pg = pg_open(bench->db);
    for (size_t i = 0; i < ARRAY_COUNT(statements); i++) {
        snprintf(statement, sizeof statement, statements[i], (unsigned long long)jobs);
        PGresult *done = PQexec(pg, statement);
        if (PQresultStatus(done) != PGRES_COMMAND_OK) {
            printf("history: %s", PQerrorMessage(pg));
            abort();
        }
        PQclear(done);
    }
    PQfinish(pg);
    printf("history  %10llu finished jobs in the database\n", (unsigned long long)jobs);
}

static void set_up(struct bench *bench, uint64_t history)
{
    bench->server.durable = true;
    if (!pg_start(&bench->server))
        exit(77);
    snprintf(bench->db, sizeof bench->db, "%s", pg_database(&bench->server));
    snprintf(bench->folder, sizeof bench->folder, "/tmp/athanor-bench-XXXXXX");
    if (!mkdtemp(bench->folder))
        die("mkdtemp", NULL);
    snprintf(bench->endpoint, sizeof bench->endpoint, "ipc://%s/socket", bench->folder);
    keypair_make(&bench->server_keys);
    keypair_make(&bench->client_keys);
    for (size_t i = 0; i < bench->worker_count; i++) {
        keypair_make(&bench->workers[i].keys);
        snprintf(bench->workers[i].name, sizeof bench->workers[i].name, "w%03zu", i);
        bench->workers[i].bench = bench;
    }
    if (history)
        fill_history(bench, history);
    start_coordinator(bench);
    bench->loop = loop_new();
    bench->client = connect_peer(bench, &bench->client_keys, "athanor", bench, NULL);
}

static void workers_join(struct bench *bench)
{
    for (size_t i = 0; i < bench->worker_count; i++)
        bench->workers[i].peer = connect_peer(bench, &bench->workers[i].keys, "athanor-worker",
                                              &bench->workers[i], &bench->workers[i]);
    run_until(bench, &bench->joined, bench->worker_count);
}

static void tear_down(struct bench *bench)
{
    struct err err;

    peer_close(bench->client);
    for (size_t i = 0; i < bench->worker_count; i++)
        peer_close(bench->workers[i].peer);
    loop_free(bench->loop);
    kill(bench->coordinator, SIGTERM);
    waitpid(bench->coordinator, NULL, 0);
    pg_stop(&bench->server);
    if (file_remove_tree(bench->folder, &err) < 0)
        printf("%s\n", err.text);
}

/* ---- submitting --------------------------------------------------------------------------------
 */

static uint64_t submit(struct bench *bench, const char *name, uint64_t count, bool hold)
{
    struct arena arena = {0};
    struct err err;
    uint8_t key[16];
    struct message request = {.tag = MSG_SUBMIT}, reply;
    char *yaml =
        mem_printf("athanor: 1\nname: %s\nkind: command\n%scommand: [\"true\"]\n"
                   "resources: {memory: 16MiB}\nhold: %s\n",
                   name, count > 1 ? mem_printf("array: %llu\n", (unsigned long long)count) : "",
                   hold ? "true" : "false");

    random_bytes(key, sizeof key);
    request.u.submit = (struct msg_submit){.submit_key = {(char *)key, sizeof key},
                                           .file = "bench.yaml",
                                           .yaml = {yaml, strlen(yaml)}};
    if (peer_request(bench->client, &request, false, 120000, &arena, &reply, &err) < 0)
        die("submitting", &err);
    if (reply.tag != MSG_SUBMITTED) {
        printf("submit: %s\n",
               reply.tag == MSG_REFUSED ? reply.u.refused.text : msg_name(reply.tag));
        if (reply.tag == MSG_REFUSED && reply.u.refused.refusals_count)
            printf("  %s\n", reply.u.refused.refusals[0].text);
        abort();
    }
    uint64_t jobs = reply.u.submitted.jobs_count;
    arena_done(&arena);
    mem_free(yaml);
    return jobs;
}

static double seconds_since(uint64_t us)
{
    return (double)(clock_steady_us() - us) / 1e6;
}

/* Multi-row INSERTs of the same rows into a table with the same indexes and constraints. */
static double insert_rate(struct bench *bench, uint64_t jobs)
{
    char statement[600];
    PGconn *pg = pg_open(bench->db);
    PGresult *texts;

    PQclear(PQexec(pg, "CREATE TABLE athanor.job_again (LIKE athanor.job INCLUDING ALL,"
                       " FOREIGN KEY (experiment_id) REFERENCES athanor.experiment)"));
    snprintf(statement, sizeof statement,
             "SELECT 'INSERT INTO athanor.job_again VALUES ' || string_agg((SELECT '(' ||"
             " string_agg(quote_nullable(v.value), ',' ORDER BY v.ordinality) || ')' FROM"
             " json_each_text(to_json(j)) WITH ORDINALITY v), ',') FROM athanor.job j"
             " WHERE j.ended_at IS NULL GROUP BY job_id / 1000 ORDER BY min(job_id)");
    texts = PQexec(pg, statement);
    if (PQresultStatus(texts) != PGRES_TUPLES_OK) {
        printf("%s", PQerrorMessage(pg));
        abort();
    }
    uint64_t from_us = clock_steady_us();
    for (int i = 0; i < PQntuples(texts); i++) {
        PGresult *done = PQexec(pg, PQgetvalue(texts, i, 0));
        if (PQresultStatus(done) != PGRES_COMMAND_OK) {
            printf("%s", PQerrorMessage(pg));
            abort();
        }
        PQclear(done);
    }
    double rate = (double)jobs / seconds_since(from_us);
    PQclear(texts);
    PQfinish(pg);
    return rate;
}

static void bench_submit(struct bench *bench, uint64_t jobs)
{
    uint64_t done = 0, from_us;

    submit(bench, "warm", 1, true);
    from_us = clock_steady_us();
    while (done < jobs)
        done += submit(bench, "held", min_u64(JOBS_PER_SUBMIT, jobs - done), true);
    double rate = (double)done / seconds_since(from_us);
    double base = insert_rate(bench, done + 1);
    printf("submit   %10.0f jobs/s   multi-row INSERT %.0f rows/s   ratio %.2f\n", rate, base,
           rate / base);
}

/* Processor time of a process so far. */
static double cpu_seconds(pid_t pid)
{
    char path[64];
    unsigned long user = 0, kernel = 0;

    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    FILE *file = fopen(path, "r");
    if (file) {
        if (fscanf(file, "%*d (%*[^)]) %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user,
                   &kernel) != 2)
            user = kernel = 0;
        fclose(file);
    }
    return (double)(user + kernel) / (double)sysconf(_SC_CLK_TCK);
}

static pid_t writer_pid(struct bench *bench)
{
    return atoi(pg_ask(bench->db, "SELECT pid FROM pg_stat_activity WHERE application_name LIKE"
                                  " '%%writer'"));
}

/* ---- running -----------------------------------------------------------------------------------
 */

static void bench_jobs(struct bench *bench, uint64_t jobs)
{
    pid_t writer = writer_pid(bench);
    double ours = cpu_seconds(bench->coordinator), theirs = cpu_seconds(writer);
    double here = cpu_seconds(getpid());
    uint64_t submitted = 0, from_us = clock_steady_us(), before = bench->finished;

    while (submitted < jobs)
        submitted += submit(bench, "run", min_u64(JOBS_PER_SUBMIT, jobs - submitted), false);
    run_until(bench, &bench->finished, before + submitted);
    printf("jobs     %10.0f jobs/s   submit -> dispatch -> done, %zu workers, durable\n",
           (double)submitted / seconds_since(from_us), bench->worker_count);
    printf("         %10.0f us of processor a job in the coordinator, %.0f us in PostgreSQL, "
           "%.0f us in the client and workers here\n",
           (cpu_seconds(bench->coordinator) - ours) / (double)submitted * 1e6,
           (cpu_seconds(writer) - theirs) / (double)submitted * 1e6,
           (cpu_seconds(getpid()) - here) / (double)submitted * 1e6);
}

static int compare(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static void bench_latency(struct bench *bench)
{
    uint64_t times[300];

    for (size_t i = 0; i < ARRAY_COUNT(times); i++) {
        uint64_t before = bench->finished, from_us = clock_steady_us();
        submit(bench, "one", 1, false);
        run_until(bench, &bench->finished, before + 1);
        times[i] = bench->start_us - from_us;
    }
    qsort(times, ARRAY_COUNT(times), sizeof times[0], compare);
    printf("latency  %10.2f ms p50   %.2f ms p99   submit -> START received\n",
           (double)times[ARRAY_COUNT(times) / 2] / 1e3,
           (double)times[ARRAY_COUNT(times) * 99 / 100] / 1e3);
}

static void bench_metrics(struct bench *bench, uint64_t points)
{
    static struct rec_report reports[REPORT_POINTS];
    uint64_t before = bench->started, seq = 1;
    struct err err;

    for (size_t i = 0; i < bench->worker_count; i++)
        bench->workers[i].quiet = true;
    submit(bench, "metrics", 1, false);
    run_until(bench, &bench->started, before + 1);
    run_until(bench, &bench->acked_seq, 1);
    uint64_t attempt_id = bench->attempt_id, from_us = clock_steady_us();
    struct fake_worker *worker = bench->last_started;
    bench->acked_seq = 1;
    while (seq < points) {
        struct message message = {.tag = MSG_REPORT};
        for (size_t i = 0; i < REPORT_POINTS; i++) {
            seq++;
            reports[i] = (struct rec_report){.seq = seq,
                                             .kind = REPORT_METRIC,
                                             .time_us = clock_wall_us(),
                                             .step = seq,
                                             .name = "loss",
                                             .value = 1.0 / (double)seq};
        }
        message.u.report = (struct msg_report){.attempt_id = attempt_id,
                                               .reports = reports,
                                               .reports_count = REPORT_POINTS};
        if (peer_send(worker->peer, &message, NULL, &err) < 0)
            die("reporting", &err);
        if (seq > bench->acked_seq + 200000)
            run_until(bench, &bench->acked_seq, seq - 200000);
    }
    run_until(bench, &bench->acked_seq, seq);
    printf("metrics  %10.0f points/s durable\n", (double)seq / seconds_since(from_us));
    if (strtoull(pg_ask(bench->db, "SELECT count(*) FROM athanor.metric"), NULL, 10) != seq - 1) {
        printf("metrics: stored %s, sent %llu\n",
               pg_ask(bench->db, "SELECT count(*) FROM athanor.metric"),
               (unsigned long long)seq - 1);
        abort();
    }
}

int main(int argc, char **argv)
{
    static struct bench bench = {.program = "build/bin/athanor-coordinator", .worker_count = 8};
    uint64_t jobs = 50000, points = 1000000, history = 0;

    for (int i = 1; i + 1 < argc; i += 2) {
        if (strcmp(argv[i], "--program") == 0)
            bench.program = argv[i + 1];
        else if (strcmp(argv[i], "--jobs") == 0)
            jobs = strtoull(argv[i + 1], NULL, 10);
        else if (strcmp(argv[i], "--workers") == 0)
            bench.worker_count = min_u64(strtoull(argv[i + 1], NULL, 10), WORKERS_MAX);
        else if (strcmp(argv[i], "--points") == 0)
            points = strtoull(argv[i + 1], NULL, 10);
        else if (strcmp(argv[i], "--history") == 0)
            history = strtoull(argv[i + 1], NULL, 10);
    }
    setvbuf(stdout, NULL, _IOLBF, 0);
    set_up(&bench, history);
    bench_submit(&bench, jobs);
    workers_join(&bench);
    bench_jobs(&bench, jobs);
    bench_latency(&bench);
    bench_metrics(&bench, points);
    tear_down(&bench);
    return 0;
}
