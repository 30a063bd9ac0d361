/* session.h - sequence numbers of both directions of one connection; shared by peer and server. */
#ifndef ATHANOR_NET_SESSION_H
#define ATHANOR_NET_SESSION_H

#include "common/wire/wire.h"

struct session {
    uint64_t own;      /* random number that our frames carry */
    uint64_t sent;     /* seq of our newest frame */
    uint64_t foreign;  /* what the other side's frames carry; 0 before the first */
    uint64_t received; /* seq of its newest frame */
};

void session_start(struct session *session);
/* Whether a frame is new: of the session that the first frame began, with a higher seq than all
 * before. Takes it over if so. */
bool session_accept(struct session *session, const struct envelope *envelope);
/* Encodes with the next envelope; `frame` is cleared first. The number counts as used only when
 * the caller sets session->sent to *out_seq after the frame left. */
int session_encode(const struct session *session, uint64_t epoch, const struct message *message,
                   struct buf *frame, uint64_t *out_seq, struct err *err) WARN_UNUSED;

/* Of a connection that has nowhere else to go. */
#define NET_PING_MS         2000
#define NET_PING_TIMEOUT_MS 10000

/* How a socket notices that the other side is gone. */
struct pings {
    int every_ms, timeout_ms;
};

/* Options that both kinds of sockets share: CURVE keys, pings, frame limit, queue lengths. */
struct keypair;
int session_configure(void *socket, const struct keypair *keys, int queue_messages,
                      const struct pings *pings, struct err *err) WARN_UNUSED;

#endif
