/* cluster_test.c - many seeds of the simulated cluster; see tests/lib/core/sim.h.
 *
 * ATHANOR_SIM_SEED=N runs that seed alone and prints what it did. ATHANOR_TEST_MODE=long runs
 * more seeds. A fixed set guards against regressions, fresh seeds look for what nobody has seen;
 * a failing seed is printed and belongs into `known` below once it is understood. */
#include "tests/lib/core/sim.h"

#include "common/base/hash.h"
#include "common/base/rng.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define FIXED_SEEDS 60u
#define FRESH_SEEDS 20u
#define LONG_SEEDS 10000u
#define CANARY_SEEDS 40u

/* Seeds that once found a bug, or find it when it is put back. */
static const uint64_t known[] = {
    8,   /* retries of ended jobs passed the limit of live jobs */
    138, /* a repeated drop deleted a checkpoint that had been written anew */
    140, /* the same, by another way */
};

static struct sim_result total;

static void total_add(const struct sim_result *result)
{
    const uint64_t *from = &result->steps;
    uint64_t *to = &total.steps;
    size_t count = (sizeof total - offsetof(struct sim_result, steps)) / sizeof *to;
    for (size_t i = 0; i < count; i++)
        to[i] += from[i];
}

static void seed_must_pass(uint64_t seed)
{
    struct sim_options options = {.seed = seed};
    struct sim_result result;
    struct err err;
    if (sim_run(&options, &result, &err) < 0)
        fail_msg("%s", err.text);
    total_add(&result);
}

static void total_print(const char *what, unsigned seeds)
{
    printf("%s: %u seeds, %llu steps, %llu commits, %llu jobs, %llu attempts, %llu metrics\n"
           "  faults: %llu messages lost, %llu doubled, %llu reordered, %llu sessions cut,\n"
           "  %llu leaders killed, %llu commits failed, %llu unknown, %llu daemons restarted,\n"
           "  %llu nodes lost, %llu clock jumps; %llu controls, %llu submits repeated\n",
           what, seeds, (unsigned long long)total.steps, (unsigned long long)total.commits,
           (unsigned long long)total.jobs, (unsigned long long)total.attempts,
           (unsigned long long)total.metrics, (unsigned long long)total.lost,
           (unsigned long long)total.doubled, (unsigned long long)total.reordered,
           (unsigned long long)total.cut, (unsigned long long)total.leader_kills,
           (unsigned long long)total.commit_failures, (unsigned long long)total.commits_unknown,
           (unsigned long long)total.daemon_restarts, (unsigned long long)total.nodes_lost,
           (unsigned long long)total.clock_jumps, (unsigned long long)total.controls,
           (unsigned long long)total.resubmits);
}

static void fixed_seeds_hold_every_invariant_and_end_every_job(void **state)
{
    (void)state;
    memset(&total, 0, sizeof total);
    for (uint64_t seed = 1; seed <= FIXED_SEEDS; seed++)
        seed_must_pass(seed);
    for (size_t i = 0; i < ARRAY_COUNT(known); i++)
        seed_must_pass(known[i]);
    total_print("fixed", FIXED_SEEDS + ARRAY_COUNT(known));
    /* A simulation without faults would pass and prove nothing. */
    assert_true(total.lost && total.doubled && total.reordered && total.cut);
    assert_true(total.leader_kills && total.commit_failures && total.commits_unknown);
    assert_true(total.daemon_restarts && total.nodes_lost && total.clock_jumps);
    assert_true(total.controls && total.resubmits);
}

static void fresh_seeds_hold_every_invariant_and_end_every_job(void **state)
{
    (void)state;
    const char *mode = getenv("ATHANOR_TEST_MODE");
    unsigned seeds = mode && strcmp(mode, "long") == 0 ? LONG_SEEDS : FRESH_SEEDS;
    memset(&total, 0, sizeof total);
    for (unsigned i = 0; i < seeds; i++)
        seed_must_pass(random_u64());
    total_print("fresh", seeds);
}

static void the_same_seed_decides_the_same(void **state)
{
    (void)state;
    for (uint64_t seed = 100; seed < 105; seed++) {
        struct sim_options options = {.seed = seed};
        struct sim_result first, second;
        struct err err;
        assert_int_equal(sim_run(&options, &first, &err), 0);
        assert_int_equal(sim_run(&options, &second, &err), 0);
        assert_memory_equal(&first, &second, sizeof first);
    }
}

static void every_planted_bug_is_caught(void **state)
{
    (void)state;
    static const char *const names[SIM_BUG_END] = {
        "",            "invariant 1", "invariant 2", "invariant 3", "invariant 4",  "invariant 5",
        "invariant 6", "invariant 7", "invariant 8", "invariant 9", "invariant 10"};
    for (int bug = 1; bug < SIM_BUG_END; bug++) {
        bool caught = false;
        struct err err = {0};
        for (uint64_t seed = 1; seed <= CANARY_SEEDS && !caught; seed++) {
            struct sim_options options = {.seed = seed, .bug = (enum sim_bug)bug};
            struct sim_result result;
            caught = sim_run(&options, &result, &err) < 0;
        }
        if (!caught || !strstr(err.text, names[bug]))
            fail_msg("the bug against %s was %s: %s", names[bug],
                     caught ? "caught for another reason" : "not caught", err.text);
    }
}

static int run_one(const char *text)
{
    struct sim_options options = {.seed = strtoull(text, NULL, 10)};
    struct sim_result result;
    struct err err;
    int rc = sim_run(&options, &result, &err);
    total = result;
    total_print(rc < 0 ? err.text : "passed", 1);
    return rc < 0;
}

int main(void)
{
    const char *seed = getenv("ATHANOR_SIM_SEED");
    if (seed)
        return run_one(seed);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fixed_seeds_hold_every_invariant_and_end_every_job),
        cmocka_unit_test(the_same_seed_decides_the_same),
        cmocka_unit_test(every_planted_bug_is_caught),
        cmocka_unit_test(fresh_seeds_hold_every_invariant_and_end_every_job),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
