/* server.c - the binding side; see server.h.
 *
 * A peer is known by its ROUTER routing id together with the key that libzmq authenticated. The
 * ZAP request of a handshake is answered on this thread from principal_find, and the key travels
 * with each message as its User-Id, so that there is one place that knows who is enrolled. */
#include "common/net/server.h"

#include "common/base/clock.h"
#include "common/base/mem.h"
#include "common/net/session.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <uthash.h>
#include <utlist.h>
#include <zmq.h>

#define MESSAGES_PER_PASS 256
#define LINGER_MS         200
#define ROUTE_BYTES_MAX   255
#define SWEEP_MS          30000u
#define ENDPOINT_BYTES    512
#define ZAP_ENDPOINT      "inproc://zeromq.zap.01" /* fixed by RFC 27 */

struct peer_entry {
    uint64_t id;
    uint8_t route[ROUTE_BYTES_MAX];
    size_t route_length;
    char key[KEY_TEXT_SIZE];
    struct session session;
    uint64_t seen_ms;
    struct err why;                 /* once gone */
    struct peer_entry *prev, *next; /* least recently seen first; or the list of gone ones */
    UT_hash_handle by_id, by_route;
};

/* A session number that was used once; kept in order of arrival. */
struct session_entry {
    uint64_t number;
    UT_hash_handle hh;
};

struct server {
    struct loop *loop;
    struct server_config config;
    char (*endpoints)[ENDPOINT_BYTES];
    void *router, *zap;
    struct loop_watch *router_watch, *zap_watch;
    struct loop_timer sweep_timer, gone_timer;
    struct peer_entry *by_id, *by_route;
    struct peer_entry *by_age; /* head is the longest silent */
    struct peer_entry *gone;   /* on_gone is still to be called */
    struct session_entry *sessions;
    uint64_t last_id;
    uint64_t epoch;
    bool leads;
    char why_not[256];               /* while standing by: what peers are told */
    char leader[SERVER_LEADER_SIZE]; /* and where to go */
    struct server_stats stats;
    struct arena arena; /* of the message being delivered */
    struct buf frame;
};

/* ---- peers and sessions ------------------------------------------------------------------- */

static struct peer_entry *peer_by_id(struct server *server, uint64_t id)
{
    struct peer_entry *peer = NULL;
    HASH_FIND(by_id, server->by_id, &id, sizeof id, peer);
    return peer;
}

static struct peer_entry *peer_by_route(struct server *server, const void *route, size_t length)
{
    struct peer_entry *peer = NULL;
    HASH_FIND(by_route, server->by_route, route, length, peer);
    return peer;
}

/* Ends a peer's session. on_gone follows from the loop, never from within a server_send. */
static void peer_forget(struct server *server, struct peer_entry *peer, const struct err *why)
{
    HASH_DELETE(by_id, server->by_id, peer);
    HASH_DELETE(by_route, server->by_route, peer);
    DL_DELETE(server->by_age, peer);
    server->stats.peers--;
    peer->why = *why;
    DL_APPEND(server->gone, peer);
    loop_timer_start(server->loop, &server->gone_timer, 0);
}

static void gone_fired(void *user)
{
    struct server *server = user;
    struct peer_entry *peer;
    while ((peer = server->gone)) {
        DL_DELETE(server->gone, peer);
        if (server->config.on_gone)
            server->config.on_gone(server->config.user, peer->id, &peer->why);
        mem_free(peer);
    }
}

static void sweep_fired(void *user)
{
    struct server *server = user;
    struct err why;
    uint64_t now_ms = clock_steady_ms();
    err_set(&why, ERR_TIMEOUT, "silent for %u s", SERVER_IDLE_MS / 1000);
    while (server->by_age && server->by_age->seen_ms + SERVER_IDLE_MS < now_ms)
        peer_forget(server, server->by_age, &why);
    loop_timer_start(server->loop, &server->sweep_timer, SWEEP_MS);
}

