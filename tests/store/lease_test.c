/* lease_test.c - taking, keeping and losing the lease on a real PostgreSQL, by its clock.
 *
 * Leases here are short, so that they run out within a test; nothing asserts how long that took. */
#include "tests/store/keepers.h"

#define SHORT_MS 400u

struct field {
    const char *db;
    struct err err;
};

static void field_open(struct field *field)
{
    memset(field, 0, sizeof *field);
    field->db = migrated_database();
}

/* Steps both until the second one has that news. */
static void both_until(struct keeper *first, struct keeper *second, enum keeper_news wanted)
{
    for (int i = 0; i < 6000; i++) {
        enum keeper_news news = keeper_step(first, clock_steady_ms());
        assert_true(news == KEEPER_NOTHING || news == KEEPER_RENEWED || news == KEEPER_FOLLOWS);
        if (keeper_step(second, clock_steady_ms()) == wanted)
            return;
        poll(NULL, 0, 5);
    }
    fail_msg("no such news within 30 s: %s", keeper_trouble(second));
}

/* A copy of the database from before several leaders: their epochs must not be given again. */
static void the_epoch_rises_across_a_restored_database(void **state)
{
    (void)state;
    struct field field;

    field_open(&field);
    struct keeper *keeper = open_keeper(field.db, LEASE_MS, false);
    keeper_until(keeper, KEEPER_TAKEN);
    uint64_t taken_s = keeper_lease(keeper)->epoch;
    pg_ask(field.db, "UPDATE athanor.coordinator_lease SET epoch = 1 RETURNING 1");
    keeper_follow(keeper);
    keeper_until(keeper, KEEPER_TAKEN);
    assert_true(keeper_lease(keeper)->epoch >= taken_s && keeper_lease(keeper)->epoch > 2);
    keeper_close(keeper);
}

static void a_free_lease_is_taken_and_raises_the_epoch(void **state)
{
    (void)state;
    struct field field;

    field_open(&field);
    struct keeper *keeper = open_keeper(field.db, LEASE_MS, false);
    keeper_until(keeper, KEEPER_TAKEN);
    assert_true(keeper_lease(keeper)->cluster_id > 0);
    assert_string_equal(pg_ask(field.db,
                               "SELECT state || ' ' || endpoints || ' ' || (epoch = %llu)"
                               " FROM athanor.coordinators",
                               (unsigned long long)keeper_lease(keeper)->epoch),
                        "leader tcp://here:7117 true");
    keeper_until(keeper, KEEPER_RENEWED);
    keeper_close(keeper);
}

static void a_standby_learns_who_leads_and_where(void **state)
{
    (void)state;
    struct field field;

    field_open(&field);
    struct keeper *leader = open_keeper(field.db, LEASE_MS, false);
    keeper_until(leader, KEEPER_TAKEN);
    struct keeper *standby = open_keeper(field.db, LEASE_MS, false);
    assert_int_equal(keeper_next(standby), KEEPER_FOLLOWS);
    assert_string_equal(keeper_leader(standby)->holder, keeper_lease(leader)->holder);
    assert_string_equal(keeper_leader(standby)->endpoints, "tcp://here:7117");
    assert_int_equal(keeper_leader(standby)->epoch, keeper_lease(leader)->epoch);
    assert_string_equal(pg_ask(field.db, "SELECT string_agg(state, ' ' ORDER BY since)"
                                         " FROM athanor.coordinators"),
                        "leader standby");
    keeper_close(leader);
    keeper_close(standby);
}

static void a_leader_that_is_silent_is_followed_by_a_standby(void **state)
{
    (void)state;
    struct field field;

    field_open(&field);
    struct keeper *leader = open_keeper(field.db, SHORT_MS, false);
    keeper_until(leader, KEEPER_TAKEN);
    struct keeper *standby = open_keeper(field.db, SHORT_MS, false);
    keeper_until(standby, KEEPER_TAKEN);
    assert_true(keeper_lease(standby)->epoch > keeper_lease(leader)->epoch);
    assert_int_equal(keeper_next(leader), KEEPER_LOST);
    assert_int_equal(keeper_next(leader), KEEPER_FOLLOWS);
    assert_string_equal(keeper_leader(leader)->holder, keeper_lease(standby)->holder);
    keeper_close(leader);
    keeper_close(standby);
}

static void a_leader_that_leaves_is_followed_at_once(void **state)
{
    (void)state;
    struct field field;

    field_open(&field);
    struct keeper *leader = open_keeper(field.db, LEASE_MS, false);
    keeper_until(leader, KEEPER_TAKEN);
    struct keeper *standby = open_keeper(field.db, LEASE_MS, false);
    assert_int_equal(keeper_next(standby), KEEPER_FOLLOWS);
    assert_int_equal(lease_leave(field.db, keeper_lease(leader), &field.err), 0);
    keeper_until(standby, KEEPER_TAKEN);
    assert_string_equal(pg_ask(field.db, "SELECT count(*) FROM athanor.coordinator"), "1");
    keeper_close(leader);
    keeper_close(standby);
}

