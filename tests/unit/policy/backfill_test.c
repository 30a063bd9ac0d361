/* backfill_test.c - reservations, limits and evictions on clusters small enough to check by
 * hand. Time is now 0 unless said otherwise. */
#include "common/base/rng.h"
#include "tests/unit/policy/world.h"

static bool is_placed(const struct world *w, uint64_t job_id)
{
    for (size_t i = 0; i < w->plan.placement_count; i++)
        if (w->plan.placements[i].job_id == job_id)
            return true;
    return false;
}

static const struct policy_reservation *reservation(const struct world *w, uint64_t job_id)
{
    for (size_t i = 0; i < w->plan.reservation_count; i++)
        if (w->plan.reservations[i].job_id == job_id)
            return &w->plan.reservations[i];
    return NULL;
}

/* One worker of 4 cores, 3 of them in use until 100 by a job of class 0; job 1 of class 1 wants
 * all four. */
static void busy_worker(struct world *w)
{
    world_worker(w, 0, 4, 0);
    world_class(w, 0, 3, 1, 0);
    world_run(w, 90, 0, 0, 3, 100);
    world_class(w, 1, 4, 1, 0)->wall_time_ms = 50;
    world_job(w, 1, 1, 0);
}

static void others_start_if_they_end_before_the_reservation(void **state)
{
    struct world *w = *state;
    busy_worker(w);
    world_class(w, 2, 1, 1, 0)->wall_time_ms = 100;
    world_class(w, 3, 1, 1, 0)->wall_time_ms = 101;
    world_job(w, 3, 2, 0);
    world_job(w, 2, 3, 0);
    world_plan(w, policy_find("easy"));
    assert_false(is_placed(w, 2)); /* would end at 101 */
    assert_true(is_placed(w, 3));
    assert_int_equal(reservation(w, 1)->start_ms, 100);
    assert_true(reservation(w, 1)->firm);
    assert_int_equal(w->plan.verdicts[1].block, POLICY_BLOCK_ROOM);
    assert_int_equal(w->plan.verdicts[3].block, POLICY_BLOCK_ORDER);
    assert_int_equal(w->plan.verdicts[3].by, 1);
}

static void others_start_if_they_leave_the_reserved_room(void **state)
{
    struct world *w = *state;
    busy_worker(w);
    world_worker(w, 1, 1, 0); /* too small for job 1 */
    world_class(w, 2, 1, 1, 0);
    world_job(w, 2, 2, 0);
    world_job(w, 2, 3, 0);
    world_plan(w, policy_find("easy"));
    assert_int_equal(w->plan.placement_count, 1);
    assert_int_equal(w->plan.placements[0].shares[0].worker_index, 1);
}

static void short_jobs_use_reserved_workers_first(void **state)
{
    struct world *w = *state;
    world_worker(w, 0, 1, 0);
    world_worker(w, 1, 4, 0);
    world_class(w, 0, 3, 1, 0);
    world_run(w, 90, 0, 1, 3, 100);
    world_class(w, 1, 4, 1, 0)->wall_time_ms = 50;
    world_class(w, 2, 1, 1, 0)->wall_time_ms = 100;
    world_class(w, 3, 1, 1, 0);
    world_job(w, 1, 1, 0);
    world_job(w, 2, 2, 0);
    world_job(w, 3, 3, 0);
    world_plan(w, policy_find("easy"));
    assert_int_equal(w->plan.placement_count, 2);
    assert_int_equal(w->plan.placements[0].shares[0].worker_index, 1); /* job 2, until 100 */
    assert_int_equal(w->plan.placements[1].shares[0].worker_index, 0); /* so 3 has room */
}

static void what_runs_is_looked_at_only_when_somebody_may_be_delayed(void **state)
{
    struct world *w = *state;
    busy_worker(w);
    world_plan(w, policy_find("easy"));
    assert_int_equal(w->running_asked, 0); /* nobody else waits */
    world_class(w, 2, 2, 1, 0);
    world_job(w, 2, 2, 0);
    world_plan(w, policy_find("easy"));
    assert_int_equal(w->running_asked, 0); /* the other has no room either */
    world_class(w, 3, 1, 1, 0);
    world_job(w, 3, 3, 0);
    world_plan(w, policy_find("easy"));
    assert_int_equal(w->running_asked, 1);
    assert_false(is_placed(w, 3));
}

