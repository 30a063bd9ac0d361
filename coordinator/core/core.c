/* core.c - the step: dispatch an event, then write what it marked. */
#include "coordinator/core/state.h"

#include <string.h>

#define LEASE_MS_DEFAULT 30000u
#define HEARTBEAT_MS_DEFAULT 2000u
#define RESEND_MS_DEFAULT 5000u
#define REASON_MS_DEFAULT 5000u
#define INCIDENT_WINDOW_MS_DEFAULT 3600000u
#define INCIDENTS_MAX_DEFAULT 3u
#define JOBS_MAX_DEFAULT 2000000u
#define WORKERS_MAX_DEFAULT 16384u
#define EXPERIMENTS_MAX_DEFAULT 1000000u

/* ---- small things ------------------------------------------------------------------------ */

void list_add(struct pointer_list *list, void *item)
{
    VEC_RESERVE(list->items, list->count, list->capacity);
    list->items[list->count++] = item;
}

static void list_done(struct pointer_list *list)
{
    mem_free(list->items);
    *list = (struct pointer_list){0};
}

void text_set(char **field, const char *text)
{
    if (*field == text)
        return;
    char *copy = mem_strdup(text);
    mem_free(*field);
    *field = copy;
}

struct arena *step_arena(struct core *core)
{
    return &core->effects->arena;
}

const char *account_intern(struct core *core, const char *name)
{
    struct account *account = NULL;
    HASH_FIND_STR(core->accounts, name, account);
    if (!account) {
        account = mem_zalloc(sizeof *account);
        account->name = mem_strdup(name);
        HASH_ADD_KEYPTR(hh, core->accounts, account->name, strlen(account->name), account);
    }
    return account->name;
}

void core_mark_placement(struct core *core)
{
    core->placement_wanted = true;
}

void history_add(struct core *core, const char *name, uint64_t job_id, uint64_t attempt_id,
                 uint64_t worker_id, const char *account, const char *detail)
{
    struct row_job_event row = {
        .event_id = ++core->ids.event,
        .at = core->wall_us,
        .job_id = job_id,
        .attempt_id = attempt_id,
        .worker_id = worker_id,
        .name = name,
        .detail = detail,
        .account = account,
    };
    effects_persist(core->effects, ROW_TABLE_job_event, PERSIST_INSERT, &row);
}

void answer_refused(struct core *core, enum address_kind to, uint64_t peer, uint64_t request_seq,
                    enum err_kind kind, const char *text, struct rec_refusal *refusals,
                    size_t refusal_count)
{
    struct msg_refused *refused =
        &effects_release(core->effects, to, peer, MSG_REFUSED)->u.refused;
    refused->request_seq = request_seq;
    refused->kind = err_kind_name(kind);
    refused->text = arena_strdup(step_arena(core), text);
    refused->refusals = refusals;
    refused->refusals_count = refusal_count;
}

/* ---- making and freeing ------------------------------------------------------------------ */

static uint64_t or_default(uint64_t value, uint64_t fallback)
{
    return value ? value : fallback;
}

struct core *core_new(const struct core_config *config)
{
    struct core *core = mem_zalloc(sizeof *core);
    struct core_config *c = &core->config;
    *c = *config;
    c->lease_ms = or_default(c->lease_ms, LEASE_MS_DEFAULT);
    c->heartbeat_ms = or_default(c->heartbeat_ms, HEARTBEAT_MS_DEFAULT);
    c->resend_ms = or_default(c->resend_ms, RESEND_MS_DEFAULT);
    c->reason_ms = or_default(c->reason_ms, REASON_MS_DEFAULT);
    c->incident_window_ms = or_default(c->incident_window_ms, INCIDENT_WINDOW_MS_DEFAULT);
    c->incidents_max = (uint32_t)or_default(c->incidents_max, INCIDENTS_MAX_DEFAULT);
    c->jobs_max = (uint32_t)or_default(c->jobs_max, JOBS_MAX_DEFAULT);
    c->workers_max = (uint32_t)or_default(c->workers_max, WORKERS_MAX_DEFAULT);
    c->experiments_max = (uint32_t)or_default(c->experiments_max, EXPERIMENTS_MAX_DEFAULT);
    core->policy = c->policy ? policy_find(c->policy) : policy_at(0);
    CHECK(core->policy != NULL);
    rng_init(&core->rng, c->seed);
    rights_init(core);
    core->window_timer = (struct timer){.kind = TIMER_WINDOWS};
    core->reason_timer = (struct timer){.kind = TIMER_REASONS};
    return core;
}

