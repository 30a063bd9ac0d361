/* queue.c - the treap; see queue.h. */
#include "coordinator/core/queue.h"

#include "common/base/rng.h"

static bool is_before(int64_t priority_a, uint64_t id_a, int64_t priority_b, uint64_t id_b)
{
    return priority_a != priority_b ? priority_a > priority_b : id_a < id_b;
}

static uint64_t weight(const struct queue_node *node)
{
    return rng_mix(node->job_id);
}

/* Parts the tree into what comes before the node and what comes behind it. */
static void split(struct queue_node *root, const struct queue_node *at, struct queue_node **before,
                  struct queue_node **behind)
{
    while (root) {
        if (is_before(root->priority, root->job_id, at->priority, at->job_id)) {
            *before = root;
            before = &root->right;
            root = root->right;
        } else {
            *behind = root;
            behind = &root->left;
            root = root->left;
        }
    }
    *before = NULL;
    *behind = NULL;
}

void queue_add(struct queue *queue, struct queue_node *node)
{
    CHECK(!node->queued);
    struct queue_node **link = &queue->root;
    while (*link && weight(*link) >= weight(node)) {
        struct queue_node *here = *link;
        CHECK(here->job_id != node->job_id);
        bool left = is_before(node->priority, node->job_id, here->priority, here->job_id);
        link = left ? &here->left : &here->right;
    }
    split(*link, node, &node->left, &node->right);
    *link = node;
    node->queued = true;
    queue->count++;
}

/* Joins two trees of which everything in the first comes before everything in the second. */
static struct queue_node *join(struct queue_node *first, struct queue_node *second)
{
    struct queue_node *root = NULL;
    struct queue_node **link = &root;
    while (first && second) {
        if (weight(first) >= weight(second)) {
            *link = first;
            link = &first->right;
            first = first->right;
        } else {
            *link = second;
            link = &second->left;
            second = second->left;
        }
    }
    *link = first ? first : second;
    return root;
}

void queue_remove(struct queue *queue, struct queue_node *node)
{
    CHECK(node->queued);
    struct queue_node **link = &queue->root;
    while (*link != node) {
        struct queue_node *here = *link;
        CHECK(here != NULL);
        bool left = is_before(node->priority, node->job_id, here->priority, here->job_id);
        link = left ? &here->left : &here->right;
    }
    *link = join(node->left, node->right);
    node->left = node->right = NULL;
    node->queued = false;
    queue->count--;
}

struct queue_node *queue_first(const struct queue *queue)
{
    struct queue_node *node = queue->root;
    while (node && node->left)
        node = node->left;
    return node;
}

struct queue_node *queue_after(const struct queue *queue, int64_t priority, uint64_t job_id)
{
    struct queue_node *best = NULL;
    struct queue_node *node = queue->root;
    while (node) {
        if (is_before(priority, job_id, node->priority, node->job_id)) {
            best = node;
            node = node->left;
        } else {
            node = node->right;
        }
    }
    return best;
}
