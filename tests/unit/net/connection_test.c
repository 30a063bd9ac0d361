/* connection_test.c - peers and a server over real sockets: who is let in, what gets through.
 *
 * Everything runs in one process: the server in one loop, peers in another, both turned by
 * until(). Raw DEALER sockets play the peers that do not keep the rules. */
#include "common/base/clock.h"
#include "common/base/file.h"
#include "common/base/mem.h"
#include "common/base/rng.h"
#include "common/net/peer.h"
#include "common/net/server.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <zmq.h>

#include <cmocka.h>

#define PATIENCE_MS      20000u /* bound of every wait; reached only by a failing test */
#define HANDSHAKE_ROUNDS 60     /* turns of 5 ms in which a stranger could get an answer */

enum who { ADMIN, USER, WORKER, STRANGER, WHO_END };

struct fixture {
    struct loop *server_loop, *loop;
    struct server *server;
    struct peer *peer;
    struct keypair server_keys, keys[WHO_END];
    bool revoked[WHO_END];
    char folder[64], endpoint[128], bound[300];
    const char *endpoints[2];
    int queue_messages;
    struct err err;
    /* what the server saw */
    uint64_t peer_id;
    char principal[32];
    enum role role;
    struct envelope envelope;
    enum msg_tag tag;
    unsigned received, gone;
    struct err gone_why;
    bool silent; /* answer nothing */
    bool lease_over;
    /* what the peer saw */
    unsigned ups, downs, answers;
    struct msg_welcome welcome;
    char welcome_principal[32], welcome_role[32];
    struct err down_why;
    enum msg_tag answer_tag;
    uint64_t answer_epoch;
};

static const char *const names[WHO_END] = {"root", "ann", "w1", "nobody"};
static const enum role roles[WHO_END] = {ROLE_ADMIN, ROLE_USER, ROLE_WORKER, ROLE_USER};

static bool find_principal(void *user, const char *public_key, struct server_principal *out)
{
    struct fixture *f = user;
    for (int i = 0; i < STRANGER; i++) {
        if (!f->revoked[i] && strcmp(public_key, f->keys[i].public_key) == 0) {
            *out = (struct server_principal){names[i], roles[i]};
            return true;
        }
    }
    return false;
}

static void server_message(void *user, const struct server_source *from,
                           const struct envelope *envelope, const struct message *message)
{
    struct fixture *f = user;
    f->received++;
    f->peer_id = from->peer_id;
    f->role = from->role;
    snprintf(f->principal, sizeof f->principal, "%s", from->principal);
    f->envelope = *envelope;
    f->tag = message->tag;
    if (message->tag == MSG_QUERY && !f->silent)
        server_done(f->server, from->peer_id, envelope->seq, message->u.query.name, 1);
}

static void server_gone(void *user, uint64_t peer_id, const struct err *why)
{
    struct fixture *f = user;
    (void)peer_id;
    f->gone++;
    f->gone_why = *why;
}

static bool server_may_send(void *user)
{
    const struct fixture *f = user;
    return !f->lease_over;
}

static void peer_up(void *user, const struct msg_welcome *welcome)
{
    struct fixture *f = user;
    f->ups++;
    f->welcome = *welcome;
    snprintf(f->welcome_principal, sizeof f->welcome_principal, "%s", welcome->principal);
    snprintf(f->welcome_role, sizeof f->welcome_role, "%s", welcome->role);
}

static void peer_down(void *user, const struct err *why)
{
    struct fixture *f = user;
    f->downs++;
    f->down_why = *why;
}

static void peer_message(void *user, const struct envelope *envelope, const struct message *message)
{
    struct fixture *f = user;
    f->answers++;
    f->answer_tag = message->tag;
    f->answer_epoch = envelope->epoch;
}

static void turn(struct fixture *f)
{
    if (f->server)
        assert_int_equal(loop_once(f->server_loop, 2, &f->err), 0);
    assert_int_equal(loop_once(f->loop, 2, &f->err), 0);
}

/* Turns both loops until the condition holds. */
#define until(f, condition)                                                                        \
    do {                                                                                           \
        uint64_t limit_ms = clock_steady_ms() + PATIENCE_MS;                                       \
        while (!(condition)) {                                                                     \
            assert_true(clock_steady_ms() < limit_ms);                                             \
            turn(f);                                                                               \
        }                                                                                          \
    } while (0)