static struct peer_entry *peer_add(struct server *server, const void *route, size_t length,
                                   const char *key)
{
    struct err why;
    if (server->stats.peers >= SERVER_PEERS_MAX) {
        err_set(&why, ERR_LIMIT, "more than %u peers, this one was silent longest",
                SERVER_PEERS_MAX);
        peer_forget(server, server->by_age, &why);
    }
    struct peer_entry *peer = mem_zalloc(sizeof *peer);
    peer->id = ++server->last_id;
    memcpy(peer->route, route, length);
    peer->route_length = length;
    memcpy(peer->key, key, KEY_TEXT_SIZE);
    peer->seen_ms = clock_steady_ms();
    session_start(&peer->session);
    HASH_ADD(by_id, server->by_id, id, sizeof peer->id, peer);
    HASH_ADD(by_route, server->by_route, route[0], peer->route_length, peer);
    DL_APPEND(server->by_age, peer);
    server->stats.peers++;
    return peer;
}

static void peer_seen(struct server *server, struct peer_entry *peer)
{
    peer->seen_ms = clock_steady_ms();
    DL_DELETE(server->by_age, peer);
    DL_APPEND(server->by_age, peer);
}

/* Whether a session number is new; remembers it. */
static bool session_begin(struct server *server, uint64_t number)
{
    struct session_entry *entry = NULL;
    HASH_FIND(hh, server->sessions, &number, sizeof number, entry);
    if (entry || number == 0)
        return false;
    if (HASH_COUNT(server->sessions) >= SERVER_SESSIONS_MAX) {
        entry = server->sessions; /* the oldest: uthash keeps the order of adding */
        HASH_DEL(server->sessions, entry);
        mem_free(entry);
    }
    entry = mem_zalloc(sizeof *entry);
    entry->number = number;
    HASH_ADD(hh, server->sessions, number, sizeof entry->number, entry);
    return true;
}

/* ---- sending ------------------------------------------------------------------------------ */

/* Asked at the last moment before a frame leaves. A standby only says that it is one. */
static bool may_send(const struct server *server)
{
    return !server->leads || !server->config.may_send ||
           server->config.may_send(server->config.user);
}

static int send_parts(struct server *server, const void *route, size_t route_length,
                      const struct buf *frame)
{
    int rc;
    if (!may_send(server)) {
        server->stats.refused_lease++;
        errno = EHOSTUNREACH;
        return -1;
    }
    do
        rc = zmq_send(server->router, route, route_length, ZMQ_SNDMORE | ZMQ_DONTWAIT);
    while (rc < 0 && errno == EINTR);
    if (rc < 0)
        return -1;
    do
        rc = zmq_send(server->router, frame->bytes, frame->length, ZMQ_DONTWAIT);
    while (rc < 0 && errno == EINTR);
    return rc < 0 ? -1 : 0;
}

static int send_failed(struct server *server, struct peer_entry *peer, struct err *err)
{
    if (errno == EAGAIN) {
        server->stats.queue_full++;
        err_set(err, ERR_LIMIT, "%d messages wait for this peer already: its session ends",
                server->config.queue_messages);
    } else if (errno == EHOSTUNREACH) {
        err_set(err, ERR_CLOSED, "the peer is gone");
    } else {
        err_errno(err, "sending to a peer");
    }
    peer_forget(server, peer, err);
    return -1;
}

int server_send(struct server *server, uint64_t peer_id, const struct message *message,
                struct err *err)
{
    struct peer_entry *peer = peer_by_id(server, peer_id);
    struct server_principal principal;
    uint64_t seq;
    if (!peer)
        return err_set(err, ERR_CLOSED, "the peer is gone");
    if (!server->config.principal_find(server->config.user, peer->key, &principal)) {
        err_set(err, ERR_CLOSED, "the peer's key was revoked");
        peer_forget(server, peer, err);
        return -1;
    }
    if (session_encode(&peer->session, server->epoch, message, &server->frame, &seq, err) < 0)
        return -1;
    if (send_parts(server, peer->route, peer->route_length, &server->frame) < 0)
        return send_failed(server, peer, err);
    peer->session.sent = seq;
    server->stats.sent++;
    return 0;
}

