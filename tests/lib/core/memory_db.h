/* memory_db.h - PostgreSQL's part towards the core, in memory: rows, constraints, loading.
 *
 * A batch of effects is applied whole or not at all. Constraints repeat migrations/: a key is
 * inserted once, updates find their row, ended_at agrees with the state, success is for ever,
 * one live attempt per job, one job per (submit_key, submit_index). */
#ifndef ATHANOR_TESTS_MEMORY_DB_H
#define ATHANOR_TESTS_MEMORY_DB_H

#include "coordinator/core/core.h"

struct memory_db;

struct memory_db *memory_db_new(void);
void memory_db_free(struct memory_db *db);
/* NULL, or which constraint a row broke (then the database is of no more use). */
const char *memory_db_apply(struct memory_db *db, const struct persist *rows, size_t count,
                            struct arena *arena);
/* A core rebuilt from the rows. */
struct core *memory_db_load(const struct memory_db *db, const struct core_config *config,
                            uint64_t now_ms, uint64_t wall_us, uint64_t *out_wake_ms);
/* What the shell does before a SUBMIT or CONTROL. Rows live in arena or the database. */
void memory_db_lookup(const struct memory_db *db, const struct core_lookup *lookups, size_t count,
                      struct arena *arena, struct event_found *out);
size_t memory_db_count(const struct memory_db *db, enum row_table table);
/* Rows in order of insertion; NULL behind the last. */
const void *memory_db_row(const struct memory_db *db, enum row_table table, size_t index);
/* The row with the key columns of `key`, a struct row_<table>; NULL when there is none. */
const void *memory_db_find(const struct memory_db *db, enum row_table table, const void *key);
/* Drops rows that the core never reads again (for long simulations): history, metrics, logs. */
void memory_db_forget_history(struct memory_db *db);

#endif
