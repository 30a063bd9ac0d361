/* limits.c - what a job is charged for, and whether quotas have that much left. */
#include "coordinator/policy/plan.h"

uint64_t policy_gpu_ms(uint64_t gpus, uint64_t charged_ms)
{
    if (gpus == 0)
        return 0;
    return charged_ms > UINT64_MAX / gpus ? UINT64_MAX : gpus * charged_ms;
}

bool limits_allow(const struct pass *pass, size_t class_index, const struct policy_need *held,
                  size_t *out)
{
    const struct policy_class *class = &pass->view->classes[class_index];
    for (size_t i = 0; i < class->limit_count; i++) {
        const struct policy_limit *limit = &pass->limits[class->limits[i]];
        *out = class->limits[i];
        if (limit->jobs == 0 || limit->cores < held->cores || limit->gpus < held->gpus ||
            limit->gpu_ms < policy_gpu_ms(held->gpus, class->charged_ms))
            return false;
    }
    return true;
}

/* What a job of the class is charged for there. */
static struct policy_need held_by(const struct pass *pass, size_t class_index,
                                  const struct policy_share *shares, size_t share_count)
{
    if (!pass->view->classes[class_index].exclusive)
        return pass->lanes[class_index].need;
    struct policy_need held = {0}, most = {UINT64_MAX, UINT64_MAX, UINT64_MAX};
    for (size_t i = 0; i < share_count; i++)
        need_add(&held, &pass->view->workers[shares[i].worker_index].total, &most);
    return held;
}

bool workers_within_limits(const struct pass *pass, size_t class_index,
                           const struct policy_share *shares, size_t share_count, size_t *out)
{
    if (!pass->view->classes[class_index].exclusive || pass->unlimited)
        return true;
    struct policy_need held = held_by(pass, class_index, shares, share_count);
    return limits_allow(pass, class_index, &held, out);
}

static uint64_t minus(uint64_t left, uint64_t taken)
{
    return left == UINT64_MAX ? left : left - min_u64(left, taken);
}

void limits_charge(struct pass *pass, size_t class_index, const struct policy_share *shares,
                   size_t share_count)
{
    struct policy_need held = held_by(pass, class_index, shares, share_count);
    const struct policy_class *class = &pass->view->classes[class_index];
    for (size_t i = 0; i < class->limit_count; i++) {
        struct policy_limit *limit = &pass->limits[class->limits[i]];
        limit->jobs = minus(limit->jobs, 1);
        limit->cores = minus(limit->cores, held.cores);
        limit->gpus = minus(limit->gpus, held.gpus);
        limit->gpu_ms = minus(limit->gpu_ms, policy_gpu_ms(held.gpus, class->charged_ms));
    }
}
