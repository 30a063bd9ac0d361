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

void need_take(struct policy_need *from, const struct policy_need *need)
{
    CHECK(policy_fits(need, from));
    from->cores -= need->cores;
    from->memory_bytes -= need->memory_bytes;
    from->gpus -= need->gpus;
}

void plan_place(struct policy_plan *plan, const struct policy_placement *placement)
{
    if (plan->placement_count == plan->placement_capacity) {
        size_t capacity = plan->placement_capacity ? 2 * plan->placement_capacity : 64;
        struct policy_placement *grown = arena_alloc(plan->arena, capacity * sizeof *grown);
        if (plan->placement_count)
            memcpy(grown, plan->placements, plan->placement_count * sizeof *grown);
        plan->placements = grown;
        plan->placement_capacity = capacity;
    }
    plan->placements[plan->placement_count++] = *placement;
}
