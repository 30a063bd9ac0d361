/* place.c - one scheduling pass: view, plan by the policy, verification, placement. */
#include "coordinator/core/state.h"

#include <stdlib.h>
#include <string.h>

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

/* Parts of gangs lie where others reach them. */
bool place_allows(const struct core *core, const struct class *class, size_t worker_index,
                  uint64_t start_ms, struct policy_fit *out)
{
    const struct worker *worker = core->workers[worker_index];
    *out = (struct policy_fit){.gpus_unfit = class_gpus_unfit(class, worker)};
    return class_allows(class, worker) &&
           (class_nodes_max(core, class) == 1 || worker->endpoint[0]) &&
           !reservation_against(core, class, worker, start_ms) &&
           !worker_leaves_before(core, class, worker, start_ms);
}

static bool view_allows(const void *opaque, size_t class_index, size_t worker_index,
                        uint64_t start_ms, struct policy_fit *out)
{
    const struct core *core = opaque;
    return place_allows(core, core->classes[class_index], worker_index, start_ms, out);
}

static size_t view_holders(const void *opaque, uint64_t job_id,
                           struct policy_holder out[POLICY_HOLDERS_MAX])
{
    const struct core *core = opaque;
    const struct job *job = job_find(core, job_id);
    return job ? copies_holders(core, job, out) : 0;
}

/* ---- the view ---------------------------------------------------------------------------- */

static const char *const level_labels[POLICY_LEVELS] = {"switch", "rack"};

struct grouped {
    struct worker *worker;
    const char *label; /* "": none, which is a group too */
};

static int grouped_order(const void *a, const void *b)
{
    const struct grouped *left = a, *right = b;
    return strcmp(left->label, right->label);
}

static void groups_number(struct core *core, struct arena *arena)
{
    struct grouped *list = arena_alloc(arena, core->worker_count * sizeof *list);
    for (size_t level = 0; level < POLICY_LEVELS; level++) {
        uint32_t group = 0;
        for (size_t i = 0; i < core->worker_count; i++) {
            const char *label = worker_label(core->workers[i], level_labels[level]);
            list[i] = (struct grouped){core->workers[i], label ? label : ""};
        }
        qsort(list, core->worker_count, sizeof *list, grouped_order);
        for (size_t i = 0; i < core->worker_count; i++) {
            group += i && strcmp(list[i].label, list[i - 1].label) != 0;
            list[i].worker->group[level] = group;
        }
    }
    core->topology_changed = false;
}

static void view_workers(struct core *core, struct arena *arena, struct policy_view *view)
{
    struct policy_worker *workers = arena_alloc(arena, core->worker_count * sizeof *workers);
    size_t *changed = arena_alloc(arena, core->changed.count * sizeof *changed);
    core->meshed = core->some_leave = false;
    for (size_t i = 0; i < core->worker_count; i++) {
        const struct worker *worker = core->workers[i];
        workers[i] = (struct policy_worker){
            .worker_id = worker->worker_id,
            .usable = worker_is_usable(worker),
            .has_gpus = worker->gpus > 0,
            .idle = worker->part_count == 0,
            .taken = worker->taken,
            .free = worker_free_need(worker),
            .total = {worker->cores, worker->memory_bytes, worker->gpus},
        };
        memcpy(workers[i].group, worker->group, sizeof worker->group);
        core->meshed = core->meshed || (workers[i].usable && worker->endpoint[0]);
        core->some_leave = core->some_leave || worker->until_at;
    }
    for (size_t i = 0; i < core->changed.count; i++)
        changed[i] = ((struct worker *)core->changed.items[i])->index;
    view->workers = workers;
    view->worker_count = core->worker_count;
    view->changed = changed;
    view->changed_count = core->changed.count;
}

