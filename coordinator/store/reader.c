/* reader.c - see reader.h.
 *
 * A request is up to four statements with the same parameters, sent in one pipeline. */
#include "coordinator/store/reader.h"

#include "common/base/mem.h"
#include "common/base/json_text.h"
#include "coordinator/store/row_read.h"
#include "coordinator/store/sql.h"

#include <string.h>

#define STATEMENTS_MAX 6u

enum request_kind { REQUEST_QUERY = 1, REQUEST_LOOKUP, REQUEST_MAINTAIN };

struct request {
    struct request *next;
    enum request_kind kind;
    uint64_t ticket;
    unsigned tries;
    struct arena arena;
    struct query_call call; /* REQUEST_QUERY */
    const char *lookups;    /* REQUEST_LOOKUP: JSON, or */
    const char *submit_key; /* in hex, when nothing else is asked */
    const char *keep_ms;    /* REQUEST_MAINTAIN */
};

enum lane_stage { LANE_DOWN = 1, LANE_CONNECTING, LANE_IDLE, LANE_BUSY };

struct lane {
    enum lane_stage stage;
    PGconn *pg;
    bool wants_write;
    uint64_t retry_ms, backoff_ms;
    struct request *request; /* LANE_BUSY */
    PGresult *results[STATEMENTS_MAX];
    size_t result_count;
    PGresult *refusal;
    bool
        prepared; /* the lookups' statements; planning them anew would cost a submit milliseconds */
};

struct reader {
    char *conninfo;
    struct reader_events events;
    struct request *first, *last;
    size_t waiting;
    struct lane lanes[READER_LANES];
    char *found_sql[STATEMENTS_MAX]; /* as found_tables */
    char *submit_sql;                /* jobs of one submit key: what every submit asks */
};

/* Numbers of the jobs that the lookups ($1, JSON) speak of; kinds are enum lookup_kind. */
#define SQL_FOUND                                                                                  \
    "WITH ask AS (SELECT * FROM jsonb_to_recordset($1::jsonb) AS a (kind int, name text,"          \
    "             experiment text, job_id bigint, submit_key text)),"                              \
    " named AS ("                                                                                  \
    "  SELECT j.job_id FROM ask a JOIN athanor.job j"                                              \
    "      ON a.kind = 1 AND j.submit_key = decode(a.submit_key, 'hex')"                           \
    "  UNION SELECT j.job_id FROM ask a JOIN athanor.job j ON a.kind = 2 AND j.job_id = a.job_id"  \
    "  UNION SELECT n.job_id FROM ask a, LATERAL (SELECT j.job_id FROM athanor.job j"              \
    "            JOIN athanor.experiment e USING (experiment_id)"                                  \
    "           WHERE a.kind = 3 AND j.name = a.name AND j.ended_at IS NOT NULL"                   \
    "           ORDER BY e.name = a.experiment DESC, j.job_id DESC LIMIT 1) n"                     \
    "  UNION SELECT j.job_id FROM ask a JOIN athanor.experiment e"                                 \
    "            ON a.kind = 4 AND e.name = a.experiment"                                          \
    "            JOIN athanor.job j ON j.experiment_id = e.experiment_id"                          \
    "           AND j.state IN ('FAILED', 'CANCELLED')"                                            \
    "  UNION SELECT d.job_id FROM ask a, LATERAL (SELECT r.job_id FROM athanor.artifact r"         \
    "            JOIN athanor.job j USING (job_id) JOIN athanor.experiment e USING "               \
    "(experiment_id)"                                                                              \
    "           WHERE a.kind = 5 AND r.kind = 'dataset' AND r.name = a.name"                       \
    "             AND r.removed_at IS NULL"                                                        \
    "           ORDER BY e.name = a.experiment DESC, r.artifact_id DESC LIMIT 1) d"                \
    "  UNION SELECT s.job_id FROM ask a, LATERAL (SELECT j.job_id FROM athanor.job j"              \
    "           WHERE a.kind = 6 AND j.spec_hash = decode(a.name, 'hex')"                          \
    "             AND j.identity IS NOT NULL AND j.state = 'SUCCEEDED'"                            \
    "             AND NOT EXISTS (SELECT FROM athanor.removal r WHERE r.job_id = j.job_id)"        \
    "             AND j.reused_job_id IS NULL ORDER BY j.job_id DESC LIMIT 10) s"                  \
    "  UNION SELECT j.job_id FROM ask a, LATERAL (SELECT s.* FROM athanor.sweep s"                 \
    "            JOIN athanor.experiment e USING (experiment_id)"                                  \
    "           WHERE a.kind = 8 AND s.name = a.name"                                              \
    "           ORDER BY e.name = a.experiment DESC, s.sweep_id DESC LIMIT 1) s"                   \
    "            JOIN athanor.job j ON j.job_id BETWEEN s.sweep_id AND"                            \
    "                 s.sweep_id + s.trial_count - 1 AND j.ended_at IS NOT NULL"                   \
    "           WHERE s.ended_at IS NULL OR j.job_id = athanor.trial_best(s.sweep_id)),"           \
    " found AS (SELECT job_id FROM named UNION SELECT j.reused_job_id FROM named"                  \
    "           JOIN athanor.job j USING (job_id) WHERE j.reused_job_id IS NOT NULL) "

