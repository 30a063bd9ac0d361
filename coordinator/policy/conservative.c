/* conservative.c - conservative backfill (Mu'alem, Feitelson 2001).
 *
 * Each of the first RESERVED jobs without room gets a reservation, in order, that delays none made
 * before it; others start only where they delay none of them. With no more waiting it is the
 * textbook's conservative, start for start.
 *
 * RESERVED is what a pass of 100 ms allows with 1,000 workers and 4,000 running jobs of different
 * limits: 0.3 ms each, 66 ms in all (core_bench conservative); 512 took 420 ms and 1,024 a second,
 * because each sweeps over the ends of all that runs and of all reserved before it. */
#include "coordinator/policy/plan.h"

#define RESERVED 256u

static void conservative_plan(const struct policy_view *view, struct policy_plan *plan)
{
    static const struct policy_rules rules = {.depth = RESERVED,
                                              .overtaking = true,
                                              .evicting = true};
    pass_run(&rules, view, plan);
}

const struct policy policy_conservative = {
    .name = "conservative",
    .summary = "backfill: others overtake where none of the first 256 that wait is delayed",
    .order = POLICY_ORDER_FIFO,
    .plan = conservative_plan,
};
