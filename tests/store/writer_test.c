/* writer_test.c - batches on a real PostgreSQL: merged, guarded by the epoch, written once. */
#include "tests/store/rig.h"

#include <sys/socket.h>

/* ---- rows ----------------------------------------------------------------------------------- */

static struct row_job job_row(uint64_t id)
{
    static uint8_t keys[20000][16];
    uint8_t *key = keys[id % ARRAY_COUNT(keys)];

    memcpy(key, &id, sizeof id);
    return (struct row_job){.job_id = id,
                            .experiment_id = 1,
                            .name = "j",
                            .kind = "command",
                            .recipe = "",
                            .account = "ann",
                            .submit_key = {key, 16},
                            .spec = "{\"a\": 1}",
                            .ranks = 1,
                            .cores = 1,
                            .submitted_at = 1000000,
                            .state = "READY",
                            .queue = "default",
                            .project = "default"};
}

static void add_experiment(struct rig *rig)
{
    struct row_experiment row = {.experiment_id = 1,
                                 .name = "e",
                                 .account = "ann",
                                 .created_at = 1000000};
    effects_persist(&rig->effects, ROW_TABLE_experiment, PERSIST_INSERT, &row);
}

static void add_job(struct rig *rig, uint64_t id)
{
    struct row_job row = job_row(id);
    effects_persist(&rig->effects, ROW_TABLE_job, PERSIST_INSERT, &row);
}

static void add_worker(struct rig *rig)
{
    struct row_worker row = {.worker_id = 1, .name = "w", .state = "OK", .cores = 4};
    effects_persist(&rig->effects, ROW_TABLE_worker, PERSIST_UPSERT, &row);
}

static struct row_attempt attempt_row(uint64_t id, uint64_t job_id, uint64_t number,
                                      const char *state)
{
    bool ended = strcmp(state, "ENDED") == 0;
    return (struct row_attempt){.attempt_id = id,
                                .job_id = job_id,
                                .number = number,
                                .worker_id = 1,
                                .epoch = 1,
                                .placed_at = 1000000,
                                .state = state,
                                .cause = ended ? "exit" : NULL,
                                .ended_at = ended ? 2000000 : 0};
}

static void add_metrics(struct rig *rig, uint64_t attempt_id, uint64_t from, uint64_t count)
{
    for (uint64_t seq = from; seq < from + count; seq++) {
        struct row_metric row = {.attempt_id = attempt_id,
                                 .seq = seq,
                                 .at = clock_wall_us(),
                                 .job_id = 1,
                                 .name = "loss",
                                 .step = seq,
                                 .value = 1.0 / (double)seq};
        effects_persist(&rig->effects, ROW_TABLE_metric, PERSIST_INSERT, &row);
    }
}

/* ---- tests ---------------------------------------------------------------------------------- */

static void a_job_inserted_and_updated_in_one_batch_is_one_row(void **state)
{
    (void)state;
    struct rig rig;
    struct row_job row = job_row(7);

    rig_open(&rig);
    add_experiment(&rig);
    add_job(&rig, 7);
    row.state = "SUCCEEDED";
    row.ended_at = 5000000;
    row.spec = NULL; /* an UPDATE sets keys and mutable columns only */
    effects_persist(&rig.effects, ROW_TABLE_job, PERSIST_UPDATE, &row);
    COMMITTED(&rig);
    assert_int_equal(writer_stats(rig.writer)->rows, 2);
    assert_string_equal(pg_ask(rig.db, "SELECT state || ' ' || spec::text || ' ' ||"
                                       " extract(epoch FROM ended_at)::int FROM athanor.job"),
                        "SUCCEEDED {\"a\": 1} 5");
    rig_close(&rig);
}

static void of_several_updates_the_last_one_counts(void **state)
{
    (void)state;
    struct rig rig;
    struct row_job row = job_row(7);

    rig_open(&rig);
    add_experiment(&rig);
    add_job(&rig, 7);
    COMMITTED(&rig);
    for (uint64_t step = 1; step <= 50; step++) {
        row.progress_step = step;
        effects_persist(&rig.effects, ROW_TABLE_job, PERSIST_UPDATE, &row);
    }
    COMMITTED(&rig);
    assert_int_equal(writer_stats(rig.writer)->rows, 3);
    assert_string_equal(pg_ask(rig.db, "SELECT progress_step FROM athanor.job"), "50");
    rig_close(&rig);
}

