/* limit.c - caps on what may run at once.
 *
 * A limit is in memory while a class points to it, and nowhere else: what it allows is in the
 * specs of its jobs, what is used is counted from the attempts that live, so both come back with
 * the rows. Each class counts against at most POLICY_LIMITS_MAX of them. */
#include "coordinator/core/state.h"

#include <string.h>

static struct limit *limit_get(struct core *core, enum limit_kind kind, uint64_t id,
                               uint64_t jobs_max)
{
    struct limit_key key = {.kind = kind, .id = id};
    struct limit *limit = NULL;
    HASH_FIND(hh, core->limits_by_key, &key, sizeof key, limit);
    if (limit)
        return limit;
    limit = mem_zalloc(sizeof *limit);
    limit->key = key;
    limit->jobs_max = jobs_max;
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
    }
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

void limits_leave(struct core *core, struct class *class)
{
    for (size_t i = 0; i < class->limit_count; i++)
        if (--class->limits[i]->class_count == 0)
            limit_remove(core, class->limits[i]);
    class->limit_count = 0;
}

void limits_take(const struct class *class)
{
    for (size_t i = 0; i < class->limit_count; i++)
        class->limits[i]->jobs_used++;
}

void limits_give(struct core *core, const struct class *class)
{
    for (size_t i = 0; i < class->limit_count; i++) {
        CHECK(class->limits[i]->jobs_used > 0);
        class->limits[i]->jobs_used--;
    }
    if (class->limit_count > 0)
        core_mark_placement(core);
}

const struct limit *limits_full(const struct class *class)
{
    for (size_t i = 0; i < class->limit_count; i++)
        if (class->limits[i]->jobs_used >= class->limits[i]->jobs_max)
            return class->limits[i];
    return NULL;
}

void limits_view(const struct core *core, struct arena *arena, struct policy_view *view)
{
    struct policy_limit *limits = arena_alloc(arena, core->limit_count * sizeof *limits);
    for (size_t i = 0; i < core->limit_count; i++) {
        const struct limit *limit = core->limits[i];
        uint64_t left =
            limit->jobs_used < limit->jobs_max ? limit->jobs_max - limit->jobs_used : 0;
        limits[i] = (struct policy_limit){
            .jobs = left, .cores = UINT64_MAX, .gpus = UINT64_MAX, .gpu_ms = UINT64_MAX};
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
