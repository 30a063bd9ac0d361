/* reference_test.c - a production trace through the whole core starts every job when the textbook
 * does: tests/lib/policy_reference.h is written from the papers and shares nothing with ours.
 *
 * The archive's NASA iPSC log, where present (ATHANOR_SHARED_DATA), as recorded and pressed to 1.5
 * times its load, with perfect estimates and with ones that are too long. */
#include "common/base/rng.h"
#include "coordinator/replay/replay.h"
#include "tests/lib/policy_reference.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

static const struct {
    const char *policy;
    enum reference_rule rule;
} pairs[] = {{"fcfs", REFERENCE_FCFS},
             {"easy", REFERENCE_EASY},
             {"conservative", REFERENCE_CONSERVATIVE}};

static struct trace trace;

static int release(void **state)
{
    (void)state;
    trace_free(&trace);
    return 0;
}

static void load_or_skip(uint64_t load_permille)
{
    const char *shared = getenv("ATHANOR_SHARED_DATA");
    char path[4096];
    struct err err;
    snprintf(path, sizeof path, "%s/traces/NASA-iPSC-1993-3.1-cln.swf.gz",
             shared ? shared : "../shared/data");
    struct replay_config config = {.trace = path, .load_permille = load_permille};
    if (replay_load(&config, &trace, &err) == 0) {
        assert_int_equal(trace.job_count, 18239);
        assert_int_equal(trace.nodes[0].cores, 128);
        return;
    }
    print_message("SKIPPED: %s\n", err.text);
    skip();
}

/* Limits of one to four times the run time: backfilled jobs end early, reservations move. */
static void overestimate(void)
{
    struct rng rng;
    rng_init(&rng, 18239);
    for (size_t i = 0; i < trace.job_count; i++)
        trace.jobs[i].wall_ms = trace.jobs[i].run_ms * (1000 + rng_below(&rng, 3001)) / 1000 + 1;
}

static uint64_t reference_waits(enum reference_rule rule, struct reference_job *jobs)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < trace.job_count; i++)
        jobs[i] = (struct reference_job){.submit = trace.jobs[i].submit_ms,
                                         .run = trace.jobs[i].run_ms,
                                         .limit = trace.jobs[i].wall_ms,
                                         .processors = trace.jobs[i].ranks};
    reference_run(rule, trace.nodes[0].cores, jobs, trace.job_count);
    for (size_t i = 0; i < trace.job_count; i++)
        sum += jobs[i].start - jobs[i].submit;
    return sum;
}

/* Every start and the sum of waits. */
static void textbook_check(const char *policy, enum reference_rule rule,
                           const struct simulated *simulated, uint64_t waits)
{
    struct reference_job *jobs = mem_array(trace.job_count, sizeof *jobs);
    uint64_t wanted = reference_waits(rule, jobs);
    for (size_t i = 0; i < trace.job_count; i++)
        if (simulated->start_ms[i] != jobs[i].start)
            fail_msg("%s: job %llu starts at %llu ms, by the textbook at %llu ms", policy,
                     (unsigned long long)trace.jobs[i].number,
                     (unsigned long long)simulated->start_ms[i], (unsigned long long)jobs[i].start);
    assert_int_equal(waits, wanted);
    mem_free(jobs);
}

/* Returns the sum of waits. */
static uint64_t run_policy(const char *policy, enum reference_rule rule)
{
    struct simulated simulated;
    struct measures measures;
    struct err err;
    uint64_t last = 0;
    assert_int_equal(simulate(&trace, policy, NULL, NULL, &simulated, &err), 0);
    measure(&trace, &simulated, &measures);
    assert_int_equal(simulated.started, trace.job_count);
    for (size_t i = 0; i < simulated.started; i++) {
        assert_true(simulated.start_ms[simulated.order[i]] >= last);
        last = simulated.start_ms[simulated.order[i]];
    }
    textbook_check(policy, rule, &simulated, measures.wait_sum_ms);
    print_message("%s: mean wait %.1f s, mean slowdown %.2f\n", policy,
                  measures.wait_mean_ms / 1000, measures.slowdown_mean);
    simulated_free(&simulated);
    return measures.wait_sum_ms;
}

/* Conservative reserves for the first 256 of the queue; in these traces no more wait. */
static void compare_all(void)
{
    uint64_t waits[ARRAY_COUNT(pairs)];
    for (size_t i = 0; i < ARRAY_COUNT(pairs); i++)
        waits[i] = run_policy(pairs[i].policy, pairs[i].rule);
    assert_true(waits[1] < waits[0]); /* EASY beats FCFS, and so does conservative */
    assert_true(waits[2] < waits[0]);
}

static void the_trace_as_recorded_runs_as_the_textbook_says(void **state)
{
    (void)state;
    load_or_skip(1000);
    compare_all();
}

static void the_trace_under_high_load_runs_as_the_textbook_says(void **state)
{
    (void)state;
    load_or_skip(1500);
    compare_all();
}

static void estimates_that_are_too_long_change_nothing_of_that(void **state)
{
    (void)state;
    load_or_skip(1300);
    overestimate();
    compare_all();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(the_trace_as_recorded_runs_as_the_textbook_says, release),
        cmocka_unit_test_teardown(the_trace_under_high_load_runs_as_the_textbook_says, release),
        cmocka_unit_test_teardown(estimates_that_are_too_long_change_nothing_of_that, release),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
