/* exec.c - programs that people run beside the ranks; see daemon.h.
 *
 * The daemon makes the program's terminal or pipes and hands the program's ends to the shepherd,
 * which starts it and says how it ended (worker/shepherd/exec.c). Bytes go between these files and
 * the coordinator, at most a window ahead of what the person has taken (common/wire/limits.h): then
 * they are not read any more, and the program waits. A lost session, or a daemon that ends, closes
 * the files, which ends the program. */
#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/mem.h"
#include "worker/attempt/folder.h"
#include "worker/daemon/daemon.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <termios.h>
#include <unistd.h>

#define EXECS_MAX      16u    /* 16 x 64 chunks: as many as wait in the socket to the coordinator */
#define EXEC_MEET_MS   10000u /* for the shepherd to come */
#define EXEC_LINGER_MS 2000u  /* for the last bytes, when something else holds the files open */
#define FILE_COUNT     3

/* Output (1) and error (2) as in EXEC_DATA. */
struct exec_stream {
    struct exec *exec;
    uint64_t number;
    int fd; /* -1: ended */
    struct loop_watch *watch;
};

struct exec {
    struct daemon *daemon;
    struct exec *next;
    uint64_t exec_id, attempt_id;
    json_t *request; /* until the shepherd has it */
    char *path;      /* of the socket, until the shepherd has come */
    bool terminal;
    uid_t owner;     /* of the attempt's folder: the shepherd's account */
    int listen_fd, ask_fd, shepherd_fd; /* waiting for it; asking it to come; connected */
    struct loop_watch *listen_watch, *ask_watch, *shepherd_watch;
    int child[FILE_COUNT]; /* the program's ends, until they are handed over */
    int in_fd;
    struct loop_watch *in_watch;
    struct buf in; /* at most a window */
    uint64_t in_cost; /* of what is in it, to be given back */
    bool in_end;
    struct exec_stream streams[2];
    uint64_t credit;
    bool exited;
    struct msg_exec_ended ended;
    struct loop_timer timer;
};

