/* job.c - the life of a job; the table is in life.c. */
#include "coordinator/core/state.h"

#include "common/base/parse.h"

#include <string.h>

/* ---- indexes ----------------------------------------------------------------------------- */

struct job *job_find(const struct core *core, uint64_t job_id)
{
    struct job *job = NULL;
    HASH_FIND(hh_id, core->jobs, &job_id, sizeof job_id, job);
    return job;
}

static char *name_key_make(uint64_t experiment_id, const char *name)
{
    size_t length = strlen(name);
    char *key = mem_alloc(sizeof experiment_id + length + 1);
    memcpy(key, &experiment_id, sizeof experiment_id);
    memcpy(key + sizeof experiment_id, name, length + 1);
    return key;
}

static size_t name_key_length(const char *name)
{
    return sizeof(uint64_t) + strlen(name);
}

struct job *job_find_name(const struct core *core, uint64_t experiment_id, const char *name)
{
    char *key = name_key_make(experiment_id, name);
    struct job *job = NULL;
    HASH_FIND(hh_name, core->jobs_by_name, key, name_key_length(name), job);
    mem_free(key);
    return job;
}

/* The hash holds the newest of each name; older ones hang behind it, newest first. */
static void name_index_add(struct core *core, struct job *job)
{
    size_t length = name_key_length(job->name);
    struct job *head = NULL;
    HASH_FIND(hh_name, core->jobs_by_name, job->name_key, length, head);
    if (head && head->job_id > job->job_id) {
        while (head->older_same_name && head->older_same_name->job_id > job->job_id)
            head = head->older_same_name;
        job->newer_same_name = head;
        job->older_same_name = head->older_same_name;
        head->older_same_name = job;
        if (job->older_same_name)
            job->older_same_name->newer_same_name = job;
        return;
    }
    if (head) {
        HASH_DELETE(hh_name, core->jobs_by_name, head);
        job->older_same_name = head;
        head->newer_same_name = job;
    }
    HASH_ADD_KEYPTR(hh_name, core->jobs_by_name, job->name_key, length, job);
}

static void name_index_remove(struct core *core, struct job *job)
{
    struct job *older = job->older_same_name;
    if (older)
        older->newer_same_name = job->newer_same_name;
    if (job->newer_same_name) {
        job->newer_same_name->older_same_name = older;
        return;
    }
    HASH_DELETE(hh_name, core->jobs_by_name, job);
    if (older)
        HASH_ADD_KEYPTR(hh_name, core->jobs_by_name, older->name_key, name_key_length(older->name),
                        older);
}

void job_make_maker(struct core *core, struct job *job)
{
    if (job->is_maker)
        return;
    job->is_maker = true;
    job->maker_next = core->makers;
    if (core->makers)
        core->makers->maker_previous = job;
    core->makers = job;
}

static void maker_remove(struct core *core, struct job *job)
{
    if (!job->is_maker)
        return;
    if (job->maker_previous)
        job->maker_previous->maker_next = job->maker_next;
    else
        core->makers = job->maker_next;
    if (job->maker_next)
        job->maker_next->maker_previous = job->maker_previous;
    job->is_maker = false;
}

/* ---- making and letting go --------------------------------------------------------------- */

static void inputs_take(struct job *job, const struct spec_job *spec)
{
    job->input_count = spec->input_count;
    job->inputs = mem_array(spec->input_count, sizeof *job->inputs);
    for (size_t i = 0; i < spec->input_count; i++) {
        struct input *input = &job->inputs[i];
        input->name = mem_strdup(spec->inputs[i].name);
        input->ref = spec->inputs[i].ref;
        input->ref.text = mem_strdup(input->ref.text);
        input->ref.name = mem_strdup(input->ref.name);
        input->ref.part = mem_strdup(input->ref.part ? input->ref.part : "");
        input->source_job_id = spec->inputs[i].job_id;
        input->trial_count = spec->inputs[i].trial_count;
    }
}

static void outputs_take(struct job *job, const struct spec_job *spec)
{
    job->output_count = spec->output_count;
    job->outputs = mem_array(spec->output_count, sizeof *job->outputs);
    for (size_t i = 0; i < spec->output_count; i++)
        job->outputs[i] = mem_strdup(spec->outputs[i]);
}

