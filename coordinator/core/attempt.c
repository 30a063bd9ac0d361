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

bool attempt_is_gang(const struct attempt *attempt)
{
    return attempt->part_count > 1;
}

struct part *attempt_part_on(const struct attempt *attempt, const struct worker *worker)
{
    for (size_t i = 0; i < attempt->part_count; i++)
        if (attempt->parts[i].worker == worker)
            return &attempt->parts[i];
    return NULL;
}

static void part_mark(struct core *core, struct part *part)
{
    part->dirty = true;
    attempt_mark(core, part->attempt);
}

/* ---- what an attempt occupies ------------------------------------------------------------ */

static void occupy(struct part *part)
{
    struct worker *worker = part->worker;
    struct policy_need need = job_need(part->attempt->job, part->ranks);
    uint64_t attempt_id = part->attempt->attempt_id;
    worker->cores_used += need.cores;
    worker->memory_used += need.memory_bytes;
    worker->gpus_used += need.gpus;
    worker->taken = part->attempt->job->class->ask.exclusive;
    struct part **link = &worker->parts;
    struct part *previous = NULL;
    /* Ids grow, so a new one goes last; the walk is over the parts of one worker. */
    for (; *link && (*link)->attempt->attempt_id < attempt_id; link = &(*link)->next)
        previous = *link;
    part->previous = previous;
    part->next = *link;
    if (*link)
        (*link)->previous = part;
    *link = part;
    worker->part_count++;
    part->attempt->live_count++;
}

static void vacate(struct core *core, struct part *part)
{
    struct worker *worker = part->worker;
    struct policy_need need = job_need(part->attempt->job, part->ranks);
    worker->cores_used -= need.cores;
    worker->memory_used -= need.memory_bytes;
    worker->gpus_used -= need.gpus;
    worker->taken = false;
    if (part->previous)
        part->previous->next = part->next;
    else
        worker->parts = part->next;
    if (part->next)
        part->next->previous = part->previous;
    worker->part_count--;
    part->attempt->live_count--;
    worker->shrunk = worker->shrunk && worker->part_count > 0;
    worker_gained(core, worker);
}

struct attempt *attempt_add(struct core *core, struct job *job, uint64_t attempt_id,
                            const struct slot *slots, size_t count, const struct charge *charge)
{
    CHECK(!job->attempt); /* invariant 1 */
    struct attempt *attempt = mem_zalloc(sizeof *attempt);
    uint32_t first_rank = 0;
    attempt->attempt_id = attempt_id;
    attempt->job = job;
    attempt->parts = count == 1 ? &attempt->only : mem_array(count, sizeof *attempt->parts);
    attempt->part_count = count;
    for (size_t i = 0; i < count; i++) {
        attempt->parts[i] =
            (struct part){.attempt = attempt,
                          .worker = slots[i].worker,
                          .node = (uint32_t)i,
                          .first_rank = first_rank,
                          .ranks = slots[i].ranks,
                          .charge = charge ? *charge
                                           : class_charge_on(job->class, slots[i].worker,
                                                             slots[i].ranks)};
        first_rank += slots[i].ranks;
        attempt->charge.cores += attempt->parts[i].charge.cores;
        attempt->charge.gpus += attempt->parts[i].charge.gpus;
    }
    attempt->state = ATTEMPT_PLACED;
    attempt->timer = (struct timer){.kind = TIMER_ATTEMPT, .id = attempt_id};
    job->attempt = attempt;
    limits_take(core, attempt);
    HASH_ADD(hh, core->attempts, attempt_id, sizeof attempt->attempt_id, attempt);
    return attempt;
}

void attempt_occupy(struct core *core, struct attempt *attempt)
{
    (void)core;
    for (size_t i = 0; i < attempt->part_count; i++)
        if (!attempt->parts[i].ended)
            occupy(&attempt->parts[i]);
}

void attempt_free(struct attempt *attempt)
{
    for (size_t i = 0; i < attempt->part_count; i++) {
        mem_free(attempt->parts[i].evidence);
        mem_free(attempt->parts[i].placement_json);
        mem_free(attempt->parts[i].usage_json);
    }
    if (attempt->parts != &attempt->only)
        mem_free(attempt->parts);
    mem_free(attempt->evidence);
    mem_free(attempt->placement_json);
    mem_free(attempt->usage_json);
    mem_free(attempt);
}

