/* daemons.c - background processes; see daemons.h. */
#include "client/daemons.h"

#include "client/home.h"
#include "common/base/buf.h"
#include "common/base/clock.h"
#include "common/base/file.h"
#include "common/base/mem.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PROC_FILE_BYTES 65536u
#define TAIL_BYTES      1500u
#define POLL_MS         20

extern char **environ;

/* ---- processes ---------------------------------------------------------------------------- */

/* Start time in clock ticks (field 22 of /proc/PID/stat); 0 when there is no such process, or it
 * has ended and only waits to be reaped. */
static uint64_t start_ticks(pid_t pid)
{
    char path[64], *text;
    size_t length;
    struct err err;
    unsigned long long ticks = 0;
    char state = 'Z';
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    if (file_read(path, PROC_FILE_BYTES, &text, &length, &err) < 0)
        return 0;
    const char *after_name = strrchr(text, ')'); /* a name may hold blanks and parentheses */
    if (!after_name ||
        sscanf(after_name + 1,
               " %c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d "
               "%*d %*d %llu",
               &state, &ticks) != 2 ||
        state == 'Z' || state == 'X')
        ticks = 0;
    mem_free(text);
    return ticks;
}

/* What a process executes, without the mark of a file that was replaced since. */
static bool program_of(pid_t pid, char out[PATH_MAX])
{
    static const char deleted[] = " (deleted)";
    char link[64];
    snprintf(link, sizeof link, "/proc/%d/exe", (int)pid);
    ssize_t length = readlink(link, out, PATH_MAX - 1);
    if (length <= 0)
        return false;
    out[length] = '\0';
    size_t mark = sizeof deleted - 1;
    if ((size_t)length > mark && strcmp(out + length - mark, deleted) == 0)
        out[(size_t)length - mark] = '\0';
    return true;
}

static const char *pid_path(struct arena *arena, const char *home, const char *name)
{
    return arena_printf(arena, "%s/run/%s.pid", home, name);
}

pid_t daemon_find(struct arena *arena, const char *home, const char *name)
{
    char *text, recorded[PATH_MAX] = "", running[PATH_MAX];
    size_t length;
    struct err err;
    int pid = 0;
    unsigned long long ticks = 0;
    if (file_read(pid_path(arena, home, name), PROC_FILE_BYTES, &text, &length, &err) < 0)
        return 0;
    int fields = sscanf(text, "%d %llu %4095[^\n]", &pid, &ticks, recorded);
    mem_free(text);
    if (fields != 3 || pid <= 1 || ticks == 0 || start_ticks(pid) != ticks ||
        !program_of(pid, running) || strcmp(running, recorded) != 0)
        return 0;
    return pid;
}

static int pid_write(struct arena *arena, const struct daemon_spec *spec, pid_t pid,
                     struct err *err)
{
    char program[PATH_MAX];
    struct buf text = {0};
    uint64_t ticks = start_ticks(pid);
    if (ticks == 0 || !program_of(pid, program))
        return err_set(err, ERR_IO, "%s ended at once:\n%s", spec->name,
                       daemon_log_tail(arena, spec->home, spec->name));
    buf_printf(&text, "%d\n%" PRIu64 "\n%s\n", (int)pid, ticks, program);
    int rc =
        file_replace(pid_path(arena, spec->home, spec->name), text.bytes, text.length, 0644, err);
    buf_done(&text);
    return rc;
}

/* ---- starting ----------------------------------------------------------------------------- */

/* Settings of coordinators that `up` has no options for. */
static bool is_for_daemons(const char *item)
{
    return strncmp(item, "ATHANOR_NOTIFY_", 15) == 0 || strncmp(item, "ATHANOR_MAIL_", 13) == 0;
}

/* Our environment without what speaks to us, and with the daemon's settings. */
static char **environment_of(struct arena *arena, const struct daemon_spec *spec)
{
    size_t count = 0, settings = 0, kept = 0;
    while (environ[count])
        count++;
    while (spec->settings && spec->settings[settings])
        settings++;
    char **out = arena_alloc(arena, (count + settings + 1) * sizeof *out);
    for (size_t i = 0; i < count; i++)
        if (is_for_daemons(environ[i]) ||
            (strncmp(environ[i], "ATHANOR_", 8) != 0 &&
             strncmp(environ[i], "NOTIFY_SOCKET=", 14) != 0))
            out[kept++] = environ[i];
    for (size_t i = 0; i < settings; i++)
        out[kept++] = arena_strdup(arena, spec->settings[i]);
    return out;
}

static int open_log(struct arena *arena, const struct daemon_spec *spec, int *out_fd,
                    struct err *err)
{
    const char *path = arena_printf(arena, "%s/log/%s.log", spec->home, spec->name);
    int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0644);
    if (fd < 0)
        return err_errno(err, "opening log '%s'", path);
    *out_fd = fd;
    return 0;
}

/* Opens the log and fills in what the launch needs; launch.log is the caller's. */
static int launch_prepare(struct arena *arena, const struct daemon_spec *spec, struct launch *out,
                          struct err *err)
{
    *out = (struct launch){.program = spec->program,
                           .arguments = spec->arguments,
                           .environment = environment_of(arena, spec),
                           .account = spec->account};
    return open_log(arena, spec, &out->log, err);
}