static void a_job_that_can_never_run_holds_nobody_up(void **state)
{
    struct world *w = *state;
    world_worker(w, 0, 4, 0);
    world_class(w, 0, 5, 1, 0);
    world_class(w, 1, 1, 1, 0);
    world_job(w, 0, 1, 10);
    world_job(w, 1, 2, 0);
    for (size_t i = 0; policy_at(i); i++) {
        world_plan(w, policy_at(i));
        assert_true(is_placed(w, 2));
        assert_int_equal(w->plan.reservation_count, 0);
    }
}

static void strict_order_lets_nobody_overtake(void **state)
{
    struct world *w = *state;
    busy_worker(w);
    world_class(w, 2, 1, 1, 0)->wall_time_ms = 1;
    world_job(w, 2, 2, 0);
    world_plan(w, policy_find("fcfs"));
    assert_int_equal(w->plan.placement_count, 0);
    assert_int_equal(w->plan.verdicts[2].block, POLICY_BLOCK_ORDER);
    assert_int_equal(w->plan.verdicts[2].by, 1);
    assert_false(w->plan.verdicts[2].exhausted);
}

static void room_that_has_no_date_is_kept(void **state)
{
    struct world *w = *state;
    busy_worker(w);
    w->running[0].ends_ms = POLICY_NEVER;
    world_class(w, 2, 1, 1, 0)->wall_time_ms = 1;
    world_job(w, 2, 2, 0);
    world_plan(w, policy_find("easy"));
    assert_int_equal(w->plan.placement_count, 0);
    assert_int_equal(reservation(w, 1)->start_ms, POLICY_NEVER);
    assert_int_equal(w->plan.verdicts[2].by, 1);
}

static void reservations_wait_for_the_end_of_a_window(void **state)
{
    struct world *w = *state;
    busy_worker(w);
    w->classes[1].constrained = true;
    w->allowed[1][0] = true;
    w->closed_until[1][0] = w->times[0] = 250;
    w->view.time_count = 1;
    w->view.estimate = true;
    world_plan(w, policy_find("easy"));
    assert_int_equal(reservation(w, 1)->start_ms, 250);
}

static void asked_for_estimates_every_waiting_job_gets_one(void **state)
{
    struct world *w = *state;
    busy_worker(w);
    world_job(w, 1, 2, 0);
    world_job(w, 1, 3, 0);
    w->view.estimate = true;
    for (size_t i = 0; policy_at(i); i++) {
        world_plan(w, policy_at(i));
        assert_int_equal(w->plan.reservation_count, 3);
        assert_int_equal(reservation(w, 1)->start_ms, 100);
        assert_int_equal(reservation(w, 2)->start_ms, 150);
        assert_int_equal(reservation(w, 3)->start_ms, 200);
    }
    world_plan(w, policy_find("easy"));
    assert_true(reservation(w, 1)->firm);
    assert_false(reservation(w, 2)->firm);
    world_plan(w, policy_find("conservative"));
    assert_true(reservation(w, 3)->firm);
}

static void conservative_delays_nobody_where_easy_would(void **state)
{
    struct world *w = *state;
    world_worker(w, 0, 4, 0);
    world_class(w, 0, 2, 1, 0);
    world_run(w, 90, 0, 0, 2, 100);
    world_class(w, 1, 3, 1, 0)->wall_time_ms = 100; /* reserved at 100 */
    world_class(w, 2, 4, 1, 0)->wall_time_ms = 100; /* then at 200 */
    world_class(w, 3, 1, 1, 0)->wall_time_ms = 300; /* beside the first, not the second */
    world_job(w, 1, 1, 0);
    world_job(w, 2, 2, 0);
    world_job(w, 3, 3, 0);
    world_plan(w, policy_find("easy"));
    assert_true(is_placed(w, 3));
    world_plan(w, policy_find("conservative"));
    assert_false(is_placed(w, 3));
    assert_int_equal(reservation(w, 2)->start_ms, 200);
    assert_int_equal(w->plan.verdicts[3].by, 2);
}

/* ---- limits -------------------------------------------------------------------------------- */

static void a_class_at_its_limit_waits_without_reserving(void **state)
{
    struct world *w = *state;
    world_worker(w, 0, 4, 0);
    w->limits[0] = (struct policy_limit){1, UINT64_MAX, UINT64_MAX, UINT64_MAX};
    w->view.limit_count = 1;
    struct policy_class *class = world_class(w, 0, 1, 1, 0);
    class->limit_count = 1;
    world_class(w, 1, 1, 1, 0);
    world_job(w, 0, 1, 10);
    world_job(w, 0, 2, 10);
    world_job(w, 1, 3, 0);
    for (size_t i = 0; policy_at(i); i++) {
        world_plan(w, policy_at(i));
        assert_true(is_placed(w, 1));
        assert_false(is_placed(w, 2));
        assert_true(is_placed(w, 3));
        assert_int_equal(w->plan.verdicts[0].block, POLICY_BLOCK_LIMIT);
        assert_int_equal(w->plan.verdicts[0].by, 0);
        assert_int_equal(w->plan.reservation_count, 0);
    }
}