/* As many as start at once; rounds enough that their questions meet. */
static void of_several_standbys_one_takes_the_lease(void **state)
{
    (void)state;
    struct field field;
    struct keeper *keepers[4];

    field_open(&field);
    for (size_t i = 0; i < ARRAY_COUNT(keepers); i++)
        keepers[i] = open_keeper(field.db, SHORT_MS, false);
    for (uint64_t round = 0, epoch = 0; round < 5; round++) {
        size_t taken = 0, by = 0;
        while (taken == 0) {
            for (size_t i = 0; i < ARRAY_COUNT(keepers); i++)
                if (keeper_step(keepers[i], clock_steady_ms()) == KEEPER_TAKEN) {
                    taken++;
                    by = i;
                }
            poll(NULL, 0, 1);
        }
        assert_int_equal(taken, 1);
        assert_true(keeper_lease(keepers[by])->epoch > epoch);
        epoch = keeper_lease(keepers[by])->epoch;
        assert_int_equal(lease_leave(field.db, keeper_lease(keepers[by]), &field.err), 0);
        keeper_follow(keepers[by]);
    }
    for (size_t i = 0; i < ARRAY_COUNT(keepers); i++)
        keeper_close(keepers[i]);
}

static PGconn *batch_under_way(const struct field *field, const struct keeper *leader)
{
    PGconn *pg = PQconnectdb(field->db);
    char sql[400];

    snprintf(sql, sizeof sql, "BEGIN; SELECT athanor.batch_begin('%s', %llu, 1, %u)",
             keeper_lease(leader)->holder, (unsigned long long)keeper_lease(leader)->epoch,
             SHORT_MS);
    PGresult *result = PQexec(pg, sql);
    assert_int_equal(PQresultStatus(result), PGRES_TUPLES_OK);
    PQclear(result);
    return pg;
}

static bool succeeds(PGconn *pg, const char *sql)
{
    PGresult *result = PQexec(pg, sql);
    bool ok = PQresultStatus(result) == PGRES_COMMAND_OK;

    PQclear(result);
    return ok;
}

static void a_batch_longer_than_the_lease_costs_no_leadership(void **state)
{
    (void)state;
    struct field field;

    field_open(&field);
    struct keeper *leader = open_keeper(field.db, SHORT_MS, false);
    keeper_until(leader, KEEPER_TAKEN);
    struct keeper *standby = open_keeper(field.db, SHORT_MS, false);
    PGconn *batch = batch_under_way(&field, leader);
    uint64_t until_ms = clock_steady_ms() + (uint64_t)3 * SHORT_MS; /* the batch's length */
    while (clock_steady_ms() < until_ms)
        both_until(leader, standby, KEEPER_FOLLOWS);
    assert_true(succeeds(batch, "COMMIT"));
    assert_string_equal(pg_ask(field.db,
                               "SELECT (epoch = %llu) || ' ' || batch"
                               " FROM athanor.coordinator_lease",
                               (unsigned long long)keeper_lease(leader)->epoch),
                        "true 1");
    PQfinish(batch);
    keeper_close(leader);
    keeper_close(standby);
}

static void the_batch_of_a_leader_that_sleeps_in_it_is_ended(void **state)
{
    (void)state;
    struct field field;

    field_open(&field);
    struct keeper *leader = open_keeper(field.db, SHORT_MS, false);
    keeper_until(leader, KEEPER_TAKEN);
    PGconn *batch = batch_under_way(&field, leader);
    struct keeper *standby = open_keeper(field.db, SHORT_MS, false);
    keeper_until(standby, KEEPER_TAKEN);
    assert_false(succeeds(batch, "COMMIT"));
    assert_string_equal(pg_ask(field.db, "SELECT batch FROM athanor.coordinator_lease"), "0");
    PQfinish(batch);
    keeper_close(leader);
    keeper_close(standby);
}

/* COPY waits for its client, and no timeout of the server's ends that. */
static void a_leader_that_sleeps_in_the_middle_of_a_copy_is_ended_too(void **state)
{
    (void)state;
    struct field field;

    field_open(&field);
    struct keeper *leader = open_keeper(field.db, SHORT_MS, false);
    keeper_until(leader, KEEPER_TAKEN);
    PGconn *batch = batch_under_way(&field, leader);
    PGresult *copy = PQexec(batch, "COPY athanor.experiment FROM STDIN");
    assert_int_equal(PQresultStatus(copy), PGRES_COPY_IN);
    PQclear(copy);
    struct keeper *standby = open_keeper(field.db, SHORT_MS, false);
    keeper_until(standby, KEEPER_TAKEN);
    PQfinish(batch);
    keeper_close(leader);
    keeper_close(standby);
}

