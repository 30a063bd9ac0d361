/* logs_test.c - the question `logs`: order, where a follower goes on, and its plan over a large
 * table. */
#include "common/base/mem.h"
#include "coordinator/store/migrate.h"
#include "coordinator/store/query.h"

#include "tests/lib/pg.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static struct pg_server server;
static PGconn *pg;

/* Job 1 of three attempts; the third on two nodes. Job 2 fills the table around it. */
static const char story[] =
    "SET session_replication_role = replica;" /* rows alone, without all that they refer to */
    "INSERT INTO athanor.log_chunk (attempt_id, node, seq, at, job_id, rank, stream, bytes)"
    "  SELECT a, n, s, now() - interval '1 hour' + s * interval '1 second' + n * interval '400 ms',"
    "         1, n, CASE WHEN s % 2 = 0 THEN 'stderr' ELSE 'stdout' END,"
    "         convert_to('a' || a || ' n' || n || ' s' || s || E'\\n', 'UTF8')"
    "    FROM generate_series(101, 103) a, generate_series(0, 1) n, generate_series(1, 20) s"
    "   WHERE n = 0 OR a = 103;"
    "INSERT INTO athanor.log_chunk (attempt_id, node, seq, at, job_id, rank, stream, bytes)"
    "  SELECT 200 + s / 200, 0, s, now() - interval '1 hour', 2, 0, 'stdout', '\\x78'"
    "    FROM generate_series(1, 20000) s;"
    "ANALYZE athanor.log_chunk;";

static void run_sql(const char *sql)
{
    PGresult *result = PQexec(pg, sql);
    if (PQresultStatus(result) != PGRES_COMMAND_OK && PQresultStatus(result) != PGRES_TUPLES_OK)
        fail_msg("%s", PQerrorMessage(pg));
    PQclear(result);
}

/* Rows of athanor.attempt that satisfy its constraints, whatever they are by now. */
static void attempts_add(void)
{
    run_sql("SET session_replication_role = replica;"
            "INSERT INTO athanor.attempt (attempt_id, job_id, number, worker_id, epoch, placed_at,"
            "                             state, cause, ended_at)"
            " SELECT a, 1, a - 100, 1, 1, now(), 'ENDED', 'exit', now()"
            "   FROM generate_series(101, 103) a;"
            "INSERT INTO athanor.attempt_node"
            "       (attempt_id, node, worker_id, first_rank, ranks, state, cause, ended_at)"
            " SELECT 103, n, n + 1, n, 1, 'ENDED', 'exit', now() FROM generate_series(0, 1) n");
}

static int open_story(void **state)
{
    struct err err;
    size_t applied;
    (void)state;
    if (!pg_start(&server))
        return -1;
    const char *db = pg_database(&server);
    if (migrate(db, migrations_embedded, migrations_embedded_count, &applied, &err) < 0)
        fail_msg("%s", err.text);
    pg = PQconnectdb(db);
    if (PQstatus(pg) != CONNECTION_OK)
        return -1;
    run_sql(story);
    attempts_add();
    return 0;
}

static int close_story(void **state)
{
    (void)state;
    PQfinish(pg);
    pg_stop(&server);
    return 0;
}

/* Runs the question as the reader would; `prefix` before its text. */
static PGresult *ask_as(const char *prefix, const struct rec_name_value *arguments, size_t count,
                        uint64_t limit, const char *after)
{
    struct arena arena = {0};
    struct err err;
    struct query_call call;
    struct msg_query query = {.name = "logs",
                              .arguments = (struct rec_name_value *)arguments,
                              .arguments_count = count,
                              .limit = limit,
                              .after = after};
    if (query_bind(&query, ROLE_USER, &arena, &call, &err) < 0)
        fail_msg("%s", err.text);
    char *sql = mem_printf("%s%s", prefix, call.query->sql);
    PGresult *result =
        PQexecParams(pg, sql, call.value_count, NULL, call.values, NULL, NULL, 0);
    if (PQresultStatus(result) != PGRES_TUPLES_OK)
        fail_msg("%s", PQerrorMessage(pg));
    mem_free(sql);
    arena_done(&arena);
    return result;
}

static const char *texts_of(PGresult *result, size_t rows)
{
    static char all[8192];
    size_t used = 0;
    all[0] = 0;
    for (int i = 0; i < PQntuples(result) && (size_t)i < rows; i++)
        used += (size_t)snprintf(all + used, sizeof all - used, "%s",
                                 PQgetvalue(result, i, PQfnumber(result, "bytes_text")));
    PQclear(result);
    return all;
}

static void the_newest_attempt_is_read_node_by_node(void **state)
{
    (void)state;
    struct rec_name_value arguments[] = {{"job", "1"}, {"tail", "2"}};
    assert_string_equal(texts_of(ask_as("", arguments, 2, 1000, NULL), 1000),
                        "a103 n0 s19\na103 n0 s20\na103 n1 s19\na103 n1 s20\n");
}

