/* migrate_test.c - the schema on a real PostgreSQL: applied, guarded, equal to the .def files. */
#include "coordinator/core/life.h"
#include "coordinator/rows/rows.h"
#include "coordinator/store/migrate.h"

#include "tests/lib/pg.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static struct pg_server server;

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

static const char *migrated(void)
{
    const char *db = pg_database(&server);
    struct err err = {0};
    size_t applied = 0;

    if (migrate(db, migrations_embedded, migrations_embedded_count, &applied, &err) < 0)
        fail_msg("%s", err.text);
    assert_int_equal(applied, migrations_embedded_count);
    return db;
}

static void migrating_twice_applies_nothing_the_second_time(void **state)
{
    (void)state;
    const char *db = migrated();
    struct err err;
    size_t applied = 99;

    assert_int_equal(migrate(db, migrations_embedded, migrations_embedded_count, &applied, &err),
                     0);
    assert_int_equal(applied, 0);
}

static void an_edited_migration_is_refused_by_name(void **state)
{
    (void)state;
    const char *db = pg_database(&server);
    struct migration list[] = {{"0001_a", "SELECT 1"}, {"0002_b", "CREATE TABLE b (x int)"}};
    struct err err;
    size_t applied;

    assert_int_equal(migrate(db, list, 2, &applied, &err), 0);
    list[1].sql = "CREATE TABLE b (x bigint)";
    assert_int_equal(migrate(db, list, 2, &applied, &err), -1);
    assert_int_equal(err.kind, ERR_INVALID);
    assert_non_null(strstr(err.text, "0002_b"));
}

static void gaps_and_newer_databases_are_refused(void **state)
{
    (void)state;
    const char *db = pg_database(&server);
    const struct migration gap[] = {{"0001_a", "SELECT 1"}, {"0003_c", "SELECT 1"}};
    const struct migration list[] = {{"0001_a", "SELECT 1"}, {"0002_b", "SELECT 1"}};
    struct err err;
    size_t applied;

    assert_int_equal(migrate(db, gap, 2, &applied, &err), -1);
    assert_non_null(strstr(err.text, "0003_c"));
    assert_int_equal(migrate(db, list, 2, &applied, &err), 0);
    assert_int_equal(migrate(db, list, 1, &applied, &err), -1);
    assert_non_null(strstr(err.text, "older than the database"));
    pg_ask(db, "DELETE FROM athanor.schema_migration WHERE number = 1");
    assert_int_equal(migrate(db, list, 2, &applied, &err), -1);
    assert_non_null(strstr(err.text, "gap"));
}

static void an_additive_migration_serves_older_programs_too(void **state)
{
    (void)state;
    const char *db = pg_database(&server);
    const struct migration list[] = {
        {"0001_a", "CREATE TABLE athanor.coordinator_lease (expires_at timestamptz);"
                   "INSERT INTO athanor.coordinator_lease VALUES (now() + interval '1 hour')"},
        {"0002_b", "-- b adds a table\n-- programs from 0001\nCREATE TABLE athanor.b (x int)"},
        {"0003_c", "-- c too\n-- programs from 0002\nCREATE TABLE athanor.c (x int)"}};
    struct err err;
    size_t applied;

    assert_int_equal(migrate(db, list, 1, &applied, &err), 0);
    assert_int_equal(migrate(db, list, 2, &applied, &err), 0); /* under a leader */
    assert_int_equal(applied, 1);
    assert_int_equal(migrate(db, list, 1, &applied, &err), 0); /* the older program, again */
    assert_int_equal(applied, 0);
    assert_int_equal(migrate(db, list, 3, &applied, &err), 0);
    assert_int_equal(migrate(db, list, 2, &applied, &err), 0);
    assert_int_equal(migrate(db, list, 1, &applied, &err), -1); /* two versions behind */
    assert_non_null(strstr(err.text, "0003_c"));
    assert_non_null(strstr(err.text, "older than the database"));
}

