/* peer.c - the connecting side; see peer.h.
 *
 * A connection is a DEALER socket, its monitor and a session, made and closed together: libzmq's
 * own reconnecting is switched off, because a silently replaced transport would lose messages in
 * the middle of a session. The monitor tells of refused connections and failed handshakes, which
 * the DEALER itself would swallow. */
#include "common/net/peer.h"

#include "common/base/clock.h"
#include "common/base/hash.h"
#include "common/base/mem.h"
#include "common/base/rng.h"
#include "common/net/session.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <zmq.h>

#define MESSAGES_PER_PASS 256
#define LINGER_MS         100

enum peer_state { PEER_WAITING = 1, PEER_CONNECTING, PEER_UP };

/* A peer_request under way. */
struct request {
    struct arena *arena; /* NULL: none */
    struct message *reply;
    uint64_t seq; /* of the request within the present session; 0: not sent in it */
    bool answered;
};

struct peer {
    struct loop *loop;
    struct peer_config config; /* endpoints, texts and keys are our copies */
    char **endpoints;
    struct keypair keys;
    char server_key[KEY_TEXT_SIZE];

    enum peer_state state;
    void *socket, *monitor; /* NULL while PEER_WAITING */
    struct loop_watch *socket_watch, *monitor_watch;
    struct loop_timer timer; /* WAITING: connect again; CONNECTING: give up */
    struct session session;
    uint64_t epoch;
    size_t attempt; /* counts connections to the list; picks the endpoint */
    char hints[PEER_HINTS_MAX][PEER_ENDPOINT_SIZE]; /* where a standby said that the leader is */
    size_t hint_count, hint_at, hint_streak;
    uint64_t backoff_ms;
    uint64_t outage_ms; /* when the session was lost, or connecting began */
    struct rng rng;
    struct err last_error;
    struct request request;
    struct arena arena; /* of the message being delivered */
    struct buf frame;
    unsigned inside; /* of our functions that call back and go on afterwards */
    bool closed;     /* by such a call: freed when they are left */
};

static void connection_start(struct peer *peer);

static bool follows_hint(const struct peer *peer)
{
    return peer->hint_at < peer->hint_count;
}

static const char *endpoint_now(const struct peer *peer)
{
    return follows_hint(peer) ? peer->hints[peer->hint_at]
                              : peer->endpoints[peer->attempt % peer->config.endpoint_count];
}

/* Whether another coordinator may answer if this one does not. */
static bool has_choice(const struct peer *peer)
{
    return peer->config.endpoint_count > 1 || follows_hint(peer);
}

static uint64_t welcome_ms(const struct peer *peer)
{
    size_t round = peer->attempt / peer->config.endpoint_count;
    if (!has_choice(peer) || round > 3)
        return PEER_WELCOME_MS;
    return min_u64(PEER_WELCOME_MIN_MS << round, PEER_WELCOME_MS);
}

/* Takes over where a standby says that the leader is: endpoints separated by commas. */
static void hints_take(struct peer *peer, const char *leader)
{
    peer->hint_count = peer->hint_at = 0;
    if (peer->hint_streak >= PEER_HINT_STREAK) { /* standbys that send us in a circle */
        peer->hint_streak = 0;
        return;
    }
    while (*leader && peer->hint_count < PEER_HINTS_MAX) {
        size_t length = strcspn(leader, ",");
        bool known = strncmp(leader, "tcp://", 6) == 0 || strncmp(leader, "ipc://", 6) == 0;
        if (known && length < PEER_ENDPOINT_SIZE)
            snprintf(peer->hints[peer->hint_count++], PEER_ENDPOINT_SIZE, "%.*s", (int)length,
                     leader);
        leader += length + (leader[length] == ',');
    }
}

static void connection_close(struct peer *peer, int linger_ms)
{
    loop_timer_stop(&peer->timer);
    loop_remove(peer->socket_watch);
    loop_remove(peer->monitor_watch);
    peer->socket_watch = peer->monitor_watch = NULL;
    /* The monitor's end at the socket goes first: where nobody is left to take an event, libzmq's
     * thread waits for ever to tell it, and whoever closes the socket waits for that thread. */
    if (peer->socket)
        zmq_socket_monitor(peer->socket, NULL, 0);
    if (peer->monitor)
        zmq_close(peer->monitor);
    if (peer->socket) {
        zmq_setsockopt(peer->socket, ZMQ_LINGER, &linger_ms, sizeof linger_ms);
        zmq_close(peer->socket);
    }
    peer->socket = peer->monitor = NULL;
}

