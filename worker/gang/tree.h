/* tree.h - how the nodes of an attempt hang together.
 *
 * Node 0 is the root; node i hangs below (i - 1) / GANG_FAN_OUT. Up to 65 nodes that is a star,
 * where a fence costs one message each way; beyond, a tree, so that no node serves more than
 * GANG_FAN_OUT others: 4,160 more nodes with one more level. */
#ifndef ATHANOR_GANG_TREE_H
#define ATHANOR_GANG_TREE_H

#include "common/base/err.h"

#define GANG_FAN_OUT   64u
#define GANG_NODES_MAX 4096u /* a set of nodes is 512 bytes on the wire */

/* Of node 0: itself. */
unsigned tree_parent(unsigned node);
/* Children of `node` among `count` nodes are *out_first .. *out_first + returned count - 1. */
unsigned tree_children(unsigned node, unsigned count, unsigned *out_first);
/* Whether `below` is `node` or hangs below it. */
bool tree_is_below(unsigned node, unsigned below);
/* The child of `node` on the way down to `below`, which must hang below it. */
unsigned tree_step_down(unsigned node, unsigned below);

/* ---- sets of nodes: bit i % 8 of byte i / 8 -------------------------------------------------- */

#define GANG_SET_BYTES(count) (((size_t)(count) + 7) / 8)
static inline void node_set_add(unsigned char *set, unsigned node)
{
    set[node / 8] |= (unsigned char)(1u << (node % 8));
}
static inline bool node_set_has(const unsigned char *set, unsigned node)
{
    return set[node / 8] >> (node % 8) & 1;
}
/* Whether a member is `node` or hangs below it. */
bool node_set_reaches(const unsigned char *set, unsigned count, unsigned node);

#endif