static void tables_free(struct core *core)
{
    struct attempt *attempt, *next_attempt;
    HASH_ITER(hh, core->attempts, attempt, next_attempt)
    {
        HASH_DEL(core->attempts, attempt);
        attempt_free(attempt);
    }
    HASH_CLEAR(hh_id, core->workers_by_id);
    HASH_CLEAR(hh_name, core->workers_by_name);
    for (size_t i = 0; i < core->worker_count; i++)
        worker_free(core->workers[i]);
    mem_free(core->workers);
    struct experiment *experiment, *next_experiment;
    HASH_CLEAR(hh_id, core->experiments_by_id);
    HASH_ITER(hh, core->experiments, experiment, next_experiment)
    {
        HASH_DEL(core->experiments, experiment);
        mem_free(experiment->name);
        mem_free(experiment->account);
        mem_free(experiment);
    }
}

static void memories_free(struct core *core)
{
    struct submit_memory *submit, *next_submit;
    HASH_ITER(hh, core->submits, submit, next_submit)
    {
        HASH_DEL(core->submits, submit);
        mem_free(submit->experiment);
        mem_free(submit);
    }
    struct account *account, *next_account;
    HASH_ITER(hh, core->accounts, account, next_account)
    {
        HASH_DEL(core->accounts, account);
        mem_free(account->name);
        mem_free(account);
    }
    HASH_CLEAR(hh, core->classes_by_key);
    for (size_t i = 0; i < core->class_count; i++)
        class_free(core->classes[i]);
    mem_free(core->classes);
    rights_free(core);
}

void core_free(struct core *core)
{
    if (!core)
        return;
    struct job *job, *next_job;
    HASH_ITER(hh_id, core->jobs, job, next_job)
    {
        for (size_t i = 0; i < job->edge_count; i++)
            edge_unlink(core, &job->edges[i]);
    }
    HASH_ITER(hh_id, core->jobs, job, next_job)
    {
        job_evict(core, job);
    }
    copies_done(core);
    tables_free(core);
    memories_free(core);
    limits_done(core);
    sweeps_done(core);
    snapshots_done(core);
    removals_done(core);
    timers_done(&core->timers);
    list_done(&core->dirty_jobs);
    list_done(&core->dirty_attempts);
    list_done(&core->dirty_workers);
    list_done(&core->dirty_sweeps);
    list_done(&core->dirty_snapshots);
    list_done(&core->ended);
    list_done(&core->changed);
    mem_free(core);
}

/* ---- writing what a step marked ---------------------------------------------------------- */

static const char *cause_or_null(enum cause cause)
{
    return cause ? cause_name(cause) : NULL;
}