struct job *job_new(struct core *core, uint64_t job_id, struct experiment *experiment,
                    const char *account, const struct spec_job *spec, const char *spec_json)
{
    struct job *job = mem_zalloc(sizeof *job);
    job->job_id = job_id;
    job->experiment = experiment;
    job->name_key = name_key_make(experiment->experiment_id, spec->name);
    job->name = job->name_key + sizeof experiment->experiment_id;
    job->account = account_intern(core, account);
    job->queue = queue_config_get(core, spec->queue);
    job->project = project_get(core, spec->project);
    job->state = JOB_WAITING;
    job->held = spec->hold;
    job->priority = spec->priority;
    job->spec_json = mem_strdup(spec_json);
    job->ranks = spec->resources.ranks;
    job->cores = spec->resources.cores;
    job->gpus = spec->resources.gpus;
    job->memory_bytes = spec->resources.memory_bytes;
    job->group_id = job_id - (spec->array_count > 0 ? spec->array_index : spec->trial_index);
    struct hash code;
    struct err err;
    if (spec->code.hash && spec->code.hash[0] && hash_from_hex(spec->code.hash, &code, &err) == 0) {
        job->code = mem_alloc(sizeof *job->code);
        *job->code = code;
    }
    job->at_once = spec->at_once;
    job->trial_count = spec->trial_count;
    job->limits = spec->limits;
    job->retry = spec->retry;
    job->on_disconnect = spec->on_disconnect;
    job->rewinds = spec->diverge.then == SPEC_DIVERGE_REWIND;
    job->skip_more = spec->diverge.skip;
    job->keep_last = spec->checkpoint.keep_last;
    job->keep_best = spec->checkpoint.keep_best;
    job->best_metric = mem_strdup(spec->checkpoint.best_metric ? spec->checkpoint.best_metric : "");
    job->best_mode = spec->checkpoint.best_mode;
    inputs_take(job, spec);
    outputs_take(job, spec);
    job->node = (struct queue_node){.priority = job->priority, .job_id = job_id};
    job->timer = (struct timer){.kind = TIMER_JOB, .id = job_id};
    return job;
}

void job_add(struct core *core, struct job *job)
{
    HASH_ADD(hh_id, core->jobs, job_id, sizeof job->job_id, job);
    name_index_add(core, job);
    if (job->output_count || job->artifact_count)
        job_make_maker(core, job);
    core->counts.jobs_by_state[job->state] += !job_state_is_terminal(job->state);
    core->live_count += !job_state_is_terminal(job->state);
    if (job->code && !job_state_is_terminal(job->state))
        snapshot_hold(core, job->code);
}

static void job_parts_free(struct job *job)
{
    for (size_t i = 0; i < job->input_count; i++) {
        mem_free(job->inputs[i].name);
        mem_free((char *)job->inputs[i].ref.text);
        mem_free((char *)job->inputs[i].ref.name);
        mem_free((char *)job->inputs[i].ref.part);
        mem_free(job->inputs[i].path);
    }
    for (size_t i = 0; i < job->output_count; i++)
        mem_free(job->outputs[i]);
    for (size_t i = 0; i < job->checkpoint_count; i++)
        checkpoint_free(&job->checkpoints[i]);
    for (size_t i = 0; i < job->drop_count; i++)
        checkpoint_free(&job->drops[i]);
    for (size_t i = 0; i < job->artifact_count; i++)
        artifact_free(&job->artifacts[i]);
    mem_free(job->inputs);
    mem_free(job->outputs);
    mem_free(job->checkpoints);
    mem_free(job->drops);
    mem_free(job->artifacts);
    job_edges_free(job);
    mem_free(job->reasons);
}

void job_evict(struct core *core, struct job *job)
{
    while (job->children)
        edge_unlink(core, job->children);
    if (core->reason_next == job)
        core->reason_next = job->hh_id.next;
    HASH_DELETE(hh_id, core->jobs, job);
    name_index_remove(core, job);
    maker_remove(core, job);
    timer_clear(&core->timers, &job->timer);
    if (job->class)
        class_leave(core, job);
    job_free(job);
}

void job_free(struct job *job)
{
    job_parts_free(job);
    mem_free(job->name_key);
    mem_free(job->detail);
    mem_free(job->progress_phase);
    mem_free(job->reuse);
    mem_free(job->code);
    mem_free(job->spec_json);
    mem_free(job->best_metric);
    mem_free(job);
}

void job_mark(struct core *core, struct job *job)
{
    if (job->dirty)
        return;
    job->dirty = true;
    list_add(&core->dirty_jobs, job);
}

