/* life.c - the tables; see life.h. README.md shows them rendered, a test keeps it fresh. */
#include "coordinator/core/life.h"

#include <string.h>

/* The whole life of a job. A blank cell is a refusal, never a silent no-op.
 * Terminal states have no row but for a person's REOPEN (invariant 4 allows nothing else). */
static const uint8_t job_edges[JOB_STATE_END][JOB_EVENT_END] = {
    [JOB_WAITING] = {[JOB_ON_PARENTS_MET] = JOB_READY,
                     [JOB_ON_PARENT_BROKEN] = JOB_FAILED,
                     [JOB_ON_PARENT_SKIPPED] = JOB_CANCELLED,
                     [JOB_ON_CANCEL] = JOB_CANCELLED,
                     [JOB_ON_HOLD] = JOB_WAITING,
                     [JOB_ON_RELEASE] = JOB_WAITING},
    [JOB_READY] = {[JOB_ON_REUSE] = JOB_SUCCEEDED,
                   [JOB_ON_PLACE] = JOB_PLACED,
                   [JOB_ON_INPUT_MISSING] = JOB_FAILED,
                   [JOB_ON_CANCEL] = JOB_CANCELLED,
                   [JOB_ON_HOLD] = JOB_READY,
                   [JOB_ON_RELEASE] = JOB_READY},
    [JOB_BACKOFF] = {[JOB_ON_DUE] = JOB_READY,
                     [JOB_ON_CANCEL] = JOB_CANCELLED,
                     [JOB_ON_HOLD] = JOB_BACKOFF,
                     [JOB_ON_RELEASE] = JOB_BACKOFF},
    [JOB_PLACED] = {[JOB_ON_START] = JOB_RUNNING,
                    [JOB_ON_SUCCEED] = JOB_SUCCEEDED,
                    [JOB_ON_RETRY] = JOB_BACKOFF,
                    [JOB_ON_REQUEUE] = JOB_READY,
                    [JOB_ON_FAIL] = JOB_FAILED,
                    [JOB_ON_CANCEL] = JOB_STOPPING},
    [JOB_RUNNING] = {[JOB_ON_SUCCEED] = JOB_SUCCEEDED,
                     [JOB_ON_RETRY] = JOB_BACKOFF,
                     [JOB_ON_REQUEUE] = JOB_READY,
                     [JOB_ON_FAIL] = JOB_FAILED,
                     [JOB_ON_CANCEL] = JOB_STOPPING},
    [JOB_STOPPING] = {[JOB_ON_START] = JOB_STOPPING,
                      [JOB_ON_SUCCEED] = JOB_SUCCEEDED,
                      [JOB_ON_STOPPED] = JOB_CANCELLED,
                      [JOB_ON_CANCEL] = JOB_STOPPING},
    [JOB_FAILED] = {[JOB_ON_REOPEN] = JOB_WAITING},
    [JOB_CANCELLED] = {[JOB_ON_REOPEN] = JOB_WAITING},
};

static const uint8_t attempt_edges[ATTEMPT_STATE_END][ATTEMPT_EVENT_END] = {
    [ATTEMPT_PLACED] = {[ATTEMPT_ON_START] = ATTEMPT_RUNNING,
                        [ATTEMPT_ON_STOP] = ATTEMPT_STOPPING,
                        [ATTEMPT_ON_FINISH] = ATTEMPT_ENDED,
                        [ATTEMPT_ON_LOSE] = ATTEMPT_ENDED},
    [ATTEMPT_RUNNING] = {[ATTEMPT_ON_STOP] = ATTEMPT_STOPPING,
                         [ATTEMPT_ON_FINISH] = ATTEMPT_ENDED,
                         [ATTEMPT_ON_LOSE] = ATTEMPT_ENDED},
    [ATTEMPT_STOPPING] = {[ATTEMPT_ON_START] = ATTEMPT_STOPPING,
                          [ATTEMPT_ON_FINISH] = ATTEMPT_ENDED,
                          [ATTEMPT_ON_LOSE] = ATTEMPT_ENDED},
};

