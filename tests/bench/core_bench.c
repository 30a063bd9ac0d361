/* link: core-testing */
/* core_bench.c - the core alone, in memory, with workers that answer at once.
 *
 *   jobs/s            submit, place, start, run and end, in batches as the shell makes them; once
 *                     with an empty history and once after many jobs: the ratio should be near 1
 *   pass              a scheduling pass over a long queue: when workers are free, and when one
 *                     job ends and everything else is full
 *   mixed             a pass where reservations matter
 *   bytes             heap of one queued job
 * An argument names the policy. With ATHANOR_TEST_MODE=long also 1,000,000 queued jobs on 10,000
 * workers.
 * Absolute figures orient only; PostgreSQL is measured elsewhere. */
#include "common/base/clock.h"
#include "common/base/mem.h"
#include "coordinator/core/core.h"

#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PEER_BASE 100u

static const char *policy; /* NULL: the default */

struct bench {
    struct core *core;
    struct effects effects;
    uint64_t now_ms, submit_count, ended;
    uint64_t *running; /* attempts started and not yet reported, with their workers' peers */
    uint64_t *peers;
    size_t running_count, running_capacity, peer_capacity;
};

static void step(struct bench *bench, struct event *event)
{
    event->now_ms = bench->now_ms;
    event->wall_us = 1700000000000000u + bench->now_ms * 1000;
    core_step(bench->core, event, &bench->effects);
}

/* What the shell does after a commit; STARTs are kept for the workers. */
static void release(struct bench *bench)
{
    for (size_t i = 0; i < bench->effects.release_count; i++) {
        const struct outgoing *outgoing = &bench->effects.release[i];
        if (outgoing->message.tag != MSG_START)
            continue;
        size_t peers = bench->running_count;
        VEC_RESERVE(bench->running, bench->running_count, bench->running_capacity);
        bench->running[bench->running_count++] = outgoing->message.u.start.attempt_id;
        VEC_RESERVE(bench->peers, peers, bench->peer_capacity);
        bench->peers[peers] = outgoing->peer;
    }
    effects_reset(&bench->effects);
}

static void tick(struct bench *bench)
{
    struct event event = {.kind = EVENT_TICK};
    step(bench, &event);
    release(bench);
}

static void bench_open(struct bench *bench, uint64_t workers, uint64_t cores)
{
    *bench = (struct bench){.now_ms = 1};
    bench->core =
        core_new(&(struct core_config){.epoch = 1, .lease_ms = 3600000, .policy = policy});
    effects_init(&bench->effects);
    for (uint64_t i = 0; i < workers; i++) {
        char name[32];
        snprintf(name, sizeof name, "w%llu", (unsigned long long)i);
        struct msg_worker_join join = {.name = name,
                                       .incarnation = 1,
                                       .host = "h",
                                       .cores = cores,
                                       .memory_bytes = (uint64_t)1 << 40,
                                       .topology = "{}"};
        struct event event = {.kind = EVENT_WORKER_JOIN,
                              .join = {.peer = PEER_BASE + i, .join = &join}};
        step(bench, &event);
    }
    release(bench);
}

static void bench_close(struct bench *bench)
{
    core_free(bench->core);
    effects_done(&bench->effects);
    mem_free(bench->running);
    mem_free(bench->peers);
}

