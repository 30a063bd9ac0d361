/* pg.c - connecting, and reading what went wrong; see pg.h. */
#include "coordinator/store/pg.h"

#include "common/base/mem.h"
#include "common/base/parse.h"

#include <string.h>

/* Told to the server, whose sockets would otherwise keep the session of a host that died or was cut
 * off for two hours: it is gone 20 s after its last word. Without meaning on a unix socket. */
#define EVERY_SESSION \
    "-c datestyle=ISO -c timezone=UTC -c tcp_keepalives_idle=5 -c tcp_keepalives_interval=5" \
    " -c tcp_keepalives_count=3 -c tcp_user_timeout=20000"

/* Generic plans with nested loops: the writer's statements join a batch with its table by primary
 * key; statistics of a moment must not turn that into a scan of the table. */
static const char *const session_options[PG_PURPOSE_END] = {
    [PG_ADMIN] = EVERY_SESSION " -c lock_timeout=10000",
    [PG_WRITER] = EVERY_SESSION " -c synchronous_commit=on"
                  " -c idle_in_transaction_session_timeout=3000 -c lock_timeout=10000"
                  " -c plan_cache_mode=force_generic_plan -c enable_hashjoin=off"
                  " -c enable_mergejoin=off -c enable_seqscan=off -c jit=off",
    [PG_READER] = EVERY_SESSION " -c default_transaction_read_only=on"
                  " -c statement_timeout=10000 -c lock_timeout=5000 -c jit=off",
    [PG_KEEPER] = EVERY_SESSION " -c synchronous_commit=off -c jit=off"
                  " -c statement_timeout=5000 -c lock_timeout=1000",
};

static const char *const session_names[PG_PURPOSE_END] = {
    [PG_ADMIN] = "athanor-coordinator",
    [PG_WRITER] = "athanor-coordinator writer",
    [PG_READER] = "athanor-coordinator reader",
    [PG_KEEPER] = "athanor-coordinator keeper",
};

static void quiet(void *user, const PGresult *result)
{
    (void)user;
    (void)result; /* notices of migrations are for psql users; errors come as results */
}

static char *password; /* NULL: none; libpq keeps copies of it in each connection anyway */

void pg_password_set(const char *text)
{
    if (password)
        explicit_bzero(password, strlen(password));
    mem_free(password);
    password = mem_strdup(text);
}

static PGconn *begin(const char *conninfo, enum pg_purpose purpose, bool wait)
{
    CHECK(purpose > 0 && purpose < PG_PURPOSE_END);
    /* A dead server host is noticed within 10 s also in the middle of a transaction. */
    const char *keywords[] = {"dbname",          "application_name",
                              "options",         "client_encoding",
                              "connect_timeout", "tcp_user_timeout",
                              "keepalives_idle", password ? "password" : NULL,
                              NULL};
    const char *values[] = {
        conninfo, session_names[purpose], session_options[purpose], "UTF8", "10", "10000", "5",
        password, NULL};
    PGconn *pg =
        wait ? PQconnectdbParams(keywords, values, 1) : PQconnectStartParams(keywords, values, 1);
    CHECK(pg != NULL);
    PQsetNoticeReceiver(pg, quiet, NULL);
    return pg;
}

int pg_connect(const char *conninfo, enum pg_purpose purpose, PGconn **out, struct err *err)
{
    PGconn *pg = begin(conninfo, purpose, true);

    if (PQstatus(pg) == CONNECTION_OK) {
        *out = pg;
        return 0;
    }
    pg_refuse(err, pg, NULL);
    PQfinish(pg);
    return -1;
}

int pg_connect_start(const char *conninfo, enum pg_purpose purpose, PGconn **out, struct err *err)
{
    PGconn *pg = begin(conninfo, purpose, false);

    if (PQstatus(pg) != CONNECTION_BAD) {
        *out = pg;
        return 0;
    }
    pg_refuse(err, pg, NULL);
    PQfinish(pg);
    return -1;
}

enum pg_trouble pg_trouble_of(const PGconn *pg, const PGresult *result)
{
    /* SQLSTATE classes that pass with time: 40 rollback, 53 resources (disk full), 55 object in
     * use, 57 operator intervention (shutdown, restart), 58 system error. AT002: this batch is
     * there already. 08 and 57P0x end the connection too. */
    static const char *const passing[] = {"40", "53", "55", "57", "58", "AT002"};
    const char *state = result ? PQresultErrorField(result, PG_DIAG_SQLSTATE) : NULL;

    if (state && strcmp(state, "AT001") == 0)
        return PG_FENCED;
    if (PQstatus(pg) == CONNECTION_BAD || !state || strncmp(state, "08", 2) == 0)
        return PG_LOST;
    for (size_t i = 0; i < ARRAY_COUNT(passing); i++)
        if (strncmp(state, passing[i], strlen(passing[i])) == 0)
            return PG_RETRY;
    return strncmp(state, "25P03", 5) == 0 ? PG_LOST : PG_FATAL; /* 25P03: idle in transaction */
}

int pg_refuse(struct err *err, const PGconn *pg, const PGresult *result)
{
    const char *text = result ? PQresultErrorMessage(result) : "";
    const char *state = result ? PQresultErrorField(result, PG_DIAG_SQLSTATE) : NULL;
    enum err_kind kind = ERR_INVALID;

    if (!*text)
        text = PQerrorMessage(pg);
    switch (pg_trouble_of(pg, result)) {
    case PG_LOST:
        kind = ERR_CLOSED;
        break;
    case PG_RETRY:
        kind = state && strcmp(state, "57014") == 0 ? ERR_TIMEOUT : ERR_CLOSED;
        break;
    case PG_FENCED:
        kind = ERR_STALE;
        break;
    case PG_FATAL:
        break;
    }
    size_t length = strlen(text);
    while (length > 0 && (text[length - 1] == '\n' || text[length - 1] == ' '))
        length--;
    return err_set(err, kind, "PostgreSQL: %.*s", (int)min_u64(length, 800), text);
}

int pg_query(PGconn *pg, const char *sql, int count, const char *const *values,
             PGresult **out_result, struct err *err)
{
    PGresult *result = count == 0 && !out_result
                           ? PQexec(pg, sql) /* the simple protocol takes several statements */
                           : PQexecParams(pg, sql, count, NULL, values, NULL, NULL, 0);
    ExecStatusType status = PQresultStatus(result);

    if (status != PGRES_TUPLES_OK && status != PGRES_COMMAND_OK) {
        pg_refuse(err, pg, result);
        PQclear(result);
        return -1;
    }
    if (out_result)
        *out_result = result;
    else
        PQclear(result);
    return 0;
}

const char *pg_u64(struct arena *arena, uint64_t value)
{
    return arena_printf(arena, "%llu", (unsigned long long)value);
}
