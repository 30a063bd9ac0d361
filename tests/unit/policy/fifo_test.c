/* fifo_test.c - what fifo promises; what every policy must keep is in conformance_test.c. */
#include "tests/unit/policy/world.h"

static const struct policy_placement *placement(const struct world *w, size_t index)
{
    assert_true(index < w->plan.placement_count);
    return &w->plan.placements[index];
}

static void higher_priority_goes_first_then_order_of_submit(void **state)
{
    struct world *w = *state;
    world_worker(w, 0, 3, 0);
    world_class(w, 0, 1, 1, 0);
    world_class(w, 1, 1, 1, 0);
    world_job(w, 0, 5, 0);
    world_job(w, 0, 7, 0);
    world_job(w, 1, 9, 10);
    world_job(w, 1, 6, 0);
    world_plan(w, policy_find("fifo"));
    assert_int_equal(w->plan.placement_count, 3);
    assert_int_equal(placement(w, 0)->job_id, 9);
    assert_int_equal(placement(w, 1)->job_id, 5);
    assert_int_equal(placement(w, 2)->job_id, 6);
}

static void a_job_that_does_not_fit_lets_smaller_ones_pass(void **state)
{
    struct world *w = *state;
    world_worker(w, 0, 2, 0);
    world_class(w, 0, 1, 8, 0);
    world_class(w, 1, 1, 1, 0);
    world_job(w, 0, 1, 10);
    world_job(w, 1, 2, 0);
    world_plan(w, policy_find("fifo"));
    assert_int_equal(w->plan.placement_count, 1);
    assert_int_equal(placement(w, 0)->job_id, 2);
    assert_true(w->plan.verdicts[0].exhausted);
    assert_false(w->plan.verdicts[1].exhausted);
}

static void gpus_are_kept_for_jobs_that_need_them(void **state)
{
    struct world *w = *state;
    world_worker(w, 0, 4, 2);
    world_worker(w, 1, 1, 0);
    world_class(w, 0, 1, 1, 0);
    world_class(w, 1, 1, 1, 1);
    world_job(w, 0, 1, 0);
    world_job(w, 0, 2, 0);
    world_job(w, 1, 3, 0);
    world_plan(w, policy_find("fifo"));
    assert_int_equal(placement(w, 0)->shares[0].worker_index,
                     1); /* no GPU wanted: the one without */
    assert_int_equal(placement(w, 1)->shares[0].worker_index, 0); /* until it is full */
    assert_int_equal(placement(w, 2)->shares[0].worker_index, 0);
}

static void a_blocked_class_looks_only_at_changed_workers(void **state)
{
    struct world *w = *state;
    world_worker(w, 0, 4, 0);
    world_worker(w, 1, 4, 0);
    world_class(w, 0, 1, 2, 0);
    world_job(w, 0, 1, 0);
    w->classes[0].blocked = true;
    w->changed[0] = 1;
    w->view.changed_count = 1;
    world_plan(w, policy_find("fifo"));
    assert_int_equal(w->plan.placement_count, 1);
    assert_int_equal(placement(w, 0)->shares[0].worker_index, 1);
}

static void a_pass_does_not_look_at_what_runs(void **state)
{
    struct world *w = *state;
    world_worker(w, 0, 2, 0);
    world_class(w, 0, 1, 8, 0);
    world_class(w, 1, 1, 1, 0);
    world_job(w, 0, 1, 10);
    world_job(w, 1, 2, 0);
    world_plan(w, policy_find("fifo"));
    assert_int_equal(w->running_asked, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        WORLD_TEST(higher_priority_goes_first_then_order_of_submit),
        WORLD_TEST(a_job_that_does_not_fit_lets_smaller_ones_pass),
        WORLD_TEST(gpus_are_kept_for_jobs_that_need_them),
        WORLD_TEST(a_blocked_class_looks_only_at_changed_workers),
        WORLD_TEST(a_pass_does_not_look_at_what_runs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