/* The spec of `count` identical jobs with names of their own. */
static struct spec *spec_make(size_t count)
{
    static const char *const command[] = {"true"};
    struct spec *spec = mem_zalloc(sizeof *spec);
    spec->name = "";
    spec->experiment = "bench";
    spec->job_count = count;
    spec->jobs = arena_alloc(&spec->arena, count * sizeof *spec->jobs);
    for (size_t i = 0; i < count; i++)
        spec->jobs[i] = (struct spec_job){
            .queue = "default",
            .project = "default",
            .name = arena_printf(&spec->arena, "job-%zu", i),
            .experiment = "bench",
            .description = "",
            .kind = "command",
            .recipe = "",
            .resources = {1, 1, 0, (uint64_t)1 << 30},
            .limits = {.stop_grace_ms = 30000},
            .retry = {.attempts = 3, .causes = 1u << CAUSE_WORKER_LOST, .backoff_ms = 10000},
            .checkpoint = {.keep_last = 2, .best_metric = "", .best_mode = SPEC_BEST_MIN},
            .on_disconnect = SPEC_DISCONNECT_WAIT,
            .launcher = SPEC_LAUNCHER_AUTO,
            .params = "{}",
            .command = command,
            .command_count = 1,
            .array_index = (uint32_t)i,
            .array_count = (uint32_t)count};
    return spec;
}

static void submit(struct bench *bench, const struct spec *spec)
{
    uint8_t key[16] = {0};
    uint64_t number = ++bench->submit_count;
    memcpy(key, &number, sizeof number);
    struct event event = {
        .kind = EVENT_SUBMIT,
        .submit = {.client = 1, .account = "ann", .submit_key = key, .spec = spec, .source = ""}};
    step(bench, &event);
    release(bench);
}

/* Each running attempt reports that it started and succeeded. */
static void workers_finish(struct bench *bench, size_t count)
{
    struct rec_report reports[2] = {
        {.seq = 1, .kind = REPORT_STARTED, .name = "", .path = "", .meta = "{}", .cause = ""},
        {.seq = 2,
         .kind = REPORT_FINISHED,
         .name = "",
         .path = "",
         .meta = "{}",
         .cause = "success"}};
    for (size_t i = 0; i < count; i++) {
        size_t last = --bench->running_count;
        struct msg_report message = {.attempt_id = bench->running[last],
                                     .reports = reports,
                                     .reports_count = 2};
        struct event event = {.kind = EVENT_REPORTS,
                              .reports = {.peer = bench->peers[last], .reports = &message}};
        step(bench, &event);
        bench->ended++;
    }
    bench->now_ms++;
    effects_reset(&bench->effects); /* nothing but acknowledgements */
}

static double run_jobs(struct bench *bench, const struct spec *spec, uint64_t jobs)
{
    uint64_t from_us = clock_steady_us(), goal = bench->ended + jobs;
    while (bench->ended < goal) {
        submit(bench, spec);
        for (tick(bench); bench->running_count; tick(bench))
            workers_finish(bench, bench->running_count);
    }
    return (double)jobs * 1e6 / (double)(clock_steady_us() - from_us);
}

static void throughput(void)
{
    struct bench bench;
    struct spec *spec = spec_make(1000);
    bench_open(&bench, 100, 4);
    double first = run_jobs(&bench, spec, 20000);
    double middle = run_jobs(&bench, spec, 160000);
    double last = run_jobs(&bench, spec, 20000);
    printf("core: %.0f jobs/s (submit to end, 100 workers, in memory)\n", middle);
    printf("core: %.2f = rate after 180,000 jobs / rate of the first 20,000\n", last / first);
    bench_close(&bench);
    arena_done(&spec->arena);
    mem_free(spec);
}

static double tick_ms(struct bench *bench)
{
    uint64_t from_us = clock_steady_us();
    struct event event = {.kind = EVENT_TICK};
    step(bench, &event);
    double ms = (double)(clock_steady_us() - from_us) / 1000.0;
    release(bench);
    return ms;
}

