/* measure.c - see measure.h. Percentiles are of the nearest rank. */
#include "coordinator/replay/measure.h"

#include "common/base/mem.h"

#include <stdlib.h>

static int u64_compare(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static int f64_compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static size_t nearest_rank(size_t count, unsigned percent)
{
    size_t rank = (count * percent + 99) / 100;
    return rank ? rank - 1 : 0;
}

static double slowdown(uint64_t wait_ms, uint64_t run_ms)
{
    double bounded = (double)(wait_ms + run_ms) / (double)max_u64(run_ms, SLOWDOWN_BOUND_MS);
    return bounded < 1 ? 1 : bounded;
}

/* Sums over jobs that ran, and their waits and slowdowns in two arrays. */
struct tally {
    uint64_t *waits;
    double *slowdowns, *user_sums;
    size_t *user_jobs;
    double core_ms, gpu_ms;
    uint64_t last_end_ms;
};

static void tally_job(const struct trace_job *job, uint64_t start_ms, uint64_t end_ms,
                      struct tally *tally, struct measures *out)
{
    uint64_t wait_ms = start_ms - job->submit_ms;
    double slow = slowdown(wait_ms, job->run_ms);
    tally->waits[out->jobs] = wait_ms;
    tally->slowdowns[out->jobs++] = slow;
    tally->user_sums[job->user] += slow;
    tally->user_jobs[job->user]++;
    tally->core_ms += (double)job->ranks * job->cores * (double)job->run_ms;
    tally->gpu_ms += (double)job->ranks * job->gpus * (double)job->run_ms;
    tally->last_end_ms = max_u64(tally->last_end_ms, end_ms);
    out->wait_sum_ms += wait_ms;
    out->slowdown_mean += slow;
}

static void fairness(const struct trace *trace, const struct tally *tally, struct measures *out)
{
    double sum = 0, squares = 0, worst = 0;
    for (size_t i = 0; i < trace->user_count; i++) {
        if (!tally->user_jobs[i])
            continue;
        double mean = tally->user_sums[i] / (double)tally->user_jobs[i];
        sum += mean;
        squares += mean * mean;
        worst = mean > worst ? mean : worst;
        out->users++;
    }
    out->jain = sum * sum / ((double)out->users * squares);
    out->worst_user = worst / out->slowdown_mean;
}

static double share(double used, double offered)
{
    return offered > 0 ? used / offered : 0;
}

static void utilisation(const struct trace *trace, const struct tally *tally, struct measures *out)
{
    double cores = 0, gpus = 0, span = (double)tally->last_end_ms;
    for (size_t i = 0; i < trace->node_count; i++) {
        cores += (double)trace->nodes[i].cores;
        gpus += (double)trace->nodes[i].gpus;
    }
    out->makespan_ms = tally->last_end_ms;
    out->core_utilisation = share(tally->core_ms, cores * span);
    out->gpu_utilisation = share(tally->gpu_ms, gpus * span);
}

static void distribution(struct tally *tally, struct measures *out)
{
    size_t last = out->jobs - 1, median = nearest_rank(out->jobs, 50),
           p95 = nearest_rank(out->jobs, 95);
    qsort(tally->waits, out->jobs, sizeof *tally->waits, u64_compare);
    qsort(tally->slowdowns, out->jobs, sizeof *tally->slowdowns, f64_compare);
    out->wait_mean_ms = (double)out->wait_sum_ms / (double)out->jobs;
    out->wait_median_ms = tally->waits[median];
    out->wait_p95_ms = tally->waits[p95];
    out->wait_max_ms = tally->waits[last];
    out->slowdown_mean /= (double)out->jobs;
    out->slowdown_p95 = tally->slowdowns[p95];
    out->slowdown_max = tally->slowdowns[last];
}

void measure(const struct trace *trace, const struct simulated *simulated, struct measures *out)
{
    struct tally tally = {.waits = mem_array(trace->job_count, sizeof *tally.waits),
                          .slowdowns = mem_array(trace->job_count, sizeof *tally.slowdowns),
                          .user_sums = mem_array(trace->user_count, sizeof *tally.user_sums),
                          .user_jobs = mem_array(trace->user_count, sizeof *tally.user_jobs)};
    *out = (struct measures){0};
    for (size_t i = 0; i < trace->job_count; i++)
        if (simulated->end_ms[i] != SIMULATED_NEVER)
            tally_job(&trace->jobs[i], simulated->start_ms[i], simulated->end_ms[i], &tally, out);
    if (out->jobs) {
        distribution(&tally, out);
        fairness(trace, &tally, out);
        utilisation(trace, &tally, out);
    }
    mem_free(tally.waits);
    mem_free(tally.slowdowns);
    mem_free(tally.user_sums);
    mem_free(tally.user_jobs);
}
