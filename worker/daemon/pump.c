/* pump.c - spools to the coordinator; see daemon.h.
 *
 * At-least-once: what is not acknowledged is sent again in a new session, or after a long
 * silence; the coordinator drops repeats by sequence. Memory stays small however far behind the
 * coordinator is, because the spool is the queue. */
#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/mem.h"
#include "worker/attempt/folder.h"
#include "worker/daemon/daemon.h"

#include <inttypes.h>
#include <string.h>

#define DROP_AGAIN_MS 5000u /* between looks for segments to remove */

struct batch {
    struct rec_report *reports; /* what they point to is in the daemon's pump_arena */
    size_t count, capacity, bytes;
};

static size_t report_bytes(const struct rec_report *report)
{
    return 128 + report->text.length + strlen(report->name) + strlen(report->path) +
           strlen(report->meta);
}

/* The reader passed over what a removed folder held: those numbers will never come. Said again in
 * each session until what follows them is acknowledged. */
static uint64_t lost_until(struct attempt *attempt, const struct batch *batch)
{
    uint64_t first = batch->reports[0].seq;
    if (first > attempt->sent + 1)
        attempt->lost_until = first - 1;
    return attempt->lost_until + 1 == first ? attempt->lost_until : 0;
}

/* Sends the batch and empties it. Returns whether it left. */
static bool batch_send(struct attempt *attempt, struct batch *batch)
{
    struct message message = {.tag = MSG_REPORT};
    struct err err = {0};
    message.u.report = (struct msg_report){.attempt_id = attempt->attempt_id,
                                           .node = attempt->node,
                                           .lost_until = lost_until(attempt, batch),
                                           .reports = batch->reports,
                                           .reports_count = batch->count};
    uint64_t last = batch->reports[batch->count - 1].seq;
    if (peer_send(attempt->daemon->peer, &message, NULL, &err) < 0) {
        if (err.kind != ERR_CLOSED && err.kind != ERR_LIMIT)
            log_error("reports of attempt %" PRIu64 ": %s", attempt->attempt_id, err.text);
        return false;
    }
    attempt->sent = last;
    attempt->window[attempt->window_count++] = last;
    attempt->sent_ms = clock_steady_ms();
    batch->count = batch->bytes = 0;
    return true;
}

static void batch_add(struct batch *batch, const struct rec_report *report)
{
    VEC_RESERVE(batch->reports, batch->count, batch->capacity);
    batch->reports[batch->count++] = *report;
    batch->bytes += report_bytes(report);
}

static bool batch_has_room(const struct batch *batch, const struct rec_report *report)
{
    return batch->count < REPORT_ITEMS_MAX &&
           (!batch->count || batch->reports[batch->count - 1].seq + 1 == report->seq) &&
           batch->bytes + report_bytes(report) <= REPORT_BYTES_MAX;
}

/* FINISHED in the spool means that no process is left: its cores may be given away at once, for
 * the coordinator may do so as soon as it reads this. Unless there is an epilog: STARTs wait. */
static void note_finished(struct attempt *attempt)
{
    attempt->finished_seen = true;
    if (care_is_wanted(attempt))
        attempt->cleaning = true;
    else
        slots_release(&attempt->daemon->slots, attempt->attempt_id);
}

static void spool_damaged(struct attempt *attempt, const struct err *why)
{
    log_error("spool of attempt %" PRIu64 ": %s", attempt->attempt_id, why->text);
}

/* Adds the record's reports; returns false when the window or the socket is full. */
static bool record_take(struct attempt *attempt, struct batch *batch,
                        const struct rec_report *reports, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (!batch_has_room(batch, &reports[i])) {
            if (!batch_send(attempt, batch))
                return false;
            if (attempt->window_count == PUMP_WINDOW)
                return false;
        }
        batch_add(batch, &reports[i]);
        if (reports[i].kind == REPORT_FINISHED)
            note_finished(attempt);
    }
    return true;
}

/* The reader ran ahead of what was sent: go back. With a full window that is the rest of a record;
 * farther only when a session has ended. */
static void reader_back(struct attempt *attempt)
{
    struct err err = {0};
    if (spool_reader_back(&attempt->reader, attempt->sent))
        return;
    spool_reader_close(&attempt->reader);
    if (spool_reader_open(attempt->folder, attempt->sent, &attempt->reader, &err) < 0)
        spool_damaged(attempt, &err);
    else if (attempt->reader.next_seq > attempt->sent + 1) /* acknowledged once, or lost */
        attempt->sent = attempt->lost_until = attempt->reader.next_seq - 1;
}

void pump_attempt(struct attempt *attempt)
{
    struct batch batch = {0};
    struct arena *arena = &attempt->daemon->pump_arena;
    struct rec_report *reports;
    struct err err = {0};
    size_t count;
    bool room = true;
    int rc = 0;
    if (!attempt->daemon->worker_id || attempt->state == ATTEMPT_FENCED || !attempt->reader.folder)
        return;
    while (room && attempt->window_count < PUMP_WINDOW) {
        if (batch.count == 0)
            arena_reset(arena);
        rc = spool_read(&attempt->reader, arena, &reports, &count, &err);
        if (rc <= 0)
            break;
        room = record_take(attempt, &batch, reports, count);
    }
    if (rc < 0)
        spool_damaged(attempt, &err);
    if (room && batch.count > 0)
        batch_send(attempt, &batch);
    if (attempt->reader.folder && attempt->reader.next_seq != attempt->sent + 1)
        reader_back(attempt);
    arena_reset(arena);
    mem_free(batch.reports);
}

void pump_rewind(struct attempt *attempt)
{
    attempt->sent = attempt->acked;
    attempt->window_count = 0;
    reader_back(attempt);
}

static void window_ack(struct attempt *attempt, uint64_t seq)
{
    size_t gone = 0;
    while (gone < attempt->window_count && attempt->window[gone] <= seq)
        gone++;
    attempt->window_count -= gone;
    memmove(attempt->window, attempt->window + gone,
            attempt->window_count * sizeof *attempt->window);
}

static void acked_keep(struct attempt *attempt)
{
    struct err err = {0};
    uint64_t now_ms = clock_steady_ms();
    if (folder_set_acked(attempt->folder, attempt->acked, &err) < 0)
        log_warn("attempt %" PRIu64 ": %s", attempt->attempt_id, err.text);
    if (now_ms - attempt->dropped_ms < DROP_AGAIN_MS)
        return;
    attempt->dropped_ms = now_ms;
    if (spool_drop(attempt->folder, attempt->acked, &err) < 0)
        log_warn("attempt %" PRIu64 ": %s", attempt->attempt_id, err.text);
}

void pump_ack(struct attempt *attempt, uint64_t seq)
{
    if (seq <= attempt->acked)
        return;
    attempt->acked = seq;
    window_ack(attempt, seq);
    if (seq > attempt->sent) { /* known from an earlier session: no need to send it again */
        attempt->sent = seq;
        reader_back(attempt);
    }
    /* Everything up to FINISHED is durable there. While the shepherd lives, its end is awaited. */
    if (attempt->finished_seen && attempt->sent == seq && attempt->reader.next_seq == seq + 1 &&
        attempt->state == ATTEMPT_ENDED && !attempt->cleaning) {
        attempt_remove(attempt);
        return;
    }
    acked_keep(attempt);
    pump_attempt(attempt);
}