static void a_leader_that_renews_only_by_its_batches_is_not_replaced(void **state)
{
    (void)state;
    struct field field;

    field_open(&field);
    pg_ask(field.db, "UPDATE athanor.coordinator_lease SET holder = 'of an older version',"
                     " epoch = 7, expires_at = clock_timestamp() + interval '1 hour'"
                     " RETURNING 1");
    struct keeper *standby = open_keeper(field.db, SHORT_MS, false);
    for (int i = 0; i < 3; i++)
        assert_int_equal(keeper_next(standby), KEEPER_FOLLOWS);
    assert_string_equal(keeper_leader(standby)->holder, "of an older version");
    assert_string_equal(keeper_leader(standby)->endpoints, "");
    keeper_close(standby);
}

static void a_standby_that_knows_only_the_older_row_sees_it_renewed(void **state)
{
    (void)state;
    struct field field;

    field_open(&field);
    struct keeper *leader = open_keeper(field.db, LEASE_MS, false);
    keeper_until(leader, KEEPER_TAKEN);
    pg_ask(field.db, "UPDATE athanor.coordinator_lease SET expires_at = '-infinity' RETURNING 1");
    keeper_hurry(leader);
    keeper_until(leader, KEEPER_RENEWED);
    assert_string_equal(pg_ask(field.db, "SELECT expires_at > now()"
                                         " FROM athanor.coordinator_lease"),
                        "t");
    keeper_close(leader);
}

static void force_takes_the_lease_of_a_living_leader_who_hears_of_it(void **state)
{
    (void)state;
    struct field field;

    field_open(&field);
    struct keeper *leader = open_keeper(field.db, LEASE_MS, false);
    keeper_until(leader, KEEPER_TAKEN);
    struct keeper *single = open_keeper(field.db, LEASE_MS, true);
    keeper_until(single, KEEPER_TAKEN);
    keeper_hurry(leader);
    keeper_until(leader, KEEPER_LOST);
    keeper_close(leader);
    keeper_close(single);
}

static void a_leader_that_stood_by_takes_its_own_lease_again_at_once(void **state)
{
    (void)state;
    struct field field;

    field_open(&field);
    struct keeper *keeper = open_keeper(field.db, LEASE_MS, false);
    keeper_until(keeper, KEEPER_TAKEN);
    keeper_follow(keeper);
    uint64_t before = keeper_lease(keeper)->epoch;
    keeper_until(keeper, KEEPER_TAKEN);
    assert_true(keeper_lease(keeper)->epoch > before);
    keeper_close(keeper);
}

/* A trial, and a job that reads from the best of its sweep. */
static void add_reader_of_best(const char *db)
{
    pg_ask(db, "INSERT INTO athanor.experiment (experiment_id, name, created_at) VALUES"
               " (1, 'e', now());"
               "INSERT INTO athanor.job (job_id, experiment_id, name, kind, submit_key,"
               " submit_index, spec, ranks, cores, memory_bytes, gpus, submitted_at, priority,"
               " state, held, attempt_count, attempts_spent, ended_at)"
               " SELECT n, 1, 'j' || n, 'command', 'k', n, CASE n WHEN 1 THEN '{\"inputs\": {}}'"
               " ELSE '{\"inputs\": {\"model\": {\"ref\": \"job:s/checkpoint:best\","
               " \"job_id\": 1, \"trials\": 1}}}' END::jsonb, 1, 1, 1, 0, now(), 0,"
               " 'SUCCEEDED', false, 0, 0, now() FROM generate_series(1, 2) n;"
               "INSERT INTO athanor.sweep (sweep_id, experiment_id, name, method, mode, resource,"
               " min_resource, max_resource, reduction, at_once, seed, trial_count, space,"
               " created_at) VALUES (1, 1, 's', 'grid', 'min', 'steps', 0, 0, 2, 0, 0, 1, '{}',"
               " now());"
               "INSERT INTO athanor.trial (sweep_id, trial, job_id, params, rung, resource,"
               " reports, best_value, best_step) VALUES (1, 0, 1, '{}', 0, 0, 0, 0, 0);"
               "INSERT INTO athanor.job_dependency (job_id, parent_id, condition, state) VALUES"
               " (2, 1, 'any', 'met')");
    assert_string_equal(pg_ask(db, "SELECT athanor.program_needed()"), "31");
}

/* What a program from before migration 34 asks. */
static const char *follow_as_older(const char *db, const char *as)
{
    return pg_ask(db,
                  "SELECT taken FROM athanor.coordinator_follow('%s', 'tcp://there:7117', '0', 300,"
                  " false)",
                  as);
}

