/* place.c - one scheduling pass: view, plan by the policy, verification, placement. */
#include "coordinator/core/state.h"

#include <stdlib.h>

static bool view_next_job(const void *opaque, size_t class_index, const struct policy_job *after,
                          struct policy_job *out)
{
    const struct core *core = opaque;
    const struct queue *queue = &core->classes[class_index]->queue;
    const struct queue_node *node =
        after ? queue_after(queue, after->key, after->job_id) : queue_first(queue);
    if (!node)
        return false;
    *out = (struct policy_job){.job_id = node->job_id, .key = node->priority};
    return true;
}

static bool view_allows(const void *opaque, size_t class_index, size_t worker_index,
                        uint64_t start_ms, struct policy_fit *out)
{
    const struct core *core = opaque;
    const struct class *class = core->classes[class_index];
    const struct worker *worker = core->workers[worker_index];
    *out = (struct policy_fit){0};
    return class_allows(class, worker) && !reservation_against(core, class, worker, start_ms);
}

static void view_workers(const struct core *core, struct arena *arena, struct policy_view *view)
{
    struct policy_worker *workers = arena_alloc(arena, core->worker_count * sizeof *workers);
    size_t *changed = arena_alloc(arena, core->changed.count * sizeof *changed);
    for (size_t i = 0; i < core->worker_count; i++)
        workers[i] = (struct policy_worker){
            .worker_id = core->workers[i]->worker_id,
            .usable = worker_is_usable(core->workers[i]),
            .has_gpus = core->workers[i]->gpus > 0,
            .idle = core->workers[i]->attempt_count == 0,
            .free = worker_free_need(core->workers[i]),
            .total = {core->workers[i]->cores, core->workers[i]->memory_bytes,
                      core->workers[i]->gpus},
        };
    for (size_t i = 0; i < core->changed.count; i++)
        changed[i] = ((struct worker *)core->changed.items[i])->index;
    view->workers = workers;
    view->worker_count = core->worker_count;
    view->changed = changed;
    view->changed_count = core->changed.count;
}

static void view_classes(const struct core *core, struct arena *arena, struct policy_view *view)
{
    struct policy_class *classes = arena_alloc(arena, core->class_count * sizeof *classes);
    for (size_t i = 0; i < core->class_count; i++) {
        const struct class *class = core->classes[i];
        classes[i] = (struct policy_class){
            .rank = class->ask.rank,
            .ranks = class->ask.ranks,
            .nodes_min = 1,
            .nodes_max = 1,
            .constrained = class->ask.constraint_count > 0 || class->ask.nodes_min > 1,
            .blocked = class->blocked,
            .wall_time_ms = class->ask.wall_time_ms ? class->ask.wall_time_ms : POLICY_NEVER,
            .ready_count = class->queue.count,
            .limit_count = class->limit_count,
        };
        rights_view(core, class, &classes[i]);
        for (size_t k = 0; k < class->limit_count; k++)
            classes[i].limits[k] = (uint32_t)class->limits[k]->index;
    }
    view->classes = classes;
    view->class_count = core->class_count;
}

/* Of a running attempt the worker enforces the limit; wall_due_ms lies a grace and a lease
 * behind it. */
static uint64_t attempt_ends_ms(const struct core *core, const struct attempt *attempt)
{
    const struct spec_limits *limits = &attempt->job->limits;
    if (attempt->state == ATTEMPT_STOPPING)
        return attempt->stop_ms + limits->stop_grace_ms;
    if (limits->wall_time_ms == 0)
        return POLICY_NEVER;
    if (attempt->wall_due_ms == 0)
        return core->now_ms + limits->wall_time_ms;
    return attempt->wall_due_ms - core->config.lease_ms - limits->stop_grace_ms;
}

static int running_order(const void *a, const void *b)
{
    const struct policy_running *left = a, *right = b;
    return (left->job_id > right->job_id) - (left->job_id < right->job_id);
}

static size_t view_running(const void *opaque, struct arena *arena,
                           const struct policy_running **out)
{
    const struct core *core = opaque;
    size_t count = HASH_COUNT(core->attempts), at = 0;
    struct policy_running *list = arena_alloc(arena, count * sizeof *list);
    struct policy_share *shares = arena_alloc(arena, count * sizeof *shares);
    for (const struct attempt *attempt = core->attempts; attempt; attempt = attempt->hh.next) {
        shares[at] = (struct policy_share){.worker_index = attempt->worker->index,
                                           .ranks = attempt->job->ranks};
        list[at] = (struct policy_running){
            .job_id = attempt->job->job_id,
            .class_index = attempt->job->class->index,
            .shares = &shares[at],
            .share_count = 1,
            .ends_ms = attempt_ends_ms(core, attempt),
            .stop_ms = attempt->job->limits.stop_grace_ms,
            .stopping = attempt->state == ATTEMPT_STOPPING,
        };
        at++;
    }
    qsort(list, count, sizeof *list, running_order);
    *out = list;
    return count;
}

/* What a plan says must be true now, whatever the policy thought (invariants 1, 2, 8). */
static bool placement_is_sound(const struct core *core, const struct policy_placement *placement)
{
    const struct job *job = job_find(core, placement->job_id);
    if (!job || placement->share_count != 1 || placement->shares[0].ranks != job->ranks ||
        placement->shares[0].worker_index >= core->worker_count)
        return false;
    const struct worker *worker = core->workers[placement->shares[0].worker_index];
    struct policy_need free = worker_free_need(worker);
    return job->state == JOB_READY && !job->held && !job->attempt && job->edges_waiting == 0 &&
           !limits_full(job->class) && worker_is_usable(worker) && class_allows(job->class, worker) &&
           !reservation_against(core, job->class, worker, core->now_ms) &&
           policy_fits(&job->class->need, &free);
}

static void placement_apply(struct core *core, const struct policy_placement *placement)
{
    struct err err;
    if (!placement_is_sound(core, placement)) {
        core->counts.placements_refused++;
        return;
    }
    struct job *job = job_find(core, placement->job_id);
    if (input_resolve_all(core, job, &err) < 0) {
        job_end(core, job, JOB_ON_INPUT_MISSING, CAUSE_LAUNCH_FAILED,
                arena_strdup(step_arena(core), err.text));
        return;
    }
    attempt_place(core, job, core->workers[placement->shares[0].worker_index]);
    core->counts.placements++;
}

static void changed_clear(struct core *core)
{
    for (size_t i = 0; i < core->changed.count; i++)
        ((struct worker *)core->changed.items[i])->changed = false;
    core->changed.count = 0;
}

void place_run(struct core *core)
{
    struct arena *arena = step_arena(core);
    struct policy_view view = {.core = core,
                               .now_ms = core->now_ms,
                               .next_job = view_next_job,
                               .allows = view_allows,
                               .running = view_running};
    struct policy_plan plan = {.arena = arena};
    rights_pass(core);
    reservations_view(core, arena, &view);
    view_workers(core, arena, &view);
    view_classes(core, arena, &view);
    limits_view(core, arena, &view);
    plan.verdicts = arena_alloc(arena, core->class_count * sizeof *plan.verdicts);
    core->policy->plan(&view, &plan);
    for (size_t i = 0; i < core->class_count; i++)
        core->classes[i]->blocked = plan.verdicts[i].exhausted;
    changed_clear(core);
    core->placement_wanted = false; /* what the placements below change wants another pass */
    for (size_t i = 0; i < plan.placement_count; i++)
        placement_apply(core, &plan.placements[i]);
    core->counts.passes++;
}
