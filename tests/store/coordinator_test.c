/* coordinator_test.c - the real program on a real PostgreSQL: leading, standing by, being fenced,
 * refusing strangers, and losing nothing when either is killed. Workers are pretended. */
#include "common/base/clock.h"
#include "common/base/mem.h"
#include "common/net/enrol.h"
#include "common/net/peer.h"

#include "tests/lib/pg.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#define COORDINATORS_MAX 2

static struct pg_server server;

struct cluster {
    char folder[200], program[300], key[300], principals[300], db[512];
    bool logs; /* to FOLDER/INDEX.log, else errors alone to our own stderr */
    char endpoints[COORDINATORS_MAX][256];
    pid_t pids[COORDINATORS_MAX];
    struct keypair server_keys, admin_keys, user_keys, worker_keys;
    struct loop *loop;
    struct peer *admin, *worker;
    uint64_t starts, acked, welcomes, refusals, attempt_id;
    uint64_t epoch; /* newest heard of */
};

static int start(void **state)
{
    (void)state;
    return pg_start(&server) ? 0 : 1;
}

static int stop(void **state)
{
    (void)state;
    pg_stop(&server);
    return 0;
}

/* bin/athanor-coordinator beside the folder of this test program. */
static void find_program(struct cluster *cluster)
{
    char self[256];
    ssize_t length = readlink("/proc/self/exe", self, sizeof self - 1);

    assert_true(length > 0);
    self[length] = 0;
    *strrchr(self, '/') = 0;
    snprintf(cluster->program, sizeof cluster->program, "%s/../bin/athanor-coordinator", self);
}

static void log_path(const struct cluster *cluster, int index, char out[300])
{
    snprintf(out, 300, "%s/%d.log", cluster->folder, index);
}

static void spawn(struct cluster *cluster, int index, bool single)
{
    cluster->pids[index] = fork();
    if (cluster->pids[index] != 0)
        return;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    char log[300];
    log_path(cluster, index, log);
    if (cluster->logs && !freopen(log, "w", stderr))
        _exit(126);
    execl(cluster->program, "athanor-coordinator", "--db", cluster->db, "--key", cluster->key,
          "--listen", cluster->endpoints[index], "--principals", cluster->principals,
          "--leader-lease", "1s", "--heartbeat", "200ms", "--log-level",
          cluster->logs ? "warn" : "error", single ? "--single" : NULL, NULL);
    _exit(127);
}

static void cluster_open(struct cluster *cluster)
{
    char text[600];
    struct err err;

    memset(cluster, 0, sizeof *cluster);
    find_program(cluster);
    snprintf(cluster->db, sizeof cluster->db, "%s", pg_database(&server));
    snprintf(cluster->folder, sizeof cluster->folder, "/tmp/athanor-test-XXXXXX");
    assert_non_null(mkdtemp(cluster->folder));
    snprintf(cluster->key, sizeof cluster->key, "%s/server.key", cluster->folder);
    snprintf(cluster->principals, sizeof cluster->principals, "%s/principals", cluster->folder);
    for (int i = 0; i < COORDINATORS_MAX; i++)
        snprintf(cluster->endpoints[i], sizeof cluster->endpoints[i], "ipc://%s/%d",
                 cluster->folder, i);
    keypair_make(&cluster->server_keys);
    keypair_make(&cluster->admin_keys);
    keypair_make(&cluster->user_keys);
    keypair_make(&cluster->worker_keys);
    snprintf(text, sizeof text, "# who may\nroot admin %s\nann user %s\nw1 worker %s\n",
             cluster->admin_keys.public_key, cluster->user_keys.public_key,
             cluster->worker_keys.public_key);
    assert_int_equal(file_replace(cluster->principals, text, strlen(text), 0600, &err), 0);
    assert_int_equal(keypair_write(cluster->key, &cluster->server_keys, &err), 0);
    cluster->loop = loop_new();
}

static int reap(struct cluster *cluster, int index)
{
    int status = 0;

    for (int i = 0; i < PG_WAIT_TRIES; i++) {
        if (waitpid(cluster->pids[index], &status, WNOHANG) == cluster->pids[index]) {
            cluster->pids[index] = 0;
            return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
        }
        pg_pause();
    }
    fail_msg("coordinator %d does not end", index);
    return -1;
}

static void cluster_close(struct cluster *cluster)
{
    struct err err;

    peer_close(cluster->admin);
    peer_close(cluster->worker);
    loop_free(cluster->loop);
    for (int i = 0; i < COORDINATORS_MAX; i++)
        if (cluster->pids[i]) {
            kill(cluster->pids[i], SIGTERM);
            assert_int_equal(reap(cluster, i), 0);
        }
    assert_int_equal(file_remove_tree(cluster->folder, &err), 0);
}

