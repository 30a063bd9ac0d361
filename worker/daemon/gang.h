/* gang.h - the daemon's part in attempts on several nodes.
 *
 * Shepherds talk to each other directly (worker/gang), but must first find each other: the daemon
 * of a child node asks that of its parent (GANG_MEET) where the parent's shepherd listens, over a
 * socket that every daemon opens for this. The asking daemon is known by its key, which came with
 * START; the answer holds a key pair made for this attempt, which is what the shepherds know each
 * other by. The socket on which a shepherd listens is made here, so that it can be named before
 * the shepherd runs. */
#ifndef ATHANOR_DAEMON_GANG_H
#define ATHANOR_DAEMON_GANG_H

#include "common/net/keys.h"
#include "common/wire/wire.h"
#include "worker/gang/gang.h"

#include <jansson.h>

#define GANG_MEET_AGAIN_MS 100u   /* the parent's daemon does not know of the attempt yet */
#define GANG_MEET_MS       60000u /* then the attempt ends as launch_failed */

struct daemon;
struct plan;

struct attempt_gang {
    struct arena arena; /* of the texts */
    unsigned node, node_count;
    const char **public_keys; /* of the nodes' daemons */
    const char *endpoint;     /* of our shepherd; "": has no children */
    struct keypair keys;      /* of that endpoint */
    unsigned master_port;
};

/* Opens the socket for other daemons (options->links). Errors: ERR_INVALID, ERR_IO. */
int gang_open(struct daemon *daemon, const struct keypair *keys, struct err *err) WARN_UNUSED;
void gang_close(struct daemon *daemon);
/* For WORKER_JOIN; "" when this worker takes no part in such attempts. */
const char *gang_endpoint(const struct daemon *daemon);
const char *gang_public_key(const struct daemon *daemon);

/* Ranks of this node. Errors: ERR_PROTOCOL for nodes that contradict each other. */
int gang_ranks(const struct msg_start *start, uint64_t *out, struct err *err) WARN_UNUSED;
bool gang_has_parent(const struct msg_start *start);

/* Asks the parent's daemon, then calls start_met; STOP and FENCE before that end it. */
void gang_meet(struct daemon *daemon, const struct msg_start *start, uint64_t epoch);
bool gang_is_meeting(const struct daemon *daemon, uint64_t attempt_id);
/* START of an attempt that is meeting came again: it may name another place to meet at. */
void gang_meet_again(struct daemon *daemon, const struct msg_start *start);
void gang_meet_stop(struct daemon *daemon, uint64_t attempt_id, enum cause cause);
void gang_meet_fence(struct daemon *daemon, uint64_t attempt_id);

/* Our end: keys, endpoint, port. *out_listen_fd: for the shepherd; -1 without children. `met` is
 * the parent's answer, NULL on node 0. */
int gang_prepare(struct daemon *daemon, const struct msg_start *start,
                 const struct msg_gang_met *met, struct attempt_gang **out, int *out_listen_fd,
                 struct err *err) WARN_UNUSED;
/* "gang" of start.json. */
json_t *gang_plan_json(const struct daemon *daemon, const struct msg_start *start,
                       const struct msg_gang_met *met, const struct attempt_gang *gang);
/* As found again after a restart. NULL for an attempt on one node. */
struct attempt_gang *gang_from_plan(const struct plan *plan);
void gang_free(struct attempt_gang *gang);

/* In start.c. */
void start_met(struct daemon *daemon, const struct msg_start *start, uint64_t epoch,
               const struct msg_gang_met *met);
void start_failed(struct daemon *daemon, const struct msg_start *start, uint64_t epoch,
                  enum cause cause, const char *text);

#endif