void place_class_view(const struct core *core, const struct class *class, struct policy_class *out)
{
    const struct ask *ask = &class->ask;
    *out = (struct policy_class){
        .rank = ask->rank,
        .ranks = ask->ranks,
        .nodes_min = ask->nodes_min,
        .nodes_max = class_nodes_max(core, class),
        .ranks_per_node = ask->ranks_per_node,
        .exclusive = ask->exclusive,
        .spread = ask->spread,
        .constrained =
            ask->constraint_count > 0 || *ask->gpu_model || ask->avoid_worker_id ||
            class_nodes_max(core, class) > 1 ||
            core->some_leave,
        .blocked = class->blocked,
        .reads = class->reads,
        .wall_time_ms = ask->wall_time_ms ? ask->wall_time_ms : POLICY_NEVER,
        .charged_ms = ask->wall_time_ms ? ask->wall_time_ms : POLICY_NEVER,
        .ready_count = class->queue.count,
        .limit_count = class->limit_count,
    };
    rights_view(core, class, out);
    for (size_t i = 0; i < class->limit_count; i++)
        out->limits[i] = (uint32_t) class->limits[i]->index;
}

static void view_classes(const struct core *core, struct arena *arena, struct policy_view *view)
{
    struct policy_class *classes = arena_alloc(arena, core->class_count * sizeof *classes);
    for (size_t i = 0; i < core->class_count; i++)
        place_class_view(core, core->classes[i], &classes[i]);
    view->classes = classes;
    view->class_count = core->class_count;
}

/* The worker enforces the limit; wall_due_ms lies a grace and a lease behind it. */
uint64_t attempt_ends_ms(const struct core *core, const struct attempt *attempt)
{
    const struct spec_limits *limits = &attempt->job->limits;
    if (attempt->state == ATTEMPT_STOPPING)
        return attempt->stop_ms + limits->stop_grace_ms;
    if (attempt->preempt_due_ms)
        return attempt->preempt_due_ms + limits->stop_grace_ms;
    if (limits->wall_time_ms == 0)
        return POLICY_NEVER;
    if (attempt->wall_due_ms == 0)
        return core->now_ms + limits->wall_time_ms;
    return attempt->wall_due_ms - core->config.lease_ms - limits->stop_grace_ms;
}

/* Core-milliseconds since it began or saved last: what a stop would throw away. */
static uint64_t attempt_lost_ms(const struct core *core, const struct attempt *attempt)
{
    const struct job *job = attempt->job;
    const struct checkpoint *newest = checkpoint_resume(job);
    uint64_t since_us = attempt->started_at ? attempt->started_at : core->wall_us;
    if (newest && newest->attempt_id == attempt->attempt_id)
        since_us = max_u64(since_us, newest->saved_at);
    uint64_t lost_ms = core->wall_us > since_us ? (core->wall_us - since_us) / 1000 : 0;
    return lost_ms * max_u64(job->class->need.cores, 1);
}

static int running_order(const void *a, const void *b)
{
    const struct policy_running *left = a, *right = b;
    return (left->job_id > right->job_id) - (left->job_id < right->job_id);
}

/* What it still occupies: parts end one by one. */
static void running_put(const struct core *core, const struct attempt *attempt,
                        struct policy_share *shares, struct policy_running *out)
{
    const struct job *job = attempt->job;
    bool stopping = attempt->state == ATTEMPT_STOPPING || attempt->preempt_due_ms;
    *out = (struct policy_running){
        .job_id = job->job_id,
        .class_index = job->class->index,
        .shares = shares,
        .ends_ms = attempt_ends_ms(core, attempt),
        .stop_ms = 2 * job->limits.stop_grace_ms,
        .stopping = stopping,
        .lost_ms = attempt_lost_ms(core, attempt),
        .evictable = !stopping && job->queue->evictable,
    };
    for (size_t i = 0; i < attempt->part_count; i++)
        if (!attempt->parts[i].ended)
            shares[out->share_count++] =
                (struct policy_share){.worker_index = attempt->parts[i].worker->index,
                                      .ranks = attempt->parts[i].ranks};
}

static size_t view_running(const void *opaque, struct arena *arena,
                           const struct policy_running **out)
{
    const struct core *core = opaque;
    size_t count = HASH_COUNT(core->attempts), at = 0, parts = 0;
    for (const struct attempt *a = core->attempts; a; a = a->hh.next)
        parts += a->live_count;
    struct policy_running *list = arena_alloc(arena, count * sizeof *list);
    struct policy_share *shares = arena_alloc(arena, parts * sizeof *shares);
    for (const struct attempt *a = core->attempts; a; a = a->hh.next) {
        running_put(core, a, shares, &list[at++]);
        shares += a->live_count;
    }
    qsort(list, count, sizeof *list, running_order);
    *out = list;
    return count;
}