_Static_assert(LOOKUP_SUBMIT == 1 && LOOKUP_JOB_ID == 2 && LOOKUP_JOB_NAME == 3 &&
                   LOOKUP_EXPERIMENT == 4 && LOOKUP_DATASET == 5 && LOOKUP_TWIN == 6 &&
                   LOOKUP_GARBAGE == 7 && LOOKUP_SWEEP == 8 && LOOKUP_TWINS_MAX == 10 &&
                   LOOKUP_GARBAGE_MAX == 1000,
               "SQL_FOUND numbers the kinds of lookups");

static const enum row_table found_tables[STATEMENTS_MAX] = {ROW_TABLE_job, ROW_TABLE_job_dependency,
                                                            ROW_TABLE_checkpoint,
                                                            ROW_TABLE_artifact,
                                                            ROW_TABLE_removal, ROW_TABLE_trial};
static const char *const found_rest[STATEMENTS_MAX] = {
    "JOIN found USING (job_id) ORDER BY t.job_id",
    "JOIN found USING (job_id) ORDER BY t.job_id, t.parent_id",
    "JOIN found USING (job_id) WHERE t.removed_at IS NULL ORDER BY t.checkpoint_id",
    "JOIN found USING (job_id) WHERE t.removed_at IS NULL ORDER BY t.artifact_id", NULL, NULL};

/* A function for each row of `ask`: others than LOOKUP_GARBAGE do not pay for it. */
static const char sql_garbage[] =
    "WITH ask AS (SELECT * FROM jsonb_to_recordset($1::jsonb) AS a (kind int, name text,"
    "             job_id bigint))"
    " SELECT t.* FROM ask a, LATERAL athanor.retention_due("
    "   CASE WHEN a.name = 'checkpoint' THEN a.job_id END,"
    "   CASE WHEN a.name = 'artifact' THEN a.job_id END, 1000) AS t"
    "  WHERE a.kind = 7 AND (a.name IN ('', t.kind) OR t.kind = 'copy')";

/* The best of sweeps that have ended, in the columns of ROW_TABLE_trial, values as in the view:
 * those of a trial that took another job's results are that job's. */