static void a_later_migration_gives_back_what_an_earlier_one_took(void **state)
{
    (void)state;
    const char *db = pg_database(&server);
    const struct migration list[] = {
        {"0001_a", "CREATE TABLE athanor.coordinator_lease (expires_at timestamptz);"
                   "INSERT INTO athanor.coordinator_lease VALUES (now() + interval '1 hour')"},
        {"0002_b", "CREATE TABLE athanor.b (x int)"},
        {"0003_c", "-- c\n-- programs from 0001\nCREATE TABLE athanor.c (x int);"
                   "UPDATE athanor.schema_migration SET oldest = 1 WHERE number = 2"}};
    struct err err;
    size_t applied;

    assert_int_equal(migrate(db, list, 1, &applied, &err), 0);
    assert_int_equal(migrate(db, list, 3, &applied, &err), 0); /* under a leader */
    assert_int_equal(applied, 2);
    assert_int_equal(migrate(db, list, 1, &applied, &err), 0); /* the older program, again */
    assert_int_equal(applied, 0);
}

static void any_other_migration_waits_until_nobody_leads(void **state)
{
    (void)state;
    const char *db = pg_database(&server);
    const struct migration list[] = {
        {"0001_a", "CREATE TABLE athanor.coordinator_lease (expires_at timestamptz);"
                   "INSERT INTO athanor.coordinator_lease VALUES (now() + interval '1 second')"},
        {"0002_b", "CREATE TABLE athanor.b (x int)"}};
    struct err err;
    size_t applied;

    assert_int_equal(migrate(db, list, 1, &applied, &err), 0);
    assert_int_equal(migrate(db, list, 2, &applied, &err), 0);
    assert_string_equal(pg_ask(db, "SELECT applied_at > expires_at FROM athanor.schema_migration, "
                                   "athanor.coordinator_lease WHERE number = 2"),
                        "t");
}

static void a_failing_migration_leaves_nothing_of_itself(void **state)
{
    (void)state;
    const char *db = pg_database(&server);
    const struct migration list[] = {{"0001_a", "CREATE TABLE athanor.a (x int); SELECT 1/0"}};
    struct err err;
    size_t applied;

    assert_int_equal(migrate(db, list, 1, &applied, &err), -1);
    assert_non_null(strstr(err.text, "division by zero"));
    assert_string_equal(pg_ask(db, "SELECT to_regclass('athanor.a') IS NULL"), "t");
}

static void eight_programs_starting_together_migrate_once(void **state)
{
    (void)state;
    const char *db = pg_database(&server);
    pid_t pids[8];

    for (int i = 0; i < 8; i++) {
        pids[i] = fork();
        if (pids[i] == 0) {
            struct err err;
            size_t applied;
            int rc = migrate(db, migrations_embedded, migrations_embedded_count, &applied, &err);
            _exit(rc < 0 ? 100 : (int)applied);
        }
    }
    size_t applied = 0;
    for (int i = 0; i < 8; i++) {
        int status;
        assert_int_equal(waitpid(pids[i], &status, 0), pids[i]);
        assert_true(WIFEXITED(status));
        applied += (size_t)WEXITSTATUS(status);
    }
    assert_int_equal(applied, migrations_embedded_count);
}

static void a_database_of_another_encoding_is_refused(void **state)
{
    (void)state;
    char admin[300], db[400];
    struct err err;
    size_t applied;

    snprintf(admin, sizeof admin, "host=%s user=postgres dbname=postgres", server.folder);
    pg_ask(admin, "CREATE DATABASE latin ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0");
    snprintf(db, sizeof db, "host=%s user=postgres dbname=latin", server.folder);
    assert_int_equal(migrate(db, migrations_embedded, migrations_embedded_count, &applied, &err),
                     -1);
    assert_non_null(strstr(err.text, "LATIN1, expected UTF8"));
}

