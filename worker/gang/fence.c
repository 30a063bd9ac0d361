/* fence.c - see fence.h. */
#include "worker/gang/fence.h"

#include "common/base/buf.h"
#include "common/base/mem.h"

#include <string.h>

struct fence {
    struct fence *next;
    char *key;
    uint64_t round;
    unsigned char *nodes;
    unsigned char *arrived; /* children, by their place among ours */
    bool entered, complete, gathered; /* we contributed; the whole is here; our part is whole */
    void *cookie;
    bool waits; /* for `done` */
    struct buf bytes; /* of this node and below; once complete: the whole */
};

struct round {
    struct round *next;
    char *key;
    uint64_t newest; /* that the local ranks entered */
};

struct fences {
    unsigned node, node_count, first_child, child_count;
    struct fence_actions actions;
    struct fence *list;
    struct round *rounds;
    size_t round_count;
};

struct fences *fences_new(unsigned node, unsigned node_count, const struct fence_actions *actions)
{
    struct fences *fences = mem_zalloc(sizeof *fences);
    fences->node = node;
    fences->node_count = node_count;
    fences->child_count = tree_children(node, node_count, &fences->first_child);
    fences->actions = *actions;
    return fences;
}

static void fence_free(struct fence *fence)
{
    mem_free(fence->key);
    mem_free(fence->nodes);
    mem_free(fence->arrived);
    buf_done(&fence->bytes);
    mem_free(fence);
}

static void fence_settle(struct fences *fences, struct fence *fence, bool ok)
{
    if (!fence->waits)
        return;
    fence->waits = false;
    fences->actions.done(fences->actions.user, fence->cookie, ok, fence->bytes.bytes,
                         ok ? fence->bytes.length : 0);
}

void fences_free(struct fences *fences)
{
    if (!fences)
        return;
    for (struct fence *fence = fences->list, *next; fence; fence = next) {
        next = fence->next;
        fence_settle(fences, fence, false);
        fence_free(fence);
    }
    for (struct round *round = fences->rounds, *next; round; round = next) {
        next = round->next;
        mem_free(round->key);
        mem_free(round);
    }
    mem_free(fences);
}

/* ---- finding and forgetting ------------------------------------------------------------------ */

static void rounds_forget(struct fences *fences, const char *key, uint64_t newest)
{
    for (struct fence **at = &fences->list; *at;) {
        struct fence *fence = *at;
        if (fence->round + 2 > newest || strcmp(fence->key, key) != 0) {
            at = &fence->next;
            continue;
        }
        *at = fence->next;
        fence_settle(fences, fence, false); /* cannot be: ranks enter one round after the other */
        fence_free(fence);
    }
}

static struct fence *fence_get(struct fences *fences, const struct fence_name *name)
{
    for (struct fence *fence = fences->list; fence; fence = fence->next)
        if (fence->round == name->round && strcmp(fence->key, name->key) == 0)
            return fence;
    rounds_forget(fences, name->key, name->round);
    struct fence *fence = mem_zalloc(sizeof *fence);
    size_t set = GANG_SET_BYTES(fences->node_count);
    fence->key = mem_strdup(name->key);
    fence->round = name->round;
    fence->nodes = mem_alloc(set);
    memcpy(fence->nodes, name->nodes, set);
    fence->arrived = mem_zalloc(GANG_SET_BYTES(GANG_FAN_OUT));
    fence->next = fences->list;
    fences->list = fence;
    return fence;
}

static struct fence_name name_of(const struct fence *fence)
{
    return (struct fence_name){fence->key, fence->round, fence->nodes};
}

static struct round *round_get(struct fences *fences, const char *key)
{
    struct round *round = fences->rounds;
    while (round && strcmp(round->key, key) != 0)
        round = round->next;
    if (round || fences->round_count == FENCE_KEYS_MAX)
        return round;
    round = mem_zalloc(sizeof *round);
    round->key = mem_strdup(key);
    round->next = fences->rounds;
    fences->rounds = round;
    fences->round_count++;
    return round;
}

/* ---- up and down ----------------------------------------------------------------------------- */

static bool child_takes_part(const struct fences *fences, const struct fence *fence, unsigned i)
{
    return node_set_reaches(fence->nodes, fences->node_count, fences->first_child + i);
}

