/* exec.c - programs that people run beside the ranks; see run.h.
 *
 * The daemon makes their terminal or pipes and hands us the program's ends, so that none of their
 * bytes pass through here. They are children of ours like the ranks: the cgroup, the stop ladder
 * and "nothing is left" hold for them too. One connection is one program: it says how the program
 * ended, and when the daemon closes it the program is ended. */
#include "common/base/clock.h"
#include "common/base/mem.h"
#include "worker/attempt/cgroup.h"
#include "worker/attempt/folder.h"
#include "worker/shepherd/launch.h"
#include "worker/shepherd/run.h"

#include <errno.h>
#include <jansson.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#define EXECS_MAX    16u
#define EXEC_KILL_MS 2000u /* after a hang-up */
#define PACKET_BYTES ((size_t)160 << 10) /* EXEC_ARGUMENT_BYTES_MAX as JSON, mostly */
#define FILE_COUNT   3
/* POSIX, shell command language, 2.8.2 */
#define EXIT_NO_PROGRAM     127
#define EXIT_NOT_EXECUTABLE 126

struct exec {
    struct run *run;
    struct exec *next;
    int fd; /* -1: the daemon has gone */
    struct poller_watch *watch;
    pid_t pid;        /* 0: not started yet */
    uint64_t kill_ms; /* 0: nobody has hung up */
};

static void exec_hang_up(struct exec *exec)
{
    if (exec->fd < 0)
        return;
    poller_remove(exec->watch);
    close(exec->fd);
    exec->fd = -1;
}

static void exec_free(struct exec *gone)
{
    struct exec **at = &gone->run->execs;
    while (*at != gone)
        at = &(*at)->next;
    *at = gone->next;
    exec_hang_up(gone);
    mem_free(gone);
}

/* A daemon that does not read is gone soon; then this says nothing new. */
static void exec_say(const struct exec *exec, json_t *word)
{
    char *text = json_dumps(word, JSON_COMPACT);
    CHECK(text);
    ssize_t sent = send(exec->fd, text, strlen(text), MSG_NOSIGNAL | MSG_DONTWAIT);
    (void)sent;
    mem_free(text);
    json_decref(word);
}

/* ---- starting -------------------------------------------------------------------------------- */

static int arguments_read(const json_t *request, struct arena *arena, char ***out, struct err *err)
{
    const json_t *list = json_object_get(request, "arguments");
    size_t count = json_array_size(list);
    char **words = arena_alloc(arena, (count + 1) * sizeof *words);
    for (size_t i = 0; i < count; i++) {
        const char *word = json_string_value(json_array_get(list, i));
        if (!word)
            return err_set(err, ERR_INVALID, "arguments: expected texts");
        words[i] = arena_strdup(arena, word);
    }
    words[count] = NULL;
    *out = words;
    return count ? 0 : err_set(err, ERR_INVALID, "arguments: expected a program");
}

/* *out_code: the exit code that shells, env and ssh give this failure; 0: it is none of theirs. */
static int exec_launch(struct exec *exec, const json_t *request, const int files[FILE_COUNT],
                       struct arena *arena, int *out_code, struct err *err)
{
    struct run *run = exec->run;
    struct environment environment = {0};
    json_int_t rank = json_integer_value(json_object_get(request, "rank")) -
                      (json_int_t)run->plan.first_rank;
    char **arguments = NULL;
    struct secret_fds secrets;
    if (run->state != RUN_UP)
        return err_set(err, ERR_CLOSED, "the attempt is ending");
    if (rank < 0 || rank >= (json_int_t)run->plan.rank_count)
        return err_set(err, ERR_INVALID, "rank: not on this node");
    if (arguments_read(request, arena, &arguments, err) < 0 ||
        secrets_lend(run, &secrets, err) < 0)
        return -1;
    environment_build(&run->plan, &run->places, (unsigned)rank, &environment);
    secrets_environment(run, &secrets, &environment);
    const char *term = json_string_value(json_object_get(request, "term"));
    environment_set(&environment, "TERM", "%s", term && *term ? term : "dumb");
    int cgroup_fd = run->plan.cgroup[0] ? cgroup_open(run->plan.cgroup, "ranks") : -1;
    const struct plan_rank *place = &run->plan.ranks[rank];
    struct launch launch = {.arguments = arguments,
                            .environment = environment.items,
                            .folder = run->plan.cwd[0] ? run->plan.cwd : run->places.run_dir,
                            .cpus = place->cpus,
                            .cpu_count = place->cpu_count,
                            .numa = place->has_numa ? place->numa : NULL,
                            .cgroup_fd = cgroup_fd,
                            .files = files,
                            .kept_fds = secrets.fds,
                            .kept_count = secrets.count,
                            .session = json_is_true(json_object_get(request, "terminal"))};
    enum launch_fault fault;
    int rc = launch_rank(&launch, &exec->pid, NULL, NULL, &fault, err);
    if (rc < 0 && fault == LAUNCH_FAULT_PROGRAM)
        *out_code = err->kind == ERR_NOT_FOUND ? EXIT_NO_PROGRAM : EXIT_NOT_EXECUTABLE;
    environment_done(&environment);
    secret_fds_close(&secrets);
    if (cgroup_fd >= 0)
        close(cgroup_fd);
    return rc;
}

