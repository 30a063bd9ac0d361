/* fcfs.c - strict order: priority, then order of submit; nobody overtakes
 *
 * The first job that has no room stops the pass: everybody behind it waits, also where there is
 * room. A job that could not run even on an empty cluster stops nobody. */
#include "coordinator/policy/plan.h"

static void fcfs_plan(const struct policy_view *view, struct policy_plan *plan)
{
    static const struct policy_rules rules = {.depth = 1, .overtaking = false, .evicting = true};
    pass_run(&rules, view, plan);
}

const struct policy policy_fcfs = {
    .name = "fcfs",
    .summary = "strict order: nobody overtakes",
    .order = POLICY_ORDER_FIFO,
    .plan = fcfs_plan,
};
