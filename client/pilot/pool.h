/* pool.h - how many allocations a pool wants: pure, so that it can be tried without Slurm.
 *
 * Backlog and state in, decision out. An allocation is known by Slurm's number and by its slot: a
 * small number that names its workers, so that names are used again and their count is bounded. */
#ifndef ATHANOR_PILOT_POOL_H
#define ATHANOR_PILOT_POOL_H

#include "client/pilot/config.h"

/* Jobs that wait for room and ask for the same. Resources are those of one rank. */
struct demand {
    uint64_t jobs, ranks, cores, memory_bytes, gpus;
    uint64_t nodes_min, nodes_max;
    uint64_t wall_ms;                           /* 0: none */
    const char *queue, *gpu_model, *constraint; /* JSON as in specs */
};

enum allocation_state { ALLOCATION_WAITING = 1, ALLOCATION_RUNNING, ALLOCATION_ENDING };

struct allocation {
    uint64_t id;
    uint32_t slot; /* from 1 */
    enum allocation_state state;
    uint64_t workers; /* joined now */
    bool joined;      /* one of them was, some time */
    bool listed;      /* by Slurm at this look */
};

/* Why an allocation is no more. Only the first two say that this pool cannot be had. */
#define ENDS(X)                                                                                    \
    X(REFUSED, "refused")     /* sbatch did not take it                              */            \
    X(NO_WORKER, "no_worker") /* it ended by itself and no worker had joined         */            \
    X(ENDED, "ended")         /* its workers left: no work, or its time was over     */            \
    X(CANCELLED, "cancelled") /* by somebody, or by us because nobody waits any more */            \
    X(PREEMPTED, "preempted")                                                                      \
    X(TIMEOUT, "timeout")                                                                          \
    X(NODE_FAIL, "node_fail")                                                                      \
    X(UNKNOWN, "unknown") /* Slurm has forgotten it                              */
enum end {
    END_NONE = 0,
#define X(tag, name) END_##tag,
    ENDS(X)
#undef X
        END_END,
};
const char *end_name(enum end end);

struct pool {
    const struct pool_config *config;
    struct allocation *allocations; /* mem_free */
    size_t count, capacity;
    uint64_t jobs, wanted; /* at the newest look: jobs that fit, nodes that they need */
    uint64_t wanted_since_ms, unwanted_since_ms; /* steady; 0: not */
    uint64_t failures;                           /* in a row */
    uint64_t backoff_until_ms;                   /* steady; 0: none */
    uint64_t submitted, started; /* allocations ever; of them such that a worker joined */
    uint64_t ends[END_END];
    char trouble[1000]; /* newest, for people */
};

struct pool_decision {
    uint64_t submit;        /* so many allocations more */
    const uint64_t *cancel; /* waiting ones that nobody needs, in arena */
    size_t cancel_count;
};

/* Whether a job as in `demand` could run on the nodes of one allocation. */
bool pool_fits(const struct pool_config *config, const struct demand *demand);
/* Nodes that they would fill, by the resource that is short. *out_jobs: how many fit. */
uint64_t pool_nodes_wanted(const struct pool_config *config, const struct demand *demands,
                           size_t count, uint64_t *out_jobs);

void pool_done(struct pool *pool);
struct allocation *pool_find(struct pool *pool, uint64_t id);
struct allocation *pool_add(struct pool *pool, uint64_t id, uint32_t slot);
bool pool_slot_is_used(const struct pool *pool, uint32_t slot);
uint32_t pool_free_slot(const struct pool *pool); /* 0: none */
/* What to do now; pool->jobs and pool->wanted are set. */
void pool_decide(struct pool *pool, uint64_t now_ms, struct arena *arena,
                 struct pool_decision *out);
/* A worker has joined: the pool can be had. */
void pool_joined(struct pool *pool, struct allocation *allocation);
/* Counts an end, with a back-off where it is due, and forgets the allocation (NULL: there never was
 * one). */
void pool_ended(struct pool *pool, struct allocation *allocation, enum end end, uint64_t now_ms,
                const char *text);

#endif
