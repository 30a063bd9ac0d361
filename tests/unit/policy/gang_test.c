/* gang_test.c - which workers a job of several ranks gets. */
#include "tests/unit/policy/world.h"

static struct policy_class *gang(struct world *w, uint32_t ranks, uint32_t nodes_min,
                                 uint32_t nodes_max)
{
    struct policy_class *class = world_class(w, 0, ranks, 1, 0);
    class->nodes_min = nodes_min;
    class->nodes_max = nodes_max;
    world_job(w, 0, 1, 0);
    return class;
}

static const char *placed(struct world *w)
{
    static char text[200];
    size_t length = 0;
    world_plan(w, policy_find("fifo"));
    text[0] = '\0';
    for (size_t i = 0; i < w->plan.placement_count; i++)
        for (size_t k = 0; k < w->plan.placements[i].share_count; k++)
            length += (size_t)snprintf(text + length, sizeof text - length, "%zux%u ",
                                       w->plan.placements[i].shares[k].worker_index,
                                       w->plan.placements[i].shares[k].ranks);
    assert_true(length < sizeof text);
    return text;
}

static void a_gang_starts_whole_or_not_at_all(void **state)
{
    struct world *w = *state;
    for (size_t i = 0; i < 3; i++)
        world_worker(w, i, 2, 0);
    gang(w, 7, 1, 3);
    assert_string_equal(placed(w), "");
    assert_true(w->plan.verdicts[0].exhausted);
    world_worker(w, 3, 1, 0);
    assert_string_equal(placed(w), ""); /* four workers are more than it allows */
    w->classes[0].nodes_max = 4;
    assert_string_equal(placed(w), "0x2 1x2 2x2 3x1 ");
}

static void packing_takes_the_fewest_workers(void **state)
{
    struct world *w = *state;
    world_worker(w, 0, 2, 0);
    world_worker(w, 1, 4, 0);
    world_worker(w, 2, 2, 0);
    gang(w, 4, 1, 4);
    assert_string_equal(placed(w), "1x4 ");
}

static void ranks_are_divided_evenly_as_far_as_there_is_room(void **state)
{
    struct world *w = *state;
    world_worker(w, 0, 8, 0);
    world_worker(w, 1, 8, 0);
    world_worker(w, 2, 1, 0);
    gang(w, 9, 3, 3);
    assert_string_equal(placed(w), "0x4 1x4 2x1 ");
}

static void ranks_per_node_is_a_bound(void **state)
{
    struct world *w = *state;
    for (size_t i = 0; i < 4; i++)
        world_worker(w, i, 8, 0);
    gang(w, 6, 1, 4)->ranks_per_node = 2;
    assert_string_equal(placed(w), "0x2 1x2 2x2 ");
}

static void spreading_takes_as_many_workers_as_allowed_the_least_loaded_first(void **state)
{
    struct world *w = *state;
    for (size_t i = 0; i < 4; i++)
        world_worker(w, i, 8, 0);
    w->workers[0].free.cores = 4;
    w->workers[2].free.cores = 6;
    gang(w, 6, 1, 3)->spread = true;
    assert_string_equal(placed(w), "1x2 2x2 3x2 ");
}

static void a_job_for_one_worker_may_spread_too(void **state)
{
    struct world *w = *state;
    for (size_t i = 0; i < 3; i++)
        world_worker(w, i, 8, 0);
    w->workers[0].free.cores = 4;
    gang(w, 1, 1, 1)->spread = true;
    world_job(w, 0, 2, 0);
    world_job(w, 0, 3, 0);
    assert_string_equal(placed(w), "1x1 2x1 1x1 ");
}

/* Workers 0-1 on switch 0, 2-3 on 1, 4-5 on 2, 6-7 on 3; switches 0-1 in rack 0, 2-3 in 1. */
static void network(struct world *w, uint64_t cores)
{
    for (size_t i = 0; i < 8; i++) {
        world_worker(w, i, cores, 0);
        w->workers[i].group[0] = (uint32_t)(i / 2);
        w->workers[i].group[1] = (uint32_t)(i / 4);
    }
}

