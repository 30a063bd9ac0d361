/* sim.h - a whole cluster in one process and in simulated time, from one seed.
 *
 * The core and the policies are the real ones. Coordinators' shells, workers, shepherds, people,
 * the network and PostgreSQL are simulated; every message crosses the real codec. Each seed draws
 * its cluster and which faults exist and how often (swarm), lives with them for a while, then
 * heals and demands that every job ends as its spec says. tests/sim/README.md has the tables. */
#ifndef ATHANOR_TESTS_SIM_H
#define ATHANOR_TESTS_SIM_H

#include "common/base/err.h"

#include <stdio.h>

/* FAULT(tag, greatest chance in permille per opportunity, what is counted) */
#define SIM_FAULTS(X) \
    X(LOSE, 150, "messages lost") \
    X(TWICE, 150, "messages doubled") \
    X(REORDER, 300, "messages reordered") \
    X(DELAY, 60, "messages delayed by seconds") \
    X(CUT, 4, "sessions cut") \
    X(PARTITION, 6, "partitions") \
    X(KILL, 6, "coordinators killed") \
    X(KILL_RELEASE, 10, "coordinators killed amid a release") \
    X(PAUSE, 4, "coordinators paused") \
    X(FORCE, 2, "leases taken by force") \
    X(COMMIT_SLOW, 200, "slow commits") \
    X(COMMIT_REFUSED, 10, "commits refused") \
    X(COMMIT_UNKNOWN, 20, "commits of unknown outcome") \
    X(DATABASE_AWAY, 3, "outages of the database") \
    X(DAEMON_RESTART, 3, "daemons restarted") \
    X(DAEMON_PAUSE, 3, "daemons paused") \
    X(DAEMON_LEAVE, 2, "daemons that said goodbye") \
    X(NODE_LOSS, 2, "nodes lost") \
    X(DISK_LOSS, 500, "disks lost with them") \
    X(SHEPHERD_CRASH, 10, "shepherds crashed") \
    X(SHEPHERD_HANG, 60, "attempts that hang") \
    X(ATTEMPT_FAIL, 50, "attempts that fail") \
    X(CLOCK_JUMP, 5, "jumps of wall clocks") \
    X(CLOCK_DRIFT, 1000, "slow or fast steady clocks") \
    X(CONTROL, 30, "requests of people") \
    X(CONFIGURE, 10, "changes of the configuration") \
    X(RESUBMIT, 300, "submits repeated") \
    X(NODE_UNFIT, 30, "starts that failed by the node's fault") \
    X(NODE_INCIDENT, 2, "incidents of nodes") \
    X(NODE_ILL, 3, "changes of health")

enum sim_fault {
#define X(tag, most, what) SIM_FAULT_##tag,
    SIM_FAULTS(X)
#undef X
    SIM_FAULT_END,
};