static void attempt_write(struct core *core, struct attempt *attempt)
{
    struct row_attempt row = {
        .attempt_id = attempt->attempt_id,
        .job_id = attempt->job->job_id,
        .number = attempt->number,
        .worker_id = attempt->parts[0].worker->worker_id,
        .epoch = attempt->epoch,
        .resume_checkpoint_id = attempt->resume_checkpoint_id,
        .placed_at = attempt->placed_at,
        .cores = attempt->charge.cores,
        .gpus = attempt->charge.gpus,
        .state = attempt_state_name(attempt->state),
        .stop_cause = cause_or_null(attempt->stop_cause),
        .cause = cause_or_null(attempt->cause),
        .code = attempt->code,
        .evidence = attempt->evidence,
        .placement = attempt->placement_json,
        .usage = attempt->usage_json,
        .started_at = attempt->started_at,
        .ended_at = attempt->ended_at,
        .stopping_at = attempt->stopping_at,
        .silent_at = attempt->silent_at,
        .node_fault = attempt->node_fault,
        .data_skip = attempt->data_skip,
        .diverged_step = attempt->diverged_step,
    };
    effects_persist(core->effects, ROW_TABLE_attempt,
                    attempt->is_new ? PERSIST_INSERT : PERSIST_UPDATE, &row);
    attempt->is_new = false;
    attempt->dirty = false;
}

void edges_write(struct core *core, struct job *job)
{
    static const char *const names[] = {"", "waiting", "met", "broken"};
    for (size_t i = 0; i < job->edge_count; i++) {
        struct edge *edge = &job->edges[i];
        if (!edge->dirty)
            continue;
        struct row_job_dependency row = {
            .job_id = job->job_id,
            .parent_id = edge->parent_id,
            .condition = spec_condition_text(step_arena(core), edge->condition, edge->artifact),
            .state = names[edge->state],
            .chosen = edge->chosen,
        };
        effects_persist(core->effects, ROW_TABLE_job_dependency,
                        edge->is_new ? PERSIST_INSERT : PERSIST_UPDATE, &row);
        edge->dirty = edge->is_new = false;
    }
}

/* The insert of a new job is written by submit.c, which knows the columns that never change. */
static void job_write(struct core *core, struct job *job)
{
    CHECK(!job->is_new);
    struct row_job row = {
        .job_id = job->job_id,
        .memory_bytes = job->memory_bytes,
        .priority = job->priority,
        .state = job_state_name(job->state),
        .held = job->held,
        .cause = cause_or_null(job->cause),
        .detail = job->detail,
        .attempt_count = job->attempt_count,
        .attempts_spent = job->attempts_spent,
        .data_skip = job->data_skip,
        .log_bytes = job->log_bytes,
        .avoid_worker_id = job->avoid_worker_id,
        .eligible_at = job->eligible_at,
        .started_at = job->started_at,
        .ended_at = job->ended_at,
        .progress_step = job->progress_step,
        .progress_total = job->progress_total,
        .progress_phase = job->progress_phase,
    };
    if (job->reuse)
        row.identity = job->reuse->identity;
    effects_persist(core->effects, ROW_TABLE_job, PERSIST_UPDATE, &row);
    edges_write(core, job);
    job->dirty = false;
}

static void worker_write(struct core *core, struct worker *worker)
{
    struct row_worker row = {
        .worker_id = worker->worker_id,
        .name = worker->name,
        .state = worker_state_name(worker->state),
        .incarnation = (int64_t)worker->incarnation,
        .host = worker->host,
        .cores = worker->cores,
        .memory_bytes = worker->memory_bytes,
        .gpus = worker->gpus,
        .labels = worker->labels_json,
        .topology = worker->topology_json,
        .engine = worker->engine,
        .drained = worker->drained,
        .drain_reason = worker->drain_reason,
        .drain_by_at = worker->drain_by_at,
        .joined_at = worker->joined_at,
        .ended_at = worker->ended_at,
        .endpoint = worker->endpoint,
        .public_key = worker->public_key,
        .quarantine_reason = worker->quarantine_reason,
        .quarantined_at = worker->quarantined_at,
        .unhealthy = worker->unhealthy,
        .health = worker->health_json,
        .node_stamp = worker->node_stamp,
        .incidents = worker->incident_count,
        .until_at = worker->until_at,
        .open_ended = worker->open_ended,
    };
    effects_persist(core->effects, ROW_TABLE_worker,
                    worker->is_new ? PERSIST_INSERT : PERSIST_UPDATE, &row);
    worker->is_new = false;
    worker->dirty = false;
}

