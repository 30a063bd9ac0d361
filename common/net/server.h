/* server.h - the side that binds: one ROUTER socket with CURVE and its ZAP handler.
 *
 * A connection with a key that principal_find does not know is dropped in the handshake without
 * an answer. Afterwards each frame is checked in this order, and only what passes is delivered:
 * the key is still enrolled (revoking acts at once) - the frame decodes - HELLO came first in
 * its session - the session belongs to this connection - seq is newer than the last - the sender
 * column of messages.def admits the role. Enrolled peers are answered REFUSED where that helps
 * them; replays are dropped silently. HELLO is answered with WELCOME here.
 *
 * A server stands by until server_lead: every enrolled peer is answered REFUSED with where the
 * leader is (kind "stale", which ends its session), and nothing is delivered. server_stand_by
 * brings it back there. While it leads, may_send is asked before each frame: a process that slept
 * through its lease says nothing to anybody, and the session that would have got the frame ends.
 *
 * Queue policy: at most queue_messages wait for one peer. When one more would, the peer's
 * session ends (ERR_LIMIT, on_gone): a session never has gaps, the peer connects anew and both
 * sides repeat what was not acknowledged. */
#ifndef ATHANOR_SERVER_H
#define ATHANOR_SERVER_H

#include "common/net/keys.h"
#include "common/net/loop.h"
#include "common/wire/wire.h"

#define SERVER_QUEUE_DEFAULT 2000    /* messages waiting for one peer */
#define SERVER_PEERS_MAX     16384u  /* 10,000 workers and as many as half again of clients */
#define SERVER_SESSIONS_MAX  65536u  /* ended sessions remembered against replays, oldest out */
#define SERVER_IDLE_MS       600000u /* a peer silent this long is forgotten */
#define SERVER_LEADER_SIZE   1024u   /* endpoints of the leader, separated by commas */

struct server;

struct server_principal {
    const char *name; /* valid until the principal table changes */
    enum role role;
};

/* Where a message came from. */
struct server_source {
    uint64_t peer_id; /* of this connection; never reused within the process */
    const char *principal;
    enum role role;
    const char *public_key; /* Z85 */
};

struct server_stats {
    uint64_t received, sent;
    uint64_t refused_keys;   /* handshakes of unknown keys */
    uint64_t refused_frames; /* damaged, of another protocol, or before HELLO */
    uint64_t refused_replays;
    uint64_t refused_senders; /* role and message do not fit */
    uint64_t refused_standing_by;
    uint64_t refused_lease; /* frames that may_send held back */
    uint64_t queue_full;
    uint64_t peers; /* now */
};

struct server_config {
    const char *const *endpoints; /* all are bound; "tcp://127.0.0.1:*" picks a port */
    size_t endpoint_count;
    const struct keypair *keys; /* copied */
    uint64_t cluster_id;        /* for WELCOME */
    uint64_t heartbeat_ms;
    int queue_messages; /* 0: SERVER_QUEUE_DEFAULT */
    int listen_fd;      /* a socket that listens at endpoints[0] already; 0: make one */

    void *user; /* handed to every callback */
    /* Returns whether the Z85 key is enrolled, and for whom. */
    bool (*principal_find)(void *user, const char *public_key, struct server_principal *out);
    /* A message, valid during the call. */
    void (*on_message)(void *user, const struct server_source *from,
                       const struct envelope *envelope, const struct message *message);
    /* May be NULL: always. Whether this process still leads, at this very moment. */
    bool (*may_send)(void *user);
    /* May be NULL. The peer_id will not be seen again: unreachable, silent, revoked or too slow. */
    void (*on_gone)(void *user, uint64_t peer_id, const struct err *why);
};

/* Errors: ERR_INVALID (endpoint, key), ERR_IO (address in use ...). One server per loop. */
int server_open(struct loop *loop, const struct server_config *config, struct server **out,
                struct err *err) WARN_UNUSED;
/* Waits at most 200 ms for queued messages to leave. */
void server_close(struct server *server);

/* Stops or resumes reading messages; peers' messages wait in their sockets meanwhile. A callback
 * under way may still deliver what it has read. */
void server_pause(struct server *server, bool paused);

/* From now on peers are welcomed. The epoch is stamped on all later messages. */
void server_lead(struct server *server, uint64_t epoch);
/* Ends all sessions, each told why and where the leader is ("" when nobody knows), and refuses new
 * ones in the same words. May be called again to change them. Texts are copied. */
void server_stand_by(struct server *server, const char *why, const char *leader);
/* The address really bound for endpoints[index], with the port chosen. */
const char *server_endpoint(const struct server *server, size_t index);
const struct server_stats *server_stats(const struct server *server);

/* Queues a message for a peer. Never blocks. Errors: ERR_CLOSED (unknown peer_id, or gone),
 * ERR_LIMIT (queue full, session ended; or the frame is too large, session kept), ERR_INVALID. */
int server_send(struct server *server, uint64_t peer_id, const struct message *message,
                struct err *err) WARN_UNUSED;

/* Answers a request: REFUSED with the kind and text of `why`, DONE with a text. A peer that went
 * away meanwhile is no error. */
void server_refuse(struct server *server, uint64_t peer_id, uint64_t request_seq,
                   const struct err *why);
void server_done(struct server *server, uint64_t peer_id, uint64_t request_seq, const char *text,
                 uint64_t count);

#endif
