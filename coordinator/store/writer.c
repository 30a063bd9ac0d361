/* writer.c - the state machine of one transaction; see writer.h.
 *
 *   DOWN -> CONNECTING -> RESOLVING -> IDLE -> PIPELINE [-> COPY ...] [-> COMMIT] -> IDLE
 *
 * Every trouble that may pass leads back to DOWN; the batch in flight stays and is resolved after
 * the next connection. UPDATEs go before INSERTs of the same table, so that an attempt that ends
 * and its successor fit the index of live attempts; foreign keys are checked at COMMIT. */
#include "coordinator/store/writer.h"

#include "common/base/mem.h"
#include "coordinator/store/batch.h"
#include "coordinator/store/encode.h"
#include "coordinator/store/pg.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define COPY_CHUNK_BYTES ((size_t)256 << 10)

enum stage {
    STAGE_DOWN = 1,
    STAGE_CONNECTING,
    STAGE_RESOLVING, /* reading the lease row */
    STAGE_IDLE,
    STAGE_PIPELINE,
    STAGE_COPY_OPEN, /* COPY sent, waiting to be let in */
    STAGE_COPY_ROWS,
    STAGE_COPY_SHUT, /* all rows sent, waiting for the count */
    STAGE_COMMIT,
};

struct writer {
    char *conninfo;
    struct lease lease;
    PGconn *pg;
    enum stage stage;
    bool wants_write;
    bool prepared[ROW_TABLE_END][SQL_VERB_END];
    char *statements[ROW_TABLE_END][SQL_VERB_END];
    char *copies[ROW_TABLE_END];

    bool held; /* a batch is in flight; its outcome is not known */
    struct writer_batch source;
    struct batch batch;
    uint64_t number;
    uint64_t sent_ms;
    size_t *expected; /* rows of each pipelined command, SIZE_MAX: any */
    size_t expected_count, expected_capacity, answered;
    PGresult *refusal; /* the first error of the pipeline */
    int copy_table;
    size_t copy_row;

    uint64_t retry_ms, backoff_ms;
    struct buf scratch;
    struct writer_stats stats;
    char trouble[300];
};

static const char sql_resolve[] =
    "SELECT holder, epoch::text, batch::text FROM athanor.coordinator_lease";

static const char sql_begin_batch[] =
    "SELECT athanor.batch_begin($1, $2::bigint, $3::bigint, $4::bigint)";

/* Reader: catalogue_load. A recipe's highest version stays, whichever worker came last. */
static const char sql_recipe[] =
    "INSERT INTO athanor.recipe (kind, name, version, engine, catalogue)"
    " SELECT DISTINCT ON (1, 2) r ->> 'kind', r ->> 'name', coalesce((r ->> 'version')::bigint, 0),"
    "        coalesce($1::jsonb ->> 'engine', ''), r"
    "   FROM jsonb_array_elements($1::jsonb -> 'recipes') AS r ORDER BY 1, 2, 3 DESC"
    " ON CONFLICT (kind, name) DO UPDATE SET version = excluded.version, engine = excluded.engine,"
    "        catalogue = excluded.catalogue, seen_at = now()"
    " WHERE excluded.version >= recipe.version";

struct writer *writer_open(const char *conninfo, const struct lease *lease)
{
    struct writer *writer = mem_zalloc(sizeof *writer);

    writer->conninfo = mem_strdup(conninfo);
    writer->lease = *lease;
    writer->number = lease->batch;
    writer->stage = STAGE_DOWN;
    for (int table = 1; table < ROW_TABLE_END; table++) {
        const struct row_shape *shape = row_shape((enum row_table)table);
        for (int verb = 1; verb < SQL_VERB_END; verb++)
            writer->statements[table][verb] = sql_statement(shape, (enum sql_verb)verb);
        writer->copies[table] = sql_copy(shape);
    }
    return writer;
}

