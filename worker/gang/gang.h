/* gang.h - one attempt on several nodes: what its shepherds say to each other.
 *
 * Shepherds form a tree (tree.h) of encrypted, authenticated links that need neither daemons nor
 * the coordinator once they are up. Over them go the fences of the embedded PMIx servers, what
 * ranks ask about ranks elsewhere, and signs of life. A module, athanor-gang.so, because attempts
 * on one node need no ZeroMQ. It has a thread of its own; every function here may be called from
 * any thread, and callbacks come on the module's thread. */
#ifndef ATHANOR_GANG_GANG_H
#define ATHANOR_GANG_GANG_H

#include "worker/gang/tree.h"

#define GANG_BEATS      6u    /* signs of life within the silence that is a loss */
#define GANG_AGAIN_MS   1000u /* what is unanswered is sent again */

/* `bytes` is valid during the call. ok false: the gang ended, or nobody knows. */
typedef void gang_done(void *cookie, bool ok, const char *bytes, size_t length);

struct gang_node {
    const char *name, *address; /* the worker's; where its programs can be reached */
    const char *public_key;     /* of its daemon, for daemons */
    unsigned first_rank, ranks;
};

struct gang_link {
    const char *endpoint, *public_key, *secret_key;
};

struct gang_plan {
    unsigned node, node_count;
    const struct gang_node *nodes;
    struct gang_link own, parent; /* own: where children connect; parent: none for node 0 */
    unsigned master_port;         /* on node 0 */
    uint64_t silence_ms;          /* a neighbour silent this long is lost */
};

#define GANG_END_TEXT_BYTES 400u

/* Why an attempt ends everywhere. */
struct gang_end {
    unsigned node;     /* where it happened */
    char cause[40];    /* name of enum cause */
    uint64_t began_ms; /* on the steady clock of this node, give or take the way here */
    uint64_t grace_ms;
    char text[GANG_END_TEXT_BYTES];
};

struct gang_config {
    const struct gang_plan *plan; /* must stay */
    int listen_fd;                /* listens at own.endpoint; -1: no children */
    int wake_fd; /* an eventfd, written when lost, ended, met or wanted have news */
    /* What does the local rank publish? `done` may be called later, from any thread. */
    void (*ask_local)(unsigned rank, gang_done *done, void *cookie);
};

struct gang_host {
    /* Errors: ERR_INVALID, ERR_IO of the sockets. */
    int (*open)(const struct gang_config *config, struct err *err);
    /* The local ranks enter the fence of these nodes (fence.h). */
    void (*fence)(const char *key, const unsigned char *nodes, const char *bytes, size_t length,
                  gang_done *done, void *cookie);
    /* What does a rank of another node publish? */
    void (*ask)(unsigned rank, gang_done *done, void *cookie);
    /* Whether a neighbour is lost, and which. */
    bool (*lost)(char *out_text, size_t size);
    /* Tells all nodes that something failed here. Of several ends the oldest counts. */
    void (*end)(const struct gang_end *end);
    /* The oldest end that is known, here or elsewhere. */
    bool (*ended)(struct gang_end *out);
    /* Whether every child has been heard of and the parent has been told of us. Until then nobody
     * else knows that we were here. */
    bool (*met)(void);
    /* Under mpirun: runs a command line on another node, once. done: ok and its exit code as text,
     * or why it could not be run. */
    void (*exec)(unsigned node, const char *words, gang_done *done, void *cookie);
    /* What node 0 wants run here, told once; NULL: nothing. mem_free. */
    char *(*wanted)(void);
    /* How that ended; to be called once. */
    void (*executed)(bool ok, const char *text);
    /* Says good-bye and ends the thread. */
    void (*close)(void);
};

#define GANG_HOST_MODULE "athanor-gang.so"
#define GANG_HOST_SYMBOL "gang_host_module"

/* Node of a rank. Ranks are numbered through, node after node. */
unsigned gang_node_of(const struct gang_plan *plan, unsigned rank);

#endif