static void attempt_move(struct core *core, struct attempt *attempt, enum attempt_event event)
{
    enum attempt_state next = attempt_next(attempt->state, event);
    CHECK(next != ATTEMPT_STATE_NONE);
    attempt->state = next;
    attempt_mark(core, attempt);
}

/* ---- messages ---------------------------------------------------------------------------- */

bool worker_is_reachable(const struct worker *worker)
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

static void start_nodes(struct core *core, const struct attempt *attempt, struct msg_start *start)
{
    struct arena *arena = step_arena(core);
    start->nodes = arena_alloc(arena, attempt->part_count * sizeof *start->nodes);
    start->nodes_count = attempt->part_count;
    for (size_t i = 0; i < attempt->part_count; i++) {
        const struct part *part = &attempt->parts[i];
        start->nodes[i] = (struct rec_attempt_node){
            .name = arena_strdup(arena, part->worker->name),
            .host = arena_strdup(arena, part->worker->host),
            .first_rank = part->first_rank,
            .ranks = part->ranks,
            .endpoint = arena_strdup(arena, part->worker->endpoint),
            .public_key = arena_strdup(arena, part->worker->public_key),
        };
    }
}

/* Each node has an equal share of what earlier attempts have left of the job's limit, the same at
 * each repeat. Never 0, which would be no limit: with 1 what a rank says last is kept. */
static uint64_t log_share(const struct attempt *attempt)
{
    const struct job *job = attempt->job;
    uint64_t limit = job->limits.log_bytes ? job->limits.log_bytes : LOG_BYTES_DEFAULT;
    uint64_t left = limit > job->log_bytes ? limit - job->log_bytes : 0;
    return max_u64(left / attempt->part_count, 1);
}

void part_send_start(struct core *core, struct part *part)
{
    const struct attempt *attempt = part->attempt;
    if (!worker_is_reachable(part->worker))
        return;
    struct arena *arena = step_arena(core);
    const struct job *job = attempt->job;
    const struct checkpoint *resume = checkpoint_by_id(job, attempt->resume_checkpoint_id);
    struct rec_copy_source *sources;
    size_t source_count = copies_sources(core, part, resume, &sources);
    struct msg_start *start =
        &effects_release(core->effects, ADDRESS_WORKER, part->worker->peer, MSG_START)->u.start;
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
    start->node = part->node;
    start->data_skip = attempt->data_skip;
    start->log_bytes = log_share(attempt);
    start->sources = sources;
    start->sources_count = source_count;
    if (resume) {
        start->resume_path = arena_strdup(arena, resume->path);
        start->resume_content = resume->content;
    }
    start_inputs(core, job, start);
    if (attempt_is_gang(attempt))
        start_nodes(core, attempt, start);
}

static void part_send_stop(struct core *core, struct part *part)
{
    if (!worker_is_reachable(part->worker))
        return;
    struct msg_stop *stop =
        &effects_release(core->effects, ADDRESS_WORKER, part->worker->peer, MSG_STOP)->u.stop;
    stop->attempt_id = part->attempt->attempt_id;
    bool drained = part->attempt->stop_cause == CAUSE_DRAINED;
    stop->cause = cause_name(drained ? CAUSE_PREEMPTED : part->attempt->stop_cause);
    stop->grace_ms = attempt_grace_ms(core, part->attempt);
}

static void attempt_send_stop(struct core *core, struct attempt *attempt)
{
    for (size_t i = 0; i < attempt->part_count; i++)
        if (!attempt->parts[i].ended)
            part_send_stop(core, &attempt->parts[i]);
}

void attempt_fence(struct core *core, uint64_t peer, uint64_t attempt_id)
{
    effects_release(core->effects, ADDRESS_WORKER, peer, MSG_ATTEMPT_FENCE)
        ->u.attempt_fence.attempt_id = attempt_id;
}

/* ---- life -------------------------------------------------------------------------------- */

static uint64_t earlier(uint64_t a, uint64_t b)
{
    return a && b ? min_u64(a, b) : a | b; /* 0: never */
}

/* The earliest of the backstop, the end of a preemption's patience and the next repeat. */
void attempt_timer_set(struct core *core, struct attempt *attempt)
{
    uint64_t due = earlier(attempt->resend_ms, attempt->wall_due_ms);
    timer_set(&core->timers, &attempt->timer, earlier(due, attempt->preempt_due_ms));
}

