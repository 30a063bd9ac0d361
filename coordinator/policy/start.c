/* start.c - whether the first job of a class can start now, and where.
 *
 * A job that wants one worker takes the first that has room, or of those like it the one that has
 * most of what the job reads: room only shrinks during a pass, so
 * a worker that refused a class once refuses it for the rest of the pass, and each class walks
 * the workers once however many jobs it places. Others choose among all workers (gang.c).
 * Once there are reservations a worker has room only as far as it does not delay one. Jobs that
 * end before a reservation begins use its workers first: that leaves the others to those that
 * last longer. */
#include "coordinator/policy/plan.h"

static uint64_t job_end(const struct pass *pass, size_t class_index)
{
    return time_after(pass->view->now_ms, pass->view->classes[class_index].wall_time_ms);
}

static bool is_booked(const struct pass *pass, size_t worker_index)
{
    uint64_t from_ms;
    return pass->profile && profile_is_booked(pass->profile, worker_index, &from_ms);
}

/* Is reserved, but only for after the end of such a job. */
static bool is_spare_until_then(const struct pass *pass, size_t class_index, size_t worker_index)
{
    uint64_t from_ms;
    return pass->profile && profile_is_booked(pass->profile, worker_index, &from_ms) &&
           job_end(pass, class_index) <= from_ms;
}

static uint32_t ranks_undelaying(const struct pass *pass, size_t class_index, size_t worker_index,
                                 uint64_t gpus_unfit)
{
    return profile_ranks(pass, class_index, worker_index, gpus_unfit, pass->view->now_ms,
                         job_end(pass, class_index));
}

/* ---- one worker ---------------------------------------------------------------------------- */

/* Candidates come in rounds: those without GPUs before those with them when the class needs none
 * (round & 2); in each, those that are spare until a reservation before the others (round & 1). */
#define ROUNDS 4u

static bool round_is_empty(const struct pass *pass, size_t class_index, uint32_t round)
{
    bool gpu_round = round & 2, late_round = round & 1;
    if (gpu_round && (!pass->has_gpus || pass->view->classes[class_index].rank.gpus > 0))
        return true;
    return !late_round && !pass->profile;
}

static bool is_of_round(const struct pass *pass, size_t class_index, size_t worker_index,
                        uint32_t round)
{
    bool gpu_round = round & 2, late_round = round & 1;
    if (pass->view->classes[class_index].rank.gpus == 0 &&
        pass->view->workers[worker_index].has_gpus != gpu_round)
        return false;
    return is_spare_until_then(pass, class_index, worker_index) != late_round;
}

static bool has_room(const struct pass *pass, size_t class_index, size_t worker_index,
                     uint64_t *out_gpus_unfit)
{
    const struct policy_class *class = &pass->view->classes[class_index];
    const struct policy_need *need = &pass->lanes[class_index].need;
    const struct room *room = &pass->rooms[worker_index];
    struct policy_fit fit;
    if (room->exclusives || (class->exclusive && room->jobs) || !policy_fits(need, &room->free) ||
        !worker_admits(pass, class_index, worker_index, pass->view->now_ms, &fit))
        return false;
    *out_gpus_unfit = fit.gpus_unfit;
    return need->gpus == 0 || need->gpus + fit.gpus_unfit <= room->free.gpus;
}

/* Limits of exclusive jobs depend on the workers; those of others were looked at before. */
static bool is_over_limit(struct pass *pass, size_t class_index, const struct policy_share *shares,
                          size_t share_count)
{
    struct lane *lane = &pass->lanes[class_index];
    if (workers_within_limits(pass, class_index, shares, share_count, &lane->over_limit))
        return false;
    lane->over = true;
    return true;
}

/* Whether the lane's worker under the cursor takes the job. */
static bool takes(struct pass *pass, size_t class_index, size_t worker_index)
{
    struct lane *lane = &pass->lanes[class_index];
    uint64_t unfit;
    if (!is_of_round(pass, class_index, worker_index, lane->round) ||
        !has_room(pass, class_index, worker_index, &unfit) ||
        is_over_limit(pass, class_index, &(struct policy_share){.worker_index = worker_index}, 1))
        return false;
    if (!is_booked(pass, worker_index) ||
        ranks_undelaying(pass, class_index, worker_index, unfit) ==
            pass->view->classes[class_index].ranks)
        return true;
    lane->delays = true;
    return false;
}

static size_t holders_find(const struct pass *pass, size_t class_index,
                           struct policy_holder out[POLICY_HOLDERS_MAX])
{
    const struct policy_view *view = pass->view;
    if (!view->classes[class_index].reads || !view->holders)
        return 0;
    return view->holders(view->core, pass->lanes[class_index].head.job_id, out);
}

/* Of the candidates of the present round, all equal but for that, the one that has most of what the
 * job reads; `first`, the first that takes it, when nobody has any. The walk stays where it is. */
static size_t prefer_holder(struct pass *pass, size_t class_index, size_t first)
{
    struct policy_holder holders[POLICY_HOLDERS_MAX];
    size_t count = holders_find(pass, class_index, holders);
    for (size_t i = 0; i < count; i++)
        if (holders[i].worker_index == first || takes(pass, class_index, holders[i].worker_index))
            return holders[i].worker_index;
    return first;
}