static void open_server(struct fixture *f, const char *endpoint)
{
    struct server_config config = {.endpoints = &endpoint,
                                   .endpoint_count = 1,
                                   .keys = &f->server_keys,
                                   .cluster_id = 77,
                                   .heartbeat_ms = 500,
                                   .queue_messages = f->queue_messages,
                                   .user = f,
                                   .principal_find = find_principal,
                                   .on_message = server_message,
                                   .may_send = server_may_send,
                                   .on_gone = server_gone};
    f->server_loop = loop_new();
    if (server_open(f->server_loop, &config, &f->server, &f->err) < 0)
        fail_msg("%s", f->err.text);
    server_lead(f->server, 5);
    snprintf(f->bound, sizeof f->bound, "%s", server_endpoint(f->server, 0));
}

static void close_server(struct fixture *f)
{
    server_close(f->server);
    loop_free(f->server_loop);
    f->server = NULL;
    f->server_loop = NULL;
}

static void open_peer(struct fixture *f, enum who who)
{
    f->endpoints[0] = f->bound;
    struct peer_config config = {.endpoints = f->endpoints,
                                 .endpoint_count = f->endpoints[1] ? 2 : 1,
                                 .server_key = f->server_keys.public_key,
                                 .keys = &f->keys[who],
                                 .program = "test",
                                 .version = "1",
                                 .queue_messages = f->queue_messages,
                                 .user = f,
                                 .on_up = peer_up,
                                 .on_down = peer_down,
                                 .on_message = peer_message};
    if (peer_open(f->loop, &config, &f->peer, &f->err) < 0)
        fail_msg("%s", f->err.text);
}

static int setup(void **state)
{
    struct fixture *f = mem_zalloc(sizeof *f);
    f->loop = loop_new();
    keypair_make(&f->server_keys);
    for (int i = 0; i < WHO_END; i++)
        keypair_make(&f->keys[i]);
    snprintf(f->folder, sizeof f->folder, "/tmp/athanor-net-XXXXXX");
    assert_non_null(mkdtemp(f->folder));
    snprintf(f->endpoint, sizeof f->endpoint, "ipc://%s/socket", f->folder);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    peer_close(f->peer);
    loop_free(f->loop);
    if (f->server)
        close_server(f);
    assert_int_equal(file_remove_tree(f->folder, &f->err), 0);
    mem_free(f);
    return 0;
}

static const struct message query = {.tag = MSG_QUERY, .u.query = {.name = "status"}};

/* ---- raw peers ---------------------------------------------------------------------------- */

static void *raw_connect(struct fixture *f, enum who who)
{
    void *socket = zmq_socket(loop_context(f->loop), ZMQ_DEALER);
    assert_non_null(socket);
    zmq_setsockopt(socket, ZMQ_CURVE_SERVERKEY, f->server_keys.public_key, KEY_TEXT_SIZE);
    zmq_setsockopt(socket, ZMQ_CURVE_PUBLICKEY, f->keys[who].public_key, KEY_TEXT_SIZE);
    zmq_setsockopt(socket, ZMQ_CURVE_SECRETKEY, f->keys[who].secret_key, KEY_TEXT_SIZE);
    assert_int_equal(zmq_connect(socket, f->bound), 0);
    return socket;
}

static void raw_send(void *socket, uint64_t session, uint64_t seq, const struct message *message)
{
    struct envelope envelope = {.session = session, .seq = seq};
    struct buf frame = {0};
    struct err err;
    assert_int_equal(wire_encode(&envelope, message, &frame, &err), 0);
    assert_int_equal(zmq_send(socket, frame.bytes, frame.length, ZMQ_DONTWAIT), frame.length);
    buf_done(&frame);
}

/* A frame of the next protocol version: a message, and a key of the frame, that we do not know. */
static void raw_send_unknown(void *socket, uint64_t session, uint64_t seq)
{
    const uint64_t head[] = {WIRE_PROTOCOL + 1, 0, session, seq, 0, 9999};
    unsigned char frame[128];
    size_t length = 0;
    frame[length++] = 0x88; /* a map of 8 */
    for (unsigned char key = 1; key <= 6; key++) {
        frame[length++] = key;
        frame[length++] = 0xcf; /* a u64, big-endian */
        for (int shift = 56; shift >= 0; shift -= 8)
            frame[length++] = (unsigned char)(head[key - 1] >> shift);
    }
    const unsigned char rest[] = {7, 0x81, 1, 0xa1, 'x', 40, 0xc3};
    memcpy(frame + length, rest, sizeof rest);
    length += sizeof rest;
    assert_int_equal(zmq_send(socket, frame, length, ZMQ_DONTWAIT), length);
}

static const struct message hello = {.tag = MSG_HELLO, .u.hello = {"raw", "1"}};