/* ---- peers ----------------------------------------------------------------------------------- */

static void worker_up(void *user, const struct msg_welcome *welcome)
{
    struct cluster *cluster = user;
    struct message message = {.tag = MSG_WORKER_JOIN};
    struct rec_held_attempt held = {.attempt_id = cluster->attempt_id, .epoch = 1, .running = true};
    struct err err;

    (void)welcome;
    message.u.worker_join = (struct msg_worker_join){.name = "w1",
                                                     .incarnation = 1,
                                                     .host = "h",
                                                     .cores = 64,
                                                     .memory_bytes = (uint64_t)1 << 38,
                                                     .held = &held,
                                                     .held_count = cluster->attempt_id ? 1 : 0};
    assert_int_equal(peer_send(cluster->worker, &message, NULL, &err), 0);
}

static void worker_message(void *user, const struct envelope *envelope,
                           const struct message *message)
{
    struct cluster *cluster = user;

    cluster->epoch = max_u64(cluster->epoch, envelope->epoch);
    cluster->welcomes += message->tag == MSG_WORKER_WELCOME;
    cluster->refusals += message->tag == MSG_REFUSED;
    if (message->tag == MSG_START) {
        cluster->starts++;
        cluster->attempt_id = message->u.start.attempt_id;
    }
    if (message->tag == MSG_REPORT_ACK)
        cluster->acked = message->u.report_ack.seq;
}

static struct peer *connect_as(struct cluster *cluster, const struct keypair *keys, bool worker)
{
    const char *endpoints[] = {cluster->endpoints[0], cluster->endpoints[1]};
    struct peer_config config = {.endpoints = endpoints,
                                 .endpoint_count = 2,
                                 .server_key = cluster->server_keys.public_key,
                                 .keys = keys,
                                 .program = "test",
                                 .version = "0",
                                 .user = cluster,
                                 .on_up = worker ? worker_up : NULL,
                                 .on_message = worker ? worker_message : NULL};
    struct peer *peer = NULL;
    struct err err;

    assert_int_equal(peer_open(cluster->loop, &config, &peer, &err), 0);
    return peer;
}

static void until(struct cluster *cluster, const uint64_t *counter, uint64_t wanted)
{
    struct err err;
    uint64_t end_ms = clock_steady_ms() + 60000;

    while (*counter < wanted && clock_steady_ms() < end_ms)
        assert_int_equal(loop_once(cluster->loop, 50, &err), 0);
    assert_true(*counter >= wanted);
}

static void wait_until(struct cluster *cluster, const char *sql, const char *wanted)
{
    for (int i = 0; i < PG_WAIT_TRIES && strcmp(pg_ask(cluster->db, "%s", sql), wanted) != 0; i++)
        pg_pause();
    assert_string_equal(pg_ask(cluster->db, "%s", sql), wanted);
}

static void request(struct cluster *cluster, struct peer *peer, const struct message *message,
                    struct arena *arena, struct message *reply)
{
    struct err err;

    if (peer_request(peer, message, true, 60000, arena, reply, &err) < 0)
        fail_msg("%s", err.text);
    (void)cluster;
}

static struct message submit_message(const char *yaml, uint8_t key_byte)
{
    static uint8_t key[16];
    struct message message = {.tag = MSG_SUBMIT};

    memset(key, key_byte, sizeof key);
    message.u.submit = (struct msg_submit){.submit_key = {(char *)key, sizeof key},
                                           .file = "t.yaml",
                                           .yaml = {yaml, strlen(yaml)}};
    return message;
}

static const char one_job[] =
    "athanor: 1\nname: one\nkind: command\ncommand: [a]\nresources: {memory: 16MiB}\n";

static uint64_t submit_one(struct cluster *cluster, uint8_t key_byte, bool *out_repeated)
{
    struct arena arena = {0};
    struct message message = submit_message(one_job, key_byte), reply;

    request(cluster, cluster->admin, &message, &arena, &reply);
    if (reply.tag != MSG_SUBMITTED)
        fail_msg("%s", reply.tag == MSG_REFUSED ? reply.u.refused.text : msg_name(reply.tag));
    assert_int_equal(reply.u.submitted.jobs_count, 1);
    uint64_t job_id = reply.u.submitted.jobs[0].job_id;
    if (out_repeated)
        *out_repeated = reply.u.submitted.repeated;
    arena_done(&arena);
    return job_id;
}

static void report(struct cluster *cluster, struct rec_report *reports, size_t count)
{
    struct message message = {.tag = MSG_REPORT};
    struct err err;

    message.u.report = (struct msg_report){.attempt_id = cluster->attempt_id,
                                           .reports = reports,
                                           .reports_count = count};
    (void)(peer_send(cluster->worker, &message, NULL, &err) <
           0); /* sent again until acknowledged */
}

