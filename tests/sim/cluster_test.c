/* cluster_test.c - many seeds of the simulated cluster; see README.md here.
 *
 *   ATHANOR_SIM_SEED=N               that seed alone, with its figures
 *   ATHANOR_SIM_OFF=LOSE,CUT         these faults never happen
 *   ATHANOR_SIM_BUG=OVERBOOK         with that planted bug
 *   ATHANOR_SIM_TRACE=FILE           every event and decision, a line each
 *   ATHANOR_SIM_SHRINK=1             looks for the fewest faults and rounds that still violate
 *   ATHANOR_SIM_SEEDS=N              as many fresh seeds
 *
 * A fixed set guards against regressions, fresh seeds look for what nobody has seen; a failing
 * seed is printed with the command that repeats it, and belongs into `known` once understood. */
#include "tests/lib/core/sim.h"

#include "common/base/clock.h"
#include "common/base/hash.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

typedef unsigned long long ull; /* only for printf */

/* Seeds that found a bug when the simulation drew as it did then; the tests of those bugs are
 * named beside them. */
static const uint64_t known[] = {
    8,          /* retries of ended jobs passed the limit of live jobs */
    138,        /* a repeated drop deleted a checkpoint that had been written anew */
    1162211515, /* so did a late one: a_late_drop_leaves_what_was_saved_anew_at_its_path */
    1523073142, /* a pruned trial counted as cancelled: sweep_prune_while_stopping.trace */
    28,         /* who is preempted on a lost worker failed: preempted_on_lost_worker.trace */
    1094788411, /* a lost node of a gang was not fenced: gang_lost_node_returns.trace */
    1803794735, /* a victim of greater priority took its room back without end: backfill_test.c */
};

static struct sim_result total;

static bool mode_is(const char *name)
{
    const char *mode = getenv("ATHANOR_TEST_MODE");
    return strcmp(mode ? mode : "default", name) == 0;
}

static unsigned fixed_seeds(void)
{
    return mode_is("quick") ? 40 : 150;
}

static unsigned fresh_seeds(void)
{
    const char *text = getenv("ATHANOR_SIM_SEEDS");
    if (text)
        return (unsigned)strtoul(text, NULL, 10);
    return mode_is("long") ? 10000 : mode_is("quick") ? 20 : 150;
}

/* ---- figures ----------------------------------------------------------------------------- */

static void total_add(const struct sim_result *result)
{
    const uint64_t *from = &result->steps;
    uint64_t *to = &total.steps;
    size_t count = (sizeof total - offsetof(struct sim_result, steps)) / sizeof *to;
    for (size_t i = 0; i < count; i++)
        to[i] += from[i];
}

static void total_print(const char *what, unsigned seeds, double seconds)
{
    const struct {
        const char *name;
        uint64_t count;
    } figures[] = {
        {"steps of the core", total.steps},
        {"messages delivered", total.messages},
        {"batches committed", total.commits},
        {"jobs", total.jobs},
        {"attempts", total.attempts},
        {"metrics stored", total.metrics},
        {"attempts on several nodes", total.gangs},
        {"attempts preempted", total.preemptions},
        {"trials stopped early", total.prunings},
        {"nodes chosen by label or GPU model", total.choosy},
        {"best trials chosen as inputs", total.choices},
        {"copies fetched", total.copies},
        {"comparisons of memory and rows", total.rebuilds},
        {"leases taken", total.takeovers},
        {"rounds with two leaders", total.overlaps},
        {"batches refused by the guard", total.batches_fenced},
        {"batches of dead processes committed", total.late_commits},
        {"resume points refused by workers", total.resumes_refused},
    };
    ull events = total.steps + total.messages + total.commits;
    printf("%s: %u seeds, %llu events in %.1f s, %.0f events/s\n", what, seeds, events, seconds,
           seconds > 0 ? (double)events / seconds : 0);
    for (size_t i = 0; i < ARRAY_COUNT(figures); i++)
        printf("  %-38s %12llu\n", figures[i].name, (ull)figures[i].count);
    for (int i = 0; i < SIM_FAULT_END; i++)
        printf("  fault: %-31s %12llu\n", sim_fault_what((enum sim_fault)i),
               (ull)total.faults[i]);
}

static double seconds_since(uint64_t start_us)
{
    return (double)(clock_steady_us() - start_us) / 1e6;
}

/* ---- seeds ------------------------------------------------------------------------------- */

static void seed_must_pass(uint64_t seed)
{
    struct sim_options options = {.seed = seed};
    struct sim_result result;
    struct err err;
    if (sim_run(&options, &result, &err) < 0)
        fail_msg("%s\nrepeat it with: ATHANOR_SIM_SEED=%llu build/tests/sim-cluster_test", err.text,
                 (ull)seed);
    total_add(&result);
}

static void fixed_seeds_hold_every_invariant_and_end_every_job(void **state)
{
    (void)state;
    uint64_t start_us = clock_steady_us();
    memset(&total, 0, sizeof total);
    for (uint64_t seed = 1; seed <= fixed_seeds(); seed++)
        seed_must_pass(seed);
    for (size_t i = 0; i < ARRAY_COUNT(known); i++)
        seed_must_pass(known[i]);
    total_print("fixed", fixed_seeds() + ARRAY_COUNT(known), seconds_since(start_us));
    /* A simulation without faults would pass and prove nothing. */
    for (int i = 0; i < SIM_FAULT_END; i++)
        if (!total.faults[i])
            fail_msg("no seed had any %s", sim_fault_what((enum sim_fault)i));
    assert_true(total.gangs && total.preemptions && total.prunings && total.copies);
    assert_true(total.choosy && total.choices);
    assert_true(total.overlaps && total.batches_fenced && total.late_commits && total.rebuilds);
}