/* Half of the wait is at random, so that a thousand workers do not come back in step. */
static uint64_t backoff_take(struct peer *peer)
{
    bool haste = clock_steady_ms() - peer->outage_ms < PEER_HASTE_MS;
    uint64_t wait_ms = min_u64(peer->backoff_ms, haste ? PEER_HASTE_MAX_MS : PEER_BACKOFF_MAX_MS);
    if ((peer->attempt + 1) % peer->config.endpoint_count == 0) /* all endpoints were tried */
        peer->backoff_ms = min_u64(2 * peer->backoff_ms, PEER_BACKOFF_MAX_MS);
    return wait_ms + rng_below(&peer->rng, wait_ms / 2 + 1);
}

/* The next endpoint: of the leader that a standby named, else of the list. */
static void endpoint_advance(struct peer *peer, const char *leader)
{
    if (follows_hint(peer))
        peer->hint_at = peer->state == PEER_UP ? peer->hint_count : peer->hint_at + 1;
    else
        peer->attempt++;
    if (*leader)
        hints_take(peer, leader);
    peer->hint_streak = follows_hint(peer) ? peer->hint_streak + 1 : 0;
}

/* leader: where the refusing side says that it is, or "". */
static void connection_fail(struct peer *peer, const struct err *why, const char *leader)
{
    connection_close(peer, 0);
    if (peer->state == PEER_UP)
        peer->outage_ms = clock_steady_ms();
    peer->last_error = *why;
    err_wrap(&peer->last_error, "%s", endpoint_now(peer));
    uint64_t wait_ms = backoff_take(peer);
    endpoint_advance(peer, leader);
    peer->state = PEER_WAITING;
    loop_timer_start(peer->loop, &peer->timer, wait_ms);
    if (peer->config.on_down)
        peer->config.on_down(peer->config.user, &peer->last_error);
}

/* ---- what comes in ------------------------------------------------------------------------ */

static void handle_welcome(struct peer *peer, const struct envelope *envelope,
                           const struct msg_welcome *welcome)
{
    struct err why;
    if (peer->state == PEER_UP)
        return;
    if (envelope->epoch < peer->epoch) {
        err_set(&why, ERR_STALE, "a coordinator of epoch %llu is refused, epoch %llu was seen",
                (unsigned long long)envelope->epoch, (unsigned long long)peer->epoch);
        connection_fail(peer, &why, "");
        return;
    }
    loop_timer_stop(&peer->timer);
    peer->state = PEER_UP;
    peer->epoch = envelope->epoch;
    peer->backoff_ms = PEER_BACKOFF_MIN_MS;
    peer->attempt %= peer->config.endpoint_count; /* rounds are counted from here */
    if (peer->config.on_up)
        peer->config.on_up(peer->config.user, welcome);
}

/* A refusal that is about the session and not about a request ends it. A coordinator that has
 * forgotten our session sends it outside of any. */
static bool ends_session(const struct peer *peer, const struct message *message)
{
    return message->tag == MSG_REFUSED &&
           (peer->state == PEER_CONNECTING ||
            (message->u.refused.request_seq == 0 &&
             strcmp(message->u.refused.kind, err_kind_name(ERR_STALE)) == 0));
}

static bool is_awaited(const struct peer *peer, const struct message *message)
{
    uint64_t seq;
    return peer->request.arena && !peer->request.answered && peer->request.seq != 0 &&
           msg_request_seq(message, &seq) && seq == peer->request.seq;
}

static void handle_message(struct peer *peer, const struct envelope *envelope,
                           const struct message *message)
{
    struct err why;
    if (message->tag == MSG_WELCOME) {
        handle_welcome(peer, envelope, &message->u.welcome);
    } else if (ends_session(peer, message)) {
        err_set(&why, ERR_DENIED, "the coordinator refuses this session: %s",
                message->u.refused.text);
        connection_fail(peer, &why, message->u.refused.leader);
    } else if (is_awaited(peer, message)) {
        *peer->request.reply = *message;
        peer->request.answered = true;
    } else if (peer->state == PEER_UP && peer->config.on_message) {
        peer->config.on_message(peer->config.user, envelope, message);
    }
}

static bool from_server(enum msg_tag tag)
{
    enum wire_sender sender = msg_sender(tag);
    return sender == SENDER_COORDINATOR || sender == SENDER_NEIGHBOUR ||
           sender == SENDER_MEMBER; /* what the coordinator passes on between members */
}