/* The worker enforces the limit; this is for one that does not. */
uint64_t attempt_wall_due(const struct core *core, const struct attempt *attempt)
{
    const struct spec_limits *limits = &attempt->job->limits;
    if (limits->wall_time_ms == 0)
        return 0;
    return core->now_ms + limits->wall_time_ms + limits->stop_grace_ms + core->config.lease_ms;
}

#define NAMES_SHOWN 4u

/* "w1, w2 and 6 others" */
static const char *workers_text(struct core *core, const struct attempt *attempt)
{
    const char *text = "";
    size_t shown = attempt->part_count > NAMES_SHOWN + 1 ? NAMES_SHOWN : attempt->part_count;
    for (size_t i = 0; i < shown; i++)
        text = arena_printf(step_arena(core), "%s%s%s", text, i ? ", " : "",
                            attempt->parts[i].worker->name);
    if (shown < attempt->part_count)
        text =
            arena_printf(step_arena(core), "%s and %zu others", text, attempt->part_count - shown);
    return text;
}

void attempt_place(struct core *core, struct job *job, const struct slot *slots, size_t count)
{
    job_move(core, job, JOB_ON_PLACE);
    struct attempt *attempt = attempt_add(core, job, ++core->ids.attempt, slots, count, NULL);
    const struct checkpoint *resume = checkpoint_resume(job);
    shares_take(core, attempt);
    attempt_occupy(core, attempt);
    attempt->number = ++job->attempt_count;
    job->attempts_spent++;
    attempt->epoch = core->config.epoch;
    attempt->resume_checkpoint_id = resume ? resume->checkpoint_id : 0;
    attempt->data_skip = job->data_skip;
    attempt->placed_at = core->wall_us;
    attempt->is_new = true;
    attempt->resend_ms = core->now_ms + core->config.resend_ms;
    attempt_mark(core, attempt);
    attempt_timer_set(core, attempt);
    for (size_t i = 0; i < count; i++)
        reuse_placed(job, slots[i].worker, i == 0);
    why_close(core, job);
    input_rows(core, attempt);
    history_add(core, "placed", job->job_id, attempt->attempt_id, slots[0].worker->worker_id, NULL,
                arena_printf(step_arena(core), "attempt %llu on %s%s",
                             (unsigned long long)attempt->number, workers_text(core, attempt),
                             resume ? ", resuming" : ""));
    if (attempt_left_ms(core, attempt) != UINT64_MAX)
        windows_look(core);
    for (size_t i = 0; i < count; i++) {
        attempt->parts[i].is_new = attempt->parts[i].dirty = count > 1;
        part_send_start(core, &attempt->parts[i]);
    }
}

bool attempt_wants_repeats(const struct attempt *attempt)
{
    bool unconfirmed = false;
    for (size_t i = 0; i < attempt->part_count; i++)
        unconfirmed = unconfirmed || (!attempt->parts[i].ended && !attempt->parts[i].confirmed);
    return attempt->state == ATTEMPT_STOPPING || unconfirmed;
}

/* The first of its streams has begun. */
static void attempt_started(struct core *core, struct attempt *attempt, const struct part *part)
{
    struct job *job = attempt->job;
    attempt->started_at = core->wall_us;
    attempt_move(core, attempt, ATTEMPT_ON_START);
    attempt->wall_due_ms = attempt_wall_due(core, attempt);
    if (!job->started_at)
        job->started_at = core->wall_us;
    job_move(core, job, JOB_ON_START);
    history_add(core, "started", job->job_id, attempt->attempt_id, part->worker->worker_id, NULL,
                NULL);
}

/* The stream has begun: stops the repeats of START. */
void part_started(struct core *core, struct part *part, const char *placement_json)
{
    struct attempt *attempt = part->attempt;
    bool gang = attempt_is_gang(attempt);
    if (placement_json)
        text_set(gang ? &part->placement_json : &attempt->placement_json, placement_json);
    part_mark(core, part);
    if (part->started_at)
        return;
    part->started_at = core->wall_us;
    part->confirmed = true;
    if (!attempt->started_at)
        attempt_started(core, attempt, part);
    if (!attempt_wants_repeats(attempt))
        attempt->resend_ms = 0;
    attempt_timer_set(core, attempt);
}

