/* launch.c - see launch.h. */
#include "worker/shepherd/launch.h"

#include "worker/attempt/cgroup.h"
#include "worker/attempt/plan.h"
#include "worker/attempt/procs.h"

#include <errno.h>
#include <limits.h>
#include <linux/close_range.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

extern char **environ;

enum step {
    STEP_GROUP = 1,
    STEP_CGROUP,
    STEP_BIND,
    STEP_FILES,
    STEP_KEPT,
    STEP_FOLDER,
    STEP_EXEC,
    STEP_END
};

static const char *const step_texts[STEP_END] = {
    [STEP_GROUP] = "make a process group",      [STEP_CGROUP] = "join the attempt's cgroup",
    [STEP_BIND] = "bind to the assigned cores", [STEP_FILES] = "connect input and output",
    [STEP_KEPT] = "keep descriptors open",
    [STEP_FOLDER] = "enter the directory",      [STEP_EXEC] = "run the program",
};

struct failure {
    int step, error;
};

struct pipes {
    int out[2], error[2], report[2];
};

/* ---- in the child: only async-signal-safe calls, because PMIx has threads -------------------- */

static bool bind_self(const struct launch *launch)
{
    cpu_set_t set[4]; /* 4,096 CPUs: PLAN_CPUS_MAX */
    if (launch->cpu_count == 0)
        return true;
    CPU_ZERO_S(sizeof set, set);
    for (size_t i = 0; i < launch->cpu_count; i++)
        CPU_SET_S(launch->cpus[i], sizeof set, set);
    return sched_setaffinity(0, sizeof set, set) == 0;
}

/* Preferred, not demanded: a node that is full must not end a rank while others have memory. Only
 * the newest kernels can prefer several nodes (5.15); others, and containers that forbid it, place
 * memory where the rank runs, which is much the same. */
static void prefer_memory(const struct launch *launch)
{
    enum { PREFERRED_MANY = 5 }; /* MPOL_PREFERRED_MANY of linux/mempolicy.h */
    if (launch->numa)
        syscall(SYS_set_mempolicy, PREFERRED_MANY, launch->numa, PLAN_NUMA_MAX + 1);
}

static bool connect_files(const struct launch *launch, int out, int error)
{
    int in = launch->files ? launch->files[0] : open("/dev/null", O_RDONLY);
    return in >= 0 && dup2(in, STDIN_FILENO) == STDIN_FILENO &&
           dup2(out, STDOUT_FILENO) == STDOUT_FILENO &&
           dup2(error, STDERR_FILENO) == STDERR_FILENO && (in <= 2 || close(in) == 0);
}

/* When memory runs out on the machine, a rank goes first, and neither daemon nor shepherd. */
static void offer_to_oom_killer(void)
{
    int fd = open("/proc/self/oom_score_adj", O_WRONLY);
    if (fd < 0)
        return;
    ssize_t wrote = write(fd, "500", 3);
    (void)wrote; /* a kernel without it just chooses by size */
    close(fd);
}

/* A core file of every crashed rank fills disks that nobody looks at: the limit is lowered, and who
 * wants one raises it again. Descriptors of ours, and what we may have been started with, end at
 * exec, but those that are meant to stay. */
static bool keep_to_itself(const struct launch *launch)
{
    struct rlimit core;
    if (getrlimit(RLIMIT_CORE, &core) == 0) {
        core.rlim_cur = 0;
        setrlimit(RLIMIT_CORE, &core);
    }
    close_range(STDERR_FILENO + 1, UINT_MAX,
                CLOSE_RANGE_CLOEXEC); /* Linux 5.11; ours are already */
    for (size_t i = 0; i < launch->kept_count; i++)
        if (fcntl(launch->kept_fds[i], F_SETFD, 0) < 0)
            return false;
    return true;
}

static int child_prepare(const struct launch *launch, bool inside, int out, int error)
{
    if (launch->session ? setsid() < 0 : setpgid(0, 0) < 0)
        return STEP_GROUP;
    if (!inside && !cgroup_join(launch->cgroup_fd))
        return STEP_CGROUP;
    if (!bind_self(launch))
        return STEP_BIND;
    prefer_memory(launch);
    if (!connect_files(launch, out, error) ||
        (launch->session && ioctl(STDIN_FILENO, TIOCSCTTY, 0) < 0))
        return STEP_FILES;
    if (chdir(launch->folder) < 0)
        return STEP_FOLDER;
    return keep_to_itself(launch) ? 0 : STEP_KEPT;
}

