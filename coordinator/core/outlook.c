/* outlook.c - when a job would start, and what if it asked for something else.
 *
 * The present policy makes a plan for the present view with one class more, in which the job in
 * question stands alone, at its place in the order. Nothing of it is applied: asking changes no
 * state. What the plan cannot know is what will be submitted later. */
#include "coordinator/core/state.h"

#include "common/base/parse.h"

#include <string.h>

#define WORKERS_TOLD 4u /* in a sentence */

/* The core's view, without the job in its own class, and with it in a class of its own. */
struct imagined {
    const struct policy_view *real;
    const struct class *class;
    size_t class_index; /* of the class of its own: the last one */
    struct policy_job job;
};

static bool imagined_next_job(const void *opaque, size_t class_index,
                              const struct policy_job *after, struct policy_job *out)
{
    const struct imagined *imagined = opaque;
    const struct policy_view *real = imagined->real;
    if (class_index == imagined->class_index) {
        *out = imagined->job;
        return after == NULL;
    }
    bool found = real->next_job(real->core, class_index, after, out);
    if (found && out->job_id == imagined->job.job_id) {
        struct policy_job self = *out;
        found = real->next_job(real->core, class_index, &self, out);
    }
    return found;
}

static bool imagined_allows(const void *opaque, size_t class_index, size_t worker_index,
                            uint64_t start_ms, struct policy_fit *out)
{
    const struct imagined *imagined = opaque;
    const struct policy_view *real = imagined->real;
    if (class_index == imagined->class_index)
        return place_allows(real->core, imagined->class, worker_index, start_ms, out);
    return real->allows(real->core, class_index, worker_index, start_ms, out);
}

static size_t imagined_running(const void *opaque, struct arena *arena,
                               const struct policy_running **out)
{
    const struct imagined *imagined = opaque;
    return imagined->real->running(imagined->real->core, arena, out);
}

static size_t imagined_holders(const void *opaque, uint64_t job_id,
                               struct policy_holder out[POLICY_HOLDERS_MAX])
{
    const struct imagined *imagined = opaque;
    return imagined->real->holders(imagined->real->core, job_id, out);
}

static void view_imagine(struct core *core, const struct imagined *imagined, struct arena *arena,
                         struct policy_view *out)
{
    const struct policy_view *real = imagined->real;
    struct policy_class *classes = arena_alloc(arena, (real->class_count + 1) * sizeof *classes);
    if (real->class_count)
        memcpy(classes, real->classes, real->class_count * sizeof *classes);
    struct policy_class *own = &classes[real->class_count];
    place_class_view(core, imagined->class, own);
    own->blocked = false; /* nobody has asked for it yet */
    own->ready_count = 1;
    *out = *real;
    out->core = imagined;
    out->classes = classes;
    out->class_count = real->class_count + 1;
    out->estimate = true;
    out->next_job = imagined_next_job;
    out->allows = imagined_allows;
    out->running = imagined_running;
    out->holders = imagined_holders;
}

/* ---- what the plan says ------------------------------------------------------------------ */

static void workers_take(const struct core *core, const struct policy_share *shares, size_t count,
                         struct arena *arena, struct core_outlook *out)
{
    const char **names = arena_alloc(arena, (count + 1) * sizeof *names);
    for (size_t i = 0; i < count; i++)
        names[i] = core->workers[shares[i].worker_index]->name;
    out->workers = names;
    out->worker_count = count;
}

static const char *workers_text(const struct core_outlook *outlook, struct arena *arena)
{
    const char *text = "";
    for (size_t i = 0; i < outlook->worker_count && i < WORKERS_TOLD; i++)
        text = arena_printf(arena, "%s%s%s", text, i ? ", " : " on ", outlook->workers[i]);
    if (outlook->worker_count > WORKERS_TOLD)
        text = arena_printf(arena, "%s and %zu more", text, outlook->worker_count - WORKERS_TOLD);
    return text;
}

static const char *sentence(const struct core_outlook *outlook, struct arena *arena)
{
    const char *on = workers_text(outlook, arena);
    switch (outlook->when) {
    case CORE_STARTS_NOW:
        return arena_printf(arena, "now%s", on);
    case CORE_STARTS_BY:
        return arena_printf(arena, "%s%s%s", outlook->firm ? "at the latest in " : "in about ",
                            why_span_text(arena, outlook->in_ms), on);
    case CORE_STARTS_SOMETIME:
        return arena_printf(arena,
                            "room is kept%s, but something without a wall time runs there, so "
                            "nobody knows until when",
                            on);
    case CORE_STARTS_UNKNOWN:
        break;
    }
    return "unknown: see what is in the way";
}

