/* load.c - the core rebuilt from rows (invariant 6). Rows are our own: what they say is CHECKed
 * where a wrong value would mean that the database belongs to something else. */
#include "coordinator/core/state.h"

#include <string.h>

static enum cause cause_of(const char *name)
{
    struct err err;
    enum cause cause = CAUSE_NONE;
    if (name && *name && cause_from_name(name, &cause, &err) < 0)
        cause = CAUSE_NONE;
    return cause;
}

void core_load_ids(struct core *core, const struct core_ids *ids)
{
    core->ids = *ids;
}

void core_load_experiment(struct core *core, const struct row_experiment *row)
{
    experiment_add(core, row->experiment_id, row->name, row->account ? row->account : "",
                   row->created_at);
}

static void labels_load(struct worker *worker, const char *json)
{
    struct arena arena = {0};
    struct json_pair *pairs;
    size_t count = json_pairs(json, &arena, &pairs);
    struct label *labels = mem_array(count, sizeof *labels);
    for (size_t i = 0; i < count; i++)
        labels[i] = (struct label){mem_strdup(pairs[i].name), mem_strdup(pairs[i].value)};
    worker_labels_set(worker, labels, count);
    arena_done(&arena);
}

void core_load_worker(struct core *core, const struct row_worker *row)
{
    struct worker *worker = worker_add(core, row->worker_id, row->name);
    worker->state = worker_state_from_name(row->state);
    CHECK(worker->state != WORKER_STATE_NONE);
    worker->incarnation = (uint64_t)row->incarnation;
    text_set(&worker->host, row->host);
    worker->cores = row->cores;
    worker->memory_bytes = row->memory_bytes;
    worker->gpus = row->gpus;
    text_set(&worker->labels_json, row->labels ? row->labels : "{}");
    labels_load(worker, worker->labels_json);
    core->topology_changed = true;
    text_set(&worker->endpoint, row->endpoint ? row->endpoint : "");
    text_set(&worker->public_key, row->public_key ? row->public_key : "");
    text_set(&worker->topology_json, row->topology);
    text_set(&worker->engine, row->engine);
    worker->drained = row->drained;
    text_set(&worker->drain_reason, row->drain_reason);
    worker->drain_by_at = row->drain_by_at;
    worker->until_at = row->until_at;
    worker->open_ended = row->open_ended;
    worker->joined_at = row->joined_at;
    worker->ended_at = row->ended_at;
    text_set(&worker->quarantine_reason, row->quarantine_reason);
    worker->quarantined_at = row->quarantined_at;
    text_set(&worker->unhealthy, row->unhealthy);
    text_set(&worker->health_json, row->health);
    worker->node_stamp = row->node_stamp;
    worker->incident_count = row->incidents;
}

void core_load_worker_device(struct core *core, const struct row_worker_device *row)
{
    struct worker *worker = worker_find(core, row->worker_id);
    CHECK(worker != NULL);
    if (row->kind && strcmp(row->kind, "gpu") == 0)
        worker_gpu_set(worker, row->device_index, row->model ? row->model : "");
}

void core_load_job(struct core *core, const struct row_job *row)
{
    struct job *job = job_from_row(core, row);
    CHECK(job != NULL); /* we wrote its spec */
    if (row->submit_key.length == 16)
        submit_remember(core, row->submit_key.bytes, row->job_id, row->submit_index,
                        job->experiment->name);
}

void core_load_submit(struct core *core, const struct row_job *row)
{
    const struct experiment *experiment = experiment_by_id(core, row->experiment_id);
    if (row->submit_key.length == 16)
        submit_remember(core, row->submit_key.bytes, row->job_id, row->submit_index,
                        experiment ? experiment->name : "");
}

/* Edges come one by one; the array is only as large as needed, so it is moved before any edge
 * is linked (links are made in core_load_end). */
