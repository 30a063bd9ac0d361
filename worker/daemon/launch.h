/* launch.h - starting the shepherd of an attempt. */
#ifndef ATHANOR_DAEMON_LAUNCH_H
#define ATHANOR_DAEMON_LAUNCH_H

#include "common/base/err.h"

#include "worker/daemon/nursery.h"

struct launch_shepherd {
    const char *program; /* absolute path */
    const char *user;    /* account that it becomes; "": it stays ours */
    const char *folder;  /* of the attempt, with a whole plan */
    int listen_fd;       /* handed over, for links of other nodes; -1: none */
    const int *secret_fds; /* the same, one for each of the spec's secrets; not with the nursery */
    size_t secret_count;   /* at most SPEC_SECRETS_MAX */
    const char *cgroup;  /* it is born in this group's leaf `shepherd`; "": in our group */
    const char *device_cgroup; /* which it joins before its exec; "": none; not with the nursery */
    bool private_shm;    /* it gets a /dev/shm of its own (worker/attempt/shm.h) */
    /* Forks it without loading anything; NULL: executed anew, as attempts of several ranks are:
     * PMIx has threads, and what is born by cgroup_fork without exec should not. */
    struct nursery *nursery;
};

struct launched {
    pid_t pid;     /* 0: it lives, and the folder's lock and notes say which process it is */
    int pidfd;     /* of the nursery's; -1: none */
    bool is_child; /* ours to wait for */
};

/* Starts it with the folder's lock, in a session of its own, with FOLDER_LOG as its stderr. Does
 * not wait for the exec: a failure from there on is the last line of that log, and the end of a
 * shepherd that wrote nothing. Errors: ERR_EXISTS when another holds the lock, ERR_IO. */
int launch_shepherd(const struct launch_shepherd *launch, struct launched *out,
                    struct err *err) WARN_UNUSED;

#endif