void job_consider_eviction(struct core *core, struct job *job)
{
    if (job->check_eviction)
        return;
    job->check_eviction = true;
    list_add(&core->ended, job);
}

/* ---- edges ------------------------------------------------------------------------------- */

void job_edges_make(struct job *job, size_t count)
{
    job->edges = mem_array(count, sizeof *job->edges);
    job->edge_count = count;
    for (size_t i = 0; i < count; i++)
        job->edges[i].child = job;
}

void job_edges_free(struct job *job)
{
    for (size_t i = 0; i < job->edge_count; i++)
        mem_free(job->edges[i].artifact);
    mem_free(job->edges);
    job->edges = NULL;
    job->edge_count = 0;
}

void edge_link(struct edge *edge, struct job *parent)
{
    CHECK(!edge->parent);
    edge->parent = parent;
    edge->next = parent->children;
    if (parent->children)
        parent->children->previous = edge;
    parent->children = edge;
    parent->readers += edge->reads;
}

void edge_unlink(struct core *core, struct edge *edge)
{
    struct job *parent = edge->parent;
    if (!parent)
        return;
    if (edge->previous)
        edge->previous->next = edge->next;
    else
        parent->children = edge->next;
    if (edge->next)
        edge->next->previous = edge->previous;
    edge->parent = NULL;
    edge->next = edge->previous = NULL;
    parent->readers -= edge->reads;
    if (parent->readers == 0 && job_state_is_terminal(parent->state))
        job_consider_eviction(core, parent);
}

bool condition_met(enum spec_condition condition, const char *artifact, const struct job *parent)
{
    switch (condition) {
    case SPEC_ON_SUCCESS:
        return parent->state == JOB_SUCCEEDED;
    case SPEC_ON_FAILURE:
        return parent->state == JOB_FAILED;
    case SPEC_ON_ANY:
        return true;
    case SPEC_ON_ARTIFACT:
        return artifact_exists(parent, artifact);
    }
    return false;
}

const char *condition_wanted(struct arena *arena, enum spec_condition condition,
                             const char *artifact)
{
    if (condition == SPEC_ON_ARTIFACT)
        return arena_printf(arena, "artifact '%s'", artifact);
    return condition == SPEC_ON_ANY ? "any end" : spec_condition_text(arena, condition, artifact);
}

/* ---- moving ------------------------------------------------------------------------------ */

/* A job stands in its class's queue exactly while it may be placed. */
void job_queue_update(struct core *core, struct job *job)
{
    bool wanted = job->state == JOB_READY && !job->held;
    if (wanted == job->node.queued)
        return;
    if (wanted) {
        job->node.priority = job_key(core, job);
        queue_add(&job->class->queue, &job->node);
        core_mark_placement(core);
    } else {
        queue_remove(&job->class->queue, &job->node);
    }
}

void job_move(struct core *core, struct job *job, enum job_event event)
{
    enum job_state next = job_next(job->state, event);
    CHECK(next != JOB_STATE_NONE);
    core->counts.jobs_by_state[job->state] -= !job_state_is_terminal(job->state);
    core->counts.jobs_by_state[next] += !job_state_is_terminal(next);
    core->live_count -= job_state_is_terminal(next) && !job_state_is_terminal(job->state);
    core->live_count += job_state_is_terminal(job->state) && !job_state_is_terminal(next);
    if (job->code && job_state_is_terminal(next) && !job_state_is_terminal(job->state))
        snapshot_release(core, job->code);
    if (job->code && job_state_is_terminal(job->state) && !job_state_is_terminal(next))
        snapshot_hold(core, job->code);
    job->state = next;
    job_mark(core, job);
    if (job->class)
        job_queue_update(core, job);
}

static void edge_meet(struct core *core, struct edge *edge)
{
    struct job *child = edge->child;
    edge->state = EDGE_MET;
    edge->dirty = true;
    child->edges_waiting--;
    job_mark(core, child);
    if (edge->reads && !sweep_choose(core, child, edge->parent)) {
        edge->state = EDGE_BROKEN;
        return;
    }
    if (child->edges_waiting == 0)
        job_move(core, child, JOB_ON_PARENTS_MET);
}