static bool is_gathered(const struct fences *fences, const struct fence *fence)
{
    if (node_set_has(fence->nodes, fences->node) && !fence->entered)
        return false;
    for (unsigned i = 0; i < fences->child_count; i++)
        if (child_takes_part(fences, fence, i) && !node_set_has(fence->arrived, i))
            return false;
    return true;
}

static void send_down(struct fences *fences, struct fence *fence, unsigned i)
{
    struct fence_name name = name_of(fence);
    fences->actions.down(fences->actions.user, fences->first_child + i, &name, fence->bytes.bytes,
                         fence->bytes.length);
}

static void complete(struct fences *fences, struct fence *fence)
{
    fence->complete = true;
    for (unsigned i = 0; i < fences->child_count; i++)
        if (child_takes_part(fences, fence, i))
            send_down(fences, fence, i);
    fence_settle(fences, fence, true);
}

static void send_up(struct fences *fences, struct fence *fence)
{
    struct fence_name name = name_of(fence);
    fences->actions.up(fences->actions.user, &name, fence->bytes.bytes, fence->bytes.length);
}

static void advance(struct fences *fences, struct fence *fence)
{
    if (fence->gathered || !is_gathered(fences, fence))
        return;
    fence->gathered = true;
    if (fences->node == 0)
        complete(fences, fence);
    else
        send_up(fences, fence);
}

/* ---- what happens ---------------------------------------------------------------------------- */

void fences_enter(struct fences *fences, const char *key, const unsigned char *nodes,
                  const char *bytes, size_t length, void *cookie)
{
    struct round *round = round_get(fences, key);
    if (!round || strlen(key) > FENCE_KEY_BYTES_MAX || length > FENCE_BYTES_MAX) {
        fences->actions.done(fences->actions.user, cookie, false, NULL, 0);
        return;
    }
    struct fence_name name = {key, ++round->newest, nodes};
    struct fence *fence = fence_get(fences, &name);
    fence->entered = fence->waits = true;
    fence->cookie = cookie;
    buf_add(&fence->bytes, bytes, length);
    advance(fences, fence);
}

static int name_check(const struct fences *fences, const struct fence_name *name, size_t length,
                      struct err *err)
{
    if (!name->key[0] || strlen(name->key) > FENCE_KEY_BYTES_MAX || name->round == 0)
        return err_set(err, ERR_PROTOCOL, "a fence without a name");
    if (length > FENCE_BYTES_MAX)
        return err_set(err, ERR_LIMIT, "a fence of %zu bytes, at most %zu", length,
                       FENCE_BYTES_MAX);
    if (!node_set_reaches(name->nodes, fences->node_count, 0))
        return err_set(err, ERR_PROTOCOL, "a fence in which nobody takes part");
    return 0;
}

int fences_from_child(struct fences *fences, unsigned child, const struct fence_name *name,
                      const char *bytes, size_t length, struct err *err)
{
    unsigned i = child - fences->first_child;
    if (child < fences->first_child || i >= fences->child_count)
        return err_set(err, ERR_PROTOCOL, "node %u is no child of node %u", child, fences->node);
    if (name_check(fences, name, length, err) < 0)
        return -1;
    struct fence *fence = fence_get(fences, name);
    if (fence->bytes.length + length > FENCE_BYTES_MAX)
        return err_set(err, ERR_LIMIT, "a fence of over %zu bytes", FENCE_BYTES_MAX);
    if (fence->complete) { /* the answer was lost */
        send_down(fences, fence, i);
        return 0;
    }
    if (node_set_has(fence->arrived, i))
        return 0;
    node_set_add(fence->arrived, i);
    buf_add(&fence->bytes, bytes, length);
    advance(fences, fence);
    return 0;
}

int fences_from_parent(struct fences *fences, const struct fence_name *name, const char *bytes,
                       size_t length, struct err *err)
{
    if (name_check(fences, name, length, err) < 0)
        return -1;
    struct fence *fence = fence_get(fences, name);
    if (fence->complete)
        return 0;
    if (!fence->gathered)
        return err_set(err, ERR_PROTOCOL, "a fence is over before node %u entered it",
                       fences->node);
    buf_clear(&fence->bytes);
    buf_add(&fence->bytes, bytes, length);
    complete(fences, fence);
    return 0;
}

void fences_again(struct fences *fences)
{
    for (struct fence *fence = fences->list; fence; fence = fence->next)
        if (fence->gathered && !fence->complete)
            send_up(fences, fence);
}