/* Sends seq 1..last (STARTED, then metrics) again and again until all are acknowledged. */
static void report_up_to(struct cluster *cluster, uint64_t last)
{
    struct err err;
    uint64_t end_ms = clock_steady_ms() + 60000, again_ms = 0;
    struct rec_report *reports = mem_array(last, sizeof *reports);

    for (uint64_t i = 0; i < last; i++)
        reports[i] = (struct rec_report){.seq = i + 1,
                                         .kind = i ? REPORT_METRIC : REPORT_STARTED,
                                         .time_us = clock_wall_us(),
                                         .name = i ? "loss" : "",
                                         .step = i,
                                         .value = 1,
                                         .meta = i ? "" : "{}"};
    while (cluster->acked < last && clock_steady_ms() < end_ms) {
        if (clock_steady_ms() >= again_ms) {
            report(cluster, reports + cluster->acked, last - cluster->acked);
            again_ms = clock_steady_ms() + 300;
        }
        assert_int_equal(loop_once(cluster->loop, 20, &err), 0);
    }
    mem_free(reports);
    assert_int_equal(cluster->acked, last);
}

/* ---- tests ----------------------------------------------------------------------------------- */

static void the_same_submit_sent_twice_is_one_job(void **state)
{
    (void)state;
    struct cluster cluster;
    bool repeated;

    cluster_open(&cluster);
    spawn(&cluster, 0, true);
    cluster.admin = connect_as(&cluster, &cluster.admin_keys, false);
    uint64_t job_id = submit_one(&cluster, 1, &repeated);
    assert_false(repeated);
    assert_int_equal(submit_one(&cluster, 1, &repeated), job_id);
    assert_true(repeated);
    kill(cluster.pids[0], SIGKILL); /* and the memory of it survives */
    reap(&cluster, 0);
    spawn(&cluster, 0, true);
    assert_int_equal(submit_one(&cluster, 1, &repeated), job_id);
    assert_true(repeated);
    assert_string_equal(pg_ask(cluster.db, "SELECT count(*) FROM athanor.jobs"), "1");
    cluster_close(&cluster);
}

static void a_wrong_spec_is_refused_with_places_and_leaves_nothing(void **state)
{
    (void)state;
    struct cluster cluster;
    struct arena arena = {0};
    struct message message =
                       submit_message("athanor: 1\nname: x\nkind: comand\nressources: {}\n", 1),
                   reply;

    cluster_open(&cluster);
    spawn(&cluster, 0, true);
    cluster.admin = connect_as(&cluster, &cluster.admin_keys, false);
    request(&cluster, cluster.admin, &message, &arena, &reply);
    assert_int_equal(reply.tag, MSG_REFUSED);
    assert_true(reply.u.refused.refusals_count >= 2);
    assert_string_equal(reply.u.refused.refusals[0].file, "t.yaml");
    assert_true(reply.u.refused.refusals[0].line > 0);
    assert_string_equal(pg_ask(cluster.db, "SELECT count(*) FROM athanor.job"), "0");
    arena_done(&arena);
    cluster_close(&cluster);
}

static void assert_denied(struct cluster *cluster, struct peer *peer, const struct message *message,
                          const char *words)
{
    struct arena arena = {0};
    struct message reply;

    request(cluster, peer, message, &arena, &reply);
    assert_int_equal(reply.tag, MSG_REFUSED);
    assert_string_equal(reply.u.refused.kind, err_kind_name(ERR_DENIED));
    if (!strstr(reply.u.refused.text, words))
        fail_msg("'%s' does not hold '%s'", reply.u.refused.text, words);
    arena_done(&arena);
}

/* Of a node's key: good for its own name, and for what was given to it. */
static void assert_worker_is_bounded(struct cluster *cluster)
{
    struct peer *worker = connect_as(cluster, &cluster->worker_keys, false);
    struct message message = {.tag = MSG_WORKER_JOIN};

    message.u.worker_join = (struct msg_worker_join){
        .name = "w2", .incarnation = 1, .host = "h", .cores = 1, .memory_bytes = 1 << 30};
    assert_denied(cluster, worker, &message,
                  "the key belongs to 'w1', it cannot join as worker 'w2'");
    message = (struct message){.tag = MSG_SECRET_GET,
                               .u.secret_get = {1, cluster->worker_keys.public_key}};
    assert_denied(cluster, worker, &message, "attempt 1 is not on this worker");
    assert_denied(cluster, cluster->admin, &message, "which may not send 'secret_get'");
    message = (struct message){.tag = MSG_SECRET_CHANGE,
                               .u.secret_change = {.action = "remove", .name = "x"}};
    assert_denied(cluster, worker, &message, "which may not send 'secret_change'");
    message = submit_message(one_job, 8);
    assert_denied(cluster, worker, &message, "which may not send 'submit'");
    peer_close(worker);
}