static void queue_and_pass(uint64_t queued, uint64_t workers)
{
    struct bench bench;
    struct spec *spec = spec_make(10000);
    bench_open(&bench, workers, 4);
    submit(&bench, spec);
    struct mallinfo2 before = mallinfo2();
    uint64_t jobs = 10000;
    for (; jobs < queued; jobs += 10000)
        submit(&bench, spec);
    struct mallinfo2 after = mallinfo2();
    double bytes = (double)(after.uordblks + after.hblkhd - before.uordblks - before.hblkhd) /
                   (double)(jobs - 10000);
    double filling = tick_ms(&bench);
    size_t placed = bench.running_count;
    workers_finish(&bench, 1);
    double one = tick_ms(&bench);
    workers_finish(&bench, placed / 2);
    double half = tick_ms(&bench);
    printf("core: %llu queued, %llu workers: %.0f bytes a queued job; pass that places %zu jobs "
           "%.2f ms, one job %.3f ms, %zu jobs %.2f ms\n",
           (unsigned long long)jobs, (unsigned long long)workers, bytes, placed, filling, one,
           placed / 2, half);
    bench_close(&bench);
    arena_done(&spec->arena);
    mem_free(spec);
}

/* Jobs of 20 kinds, so that some fit where others wait: what reservations cost a pass. */
static void mixed_pass(uint64_t queued, uint64_t workers)
{
    struct bench bench;
    struct spec *spec = spec_make(10000);
    for (size_t i = 0; i < spec->job_count; i++) {
        spec->jobs[i].resources.cores = (uint32_t)(i % 4) + 1;
        spec->jobs[i].limits.wall_time_ms = 600000 * (i / 4 % 5 + 1);
    }
    bench_open(&bench, workers, 4);
    for (uint64_t jobs = 0; jobs < queued; jobs += 10000)
        submit(&bench, spec);
    double filling = tick_ms(&bench), sum = 0;
    for (int i = 0; i < 100; i++) {
        workers_finish(&bench, 1);
        sum += tick_ms(&bench);
    }
    printf("core: %llu queued of 20 kinds, %llu workers: pass that fills them %.2f ms, pass after "
           "one end %.3f ms\n",
           (unsigned long long)queued, (unsigned long long)workers, filling, sum / 100);
    bench_close(&bench);
    arena_done(&spec->arena);
    mem_free(spec);
}

/* Wide jobs first in the queue, and behind them small ones that fit where one ended: each wide one
 * may want a reservation beside all before it, which is the worst that a pass can meet. Limits are
 * all different, so that each of the running jobs is a step of its own. */
static void deep_pass(uint64_t workers)
{
    struct bench bench;
    struct spec *running = spec_make(workers * 4), *wide = spec_make(2000);
    for (size_t i = 0; i < running->job_count; i++)
        running->jobs[i].limits.wall_time_ms = 3600000 + 977 * i;
    for (size_t i = 0; i < wide->job_count; i++) {
        bool small = i >= wide->job_count / 2;
        wide->jobs[i].resources.cores = small ? 1 : 4;
        wide->jobs[i].priority = small ? 0 : 1;
        wide->jobs[i].limits.wall_time_ms = small ? 3600000 : 60000 * (i % 20 + 1);
    }
    bench_open(&bench, workers, 4);
    submit(&bench, running);
    tick_ms(&bench);
    submit(&bench, wide);
    double sum = tick_ms(&bench), worst = 0;
    for (int i = 0; i < 10; i++) {
        workers_finish(&bench, 1);
        double took = tick_ms(&bench);
        sum += took;
        worst = took > worst ? took : worst;
    }
    printf(
        "core: 1000 wide jobs before 1000 small ones, %llu workers with %zu jobs: pass after one "
        "end %.2f ms, the slowest %.2f ms\n",
        (unsigned long long)workers, running->job_count, sum / 11, worst);
    bench_close(&bench);
    arena_done(&running->arena);
    arena_done(&wide->arena);
    mem_free(running);
    mem_free(wide);
}

int main(int argc, char **argv)
{
    policy = argc > 1 ? argv[1] : NULL;
    throughput();
    queue_and_pass(100000, 1000);
    mixed_pass(100000, 1000);
    deep_pass(1000);
    const char *mode = getenv("ATHANOR_TEST_MODE");
    if (mode && strcmp(mode, "long") == 0)
        queue_and_pass(1000000, 10000);
    return 0;
}