static void classes_share_a_limit(void **state)
{
    struct world *w = *state;
    world_worker(w, 0, 8, 4);
    w->limits[0] = (struct policy_limit){UINT64_MAX, 5, 2, UINT64_MAX};
    w->view.limit_count = 1;
    for (size_t i = 0; i < 2; i++) {
        world_class(w, i, 1, 2, 1)->limit_count = 1;
        world_job(w, i, 2 * i + 1, 0);
        world_job(w, i, 2 * i + 2, 0);
    }
    world_plan(w, policy_find("fair"));
    assert_int_equal(w->plan.placement_count, 2);
    assert_int_equal(w->plan.verdicts[0].block, POLICY_BLOCK_NONE);
    assert_int_equal(w->plan.verdicts[1].block, POLICY_BLOCK_LIMIT);
}

static void gpu_hours_are_charged_by_the_limit_of_time(void **state)
{
    struct world *w = *state;
    world_worker(w, 0, 8, 8);
    w->limits[0] = (struct policy_limit){UINT64_MAX, UINT64_MAX, UINT64_MAX, 250};
    w->view.limit_count = 1;
    struct policy_class *class = world_class(w, 0, 1, 1, 1);
    class->limit_count = 1;
    class->wall_time_ms = class->charged_ms = 100;
    for (uint64_t id = 1; id <= 4; id++)
        world_job(w, 0, id, 0);
    world_plan(w, policy_find("fair"));
    assert_int_equal(w->plan.placement_count, 2); /* a third would overdraw by 50 */
    assert_int_equal(w->plan.verdicts[0].block, POLICY_BLOCK_LIMIT);
}

static void gpu_hours_are_not_for_jobs_without_an_enforced_limit(void **state)
{
    struct world *w = *state;
    world_worker(w, 0, 8, 8);
    w->limits[0] = (struct policy_limit){UINT64_MAX, UINT64_MAX, UINT64_MAX, UINT64_MAX - 1};
    w->view.limit_count = 1;
    struct policy_class *class = world_class(w, 0, 1, 1, 1);
    class->limit_count = 1;
    class->wall_time_ms = 100; /* a default of its queue */
    world_job(w, 0, 1, 0);
    world_plan(w, policy_find("fair"));
    assert_int_equal(w->plan.verdicts[0].block, POLICY_BLOCK_LIMIT);
}

/* Workers of 8 and 2 cores, the larger one first; 1 core is asked for and the quota has 4 left. */
static void an_exclusive_job_is_charged_for_its_whole_worker(void **state)
{
    struct world *w = *state;
    world_worker(w, 0, 8, 0);
    world_worker(w, 1, 2, 0);
    world_worker(w, 2, 2, 0);
    world_worker(w, 3, 2, 0);
    w->limits[0] = (struct policy_limit){UINT64_MAX, 5, UINT64_MAX, UINT64_MAX};
    w->view.limit_count = 1;
    struct policy_class *class = world_class(w, 0, 1, 1, 0);
    class->limit_count = 1;
    class->exclusive = true;
    for (uint64_t id = 1; id <= 3; id++)
        world_job(w, 0, id, 0);
    world_plan(w, policy_find("fair"));
    assert_int_equal(w->plan.placement_count, 2);
    assert_int_equal(w->plan.placements[0].shares[0].worker_index, 1);
    assert_int_equal(w->plan.placements[1].shares[0].worker_index, 2);
    assert_int_equal(w->plan.verdicts[0].block, POLICY_BLOCK_LIMIT);
    assert_false(w->plan.verdicts[0].exhausted);
}

/* ---- evictions ----------------------------------------------------------------------------- */

/* Class 0 may be evicted, class 1 evicts. */
static void evicting_pair(struct world *w, uint32_t ranks)
{
    world_class(w, 0, 1, 1, 0);
    struct policy_class *class = world_class(w, 1, ranks, 1, 0);
    class->evicts = true;
    class->preemption = 1;
}

static void victim(struct world *w, uint64_t job_id, size_t worker_index, uint64_t lost_ms)
{
    struct policy_running *running = world_run(w, job_id, 0, worker_index, 1, POLICY_NEVER);
    running->evictable = true;
    running->lost_ms = lost_ms;
}

