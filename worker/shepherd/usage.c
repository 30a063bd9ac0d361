/* usage.c - what each rank uses, as metric series; see run.h.
 *
 * The step of these series is the second since the attempt began. Rates are over the interval
 * since the sample before; a process that ended takes its I/O counters along, so that a rate is
 * never below zero but may miss the last interval of a short-lived child. */
#include "common/base/clock.h"
#include "common/base/mem.h"
#include "worker/attempt/procs.h"
#include "worker/shepherd/run.h"

static void sample_add(struct run *run, unsigned index, uint64_t second, const char *name,
                       double value)
{
    struct rec_report report = {.kind = REPORT_METRIC,
                                .rank = run_rank(run, index),
                                .step = second,
                                .name = name,
                                .value = value};
    reports_add(run, &report);
}

static double rate(uint64_t now, uint64_t before, uint64_t elapsed_ms)
{
    return now > before ? (double)(now - before) * 1000.0 / (double)elapsed_ms : 0.0;
}

static void rank_add(struct run *run, unsigned index, const struct process_usage *now,
                     uint64_t elapsed_ms, uint64_t second)
{
    struct process_usage *before = &run->ranks[index].sampled;
    if (run->ranks[index].ended)
        return;
    sample_add(run, index, second, "usage/cores",
               rate(now->cpu_ms, before->cpu_ms, elapsed_ms) / 1000.0);
    sample_add(run, index, second, "usage/rss_bytes", (double)now->rss_bytes);
    sample_add(run, index, second, "usage/read_bytes_per_s",
               rate(now->read_bytes, before->read_bytes, elapsed_ms));
    sample_add(run, index, second, "usage/write_bytes_per_s",
               rate(now->write_bytes, before->write_bytes, elapsed_ms));
    *before = *now;
}

void usage_tick(struct run *run, uint64_t now_ms)
{
    uint64_t elapsed_ms = now_ms - run->sampled_ms;
    size_t count = run->plan.rank_count;
    if (elapsed_ms < RUN_USAGE_MS)
        return;
    pid_t *pids = mem_array(count, sizeof *pids);
    struct process_usage *now = mem_array(count, sizeof *now);
    for (size_t i = 0; i < count; i++)
        pids[i] = run->ranks[i].pid;
    processes_usage(pids, count, now);
    for (unsigned i = 0; i < count; i++)
        rank_add(run, i, &now[i], elapsed_ms, (now_ms - run->started_ms) / 1000);
    run->sampled_ms = now_ms;
    mem_free(pids);
    mem_free(now);
}