void writer_close(struct writer *writer)
{
    if (!writer)
        return;
    PQclear(writer->refusal);
    PQfinish(writer->pg);
    for (int table = 1; table < ROW_TABLE_END; table++) {
        for (int verb = 1; verb < SQL_VERB_END; verb++)
            mem_free(writer->statements[table][verb]);
        mem_free(writer->copies[table]);
    }
    batch_done(&writer->batch);
    buf_done(&writer->scratch);
    mem_free(writer->expected);
    mem_free(writer->conninfo);
    mem_free(writer);
}

/* ---- connection ----------------------------------------------------------------------------- */

static void go_down(struct writer *writer, const PGresult *result, uint64_t now_ms)
{
    struct err err = {0};

    if (writer->pg) {
        pg_refuse(&err, writer->pg, result);
        snprintf(writer->trouble, sizeof writer->trouble, "%.299s", err.text);
    }
    PQclear(writer->refusal);
    writer->refusal = NULL;
    PQfinish(writer->pg);
    writer->pg = NULL;
    memset(writer->prepared, 0, sizeof writer->prepared);
    writer->stage = STAGE_DOWN;
    writer->wants_write = false;
    writer->backoff_ms = writer->backoff_ms ? min_u64(2 * writer->backoff_ms, WRITER_BACKOFF_MAX_MS)
                                            : WRITER_BACKOFF_MIN_MS;
    writer->retry_ms = now_ms + writer->backoff_ms;
    writer->stats.reconnects++;
}

/* An error result ends the batch, or only this connection. */
static enum writer_outcome on_trouble(struct writer *writer, const PGresult *result,
                                      uint64_t now_ms, struct err *err)
{
    switch (pg_trouble_of(writer->pg, result)) {
    case PG_FENCED:
        pg_refuse(err, writer->pg, result);
        return WRITER_FENCED;
    case PG_FATAL:
        pg_refuse(err, writer->pg, result);
        err_wrap(err, "batch %llu was refused", (unsigned long long)writer->number);
        return WRITER_FAILED;
    case PG_LOST:
    case PG_RETRY:
        break;
    }
    go_down(writer, result, now_ms);
    return WRITER_PENDING;
}

/* Sends what is buffered. False: the connection is gone. */
static bool flush(struct writer *writer)
{
    int left = PQflush(writer->pg);

    writer->wants_write = left == 1;
    return left >= 0;
}

static void connect_start(struct writer *writer, uint64_t now_ms)
{
    struct err err;

    writer->retry_ms = 0;
    if (pg_connect_start(writer->conninfo, PG_WRITER, &writer->pg, &err) < 0) {
        snprintf(writer->trouble, sizeof writer->trouble, "%.299s", err.text);
        go_down(writer, NULL, now_ms);
        return;
    }
    writer->stage = STAGE_CONNECTING;
    writer->wants_write = true;
}

/* Returns whether there is more to do now. */
static bool connect_go_on(struct writer *writer, uint64_t now_ms)
{
    switch (PQconnectPoll(writer->pg)) {
    case PGRES_POLLING_READING:
        writer->wants_write = false;
        return false;
    case PGRES_POLLING_WRITING:
        writer->wants_write = true;
        return false;
    case PGRES_POLLING_OK:
        break;
    case PGRES_POLLING_FAILED:
    case PGRES_POLLING_ACTIVE:
        go_down(writer, NULL, now_ms);
        return false;
    }
    if (PQsetnonblocking(writer->pg, 1) < 0 || !PQsendQuery(writer->pg, sql_resolve) ||
        !flush(writer)) {
        go_down(writer, NULL, now_ms);
        return false;
    }
    writer->stage = STAGE_RESOLVING;
    return true;
}

/* ---- sending a batch ------------------------------------------------------------------------ */

static void expect(struct writer *writer, size_t rows)
{
    VEC_RESERVE(writer->expected, writer->expected_count, writer->expected_capacity);
    writer->expected[writer->expected_count++] = rows;
    writer->stats.statements++;
}

