/* conformance_test.c - what every policy of policies.def must keep, on drawn clusters: workers
 * with and without GPUs, some unusable, some full; gangs, exclusive and spread jobs, constraints
 * that change with time, limits, preemption. Feasibility is worked out here anew. */
#include "common/base/rng.h"
#include "tests/unit/policy/world.h"

#define SEEDS 1500u
#define NOW   1000u

/* ---- drawing ------------------------------------------------------------------------------- */

static void draw_workers(struct world *w, struct rng *rng)
{
    size_t workers = rng_below(rng, WORKERS_MAX + 1);
    for (size_t i = 0; i < workers; i++) {
        struct policy_worker *worker =
            world_worker(w, i, rng_below(rng, 9), rng_below(rng, 3) ? 0 : rng_below(rng, 5));
        worker->usable = rng_below(rng, 6) != 0;
        worker->group[0] = (uint32_t)(i / 4);
        worker->group[1] = (uint32_t)(i / 8);
    }
}

static void draw_class(struct world *w, struct rng *rng, size_t index)
{
    struct policy_class *class =
        world_class(w, index, 1 + (uint32_t)rng_below(rng, 6), rng_below(rng, 4),
                    rng_below(rng, 4) ? 0 : rng_below(rng, 3));
    class->nodes_min = 1 + (uint32_t)rng_below(rng, class->ranks);
    class->nodes_max = class->nodes_min + (uint32_t)rng_below(rng, 4);
    if (rng_below(rng, 2))
        class->nodes_min = class->nodes_max = 1;
    class->ranks_per_node = rng_below(rng, 3) ? 0 : 1 + (uint32_t)rng_below(rng, class->ranks);
    class->exclusive = rng_below(rng, 8) == 0;
    class->spread = rng_below(rng, 4) == 0;
    class->constrained = rng_below(rng, 2);
    class->evicts = rng_below(rng, 3) == 0;
    class->preemption = (uint32_t)rng_below(rng, 3);
    class->wall_time_ms = rng_below(rng, 5) ? 1 + rng_below(rng, 100) : POLICY_NEVER;
    class->charged_ms = rng_below(rng, 5) ? class->wall_time_ms : POLICY_NEVER;
    class->bonus = (int64_t)rng_below(rng, 3);
    for (uint32_t i = 0; i < LIMITS_MAX; i++)
        if (rng_below(rng, 4) == 0)
            class->limits[class->limit_count++] = i;
    for (size_t k = 0; k < WORKERS_MAX; k++) {
        w->allowed[index][k] = rng_below(rng, 4) != 0;
        w->unfit[index][k] = rng_below(rng, 4) ? 0 : rng_below(rng, 3);
        w->closed_until[index][k] = rng_below(rng, 6) ? 0 : w->times[rng_below(rng, 2)];
    }
}

static void draw_running(struct world *w, struct rng *rng)
{
    size_t count = rng_below(rng, RUNNING_MAX / 2);
    for (size_t i = 0; i < count && w->view.worker_count && w->view.class_count; i++) {
        size_t class_index = rng_below(rng, w->view.class_count);
        size_t worker_index = rng_below(rng, w->view.worker_count);
        const struct policy_class *class = &w->classes[class_index];
        const struct policy_worker *worker = &w->workers[worker_index];
        if (worker->taken || (class->exclusive && !worker->idle) ||
            !policy_fits(&class->rank, &worker->free))
            continue;
        struct policy_running *running =
            world_run(w, i + 1, class_index, worker_index, 1,
                      rng_below(rng, 5) ? NOW - 10 + rng_below(rng, 150) : POLICY_NEVER);
        running->lost_ms = rng_below(rng, 1000);
        running->evictable = rng_below(rng, 2);
        running->stopping = !running->evictable && rng_below(rng, 4) == 0;
    }
}

