/* pilot_test.c - how many allocations a pool asks for, and what its file may say. */
#include "client/pilot/slurm.h"

#include "common/base/mem.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define GIB    ((uint64_t)1 << 30)
#define MINUTE 60000u

struct fixture {
    struct pilot_config config;
    struct pool pool;
    struct arena arena;
    struct pool_decision decision;
};

static const char file[] = "name: hpc\ndir: /shared\npools:\n"
                           "  cpu:\n"
                           "    time: 2h\n"
                           "    margin: 1m\n"
                           "    nodes: 2\n"
                           "    cores: 8\n"
                           "    memory: 64GiB\n"
                           "    gpus: 2\n"
                           "    allocations: 3\n"
                           "    waiting: 2\n"
                           "    settle: 10s\n"
                           "    backoff: 1m\n"
                           "    backoff_max: 5m\n"
                           "    labels: [zone=b]\n";

static int set_up(void **state)
{
    static struct fixture fixture;
    struct spec_errors errors = {0};
    fixture = (struct fixture){0};
    assert_int_equal(pilot_config_read("f", file, sizeof file - 1, &fixture.config, &errors), 0);
    fixture.pool.config = &fixture.config.pools[0];
    spec_errors_done(&errors);
    *state = &fixture;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    pool_done(&f->pool);
    pilot_config_done(&f->config);
    arena_done(&f->arena);
    return 0;
}

static struct demand one(uint64_t jobs)
{
    return (struct demand){.jobs = jobs,
                           .ranks = 1,
                           .cores = 1,
                           .memory_bytes = GIB,
                           .nodes_min = 1,
                           .nodes_max = 1,
                           .wall_ms = MINUTE,
                           .queue = "default",
                           .gpu_model = "",
                           .constraint = "{}"};
}

static void jobs_fill_nodes_by_the_resource_that_is_short(void **state)
{
    struct fixture *f = *state;
    struct demand cores = one(17), memory = one(4), gpus = one(4), both[2] = {one(4), one(4)};
    uint64_t jobs;
    assert_int_equal(pool_nodes_wanted(f->pool.config, &cores, 1, &jobs), 3);
    assert_int_equal(jobs, 17);
    memory.memory_bytes = 32 * GIB;
    assert_int_equal(pool_nodes_wanted(f->pool.config, &memory, 1, &jobs), 2);
    gpus.gpus = 1;
    gpus.ranks = 2;
    assert_int_equal(pool_nodes_wanted(f->pool.config, &gpus, 1, &jobs), 4);
    assert_int_equal(pool_nodes_wanted(f->pool.config, both, 2, &jobs), 1);
    cores.jobs = UINT64_MAX / 2;
    assert_true(pool_nodes_wanted(f->pool.config, &cores, 1, &jobs) > 1000000);
}

static void jobs_that_do_not_fit_are_no_backlog(void **state)
{
    struct fixture *f = *state;
    struct demand demand = one(1);
    assert_true(pool_fits(f->pool.config, &demand));
    demand.wall_ms = 119 * MINUTE;
    assert_true(pool_fits(f->pool.config, &demand));
    demand.wall_ms++;
    assert_false(pool_fits(f->pool.config, &demand));
    demand = one(1);
    demand.wall_ms = 0; /* the pool is not open_ended */
    assert_false(pool_fits(f->pool.config, &demand));
    demand = one(1);
    demand.cores = 9;
    assert_false(pool_fits(f->pool.config, &demand));
    demand = one(1);
    demand.ranks = 16; /* two nodes, and it may use one */
    assert_false(pool_fits(f->pool.config, &demand));
    demand.nodes_max = 2;
    assert_true(pool_fits(f->pool.config, &demand));
    demand.ranks = 17;
    assert_false(pool_fits(f->pool.config, &demand));
}

static void constraints_are_met_by_the_labels_of_the_pool(void **state)
{
    struct fixture *f = *state;
    static const struct {
        const char *constraint;
        bool fits;
    } cases[] = {{"{\"zone\": [\"a\", \"b\"]}", true}, {"{\"zone\": [\"a\"]}", false},
                 {"{\"zone\": \"b\"}", true},          {"{\"rack\": [\"b\"]}", false},
                 {"[{\"zone\": [\"a\"]}, {\"zone\": [\"b\"]}]", true},
                 {"{\"zon\": [\"b\"]}", false},        {"no json", false}};
    for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
        struct demand demand = one(1);
        demand.constraint = cases[i].constraint;
        assert_int_equal(pool_fits(f->pool.config, &demand), cases[i].fits);
    }
}

static void decide(struct fixture *f, uint64_t wanted, uint64_t now_ms)
{
    f->pool.wanted = wanted;
    pool_decide(&f->pool, now_ms, &f->arena, &f->decision);
}

