/* life.h - the lives of jobs, attempts and workers, as state x event tables.
 *
 * The tables are in life.c, rendered in README.md. A blank cell is a refusal: the event changes
 * nothing and the asker is told. Names are what rows and SQL hold. */
#ifndef ATHANOR_CORE_LIFE_H
#define ATHANOR_CORE_LIFE_H

#include "common/base/err.h"

#define JOB_STATES(X) \
    X(WAITING)   /* for its parents                                        */ \
    X(READY)     /* may be placed, unless held                             */ \
    X(BACKOFF)   /* until eligible_at, then READY                          */ \
    X(PLACED)    /* on a worker, its start not yet confirmed               */ \
    X(RUNNING)                                                                \
    X(STOPPING)  /* asked to stop, its processes may still run             */ \
    X(SUCCEEDED) /* this and the following are terminal: ended_at is set   */ \
    X(FAILED)                                                                 \
    X(CANCELLED)

#define JOB_EVENTS(X) \
    X(PARENTS_MET)    /* the last parent ended as needed                    */ \
    X(PARENT_BROKEN)  /* success was needed of a parent that failed         */ \
    X(PARENT_SKIPPED) /* a parent ended in another way than needed          */ \
    X(PLACE)          /* policy found a worker                              */ \
    X(INPUT_MISSING)  /* an input has nothing to read                       */ \
    X(START)          /* a worker reported that all ranks run               */ \
    X(SUCCEED)        /* every rank exited 0                                */ \
    X(RETRY)          /* the attempt ended, its cause retries, budget left  */ \
    X(REQUEUE)        /* it was preempted                                   */ \
    X(FAIL)           /* the attempt ended for good                         */ \
    X(STOPPED)        /* the attempt ended because we asked it to           */ \
    X(DUE)            /* the backoff is over                                */ \
    X(CANCEL)         /* a person asked                                     */ \
    X(HOLD)           /* a person asked                                     */ \
    X(RELEASE)        /* a person asked                                     */ \
    X(REOPEN)         /* a person asked for a retry of an ended job         */ \
    X(REUSE)          /* an identical job's results are taken               */

#define ATTEMPT_STATES(X) \
    X(PLACED)   /* row written, START sent or to be sent      */ \
    X(RUNNING)  /* its stream has begun                       */ \
    X(STOPPING) /* STOP sent or to be sent                    */ \
    X(ENDED)    /* with a cause; terminal                     */

#define ATTEMPT_EVENTS(X) \
    X(START) X(STOP) X(FINISH) /* the worker's report */ X(LOSE) /* our decision; then fenced */

#define WORKER_STATES(X) \
    X(OK)      /* may be given work                                        */ \
    X(SUSPECT) /* silent for a while: no new work, nothing killed          */ \
    X(LOST)    /* lease ran out                                            */ \
    X(LEFT)    /* said goodbye                                             */

#define WORKER_EVENTS(X) \
    X(JOIN) X(BEAT) X(SILENCE) X(EXPIRE) X(LEAVE)

#define X(name) JOB_##name,
enum job_state { JOB_STATE_NONE = 0, JOB_STATES(X) JOB_STATE_END };
#undef X
#define X(name) JOB_ON_##name,
enum job_event { JOB_EVENT_NONE = 0, JOB_EVENTS(X) JOB_EVENT_END };
#undef X
#define X(name) ATTEMPT_##name,
enum attempt_state { ATTEMPT_STATE_NONE = 0, ATTEMPT_STATES(X) ATTEMPT_STATE_END };
#undef X
#define X(name) ATTEMPT_ON_##name,
enum attempt_event { ATTEMPT_EVENT_NONE = 0, ATTEMPT_EVENTS(X) ATTEMPT_EVENT_END };
#undef X
#define X(name) WORKER_##name,
enum worker_state { WORKER_STATE_NONE = 0, WORKER_STATES(X) WORKER_STATE_END };
#undef X
#define X(name) WORKER_ON_##name,
enum worker_event { WORKER_EVENT_NONE = 0, WORKER_EVENTS(X) WORKER_EVENT_END };
#undef X

/* The state after the event; *_STATE_NONE: refused. */
enum job_state job_next(enum job_state from, enum job_event event);
enum attempt_state attempt_next(enum attempt_state from, enum attempt_event event);
enum worker_state worker_next(enum worker_state from, enum worker_event event);

bool job_state_is_terminal(enum job_state state);
bool job_state_has_attempt(enum job_state state); /* PLACED, RUNNING, STOPPING */

const char *job_state_name(enum job_state state); /* "WAITING" */
const char *job_event_name(enum job_event event);
const char *attempt_state_name(enum attempt_state state);
const char *attempt_event_name(enum attempt_event event);
const char *worker_state_name(enum worker_state state);
const char *worker_event_name(enum worker_event event);
/* JOB_STATE_NONE and so on when there is no such name. */
enum job_state job_state_from_name(const char *name);
enum attempt_state attempt_state_from_name(const char *name);
enum worker_state worker_state_from_name(const char *name);

/* What a person may ask for: CONTROL.action. */
#define ACTIONS(X) \
    X(CANCEL, "cancel") X(HOLD, "hold") X(RELEASE, "release") X(RETRY, "retry") \
    X(DRAIN, "drain") X(UNDRAIN, "undrain")
enum action {
    ACTION_NONE = 0,
#define X(tag, name) ACTION_##tag,
    ACTIONS(X)
#undef X
    ACTION_END,
};
const char *action_name(enum action action);
enum action action_from_name(const char *name);

#endif
