/* lease.c - the keeper's state machine; see lease.h.
 *
 *   DOWN -> CONNECTING -> IDLE -> ASKED -> IDLE ...
 *
 * Whatever goes wrong leads back to DOWN: a lease that could not be renewed is only silence, and
 * tenure.h says what silence means. */
#include "coordinator/store/lease.h"

#include "common/base/hash.h"
#include "common/base/mem.h"
#include "coordinator/store/pg.h"
#include "coordinator/store/tenure.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum stage { STAGE_DOWN = 1, STAGE_CONNECTING, STAGE_IDLE, STAGE_ASKED };

struct keeper {
    char *conninfo, *endpoints, *version;
    uint64_t program;
    bool by_force;
    bool leads;
    struct lease lease;
    struct keeper_leader leader;
    PGconn *pg;
    enum stage stage;
    bool wants_write;
    bool asked_to_renew; /* what the request under way is */
    uint64_t due_ms;     /* DOWN: connect; IDLE: ask; else: give this connection up */
    uint64_t backoff_ms;
    uint64_t asked_ms, sent_ms;
    char trouble[300];
};

/* Taking waits for the disk, because an epoch must never be given twice. */
static const char sql_follow[] =
    "SELECT taken, leader, leader_endpoints, leader_epoch, last_batch, cluster, keys"
    "  FROM set_config('synchronous_commit', 'on', true),"
    "       athanor.coordinator_follow($1, $2, $3, $4::bigint, $5::boolean, $6::bigint)";

/* Renewing does not: a disk that is busy for seconds, often with the leader's own batch, would cost
 * it the lease. A crash of the server may undo the renewals of its last half second; then the lease
 * ends that much earlier than its leader thinks, who has lost his connection by then, and whose
 * messages say only what is durable. */
static const char sql_renew[] = "SELECT athanor.coordinator_renew($1, $2::bigint, $3::bigint)";

static const char sql_leave[] = "SELECT athanor.coordinator_leave($1)";

struct keeper *keeper_open(const struct keeper_config *config)
{
    struct keeper *keeper = mem_zalloc(sizeof *keeper);
    char host[64] = "host";

    gethostname(host, sizeof host - 1);
    snprintf(keeper->lease.holder, sizeof keeper->lease.holder, "%s:%ld:%08x", host, (long)getpid(),
             (unsigned)random_u64());
    keeper->lease.lease_ms = config->lease_ms;
    keeper->conninfo = mem_strdup(config->conninfo);
    keeper->endpoints = mem_strdup(config->endpoints);
    keeper->version = mem_strdup(config->version);
    keeper->program = config->program;
    keeper->by_force = config->by_force;
    keeper->stage = STAGE_DOWN;
    return keeper;
}

void keeper_close(struct keeper *keeper)
{
    if (!keeper)
        return;
    PQfinish(keeper->pg);
    mem_free(keeper->conninfo);
    mem_free(keeper->endpoints);
    mem_free(keeper->version);
    mem_free(keeper);
}

/* ---- connection ----------------------------------------------------------------------------- */

static void say_trouble(struct keeper *keeper, const char *text)
{
    snprintf(keeper->trouble, sizeof keeper->trouble, "%.299s", text);
}

static void go_down(struct keeper *keeper, const char *why, uint64_t now_ms)
{
    say_trouble(keeper, why);
    PQfinish(keeper->pg);
    keeper->pg = NULL;
    keeper->stage = STAGE_DOWN;
    keeper->wants_write = false;
    keeper->backoff_ms = keeper->backoff_ms ? min_u64(2 * keeper->backoff_ms, KEEPER_BACKOFF_MAX_MS)
                                            : KEEPER_BACKOFF_MIN_MS;
    keeper->due_ms = now_ms + keeper->backoff_ms;
}

static void refused(struct keeper *keeper, const PGresult *result, uint64_t now_ms)
{
    struct err err = {0};

    pg_refuse(&err, keeper->pg, result);
    go_down(keeper, err.text, now_ms);
}

