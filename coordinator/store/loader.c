/* loader.c - see loader.h. Rows come one by one (single-row mode), so that a million live jobs
 * need no second copy in memory. */
#include "coordinator/store/loader.h"

#include "common/base/mem.h"
#include "coordinator/store/row_read.h"
#include "coordinator/store/sql.h"

#include <poll.h>
#include <stdlib.h>
#include <string.h>

struct load {
    PGconn *pg;
    struct core *core;
    struct arena arena; /* of one row */
    struct loader_counts counts;
    loader_pause_fn *pause; /* NULL: none */
    void *user;
    size_t rows; /* since the last pause */
};

typedef void load_row_fn(struct load *load, const void *row);

struct load_part {
    enum row_table table;
    load_row_fn *each;
    const char *rest; /* after SELECT all columns FROM table AS t; or a whole SELECT */
};

/* The jobs that the core holds: those that live and the parents of those. */
static const char sql_loaded[] =
    "CREATE TEMP TABLE loaded ON COMMIT DROP AS"
    " SELECT job_id FROM athanor.job WHERE ended_at IS NULL"
    " UNION SELECT d.parent_id FROM athanor.job_dependency d JOIN athanor.job c USING (job_id)"
    "        WHERE c.ended_at IS NULL;"
    "ANALYZE loaded";

static const char sql_ids[] =
    "SELECT coalesce((SELECT max(experiment_id) FROM athanor.experiment), 0),"
    " coalesce((SELECT max(worker_id) FROM athanor.worker), 0),"
    " coalesce((SELECT max(job_id) FROM athanor.job), 0),"
    " coalesce((SELECT max(attempt_id) FROM athanor.attempt), 0),"
    " coalesce((SELECT max(checkpoint_id) FROM athanor.checkpoint), 0),"
    " coalesce((SELECT max(artifact_id) FROM athanor.artifact), 0),"
    " coalesce((SELECT max(event_id) FROM athanor.job_event), 0),"
    " coalesce((SELECT max(snapshot_id) FROM athanor.snapshot), 0),"
    " coalesce((SELECT max(removal_id) FROM athanor.removal), 0),"
    " coalesce((SELECT max(copy_id) FROM athanor.copy), 0)";

/* Only what core_load_submit reads: specs of jobs long ended stay where they are. */
static const char sql_submits[] =
    "SELECT job_id, experiment_id, name, submit_key, submit_index FROM athanor.job"
    " WHERE ended_at IS NOT NULL ORDER BY job_id DESC LIMIT 65536";
_Static_assert(CORE_SUBMITS_MAX == 65536u, "sql_submits reads as many as the core remembers");

static void each_setting(struct load *load, const void *row)
{
    core_load_setting(load->core, row);
}

static void each_queue(struct load *load, const void *row)
{
    core_load_queue(load->core, row);
}

static void each_project(struct load *load, const void *row)
{
    core_load_project(load->core, row);
}

static void each_usage(struct load *load, const void *row)
{
    core_load_usage(load->core, row);
}

static void each_reservation(struct load *load, const void *row)
{
    core_load_reservation(load->core, row);
}

static void each_quota(struct load *load, const void *row)
{
    core_load_quota(load->core, row);
}

static void each_quota_usage(struct load *load, const void *row)
{
    core_load_quota_usage(load->core, row);
}

static void each_experiment(struct load *load, const void *row)
{
    core_load_experiment(load->core, row);
    load->counts.experiments++;
}

static void each_worker(struct load *load, const void *row)
{
    core_load_worker(load->core, row);
    load->counts.workers++;
}

static void each_worker_device(struct load *load, const void *row)
{
    core_load_worker_device(load->core, row);
}

static void each_worker_incident(struct load *load, const void *row)
{
    core_load_worker_incident(load->core, row);
}

static void each_copy(struct load *load, const void *row)
{
    core_load_copy(load->core, row);
}