int daemon_start(struct arena *arena, const struct daemon_spec *spec, pid_t *out_pid,
                 struct err *err)
{
    struct launch launch;
    pid_t pid = 0;
    if (launch_prepare(arena, spec, &launch, err) < 0)
        return -1;
    int rc = launch_detached(&launch, &pid, err);
    close(launch.log);
    if (rc < 0 || pid_write(arena, spec, pid, err) < 0)
        return -1;
    *out_pid = pid;
    return 0;
}

int daemon_run(struct arena *arena, const struct daemon_spec *spec, struct err *err)
{
    struct launch launch;
    int status = 0;
    if (launch_prepare(arena, spec, &launch, err) < 0)
        return -1;
    int rc = launch_and_wait(&launch, &status, err);
    close(launch.log);
    if (rc < 0 || (WIFEXITED(status) && WEXITSTATUS(status) == 0))
        return rc;
    return err_set(err, ERR_IO, "'%s' failed:\n%s", spec->program,
                   daemon_log_tail(arena, spec->home, spec->name));
}

const char *daemon_log_tail(struct arena *arena, const char *home, const char *name)
{
    char text[TAIL_BYTES + 1];
    int fd = open(arena_printf(arena, "%s/log/%s.log", home, name), O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return "";
    off_t size = lseek(fd, 0, SEEK_END);
    ssize_t count =
        pread(fd, text, TAIL_BYTES, size > (off_t)TAIL_BYTES ? size - (off_t)TAIL_BYTES : 0);
    close(fd);
    if (count <= 0)
        return "";
    text[count] = '\0';
    const char *from = size > (off_t)TAIL_BYTES ? strchr(text, '\n') : text;
    return arena_strdup(arena, from ? from : text);
}

/* ---- stopping ----------------------------------------------------------------------------- */

static bool wait_gone(pid_t pid, uint64_t ticks, uint64_t limit_ms)
{
    uint64_t until_ms = clock_steady_ms() + limit_ms;
    const struct timespec pause = {0, POLL_MS * 1000000L};
    while (start_ticks(pid) == ticks) {
        if (clock_steady_ms() >= until_ms)
            return false;
        nanosleep(&pause, NULL);
    }
    return true;
}

bool daemon_stop(struct arena *arena, const char *home, const char *name, int signal_number,
                 uint64_t grace_ms)
{
    pid_t pid = daemon_find(arena, home, name);
    uint64_t ticks = pid ? start_ticks(pid) : 0;
    if (ticks) {
        kill(pid, signal_number);
        if (!wait_gone(pid, ticks, grace_ms)) {
            kill(pid, SIGKILL);
            wait_gone(pid, ticks, grace_ms);
        }
    }
    unlink(pid_path(arena, home, name));
    return ticks != 0;
}

int daemon_lock(struct arena *arena, const char *home, struct err *err)
{
    const char *path = arena_printf(arena, "%s/run/up.lock", home);
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0)
        return err_errno(err, "opening '%s'", path);
    if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
        close(fd);
        return err_set(err, ERR_EXISTS, "another 'athanor up' or 'down' works on '%s'", home);
    }
    return 0; /* held until this process ends */
}

/* Whether the arguments of a process name something below the home. */
static bool mentions(pid_t pid, const char *home)
{
    char path[64], *text;
    size_t length, home_length = strlen(home);
    struct err err;
    bool found = false;
    snprintf(path, sizeof path, "/proc/%d/cmdline", (int)pid);
    if (file_read(path, PROC_FILE_BYTES, &text, &length, &err) < 0)
        return false;
    for (size_t at = 0; at < length && !found; at += strlen(text + at) + 1)
        found = strncmp(text + at, home, home_length) == 0 && text[at + home_length] == '/';
    mem_free(text);
    return found;
}

/* A shepherd for attempts to come: with the arguments of those that it forks, but another name. */
static bool is_nursery(pid_t pid)
{
    char path[64], *text;
    size_t length;
    struct err err;
    snprintf(path, sizeof path, "/proc/%d/comm", (int)pid);
    if (file_read(path, PROC_FILE_BYTES, &text, &length, &err) < 0)
        return false;
    bool is = strcmp(text, "athanor-nursery\n") == 0;
    mem_free(text);
    return is;
}

size_t daemon_shepherds(struct arena *arena, const char *home, int signal_number)
{
    const char *programs;
    char running[PATH_MAX];
    struct err err;
    size_t count = 0;
    DIR *folder = opendir("/proc");
    if (!folder || home_programs(arena, &programs, &err) < 0) {
        if (folder)
            closedir(folder);
        return 0;
    }
    const char *shepherd = arena_printf(arena, "%s/athanor-shepherd", programs);
    for (const struct dirent *entry; (entry = readdir(folder));) {
        pid_t pid = (pid_t)strtol(entry->d_name, NULL, 10);
        if (pid <= 1 || !program_of(pid, running) || strcmp(running, shepherd) != 0 ||
            !mentions(pid, home) || is_nursery(pid))
            continue;
        count++;
        if (signal_number)
            kill(pid, signal_number);
    }
    closedir(folder);
    return count;
}
