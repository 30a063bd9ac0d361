/* reserve.c - the earliest start of a job that finds no room now.
 *
 * A sweep over time: per worker, the moments at which the number of ranks it could take for the
 * job's whole length changes; all moments sorted; counters over the workers say when the job may
 * fit, and only then are workers chosen. The room a worker has for a job of length d changes
 * where a step of its profile begins and, if reservations cut it, d - 1 before that, from when on
 * the job would reach into the step.
 *
 * Workers are chosen so that the room that is free now outside the reservation stays greatest:
 * those where most of what the job takes is still in use. On equal workers this is the textbook
 * rule of EASY, where any processors will do and only their number counts. Without a date it is
 * the reverse, those where most is free already, so that what was kept is kept on.
 *
 * Cost: O(m log m) in the moments, about the jobs that run, plus O(workers) for each moment at
 * which the counters allow the job but its choice of workers does not. */
#include "coordinator/policy/plan.h"

#include <stdlib.h>

#define NO_WORKER SIZE_MAX

struct moment {
    uint64_t at;
    size_t worker_index; /* NO_WORKER: what allows() says may change */
    uint32_t ranks;      /* from then on */
};

struct sweep {
    struct pass *pass;
    size_t class_index;
    size_t count;         /* of pass->moments */
    uint32_t *ranks;      /* per worker */
    uint64_t *gpus_unfit; /* per worker */
    uint64_t sum, nodes;  /* ranks over all workers; workers with one or more */
    uint64_t whole;       /* workers with all */
};

static void moment_add(struct sweep *sweep, uint64_t at, size_t worker_index, uint32_t ranks)
{
    struct pass *pass = sweep->pass;
    PLAN_GROW(pass->plan->arena, pass->moments, sweep->count, pass->moment_capacity);
    pass->moments[sweep->count++] =
        (struct moment){.at = at, .worker_index = worker_index, .ranks = ranks};
}

static uint32_t ranks_at(const struct sweep *sweep, size_t worker_index, uint64_t start_ms)
{
    uint64_t wall_ms = sweep->pass->view->classes[sweep->class_index].wall_time_ms;
    return profile_ranks(sweep->pass, sweep->class_index, worker_index,
                         sweep->gpus_unfit[worker_index], start_ms,
                         time_after(start_ms, max_u64(wall_ms, 1)));
}

static void worker_moments(struct sweep *sweep, size_t worker_index)
{
    const struct profile *profile = sweep->pass->profile;
    const struct policy_class *class = &sweep->pass->view->classes[sweep->class_index];
    uint64_t now_ms = sweep->pass->view->now_ms, from_ms;
    uint32_t previous = 0;
    bool booked = profile_is_booked(profile, worker_index, &from_ms);
    for (size_t i = 0; i < profile_steps(profile, worker_index); i++) {
        uint64_t at = profile_step_ms(profile, worker_index, i);
        uint32_t ranks = ranks_at(sweep, worker_index, at);
        if (booked || ranks != previous)
            moment_add(sweep, at, worker_index, ranks);
        previous = ranks;
        if (booked && class->wall_time_ms <= at - now_ms && at != POLICY_NEVER)
            moment_add(sweep, at - class->wall_time_ms + 1, worker_index,
                       ranks_at(sweep, worker_index, at - class->wall_time_ms + 1));
    }
}

static int moment_order(const void *left, const void *right)
{
    const struct moment *a = left, *b = right;
    if (a->at != b->at)
        return a->at < b->at ? -1 : 1;
    return (a->worker_index > b->worker_index) - (a->worker_index < b->worker_index);
}

static void sweep_open(struct sweep *sweep)
{
    const struct policy_view *view = sweep->pass->view;
    struct arena *arena = sweep->pass->plan->arena;
    sweep->ranks = arena_alloc(arena, view->worker_count * sizeof *sweep->ranks);
    sweep->gpus_unfit = arena_alloc(arena, view->worker_count * sizeof *sweep->gpus_unfit);
    for (size_t i = 0; i < view->worker_count; i++) {
        struct policy_fit fit;
        if (!worker_allows_ever(sweep->pass, sweep->class_index, i, &fit))
            continue;
        sweep->gpus_unfit[i] = fit.gpus_unfit;
        worker_moments(sweep, i);
    }
    for (size_t i = 0; i < view->time_count; i++)
        if (view->times[i] > view->now_ms)
            moment_add(sweep, view->times[i], NO_WORKER, 0);
    if (sweep->count)
        qsort(sweep->pass->moments, sweep->count, sizeof(struct moment), moment_order);
}

static void moment_take(struct sweep *sweep, const struct moment *moment)
{
    if (moment->worker_index == NO_WORKER)
        return;
    const struct policy_class *class = &sweep->pass->view->classes[sweep->class_index];
    uint32_t *ranks = &sweep->ranks[moment->worker_index];
    sweep->sum += (uint64_t)moment->ranks - *ranks;
    sweep->nodes += (uint64_t)(moment->ranks > 0) - (*ranks > 0);
    sweep->whole += (uint64_t)(moment->ranks == class->ranks) - (*ranks == class->ranks);
    *ranks = moment->ranks;
}

