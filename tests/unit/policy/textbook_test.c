/* textbook_test.c - fcfs, easy and conservative against naive references, and the order of
 * their waits that the literature reports, on a production trace and on drawn workloads.
 *
 * On equal processors easy must equal the textbook job by job, whether the machine is one large
 * worker or many small ones. The trace has no estimates; where they are drawn, a job's limit is
 * one to five times what it runs. */
#include "common/base/rng.h"
#include "tests/lib/policy_drive.h"
#include "tests/lib/policy_reference.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>
#include <zlib.h>

#define PROCESSORS 128u
#define SECOND     1000u

struct workload {
    struct reference_job *jobs; /* in milliseconds */
    size_t count, capacity;
};

static void workload_add(struct workload *workload, const struct reference_job *job)
{
    VEC_RESERVE(workload->jobs, workload->count, workload->capacity);
    workload->jobs[workload->count++] = *job;
}

/* Fields of the Standard Workload Format 2.2: 2 submit, 4 run time, 5 processors, 9 requested
 * time; -1 is unknown. False when the trace is not there. */
static bool workload_read(struct workload *workload)
{
    const char *shared = getenv("ATHANOR_SHARED_DATA");
    char path[4096], line[512];
    snprintf(path, sizeof path, "%s/traces/NASA-iPSC-1993-3.1-cln.swf.gz",
             shared ? shared : "../shared/data");
    gzFile file = gzopen(path, "rb");
    if (!file)
        return false;
    while (gzgets(file, line, sizeof line)) {
        long long number, submit, wait, run, used, cpu, memory, asked, limit;
        if (sscanf(line, "%lld %lld %lld %lld %lld %lld %lld %lld %lld", &number, &submit, &wait,
                   &run, &used, &cpu, &memory, &asked, &limit) != 9 ||
            run <= 0 || used <= 0 || used > PROCESSORS)
            continue;
        if (limit < run)
            limit = run;
        workload_add(workload, &(struct reference_job){.submit = (uint64_t)submit * SECOND,
                                                       .run = (uint64_t)run * SECOND,
                                                       .limit = (uint64_t)limit * SECOND,
                                                       .processors = (uint64_t)used});
    }
    return gzclose(file) == Z_OK && workload->count > 0;
}

static void workload_load_or_skip(struct workload *workload)
{
    if (workload_read(workload))
        return;
    print_message("SKIPPED: the trace NASA-iPSC-1993-3.1-cln.swf.gz is not under "
                  "ATHANOR_SHARED_DATA (default ../shared/data)\n");
    skip();
}

/* The trace's submits are its starts, so its load is light: packed into less time. */
static void workload_press(struct workload *workload, uint64_t percent)
{
    for (size_t i = 0; i < workload->count; i++)
        workload->jobs[i].submit = workload->jobs[i].submit * percent / 100;
}

static void workload_estimate(struct workload *workload, uint64_t seed)
{
    struct rng rng;
    rng_init(&rng, seed);
    for (size_t i = 0; i < workload->count; i++)
        workload->jobs[i].limit = workload->jobs[i].run * (100 + rng_below(&rng, 401)) / 100;
}

static void workload_draw(struct workload *workload, uint64_t seed, size_t count)
{
    struct rng rng;
    uint64_t submit = 0;
    rng_init(&rng, seed);
    for (size_t i = 0; i < count; i++) {
        uint64_t run = 1 + rng_below(&rng, 1000);
        submit += rng_below(&rng, 400);
        uint64_t size = rng_below(&rng, 8) ? 1 + rng_below(&rng, 32) : 1 + rng_below(&rng, 128);
        workload_add(workload, &(struct reference_job){.submit = submit,
                                                       .run = run,
                                                       .limit = run + rng_below(&rng, 500),
                                                       .processors = size});
    }
}

struct figures {
    uint64_t wait_sum;
    double slowdown; /* bounded, 10 s, mean */
};

static void figures_add(struct figures *figures, const struct reference_job *job, uint64_t start)
{
    uint64_t wait = start - job->submit, run = max_u64(job->run, 10 * SECOND);
    figures->wait_sum += wait;
    double slowdown = (double)(wait + job->run) / (double)run;
    figures->slowdown += slowdown > 1.0 ? slowdown : 1.0;
}

static struct figures reference_figures(enum reference_rule rule, struct workload *workload)
{
    struct figures figures = {0};
    reference_run(rule, PROCESSORS, workload->jobs, workload->count);
    for (size_t i = 0; i < workload->count; i++)
        figures_add(&figures, &workload->jobs[i], workload->jobs[i].start);
    return figures;
}

/* The same under a policy, on workers of `width` processors each. With `same` every start must
 * be that of the reference's last run. */