static void draw(struct world *w, uint64_t seed)
{
    struct rng rng;
    struct arena arena = w->arena;
    rng_init(&rng, seed);
    memset(w, 0, sizeof *w);
    w->arena = arena;
    w->view.now_ms = NOW;
    w->times[0] = NOW + 1 + rng_below(&rng, 50);
    w->times[1] = w->times[0] + 1 + rng_below(&rng, 50);
    w->view.time_count = 2;
    for (size_t i = 0; i < LIMITS_MAX; i++)
        w->limits[i] = (struct policy_limit){.jobs = rng_below(&rng, 6),
                                             .cores = rng_below(&rng, 2) ? UINT64_MAX : 12,
                                             .gpus = rng_below(&rng, 2) ? UINT64_MAX : 2,
                                             .gpu_ms = rng_below(&rng, 2) ? UINT64_MAX : 60};
    w->view.limit_count = LIMITS_MAX;
    w->view.estimate = rng_below(&rng, 3) == 0;
    draw_workers(w, &rng);
    size_t classes = rng_below(&rng, CLASSES_MAX + 1);
    for (size_t i = 0; i < classes; i++)
        draw_class(w, &rng, i);
    draw_running(w, &rng);
    uint64_t job_id = 1000;
    for (size_t i = 0; i < classes; i++)
        for (int64_t p = 2; p >= 0; p--)
            for (uint64_t n = rng_below(&rng, 5); n > 0; n--)
                world_job(w, i, ++job_id, p);
}

/* ---- what must hold ------------------------------------------------------------------------ */

struct state { /* of a worker */
    struct policy_need free;
    size_t jobs;
    bool taken;
};

struct judge {
    const struct world *w;
    struct state states[WORKERS_MAX];
    struct policy_limit limits[LIMITS_MAX];
    size_t next[CLASSES_MAX]; /* the first job of the class that was not placed */
};

static void judge_open(struct judge *judge, const struct world *w)
{
    *judge = (struct judge){.w = w};
    memcpy(judge->limits, w->limits, sizeof judge->limits);
    for (size_t i = 0; i < w->view.worker_count; i++)
        judge->states[i] = (struct state){.free = w->workers[i].free, .taken = w->workers[i].taken};
    for (size_t i = 0; i < w->running_count; i++)
        judge->states[w->running[i].shares[0].worker_index].jobs++;
}

static bool rank_fits(const struct judge *judge, size_t class_index, const struct state *state,
                      size_t worker_index, uint64_t ranks, uint64_t at)
{
    const struct world *w = judge->w;
    const struct policy_class *class = &w->classes[class_index];
    struct policy_fit fit = {0};
    if (!w->workers[worker_index].usable || state->taken || (class->exclusive && state->jobs) ||
        (class->constrained && !world_allows(w, class_index, worker_index, at, &fit)))
        return false;
    if (class->ranks_per_node && ranks > class->ranks_per_node)
        return false;
    uint64_t gpus = ranks * class->rank.gpus;
    return ranks * class->rank.cores <= state->free.cores &&
           ranks * class->rank.memory_bytes <= state->free.memory_bytes &&
           (gpus == 0 || gpus + fit.gpus_unfit <= state->free.gpus);
}

/* Whether the class's next job fits on the workers as they are, by trying counts of ranks. */
static bool feasible(const struct judge *judge, size_t class_index, const struct state *states,
                     uint64_t at)
{
    const struct policy_class *class = &judge->w->classes[class_index];
    uint32_t held[WORKERS_MAX], nodes = 0, sum = 0;
    size_t count = 0;
    for (size_t i = 0; i < judge->w->view.worker_count; i++) {
        uint32_t most = class->ranks;
        while (most && !rank_fits(judge, class_index, &states[i], i, most, at))
            most--;
        size_t k = count;
        for (; most && k > 0 && held[k - 1] < most; k--)
            held[k] = held[k - 1];
        if (most) {
            held[k] = most;
            count++;
        }
    }
    for (; nodes < count && nodes < class->nodes_max && nodes < class->ranks; nodes++) {
        if (sum >= class->ranks && nodes >= class->nodes_min)
            return true;
        sum += held[nodes];
    }
    return sum >= class->ranks && nodes >= class->nodes_min;
}

static void state_take(struct state *state, const struct policy_class *class, uint64_t ranks)
{
    state->free.cores -= ranks * class->rank.cores;
    state->free.memory_bytes -= ranks * class->rank.memory_bytes;
    state->free.gpus -= ranks * class->rank.gpus;
    state->jobs++;
    state->taken = class->exclusive;
}

static void state_give(struct state *state, const struct policy_class *class, uint64_t ranks)
{
    state->free.cores += ranks * class->rank.cores;
    state->free.memory_bytes += ranks * class->rank.memory_bytes;
    state->free.gpus += ranks * class->rank.gpus;
    state->jobs--;
    if (class->exclusive)
        state->taken = false;
}

