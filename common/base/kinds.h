/* kinds.h - small vocabularies that travel as numbers or names, shared by all programs. */
#ifndef ATHANOR_KINDS_H
#define ATHANOR_KINDS_H

#include "common/base/err.h"

/* Entries of an attempt's report stream. */
enum report_kind {
    REPORT_STARTED = 1, /* all ranks run; meta: {"pid", "shepherd_pid", "pids", "cores", "gpus"} */
    REPORT_METRIC,
    REPORT_LOG,         /* name: "stdout" or "stderr" */
    REPORT_PROGRESS,    /* newest wins */
    REPORT_CHECKPOINT,
    REPORT_ARTIFACT,    /* name; meta: {"kind", ...} */
    REPORT_EVENT,
    REPORT_FINISHED,    /* last of the stream; meta: usage */
    REPORT_KIND_END,
};

/* Why an attempt ended. Names are what specs (`retry: on:`) and SQL use. */
#define CAUSES(X) \
    X(SUCCESS, "success")             /* every rank exited 0                             */ \
    X(EXIT, "exit")                   /* a rank exited with another code                 */ \
    X(SIGNAL, "signal")               /* a rank died of a signal we did not send         */ \
    X(OOM, "oom")                     /* the kernel or our limit killed it for memory    */ \
    X(TIME_LIMIT, "time_limit")       /* limits.wall_time                                */ \
    X(PREEMPTED, "preempted")                                                               \
    X(WORKER_LOST, "worker_lost")     /* the lease ran out                               */ \
    X(SHEPHERD_LOST, "shepherd_lost") /* the shepherd died, its ranks were swept         */ \
    X(LAUNCH_FAILED, "launch_failed") /* nothing ran: missing program, input, directory  */ \
    X(STALLED, "stalled")             /* limits.stall without progress                   */ \
    X(DIVERGED, "diverged")           /* a metric is not finite or passed its bound      */ \
    X(CANCELLED, "cancelled")                                                               \
    X(DEPENDENCY, "dependency")       /* a parent ended otherwise than needed            */ \
    X(PRUNED, "pruned")               /* its sweep gave its room to better trials        */ \
    X(REUSED, "reused")               /* an identical job had succeeded; nothing ran     */ \
    X(PEER_FAILED, "peer_failed")     /* of one node: another node of the attempt failed */ \
    X(STALE_CHECKPOINT, "stale_checkpoint") /* its resume point is no longer what was saved */ \
    X(NODE_ENDED, "node_ended")       /* the time of its node was over                   */ \
    X(DRAINED, "drained")             /* the deadline of its node's drain; workers are   */ \
                                      /* told `preempted`, which older ones know as well */ \
    X(GAVE_UP, "gave_up")             /* the program says that what it was given is of no use */

enum cause {
    CAUSE_NONE = 0,
#define X(tag, name) CAUSE_##tag,
    CAUSES(X)
#undef X
    CAUSE_END,
};

const char *cause_name(enum cause cause);                      /* "" for CAUSE_NONE */
int cause_from_name(const char *name, enum cause *out, struct err *err) WARN_UNUSED;

enum role {
    ROLE_USER = 1,
    ROLE_OPERATOR,
    ROLE_WORKER,
    ROLE_ADMIN,
    ROLE_PILOT, /* asks, and makes and revokes keys of workers of its own */
    ROLE_TOKEN, /* enrols one key, nothing else */
    ROLE_END,
};
const char *role_name(enum role role);
int role_from_name(const char *name, enum role *out, struct err *err) WARN_UNUSED;

#endif