static const char sql_best[] =
    "WITH ask AS (SELECT * FROM jsonb_to_recordset($1::jsonb) AS a (kind int, name text,"
    "             experiment text))"
    " SELECT t.sweep_id, t.trial, t.job_id, t.params, t.rung, t.resource,"
    "        (v.best_value IS NOT NULL)::int::bigint AS reports,"
    "        coalesce(v.best_value, 'NaN') AS best_value, coalesce(v.best_step, 0) AS best_step"
    "   FROM ask a, LATERAL (SELECT s.* FROM athanor.sweep s"
    "        JOIN athanor.experiment e USING (experiment_id)"
    "       WHERE a.kind = 8 AND s.name = a.name"
    "       ORDER BY e.name = a.experiment DESC, s.sweep_id DESC LIMIT 1) s"
    "   JOIN athanor.trial t ON t.job_id = athanor.trial_best(s.sweep_id)"
    "   JOIN athanor.trials v ON v.sweep_id = s.sweep_id AND v.trial = t.trial"
    "  WHERE s.ended_at IS NOT NULL";

static const char sql_maintain[] =
    "SELECT athanor.history_prepare() + athanor.snapshot_sweep() +"
    " CASE WHEN $1::bigint = 0 THEN 0 ELSE"
    " athanor.history_drop('metric', now() - $1::bigint * interval '1 millisecond') +"
    " athanor.history_drop('log_chunk', now() - $1::bigint * interval '1 millisecond') END";

struct reader *reader_open(const char *conninfo, const struct reader_events *events)
{
    struct reader *reader = mem_zalloc(sizeof *reader);

    reader->conninfo = mem_strdup(conninfo);
    reader->events = *events;
    for (size_t i = 0; i < READER_LANES; i++)
        reader->lanes[i].stage = LANE_DOWN;
    for (size_t i = 0; i < STATEMENTS_MAX - 2; i++) {
        char *select = sql_select(row_shape(found_tables[i]), found_rest[i]);
        reader->found_sql[i] = mem_printf("%s%s", SQL_FOUND, select);
        mem_free(select);
    }
    reader->found_sql[STATEMENTS_MAX - 2] = mem_strdup(sql_garbage);
    reader->found_sql[STATEMENTS_MAX - 1] = mem_strdup(sql_best);
    reader->submit_sql = sql_select(row_shape(ROW_TABLE_job),
                                    "WHERE t.submit_key = decode($1, 'hex') ORDER BY t.job_id");
    return reader;
}

static void request_free(struct request *request)
{
    if (!request)
        return;
    arena_done(&request->arena);
    mem_free(request);
}

static void results_clear(struct lane *lane)
{
    for (size_t i = 0; i < lane->result_count; i++)
        PQclear(lane->results[i]);
    lane->result_count = 0;
    PQclear(lane->refusal);
    lane->refusal = NULL;
}

void reader_close(struct reader *reader)
{
    if (!reader)
        return;
    for (size_t i = 0; i < READER_LANES; i++) {
        if (reader->lanes[i].pg && reader->events.on_closing)
            reader->events.on_closing(reader->events.user, i);
        results_clear(&reader->lanes[i]);
        request_free(reader->lanes[i].request);
        PQfinish(reader->lanes[i].pg);
    }
    while (reader->first) {
        struct request *request = reader->first;
        reader->first = request->next;
        request_free(request);
    }
    for (size_t i = 0; i < STATEMENTS_MAX; i++)
        mem_free(reader->found_sql[i]);
    mem_free(reader->submit_sql);
    mem_free(reader->conninfo);
    mem_free(reader);
}

/* ---- requests ------------------------------------------------------------------------------- */

static struct request *request_new(const struct reader *reader, enum request_kind kind,
                                   uint64_t ticket, struct err *err)
{
    if (reader->waiting >= READER_QUEUE_MAX) {
        err_set(err, ERR_LIMIT, "%u questions wait for the database already, try again later",
                READER_QUEUE_MAX);
        return NULL;
    }
    struct request *request = mem_zalloc(sizeof *request);
    request->kind = kind;
    request->ticket = ticket;
    return request;
}

static void request_queue(struct reader *reader, struct request *request)
{
    if (reader->last)
        reader->last->next = request;
    else
        reader->first = request;
    reader->last = request;
    reader->waiting++;
}