static bool may_fit(const struct sweep *sweep)
{
    const struct policy_class *class = &sweep->pass->view->classes[sweep->class_index];
    if (class->nodes_max == 1)
        return sweep->whole > 0;
    return sweep->nodes >= class->nodes_min && sweep->sum >= class->ranks;
}

/* Workers for a start at that time. */
static size_t choose_at(const struct sweep *sweep, uint64_t at, const struct policy_share **out)
{
    struct pass *pass = sweep->pass;
    const struct policy_class *class = &pass->view->classes[sweep->class_index];
    struct seat *seats = pass->seats;
    size_t count = 0;
    for (size_t i = 0; i < pass->view->worker_count; i++) {
        struct policy_fit fit;
        uint32_t ranks = sweep->ranks[i];
        if (ranks == 0 || !worker_allows(pass, sweep->class_index, i,
                                         at == POLICY_NEVER ? pass->view->now_ms : at, &fit))
            continue;
        uint64_t now = min_u64(room_ranks(class, &pass->rooms[i], fit.gpus_unfit), ranks);
        seats[count] = seat_make(pass, sweep->class_index, i, ranks, &pass->rooms[i].free);
        if (at == POLICY_NEVER) /* for an exclusive job nothing is free until all is */
            seats[count++].favour = class->exclusive ? pass->rooms[i].free.cores : now;
        else
            seats[count++].favour = ranks - now;
    }
    return gang_choose(class, seats, count, seats + pass->view->worker_count, pass->plan->arena,
                       out);
}

static void reserve(struct pass *pass, const struct policy_reservation *reservation)
{
    profile_reserve(pass, reservation->class_index, reservation->shares, reservation->share_count,
                    reservation->start_ms);
    plan_reserve(pass->plan, reservation);
}

bool reserve_one(struct pass *pass, size_t class_index, uint64_t job_id, bool firm)
{
    if (!pass->profile)
        profile_make(pass);
    struct sweep sweep = {.pass = pass, .class_index = class_index};
    sweep_open(&sweep);
    for (size_t i = 0; i < sweep.count;) {
        uint64_t at = pass->moments[i].at;
        for (; i < sweep.count && pass->moments[i].at == at; i++)
            moment_take(&sweep, &pass->moments[i]);
        const struct policy_share *shares;
        size_t share_count = may_fit(&sweep) ? choose_at(&sweep, at, &shares) : 0;
        size_t limit;
        if (share_count == 0 ||
            !workers_within_limits(pass, class_index, shares, share_count, &limit))
            continue;
        reserve(pass, &(struct policy_reservation){.job_id = job_id,
                                                   .class_index = class_index,
                                                   .start_ms = at,
                                                   .firm = firm,
                                                   .shares = shares,
                                                   .share_count = share_count});
        return true;
    }
    return false;
}

/* ---- known workers ------------------------------------------------------------------------- */

/* The first time from start_ms on at which a share has room for the job's length. */
static bool share_start(const struct sweep *sweep, const struct policy_share *share,
                        uint64_t *start_ms)
{
    const struct profile *profile = sweep->pass->profile;
    if (ranks_at(sweep, share->worker_index, *start_ms) >= share->ranks)
        return true;
    for (size_t i = 0; i < profile_steps(profile, share->worker_index); i++) {
        uint64_t at = profile_step_ms(profile, share->worker_index, i);
        if (at <= *start_ms || ranks_at(sweep, share->worker_index, at) < share->ranks)
            continue;
        *start_ms = at;
        return true;
    }
    return false;
}

bool reserve_claim(struct pass *pass, const struct waiter *waiter)
{
    if (!pass->profile)
        profile_make(pass);
    struct sweep sweep = {.pass = pass, .class_index = waiter->class_index};
    uint64_t start_ms = pass->view->now_ms, before;
    sweep.gpus_unfit =
        arena_alloc(pass->plan->arena, pass->view->worker_count * sizeof *sweep.gpus_unfit);
    for (size_t i = 0; i < waiter->share_count; i++) {
        struct policy_fit fit;
        if (!worker_allows(pass, waiter->class_index, waiter->shares[i].worker_index,
                           pass->coming_ms, &fit))
            return false;
        sweep.gpus_unfit[waiter->shares[i].worker_index] = fit.gpus_unfit;
        if (!worker_allows(pass, waiter->class_index, waiter->shares[i].worker_index, start_ms,
                           &fit)) /* a window closes it until then */
            start_ms = pass->coming_ms;
    }
    do { /* until one time suits all; it only grows, from step to step */
        before = start_ms;
        for (size_t i = 0; i < waiter->share_count; i++)
            if (!share_start(&sweep, &waiter->shares[i], &start_ms))
                return false;
    } while (start_ms != before);
    reserve(pass, &(struct policy_reservation){.job_id = waiter->job_id,
                                               .class_index = waiter->class_index,
                                               .start_ms = start_ms,
                                               .firm = true,
                                               .shares = waiter->shares,
                                               .share_count = waiter->share_count});
    return true;
}
