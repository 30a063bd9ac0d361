/* fifo.c - priority, then order of submit; first worker with room.
 *
 * A job that does not fit lets smaller ones pass (its class is set aside for the pass), so a
 * large job can wait for ever on a busy cluster; reservations are for other policies. Because
 * nothing would keep what an eviction frees for whom it was freed, this policy evicts nobody. */
#include "coordinator/policy/plan.h"

static void fifo_plan(const struct policy_view *view, struct policy_plan *plan)
{
    static const struct policy_rules rules = {.depth = 0, .overtaking = true, .evicting = false};
    pass_run(&rules, view, plan);
}

const struct policy policy_fifo = {
    .name = "fifo",
    .summary = "priority, then order of submit; first worker with room",
    .order = POLICY_ORDER_FIFO,
    .plan = fifo_plan,
};
