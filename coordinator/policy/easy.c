/* easy.c - EASY backfill (Lifka, The ANL/IBM SP Scheduling System, 1995).
 *
 * The first job that has no room gets a reservation at the earliest time by the limits of what
 * runs; others start if they end before it or leave its room. */
#include "coordinator/policy/plan.h"

static void easy_plan(const struct policy_view *view, struct policy_plan *plan)
{
    static const struct policy_rules rules = {.depth = 1, .overtaking = true, .evicting = true};
    pass_run(&rules, view, plan);
}

const struct policy policy_easy = {
    .name = "easy",
    .summary = "backfill: others overtake where the first that waits is not delayed",
    .order = POLICY_ORDER_FIFO,
    .plan = easy_plan,
};
