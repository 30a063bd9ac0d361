/* tree.c - see tree.h. */
#include "worker/gang/tree.h"

unsigned tree_parent(unsigned node)
{
    return node ? (node - 1) / GANG_FAN_OUT : 0;
}

unsigned tree_children(unsigned node, unsigned count, unsigned *out_first)
{
    uint64_t first = (uint64_t)node * GANG_FAN_OUT + 1;
    *out_first = (unsigned)min_u64(first, count);
    return (unsigned)min_u64(GANG_FAN_OUT, count - *out_first);
}

bool tree_is_below(unsigned node, unsigned below)
{
    while (below > node)
        below = tree_parent(below);
    return below == node;
}

unsigned tree_step_down(unsigned node, unsigned below)
{
    CHECK(below > node && tree_is_below(node, below));
    while (tree_parent(below) != node)
        below = tree_parent(below);
    return below;
}

bool node_set_reaches(const unsigned char *set, unsigned count, unsigned node)
{
    for (unsigned i = node; i < count; i++)
        if (node_set_has(set, i) && tree_is_below(node, i))
            return true;
    return false;
}