static struct request *request_take(struct reader *reader)
{
    struct request *request = reader->first;

    if (request) {
        reader->first = request->next;
        if (!reader->first)
            reader->last = NULL;
        request->next = NULL;
        reader->waiting--;
    }
    return request;
}

int reader_query(struct reader *reader, uint64_t ticket, const struct msg_query *query,
                 enum role role, struct err *err)
{
    struct request *request = request_new(reader, REQUEST_QUERY, ticket, err);

    if (!request)
        return -1;
    if (query_bind(query, role, &request->arena, &request->call, err) < 0) {
        request_free(request);
        return -1;
    }
    request_queue(reader, request);
    return 0;
}

static void add_hex(struct buf *out, const uint8_t *key)
{
    for (int i = 0; key && i < 16; i++)
        buf_printf(out, "%02x", key[i]);
}

static void add_lookup(struct buf *json, const struct core_lookup *lookup)
{
    const char *name = lookup->name ? lookup->name : "";
    const char *experiment = lookup->experiment ? lookup->experiment : "";

    buf_printf(json, "%s{\"kind\":%d,\"job_id\":%llu,\"name\":", json->length > 1 ? "," : "",
               (int)lookup->kind, (unsigned long long)min_u64(lookup->job_id, INT64_MAX));
    json_text_quote(json, name, strlen(name));
    buf_puts(json, ",\"experiment\":");
    json_text_quote(json, experiment, strlen(experiment));
    buf_puts(json, ",\"submit_key\":\"");
    add_hex(json, lookup->submit_key);
    buf_puts(json, "\"}");
}

int reader_lookup(struct reader *reader, uint64_t ticket, const struct core_lookup *lookups,
                  size_t count, struct err *err)
{
    struct request *request = request_new(reader, REQUEST_LOOKUP, ticket, err);
    struct buf json = {0};

    if (!request)
        return -1;
    if (count == 1 && lookups[0].kind == LOOKUP_SUBMIT) {
        add_hex(&json, lookups[0].submit_key);
        request->submit_key = arena_strdup(&request->arena, buf_text(&json));
    } else {
        buf_putc(&json, '[');
        for (size_t i = 0; i < count; i++)
            add_lookup(&json, &lookups[i]);
        buf_putc(&json, ']');
        request->lookups = arena_strndup(&request->arena, json.bytes, json.length);
    }
    buf_done(&json);
    request_queue(reader, request);
    return 0;
}

int reader_maintain(struct reader *reader, uint64_t keep_ms, struct err *err)
{
    struct request *request = request_new(reader, REQUEST_MAINTAIN, 0, err);

    if (!request)
        return -1;
    request->keep_ms = pg_u64(&request->arena, keep_ms);
    request_queue(reader, request);
    return 0;
}

/* ---- answers -------------------------------------------------------------------------------- */

static void answer_error(struct reader *reader, const struct request *request,
                         const struct err *err)
{
    switch (request->kind) {
    case REQUEST_QUERY:
        reader->events.on_table(reader->events.user, request->ticket, NULL, err);
        return;
    case REQUEST_LOOKUP:
        reader->events.on_found(reader->events.user, request->ticket, NULL, err);
        return;
    case REQUEST_MAINTAIN:
        reader->events.on_maintained(reader->events.user, err);
        return;
    }
}

/* Rows that fit the page, by count and by bytes; at least one. */
static size_t page_rows(const PGresult *result, const struct query_call *call, size_t columns)
{
    size_t rows = min_u64((size_t)PQntuples(result), call->limit), bytes = 0, fit = 0;

    for (; fit < rows; fit++) {
        for (size_t c = 0; c < columns; c++)
            bytes += 8 + (size_t)PQgetlength(result, (int)fit, (int)c);
        if (bytes > QUERY_PAGE_BYTES_MAX && fit > 0)
            break;
    }
    return fit;
}