/* The request and the program's files. Returns the length, with all three files open, else -1. */
static ssize_t packet_receive(int fd, char *bytes, size_t size, int files[FILE_COUNT])
{
    union {
        struct cmsghdr header;
        char bytes[CMSG_SPACE(sizeof(int) * FILE_COUNT)];
    } control;
    struct iovec part = {bytes, size - 1};
    struct msghdr message = {.msg_iov = &part,
                             .msg_iovlen = 1,
                             .msg_control = control.bytes,
                             .msg_controllen = sizeof control.bytes};
    ssize_t got = recvmsg(fd, &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
    struct cmsghdr *header = got > 0 ? CMSG_FIRSTHDR(&message) : NULL;
    if (!header || header->cmsg_type != SCM_RIGHTS)
        return -1;
    size_t count = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    int received[FILE_COUNT];
    memcpy(received, CMSG_DATA(header), min_u64(count, FILE_COUNT) * sizeof(int));
    if (count == FILE_COUNT && !(message.msg_flags & (MSG_TRUNC | MSG_CTRUNC))) {
        memcpy(files, received, sizeof received);
        bytes[got] = '\0';
        return got;
    }
    for (size_t i = 0; i < count && i < FILE_COUNT; i++)
        close(received[i]);
    return -1;
}

static void exec_start(struct exec *exec)
{
    struct arena arena = {0};
    struct err err = {0};
    int files[FILE_COUNT], code = 0;
    char *bytes = mem_array(PACKET_BYTES, 1);
    ssize_t length = packet_receive(exec->fd, bytes, PACKET_BYTES, files);
    json_t *request = length > 0 ? json_loadb(bytes, (size_t)length, 0, NULL) : NULL;
    int rc = request ? exec_launch(exec, request, files, &arena, &code, &err)
                     : err_set(&err, ERR_PROTOCOL, "no request with three files");
    for (int i = 0; length > 0 && i < FILE_COUNT; i++)
        close(files[i]);
    exec_say(exec, rc < 0 ? json_pack("{s:s%, s:i}", "error", err.text, strlen(err.text), "code",
                                      code)
                          : json_pack("{s:i}", "pid", (int)exec->pid));
    json_decref(request);
    mem_free(bytes);
    arena_done(&arena);
    if (rc < 0)
        exec_free(exec);
}

/* ---- ending ---------------------------------------------------------------------------------- */

static void exec_ready(void *user, short events)
{
    struct exec *exec = user;
    (void)events;
    if (exec->pid == 0) {
        exec_start(exec);
        return;
    }
    exec_hang_up(exec); /* nothing else is ever said to us */
    kill(-exec->pid, SIGHUP);
    kill(-exec->pid, SIGCONT);
    exec->kill_ms = clock_steady_ms() + EXEC_KILL_MS;
}

/* Our child until we wait for it: its number is nobody else's. */
void exec_tick(struct run *run, uint64_t now_ms)
{
    for (struct exec *exec = run->execs; exec; exec = exec->next)
        if (exec->kill_ms && now_ms >= exec->kill_ms)
            kill(-exec->pid, SIGKILL);
}

bool exec_reaped(struct run *run, pid_t pid, int status)
{
    struct exec *exec = run->execs;
    while (exec && exec->pid != pid)
        exec = exec->next;
    if (!exec)
        return false;
    if (exec->fd >= 0)
        exec_say(exec, WIFSIGNALED(status) ? json_pack("{s:i}", "signal", WTERMSIG(status))
                                           : json_pack("{s:i}", "code", WEXITSTATUS(status)));
    exec_free(exec);
    return true;
}

void execs_close(struct run *run)
{
    while (run->execs)
        exec_free(run->execs);
}

/* ---- the connection -------------------------------------------------------------------------- */

static int daemon_connect(const struct run *run, const char *name, int *out, struct err *err)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int folder_fd = -1;
    char *path = folder_socket_path(run->folder, name, &folder_fd, err);
    if (!path)
        return -1;
    snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
    mem_free(path);
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    int rc = fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof address) < 0
                 ? err_errno(err, "connect to '%s'", name)
                 : 0;
    close(folder_fd);
    if (rc < 0 && fd >= 0)
        close(fd);
    *out = fd;
    return rc;
}

int exec_begin(struct run *run, const char *name, struct err *err)
{
    size_t count = 0;
    int fd;
    for (const struct exec *exec = run->execs; exec; exec = exec->next)
        count++;
    if (strncmp(name, "exec-", 5) != 0 || strchr(name, '/'))
        return err_set(err, ERR_INVALID, "name: '%.40s', expected exec-...", name);
    if (count >= EXECS_MAX)
        return err_set(err, ERR_LIMIT, "%u programs run beside the ranks already", EXECS_MAX);
    if (daemon_connect(run, name, &fd, err) < 0)
        return -1;
    struct exec *exec = mem_zalloc(sizeof *exec);
    *exec = (struct exec){.run = run, .next = run->execs, .fd = fd};
    exec->watch = poller_add(run->poller, fd, POLLIN, exec_ready, exec);
    run->execs = exec;
    return 0;
}
