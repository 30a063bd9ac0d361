/* launch.c - see launch.h. */
#include "worker/daemon/launch.h"

#include "common/base/log.h"
#include "common/base/mem.h"
#include "common/spec/spec.h"
#include "worker/attempt/cgroup.h"
#include "worker/attempt/folder.h"
#include "worker/attempt/procs.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/close_range.h>
#include <string.h>
#include <unistd.h>

#define LOCK_FD   3 /* in the shepherd */
#define LISTEN_FD 4
#define SECRET_FD 5 /* the first of them */
#define FD_END    (SECRET_FD + SPEC_SECRETS_MAX)

struct spawn {
    const char *arguments[13];
    int null_fd, log_fd, lock_fd; /* all from FD_END up, so that no dup2 is onto another */
    int listen_fd;                /* the same; -1: none */
    int secret_fds[SPEC_SECRETS_MAX]; /* the same */
    size_t secret_count;
    int group_fd, device_group_fd; /* -1: none */
};

static void arguments_fill(const struct launch_shepherd *launch, const char *out[13])
{
    size_t count = 0;
    out[count++] = launch->program;
    out[count++] = "--lock-fd";
    out[count++] = "3";
    if (launch->listen_fd >= 0) {
        out[count++] = "--listen-fd";
        out[count++] = "4";
    }
    if (launch->secret_count > 0) {
        out[count++] = "--secrets-fd";
        out[count++] = "5";
    }
    if (launch->user[0]) {
        out[count++] = "--user";
        out[count++] = launch->user;
    }
    if (launch->private_shm)
        out[count++] = "--private-shm";
    out[count++] = launch->folder;
    out[count] = NULL;
}

/* ---- in the child: only async-signal-safe calls, because ZeroMQ has threads ------------------ */

static bool child_files(const struct spawn *spawn)
{
    if (dup2(spawn->null_fd, STDIN_FILENO) < 0 || dup2(spawn->null_fd, STDOUT_FILENO) < 0 ||
        dup2(spawn->log_fd, STDERR_FILENO) < 0 ||
        close_range(LOCK_FD, UINT_MAX, CLOSE_RANGE_CLOEXEC) < 0 ||
        dup2(spawn->lock_fd, LOCK_FD) < 0 ||
        (spawn->listen_fd >= 0 && dup2(spawn->listen_fd, LISTEN_FD) < 0))
        return false;
    for (size_t i = 0; i < spawn->secret_count; i++)
        if (dup2(spawn->secret_fds[i], SECRET_FD + (int)i) < 0)
            return false;
    return true;
}

static void child_run(const struct spawn *spawn, bool inside)
{
    process_signals_reset();
    setsid();
    if (child_files(spawn) && (inside || cgroup_join(spawn->group_fd)) &&
        (spawn->device_group_fd < 0 || cgroup_join(spawn->device_group_fd)))
        execv(spawn->arguments[0], (char *const *)spawn->arguments);
    const char *why = strerrordesc_np(errno);
    ssize_t wrote = why ? write(spawn->log_fd, why, strlen(why)) : 0;
    (void)wrote;
    _exit(127);
}

/* ---- in the daemon --------------------------------------------------------------------------- */

static int high_of(int fd, const char *what, struct err *err)
{
    int high = fd < 0 ? -1 : fcntl(fd, F_DUPFD_CLOEXEC, FD_END);
    if (high < 0)
        err_errno(err, "open '%s'", what);
    if (fd >= 0)
        close(fd);
    return high;
}

static int group_open(const char *path, const char *leaf, int *out, struct err *err)
{
    if (!path[0])
        return 0;
    *out = cgroup_open(path, leaf);
    return *out < 0 ? err_errno(err, "open cgroup '%s'", path) : 0;
}