static bool send_begin(struct writer *writer)
{
    struct arena arena = {0};
    const char *values[] = {writer->lease.holder, pg_u64(&arena, writer->lease.epoch),
                            pg_u64(&arena, writer->number), pg_u64(&arena, writer->lease.lease_ms)};
    bool sent = PQsendQueryParams(writer->pg, "BEGIN", 0, NULL, NULL, NULL, NULL, 0) &&
                PQsendQueryParams(writer->pg, sql_begin_batch, 4, NULL, values, NULL, NULL, 0);

    expect(writer, SIZE_MAX);
    expect(writer, SIZE_MAX);
    arena_done(&arena);
    return sent;
}

static bool send_prepare(struct writer *writer, enum row_table table, enum sql_verb verb,
                         const char *name)
{
    if (writer->prepared[table][verb])
        return true;
    writer->prepared[table][verb] = true;
    expect(writer, SIZE_MAX);
    return PQsendPrepare(writer->pg, name, writer->statements[table][verb], 0, NULL) == 1;
}

#define COLUMNS_MAX 64 /* the widest table has 31 */

/* One statement with an array for each column. */
static bool send_group(struct writer *writer, enum row_table table, enum sql_verb verb)
{
    const struct row_shape *shape = row_shape(table);
    const struct batch_rows *group = &writer->batch.groups[table][verb];
    size_t starts[COLUMNS_MAX];
    const char *values[COLUMNS_MAX];
    int lengths[COLUMNS_MAX], formats[COLUMNS_MAX], count = 0;
    char name[64];

    CHECK(shape->column_count <= COLUMNS_MAX);
    snprintf(name, sizeof name, "%s_%d", shape->name, (int)verb);
    buf_clear(&writer->scratch);
    for (size_t i = 0; i < shape->column_count; i++) {
        if (!sql_takes(verb, &shape->columns[i]))
            continue;
        starts[count] = writer->scratch.length;
        encode_array(&writer->scratch, &shape->columns[i], group->rows, group->count);
        lengths[count] = (int)(writer->scratch.length - starts[count]);
        formats[count++] = 1;
    }
    for (int i = 0; i < count; i++)
        values[i] = writer->scratch.bytes + starts[i];
    if (!send_prepare(writer, table, verb, name))
        return false;
    expect(writer, group->count);
    writer->stats.rows += group->count;
    return PQsendQueryPrepared(writer->pg, name, count, values, lengths, formats, 0) == 1;
}

static bool group_is_copied(const struct writer *writer, int table)
{
    return writer->batch.groups[table][SQL_INSERT].count >= WRITER_COPY_ROWS_MIN;
}

static int next_copy(const struct writer *writer, int after)
{
    for (int table = after + 1; table < ROW_TABLE_END; table++)
        if (group_is_copied(writer, table))
            return table;
    return 0;
}

static bool send_groups(struct writer *writer)
{
    for (int table = 1; table < ROW_TABLE_END; table++)
        for (int verb = 1; verb < SQL_VERB_END; verb++) {
            if (writer->batch.groups[table][verb].count == 0 ||
                (verb == SQL_INSERT && group_is_copied(writer, table)))
                continue;
            if (!send_group(writer, (enum row_table)table, (enum sql_verb)verb))
                return false;
        }
    return true;
}

static bool send_catalogues(struct writer *writer)
{
    for (size_t i = 0; i < writer->source.catalogue_count; i++) {
        const char *values[] = {writer->source.catalogues[i]};
        expect(writer, SIZE_MAX);
        if (!PQsendQueryParams(writer->pg, sql_recipe, 1, NULL, values, NULL, NULL, 0))
            return false;
    }
    return true;
}

static bool send_pipeline(struct writer *writer)
{
    writer->expected_count = 0;
    writer->answered = 0;
    if (!PQenterPipelineMode(writer->pg) || !send_begin(writer) || !send_groups(writer) ||
        !send_catalogues(writer))
        return false;
    if (!next_copy(writer, 0)) {
        expect(writer, SIZE_MAX);
        if (!PQsendQueryParams(writer->pg, "COMMIT", 0, NULL, NULL, NULL, NULL, 0))
            return false;
    }
    return PQpipelineSync(writer->pg) && flush(writer);
}

