/* fence.h - the all-gather behind an MPI fence, as bookkeeping without sockets.
 *
 * Each participating node contributes bytes once per round. Contributions go up the tree, joined
 * on the way; node 0 has them all and sends the whole down again. Messages may be lost or
 * doubled: what is unanswered is sent again (fences_again), what was had before changes nothing.
 * Of each key the two newest rounds are kept: a node that begins round n + 1 has the result of
 * round n, so nobody can ask for older ones. */
#ifndef ATHANOR_GANG_FENCE_H
#define ATHANOR_GANG_FENCE_H

#include "worker/gang/tree.h"

#define FENCE_KEY_BYTES_MAX 80u
#define FENCE_BYTES_MAX     ((size_t)4 << 20) /* of all contributions: a string on the wire */
#define FENCE_KEYS_MAX      1024u             /* sets of ranks that ever fenced in one attempt */

/* What identifies a fence everywhere: who takes part, and how many there were before. */
struct fence_name {
    const char *key; /* text made from the participating ranks */
    uint64_t round;  /* from 1 */
    const unsigned char *nodes; /* that take part */
};

struct fence_actions {
    void *user;
    void (*up)(void *user, const struct fence_name *name, const char *bytes, size_t length);
    void (*down)(void *user, unsigned child, const struct fence_name *name, const char *bytes,
                 size_t length);
    /* The local ranks may go on; called once for each fences_enter. */
    void (*done)(void *user, void *cookie, bool ok, const char *bytes, size_t length);
};

struct fences;

struct fences *fences_new(unsigned node, unsigned node_count, const struct fence_actions *actions);
void fences_free(struct fences *fences); /* those that wait are done with ok = false */

/* The local ranks have contributed; `nodes` must have this node. The round is counted here. */
void fences_enter(struct fences *fences, const char *key, const unsigned char *nodes,
                  const char *bytes, size_t length, void *cookie);
/* From a child, for all participants below it. Errors: ERR_PROTOCOL, ERR_LIMIT. */
int fences_from_child(struct fences *fences, unsigned child, const struct fence_name *name,
                      const char *bytes, size_t length, struct err *err) WARN_UNUSED;
/* From the parent: the whole. */
int fences_from_parent(struct fences *fences, const struct fence_name *name, const char *bytes,
                       size_t length, struct err *err) WARN_UNUSED;
/* Sends again what was sent up and is not answered. */
void fences_again(struct fences *fences);

#endif
