/* sim.h - a whole cluster in one process and in simulated time, from one seed.
 *
 * The core and the policy are the real ones. Workers, clients, the network and PostgreSQL are
 * simulated; every message crosses the real codec. Each seed draws which faults exist and how
 * often (swarm), lives with them for a while, then heals and demands that every job ends.
 *
 * Faults: messages lost, doubled, delayed out of order; sessions cut; leaders killed between
 * step, commit and release; commits that are slow, fail, or end unknown (applied or not);
 * daemons restarted, nodes lost with and without their disk; clocks that jump; clients that
 * resend, cancel, hold, release, retry and drain.
 *
 * Checked after each step and commit: the invariants of the design, by core_check, by the
 * constraints of memory_db and by sim_check.c, which knows what really happened. */
#ifndef ATHANOR_TESTS_SIM_H
#define ATHANOR_TESTS_SIM_H

#include "common/base/err.h"

/* A bug to plant, named after the invariant of the design that it breaks. */
enum sim_bug {
    SIM_BUG_NONE = 0,
    SIM_BUG_SECOND_ATTEMPT = 1, /* one job is placed twice                       */
    SIM_BUG_OVERBOOK,           /* a worker forgets what it has given away       */
    SIM_BUG_EARLY_RELEASE,      /* messages leave before their rows are durable  */
    SIM_BUG_RESURRECTION,       /* a job that has succeeded goes on              */
    SIM_BUG_LATE_REPORT,        /* a report of a superseded attempt is stored    */
    SIM_BUG_LOST_ROW,           /* a row of a batch is not written               */
    SIM_BUG_TORN_RESUME,        /* an attempt resumes from what was removed      */
    SIM_BUG_EARLY_CHILD,        /* a dependent does not wait                     */
    SIM_BUG_NO_LIMIT,           /* more live jobs than the limit                 */
    SIM_BUG_DOUBLE_SUBMIT,      /* submit keys are forgotten                     */
    SIM_BUG_END,
};

struct sim_options {
    uint64_t seed;
    uint32_t fault_rounds; /* of 1..20 ms each; 0: 2000 */
    enum sim_bug bug;
};

struct sim_result {
    uint64_t trace_hash; /* of everything that was decided */
    uint64_t steps, commits, jobs, attempts, metrics;
    uint64_t lost, doubled, reordered, cut;        /* messages, sessions */
    uint64_t leader_kills, commit_failures, commits_unknown;
    uint64_t daemon_restarts, nodes_lost, clock_jumps, controls, resubmits;
};

/* 0: nothing was violated and all jobs ended. -1: err says what was violated, and when. */
int sim_run(const struct sim_options *options, struct sim_result *result,
            struct err *err) WARN_UNUSED;

#endif