static void every_def_equals_its_table(void **state)
{
    (void)state;
    const char *db = migrated();

    for (int table = 1; table < ROW_TABLE_END; table++) {
        const struct row_shape *shape = row_shape((enum row_table)table);
        char wanted[4000] = "", keys[200] = "";
        for (size_t i = 0; i < shape->column_count; i++) {
            const struct row_column *column = &shape->columns[i];
            snprintf(wanted + strlen(wanted), sizeof wanted - strlen(wanted), "%s%s %s",
                     i ? ", " : "", column->name,
                     strcmp(column->sql_type, "timestamptz") == 0 ? "timestamp with time zone"
                                                                  : column->sql_type);
            if (column->role == ROW_ROLE_KEY)
                snprintf(keys + strlen(keys), sizeof keys - strlen(keys), "%s%s", *keys ? ", " : "",
                         column->name);
        }
        assert_string_equal(
            pg_ask(
                db,
                "SELECT string_agg(a.attname || ' ' || format_type(a.atttypid, a.atttypmod), ', '"
                " ORDER BY a.attnum) FROM pg_attribute a WHERE a.attnum > 0 AND NOT a.attisdropped"
                " AND a.attrelid = 'athanor.%s'::regclass",
                shape->name),
            wanted);
        /* Partitioned tables add their partition key to the primary key. */
        assert_string_equal(
            pg_ask(db,
                   "SELECT string_agg(a.attname, ', ' ORDER BY k.n) FROM pg_index i,"
                   " unnest(i.indkey) WITH ORDINALITY AS k(attnum, n), pg_attribute a,"
                   " pg_class c WHERE c.oid = i.indrelid AND i.indisprimary"
                   " AND a.attrelid = i.indrelid AND a.attnum = k.attnum"
                   " AND NOT (c.relkind = 'p' AND a.attname = 'at')"
                   " AND i.indrelid = 'athanor.%s'::regclass",
                   shape->name),
            keys);
    }
}

static void names_of_states_are_those_of_the_core(void **state)
{
    (void)state;
    const char *db = migrated();
    char sql[400];

    for (int s = 1; s < JOB_STATE_END; s++) {
        snprintf(sql, sizeof sql, "%s", job_state_name((enum job_state)s));
        assert_string_equal(pg_ask(db,
                                   "SELECT pg_get_constraintdef(oid) LIKE '%%''%s''%%' FROM"
                                   " pg_constraint WHERE conname = 'job_state_check'",
                                   sql),
                            "t");
        assert_string_equal(pg_ask(db,
                                   "SELECT pg_get_constraintdef(oid) LIKE '%%''%s''%%' FROM"
                                   " pg_constraint WHERE conname = 'job_ended'",
                                   sql),
                            job_state_is_terminal((enum job_state)s) ? "t" : "f");
    }
    for (int s = 1; s < ATTEMPT_STATE_END; s++)
        assert_string_equal(pg_ask(db,
                                   "SELECT pg_get_constraintdef(oid) LIKE '%%''%s''%%' FROM"
                                   " pg_constraint WHERE conname = 'attempt_state_check'",
                                   attempt_state_name((enum attempt_state)s)),
                            "t");
    for (int s = 1; s < WORKER_STATE_END; s++)
        assert_string_equal(pg_ask(db,
                                   "SELECT pg_get_constraintdef(oid) LIKE '%%''%s''%%' FROM"
                                   " pg_constraint WHERE conname = 'worker_state_check'",
                                   worker_state_name((enum worker_state)s)),
                            "t");
}