static void each_removal(struct load *load, const void *row)
{
    core_load_removal(load->core, row);
}

static void each_snapshot(struct load *load, const void *row)
{
    core_load_snapshot(load->core, row);
}

static void each_job(struct load *load, const void *row)
{
    core_load_job(load->core, row);
    load->counts.jobs++;
}

static void each_submit(struct load *load, const void *row)
{
    core_load_submit(load->core, row);
    load->counts.submits++;
}

static void each_job_dependency(struct load *load, const void *row)
{
    core_load_job_dependency(load->core, row);
}

static void each_sweep(struct load *load, const void *row)
{
    core_load_sweep(load->core, row);
}

static void each_trial(struct load *load, const void *row)
{
    core_load_trial(load->core, row);
}

static void each_trial_rung(struct load *load, const void *row)
{
    core_load_trial_rung(load->core, row);
}

static void each_attempt(struct load *load, const void *row)
{
    core_load_attempt(load->core, row);
    load->counts.attempts++;
}

static void each_attempt_node(struct load *load, const void *row)
{
    core_load_attempt_node(load->core, row);
}

static void each_checkpoint(struct load *load, const void *row)
{
    core_load_checkpoint(load->core, row);
}

static void each_artifact(struct load *load, const void *row)
{
    core_load_artifact(load->core, row);
}

static void each_lineage(struct load *load, const void *row)
{
    core_load_lineage(load->core, row);
}

static void each_report_cursor(struct load *load, const void *row)
{
    core_load_report_cursor(load->core, row);
}

static void each_pending_reason(struct load *load, const void *row)
{
    core_load_pending_reason(load->core, row);
}

/* In the order that core.h asks for. */
static const struct load_part parts[] = {
    {ROW_TABLE_setting, each_setting, "ORDER BY t.name"},
    {ROW_TABLE_queue, each_queue, "ORDER BY t.name"},
    {ROW_TABLE_project, each_project, "ORDER BY t.name"},
    {ROW_TABLE_usage, each_usage, "ORDER BY t.kind, t.name"},
    {ROW_TABLE_reservation, each_reservation, "WHERE t.removed_at IS NULL ORDER BY t.name"},
    {ROW_TABLE_quota, each_quota, "ORDER BY t.scope"},
    {ROW_TABLE_quota_usage, each_quota_usage, "ORDER BY t.scope"},
    {ROW_TABLE_experiment, each_experiment, "ORDER BY t.experiment_id"},
    {ROW_TABLE_worker, each_worker, "ORDER BY t.worker_id"},
    {ROW_TABLE_worker_device, each_worker_device, "ORDER BY t.worker_id, t.device_index"},
    {ROW_TABLE_worker_incident, each_worker_incident,
     "WHERE t.cleared_at IS NULL ORDER BY t.worker_id, t.number"},
    {ROW_TABLE_copy, each_copy, "WHERE t.removed_at IS NULL ORDER BY t.copy_id"},
    {ROW_TABLE_removal, each_removal, "WHERE t.done_at IS NULL ORDER BY t.removal_id"},
    {ROW_TABLE_snapshot, each_snapshot, "WHERE t.removed_at IS NULL ORDER BY t.snapshot_id"},
    {ROW_TABLE_job, each_job, "JOIN loaded USING (job_id) ORDER BY t.job_id"},
    {ROW_TABLE_job, each_submit, sql_submits},
    {ROW_TABLE_job_dependency, each_job_dependency,
     "JOIN athanor.job c USING (job_id) WHERE c.ended_at IS NULL ORDER BY t.job_id, t.parent_id"},
    {ROW_TABLE_sweep, each_sweep, "WHERE t.ended_at IS NULL ORDER BY t.sweep_id"},
    {ROW_TABLE_trial, each_trial,
     "JOIN athanor.sweep s USING (sweep_id) WHERE s.ended_at IS NULL"
     " ORDER BY t.sweep_id, t.trial"},
    {ROW_TABLE_trial_rung, each_trial_rung,
     "JOIN athanor.sweep s USING (sweep_id) WHERE s.ended_at IS NULL"
     " ORDER BY t.sweep_id, t.rung, t.trial"},
    {ROW_TABLE_attempt, each_attempt, "WHERE t.ended_at IS NULL ORDER BY t.attempt_id"},
    {ROW_TABLE_attempt_node, each_attempt_node,
     "JOIN athanor.attempt a USING (attempt_id) WHERE a.ended_at IS NULL"
     " ORDER BY t.attempt_id, t.node"},
    {ROW_TABLE_checkpoint, each_checkpoint,
     "JOIN loaded USING (job_id) WHERE t.removed_at IS NULL"
     " OR t.removed_at > now() - interval '1 hour' ORDER BY t.checkpoint_id"},
    {ROW_TABLE_artifact, each_artifact,
     "JOIN loaded USING (job_id) WHERE t.removed_at IS NULL ORDER BY t.artifact_id"},
    {ROW_TABLE_lineage, each_lineage,
     "JOIN athanor.attempt a USING (attempt_id) WHERE a.ended_at IS NULL"
     " ORDER BY t.attempt_id, t.input"},
    {ROW_TABLE_report_cursor, each_report_cursor,
     "JOIN athanor.attempt a USING (attempt_id) WHERE a.ended_at IS NULL"
     " ORDER BY t.attempt_id, t.node"},
    {ROW_TABLE_pending_reason, each_pending_reason,
     "JOIN athanor.job j USING (job_id) WHERE t.until_at IS NULL AND j.ended_at IS NULL"
     " ORDER BY t.job_id, t.reason, t.from_at"},
};