static void send_batch(struct writer *writer, uint64_t now_ms)
{
    writer->sent_ms = now_ms;
    if (send_pipeline(writer))
        writer->stage = STAGE_PIPELINE;
    else
        go_down(writer, NULL, now_ms);
}

void writer_commit(struct writer *writer, const struct writer_batch *batch, uint64_t now_ms)
{
    CHECK(writer_is_idle(writer));
    writer->source = *batch;
    writer->held = true;
    writer->number++;
    batch_reset(&writer->batch);
    if (batch->effects)
        batch_group(&writer->batch, batch->effects);
    send_batch(writer, now_ms);
}

/* ---- reading the answers -------------------------------------------------------------------- */

static enum writer_outcome committed(struct writer *writer)
{
    writer->stage = STAGE_IDLE;
    writer->held = false;
    writer->wants_write = false;
    writer->backoff_ms = 0;
    writer->trouble[0] = 0;
    writer->stats.batches++;
    writer->lease.batch = writer->number;
    return WRITER_COMMITTED;
}

static enum writer_outcome on_resolved(struct writer *writer, PGresult *row, uint64_t now_ms,
                                       struct err *err)
{
    struct arena arena = {0};
    enum writer_outcome outcome = WRITER_PENDING;

    if (strcmp(PQgetvalue(row, 0, 0), writer->lease.holder) != 0 ||
        strcmp(PQgetvalue(row, 0, 1), pg_u64(&arena, writer->lease.epoch)) != 0) {
        err_set(err, ERR_STALE, "the lease of epoch %llu has passed to %s at epoch %s",
                (unsigned long long)writer->lease.epoch, PQgetvalue(row, 0, 0),
                PQgetvalue(row, 0, 1));
        outcome = WRITER_FENCED;
    } else if (!writer->held) {
        writer->stage = STAGE_IDLE;
        writer->backoff_ms = 0;
    } else if (strcmp(PQgetvalue(row, 0, 2), pg_u64(&arena, writer->number)) == 0) {
        writer->stats.resolved++;
        outcome = committed(writer);
    } else {
        writer->stats.resent++;
        send_batch(writer, now_ms);
    }
    arena_done(&arena);
    return outcome;
}

/* Takes the next result if it is there. 1: *out (NULL ends a command); 0: wait. */
static int take(struct writer *writer, PGresult **out)
{
    if (PQisBusy(writer->pg))
        return 0;
    *out = PQgetResult(writer->pg);
    return 1;
}

static enum writer_outcome step_resolving(struct writer *writer, uint64_t now_ms, struct err *err)
{
    PGresult *row = NULL, *end = NULL;
    enum writer_outcome outcome;

    if (!take(writer, &row))
        return WRITER_PENDING;
    if (PQresultStatus(row) == PGRES_TUPLES_OK && PQntuples(row) == 1) {
        while ((end = PQgetResult(writer->pg)))
            PQclear(end);
        outcome = on_resolved(writer, row, now_ms, err);
    } else {
        outcome = on_trouble(writer, row, now_ms, err);
    }
    PQclear(row);
    return outcome;
}

static void send_copy(struct writer *writer, int table, uint64_t now_ms)
{
    writer->copy_table = table;
    writer->copy_row = 0;
    writer->stage = STAGE_COPY_OPEN;
    writer->stats.statements++;
    if (!PQsendQuery(writer->pg, writer->copies[table]) || !flush(writer))
        go_down(writer, NULL, now_ms);
}

static void send_commit(struct writer *writer, uint64_t now_ms)
{
    writer->stage = STAGE_COMMIT;
    if (!PQsendQuery(writer->pg, "COMMIT") || !flush(writer))
        go_down(writer, NULL, now_ms);
}

/* The pipeline has been answered in full. */
static enum writer_outcome pipeline_end(struct writer *writer, uint64_t now_ms, struct err *err)
{
    enum writer_outcome outcome = WRITER_PENDING;
    PGresult *refusal = writer->refusal;

