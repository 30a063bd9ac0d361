/* simulate.h - a trace through the real core and a real policy, in simulated time.
 *
 * Everything decides as in production: submits, joins and reports are the events of
 * core/event.h, placements are the STARTs it releases. Only the workers are made up: they start
 * what they are told at once and end it after the trace's run time; a STOP ends it sooner. Time
 * jumps from one event to the next. Ends and submits of one millisecond are taken together, ends
 * first, and then one pass decides. Nothing is stored. */
#ifndef ATHANOR_REPLAY_SIMULATE_H
#define ATHANOR_REPLAY_SIMULATE_H

#include "coordinator/replay/trace.h"

#define SIMULATED_NEVER UINT64_MAX

/* What became of the trace under one policy. Times as in the trace. */
struct simulated {
    uint64_t *start_ms, *end_ms; /* per job of the trace; first start, last end */
    uint32_t *order;             /* indices of jobs in the order of their first starts */
    size_t started;
    uint64_t refused;        /* jobs that the core refused, or whose class has no worker */
    char refusal[300];       /* why, of the first; "" for none */
    uint64_t preempted;      /* attempts that were stopped and whose job started again */
    uint64_t passes, steps;  /* of the core */
    uint64_t pass_us, pass_us_max; /* wall clock spent in ticks: passes and timers */
};

/* Called now and then with how many of the trace's jobs have ended. */
typedef void simulate_progress(void *user, size_t done, size_t total);

/* trace->nodes is the machine. Errors: ERR_INVALID (no such policy, no nodes). simulated_free
 * afterwards in either case. */
int simulate(const struct trace *trace, const char *policy, simulate_progress *progress,
             void *user, struct simulated *out, struct err *err) WARN_UNUSED;
void simulated_free(struct simulated *simulated);

#endif
