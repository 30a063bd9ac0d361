/* postgres.h - the private PostgreSQL of a home: one cluster, one database, a unix socket. */
#ifndef ATHANOR_CLIENT_POSTGRES_H
#define ATHANOR_CLIENT_POSTGRES_H

#include "common/base/arena.h"
#include "common/base/err.h"

#include <sys/types.h>

/* A program of PostgreSQL: on PATH, or of the newest version below /usr/lib/postgresql. In arena.
 * Errors: ERR_NOT_FOUND naming the package. */
int postgres_program(struct arena *arena, const char *name, const char **out,
                     struct err *err) WARN_UNUSED;

/* Makes the cluster in HOME/db if there is none, starts it if it does not run, waits until it
 * answers, and writes HOME/conninfo. As root it runs as the account `postgres`. *out_started:
 * whether it was started now. Errors say what to do; those of a failed start end with its log. */
int postgres_up(struct arena *arena, const char *home, bool *out_started, pid_t *out_pid,
                struct err *err) WARN_UNUSED;
/* Fast shutdown; returns whether it ran. */
bool postgres_down(struct arena *arena, const char *home);

#endif
