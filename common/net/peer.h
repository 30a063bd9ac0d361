/* peer.h - the side that connects: CLI and worker daemon to a coordinator.
 *
 * One endpoint at a time, in the order given, over and over: a connection that cannot be made,
 * is not welcomed within PEER_WELCOME_MS or breaks is closed for good, and a new socket with a
 * new session tries the next endpoint after a back-off (PEER_BACKOFF_MIN_MS, doubling to
 * PEER_BACKOFF_MAX_MS, plus up to half of it at random). Nothing is carried over from one
 * session to the next: senders repeat what was not answered. HELLO and WELCOME are exchanged
 * here. Dead connections are noticed by ZMTP pings (NET_PING_MS, NET_PING_TIMEOUT_MS). */
#ifndef ATHANOR_PEER_H
#define ATHANOR_PEER_H

#include "common/net/keys.h"
#include "common/net/loop.h"
#include "common/wire/wire.h"

#define PEER_WELCOME_MS     5000u
#define PEER_BACKOFF_MIN_MS 50u
#define PEER_BACKOFF_MAX_MS 3000u
#define PEER_QUEUE_DEFAULT  1000 /* messages waiting in the socket */
#define NET_PING_MS         2000
#define NET_PING_TIMEOUT_MS 10000

struct peer;

struct peer_config {
    const char *const *endpoints; /* "tcp://host:port", "ipc:///path"; copied */
    size_t endpoint_count;
    const char *server_key;     /* Z85 public key of the coordinators */
    const struct keypair *keys; /* ours; copied */
    const char *program;        /* for HELLO */
    const char *version;
    int queue_messages; /* 0: PEER_QUEUE_DEFAULT */

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
void peer_close(struct peer *peer); /* waits at most 100 ms for sent messages to leave */

bool peer_is_up(const struct peer *peer);
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