static void an_attempt_may_end_and_its_successor_begin_in_one_batch(void **state)
{
    (void)state;
    struct rig rig;
    struct row_attempt first = attempt_row(1, 7, 1, "RUNNING"),
                       second = attempt_row(2, 7, 2, "PLACED");

    rig_open(&rig);
    add_experiment(&rig);
    add_worker(&rig);
    add_job(&rig, 7);
    effects_persist(&rig.effects, ROW_TABLE_attempt, PERSIST_INSERT, &first);
    COMMITTED(&rig);
    first = attempt_row(1, 7, 1, "ENDED");
    effects_persist(&rig.effects, ROW_TABLE_attempt, PERSIST_UPDATE, &first);
    effects_persist(&rig.effects, ROW_TABLE_attempt, PERSIST_INSERT, &second);
    COMMITTED(&rig);
    assert_string_equal(pg_ask(rig.db,
                               "SELECT string_agg(state, ' ' ORDER BY number) FROM athanor.runs"),
                        "ENDED PLACED");
    rig_close(&rig);
}

static void many_rows_go_by_copy_and_all_arrive(void **state)
{
    (void)state;
    struct rig rig;

    rig_open(&rig);
    add_experiment(&rig);
    for (uint64_t id = 1; id <= 5000; id++)
        add_job(&rig, id);
    add_metrics(&rig, 1, 1, 100000);
    COMMITTED(&rig);
    assert_int_equal(writer_stats(rig.writer)->copied_rows, 105000);
    assert_string_equal(pg_ask(rig.db, "SELECT count(*) FROM athanor.job"), "5000");
    assert_string_equal(pg_ask(rig.db, "SELECT count(*) || ' ' || sum(seq) FROM athanor.metric"),
                        "100000 5000050000");
    assert_string_equal(pg_ask(rig.db, "SELECT count(*) FROM athanor.metric_default"), "0");
    rig_close(&rig);
}

static void what_postgresql_would_refuse_is_bent(void **state)
{
    (void)state;
    struct rig rig;
    struct row_artifact artifact = {.artifact_id = 1,
                                    .job_id = 7,
                                    .attempt_id = 1,
                                    .kind = "file",
                                    .name = "bad \xff name",
                                    .path = "\xc3(",
                                    .size_bytes = UINT64_MAX,
                                    .meta = "{\"a\": \"\\u0000\"",
                                    .created_at = UINT64_MAX};
    struct row_metric metric = {.attempt_id = 1,
                                .seq = UINT64_MAX,
                                .node = 1u << 20,
                                .job_id = 7,
                                .rank = UINT64_MAX,
                                .name = "\x80",
                                .step = UINT64_MAX,
                                .value = 0.0 / 0.0};
    struct row_attempt attempt = attempt_row(1, 7, 1, "RUNNING");

    rig_open(&rig);
    add_experiment(&rig);
    add_worker(&rig);
    add_job(&rig, 7);
    attempt.placement = "[1e999999]";
    attempt.usage = "";
    effects_persist(&rig.effects, ROW_TABLE_attempt, PERSIST_INSERT, &attempt);
    effects_persist(&rig.effects, ROW_TABLE_artifact, PERSIST_INSERT, &artifact);
    effects_persist(&rig.effects, ROW_TABLE_metric, PERSIST_INSERT, &metric);
    COMMITTED(&rig);
    assert_string_equal(pg_ask(rig.db, "SELECT name || path || meta::text FROM athanor.artifact"),
                        "bad \xEF\xBF\xBD name\xEF\xBF\xBD(\"{\\\"a\\\": \\\"\\\\u0000\\\"\"");
    assert_string_equal(
        pg_ask(rig.db, "SELECT value::text || node || (at < '1971-01-01') FROM athanor.metric"),
        "NaN32767true");
    rig_close(&rig);
}

static void rows_that_break_a_constraint_fail_the_batch(void **state)
{
    (void)state;
    struct rig rig;
    struct row_attempt orphan = attempt_row(1, 99, 1, "RUNNING");

    rig_open(&rig);
    add_experiment(&rig);
    effects_persist(&rig.effects, ROW_TABLE_attempt, PERSIST_INSERT, &orphan);
    assert_int_equal(commit(&rig), WRITER_FAILED);
    assert_non_null(strstr(rig.err.text, "attempt_job_id_fkey"));
    assert_string_equal(pg_ask(rig.db, "SELECT count(*) FROM athanor.experiment"), "0");
    rig_close(&rig);
}

