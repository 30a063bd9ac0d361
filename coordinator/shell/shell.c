/* shell.c - when to tick, when to commit, when to stop; see shell.h. */
#include "coordinator/shell/shell.h"

#include "common/base/clock.h"
#include "common/base/log.h"

void shell_end_term(struct shell *shell, enum term_end end)
{
    shell->end = end;
    if (end == TERM_LEASE_LOST) { /* what else this pass of the loop brings must not act on it */
        shell->leads = false;
        shell->suspended = true;
    }
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
    bool full = outbox_is_full(&shell->outbox) || shell->stopping || shell->suspended;

    if (full == shell->paused)
        return;
    shell->paused = full;
    server_pause(shell->server, full);
    if (full && !shell->stopping && !shell->suspended)
        log_debug("%u rows wait for PostgreSQL: not reading sockets", OUTBOX_ROWS_MAX);
}

static void released(struct shell *shell)
{
    if (!shell_leads(shell)) { /* what is durable may be said later; first whether we lead */
        shell->release_due = true;
        return;
    }
    shell->release_due = false;
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
    writer_commit(shell->writer, &batch, now_ms);
}

void shell_commit(struct shell *shell)
{
    uint64_t now_ms = clock_steady_ms();
    bool rows = outbox_has_rows(&shell->outbox) || shell->catalogues_new.count > 0;

    if (shell->outbox.flying || (!rows && outbox_is_empty(&shell->outbox)) || !shell_leads(shell))
        return;
    if (!rows) { /* messages that no row covers need no transaction */
        outbox_begin(&shell->outbox);
        released(shell);
    } else if (writer_is_idle(shell->writer)) {
        begin_batch(shell, now_ms);
    }
}

/* One step of the writer. True: a batch has committed. */
static bool writer_goes_on(struct shell *shell)
{
    struct err err;

    switch (writer_step(shell->writer, clock_steady_ms(), &err)) {
    case WRITER_PENDING:
        return false;
    case WRITER_COMMITTED:
        tenure_confirm(&shell->tenure, writer_sent_ms(shell->writer));
        released(shell);
        return true;
    case WRITER_FENCED:
        log_error("this coordinator no longer leads: %s", err.text);
        shell_end_term(shell, TERM_LEASE_LOST);
        return false;
    case WRITER_FAILED:
        log_error("%s; memory is ahead of the database: ending, to start again from rows",
                  err.text);
        shell->exit_code = EXIT_REFUSED;
        shell_end_term(shell, TERM_ASKED);
        return false;
    }
    return false;
}

/* ---- the lease ------------------------------------------------------------------------------ */

bool shell_leads(const struct shell *shell)
{
    return shell->leads && !pulse_lost(shell->pulse) &&
           tenure_holds(&shell->tenure, clock_steady_ms());
}

static void suspend(struct shell *shell, uint64_t now_ms)
{
    shell->suspended = true;
    shell->suspended_ms = now_ms;
    log_warn(
        "the lease is not renewed, saying nothing until it is: the database is away or slow, or "
        "this process was stopped");
    pause_if_full(shell);
}

static void resume(struct shell *shell)
{
    shell->suspended = false;
    log_info("the lease of epoch %llu is renewed", (unsigned long long)shell->lease.epoch);
    shell->dirty = true;
    if (shell->release_due)
        released(shell);
    pause_if_full(shell);
    loop_timer_start(shell->loop, &shell->pg_timer, 0); /* watches PostgreSQL's answers again */
}

/* With --single nobody competes: what cannot be renewed is waited for. */
void shell_mind_tenure(struct shell *shell)
{
    uint64_t now_ms = clock_steady_ms(), give_up_ms;

    if (!shell->leads)
        return;
    pulse_alive(shell->pulse, now_ms);
    tenure_confirm(&shell->tenure, pulse_confirmed_ms(shell->pulse));
    if (pulse_lost(shell->pulse)) {
        log_error("this coordinator no longer leads: the lease of epoch %llu has passed on",
                  (unsigned long long)shell->lease.epoch);
        shell_end_term(shell, TERM_LEASE_LOST);
        return;
    }
    if (shell->suspended == shell_leads(shell)) {
        if (shell->suspended)
            resume(shell);
        else
            suspend(shell, now_ms);
    }
    give_up_ms = tenure_gives_up_ms(&shell->tenure, shell->suspended_ms);
    if (!shell->suspended) {
        if (!shell->tenure_timer.loop) /* it looks again when it fires */
            loop_timer_start(shell->loop, &shell->tenure_timer,
                             shell->tenure.until_ms - min_u64(now_ms, shell->tenure.until_ms));
    } else if (shell->options->single || now_ms < give_up_ms) {
        loop_timer_start(shell->loop, &shell->tenure_timer, PULSE_POLL_MS);
    } else {
        log_warn("the lease is given up: another coordinator may lead");
        shell_end_term(shell, TERM_LEASE_LOST);
    }
}

/* ---- descriptors of libpq ------------------------------------------------------------------- */

static void on_pg_ready(void *user, unsigned events)
{
    (void)events;
    shell_pump(user);
}

void watch_set(struct shell *shell, struct pg_watch *watch, int fd, bool wants_write,
               loop_ready_fn *ready)
{
    unsigned events = LOOP_READ | (wants_write ? LOOP_WRITE : 0);

    if (watch->watch && watch->fd != fd) {
        loop_remove(watch->watch);
        watch->watch = NULL;
    }
    if (fd >= 0 && !watch->watch)
        watch->watch = loop_add_fd(shell->loop, fd, events, ready, shell);
    else if (watch->watch && watch->events != events)
        loop_watch_set(watch->watch, events);
    watch->fd = fd;
    watch->events = events;
}

/* Of a leader that is silent the answers wait in their sockets. */
static void unwatch_all(struct shell *shell)
{
    watch_set(shell, &shell->writer_watch, -1, false, on_pg_ready);
    for (size_t i = 0; i < READER_LANES; i++)
        watch_set(shell, &shell->lane_watches[i], -1, false, on_pg_ready);
    loop_timer_stop(&shell->pg_timer);
}

static void watch_all(struct shell *shell)
{
    uint64_t now_ms = clock_steady_ms();
    uint64_t at = writer_wake_ms(shell->writer), lanes_at = reader_wake_ms(shell->reader);

    watch_set(shell, &shell->writer_watch, writer_fd(shell->writer),
              writer_wants_write(shell->writer), on_pg_ready);
    for (size_t i = 0; i < READER_LANES; i++)
        watch_set(shell, &shell->lane_watches[i], reader_fd(shell->reader, i),
                  reader_wants_write(shell->reader, i), on_pg_ready);
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

    shell_mind_tenure(shell);
    if (shell->suspended) {
        unwatch_all(shell);
        return;
    }
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
