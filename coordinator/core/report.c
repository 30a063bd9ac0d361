/* report.c - the streams of attempts: in order, once, or not at all (invariant 5).
 *
 * A stream is gapless per (attempt, node). What was taken before is skipped, what lies behind a
 * gap is refused by acknowledging the last one before it, and the worker sends again from
 * there. Streams of attempts that are not live here are fenced.
 *
 * Reports are foreign: numbers are clamped to what the columns hold and texts that a column
 * would refuse are replaced, because a row that PostgreSQL refuses would stop the leader. */
#include "coordinator/core/state.h"

#include "common/base/parse.h"

#include <string.h>

#define AGE_US_MAX ((uint64_t)400 * 24 * 3600 * 1000000) /* of a spooled report */
#define AHEAD_US_MAX ((uint64_t)3600 * 1000000)

static uint64_t clamp_bigint(uint64_t value)
{
    return min_u64(value, INT64_MAX);
}

static uint64_t clamp_time(const struct core *core, uint64_t time_us)
{
    uint64_t now = core->wall_us;
    if (time_us + AGE_US_MAX < now || time_us > now + AHEAD_US_MAX)
        return now;
    return time_us;
}

char *text_clean(struct arena *arena, const char *bytes, size_t length, size_t most)
{
    length = min_u64(length, most);
    char *text = arena_strndup(arena, bytes ? bytes : "", bytes ? length : 0);
    for (size_t i = 0; bytes && i < length; i++)
        if (text[i] == '\0')
            text[i] = ' ';
    while (!text_is_utf8(text, strlen(text)) && *text) {
        size_t i = strlen(text); /* cut inside a character, or not UTF-8 at all */
        size_t tail = 0;
        while (tail < i && tail < 4 && (text[i - 1 - tail] & 0x80))
            tail++;
        if (tail > 0 && text_is_utf8(text, i - tail)) {
            text[i - tail] = '\0';
            break;
        }
        for (size_t k = 0; k < i; k++)
            if (text[k] & 0x80)
                text[k] = '?';
    }
    return text;
}

const char *report_text(struct core *core, const char *bytes, size_t length)
{
    return text_clean(step_arena(core), bytes, length, TEXT_KEPT_MAX);
}

static const char *name_clean(struct core *core, const char *name)
{
    return text_clean(step_arena(core), name, strlen(name), TEXT_KEPT_MAX);
}

static void metric_take(struct core *core, const struct part *part,
                        const struct rec_report *report)
{
    const struct attempt *attempt = part->attempt;
    struct row_metric row = {
        .attempt_id = attempt->attempt_id,
        .node = part->node,
        .seq = report->seq,
        .at = clamp_time(core, report->time_us),
        .job_id = attempt->job->job_id,
        .rank = min_u64(report->rank, attempt->job->ranks - 1),
        .name = name_clean(core, report->name),
        .step = clamp_bigint(report->step),
        .value = report->value,
    };
    effects_persist(core->effects, ROW_TABLE_metric, PERSIST_INSERT, &row);
    sweep_on_metric(core, attempt->job, row.name, row.step, row.value);
}

static void log_take(struct core *core, const struct part *part, const struct rec_report *report)
{
    const struct attempt *attempt = part->attempt;
    struct row_log_chunk row = {
        .attempt_id = attempt->attempt_id,
        .node = part->node,
        .seq = report->seq,
        .at = clamp_time(core, report->time_us),
        .job_id = attempt->job->job_id,
        .rank = min_u64(report->rank, attempt->job->ranks - 1),
        .stream = strcmp(report->name, "stderr") == 0 ? "stderr" : "stdout",
        .bytes = {.bytes = report->text.bytes, .length = report->text.length},
    };
    effects_persist(core->effects, ROW_TABLE_log_chunk, PERSIST_INSERT, &row);
}

static void progress_take(struct core *core, const struct part *part,
                          const struct rec_report *report)
{
    struct job *job = part->attempt->job;
    job->progress_step = clamp_bigint(report->step);
    job->progress_total = clamp_bigint(report->total);
    text_set(&job->progress_phase, name_clean(core, report->name));
    job_mark(core, job);
}

/* A line of history about the part. */
static void part_history(struct core *core, const struct part *part, const char *name,
                         const char *detail)
{
    history_add(core, name, part->attempt->job->job_id, part->attempt->attempt_id,
                part->worker->worker_id, NULL, detail);
}

static void event_take(struct core *core, const struct part *part, const struct rec_report *report)
{
    part_history(core, part, name_clean(core, report->name),
                text_clean(step_arena(core), report->text.bytes, report->text.length,
                           EVENT_TEXT_MAX));
}

/* Another node may try; this one is remembered for it. */
static void node_fault_note(struct core *core, struct part *part, const char *evidence)
{
    struct attempt *attempt = part->attempt;
    if (!attempt->cause) {
        attempt->node_fault = true;
        attempt_mark(core, attempt);
    }
    incident_note(core, part->worker, "launch_failed", attempt->job->job_id, attempt->attempt_id,
                  evidence, false);
}