static void a_backlog_must_last_and_what_is_coming_counts(void **state)
{
    struct fixture *f = *state;
    decide(f, 5, 1000);
    assert_int_equal(f->decision.submit, 0);
    decide(f, 5, 10999);
    assert_int_equal(f->decision.submit, 0);
    decide(f, 5, 11000);
    assert_int_equal(f->decision.submit, 2); /* three are wanted, two may wait */
    pool_add(&f->pool, 70, 1);
    pool_add(&f->pool, 71, 2);
    decide(f, 5, 12000);
    assert_int_equal(f->decision.submit, 0);
    f->pool.allocations[0].state = ALLOCATION_RUNNING; /* its workers are not here yet */
    decide(f, 4, 13000);
    assert_int_equal(f->decision.submit, 0);
    decide(f, 5, 14000);
    assert_int_equal(f->decision.submit, 1);
    pool_joined(&f->pool, &f->pool.allocations[0]); /* and still so many wait */
    pool_add(&f->pool, 72, pool_free_slot(&f->pool));
    decide(f, 50, 15000);
    assert_int_equal(f->decision.submit, 0); /* three is the limit */
    assert_int_equal(pool_free_slot(&f->pool), 0);
}

static void waiting_allocations_that_nobody_needs_are_taken_back(void **state)
{
    struct fixture *f = *state;
    pool_add(&f->pool, 70, 1)->state = ALLOCATION_RUNNING;
    pool_add(&f->pool, 71, 2);
    decide(f, 0, 1000);
    assert_int_equal(f->decision.cancel_count, 0);
    decide(f, 1, 5000);
    decide(f, 0, 6000);
    decide(f, 0, 15999);
    assert_int_equal(f->decision.cancel_count, 0);
    decide(f, 0, 16000);
    assert_int_equal(f->decision.cancel_count, 1);
    assert_int_equal(f->decision.cancel[0], 71);
    pool_ended(&f->pool, pool_find(&f->pool, 71), END_CANCELLED, 17000, "");
    assert_int_equal(f->pool.backoff_until_ms, 0); /* it was us */
}

static void failures_in_a_row_wait_longer_and_a_worker_ends_them(void **state)
{
    struct fixture *f = *state;
    uint64_t waits[] = {60000, 120000, 240000, 300000, 300000};
    for (size_t i = 0; i < ARRAY_COUNT(waits); i++) {
        uint64_t now_ms = f->pool.backoff_until_ms + 1000;
        struct allocation *allocation = i % 2 ? pool_add(&f->pool, 70 + i, 1) : NULL;
        pool_ended(&f->pool, allocation, i % 2 ? END_NO_WORKER : END_REFUSED, now_ms, "why");
        assert_int_equal(f->pool.backoff_until_ms, now_ms + waits[i]);
    }
    assert_int_equal(f->pool.failures, 5);
    assert_non_null(strstr(f->pool.trouble, "why"));
    decide(f, 1, 1);
    decide(f, 1, f->pool.backoff_until_ms - 1);
    assert_int_equal(f->decision.submit, 0);
    decide(f, 1, f->pool.backoff_until_ms);
    assert_int_equal(f->decision.submit, 1);
    pool_joined(&f->pool, pool_add(&f->pool, 80, 1));
    assert_int_equal(f->pool.failures, 0);
    assert_int_equal(f->pool.backoff_until_ms, 0);
}

static void preempted_cancelled_and_lost_ones_are_no_failures_of_the_pool(void **state)
{
    struct fixture *f = *state;
    static const enum end ends[] = {END_PREEMPTED, END_CANCELLED, END_NODE_FAIL, END_TIMEOUT,
                                    END_UNKNOWN};
    for (size_t i = 0; i < ARRAY_COUNT(ends); i++) {
        uint64_t now_ms = 1000000 * (i + 1);
        pool_ended(&f->pool, pool_add(&f->pool, 70 + i, 1), ends[i], now_ms, "why");
        assert_int_equal(f->pool.backoff_until_ms, now_ms + 60000);
        assert_int_equal(f->pool.ends[ends[i]], 1);
    }
    assert_int_equal(f->pool.failures, 0);
    struct allocation *worked = pool_add(&f->pool, 90, 1);
    pool_joined(&f->pool, worked);
    pool_ended(&f->pool, worked, END_NO_WORKER, 9000000, ""); /* its workers left: no fault */
    assert_int_equal(f->pool.ends[END_ENDED], 1);
    assert_int_equal(f->pool.backoff_until_ms, 0);
}