static void every_view_every_column_and_every_index_is_explained(void **state)
{
    (void)state;
    const char *db = migrated();

    assert_string_equal(pg_ask(db,
                               "SELECT count(*) > 10 FROM pg_views WHERE schemaname = 'athanor'"),
                        "t");
    assert_string_equal(
        pg_ask(db, "SELECT coalesce(string_agg(c.relname, ' '), '') FROM pg_class c WHERE"
                   " c.relnamespace = 'athanor'::regnamespace AND c.relkind = 'v'"
                   " AND obj_description(c.oid) IS NULL"),
        "");
    assert_string_equal(
        pg_ask(db, "SELECT coalesce(string_agg(c.relname || '.' || a.attname, ' '), '')"
                   " FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0"
                   " WHERE c.relnamespace = 'athanor'::regnamespace AND c.relkind = 'v'"
                   " AND col_description(c.oid, a.attnum) IS NULL"),
        "");
    /* Primary keys explain themselves, and partitions inherit. */
    assert_string_equal(
        pg_ask(db, "SELECT coalesce(string_agg(c.relname, ' '), '') FROM pg_index i"
                   " JOIN pg_class c ON c.oid = i.indexrelid"
                   " WHERE c.relnamespace = 'athanor'::regnamespace AND NOT i.indisprimary"
                   " AND NOT c.relispartition AND obj_description(c.oid) IS NULL"),
        "");
}

static void the_reader_reads_views_and_nothing_else(void **state)
{
    (void)state;
    const char *db = migrated();

    assert_string_equal(
        pg_ask(db, "SELECT coalesce(string_agg(c.relname, ' '), '') FROM pg_class c WHERE"
                   " c.relnamespace = 'athanor'::regnamespace AND c.relkind IN ('r', 'p', 'v')"
                   " AND has_table_privilege('athanor_reader', c.oid, 'SELECT')"
                   " <> (c.relkind = 'v')"),
        "");
    assert_string_equal(
        pg_ask(db, "SELECT coalesce(string_agg(c.relname, ' '), '') FROM pg_class c WHERE"
                   " c.relnamespace = 'athanor'::regnamespace AND c.relkind IN ('r', 'p', 'v')"
                   " AND has_table_privilege('athanor_reader', c.oid, 'INSERT, UPDATE, DELETE')"),
        "");
    assert_string_equal(
        pg_ask(db, "SELECT string_agg(p.proname, ' ' ORDER BY p.proname) FROM pg_proc p WHERE"
                   " p.pronamespace = 'athanor'::regnamespace"
                   " AND has_function_privilege('athanor_reader', p.oid, 'EXECUTE')"),
        "block_read bytes_text card_list card_number card_pair job_find mix64 order_item order_read"
        " pair_lineage params_text step_items sweep_find");
    assert_string_equal(pg_ask(db, "SET ROLE athanor_reader; SELECT count(*) FROM athanor.jobs"),
                        "0");
    assert_non_null(strstr(pg_ask(db, "SET ROLE athanor_reader; SELECT * FROM athanor.job"),
                           "permission denied"));
}

static void an_owner_without_createrole_can_migrate(void **state)
{
    (void)state;
    const char *db = pg_database(&server);
    char limited[600];
    struct err err = {0};
    size_t applied;

    pg_ask(db, "CREATE ROLE plain LOGIN");
    pg_ask(db, "DO $$ BEGIN EXECUTE format('GRANT CREATE ON DATABASE %%I TO plain',"
               " current_database()); END $$");
    snprintf(limited, sizeof limited, "host=%s user=plain dbname=t%u", server.folder,
             server.databases);
    if (migrate(limited, migrations_embedded, migrations_embedded_count, &applied, &err) < 0)
        fail_msg("%s", err.text);
}

