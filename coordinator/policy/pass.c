/* pass.c - the walk over the jobs that all policies share.
 *
 * Jobs are taken in order: the class whose first job comes first is on top of a heap. A job that
 * has room starts. One that has not is set aside with all of its class, which ask for the same;
 * by the rules of the policy it becomes a waiter, for which room is reserved.
 *
 * Reservations cost a look at everything that runs, so they are made when the first job behind a
 * waiter is found that has room now and so might delay it, or when somebody asks for estimates.
 * A cluster that is full of one kind of job, or of jobs that all do not fit, never pays.
 *
 * Cost: O(classes + placements x log classes) and what start.c says for the search of room. */
#include "coordinator/policy/plan.h"

#include <string.h>

/* ---- order --------------------------------------------------------------------------------- */

/* Keys and bonuses stay below 2^62, so that the sum is exact. Where jobs evict, the preemption
 * class goes before everything else: a victim of greater priority would take back the room that was
 * made, and be evicted again, without end. */
static bool comes_before(const struct pass *pass, size_t a, size_t b)
{
    const struct policy_class *classes = pass->view->classes;
    if (pass->rules->evicting && classes[a].preemption != classes[b].preemption)
        return classes[a].preemption > classes[b].preemption;
    int64_t a_key = pass->lanes[a].head.key + pass->view->classes[a].bonus;
    int64_t b_key = pass->lanes[b].head.key + pass->view->classes[b].bonus;
    if (a_key != b_key)
        return a_key > b_key;
    return pass->lanes[a].head.job_id < pass->lanes[b].head.job_id;
}

static void heap_sink(struct pass *pass, size_t at)
{
    for (;;) {
        size_t first = at;
        for (size_t child = 2 * at + 1; child <= 2 * at + 2 && child < pass->heap_count; child++)
            if (comes_before(pass, pass->heap[child], pass->heap[first]))
                first = child;
        if (first == at)
            return;
        size_t class_index = pass->heap[at];
        pass->heap[at] = pass->heap[first];
        pass->heap[first] = class_index;
        at = first;
    }
}

static void heap_make(struct pass *pass)
{
    for (size_t i = pass->heap_count / 2; i > 0; i--)
        heap_sink(pass, i - 1);
}

static void heap_pop(struct pass *pass)
{
    pass->heap[0] = pass->heap[--pass->heap_count];
    heap_sink(pass, 0);
}

/* The top's next job; the heap stays in order. */
static void lane_advance(struct pass *pass, size_t class_index)
{
    const struct policy_view *view = pass->view;
    struct lane *lane = &pass->lanes[class_index];
    struct policy_job done = lane->head;
    lane->open = view->next_job(view->core, class_index, &done, &lane->head);
    if (lane->open)
        heap_sink(pass, 0);
    else
        heap_pop(pass);
}

/* ---- waiters ------------------------------------------------------------------------------- */

static void verdict_set(struct pass *pass, size_t class_index, enum policy_block block, uint64_t by)
{
    struct policy_verdict *verdict = &pass->plan->verdicts[class_index];
    if (verdict->block == POLICY_BLOCK_NONE)
        *verdict = (struct policy_verdict){.block = block,
                                           .by = by,
                                           .exhausted = block == POLICY_BLOCK_ROOM};
}

static void waiter_add(struct pass *pass, const struct waiter *waiter)
{
    PLAN_GROW(pass->plan->arena, pass->waiters, pass->waiter_count, pass->waiter_capacity);
    pass->waiters[pass->waiter_count++] = *waiter;
    pass->ordinary_count += waiter->shares == NULL;
}

static bool is_possible(struct pass *pass, size_t class_index)
{
    struct lane *lane = &pass->lanes[class_index];
    if (!lane->possible_known)
        lane->possible = gang_is_possible(pass, class_index);
    lane->possible_known = true;
    return lane->possible;
}

/* The top cannot start. It becomes a waiter if the rules reserve for it, and then the next of
 * its class is looked at; else the class is done with. Jobs may evict while nobody stands before
 * them who waits for room without evicting: what they free must not go to somebody else. */
