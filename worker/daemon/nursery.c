/* nursery.c - see nursery.h. */
#include "worker/daemon/nursery.h"

#include "common/base/mem.h"
#include "worker/attempt/nursery.h"
#include "worker/attempt/procs.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/close_range.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define SERVER_FD 3 /* in the nursery */

void nursery_close(struct nursery *nursery)
{
    if (nursery->fd < 0)
        return;
    close(nursery->fd);
    kill(nursery->pid, SIGKILL); /* ours, not reaped: the number is right */
    waitpid(nursery->pid, NULL, 0);
    *nursery = (struct nursery){.fd = -1};
}

/* Only async-signal-safe calls, because ZeroMQ has threads. Its stderr stays ours: what it says is
 * about itself. */
static void child_run(const char *program, const char *attempts, int fd, int null_fd)
{
    const char *arguments[] = {program, "--nursery", "3", attempts, NULL};
    process_signals_reset();
    setsid();
    if (dup2(null_fd, STDIN_FILENO) >= 0 && dup2(null_fd, STDOUT_FILENO) >= 0 &&
        dup2(fd, SERVER_FD) >= 0 && close_range(SERVER_FD + 1, UINT_MAX, CLOSE_RANGE_CLOEXEC) == 0)
        execv(program, (char *const *)(uintptr_t)arguments);
    _exit(127);
}

/* Its arguments are also those of shepherds that it forks: they tell whose attempts these are. */
static int nursery_open(struct nursery *nursery, const struct nursery_wish *wish, struct err *err)
{
    char *attempts = mem_strdup(wish->folder), *last = strrchr(attempts, '/');
    if (last)
        *last = '\0';
    int pair[2] = {-1, -1}, null_fd = open("/dev/null", O_RDWR | O_CLOEXEC), rc = 0;
    if (null_fd < 0 || socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
        rc = err_errno(err, "make a socket for the nursery");
    /* Above the number it gets in the child, so that dup2 clears close-on-exec. */
    int high = rc < 0 ? -1 : fcntl(pair[1], F_DUPFD_CLOEXEC, SERVER_FD + 1);
    pid_t pid = high < 0 ? -1 : fork();
    if (pid == 0)
        child_run(wish->program, attempts, high, null_fd);
    if (rc == 0 && pid < 0)
        rc = err_errno(err, "fork");
    mem_free(attempts);
    const int fds[] = {null_fd, pair[1], high, rc < 0 ? pair[0] : -1};
    for (size_t i = 0; i < ARRAY_COUNT(fds); i++)
        if (fds[i] >= 0)
            close(fds[i]);
    if (rc == 0)
        *nursery = (struct nursery){.fd = pair[0], .pid = pid};
    return rc;
}

/* One question, one answer. */
static int talk(struct nursery *nursery, const struct nursery_request *request, const int *fds,
                size_t fd_count, struct nursery_answer *answer, int *out_pidfd, struct err *err)
{
    int got_fds[NURSERY_FDS_MAX];
    size_t got_count = 0;
    struct pollfd polled = {.fd = nursery->fd, .events = POLLIN};
    int rc = -1;
    if (!nursery_send(nursery->fd, request, sizeof *request, fds, fd_count)) {
        err_errno(err, "ask the nursery");
    } else if (poll(&polled, 1, NURSERY_ANSWER_MS) <= 0) {
        err_set(err, ERR_TIMEOUT, "the nursery has not answered for %d ms", NURSERY_ANSWER_MS);
    } else if (nursery_receive(nursery->fd, answer, sizeof *answer, got_fds, &got_count) !=
               (ssize_t)sizeof *answer) {
        err_set(err, ERR_CLOSED, "the nursery has ended");
    } else {
        rc = 0;
    }
    if (rc == 0 && got_count == 1) {
        *out_pidfd = got_fds[0];
        return 0;
    }
    for (size_t i = 0; i < got_count; i++)
        close(got_fds[i]);
    if (rc < 0)
        nursery_close(nursery);
    return rc;
}

int nursery_start(struct nursery *nursery, const struct nursery_wish *wish, pid_t *out_pid,
                  int *out_pidfd, struct err *err)
{
    struct nursery_request request = {.kind = NURSERY_START,
                                      .has_group = wish->group_fd >= 0,
                                      .private_shm = wish->private_shm};
    struct nursery_answer answer = {0};
    const int fds[] = {wish->lock_fd, wish->log_fd, wish->group_fd};
    int pidfd = -1;
    if (strlen(wish->folder) >= sizeof request.folder || strlen(wish->user) >= sizeof request.user)
        return err_set(err, ERR_LIMIT, "'%s' or '%s' is too long for a message", wish->folder,
                       wish->user);
    if (nursery->fd < 0 && nursery_open(nursery, wish, err) < 0)
        return -1;
    snprintf(request.folder, sizeof request.folder, "%s", wish->folder);
    snprintf(request.user, sizeof request.user, "%s", wish->user);
    if (talk(nursery, &request, fds, request.has_group ? 3 : 2, &answer, &pidfd, err) < 0)
        return -1;
    if (answer.pid <= 0) {
        errno = answer.error;
        return err_errno(err, "fork a shepherd");
    }
    *out_pid = answer.pid;
    *out_pidfd = pidfd;
    return 0;
}

bool nursery_ask(struct nursery *nursery, pid_t pid, int *out_status)
{
    struct nursery_request request = {.kind = NURSERY_ASK, .pid = pid};
    struct nursery_answer answer = {0};
    struct err err;
    int pidfd;
    if (nursery->fd < 0 || talk(nursery, &request, NULL, 0, &answer, &pidfd, &err) < 0 ||
        answer.error)
        return false;
    *out_status = answer.status;
    return true;
}
