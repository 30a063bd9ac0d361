/* nursery.h - the resident shepherd that forks others; see worker/attempt/nursery.h. */
#ifndef ATHANOR_SHEPHERD_NURSERY_H
#define ATHANOR_SHEPHERD_NURSERY_H

#include "common/base/err.h"

/* What a fork does with its life; returns its exit code. lock_fd holds the folder's lock. */
typedef int nursery_run(const char *folder, const char *user, int lock_fd, bool private_shm);

/* Serves the daemon at the other end of `fd` until it is gone. The shepherds forked meanwhile live
 * on: they lead sessions of their own and need nobody. */
int nursery_serve(int fd, nursery_run *run, struct err *err) WARN_UNUSED;

#endif