static void two_live_attempts_of_a_job_fail_the_batch(void **state)
{
    (void)state;
    struct rig rig;
    struct row_attempt first = attempt_row(1, 7, 1, "RUNNING"),
                       second = attempt_row(2, 7, 2, "RUNNING");

    rig_open(&rig);
    add_experiment(&rig);
    add_worker(&rig);
    add_job(&rig, 7);
    effects_persist(&rig.effects, ROW_TABLE_attempt, PERSIST_INSERT, &first);
    effects_persist(&rig.effects, ROW_TABLE_attempt, PERSIST_INSERT, &second);
    assert_int_equal(commit(&rig), WRITER_FAILED);
    assert_non_null(strstr(rig.err.text, "attempt_live"));
    rig_close(&rig);
}

static void updating_a_row_that_is_not_there_fails_the_batch(void **state)
{
    (void)state;
    struct rig rig;
    struct row_job row = job_row(7);

    rig_open(&rig);
    effects_persist(&rig.effects, ROW_TABLE_job, PERSIST_UPDATE, &row);
    assert_int_equal(commit(&rig), WRITER_FAILED);
    assert_non_null(strstr(rig.err.text, "rows are missing"));
    assert_string_equal(pg_ask(rig.db, "SELECT count(*) FROM athanor.job"), "0");
    rig_close(&rig);
}

static void a_leader_whose_epoch_has_passed_cannot_write(void **state)
{
    (void)state;
    struct rig rig;
    struct lease successor;

    rig_open(&rig);
    add_experiment(&rig);
    COMMITTED(&rig);
    take_lease(rig.db, &successor);
    assert_true(successor.epoch > rig.lease.epoch);
    add_job(&rig, 1);
    assert_int_equal(commit(&rig), WRITER_FENCED);
    assert_string_equal(pg_ask(rig.db, "SELECT count(*) FROM athanor.job"), "0");
    rig_close(&rig);
}

/* The writer's socket becomes one whose other end is closed. */
static void cut_connection(struct writer *writer)
{
    int pair[2];

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    assert_true(dup2(pair[0], writer_fd(writer)) >= 0);
    close(pair[0]);
    close(pair[1]);
}

static void wait_for(const char *db, const char *sql, const char *wanted)
{
    for (int i = 0; i < 3000 && strcmp(pg_ask(db, "%s", sql), wanted) != 0; i++)
        poll(NULL, 0, 10);
    assert_string_equal(pg_ask(db, "%s", sql), wanted);
}

static void a_commit_whose_answer_was_lost_is_found_again(void **state)
{
    (void)state;
    struct rig rig;
    struct writer_batch batch = {0};

    rig_open(&rig);
    add_experiment(&rig);
    batch.effects = &rig.effects;
    writer_commit(rig.writer, &batch, clock_steady_ms());
    wait_for(rig.db, "SELECT count(*) FROM athanor.experiment", "1");
    cut_connection(rig.writer);
    if (pump(&rig) != WRITER_COMMITTED)
        fail_msg("%s", rig.err.text);
    assert_int_equal(writer_stats(rig.writer)->resolved, 1);
    assert_int_equal(writer_stats(rig.writer)->resent, 0);
    assert_string_equal(pg_ask(rig.db, "SELECT count(*) FROM athanor.experiment"), "1");
    rig_close(&rig);
}

/* The first copy of the batch waits for a lock that we hold, so that the writer finds it not
 * committed and sends it again; then both go on. */
