/* found.c - rows of history that an event brought along become jobs in memory.
 *
 * They stay as long as a living job reads from them, like any ended parent. */
#include "coordinator/core/state.h"

#include <string.h>

static const struct row_job *found_row(const struct event_found *found, uint64_t job_id)
{
    for (size_t i = 0; i < found->job_count; i++)
        if (found->jobs[i].job_id == job_id)
            return &found->jobs[i];
    return NULL;
}

/* The mutable columns. Texts are copied. */
void job_take_row(struct job *job, const struct row_job *row)
{
    struct err err;
    enum cause cause = CAUSE_NONE;
    job->state = job_state_from_name(row->state);
    CHECK(job->state != JOB_STATE_NONE);
    if (row->cause && *row->cause && cause_from_name(row->cause, &cause, &err) < 0)
        cause = CAUSE_NONE;
    job->held = row->held;
    job->cause = cause;
    text_set(&job->detail, row->detail);
    job->priority = job->node.priority = row->priority;
    job->memory_bytes = row->memory_bytes;
    job->attempt_count = row->attempt_count;
    job->attempts_spent = row->attempts_spent;
    job->data_skip = row->data_skip;
    job->log_bytes = row->log_bytes;
    job->avoid_worker_id = row->avoid_worker_id;
    job->submitted_at = row->submitted_at;
    job->eligible_at = row->eligible_at;
    job->started_at = row->started_at;
    job->ended_at = row->ended_at;
    job->progress_step = row->progress_step;
    job->progress_total = row->progress_total;
    text_set(&job->progress_phase, row->progress_phase);
    if (job->reuse)
        job->reuse->identity = row->identity;
}

/* A job from its row, in the indexes, its class joined unless it has ended. NULL when its spec
 * cannot be read any more. Ended or not, edges, checkpoints and artifacts come separately. */
struct job *job_from_row(struct core *core, const struct row_job *row)
{
    struct arena arena = {0};
    struct err err;
    struct spec_job spec;
    struct job *job = NULL;
    struct experiment *experiment = experiment_by_id(core, row->experiment_id);
    if (!experiment || spec_job_from_json(row->spec, &arena, &spec, &err) < 0)
        goto out;
    job = job_new(core, row->job_id, experiment, row->account, &spec, row->spec);
    reuse_take(job, &spec, &row->spec_hash);
    job_take_row(job, row);
    job->reused_job_id = row->reused_job_id;
    if (!job_state_is_terminal(job->state))
        class_join_spec(core, job, &spec);
    job_add(core, job);
out:
    arena_done(&arena);
    return job;
}

struct job *found_take(struct core *core, const struct event_found *found, uint64_t job_id)
{
    struct job *job = job_find(core, job_id);
    if (job)
        return job;
    const struct row_job *row = found_row(found, job_id);
    if (!row || !job_state_is_terminal(job_state_from_name(row->state)))
        return NULL;
    job = job_from_row(core, row);
    if (!job)
        return NULL;
    for (size_t i = 0; i < found->checkpoint_count; i++)
        if (found->checkpoints[i].job_id == job_id)
            checkpoint_load(core, job, &found->checkpoints[i]);
    for (size_t i = 0; i < found->artifact_count; i++)
        if (found->artifacts[i].job_id == job_id)
            artifact_load(core, job, &found->artifacts[i]);
    job_consider_eviction(core, job);
    return job;
}