static void part_write(struct core *core, struct part *part)
{
    enum attempt_state state = part->ended        ? ATTEMPT_ENDED
                               : part->started_at ? ATTEMPT_RUNNING
                                                  : ATTEMPT_PLACED;
    struct row_attempt_node row = {
        .attempt_id = part->attempt->attempt_id,
        .node = part->node,
        .worker_id = part->worker->worker_id,
        .first_rank = part->first_rank,
        .ranks = part->ranks,
        .cores = part->charge.cores,
        .gpus = part->charge.gpus,
        .state = attempt_state_name(state),
        .cause = cause_or_null(part->cause),
        .code = part->code,
        .evidence = part->evidence,
        .placement = part->placement_json,
        .usage = part->usage_json,
        .started_at = part->started_at,
        .ended_at = part->ended_at,
    };
    effects_persist(core->effects, ROW_TABLE_attempt_node,
                    part->is_new ? PERSIST_INSERT : PERSIST_UPDATE, &row);
    part->is_new = part->dirty = false;
}

/* Ended attempts are let go once written. Only parts of gangs have rows. */
static void attempts_flush(struct core *core)
{
    for (size_t i = 0; i < core->dirty_attempts.count; i++) {
        struct attempt *attempt = core->dirty_attempts.items[i];
        attempt_write(core, attempt);
        for (size_t k = 0; attempt_is_gang(attempt) && k < attempt->part_count; k++)
            if (attempt->parts[k].dirty)
                part_write(core, &attempt->parts[k]);
        if (attempt->state == ATTEMPT_ENDED)
            attempt_free(attempt);
    }
    core->dirty_attempts.count = 0;
}

static void ended_flush(struct core *core)
{
    for (size_t i = 0; i < core->ended.count; i++) {
        struct job *job = core->ended.items[i];
        job->check_eviction = false;
        if (job_state_is_terminal(job->state) && job->readers == 0)
            job_evict(core, job);
    }
    core->ended.count = 0;
}

void core_flush(struct core *core)
{
    for (size_t i = 0; i < core->dirty_workers.count; i++)
        worker_write(core, core->dirty_workers.items[i]);
    core->dirty_workers.count = 0;
    for (size_t i = 0; i < core->dirty_jobs.count; i++)
        job_write(core, core->dirty_jobs.items[i]);
    core->dirty_jobs.count = 0;
    attempts_flush(core);
    shares_flush(core);
    meters_flush(core);
    sweeps_flush(core);
    ended_flush(core);
    snapshots_flush(core);
}

/* ---- the step ---------------------------------------------------------------------------- */

#define OWNER(timer_pointer, type) \
    ((struct type *)((char *)(timer_pointer) - offsetof(struct type, timer)))

static void timer_fire(struct core *core, struct timer *timer)
{
    timer_clear(&core->timers, timer);
    switch (timer->kind) {
    case TIMER_WORKER:
        worker_timer_due(core, OWNER(timer, worker));
        break;
    case TIMER_ATTEMPT:
        attempt_timer_due(core, OWNER(timer, attempt));
        break;
    case TIMER_JOB:
        job_backoff_due(core, OWNER(timer, job));
        break;
    case TIMER_WINDOWS:
        windows_due(core);
        break;
    case TIMER_REASONS:
        why_record_due(core);
        break;
    }
}

static void on_tick(struct core *core)
{
    struct timer *timer = timer_first(&core->timers);
    for (; timer && timer->due_ms <= core->now_ms; timer = timer_first(&core->timers))
        timer_fire(core, timer);
    if (core->placement_wanted)
        place_run(core);
}