static void packing_stays_on_one_switch_if_one_will_do(void **state)
{
    struct world *w = *state;
    network(w, 2);
    w->workers[0].free.cores = 0; /* the first pair that is whole is on switch 1 */
    gang(w, 4, 2, 2);
    assert_string_equal(placed(w), "2x2 3x2 ");
}

static void one_switch_is_better_than_fewer_workers(void **state)
{
    struct world *w = *state;
    network(w, 2);
    w->workers[0].free.cores = w->workers[0].total.cores = 3;
    w->workers[4].free.cores = w->workers[4].total.cores = 3;
    w->workers[5].group[0] = w->workers[6].group[0] = 2; /* 4, 5 and 6 together */
    gang(w, 6, 1, 3);
    assert_string_equal(placed(w), "4x2 5x2 6x2 ");
}

static void packing_stays_in_one_rack_if_no_switch_will_do(void **state)
{
    struct world *w = *state;
    network(w, 2);
    w->workers[1].free.cores = 0;
    gang(w, 8, 4, 4);
    assert_string_equal(placed(w), "4x2 5x2 6x2 7x2 ");
}

static void packing_takes_few_switches_where_no_rack_will_do(void **state)
{
    struct world *w = *state;
    network(w, 2);
    w->workers[1].free.cores = 0;
    w->workers[5].free.cores = 0;
    gang(w, 8, 4, 4);
    const char *text = placed(w);
    assert_non_null(strstr(text, "2x2 3x2 "));
    assert_non_null(strstr(text, "6x2 7x2 "));
}

static void gpu_less_gangs_keep_away_from_gpus_while_they_can(void **state)
{
    struct world *w = *state;
    world_worker(w, 0, 4, 4);
    world_worker(w, 1, 2, 0);
    world_worker(w, 2, 2, 0);
    gang(w, 4, 1, 3);
    assert_string_equal(placed(w), "1x2 2x2 ");
    w->classes[0].ranks = 6;
    assert_string_equal(placed(w), "0x4 1x2 ");
}

static void gpus_of_another_model_do_not_count(void **state)
{
    struct world *w = *state;
    world_worker(w, 0, 8, 4);
    world_worker(w, 1, 8, 4);
    struct policy_class *class = world_class(w, 0, 3, 1, 1);
    class->constrained = true;
    world_job(w, 0, 1, 0);
    w->allowed[0][0] = w->allowed[0][1] = true;
    w->unfit[0][0] = 2;
    assert_string_equal(placed(w), "1x3 ");
}

static void an_exclusive_job_wants_idle_workers_and_keeps_others_out(void **state)
{
    struct world *w = *state;
    for (size_t i = 0; i < 3; i++)
        world_worker(w, i, 4, 0);
    gang(w, 2, 2, 2)->exclusive = true;
    world_class(w, 1, 1, 1, 0);
    world_run(w, 90, 1, 0, 1, POLICY_NEVER);
    world_job(w, 1, 2, 0);
    world_job(w, 1, 3, 0);
    assert_string_equal(placed(w), "1x1 2x1 0x1 0x1 ");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        WORLD_TEST(a_gang_starts_whole_or_not_at_all),
        WORLD_TEST(packing_takes_the_fewest_workers),
        WORLD_TEST(ranks_are_divided_evenly_as_far_as_there_is_room),
        WORLD_TEST(ranks_per_node_is_a_bound),
        WORLD_TEST(spreading_takes_as_many_workers_as_allowed_the_least_loaded_first),
        WORLD_TEST(a_job_for_one_worker_may_spread_too),
        WORLD_TEST(packing_stays_on_one_switch_if_one_will_do),
        WORLD_TEST(one_switch_is_better_than_fewer_workers),
        WORLD_TEST(packing_stays_in_one_rack_if_no_switch_will_do),
        WORLD_TEST(packing_takes_few_switches_where_no_rack_will_do),
        WORLD_TEST(gpu_less_gangs_keep_away_from_gpus_while_they_can),
        WORLD_TEST(gpus_of_another_model_do_not_count),
        WORLD_TEST(an_exclusive_job_wants_idle_workers_and_keeps_others_out),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
