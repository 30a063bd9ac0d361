/* init.c - the first process of a container.
 *
 * What a dead shepherd leaves behind becomes a child of process 1, which has to wait for it, or it
 * stays as a zombie. The daemon waits only for children that it knows, so process 1 is a parent of
 * its own: it passes signals on, waits for everybody, and ends with the daemon. */
#include "worker/daemon/daemon.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

static int exit_code(int status)
{
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/* Everybody who has ended. Does not return when the daemon has. */
static void wait_for_all(pid_t daemon)
{
    int status;
    pid_t pid;
    while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
        if (pid == daemon)
            _exit(exit_code(status)); /* the kernel ends whatever is left in the container */
}

int init_if_first(struct err *err)
{
    static const int passed_on[] = {SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2};
    sigset_t set, before;
    int number;
    if (getpid() != 1)
        return 0;
    sigemptyset(&set);
    sigaddset(&set, SIGCHLD);
    for (size_t i = 0; i < ARRAY_COUNT(passed_on); i++)
        sigaddset(&set, passed_on[i]);
    sigprocmask(SIG_BLOCK, &set, &before);
    pid_t daemon = fork();
    if (daemon < 0)
        return err_errno(err, "starting the daemon below process 1");
    if (daemon == 0) {
        sigprocmask(SIG_SETMASK, &before, NULL);
        return 0;
    }
    for (;;) {
        wait_for_all(daemon);
        if (sigwait(&set, &number) == 0 && number != SIGCHLD)
            kill(daemon, number);
    }
}