static void answer_query(struct reader *reader, struct request *request, const PGresult *result)
{
    const struct query_call *call = &request->call;
    struct msg_table table = {0};

    query_columns(call->query, &request->arena, &table);
    size_t columns = table.columns_count, rows = page_rows(result, call, columns);
    CHECK((size_t)PQnfields(result) == columns + 1);
    table.cells_count = rows * columns;
    table.cells = arena_alloc(&request->arena, (table.cells_count + 1) * sizeof *table.cells);
    for (size_t i = 0; i < table.cells_count; i++) {
        int row = (int)(i / columns), column = (int)(i % columns);
        table.cells[i].is_null = PQgetisnull(result, row, column);
        table.cells[i].text = PQgetvalue(result, row, column);
    }
    table.next = "";
    if (rows < (size_t)PQntuples(result) || (call->query->follow && rows > 0))
        table.next = PQgetvalue(result, (int)rows - 1, (int)columns);
    else if (call->query->follow && call->after)
        table.next = call->after;
    reader->events.on_table(reader->events.user, request->ticket, &table, NULL);
}

static void answer_lookup(struct reader *reader, struct request *request, PGresult *const *results)
{
    struct event_found found = {0};
    struct err err;
    struct arena *arena = &request->arena;

    if (row_read_all(results[0], row_shape(ROW_TABLE_job), arena, &found.jobs, &found.job_count,
                     &err) < 0) {
        answer_error(reader, request, &err);
        return;
    }
    if (request->submit_key) {
        reader->events.on_found(reader->events.user, request->ticket, &found, NULL);
        return;
    }
    if (row_read_all(results[1], row_shape(ROW_TABLE_job_dependency), arena, &found.dependencies,
                     &found.dependency_count, &err) < 0 ||
        row_read_all(results[2], row_shape(ROW_TABLE_checkpoint), arena, &found.checkpoints,
                     &found.checkpoint_count, &err) < 0 ||
        row_read_all(results[3], row_shape(ROW_TABLE_artifact), arena, &found.artifacts,
                     &found.artifact_count, &err) < 0 ||
        row_read_all(results[4], row_shape(ROW_TABLE_removal), arena, &found.removals,
                     &found.removal_count, &err) < 0 ||
        row_read_all(results[5], row_shape(ROW_TABLE_trial), arena, &found.trials,
                     &found.trial_count, &err) < 0)
        answer_error(reader, request, &err);
    else
        reader->events.on_found(reader->events.user, request->ticket, &found, NULL);
}

static void answer(struct reader *reader, struct lane *lane)
{
    struct request *request = lane->request;

    switch (request->kind) {
    case REQUEST_QUERY:
        answer_query(reader, request, lane->results[0]);
        return;
    case REQUEST_LOOKUP:
        answer_lookup(reader, request, lane->results);
        return;
    case REQUEST_MAINTAIN:
        reader->events.on_maintained(reader->events.user, NULL);
        return;
    }
}

/* ---- lanes ---------------------------------------------------------------------------------- */

/* Drops the connection; its request is asked again elsewhere, or answered with the reason. */
static void lane_down(struct reader *reader, struct lane *lane, uint64_t now_ms)
{
    struct err err;
    struct request *request = lane->request;

    pg_refuse(&err, lane->pg, NULL);
    lane->request = NULL;
    results_clear(lane);
    if (lane->pg && PQsocket(lane->pg) >= 0)
        reader->events.on_closing(reader->events.user, (size_t)(lane - reader->lanes));
    PQfinish(lane->pg);
    lane->pg = NULL;
    lane->prepared = false;
    lane->stage = LANE_DOWN;
    lane->wants_write = false;
    lane->backoff_ms = lane->backoff_ms ? min_u64(2 * lane->backoff_ms, 1000) : 50;
    lane->retry_ms = now_ms + lane->backoff_ms;
    if (request && ++request->tries < READER_TRIES) {
        request->next = reader->first; /* keeps its place */
        reader->first = request;
        if (!reader->last)
            reader->last = request;
        reader->waiting++;
        return;
    }
    if (request)
        answer_error(reader, request, &err);
    request_free(request);
}