static void child_run(const struct launch *launch, pid_t parent, bool inside,
                      const struct pipes *pipes)
{
    /* First of all: whatever happens to the shepherd, its ranks do not stay behind. */
    if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0 || getppid() != parent)
        _exit(127);
    process_signals_reset();
    offer_to_oom_killer();
    struct failure failure = {
        child_prepare(launch, inside, launch->files ? launch->files[1] : pipes->out[1],
                      launch->files ? launch->files[2] : pipes->error[1]),
        0};
    if (failure.step == 0) {
        environ = (char **)launch->environment; /* execvp looks up PATH here */
        execvp(launch->arguments[0], launch->arguments);
        failure.step = STEP_EXEC;
    }
    failure.error = errno;
    ssize_t wrote = write(pipes->report[1], &failure, sizeof failure);
    (void)wrote;
    _exit(127);
}

/* ---- in the shepherd ------------------------------------------------------------------------- */

static void pipes_close(struct pipes *pipes)
{
    int *all[] = {pipes->out, pipes->error, pipes->report};
    for (int i = 0; i < 6; i++)
        if (all[i / 2][i % 2] >= 0)
            close(all[i / 2][i % 2]);
}

/* A terminal that passes bytes on as they are. False with errno. */
static bool terminal_open(int ends[2])
{
    struct winsize size = {.ws_row = PTY_ROWS, .ws_col = PTY_COLUMNS};
    struct termios mode;
    char name[64];
    ends[0] = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (ends[0] < 0 || grantpt(ends[0]) < 0 || unlockpt(ends[0]) < 0)
        return false;
    errno = ptsname_r(ends[0], name, sizeof name);
    if (errno)
        return false;
    ends[1] = open(name, O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (ends[1] < 0 || tcgetattr(ends[1], &mode) < 0)
        return false;
    cfmakeraw(&mode);
    return tcsetattr(ends[1], TCSANOW, &mode) == 0 && ioctl(ends[1], TIOCSWINSZ, &size) == 0;
}

static int pipes_open(const struct launch *launch, struct pipes *pipes, struct err *err)
{
    bool pty = launch->pty;
    *pipes = (struct pipes){{-1, -1}, {-1, -1}, {-1, -1}};
    if (launch->files && pipe2(pipes->report, O_CLOEXEC) == 0)
        return 0;
    if (!launch->files && (pty ? terminal_open(pipes->out) : pipe2(pipes->out, O_CLOEXEC) == 0) &&
        pipe2(pipes->error, O_CLOEXEC) == 0 &&
        pipe2(pipes->report, O_CLOEXEC) == 0 && fcntl(pipes->out[0], F_SETFL, O_NONBLOCK) == 0 &&
        fcntl(pipes->error[0], F_SETFL, O_NONBLOCK) == 0)
        return 0;
    err_errno(err, "make %s for a rank", pty ? "a terminal and pipes" : "pipes");
    pipes_close(pipes);
    return -1;
}

/* Waits until exec has closed the report pipe, or the child has written why it could not. */
static int exec_wait(int report_fd, const struct launch *launch,
                     enum launch_fault *out_fault, struct err *err)
{
    struct failure failure;
    ssize_t got;
    do
        got = read(report_fd, &failure, sizeof failure);
    while (got < 0 && errno == EINTR);
    if (got == 0)
        return 0;
    if (got != (ssize_t)sizeof failure || failure.step <= 0 || failure.step >= STEP_END)
        return err_set(err, ERR_IO, "start '%s': no word from the child", launch->arguments[0]);
    *out_fault = failure.step == STEP_EXEC     ? LAUNCH_FAULT_PROGRAM
                 : failure.step == STEP_FOLDER ? LAUNCH_FAULT_FOLDER
                                               : LAUNCH_FAULT_NODE;
    errno = failure.error;
    err_errno(err, "%s '%s'", step_texts[failure.step],
              failure.step == STEP_FOLDER ? launch->folder : launch->arguments[0]);
    return -1;
}

int launch_rank(const struct launch *launch, pid_t *out_pid, int *out_stdout, int *out_stderr,
                enum launch_fault *out_fault, struct err *err)
{
    struct pipes pipes;
    *out_fault = LAUNCH_FAULT_NODE;
    if (pipes_open(launch, &pipes, err) < 0)
        return -1;
    bool inside;
    pid_t parent = getpid(), pid = cgroup_fork(launch->cgroup_fd, &inside);
    if (pid == 0)
        child_run(launch, parent, inside, &pipes);
    if (pid < 0) {
        err_errno(err, "fork");
        pipes_close(&pipes);
        return -1;
    }
    close(pipes.report[1]);
    pipes.report[1] = -1;
    int rc = exec_wait(pipes.report[0], launch, out_fault, err);
    if (rc < 0)
        waitpid(pid, NULL, 0);
    else
        *out_pid = pid;
    if (rc == 0 && !launch->files) {
        *out_stdout = pipes.out[0];
        *out_stderr = pipes.error[0];
        pipes.out[0] = pipes.error[0] = -1;
    }
    pipes_close(&pipes);
    return rc;
}