static void finished_take(struct core *core, struct part *part, const struct rec_report *report)
{
    struct err err;
    enum cause cause;
    const char *evidence =
        text_clean(step_arena(core), report->text.bytes, report->text.length,
                   TEXT_KEPT_MAX);
    if (cause_from_name(report->cause, &cause, &err) < 0) {
        cause = CAUSE_EXIT;
        evidence = arena_printf(step_arena(core), "unknown cause '%.40s': %s",
                                name_clean(core, report->cause), evidence);
    }
    const char *usage =
        json_is_storable(report->meta, REPORT_TEXT_BYTES_MAX) ? report->meta : "{}";
    if (cause == CAUSE_LAUNCH_FAILED && report->name && strcmp(report->name, "node") == 0)
        node_fault_note(core, part, evidence);
    if (cause == CAUSE_DIVERGED && !part->attempt->diverged_step)
        part->attempt->diverged_step = clamp_bigint(report->step); /* written with the end */
    part_finished(core, part, cause, report->code, evidence, usage);
}

/* True while the part goes on. */
static bool report_take(struct core *core, struct part *part, const struct rec_report *report)
{
    switch (report->kind) {
    case REPORT_STARTED:
        part_started(core, part,
                     json_is_storable(report->meta, REPORT_TEXT_BYTES_MAX) ? report->meta : "{}");
        break;
    case REPORT_METRIC:
        metric_take(core, part, report);
        return !part->ended; /* its sweep may have stopped it */
    case REPORT_LOG:
        log_take(core, part, report);
        break;
    case REPORT_PROGRESS:
        progress_take(core, part, report);
        break;
    case REPORT_CHECKPOINT:
        checkpoint_report(core, part, report);
        break;
    case REPORT_ARTIFACT:
        artifact_report(core, part, report);
        break;
    case REPORT_EVENT:
        event_take(core, part, report);
        break;
    case REPORT_FINISHED:
        finished_take(core, part, report);
        return false;
    default:
        part_history(core, part, "bad_report",
                     arena_printf(step_arena(core), "kind %llu is not known",
                                  (unsigned long long)report->kind));
    }
    return true;
}

static void cursor_write(struct core *core, const struct msg_report *of, uint64_t seq,
                         uint64_t log_bytes)
{
    struct row_report_cursor row = {
        .attempt_id = of->attempt_id, .node = of->node, .seq = seq, .log_bytes = log_bytes};
    effects_persist(core->effects, ROW_TABLE_report_cursor, PERSIST_UPSERT, &row);
}

static void acknowledge(struct core *core, const struct event_reports *event, uint64_t seq)
{
    struct msg_report_ack *ack =
        &effects_release(core->effects, ADDRESS_WORKER, event->peer, MSG_REPORT_ACK)->u.report_ack;
    ack->attempt_id = event->reports->attempt_id;
    ack->node = event->reports->node;
    ack->seq = seq;
}

/* What the node does not have any more would be waited for for ever. */
static uint64_t lost_pass(struct core *core, const struct part *part,
                          const struct msg_report *message, uint64_t seq)
{
    if (message->lost_until <= seq || message->reports_count == 0 ||
        message->reports[0].seq - 1 != message->lost_until)
        return seq;
    part_history(core, part, "reports_lost",
                 arena_printf(step_arena(core),
                              "%llu reports from %llu on: the job removed its attempt's folder",
                              (unsigned long long)(message->lost_until - seq),
                              (unsigned long long)seq + 1));
    return message->lost_until;
}

/* What follows the end of a part is acknowledged no more than what was taken. */
static void stream_take(struct core *core, struct part *part, const struct event_reports *event)
{
    const struct msg_report *message = event->reports;
    uint64_t seq = part->seq, log_bytes = part->log_bytes;
    bool live = !part->ended;
    if (live)
        part->seq = seq = lost_pass(core, part, message, seq);
    for (size_t i = 0; live && i < message->reports_count; i++) {
        const struct rec_report *report = &message->reports[i];
        if (report->seq <= seq)
            continue;
        if (report->seq != seq + 1)
            break; /* a gap: acknowledge what lies before it */
        part->seq = ++seq;
        part->confirmed = true;
        if (report->kind == REPORT_LOG)
            part->log_bytes = log_bytes += report->text.length;
        live = report_take(core, part, report);
    }
    cursor_write(core, message, seq, log_bytes);
    acknowledge(core, event, seq);
}

void report_on_reports(struct core *core, const struct event_reports *event)
{
    struct attempt *attempt = attempt_find(core, event->reports->attempt_id);
    if (!attempt || event->reports->node >= attempt->part_count) {
        attempt_fence(core, event->peer, event->reports->attempt_id);
        return;
    }
    struct part *part = &attempt->parts[event->reports->node];
    struct worker *worker = part->worker;
    if (!worker->joined || worker->peer != event->peer) {
        answer_refused(core, ADDRESS_WORKER, event->peer, event->request_seq, ERR_STALE,
                       "this worker is not joined here: join again", NULL, 0);
        return;
    }
    if (worker->state == WORKER_LOST) {
        answer_refused(core, ADDRESS_WORKER, event->peer, event->request_seq, ERR_STALE,
                       "the lease ran out: join again", NULL, 0);
        return;
    }
    worker_seen(core, worker);
    stream_take(core, part, event);
}