static void roles_bound_what_a_key_may_ask(void **state)
{
    (void)state;
    struct cluster cluster;
    struct arena arena = {0};
    struct message message = {.tag = MSG_KEY_CHANGE}, reply;
    struct keypair stranger;
    struct err err;

    cluster_open(&cluster);
    keypair_make(&stranger);
    spawn(&cluster, 0, true);
    cluster.admin = connect_as(&cluster, &cluster.user_keys, false);
    message.u.key_change = (struct msg_key_change){.action = "enrol",
                                                   .principal = "eve",
                                                   .role = "admin",
                                                   .public_key = stranger.public_key};
    request(&cluster, cluster.admin, &message, &arena, &reply);
    assert_int_equal(reply.tag, MSG_REFUSED);
    assert_string_equal(reply.u.refused.kind, err_kind_name(ERR_DENIED));
    assert_worker_is_bounded(&cluster);
    struct peer *unknown = connect_as(&cluster, &stranger, false);
    message = submit_message(one_job, 9);
    assert_int_equal(peer_request(unknown, &message, true, 1500, &arena, &reply, &err), -1);
    assert_string_equal(pg_ask(cluster.db, "SELECT count(*) FROM athanor.job"), "0");
    peer_close(unknown);
    arena_done(&arena);
    cluster_close(&cluster);
}

static void a_revoked_key_is_out_at_once(void **state)
{
    (void)state;
    struct cluster cluster;
    struct arena arena = {0};
    struct message message = {.tag = MSG_KEY_CHANGE}, reply;
    struct err err;

    cluster_open(&cluster);
    spawn(&cluster, 0, true);
    cluster.admin = connect_as(&cluster, &cluster.admin_keys, false);
    struct peer *user = connect_as(&cluster, &cluster.user_keys, false);
    struct message query = {.tag = MSG_QUERY, .u.query = {.name = "status"}};
    request(&cluster, user, &query, &arena, &reply);
    assert_int_equal(reply.tag, MSG_TABLE);
    message.u.key_change = (struct msg_key_change){.action = "revoke", .principal = "ann"};
    request(&cluster, cluster.admin, &message, &arena, &reply);
    assert_int_equal(reply.tag, MSG_DONE);
    assert_int_equal(peer_request(user, &query, true, 1500, &arena, &reply, &err), -1);
    assert_string_equal(pg_ask(cluster.db, "SELECT revoked_at IS NOT NULL FROM athanor.principal"
                                           " WHERE name = 'ann'"),
                        "t");
    peer_close(user);
    arena_done(&arena);
    cluster_close(&cluster);
}

/* ---- enrolment ------------------------------------------------------------------------------- */

static struct token make_token(struct cluster *cluster, const char *name, uint64_t ttl_ms)
{
    struct token token = {0};
    struct arena arena = {0};
    struct message message = {.tag = MSG_KEY_CHANGE}, reply;
    struct err err;

    keypair_make(&token.keys);
    memcpy(token.server_key, cluster->server_keys.public_key, KEY_TEXT_SIZE);
    for (int i = 0; i < COORDINATORS_MAX; i++)
        assert_int_equal(token_add_endpoint(&token, cluster->endpoints[i],
                                            strlen(cluster->endpoints[i]), &err),
                         0);
    message.u.key_change = (struct msg_key_change){.action = "token",
                                                   .principal = name,
                                                   .role = "worker",
                                                   .public_key = token.keys.public_key,
                                                   .ttl_ms = ttl_ms};
    request(cluster, cluster->admin, &message, &arena, &reply);
    assert_int_equal(reply.tag, MSG_DONE);
    arena_done(&arena);
    return token;
}

/* As athanor-worker --enrol does, with KEY in the cluster's folder. */
static int enrol(const struct cluster *cluster, const struct token *token, const char *key,
                 uint64_t timeout_ms, struct err *err)
{
    struct arena arena = {0};
    char paths[3][300];
    const char *name, *role;

    for (int i = 0; i < 3; i++)
        snprintf(paths[i], sizeof paths[i], "%s/%s%s", cluster->folder, i ? "coordinator" : key,
                 i == 1   ? ".pub"
                 : i == 2 ? ".endpoints"
                          : "");
    struct enrol wanted = {token, "", "node1", paths[0], paths[1], paths[2], "test", "0",
                           timeout_ms};
    int rc = enrol_run(&wanted, &arena, &name, &role, err);
    if (rc == 0)
        assert_string_equal(role, "worker");
    arena_done(&arena);
    return rc;
}

