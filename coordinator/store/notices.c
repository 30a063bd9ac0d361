/* notices.c - see notices.h. */
#include "coordinator/store/notices.h"

#include "common/base/mem.h"
#include "coordinator/store/pg.h"

struct notices {
    char *conninfo;
    PGconn *pg;
};

static const char sql_claim[] =
    "SELECT notification_id, kind, target, payload FROM athanor.notification_claim($1::int)";
static const char sql_settle[] = "SELECT athanor.notification_settle($1::bigint, $2)";

struct notices *notices_open(const char *conninfo)
{
    struct notices *notices = mem_zalloc(sizeof *notices);

    notices->conninfo = mem_strdup(conninfo);
    return notices;
}

static void disconnect(struct notices *notices)
{
    PQfinish(notices->pg);
    notices->pg = NULL;
}

void notices_close(struct notices *notices)
{
    if (!notices)
        return;
    disconnect(notices);
    mem_free(notices->conninfo);
    mem_free(notices);
}

static int ask(struct notices *notices, const char *sql, int count, const char *const *values,
               PGresult **out, struct err *err)
{
    if (!notices->pg && pg_connect(notices->conninfo, PG_ADMIN, &notices->pg, err) < 0)
        return -1;
    if (pg_query(notices->pg, sql, count, values, out, err) == 0)
        return 0;
    disconnect(notices);
    return -1;
}

int notices_claim(struct notices *notices, struct arena *arena, struct notice *out,
                  size_t *out_count, struct err *err)
{
    const char *most = pg_u64(arena, NOTICES_CLAIMED_MAX);
    PGresult *result;

    if (ask(notices, sql_claim, 1, &most, &result, err) < 0)
        return -1;
    *out_count = min_u64((uint64_t)PQntuples(result), NOTICES_CLAIMED_MAX);
    for (size_t i = 0; i < *out_count; i++)
        out[i] = (struct notice){.id = arena_strdup(arena, PQgetvalue(result, (int)i, 0)),
                                 .kind = arena_strdup(arena, PQgetvalue(result, (int)i, 1)),
                                 .target = arena_strdup(arena, PQgetvalue(result, (int)i, 2)),
                                 .payload = arena_strdup(arena, PQgetvalue(result, (int)i, 3))};
    PQclear(result);
    return 0;
}

int notices_settle(struct notices *notices, const char *id, const char *trouble, struct err *err)
{
    const char *values[] = {id, trouble};

    return ask(notices, sql_settle, 2, values, NULL, err);
}