static void partitions_are_made_ahead_and_dropped_when_old(void **state)
{
    (void)state;
    const char *db = migrated();

    assert_string_equal(pg_ask(db, "SELECT athanor.history_prepare()"), "0");
    assert_string_equal(
        pg_ask(db, "INSERT INTO athanor.metric (attempt_id, node, seq, at, job_id, name)"
                   " SELECT 1, 0, n, now() + n * interval '1 day', 1, 'loss'"
                   " FROM generate_series(-400, 400, 8) n RETURNING 1"),
        "1");
    assert_string_equal(pg_ask(db, "SELECT count(*) FROM athanor.metric_default"), "98");
    /* Rows that waited in the default partition move when their week gets its own. */
    assert_string_equal(pg_ask(db, "SELECT athanor.history_prepare(now() - interval '8 weeks')"),
                        "8");
    assert_string_equal(pg_ask(db, "SELECT count(*) < 98 FROM athanor.metric_default"), "t");
    assert_string_equal(pg_ask(db, "SELECT count(*) FROM athanor.metric"), "101");
    assert_string_equal(pg_ask(db,
                               "SELECT athanor.history_drop('metric', now() - interval '5 weeks')"),
                        "3");
    assert_non_null(strstr(pg_ask(db, "SELECT athanor.history_drop('job', now())"),
                           "expected metric, log_chunk or job_event"));
}

static void a_succeeded_job_stays_so_whoever_writes(void **state)
{
    (void)state;
    const char *db = migrated();

    pg_ask(db, "INSERT INTO athanor.experiment VALUES (1, 'e', 'a', now())");
    pg_ask(db,
           "INSERT INTO athanor.job (job_id, experiment_id, name, kind, submit_key, submit_index,"
           " spec, ranks, cores, memory_bytes, gpus, submitted_at, priority, state, held,"
           " attempt_count, attempts_spent, ended_at) SELECT 1, 1, 'j', 'command', 'k', 0, '{}',"
           " 1, 1, 1, 0, now(), 0, 'SUCCEEDED', false, 0, 0, now()");
    assert_string_equal(pg_ask(db, "SELECT state FROM athanor.jobs WHERE job_id = 1"), "SUCCEEDED");
    assert_non_null(strstr(pg_ask(db, "UPDATE athanor.job SET state = 'READY', ended_at = NULL"),
                           "has succeeded"));
    assert_non_null(strstr(pg_ask(db, "UPDATE athanor.job SET ended_at = NULL"), "job_ended"));
}

/* Items by worker/engine/data/sampler.c, and events that are no orders. */
static void the_items_of_a_step_are_those_that_the_engine_draws(void **state)
{
    (void)state;
    const char *db = migrated();

    assert_string_equal(
        pg_ask(db, "SELECT count(*) || ' ' || count(*) FILTER (WHERE athanor.order_item(seed,"
                   " items, pos) = item) FROM (VALUES (0::numeric, 1::bigint, 4000012::bigint,"
                   " 0::bigint), (0, 10, 4000012, 8), (7, 1265, 0, 267), (7, 4119, 1000003, 2609),"
                   " (7, 1000000007, 4000012, 887809891),"
                   " (18446744073709551615, 1265, 1000003, 983),"
                   " (18446744073709551615, 1000000007, 0, 289206567),"
                   " (125780069804398, 4119, 4000012, 1975)) AS v (seed, items, pos, item)"),
        "8 8");
    pg_ask(db, "INSERT INTO athanor.experiment VALUES (1, 'e', 'a', now())");
    pg_ask(db,
           "INSERT INTO athanor.job (job_id, experiment_id, name, kind, submit_key, submit_index,"
           " spec, ranks, cores, memory_bytes, gpus, submitted_at, priority, state, held,"
           " attempt_count, attempts_spent) SELECT 1, 1, 'j', 'command', 'k', 0, '{}',"
           " 1, 1, 1, 0, now(), 0, 'READY', false, 0, 0");
    pg_ask(db, "INSERT INTO athanor.job_event (event_id, at, job_id, attempt_id, name, detail)"
               " SELECT row_number() OVER (), now(), 1, 5, 'data_order', d FROM unnest(ARRAY["
               "'{\"input\": \"data\", \"path\": \"/d\", \"part\": \"train\","
               " \"unit\": \"windows\", \"seed\": \"7\", \"batch\": 2, \"items\": 1265,"
               " \"context\": 16, \"skip\": 1}', 'none', '[1]', '{\"unit\": \"windows\"}', NULL,"
               " '{\"unit\": \"windows\", \"seed\": \"99999999999999999999\", \"batch\": 2,"
               " \"items\": 1, \"context\": 16, \"skip\": 1}']) AS d");
    assert_string_equal(pg_ask(db, "SELECT count(*) || ' ' || max(job || part) FROM"
                                   " athanor.data_orders"), "1 jtrain");
    /* Step 500001 behind one batch begins at position 1000002. */
    assert_string_equal(pg_ask(db, "SET ROLE athanor_reader; SELECT string_agg(batch_row || ':' ||"
                                   " item, ' ') FILTER (WHERE batch_row = 1)"
                                   " FROM athanor.step_items(5, 500001)"), "1:452");
    assert_string_equal(pg_ask(db, "SELECT count(*) FROM athanor.step_items(5, 0)"), "0");
}

