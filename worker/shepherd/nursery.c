/* nursery.c - see nursery.h. One thread, so that a fork may do everything. */
#include "worker/shepherd/nursery.h"

#include "worker/attempt/cgroup.h"
#include "worker/attempt/nursery.h"
#include "worker/attempt/procs.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

/* How the last ones ended, for the daemon to ask: it does so at once, and seldom. */
#define ENDS_KEPT 1024u

struct ended {
    pid_t pid;
    int status;
};

struct nursery {
    int fd, signal_fd;
    nursery_run *run;
    struct ended ends[ENDS_KEPT]; /* ring */
    size_t end_count;
};

static void reap(struct nursery *nursery)
{
    struct ended ended;
    while ((ended.pid = waitpid(-1, &ended.status, WNOHANG)) > 0)
        nursery->ends[nursery->end_count++ % ENDS_KEPT] = ended;
}

static void ask(const struct nursery *nursery, pid_t pid, struct nursery_answer *answer)
{
    answer->error = ESRCH;
    for (size_t back = 1; back <= min_u64(nursery->end_count, ENDS_KEPT); back++) {
        const struct ended *ended = &nursery->ends[(nursery->end_count - back) % ENDS_KEPT];
        if (ended->pid != pid)
            continue;
        *answer = (struct nursery_answer){.pid = pid, .status = ended->status};
        return; /* the newest of this number */
    }
}

/* Never returns. */
static void child_live(struct nursery *nursery, const struct nursery_request *request,
                       const int *fds, bool inside)
{
    process_signals_reset();
    prctl(PR_SET_NAME, "athanor-shepherd"); /* of which the kernel keeps 15 bytes, as of exec */
    setsid();
    close(nursery->fd);
    close(nursery->signal_fd);
    if (dup2(fds[1], STDERR_FILENO) < 0 || (!inside && !cgroup_join(fds[2])))
        _exit(1);
    close(fds[1]);
    if (request->has_group)
        close(fds[2]);
    exit(nursery->run(request->folder, request->user, fds[0], request->private_shm));
}

static int start(struct nursery *nursery, const struct nursery_request *request, const int *fds,
                 struct nursery_answer *answer)
{
    bool inside;
    pid_t pid = cgroup_fork(request->has_group ? fds[2] : -1, &inside);
    if (pid == 0)
        child_live(nursery, request, fds, inside);
    if (pid < 0) {
        answer->error = errno;
        return -1;
    }
    answer->pid = pid;
    /* Ours to reap and not reaped yet: the number means this process. */
    int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
    answer->error = pidfd < 0 ? errno : 0;
    return pidfd;
}

static bool request_is_whole(const struct nursery_request *request, ssize_t got, size_t fd_count)
{
    if (got != (ssize_t)sizeof *request ||
        !memchr(request->folder, '\0', sizeof request->folder) ||
        !memchr(request->user, '\0', sizeof request->user))
        return false;
    return request->kind == NURSERY_ASK
               ? fd_count == 0
               : request->kind == NURSERY_START && fd_count == (request->has_group ? 3u : 2u);
}

/* 1: answered; 0: the daemon is gone; -1: what it said makes no sense. */
static int serve_one(struct nursery *nursery, struct err *err)
{
    struct nursery_request request;
    struct nursery_answer answer = {0};
    int fds[NURSERY_FDS_MAX], pidfd = -1;
    size_t fd_count;
    ssize_t got = nursery_receive(nursery->fd, &request, sizeof request, fds, &fd_count);
    if (got == 0 || (got < 0 && errno == ECONNRESET))
        return 0;
    if (got < 0)
        return err_errno(err, "hear the daemon");
    if (!request_is_whole(&request, got, fd_count))
        return err_set(err, ERR_PROTOCOL, "the daemon is of another version");
    if (request.kind == NURSERY_ASK) {
        reap(nursery);
        ask(nursery, request.pid, &answer);
    } else {
        pidfd = start(nursery, &request, fds, &answer);
    }
    for (size_t i = 0; i < fd_count; i++)
        close(fds[i]);
    bool sent = nursery_send(nursery->fd, &answer, sizeof answer, &pidfd, pidfd >= 0);
    if (pidfd >= 0)
        close(pidfd);
    return sent ? 1 : 0;
}

static int signals_hold(struct nursery *nursery, struct err *err)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGCHLD);
    /* Whoever tells the daemon's session to end means the daemon; we end with it. */
    signal(SIGINT, SIG_IGN);
    signal(SIGTERM, SIG_IGN);
    signal(SIGHUP, SIG_IGN);
    if (sigprocmask(SIG_BLOCK, &set, NULL) < 0 ||
        (nursery->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK)) < 0)
        return err_errno(err, "wait for signals");
    return 0;
}

int nursery_serve(int fd, nursery_run *run, struct err *err)
{
    static struct nursery nursery;
    nursery = (struct nursery){.fd = fd, .run = run};
    prctl(PR_SET_NAME, "athanor-nursery");
    if (signals_hold(&nursery, err) < 0)
        return -1;
    for (;;) {
        struct pollfd polled[] = {{.fd = fd, .events = POLLIN},
                                  {.fd = nursery.signal_fd, .events = POLLIN}};
        if (poll(polled, ARRAY_COUNT(polled), -1) < 0 && errno != EINTR)
            return err_errno(err, "poll");
        struct signalfd_siginfo info;
        while (read(nursery.signal_fd, &info, sizeof info) == (ssize_t)sizeof info)
            continue;
        reap(&nursery);
        if (polled[0].revents == 0)
            continue;
        int rc = serve_one(&nursery, err);
        if (rc <= 0)
            return rc;
    }
}