static bool worker_is_gone(const struct worker *worker)
{
    return worker->state == WORKER_LOST || worker->state == WORKER_LEFT;
}

/* Nobody waits for parts whose worker is gone. True when that was the end of the attempt. */
static bool gone_parts_lose(struct core *core, struct attempt *attempt, enum cause cause)
{
    for (size_t i = 0; i < attempt->part_count; i++) {
        struct part *part = &attempt->parts[i];
        if (part->ended || !worker_is_gone(part->worker))
            continue;
        part_lose(core, part, cause, "the worker is gone");
        if (attempt->state == ATTEMPT_ENDED)
            return true;
    }
    return false;
}

void attempt_stop(struct core *core, struct attempt *attempt, enum cause cause)
{
    if (attempt->state != ATTEMPT_STOPPING)
        attempt->stop_cause = cause; /* before all: what follows an end depends on it */
    if (gone_parts_lose(core, attempt, cause))
        return;
    if (attempt->state != ATTEMPT_STOPPING) {
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

/* ---- the end ----------------------------------------------------------------------------- */

/* The first failure of several parts is what the attempt ends with. `peer_failed` is none: it says
 * that another part has failed, whose own word is yet to come. */
static void failure_note(struct core *core, struct part *part, enum cause cause, int64_t code,
                         const char *evidence)
{
    struct attempt *attempt = part->attempt;
    if (attempt->cause || !attempt_is_gang(attempt) || cause == CAUSE_PEER_FAILED)
        return;
    bool asked = cause == attempt->stop_cause && !(evidence && *evidence);
    attempt->cause = cause;
    attempt->code = code;
    if (!asked)
        text_set(&attempt->evidence,
                 arena_printf(step_arena(core), "node %u (%s)%s%s", part->node, part->worker->name,
                              evidence && *evidence ? ": " : "", evidence ? evidence : ""));
    attempt_mark(core, attempt);
}

static void part_end(struct core *core, struct part *part, enum cause cause, int64_t code,
                     const char *evidence, const char *usage_json)
{
    vacate(core, part);
    part->ended = true;
    part->ended_at = core->wall_us;
    if (!attempt_is_gang(part->attempt))
        return;
    part->cause = cause;
    part->code = code;
    text_set(&part->evidence, evidence);
    if (usage_json)
        text_set(&part->usage_json, usage_json);
    part_mark(core, part);
}

static void parts_end(struct core *core, struct attempt *attempt, enum attempt_event event,
                      enum cause cause, const char *evidence)
{
    for (size_t i = 0; i < attempt->part_count; i++) {
        struct part *part = &attempt->parts[i];
        attempt->job->log_bytes += part->log_bytes;
        if (part->ended)
            continue;
        part_end(core, part, cause, 0, evidence, NULL);
        if (event == ATTEMPT_ON_LOSE && worker_is_reachable(part->worker))
            attempt_fence(core, part->worker->peer, attempt->attempt_id);
    }
}

void attempt_end(struct core *core, struct attempt *attempt, enum attempt_event event,
                 enum cause cause, int64_t code, const char *evidence, const char *usage_json)
{
    struct job *job = attempt->job;
    attempt_move(core, attempt, event);
    if (!attempt->cause) {
        attempt->cause = cause;
        attempt->code = code;
        text_set(&attempt->evidence, evidence);
    }
    attempt->ended_at = core->wall_us;
    if (usage_json)
        text_set(&attempt->usage_json, usage_json);
    parts_end(core, attempt, event, cause, evidence);
    timer_clear(&core->timers, &attempt->timer);
    HASH_DEL(core->attempts, attempt);
    job->attempt = NULL;
    shares_give(core, attempt);
    limits_give(core, attempt);
    for (size_t i = 0; i < job->input_count; i++)
        job->inputs[i].resolved = false;
    evidence = attempt->evidence;
    history_add(core, "attempt_ended", job->job_id, attempt->attempt_id,
                attempt->parts[0].worker->worker_id, NULL,
                arena_printf(step_arena(core), "%s%s%s", cause_name(attempt->cause),
                             evidence && *evidence ? ": " : "", evidence ? evidence : ""));
    if (attempt->cause == CAUSE_DIVERGED && job->rewinds)
        checkpoint_rewind(core, job, attempt);
    bool stale = attempt->cause == CAUSE_STALE_CHECKPOINT && attempt->resume_checkpoint_id;
    if (stale)
        checkpoint_discard(core, job, attempt->resume_checkpoint_id);
    if (stale && job->state != JOB_STOPPING) /* one fewer to resume from each time: this ends */
        job_requeue(core, job, attempt->cause, attempt->evidence);
    else
        job_after_attempt(core, job, attempt);
}

/* Of an attempt that no part has called failed. */
static enum cause cause_of_parts(const struct attempt *attempt)
{
    for (size_t i = 0; i < attempt->part_count; i++)
        if (attempt->parts[i].cause != CAUSE_SUCCESS)
            return attempt->parts[i].cause;
    return CAUSE_SUCCESS;
}

void part_finished(struct core *core, struct part *part, enum cause cause, int64_t code,
                   const char *evidence, const char *usage_json)
{
    struct attempt *attempt = part->attempt;
    cause = until_cause(core, part, cause, code, true);
    if (cause == CAUSE_PREEMPTED && attempt->stop_cause == CAUSE_DRAINED)
        cause = CAUSE_DRAINED; /* what its worker was told */
    if (!attempt_is_gang(attempt)) {
        attempt_end(core, attempt, ATTEMPT_ON_FINISH, cause, code, evidence, usage_json);
        return;
    }
    if (cause != CAUSE_SUCCESS)
        failure_note(core, part, cause, code, evidence);
    part_end(core, part, cause, code, evidence, usage_json);
    if (attempt->live_count == 0)
        attempt_end(core, attempt, ATTEMPT_ON_FINISH, cause_of_parts(attempt), 0, NULL, NULL);
    else if (cause != CAUSE_SUCCESS && attempt->state != ATTEMPT_STOPPING)
        attempt_stop(core, attempt, CAUSE_PEER_FAILED);
}

void part_lose(struct core *core, struct part *part, enum cause cause, const char *evidence)
{
    struct attempt *attempt = part->attempt;
    cause = until_cause(core, part, cause, 0, false);
    if (cause == CAUSE_WORKER_LOST)
        attempt->silent_at = max_u64(part->worker->heard_at, attempt->placed_at);
    if (attempt->live_count == 1) {
        failure_note(core, part, cause, 0, evidence);
        attempt_end(core, attempt, ATTEMPT_ON_LOSE, cause, 0, evidence, NULL);
        return;
    }
    failure_note(core, part, cause, 0, evidence);
    part_end(core, part, cause, 0, evidence, NULL);
    if (worker_is_reachable(part->worker))
        attempt_fence(core, part->worker->peer, attempt->attempt_id);
}

void attempt_lose(struct core *core, struct part *part, enum cause cause, const char *evidence)
{
    struct attempt *attempt = part->attempt;
    bool others = attempt->live_count > 1;
    part_lose(core, part, cause, evidence);
    if (others)
        attempt_end(core, attempt, ATTEMPT_ON_LOSE, CAUSE_PEER_FAILED, 0, attempt->evidence, NULL);
}

/* A STOP that a silent worker never confirmed: it does not know the attempt. */
static bool stop_is_pointless(const struct core *core, const struct part *part)
{
    const struct attempt *attempt = part->attempt;
    return attempt->state == ATTEMPT_STOPPING && !part->ended && !part->confirmed &&
           worker_is_reachable(part->worker) &&
           core->now_ms >= attempt->stop_ms + 2 * core->config.resend_ms;
}

/* START or STOP again, as each part needs it. */
static void parts_remind(struct core *core, struct attempt *attempt)
{
    for (size_t i = 0; i < attempt->part_count; i++) {
        struct part *part = &attempt->parts[i];
        if (part->ended)
            continue;
        if (attempt->state == ATTEMPT_STOPPING)
            part_send_stop(core, part);
        else if (!part->confirmed)
            part_send_start(core, part);
    }
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
    for (size_t i = 0; i < attempt->part_count; i++) {
        if (!stop_is_pointless(core, &attempt->parts[i]))
            continue;
        part_lose(core, &attempt->parts[i], attempt->stop_cause,
                  "stopped before its worker began it");
        if (attempt->state == ATTEMPT_ENDED)
            return;
    }
    parts_remind(core, attempt);
    attempt->resend_ms = attempt_wants_repeats(attempt) ? core->now_ms + core->config.resend_ms : 0;
    attempt_timer_set(core, attempt);
}