void server_refuse(struct server *server, uint64_t peer_id, uint64_t request_seq,
                   const struct err *why)
{
    struct err err;
    struct message message = {.tag = MSG_REFUSED,
                              .u.refused = {.request_seq = request_seq,
                                            .kind = err_kind_name(why->kind),
                                            .text = why->text}};
    /* Whoever is gone learns nothing; on_gone tells the owner of the server. */
    (void)!server_send(server, peer_id, &message, &err);
}

void server_done(struct server *server, uint64_t peer_id, uint64_t request_seq, const char *text,
                 uint64_t count)
{
    struct err err;
    struct message message = {.tag = MSG_DONE, .u.done = {request_seq, text, count}};
    (void)!server_send(server, peer_id, &message, &err);
}

/* Answers a frame that belongs to no session we know. */
static void refuse_stranger(struct server *server, const void *route, size_t route_length,
                            enum err_kind kind, const char *text)
{
    struct session session;
    struct err err;
    uint64_t seq;
    struct message message = {.tag = MSG_REFUSED,
                              .u.refused = {.kind = err_kind_name(kind),
                                            .text = text,
                                            .leader = server->leads ? "" : server->leader}};
    session_start(&session);
    if (session_encode(&session, server->epoch, &message, &server->frame, &seq, &err) == 0)
        (void)!send_parts(server, route, route_length, &server->frame);
}

/* ---- receiving ---------------------------------------------------------------------------- */

/* One message as it came from the socket, and who sent it. */
struct arrival {
    const void *route;
    size_t route_length;
    const char *key;
    struct server_principal principal;
};

static void handle_hello(struct server *server, const struct arrival *arrival,
                         const struct envelope *envelope)
{
    struct err err;
    if (!session_begin(server, envelope->session)) {
        server->stats.refused_replays++;
        return;
    }
    struct peer_entry *peer = peer_by_route(server, arrival->route, arrival->route_length);
    if (peer) {
        err_set(&err, ERR_CLOSED, "the connection began a new session");
        peer_forget(server, peer, &err);
    }
    peer = peer_add(server, arrival->route, arrival->route_length, arrival->key);
    CHECK(session_accept(&peer->session, envelope));
    struct message welcome = {.tag = MSG_WELCOME,
                              .u.welcome = {.principal = arrival->principal.name,
                                            .role = role_name(arrival->principal.role),
                                            .cluster_id = server->config.cluster_id,
                                            .heartbeat_ms = server->config.heartbeat_ms}};
    (void)!server_send(server, peer->id, &welcome, &err);
}

static void deliver(struct server *server, struct peer_entry *peer, const struct arrival *arrival,
                    const struct envelope *envelope, const struct message *message)
{
    struct err err;
    if (!session_accept(&peer->session, envelope)) {
        server->stats.refused_replays++;
        return;
    }
    peer_seen(server, peer);
    if (!msg_allowed(message->tag, arrival->principal.role)) {
        server->stats.refused_senders++;
        err_set(&err, ERR_DENIED, "'%s' has role %s, which may not send '%s'",
                arrival->principal.name, role_name(arrival->principal.role),
                msg_name(message->tag));
        server_refuse(server, peer->id, envelope->seq, &err);
        return;
    }
    server->stats.received++;
    struct server_source from = {peer->id, arrival->principal.name, arrival->principal.role,
                                 peer->key};
    server->config.on_message(server->config.user, &from, envelope, message);
}

static void handle_damaged(struct server *server, struct peer_entry *peer,
                           const struct arrival *arrival, const struct err *why)
{
    server->stats.refused_frames++;
    if (peer && strcmp(peer->key, arrival->key) == 0)
        server_refuse(server, peer->id, 0, why);
    else
        refuse_stranger(server, arrival->route, arrival->route_length, why->kind, why->text);
}

static void handle_while_standing_by(struct server *server, const struct arrival *arrival)
{
    server->stats.refused_standing_by++;
    refuse_stranger(server, arrival->route, arrival->route_length, ERR_STALE, server->why_not);
}

/* A sound frame that only a newer version understands: refused by its number, the session goes on.
 */