static void fd_close(int *fd, struct loop_watch **watch)
{
    if (watch) {
        loop_remove(*watch);
        *watch = NULL;
    }
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

static void path_remove(struct exec *exec)
{
    if (exec->path)
        unlink(exec->path);
    mem_free(exec->path);
    exec->path = NULL;
}

static void exec_free(struct exec *gone)
{
    struct exec **at = &gone->daemon->execs;
    while (*at != gone)
        at = &(*at)->next;
    *at = gone->next;
    gone->daemon->exec_count--;
    loop_timer_stop(&gone->timer);
    path_remove(gone);
    fd_close(&gone->listen_fd, &gone->listen_watch);
    fd_close(&gone->ask_fd, &gone->ask_watch);
    fd_close(&gone->shepherd_fd, &gone->shepherd_watch);
    fd_close(&gone->in_fd, &gone->in_watch);
    for (int i = 0; i < 2; i++)
        fd_close(&gone->streams[i].fd, &gone->streams[i].watch);
    for (int i = 0; i < FILE_COUNT; i++)
        fd_close(&gone->child[i], NULL);
    json_decref(gone->request);
    buf_done(&gone->in);
    mem_free(gone);
}

static int send_to_coordinator(struct exec *exec, const struct message *message)
{
    struct err err = {0};
    if (peer_send(exec->daemon->peer, message, NULL, &err) == 0)
        return 0;
    log_warn("%s of attempt %" PRIu64 ": %s", msg_name(message->tag), exec->attempt_id, err.text);
    return -1;
}

static void exec_refuse(struct exec *exec, const char *why, uint64_t code)
{
    struct message message = {.tag = MSG_EXEC_ENDED};
    message.u.exec_ended =
        (struct msg_exec_ended){.exec_id = exec->exec_id, .why = why, .code = code};
    (void)!send_to_coordinator(exec, &message);
    exec_free(exec);
}

static void exec_fail(struct exec *exec, const char *why)
{
    exec_refuse(exec, why, 0);
}

static void exec_end(struct exec *exec)
{
    struct message message = {.tag = MSG_EXEC_ENDED, .u.exec_ended = exec->ended};
    (void)!send_to_coordinator(exec, &message);
    exec_free(exec);
}

/* ---- output ---------------------------------------------------------------------------------- */

static void streams_watch(struct exec *exec);

/* The end of both streams and of the program, in any order. True: the exec is gone. */
static bool end_if_over(struct exec *exec)
{
    if (!exec->exited || exec->streams[0].fd >= 0 || exec->streams[1].fd >= 0)
        return false;
    exec_end(exec);
    return true;
}

static bool stream_send(struct exec_stream *stream, const char *bytes, size_t length, bool end)
{
    struct exec *exec = stream->exec;
    struct message message = {.tag = MSG_EXEC_DATA};
    message.u.exec_data = (struct msg_exec_data){
        .exec_id = exec->exec_id, .stream = stream->number, .data = {bytes, length}, .end = end};
    if (send_to_coordinator(exec, &message) == 0) {
        exec->credit -= min_u64(exec->credit, EXEC_COST(length));
        return true;
    }
    exec_fail(exec, "the worker's connection is full");
    return false;
}

/* A terminal whose last user has closed it says EIO. */
static void on_output(void *user, unsigned events)
{
    struct exec_stream *stream = user;
    struct exec *exec = stream->exec;
    char bytes[EXEC_CHUNK_BYTES];
    (void)events;
    if (exec->credit < EXEC_CHUNK_BYTES) {
        streams_watch(exec);
        return;
    }
    ssize_t got = read(stream->fd, bytes, sizeof bytes);
    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (!stream_send(stream, bytes, got > 0 ? (size_t)got : 0, got <= 0))
        return;
    if (got <= 0)
        fd_close(&stream->fd, &stream->watch);
    if (!end_if_over(exec))
        streams_watch(exec);
}

/* Without credit nothing is looked at, not even hang-ups. */
static void streams_watch(struct exec *exec)
{
    bool may = exec->credit >= EXEC_CHUNK_BYTES;
    for (int i = 0; i < 2; i++) {
        struct exec_stream *stream = &exec->streams[i];
        if (may && stream->fd >= 0 && !stream->watch && exec->shepherd_fd >= 0)
            stream->watch =
                loop_add_fd(exec->daemon->loop, stream->fd, LOOP_READ, on_output, stream);
        else if (!may) {
            loop_remove(stream->watch);
            stream->watch = NULL;
        }
    }
}

/* ---- input ----------------------------------------------------------------------------------- */

static void on_input(void *user, unsigned events);

static void input_watch(struct exec *exec)
{
    bool wants = exec->in.length > 0 && exec->in_fd >= 0 && exec->shepherd_fd >= 0;
    if (wants && !exec->in_watch)
        exec->in_watch =
            loop_add_fd(exec->daemon->loop, exec->in_fd, LOOP_WRITE, on_input, exec);
    if (!wants) {
        loop_remove(exec->in_watch);
        exec->in_watch = NULL;
    }
    if (exec->in_end && exec->in.length == 0 && exec->in_fd >= 0 && !exec->terminal)
        fd_close(&exec->in_fd, &exec->in_watch);
}

/* What was given back is exactly what had been taken, when all of it is written. */
static void credit_give(struct exec *exec)
{
    struct message message = {.tag = MSG_EXEC_CREDIT};
    if (exec->in.length > 0 || exec->in_cost == 0)
        return;
    message.u.exec_credit = (struct msg_exec_credit){exec->exec_id, exec->in_cost};
    exec->in_cost = 0;
    (void)!send_to_coordinator(exec, &message); /* a lost session ends the exec anyway */
}

/* A program that reads no more takes the rest: nobody waits for it. */
static void on_input(void *user, unsigned events)
{
    struct exec *exec = user;
    (void)events;
    ssize_t wrote = write(exec->in_fd, exec->in.bytes, exec->in.length);
    if (wrote < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    buf_drop(&exec->in, wrote < 0 ? exec->in.length : (size_t)wrote);
    credit_give(exec);
    input_watch(exec);
}

static void take_input(struct exec *exec, const struct msg_exec_data *data)
{
    if (exec->in_cost + EXEC_COST(data->data.length) > EXEC_WINDOW_BYTES) {
        exec_fail(exec, "more input than the window allows");
        return;
    }
    exec->in_cost += EXEC_COST(data->data.length);
    exec->in_end = exec->in_end || data->end;
    if (exec->in_fd >= 0)
        buf_add(&exec->in, data->data.bytes, data->data.length);
    credit_give(exec); /* of an empty chunk, or for a program that has closed its input */
    input_watch(exec);
}

/* ---- the shepherd ---------------------------------------------------------------------------- */

static void on_late(void *user)
{
    struct exec *exec = user;
    if (exec->exited) /* something it started holds the files open: that is not waited for */
        exec_end(exec);
    else
        exec_fail(exec, "the shepherd did not answer");
}

static void took_end(struct exec *exec, const json_t *word)
{
    const json_t *signal_number = json_object_get(word, "signal");
    exec->exited = true;
    exec->ended = (struct msg_exec_ended){
        .exec_id = exec->exec_id,
        .by_signal = signal_number != NULL,
        .code = (uint64_t)json_integer_value(signal_number ? signal_number
                                                           : json_object_get(word, "code"))};
    if (!end_if_over(exec))
        loop_timer_start(exec->daemon->loop, &exec->timer, EXEC_LINGER_MS);
}

/* {"pid": N}, {"error": text, "code": N}, {"code": N} or {"signal": N}. */
static void on_shepherd(void *user, unsigned events)
{
    struct exec *exec = user;
    char bytes[4096];
    (void)events;
    ssize_t got = recv(exec->shepherd_fd, bytes, sizeof bytes, MSG_DONTWAIT);
    if (got < 0 && errno == EAGAIN)
        return;
    json_t *word = got > 0 ? json_loadb(bytes, (size_t)got, 0, NULL) : NULL;
    const char *error = json_string_value(json_object_get(word, "error"));
    if (got <= 0 && exec->exited) {
        loop_remove(exec->shepherd_watch);
        exec->shepherd_watch = NULL;
    } else if (!word || error) {
        exec_refuse(exec, error ? error : "the attempt has ended",
                    (uint64_t)json_integer_value(json_object_get(word, "code")));
    } else if (json_object_get(word, "pid")) {
        loop_timer_stop(&exec->timer);
    } else {
        took_end(exec, word);
    }
    json_decref(word);
}

/* The request with the program's ends, in one packet. */
static int hand_over(struct exec *exec, struct err *err)
{
    union {
        struct cmsghdr header;
        char bytes[CMSG_SPACE(sizeof(int) * FILE_COUNT)];
    } control = {0};
    char *text = json_dumps(exec->request, JSON_COMPACT);
    CHECK(text);
    struct iovec part = {text, strlen(text)};
    struct msghdr message = {.msg_iov = &part,
                             .msg_iovlen = 1,
                             .msg_control = control.bytes,
                             .msg_controllen = sizeof control.bytes};
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(int) * FILE_COUNT);
    memcpy(CMSG_DATA(header), exec->child, sizeof exec->child);
    int rc = sendmsg(exec->shepherd_fd, &message, MSG_NOSIGNAL) < 0
                 ? err_errno(err, "hand the program to the shepherd")
                 : 0;
    mem_free(text);
    for (int i = 0; i < FILE_COUNT; i++)
        fd_close(&exec->child[i], NULL);
    return rc;
}

static void on_met(void *user, unsigned events)
{
    struct exec *exec = user;
    struct unix_peer peer;
    struct err err = {0};
    (void)events;
    int fd = accept4(exec->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd < 0)
        return;
    if (unix_peer_of(fd, &peer, &err) < 0 || unix_peer_check(&peer, exec->owner, &err) < 0) {
        log_warn("attempt %" PRIu64 ": %s", exec->attempt_id, err.text);
        close(fd);
        return;
    }
    exec->shepherd_fd = fd;
    path_remove(exec);
    fd_close(&exec->listen_fd, &exec->listen_watch);
    exec->shepherd_watch =
        loop_add_fd(exec->daemon->loop, fd, LOOP_READ, on_shepherd, exec);
    if (hand_over(exec, &err) < 0) {
        exec_fail(exec, err.text);
        return;
    }
    streams_watch(exec);
    input_watch(exec);
}

/* Its answer to being asked: only a refusal matters, else it comes. */
static void on_asked(void *user, unsigned events)
{
    struct exec *exec = user;
    char line[2048];
    (void)events;
    ssize_t got = recv(exec->ask_fd, line, sizeof line - 1, MSG_DONTWAIT);
    if (got < 0 && errno == EAGAIN)
        return;
    line[got > 0 ? got : 0] = '\0';
    fd_close(&exec->ask_fd, &exec->ask_watch);
    if (exec->shepherd_fd < 0 && !strstr(line, "\"ok\": true"))
        exec_fail(exec, got > 0 ? line : "the attempt has ended");
}

static int meet_open(struct exec *exec, const char *folder, const char *name, struct err *err)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct stat owner = {0};
    int folder_fd = -1;
    char *path = folder_socket_path(folder, name, &folder_fd, err);
    if (!path)
        return -1;
    snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
    exec->listen_fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    int rc = exec->listen_fd < 0 ||
                     bind(exec->listen_fd, (struct sockaddr *)&address, sizeof address) < 0 ||
                     fstat(folder_fd, &owner) < 0 || chmod(path, 0600) < 0 ||
                     (owner.st_uid != geteuid() && chown(path, owner.st_uid, owner.st_gid) < 0) ||
                     listen(exec->listen_fd, 1) < 0
                 ? err_errno(err, "listen for the shepherd")
                 : 0;
    exec->path = folder_file(folder, name);
    exec->owner = owner.st_uid;
    close(folder_fd);
    mem_free(path);
    return rc;
}