/* One parent ended: settles the child's edge, which may end the child. */
static void edge_settle(struct core *core, struct edge *edge)
{
    struct job *child = edge->child;
    struct job *parent = edge->parent;
    if (condition_met(edge->condition, edge->artifact, parent)) {
        edge_meet(core, edge);
        return;
    }
    edge->state = EDGE_BROKEN;
    edge->dirty = true;
    child->edges_waiting--;
    job_mark(core, child);
    bool failed = parent->state == JOB_FAILED;
    const char *wanted = condition_wanted(step_arena(core), edge->condition, edge->artifact);
    const char *detail = arena_printf(step_arena(core), "needs %s of job %llu (%s), which ended %s",
                                      wanted, (unsigned long long)parent->job_id, parent->name,
                                      job_state_name(parent->state));
    job_end(core, child, failed ? JOB_ON_PARENT_BROKEN : JOB_ON_PARENT_SKIPPED, CAUSE_DEPENDENCY,
            detail);
}

void job_artifact_made(struct core *core, struct job *job, const char *name)
{
    struct edge *next;
    for (struct edge *edge = job->children; edge; edge = next) {
        next = edge->next;
        if (edge->state != EDGE_WAITING || edge->condition != SPEC_ON_ARTIFACT ||
            strcmp(edge->artifact, name) != 0)
            continue;
        edge_meet(core, edge);
        if (!edge->reads)
            edge_unlink(core, edge);
    }
}

/* Children are settled from a list, not by recursion: a chain of 10,000 may break at once. */
static void children_settle(struct core *core, size_t from)
{
    for (size_t i = from; i < core->ended.count; i++) {
        struct job *parent = core->ended.items[i];
        struct edge *next;
        for (struct edge *edge = parent->children; edge; edge = next) {
            next = edge->next;
            if (edge->state == EDGE_WAITING && job_state_is_terminal(parent->state))
                edge_settle(core, edge);
            if (edge->parent == parent && edge->state != EDGE_WAITING && !edge->reads)
                edge_unlink(core, edge);
        }
    }
}

void job_end(struct core *core, struct job *job, enum job_event event, enum cause cause,
             const char *detail)
{
    job_move(core, job, event);
    CHECK(job_state_is_terminal(job->state));
    job->cause = cause;
    text_set(&job->detail, detail);
    job->ended_at = core->wall_us;
    job->eligible_at = 0;
    timer_clear(&core->timers, &job->timer);
    why_close(core, job);
    class_leave(core, job);
    sweep_trial_ended(core, job);
    for (size_t i = 0; i < job->edge_count; i++)
        edge_unlink(core, &job->edges[i]);
    history_add(core, "ended", job->job_id, 0, 0, NULL,
                arena_printf(step_arena(core), "%s: %s%s%s", job_state_name(job->state),
                             cause_name(cause), detail && *detail ? ": " : "",
                             detail ? detail : ""));
    bool outermost = !core->settling;
    size_t from = core->ended.count;
    job_consider_eviction(core, job);
    if (!outermost)
        return;
    core->settling = true;
    children_settle(core, from);
    core->settling = false;
}

/* A WAITING job whose edges were just made or loaded. */
void job_parents_check(struct core *core, struct job *job)
{
    CHECK(job->state == JOB_WAITING);
    if (job->edges_waiting == 0)
        job_move(core, job, JOB_ON_PARENTS_MET);
}

/* ---- after an attempt -------------------------------------------------------------------- */

uint64_t backoff_ms(const struct job *job)
{
    uint64_t wait = job->retry.backoff_ms;
    uint64_t most = job->retry.backoff_max_ms ? job->retry.backoff_max_ms : UINT64_MAX;
    for (uint64_t i = 1; i < job->attempts_spent && wait < most && wait < UINT64_MAX / 2; i++)
        wait *= 2;
    return min_u64(wait, most);
}

static void memory_escalate(struct job *job)
{
    uint64_t permille = job->retry.memory_factor_permille;
    if (permille <= 1000 || job->memory_bytes > WORKER_MEMORY_MAX)
        return;
    job->memory_bytes =
        job->memory_bytes / 1000 * permille + job->memory_bytes % 1000 * permille / 1000;
    if (job->retry.memory_max_bytes)
        job->memory_bytes = min_u64(job->memory_bytes, job->retry.memory_max_bytes);
}

static void class_change(struct core *core, struct job *job)
{
    struct class *class = class_again(core, job);
    class->job_count++; /* keeps it while the old class may go */
    class_leave(core, job);
    class->job_count--;
    class_join(job, class);
}