static void a_program_that_would_misread_a_job_stands_by(void **state)
{
    (void)state;
    struct field field;

    field_open(&field);
    assert_string_equal(follow_as_older(field.db, "old"), "t");
    add_reader_of_best(field.db);
    /* It goes on while it leads, for it has no such job in memory; afterwards it stands by. */
    assert_string_equal(pg_ask(field.db, "SELECT athanor.coordinator_renew('old', epoch, 300) FROM"
                                         " athanor.coordinator_lease"),
                        "t");
    pg_ask(field.db, "SELECT athanor.coordinator_leave('old')");
    assert_string_equal(follow_as_older(field.db, "old"), "f");
    assert_string_equal(follow_as_older(field.db, "other"), "f");
    assert_string_equal(pg_ask(field.db, "SELECT count(*) || ' ' || count(*) FILTER (WHERE leads)"
                                         " FROM athanor.coordinator"),
                        "2 0");
    struct keeper *keeper = open_keeper(field.db, LEASE_MS, false);
    keeper_until(keeper, KEEPER_TAKEN);
    keeper_close(keeper);
}

static void a_keeper_comes_back_after_postgresql_ended_its_connection(void **state)
{
    (void)state;
    struct field field;

    field_open(&field);
    struct keeper *keeper = open_keeper(field.db, LEASE_MS, false);
    keeper_until(keeper, KEEPER_TAKEN);
    int before = keeper_backend_pid(keeper);
    pg_ask(field.db, "SELECT pg_terminate_backend(%d)", before);
    for (int i = 0; i < 6000 && (keeper_backend_pid(keeper) == before ||
                                 keeper_step(keeper, clock_steady_ms()) != KEEPER_RENEWED);
         i++) {
        assert_true(keeper_step(keeper, clock_steady_ms()) != KEEPER_LOST);
        poll(NULL, 0, 5);
    }
    assert_true(keeper_backend_pid(keeper) != before);
    keeper_close(keeper);
}

static void the_answer_changes_with_the_enrolled_keys(void **state)
{
    (void)state;
    struct field field;
    char before[LEASE_KEYS_SIZE];

    field_open(&field);
    struct keeper *leader = open_keeper(field.db, LEASE_MS, false);
    keeper_until(leader, KEEPER_TAKEN);
    struct keeper *standby = open_keeper(field.db, LEASE_MS, false);
    assert_int_equal(keeper_next(standby), KEEPER_FOLLOWS);
    memcpy(before, keeper_leader(standby)->keys, sizeof before);
    pg_ask(field.db, "INSERT INTO athanor.principal (public_key, name, role, enrolled_at)"
                     " VALUES (repeat('k', 40), 'ann', 'user', now()) RETURNING 1");
    assert_int_equal(keeper_next(standby), KEEPER_FOLLOWS);
    assert_string_not_equal(before, keeper_leader(standby)->keys);
    memcpy(before, keeper_leader(standby)->keys, sizeof before);
    pg_ask(field.db, "UPDATE athanor.principal SET revoked_at = clock_timestamp() RETURNING 1");
    assert_int_equal(keeper_next(standby), KEEPER_FOLLOWS);
    assert_string_not_equal(before, keeper_leader(standby)->keys);
    keeper_close(leader);
    keeper_close(standby);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_epoch_rises_across_a_restored_database),
        cmocka_unit_test(a_free_lease_is_taken_and_raises_the_epoch),
        cmocka_unit_test(a_standby_learns_who_leads_and_where),
        cmocka_unit_test(a_leader_that_is_silent_is_followed_by_a_standby),
        cmocka_unit_test(a_leader_that_leaves_is_followed_at_once),
        cmocka_unit_test(of_several_standbys_one_takes_the_lease),
        cmocka_unit_test(a_batch_longer_than_the_lease_costs_no_leadership),
        cmocka_unit_test(the_batch_of_a_leader_that_sleeps_in_it_is_ended),
        cmocka_unit_test(a_leader_that_sleeps_in_the_middle_of_a_copy_is_ended_too),
        cmocka_unit_test(a_leader_that_renews_only_by_its_batches_is_not_replaced),
        cmocka_unit_test(a_standby_that_knows_only_the_older_row_sees_it_renewed),
        cmocka_unit_test(force_takes_the_lease_of_a_living_leader_who_hears_of_it),
        cmocka_unit_test(a_leader_that_stood_by_takes_its_own_lease_again_at_once),
        cmocka_unit_test(a_program_that_would_misread_a_job_stands_by),
        cmocka_unit_test(a_keeper_comes_back_after_postgresql_ended_its_connection),
        cmocka_unit_test(the_answer_changes_with_the_enrolled_keys),
    };
    return cmocka_run_group_tests(tests, rig_start_server, rig_stop_server);
}