static bool lane_flush(struct lane *lane)
{
    int left = PQflush(lane->pg);

    lane->wants_write = left == 1;
    return left >= 0;
}

static bool send_maintain(struct lane *lane, const struct request *request)
{
    const char *values[] = {request->keep_ms};
    PGconn *pg = lane->pg;

    return PQsendQueryParams(pg, "BEGIN READ WRITE", 0, NULL, NULL, NULL, NULL, 0) &&
           PQsendQueryParams(pg, "SET LOCAL lock_timeout = 200", 0, NULL, NULL, NULL, NULL, 0) &&
           PQsendQueryParams(pg, sql_maintain, 1, NULL, values, NULL, NULL, 0) &&
           PQsendQueryParams(pg, "COMMIT", 0, NULL, NULL, NULL, NULL, 0);
}

static const char *const found_names[STATEMENTS_MAX] = {"jobs", "dependencies", "checkpoints",
                                                        "artifacts", "removals", "trials"};

static bool send_prepare(const struct reader *reader, struct lane *lane)
{
    bool sent = true;

    if (lane->prepared)
        return true;
    lane->prepared = true;
    for (size_t i = 0; i < STATEMENTS_MAX; i++)
        sent = sent && PQsendPrepare(lane->pg, found_names[i], reader->found_sql[i], 0, NULL);
    return sent && PQsendPrepare(lane->pg, "submit", reader->submit_sql, 0, NULL);
}

static bool send_lookup(struct lane *lane, const struct request *request)
{
    const char *values[] = {request->submit_key ? request->submit_key : request->lookups};
    bool sent = true;

    if (request->submit_key)
        return PQsendQueryPrepared(lane->pg, "submit", 1, values, NULL, NULL, 1) == 1;
    for (size_t i = 0; i < STATEMENTS_MAX; i++)
        sent = sent && PQsendQueryPrepared(lane->pg, found_names[i], 1, values, NULL, NULL, 1);
    return sent;
}

static bool send_request(struct reader *reader, struct lane *lane)
{
    const struct request *request = lane->request;
    bool sent = PQenterPipelineMode(lane->pg) == 1;

    switch (request->kind) {
    case REQUEST_QUERY:
        sent =
            sent && PQsendQueryParams(lane->pg, request->call.query->sql, request->call.value_count,
                                      NULL, request->call.values, NULL, NULL, 0);
        break;
    case REQUEST_LOOKUP:
        sent = sent && send_prepare(reader, lane) && send_lookup(lane, request);
        break;
    case REQUEST_MAINTAIN:
        sent = sent && send_maintain(lane, request);
        break;
    }
    return sent && PQpipelineSync(lane->pg) && lane_flush(lane);
}

static void lane_start(struct reader *reader, struct lane *lane, uint64_t now_ms)
{
    lane->request = request_take(reader);
    if (!lane->request)
        return;
    lane->stage = LANE_BUSY;
    if (!send_request(reader, lane))
        lane_down(reader, lane, now_ms);
}

static void lane_connect(struct reader *reader, struct lane *lane, uint64_t now_ms)
{
    struct err err;

    if (now_ms < lane->retry_ms)
        return;
    if (pg_connect_start(reader->conninfo, PG_READER, &lane->pg, &err) < 0) {
        lane->backoff_ms = lane->backoff_ms ? min_u64(2 * lane->backoff_ms, 1000) : 50;
        lane->retry_ms = now_ms + lane->backoff_ms;
        return;
    }
    lane->stage = LANE_CONNECTING;
    lane->wants_write = true;
}

