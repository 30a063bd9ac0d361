/* starvation_test.c - the bounds that coordinator/policy/README.md states, in simulated time: a
 * large job among a stream of small ones that would fill every gap for ever. */
#include "common/base/rng.h"
#include "tests/lib/policy_drive.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#define WORKERS  8u
#define CORES    4u
#define SMALL    1500u
#define WALL_MAX 200u
#define LARGE_AT 300u /* index of the large job */

struct scene {
    struct drive drive;
    struct policy_worker workers[WORKERS];
    struct drive_job jobs[SMALL + 1];
};

/* What the large job asks for; which of the drawn scenes have it: seed % 4. */
static struct policy_class large_ask(uint64_t seed)
{
    struct policy_class ask = {
        .rank = {.cores = 1}, .ranks = CORES, .nodes_min = 1, .nodes_max = 1, .wall_time_ms = 300};
    if (seed % 4 == 1) /* half the cluster, for itself */
        ask = (struct policy_class){.rank = {.cores = 1},
                                    .ranks = 4,
                                    .nodes_min = 4,
                                    .nodes_max = 4,
                                    .exclusive = true,
                                    .wall_time_ms = 300};
    if (seed % 4 == 2) /* three quarters, anyhow */
        ask = (struct policy_class){.rank = {.cores = 1},
                                    .ranks = WORKERS * CORES * 3 / 4,
                                    .nodes_min = 1,
                                    .nodes_max = WORKERS,
                                    .wall_time_ms = 300};
    if (seed % 4 == 3) /* all of it */
        ask = (struct policy_class){.rank = {.cores = CORES},
                                    .ranks = WORKERS,
                                    .nodes_min = WORKERS,
                                    .nodes_max = WORKERS,
                                    .spread = true,
                                    .wall_time_ms = 300};
    return ask;
}

/* Small jobs come faster than the cluster can serve them; the large one is more urgent. */
static struct scene *scene_make(const char *policy, uint64_t seed, bool limits)
{
    struct scene *scene = mem_zalloc(sizeof *scene);
    struct rng rng;
    uint64_t submit = 0;
    rng_init(&rng, seed);
    for (size_t i = 0; i < WORKERS; i++)
        scene->workers[i] = (struct policy_worker){.worker_id = i + 1,
                                                   .usable = true,
                                                   .idle = true,
                                                   .free = {.cores = CORES},
                                                   .total = {.cores = CORES}};
    for (size_t i = 0; i <= SMALL; i++) {
        uint64_t run = 1 + rng_below(&rng, WALL_MAX);
        submit += rng_below(&rng, 6);
        uint64_t wall = run + rng_below(&rng, WALL_MAX + 1 - run);
        scene->jobs[i] = (struct drive_job){.submit_ms = submit,
                                            .run_ms = run,
                                            .ask = {.rank = {.cores = 1},
                                                    .ranks = 1,
                                                    .nodes_min = 1,
                                                    .nodes_max = 1,
                                                    .wall_time_ms = limits ? wall : POLICY_NEVER}};
    }
    scene->jobs[LARGE_AT].ask = large_ask(seed);
    scene->jobs[LARGE_AT].run_ms = 100;
    scene->jobs[LARGE_AT].key = 1;
    scene->drive = (struct drive){.policy = policy_find(policy),
                                  .workers = scene->workers,
                                  .worker_count = WORKERS,
                                  .jobs = scene->jobs,
                                  .job_count = SMALL + 1};
    assert_non_null(scene->drive.policy);
    return scene;
}

static const char *const bounded[] = {"fcfs", "easy", "conservative", "fair"};

static void with_limits_the_first_job_starts_by_its_first_reservation(void **state)
{
    (void)state;
    for (size_t which = 0; which < ARRAY_COUNT(bounded); which++) {
        size_t promised = 0;
        for (uint64_t seed = 0; seed < 8; seed++) {
            struct scene *scene = scene_make(bounded[which], seed, true);
            assert_int_equal(drive_run(&scene->drive), 0);
            const struct drive_job *large = &scene->jobs[LARGE_AT];
            assert_true(large->start_ms <= large->submit_ms + WALL_MAX);
            if (large->promised_ms != POLICY_NEVER) {
                promised++;
                assert_true(large->start_ms <= large->promised_ms);
            }
            mem_free(scene);
        }
        /* fcfs lets nobody pass, so it needs no reservation */
        assert_true(promised > 0 || strcmp(bounded[which], "fcfs") == 0);
    }
}