static void handle_unknown(struct server *server, struct peer_entry *peer,
                           const struct arrival *arrival, const struct envelope *envelope,
                           const struct err *why)
{
    server->stats.refused_frames++;
    if (peer && strcmp(peer->key, arrival->key) == 0 && session_accept(&peer->session, envelope))
        server_refuse(server, peer->id, envelope->seq, why);
}

static void handle_frame(struct server *server, const struct arrival *arrival, const void *bytes,
                         size_t length)
{
    struct envelope envelope;
    struct message message;
    struct err err;
    struct peer_entry *peer = peer_by_route(server, arrival->route, arrival->route_length);
    if (!server->leads) {
        handle_while_standing_by(server, arrival);
        return;
    }
    int decoded = wire_decode(bytes, length, &server->arena, &envelope, &message, &err);
    if (decoded < 0 && err.kind == ERR_NOT_FOUND) {
        handle_unknown(server, peer, arrival, &envelope, &err);
    } else if (decoded < 0) {
        handle_damaged(server, peer, arrival, &err);
    } else if (message.tag == MSG_HELLO) {
        handle_hello(server, arrival, &envelope);
    } else if (!peer || strcmp(peer->key, arrival->key) != 0) {
        server->stats.refused_frames++;
        err_set(&err, ERR_STALE, "this session has ended or never began: connect anew");
        refuse_stranger(server, arrival->route, arrival->route_length, err.kind, err.text);
    } else {
        deliver(server, peer, arrival, &envelope, &message);
    }
    arena_reset(&server->arena);
}

static void handle_arrival(struct server *server, zmq_msg_t *route, zmq_msg_t *frame)
{
    struct arrival arrival = {zmq_msg_data(route),
                              zmq_msg_size(route),
                              zmq_msg_gets(frame, "User-Id"),
                              {0}};
    struct err err;
    if (!arrival.key || strlen(arrival.key) != KEY_TEXT_LENGTH || zmq_msg_more(frame) ||
        arrival.route_length > ROUTE_BYTES_MAX) {
        server->stats.refused_frames++;
        return;
    }
    if (server->config.principal_find(server->config.user, arrival.key, &arrival.principal)) {
        handle_frame(server, &arrival, zmq_msg_data(frame), zmq_msg_size(frame));
        return;
    }
    server->stats.refused_keys++; /* revoked since the handshake */
    struct peer_entry *peer = peer_by_route(server, arrival.route, arrival.route_length);
    err_set(&err, ERR_DENIED, "the key was revoked");
    if (peer)
        peer_forget(server, peer, &err);
}

static void drop_rest(void *socket)
{
    int more = 0;
    size_t size = sizeof more;
    while (zmq_getsockopt(socket, ZMQ_RCVMORE, &more, &size) == 0 && more)
        if (zmq_recv(socket, NULL, 0, ZMQ_DONTWAIT) < 0)
            return;
}

static void router_ready(void *user, unsigned events)
{
    struct server *server = user;
    (void)events;
    for (int i = 0; i < MESSAGES_PER_PASS; i++) {
        zmq_msg_t route, frame;
        zmq_msg_init(&route);
        zmq_msg_init(&frame);
        bool arrived = zmq_msg_recv(&route, server->router, ZMQ_DONTWAIT) >= 0;
        if (arrived && zmq_msg_more(&route) &&
            zmq_msg_recv(&frame, server->router, ZMQ_DONTWAIT) >= 0)
            handle_arrival(server, &route, &frame);
        drop_rest(server->router);
        zmq_msg_close(&route);
        zmq_msg_close(&frame);
        if (!arrived)
            return;
    }
}

/* ---- ZAP (RFC 27) ------------------------------------------------------------------------- */

enum zap_part {
    ZAP_VERSION,
    ZAP_REQUEST,
    ZAP_DOMAIN,
    ZAP_ADDRESS,
    ZAP_ROUTE,
    ZAP_MECHANISM,
    ZAP_CREDENTIALS,
    ZAP_PARTS
};

struct zap_request {
    uint8_t parts[ZAP_PARTS][256];
    size_t lengths[ZAP_PARTS];
};

