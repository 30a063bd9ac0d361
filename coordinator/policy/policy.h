/* policy.h - who runs next, as a pure function of a read-only view.
 *
 * A policy sees resource classes (jobs that ask for the same thing, of the same account, project
 * and queue, are one class) and workers with what is free on them, and returns a plan: which job
 * goes to which workers, which running job must make room, and when the blocked ones may count
 * on starting. The core verifies every line before applying it, so a policy cannot overbook; it
 * can only be refused. Policies keep no state between passes except what the view carries, draw
 * no random numbers and read no clock. Adding one: a file here, a line in policies.def.
 *
 * Times are steady milliseconds; POLICY_NEVER is later than all of them. */
#ifndef ATHANOR_POLICY_H
#define ATHANOR_POLICY_H

#include "common/base/arena.h"

#define POLICY_NEVER      UINT64_MAX
#define POLICY_LIMITS_MAX 8u /* per class: account, project, queue, array and their crossings */
#define POLICY_HOLDERS_MAX 64u /* workers looked at that have something of what a job reads */
#define POLICY_LEVELS     2u /* of the network: [0] switch, [1] rack */

struct policy_need {
    uint64_t cores, memory_bytes, gpus;
};

struct policy_worker {
    uint64_t worker_id;
    bool usable; /* joined, OK, not drained */
    bool has_gpus;
    bool idle;  /* nothing runs there: an exclusive job may */
    bool taken; /* an exclusive job runs there: nobody else may */
    struct policy_need free, total;
    uint32_t group[POLICY_LEVELS]; /* which switch, which rack: dense indices, equal = same one */
};

/* A job waiting in a class. Within a class jobs stand in order of key (greater first), then id.
 * Across classes key + class->bonus decides, then id. */
struct policy_job {
    uint64_t job_id;
    int64_t key; /* the user's priority and, where the policy orders fairly, age */
};

/* A job is `ranks` equal ranks on nodes_min..nodes_max workers, all at once. */
struct policy_class {
    struct policy_need rank; /* of one rank */
    uint32_t ranks;
    uint32_t nodes_min, nodes_max;
    uint32_t ranks_per_node; /* at most; 0: as many as fit */
    bool exclusive;          /* nobody else on its workers */
    bool spread;             /* as many workers as allowed, least loaded first; else pack */
    bool constrained;        /* ask allows() */
    bool blocked;            /* nothing had room at the last pass: only `changed` may help now */
    bool reads;              /* jobs of it read what lies on some workers: ask holders() */
    bool evicts;             /* its queue may preempt those of a lower preemption class */
    uint32_t preemption;     /* class of preemption: evicts running ones of a lower number */
    uint64_t wall_time_ms;   /* limit or the default of its queue; POLICY_NEVER: none */
    uint64_t charged_ms;     /* the limit, which is enforced, without the default */
    int64_t bonus;           /* fair share, size, queue: added to each job's key */
    uint64_t ready_count;
    uint32_t limits[POLICY_LIMITS_MAX]; /* indices into view->limits that its jobs count against */
    size_t limit_count;
};

/* What may still be started under one quota; UINT64_MAX where it says nothing. A job needs what it
 * asks for, an exclusive one all that its workers have. */
struct policy_limit {
    uint64_t jobs, cores, gpus;
    uint64_t gpu_ms; /* left of the period: a job is charged with its GPUs x charged_ms */
};

struct policy_share {
    size_t worker_index;
    uint32_t ranks;
};

struct policy_running {
    uint64_t job_id;
    size_t class_index; /* of its need; the class may have no ready jobs */
    const struct policy_share *shares;
    size_t share_count;
    uint64_t ends_ms; /* by its limit, or when its stop is over; POLICY_NEVER: no limit */
    uint64_t stop_ms; /* how long an eviction takes at most: checkpoint and grace */
    uint64_t lost_ms; /* core-ms since its last checkpoint: what an eviction would throw away */
    bool evictable;   /* has a queue that may be preempted, and is not stopping already */
    bool stopping;    /* its room is coming */
};

/* What a class meets on a worker. */
struct policy_fit {
    uint64_t gpus_unfit; /* GPUs of the worker that it may not use (another model) */
};

/* A worker that has some of what a job reads, which others would have to fetch. */
struct policy_holder {
    size_t worker_index;
    uint64_t bytes; /* of it; at least 1 */
};