static void connect_start(struct keeper *keeper, uint64_t now_ms)
{
    struct err err;

    if (pg_connect_start(keeper->conninfo, PG_KEEPER, &keeper->pg, &err) < 0) {
        go_down(keeper, err.text, now_ms);
        return;
    }
    keeper->stage = STAGE_CONNECTING;
    keeper->wants_write = true;
    keeper->due_ms = now_ms + keeper->lease.lease_ms;
}

static void connect_go_on(struct keeper *keeper, uint64_t now_ms)
{
    switch (PQconnectPoll(keeper->pg)) {
    case PGRES_POLLING_READING:
        keeper->wants_write = false;
        break;
    case PGRES_POLLING_WRITING:
        keeper->wants_write = true;
        break;
    case PGRES_POLLING_OK:
        keeper->stage = STAGE_IDLE;
        keeper->wants_write = false;
        keeper->due_ms = now_ms;
        if (PQsetnonblocking(keeper->pg, 1) < 0)
            refused(keeper, NULL, now_ms);
        break;
    case PGRES_POLLING_FAILED:
    case PGRES_POLLING_ACTIVE:
        refused(keeper, NULL, now_ms);
        break;
    }
}

/* ---- asking --------------------------------------------------------------------------------- */

static bool send_renew(struct keeper *keeper, struct arena *arena)
{
    const char *values[] = {keeper->lease.holder, pg_u64(arena, keeper->lease.epoch),
                            pg_u64(arena, keeper->lease.lease_ms)};

    return PQsendQueryParams(keeper->pg, sql_renew, 3, NULL, values, NULL, NULL, 0) == 1;
}

static bool send_follow(struct keeper *keeper, struct arena *arena)
{
    const char *values[] = {keeper->lease.holder, keeper->endpoints, keeper->version,
                            pg_u64(arena, keeper->lease.lease_ms),
                            keeper->by_force ? "true" : "false",
                            pg_u64(arena, keeper->program)};

    return PQsendQueryParams(keeper->pg, sql_follow, 6, NULL, values, NULL, NULL, 0) == 1;
}

static bool flush(struct keeper *keeper)
{
    int left = PQflush(keeper->pg);

    keeper->wants_write = left == 1;
    return left >= 0;
}

static void ask(struct keeper *keeper, uint64_t now_ms)
{
    struct arena arena = {0};
    bool sent = keeper->leads ? send_renew(keeper, &arena) : send_follow(keeper, &arena);

    keeper->asked_to_renew = keeper->leads;
    keeper->asked_ms = now_ms;
    keeper->stage = STAGE_ASKED;
    keeper->due_ms = now_ms + keeper->lease.lease_ms;
    if (!sent || !flush(keeper))
        refused(keeper, NULL, now_ms);
    arena_done(&arena);
}

static uint64_t number_at(const PGresult *row, int column)
{
    return strtoull(PQgetvalue(row, 0, column), NULL, 10);
}

static enum keeper_news take_followed(struct keeper *keeper, const PGresult *row)
{
    struct keeper_leader *leader = &keeper->leader;

    snprintf(leader->holder, sizeof leader->holder, "%s", PQgetvalue(row, 0, 1));
    snprintf(leader->endpoints, sizeof leader->endpoints, "%s", PQgetvalue(row, 0, 2));
    leader->epoch = number_at(row, 3);
    snprintf(leader->keys, sizeof leader->keys, "%s", PQgetvalue(row, 0, 6));
    if (*PQgetvalue(row, 0, 0) != 't')
        return KEEPER_FOLLOWS;
    keeper->leads = true;
    keeper->lease.epoch = number_at(row, 3);
    keeper->lease.batch = number_at(row, 4);
    keeper->lease.cluster_id = number_at(row, 5);
    return KEEPER_TAKEN;
}

static enum keeper_news take_renewed(struct keeper *keeper, const PGresult *row)
{
    if (!keeper->leads) /* given up while the request was under way */
        return KEEPER_NOTHING;
    if (*PQgetvalue(row, 0, 0) == 't')
        return KEEPER_RENEWED;
    keeper->leads = false;
    return KEEPER_LOST;
}