static void dispatch(struct core *core, const struct event *event)
{
    switch (event->kind) {
    case EVENT_TICK:
        on_tick(core);
        break;
    case EVENT_SUBMIT:
        submit_on_submit(core, &event->submit);
        break;
    case EVENT_CONTROL:
        control_on_control(core, &event->control);
        break;
    case EVENT_CONFIGURE:
        configure_on_configure(core, &event->configure);
        break;
    case EVENT_CODE_OFFER:
        snapshot_on_offer(core, &event->code);
        break;
    case EVENT_COLLECT:
        retention_on_collect(core, &event->collect);
        break;
    case EVENT_REMOVED:
        retention_on_removed(core, &event->removed);
        break;
    case EVENT_CODE_PUT:
        snapshot_on_put(core, &event->code);
        break;
    case EVENT_EXEC:
        exec_on_exec(core, &event->exec);
        break;
    case EVENT_WORKER_JOIN:
        worker_on_join(core, &event->join);
        break;
    case EVENT_HEARTBEAT:
        worker_on_heartbeat(core, &event->heartbeat);
        break;
    case EVENT_WORKER_LEAVE:
        worker_on_leave(core, &event->leave);
        break;
    case EVENT_REPORTS:
        report_on_reports(core, &event->reports);
        break;
    case EVENT_COPIES:
        copies_on_copies(core, &event->copies);
        break;
    case EVENT_NODE_REPORT:
        hygiene_on_report(core, &event->node_report);
        break;
    case EVENT_END:
        break;
    }
}

void core_step(struct core *core, const struct event *event, struct effects *effects)
{
    CHECK(event->kind > 0 && event->kind < EVENT_END);
    CHECK(event->now_ms >= core->now_ms);
    core->now_ms = event->now_ms;
    core->wall_us = event->wall_us;
    core->effects = effects;
    dispatch(core, event);
    core_flush(core);
    if (!core->reason_timer.slot)
        why_timer_set(core);
    struct timer *timer = timer_first(&core->timers);
    effects->wake_at_ms = core->placement_wanted ? core->now_ms : timer ? timer->due_ms : 0;
    core->effects = NULL;
    core->counts.steps++;
}

size_t core_lookups(const struct core *core, const struct event *event, struct arena *arena,
                    struct core_lookup **out)
{
    size_t count = 0;
    if (event->kind == EVENT_SUBMIT)
        count = submit_lookups(core, &event->submit, arena, out);
    else if (event->kind == EVENT_CONTROL)
        count = control_lookups(core, &event->control, arena, out);
    else if (event->kind == EVENT_COLLECT)
        count = retention_lookups(&event->collect, arena, out);
    for (size_t i = 0; i < count; i++)
        if ((*out)[i].kind != LOOKUP_SUBMIT)
            (*out)[i].collections = core->collections;
    return count;
}

/* ---- looking in -------------------------------------------------------------------------- */

bool core_worker_at(const struct core *core, size_t index, struct core_worker_view *out)
{
    if (index >= core->worker_count)
        return false;
    const struct worker *worker = core->workers[index];
    *out = (struct core_worker_view){
        .worker_id = worker->worker_id,
        .name = worker->name,
        .drain_reason = worker->drain_reason,
        .state = worker->state,
        .joined = worker->joined,
        .drained = worker->drained,
        .kept_away = worker_kept_away(worker),
        .cores = worker->cores,
        .cores_used = worker->cores_used,
        .memory_bytes = worker->memory_bytes,
        .memory_used = worker->memory_used,
        .gpus = worker->gpus,
        .gpus_used = worker->gpus_used,
        .attempt_count = worker->part_count,
        .silent_ms = core->now_ms - worker->seen_ms,
    };
    return true;
}

void core_counts(const struct core *core, struct core_counts *out)
{
    *out = core->counts;
    out->attempts = HASH_COUNT(core->attempts);
    out->experiments = HASH_COUNT(core->experiments);
    out->classes = core->class_count;
    for (size_t i = 0; i < core->worker_count; i++)
        out->workers_usable += worker_is_usable(core->workers[i]);
}
