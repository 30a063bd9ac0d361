/* migrate.h - bringing a database's schema up to this program, forward only.
 *
 * Migrations are applied in the order of their numbers, each in its own transaction together
 * with its row in athanor.schema_migration (number, name, BLAKE2b of its text), under an advisory
 * lock, so that coordinators starting together do it once. What was applied must still read the
 * same: an edit or a gap is refused.
 *
 * Neighbouring versions: a migration may say in a line of its own, "-- programs from 0012", that
 * programs which end at 0012 can use the schema as it is with this migration (columns with
 * defaults, new tables and views), and so with all between: what one of those takes from older
 * programs, a later one may give back. Such migrations are applied together while such a program
 * leads, and such a program starts on a database that has them. Any other migration waits until
 * nobody leads, and older programs are refused. */
#ifndef ATHANOR_STORE_MIGRATE_H
#define ATHANOR_STORE_MIGRATE_H

#include "common/base/err.h"

struct migration {
    const char *name; /* "0001_jobs": the number, from 1 without gaps, and a word */
    const char *sql;
};

/* Those of migrations/, made part of the program by embed.cmake. */
extern const struct migration migrations_embedded[];
extern const size_t migrations_embedded_count;

/* *out_applied: how many were new. Errors: ERR_CLOSED (no server), ERR_INVALID (edited, gap, newer
 * database, or PostgreSQL refused the text), naming the migration; ERR_EXISTS (an older program
 * leads). */
int migrate(const char *conninfo, const struct migration *migrations, size_t count,
            size_t *out_applied, struct err *err) WARN_UNUSED;

#endif
