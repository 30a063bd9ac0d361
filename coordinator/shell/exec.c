/* exec.c - bytes of programs that people run in jobs, between a client and a worker.
 *
 * Whether somebody may is the core's decision, and its line of history is durable before the
 * worker hears of it. Here is only who talks to whom. Nothing is stored: a message goes on at once
 * or ends the exec, and windows bound what can lie in the queue of a peer that does not read
 * (common/wire/limits.h). Of a term: another leader knows nothing of it, and both ends give up. */
#include "coordinator/shell/shell.h"

#include "common/base/clock.h"
#include "common/base/mem.h"
#include "common/base/hash.h"

#include <string.h>

#define EXECS_MAX      256u
#define EXEC_LOOK_MS   1000u

enum end { END_CLIENT, END_WORKER, END_COUNT };

struct exec {
    struct exec *next;
    uint64_t exec_id, attempt_id;
    uint64_t peers[END_COUNT];
    uint64_t windows[END_COUNT]; /* bytes that this end may still send */
    uint64_t heard_ms;           /* newest word of the client */
};

static void send_end(struct shell *shell, const struct exec *exec, enum end to, const char *why)
{
    struct message message = {.tag = MSG_EXEC_ENDED};
    struct err err;

    message.u.exec_ended = (struct msg_exec_ended){.exec_id = exec->exec_id, .why = why};
    (void)!server_send(shell->server, exec->peers[to], &message, &err); /* gone: it knows */
}

static void exec_remove(struct shell *shell, struct exec *gone)
{
    struct exec **at = &shell->execs;

    while (*at != gone)
        at = &(*at)->next;
    *at = gone->next;
    shell->exec_count--;
    mem_free(gone);
}

static void exec_end(struct shell *shell, struct exec *exec, const char *why)
{
    send_end(shell, exec, END_CLIENT, why);
    send_end(shell, exec, END_WORKER, why);
    exec_remove(shell, exec);
}

void exec_open(struct shell *shell, const struct server_source *from, uint64_t request_seq,
               const struct msg_exec *request)
{
    struct core_exec_place place;
    struct err err;
    struct event event = {.kind = EVENT_EXEC,
                          .exec = {.client = from->peer_id,
                                   .request_seq = request_seq,
                                   .exec_id = random_u64(),
                                   .account = from->principal,
                                   .is_admin = from->role == ROLE_ADMIN,
                                   .exec = request}};

    if (shell->exec_count >= EXECS_MAX) {
        err_set(&err, ERR_LIMIT, "%u programs are being run in jobs already", EXECS_MAX);
        shell_refuse(shell, from->peer_id, request_seq, &err);
        return;
    }
    bool fits = core_exec_find(shell->core, &event.exec, &place, &err) == 0;
    if (fits) {
        struct exec *exec = mem_zalloc(sizeof *exec);
        *exec = (struct exec){.next = shell->execs,
                              .exec_id = event.exec.exec_id,
                              .attempt_id = place.attempt_id,
                              .peers = {from->peer_id, place.worker_peer},
                              .windows = {EXEC_WINDOW_BYTES, EXEC_WINDOW_BYTES},
                              .heard_ms = clock_steady_ms()};
        shell->execs = exec;
        shell->exec_count++;
        if (!shell->exec_timer.loop)
            loop_timer_start(shell->loop, &shell->exec_timer, EXEC_LOOK_MS);
    }
    shell_step(shell, &event); /* answers, also when it does not fit */
}

/* ---- passing on ----------------------------------------------------------------------------- */

static uint64_t exec_id_of(const struct message *message)
{
    switch (message->tag) {
    case MSG_EXEC_DATA:
        return message->u.exec_data.exec_id;
    case MSG_EXEC_CREDIT:
        return message->u.exec_credit.exec_id;
    case MSG_EXEC_RESIZE:
        return message->u.exec_resize.exec_id;
    default:
        return message->u.exec_ended.exec_id;
    }
}

/* NULL when it is within what was agreed, else what is not. */
static const char *window_fault(struct exec *exec, enum end from, const struct message *message)
{
    if (message->tag == MSG_EXEC_DATA) {
        uint64_t length = message->u.exec_data.data.length, cost = EXEC_COST(length);
        if (length > EXEC_CHUNK_BYTES || cost > exec->windows[from])
            return "more bytes than the window allows";
        exec->windows[from] -= cost;
    } else if (message->tag == MSG_EXEC_CREDIT) {
        uint64_t *window = &exec->windows[1 - from];
        if (message->u.exec_credit.bytes > EXEC_WINDOW_BYTES - *window)
            return "credit for bytes that were never sent";
        *window += message->u.exec_credit.bytes;
    }
    return NULL;
}

void exec_relay(struct shell *shell, const struct server_source *from,
                const struct message *message)
{
    struct exec *exec = shell->execs;
    uint64_t exec_id = exec_id_of(message);
    struct err err;

    while (exec && exec->exec_id != exec_id)
        exec = exec->next;
    if (!exec || (exec->peers[END_CLIENT] != from->peer_id &&
                  exec->peers[END_WORKER] != from->peer_id))
        return; /* ended meanwhile; its other end has been told */
    enum end end = exec->peers[END_CLIENT] == from->peer_id ? END_CLIENT : END_WORKER;
    const char *fault = window_fault(exec, end, message);
    if (fault) {
        exec_end(shell, exec, fault);
        return;
    }
    if (end == END_CLIENT)
        exec->heard_ms = clock_steady_ms();
    bool beat = message->tag == MSG_EXEC_CREDIT && message->u.exec_credit.bytes == 0;
    if (!beat && server_send(shell->server, exec->peers[1 - end], message, &err) < 0) {
        send_end(shell, exec, end, err.text);
        exec_remove(shell, exec);
    } else if (message->tag == MSG_EXEC_ENDED) {
        exec_remove(shell, exec);
    }
}

/* ---- ends that go silently ------------------------------------------------------------------ */

void exec_peer_gone(struct shell *shell, uint64_t peer)
{
    for (struct exec *exec = shell->execs, *next; exec; exec = next) {
        next = exec->next;
        if (exec->peers[END_CLIENT] == peer || exec->peers[END_WORKER] == peer)
            exec_end(shell, exec, "the other side is gone");
    }
}

void exec_timer_fired(void *user)
{
    struct shell *shell = user;
    uint64_t now_ms = clock_steady_ms();

    for (struct exec *exec = shell->execs, *next; exec; exec = next) {
        next = exec->next;
        if (now_ms - exec->heard_ms > EXEC_SILENCE_MS)
            exec_end(shell, exec, "the client is silent");
        else if (!core_exec_lives(shell->core, exec->attempt_id, exec->peers[END_WORKER]))
            exec_end(shell, exec, "the attempt has ended, or its worker is gone");
    }
    if (shell->execs)
        loop_timer_start(shell->loop, &shell->exec_timer, EXEC_LOOK_MS);
}

void execs_free(struct shell *shell)
{
    while (shell->execs)
        exec_remove(shell, shell->execs);
}