static void handle_frame(struct peer *peer, const void *bytes, size_t length)
{
    /* The answer to a request outlives this call: everything goes to its arena meanwhile. */
    struct arena *arena = peer->request.arena ? peer->request.arena : &peer->arena;
    struct envelope envelope;
    struct message message;
    struct err why;
    int decoded = wire_decode(bytes, length, arena, &envelope, &message, &why);
    if (decoded < 0 && why.kind == ERR_NOT_FOUND) {
        /* A message that a newer coordinator has: it cannot concern what we can do. */
        (void)session_accept(&peer->session, &envelope);
    } else if (decoded < 0) {
        err_wrap(&why, "the coordinator sent a damaged frame");
        connection_fail(peer, &why, "");
    } else if (from_server(message.tag) &&
               (session_accept(&peer->session, &envelope) || ends_session(peer, &message))) {
        handle_message(peer, &envelope, &message);
    }
    arena_reset(&peer->arena);
}

static void peer_free(struct peer *peer)
{
    for (size_t i = 0; i < peer->config.endpoint_count; i++)
        mem_free(peer->endpoints[i]);
    mem_free(peer->endpoints);
    mem_free((char *)(uintptr_t)peer->config.program);
    mem_free((char *)(uintptr_t)peer->config.version);
    keypair_wipe(&peer->keys);
    arena_done(&peer->arena);
    buf_done(&peer->frame);
    mem_free(peer);
}

static void leave(struct peer *peer)
{
    if (--peer->inside == 0 && peer->closed)
        peer_free(peer);
}

static void receive_some(struct peer *peer)
{
    for (int i = 0; i < MESSAGES_PER_PASS && peer->socket; i++) {
        zmq_msg_t part;
        zmq_msg_init(&part);
        if (zmq_msg_recv(&part, peer->socket, ZMQ_DONTWAIT) < 0) {
            zmq_msg_close(&part);
            return;
        }
        handle_frame(peer, zmq_msg_data(&part), zmq_msg_size(&part));
        zmq_msg_close(&part);
    }
}

static void socket_ready(void *user, unsigned events)
{
    struct peer *peer = user;
    (void)events;
    peer->inside++;
    receive_some(peer);
    leave(peer);
}

/* ---- what the monitor tells --------------------------------------------------------------- */

static void handle_event(struct peer *peer, int event)
{
    struct err why;
    switch (event) {
    case ZMQ_EVENT_CLOSED:
        err_set(&why, ERR_CLOSED, "nobody answers at this address");
        break;
    case ZMQ_EVENT_DISCONNECTED:
        if (peer->state == PEER_UP)
            err_set(&why, ERR_CLOSED, "the connection broke");
        else
            err_set(&why, ERR_CLOSED,
                    "closed during the handshake: the key may not be enrolled, or the server key "
                    "may be another");
        break;
    default:
        err_set(&why, ERR_DENIED,
                "the handshake failed: the key may not be enrolled, or the server key may be "
                "another");
    }
    connection_fail(peer, &why, "");
}

static void take_events(struct peer *peer)
{
    uint8_t head[6], address[256];
    while (peer->monitor && zmq_recv(peer->monitor, head, sizeof head, ZMQ_DONTWAIT) >= 0) {
        uint16_t event;
        memcpy(&event, head, sizeof event);
        if (zmq_recv(peer->monitor, address, sizeof address, ZMQ_DONTWAIT) < 0)
            return;
        /* What arrived before the connection broke is still to be read. */
        receive_some(peer);
        if (peer->monitor)
            handle_event(peer, event);
    }
}

static void monitor_ready(void *user, unsigned events)
{
    struct peer *peer = user;
    (void)events;
    peer->inside++;
    take_events(peer);
    leave(peer);
}

/* ---- connecting --------------------------------------------------------------------------- */

static int monitor_open(struct peer *peer, struct err *err)
{
    char name[64];
    int any = 0; /* events; libzmq's thread waits where they do not fit */
    /* Never a name again: libzmq lets go of the old one some time after the socket's end, and the
     * next peer may well lie at the same address. */
    snprintf(name, sizeof name, "inproc://peer-%016" PRIx64, random_u64());
    int events = ZMQ_EVENT_CLOSED | ZMQ_EVENT_DISCONNECTED | ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL |
                 ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL | ZMQ_EVENT_HANDSHAKE_FAILED_AUTH;
    if (zmq_socket_monitor(peer->socket, name, events) < 0)
        return err_errno(err, "watching the connection");
    peer->monitor = zmq_socket(loop_context(peer->loop), ZMQ_PAIR);
    if (!peer->monitor ||
        zmq_setsockopt(peer->monitor, ZMQ_RCVHWM, &any, sizeof any) < 0 ||
        zmq_connect(peer->monitor, name) < 0)
        return err_errno(err, "watching the connection");
    return 0;
}

