/* policy.c - the list of policies and what they share; see policy.h. */
#include "coordinator/policy/plan.h"

#include <string.h>

#define POLICY(symbol) extern const struct policy policy_##symbol;
#include "coordinator/policy/policies.def"
#undef POLICY

static const struct policy *const policies[] = {
#define POLICY(symbol) &policy_##symbol,
#include "coordinator/policy/policies.def"
#undef POLICY
};

const struct policy *policy_at(size_t index)
{
    return index < ARRAY_COUNT(policies) ? policies[index] : NULL;
}

const struct policy *policy_find(const char *name)
{
    for (size_t i = 0; i < ARRAY_COUNT(policies); i++)
        if (strcmp(policies[i]->name, name) == 0)
            return policies[i];
    return NULL;
}

bool policy_fits(const struct policy_need *need, const struct policy_need *free)
{
    return need->cores <= free->cores && need->memory_bytes <= free->memory_bytes &&
           need->gpus <= free->gpus;
}

struct policy_need need_times(const struct policy_need *need, uint64_t times)
{
    return (struct policy_need){need->cores * times, need->memory_bytes * times,
                                need->gpus * times};
}

void need_add(struct policy_need *to, const struct policy_need *need, const struct policy_need *max)
{
    to->cores = min_u64(to->cores + need->cores, max->cores);
    to->memory_bytes = min_u64(to->memory_bytes + need->memory_bytes, max->memory_bytes);
    to->gpus = min_u64(to->gpus + need->gpus, max->gpus);
}

void need_cut(struct policy_need *from, const struct policy_need *need)
{
    from->cores -= min_u64(from->cores, need->cores);
    from->memory_bytes -= min_u64(from->memory_bytes, need->memory_bytes);
    from->gpus -= min_u64(from->gpus, need->gpus);
}

uint64_t time_after(uint64_t from_ms, uint64_t duration_ms)
{
    return duration_ms >= POLICY_NEVER - from_ms ? POLICY_NEVER : from_ms + duration_ms;
}

/* ---- the plan ----------------------------------------------------------------------------- */

void *plan_grow(struct arena *arena, void *list, size_t count, size_t *capacity, size_t size)
{
    if (count < *capacity)
        return list;
    *capacity = *capacity ? 2 * *capacity : 64;
    void *grown = arena_alloc(arena, *capacity * size);
    if (count)
        memcpy(grown, list, count * size);
    return grown;
}

void plan_place(struct policy_plan *plan, const struct policy_placement *placement)
{
    PLAN_GROW(plan->arena, plan->placements, plan->placement_count, plan->placement_capacity);
    plan->placements[plan->placement_count++] = *placement;
}

void plan_reserve(struct policy_plan *plan, const struct policy_reservation *reservation)
{
    PLAN_GROW(plan->arena, plan->reservations, plan->reservation_count, plan->reservation_capacity);
    plan->reservations[plan->reservation_count++] = *reservation;
}

void plan_evict(struct policy_plan *plan, uint64_t job_id, uint64_t for_job_id)
{
    PLAN_GROW(plan->arena, plan->evictions, plan->eviction_count, plan->eviction_capacity);
    plan->evictions[plan->eviction_count++] =
        (struct policy_eviction){.job_id = job_id, .for_job_id = for_job_id};
}
