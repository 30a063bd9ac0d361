/* simulate_test.c - traces through the real core, and the measures of what came out. */
#include "coordinator/replay/replay.h"

#include "common/base/buf.h"
#include "common/base/mem.h"
#include "coordinator/policy/policy.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <jansson.h>

static struct trace trace;
static struct simulated simulated;
static struct err err;

static void load(const char *text)
{
    char *copy = mem_strdup(text);
    if (trace_parse(&trace, "t", copy, strlen(copy), &err) < 0)
        fail_msg("%s", err.text);
    mem_free(copy);
}

static void run(const char *policy)
{
    simulated_free(&simulated);
    if (simulate(&trace, policy, NULL, NULL, &simulated, &err) < 0)
        fail_msg("%s", err.text);
}

static int release(void **state)
{
    (void)state;
    simulated_free(&simulated);
    trace_free(&trace);
    return 0;
}

/* On 4 cores: 1 takes all for 100 s; 2 and 3 wait for it; 4 for room behind them. */
static const char four_cores[] = "; MaxProcs: 4\n"
                                 "1 0 -1 100 4 -1 -1 4 100 -1 1 1 1 -1 -1 -1 -1 -1\n"
                                 "2 10 -1 50 2 -1 -1 2 50 -1 1 1 1 -1 -1 -1 -1 -1\n"
                                 "3 20 -1 30 2 -1 -1 2 30 -1 0 2 1 -1 -1 -1 -1 -1\n"
                                 "4 30 -1 10 4 -1 -1 4 10 -1 1 2 1 -1 -1 -1 -1 -1\n";

static void jobs_start_when_room_is_free_and_run_their_time(void **state)
{
    const uint64_t starts[] = {0, 100000, 100000, 150000};
    (void)state;
    load(four_cores);
    run("fifo");
    assert_int_equal(simulated.started, 4);
    for (size_t i = 0; i < 4; i++) {
        assert_int_equal(simulated.start_ms[i], starts[i]);
        assert_int_equal(simulated.end_ms[i], starts[i] + trace.jobs[i].run_ms);
        assert_int_equal(simulated.order[i], i);
    }
    assert_int_equal(simulated.refused, 0);
    assert_true(simulated.passes >= 4);
}

static void measures_follow_their_definitions(void **state)
{
    struct measures m;
    (void)state;
    load(four_cores);
    run("fifo");
    measure(&trace, &simulated, &m);
    /* Waits 0, 90, 80, 120 s; slowdowns 1, 140/50, 110/30, 130/10. */
    double slow[] = {1, 2.8, 110.0 / 30, 13}, one = (slow[0] + slow[1]) / 2,
           two = (slow[2] + slow[3]) / 2, mean = (slow[0] + slow[1] + slow[2] + slow[3]) / 4;
    assert_int_equal(m.jobs, 4);
    assert_int_equal(m.wait_sum_ms, 290000);
    assert_int_equal(m.wait_median_ms, 80000);
    assert_int_equal(m.wait_p95_ms, 120000);
    assert_int_equal(m.wait_max_ms, 120000);
    assert_true(fabs(m.slowdown_mean - mean) < 1e-12);
    assert_int_equal(m.makespan_ms, 160000);
    assert_true(fabs(m.core_utilisation - (400.0 + 100 + 60 + 40) / (4 * 160)) < 1e-12);
    assert_int_equal(m.users, 2);
    assert_true(fabs(m.jain - (one + two) * (one + two) / (2 * (one * one + two * two))) < 1e-12);
    assert_true(fabs(m.worst_user - two / mean) < 1e-12);
}

static void a_job_larger_than_the_machine_never_starts_and_is_counted(void **state)
{
    (void)state;
    load("job_id,num_gpu,submit_time,duration\n1,8,0,10\n2,1,1,10\n");
    struct trace_node node = {.cores = 8, .gpus = 4};
    assert_int_equal(trace_add_node(&trace, "t", 1, &node, &err), 0);
    run("fifo");
    assert_int_equal(simulated.started, 1);
    assert_int_equal(simulated.refused, 1);
    assert_int_equal(simulated.start_ms[0], SIMULATED_NEVER);
    assert_int_equal(simulated.end_ms[1], 11000);
}

static void gpu_models_bind_jobs_to_nodes(void **state)
{
    (void)state;
    load("name,cpu_milli,memory_mib,num_gpu,gpu_milli,gpu_spec,qos,pod_phase,creation_time,"
         "deletion_time,scheduled_time\n"
         "a,1000,1,1,1000,T4,LS,Running,0,100,0\n"
         "b,1000,1,1,1000,T4,LS,Running,1,101,1\n"
         "c,1000,1,1,1000,P100|T4,LS,Running,2,102,2\n");
    struct trace_node nodes[] = {{.cores = 8, .gpus = 1, .gpu_model = "P100"},
                                 {.cores = 8, .gpus = 1, .gpu_model = "T4"}};
    for (size_t i = 0; i < 2; i++)
        assert_int_equal(trace_add_node(&trace, "t", i + 1, &nodes[i], &err), 0);
    run("fifo");
    assert_int_equal(simulated.start_ms[0], 0);
    assert_int_equal(simulated.start_ms[1], 100000);
    assert_int_equal(simulated.start_ms[2], 2000);
}