static bool has_key(const struct cluster *cluster, const char *key)
{
    char path[300];

    snprintf(path, sizeof path, "%s/%s", cluster->folder, key);
    return file_exists(path);
}

static void a_token_is_good_once_and_says_why_it_is_not(void **state)
{
    (void)state;
    struct cluster cluster;
    struct err err;

    cluster_open(&cluster);
    spawn(&cluster, 0, false);
    cluster.admin = connect_as(&cluster, &cluster.admin_keys, false);
    struct token token = make_token(&cluster, "", 3600000), other = token;
    assert_int_equal(enrol(&cluster, &token, "first", 30000, &err), 0);
    assert_int_equal(enrol(&cluster, &token, "first", 30000, &err), 0);
    assert_int_equal(enrol(&cluster, &token, "second", 30000, &err), -1);
    assert_int_equal(err.kind, ERR_DENIED);
    assert_non_null(strstr(err.text, "was used already"));
    assert_false(has_key(&cluster, "second")); /* nothing half-done stays */
    struct token late = make_token(&cluster, "w9", 3600000);
    pg_ask(cluster.db, "UPDATE athanor.principal SET expires_at = now() - interval '1s'"
                       " WHERE grants_name = 'w9' RETURNING 1");
    kill(cluster.pids[0], SIGKILL); /* what it knows of tokens it now knows from the rows */
    reap(&cluster, 0);
    spawn(&cluster, 0, false);
    assert_int_equal(enrol(&cluster, &late, "second", 30000, &err), -1);
    assert_non_null(strstr(err.text, "has expired"));
    struct keypair foreign;
    keypair_make(&foreign);
    memcpy(other.server_key, foreign.public_key, KEY_TEXT_SIZE);
    assert_int_equal(enrol(&cluster, &other, "first", 30000, &err), -1);
    assert_int_equal(err.kind, ERR_EXISTS); /* coordinator.pub of this folder is another */
    assert_string_equal(pg_ask(cluster.db, "SELECT string_agg(name, ' ') FROM athanor.principal"
                                           " WHERE role = 'worker' AND name <> 'w1'"),
                        "node1");
    cluster_close(&cluster);
}

static void a_wrong_coordinator_or_an_unknown_token_gets_no_word(void **state)
{
    (void)state;
    struct cluster cluster;
    struct keypair foreign;
    struct err err;

    cluster_open(&cluster);
    spawn(&cluster, 0, true);
    cluster.admin = connect_as(&cluster, &cluster.admin_keys, false);
    struct token token = make_token(&cluster, "w9", 3600000), guessed = token, other = token;
    keypair_make(&guessed.keys);
    assert_int_equal(enrol(&cluster, &guessed, "key", 1500, &err), -1);
    assert_int_equal(err.kind, ERR_TIMEOUT);
    keypair_make(&foreign);
    memcpy(other.server_key, foreign.public_key, KEY_TEXT_SIZE);
    assert_int_equal(enrol(&cluster, &other, "key", 1500, &err), -1);
    assert_int_equal(err.kind, ERR_TIMEOUT);
    assert_string_equal(pg_ask(cluster.db, "SELECT count(*) FROM athanor.principal"
                                           " WHERE used_at IS NOT NULL"),
                        "0");
    assert_int_equal(enrol(&cluster, &token, "key", 30000, &err), 0);
    cluster_close(&cluster);
}

/* Sends ENROL for the key and does not wait for the answer. */
static struct peer *enrol_send(struct cluster *cluster, const struct token *token,
                               const struct keypair *keys)
{
    struct message message = {.tag = MSG_ENROL, .u.enrol = {.public_key = keys->public_key}};
    struct peer *peer = connect_as(cluster, &token->keys, false);
    struct err err;

    for (int i = 0; i < 600 && !peer_is_up(peer); i++)
        assert_int_equal(loop_once(cluster->loop, 100, &err), 0);
    assert_int_equal(peer_send(peer, &message, NULL, &err), 0);
    assert_int_equal(loop_once(cluster->loop, 0, &err), 0);
    return peer;
}

static void kill_and_retry(struct cluster *cluster, const struct token *token, struct peer *peer,
                           const char *key)
{
    struct err err;

    kill(cluster->pids[0], SIGKILL);
    reap(cluster, 0);
    peer_close(peer); /* whatever was answered was never read */
    spawn(cluster, 0, false);
    if (enrol(cluster, token, key, 60000, &err) < 0)
        fail_msg("%s", err.text);
    assert_int_equal(enrol(cluster, token, "another", 30000, &err), -1);
    assert_non_null(strstr(err.text, "was used already"));
}