static int socket_open(struct peer *peer, struct err *err)
{
    const struct pings calm = {NET_PING_MS, NET_PING_TIMEOUT_MS},
                       quick = {PEER_PING_MS, PEER_PING_TIMEOUT_MS};
    int never = -1;
    peer->socket = zmq_socket(loop_context(peer->loop), ZMQ_DEALER);
    if (!peer->socket)
        return err_errno(err, "making a socket");
    if (session_configure(peer->socket, &peer->keys, peer->config.queue_messages,
                          has_choice(peer) ? &quick : &calm, err) < 0)
        return -1;
    if (zmq_setsockopt(peer->socket, ZMQ_CURVE_SERVERKEY, peer->server_key, KEY_TEXT_SIZE) < 0 ||
        zmq_setsockopt(peer->socket, ZMQ_RECONNECT_IVL, &never, sizeof never) < 0)
        return err_errno(err, "configuring a socket");
    if (monitor_open(peer, err) < 0)
        return -1;
    if (zmq_connect(peer->socket, endpoint_now(peer)) < 0)
        return err_set(err, ERR_INVALID,
                       "'%s' is no address to connect to: %s; expected "
                       "tcp://HOST:PORT or ipc://PATH",
                       endpoint_now(peer), zmq_strerror(errno));
    return 0;
}

static int send_frame(struct peer *peer, const struct message *message, uint64_t *out_seq,
                      struct err *err)
{
    uint64_t seq;
    if (session_encode(&peer->session, peer->epoch, message, &peer->frame, &seq, err) < 0)
        return -1;
    while (zmq_send(peer->socket, peer->frame.bytes, peer->frame.length, ZMQ_DONTWAIT) < 0) {
        if (errno == EINTR)
            continue;
        if (errno == EAGAIN)
            return err_set(err, ERR_LIMIT, "%d messages wait for the coordinator already",
                           peer->config.queue_messages);
        return err_errno(err, "sending to the coordinator");
    }
    peer->session.sent = seq;
    if (out_seq)
        *out_seq = seq;
    return 0;
}

static int connection_open(struct peer *peer, struct err *err)
{
    struct message hello = {.tag = MSG_HELLO,
                            .u.hello = {peer->config.program, peer->config.version}};
    peer->state = PEER_CONNECTING;
    session_start(&peer->session);
    if (socket_open(peer, err) < 0)
        return -1;
    /* A socket without a message is full only where libzmq took its pipe away: the connection was
     * refused before the greeting was handed over, and the monitor tells so. */
    if (send_frame(peer, &hello, NULL, err) < 0 && err->kind != ERR_LIMIT)
        return -1;
    peer->socket_watch = loop_add_socket(peer->loop, peer->socket, LOOP_READ, socket_ready, peer);
    peer->monitor_watch =
        loop_add_socket(peer->loop, peer->monitor, LOOP_READ, monitor_ready, peer);
    loop_timer_start(peer->loop, &peer->timer, welcome_ms(peer));
    return 0;
}

static void connection_start(struct peer *peer)
{
    struct err why;
    if (connection_open(peer, &why) < 0)
        connection_fail(peer, &why, "");
}

static void timer_fired(void *user)
{
    struct peer *peer = user;
    struct err why;
    if (peer->state == PEER_WAITING) {
        connection_start(peer);
        return;
    }
    err_set(&why, ERR_TIMEOUT,
            "no welcome within %llu ms: the coordinator may be stopped or busy, or our key not "
            "enrolled",
            (unsigned long long)welcome_ms(peer));
    connection_fail(peer, &why, "");
}

/* ---- public ------------------------------------------------------------------------------- */

static void config_copy(struct peer *peer, const struct peer_config *config)
{
    peer->config = *config;
    peer->endpoints = mem_array(config->endpoint_count, sizeof *peer->endpoints);
    for (size_t i = 0; i < config->endpoint_count; i++)
        peer->endpoints[i] = mem_strdup(config->endpoints[i]);
    peer->config.endpoints = NULL;
    peer->config.program = mem_strdup(config->program);
    peer->config.version = mem_strdup(config->version);
    if (peer->config.queue_messages <= 0)
        peer->config.queue_messages = PEER_QUEUE_DEFAULT;
    peer->keys = *config->keys;
    memcpy(peer->server_key, config->server_key, KEY_TEXT_SIZE);
}

