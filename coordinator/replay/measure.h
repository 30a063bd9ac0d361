/* measure.h - what users of a scheduler feel, from the times of a replay.
 *
 * Wait is start minus submit. Bounded slowdown is max(1, (wait + run) / max(run, 10 s)): Feitelson
 * and Rudolph, "Metrics and benchmarking for parallel job scheduling", JSSPP 1998. Utilisation is
 * the core-seconds (GPU-seconds) of jobs over those of the machine from the first submit to the
 * last end. Fairness is over users' mean bounded slowdowns: Jain's index (sum x)^2 / (n sum x^2),
 * which is 1 when all are equal and 1/n when one user bears everything, and the greatest mean over
 * the mean of all jobs. Only jobs that ran are counted. */
#ifndef ATHANOR_REPLAY_MEASURE_H
#define ATHANOR_REPLAY_MEASURE_H

#include "coordinator/replay/simulate.h"

#define SLOWDOWN_BOUND_MS 10000u

struct measures {
    size_t jobs, users;
    double wait_mean_ms; /* of integers below 2^53: exact up to the division */
    uint64_t wait_sum_ms, wait_median_ms, wait_p95_ms, wait_max_ms;
    double slowdown_mean, slowdown_p95, slowdown_max;
    double core_utilisation, gpu_utilisation; /* 0 without GPUs */
    uint64_t makespan_ms;
    double jain, worst_user; /* greatest mean slowdown of a user over the mean of all jobs */
};

void measure(const struct trace *trace, const struct simulated *simulated, struct measures *out);

#endif