static void shares_must_be_a_gang(const struct judge *judge, size_t class_index,
                                  const struct policy_share *shares, size_t count)
{
    const struct policy_class *class = &judge->w->classes[class_index];
    uint64_t ranks = 0, used = 0;
    assert_true(count >= class->nodes_min && count <= class->nodes_max);
    for (size_t i = 0; i < count; i++) {
        assert_true(shares[i].worker_index < judge->w->view.worker_count);
        assert_true(shares[i].ranks > 0);
        assert_false(used & (1u << shares[i].worker_index));
        used |= 1u << shares[i].worker_index;
        ranks += shares[i].ranks;
    }
    assert_int_equal(ranks, class->ranks);
}

/* What a job is charged for: its ranks, or the whole of its workers. */
static struct policy_need charge_of(const struct world *w, size_t class_index,
                                    const struct policy_share *shares, size_t count)
{
    const struct policy_class *class = &w->classes[class_index];
    struct policy_need sum = {0};
    for (size_t i = 0; class->exclusive && i < count; i++) {
        sum.cores += w->workers[shares[i].worker_index].total.cores;
        sum.gpus += w->workers[shares[i].worker_index].total.gpus;
    }
    if (!class->exclusive)
        sum = (struct policy_need){.cores = class->ranks * class->rank.cores,
                                   .gpus = class->ranks * class->rank.gpus};
    return sum;
}

/* GPU time is counted in full before the start; without a limit it has no end. */
static bool limit_allows(const struct policy_limit *limit, const struct policy_class *class,
                         const struct policy_need *charge)
{
    bool time_left =
        charge->gpus == 0 || limit->gpu_ms == UINT64_MAX ||
        (class->charged_ms != POLICY_NEVER && charge->gpus * class->charged_ms <= limit->gpu_ms);
    return limit->jobs >= 1 && limit->cores >= charge->cores && limit->gpus >= charge->gpus &&
           time_left;
}

static void limit_take(struct policy_limit *limit, const struct policy_class *class,
                       const struct policy_need *charge)
{
    limit->jobs -= 1;
    limit->cores -= limit->cores == UINT64_MAX ? 0 : charge->cores;
    limit->gpus -= limit->gpus == UINT64_MAX ? 0 : charge->gpus;
    limit->gpu_ms -=
        limit->gpu_ms == UINT64_MAX || charge->gpus == 0 ? 0 : charge->gpus * class->charged_ms;
}

/* In the order of the plan; afterwards the judge's states are those behind it. */
static void placements_must_be_sound(struct judge *judge)
{
    const struct world *w = judge->w;
    for (size_t i = 0; i < w->plan.placement_count; i++) {
        const struct policy_placement *p = &w->plan.placements[i];
        const struct policy_class *class = &w->classes[p->class_index];
        size_t next = judge->next[p->class_index]++;
        assert_true(next < class->ready_count);
        assert_int_equal(p->job_id, w->jobs[p->class_index][next].job_id);
        shares_must_be_a_gang(judge, p->class_index, p->shares, p->share_count);
        struct policy_need charge = charge_of(w, p->class_index, p->shares, p->share_count);
        for (size_t k = 0; k < class->limit_count; k++) {
            assert_true(limit_allows(&judge->limits[class->limits[k]], class, &charge));
            limit_take(&judge->limits[class->limits[k]], class, &charge);
        }
        for (size_t k = 0; k < p->share_count; k++) {
            struct state *state = &judge->states[p->shares[k].worker_index];
            assert_true(rank_fits(judge, p->class_index, state, p->shares[k].worker_index,
                                  p->shares[k].ranks, NOW));
            state_take(state, class, p->shares[k].ranks);
        }
    }
}

static bool is_ready_and_not_placed(const struct judge *judge, uint64_t job_id)
{
    for (size_t c = 0; c < judge->w->view.class_count; c++)
        for (size_t i = judge->next[c]; i < judge->w->classes[c].ready_count; i++)
            if (judge->w->jobs[c][i].job_id == job_id)
                return true;
    return false;
}

static bool limits_allow_there(const struct judge *judge, size_t class_index, size_t worker_index)
{
    const struct policy_class *class = &judge->w->classes[class_index];
    struct policy_share there = {.worker_index = worker_index};
    struct policy_need charge = charge_of(judge->w, class_index, &there, 1);
    for (size_t i = 0; i < class->limit_count; i++)
        if (!limit_allows(&judge->limits[class->limits[i]], class, &charge))
            return false;
    return true;
}