static int spawn_open(const struct launch_shepherd *launch, struct spawn *spawn, struct err *err)
{
    int lock_fd;
    *spawn = (struct spawn){.null_fd = -1, .log_fd = -1, .lock_fd = -1, .listen_fd = -1,
                            .group_fd = -1, .device_group_fd = -1};
    arguments_fill(launch, spawn->arguments);
    if (access(launch->program, X_OK) < 0)
        return err_errno(err, "run the shepherd '%s'", launch->program);
    if (folder_lock(launch->folder, &lock_fd, err) < 0)
        return -1;
    spawn->lock_fd = high_of(lock_fd, FOLDER_LOCK, err);
    char *log = folder_file(launch->folder, FOLDER_LOG);
    spawn->log_fd = high_of(open(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600), log, err);
    mem_free(log);
    spawn->null_fd = high_of(open("/dev/null", O_RDWR | O_CLOEXEC), "/dev/null", err);
    if (launch->listen_fd >= 0)
        spawn->listen_fd = fcntl(launch->listen_fd, F_DUPFD_CLOEXEC, FD_END);
    if (launch->listen_fd >= 0 && spawn->listen_fd < 0)
        return err_errno(err, "hand over the socket for other nodes");
    for (; spawn->secret_count < launch->secret_count; spawn->secret_count++) {
        int fd = fcntl(launch->secret_fds[spawn->secret_count], F_DUPFD_CLOEXEC, FD_END);
        if (fd < 0)
            return err_errno(err, "hand over secrets");
        spawn->secret_fds[spawn->secret_count] = fd;
    }
    if (spawn->lock_fd < 0 || spawn->log_fd < 0 || spawn->null_fd < 0)
        return -1;
    return group_open(launch->cgroup, "shepherd", &spawn->group_fd, err) < 0
               ? -1
               : group_open(launch->device_cgroup, NULL, &spawn->device_group_fd, err);
}

static void spawn_close(struct spawn *spawn)
{
    const int fds[] = {spawn->null_fd, spawn->log_fd, spawn->lock_fd, spawn->listen_fd,
                       spawn->group_fd, spawn->device_group_fd};
    for (size_t i = 0; i < ARRAY_COUNT(fds); i++)
        if (fds[i] >= 0)
            close(fds[i]);
    for (size_t i = 0; i < spawn->secret_count; i++)
        close(spawn->secret_fds[i]);
}

static int execute(const struct spawn *spawn, struct launched *out, struct err *err)
{
    bool inside;
    pid_t pid = cgroup_fork(spawn->group_fd, &inside);
    if (pid == 0)
        child_run(spawn, inside);
    *out = (struct launched){.pid = pid, .pidfd = -1, .is_child = true};
    return pid < 0 ? err_errno(err, "fork") : 0;
}

/* Errors: ERR_EXISTS when another holds it. */
static int lock_anew(const char *folder, struct spawn *spawn, struct err *err)
{
    int fd;
    close(spawn->lock_fd);
    spawn->lock_fd = -1;
    if (folder_lock(folder, &fd, err) < 0)
        return -1;
    spawn->lock_fd = high_of(fd, FOLDER_LOCK, err);
    return spawn->lock_fd < 0 ? -1 : 0;
}

/* A nursery that fails must not fail an attempt: it may have been killed, as any process. Nor must
 * the attempt run twice: what it had forked before it could say so lives on and holds the lock. */
static int hatch(const struct launch_shepherd *launch, struct spawn *spawn, struct launched *out,
                 struct err *err)
{
    struct err why = {0};
    if (!launch->nursery)
        return execute(spawn, out, err);
    *out = (struct launched){.pidfd = -1};
    const struct nursery_wish wish = {.program = launch->program,
                                      .user = launch->user,
                                      .folder = launch->folder,
                                      .private_shm = launch->private_shm,
                                      .lock_fd = spawn->lock_fd,
                                      .log_fd = spawn->log_fd,
                                      .group_fd = spawn->group_fd};
    if (nursery_start(launch->nursery, &wish, &out->pid, &out->pidfd, &why) == 0)
        return 0;
    if (lock_anew(launch->folder, spawn, err) == 0) {
        log_warn("starting the shepherd without the nursery: %s", why.text);
        return execute(spawn, out, err);
    }
    if (err->kind != ERR_EXISTS)
        return -1;
    log_warn("%s, but has started the shepherd", why.text);
    *out = (struct launched){.pidfd = -1};
    return 0;
}

/* We take the lock and the shepherd inherits it, so that there is no moment at which it could be
 * taken for dead. */
int launch_shepherd(const struct launch_shepherd *launch, struct launched *out, struct err *err)
{
    struct spawn spawn;
    int rc = spawn_open(launch, &spawn, err);
    if (rc == 0)
        rc = hatch(launch, &spawn, out, err);
    spawn_close(&spawn);
    return rc;
}
