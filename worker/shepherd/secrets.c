/* secrets.c - secrets of the job, passed on by descriptor; see run.h.
 *
 * The daemon has left one sealed memfd for each. A program gets descriptors of its own, opened anew
 * for reading: each begins at the first byte, whoever has read what before. Their values are never
 * looked at here. */
#include "common/base/log.h"
#include "common/base/mem.h"
#include "common/net/lines.h"
#include "worker/shepherd/run.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#define SECRETS_SOCKET ".secrets" /* in TMPDIR, for ranks that mpirun starts (rsh.c) */

void secret_fds_close(struct secret_fds *fds)
{
    for (size_t i = 0; i < fds->count; i++)
        close(fds->fds[i]);
    fds->count = 0;
}

int secrets_lend(const struct run *run, struct secret_fds *out, struct err *err)
{
    out->count = 0;
    for (size_t i = 0; i < run->plan.secret_count; i++) {
        char path[64];
        snprintf(path, sizeof path, "/proc/self/fd/%d", run->secrets_fd + (int)i);
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0) {
            secret_fds_close(out);
            return err_errno(err, "open the secret %s", run->plan.secrets[i]);
        }
        out->fds[out->count++] = fd;
    }
    return 0;
}

void secrets_environment(const struct run *run, const struct secret_fds *fds,
                         struct environment *environment)
{
    for (size_t i = 0; i < fds->count; i++) {
        char *name = mem_printf("ATHANOR_SECRET_%s_FD", run->plan.secrets[i]);
        environment_set(environment, name, "%d", fds->fds[i]);
        mem_free(name);
    }
}

/* The memory of a memfd may be written to swap unless somebody keeps it locked. What the limit of
 * the account (RLIMIT_MEMLOCK) does not allow is left as it is. */
static void secret_lock(int fd)
{
    struct stat status;
    if (fstat(fd, &status) < 0 || status.st_size == 0)
        return;
    void *bytes = mmap(NULL, (size_t)status.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (bytes == MAP_FAILED)
        return;
    madvise(bytes, (size_t)status.st_size, MADV_DONTDUMP);
    if (mlock(bytes, (size_t)status.st_size) < 0)
        munmap(bytes, (size_t)status.st_size);
}

/* ---- ranks of mpirun ------------------------------------------------------------------------- */

/* Its daemons close what they inherit, so each rank fetches its own. */
static void lend_over(struct run *run, int fd)
{
    struct secret_fds lent;
    struct err err = {0};
    struct buf names = {0};
    union {
        struct cmsghdr header;
        char bytes[CMSG_SPACE(sizeof(int) * PLAN_SECRETS_MAX)];
    } control = {0};
    if (secrets_lend(run, &lent, &err) < 0) {
        log_warn("%s", err.text);
        return;
    }
    for (size_t i = 0; i < lent.count; i++)
        buf_printf(&names, "%s\n", run->plan.secrets[i]);
    size_t bytes = sizeof(int) * lent.count;
    struct iovec part = {names.bytes, names.length};
    struct msghdr message = {.msg_iov = &part,
                             .msg_iovlen = 1,
                             .msg_control = control.bytes,
                             .msg_controllen = CMSG_SPACE(bytes)};
    control.header.cmsg_level = SOL_SOCKET;
    control.header.cmsg_type = SCM_RIGHTS;
    control.header.cmsg_len = CMSG_LEN(bytes);
    memcpy(CMSG_DATA(&control.header), lent.fds, bytes);
    if (sendmsg(fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
        log_warn("a rank did not take its secrets");
    secret_fds_close(&lent);
    buf_done(&names);
}

static void rank_asks(void *user, short events)
{
    struct run *run = user;
    struct unix_peer peer;
    struct err err = {0};
    int fd;
    (void)events;
    if (unix_accept(run->lender_fd, &fd, &peer, &err) <= 0)
        return;
    if (unix_peer_check(&peer, geteuid(), &err) < 0)
        log_warn("secrets are not for everybody: %s", err.text);
    else
        lend_over(run, fd);
    close(fd);
}

static int lender_open(struct run *run, struct err *err)
{
    char *path = mem_printf("%s/" SECRETS_SOCKET, run->places.tmp);
    int rc = unix_listen(path, 0600, &run->lender_fd, err);
    mem_free(path);
    if (rc == 0)
        poller_add(run->poller, run->lender_fd, POLLIN, rank_asks, run);
    return rc;
}

/* ---- all of them ----------------------------------------------------------------------------- */

int secrets_open(struct run *run, struct err *err)
{
    if (run->plan.secret_count > 0 && run->secrets_fd < 0)
        return err_set(err, ERR_INVALID, "the plan has secrets: expected --secrets-fd");
    for (size_t i = 0; i < run->plan.secret_count; i++) {
        if (fcntl(run->secrets_fd + (int)i, F_SETFD, FD_CLOEXEC) < 0)
            return err_errno(err, "the descriptor of secret %s", run->plan.secrets[i]);
        secret_lock(run->secrets_fd + (int)i);
    }
    return run->plan.secret_count > 0 && run->plan.launcher == PLAN_MPIRUN ? lender_open(run, err)
                                                                           : 0;
}