static void a_follower_gets_what_lies_behind_each_stream_in_order_of_time(void **state)
{
    (void)state;
    struct rec_name_value arguments[] = {{"job", "1"}, {"seen", "103.0.18,103.1.19"}};
    assert_string_equal(texts_of(ask_as("", arguments, 2, 1000, NULL), 1000),
                        "a103 n0 s19\na103 n0 s20\na103 n1 s20\n");
    struct rec_name_value before[] = {{"job", "1"}, {"seen", "102.0.19"}};
    assert_string_equal(texts_of(ask_as("", before, 2, 1000, NULL), 4),
                        "a102 n0 s20\na103 n0 s1\na103 n1 s1\na103 n0 s2\n");
}

static void pages_by_cursor_are_gapless_across_nodes_and_attempts(void **state)
{
    (void)state;
    struct rec_name_value arguments[] = {{"job", "1"}, {"all", "true"}};
    char after[100] = "";
    int rows = 0;
    for (;;) {
        PGresult *result = ask_as("", arguments, 2, 7, *after ? after : NULL);
        int here = PQntuples(result) < 7 ? PQntuples(result) : 7;
        if (here > 0)
            snprintf(after, sizeof after, "%s",
                     PQgetvalue(result, here - 1, PQnfields(result) - 1));
        PQclear(result);
        if (here == 0)
            break;
        rows += here;
    }
    assert_int_equal(rows, 80);
    assert_string_equal(after, "103.1.20");
}

static void attempts_that_were_replaced_say_so(void **state)
{
    (void)state;
    struct rec_name_value arguments[] = {{"job", "1"}, {"all", "true"}};
    PGresult *result = ask_as("", arguments, 2, 1000, NULL);
    int number = PQfnumber(result, "number"), superseded = PQfnumber(result, "superseded");
    assert_string_equal(PQgetvalue(result, 0, number), "1");
    assert_string_equal(PQgetvalue(result, 0, superseded), "t");
    assert_string_equal(PQgetvalue(result, PQntuples(result) - 1, number), "3");
    assert_string_equal(PQgetvalue(result, PQntuples(result) - 1, superseded), "f");
    PQclear(result);
}

static void rank_stream_and_time_choose(void **state)
{
    (void)state;
    struct rec_name_value arguments[] = {
        {"job", "1"}, {"rank", "1"}, {"stream", "stderr"}, {"tail", "1"}};
    assert_string_equal(texts_of(ask_as("", arguments, 4, 1000, NULL), 1000), "a103 n1 s20\n");
    struct rec_name_value future[] = {{"job", "1"}, {"since", "4102444800"}}; /* 2100 */
    assert_string_equal(texts_of(ask_as("", future, 2, 1000, NULL), 1000), "");
}

/* The whole table is never read, however much others have printed. */
static void the_plan_reads_ranges_of_the_key(void **state)
{
    (void)state;
    struct rec_name_value forms[][3] = {
        {{"job", "1"}, {"seen", "103.0.5"}, {"since", "1"}},
        {{"job", "1"}, {"rank", "1"}, {"tail", "5"}},
        {{"job", "1"}, {"all", "true"}, {"stream", "stdout"}},
    };
    /* Partitions of other weeks are empty: reading those whole costs nothing. */
    PGresult *largest = PQexec(pg, "SELECT split_part(tableoid::regclass::text, '.', 2) AS name"
                                   "  FROM athanor.log_chunk GROUP BY 1 ORDER BY count(*) DESC");
    assert_true(PQntuples(largest) > 0);
    char full[200];
    snprintf(full, sizeof full, "Seq Scan on %s", PQgetvalue(largest, 0, 0));
    PQclear(largest);
    for (size_t i = 0; i < ARRAY_COUNT(forms); i++) {
        PGresult *plan = ask_as("EXPLAIN ", forms[i], 3, 1000, i == 2 ? "102.0.3" : NULL);
        for (int row = 0; row < PQntuples(plan); row++)
            if (strstr(PQgetvalue(plan, row, 0), full))
                fail_msg("form %zu: %s", i, PQgetvalue(plan, row, 0));
        PQclear(plan);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_newest_attempt_is_read_node_by_node),
        cmocka_unit_test(a_follower_gets_what_lies_behind_each_stream_in_order_of_time),
        cmocka_unit_test(pages_by_cursor_are_gapless_across_nodes_and_attempts),
        cmocka_unit_test(attempts_that_were_replaced_say_so),
        cmocka_unit_test(rank_stream_and_time_choose),
        cmocka_unit_test(the_plan_reads_ranges_of_the_key),
    };
    return cmocka_run_group_tests(tests, open_story, close_story);
}
