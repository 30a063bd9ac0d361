/* usage.c - what each rank uses, as metric series; see run.h.
 *
 * The step of these series is the second since the attempt began. Rates are over the interval
 * since the sample before; a process that ended takes its I/O counters along, so that a rate is
 * never below zero but may miss the last interval of a short-lived child. What GPUs do the daemon
 * samples (gpu_usage.h): a rank has its GPUs for itself, so their figures are its own. */
#include "common/base/clock.h"
#include "common/base/file.h"
#include "common/base/mem.h"
#include "worker/attempt/gpu_usage.h"
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

static void gpus_add(struct run *run, unsigned index, const char *text, uint64_t now_ms,
                     uint64_t second)
{
    struct gpu_usage usage;
    gpu_usage_sum(text, run->plan.ranks[index].gpus, now_ms, RUN_GPU_AGES * run->plan.usage_ms,
                  &usage);
    if (run->ranks[index].ended)
        return;
    if (usage.busy_known)
        sample_add(run, index, second, "usage/gpus", usage.busy_percent / 100.0);
    if (usage.used_known)
        sample_add(run, index, second, "usage/gpu_memory_bytes", (double)usage.used_bytes);
}

/* A file that is not there, or does not change any more: no points. */
static void gpu_series(struct run *run, uint64_t now_ms, uint64_t second)
{
    struct err err;
    char *text = NULL;
    size_t length;
    if (!run->plan.gpu_usage[0] ||
        file_read(run->plan.gpu_usage, GPU_USAGE_BYTES_MAX, &text, &length, &err) < 0)
        return;
    for (unsigned i = 0; i < run->plan.rank_count; i++)
        gpus_add(run, i, text, now_ms, second);
    mem_free(text);
}

void usage_tick(struct run *run, uint64_t now_ms)
{
    uint64_t elapsed_ms = now_ms - run->sampled_ms;
    size_t count = run->plan.rank_count;
    if (elapsed_ms < run->plan.usage_ms)
        return;
    pid_t *pids = mem_array(count, sizeof *pids);
    struct process_usage *now = mem_array(count, sizeof *now);
    for (size_t i = 0; i < count; i++)
        pids[i] = run->ranks[i].pid;
    processes_usage(pids, count, now);
    uint64_t second = (now_ms - run->started_ms) / 1000;
    for (unsigned i = 0; i < count; i++)
        rank_add(run, i, &now[i], elapsed_ms, second);
    gpu_series(run, now_ms, second);
    run->sampled_ms = now_ms;
    mem_free(pids);
    mem_free(now);
}
