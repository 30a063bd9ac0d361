/* launch.h - from a program and its arguments to a process, detached or waited for. */
#ifndef ATHANOR_CLIENT_LAUNCH_H
#define ATHANOR_CLIENT_LAUNCH_H

#include "common/base/err.h"

#include <sys/types.h>

struct daemon_account {
    uid_t uid;
    gid_t gid;
    const char *name; /* NULL: our own, nothing is changed */
};

struct launch {
    const char *program;          /* absolute */
    const char *const *arguments; /* argv, NULL-terminated */
    char *const *environment;
    struct daemon_account account;
    int log; /* becomes stdout and stderr */
};

/* Starts it in a session of its own, as a child of init; its working directory is /. Errors:
 * ERR_IO with the reason why it could not be executed. */
int launch_detached(const struct launch *launch, pid_t *out_pid, struct err *err) WARN_UNUSED;
/* Runs it to its end; *out_status as of waitpid. A program that cannot be executed exits 127. */
int launch_and_wait(const struct launch *launch, int *out_status, struct err *err) WARN_UNUSED;

#endif