#define ROW_BYTES_MAX 1024u /* the widest row struct: 31 fields of at most 32 bytes */

/* One result of single-row mode. 1: more follow; 0: the end. */
static int take_row(struct load *load, const struct load_part *part, PGresult *result,
                    struct err *err)
{
    const struct row_shape *shape = row_shape(part->table);
    _Alignas(16) char row[ROW_BYTES_MAX];

    switch (PQresultStatus(result)) {
    case PGRES_SINGLE_TUPLE:
        CHECK(shape->size_bytes <= sizeof row);
        arena_reset(&load->arena);
        if (row_read(result, 0, shape, &load->arena, row, err) < 0)
            return -1;
        part->each(load, row);
        return 1;
    case PGRES_TUPLES_OK:
        return 0;
    default:
        return pg_refuse(err, load->pg, result);
    }
}

static int pause_now(struct load *load, struct err *err)
{
    load->rows = 0;
    if (load->pause && !load->pause(load->user))
        return err_set(err, ERR_STALE, "loading was given up: the lease is lost");
    return 0;
}

/* PQgetResult, with pauses. 1: *out; 0: there are no more; -1. */
static int next_result(struct load *load, PGresult **out, struct err *err)
{
    if (++load->rows >= LOADER_PAUSE_ROWS && pause_now(load, err) < 0)
        return -1;
    while (PQisBusy(load->pg)) {
        struct pollfd fd = {.fd = PQsocket(load->pg), .events = POLLIN};
        if (poll(&fd, 1, LOADER_PAUSE_MS) == 0 && pause_now(load, err) < 0)
            return -1;
        if (!PQconsumeInput(load->pg))
            return pg_refuse(err, load->pg, NULL);
    }
    *out = PQgetResult(load->pg);
    return *out != NULL;
}

/* Statements without rows, whose work may take long. */
static int run(struct load *load, const char *sql, struct err *err)
{
    PGresult *result;
    int rc = PQsendQuery(load->pg, sql) ? 0 : pg_refuse(err, load->pg, NULL), more;

    while (rc == 0 && (more = next_result(load, &result, err)) != 0) {
        if (more < 0)
            return -1;
        if (PQresultStatus(result) != PGRES_COMMAND_OK)
            rc = pg_refuse(err, load->pg, result);
        PQclear(result);
    }
    return rc;
}

