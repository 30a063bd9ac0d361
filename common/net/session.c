/* session.c - sequence numbers and socket options; see session.h. */
#include "common/net/session.h"

#include "common/net/keys.h"

#include <zmq.h>

void session_start(struct session *session)
{
    *session = (struct session){0};
    while (session->own == 0)
        session->own = random_u64();
}

bool session_accept(struct session *session, const struct envelope *envelope)
{
    if (envelope->session == 0)
        return false;
    if (session->foreign == 0)
        session->foreign = envelope->session;
    if (envelope->session != session->foreign || envelope->seq <= session->received)
        return false;
    session->received = envelope->seq;
    return true;
}

int session_encode(const struct session *session, uint64_t epoch, const struct message *message,
                   struct buf *frame, uint64_t *out_seq, struct err *err)
{
    struct envelope envelope = {.epoch = epoch,
                                .session = session->own,
                                .seq = session->sent + 1,
                                .ack = session->received};
    buf_clear(frame);
    if (wire_encode(&envelope, message, frame, err) < 0)
        return -1;
    *out_seq = envelope.seq;
    return 0;
}

static int set_int(void *socket, int option, int value)
{
    return zmq_setsockopt(socket, option, &value, sizeof value);
}

int session_configure(void *socket, const struct keypair *keys, int queue_messages,
                      const struct pings *pings, struct err *err)
{
    int64_t frame_bytes = (int64_t)WIRE_FRAME_BYTES_MAX;
    if (zmq_setsockopt(socket, ZMQ_MAXMSGSIZE, &frame_bytes, sizeof frame_bytes) < 0 ||
        set_int(socket, ZMQ_SNDHWM, queue_messages) < 0 ||
        set_int(socket, ZMQ_RCVHWM, queue_messages) < 0 || set_int(socket, ZMQ_IPV6, 1) < 0 ||
        set_int(socket, ZMQ_HANDSHAKE_IVL, NET_PING_TIMEOUT_MS) < 0 ||
        set_int(socket, ZMQ_HEARTBEAT_IVL, pings->every_ms) < 0 ||
        set_int(socket, ZMQ_HEARTBEAT_TIMEOUT, pings->timeout_ms) < 0 ||
        set_int(socket, ZMQ_HEARTBEAT_TTL, NET_PING_TIMEOUT_MS) < 0)
        return err_errno(err, "configuring a socket");
    if (zmq_setsockopt(socket, ZMQ_CURVE_PUBLICKEY, keys->public_key, KEY_TEXT_SIZE) < 0 ||
        zmq_setsockopt(socket, ZMQ_CURVE_SECRETKEY, keys->secret_key, KEY_TEXT_SIZE) < 0)
        return err_errno(err, "setting the key of a socket");
    return 0;
}