static bool raw_receive(void *socket, struct arena *arena, struct message *out)
{
    char *bytes = mem_alloc(WIRE_FRAME_BYTES_MAX);
    struct envelope envelope;
    struct err err;
    int length = zmq_recv(socket, bytes, WIRE_FRAME_BYTES_MAX, ZMQ_DONTWAIT);
    bool came = length >= 0;
    if (came)
        assert_int_equal(wire_decode(bytes, (size_t)length, arena, &envelope, out, &err), 0);
    mem_free(bytes);
    return came;
}

/* ---- tests -------------------------------------------------------------------------------- */

static void an_enrolled_peer_is_welcomed_by_name(void **state)
{
    struct fixture *f = *state;
    open_server(f, f->endpoint);
    open_peer(f, USER);
    until(f, f->ups == 1);
    assert_true(peer_is_up(f->peer));
    assert_string_equal(f->welcome_principal, "ann");
    assert_string_equal(f->welcome_role, "user");
    assert_int_equal(f->welcome.cluster_id, 77);
    assert_int_equal(f->welcome.heartbeat_ms, 500);
}

static void messages_arrive_with_the_authenticated_principal(void **state)
{
    struct fixture *f = *state;
    uint64_t seq;
    open_server(f, "tcp://127.0.0.1:*");
    open_peer(f, ADMIN);
    until(f, f->ups == 1);
    peer_set_epoch(f->peer, 4);
    assert_int_equal(peer_send(f->peer, &query, &seq, &f->err), 0);
    until(f, f->answers == 1);
    assert_string_equal(f->principal, "root");
    assert_int_equal(f->role, ROLE_ADMIN);
    assert_int_equal(f->tag, MSG_QUERY);
    assert_int_equal(f->envelope.seq, seq);
    assert_int_equal(f->envelope.epoch, 4);
    assert_int_equal(f->envelope.ack, 1); /* the welcome */
    assert_int_equal(f->answer_tag, MSG_DONE);
    assert_int_equal(f->answer_epoch, 5);
}

static void an_unenrolled_key_gets_nothing(void **state)
{
    struct fixture *f = *state;
    char bytes[16];
    open_server(f, f->endpoint);
    void *socket = raw_connect(f, STRANGER);
    raw_send(socket, 1, 1, &hello);
    raw_send(socket, 1, 2, &query);
    until(f, server_stats(f->server)->refused_keys > 0);
    for (int i = 0; i < HANDSHAKE_ROUNDS; i++) {
        turn(f);
        assert_int_equal(zmq_recv(socket, bytes, sizeof bytes, ZMQ_DONTWAIT), -1);
    }
    assert_int_equal(f->received, 0);
    assert_int_equal(server_stats(f->server)->peers, 0);
    zmq_close(socket);
}

static void a_stranger_hears_nothing_and_gives_up(void **state)
{
    struct fixture *f = *state;
    open_server(f, f->endpoint);
    open_peer(f, STRANGER);
    until(f, f->downs > 0);
    assert_int_equal(f->ups, 0);
    /* Silence until the time-out, or the server's hanging up seen first: a race of the two ends. */
    assert_true(f->down_why.kind == ERR_TIMEOUT || f->down_why.kind == ERR_DENIED ||
                f->down_why.kind == ERR_CLOSED);
    assert_non_null(strstr(f->down_why.text, "enrolled"));
}

static void plain_connections_without_curve_get_nothing(void **state)
{
    struct fixture *f = *state;
    char bytes[16];
    open_server(f, f->endpoint);
    void *socket = zmq_socket(loop_context(f->loop), ZMQ_DEALER);
    assert_int_equal(zmq_connect(socket, f->bound), 0);
    raw_send(socket, 1, 1, &hello);
    for (int i = 0; i < HANDSHAKE_ROUNDS; i++) {
        turn(f);
        assert_int_equal(zmq_recv(socket, bytes, sizeof bytes, ZMQ_DONTWAIT), -1);
    }
    assert_int_equal(server_stats(f->server)->peers, 0);
    zmq_close(socket);
}

static void a_wrong_server_key_is_noticed(void **state)
{
    struct fixture *f = *state;
    open_server(f, f->endpoint);
    keypair_make(&f->server_keys); /* the peer now believes in another server */
    open_peer(f, USER);
    until(f, f->downs > 0);
    assert_int_equal(f->ups, 0);
}

