/* inside.c - see inside.h. The protocol and its windows: common/wire/messages.def, EXEC. */
#include "client/inside.h"

#include "common/base/clock.h"
#include "common/base/mem.h"
#include "common/net/loop.h"
#include "common/net/peer.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

#define WRITE_BYTES 4096u /* PIPE_BUF: what poll promises to take without waiting */
#define IDLE_MS     60000u

/* Output or error on its way to our file. */
struct sink {
    struct session *session;
    int fd;
    struct buf waiting; /* at most a window, which the other side keeps */
    uint64_t cost;      /* of it, to be given back when it is written */
    struct loop_watch *watch;
};

struct session {
    struct client *client;
    const struct inside *inside;
    uint64_t exec_id; /* 0: not answered yet */
    uint64_t window;  /* that we may still send */
    struct loop_watch *input;
    struct sink sinks[2];
    struct loop_timer beat;
    struct termios mode; /* to be restored */
    bool raw, ended;
    int code;
};

/* ---- the terminal --------------------------------------------------------------------------- */

static void terminal_restore(struct session *session)
{
    if (session->raw)
        tcsetattr(STDIN_FILENO, TCSADRAIN, &session->mode);
    session->raw = false;
}

static void terminal_take(struct session *session)
{
    struct termios raw;
    if (!session->inside->terminal || tcgetattr(STDIN_FILENO, &session->mode) < 0)
        return;
    raw = session->mode;
    cfmakeraw(&raw);
    session->raw = tcsetattr(STDIN_FILENO, TCSADRAIN, &raw) == 0;
}

static void terminal_size(uint64_t *out_rows, uint64_t *out_columns)
{
    struct winsize size = {.ws_row = 24, .ws_col = 80};
    if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) < 0)
        ioctl(STDIN_FILENO, TIOCGWINSZ, &size);
    *out_rows = size.ws_row;
    *out_columns = size.ws_col;
}

/* ---- sending -------------------------------------------------------------------------------- */

static void session_end(struct session *session, int code, const char *why)
{
    if (session->ended)
        return;
    session->ended = true;
    session->code = code;
    terminal_restore(session);
    if (why && *why)
        client_failf(session->client, EXIT_LOCAL, "%s", why);
}

static void session_send(struct session *session, const struct message *message)
{
    struct err err;
    if (!session->ended && peer_send(session->client->peer, message, NULL, &err) < 0)
        session_end(session, INSIDE_BROKEN, err.text);
}

static void credit_send(struct session *session, uint64_t bytes)
{
    struct message message = {.tag = MSG_EXEC_CREDIT};
    message.u.exec_credit = (struct msg_exec_credit){session->exec_id, bytes};
    session_send(session, &message);
}

static void on_beat(void *user)
{
    struct session *session = user;
    credit_send(session, 0);
    loop_timer_start(session->client->loop, &session->beat, EXEC_BEAT_MS);
}

static void hang_up(struct session *session)
{
    struct message message = {.tag = MSG_EXEC_ENDED};
    message.u.exec_ended = (struct msg_exec_ended){.exec_id = session->exec_id, .why = ""};
    session_send(session, &message);
}

/* ---- input ---------------------------------------------------------------------------------- */

static void on_input(void *user, unsigned events);

/* Without room in the window the file is not read: whoever writes to us waits. */
static void input_watch(struct session *session)
{
    bool room = session->window >= EXEC_CHUNK_BYTES && !session->ended;
    if (!room) {
        loop_remove(session->input);
        session->input = NULL;
    } else if (!session->input) {
        session->input =
            loop_add_fd(session->client->loop, STDIN_FILENO, LOOP_READ, on_input, session);
    }
}

static void input_send(struct session *session, const char *bytes, size_t length, bool end)
{
    struct message message = {.tag = MSG_EXEC_DATA};
    message.u.exec_data = (struct msg_exec_data){
        .exec_id = session->exec_id, .data = {bytes, length}, .end = end};
    session->window -= EXEC_COST(length);
    session_send(session, &message);
}

static void detach(struct session *session)
{
    hang_up(session);
    session_end(session, EXIT_DONE, NULL);
    fputs("\ndetached: the job goes on, this shell has ended\n", stderr);
}

static void on_input(void *user, unsigned events)
{
    struct session *session = user;
    char bytes[EXEC_CHUNK_BYTES];
    (void)events;
    ssize_t got = read(STDIN_FILENO, bytes, sizeof bytes);
    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    const char *key = got > 0 && session->inside->detach >= 0
                          ? memchr(bytes, session->inside->detach, (size_t)got)
                          : NULL;
    if (key)
        got = key - bytes;
    if (got > 0)
        input_send(session, bytes, (size_t)got, false);
    if (key) {
        detach(session);
    } else if (got <= 0) {
        input_send(session, "", 0, true);
        loop_remove(session->input);
        session->input = NULL;
        session->window = 0; /* never watched again */
        return;
    }
    input_watch(session);
}

/* ---- output --------------------------------------------------------------------------------- */

