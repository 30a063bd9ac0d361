/* nursery.h - the daemon's end of worker/attempt/nursery.h. */
#ifndef ATHANOR_DAEMON_NURSERY_H
#define ATHANOR_DAEMON_NURSERY_H

#include "common/base/err.h"

#include <sys/types.h>

#define NURSERY_ANSWER_MS 5000 /* a fork; after that the nursery is given up and ended */

/* A zeroed one with fd -1 is valid: none runs. */
struct nursery {
    int fd;
    pid_t pid;
};

/* Asks for a shepherd; starts the nursery from `program` when none runs. group_fd -1: none. The
 * nursery is ended on any trouble, so that the next attempt gets a new one. Errors: ERR_IO,
 * ERR_LIMIT (a path that no message holds). */
struct nursery_wish {
    const char *program, *user, *folder; /* as in launch.h */
    bool private_shm;
    int lock_fd, log_fd, group_fd;
};
int nursery_start(struct nursery *nursery, const struct nursery_wish *wish, pid_t *out_pid,
                  int *out_pidfd, struct err *err) WARN_UNUSED;
/* How a shepherd of it ended, as of wait(2); false when nobody knows. */
bool nursery_ask(struct nursery *nursery, pid_t pid, int *out_status);
void nursery_close(struct nursery *nursery);

#endif