static void wait_or_leave(struct pass *pass, size_t class_index)
{
    const struct policy_rules *rules = pass->rules;
    struct waiter waiter = {.class_index = class_index,
                            .job_id = pass->lanes[class_index].head.job_id};
    bool wanted = pass->waiter_count < max_u64(rules->depth, POLICY_DEPTH) && rules->depth > 0;
    bool evicts = wanted && rules->evicting && pass->view->classes[class_index].evicts &&
                  pass->ordinary_count == 0 && evict_for(pass, &waiter);
    bool waits =
        evicts || (wanted && pass->ordinary_count < rules->depth && is_possible(pass, class_index));
    if (!waits) {
        heap_pop(pass);
        return;
    }
    waiter_add(pass, &waiter);
    if (!rules->overtaking) {
        pass->closed = true;
        pass->closed_by = waiter.job_id;
    }
    lane_advance(pass, class_index);
}

/* Once more reservations are known, nothing that was found before is sure any more. */
static void reserve_waiters(struct pass *pass)
{
    for (; pass->reserved_count < pass->waiter_count; pass->reserved_count++) {
        const struct waiter *waiter = &pass->waiters[pass->reserved_count];
        if (!waiter->shares || !reserve_claim(pass, waiter))
            reserve_one(pass, waiter->class_index, waiter->job_id, true);
    }
    for (size_t i = 0; i < pass->view->class_count; i++) {
        pass->lanes[i].round = 0;
        pass->lanes[i].cursor = 0;
        pass->lanes[i].delays = pass->lanes[i].over = false;
    }
}

/* Whether a reservation leaves no room on that worker, where there is some now, before the end
 * of a job of the class. */
static bool is_in_the_way(const struct pass *pass, size_t class_index,
                          const struct policy_reservation *reservation, size_t worker_index)
{
    const struct policy_class *class = &pass->view->classes[class_index];
    uint64_t end_ms = time_after(pass->view->now_ms, class->wall_time_ms);
    uint64_t from_ms =
        reservation->start_ms == POLICY_NEVER ? pass->view->now_ms : reservation->start_ms;
    uint32_t wanted = class->nodes_max == 1 ? class->ranks : 1;
    return from_ms < end_ms && room_ranks(class, &pass->rooms[worker_index], 0) >= wanted &&
           profile_ranks(pass, class_index, worker_index, 0, from_ms, from_ms + 1) < wanted;
}

/* For whose sake a job is refused: the first reservation that is in its way. */
static uint64_t delayed_job(const struct pass *pass, size_t class_index)
{
    const struct policy_plan *plan = pass->plan;
    for (size_t i = 0; i < plan->reservation_count; i++) {
        const struct policy_reservation *reservation = &plan->reservations[i];
        for (size_t k = 0; k < reservation->share_count; k++)
            if (is_in_the_way(pass, class_index, reservation, reservation->shares[k].worker_index))
                return reservation->job_id;
    }
    return plan->reservation_count ? plan->reservations[0].job_id : 0;
}

/* ---- the walk ------------------------------------------------------------------------------ */

static void start(struct pass *pass, size_t class_index, const struct policy_share *shares,
                  size_t share_count)
{
    const struct policy_class *class = &pass->view->classes[class_index];
    for (size_t i = 0; i < share_count; i++) {
        room_occupy(&pass->rooms[shares[i].worker_index], class, shares[i].ranks);
        if (pass->coming)
            room_occupy(&pass->coming[shares[i].worker_index], class, shares[i].ranks);
    }
    if (pass->profile)
        profile_place(pass, class_index, shares, share_count);
    limits_charge(pass, class_index, shares, share_count);
    plan_place(pass->plan,
               &(struct policy_placement){.job_id = pass->lanes[class_index].head.job_id,
                                          .class_index = class_index,
                                          .shares = shares,
                                          .share_count = share_count});
    lane_advance(pass, class_index);
}

