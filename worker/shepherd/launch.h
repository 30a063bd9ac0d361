/* launch.h - starting one rank: everything between fork and exec. */
#ifndef ATHANOR_SHEPHERD_LAUNCH_H
#define ATHANOR_SHEPHERD_LAUNCH_H

#include "common/base/err.h"

#include <sys/types.h>

struct launch {
    char *const *arguments;   /* arguments[0] is looked up in the new environment's PATH */
    char *const *environment; /* "NAME=value" */
    const char *folder;       /* working directory */
    const unsigned *cpus;     /* to bind to; cpu_count 0: unbound */
    size_t cpu_count;
    const uint64_t *numa; /* bits of PLAN_NUMA_MAX nodes to take memory from first; NULL: any */
    int cgroup_fd; /* of cgroup_open: where the rank is born; -1: with us */
    bool pty;      /* standard output is a terminal: raw, PTY_ROWS x PTY_COLUMNS, nobody's
                      controlling one, so that it brings no signals */
    const int *files; /* standard files, borrowed; NULL: as described below */
    const int *kept_fds; /* borrowed; the program has them, under the same numbers */
    size_t kept_count;
    bool session;     /* with files: they are a terminal, which becomes the controlling one */
};

#define PTY_ROWS    24u
#define PTY_COLUMNS 120u

enum launch_fault {
    LAUNCH_FAULT_NODE = 1, /* none that a job can make */
    LAUNCH_FAULT_FOLDER,
    LAUNCH_FAULT_PROGRAM,
};

/* The rank is the leader of its own process group, dies with us (also when we are killed), and
 * has /dev/null as input. *out_stdout, *out_stderr: reading ends, close-on-exec, non-blocking; with
 * `pty` the end of *out_stdout is told by EIO.
 * With `files` there is nothing of the kind and both outputs stay as they are.
 * Returns when exec has succeeded. Errors: ERR_NOT_FOUND, ERR_IO naming the step that failed;
 * *out_fault says whose it was. */
int launch_rank(const struct launch *launch, pid_t *out_pid, int *out_stdout, int *out_stderr,
                enum launch_fault *out_fault, struct err *err) WARN_UNUSED;

#endif