static void fresh_seeds_hold_every_invariant_and_end_every_job(void **state)
{
    (void)state;
    uint64_t start_us = clock_steady_us();
    memset(&total, 0, sizeof total);
    for (unsigned i = 0; i < fresh_seeds(); i++)
        seed_must_pass(random_u64() >> 32); /* short enough to be typed */
    total_print("fresh", fresh_seeds(), seconds_since(start_us));
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

static void another_seed_decides_otherwise(void **state)
{
    (void)state;
    struct sim_options options = {.seed = 100};
    struct sim_result first, second;
    struct err err;
    assert_int_equal(sim_run(&options, &first, &err), 0);
    options.seed = 101;
    assert_int_equal(sim_run(&options, &second, &err), 0);
    assert_true(first.trace_hash != second.trace_hash);
}

static void every_planted_bug_is_caught(void **state)
{
    (void)state;
    for (int i = 1; i < SIM_BUG_END; i++) {
        enum sim_bug bug = (enum sim_bug)i;
        uint64_t seed = 0;
        int rc = 0;
        struct err err = {0};
        while (rc == 0 && seed < sim_bug_seeds(bug)) {
            struct sim_options options = {.seed = ++seed, .bug = bug};
            struct sim_result result;
            rc = sim_run(&options, &result, &err);
        }
        if (rc == 0)
            fail_msg("%s (%s) is not caught within %u seeds", sim_bug_name(bug), sim_bug_what(bug),
                     sim_bug_seeds(bug));
        if (!strstr(err.text, sim_bug_finding(bug)))
            fail_msg("%s (%s) is caught for another reason than %s: %s", sim_bug_name(bug),
                     sim_bug_what(bug), sim_bug_finding(bug), err.text);
        printf("planted: %-16s caught by %s\n", sim_bug_name(bug), err.text);
    }
}

/* ---- one seed, by hand ------------------------------------------------------------------- */

static uint32_t faults_named(const char *list)
{
    uint32_t mask = 0;
    char *copy = strdup(list ? list : ""), *rest = copy;
    for (char *name = strsep(&rest, ","); name; name = strsep(&rest, ","))
        for (int i = 0; i < SIM_FAULT_END; i++)
            if (strcmp(name, sim_fault_name((enum sim_fault)i)) == 0)
                mask |= 1u << i;
    free(copy);
    return mask;
}

static enum sim_bug bug_named(const char *name)
{
    for (int i = 1; name && i < SIM_BUG_END; i++)
        if (strcmp(name, sim_bug_name((enum sim_bug)i)) == 0)
            return (enum sim_bug)i;
    return SIM_BUG_NONE;
}

static bool still_violates(const struct sim_options *options)
{
    struct sim_result result;
    struct err err;
    return sim_run(options, &result, &err) < 0;
}

/* Switches off one kind of fault after the other, then halves the rounds, as long as something is
 * violated; what remains is what the violation needs. */
static void shrink(struct sim_options *options)
{
    for (int i = 0; i < SIM_FAULT_END; i++) {
        struct sim_options fewer = *options;
        fewer.faults_off |= 1u << i;
        if (still_violates(&fewer))
            *options = fewer;
    }
    for (uint32_t rounds = 1024; rounds > 16; rounds -= rounds / 4) {
        struct sim_options fewer = *options;
        fewer.fault_rounds = rounds;
        if (still_violates(&fewer))
            *options = fewer;
    }
    printf("needs %u rounds and:", options->fault_rounds);
    for (int i = 0; i < SIM_FAULT_END; i++)
        if (!(options->faults_off >> i & 1))
            printf(" %s", sim_fault_name((enum sim_fault)i));
    printf("\n");
}

static int run_one(const char *text)
{
    struct sim_options options = {.seed = strtoull(text, NULL, 10),
                                  .faults_off = faults_named(getenv("ATHANOR_SIM_OFF")),
                                  .bug = bug_named(getenv("ATHANOR_SIM_BUG"))};
    struct err err;
    const char *path = getenv("ATHANOR_SIM_TRACE");
    uint64_t start_us = clock_steady_us();
    if (getenv("ATHANOR_SIM_SHRINK") && still_violates(&options))
        shrink(&options);
    options.trace = path ? fopen(path, "w") : NULL;
    int rc = sim_run(&options, &total, &err);
    total_print(rc < 0 ? "violated" : "passed", 1, seconds_since(start_us));
    printf("hash %016llx\n%s\n", (ull)total.trace_hash, rc < 0 ? err.text : "nothing is violated");
    if (options.trace)
        fclose(options.trace);
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
        cmocka_unit_test(another_seed_decides_otherwise),
        cmocka_unit_test(every_planted_bug_is_caught),
        cmocka_unit_test(fresh_seeds_hold_every_invariant_and_end_every_job),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
