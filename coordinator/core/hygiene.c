/* hygiene.c - nodes that fail jobs.
 *
 * Two things keep new work away from a worker that is there. Health checks that fail, as the worker
 * tells: until they succeed again. And quarantine: after one severe incident, or when incidents of
 * `incidents_max` different jobs lie within `incident_window_ms`: until an operator undrains it.
 * Only what is the node's own fault is an incident; a check that begins to fail is one, so that a
 * node whose health comes and goes ends in quarantine.
 *
 * In rows: worker (state), worker_incident (those that count, and history). */
#include "coordinator/core/state.h"

#include "common/base/buf.h"

#include <string.h>

#define CHECKS_MAX      64u  /* of a report; more are left out */
#define HEALTH_TEXT_MAX 500u /* of one check's output */
#define SHOWN_MAX       4u   /* incidents in a reason */
#define SHOWN_TEXT_MAX  200u /* bytes of each */

const char *worker_kept_away(const struct worker *worker)
{
    return worker->quarantine_reason ? worker->quarantine_reason : worker->unhealthy;
}

/* ---- incidents --------------------------------------------------------------------------- */

static void incident_write(struct core *core, const struct worker *worker,
                           const struct incident *incident, uint64_t cleared_at)
{
    struct row_worker_incident row = {
        .worker_id = worker->worker_id,
        .number = incident->number,
        .at = incident->at,
        .kind = incident->kind,
        .job_id = incident->job_id,
        .attempt_id = incident->attempt_id,
        .evidence = incident->evidence,
        .cleared_at = cleared_at,
    };
    effects_persist(core->effects, ROW_TABLE_worker_incident, PERSIST_UPSERT, &row);
}

static void incident_done(struct incident *incident)
{
    mem_free(incident->kind);
    mem_free(incident->evidence);
}

void incidents_free(struct worker *worker)
{
    for (size_t i = 0; i < worker->incident_used; i++)
        incident_done(&worker->incidents[i]);
    mem_free(worker->incidents);
    mem_free(worker->quarantine_reason);
    mem_free(worker->unhealthy);
    mem_free(worker->health_json);
}

static struct incident *incident_add(struct worker *worker)
{
    CHECK(worker->incident_used < INCIDENTS_KEPT);
    if (!worker->incidents)
        worker->incidents = mem_array(INCIDENTS_KEPT, sizeof *worker->incidents);
    return &worker->incidents[worker->incident_used++];
}

static void oldest_drop(struct core *core, struct worker *worker)
{
    incident_write(core, worker, &worker->incidents[0], core->wall_us);
    incident_done(&worker->incidents[0]);
    worker->incident_used--;
    memmove(worker->incidents, worker->incidents + 1,
            worker->incident_used * sizeof *worker->incidents);
}

void core_load_worker_incident(struct core *core, const struct row_worker_incident *row)
{
    struct worker *worker = worker_find(core, row->worker_id);
    CHECK(worker != NULL);
    *incident_add(worker) = (struct incident){.number = row->number,
                                              .at = row->at,
                                              .job_id = row->job_id,
                                              .attempt_id = row->attempt_id,
                                              .kind = mem_strdup(row->kind),
                                              .evidence = mem_strdup(row->evidence)};
}

/* ---- quarantine -------------------------------------------------------------------------- */

/* One job that fails again and again says less than several that fail once. */
static bool incident_counts(const struct core *core, const struct worker *worker, size_t index)
{
    const struct incident *incident = &worker->incidents[index];
    if (incident->at + core->config.incident_window_ms * 1000 < core->wall_us)
        return false;
    for (size_t i = index + 1; incident->job_id && i < worker->incident_used; i++)
        if (worker->incidents[i].job_id == incident->job_id)
            return false;
    return true;
}

static const char *incident_text(struct arena *arena, const struct incident *incident)
{
    const char *evidence = incident->evidence;
    const char *what = arena_printf(
        arena, "%s: %s", incident->kind,
        text_clean(arena, evidence, strlen(evidence), SHOWN_TEXT_MAX));
    if (!incident->job_id)
        return what;
    return arena_printf(arena, "%s (job %llu)", what, (unsigned long long)incident->job_id);
}

/* The newest first; NULL while there are too few. */
static const char *reason_of_several(const struct core *core, const struct worker *worker,
                                     struct arena *arena)
{
    size_t count = 0;
    const char *text = "";
    for (size_t i = worker->incident_used; i-- > 0;) {
        if (!incident_counts(core, worker, i))
            continue;
        if (count++ < SHOWN_MAX)
            text = arena_printf(arena, "%s%s%s", text, count > 1 ? "; " : "",
                                incident_text(arena, &worker->incidents[i]));
    }
    if (count < core->config.incidents_max)
        return NULL;
    return arena_printf(arena, "%zu incidents within %s: %s", count,
                        why_span_text(arena, core->config.incident_window_ms), text);
}

static void quarantine_begin(struct core *core, struct worker *worker, const char *reason)
{
    if (worker->quarantine_reason)
        return;
    text_set(&worker->quarantine_reason,
             text_clean(step_arena(core), reason, strlen(reason), TEXT_KEPT_MAX));
    worker->quarantined_at = core->wall_us;
    worker_mark(core, worker);
    history_add(core, "worker_quarantined", 0, 0, worker->worker_id, NULL,
                arena_printf(step_arena(core), "%s: %s", worker->name, worker->quarantine_reason));
    core_mark_placement(core); /* who waits gets another reason */
}