static void a_coordinator_killed_between_use_and_answer_costs_no_token(void **state)
{
    (void)state;
    struct cluster cluster;
    struct keypair keys;
    struct err err;
    char path[300];

    cluster_open(&cluster);
    spawn(&cluster, 0, false);
    cluster.admin = connect_as(&cluster, &cluster.admin_keys, false);
    for (int durable = 0; durable < 2; durable++) {
        struct token token = make_token(&cluster, durable ? "durable" : "lost", 3600000);
        PGconn *other = pg_open(cluster.db);
        snprintf(path, sizeof path, "%s/key%d", cluster.folder, durable);
        keypair_make(&keys);
        assert_int_equal(keypair_write(path, &keys, &err), 0);
        if (!durable) /* the use is not committed when the coordinator dies */
            PQclear(PQexec(other, "BEGIN; LOCK TABLE athanor.principal IN EXCLUSIVE MODE"));
        struct peer *peer = enrol_send(&cluster, &token, &keys);
        wait_until(&cluster,
                   durable ? "SELECT count(*) FROM athanor.principal WHERE name = 'durable'"
                           : "SELECT count(*) FROM pg_locks WHERE NOT granted AND"
                             " relation = 'athanor.principal'::regclass",
                   "1");
        PQfinish(other);
        kill_and_retry(&cluster, &token, peer, durable ? "key1" : "key0");
    }
    cluster_close(&cluster);
}

static void a_pilot_has_workers_of_its_own_and_nothing_else(void **state)
{
    (void)state;
    static const struct {
        const char *action, *name, *role;
        enum msg_tag answer;
    } cases[] = {{"token", "gpu-1", "worker", MSG_DONE},   {"token", "gpu-1", "user", MSG_REFUSED},
                 {"token", "w2", "worker", MSG_REFUSED},   {"token", "gpu", "worker", MSG_REFUSED},
                 {"token", "", "worker", MSG_REFUSED},     {"revoke", "w1", "", MSG_REFUSED},
                 {"revoke", "gpu-boss", "", MSG_REFUSED},
                 {"enrol", "gpu-2", "worker", MSG_REFUSED},
                 {"revoke", "gpu-1", "", MSG_DONE}};
    struct cluster cluster;
    struct arena arena = {0};
    struct keypair pilot, boss, fresh;
    struct message message = {.tag = MSG_KEY_CHANGE}, reply;

    cluster_open(&cluster);
    spawn(&cluster, 0, true);
    cluster.admin = connect_as(&cluster, &cluster.admin_keys, false);
    keypair_make(&pilot);
    keypair_make(&boss);
    const struct msg_key_change enrols[] = {
        {"enrol", "gpu", "pilot", pilot.public_key, 0},
        {"enrol", "gpu-boss", "admin", boss.public_key, 0}};
    for (size_t i = 0; i < ARRAY_COUNT(enrols); i++) {
        message.u.key_change = enrols[i];
        request(&cluster, cluster.admin, &message, &arena, &reply);
        assert_int_equal(reply.tag, MSG_DONE);
    }
    struct peer *peer = connect_as(&cluster, &pilot, false);
    for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
        keypair_make(&fresh);
        message.u.key_change = (struct msg_key_change){cases[i].action, cases[i].name,
                                                       cases[i].role,
                                                       *cases[i].role ? fresh.public_key : "",
                                                       60000};
        request(&cluster, peer, &message, &arena, &reply);
        assert_int_equal(reply.tag, cases[i].answer);
    }
    message = submit_message(one_job, 8);
    request(&cluster, peer, &message, &arena, &reply);
    assert_int_equal(reply.tag, MSG_REFUSED);
    message = (struct message){.tag = MSG_QUERY, .u.query = {.name = "principals"}};
    request(&cluster, peer, &message, &arena, &reply);
    assert_int_equal(reply.tag, MSG_REFUSED);
    message.u.query.name = "status";
    request(&cluster, peer, &message, &arena, &reply);
    assert_int_equal(reply.tag, MSG_TABLE);
    peer_close(peer);
    arena_done(&arena);
    cluster_close(&cluster);
}

static void a_standby_takes_over_and_nothing_is_lost_or_doubled(void **state)
{
    (void)state;
    struct cluster cluster;

    cluster_open(&cluster);
    spawn(&cluster, 0, false);
    cluster.admin = connect_as(&cluster, &cluster.admin_keys, false);
    cluster.worker = connect_as(&cluster, &cluster.worker_keys, true);
    until(&cluster, &cluster.welcomes, 1);
    submit_one(&cluster, 1, NULL);
    until(&cluster, &cluster.starts, 1);
    report_up_to(&cluster, 50);
    uint64_t first_epoch = cluster.epoch;
    spawn(&cluster, 1, false);
    kill(cluster.pids[0], SIGKILL);
    reap(&cluster, 0);
    uint64_t killed_ms = clock_steady_ms();
    until(&cluster, &cluster.welcomes, 2);
    print_message("served again after %llu ms\n",
                  (unsigned long long)(clock_steady_ms() - killed_ms));
    assert_true(cluster.epoch > first_epoch);
    report_up_to(&cluster, 120);
    assert_string_equal(pg_ask(cluster.db,
                               "SELECT count(*) || ' ' || count(DISTINCT step) || ' ' ||"
                               " max(step) FROM athanor.metrics"),
                        "119 119 119");
    assert_string_equal(pg_ask(cluster.db, "SELECT count(*) FROM athanor.runs"), "1");
    cluster_close(&cluster);
}