static void replayed_frames_are_dropped(void **state)
{
    struct fixture *f = *state;
    open_server(f, f->endpoint);
    void *socket = raw_connect(f, USER);
    raw_send(socket, 9, 1, &hello);
    raw_send(socket, 9, 2, &query);
    raw_send(socket, 9, 2, &query); /* again */
    raw_send(socket, 9, 1, &query); /* older */
    raw_send(socket, 8, 3, &query); /* of a session that never began */
    raw_send(socket, 9, 5, &query); /* a gap is fine */
    until(f, f->received + server_stats(f->server)->refused_replays == 5);
    assert_int_equal(f->received, 2);
    assert_int_equal(f->envelope.seq, 5);
    zmq_close(socket);
}

static void a_session_replayed_on_another_connection_is_dropped(void **state)
{
    struct fixture *f = *state;
    struct arena arena = {0};
    struct message answer = {0};
    open_server(f, f->endpoint);
    void *first = raw_connect(f, USER);
    raw_send(first, 9, 1, &hello);
    raw_send(first, 9, 2, &query);
    until(f, f->received == 1);
    void *second = raw_connect(f, USER);
    raw_send(second, 9, 1, &hello);
    raw_send(second, 9, 2, &query);
    until(f, raw_receive(second, &arena, &answer));
    assert_int_equal(answer.tag, MSG_REFUSED);
    assert_string_equal(answer.u.refused.kind, err_kind_name(ERR_STALE));
    assert_int_equal(server_stats(f->server)->refused_replays, 1);
    assert_int_equal(f->received, 1);
    arena_done(&arena);
    zmq_close(first);
    zmq_close(second);
}

static void a_role_that_may_not_send_is_refused(void **state)
{
    struct fixture *f = *state;
    struct arena arena = {0};
    struct message answer;
    struct message beat = {.tag = MSG_HEARTBEAT, .u.heartbeat = {1, 2, 3}};
    open_server(f, f->endpoint);
    void *user = raw_connect(f, USER), *worker = raw_connect(f, WORKER);
    raw_send(user, 1, 1, &hello);
    raw_send(user, 1, 2, &beat);
    raw_send(worker, 2, 1, &hello);
    raw_send(worker, 2, 2, &query);
    until(f, server_stats(f->server)->refused_senders == 2);
    assert_int_equal(f->received, 0);
    raw_send(worker, 2, 3, &beat);
    until(f, f->received == 1);
    assert_string_equal(f->principal, "w1");
    until(f, raw_receive(user, &arena, &answer) && answer.tag == MSG_REFUSED);
    assert_int_equal(answer.u.refused.request_seq, 2);
    assert_string_equal(answer.u.refused.kind, err_kind_name(ERR_DENIED));
    arena_done(&arena);
    zmq_close(user);
    zmq_close(worker);
}

static void messages_of_the_coordinator_are_refused_from_anyone(void **state)
{
    struct fixture *f = *state;
    struct message stop = {.tag = MSG_STOP, .u.stop = {1, "cancelled", 1}};
    open_server(f, f->endpoint);
    void *socket = raw_connect(f, ADMIN);
    raw_send(socket, 1, 1, &hello);
    raw_send(socket, 1, 2, &stop);
    until(f, server_stats(f->server)->refused_senders == 1);
    assert_int_equal(f->received, 0);
    zmq_close(socket);
}

static void a_damaged_frame_is_answered_and_changes_nothing(void **state)
{
    struct fixture *f = *state;
    struct arena arena = {0};
    struct message answer;
    open_server(f, f->endpoint);
    void *socket = raw_connect(f, USER);
    raw_send(socket, 1, 1, &hello);
    assert_int_equal(zmq_send(socket, "\x87\x01", 2, 0), 2);
    until(f, raw_receive(socket, &arena, &answer) && answer.tag == MSG_REFUSED);
    assert_string_equal(answer.u.refused.kind, err_kind_name(ERR_PROTOCOL));
    raw_send(socket, 1, 2, &query);
    until(f, f->received == 1); /* the session goes on */
    arena_done(&arena);
    zmq_close(socket);
}

static void an_oversized_frame_ends_the_connection(void **state)
{
    struct fixture *f = *state;
    char *bytes = mem_zalloc(WIRE_FRAME_BYTES_MAX + 1000);
    int never = -1, linger = 0;
    open_server(f, f->endpoint);
    void *socket = raw_connect(f, USER);
    zmq_setsockopt(socket, ZMQ_RECONNECT_IVL, &never, sizeof never);
    raw_send(socket, 1, 1, &hello);
    until(f, server_stats(f->server)->peers == 1);
    assert_true(zmq_send(socket, bytes, WIRE_FRAME_BYTES_MAX + 1000, 0) > 0);
    /* The server notices the loss when it sends next. */
    struct message table = {.tag = MSG_TABLE};
    until(f, server_send(f->server, 1, &table, &f->err) < 0);
    assert_int_equal(f->err.kind, ERR_CLOSED);
    until(f, f->gone == 1);
    assert_int_equal(f->received, 0);
    mem_free(bytes);
    zmq_setsockopt(socket, ZMQ_LINGER, &linger, sizeof linger);
    zmq_close(socket);
}