/* Nothing: the answer is not there yet, or was a refusal. */
static enum keeper_news take_answer(struct keeper *keeper, uint64_t now_ms)
{
    enum keeper_news news;
    PGresult *row, *end;

    if (!PQconsumeInput(keeper->pg) || !flush(keeper)) {
        refused(keeper, NULL, now_ms);
        return KEEPER_NOTHING;
    }
    if (PQisBusy(keeper->pg))
        return KEEPER_NOTHING;
    row = PQgetResult(keeper->pg);
    if (PQresultStatus(row) != PGRES_TUPLES_OK || PQntuples(row) != 1) {
        refused(keeper, row, now_ms);
        PQclear(row);
        return KEEPER_NOTHING;
    }
    while ((end = PQgetResult(keeper->pg)))
        PQclear(end);
    keeper->sent_ms = keeper->asked_ms;
    news = keeper->asked_to_renew ? take_renewed(keeper, row) : take_followed(keeper, row);
    PQclear(row);
    keeper->stage = STAGE_IDLE;
    keeper->backoff_ms = 0;
    keeper->trouble[0] = 0;
    keeper->due_ms = keeper->asked_ms +
                     (keeper->leads ? tenure_renew_ms(keeper->lease.lease_ms) : KEEPER_FOLLOW_MS);
    return news;
}

static void step_due(struct keeper *keeper, uint64_t now_ms)
{
    switch (keeper->stage) {
    case STAGE_DOWN:
        connect_start(keeper, now_ms);
        break;
    case STAGE_IDLE:
        ask(keeper, now_ms);
        break;
    case STAGE_CONNECTING:
    case STAGE_ASKED:
        go_down(keeper, "PostgreSQL does not answer", now_ms);
        break;
    }
}

enum keeper_news keeper_step(struct keeper *keeper, uint64_t now_ms)
{
    if (keeper->stage == STAGE_IDLE &&
        (!PQconsumeInput(keeper->pg) || PQstatus(keeper->pg) == CONNECTION_BAD))
        refused(keeper, NULL, now_ms); /* the server went away between two questions */
    if (keeper->stage == STAGE_CONNECTING)
        connect_go_on(keeper, now_ms);
    if (keeper->stage == STAGE_ASKED) {
        enum keeper_news news = take_answer(keeper, now_ms);
        if (news != KEEPER_NOTHING)
            return news;
    }
    if (now_ms >= keeper->due_ms)
        step_due(keeper, now_ms);
    return KEEPER_NOTHING;
}

void keeper_follow(struct keeper *keeper)
{
    keeper->leads = false;
}

void keeper_hurry(struct keeper *keeper)
{
    if (keeper->stage == STAGE_IDLE)
        keeper->due_ms = 0;
}

/* ---- looking in ----------------------------------------------------------------------------- */

const struct lease *keeper_lease(const struct keeper *keeper)
{
    return &keeper->lease;
}

const struct keeper_leader *keeper_leader(const struct keeper *keeper)
{
    return &keeper->leader;
}

uint64_t keeper_sent_ms(const struct keeper *keeper)
{
    return keeper->sent_ms;
}

const char *keeper_trouble(const struct keeper *keeper)
{
    return keeper->trouble;
}

int keeper_fd(const struct keeper *keeper)
{
    return keeper->pg ? PQsocket(keeper->pg) : -1;
}

bool keeper_wants_write(const struct keeper *keeper)
{
    return keeper->wants_write;
}

uint64_t keeper_wake_ms(const struct keeper *keeper)
{
    return max_u64(keeper->due_ms, 1);
}

int keeper_backend_pid(const struct keeper *keeper)
{
    return keeper->pg ? PQbackendPID(keeper->pg) : 0;
}

int lease_leave(const char *conninfo, const struct lease *lease, struct err *err)
{
    const char *values[] = {lease->holder};
    PGconn *pg = NULL;
    PGresult *row = NULL;
    int rc = pg_connect(conninfo, PG_ADMIN, &pg, err);

    if (rc == 0)
        rc = pg_query(pg, sql_leave, 1, values, &row, err);
    PQclear(row);
    PQfinish(pg);
    return rc;
}