static const char *epoch_now(const struct cluster *cluster)
{
    return pg_ask(cluster->db, "SELECT epoch FROM athanor.coordinator_lease");
}

static void a_leader_that_slept_through_its_lease_stands_by(void **state)
{
    (void)state;
    struct cluster cluster;

    cluster_open(&cluster);
    spawn(&cluster, 0, false);
    cluster.admin = connect_as(&cluster, &cluster.admin_keys, false);
    submit_one(&cluster, 1, NULL);
    char first[32];
    snprintf(first, sizeof first, "%s",
             pg_ask(cluster.db, "SELECT epoch FROM athanor.coordinator_lease"));
    spawn(&cluster, 1, false);
    kill(cluster.pids[0], SIGSTOP);
    for (int i = 0;
         i < PG_WAIT_TRIES &&
         strcmp(pg_ask(cluster.db, "SELECT epoch FROM athanor.coordinator_lease"), first) == 0;
         i++)
        pg_pause();
    assert_string_not_equal(pg_ask(cluster.db, "SELECT epoch FROM athanor.coordinator_lease"),
                            first);
    kill(cluster.pids[0], SIGCONT);
    wait_until(&cluster,
               "SELECT string_agg(state, ', ' ORDER BY started_at) FROM athanor.coordinators"
               " JOIN athanor.coordinator ON holder = name",
               "standby, leader");
    submit_one(&cluster, 2, NULL);
    assert_string_equal(pg_ask(cluster.db, "SELECT count(*) FROM athanor.jobs"), "2");
    cluster_close(&cluster);
}

/* Rows that are loaded last are locked, so that the leader is stopped while it waits for them. It
 * has them only when it knows that its lease has passed on. */
static void a_leader_that_slept_while_it_loaded_stands_by(void **state)
{
    (void)state;
    struct cluster cluster;
    char before[32], taken[32], knows[200], stands[200];

    cluster_open(&cluster);
    spawn(&cluster, 0, false);
    cluster.admin = connect_as(&cluster, &cluster.admin_keys, false);
    submit_one(&cluster, 1, NULL); /* the schema is there */
    kill(cluster.pids[0], SIGTERM);
    assert_int_equal(reap(&cluster, 0), 0);
    snprintf(before, sizeof before, "%s", epoch_now(&cluster));
    PGconn *lock = pg_open(cluster.db);
    PQclear(PQexec(lock, "BEGIN"));
    PQclear(PQexec(lock, "LOCK athanor.recipe IN ACCESS EXCLUSIVE MODE"));
    spawn(&cluster, 0, false);
    wait_until(&cluster, "SELECT count(*) FROM pg_locks WHERE NOT granted", "1");
    kill(cluster.pids[0], SIGSTOP);
    snprintf(taken, sizeof taken, "%s", epoch_now(&cluster));
    assert_string_not_equal(taken, before);
    spawn(&cluster, 1, false);
    for (int i = 0; i < PG_WAIT_TRIES && strcmp(epoch_now(&cluster), taken) == 0; i++)
        pg_pause();
    assert_string_not_equal(epoch_now(&cluster), taken);
    snprintf(knows, sizeof knows,
             "SELECT min(state_change) > '%s' FROM pg_stat_activity"
             " WHERE datname = current_database() AND application_name LIKE '%%keeper'",
             pg_ask(cluster.db, "SELECT clock_timestamp()"));
    kill(cluster.pids[0], SIGCONT);
    wait_until(&cluster, knows, "t");
    PQclear(PQexec(lock, "COMMIT"));
    PQfinish(lock);
    snprintf(stands, sizeof stands,
             "SELECT count(*) FROM athanor.coordinators WHERE state = 'standby'"
             " AND seen_at > '%s'::timestamptz + interval '1 s'",
             pg_ask(cluster.db, "SELECT clock_timestamp()"));
    wait_until(&cluster, stands, "1");
    cluster_close(&cluster);
}