static int shepherd_ask(struct exec *exec, const char *folder, const char *name, struct err *err)
{
    int folder_fd = -1;
    char *path = folder_socket_path(folder, FOLDER_CONTROL, &folder_fd, err);
    if (!path)
        return -1;
    int rc = unix_connect(path, &exec->ask_fd, err);
    close(folder_fd);
    mem_free(path);
    char *line = mem_printf("{\"type\": \"exec\", \"name\": \"%s\"}\n", name);
    if (rc == 0 && send(exec->ask_fd, line, strlen(line), MSG_NOSIGNAL) < 0)
        rc = err_errno(err, "ask the shepherd");
    mem_free(line);
    return rc;
}

/* ---- beginning ------------------------------------------------------------------------------- */

static int terminal_open(struct exec *exec, const struct msg_exec_start *start, struct err *err)
{
    struct winsize size = {.ws_row = (unsigned short)min_u64(start->rows, 1000),
                           .ws_col = (unsigned short)min_u64(start->columns, 1000)};
    struct stat owner;
    char name[64];
    int master = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC | O_NONBLOCK);
    exec->in_fd = master;
    if (master < 0 || grantpt(master) < 0 || unlockpt(master) < 0 ||
        (errno = ptsname_r(master, name, sizeof name)) || ioctl(master, TIOCSWINSZ, &size) < 0 ||
        (exec->streams[0].fd = fcntl(master, F_DUPFD_CLOEXEC, 3)) < 0)
        return err_errno(err, "make a terminal");
    for (int i = 0; i < FILE_COUNT; i++)
        if ((exec->child[i] = open(name, O_RDWR | O_NOCTTY | O_CLOEXEC)) < 0)
            return err_errno(err, "open the terminal");
    struct attempt *attempt = attempt_find(exec->daemon, exec->attempt_id);
    if (geteuid() == 0 && attempt && stat(attempt->folder, &owner) == 0 && owner.st_uid != 0 &&
        fchown(exec->child[0], owner.st_uid, (gid_t)-1) < 0)
        return err_errno(err, "give the terminal to the job's account");
    return 0;
}