int peer_open(struct loop *loop, const struct peer_config *config, struct peer **out,
              struct err *err)
{
    CHECK(config->endpoint_count > 0);
    if (public_key_check(config->server_key, err) < 0)
        return err_wrap(err, "server key");
    struct peer *peer = mem_zalloc(sizeof *peer);
    peer->loop = loop;
    peer->backoff_ms = PEER_BACKOFF_MIN_MS;
    peer->outage_ms = clock_steady_ms();
    rng_init(&peer->rng, config->seed ? config->seed : random_u64());
    peer->timer.fire = timer_fired;
    peer->timer.user = peer;
    config_copy(peer, config);
    if (connection_open(peer, err) < 0) {
        peer_close(peer);
        return -1;
    }
    *out = peer;
    return 0;
}

void peer_close(struct peer *peer)
{
    if (!peer)
        return;
    connection_close(peer, LINGER_MS);
    peer->closed = true;
    if (!peer->inside)
        peer_free(peer);
}

bool peer_is_up(const struct peer *peer)
{
    return peer->state == PEER_UP;
}

const char *peer_endpoint(const struct peer *peer)
{
    return endpoint_now(peer);
}

void peer_set_epoch(struct peer *peer, uint64_t epoch)
{
    peer->epoch = epoch;
}

int peer_send(struct peer *peer, const struct message *message, uint64_t *out_seq, struct err *err)
{
    if (peer->state != PEER_UP)
        return err_set(err, ERR_CLOSED, "not connected to a coordinator%s%s",
                       peer->last_error.kind ? ": " : "",
                       peer->last_error.kind ? peer->last_error.text : "");
    return send_frame(peer, message, out_seq, err);
}

/* Sends the request if this session has not seen it yet. */
static int request_offer(struct peer *peer, const struct message *request, uint64_t *session,
                         bool repeat, struct err *err)
{
    bool sent = peer->request.seq != 0;
    bool same = peer->state == PEER_UP && *session == peer->session.own;
    if (sent && same)
        return 0;
    if (sent && !repeat)
        return err_set(err, ERR_CLOSED,
                       "the connection broke before the answer came (%s); "
                       "whether the request was carried out is not known",
                       peer->last_error.text);
    if (peer->state != PEER_UP)
        return 0;
    if (peer_send(peer, request, &peer->request.seq, err) == 0) {
        *session = peer->session.own;
        return 0;
    }
    /* The socket takes nothing: it is full, or its transport has just broken and the monitor has
     * not said so yet. Either way the next pass of the loop knows more. */
    return err->kind == ERR_LIMIT ? 0 : -1;
}

static int request_wait(struct peer *peer, const struct message *request, bool repeat,
                        uint64_t timeout_ms, struct err *err)
{
    uint64_t until_ms = clock_steady_ms() + timeout_ms, now_ms, session = 0;
    while (!peer->request.answered) {
        if (request_offer(peer, request, &session, repeat, err) < 0)
            return -1;
        now_ms = clock_steady_ms();
        if (now_ms >= until_ms && peer->state == PEER_UP)
            return err_set(err, ERR_TIMEOUT, "no answer within %llu ms",
                           (unsigned long long)timeout_ms);
        if (now_ms >= until_ms)
            return err_set(err, ERR_TIMEOUT, "no coordinator within %llu ms: %s%s",
                           (unsigned long long)timeout_ms,
                           peer->last_error.kind ? peer->last_error.text : endpoint_now(peer),
                           peer->last_error.kind ? ""
                                                 : " (keys that are not enrolled get no answer)");
        if (loop_once(peer->loop, until_ms - now_ms, err) < 0)
            return -1;
    }
    return 0;
}

int peer_request(struct peer *peer, const struct message *request, bool repeat, uint64_t timeout_ms,
                 struct arena *arena, struct message *out_reply, struct err *err)
{
    CHECK(!peer->request.arena);
    struct message reply;
    peer->request = (struct request){.arena = arena, .reply = &reply};
    int rc = request_wait(peer, request, repeat, timeout_ms, err);
    peer->request = (struct request){0};
    if (rc == 0)
        *out_reply = reply;
    return rc;
}
