/* clauses.h - the automaton behind constrained.h: which phrases a growing text has come to.
 *
 * A trie of all phrases whose nodes know the longest other node that their text ends with (Aho
 * and Corasick 1975), so that one node tells all phrases that are under way. */
#ifndef ATHANOR_ENGINE_CLAUSES_H
#define ATHANOR_ENGINE_CLAUSES_H

#include "worker/engine/constrained.h"

struct clause_node {
    int32_t token;             /* of the arc to it */
    int32_t child, next;       /* first child, next sibling; 0: none */
    int32_t fail;              /* the longest proper suffix that is a node */
    uint64_t here;             /* clauses of phrases that end here, also by suffixes */
    uint64_t below;            /* clauses of phrases that end here or below, suffixes apart */
    bool never;                /* a phrase that no text may contain ends here */
};

struct clauses {
    struct clause_node *node; /* 0: the root */
    int32_t count;
    uint64_t all;
    int64_t clause_count;
};

struct clause_state {
    int32_t node;
    uint64_t met;
};

/* The state after one more token. *out_never: a phrase that must not be is complete. */
struct clause_state clauses_advance(const struct clauses *clauses, struct clause_state state,
                                    int32_t token, bool *out_never);

#endif