/* As data/pairs tells them, by two attempts, and events that are none. */
static void blocks_are_rows_of_what_runs_tell_each_as_it_was_told_first(void **state)
{
    (void)state;
    const char *db = migrated();

    pg_ask(db, "INSERT INTO athanor.experiment VALUES (1, 'e', 'a', now())");
    pg_ask(db,
           "INSERT INTO athanor.job (job_id, experiment_id, name, kind, submit_key, submit_index,"
           " spec, ranks, cores, memory_bytes, gpus, submitted_at, priority, state, held,"
           " attempt_count, attempts_spent) SELECT 1, 1, 'j', 'command', 'k', 0, '{}',"
           " 1, 1, 1, 0, now(), 0, 'READY', false, 0, 0");
    pg_ask(db, "INSERT INTO athanor.job_event (event_id, at, job_id, attempt_id, name, detail)"
               " SELECT row_number() OVER (), now(), 1, 4 + row_number() OVER (), 'block', d"
               " FROM unnest(ARRAY['{\"stage\": \"pairs-1\", \"block\": 3, \"blocks\": 9,"
               " \"first\": 192, \"round\": 1, \"contexts\": 64, \"pool\": 640, \"pairs\": 7,"
               " \"hash\": \"ab\", \"rank\": 2, \"leases\": 3, \"ms\": 1500, \"sample_us\": 9,"
               " \"critic_us\": 4}', 'none', '[1]', '7', NULL, '{\"stage\": \"pairs\"}']) AS d");
    pg_ask(db, "INSERT INTO athanor.job_event (event_id, at, job_id, attempt_id, name, detail)"
               " SELECT event_id + 10, at, job_id, 99, name, detail FROM athanor.job_event");
    assert_string_equal(pg_ask(db, "SET ROLE athanor_reader; SELECT count(*) || ' ' || string_agg("
                                   "stage || ' ' || round || ' ' || block || ' ' || attempt_id ||"
                                   " ' ' || rank || ' ' || expired || ' ' || seconds, '')"
                                   " FROM athanor.distillation_blocks"), "1 pairs-1 1 3 5 2 2 1.5");
}

