/* conservative.c - conservative backfill (Mu'alem, Feitelson 2001).
 *
 * Each of the first POLICY_DEPTH jobs without room gets a reservation, in order, that delays
 * none made before it; others start only where they delay none of them. */
#include "coordinator/policy/plan.h"

static void conservative_plan(const struct policy_view *view, struct policy_plan *plan)
{
    static const struct policy_rules rules = {.depth = POLICY_DEPTH,
                                              .overtaking = true,
                                              .evicting = true};
    pass_run(&rules, view, plan);
}

const struct policy policy_conservative = {
    .name = "conservative",
    .summary = "backfill: others overtake where none of the first 64 that wait is delayed",
    .order = POLICY_ORDER_FIFO,
    .plan = conservative_plan,
};
