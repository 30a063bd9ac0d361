/* policy.h - who runs next, as a pure function of a read-only view.
 *
 * A policy sees resource classes (jobs that ask for the same thing are one class, in order of
 * priority and submit) and workers with what is free on them, and returns a plan: which job goes
 * to which worker. The core verifies every placement before applying it, so a policy cannot
 * overbook; it can only be refused. Policies keep no state between passes except what the view
 * carries, draw no random numbers and read no clock. Adding one: a file here, a line in
 * policies.def. */
#ifndef ATHANOR_POLICY_H
#define ATHANOR_POLICY_H

#include "common/base/arena.h"

/* What one job needs on one worker. */
struct policy_need {
    uint64_t cores, memory_bytes, gpus;
};

struct policy_worker {
    uint64_t worker_id;
    bool usable; /* joined, OK, not drained */
    bool has_gpus;
    struct policy_need free;
};

/* A job waiting in a class: position in the queue of its class. */
struct policy_job {
    uint64_t job_id;
    int64_t priority;
};

struct policy_class {
    struct policy_need need;
    bool constrained; /* ask allows() */
    bool blocked;     /* no worker had room at the last pass: only `changed` ones may have now */
    uint64_t ready_count;
};

/* All arrays are borrowed; classes and workers are named by their index. */
struct policy_view {
    const void *core;
    const struct policy_class *classes;
    size_t class_count;
    const struct policy_worker *workers; /* in order of worker_id */
    size_t worker_count;
    const size_t *changed; /* workers that gained room or became usable since the last pass */
    size_t changed_count;
    /* First ready job of the class, or the one behind `after` (NULL: from the start).
     * False at the end. Cost: logarithmic in the class's queue. */
    bool (*next_job)(const void *core, size_t class_index, const struct policy_job *after,
                     struct policy_job *out);
    /* Whether the worker satisfies the class's constraints (labels). */
    bool (*allows)(const void *core, size_t class_index, size_t worker_index);
};

struct policy_placement {
    uint64_t job_id;
    size_t class_index, worker_index;
};

struct policy_plan {
    struct arena *arena; /* of everything here */
    struct policy_placement *placements; /* in the order in which they are to be applied */
    size_t placement_count, placement_capacity;
    bool *exhausted; /* per class: tried to the end, no worker has room for its next job */
};

struct policy {
    const char *name, *summary;
    void (*plan)(const struct policy_view *view, struct policy_plan *plan);
};

/* NULL when there is no such policy. */
const struct policy *policy_find(const char *name);
/* In order of policies.def; NULL behind the last. */
const struct policy *policy_at(size_t index);

/* For policies. */
bool policy_fits(const struct policy_need *need, const struct policy_need *free);
void policy_take(const struct policy_need *need, struct policy_need *free);
void policy_plan_add(struct policy_plan *plan, uint64_t job_id, size_t class_index,
                     size_t worker_index);

#endif
