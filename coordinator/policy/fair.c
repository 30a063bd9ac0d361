/* fair.c - the order is fair (the core's keys: priority, age; bonuses: fair share, size, queue),
 * the walk that of easy. */
#include "coordinator/policy/plan.h"

static void fair_plan(const struct policy_view *view, struct policy_plan *plan)
{
    static const struct policy_rules rules = {.depth = 1, .overtaking = true, .evicting = true};
    pass_run(&rules, view, plan);
}

const struct policy policy_fair = {
    .name = "fair",
    .summary = "fair share, age and size, with backfill and preemption",
    .order = POLICY_ORDER_FAIR,
    .plan = fair_plan,
};