static struct figures policy_figures(const char *name, const struct workload *workload,
                                     uint64_t width, bool same)
{
    struct drive drive = {.policy = policy_find(name), .worker_count = PROCESSORS / width};
    assert_non_null(drive.policy);
    drive.workers = mem_array(drive.worker_count, sizeof *drive.workers);
    for (size_t i = 0; i < drive.worker_count; i++)
        drive.workers[i] = (struct policy_worker){.worker_id = i + 1,
                                                  .usable = true,
                                                  .idle = true,
                                                  .free = {.cores = width},
                                                  .total = {.cores = width}};
    drive.jobs = mem_array(workload->count, sizeof *drive.jobs);
    drive.job_count = workload->count;
    for (size_t i = 0; i < workload->count; i++) {
        const struct reference_job *job = &workload->jobs[i];
        uint32_t nodes = width == 1 ? (uint32_t)job->processors : 1;
        drive.jobs[i] = (struct drive_job){.submit_ms = job->submit,
                                           .run_ms = job->run,
                                           .ask = {.rank = {.cores = 1},
                                                   .ranks = (uint32_t)job->processors,
                                                   .nodes_min = nodes,
                                                   .nodes_max = nodes,
                                                   .wall_time_ms = job->limit}};
    }
    assert_int_equal(drive_run(&drive), 0);
    struct figures figures = {0};
    for (size_t i = 0; i < workload->count; i++) {
        if (same)
            assert_int_equal(drive.jobs[i].start_ms, workload->jobs[i].start);
        figures_add(&figures, &workload->jobs[i], drive.jobs[i].start_ms);
    }
    mem_free(drive.jobs);
    mem_free(drive.workers);
    return figures;
}

static void figures_print(const char *name, const struct figures *figures, size_t count)
{
    print_message("%-28s mean wait %9.1f s, mean bounded slowdown %8.2f\n", name,
                  (double)figures->wait_sum / (double)count / SECOND,
                  figures->slowdown / (double)count);
}

static void equal_on_both_machines(struct workload *workload)
{
    reference_run(REFERENCE_FCFS, PROCESSORS, workload->jobs, workload->count);
    policy_figures("fcfs", workload, PROCESSORS, true);
    policy_figures("fcfs", workload, 1, true);
    reference_run(REFERENCE_EASY, PROCESSORS, workload->jobs, workload->count);
    policy_figures("easy", workload, PROCESSORS, true);
    policy_figures("easy", workload, 1, true);
    policy_figures("fair", workload, 1, true); /* with equal keys it is easy */
}

static void on_drawn_workloads_fcfs_and_easy_equal_the_textbook(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 20; seed++) {
        struct workload workload = {0};
        workload_draw(&workload, seed, 300);
        equal_on_both_machines(&workload);
        mem_free(workload.jobs);
    }
}

/* Conservative reserves for 256 jobs; with no more waiting it is the textbook's. */
static void on_drawn_workloads_conservative_equals_the_textbook(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 20; seed++) {
        struct workload workload = {0};
        workload_draw(&workload, seed, 250);
        reference_run(REFERENCE_CONSERVATIVE, PROCESSORS, workload.jobs, workload.count);
        policy_figures("conservative", &workload, PROCESSORS, true);
        mem_free(workload.jobs);
    }
}

static void on_a_production_trace_easy_equals_the_textbook(void **state)
{
    (void)state;
    struct workload workload = {0};
    workload_load_or_skip(&workload);
    struct figures easy = reference_figures(REFERENCE_EASY, &workload);
    struct figures ours = policy_figures("easy", &workload, PROCESSORS, true);
    assert_int_equal(ours.wait_sum, easy.wait_sum);
    figures_print("easy, as traced", &ours, workload.count);
    mem_free(workload.jobs);
}

static void on_a_pressed_trace_backfill_beats_fcfs(void **state)
{
    (void)state;
    struct workload workload = {0};
    workload_load_or_skip(&workload);
    workload_press(&workload, 60);
    workload_estimate(&workload, 1);
    struct figures fcfs = reference_figures(REFERENCE_FCFS, &workload);
    struct figures our_fcfs = policy_figures("fcfs", &workload, PROCESSORS, true);
    struct figures easy = reference_figures(REFERENCE_EASY, &workload);
    struct figures our_easy = policy_figures("easy", &workload, PROCESSORS, true);
    struct figures small = policy_figures("easy", &workload, 1, true);
    struct figures conservative = policy_figures("conservative", &workload, PROCESSORS, false);
    figures_print("fcfs, pressed to 60 %", &our_fcfs, workload.count);
    figures_print("easy", &our_easy, workload.count);
    figures_print("conservative", &conservative, workload.count);
    assert_int_equal(our_fcfs.wait_sum, fcfs.wait_sum);
    assert_int_equal(our_easy.wait_sum, easy.wait_sum);
    assert_int_equal(small.wait_sum, easy.wait_sum);
    assert_true(easy.wait_sum < fcfs.wait_sum && easy.slowdown < fcfs.slowdown);
    assert_true(conservative.wait_sum < fcfs.wait_sum && conservative.slowdown < fcfs.slowdown);
    mem_free(workload.jobs);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(on_drawn_workloads_fcfs_and_easy_equal_the_textbook),
        cmocka_unit_test(on_drawn_workloads_conservative_equals_the_textbook),
        cmocka_unit_test(on_a_production_trace_easy_equals_the_textbook),
        cmocka_unit_test(on_a_pressed_trace_backfill_beats_fcfs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