static void frames_of_several_parts_are_dropped(void **state)
{
    struct fixture *f = *state;
    open_server(f, f->endpoint);
    void *socket = raw_connect(f, USER);
    raw_send(socket, 1, 1, &hello);
    assert_int_equal(zmq_send(socket, "a", 1, ZMQ_SNDMORE), 1);
    assert_int_equal(zmq_send(socket, "b", 1, 0), 1);
    raw_send(socket, 1, 2, &query);
    until(f, f->received == 1);
    assert_int_equal(server_stats(f->server)->refused_frames, 1);
    zmq_close(socket);
}

static void revoking_a_key_acts_on_the_open_connection(void **state)
{
    struct fixture *f = *state;
    open_server(f, f->endpoint);
    open_peer(f, USER);
    until(f, f->ups == 1);
    f->revoked[USER] = true;
    assert_int_equal(peer_send(f->peer, &query, NULL, &f->err), 0);
    until(f, f->gone == 1);
    assert_int_equal(f->received, 0);
    assert_int_equal(server_stats(f->server)->peers, 0);
}

static void a_peer_comes_back_after_the_server_restarts(void **state)
{
    struct fixture *f = *state;
    struct arena arena = {0};
    open_server(f, f->endpoint);
    open_peer(f, WORKER);
    until(f, f->ups == 1);
    close_server(f);
    until(f, f->downs >= 1);
    assert_int_equal(peer_send(f->peer, &query, NULL, &f->err), -1);
    assert_int_equal(f->err.kind, ERR_CLOSED);
    open_server(f, f->endpoint);
    until(f, f->ups == 2);
    arena_done(&arena);
}

static void the_next_endpoint_is_tried_when_one_is_dead(void **state)
{
    struct fixture *f = *state;
    char living[300];
    open_server(f, f->endpoint);
    snprintf(living, sizeof living, "%s", f->bound);
    snprintf(f->bound, sizeof f->bound, "ipc://%s/nobody", f->folder);
    f->endpoints[1] = living;
    open_peer(f, USER);
    until(f, f->ups == 1);
    assert_true(f->downs >= 1);
}

