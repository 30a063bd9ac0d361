/* plan.h - what policies share: arithmetic of needs and adding to the plan. Private to policy/. */
#ifndef ATHANOR_POLICY_PLAN_H
#define ATHANOR_POLICY_PLAN_H

#include "coordinator/policy/policy.h"

struct policy_need need_times(const struct policy_need *need, uint64_t times);
void need_take(struct policy_need *from, const struct policy_need *need); /* fits (CHECK) */

/* Shares are borrowed; they live in the plan's arena. */
void plan_place(struct policy_plan *plan, const struct policy_placement *placement);

#endif