static void look_at(struct pass *pass, size_t class_index)
{
    struct lane *lane = &pass->lanes[class_index];
    const struct policy_share *shares;
    size_t share_count, limit;
    if (!lane->stuck && !limits_allow(pass, class_index, &lane->need, &limit)) {
        verdict_set(pass, class_index, POLICY_BLOCK_LIMIT, limit);
        heap_pop(pass); /* what the limit keeps from it, others may use: no reservation */
        return;
    }
    enum start_answer answer =
        lane->stuck ? START_NO_ROOM : start_find(pass, class_index, &shares, &share_count);
    if (answer == START_FITS && pass->reserved_count < pass->waiter_count) {
        reserve_waiters(pass);
        answer = start_find(pass, class_index, &shares, &share_count);
    }
    if (answer == START_FITS) {
        start(pass, class_index, shares, share_count);
        return;
    }
    if (answer == START_WOULD_DELAY) {
        verdict_set(pass, class_index, POLICY_BLOCK_ORDER, delayed_job(pass, class_index));
        pass->refusals++;
    } else if (answer == START_OVER_LIMIT) {
        verdict_set(pass, class_index, POLICY_BLOCK_LIMIT, lane->over_limit);
    } else {
        verdict_set(pass, class_index, POLICY_BLOCK_ROOM, 0);
    }
    lane->stuck = true;
    wait_or_leave(pass, class_index);
}

/* Jobs that were not looked at, because the rules or the bound on refusals ended the walk. */
static void leave_the_rest(struct pass *pass)
{
    uint64_t by = pass->closed                    ? pass->closed_by
                  : pass->plan->reservation_count ? pass->plan->reservations[0].job_id
                                                  : 0;
    for (size_t i = 0; i < pass->heap_count; i++)
        verdict_set(pass, pass->heap[i], POLICY_BLOCK_ORDER, by);
}

/* Where the first jobs that still wait would start, in order; it changes nothing any more. */
static void forecast(struct pass *pass)
{
    reserve_waiters(pass);
    pass->heap_count = 0;
    for (size_t i = 0; i < pass->view->class_count; i++)
        if (pass->lanes[i].open && pass->plan->verdicts[i].block != POLICY_BLOCK_LIMIT)
            pass->heap[pass->heap_count++] = i;
    heap_make(pass);
    while (pass->heap_count && pass->plan->reservation_count < POLICY_DEPTH) {
        size_t class_index = pass->heap[0];
        if (reserve_one(pass, class_index, pass->lanes[class_index].head.job_id, false))
            lane_advance(pass, class_index);
        else
            heap_pop(pass);
    }
}

static void pass_open(struct pass *pass)
{
    const struct policy_view *view = pass->view;
    struct arena *arena = pass->plan->arena;
    pass->rooms = arena_alloc(arena, view->worker_count * sizeof *pass->rooms);
    pass->seats = arena_alloc(arena, 2 * view->worker_count * sizeof *pass->seats);
    pass->lanes = arena_alloc(arena, view->class_count * sizeof *pass->lanes);
    pass->heap = arena_alloc(arena, view->class_count * sizeof *pass->heap);
    pass->limits = arena_alloc(arena, view->limit_count * sizeof *pass->limits);
    if (view->limit_count)
        memcpy(pass->limits, view->limits, view->limit_count * sizeof *pass->limits);
    for (size_t i = 0; i < view->worker_count; i++) {
        pass->rooms[i] = (struct room){.free = view->workers[i].free,
                                       .jobs = !view->workers[i].idle,
                                       .exclusives = view->workers[i].taken};
        pass->has_gpus |= view->workers[i].has_gpus;
    }
    for (size_t i = 0; i < view->class_count; i++) {
        struct lane *lane = &pass->lanes[i];
        lane->need = need_times(&view->classes[i].rank, view->classes[i].ranks);
        lane->open = view->next_job(view->core, i, NULL, &lane->head);
        if (lane->open)
            pass->heap[pass->heap_count++] = i;
    }
    heap_make(pass);
}

void pass_running_read(struct pass *pass)
{
    if (pass->running_known)
        return;
    pass->running_known = true;
    pass->running_count = pass->view->running(pass->view->core, pass->plan->arena, &pass->running);
}

void pass_run(const struct policy_rules *rules, const struct policy_view *view,
              struct policy_plan *plan)
{
    struct pass pass = {.view = view, .rules = rules, .plan = plan};
    pass_open(&pass);
    while (pass.heap_count && !pass.closed && pass.refusals < POLICY_REFUSALS_MAX)
        look_at(&pass, pass.heap[0]);
    leave_the_rest(&pass);
    if (view->estimate)
        forecast(&pass);
}