/* A LOST or LEFT worker must join again: only a join says what it still holds. */
static const uint8_t worker_edges[WORKER_STATE_END][WORKER_EVENT_END] = {
    [WORKER_OK] = {[WORKER_ON_JOIN] = WORKER_OK,
                   [WORKER_ON_BEAT] = WORKER_OK,
                   [WORKER_ON_SILENCE] = WORKER_SUSPECT,
                   [WORKER_ON_EXPIRE] = WORKER_LOST,
                   [WORKER_ON_LEAVE] = WORKER_LEFT},
    [WORKER_SUSPECT] = {[WORKER_ON_JOIN] = WORKER_OK,
                        [WORKER_ON_BEAT] = WORKER_OK,
                        [WORKER_ON_EXPIRE] = WORKER_LOST,
                        [WORKER_ON_LEAVE] = WORKER_LEFT},
    [WORKER_LOST] = {[WORKER_ON_JOIN] = WORKER_OK},
    [WORKER_LEFT] = {[WORKER_ON_JOIN] = WORKER_OK},
};

enum job_state job_next(enum job_state from, enum job_event event)
{
    CHECK(from > 0 && from < JOB_STATE_END);
    CHECK(event > 0 && event < JOB_EVENT_END);
    return (enum job_state)job_edges[from][event];
}

enum attempt_state attempt_next(enum attempt_state from, enum attempt_event event)
{
    CHECK(from > 0 && from < ATTEMPT_STATE_END);
    CHECK(event > 0 && event < ATTEMPT_EVENT_END);
    return (enum attempt_state)attempt_edges[from][event];
}

enum worker_state worker_next(enum worker_state from, enum worker_event event)
{
    CHECK(from > 0 && from < WORKER_STATE_END);
    CHECK(event > 0 && event < WORKER_EVENT_END);
    return (enum worker_state)worker_edges[from][event];
}

bool job_state_is_terminal(enum job_state state)
{
    return state == JOB_SUCCEEDED || state == JOB_FAILED || state == JOB_CANCELLED;
}

bool job_state_has_attempt(enum job_state state)
{
    return state == JOB_PLACED || state == JOB_RUNNING || state == JOB_STOPPING;
}

/* ---- names ------------------------------------------------------------------------------- */

#define X(name) #name,
static const char *const job_state_names[] = {"", JOB_STATES(X)};
static const char *const job_event_names[] = {"", JOB_EVENTS(X)};
static const char *const attempt_state_names[] = {"", ATTEMPT_STATES(X)};
static const char *const attempt_event_names[] = {"", ATTEMPT_EVENTS(X)};
static const char *const worker_state_names[] = {"", WORKER_STATES(X)};
static const char *const worker_event_names[] = {"", WORKER_EVENTS(X)};
#undef X
#define X(tag, name) name,
static const char *const action_names[] = {"", ACTIONS(X)};
#undef X

static const char *name_at(const char *const *names, size_t count, size_t index)
{
    CHECK(index < count);
    return names[index];
}

static size_t index_of(const char *const *names, size_t count, const char *name)
{
    for (size_t i = 1; i < count; i++)
        if (strcmp(names[i], name) == 0)
            return i;
    return 0;
}

const char *job_state_name(enum job_state state)
{
    return name_at(job_state_names, ARRAY_COUNT(job_state_names), (size_t)state);
}

const char *job_event_name(enum job_event event)
{
    return name_at(job_event_names, ARRAY_COUNT(job_event_names), (size_t)event);
}

const char *attempt_state_name(enum attempt_state state)
{
    return name_at(attempt_state_names, ARRAY_COUNT(attempt_state_names), (size_t)state);
}

const char *attempt_event_name(enum attempt_event event)
{
    return name_at(attempt_event_names, ARRAY_COUNT(attempt_event_names), (size_t)event);
}

const char *worker_state_name(enum worker_state state)
{
    return name_at(worker_state_names, ARRAY_COUNT(worker_state_names), (size_t)state);
}

const char *worker_event_name(enum worker_event event)
{
    return name_at(worker_event_names, ARRAY_COUNT(worker_event_names), (size_t)event);
}

const char *action_name(enum action action)
{
    return name_at(action_names, ARRAY_COUNT(action_names), (size_t)action);
}

enum job_state job_state_from_name(const char *name)
{
    return (enum job_state)index_of(job_state_names, ARRAY_COUNT(job_state_names), name);
}

enum attempt_state attempt_state_from_name(const char *name)
{
    return (enum attempt_state)index_of(attempt_state_names, ARRAY_COUNT(attempt_state_names),
                                        name);
}

enum worker_state worker_state_from_name(const char *name)
{
    return (enum worker_state)index_of(worker_state_names, ARRAY_COUNT(worker_state_names), name);
}

enum action action_from_name(const char *name)
{
    return (enum action)index_of(action_names, ARRAY_COUNT(action_names), name);
}