/* Room kept for it never shrinks, and every end of a job there adds to it: at most as many ends
 * as it needs cores, each after at most the longest run. */
static void without_limits_the_first_job_gathers_its_room(void **state)
{
    (void)state;
    for (size_t which = 0; which < ARRAY_COUNT(bounded); which++) {
        for (uint64_t seed = 0; seed < 8; seed++) {
            struct scene *scene = scene_make(bounded[which], seed, false);
            assert_int_equal(drive_run(&scene->drive), 0);
            const struct drive_job *large = &scene->jobs[LARGE_AT];
            uint64_t cores =
                large->ask.exclusive ? 4 * CORES : large->ask.ranks * large->ask.rank.cores;
            assert_true(large->start_ms <= large->submit_ms + cores * WALL_MAX);
            assert_true(large->start_ms < scene->jobs[SMALL].submit_ms);
            mem_free(scene);
        }
    }
}

static void under_fifo_a_large_job_may_starve(void **state)
{
    (void)state;
    size_t starved = 0;
    for (uint64_t seed = 0; seed < 8; seed++) {
        struct scene *scene = scene_make("fifo", seed, true);
        assert_int_equal(drive_run(&scene->drive), 0);
        starved += scene->jobs[LARGE_AT].start_ms >= scene->jobs[SMALL].submit_ms;
        mem_free(scene);
    }
    assert_true(starved > 0); /* so the stream is one that can starve */
}

/* In order of submit every job is first one day: conservative starts job k at most the sum of
 * the limits of those before it, and the rest of what ran, after its submit. */
static void conservative_starts_each_job_within_the_sum_of_the_limits_before_it(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 8; seed++) {
        struct scene *scene = scene_make("conservative", seed, true);
        scene->jobs[LARGE_AT].key = 0;
        assert_int_equal(drive_run(&scene->drive), 0);
        for (size_t i = 0; i <= SMALL; i++) {
            uint64_t bound = scene->jobs[i].submit_ms + WALL_MAX;
            for (size_t k = 0; k < i; k++)
                if (scene->jobs[k].start_ms > scene->jobs[i].submit_ms)
                    bound += scene->jobs[k].ask.wall_time_ms;
            assert_true(scene->jobs[i].start_ms <= bound);
        }
        mem_free(scene);
    }
}

/* An urgent job of an evicting class among long ones that may be evicted, of any priority. */
static void evicted_jobs_make_room_once_and_end_in_the_end(void **state)
{
    (void)state;
    static const char *const evicting[] = {"easy", "conservative", "fair"};
    for (size_t which = 0; which < ARRAY_COUNT(evicting); which++) {
        for (uint64_t seed = 0; seed < 8; seed++) {
            struct scene *scene = scene_make(evicting[which], seed, true);
            uint64_t evictions = 0;
            for (size_t i = 0; i <= SMALL; i++) {
                scene->jobs[i].evictable = true;
                scene->jobs[i].stop_ms = 5;
                scene->jobs[i].key = (int64_t)(i % 3) * 1000;
            }
            struct drive_job *large = &scene->jobs[LARGE_AT];
            large->evictable = false;
            large->ask.evicts = true;
            large->ask.preemption = 1;
            assert_int_equal(drive_run(&scene->drive), 0);
            for (size_t i = 0; i <= SMALL; i++)
                evictions += scene->jobs[i].evictions;
            assert_true(large->start_ms <= large->submit_ms + 5);
            assert_true(evictions > 0 && evictions <= WORKERS * CORES);
            mem_free(scene);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(with_limits_the_first_job_starts_by_its_first_reservation),
        cmocka_unit_test(without_limits_the_first_job_gathers_its_room),
        cmocka_unit_test(under_fifo_a_large_job_may_starve),
        cmocka_unit_test(conservative_starts_each_job_within_the_sum_of_the_limits_before_it),
        cmocka_unit_test(evicted_jobs_make_room_once_and_end_in_the_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
