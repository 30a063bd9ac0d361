/* limit.c - caps on what may run at once.
 *
 * A limit is in memory while a class points to it, and nowhere else: what it allows is in the
 * specs of its jobs or in a quota (quota.c), what is used is counted from the attempts that live,
 * so both come back with the rows. Each class counts against at most POLICY_LIMITS_MAX of them:
 * the cap of its array or sweep first, then the quotas. */
#include "coordinator/core/state.h"

#include <string.h>

struct limit *limit_find(const struct core *core, enum limit_kind kind, uint64_t id)
{
    struct limit_key key = {.kind = kind, .id = id};
    struct limit *limit = NULL;
    HASH_FIND(hh, core->limits_by_key, &key, sizeof key, limit);
    return limit;
}

struct limit *limit_get(struct core *core, enum limit_kind kind, uint64_t id, uint64_t jobs_max)
{
    struct limit_key key = {.kind = kind, .id = id};
    struct limit *limit = limit_find(core, kind, id);
    if (limit)
        return limit;
    limit = mem_zalloc(sizeof *limit);
    limit->key = key;
    limit->jobs_max = jobs_max;
    limit->cores_max = limit->gpus_max = limit->gpu_ms_left = UINT64_MAX;
    limit->index = core->limit_count;
    HASH_ADD(hh, core->limits_by_key, key, sizeof limit->key, limit);
    VEC_RESERVE(core->limits, core->limit_count, core->limit_capacity);
    core->limits[core->limit_count++] = limit;
    return limit;
}

size_t limit_keys(const struct job *job, struct limit_key out[POLICY_LIMITS_MAX])
{
    size_t count = 0;
    memset(out, 0, POLICY_LIMITS_MAX * sizeof *out); /* the keys are compared as bytes */
    if (job->at_once > 0)
        out[count++] = (struct limit_key){.kind = LIMIT_GROUP, .id = job->group_id};
    return count;
}

void limits_join(struct core *core, struct class *class, const struct job *job)
{
    struct limit_key keys[POLICY_LIMITS_MAX];
    class->limit_count = limit_keys(job, keys);
    for (size_t i = 0; i < class->limit_count; i++) {
        class->limits[i] = limit_get(core, keys[i].kind, keys[i].id, job->at_once);
        class->limits[i]->class_count++;
        class->limits[i]->live += class->job_count;
    }
    quotas_join(core, class);
}

static void limit_remove(struct core *core, struct limit *limit)
{
    HASH_DELETE(hh, core->limits_by_key, limit);
    core->limit_count--;
    for (size_t i = limit->index; i < core->limit_count; i++) {
        core->limits[i] = core->limits[i + 1];
        core->limits[i]->index = i;
    }
    mem_free(limit);
}

/* The last of the class's limits loses it. */
static void limit_leave(struct core *core, struct class *class)
{
    struct limit *limit = class->limits[--class->limit_count];
    limit->live -= class->job_count;
    if (--limit->class_count == 0)
        limit_remove(core, limit);
}

void limits_leave(struct core *core, struct class *class)
{
    while (class->limit_count > 0)
        limit_leave(core, class);
}

void quotas_leave(struct core *core, struct class *class)
{
    while (class->limit_count > 0 && class->limits[class->limit_count - 1]->quota)
        limit_leave(core, class);
}

void limits_live(const struct class *class, bool more)
{
    for (size_t i = 0; i < class->limit_count; i++)
        class->limits[i]->live += more ? 1 : UINT64_MAX; /* one less */
}

static void limit_take(struct core *core, struct limit *limit, const struct attempt *attempt)
{
    limit->jobs_used++;
    limit->cores_used += attempt->charge.cores;
    limit->gpus_used += attempt->charge.gpus;
    quota_take(core, limit, attempt);
}

void limits_take(struct core *core, const struct attempt *attempt)
{
    const struct class *class = attempt->job->class;
    for (size_t i = 0; i < class->limit_count; i++)
        limit_take(core, class->limits[i], attempt);
}

void limits_retake(struct core *core, const struct attempt *attempt)
{
    const struct class *class = attempt->job->class;
    for (size_t i = 0; i < class->limit_count; i++)
        if (class->limits[i]->quota)
            limit_take(core, class->limits[i], attempt);
}

bool limit_is_over(const struct limit *limit)
{
    return limit->jobs_used > limit->jobs_max || limit->cores_used > limit->cores_max ||
           limit->gpus_used > limit->gpus_max;
}

void limits_give(struct core *core, const struct attempt *attempt)
{
    const struct class *class = attempt->job->class;
    for (size_t i = 0; i < class->limit_count; i++) {
        struct limit *limit = class->limits[i];
        CHECK(limit->jobs_used > 0);
        quota_give(core, limit, attempt);
        limit->jobs_used--;
        limit->cores_used -= attempt->charge.cores;
        limit->gpus_used -= attempt->charge.gpus;
        limit->over = limit->over && limit_is_over(limit);
    }
    if (class->limit_count > 0)
        core_mark_placement(core);
}

bool fits_below(uint64_t used, uint64_t need, uint64_t most)
{
    return need == 0 || (used <= most && need <= most - used);
}

bool limit_is_full(const struct limit *limit, const struct class *class, struct charge charge)
{
    return !fits_below(limit->jobs_used, 1, limit->jobs_max) ||
           !fits_below(limit->cores_used, charge.cores, limit->cores_max) ||
           !fits_below(limit->gpus_used, charge.gpus, limit->gpus_max) ||
           class_gpu_ms(class, charge) > limit->gpu_ms_left;
}

const struct limit *limits_full(const struct class *class, struct charge charge)
{
    for (size_t i = 0; i < class->limit_count; i++)
        if (limit_is_full(class->limits[i], class, charge))
            return class->limits[i];
    return NULL;
}

static uint64_t left(uint64_t used, uint64_t most)
{
    return most == UINT64_MAX ? UINT64_MAX : most - min_u64(used, most);
}

void limits_view(const struct core *core, struct arena *arena, struct policy_view *view)
{
    struct policy_limit *limits = arena_alloc(arena, core->limit_count * sizeof *limits);
    for (size_t i = 0; i < core->limit_count; i++) {
        const struct limit *limit = core->limits[i];
        limits[i] = (struct policy_limit){.jobs = left(limit->jobs_used, limit->jobs_max),
                                          .cores = left(limit->cores_used, limit->cores_max),
                                          .gpus = left(limit->gpus_used, limit->gpus_max),
                                          .gpu_ms = limit->gpu_ms_left};
    }
    view->limits = limits;
    view->limit_count = core->limit_count;
}

void limits_done(struct core *core)
{
    HASH_CLEAR(hh, core->limits_by_key);
    for (size_t i = 0; i < core->limit_count; i++)
        mem_free(core->limits[i]);
    mem_free(core->limits);
}
