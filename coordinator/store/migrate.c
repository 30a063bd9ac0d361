/* migrate.c - see migrate.h. */
#include "coordinator/store/migrate.h"

#include "common/base/hash.h"
#include "common/base/parse.h"
#include "coordinator/store/pg.h"

#include <stdlib.h>
#include <string.h>

/* Any number that no other program of this database uses: "athanor" as bytes. */
#define MIGRATE_LOCK "27429347283628914"

#define MIGRATE_WAIT_MS 30000 /* for a leader to leave: ten of its leases */
#define PG_VERSION_MIN 130000 /* gen_random_uuid without an extension */

static const char sql_prepare[] =
    "SET client_min_messages = warning;"
    "SELECT pg_advisory_lock(" MIGRATE_LOCK ");"
    "CREATE SCHEMA IF NOT EXISTS athanor;"
    "CREATE TABLE IF NOT EXISTS athanor.schema_migration ("
    "  number bigint PRIMARY KEY, name text NOT NULL, checksum text NOT NULL,"
    "  applied_at timestamptz NOT NULL DEFAULT now());"
    "ALTER TABLE athanor.schema_migration ADD COLUMN IF NOT EXISTS oldest bigint;"
    "COMMENT ON TABLE athanor.schema_migration IS 'Migrations applied, with the BLAKE2b of their "
    "texts. Programs whose last migration is oldest or newer can use the schema with this one; "
    "NULL: only programs that have it.'";

static const char sql_applied[] =
    "SELECT number, name, checksum, oldest FROM athanor.schema_migration ORDER BY number";

static const char sql_record[] =
    "INSERT INTO athanor.schema_migration (number, name, checksum, oldest) "
    "VALUES ($1, $2, $3, nullif($4::bigint, 0))";

static const char sql_vacant[] =
    "SELECT pg_sleep(0.2), 1 FROM athanor.coordinator_lease WHERE expires_at > clock_timestamp()";

/* What the schema and its writers rely on. A database of another encoding could not hold every text
 * that users write, and would refuse whole batches because of one of them. */
static int check_server(PGconn *pg, struct err *err)
{
    const char *encoding = PQparameterStatus(pg, "server_encoding");

    if (PQserverVersion(pg) < PG_VERSION_MIN)
        return err_set(err, ERR_INVALID, "PostgreSQL %s is too old, expected 13 or newer",
                       PQparameterStatus(pg, "server_version"));
    if (!encoding || strcmp(encoding, "UTF8") != 0)
        return err_set(err, ERR_INVALID,
                       "database '%s' has the encoding %s, expected UTF8: create it with "
                       "CREATE DATABASE ... ENCODING 'UTF8' TEMPLATE template0",
                       PQdb(pg), encoding ? encoding : "unknown");
    return 0;
}

static void checksum(const struct migration *migration, char out[HASH_HEX_SIZE])
{
    struct hash hash;

    hash_bytes(migration->sql, strlen(migration->sql), &hash);
    hash_to_hex(&hash, out);
}

static int check_numbers(const struct migration *migrations, size_t count, struct err *err)
{
    for (size_t i = 0; i < count; i++) {
        char *end;
        unsigned long number = strtoul(migrations[i].name, &end, 10);
        if (number != i + 1 || end != migrations[i].name + 4 || *end != '_')
            return err_set(err, ERR_INVALID, "migration '%s' is out of order, expected %04zu_NAME",
                           migrations[i].name, i + 1);
    }
    return 0;
}

/* What a migration says of itself, in a line of its own: "-- programs from 0012" can use the schema
 * with it as well. 0: it says nothing. */
static uint64_t oldest_program(const struct migration *migration)
{
    static const char words[] = "\n-- programs from ";
    const char *at = strstr(migration->sql, words);
    return at ? strtoul(at + strlen(words), NULL, 10) : 0;
}

/* Whether a program that ends at `done` can go on while the migrations from `first` on are applied:
 * up to one of them that says so. */
static bool serves_older(const struct migration *migrations, size_t first, size_t count,
                         size_t done)
{
    for (size_t i = first; i < count; i++) {
        uint64_t oldest = oldest_program(&migrations[i]);
        if (oldest > 0 && oldest <= done)
            return true;
    }
    return false;
}

