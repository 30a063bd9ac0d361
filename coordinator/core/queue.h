/* queue.h - jobs in order of (priority descending, job_id ascending), embedded in the jobs.
 *
 * A treap: a search tree on that order whose shape is random but repeatable, because each
 * node's weight is a hash of its id. Adding, removing and finding the next cost O(log n),
 * expected depth below 3 log2 n; no memory beyond the nodes. */
#ifndef ATHANOR_CORE_QUEUE_H
#define ATHANOR_CORE_QUEUE_H

#include "common/base/base.h"

struct queue_node {
    struct queue_node *left, *right;
    int64_t priority;
    uint64_t job_id;
    bool queued;
};

struct queue {
    struct queue_node *root;
    uint64_t count;
};

void queue_add(struct queue *queue, struct queue_node *node); /* not queued (CHECK) */
void queue_remove(struct queue *queue, struct queue_node *node);
struct queue_node *queue_first(const struct queue *queue); /* NULL when empty */
/* The first one behind (priority, job_id), which need not be queued any more. */
struct queue_node *queue_after(const struct queue *queue, int64_t priority, uint64_t job_id);

#endif