static void those_with_least_work_lost_make_room(void **state)
{
    struct world *w = *state;
    world_worker(w, 0, 2, 0);
    world_worker(w, 1, 2, 0);
    evicting_pair(w, 1);
    victim(w, 91, 0, 50);
    victim(w, 92, 0, 40);
    victim(w, 93, 1, 10);
    victim(w, 94, 1, 60);
    world_job(w, 1, 1, 0);
    world_plan(w, policy_find("fair"));
    assert_int_equal(w->plan.eviction_count, 1);
    assert_int_equal(w->plan.evictions[0].job_id, 93);
    assert_int_equal(w->plan.evictions[0].for_job_id, 1);
}

/* Taking the cheapest one by one would come to 92, 93 and 94 and give 92 back. */
static void the_sum_of_losses_on_a_worker_decides(void **state)
{
    struct world *w = *state;
    world_worker(w, 0, 2, 0);
    world_worker(w, 1, 2, 0);
    evicting_pair(w, 2);
    victim(w, 91, 0, 200);
    victim(w, 92, 0, 10);
    victim(w, 93, 1, 150);
    victim(w, 94, 1, 150);
    world_job(w, 1, 1, 0);
    world_plan(w, policy_find("fair"));
    assert_int_equal(w->plan.eviction_count, 2);
    assert_true(w->plan.evictions[0].job_id <= 92 && w->plan.evictions[1].job_id <= 92);
}

/* 3 ranks on two workers, of which one holds 2: of the two that hold 1 only one is needed. */
static void those_that_are_not_needed_are_spared(void **state)
{
    struct world *w = *state;
    world_worker(w, 0, 2, 0);
    world_worker(w, 1, 1, 0);
    world_worker(w, 2, 1, 0);
    evicting_pair(w, 3);
    w->classes[1].nodes_max = 2;
    victim(w, 91, 0, 40);
    victim(w, 92, 0, 40);
    victim(w, 93, 1, 1);
    victim(w, 94, 2, 1);
    world_job(w, 1, 1, 0);
    world_plan(w, policy_find("fair"));
    assert_int_equal(w->plan.eviction_count, 3);
}

static void nobody_is_evicted_in_vain(void **state)
{
    struct world *w = *state;
    world_worker(w, 0, 3, 0);
    evicting_pair(w, 3);
    world_class(w, 2, 1, 1, 0)->preemption = 1; /* not below the evicting class */
    victim(w, 91, 0, 0);
    victim(w, 92, 0, 0);
    world_run(w, 93, 2, 0, 1, 100)->evictable = true;
    world_job(w, 1, 1, 0);
    world_plan(w, policy_find("fair"));
    assert_int_equal(w->plan.eviction_count, 0);
}

static void room_that_is_coming_is_not_evicted_again(void **state)
{
    struct world *w = *state;
    world_worker(w, 0, 2, 0);
    evicting_pair(w, 1);
    victim(w, 91, 0, 0);
    victim(w, 92, 0, 9);
    w->running[0].evictable = false;
    w->running[0].stopping = true;
    w->running[0].ends_ms = 3;
    world_job(w, 1, 1, 0);
    world_plan(w, policy_find("fair"));
    assert_int_equal(w->plan.eviction_count, 0);
    world_job(w, 1, 2, 0); /* the second needs room of its own */
    world_plan(w, policy_find("fair"));
    assert_int_equal(w->plan.eviction_count, 1);
    assert_int_equal(w->plan.evictions[0].job_id, 92);
    assert_int_equal(w->plan.evictions[0].for_job_id, 2);
}

static void what_was_freed_is_kept_for_whom_it_was_freed(void **state)
{
    struct world *w = *state;
    world_worker(w, 0, 2, 0);
    evicting_pair(w, 2);
    victim(w, 91, 0, 0);
    world_class(w, 2, 1, 1, 0); /* fits beside the victim now */
    world_job(w, 1, 1, 5);
    world_job(w, 2, 2, 0);
    world_plan(w, policy_find("fair"));
    assert_int_equal(w->plan.eviction_count, 1);
    assert_int_equal(w->plan.placement_count, 0);
    assert_int_equal(reservation(w, 1)->start_ms, STOP);
    assert_int_equal(w->plan.verdicts[2].by, 1);
}

/* ---- order --------------------------------------------------------------------------------- */

/* A drawn cluster without evictions: the plans of a job and of those before it stay the same
 * whoever stands behind. */