/* Of a migration that this program does not have. */
static int check_newer(const PGresult *rows, int row, size_t count, struct err *err)
{
    uint64_t oldest = UINT64_MAX;

    if (!PQgetisnull(rows, row, 3) && parse_u64(PQgetvalue(rows, row, 3), &oldest, err) < 0)
        return -1;
    if (oldest <= count)
        return 0;
    return err_set(err, ERR_INVALID,
                   "the database has migration '%s', this program ends at %zu: it is older "
                   "than the database, run the newer program",
                   PQgetvalue(rows, row, 1), count);
}

/* Compares what the database has with what the program has. */
static int check_applied(const PGresult *rows, const struct migration *migrations, size_t count,
                         struct err *err)
{
    size_t applied = (size_t)PQntuples(rows);

    for (size_t i = 0; i < applied; i++) {
        const char *name = PQgetvalue(rows, (int)i, 1);
        uint64_t number;
        char sum[HASH_HEX_SIZE];
        if (parse_u64(PQgetvalue(rows, (int)i, 0), &number, err) < 0)
            return -1;
        if (number != i + 1)
            return err_set(err, ERR_INVALID,
                           "the database has migration %llu ('%s') but not %zu: a gap that only a "
                           "backup can mend",
                           (unsigned long long)number, name, i + 1);
        if (i >= count && check_newer(rows, (int)i, count, err) < 0)
            return -1;
        if (i >= count)
            continue;
        checksum(&migrations[i], sum);
        if (strcmp(name, migrations[i].name) != 0 || strcmp(PQgetvalue(rows, (int)i, 2), sum) != 0)
            return err_set(err, ERR_INVALID,
                           "migration '%s' was applied as '%s' with another text: applied "
                           "migrations are never edited, add a new one",
                           migrations[i].name, name);
    }
    return 0;
}

/* Under a leader that does not know it, a schema changes only in ways that it can do with. */
static int wait_for_vacancy(PGconn *pg, struct err *err)
{
    for (int i = 0; i < MIGRATE_WAIT_MS / 200; i++) {
        PGresult *rows = NULL;
        if (pg_query(pg, sql_vacant, 0, NULL, &rows, err) < 0)
            return -1;
        bool vacant = PQntuples(rows) == 0;
        PQclear(rows);
        if (vacant)
            return 0;
    }
    return err_set(err, ERR_EXISTS,
                   "the schema must change in a way that the coordinator which leads now cannot "
                   "work with: stop it first (jobs run on), then start this one");
}

static int apply(PGconn *pg, const struct migration *migration, size_t number, struct err *err)
{
    struct arena arena = {0};
    char sum[HASH_HEX_SIZE];
    int rc = -1;

    checksum(migration, sum);
    const char *values[] = {pg_u64(&arena, number), migration->name, sum,
                            pg_u64(&arena, oldest_program(migration))};
    if (pg_query(pg, "BEGIN", 0, NULL, NULL, err) < 0 ||
        pg_query(pg, migration->sql, 0, NULL, NULL, err) < 0 ||
        pg_query(pg, sql_record, 4, values, NULL, err) < 0 ||
        pg_query(pg, "COMMIT", 0, NULL, NULL, err) < 0)
        err_wrap(err, "migration '%s'", migration->name);
    else
        rc = 0;
    arena_done(&arena);
    return rc;
}

int migrate(const char *conninfo, const struct migration *migrations, size_t count,
            size_t *out_applied, struct err *err)
{
    PGconn *pg = NULL;
    PGresult *rows = NULL;
    size_t done;
    bool vacant = false;
    int rc = -1;

    if (check_numbers(migrations, count, err) < 0 || pg_connect(conninfo, PG_ADMIN, &pg, err) < 0)
        return -1;
    if (check_server(pg, err) < 0 || pg_query(pg, "SET lock_timeout = 0", 0, NULL, NULL, err) < 0 ||
        pg_query(pg, sql_prepare, 0, NULL, NULL, err) < 0 ||
        pg_query(pg, sql_applied, 0, NULL, &rows, err) < 0 ||
        check_applied(rows, migrations, count, err) < 0)
        goto out;
    done = (size_t)PQntuples(rows);
    vacant = done == 0; /* the table of the lease is not even there */
    for (size_t i = done; i < count; i++) {
        bool serves = serves_older(migrations, i, count, done);
        if (!vacant && !serves && wait_for_vacancy(pg, err) < 0)
            goto out;
        vacant |= !serves;
        if (apply(pg, &migrations[i], i + 1, err) < 0)
            goto out;
    }
    *out_applied = done < count ? count - done : 0;
    rc = 0;
out:
    PQclear(rows);
    PQfinish(pg); /* ends the advisory lock too */
    return rc;
}