/* All arrays are borrowed; classes and workers are named by their index. */
struct policy_view {
    const void *core;
    uint64_t now_ms;
    const struct policy_class *classes;
    size_t class_count;
    const struct policy_worker *workers; /* in order of worker_id */
    size_t worker_count;
    const size_t *changed; /* since the last pass: gained room, became usable or allowed */
    size_t changed_count;
    const uint64_t *times; /* ascending: when allows() may turn from no to yes (windows' ends) */
    size_t time_count;
    bool estimate; /* somebody asks when jobs will start: reserve also where nothing rests on it */
    const struct policy_limit *limits;
    size_t limit_count;
    /* First ready job of the class, or the one behind `after` (NULL: from the start).
     * False at the end. Cost: logarithmic in the class's queue. */
    bool (*next_job)(const void *core, size_t class_index, const struct policy_job *after,
                     struct policy_job *out);
    /* Whether a job of the class that starts at start_ms may use the worker: labels, GPU model,
     * reservations and maintenance windows that its wall time would reach into. */
    bool (*allows)(const void *core, size_t class_index, size_t worker_index, uint64_t start_ms,
                   struct policy_fit *out);
    /* What runs now, in order of job_id; lives in the arena. Made on demand: O(running). */
    size_t (*running)(const void *core, struct arena *arena, const struct policy_running **out);
    /* Who has something of what the job reads, most of it first, then by index; at most
     * POLICY_HOLDERS_MAX. A preference among workers that are otherwise equal, never a reason to
     * wait. NULL: nobody asks. Called for jobs of classes that read, once for each placement. */
    size_t (*holders)(const void *core, uint64_t job_id,
                      struct policy_holder out[POLICY_HOLDERS_MAX]);
};

struct policy_placement {
    uint64_t job_id;
    size_t class_index;
    const struct policy_share *shares; /* in order of ranks: rank 0 is on the first */
    size_t share_count;
};

/* `job_id` may count on starting at start_ms at the latest (by the limits of what runs), as long
 * as the workers stay and nobody comes before it. POLICY_NEVER: room is kept for it, but no date
 * is known because something without a limit runs there. A forecast (not firm; only with
 * view->estimate) is where it would start by the present queue; nothing protects it. */
struct policy_reservation {
    uint64_t job_id;
    size_t class_index;
    uint64_t start_ms;
    bool firm;
    const struct policy_share *shares;
    size_t share_count;
};

struct policy_eviction {
    uint64_t job_id;     /* running: to be checkpointed, stopped and requeued */
    uint64_t for_job_id; /* ready: gets the room */
};

/* Why the first job of a class that was not placed did not start. */
enum policy_block {
    POLICY_BLOCK_NONE = 0, /* no job was left over */
    POLICY_BLOCK_ROOM,     /* no workers have room */
    POLICY_BLOCK_LIMIT,    /* limit `by` is used up */
    POLICY_BLOCK_ORDER,    /* would fit, but job `by` comes first and would have to wait longer */
};

struct policy_verdict {
    enum policy_block block;
    uint64_t by;    /* index of a limit, or a job_id */
    bool exhausted; /* no worker has room: until one of them gains some, asking again is vain */
};

struct policy_plan {
    struct arena *arena;                 /* of everything here */
    struct policy_placement *placements; /* in the order in which they are to be applied */
    size_t placement_count, placement_capacity;
    struct policy_reservation *reservations; /* in order of priority */
    size_t reservation_count, reservation_capacity;
    struct policy_eviction *evictions;
    size_t eviction_count, eviction_capacity;
    struct policy_verdict *verdicts; /* per class, zeroed by the core */
};

enum policy_order {
    POLICY_ORDER_FIFO, /* key: the user's priority; no bonus */
    POLICY_ORDER_FAIR, /* key: priority and age; bonus: fair share, size, queue */
};

struct policy {
    const char *name, *summary;
    enum policy_order order;
    void (*plan)(const struct policy_view *view, struct policy_plan *plan);
};

/* NULL when there is no such policy. */
const struct policy *policy_find(const char *name);
/* In order of policies.def; NULL behind the last. */
const struct policy *policy_at(size_t index);

/* What a run is charged with: UINT64_MAX when it has GPUs and no limit. */
uint64_t policy_gpu_ms(uint64_t gpus, uint64_t charged_ms);
bool policy_fits(const struct policy_need *need, const struct policy_need *free);

#endif