    writer->refusal = NULL;
    if (refusal) {
        outcome = on_trouble(writer, refusal, now_ms, err);
    } else if (!PQexitPipelineMode(writer->pg)) {
        go_down(writer, NULL, now_ms);
    } else if (next_copy(writer, 0)) {
        send_copy(writer, next_copy(writer, 0), now_ms);
    } else {
        outcome = committed(writer);
    }
    PQclear(refusal);
    return outcome;
}

/* 0: fine; -1: err says that rows were missing. */
static int check_count(struct writer *writer, PGresult *result, struct err *err)
{
    size_t expected = SIZE_MAX;

    if (writer->answered < writer->expected_count)
        expected = writer->expected[writer->answered++];
    if (expected == SIZE_MAX)
        return 0;
    unsigned long long touched = strtoull(PQcmdTuples(result), NULL, 10);
    if (touched == expected)
        return 0;
    return err_set(err, ERR_INVALID,
                   "batch %llu: '%s' touched %llu rows of %zu: rows are missing in the database",
                   (unsigned long long)writer->number, PQcmdStatus(result), touched, expected);
}

static enum writer_outcome step_pipeline(struct writer *writer, uint64_t now_ms, struct err *err)
{
    PGresult *result;

    while (take(writer, &result)) {
        switch (PQresultStatus(result)) {
        case PGRES_PIPELINE_SYNC:
            PQclear(result);
            return pipeline_end(writer, now_ms, err);
        case PGRES_COMMAND_OK:
        case PGRES_TUPLES_OK:
            if (!writer->refusal && check_count(writer, result, err) < 0) {
                PQclear(result);
                return WRITER_FAILED;
            }
            PQclear(result);
            break;
        case PGRES_PIPELINE_ABORTED:
            PQclear(result);
            break;
        default:
            if (result && !writer->refusal)
                writer->refusal = result;
            else
                PQclear(result);
            if (PQstatus(writer->pg) == CONNECTION_BAD) {
                go_down(writer, writer->refusal, now_ms);
                return WRITER_PENDING;
            }
        }
    }
    return WRITER_PENDING;
}

static enum writer_outcome step_copy_open(struct writer *writer, uint64_t now_ms, struct err *err)
{
    PGresult *result;
    enum writer_outcome outcome = WRITER_PENDING;

    if (!take(writer, &result))
        return WRITER_PENDING;
    if (PQresultStatus(result) == PGRES_COPY_IN)
        writer->stage = STAGE_COPY_ROWS;
    else
        outcome = on_trouble(writer, result, now_ms, err);
    PQclear(result);
    return outcome;
}

/* Encodes and sends chunks until all rows are out or the socket is full. */
static void step_copy_rows(struct writer *writer, uint64_t now_ms)
{
    const struct row_shape *shape = row_shape((enum row_table)writer->copy_table);
    const struct batch_rows *group = &writer->batch.groups[writer->copy_table][SQL_INSERT];
    bool sent = true;

    while (sent && !writer->wants_write && writer->stage == STAGE_COPY_ROWS) {
        buf_clear(&writer->scratch);
        if (writer->copy_row == 0)
            encode_copy_header(&writer->scratch);
        while (writer->copy_row < group->count && writer->scratch.length < COPY_CHUNK_BYTES)
            encode_copy_row(&writer->scratch, shape, group->rows[writer->copy_row++]);
        if (writer->copy_row == group->count)
            encode_copy_trailer(&writer->scratch);
        sent = PQputCopyData(writer->pg, writer->scratch.bytes, (int)writer->scratch.length) == 1;
        if (sent && writer->copy_row == group->count) {
            sent = PQputCopyEnd(writer->pg, NULL) == 1;
            writer->stage = STAGE_COPY_SHUT;
        }
        sent = sent && flush(writer);
    }
    if (!sent)
        go_down(writer, NULL, now_ms);
}

static enum writer_outcome step_copy_shut(struct writer *writer, uint64_t now_ms, struct err *err)
{
    const size_t count = writer->batch.groups[writer->copy_table][SQL_INSERT].count;
    PGresult *result, *end;
    enum writer_outcome outcome = WRITER_PENDING;

