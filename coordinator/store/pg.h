/* pg.h - connections to PostgreSQL, for the files of this folder only.
 *
 * Every connection gets its session settings at the start, from the table in pg.c, so that a
 * reconnect behaves like the first connection. Times are exchanged in UTC. */
#ifndef ATHANOR_STORE_PG_H
#define ATHANOR_STORE_PG_H

#include "common/base/arena.h"
#include "common/base/err.h"

#include <libpq-fe.h>

enum pg_purpose {
    PG_ADMIN = 1, /* migrations, lease, loading: blocking                                  */
    PG_WRITER,    /* group commit: a stopped leader's transaction is ended by the server   */
    PG_READER,    /* users' queries: read-only, with a statement timeout                   */
    PG_KEEPER,    /* taking and renewing the lease: gives up rather than wait              */
    PG_PURPOSE_END,
};

/* What a failed statement means for a transaction. */
enum pg_trouble {
    PG_LOST = 1, /* the connection is gone: outcome of a COMMIT unknown              */
    PG_RETRY,    /* the server refused for now (no space, conflict): repeat later     */
    PG_FENCED,   /* another coordinator leads                                         */
    PG_FATAL,    /* the rows themselves were refused: repeating cannot help           */
};

/* Blocking, at most 10 s. *out is the caller's (PQfinish). Errors: ERR_CLOSED with the server's
 * words. */
int pg_connect(const char *conninfo, enum pg_purpose purpose, PGconn **out,
               struct err *err) WARN_UNUSED;
/* For all connections from now on, in place of what conninfo says, or NULL; copied. */
void pg_password_set(const char *password);

/* Begins to connect; go on with PQconnectPoll. Errors: as above. */
int pg_connect_start(const char *conninfo, enum pg_purpose purpose, PGconn **out,
                     struct err *err) WARN_UNUSED;

/* Blocking; parameters and results as text. *out_result may be NULL when rows are not wanted, else
 * PQclear it. Errors: ERR_CLOSED (lost), ERR_STALE (fenced), ERR_INVALID with the server's words.
 */
int pg_query(PGconn *pg, const char *sql, int count, const char *const *values,
             PGresult **out_result, struct err *err) WARN_UNUSED;

enum pg_trouble pg_trouble_of(const PGconn *pg, const PGresult *result);
/* Sets err from the result, or from the connection where the result has no words. */
int pg_refuse(struct err *err, const PGconn *pg, const PGresult *result);
/* An int8 as text in arena. */
const char *pg_u64(struct arena *arena, uint64_t value);

#endif