/* A limit keeps the class from starting: its own need, or all workers that have room for an
 * exclusive job (of several workers only those that do not suffice alone are looked at). */
static void limit_must_be_in_the_way(const struct judge *judge, size_t class_index, size_t limit)
{
    const struct policy_class *class = &judge->w->classes[class_index];
    struct policy_need own = {.cores = class->ranks * class->rank.cores,
                              .gpus = class->ranks * class->rank.gpus};
    if (!limit_allows(&judge->limits[limit], class, &own))
        return;
    assert_true(class->exclusive);
    for (size_t i = 0; class->nodes_max == 1 && i < judge->w->view.worker_count; i++)
        assert_false(rank_fits(judge, class_index, &judge->states[i], i, class->ranks, NOW) &&
                     limits_allow_there(judge, class_index, i));
}

static void verdicts_must_be_true(const struct judge *judge)
{
    const struct world *w = judge->w;
    for (size_t c = 0; c < w->view.class_count; c++) {
        const struct policy_verdict *verdict = &w->plan.verdicts[c];
        bool left = judge->next[c] < w->classes[c].ready_count;
        assert_int_equal(verdict->block != POLICY_BLOCK_NONE, left);
        assert_int_equal(verdict->exhausted, verdict->block == POLICY_BLOCK_ROOM);
        if (verdict->exhausted)
            assert_false(feasible(judge, c, judge->states, NOW));
        if (verdict->block == POLICY_BLOCK_LIMIT)
            limit_must_be_in_the_way(judge, c, verdict->by);
        if (verdict->block == POLICY_BLOCK_ORDER)
            assert_true(is_ready_and_not_placed(judge, verdict->by));
    }
}

/* ---- reservations -------------------------------------------------------------------------- */

static bool is_evicted(const struct world *w, uint64_t job_id)
{
    for (size_t i = 0; i < w->plan.eviction_count; i++)
        if (w->plan.evictions[i].job_id == job_id)
            return true;
    return false;
}

static uint64_t after(uint64_t from, uint64_t duration)
{
    return duration > POLICY_NEVER - from ? POLICY_NEVER : from + duration;
}

/* What is free at a time if everything lasts as long as it may and all reservations before
 * `before` are kept. */
static void states_at(const struct judge *judge, uint64_t at, size_t before, struct state *states)
{
    const struct world *w = judge->w;
    memcpy(states, judge->states, sizeof judge->states);
    for (size_t i = 0; i < w->running_count; i++) {
        const struct policy_running *running = &w->running[i];
        uint64_t ends = max_u64(running->ends_ms, NOW + 1);
        if (is_evicted(w, running->job_id))
            ends = min_u64(ends, NOW + running->stop_ms);
        if (ends <= at)
            state_give(&states[running->shares[0].worker_index], &w->classes[running->class_index],
                       running->shares[0].ranks);
    }
    for (size_t i = 0; i < w->plan.placement_count; i++) {
        const struct policy_placement *p = &w->plan.placements[i];
        const struct policy_class *class = &w->classes[p->class_index];
        for (size_t k = 0; k < p->share_count && after(NOW, class->wall_time_ms) <= at; k++)
            state_give(&states[p->shares[k].worker_index], class, p->shares[k].ranks);
    }
    for (size_t i = 0; i < before; i++) {
        const struct policy_reservation *r = &w->plan.reservations[i];
        const struct policy_class *class = &w->classes[r->class_index];
        if (r->start_ms > at || after(r->start_ms, class->wall_time_ms) <= at)
            continue;
        for (size_t k = 0; k < r->share_count; k++)
            state_take(&states[r->shares[k].worker_index], class, r->shares[k].ranks);
    }
}

/* Each has its room at its start, beside all before it, which therefore are not delayed; none is
 * delayed by a job that starts now. (Room is only cut where a reservation starts.) */
static void reservations_must_be_kept(const struct judge *judge)
{
    const struct world *w = judge->w;
    for (size_t i = 0; i < w->plan.reservation_count; i++) {
        const struct policy_reservation *r = &w->plan.reservations[i];
        assert_true(is_ready_and_not_placed(judge, r->job_id));
        assert_true(r->start_ms > NOW || !r->firm);
        assert_true(r->firm || w->view.estimate);
        shares_must_be_a_gang(judge, r->class_index, r->shares, r->share_count);
        if (r->start_ms == POLICY_NEVER)
            continue;
        for (size_t later = 0; later <= i; later++) {
            const struct policy_reservation *o = &w->plan.reservations[later];
            uint64_t at = max_u64(o->start_ms, r->start_ms);
            struct state states[WORKERS_MAX];
            if (at >= after(r->start_ms, w->classes[r->class_index].wall_time_ms))
                continue;
            states_at(judge, at, i, states);
            for (size_t k = 0; k < r->share_count; k++)
                assert_true(rank_fits(judge, r->class_index, &states[r->shares[k].worker_index],
                                      r->shares[k].worker_index, r->shares[k].ranks, r->start_ms));
        }
    }
}