    if (!take(writer, &result))
        return WRITER_PENDING;
    if (PQresultStatus(result) != PGRES_COMMAND_OK) {
        outcome = on_trouble(writer, result, now_ms, err);
    } else {
        while ((end = PQgetResult(writer->pg)))
            PQclear(end);
        writer->stats.rows += count;
        writer->stats.copied_rows += count;
        int next = next_copy(writer, writer->copy_table);
        if (next)
            send_copy(writer, next, now_ms);
        else
            send_commit(writer, now_ms);
    }
    PQclear(result);
    return outcome;
}

static enum writer_outcome step_commit(struct writer *writer, uint64_t now_ms, struct err *err)
{
    PGresult *result, *end;
    enum writer_outcome outcome;

    if (!take(writer, &result))
        return WRITER_PENDING;
    if (PQresultStatus(result) == PGRES_COMMAND_OK) {
        CHECK(strcmp(PQcmdStatus(result), "COMMIT") == 0);
        while ((end = PQgetResult(writer->pg)))
            PQclear(end);
        outcome = committed(writer);
    } else {
        outcome = on_trouble(writer, result, now_ms, err);
    }
    PQclear(result);
    return outcome;
}

/* One stage as far as it goes. */
static enum writer_outcome step_stage(struct writer *writer, uint64_t now_ms, struct err *err)
{
    switch (writer->stage) {
    case STAGE_DOWN:
        if (now_ms >= writer->retry_ms)
            connect_start(writer, now_ms);
        return WRITER_PENDING;
    case STAGE_CONNECTING:
        connect_go_on(writer, now_ms);
        return WRITER_PENDING;
    case STAGE_RESOLVING:
        return step_resolving(writer, now_ms, err);
    case STAGE_IDLE:
        return WRITER_PENDING;
    case STAGE_PIPELINE:
        return step_pipeline(writer, now_ms, err);
    case STAGE_COPY_OPEN:
        return step_copy_open(writer, now_ms, err);
    case STAGE_COPY_ROWS:
        step_copy_rows(writer, now_ms);
        return WRITER_PENDING;
    case STAGE_COPY_SHUT:
        return step_copy_shut(writer, now_ms, err);
    case STAGE_COMMIT:
        return step_commit(writer, now_ms, err);
    }
    CHECK(!"every stage has a step");
    return WRITER_FAILED;
}

enum writer_outcome writer_step(struct writer *writer, uint64_t now_ms, struct err *err)
{
    enum writer_outcome outcome;
    enum stage before;

    if (writer->stage >= STAGE_RESOLVING && writer->pg &&
        (!PQconsumeInput(writer->pg) || !flush(writer)) && writer->stage == STAGE_IDLE) {
        go_down(writer, NULL, now_ms); /* in other stages the result tells more */
        return WRITER_PENDING;
    }
    do {
        before = writer->stage;
        outcome = step_stage(writer, now_ms, err);
    } while (outcome == WRITER_PENDING && writer->stage != before);
    return outcome;
}

/* ---- looking in ----------------------------------------------------------------------------- */

bool writer_is_idle(const struct writer *writer)
{
    return writer->stage == STAGE_IDLE;
}

bool writer_is_connected(const struct writer *writer)
{
    return writer->stage >= STAGE_IDLE;
}

int writer_fd(const struct writer *writer)
{
    return writer->pg ? PQsocket(writer->pg) : -1;
}

bool writer_wants_write(const struct writer *writer)
{
    return writer->wants_write;
}

uint64_t writer_wake_ms(const struct writer *writer)
{
    return writer->stage == STAGE_DOWN ? max_u64(writer->retry_ms, 1) : 0;
}

uint64_t writer_sent_ms(const struct writer *writer)
{
    return writer->sent_ms;
}

const char *writer_trouble(const struct writer *writer)
{
    return writer->trouble;
}

const struct writer_stats *writer_stats(const struct writer *writer)
{
    return &writer->stats;
}

int writer_backend_pid(const struct writer *writer)
{
    return writer->pg ? PQbackendPID(writer->pg) : 0;
}