static int pipes_open(struct exec *exec, struct err *err)
{
    for (int i = 0; i < FILE_COUNT; i++) {
        int ends[2];
        if (pipe2(ends, O_CLOEXEC) < 0)
            return err_errno(err, "make a pipe");
        int ours = i == 0 ? ends[1] : ends[0];
        exec->child[i] = i == 0 ? ends[0] : ends[1];
        if (i == 0)
            exec->in_fd = ours;
        else
            exec->streams[i - 1].fd = ours;
        if (fcntl(ours, F_SETFL, O_NONBLOCK) < 0)
            return err_errno(err, "make a pipe");
    }
    return 0;
}

static json_t *request_json(const struct msg_exec_start *start)
{
    json_t *arguments = json_array();
    for (size_t i = 0; i < start->arguments_count; i++)
        json_array_append_new(arguments, json_string(start->arguments[i].text));
    json_t *request =
        json_pack("{s:o, s:I, s:b, s:s}", "arguments", arguments, "rank", (json_int_t)start->rank,
                  "terminal", start->terminal, "term", start->term);
    CHECK(request); /* texts of the wire are UTF-8 */
    return request;
}

static int exec_begin(struct exec *exec, const struct msg_exec_start *start, struct err *err)
{
    struct attempt *attempt = attempt_find(exec->daemon, start->attempt_id);
    char name[32];
    if (!attempt || attempt->state != ATTEMPT_RUNNING)
        return err_set(err, ERR_NOT_FOUND, "the attempt has ended");
    if (exec->daemon->exec_count > EXECS_MAX)
        return err_set(err, ERR_LIMIT, "%u programs run beside ranks of this worker already",
                       EXECS_MAX);
    if ((start->terminal ? terminal_open(exec, start, err) : pipes_open(exec, err)) < 0)
        return -1;
    snprintf(name, sizeof name, "exec-%016" PRIx64, exec->exec_id);
    if (meet_open(exec, attempt->folder, name, err) < 0 ||
        shepherd_ask(exec, attempt->folder, name, err) < 0)
        return -1;
    exec->listen_watch =
        loop_add_fd(exec->daemon->loop, exec->listen_fd, LOOP_READ, on_met, exec);
    exec->ask_watch = loop_add_fd(exec->daemon->loop, exec->ask_fd, LOOP_READ, on_asked, exec);
    loop_timer_start(exec->daemon->loop, &exec->timer, EXEC_MEET_MS);
    return 0;
}

