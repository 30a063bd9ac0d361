/* room.c - what a worker takes of a job. */
#include "coordinator/policy/plan.h"

static uint64_t times_in(uint64_t free, uint64_t need)
{
    return need ? free / need : UINT64_MAX;
}

uint32_t room_ranks(const struct policy_class *class, const struct room *room, uint64_t gpus_unfit)
{
    if (room->exclusives || (class->exclusive && room->jobs))
        return 0;
    uint64_t gpus = room->free.gpus - min_u64(room->free.gpus, gpus_unfit);
    uint64_t ranks = times_in(room->free.cores, class->rank.cores);
    ranks = min_u64(ranks, times_in(room->free.memory_bytes, class->rank.memory_bytes));
    ranks = min_u64(ranks, times_in(gpus, class->rank.gpus));
    if (class->ranks_per_node)
        ranks = min_u64(ranks, class->ranks_per_node);
    return (uint32_t)min_u64(ranks, class->ranks);
}

void room_occupy(struct room *room, const struct policy_class *class, uint32_t ranks)
{
    struct policy_need need = need_times(&class->rank, ranks);
    need_cut(&room->free, &need);
    room->jobs++;
    room->exclusives += class->exclusive;
}

void room_release(struct room *room, const struct policy_class *class, uint32_t ranks,
                  const struct policy_need *total)
{
    struct policy_need need = need_times(&class->rank, ranks);
    need_add(&room->free, &need, total);
    room->jobs -= room->jobs > 0;
    room->exclusives -= class->exclusive && room->exclusives > 0;
}

bool worker_admits(const struct pass *pass, size_t class_index, size_t worker_index,
                   uint64_t start_ms, struct policy_fit *out)
{
    const struct policy_view *view = pass->view;
    *out = (struct policy_fit){0};
    if (!view->workers[worker_index].usable)
        return false;
    return !view->classes[class_index].constrained ||
           view->allows(view->core, class_index, worker_index, start_ms, out);
}

bool worker_allows(const struct pass *pass, size_t class_index, size_t worker_index,
                   uint64_t start_ms, struct policy_fit *out)
{
    struct policy_share all = {.worker_index = worker_index};
    size_t limit;
    return worker_admits(pass, class_index, worker_index, start_ms, out) &&
           workers_within_limits(pass, class_index, &all, 1, &limit);
}

bool worker_allows_ever(const struct pass *pass, size_t class_index, size_t worker_index,
                        struct policy_fit *out)
{
    const struct policy_view *view = pass->view;
    if (worker_allows(pass, class_index, worker_index, view->now_ms, out))
        return true;
    if (!view->workers[worker_index].usable)
        return false;
    for (size_t i = 0; i < view->time_count; i++)
        if (worker_allows(pass, class_index, worker_index, view->times[i], out))
            return true;
    return false;
}
