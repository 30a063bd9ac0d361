/* place.c - one scheduling pass: view, plan by the policy, verification, placement. */
#include "coordinator/core/state.h"

static bool view_next_job(const void *opaque, size_t class_index, const struct policy_job *after,
                          struct policy_job *out)
{
    const struct core *core = opaque;
    const struct queue *queue = &core->classes[class_index]->queue;
    const struct queue_node *node =
        after ? queue_after(queue, after->priority, after->job_id) : queue_first(queue);
    if (!node)
        return false;
    *out = (struct policy_job){.job_id = node->job_id, .priority = node->priority};
    return true;
}

static bool view_allows(const void *opaque, size_t class_index, size_t worker_index)
{
    const struct core *core = opaque;
    return class_allows(core->classes[class_index], core->workers[worker_index]);
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
            .free = worker_free_need(core->workers[i]),
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
            .need = class->need,
            .constrained = class->constraint_count > 0,
            .blocked = class->blocked,
            .ready_count = class->queue.count,
        };
    }
    view->classes = classes;
    view->class_count = core->class_count;
}

/* What a plan says must be true now, whatever the policy thought (invariants 1, 2, 8). */
static bool placement_is_sound(const struct core *core, const struct policy_placement *placement)
{
    const struct job *job = job_find(core, placement->job_id);
    if (!job || placement->worker_index >= core->worker_count)
        return false;
    const struct worker *worker = core->workers[placement->worker_index];
    struct policy_need free = worker_free_need(worker);
    return job->state == JOB_READY && !job->held && !job->attempt && job->edges_waiting == 0 &&
           worker_is_usable(worker) && class_allows(job->class, worker) &&
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
    attempt_place(core, job, core->workers[placement->worker_index]);
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
    struct policy_view view = {.core = core, .next_job = view_next_job, .allows = view_allows};
    struct policy_plan plan = {.arena = arena};
    view_workers(core, arena, &view);
    view_classes(core, arena, &view);
    plan.exhausted = arena_alloc(arena, core->class_count * sizeof *plan.exhausted);
    core->policy->plan(&view, &plan);
    for (size_t i = 0; i < core->class_count; i++)
        core->classes[i]->blocked = plan.exhausted[i];
    changed_clear(core);
    core->placement_wanted = false; /* what the placements below change wants another pass */
    for (size_t i = 0; i < plan.placement_count; i++)
        placement_apply(core, &plan.placements[i]);
    core->counts.passes++;
}