static void plan_read(const struct core *core, const struct policy_plan *plan, uint64_t job_id,
                      struct arena *arena, struct core_outlook *out)
{
    out->when = CORE_STARTS_UNKNOWN;
    for (size_t i = 0; i < plan->placement_count; i++) {
        const struct policy_placement *placement = &plan->placements[i];
        if (placement->job_id != job_id)
            continue;
        out->when = CORE_STARTS_NOW;
        out->firm = true;
        workers_take(core, placement->shares, placement->share_count, arena, out);
        return;
    }
    for (size_t i = 0; i < plan->reservation_count; i++) {
        const struct policy_reservation *reservation = &plan->reservations[i];
        if (reservation->job_id != job_id)
            continue;
        bool dated = reservation->start_ms != POLICY_NEVER;
        out->when = dated ? CORE_STARTS_BY : CORE_STARTS_SOMETIME;
        out->in_ms = dated && reservation->start_ms > core->now_ms
                         ? reservation->start_ms - core->now_ms
                         : 0;
        out->firm = reservation->firm;
        workers_take(core, reservation->shares, reservation->share_count, arena, out);
        return;
    }
}

void outlook_find(struct core *core, const struct class *class, struct policy_job job,
                  struct arena *arena, struct core_outlook *out, struct policy_verdict *out_verdict)
{
    struct policy_view real, view;
    place_view(core, arena, &real);
    struct imagined imagined = {&real, class, real.class_count, job};
    view_imagine(core, &imagined, arena, &view);
    struct policy_plan plan = {.arena = arena};
    plan.verdicts = arena_alloc(arena, view.class_count * sizeof *plan.verdicts);
    core->policy->plan(&view, &plan);
    plan_read(core, &plan, job.job_id, arena, out);
    *out_verdict = plan.verdicts[imagined.class_index];
    out->text = sentence(out, arena);
}

/* ---- a job that asks for something else --------------------------------------------------- */

/* Its longest time and its quotas are those of the new queue. */
static int queue_change(struct core *core, const char *name, struct class *class, struct err *err)
{
    char asked[PARSE_TEXT_SIZE], most[PARSE_TEXT_SIZE];
    struct queue_config *queue = queue_config_find(core, name);
    if (!queue)
        return err_set(err, ERR_NOT_FOUND, "there is no queue '%s'", name);
    if (queue->max_wall_ms && class->ask.wall_time_ms > queue->max_wall_ms)
        return err_set(err, ERR_INVALID, "wall_time is %s, and queue '%s' takes jobs of at most %s",
                       format_duration_ms(class->ask.wall_time_ms, asked), name,
                       format_duration_ms(queue->max_wall_ms, most));
    if (class->ask.wall_time_ms == 0)
        class->ask.wall_time_ms = queue->max_wall_ms;
    class->queue_config = queue;
    quotas_swap(core, class);
    return 0;
}

static int change(struct core *core, const struct core_changes *changes, struct class *class,
                  struct err *err)
{
    struct ask *ask = &class->ask;
    if (changes->given & CORE_CHANGE_CORES)
        ask->rank.cores = changes->cores;
    if (changes->given & CORE_CHANGE_MEMORY)
        ask->rank.memory_bytes = changes->memory_bytes;
    if (changes->given & CORE_CHANGE_GPUS)
        ask->rank.gpus = changes->gpus;
    if (changes->given & CORE_CHANGE_RANKS)
        ask->ranks = (uint32_t)changes->ranks;
    if (changes->given & CORE_CHANGE_NODES)
        ask->nodes_min = ask->nodes_max = (uint32_t)changes->nodes;
    if (changes->given & CORE_CHANGE_WALL_TIME)
        ask->wall_time_ms = changes->wall_time_ms;
    if (ask->ranks < ask->nodes_min)
        return err_set(err, ERR_INVALID,
                       "%u rank%s cannot be on %u nodes, expected at most as many", ask->ranks,
                       ask->ranks == 1 ? "" : "s", ask->nodes_min);
    class->need = (struct policy_need){.cores = ask->ranks * ask->rank.cores,
                                       .memory_bytes = ask->ranks * ask->rank.memory_bytes,
                                       .gpus = ask->ranks * ask->rank.gpus};
    return changes->queue ? queue_change(core, changes->queue, class, err) : 0;
}

int core_outlook(struct core *core, uint64_t job_id, const struct core_changes *changes,
                 struct arena *arena, struct core_outlook *out, struct err *err)
{
    const struct job *job = job_find(core, job_id);
    if (!job || job_state_is_terminal(job->state))
        return err_set(err, ERR_NOT_FOUND, "job %llu does not wait: it has ended, or never was",
                       (unsigned long long)job_id);
    struct class changed = *job->class; /* in no index: it borrows all of it */
    changed.job_count = 0;
    struct policy_verdict verdict;
    struct core_outlook outlook = {0};
    if (change(core, changes, &changed, err) < 0)
        return -1;
    outlook_find(core, &changed, (struct policy_job){job_id, job_key(core, job)}, arena, &outlook,
                 &verdict);
    outlook.reasons = arena_alloc(arena, REASON_END * sizeof *outlook.reasons);
    outlook.reason_count =
        why_job_and_inputs(core, job, &changed, &verdict, arena, outlook.reasons);
    outlook.ready = job->state == JOB_READY && !job->held;
    if (changes->queue)
        quotas_leave(core, &changed);
    *out = outlook;
    return 0;
}
