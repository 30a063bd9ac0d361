/* lease.c - see lease.h. */
#include "coordinator/store/lease.h"

#include "common/base/hash.h"
#include "common/base/mem.h"
#include "common/base/parse.h"
#include "coordinator/store/pg.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

struct lease_keeper {
    char *conninfo;
    PGconn *pg; /* NULL while disconnected */
    char holder[LEASE_HOLDER_SIZE];
    uint64_t lease_ms;
};

/* Workers obey no epoch below the newest that they have seen. Where the clock is ahead of the row
 * it decides: a database restored from an old copy would else give epochs away a second time, and
 * its leader would be refused everywhere. */
static const char sql_take[] =
    "UPDATE athanor.coordinator_lease"
    "   SET holder = $1,"
    "       epoch = greatest(epoch + 1, extract(epoch FROM clock_timestamp())::bigint),"
    "       expires_at = clock_timestamp() + $2::bigint * interval '1 millisecond'"
    " WHERE $3::boolean OR expires_at < clock_timestamp()"
    " RETURNING epoch, batch, (SELECT cluster_id FROM athanor.cluster)";

static const char sql_holder[] = "SELECT holder FROM athanor.coordinator_lease";

static const char sql_release[] = "UPDATE athanor.coordinator_lease SET expires_at = '-infinity'"
                                  " WHERE holder = $1 AND epoch = $2::bigint";

int lease_open(const char *conninfo, uint64_t lease_ms, struct lease_keeper **out, struct err *err)
{
    struct lease_keeper *keeper = mem_zalloc(sizeof *keeper);
    char host[64] = "host";

    gethostname(host, sizeof host - 1);
    snprintf(keeper->holder, sizeof keeper->holder, "%s:%ld:%016llx", host, (long)getpid(),
             (unsigned long long)random_u64());
    keeper->conninfo = mem_strdup(conninfo);
    keeper->lease_ms = lease_ms;
    if (pg_connect(conninfo, PG_ADMIN, &keeper->pg, err) < 0) {
        lease_close(keeper);
        return -1;
    }
    *out = keeper;
    return 0;
}

void lease_close(struct lease_keeper *keeper)
{
    if (!keeper)
        return;
    PQfinish(keeper->pg);
    mem_free(keeper->conninfo);
    mem_free(keeper);
}

static int read_taken(const struct lease_keeper *keeper, const PGresult *row, struct lease *out,
                      struct err *err)
{
    struct lease lease = {.lease_ms = keeper->lease_ms};

    if (parse_u64(PQgetvalue(row, 0, 0), &lease.epoch, err) < 0 ||
        parse_u64(PQgetvalue(row, 0, 1), &lease.batch, err) < 0 ||
        parse_u64(PQgetvalue(row, 0, 2), &lease.cluster_id, err) < 0)
        return -1;
    memcpy(lease.holder, keeper->holder, sizeof lease.holder);
    *out = lease;
    return 1;
}

static int take(struct lease_keeper *keeper, bool by_force, struct lease *out, struct err *err)
{
    struct arena arena = {0};
    const char *values[] = {keeper->holder, pg_u64(&arena, keeper->lease_ms),
                            by_force ? "true" : "false"};
    PGresult *row = NULL;
    int rc = pg_query(keeper->pg, sql_take, 3, values, &row, err);

    arena_done(&arena);
    if (rc < 0)
        return -1;
    if (PQntuples(row) == 1) {
        rc = read_taken(keeper, row, out, err);
    } else {
        PQclear(row);
        row = NULL;
        rc = pg_query(keeper->pg, sql_holder, 0, NULL, &row, err);
        if (rc == 0)
            snprintf(out->holder, sizeof out->holder, "%s", PQgetvalue(row, 0, 0));
    }
    PQclear(row);
    return rc;
}

int lease_take(struct lease_keeper *keeper, bool by_force, struct lease *out, struct err *err)
{
    int rc;

    if (!keeper->pg && pg_connect(keeper->conninfo, PG_ADMIN, &keeper->pg, err) < 0)
        return -1;
    rc = take(keeper, by_force, out, err);
    if (rc < 0) {
        PQfinish(keeper->pg);
        keeper->pg = NULL;
    }
    return rc;
}

int lease_release(const char *conninfo, const struct lease *lease, struct err *err)
{
    struct arena arena = {0};
    const char *values[] = {lease->holder, pg_u64(&arena, lease->epoch)};
    PGconn *pg = NULL;
    int rc = pg_connect(conninfo, PG_ADMIN, &pg, err);

    if (rc == 0)
        rc = pg_query(pg, sql_release, 2, values, NULL, err);
    PQfinish(pg);
    arena_done(&arena);
    return rc;
}