void exec_start(struct daemon *daemon, const struct msg_exec_start *start)
{
    struct err err = {0};
    struct exec *exec = mem_zalloc(sizeof *exec);
    *exec = (struct exec){.daemon = daemon,
                          .next = daemon->execs,
                          .exec_id = start->exec_id,
                          .attempt_id = start->attempt_id,
                          .request = request_json(start),
                          .terminal = start->terminal,
                          .listen_fd = -1,
                          .ask_fd = -1,
                          .shepherd_fd = -1,
                          .child = {-1, -1, -1},
                          .in_fd = -1,
                          .streams = {{exec, 1, -1, NULL}, {exec, 2, -1, NULL}},
                          .credit = EXEC_WINDOW_BYTES,
                          .timer = {.fire = on_late, .user = exec}};
    daemon->execs = exec;
    daemon->exec_count++;
    if (exec_begin(exec, start, &err) < 0)
        exec_fail(exec, err.text);
}

/* ---- messages -------------------------------------------------------------------------------- */

static struct exec *exec_find(struct daemon *daemon, uint64_t exec_id)
{
    struct exec *exec = daemon->execs;
    while (exec && exec->exec_id != exec_id)
        exec = exec->next;
    return exec;
}

static void take_credit(struct exec *exec, uint64_t bytes)
{
    exec->credit = min_u64(exec->credit + bytes, EXEC_WINDOW_BYTES);
    streams_watch(exec);
}

static void take_size(const struct exec *exec, const struct msg_exec_resize *resize)
{
    struct winsize size = {.ws_row = (unsigned short)min_u64(resize->rows, 1000),
                           .ws_col = (unsigned short)min_u64(resize->columns, 1000)};
    if (exec->terminal && exec->in_fd >= 0 && ioctl(exec->in_fd, TIOCSWINSZ, &size) < 0)
        log_warn("attempt %" PRIu64 ": size of a terminal: %s", exec->attempt_id, strerror(errno));
}

void exec_message(struct daemon *daemon, const struct message *message)
{
    struct exec *exec;
    if (message->tag == MSG_EXEC_DATA && (exec = exec_find(daemon, message->u.exec_data.exec_id)))
        take_input(exec, &message->u.exec_data);
    else if (message->tag == MSG_EXEC_CREDIT &&
             (exec = exec_find(daemon, message->u.exec_credit.exec_id)))
        take_credit(exec, message->u.exec_credit.bytes);
    else if (message->tag == MSG_EXEC_RESIZE &&
             (exec = exec_find(daemon, message->u.exec_resize.exec_id)))
        take_size(exec, &message->u.exec_resize);
    else if (message->tag == MSG_EXEC_ENDED &&
             (exec = exec_find(daemon, message->u.exec_ended.exec_id)))
        exec_free(exec); /* closing its files and the shepherd's connection ends the program */
}

void execs_close(struct daemon *daemon, const char *why)
{
    if (daemon->execs)
        log_info("%zu programs beside ranks end: %s", daemon->exec_count, why);
    while (daemon->execs)
        exec_free(daemon->execs);
}