static bool zap_receive(void *zap, struct zap_request *out)
{
    size_t count = 0;
    int more = 1;
    size_t size = sizeof more;
    for (; more && count < ZAP_PARTS; count++) {
        int length = zmq_recv(zap, out->parts[count], sizeof out->parts[0], ZMQ_DONTWAIT);
        if (length < 0)
            return false;
        out->lengths[count] = min_u64((uint64_t)length, sizeof out->parts[0]);
        zmq_getsockopt(zap, ZMQ_RCVMORE, &more, &size);
    }
    drop_rest(zap);
    for (; count < ZAP_PARTS; count++)
        out->lengths[count] = 0;
    return true;
}

static bool part_is(const struct zap_request *request, enum zap_part part, const char *text)
{
    return request->lengths[part] == strlen(text) &&
           memcmp(request->parts[part], text, strlen(text)) == 0;
}

/* Status 300 ("temporary failure") and not 400: libzmq answers the latter with an error, while
 * after the former the stranger hears nothing until the handshake times out. */
static void zap_ready(void *user, unsigned events)
{
    struct server *server = user;
    struct zap_request request;
    (void)events;
    while (zap_receive(server->zap, &request)) {
        char key[KEY_TEXT_SIZE] = "";
        struct server_principal principal;
        bool known = part_is(&request, ZAP_VERSION, "1.0") &&
                     part_is(&request, ZAP_MECHANISM, "CURVE") &&
                     request.lengths[ZAP_CREDENTIALS] == 32 &&
                     zmq_z85_encode(key, request.parts[ZAP_CREDENTIALS], 32) &&
                     server->config.principal_find(server->config.user, key, &principal);
        if (!known)
            server->stats.refused_keys++;
        zmq_send(server->zap, "1.0", 3, ZMQ_SNDMORE);
        zmq_send(server->zap, request.parts[ZAP_REQUEST], request.lengths[ZAP_REQUEST],
                 ZMQ_SNDMORE);
        zmq_send(server->zap, known ? "200" : "300", 3, ZMQ_SNDMORE);
        zmq_send(server->zap, "", 0, ZMQ_SNDMORE);
        zmq_send(server->zap, known ? key : "", known ? KEY_TEXT_LENGTH : 0, ZMQ_SNDMORE);
        zmq_send(server->zap, "", 0, 0);
    }
}

/* ---- opening and closing ------------------------------------------------------------------ */

static int zap_open(struct server *server, struct err *err)
{
    server->zap = zmq_socket(loop_context(server->loop), ZMQ_REP);
    if (!server->zap || zmq_bind(server->zap, ZAP_ENDPOINT) < 0)
        return err_errno(err, "binding the authentication handler");
    server->zap_watch = loop_add_socket(server->loop, server->zap, LOOP_READ, zap_ready, server);
    return 0;
}

static int router_open(struct server *server, struct err *err)
{
    const struct pings pings = {NET_PING_MS, NET_PING_TIMEOUT_MS};
    int on = 1;
    server->router = zmq_socket(loop_context(server->loop), ZMQ_ROUTER);
    if (!server->router)
        return err_errno(err, "making a socket");
    if (session_configure(server->router, server->config.keys, server->config.queue_messages,
                          &pings, err) < 0)
        return -1;
    const int *listen_fd = &server->config.listen_fd;
    if (*listen_fd > 0 &&
        zmq_setsockopt(server->router, ZMQ_USE_FD, listen_fd, sizeof *listen_fd) < 0)
        return err_errno(err, "using the socket that listens");
    if (zmq_setsockopt(server->router, ZMQ_CURVE_SERVER, &on, sizeof on) < 0 ||
        zmq_setsockopt(server->router, ZMQ_ROUTER_MANDATORY, &on, sizeof on) < 0 ||
        zmq_setsockopt(server->router, ZMQ_ZAP_DOMAIN, "athanor", 7) < 0)
        return err_errno(err, "configuring a socket");
    return 0;
}