static int load_part(struct load *load, const struct load_part *part, struct err *err)
{
    char *sql = strncmp(part->rest, "SELECT", 6) == 0
                    ? mem_strdup(part->rest)
                    : sql_select(row_shape(part->table), part->rest);
    int rc = PQsendQueryParams(load->pg, sql, 0, NULL, NULL, NULL, NULL, 1) &&
                     PQsetSingleRowMode(load->pg)
                 ? 1
                 : pg_refuse(err, load->pg, NULL);
    PGresult *result;
    int more = 0;

    while (rc >= 0 && (more = next_result(load, &result, err)) > 0) {
        if (rc > 0)
            rc = take_row(load, part, result, err);
        PQclear(result);
    }
    if (more < 0)
        rc = -1;
    mem_free(sql);
    return rc < 0 ? err_wrap(err, "loading table '%s'", row_shape(part->table)->name) : 0;
}

static uint64_t id_at(const PGresult *row, int column)
{
    return strtoull(PQgetvalue(row, 0, column), NULL, 10);
}

static int load_ids(struct load *load, struct err *err)
{
    PGresult *row = NULL;

    if (pg_query(load->pg, sql_ids, 0, NULL, &row, err) < 0)
        return -1;
    struct core_ids ids = {.experiment = id_at(row, 0),
                           .worker = id_at(row, 1),
                           .job = id_at(row, 2),
                           .attempt = id_at(row, 3),
                           .checkpoint = id_at(row, 4),
                           .artifact = id_at(row, 5),
                           .event = id_at(row, 6),
                           .snapshot = id_at(row, 7),
                           .removal = id_at(row, 8),
                           .copy = id_at(row, 9)};
    PQclear(row);
    core_load_ids(load->core, &ids);
    return 0;
}

static int load_all(struct load *load, struct err *err)
{
    if (pg_query(load->pg, "BEGIN ISOLATION LEVEL REPEATABLE READ", 0, NULL, NULL, err) < 0 ||
        run(load, sql_loaded, err) < 0 || load_ids(load, err) < 0)
        return -1;
    for (size_t i = 0; i < ARRAY_COUNT(parts); i++)
        if (load_part(load, &parts[i], err) < 0)
            return -1;
    return pg_query(load->pg, "COMMIT", 0, NULL, NULL, err);
}

int loader_load(const char *conninfo, struct core *core, uint64_t now_ms, uint64_t wall_us,
                loader_pause_fn *pause, void *user, struct loader_counts *out_counts,
                uint64_t *out_wake_ms, struct err *err)
{
    struct load load = {.core = core, .pause = pause, .user = user};
    int rc = pg_connect(conninfo, PG_ADMIN, &load.pg, err);

    if (rc == 0)
        rc = load_all(&load, err);
    if (rc == 0) {
        *out_wake_ms = core_load_end(core, now_ms, wall_us);
        *out_counts = load.counts;
    }
    arena_done(&load.arena);
    PQfinish(load.pg);
    return rc;
}

int loader_catalogue(const char *conninfo, struct catalogue *catalogue, struct err *err)
{
    static const char sql[] =
        "SELECT jsonb_build_object('format', 1, 'engine', max(engine),"
        "                          'recipes', jsonb_agg(catalogue ORDER BY kind, name))::text"
        "  FROM athanor.recipe HAVING count(*) > 0";
    PGconn *pg = NULL;
    PGresult *row = NULL;
    int rc = pg_connect(conninfo, PG_ADMIN, &pg, err);

    if (rc == 0)
        rc = pg_query(pg, sql, 0, NULL, &row, err);
    if (rc == 0 && PQntuples(row) == 1)
        rc = catalogue_add(catalogue, PQgetvalue(row, 0, 0), (size_t)PQgetlength(row, 0, 0), err);
    PQclear(row);
    PQfinish(pg);
    return rc;
}