/* The worker whose part failed; of a gang that of the part whose cause is the attempt's. */
static const struct worker *worker_of_failure(const struct attempt *attempt)
{
    for (size_t i = 0; i < attempt->part_count; i++)
        if (attempt->part_count > 1 && attempt->parts[i].cause == attempt->cause)
            return attempt->parts[i].worker;
    return attempt->part_count == 1 ? attempt->parts[0].worker : NULL;
}

/* Whoever was avoided before may be tried again: one worker is remembered. */
static const struct worker *elsewhere_choose(struct core *core, struct job *job,
                                             const struct attempt *attempt)
{
    const struct worker *worker = worker_of_failure(attempt);
    if (!job->retry.elsewhere || !worker)
        return NULL;
    job->avoid_worker_id = 0;
    class_change(core, job);
    if (!class_can_avoid(core, job->class, worker->worker_id))
        return NULL;
    job->avoid_worker_id = worker->worker_id;
    class_change(core, job);
    return worker;
}

/* The same again would end the same way. */
static bool memory_is_exhausted(const struct job *job, enum cause cause)
{
    uint64_t most = job->retry.memory_max_bytes;
    return cause == CAUSE_OOM && most && job->memory_bytes >= most;
}

static void job_retry(struct core *core, struct job *job, const struct attempt *attempt)
{
    enum cause cause = attempt->cause;
    uint64_t wait = backoff_ms(job), memory_before = job->memory_bytes;
    char size[PARSE_TEXT_SIZE];
    const char *with = "";
    if (cause == CAUSE_OOM)
        memory_escalate(job);
    if (job->memory_bytes != memory_before)
        class_change(core, job);
    const struct worker *avoided = elsewhere_choose(core, job, attempt);
    if (avoided)
        with = arena_printf(step_arena(core), ", not on %s", avoided->name);
    if (job->memory_bytes != memory_before)
        with = arena_printf(step_arena(core), ", with %s a rank%s",
                            format_size_short(job->memory_bytes, size), with);
    job_move(core, job, JOB_ON_RETRY);
    job->cause = cause;
    text_set(&job->detail, attempt->evidence);
    job->eligible_at = core->wall_us + wait * 1000;
    timer_set(&core->timers, &job->timer, max_u64(core->now_ms + wait, 1));
    history_add(core, "retry", job->job_id, 0, 0, NULL,
                arena_printf(step_arena(core), "attempt %llu of %u in %llu ms after %s%s",
                             (unsigned long long)job->attempts_spent + 1, job->retry.attempts,
                             (unsigned long long)wait, cause_name(cause), with));
}

/* It was asked to make room, which is no failure of anything. */
static bool cause_is_requeued(enum cause cause, enum cause stop_cause)
{
    return cause == CAUSE_NODE_ENDED ||
           (cause == stop_cause && (cause == CAUSE_PREEMPTED || cause == CAUSE_DRAINED));
}

void job_after_attempt(struct core *core, struct job *job, const struct attempt *attempt)
{
    enum cause cause = attempt->cause, stop_cause = attempt->stop_cause;
    const char *detail = attempt->evidence;
    bool rewound = cause == CAUSE_DIVERGED && job->rewinds;
    bool listed =
        attempt->node_fault || rewound || (job->retry.causes & SPEC_CAUSE_BIT(cause)) != 0;
    if (cause == CAUSE_SUCCESS)
        job_end(core, job, JOB_ON_SUCCEED, cause, detail);
    else if (job->state == JOB_STOPPING && stop_cause == CAUSE_PRUNED)
        job_end(core, job, JOB_ON_STOPPED, CAUSE_PRUNED, job->detail);
    else if (job->state == JOB_STOPPING)
        job_end(core, job, JOB_ON_STOPPED, CAUSE_CANCELLED, detail);
    else if (cause_is_requeued(cause, stop_cause))
        job_requeue(core, job, cause, detail);
    else if (listed && memory_is_exhausted(job, cause))
        job_end(core, job, JOB_ON_FAIL, cause,
                arena_printf(step_arena(core), "%s; it had retry.memory_max",
                             detail ? detail : ""));
    else if (listed && job->attempts_spent < job->retry.attempts)
        job_retry(core, job, attempt);
    else
        job_end(core, job, JOB_ON_FAIL, cause, detail);
}

void job_backoff_due(struct core *core, struct job *job)
{
    job->eligible_at = 0;
    job_move(core, job, JOB_ON_DUE);
}
