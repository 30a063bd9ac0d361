/* shell.c - when to tick, when to commit, when to stop; see shell.h. */
#include "coordinator/shell/shell.h"

#include "common/base/clock.h"
#include "common/base/log.h"

static void end_with(struct shell *shell, int exit_code)
{
    shell->exit_code = exit_code;
    loop_stop(shell->loop);
}

void shell_refuse(struct shell *shell, uint64_t peer, uint64_t request_seq, const struct err *why)
{
    server_refuse(shell->server, peer, request_seq, why);
}

/* ---- the core ------------------------------------------------------------------------------- */

static void wake_later(struct shell *shell, uint64_t now_ms)
{
    if (shell->wake_at_ms == 0)
        loop_timer_stop(&shell->wake_timer);
    else
        loop_timer_start(shell->loop, &shell->wake_timer,
                         shell->wake_at_ms > now_ms ? shell->wake_at_ms - now_ms : 0);
}

void shell_step(struct shell *shell, struct event *event)
{
    struct effects *effects = outbox_filling(&shell->outbox);
    uint64_t now_ms = clock_steady_ms();

    event->now_ms = now_ms;
    event->wall_us = clock_wall_us();
    core_step(shell->core, event, effects);
    shell->dirty = event->kind != EVENT_TICK;
    shell->wake_at_ms = effects->wake_at_ms;
    if (shell->outbox.since_ms == 0 && !outbox_is_empty(&shell->outbox)) {
        shell->outbox.since_ms = now_ms;
        loop_timer_start(shell->loop, &shell->commit_timer, COMMIT_WAIT_MS);
    }
}

/* Not while sockets are not read: workers that could not be heard must not be taken for silent. */
void shell_tick(struct shell *shell)
{
    struct event event = {.kind = EVENT_TICK};

    if (shell->paused || shell->stopping)
        return;
    if (!shell->dirty && (shell->wake_at_ms == 0 || clock_steady_ms() < shell->wake_at_ms))
        return;
    shell_step(shell, &event);
    wake_later(shell, event.now_ms);
}

/* ---- transactions --------------------------------------------------------------------------- */

uint64_t shell_pending_batch(const struct shell *shell)
{
    if (!outbox_is_empty(&shell->outbox))
        return shell->outbox.begun + 1;
    return shell->outbox.flying ? shell->outbox.begun : 0;
}

static void pause_if_full(struct shell *shell)
{
    bool full = outbox_is_full(&shell->outbox) || shell->stopping;

    if (full == shell->paused)
        return;
    shell->paused = full;
    server_pause(shell->server, full);
    if (full && !shell->stopping)
        log_debug("%u rows wait for PostgreSQL: not reading sockets", OUTBOX_ROWS_MAX);
}

static void released(struct shell *shell)
{
    texts_free(&shell->catalogues_flying);
    outbox_release(&shell->outbox, shell->server);
    parked_committed(shell);
    pause_if_full(shell);
}

static void begin_batch(struct shell *shell, uint64_t now_ms)
{
    shell->catalogues_flying = shell->catalogues_new;
    shell->catalogues_new = (struct texts){0};
    struct writer_batch batch = {.effects = outbox_begin(&shell->outbox),
                                 .catalogues = (const char *const *)shell->catalogues_flying.items,
                                 .catalogue_count = shell->catalogues_flying.count};
    loop_timer_stop(&shell->commit_timer);
    loop_timer_start(shell->loop, &shell->renew_timer, shell->options->leader_ms / 3);
    writer_commit(shell->writer, &batch, now_ms);
}

void shell_commit(struct shell *shell)
{
    uint64_t now_ms = clock_steady_ms();
    bool rows = outbox_has_rows(&shell->outbox) || shell->catalogues_new.count > 0;

    if (shell->outbox.flying || (!rows && outbox_is_empty(&shell->outbox)))
        return;
    /* Messages that no row covers need no transaction, as long as we surely lead. */
    if (!rows && now_ms < writer_lease_until_ms(shell->writer)) {
        outbox_begin(&shell->outbox);
        released(shell);
    } else if (writer_is_idle(shell->writer)) {
        begin_batch(shell, now_ms);
    }
}

void shell_renew(struct shell *shell)
{
    if (!shell->outbox.flying && writer_is_idle(shell->writer))
        begin_batch(shell, clock_steady_ms());
}

/* One step of the writer. True: a batch has committed. */
static bool writer_goes_on(struct shell *shell)
{
    struct err err;

    switch (writer_step(shell->writer, clock_steady_ms(), &err)) {
    case WRITER_PENDING:
        return false;
    case WRITER_COMMITTED:
        released(shell);
        return true;
    case WRITER_FENCED:
        log_error("this coordinator no longer leads: %s", err.text);
        end_with(shell, EXIT_FENCED);
        return false;
    case WRITER_FAILED:
        log_error("%s; memory is ahead of the database: ending, to start again from rows",
                  err.text);
        end_with(shell, EXIT_REFUSED);
        return false;
    }
    return false;
}

/* ---- descriptors of libpq ------------------------------------------------------------------- */

static void on_pg_ready(void *user, unsigned events)
{
    (void)events;
    shell_pump(user);
}

static void watch_set(struct shell *shell, struct pg_watch *watch, int fd, bool wants_write)
{
    unsigned events = LOOP_READ | (wants_write ? LOOP_WRITE : 0);

    if (watch->watch && watch->fd != fd) {
        loop_remove(watch->watch);
        watch->watch = NULL;
    }
    if (fd >= 0 && !watch->watch)
        watch->watch = loop_add_fd(shell->loop, fd, events, on_pg_ready, shell);
    else if (watch->watch && watch->events != events)
        loop_watch_set(watch->watch, events);
    watch->fd = fd;
    watch->events = events;
}

static void watch_all(struct shell *shell)
{
    uint64_t now_ms = clock_steady_ms();
    uint64_t at = writer_wake_ms(shell->writer), lanes_at = reader_wake_ms(shell->reader);

    watch_set(shell, &shell->writer_watch, writer_fd(shell->writer),
              writer_wants_write(shell->writer));
    for (size_t i = 0; i < READER_LANES; i++)
        watch_set(shell, &shell->lane_watches[i], reader_fd(shell->reader, i),
                  reader_wants_write(shell->reader, i));
    if (lanes_at && (at == 0 || lanes_at < at))
        at = lanes_at;
    if (at)
        loop_timer_start(shell->loop, &shell->pg_timer, at > now_ms ? at - now_ms : 0);
    else
        loop_timer_stop(&shell->pg_timer);
}

static void say_database(struct shell *shell)
{
    bool down = !writer_is_connected(shell->writer) && *writer_trouble(shell->writer);

    if (down == shell->writer_down)
        return;
    shell->writer_down = down;
    if (down)
        log_warn("database away, trying again: %s", writer_trouble(shell->writer));
    else
        log_info("database back");
}

void shell_pump(struct shell *shell)
{
    uint64_t since_ms = shell->outbox.since_ms;

    writer_goes_on(shell);
    reader_step(shell->reader, clock_steady_ms());
    pause_if_full(shell);
    if (since_ms && !shell->outbox.flying && clock_steady_ms() >= since_ms + COMMIT_WAIT_MS) {
        shell_tick(shell);
        shell_commit(shell);
    }
    say_database(shell);
    watch_all(shell);
}