static enum start_answer find_one(struct pass *pass, size_t class_index,
                                  const struct policy_share **out)
{
    const struct policy_view *view = pass->view;
    const struct policy_class *class = &view->classes[class_index];
    struct lane *lane = &pass->lanes[class_index];
    size_t count = class->blocked ? view->changed_count : view->worker_count;
    if (class->ranks_per_node && class->ranks_per_node < class->ranks)
        return START_NO_ROOM;
    for (; lane->round < ROUNDS; lane->round++, lane->cursor = 0) {
        if (round_is_empty(pass, class_index, lane->round))
            continue;
        for (; lane->cursor < count; lane->cursor++) {
            size_t worker = class->blocked ? view->changed[lane->cursor] : lane->cursor;
            if (!takes(pass, class_index, worker))
                continue;
            struct policy_share *share = arena_alloc(pass->plan->arena, sizeof *share);
            worker = prefer_holder(pass, class_index, worker);
            *share = (struct policy_share){.worker_index = worker, .ranks = class->ranks};
            *out = share;
            return START_FITS;
        }
    }
    return lane->delays ? START_WOULD_DELAY : lane->over ? START_OVER_LIMIT : START_NO_ROOM;
}

/* ---- several workers, or the least loaded one ----------------------------------------------- */

/* A class that found no room at the last pass finds some only with the help of a worker that
 * has changed: all others have at most what they had then. */
static bool may_have_room(const struct pass *pass, size_t class_index)
{
    const struct policy_view *view = pass->view;
    const struct policy_class *class = &view->classes[class_index];
    struct policy_fit fit;
    for (size_t i = 0; class->blocked && i < view->changed_count; i++)
        if (room_ranks(class, &pass->rooms[view->changed[i]], 0) &&
            worker_admits(pass, class_index, view->changed[i], view->now_ms, &fit))
            return true;
    return !class->blocked;
}

/* Seats that delay nobody; false when that took some away. */
static bool seats_undelaying(struct pass *pass, size_t class_index, struct seat *seats,
                             size_t *out_count)
{
    const struct policy_view *view = pass->view;
    const struct policy_class *class = &view->classes[class_index];
    bool all = true;
    size_t count = 0;
    for (size_t i = 0; i < view->worker_count; i++) {
        struct policy_fit fit;
        if (room_ranks(class, &pass->rooms[i], 0) == 0 ||
            !worker_admits(pass, class_index, i, view->now_ms, &fit))
            continue;
        uint32_t most = room_ranks(class, &pass->rooms[i], fit.gpus_unfit), ranks = most;
        if (most && is_booked(pass, i))
            ranks = (uint32_t)min_u64(most, ranks_undelaying(pass, class_index, i, fit.gpus_unfit));
        if (most && is_over_limit(pass, class_index, &(struct policy_share){.worker_index = i}, 1))
            continue;
        all &= ranks == most;
        if (ranks == 0)
            continue;
        seats[count] = seat_make(pass, class_index, i, ranks, &pass->rooms[i].free);
        seats[count++].favour = is_spare_until_then(pass, class_index, i);
    }
    *out_count = count;
    return all;
}

static void seats_hold(const struct pass *pass, size_t class_index, struct seat *seats,
                       size_t count)
{
    struct policy_holder holders[POLICY_HOLDERS_MAX];
    size_t holder_count = holders_find(pass, class_index, holders);
    for (size_t i = 0; holder_count && i < count; i++)
        for (size_t k = 0; k < holder_count; k++)
            if (holders[k].worker_index == seats[i].worker_index)
                seats[i].held = holders[k].bytes;
}

static bool fits_without_limits(struct pass *pass, size_t class_index)
{
    const struct policy_share *shares;
    pass->unlimited = true;
    bool fits = gang_fit(pass, class_index, pass->rooms, pass->view->now_ms, &shares) > 0;
    pass->unlimited = false;
    return fits;
}

static enum start_answer find_gang(struct pass *pass, size_t class_index,
                                   const struct policy_share **out, size_t *out_count)
{
    if (!may_have_room(pass, class_index))
        return START_NO_ROOM;
    pass->lanes[class_index].over = false;
    size_t count;
    bool all = seats_undelaying(pass, class_index, pass->seats, &count);
    seats_hold(pass, class_index, pass->seats, count);
    *out_count = gang_choose(&pass->view->classes[class_index], pass->seats, count,
                             pass->seats + pass->view->worker_count, pass->plan->arena, out);
    if (*out_count)
        return is_over_limit(pass, class_index, *out, *out_count) ? START_OVER_LIMIT : START_FITS;
    if (!all && gang_fit(pass, class_index, pass->rooms, pass->view->now_ms, out))
        return START_WOULD_DELAY;
    return pass->lanes[class_index].over && fits_without_limits(pass, class_index)
               ? START_OVER_LIMIT
               : START_NO_ROOM;
}

enum start_answer start_find(struct pass *pass, size_t class_index, const struct policy_share **out,
                             size_t *out_count)
{
    const struct policy_class *class = &pass->view->classes[class_index];
    *out_count = 1;
    if (class->nodes_max == 1 && !class->spread)
        return find_one(pass, class_index, out);
    return find_gang(pass, class_index, out, out_count);
}