static void lane_connecting(struct reader *reader, struct lane *lane, uint64_t now_ms)
{
    switch (PQconnectPoll(lane->pg)) {
    case PGRES_POLLING_READING:
        lane->wants_write = false;
        return;
    case PGRES_POLLING_WRITING:
        lane->wants_write = true;
        return;
    case PGRES_POLLING_OK:
        lane->wants_write = false;
        lane->backoff_ms = 0;
        lane->stage = LANE_IDLE;
        PQsetnonblocking(lane->pg, 1);
        return;
    case PGRES_POLLING_FAILED:
    case PGRES_POLLING_ACTIVE:
        lane_down(reader, lane, now_ms);
        return;
    }
}

/* The pipeline has been answered in full: answers the request. */
static void lane_finish(struct reader *reader, struct lane *lane, uint64_t now_ms)
{
    struct request *request = lane->request;

    if (!PQexitPipelineMode(lane->pg)) {
        lane_down(reader, lane, now_ms);
        return;
    }
    lane->stage = LANE_IDLE;
    if (lane->refusal) {
        struct err err;
        pg_refuse(&err, lane->pg, lane->refusal);
        if (request->kind == REQUEST_QUERY)
            err_wrap(&err, "query '%s'", request->call.query->name);
        answer_error(reader, request, &err);
    } else {
        answer(reader, lane);
    }
    bool broken =
        lane->refusal && request->kind != REQUEST_QUERY; /* BEGIN or a PREPARE is half done */
    results_clear(lane);
    lane->request = NULL;
    request_free(request);
    if (broken)
        lane_down(reader, lane, now_ms);
}

static void lane_busy(struct reader *reader, struct lane *lane, uint64_t now_ms)
{
    while (!PQisBusy(lane->pg)) {
        PGresult *result = PQgetResult(lane->pg);
        ExecStatusType status = PQresultStatus(result);
        if (PQstatus(lane->pg) == CONNECTION_BAD) {
            PQclear(result);
            lane_down(reader, lane, now_ms);
            return;
        }
        if (status == PGRES_PIPELINE_SYNC) {
            PQclear(result);
            lane_finish(reader, lane, now_ms);
            return;
        }
        if (status == PGRES_TUPLES_OK && lane->result_count < STATEMENTS_MAX)
            lane->results[lane->result_count++] = result;
        else if (result && status == PGRES_FATAL_ERROR && !lane->refusal)
            lane->refusal = result;
        else
            PQclear(result);
    }
}

static void lane_step(struct reader *reader, struct lane *lane, uint64_t now_ms)
{
    if (lane->stage == LANE_DOWN && reader->first)
        lane_connect(reader, lane, now_ms);
    if (lane->stage == LANE_CONNECTING)
        lane_connecting(reader, lane, now_ms);
    if (lane->stage >= LANE_IDLE && (!PQconsumeInput(lane->pg) || !lane_flush(lane)) &&
        lane->stage == LANE_IDLE)
        lane_down(reader, lane, now_ms);
    if (lane->stage == LANE_BUSY)
        lane_busy(reader, lane, now_ms);
    if (lane->stage == LANE_IDLE)
        lane_start(reader, lane, now_ms);
}

void reader_step(struct reader *reader, uint64_t now_ms)
{
    for (size_t i = 0; i < READER_LANES; i++)
        lane_step(reader, &reader->lanes[i], now_ms);
}

int reader_fd(const struct reader *reader, size_t lane)
{
    CHECK(lane < READER_LANES);
    return reader->lanes[lane].pg ? PQsocket(reader->lanes[lane].pg) : -1;
}

bool reader_wants_write(const struct reader *reader, size_t lane)
{
    CHECK(lane < READER_LANES);
    return reader->lanes[lane].wants_write;
}

uint64_t reader_wake_ms(const struct reader *reader)
{
    uint64_t wake = 0;

    for (size_t i = 0; reader->first && i < READER_LANES; i++)
        if (reader->lanes[i].stage == LANE_DOWN) {
            uint64_t at = max_u64(reader->lanes[i].retry_ms, 1);
            wake = wake ? min_u64(wake, at) : at;
        }
    return wake;
}