/* BUG(tag, seeds within which it must be caught, words of the finding, what is planted) */
#define SIM_BUGS(X) \
    X(SECOND_ATTEMPT, 10, "invariant 1", "a job is placed twice") \
    X(OVERBOOK, 10, "invariant 2", "a worker is taken for larger than it is") \
    X(EARLY_RELEASE, 10, "invariant 3", "messages leave before their rows are durable") \
    X(RESURRECTION, 10, "invariant 4", "a job that has succeeded goes on") \
    X(LATE_REPORT, 10, "invariant 5", "a report of a superseded attempt is stored") \
    X(REPORT_TWICE, 20, "invariant 5", "repeated reports are taken again") \
    X(REPORT_GAP, 20, "invariant 5", "reports behind a gap are taken") \
    X(LOST_ROW, 10, "", "a row of a batch is not written") \
    X(LOST_MEMORY, 10, "invariant 6", "memory holds what no row says") \
    X(TORN_RESUME, 20, "invariant 7", "an attempt resumes from what was removed") \
    X(EARLY_CHILD, 10, "invariant 8", "a dependent does not wait") \
    X(NO_LIMIT, 20, "invariant 9", "more live jobs than the limit") \
    X(DOUBLE_SUBMIT, 20, "invariant 10", "submit keys are forgotten") \
    X(NO_EPOCH_GUARD, 60, "", "the database takes batches of a leader that was succeeded") \
    X(NO_FENCE, 40, "liveness", "superseded attempts are not fenced") \
    X(UNKNOWN_IS_DONE, 60, "", "an unknown commit is taken for done") \
    X(UNKNOWN_IS_NOT, 60, "", "an unknown commit is sent again without looking") \
    X(NO_START_AGAIN, 60, "liveness", "a lost START is not sent again") \
    X(NO_STOP_AGAIN, 400, "liveness", "a lost STOP is not sent again") \
    X(NO_LEASE, 40, "liveness", "the silence of a worker is not noticed") \
    X(NO_BACKOFF_END, 20, "liveness", "a backoff does not end") \
    X(NO_PASS, 20, "liveness", "room that came free is not looked at") \
    X(NO_CAP, 40, "limit", "the cap of arrays and sweeps is forgotten") \
    X(WRONG_RUNG, 60, "sweep", "a sweep judges by another direction after a while") \
    X(HALF_GANG, 60, "gang", "a node of a gang has no row") \
    X(LONE_NODE, 60, "gang", "a gang goes on when a node of it has failed") \
    X(NO_REQUEUE, 60, "as specified", "who is preempted fails") \
    X(NO_QUOTA, 100, "quota", "quotas are forgotten") \
    X(NO_WINDOW, 100, "window", "reservations are forgotten") \
    X(NO_UNTIL, 40, "leaves before", "workers that leave are taken for ones that stay") \
    X(FALSE_COPY, 20, "copies", "a worker tells of a copy that it does not have") \
    X(NO_LABELS, 60, "its constraint", "labels of workers are taken for those that are wanted") \
    X(NO_MODEL, 60, "gpu_model", "GPUs are taken for ones of another model") \
    X(WRONG_BEST, 60, "best of", "the worst trial of a sweep is taken for the best") \
    X(WRONG_END, 20, "as specified", "a failed attempt makes a job succeed")

/* SIM_BUG_NONE and one for each line. */
enum sim_bug {
    SIM_BUG_NONE = 0,
#define X(tag, seeds, finding, what) SIM_BUG_##tag,
    SIM_BUGS(X)
#undef X
    SIM_BUG_END,
};

struct sim_options {
    uint64_t seed;
    uint32_t fault_rounds; /* of 1..20 ms each; 0: 1500 */
    enum sim_bug bug;
    uint32_t faults_off;   /* bit 1 << fault: never happens, whatever the seed says */
    FILE *trace;           /* a line for each event and decision; NULL: none */
};

struct sim_result {
    uint64_t trace_hash; /* of everything that was decided and sent */
    uint64_t steps, messages, commits, jobs, attempts, metrics;
    uint64_t copies;                         /* fetched by workers */
    uint64_t gangs, preemptions, prunings;   /* attempts on several nodes; ends of attempts */
    uint64_t choosy, choices;                /* placed as labels or a model say; best trials */
    uint64_t takeovers, overlaps;            /* leases taken; rounds with two who lead */
    uint64_t batches_fenced;                 /* of a leader that had been succeeded */
    uint64_t late_commits;                   /* of a process that was dead by then */
    uint64_t resumes_refused;                /* by workers: the files had been written over */
    uint64_t rebuilds;                       /* comparisons of memory and rows */
    uint64_t faults[SIM_FAULT_END];
};

const char *sim_fault_name(enum sim_fault fault); /* "LOSE" */
const char *sim_fault_what(enum sim_fault fault);
const char *sim_bug_name(enum sim_bug bug);
const char *sim_bug_what(enum sim_bug bug);
const char *sim_bug_finding(enum sim_bug bug); /* words that the violation must have */
uint32_t sim_bug_seeds(enum sim_bug bug);

/* 0: nothing was violated and all jobs ended. -1: err says what was violated, and when. */
int sim_run(const struct sim_options *options, struct sim_result *result,
            struct err *err) WARN_UNUSED;

#endif
