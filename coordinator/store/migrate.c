/* migrate.c - see migrate.h. */
#include "coordinator/store/migrate.h"

#include "common/base/hash.h"
#include "common/base/parse.h"
#include "coordinator/store/pg.h"

#include <stdlib.h>
#include <string.h>

/* Any number that no other program of this database uses: "athanor" as bytes. */
#define MIGRATE_LOCK "27429347283628914"

#define PG_VERSION_MIN 130000 /* gen_random_uuid without an extension */

static const char sql_prepare[] =
    "SET client_min_messages = warning;"
    "SELECT pg_advisory_lock(" MIGRATE_LOCK ");"
    "CREATE SCHEMA IF NOT EXISTS athanor;"
    "CREATE TABLE IF NOT EXISTS athanor.schema_migration ("
    "  number bigint PRIMARY KEY, name text NOT NULL, checksum text NOT NULL,"
    "  applied_at timestamptz NOT NULL DEFAULT now());"
    "COMMENT ON TABLE athanor.schema_migration IS 'Migrations applied, with the BLAKE2b of their "
    "texts.'";

static const char sql_applied[] =
    "SELECT number, name, checksum FROM athanor.schema_migration ORDER BY number";

static const char sql_record[] =
    "INSERT INTO athanor.schema_migration (number, name, checksum) VALUES ($1, $2, $3)";

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
        if (i >= count)
            return err_set(err, ERR_INVALID,
                           "the database has migration '%s', this program ends at %zu: it is older "
                           "than the database, run the newer program",
                           name, count);
        checksum(&migrations[i], sum);
        if (strcmp(name, migrations[i].name) != 0 || strcmp(PQgetvalue(rows, (int)i, 2), sum) != 0)
            return err_set(err, ERR_INVALID,
                           "migration '%s' was applied as '%s' with another text: applied "
                           "migrations are never edited, add a new one",
                           migrations[i].name, name);
    }
    return 0;
}

static int apply(PGconn *pg, const struct migration *migration, size_t number, struct err *err)
{
    struct arena arena = {0};
    char sum[HASH_HEX_SIZE];
    int rc = -1;

    checksum(migration, sum);
    const char *values[] = {pg_u64(&arena, number), migration->name, sum};
    if (pg_query(pg, "BEGIN", 0, NULL, NULL, err) < 0 ||
        pg_query(pg, migration->sql, 0, NULL, NULL, err) < 0 ||
        pg_query(pg, sql_record, 3, values, NULL, err) < 0 ||
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
    int rc = -1;

    if (check_numbers(migrations, count, err) < 0 || pg_connect(conninfo, PG_ADMIN, &pg, err) < 0)
        return -1;
    if (check_server(pg, err) < 0 || pg_query(pg, "SET lock_timeout = 0", 0, NULL, NULL, err) < 0 ||
        pg_query(pg, sql_prepare, 0, NULL, NULL, err) < 0 ||
        pg_query(pg, sql_applied, 0, NULL, &rows, err) < 0 ||
        check_applied(rows, migrations, count, err) < 0)
        goto out;
    done = (size_t)PQntuples(rows);
    for (size_t i = done; i < count; i++)
        if (apply(pg, &migrations[i], i + 1, err) < 0)
            goto out;
    *out_applied = count - done;
    rc = 0;
out:
    PQclear(rows);
    PQfinish(pg); /* ends the advisory lock too */
    return rc;
}
