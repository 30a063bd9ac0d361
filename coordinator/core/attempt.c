/* attempt.c - the life of an attempt; the table is in life.c.
 *
 * START and STOP are sent again until the worker's reports confirm them, so a lost message costs
 * resend_ms and nothing else; both are idempotent. */
#include "coordinator/core/state.h"

#include <string.h>

struct attempt *attempt_find(const struct core *core, uint64_t attempt_id)
{
    struct attempt *attempt = NULL;
    HASH_FIND(hh, core->attempts, &attempt_id, sizeof attempt_id, attempt);
    return attempt;
}

void attempt_mark(struct core *core, struct attempt *attempt)
{
    if (attempt->dirty)
        return;
    attempt->dirty = true;
    list_add(&core->dirty_attempts, attempt);
}

/* ---- what an attempt occupies ------------------------------------------------------------ */

static void occupy(struct worker *worker, struct attempt *attempt)
{
    struct policy_need need = job_need(attempt->job);
    worker->cores_used += need.cores;
    worker->memory_used += need.memory_bytes;
    worker->gpus_used += need.gpus;
    struct attempt **link = &worker->attempts;
    struct attempt *previous = NULL;
    /* Ids grow, so a new one goes last; the walk is over the attempts of one worker. */
    for (; *link && (*link)->attempt_id < attempt->attempt_id; link = &(*link)->next)
        previous = *link;
    attempt->previous = previous;
    attempt->next = *link;
    if (*link)
        (*link)->previous = attempt;
    *link = attempt;
    worker->attempt_count++;
}

static void vacate(struct core *core, struct worker *worker, struct attempt *attempt)
{
    struct policy_need need = job_need(attempt->job);
    worker->cores_used -= need.cores;
    worker->memory_used -= need.memory_bytes;
    worker->gpus_used -= need.gpus;
    if (attempt->previous)
        attempt->previous->next = attempt->next;
    else
        worker->attempts = attempt->next;
    if (attempt->next)
        attempt->next->previous = attempt->previous;
    worker->attempt_count--;
    worker->shrunk = worker->shrunk && worker->attempt_count > 0;
    worker_gained(core, worker);
}

struct attempt *attempt_add(struct core *core, struct job *job, struct worker *worker,
                            uint64_t attempt_id)
{
    CHECK(!job->attempt); /* invariant 1 */
    struct attempt *attempt = mem_zalloc(sizeof *attempt);
    attempt->attempt_id = attempt_id;
    attempt->job = job;
    attempt->worker = worker;
    attempt->state = ATTEMPT_PLACED;
    attempt->timer = (struct timer){.kind = TIMER_ATTEMPT, .id = attempt_id};
    job->attempt = attempt;
    limits_take(core, job->class);
    occupy(worker, attempt);
    HASH_ADD(hh, core->attempts, attempt_id, sizeof attempt->attempt_id, attempt);
    return attempt;
}

static void attempt_move(struct core *core, struct attempt *attempt, enum attempt_event event)
{
    enum attempt_state next = attempt_next(attempt->state, event);
    CHECK(next != ATTEMPT_STATE_NONE);
    attempt->state = next;
    attempt_mark(core, attempt);
}

/* ---- messages ---------------------------------------------------------------------------- */

static bool worker_is_reachable(const struct worker *worker)
{
    return worker->joined && (worker->state == WORKER_OK || worker->state == WORKER_SUSPECT);
}

static void start_inputs(struct core *core, const struct job *job, struct msg_start *start)
{
    struct arena *arena = step_arena(core);
    start->inputs = arena_alloc(arena, job->input_count * sizeof *start->inputs);
    start->inputs_count = job->input_count;
    for (size_t i = 0; i < job->input_count; i++) {
        const struct input *input = &job->inputs[i];
        start->inputs[i] = (struct rec_resolved_input){
            .name = arena_strdup(arena, input->name),
            .ref = arena_strdup(arena, input->ref.text),
            .path = arena_strdup(arena, input->path),
            .part = arena_strdup(arena, input->ref.part),
            .content = input->content,
        };
    }
}

