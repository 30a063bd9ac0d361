/* launch.c - forking daemons; see launch.h. */
#include "client/launch.h"

#include "common/net/loop.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <stdint.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static bool become(const struct daemon_account *account)
{
    return !account->name || (initgroups(account->name, account->gid) == 0 &&
                              setgid(account->gid) == 0 && setuid(account->uid) == 0);
}

/* In the child: never returns. Tells errno of what failed through `failure` (-1: nobody listens).
 */
NORETURN static void become_program(const struct launch *launch, int failure)
{
    int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
    loop_signals_reset();
    if (null >= 0 && dup2(null, 0) == 0 && dup2(launch->log, 1) == 1 && dup2(launch->log, 2) == 2 &&
        chdir("/") == 0 && become(&launch->account))
        execve(launch->program, (char *const *)(uintptr_t)launch->arguments, launch->environment);
    int reason = errno;
    if (failure >= 0)
        (void)!write(failure, &reason, sizeof reason);
    _exit(127);
}

/* The middle process: makes the daemon a child of init and tells its pid. */
NORETURN static void fork_again(const struct launch *launch, int failure, int pid_pipe)
{
    setsid();
    pid_t pid = fork();
    if (pid == 0)
        become_program(launch, failure);
    (void)!write(pid_pipe, &pid, sizeof pid);
    _exit(pid < 0);
}

static int read_exactly(int fd, void *out, size_t size)
{
    ssize_t count;
    do
        count = read(fd, out, size);
    while (count < 0 && errno == EINTR);
    return count == (ssize_t)size ? 0 : -1;
}

static void reap(pid_t pid, int *out_status)
{
    while (waitpid(pid, out_status, 0) < 0 && errno == EINTR)
        continue;
}

static int await_start(const struct launch *launch, pid_t middle, int failure, int pid_pipe,
                       pid_t *out_pid, struct err *err)
{
    pid_t pid = -1;
    int reason, status;
    int told = read_exactly(pid_pipe, &pid, sizeof pid);
    reap(middle, &status);
    if (told < 0 || pid < 0)
        return err_set(err, ERR_IO, "starting '%s': the system makes no more processes",
                       launch->program);
    if (read_exactly(failure, &reason, sizeof reason) == 0)
        return err_set(err, ERR_IO, "starting '%s': %s", launch->program, strerror(reason));
    *out_pid = pid;
    return 0;
}

static void close_pipe(int pipe[2])
{
    for (int i = 0; i < 2; i++)
        if (pipe[i] >= 0)
            close(pipe[i]);
}

int launch_detached(const struct launch *launch, pid_t *out_pid, struct err *err)
{
    int failure[2] = {-1, -1}, pids[2] = {-1, -1}, rc = -1;
    pid_t middle = -1;
    if (pipe2(failure, O_CLOEXEC) == 0 && pipe2(pids, O_CLOEXEC) == 0)
        middle = fork();
    if (middle == 0)
        fork_again(launch, failure[1], pids[1]);
    if (middle < 0) {
        err_errno(err, "starting '%s'", launch->program);
        goto out;
    }
    close(failure[1]); /* so that the end of the pipes tells of success */
    close(pids[1]);
    failure[1] = pids[1] = -1;
    rc = await_start(launch, middle, failure[0], pids[0], out_pid, err);
out:
    close_pipe(failure);
    close_pipe(pids);
    return rc;
}

int launch_and_wait(const struct launch *launch, int *out_status, struct err *err)
{
    pid_t pid = fork();
    if (pid == 0)
        become_program(launch, -1);
    if (pid < 0)
        return err_errno(err, "starting '%s'", launch->program);
    reap(pid, out_status);
    return 0;
}