/* Of a card as data/yi writes it, and of cards that say something else there. */
static void clusters_and_limits_are_rows_of_what_cards_tell(void **state)
{
    (void)state;
    const char *db = migrated();

    pg_ask(db, "INSERT INTO athanor.experiment VALUES (1, 'e', 'a', now())");
    pg_ask(db,
           "INSERT INTO athanor.job (job_id, experiment_id, name, kind, submit_key, submit_index,"
           " spec, ranks, cores, memory_bytes, gpus, submitted_at, priority, state, held,"
           " attempt_count, attempts_spent) SELECT 1, 1, 'j', 'command', 'k', 0, '{}',"
           " 1, 1, 1, 0, now(), 0, 'READY', false, 0, 0");
    pg_ask(db,
           "SET session_replication_role = replica;" /* there is no attempt */
           "INSERT INTO athanor.artifact (artifact_id, job_id, attempt_id, kind, name, path, meta,"
           " created_at)"
           " SELECT n, 1, 1, 'dataset', 'd' || n, '/d', m::jsonb,"
           " now() FROM unnest(ARRAY["
           "'{\"web\": {\"limits\": {\"languages\": [{\"language\": \"en\", \"documents\": 7,"
           " \"drawn\": true, \"measures\": {\"words\": [21, null], \"top_2\": [null, 0.25],"
           " \"x\": 3}}, 5, {\"measures\": []}]},"
           " \"clusters\": [{\"cluster\": 1, \"documents\": 3, \"words\": 40,"
           " \"rate\": 1, \"samples\": []}, {\"cluster\": 0, \"documents\": 9, \"words\": 70,"
           " \"label\": 0.25, \"rate\": 0, \"samples\": [{\"id\": \"a\", \"text\": \"one\"},"
           " {\"id\": \"b\", \"text\": \"two\"}]}]}}',"
           "'{\"web\": {\"clusters\": [1, null, {\"cluster\": \"x\"}, {\"cluster\": 1e30}]}}',"
           "'{\"web\": {\"clusters\": {\"cluster\": 7, \"samples\": 3, \"documents\": \"no\"}}}',"
           "'{\"web\": 5}', '[]']) WITH ORDINALITY AS c (m, n)");
    assert_string_equal(pg_ask(db, "SET ROLE athanor_reader;"
                                   " SELECT string_agg(concat_ws(' ', dataset, cluster, documents,"
                                   " words, coalesce(quality, -1), kept, replace(samples,"
                                   " chr(10), '/')), ', ' ORDER BY dataset, cluster)"
                                   " FROM athanor.dataset_clusters"),
                        "d1 0 9 70 0.25 0 one/two, d1 1 3 40 -1 1, d3 7 -1");
    assert_string_equal(pg_ask(db, "SET ROLE athanor_reader;"
                                   " SELECT string_agg(concat_ws(' ', dataset, language, measure,"
                                   " coalesce(low, -1), coalesce(high, -1), documents, drawn), ', '"
                                   " ORDER BY measure) FROM athanor.dataset_limits"),
                        "d1 en top_2 -1 0.25 7 t, d1 en words 21 -1 7 t");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(migrating_twice_applies_nothing_the_second_time),
        cmocka_unit_test(an_edited_migration_is_refused_by_name),
        cmocka_unit_test(gaps_and_newer_databases_are_refused),
        cmocka_unit_test(an_additive_migration_serves_older_programs_too),
        cmocka_unit_test(a_later_migration_gives_back_what_an_earlier_one_took),
        cmocka_unit_test(any_other_migration_waits_until_nobody_leads),
        cmocka_unit_test(a_failing_migration_leaves_nothing_of_itself),
        cmocka_unit_test(eight_programs_starting_together_migrate_once),
        cmocka_unit_test(a_database_of_another_encoding_is_refused),
        cmocka_unit_test(every_def_equals_its_table),
        cmocka_unit_test(names_of_states_are_those_of_the_core),
        cmocka_unit_test(every_view_every_column_and_every_index_is_explained),
        cmocka_unit_test(the_reader_reads_views_and_nothing_else),
        cmocka_unit_test(an_owner_without_createrole_can_migrate),
        cmocka_unit_test(partitions_are_made_ahead_and_dropped_when_old),
        cmocka_unit_test(a_succeeded_job_stays_so_whoever_writes),
        cmocka_unit_test(the_items_of_a_step_are_those_that_the_engine_draws),
        cmocka_unit_test(blocks_are_rows_of_what_runs_tell_each_as_it_was_told_first),
        cmocka_unit_test(clusters_and_limits_are_rows_of_what_cards_tell),
    };
    return cmocka_run_group_tests(tests, start, stop);
}