void place_view(struct core *core, struct arena *arena, struct policy_view *out)
{
    *out = (struct policy_view){.core = core,
                                .now_ms = core->now_ms,
                                .next_job = view_next_job,
                                .allows = view_allows,
                                .running = view_running,
                                .holders = view_holders};
    if (core->topology_changed)
        groups_number(core, arena);
    reservations_view(core, arena, out);
    view_workers(core, arena, out);
    view_classes(core, arena, out);
    limits_view(core, arena, out);
}

/* ---- the plan ---------------------------------------------------------------------------- */

/* What a plan says must be true now, whatever the policy thought (invariants 1, 2, 8). */
static bool job_may_start(const struct job *job)
{
    return job && job->state == JOB_READY && !job->held && !job->attempt && job->edges_waiting == 0;
}

static bool share_is_sound(const struct core *core, const struct class *class,
                           const struct policy_placement *placement, size_t index)
{
    const struct policy_share *share = &placement->shares[index];
    if (share->worker_index >= core->worker_count || share->ranks == 0)
        return false;
    const struct worker *worker = core->workers[share->worker_index];
    for (size_t i = 0; i < index; i++)
        if (placement->shares[i].worker_index == share->worker_index)
            return false;
    return worker_is_usable(worker) && class_allows(class, worker) && !worker->taken &&
           !reservation_against(core, class, worker, core->now_ms) &&
           !worker_leaves_before(core, class, worker, core->now_ms) &&
           (placement->share_count == 1 || worker->endpoint[0]) &&
           (!class->ask.exclusive || worker->part_count == 0) &&
           share->ranks <= class_ranks_on(class, worker, worker_free_need(worker));
}

static bool placement_is_sound(const struct core *core, const struct policy_placement *placement)
{
    const struct job *job = job_find(core, placement->job_id);
    uint64_t ranks = 0;
    struct charge charge = {0};
    if (!job_may_start(job) || placement->share_count < job->class->ask.nodes_min ||
        placement->share_count > job->class->ask.nodes_max)
        return false;
    for (size_t i = 0; i < placement->share_count; i++) {
        if (!share_is_sound(core, job->class, placement, i))
            return false;
        struct charge there =
            class_charge_on(job->class, core->workers[placement->shares[i].worker_index],
                            placement->shares[i].ranks);
        ranks += placement->shares[i].ranks;
        charge.cores += there.cores;
        charge.gpus += there.gpus;
    }
    return ranks == job->ranks && !limits_full(job->class, charge);
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
    struct slot *slots = arena_alloc(step_arena(core), placement->share_count * sizeof *slots);
    for (size_t i = 0; i < placement->share_count; i++)
        slots[i] = (struct slot){.worker = core->workers[placement->shares[i].worker_index],
                                 .ranks = placement->shares[i].ranks};
    attempt_place(core, job, slots, placement->share_count);
    core->counts.placements++;
}

static void eviction_apply(struct core *core, const struct policy_eviction *eviction)
{
    const struct job *victim = job_find(core, eviction->job_id);
    const struct job *winner = job_find(core, eviction->for_job_id);
    if (!victim || !victim->attempt || !victim->queue->evictable || !job_may_start(winner)) {
        core->counts.placements_refused++;
        return;
    }
    attempt_preempt(core, victim->attempt, CAUSE_PREEMPTED,
                    arena_printf(step_arena(core), "for job %llu (%s)",
                                 (unsigned long long)winner->job_id, winner->name));
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
    struct policy_view view;
    struct policy_plan plan = {.arena = arena};
    rights_pass(core);
    class_review_avoided(core);
    place_view(core, arena, &view);
    plan.verdicts = arena_alloc(arena, core->class_count * sizeof *plan.verdicts);
    core->policy->plan(&view, &plan);
    for (size_t i = 0; i < core->class_count; i++) {
        core->classes[i]->blocked = plan.verdicts[i].exhausted;
        core->classes[i]->verdict = plan.verdicts[i];
    }
    changed_clear(core);
    core->placement_wanted = false; /* what the placements below change wants another pass */
    for (size_t i = 0; i < plan.placement_count; i++)
        placement_apply(core, &plan.placements[i]);
    for (size_t i = 0; i < plan.eviction_count; i++)
        eviction_apply(core, &plan.evictions[i]);
    core->counts.passes++;
}