static int endpoints_bind(struct server *server, struct err *err)
{
    for (size_t i = 0; i < server->config.endpoint_count; i++) {
        const char *endpoint = server->config.endpoints[i];
        size_t size = ENDPOINT_BYTES;
        if (zmq_bind(server->router, endpoint) < 0)
            return err_set(err, errno == EINVAL || errno == EPROTONOSUPPORT ? ERR_INVALID : ERR_IO,
                           "cannot listen on '%s': %s", endpoint, zmq_strerror(errno));
        if (zmq_getsockopt(server->router, ZMQ_LAST_ENDPOINT, server->endpoints[i], &size) < 0)
            return err_errno(err, "asking for the address bound");
    }
    return 0;
}

int server_open(struct loop *loop, const struct server_config *config, struct server **out,
                struct err *err)
{
    CHECK(config->endpoint_count > 0 && config->principal_find && config->on_message);
    struct server *server = mem_zalloc(sizeof *server);
    server->loop = loop;
    server->config = *config;
    if (server->config.queue_messages <= 0)
        server->config.queue_messages = SERVER_QUEUE_DEFAULT;
    server->endpoints = mem_array(config->endpoint_count, sizeof *server->endpoints);
    server->sweep_timer.fire = sweep_fired;
    server->gone_timer.fire = gone_fired;
    server->sweep_timer.user = server->gone_timer.user = server;
    /* The handler is there before the first handshake can be. */
    if (zap_open(server, err) < 0 || router_open(server, err) < 0 ||
        endpoints_bind(server, err) < 0) {
        server_close(server);
        return -1;
    }
    server->config.keys = NULL; /* the socket has its own copy */
    server->config.endpoints = NULL;
    server->router_watch = loop_add_socket(loop, server->router, LOOP_READ, router_ready, server);
    loop_timer_start(loop, &server->sweep_timer, SWEEP_MS);
    snprintf(server->why_not, sizeof server->why_not, "this coordinator is only starting");
    *out = server;
    return 0;
}

static void tables_free(struct server *server)
{
    struct peer_entry *peer, *next_peer;
    struct session_entry *entry, *next_entry;
    HASH_CLEAR(by_route, server->by_route);
    HASH_ITER(by_id, server->by_id, peer, next_peer)
    {
        HASH_DELETE(by_id, server->by_id, peer);
        mem_free(peer);
    }
    while ((peer = server->gone)) {
        DL_DELETE(server->gone, peer);
        mem_free(peer);
    }
    HASH_ITER(hh, server->sessions, entry, next_entry)
    {
        HASH_DEL(server->sessions, entry);
        mem_free(entry);
    }
}

void server_close(struct server *server)
{
    int linger_ms = LINGER_MS;
    if (!server)
        return;
    loop_timer_stop(&server->sweep_timer);
    loop_timer_stop(&server->gone_timer);
    loop_remove(server->router_watch);
    loop_remove(server->zap_watch);
    if (server->router) {
        zmq_setsockopt(server->router, ZMQ_LINGER, &linger_ms, sizeof linger_ms);
        zmq_close(server->router);
    }
    if (server->zap) {
        /* zmq_close works in the background; the name must be free when this returns. */
        zmq_unbind(server->zap, ZAP_ENDPOINT);
        zmq_close(server->zap);
    }
    tables_free(server);
    arena_done(&server->arena);
    buf_done(&server->frame);
    mem_free(server->endpoints);
    mem_free(server);
}

void server_pause(struct server *server, bool paused)
{
    loop_watch_set(server->router_watch, paused ? 0 : LOOP_READ);
}

void server_lead(struct server *server, uint64_t epoch)
{
    server->epoch = epoch;
    server->leads = true;
}

void server_stand_by(struct server *server, const char *why, const char *leader)
{
    struct err err;
    server->leads = false;
    snprintf(server->why_not, sizeof server->why_not, "%s", why);
    snprintf(server->leader, sizeof server->leader, "%s", leader);
    err_set(&err, ERR_STALE, "%s", why);
    while (server->by_age) {
        struct peer_entry *peer = server->by_age;
        refuse_stranger(server, peer->route, peer->route_length, ERR_STALE, server->why_not);
        peer_forget(server, peer, &err);
    }
}

const char *server_endpoint(const struct server *server, size_t index)
{
    CHECK(index < server->config.endpoint_count);
    return server->endpoints[index];
}

const struct server_stats *server_stats(const struct server *server)
{
    return &server->stats;
}