void attempt_send_start(struct core *core, struct attempt *attempt)
{
    if (!worker_is_reachable(attempt->worker))
        return;
    struct arena *arena = step_arena(core);
    const struct job *job = attempt->job;
    struct msg_start *start =
        &effects_release(core->effects, ADDRESS_WORKER, attempt->worker->peer, MSG_START)->u.start;
    start->attempt_id = attempt->attempt_id;
    start->job_id = job->job_id;
    start->attempt_number = attempt->number;
    start->job_name = arena_strdup(arena, job->name);
    start->spec = arena_strdup(arena, job->spec_json);
    start->account = arena_strdup(arena, job->account);
    start->ranks = job->ranks;
    start->cores = job->cores;
    start->memory_bytes = job->memory_bytes;
    start->gpus = job->gpus;
    start->wall_time_ms = job->limits.wall_time_ms;
    start->stop_grace_ms = job->limits.stop_grace_ms;
    start->stall_ms = job->limits.stall_ms;
    const struct checkpoint *resume = checkpoint_by_id(job, attempt->resume_checkpoint_id);
    if (resume) {
        start->resume_path = arena_strdup(arena, resume->path);
        start->resume_content = resume->content;
    }
    start_inputs(core, job, start);
}

static void attempt_send_stop(struct core *core, struct attempt *attempt)
{
    if (!worker_is_reachable(attempt->worker))
        return;
    struct msg_stop *stop =
        &effects_release(core->effects, ADDRESS_WORKER, attempt->worker->peer, MSG_STOP)->u.stop;
    stop->attempt_id = attempt->attempt_id;
    stop->cause = cause_name(attempt->stop_cause);
    stop->grace_ms = attempt->job->limits.stop_grace_ms;
}

void attempt_fence(struct core *core, uint64_t peer, uint64_t attempt_id)
{
    effects_release(core->effects, ADDRESS_WORKER, peer, MSG_ATTEMPT_FENCE)
        ->u.attempt_fence.attempt_id = attempt_id;
}

/* ---- life -------------------------------------------------------------------------------- */

/* The earlier of the backstop and the next repeat. */
void attempt_timer_set(struct core *core, struct attempt *attempt)
{
    uint64_t due = attempt->resend_ms;
    if (attempt->wall_due_ms && (!due || attempt->wall_due_ms < due))
        due = attempt->wall_due_ms;
    if (attempt->preempt_due_ms && (!due || attempt->preempt_due_ms < due))
        due = attempt->preempt_due_ms;
    timer_set(&core->timers, &attempt->timer, due);
}

/* The worker enforces the limit; this is for one that does not. */
uint64_t attempt_wall_due(const struct core *core, const struct attempt *attempt)
{
    const struct spec_limits *limits = &attempt->job->limits;
    if (limits->wall_time_ms == 0)
        return 0;
    return core->now_ms + limits->wall_time_ms + limits->stop_grace_ms + core->config.lease_ms;
}

void attempt_place(struct core *core, struct job *job, struct worker *worker)
{
    job_move(core, job, JOB_ON_PLACE);
    struct attempt *attempt = attempt_add(core, job, worker, ++core->ids.attempt);
    const struct checkpoint *resume = checkpoint_resume(job);
    shares_take(core, job);
    attempt->number = ++job->attempt_count;
    job->attempts_spent++;
    attempt->epoch = core->config.epoch;
    attempt->resume_checkpoint_id = resume ? resume->checkpoint_id : 0;
    attempt->placed_at = core->wall_us;
    attempt->is_new = true;
    attempt->resend_ms = core->now_ms + core->config.resend_ms;
    attempt_mark(core, attempt);
    attempt_timer_set(core, attempt);
    reuse_placed(job, worker);
    why_close(core, job);
    input_rows(core, attempt);
    history_add(core, "placed", job->job_id, attempt->attempt_id, worker->worker_id, NULL,
                arena_printf(step_arena(core), "attempt %llu on %s%s",
                             (unsigned long long)attempt->number, worker->name,
                             resume ? ", resuming" : ""));
    attempt_send_start(core, attempt);
}

/* The stream has begun: stops the repeats of START. */
void attempt_started(struct core *core, struct attempt *attempt, const char *placement_json)
{
    if (placement_json)
        text_set(&attempt->placement_json, placement_json);
    if (attempt->started_at) {
        attempt_mark(core, attempt);
        return;
    }
    struct job *job = attempt->job;
    attempt->started_at = core->wall_us;
    attempt->confirmed = true;
    attempt_move(core, attempt, ATTEMPT_ON_START);
    if (attempt->state == ATTEMPT_RUNNING)
        attempt->resend_ms = 0;
    attempt->wall_due_ms = attempt_wall_due(core, attempt);
    attempt_timer_set(core, attempt);
    if (!job->started_at)
        job->started_at = core->wall_us;
    job_move(core, job, JOB_ON_START);
    history_add(core, "started", job->job_id, attempt->attempt_id, attempt->worker->worker_id,
                NULL, NULL);
}