/* PostgreSQL crashes and recovers in the middle of a report stream. */
static void a_crash_of_postgresql_costs_no_point(void **state)
{
    (void)state;
    struct cluster cluster;

    cluster_open(&cluster);
    spawn(&cluster, 0, true);
    cluster.admin = connect_as(&cluster, &cluster.admin_keys, false);
    cluster.worker = connect_as(&cluster, &cluster.worker_keys, true);
    until(&cluster, &cluster.welcomes, 1);
    submit_one(&cluster, 1, NULL);
    until(&cluster, &cluster.starts, 1);
    for (uint64_t last = 300; last <= 1500; last += 300) {
        int backend =
            atoi(pg_ask(cluster.db, "SELECT pid FROM pg_stat_activity WHERE datname ="
                                    " current_database() AND application_name LIKE '%%writer'"));
        if (backend > 0)
            kill(backend, SIGKILL);
        report_up_to(&cluster, last);
    }
    assert_string_equal(pg_ask(cluster.db, "SELECT count(*) || ' ' || count(DISTINCT step) FROM"
                                           " athanor.metrics"),
                        "1499 1499");
    cluster_close(&cluster);
}

static void wait_for_log(const struct cluster *cluster, int index, const char *words)
{
    char log[300];

    log_path(cluster, index, log);
    for (int i = 0; i < PG_WAIT_TRIES; i++) {
        char *text = NULL;
        size_t length;
        struct err err;
        bool found = file_read(log, 1 << 20, &text, &length, &err) == 0 &&
                     strstr(text, words) != NULL;
        mem_free(text);
        if (found)
            return;
        pg_pause();
    }
    fail_msg("'%s' is not in the log", words);
}

static void who_starts_while_postgresql_is_away_waits_and_leads(void **state)
{
    (void)state;
    struct cluster cluster;

    cluster_open(&cluster);
    cluster.logs = true;
    pg_kill(&server, SIGQUIT);
    spawn(&cluster, 0, false);
    spawn(&cluster, 1, false); /* asked to end while it waits, it ends */
    for (int i = 0; i < 2; i++)
        wait_for_log(&cluster, i, "waiting for the database");
    kill(cluster.pids[1], SIGTERM);
    assert_int_equal(reap(&cluster, 1), 0);
    assert_true(pg_launch(&server));
    cluster.admin = connect_as(&cluster, &cluster.admin_keys, false);
    submit_one(&cluster, 1, NULL);
    cluster_close(&cluster);
}

static void a_database_that_does_not_let_us_in_is_not_waited_for(void **state)
{
    (void)state;
    struct cluster cluster;

    cluster_open(&cluster);
    strncat(cluster.db, " dbname=nowhere", sizeof cluster.db - strlen(cluster.db) - 1);
    cluster.logs = true;
    spawn(&cluster, 0, false);
    assert_int_equal(reap(&cluster, 0), 1);
    wait_for_log(&cluster, 0, "database \"nowhere\" does not exist");
    cluster_close(&cluster);
}

static void sigterm_gives_the_lease_up(void **state)
{
    (void)state;
    struct cluster cluster;

    cluster_open(&cluster);
    spawn(&cluster, 0, false);
    cluster.admin = connect_as(&cluster, &cluster.admin_keys, false);
    submit_one(&cluster, 1, NULL);
    kill(cluster.pids[0], SIGTERM);
    assert_int_equal(reap(&cluster, 0), 0);
    assert_string_equal(pg_ask(cluster.db,
                               "SELECT expires_at < now() FROM athanor.coordinator_lease"),
                        "t");
    cluster_close(&cluster);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_same_submit_sent_twice_is_one_job),
        cmocka_unit_test(a_wrong_spec_is_refused_with_places_and_leaves_nothing),
        cmocka_unit_test(roles_bound_what_a_key_may_ask),
        cmocka_unit_test(a_revoked_key_is_out_at_once),
        cmocka_unit_test(a_token_is_good_once_and_says_why_it_is_not),
        cmocka_unit_test(a_wrong_coordinator_or_an_unknown_token_gets_no_word),
        cmocka_unit_test(a_coordinator_killed_between_use_and_answer_costs_no_token),
        cmocka_unit_test(a_pilot_has_workers_of_its_own_and_nothing_else),
        cmocka_unit_test(a_standby_takes_over_and_nothing_is_lost_or_doubled),
        cmocka_unit_test(a_leader_that_slept_through_its_lease_stands_by),
        cmocka_unit_test(a_leader_that_slept_while_it_loaded_stands_by),
        cmocka_unit_test(a_crash_of_postgresql_costs_no_point),
        cmocka_unit_test(who_starts_while_postgresql_is_away_waits_and_leads),
        cmocka_unit_test(a_database_that_does_not_let_us_in_is_not_waited_for),
        cmocka_unit_test(sigterm_gives_the_lease_up),
    };
    return cmocka_run_group_tests(tests, start, stop);
}