static void what_slurm_prints_is_read(void **state)
{
    struct fixture *f = *state;
    static const char queue[] = "7|PENDING|athanor-hpc-cpu-2\n8|RUNNING|athanor-hpc-cpu-1\n"
                                "9|COMPLETING|x\n";
    static const struct {
        const char *text;
        enum end end;
    } over[] = {{"JobId=7 JobState=CANCELLED Reason=None", END_CANCELLED},
                {"JobId=7 JobName=JobState=FAILED JobState=PREEMPTED", END_PREEMPTED},
                {"JobState=COMPLETED", END_NO_WORKER},
                {"slurm_load_jobs error: Invalid job id specified", END_UNKNOWN}};
    struct slurm_job *jobs;
    size_t count;
    const char *reason;
    struct err err;
    assert_int_equal(slurm_parse_queue(queue, sizeof queue - 1, &f->arena, &jobs, &count, &err), 0);
    assert_int_equal(count, 3);
    assert_int_equal(jobs[0].state, ALLOCATION_WAITING);
    assert_int_equal(jobs[2].state, ALLOCATION_ENDING);
    assert_int_equal(slurm_slot(jobs[0].name, "hpc", "cpu"), 2);
    assert_int_equal(slurm_slot(jobs[0].name, "hpc", "cp"), 0);
    assert_int_equal(slurm_slot("athanor-hpc-cpu-2x", "hpc", "cpu"), 0);
    assert_int_equal(slurm_parse_queue("error", 5, &f->arena, &jobs, &count, &err), -1);
    for (size_t i = 0; i < ARRAY_COUNT(over); i++)
        assert_int_equal(slurm_parse_end(over[i].text, strlen(over[i].text), &f->arena, &reason),
                         over[i].end);
}

static void every_mistake_in_a_file_is_told_with_its_place(void **state)
{
    (void)state;
    static const char wrong[] = "name: hpc\ndir: shared\nintervall: 5s\npools:\n"
                                "  a-b: {}\n"
                                "  cpu: {time: 10s, cores: none, memory: 1GiB, labels: [zone]}\n";
    static const char *const said[] = {"f:2:6: dir: 'shared', expected an absolute path",
                                       "f:3:1: intervall: is not a field, did you mean 'interval'?",
                                       "f:5:3: pools.a-b.: 'a-b' is no name for a pool",
                                       "pools.cpu.time: is 10s, expected 1m to",
                                       "pools.cpu.cores:",
                                       "pools.cpu.labels: 'zone', expected NAME=VALUE"};
    struct pilot_config config;
    struct spec_errors errors = {0};
    assert_int_equal(pilot_config_read("f", wrong, sizeof wrong - 1, &config, &errors), -1);
    spec_errors_sort(&errors);
    char *text = spec_errors_text(&errors);
    for (size_t i = 0; i < ARRAY_COUNT(said); i++)
        if (!strstr(text, said[i]))
            fail_msg("'%s' is not in:\n%s", said[i], text);
    mem_free(text);
    spec_errors_done(&errors);
}

static void programs_are_run_and_their_failures_told(void **state)
{
    (void)state;
    static const char *const says[] = {"sh", "-c", "echo one; echo two >&2", NULL};
    static const char *const fails[] = {"sh", "-c", "echo no such partition; exit 3", NULL};
    static const char *const none[] = {"no-such-program-here", NULL};
    static const char *const sleeps[] = {"sleep", "100", NULL};
    struct buf out = {0};
    struct err err;
    assert_int_equal(command_run(says, 10000, &out, &err), 0);
    assert_string_equal(buf_text(&out), "one\ntwo\n");
    buf_clear(&out);
    assert_int_equal(command_run(fails, 10000, &out, &err), -1);
    assert_non_null(strstr(err.text, "sh exits with 3: no such partition"));
    assert_int_equal(command_run(none, 10000, &out, &err), -1);
    assert_int_equal(err.kind, ERR_NOT_FOUND);
    assert_int_equal(command_run(sleeps, 50, &out, &err), -1);
    assert_int_equal(err.kind, ERR_TIMEOUT);
    buf_done(&out);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(jobs_fill_nodes_by_the_resource_that_is_short),
        TEST(jobs_that_do_not_fit_are_no_backlog),
        TEST(constraints_are_met_by_the_labels_of_the_pool),
        TEST(a_backlog_must_last_and_what_is_coming_counts),
        TEST(waiting_allocations_that_nobody_needs_are_taken_back),
        TEST(failures_in_a_row_wait_longer_and_a_worker_ends_them),
        TEST(preempted_cancelled_and_lost_ones_are_no_failures_of_the_pool),
        TEST(what_slurm_prints_is_read),
        TEST(every_mistake_in_a_file_is_told_with_its_place),
        TEST(programs_are_run_and_their_failures_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
