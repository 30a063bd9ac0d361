/* nursery.h - how the daemon asks a resident shepherd to fork shepherds.
 *
 * Starting a program anew for each attempt costs more than most short attempts: loading, linking
 * and a fork of the large daemon. `athanor-shepherd --nursery FD` has loaded everything and forks
 * itself. Messages over a SOCK_SEQPACKET pair, one at a time, each answered; the descriptors of
 * NURSERY_START travel with it (SCM_RIGHTS) in the order lock, log, and group where has_group.
 * Between two builds of one version nothing else is promised: daemon and shepherd are installed
 * together, and an answer of another size ends the nursery, not the attempt. */
#ifndef ATHANOR_ATTEMPT_NURSERY_H
#define ATHANOR_ATTEMPT_NURSERY_H

#include "common/base/base.h"

#include <sys/types.h>

#define NURSERY_FDS_MAX    3u
#define NURSERY_PATH_BYTES 4000u /* PATH_MAX, less what fits one message with the rest */
#define NURSERY_USER_BYTES 64u

enum nursery_kind {
    NURSERY_START = 1, /* answer: pid and a pidfd, or error */
    NURSERY_ASK,       /* how pid ended: status as of wait(2), or error ESRCH */
};

struct nursery_request {
    uint32_t kind;
    int32_t pid; /* NURSERY_ASK */
    uint32_t has_group, private_shm;
    char user[NURSERY_USER_BYTES]; /* account to become; "": it stays ours */
    char folder[NURSERY_PATH_BYTES];
};

struct nursery_answer {
    int32_t pid, status, error; /* errno */
};

/* One message with descriptors. Sending fails with errno; receiving returns its bytes, 0 at the
 * end, -1 with errno, and takes at most NURSERY_FDS_MAX descriptors (close-on-exec). */
bool nursery_send(int fd, const void *bytes, size_t length, const int *fds, size_t fd_count);
ssize_t nursery_receive(int fd, void *bytes, size_t size, int *fds, size_t *out_fd_count);

#endif
