/* daemons.h - background processes of `up`: started, found again by pid file, stopped.
 *
 * A pid file has three lines: pid, start time in clock ticks, program. A process is ours only when
 * all three agree with /proc, so that a reused pid is never signalled. */
#ifndef ATHANOR_CLIENT_DAEMONS_H
#define ATHANOR_CLIENT_DAEMONS_H

#include "client/launch.h"
#include "common/base/arena.h"
#include "common/base/err.h"

#include <sys/types.h>

struct daemon_spec {
    const char *home;
    const char *name;             /* "coordinator": run/NAME.pid, log/NAME.log */
    const char *program;          /* absolute */
    const char *const *arguments; /* argv, NULL-terminated */
    const char *const *settings;  /* "NAME=value", NULL-terminated; NULL: none. ATHANOR_* and
                                     NOTIFY_SOCKET of our own environment are not handed on */
    struct daemon_account account;
};

/* Pid of the running daemon, 0 when it does not run. */
pid_t daemon_find(struct arena *arena, const char *home, const char *name);
/* Starts it detached from us, stderr and stdout to its log. Errors: ERR_IO (the program could not
 * be executed, by the errno of exec). */
int daemon_start(struct arena *arena, const struct daemon_spec *spec, pid_t *out_pid,
                 struct err *err) WARN_UNUSED;
/* Sends a signal, waits for the end, after grace_ms sends SIGKILL. Removes the pid file. Returns
 * whether there was anything to stop. */
bool daemon_stop(struct arena *arena, const char *home, const char *name, int signal_number,
                 uint64_t grace_ms);
/* Runs a program to its end with output to log/NAME.log. Errors: ERR_IO with the log's last lines
 * when it exits otherwise than with 0. */
int daemon_run(struct arena *arena, const struct daemon_spec *spec, struct err *err) WARN_UNUSED;
/* The last lines of a daemon's log, "" when there are none; in arena. */
const char *daemon_log_tail(struct arena *arena, const char *home, const char *name);

/* Takes HOME/run/up.lock for the rest of the process. Errors: ERR_EXISTS. */
int daemon_lock(struct arena *arena, const char *home, struct err *err) WARN_UNUSED;

/* Shepherds of this home's workers. signal_number 0 only counts them. */
size_t daemon_shepherds(struct arena *arena, const char *home, int signal_number);

#endif