/* The first one is as early as can be: not possible at any time before. */
static void the_first_reservation_must_be_the_earliest(const struct judge *judge)
{
    const struct world *w = judge->w;
    if (w->plan.reservation_count == 0)
        return;
    const struct policy_reservation *r = &w->plan.reservations[0];
    if (w->classes[r->class_index].evicts)
        return; /* waits for what it evicted, though something else may end before */
    if (w->classes[r->class_index].exclusive && w->classes[r->class_index].limit_count)
        return; /* waits for workers that its limits allow, though others are free before */
    for (uint64_t at = NOW; at < min_u64(r->start_ms, NOW + 300); at++) {
        struct state states[WORKERS_MAX];
        states_at(judge, at, 0, states);
        /* What starts now was decided beside the reservation, so it does not count. */
        if (w->plan.placement_count == 0)
            assert_false(feasible(judge, r->class_index, states, at));
    }
}

/* ---- evictions ----------------------------------------------------------------------------- */

static size_t class_of_ready(const struct world *w, uint64_t job_id)
{
    for (size_t c = 0; c < w->view.class_count; c++)
        for (size_t i = 0; i < w->classes[c].ready_count; i++)
            if (w->jobs[c][i].job_id == job_id)
                return c;
    fail();
    return 0;
}

/* When all that stops has stopped; jobs so short that they are over by then may have started. */
static void states_coming(const struct judge *judge, struct state *states)
{
    const struct world *w = judge->w;
    memcpy(states, judge->states, sizeof judge->states);
    for (size_t i = 0; i < w->running_count; i++)
        if (w->running[i].stopping || is_evicted(w, w->running[i].job_id))
            state_give(&states[w->running[i].shares[0].worker_index],
                       &w->classes[w->running[i].class_index], w->running[i].shares[0].ranks);
    for (size_t i = 0; i < w->plan.placement_count; i++) {
        const struct policy_placement *p = &w->plan.placements[i];
        const struct policy_class *class = &w->classes[p->class_index];
        for (size_t k = 0; k < p->share_count && class->wall_time_ms <= STOP; k++)
            state_give(&states[p->shares[k].worker_index], class, p->shares[k].ranks);
    }
}

static void evictions_must_help(const struct judge *judge)
{
    const struct world *w = judge->w;
    struct state states[WORKERS_MAX];
    for (size_t i = 0; i < w->plan.eviction_count; i++) {
        const struct policy_eviction *eviction = &w->plan.evictions[i];
        size_t class_index = class_of_ready(w, eviction->for_job_id);
        const struct policy_running *victim = NULL;
        for (size_t k = 0; k < w->running_count; k++)
            if (w->running[k].job_id == eviction->job_id)
                victim = &w->running[k];
        assert_non_null(victim);
        assert_true(victim->evictable && !victim->stopping);
        assert_true(w->classes[class_index].evicts);
        assert_true(w->classes[victim->class_index].preemption <
                    w->classes[class_index].preemption);
        assert_true(is_ready_and_not_placed(judge, eviction->for_job_id));
        for (size_t k = 0; k < i; k++)
            assert_int_not_equal(w->plan.evictions[k].job_id, eviction->job_id);
        states_coming(judge, states);
        assert_true(feasible(judge, class_index, states, NOW));
    }
}

/* ---- the tests ----------------------------------------------------------------------------- */

static void plan_must_conform(struct world *w)
{
    struct judge judge;
    judge_open(&judge, w);
    placements_must_be_sound(&judge);
    verdicts_must_be_true(&judge);
    reservations_must_be_kept(&judge);
    the_first_reservation_must_be_the_earliest(&judge);
    evictions_must_help(&judge);
}

