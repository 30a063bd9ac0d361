/* peer.h - the side that connects: CLI and worker daemon to the coordinator that leads.
 *
 * One endpoint at a time, in the order given, over and over: a connection that cannot be made,
 * is not welcomed in time or breaks is closed for good, and a new socket with a new session tries
 * the next endpoint after a back-off (PEER_BACKOFF_MIN_MS, doubling with each round to
 * PEER_BACKOFF_MAX_MS, plus up to half of it at random; at most PEER_HASTE_MAX_MS in the first
 * PEER_HASTE_MS of an outage, in which a standby takes over). Nothing is carried over from one
 * session to the next: senders repeat what was not answered. HELLO and WELCOME are exchanged here.
 *
 * A standby refuses and may say where the leader is. That place is tried next, also when it is not
 * in the list: whoever answers there has proved to hold the cluster's server key. A WELCOME of an
 * epoch older than one that was seen comes from a leader that was replaced, and is refused.
 *
 * With several endpoints, or after such a hint, a leader that neither answers nor closes (stopped,
 * or cut off) is left sooner: no welcome within PEER_WELCOME_MIN_MS (doubling with each round to
 * PEER_WELCOME_MS), no answer to a ping for PEER_PING_TIMEOUT_MS, asked every PEER_PING_MS. With
 * one endpoint there is nowhere to go, and PEER_WELCOME_MS and NET_PING_* (session.h) hold. */
#ifndef ATHANOR_PEER_H
#define ATHANOR_PEER_H

#include "common/net/keys.h"
#include "common/net/loop.h"
#include "common/wire/wire.h"

#define PEER_WELCOME_MIN_MS  1000u
#define PEER_WELCOME_MS      5000u
#define PEER_BACKOFF_MIN_MS  50u
#define PEER_BACKOFF_MAX_MS  3000u
#define PEER_HASTE_MS        10000u
#define PEER_HASTE_MAX_MS    300u
#define PEER_PING_MS         1000
#define PEER_PING_TIMEOUT_MS 2000
#define PEER_HINTS_MAX       4u /* endpoints of one leader */
#define PEER_HINT_STREAK     3u /* hints followed in a row before the list gets a turn */
#define PEER_ENDPOINT_SIZE   256u
#define PEER_QUEUE_DEFAULT   1000 /* messages waiting in the socket */

struct peer;

struct peer_config {
    const char *const *endpoints; /* "tcp://host:port", "ipc:///path"; copied */
    size_t endpoint_count;
    const char *server_key;     /* Z85 public key of the coordinators */
    const struct keypair *keys; /* ours; copied */
    const char *program;        /* for HELLO */
    const char *version;
    int queue_messages; /* 0: PEER_QUEUE_DEFAULT */
    uint64_t seed;      /* of the random part of the back-off; 0: drawn */

    void *user; /* handed to every callback; each callback may be NULL */
    /* The session is usable from now on. */
    void (*on_up)(void *user, const struct msg_welcome *welcome);
    /* The session ended or the attempt failed: why, for people. Another attempt follows. */
    void (*on_down)(void *user, const struct err *why);
    /* A message, valid during the call. Replays are dropped before; epochs are for the callee.
     * HELLO, WELCOME and the answer a peer_request waits for are not delivered here. */
    void (*on_message)(void *user, const struct envelope *envelope, const struct message *message);
};

/* Starts connecting. Errors: ERR_INVALID (endpoint or key), ERR_IO. */
int peer_open(struct loop *loop, const struct peer_config *config, struct peer **out,
              struct err *err) WARN_UNUSED;
/* Waits at most 100 ms for sent messages to leave. Also from the peer's own callbacks, of which
 * none follows. */
void peer_close(struct peer *peer);

bool peer_is_up(const struct peer *peer);
/* Where the present or newest connection goes to. */
const char *peer_endpoint(const struct peer *peer);
/* Stamped on all later messages; 0 at first. */
void peer_set_epoch(struct peer *peer, uint64_t epoch);

/* Queues a message; *out_seq (may be NULL) gets its envelope sequence. Never blocks. Errors:
 * ERR_CLOSED while not up; ERR_LIMIT when queue_messages wait already (keep the message, try
 * again after the next on_message or timer) or the frame is too large; ERR_INVALID. */
int peer_send(struct peer *peer, const struct message *message, uint64_t *out_seq,
              struct err *err) WARN_UNUSED;

/* For the CLI: sends and runs the loop until the answer with this request_seq, or timeout_ms.
 * Waits for the connection first. A REFUSED answer is returned like any other. `repeat`: send
 * again when the connection broke before the answer (only for requests that may arrive twice).
 * *out_reply lives in `arena`. Errors: those of peer_send; ERR_TIMEOUT with the reason of the
 * last failed connection; ERR_CLOSED when it broke and repeat is false. */
int peer_request(struct peer *peer, const struct message *request, bool repeat, uint64_t timeout_ms,
                 struct arena *arena, struct message *out_reply, struct err *err) WARN_UNUSED;

#endif