static void a_full_queue_ends_the_session_and_the_peer_returns(void **state)
{
    struct fixture *f = *state;
    char text[60000];
    struct message done = {.tag = MSG_DONE, .u.done = {.request_seq = 1, .text = text}};
    memset(text, 'x', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    f->queue_messages = 10;
    open_server(f, f->endpoint);
    open_peer(f, WORKER);
    until(f, f->ups == 1);
    struct message beat = {.tag = MSG_HEARTBEAT, .u.heartbeat = {1, 2, 3}};
    assert_int_equal(peer_send(f->peer, &beat, NULL, &f->err), 0);
    until(f, f->received == 1);
    /* The peer's loop stands still while the server sends. */
    int sent = 0;
    while (server_send(f->server, f->peer_id, &done, &f->err) == 0)
        assert_true(sent++ < 100000);
    assert_int_equal(f->err.kind, ERR_LIMIT);
    assert_int_equal(server_stats(f->server)->queue_full, 1);
    assert_int_equal(server_send(f->server, f->peer_id, &done, &f->err), -1);
    assert_int_equal(f->err.kind, ERR_CLOSED);
    until(f, f->gone == 1 && f->answers == (unsigned)sent); /* what was queued arrives in order */
    /* The peer learns of it with its next message, and comes back. */
    assert_int_equal(peer_send(f->peer, &beat, NULL, &f->err), 0);
    until(f, f->ups == 2);
    assert_int_equal(f->received, 1);
}

static void a_peer_that_is_not_read_fills_its_own_queue_and_keeps_the_message(void **state)
{
    struct fixture *f = *state;
    struct rec_name_value pair = {"name", NULL};
    char *text = mem_zalloc(100001);
    memset(text, 'x', 100000);
    pair.value = text;
    struct message large = {.tag = MSG_QUERY, .u.query = {"q", &pair, 1, 0, ""}};
    f->queue_messages = 10;
    open_server(f, f->endpoint);
    f->silent = true;
    open_peer(f, USER);
    until(f, f->ups == 1);
    unsigned sent = 0;
    while (peer_send(f->peer, &large, NULL, &f->err) == 0)
        assert_true(sent++ < 100000);
    assert_int_equal(f->err.kind, ERR_LIMIT);
    assert_true(peer_is_up(f->peer));
    until(f, f->received == sent); /* nothing of what was accepted is lost */
    assert_int_equal(peer_send(f->peer, &large, NULL, &f->err), 0);
    mem_free(text);
}

/* Turns the server from the peer's loop, while peer_request blocks in that one. */
struct ticker {
    struct loop_timer timer;
    struct fixture *f;
};

/* ---- standing by, leading, and no longer leading -------------------------------------------- */

static void a_standby_welcomes_nobody_and_does_once_it_leads(void **state)
{
    struct fixture *f = *state;
    open_server(f, f->endpoint);
    server_stand_by(f->server, "this coordinator stands by", "");
    open_peer(f, USER);
    until(f, f->downs >= 2);
    assert_int_equal(f->ups, 0);
    assert_non_null(strstr(f->down_why.text, "this coordinator stands by"));
    server_lead(f->server, 6);
    until(f, f->ups == 1);
    assert_true(server_stats(f->server)->refused_standing_by >= 2);
}

/* Turns a second server too; it has the first one's key. */
static void turn_both(struct fixture *f, struct fixture *other)
{
    turn(f);
    assert_int_equal(loop_once(other->server_loop, 2, &other->err), 0);
}

static struct fixture *open_other(struct fixture *f, const char *name)
{
    struct fixture *other = mem_zalloc(sizeof *other);
    other->server_keys = f->server_keys;
    memcpy(other->keys, f->keys, sizeof other->keys);
    snprintf(other->endpoint, sizeof other->endpoint, "ipc://%s/%s", f->folder, name);
    open_server(other, other->endpoint);
    return other;
}

static void close_other(struct fixture *other)
{
    close_server(other);
    mem_free(other);
}

static void a_peer_follows_a_standby_to_a_leader_that_it_was_not_told_of(void **state)
{
    struct fixture *f = *state;
    struct fixture *leader = open_other(f, "leader");
    char where[400];
    open_server(f, f->endpoint);
    snprintf(where, sizeof where, "udp://nonsense,%s", leader->bound);
    server_stand_by(f->server, "this coordinator stands by", where);
    open_peer(f, USER);
    uint64_t limit_ms = clock_steady_ms() + PATIENCE_MS;
    while (f->ups == 0 && clock_steady_ms() < limit_ms)
        turn_both(f, leader);
    assert_int_equal(f->ups, 1);
    assert_string_equal(peer_endpoint(f->peer), leader->bound);
    peer_close(f->peer);
    f->peer = NULL;
    close_other(leader);
}

static void standbys_that_send_a_peer_in_a_circle_do_not_keep_it_from_its_list(void **state)
{
    struct fixture *f = *state;
    struct fixture *other = open_other(f, "other"), *leader = open_other(f, "leader");
    open_server(f, f->endpoint);
    server_stand_by(f->server, "not I", other->bound);
    server_stand_by(other->server, "nor I", f->bound);
    f->endpoints[1] = leader->bound;
    open_peer(f, USER);
    uint64_t limit_ms = clock_steady_ms() + PATIENCE_MS;
    while (f->ups == 0 && clock_steady_ms() < limit_ms) {
        turn_both(f, other);
        assert_int_equal(loop_once(leader->server_loop, 2, &leader->err), 0);
    }
    assert_int_equal(f->ups, 1);
    assert_string_equal(peer_endpoint(f->peer), leader->bound);
    peer_close(f->peer);
    f->peer = NULL;
    close_other(other);
    close_other(leader);
}

static void a_leader_that_steps_down_ends_every_session(void **state)
{
    struct fixture *f = *state;
    open_server(f, f->endpoint);
    open_peer(f, WORKER);
    until(f, f->ups == 1);
    server_stand_by(f->server, "another coordinator leads", "");
    until(f, f->downs >= 1 && f->gone == 1);
    assert_non_null(strstr(f->down_why.text, "another coordinator leads"));
    assert_int_equal(server_stats(f->server)->peers, 0);
    assert_int_equal(server_send(f->server, f->peer_id, &query, &f->err), -1);
    server_lead(f->server, 7);
    until(f, f->ups == 2);
}

static void a_server_without_its_lease_says_nothing(void **state)
{
    struct fixture *f = *state;
    open_server(f, f->endpoint);
    open_peer(f, USER);
    until(f, f->ups == 1);
    f->lease_over = true;
    assert_int_equal(peer_send(f->peer, &query, NULL, &f->err), 0);
    until(f, f->gone == 1); /* the session that would have got the answer has ended */
    assert_int_equal(f->answers, 0);
    assert_true(server_stats(f->server)->refused_lease >= 1);
    f->lease_over = false;
    assert_int_equal(peer_send(f->peer, &query, NULL, &f->err), 0);
    until(f, f->ups == 2);
}

static void a_leader_of_a_passed_epoch_is_not_believed(void **state)
{
    struct fixture *f = *state;
    open_server(f, f->endpoint);
    open_peer(f, WORKER);
    peer_set_epoch(f->peer, 6); /* the server leads epoch 5 */
    until(f, f->downs >= 1);
    assert_int_equal(f->ups, 0);
    assert_non_null(strstr(f->down_why.text, "epoch 5 is refused"));
    server_lead(f->server, 6);
    until(f, f->ups == 1);
}

static void a_message_of_a_newer_version_is_refused_and_the_session_goes_on(void **state)
{
    struct fixture *f = *state;
    struct arena arena = {0};
    struct message answer;
    open_server(f, f->endpoint);
    void *raw = raw_connect(f, USER);
    raw_send(raw, 9, 1, &hello);
    until(f, raw_receive(raw, &arena, &answer));
    assert_int_equal(answer.tag, MSG_WELCOME);
    raw_send_unknown(raw, 9, 2);
    until(f, raw_receive(raw, &arena, &answer));
    assert_int_equal(answer.tag, MSG_REFUSED);
    assert_int_equal(answer.u.refused.request_seq, 2);
    assert_non_null(strstr(answer.u.refused.text, "message number 9999"));
    raw_send(raw, 9, 3, &query);
    until(f, raw_receive(raw, &arena, &answer));
    assert_int_equal(answer.tag, MSG_DONE);
    zmq_close(raw);
    arena_done(&arena);
}

static void tick(void *user)
{
    struct ticker *ticker = user;
    struct err err;
    assert_int_equal(loop_once(ticker->f->server_loop, 1, &err), 0);
    loop_timer_start(ticker->f->loop, &ticker->timer, 1);
}

static void a_request_is_answered_by_its_number(void **state)
{
    struct fixture *f = *state;
    struct arena arena = {0};
    struct message reply;
    struct ticker ticker = {{.fire = tick, .user = &ticker}, f};
    open_server(f, f->endpoint);
    open_peer(f, USER);
    loop_timer_start(f->loop, &ticker.timer, 1);
    for (int i = 0; i < 3; i++) {
        if (peer_request(f->peer, &query, true, PATIENCE_MS, &arena, &reply, &f->err) < 0)
            fail_msg("%s", f->err.text);
        assert_int_equal(reply.tag, MSG_DONE);
        assert_string_equal(reply.u.done.text, "status");
    }
    assert_int_equal(f->answers, 0); /* answers of requests do not come twice */
    loop_timer_stop(&ticker.timer);
    arena_done(&arena);
}

/* The server has the request, and goes away before it answers. */
static void close_after_request(void *user)
{
    struct ticker *ticker = user;
    struct err err;
    struct fixture *f = ticker->f;
    if (f->server && f->received == 0)
        assert_int_equal(loop_once(f->server_loop, 1, &err), 0);
    else if (f->server)
        close_server(f);
    loop_timer_start(f->loop, &ticker->timer, 1);
}

static void a_request_that_must_not_be_repeated_fails_when_its_answer_is_lost(void **state)
{
    struct fixture *f = *state;
    struct arena arena = {0};
    struct message reply;
    struct ticker ticker = {{.fire = close_after_request, .user = &ticker}, f};
    f->silent = true;
    open_server(f, f->endpoint);
    open_peer(f, USER);
    loop_timer_start(f->loop, &ticker.timer, 1);
    assert_int_equal(peer_request(f->peer, &query, false, PATIENCE_MS, &arena, &reply, &f->err),
                     -1);
    assert_int_equal(f->err.kind, ERR_CLOSED);
    assert_non_null(strstr(f->err.text, "whether the request was carried out is not known"));
    assert_int_equal(f->received, 1);
    loop_timer_stop(&ticker.timer);
    arena_done(&arena);
}

static void a_request_without_a_coordinator_times_out_with_the_reason(void **state)
{
    struct fixture *f = *state;
    struct arena arena = {0};
    struct message reply;
    snprintf(f->bound, sizeof f->bound, "ipc://%s/nobody", f->folder);
    open_peer(f, USER);
    assert_int_equal(peer_request(f->peer, &query, true, 200, &arena, &reply, &f->err), -1);
    assert_int_equal(f->err.kind, ERR_TIMEOUT);
    assert_non_null(strstr(f->err.text, f->bound));
    arena_done(&arena);
}

static void a_server_refuses_a_taken_address_and_a_wrong_one(void **state)
{
    struct fixture *f = *state;
    const char *endpoint;
    struct server_config config = {.endpoints = &endpoint,
                                   .endpoint_count = 1,
                                   .keys = &f->server_keys,
                                   .user = f,
                                   .principal_find = find_principal,
                                   .on_message = server_message};
    struct server *second = NULL;
    open_server(f, "tcp://127.0.0.1:*");
    endpoint = f->bound;
    assert_int_equal(server_open(f->loop, &config, &second, &f->err), -1);
    assert_non_null(strstr(f->err.text, f->bound));
    endpoint = "carrier-pigeon://loft";
    assert_int_equal(server_open(f->loop, &config, &second, &f->err), -1);
    assert_int_equal(f->err.kind, ERR_INVALID);
    assert_null(second);
}

static void a_wrong_address_to_connect_to_is_refused_at_once(void **state)
{
    struct fixture *f = *state;
    const char *endpoint = "nonsense";
    struct peer_config config = {.endpoints = &endpoint,
                                 .endpoint_count = 1,
                                 .server_key = f->server_keys.public_key,
                                 .keys = &f->keys[USER],
                                 .program = "test",
                                 .version = "1"};
    assert_int_equal(peer_open(f->loop, &config, &f->peer, &f->err), -1);
    assert_int_equal(f->err.kind, ERR_INVALID);
    assert_non_null(strstr(f->err.text, "tcp://HOST:PORT"));
    config.server_key = "short";
    assert_int_equal(peer_open(f->loop, &config, &f->peer, &f->err), -1);
    assert_int_equal(f->err.kind, ERR_INVALID);
    assert_null(f->peer);
}

/* A hang, where there is one, shows once in some thousands. */
static void a_peer_is_closed_at_any_moment_of_a_connection_that_fails(void **state)
{
    struct fixture *f = *state;
    struct rng rng;
    rng_init(&rng, 17);
    snprintf(f->bound, sizeof f->bound, "tcp://127.0.0.1:9"); /* the port of nobody */
    for (int i = 0; i < 5000; i++) {
        struct timespec wait = {.tv_nsec = (long)rng_below(&rng, 300000)};
        open_peer(f, USER);
        nanosleep(&wait, NULL);
        peer_close(f->peer);
        f->peer = NULL;
    }
    assert_int_equal(f->ups, 0);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(an_enrolled_peer_is_welcomed_by_name),
        T(messages_arrive_with_the_authenticated_principal),
        T(an_unenrolled_key_gets_nothing),
        T(a_stranger_hears_nothing_and_gives_up),
        T(plain_connections_without_curve_get_nothing),
        T(a_wrong_server_key_is_noticed),
        T(replayed_frames_are_dropped),
        T(a_session_replayed_on_another_connection_is_dropped),
        T(a_role_that_may_not_send_is_refused),
        T(messages_of_the_coordinator_are_refused_from_anyone),
        T(a_damaged_frame_is_answered_and_changes_nothing),
        T(an_oversized_frame_ends_the_connection),
        T(frames_of_several_parts_are_dropped),
        T(revoking_a_key_acts_on_the_open_connection),
        T(a_peer_comes_back_after_the_server_restarts),
        T(the_next_endpoint_is_tried_when_one_is_dead),
        T(a_standby_welcomes_nobody_and_does_once_it_leads),
        T(a_peer_follows_a_standby_to_a_leader_that_it_was_not_told_of),
        T(standbys_that_send_a_peer_in_a_circle_do_not_keep_it_from_its_list),
        T(a_leader_that_steps_down_ends_every_session),
        T(a_server_without_its_lease_says_nothing),
        T(a_leader_of_a_passed_epoch_is_not_believed),
        T(a_message_of_a_newer_version_is_refused_and_the_session_goes_on),
        T(a_full_queue_ends_the_session_and_the_peer_returns),
        T(a_peer_that_is_not_read_fills_its_own_queue_and_keeps_the_message),
        T(a_request_is_answered_by_its_number),
        T(a_request_that_must_not_be_repeated_fails_when_its_answer_is_lost),
        T(a_request_without_a_coordinator_times_out_with_the_reason),
        T(a_server_refuses_a_taken_address_and_a_wrong_one),
        T(a_wrong_address_to_connect_to_is_refused_at_once),
        T(a_peer_is_closed_at_any_moment_of_a_connection_that_fails),
    };
#undef T
    return cmocka_run_group_tests(tests, NULL, NULL);
}