void core_load_job_dependency(struct core *core, const struct row_job_dependency *row)
{
    struct job *job = job_find(core, row->job_id);
    if (!job || job_state_is_terminal(job->state))
        return;
    size_t count = job->edge_count;
    if ((count & (count - 1)) == 0) /* grows at powers of two */
        job->edges = mem_grow(job->edges, count ? 2 * count : 1, sizeof *job->edges);
    struct edge *edge = &job->edges[job->edge_count++];
    *edge = (struct edge){.parent_id = row->parent_id, .child = job};
    const char *artifact = "";
    CHECK(spec_condition_read(row->condition, &edge->condition, &artifact)); /* we wrote it */
    edge->artifact = *artifact ? mem_strdup(artifact) : NULL;
    edge->state = strcmp(row->state, "met") == 0      ? EDGE_MET
                  : strcmp(row->state, "broken") == 0 ? EDGE_BROKEN
                                                      : EDGE_WAITING;
    edge->chosen = row->chosen;
}

void core_load_attempt(struct core *core, const struct row_attempt *row)
{
    struct job *job = job_find(core, row->job_id);
    struct worker *worker = worker_find(core, row->worker_id);
    CHECK(job != NULL && worker != NULL);
    struct slot all = {.worker = worker, .ranks = job->ranks};
    struct charge charge = {.cores = row->cores, .gpus = row->gpus};
    if (charge.cores == 0 && charge.gpus == 0) /* of a program that did not write them */
        charge = (struct charge){job->class->need.cores, job->class->need.gpus};
    struct attempt *attempt = attempt_add(core, job, row->attempt_id, &all, 1, &charge);
    attempt->state = attempt_state_from_name(row->state);
    CHECK(attempt->state != ATTEMPT_STATE_NONE && attempt->state != ATTEMPT_ENDED);
    attempt->number = row->number;
    attempt->epoch = row->epoch;
    attempt->resume_checkpoint_id = row->resume_checkpoint_id;
    attempt->placed_at = row->placed_at;
    attempt->started_at = row->started_at;
    attempt->stopping_at = row->stopping_at;
    attempt->stop_cause = cause_of(row->stop_cause);
    attempt->cause = cause_of(row->cause);
    attempt->code = row->code;
    attempt->node_fault = row->node_fault;
    attempt->data_skip = row->data_skip;
    attempt->diverged_step = row->diverged_step;
    text_set(&attempt->evidence, row->evidence);
    text_set(&attempt->placement_json, row->placement);
    attempt->only.started_at = row->started_at;
    attempt->only.confirmed = row->started_at != 0;
    shares_take_loaded(core, attempt);
}

/* Parts come one by one, in order, and replace the one that core_load_attempt made. */
void core_load_attempt_node(struct core *core, const struct row_attempt_node *row)
{
    struct attempt *attempt = attempt_find(core, row->attempt_id);
    struct worker *worker = worker_find(core, row->worker_id);
    if (!attempt)
        return;
    size_t count = row->node == 0 ? 0 : attempt->part_count;
    CHECK(worker != NULL && row->node == count);
    if ((count & (count - 1)) == 0) /* grows at powers of two */
        attempt->parts =
            mem_grow(count ? attempt->parts : NULL, count ? 2 * count : 1, sizeof *attempt->parts);
    struct part *part = &attempt->parts[count];
    *part = (struct part){
        .attempt = attempt,
        .worker = worker,
        .node = (uint32_t)row->node,
        .first_rank = (uint32_t)row->first_rank,
        .ranks = (uint32_t)row->ranks,
        .charge = {.cores = row->cores, .gpus = row->gpus},
        .started_at = row->started_at,
        .confirmed = row->started_at != 0,
        .cause = cause_of(row->cause),
        .code = row->code,
        .ended = row->ended_at != 0,
        .ended_at = row->ended_at,
    };
    text_set(&part->evidence, row->evidence);
    text_set(&part->placement_json, row->placement);
    text_set(&part->usage_json, row->usage);
    attempt->part_count = count + 1;
}

void core_load_checkpoint(struct core *core, const struct row_checkpoint *row)
{
    struct job *job = job_find(core, row->job_id);
    if (job)
        checkpoint_load(core, job, row);
}

void core_load_artifact(struct core *core, const struct row_artifact *row)
{
    struct job *job = job_find(core, row->job_id);
    if (job)
        artifact_load(core, job, row);
}