static void every_policy_keeps_what_all_must_keep(void **state)
{
    struct world *w = *state;
    uint64_t placements = 0, reservations = 0, evictions = 0, orders = 0;
    for (size_t which = 0; policy_at(which); which++) {
        for (uint64_t seed = 0; seed < SEEDS; seed++) {
            draw(w, seed);
            world_plan(w, policy_at(which));
            plan_must_conform(w);
            placements += w->plan.placement_count;
            reservations += w->plan.reservation_count;
            evictions += w->plan.eviction_count;
            for (size_t c = 0; c < w->view.class_count; c++)
                orders += w->plan.verdicts[c].block == POLICY_BLOCK_ORDER;
        }
    }
    print_message("%llu placements, %llu reservations, %llu evictions, %llu refused for order\n",
                  (unsigned long long)placements, (unsigned long long)reservations,
                  (unsigned long long)evictions, (unsigned long long)orders);
    assert_true(placements && reservations && evictions && orders); /* or nothing was tried */
}

static void every_policy_gives_the_same_plan_for_the_same_view(void **state)
{
    struct world *w = *state;
    for (size_t which = 0; policy_at(which); which++) {
        for (uint64_t seed = 0; seed < SEEDS; seed++) {
            struct buf first = {0}, second = {0};
            draw(w, seed);
            world_plan(w, policy_at(which));
            world_text(w, &first);
            draw(w, seed);
            world_plan(w, policy_at(which));
            world_text(w, &second);
            assert_string_equal(buf_text(&first), buf_text(&second));
            buf_done(&first);
            buf_done(&second);
        }
    }
}

/* Applies the plan, frees some workers, and plans again with what the core then says: classes
 * called exhausted look only at changed workers, and must come to the same plan. */
static void apply_and_change(struct world *w, uint64_t seed)
{
    struct rng rng;
    rng_init(&rng, seed + 1000000);
    for (size_t c = 0; c < w->view.class_count; c++)
        w->classes[c].blocked = w->plan.verdicts[c].exhausted;
    for (size_t i = 0; i < w->plan.placement_count && w->running_count < RUNNING_MAX; i++) {
        const struct policy_placement *p = &w->plan.placements[i];
        for (size_t k = 0; k < p->share_count && w->running_count < RUNNING_MAX; k++)
            world_run(w, 2000 + 10 * i + k, p->class_index, p->shares[k].worker_index,
                      p->shares[k].ranks, POLICY_NEVER);
        struct policy_class *class = &w->classes[p->class_index];
        for (uint64_t k = 0, kept = 0; k < class->ready_count; k++)
            if (w->jobs[p->class_index][k].job_id != p->job_id)
                w->jobs[p->class_index][kept++] = w->jobs[p->class_index][k];
        class->ready_count--;
    }
    for (size_t i = 0; i < w->view.worker_count; i++) {
        if (rng_below(&rng, 3))
            continue;
        w->workers[i].free.cores =
            min_u64(w->workers[i].free.cores + rng_below(&rng, 4), w->workers[i].total.cores);
        w->workers[i].usable = true;
        w->changed[w->view.changed_count++] = i;
    }
}

static void looking_only_at_changed_workers_changes_nothing(void **state)
{
    struct world *w = *state;
    for (size_t which = 0; policy_at(which); which++) {
        for (uint64_t seed = 0; seed < SEEDS; seed++) {
            struct buf narrow = {0}, wide = {0};
            draw(w, seed);
            world_plan(w, policy_at(which));
            if (w->plan.placement_count > 8)
                continue; /* the world has no room for so many running */
            apply_and_change(w, seed);
            world_plan(w, policy_at(which));
            world_text(w, &narrow);
            for (size_t c = 0; c < w->view.class_count; c++)
                w->classes[c].blocked = false;
            world_plan(w, policy_at(which));
            world_text(w, &wide);
            assert_string_equal(buf_text(&narrow), buf_text(&wide));
            buf_done(&narrow);
            buf_done(&wide);
        }
    }
}

static void policies_are_found_by_name(void **state)
{
    (void)state;
    for (size_t i = 0; policy_at(i); i++)
        assert_ptr_equal(policy_find(policy_at(i)->name), policy_at(i));
    assert_null(policy_find("lottery"));
    assert_null(policy_find(""));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        WORLD_TEST(every_policy_keeps_what_all_must_keep),
        WORLD_TEST(every_policy_gives_the_same_plan_for_the_same_view),
        WORLD_TEST(looking_only_at_changed_workers_changes_nothing),
        cmocka_unit_test(policies_are_found_by_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