static void a_batch_sent_twice_is_written_once(void **state)
{
    (void)state;
    struct rig rig;
    struct writer_batch batch = {0};

    rig_open(&rig);
    add_experiment(&rig);
    batch.effects = &rig.effects;
    PGconn *blocker = pg_open(rig.db);
    PQclear(PQexec(blocker, "BEGIN; SELECT 1 FROM athanor.coordinator_lease FOR UPDATE"));
    writer_commit(rig.writer, &batch, clock_steady_ms());
    wait_for(rig.db,
             "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
             " AND datname = current_database()",
             "1");
    cut_connection(rig.writer);
    for (int i = 0; i < 3000 && writer_stats(rig.writer)->resent == 0; i++) {
        assert_int_equal(writer_step(rig.writer, clock_steady_ms(), &rig.err), WRITER_PENDING);
        poll(NULL, 0, 1);
    }
    assert_int_equal(writer_stats(rig.writer)->resent, 1);
    PQclear(PQexec(blocker, "COMMIT"));
    if (pump(&rig) != WRITER_COMMITTED)
        fail_msg("%s", rig.err.text);
    assert_string_equal(pg_ask(rig.db, "SELECT count(*) FROM athanor.experiment"), "1");
    PQfinish(blocker);
    rig_close(&rig);
}

/* Every backend dies while batches are written; each must be there once. */
static void a_crashing_server_loses_and_doubles_nothing(void **state)
{
    (void)state;
    struct rig rig;

    rig_open(&rig);
    add_experiment(&rig);
    for (uint64_t id = 1; id <= 40; id++)
        add_job(&rig, id);
    COMMITTED(&rig);
    for (uint64_t round = 1; round <= 6; round++) {
        struct writer_batch batch = {.effects = &rig.effects};
        uint64_t batch_before = writer_stats(rig.writer)->batches;
        add_metrics(&rig, round, 1, 3000);
        until_idle(&rig);
        writer_commit(rig.writer, &batch, clock_steady_ms());
        for (uint64_t i = 0; i < 2 * round; i++) /* killed at another place each round */
            if (writer_step(rig.writer, clock_steady_ms(), &rig.err) == WRITER_COMMITTED)
                break;
        if (writer_stats(rig.writer)->batches == batch_before) {
            kill(writer_backend_pid(rig.writer), SIGKILL);
            if (pump(&rig) != WRITER_COMMITTED)
                fail_msg("%s", rig.err.text);
        }
        effects_reset(&rig.effects);
    }
    wait_for(rig.db,
             "SELECT count(*) || ' ' || count(DISTINCT (attempt_id, seq)) FROM athanor.metric",
             "18000 18000");
    assert_true(writer_stats(rig.writer)->reconnects > 0);
    rig_close(&rig);
}

static void recipes_keep_their_newest_version(void **state)
{
    (void)state;
    struct rig rig;
    const char *texts[] = {"{\"format\": 1, \"engine\": \"2\", \"recipes\": [{\"name\": \"clm\", "
                           "\"kind\": \"pretraining\", \"version\": 2}]}",
                           "{\"format\": 1, \"engine\": \"1\", \"recipes\": [{\"name\": \"clm\", "
                           "\"kind\": \"pretraining\", \"version\": 1}]}"};
    struct writer_batch batch = {.catalogues = texts, .catalogue_count = 2};

    rig_open(&rig);
    writer_commit(rig.writer, &batch, clock_steady_ms());
    if (pump(&rig) != WRITER_COMMITTED)
        fail_msg("%s", rig.err.text);
    assert_string_equal(pg_ask(rig.db, "SELECT version || engine FROM athanor.recipes"), "22");
    rig_close(&rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_job_inserted_and_updated_in_one_batch_is_one_row),
        cmocka_unit_test(of_several_updates_the_last_one_counts),
        cmocka_unit_test(an_attempt_may_end_and_its_successor_begin_in_one_batch),
        cmocka_unit_test(many_rows_go_by_copy_and_all_arrive),
        cmocka_unit_test(what_postgresql_would_refuse_is_bent),
        cmocka_unit_test(rows_that_break_a_constraint_fail_the_batch),
        cmocka_unit_test(two_live_attempts_of_a_job_fail_the_batch),
        cmocka_unit_test(updating_a_row_that_is_not_there_fails_the_batch),
        cmocka_unit_test(a_leader_whose_epoch_has_passed_cannot_write),
        cmocka_unit_test(a_commit_whose_answer_was_lost_is_found_again),
        cmocka_unit_test(a_batch_sent_twice_is_written_once),
        cmocka_unit_test(a_crashing_server_loses_and_doubles_nothing),
        cmocka_unit_test(recipes_keep_their_newest_version),
    };
    return cmocka_run_group_tests(tests, rig_start_server, rig_stop_server);
}
