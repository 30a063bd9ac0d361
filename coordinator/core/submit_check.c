/* submit_check.c - a dry run's answer: where each job could run, when, and what it may cost. */
#include "coordinator/core/submit.h"

#include "common/base/buf.h"

#define WORKERS_TOLD 16u /* by name, of those that could run a checked job */

static void reasons_json(struct buf *out, const struct core_reason *reasons, size_t count)
{
    buf_putc(out, '[');
    for (size_t i = 0; i < count; i++) {
        buf_puts(out, i ? ",{\"reason\":" : "{\"reason\":");
        json_quote(out, reasons[i].reason);
        buf_puts(out, ",\"detail\":");
        json_quote(out, reasons[i].detail);
        buf_puts(out, ",\"remedy\":");
        json_quote(out, reasons[i].remedy);
        buf_putc(out, '}');
    }
    buf_putc(out, ']');
}

/* A worker that could take a part of it if nothing else ran there. */
static bool could_run(const struct core *core, const struct class *class,
                      const struct worker *worker)
{
    struct policy_need total = {worker->cores, worker->memory_bytes, worker->gpus};
    uint32_t ranks = class_nodes_max(core, class) == 1 ? class->ask.ranks : 1;
    return worker_is_usable(worker) && class_allows(class, worker) &&
           class_ranks_on(class, worker, total) >= ranks;
}

static void could_run_json(const struct core *core, const struct class *class, struct buf *out)
{
    size_t count = 0;
    buf_puts(out, ",\"could_run\":[");
    for (size_t i = 0; i < core->worker_count; i++) {
        if (!could_run(core, class, core->workers[i]))
            continue;
        if (count++ >= WORKERS_TOLD)
            continue;
        buf_puts(out, count > 1 ? "," : "");
        json_quote(out, core->workers[i]->name);
    }
    buf_printf(out, "],\"could_run_count\":%zu", count);
}

static void starts_json(const struct core_outlook *outlook, struct buf *out)
{
    bool dated = outlook->when == CORE_STARTS_NOW || outlook->when == CORE_STARTS_BY;
    buf_puts(out, ",\"worker\":");
    if (outlook->when == CORE_STARTS_NOW)
        json_quote(out, outlook->workers[0]);
    else
        buf_puts(out, "null");
    buf_puts(out, ",\"starts\":");
    json_quote(out, outlook->text);
    if (dated)
        buf_printf(out, ",\"starts_in_ms\":%llu", (unsigned long long)outlook->in_ms);
    else
        buf_puts(out, ",\"starts_in_ms\":null");
}

/* Cost is at most what it asks for, for as long as it may. */
static void cost_json(const struct core *core, const struct class *class, struct buf *out)
{
    struct charge charge = class_charge_least(core, class);
    uint64_t own_ms = class->ask.wall_time_ms, default_ms = class->queue_config->default_wall_ms;
    buf_printf(out, ",\"cores\":%llu,\"gpus\":%llu,\"memory_bytes\":%llu,\"wall_time_ms\":%llu",
               (unsigned long long)charge.cores, (unsigned long long)charge.gpus,
               (unsigned long long)class->need.memory_bytes,
               (unsigned long long)(own_ms ? own_ms : default_ms));
    buf_printf(out, ",\"wall_time_of\":%s", own_ms ? "\"job\"" : default_ms ? "\"queue\"" : "null");
}

/* Jobs of one class have one answer: an array costs as much as its first element. */
struct checked_class {
    const struct class *class;
    struct core_outlook outlook;
};

static void outlook_check(struct submit_pass *pass, const struct job *job,
                          struct checked_class *known)
{
    struct core *core = pass->core;
    struct policy_verdict verdict;
    if (known->class == job->class)
        return;
    *known = (struct checked_class){.class = job->class};
    struct core_outlook *outlook = &known->outlook;
    struct policy_job place = {job->job_id, job_key(core, job)};
    outlook_find(core, job->class, place, pass->arena, outlook, &verdict);
    outlook->reasons = arena_alloc(pass->arena, REASON_END * sizeof *outlook->reasons);
    if (outlook->when != CORE_STARTS_NOW)
        outlook->reason_count =
            why_job(core, job, job->class, &verdict, pass->arena, outlook->reasons);
}

/* {"name", "parents", "could_run": [...], "could_run_count", "worker" or null, "starts",
 *  "starts_in_ms" or null, "waits_for": [...], "cores", "gpus", "memory_bytes", "wall_time_ms",
 *  "wall_time_of", "spec"}: cost is cores x wall_time, which the client words. */
static void checked_job_json(struct submit_pass *pass, size_t index, struct job *job,
                             const struct core_outlook *outlook, struct buf *out)
{
    const struct planned_job *planned = &pass->jobs[index];
    buf_puts(out, "{\"name\":");
    json_quote(out, planned->spec.name);
    buf_printf(out, ",\"parents\":%zu", planned->edge_count);
    could_run_json(pass->core, job->class, out);
    starts_json(outlook, out);
    buf_puts(out, ",\"waits_for\":");
    reasons_json(out, outlook->reasons, outlook->reason_count);
    cost_json(pass->core, job->class, out);
    buf_printf(out, ",\"spec\":%s}", job->spec_json);
}

/* The jobs stay until the end, so that their classes do, and equal ones are seen as such. */
static void checked_json(struct submit_pass *pass, struct buf *out)
{
    struct core *core = pass->core;
    size_t count = pass->event->spec->job_count;
    struct experiment none = {.name = ""};
    struct checked_class known = {0};
    struct job **jobs = arena_alloc(pass->arena, count * sizeof *jobs);
    const char *comma = "[";
    for (size_t i = 0; i < count; i++) {
        const struct spec_job *spec = &pass->jobs[i].spec;
        if (!queue_config_find(core, spec->queue) || !project_find(core, spec->project))
            continue; /* refused; a class of it would remember the name */
        char *spec_json = spec_job_json(spec);
        jobs[i] = job_new(core, UINT64_MAX, &none, pass->event->account, spec, spec_json);
        jobs[i]->submitted_at = core->wall_us;
        jobs[i]->state = JOB_READY; /* what it waits for is told as its parents */
        class_join_spec(core, jobs[i], spec);
        mem_free(spec_json);
        outlook_check(pass, jobs[i], &known);
        buf_puts(out, comma);
        comma = ",";
        checked_job_json(pass, i, jobs[i], &known.outlook, out);
    }
    buf_puts(out, *comma == '[' ? "[]" : "]");
    for (size_t i = 0; i < count; i++) {
        if (!jobs[i])
            continue;
        class_leave(core, jobs[i]);
        job_free(jobs[i]);
    }
}

void submit_answer_checked(struct submit_pass *pass)
{
    struct buf json = {0};
    checked_json(pass, &json);
    struct msg_checked *answer =
        &effects_release(pass->core->effects, ADDRESS_CLIENT, pass->event->client, MSG_CHECKED)
             ->u.checked;
    answer->request_seq = pass->event->request_seq;
    answer->resolved = arena_strdup(pass->arena, buf_text(&json));
    answer->refusals = pass->refusals;
    answer->refusals_count = pass->refusal_count;
    buf_done(&json);
}