static void the_same_trace_gives_the_same_starts(void **state)
{
    struct buf text = {0};
    (void)state;
    buf_puts(&text, "; MaxProcs: 16\n");
    for (unsigned i = 0; i < 3000; i++)
        buf_printf(&text, "%u %u -1 %u %u -1 -1 1 %u -1 1 %u 1 -1 -1 -1 -1 -1\n", i, i * 20,
                   i * 7919 % 301, 1 + i * 31 % 16, 301 + i % 3, i % 7);
    load(text.bytes);
    for (size_t i = 0; policy_at(i); i++) {
        run(policy_at(i)->name);
        struct simulated first = simulated;
        simulated = (struct simulated){0};
        run(policy_at(i)->name);
        assert_int_equal(first.started, 3000);
        assert_int_equal(simulated.started, 3000);
        assert_memory_equal(first.start_ms, simulated.start_ms, 3000 * sizeof *first.start_ms);
        assert_memory_equal(first.order, simulated.order, 3000 * sizeof *first.order);
        simulated_free(&first);
    }
    buf_done(&text);
}

static void load_brings_submits_closer(void **state)
{
    (void)state;
    load(four_cores);
    replay_scale(&trace, 2000);
    assert_int_equal(trace.jobs[3].submit_ms, 15000);
    replay_scale(&trace, 0);
    assert_int_equal(trace.jobs[3].submit_ms, 15000);
}

static void outcomes_print_as_json_table_and_starts(void **state)
{
    struct replay_outcome outcome = {.policy = "fifo"};
    struct buf json = {0}, table = {0}, starts = {0};
    (void)state;
    load(four_cores);
    run("fifo");
    outcome.simulated = simulated;
    measure(&trace, &simulated, &outcome.measures);
    replay_print_json(&trace, "t.swf", &outcome, 1, &json);
    json_t *root = json_loads(json.bytes, JSON_REJECT_DUPLICATES, NULL);
    assert_non_null(root);
    json_t *policy = json_array_get(json_object_get(root, "policies"), 0);
    assert_int_equal(json_integer_value(json_object_get(policy, "wait_sum_ms")), 290000);
    json_decref(root);
    replay_print_table(&trace, "t.swf", &outcome, 1, &table);
    assert_non_null(strstr(table.bytes, "t.swf (swf): 4 jobs of 2 users"));
    assert_non_null(strstr(table.bytes, "fifo"));
    replay_print_starts(&trace, &outcome, &starts);
    assert_string_equal(starts.bytes, "fifo,1,u1,0,0,100000\nfifo,2,u1,10000,100000,150000\n"
                                      "fifo,3,u2,20000,100000,130000\n"
                                      "fifo,4,u2,30000,150000,160000\n");
    buf_done(&json);
    buf_done(&table);
    buf_done(&starts);
}

/* On 3 nodes of 4 cores, as `athanor history` writes them. 1 takes two nodes for 100 s and 2 the
 * third from 10 to 110 s; 3 wants all three; 4 would last beyond the start of 3, 5 would not. */
static void gangs_of_our_own_history_are_placed_on_several_nodes(void **state)
{
    static const struct {
        const char *policy;
        uint64_t starts[5];
    } golden[] = {{"easy", {0, 10000, 110000, 160000, 100000}},
                  {"fcfs", {0, 10000, 110000, 160000, 160000}},
                  {"fifo", {0, 10000, 130000, 100000, 100000}}};
    (void)state;
    load("job_id,account,submitted_at,ran_ms,ranks,nodes,cores,gpus,wall_time_ms,state\n"
         "1,ann,2026-01-01T00:00:00Z,100000,8,2,1,0,100000,SUCCEEDED\n"
         "2,bob,2026-01-01T00:00:10Z,100000,4,,1,0,100000,SUCCEEDED\n"
         "3,ann,2026-01-01T00:00:20Z,50000,12,3,1,0,50000,SUCCEEDED\n"
         "4,bob,2026-01-01T00:00:30Z,30000,1,,1,0,30000,FAILED\n"
         "5,bob,2026-01-01T00:00:40Z,10000,6,2,1,0,10000,SUCCEEDED\n");
    for (size_t i = 0; i < 3; i++)
        assert_int_equal(trace_add_node(&trace, "t", i + 1, &(struct trace_node){.cores = 4}, &err),
                         0);
    for (size_t i = 0; i < 3; i++) {
        run(golden[i].policy);
        assert_int_equal(simulated.started, 5);
        assert_int_equal(simulated.preempted, 0);
        for (size_t k = 0; k < 5; k++)
            assert_int_equal(simulated.start_ms[k], golden[i].starts[k]);
        assert_int_equal(simulated.end_ms[0], 100000);
    }
}

static void an_unknown_policy_is_refused_with_the_list(void **state)
{
    (void)state;
    load(four_cores);
    assert_int_equal(simulate(&trace, "best", NULL, NULL, &simulated, &err), -1);
    assert_non_null(strstr(err.text, "no policy 'best', expected one of: "));
    assert_non_null(strstr(err.text, "fifo"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(jobs_start_when_room_is_free_and_run_their_time, release),
        cmocka_unit_test_teardown(measures_follow_their_definitions, release),
        cmocka_unit_test_teardown(a_job_larger_than_the_machine_never_starts_and_is_counted,
                                  release),
        cmocka_unit_test_teardown(gpu_models_bind_jobs_to_nodes, release),
        cmocka_unit_test_teardown(gangs_of_our_own_history_are_placed_on_several_nodes, release),
        cmocka_unit_test_teardown(the_same_trace_gives_the_same_starts, release),
        cmocka_unit_test_teardown(load_brings_submits_closer, release),
        cmocka_unit_test_teardown(outcomes_print_as_json_table_and_starts, release),
        cmocka_unit_test_teardown(an_unknown_policy_is_refused_with_the_list, release),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