bool quarantine_end(struct core *core, struct worker *worker)
{
    bool was = worker->quarantine_reason != NULL;
    while (worker->incident_used)
        oldest_drop(core, worker);
    if (!was)
        return false;
    text_set(&worker->quarantine_reason, NULL);
    worker->quarantined_at = 0;
    worker_mark(core, worker);
    return true;
}

void incident_note(struct core *core, struct worker *worker, const char *kind, uint64_t job_id,
                   uint64_t attempt_id, const char *evidence, bool severe)
{
    struct arena *arena = step_arena(core);
    if (worker->incident_used == INCIDENTS_KEPT)
        oldest_drop(core, worker);
    struct incident *incident = incident_add(worker);
    *incident = (struct incident){.number = ++worker->incident_count,
                                  .at = core->wall_us,
                                  .job_id = job_id,
                                  .attempt_id = attempt_id,
                                  .kind = mem_strdup(kind),
                                  .evidence = mem_strdup(evidence)};
    incident_write(core, worker, incident, 0);
    worker_mark(core, worker);
    const char *reason =
        severe ? incident_text(arena, incident) : reason_of_several(core, worker, arena);
    if (reason)
        quarantine_begin(core, worker, reason);
}

/* ---- what workers tell ------------------------------------------------------------------- */

static const char *clean(struct core *core, const char *text, size_t most)
{
    return text ? text_clean(step_arena(core), text, strlen(text), most) : "";
}

static void check_write(struct core *core, const struct rec_health_check *check, struct buf *json)
{
    buf_puts(json, "{\"name\":");
    json_quote(json, clean(core, check->name, 100));
    buf_puts(json, ",\"status\":");
    json_quote(json, clean(core, check->status, 20));
    buf_printf(json, ",\"code\":%lld,\"text\":", (long long)check->code);
    json_quote(json, clean(core, check->text, HEALTH_TEXT_MAX));
    buf_printf(json, ",\"ran_at_us\":%llu,\"took_ms\":%llu}", (unsigned long long)check->ran_at_us,
               (unsigned long long)check->took_ms);
}

static void checks_take(struct core *core, struct worker *worker,
                        const struct msg_node_report *report)
{
    struct buf json = {0};
    buf_putc(&json, '[');
    for (size_t i = 0; i < report->checks_count && i < CHECKS_MAX; i++) {
        buf_puts(&json, i ? "," : "");
        check_write(core, &report->checks[i], &json);
    }
    buf_putc(&json, ']');
    text_set(&worker->health_json, buf_text(&json));
    buf_done(&json);
}

static void health_take(struct core *core, struct worker *worker,
                        const struct msg_node_report *report)
{
    const char *text = clean(core, report->text, TEXT_KEPT_MAX);
    bool was_well = worker->unhealthy == NULL, is_well = text[0] == '\0';
    checks_take(core, worker, report);
    text_set(&worker->unhealthy, is_well ? NULL : text);
    if (was_well == is_well)
        return;
    history_add(core, is_well ? "worker_healthy" : "worker_unhealthy", 0, 0, worker->worker_id,
                NULL, arena_printf(step_arena(core), "%s%s%s", worker->name, is_well ? "" : ": ",
                                   text));
    if (is_well)
        worker_gained(core, worker);
    else
        incident_note(core, worker, "health", 0, 0, text, false);
}

static void report_take(struct core *core, struct worker *worker,
                        const struct msg_node_report *report)
{
    static const char *const kinds[] = {"prolog", "epilog", "device"};
    worker->node_stamp = report->stamp;
    worker_mark(core, worker);
    if (strcmp(report->kind, "health") == 0) {
        health_take(core, worker, report);
        return;
    }
    for (size_t i = 0; i < ARRAY_COUNT(kinds); i++)
        if (strcmp(report->kind, kinds[i]) == 0)
            incident_note(core, worker, kinds[i], report->job_id, report->attempt_id,
                          clean(core, report->text, TEXT_KEPT_MAX), report->severe);
}

void hygiene_on_report(struct core *core, const struct event_node_report *event)
{
    const struct msg_node_report *report = event->report;
    struct worker *worker = worker_speaking(core, event->peer, event->request_seq,
                                            report->worker_id, report->incarnation);
    if (!worker)
        return;
    worker_seen(core, worker);
    if (report->stamp > worker->node_stamp && report->stamp <= INT64_MAX)
        report_take(core, worker, report);
    struct msg_node_ack *ack =
        &effects_release(core->effects, ADDRESS_WORKER, event->peer, MSG_NODE_ACK)->u.node_ack;
    ack->worker_id = worker->worker_id;
    ack->stamp = report->stamp;
}

/* ---- looking in -------------------------------------------------------------------------- */

void hygiene_dump(const struct worker *worker, struct buf *out)
{
    buf_printf(out, "  stamp=%llu incidents=%llu unhealthy='%s' quarantine=%llu '%s'\n",
               (unsigned long long)worker->node_stamp, (unsigned long long)worker->incident_count,
               worker->unhealthy ? worker->unhealthy : "",
               (unsigned long long)worker->quarantined_at,
               worker->quarantine_reason ? worker->quarantine_reason : "");
    for (size_t i = 0; i < worker->incident_used; i++) {
        const struct incident *incident = &worker->incidents[i];
        buf_printf(out, "  incident %llu %s at=%llu job=%llu attempt=%llu '%s'\n",
                   (unsigned long long)incident->number, incident->kind,
                   (unsigned long long)incident->at, (unsigned long long)incident->job_id,
                   (unsigned long long)incident->attempt_id, incident->evidence);
    }
}