void attempt_stop(struct core *core, struct attempt *attempt, enum cause cause)
{
    if (attempt->worker->state == WORKER_LOST || attempt->worker->state == WORKER_LEFT) {
        attempt_end(core, attempt, ATTEMPT_ON_LOSE, cause, 0, "the worker is gone", NULL);
        return;
    }
    if (attempt->state != ATTEMPT_STOPPING) {
        attempt->stop_cause = cause;
        attempt_move(core, attempt, ATTEMPT_ON_STOP);
        attempt->stop_ms = core->now_ms;
        attempt->stopping_at = core->wall_us;
    }
    attempt->wall_due_ms = 0;
    attempt->preempt_due_ms = 0;
    attempt->resend_ms = core->now_ms + core->config.resend_ms;
    attempt_timer_set(core, attempt);
    attempt_send_stop(core, attempt);
}

void attempt_end(struct core *core, struct attempt *attempt, enum attempt_event event,
                 enum cause cause, int64_t code, const char *evidence, const char *usage_json)
{
    struct job *job = attempt->job;
    struct worker *worker = attempt->worker;
    attempt_move(core, attempt, event);
    attempt->cause = cause;
    attempt->code = code;
    attempt->ended_at = core->wall_us;
    if (event == ATTEMPT_ON_LOSE && cause == CAUSE_WORKER_LOST)
        attempt->silent_at = max_u64(worker->heard_at, attempt->placed_at);
    text_set(&attempt->evidence, evidence);
    if (usage_json)
        text_set(&attempt->usage_json, usage_json);
    vacate(core, worker, attempt);
    timer_clear(&core->timers, &attempt->timer);
    HASH_DEL(core->attempts, attempt);
    job->attempt = NULL;
    shares_give(core, job);
    limits_give(core, job->class);
    for (size_t i = 0; i < job->input_count; i++)
        job->inputs[i].resolved = false;
    if (event == ATTEMPT_ON_LOSE && worker_is_reachable(worker))
        attempt_fence(core, worker->peer, attempt->attempt_id);
    history_add(core, "attempt_ended", job->job_id, attempt->attempt_id, worker->worker_id, NULL,
                arena_printf(step_arena(core), "%s%s%s", cause_name(cause),
                             evidence && *evidence ? ": " : "", evidence ? evidence : ""));
    job_after_attempt(core, job, cause, attempt->stop_cause, attempt->evidence);
}

/* A STOP that a silent worker never confirmed: it does not know the attempt. */
static bool stop_is_pointless(const struct core *core, const struct attempt *attempt)
{
    return attempt->state == ATTEMPT_STOPPING && !attempt->confirmed &&
           worker_is_reachable(attempt->worker) &&
           core->now_ms >= attempt->stop_ms + 2 * core->config.resend_ms;
}

void attempt_timer_due(struct core *core, struct attempt *attempt)
{
    if (attempt->wall_due_ms && attempt->wall_due_ms <= core->now_ms) {
        attempt_stop(core, attempt, CAUSE_TIME_LIMIT);
        return;
    }
    if (attempt->preempt_due_ms && attempt->preempt_due_ms <= core->now_ms) {
        attempt_preempt_go_on(core, attempt);
        return;
    }
    if (stop_is_pointless(core, attempt)) {
        attempt_end(core, attempt, ATTEMPT_ON_LOSE, attempt->stop_cause, 0,
                    "stopped before its worker began it", NULL);
        return;
    }
    if (attempt->state == ATTEMPT_PLACED && !attempt->confirmed)
        attempt_send_start(core, attempt);
    else if (attempt->state == ATTEMPT_STOPPING)
        attempt_send_stop(core, attempt);
    attempt->resend_ms = attempt->state == ATTEMPT_RUNNING ||
                                 (attempt->state == ATTEMPT_PLACED && attempt->confirmed)
                             ? 0
                             : core->now_ms + core->config.resend_ms;
    attempt_timer_set(core, attempt);
}