static void draw_line(struct world *w, struct rng *rng)
{
    size_t workers = 1 + rng_below(rng, 6);
    for (size_t i = 0; i < workers; i++)
        world_worker(w, i, 1 + rng_below(rng, 6), 0);
    for (size_t i = 0; i < CLASSES_MAX; i++) {
        struct policy_class *class = world_class(w, i, 1 + (uint32_t)rng_below(rng, 6), 1, 0);
        class->nodes_max = 1 + (uint32_t)rng_below(rng, 3);
        class->wall_time_ms = 1 + rng_below(rng, 100);
    }
    for (size_t i = 0; i < 10; i++) {
        size_t worker = rng_below(rng, workers);
        if (w->workers[worker].free.cores)
            world_run(w, 90 + i, 0, worker, 1, 1 + rng_below(rng, 100));
    }
    for (size_t i = 0; i < CLASSES_MAX; i++)
        world_job(w, i, i + 1, 0);
}

static void under_conservative_nobody_delays_those_before_him(void **state)
{
    struct world *w = *state;
    for (uint64_t seed = 0; seed < 500; seed++) {
        uint64_t start[CLASSES_MAX + 1] = {0};
        for (size_t jobs = 1; jobs <= CLASSES_MAX; jobs++) {
            struct arena arena = w->arena;
            struct rng rng;
            memset(w, 0, sizeof *w);
            w->arena = arena;
            rng_init(&rng, seed);
            draw_line(w, &rng);
            w->view.class_count = jobs;
            w->view.estimate = true;
            world_plan(w, policy_find("conservative"));
            for (size_t id = 1; id <= jobs; id++) {
                const struct policy_reservation *r = reservation(w, id);
                uint64_t at = r ? r->start_ms : is_placed(w, id) ? 0 : POLICY_NEVER;
                if (id < jobs)
                    assert_int_equal(at, start[id]);
                start[id] = at;
            }
        }
    }
}

static void the_bonus_of_a_class_counts_like_priority(void **state)
{
    struct world *w = *state;
    world_worker(w, 0, 1, 0);
    world_class(w, 0, 1, 1, 0);
    world_class(w, 1, 1, 1, 0)->bonus = 3;
    world_job(w, 0, 1, 2);
    world_job(w, 1, 2, 0);
    world_plan(w, policy_find("fair"));
    assert_true(is_placed(w, 2));
    w->classes[0].bonus = 1; /* equal now: the older one */
    world_plan(w, policy_find("fair"));
    assert_true(is_placed(w, 1));
}

/* Else the victim would take back the room that was made, and be evicted for it again. */
static void who_may_evict_comes_before_its_victims_whatever_their_priority(void **state)
{
    struct world *w = *state;
    world_worker(w, 0, 1, 0);
    evicting_pair(w, 1);
    world_job(w, 0, 1, 1000);
    world_job(w, 1, 2, -1000);
    world_plan(w, policy_find("fair"));
    assert_true(is_placed(w, 2));
    world_plan(w, policy_find("fifo")); /* where nobody evicts */
    assert_true(is_placed(w, 1));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        WORLD_TEST(others_start_if_they_end_before_the_reservation),
        WORLD_TEST(others_start_if_they_leave_the_reserved_room),
        WORLD_TEST(short_jobs_use_reserved_workers_first),
        WORLD_TEST(what_runs_is_looked_at_only_when_somebody_may_be_delayed),
        WORLD_TEST(a_job_that_can_never_run_holds_nobody_up),
        WORLD_TEST(strict_order_lets_nobody_overtake),
        WORLD_TEST(room_that_has_no_date_is_kept),
        WORLD_TEST(reservations_wait_for_the_end_of_a_window),
        WORLD_TEST(asked_for_estimates_every_waiting_job_gets_one),
        WORLD_TEST(conservative_delays_nobody_where_easy_would),
        WORLD_TEST(a_class_at_its_limit_waits_without_reserving),
        WORLD_TEST(classes_share_a_limit),
        WORLD_TEST(gpu_hours_are_charged_by_the_limit_of_time),
        WORLD_TEST(gpu_hours_are_not_for_jobs_without_an_enforced_limit),
        WORLD_TEST(an_exclusive_job_is_charged_for_its_whole_worker),
        WORLD_TEST(those_with_least_work_lost_make_room),
        WORLD_TEST(the_sum_of_losses_on_a_worker_decides),
        WORLD_TEST(those_that_are_not_needed_are_spared),
        WORLD_TEST(nobody_is_evicted_in_vain),
        WORLD_TEST(room_that_is_coming_is_not_evicted_again),
        WORLD_TEST(what_was_freed_is_kept_for_whom_it_was_freed),
        WORLD_TEST(under_conservative_nobody_delays_those_before_him),
        WORLD_TEST(the_bonus_of_a_class_counts_like_priority),
        WORLD_TEST(who_may_evict_comes_before_its_victims_whatever_their_priority),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