/* A reader that has gone, as of `| head`, ends the program. */
static void on_writable(void *user, unsigned events)
{
    struct sink *sink = user;
    struct session *session = sink->session;
    size_t part = min_u64(sink->waiting.length, WRITE_BYTES);
    (void)events;
    ssize_t wrote = write(sink->fd, sink->waiting.bytes, part);
    if (wrote < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (wrote < 0) {
        hang_up(session);
        session_end(session, INSIDE_BROKEN, errno == EPIPE ? NULL : strerror(errno));
        return;
    }
    buf_drop(&sink->waiting, (size_t)wrote);
    if (sink->waiting.length > 0)
        return;
    loop_remove(sink->watch);
    sink->watch = NULL;
    credit_send(session, sink->cost);
    sink->cost = 0;
}

static void take_data(struct session *session, const struct msg_exec_data *data)
{
    struct sink *sink = &session->sinks[data->stream == 2];
    if (session->ended)
        return;
    sink->cost += EXEC_COST(data->data.length);
    buf_add(&sink->waiting, data->data.bytes, data->data.length);
    if (sink->waiting.length == 0) { /* the end of a stream */
        credit_send(session, sink->cost);
        sink->cost = 0;
    } else if (!sink->watch) {
        sink->watch =
            loop_add_fd(session->client->loop, sink->fd, LOOP_WRITE, on_writable, sink);
    }
}

static void take_end(struct session *session, const struct msg_exec_ended *ended)
{
    int code = ended->by_signal ? 128 + (int)(ended->code & 127) : (int)(ended->code & 255);
    session_end(session, *ended->why && code == 0 ? INSIDE_BROKEN : code, ended->why);
}

static void on_message(void *user, const struct envelope *envelope, const struct message *message)
{
    struct session *session = user;
    (void)envelope;
    if (message->tag == MSG_EXEC_DATA) {
        take_data(session, &message->u.exec_data);
    } else if (message->tag == MSG_EXEC_ENDED) {
        take_end(session, &message->u.exec_ended);
    } else if (message->tag == MSG_EXEC_CREDIT) {
        if (session->window + message->u.exec_credit.bytes <= EXEC_WINDOW_BYTES)
            session->window += message->u.exec_credit.bytes;
        if (session->input || session->window == EXEC_WINDOW_BYTES)
            input_watch(session);
    }
}

/* Another leader knows nothing of it, and the worker has ended it. */
static void on_down(void *user, const struct err *why)
{
    struct session *session = user;
    if (session->exec_id)
        session_end(session, INSIDE_BROKEN, why->text);
}

/* ---- running -------------------------------------------------------------------------------- */

static void on_signal(void *user, int number)
{
    struct session *session = user;
    struct message message = {.tag = MSG_EXEC_RESIZE};
    if (number == SIGWINCH) {
        message.u.exec_resize.exec_id = session->exec_id;
        terminal_size(&message.u.exec_resize.rows, &message.u.exec_resize.columns);
        session_send(session, &message);
        return;
    }
    hang_up(session);
    session_end(session, 128 + number, NULL);
}

static int ask(struct session *session)
{
    struct client *client = session->client;
    const struct inside *inside = session->inside;
    struct message request = {.tag = MSG_EXEC}, reply;
    struct msg_exec *exec = &request.u.exec;
    const char *id;
    int code = client_job_id(client, inside->job, &id);
    if (code != EXIT_DONE)
        return code;
    *exec = (struct msg_exec){.job_id = strtoull(id, NULL, 10),
                              .rank = inside->rank,
                              .arguments_count = inside->argument_count,
                              .terminal = inside->terminal,
                              .term = getenv("TERM")};
    exec->arguments =
        arena_alloc(&client->arena, (inside->argument_count + 1) * sizeof *exec->arguments);
    for (size_t i = 0; i < inside->argument_count; i++)
        exec->arguments[i].text = inside->arguments[i];
    terminal_size(&exec->rows, &exec->columns);
    code = client_ask(client, &request, MSG_EXEC_OPENED, &reply);
    if (code == EXIT_DONE)
        session->exec_id = reply.u.exec_opened.exec_id;
    return code;
}

static int watch_signals(struct session *session, struct err *err)
{
    static const int numbers[] = {SIGWINCH, SIGTERM, SIGHUP, SIGINT};
    for (size_t i = 0; i < ARRAY_COUNT(numbers); i++)
        if (loop_add_signal(session->client->loop, numbers[i], on_signal, session, err) < 0)
            return -1;
    return 0;
}

/* What has arrived is written out even when the end came with it. */
static void write_rest(struct session *session)
{
    for (int i = 0; i < 2; i++) {
        struct sink *sink = &session->sinks[i];
        size_t done = 0;
        loop_remove(sink->watch);
        while (session->code != INSIDE_BROKEN && done < sink->waiting.length) {
            ssize_t wrote =
                write(sink->fd, sink->waiting.bytes + done, sink->waiting.length - done);
            if (wrote < 0 && errno != EINTR && errno != EAGAIN)
                break;
            done += wrote > 0 ? (size_t)wrote : 0;
        }
        buf_done(&sink->waiting);
    }
}

int inside_run(struct client *client, const struct inside *inside)
{
    struct err err;
    struct session session = {.client = client,
                              .inside = inside,
                              .window = EXEC_WINDOW_BYTES,
                              .sinks = {{.fd = STDOUT_FILENO}, {.fd = STDERR_FILENO}},
                              .beat = {.fire = on_beat}};
    session.sinks[0].session = session.sinks[1].session = session.beat.user = &session;
    client->on_message = on_message;
    client->on_down = on_down;
    client->on_user = &session;
    int code = ask(&session);
    if (code != EXIT_DONE)
        return code;
    if (inside->detach > 0 && inside->detach < ' ')
        fprintf(stderr, "in job %s beside rank %" PRIu64 "; Ctrl-%c leaves\n", inside->job,
                inside->rank, inside->detach | '@');
    if (watch_signals(&session, &err) < 0)
        session_end(&session, EXIT_LOCAL, err.text);
    else
        terminal_take(&session);
    on_beat(&session);
    input_watch(&session);
    while (!session.ended)
        if (loop_once(client->loop, IDLE_MS, &err) < 0)
            session_end(&session, EXIT_LOCAL, err.text);
    terminal_restore(&session);
    write_rest(&session);
    loop_timer_stop(&session.beat);
    loop_remove(session.input);
    client->on_message = NULL;
    return session.code;
}