/* All rows of a table that the shell keeps, as `out_count` structs of its shape in the arena. */
static int rows_load(const char *conninfo, const struct row_shape *shape, const char *where,
                     struct arena *arena, void *out_rows, size_t *out_count, struct err *err)
{
    char *sql = sql_select(shape, where);
    PGconn *pg = NULL;
    PGresult *result = NULL;
    int rc = pg_connect(conninfo, PG_ADMIN, &pg, err);

    if (rc == 0) {
        result = PQexecParams(pg, sql, 0, NULL, NULL, NULL, NULL, 1);
        rc = PQresultStatus(result) == PGRES_TUPLES_OK
                 ? row_read_all(result, shape, arena, out_rows, out_count, err)
                 : pg_refuse(err, pg, result);
    }
    PQclear(result);
    PQfinish(pg);
    mem_free(sql);
    return rc;
}

int loader_principals(const char *conninfo, loader_principal_fn *each, void *user, struct err *err)
{
    struct arena arena = {0};
    struct row_principal *rows = NULL;
    size_t count = 0;
    int rc = rows_load(conninfo, row_shape(ROW_TABLE_principal),
                       "WHERE t.revoked_at IS NULL ORDER BY t.public_key", &arena, &rows, &count,
                       err);

    for (size_t i = 0; rc == 0 && i < count; i++)
        each(user, &rows[i]);
    arena_done(&arena);
    return rc;
}

int loader_secrets(const char *conninfo, loader_secret_fn *each, void *user, struct err *err)
{
    struct arena arena = {0};
    struct row_secret *rows = NULL;
    size_t count = 0;
    int rc = rows_load(conninfo, row_shape(ROW_TABLE_secret),
                       "WHERE t.removed_at IS NULL ORDER BY t.account, t.name", &arena, &rows,
                       &count, err);

    for (size_t i = 0; rc == 0 && i < count; i++)
        each(user, &rows[i]);
    arena_done(&arena);
    return rc;
}

int loader_project_secrets(const char *conninfo, loader_project_secret_fn *each, void *user,
                           struct err *err)
{
    struct arena arena = {0};
    struct row_project_secret *rows = NULL;
    size_t count = 0;
    int rc = rows_load(conninfo, row_shape(ROW_TABLE_project_secret),
                       "WHERE t.removed_at IS NULL ORDER BY t.project, t.name", &arena, &rows,
                       &count, err);

    for (size_t i = 0; rc == 0 && i < count; i++)
        each(user, &rows[i]);
    arena_done(&arena);
    return rc;
}

bool loader_is_answered(const char *conninfo)
{
    const char *keywords[] = {"dbname", "connect_timeout", NULL};
    const char *values[] = {conninfo, "10", NULL};
    PGPing ping = PQpingParams(keywords, values, 1);

    return ping == PQPING_OK || ping == PQPING_NO_ATTEMPT;
}

int loader_prepare_history(const char *conninfo, struct err *err)
{
    PGconn *pg = NULL;
    PGresult *row = NULL;
    int rc = pg_connect(conninfo, PG_ADMIN, &pg, err);

    if (rc == 0)
        rc = pg_query(pg, "SELECT athanor.history_prepare()", 0, NULL, &row, err);
    PQclear(row);
    PQfinish(pg);
    return rc;
}

int loader_cluster_id(const char *conninfo, uint64_t *out, struct err *err)
{
    PGconn *pg = NULL;
    PGresult *row = NULL;
    int rc = pg_connect(conninfo, PG_ADMIN, &pg, err);

    if (rc == 0)
        rc = pg_query(pg, "SELECT cluster_id FROM athanor.cluster", 0, NULL, &row, err);
    if (rc == 0)
        *out = id_at(row, 0);
    PQclear(row);
    PQfinish(pg);
    return rc;
}