void core_load_lineage(struct core *core, const struct row_lineage *row)
{
    struct attempt *attempt = attempt_find(core, row->attempt_id);
    if (!attempt)
        return;
    for (size_t i = 0; i < attempt->job->input_count; i++) {
        struct input *input = &attempt->job->inputs[i];
        if (strcmp(input->name, row->input) != 0)
            continue;
        text_set(&input->path, row->path);
        input->checkpoint_id = row->checkpoint_id;
        input->artifact_id = row->artifact_id;
        input->content = row->content_hash;
        input->resolved = true;
    }
}

void core_load_report_cursor(struct core *core, const struct row_report_cursor *row)
{
    struct attempt *attempt = attempt_find(core, row->attempt_id);
    if (!attempt || row->node >= attempt->part_count)
        return;
    attempt->parts[row->node].seq = row->seq;
    attempt->parts[row->node].log_bytes = row->log_bytes;
    attempt->parts[row->node].confirmed |= row->seq > 0;
}

void core_load_pending_reason(struct core *core, const struct row_pending_reason *row)
{
    struct job *job = job_find(core, row->job_id);
    if (!job || row->until_at)
        return;
    for (int i = 1; i < REASON_END; i++) {
        if (strcmp(reason_name((enum reason)i), row->reason) != 0)
            continue;
        VEC_RESERVE(job->reasons, job->reason_count, job->reason_capacity);
        job->reasons[job->reason_count++] =
            (struct open_reason){.reason = (uint32_t)i, .from_at = row->from_at};
    }
}

/* ---- the end ----------------------------------------------------------------------------- */

static void edges_derive(struct core *core, struct job *job)
{
    inputs_decide(job);
    for (size_t i = 0; i < job->edge_count; i++) {
        struct edge *edge = &job->edges[i];
        bool waits = edge->state == EDGE_WAITING;
        job->edges_waiting += waits;
        if (waits || edge->reads) {
            struct job *parent = job_find(core, edge->parent_id);
            CHECK(parent != NULL);
            edge_link(edge, parent);
        }
    }
}

/* The wall clock may have jumped while nobody looked: a backoff never grows by that. */
static void job_derive(struct core *core, struct job *job)
{
    if (job_state_is_terminal(job->state))
        return;
    edges_derive(core, job);
    job_queue_update(core, job);
    if (job->state != JOB_BACKOFF)
        return;
    uint64_t left_us = job->eligible_at > core->wall_us ? job->eligible_at - core->wall_us : 0;
    uint64_t left_ms = min_u64(left_us / 1000, backoff_ms(job));
    timer_set(&core->timers, &job->timer, max_u64(core->now_ms + left_ms, 1));
}

static void attempt_derive(struct core *core, struct attempt *attempt)
{
    attempt_occupy(core, attempt);
    attempt->stop_ms = core->now_ms;
    if (attempt->state == ATTEMPT_RUNNING)
        attempt->wall_due_ms = attempt_wall_due(core, attempt);
    if (attempt_wants_repeats(attempt))
        attempt->resend_ms = core->now_ms + core->config.resend_ms;
    attempt_timer_set(core, attempt);
}

uint64_t core_load_end(struct core *core, uint64_t now_ms, uint64_t wall_us)
{
    core->now_ms = now_ms;
    core->wall_us = wall_us;
    struct job *job, *next_job;
    HASH_ITER(hh_id, core->jobs, job, next_job)
    {
        job_derive(core, job);
    }
    HASH_ITER(hh_id, core->jobs, job, next_job)
    {
        if (job_state_is_terminal(job->state) && job->readers == 0)
            job_evict(core, job);
    }
    struct attempt *attempt, *next_attempt;
    HASH_ITER(hh, core->attempts, attempt, next_attempt)
    {
        attempt_derive(core, attempt);
    }
    for (size_t i = 0; i < core->worker_count; i++) {
        struct worker *worker = core->workers[i];
        worker->seen_ms = now_ms;
        worker->shrunk = worker->cores_used > worker->cores || worker->gpus_used > worker->gpus ||
                         worker->memory_used > worker->memory_bytes;
        worker_timer_set(core, worker);
    }
    shares_load_end(core);
    quotas_load_end(core);
    windows_timer_set(core);
    if (core->window_timer.slot)
        windows_look(core);
    why_timer_set(core);
    core->placement_wanted = true;
    return now_ms;
}
