/* wire.h - messages as C structs, and the one codec between them and bytes.
 *
 * Everything here is made from messages.def: struct rec_<record>, struct msg_<name>,
 * enum msg_tag and struct message. A frame is one MessagePack map
 *   {1: protocol, 2: epoch, 3: session, 4: seq, 5: ack, 6: tag, 7: body}
 * and the body a map of the message's fields. See limits.h for the bounds and README.md for
 * the rules that let neighbouring protocol versions talk. */
#ifndef ATHANOR_WIRE_H
#define ATHANOR_WIRE_H

#include "common/base/arena.h"
#include "common/base/buf.h"
#include "common/base/hash.h"
#include "common/base/kinds.h"
#include "common/wire/limits.h"

/* Foreign or large text: may hold zero bytes. A decoded one is terminated behind its end. */
struct wire_bytes {
    const char *bytes; /* may be NULL when length is 0 */
    size_t length;
};

/* C types of the field types. str: UTF-8 without zero bytes; NULL is sent as "". A decoded str
 * is never NULL. A missing OPTIONAL hash is all zeros. */
#define WIRE_C_u64   uint64_t
#define WIRE_C_i64   int64_t
#define WIRE_C_f64   double
#define WIRE_C_flag  bool
#define WIRE_C_str   const char *
#define WIRE_C_bytes struct wire_bytes
#define WIRE_C_hash  struct hash

/* struct rec_<record> and struct msg_<name> */
#define FIELD(key, type, name)    WIRE_C_##type name;
#define OPTIONAL(key, type, name) WIRE_C_##type name;
#define LIST(key, record, name)                                                                    \
    struct rec_##record *name;                                                                     \
    size_t name##_count;
#define RECORD(record, ...)                                                                        \
    struct rec_##record {                                                                          \
        __VA_ARGS__                                                                                \
    };
#define MESSAGE(number, TAG, message, sender, ...)                                                 \
    struct msg_##message {                                                                         \
        __VA_ARGS__                                                                                \
    };
#define RETIRED(number)
#include "common/wire/messages.def"
#undef RECORD
#undef MESSAGE

enum msg_tag {
#define RECORD(record, ...)
#define MESSAGE(number, TAG, message, sender, ...) MSG_##TAG = number,
#include "common/wire/messages.def"
#undef MESSAGE
    MSG_END,
};

/* A message of any kind: switch on tag (-Wswitch demands every case), read u.<name>. */
struct message {
    enum msg_tag tag;
    union {
#define MESSAGE(number, TAG, message, sender, ...) struct msg_##message message;
#include "common/wire/messages.def"
#undef MESSAGE
    } u;
};
#undef RECORD
#undef FIELD
#undef OPTIONAL
#undef LIST
#undef RETIRED

struct envelope {
    uint64_t protocol; /* WIRE_PROTOCOL of the sender; wire_encode fills it in */
    uint64_t epoch;    /* leader epoch the sender believes in; 0: none yet */
    uint64_t session;  /* random, drawn for each connection and direction */
    uint64_t seq;      /* from 1, strictly increasing within the session */
    uint64_t ack;      /* newest seq received from the other side, 0: none */
};

/* Who may send a message: the sender column of messages.def. */
enum wire_sender {
    SENDER_ANY = 1,
    SENDER_MEMBER, /* CLIENT or WORKER */
    SENDER_COORDINATOR,
    SENDER_CLIENT,
    SENDER_WORKER,
    SENDER_NEIGHBOUR, /* either end of a link between nodes */
    SENDER_TOKEN,     /* whoever has a one-time token */
};

/* Appends one frame to `out`. Fails without a trace in `out` when the frame would be refused on
 * arrival: ERR_LIMIT (too large, too many items), ERR_INVALID (text that is not UTF-8). */
int wire_encode(const struct envelope *envelope, const struct message *message, struct buf *out,
                struct err *err) WARN_UNUSED;

/* Reads one frame. Texts, bytes and lists live in `arena`, nothing points into `bytes`.
 * Errors: ERR_PROTOCOL (truncated, damaged, wrong type, missing or doubled key, trailing bytes,
 * protocol not within one of ours), ERR_LIMIT (a bound of limits.h), ERR_NOT_FOUND (a sound frame
 * whose message a newer version has added: *out_envelope is set, so that it can be answered or
 * passed over). On other failures the outputs are untouched; the arena may have grown. */
int wire_decode(const void *bytes, size_t length, struct arena *arena,
                struct envelope *out_envelope, struct message *out_message,
                struct err *err) WARN_UNUSED;

const char *msg_name(enum msg_tag tag); /* "submit"; "unknown" for a number that is none */
enum wire_sender msg_sender(enum msg_tag tag);
/* Whether a peer of this role may send the message to the coordinator: CLIENT needs user,
 * operator or admin, or pilot for QUERY and KEY_CHANGE, WORKER and NEIGHBOUR need worker, TOKEN
 * needs token, ANY all, COORDINATOR nobody. */
bool msg_allowed(enum msg_tag tag, enum role role);
/* The request_seq of an answer; false for messages without that field. */
bool msg_request_seq(const struct message *message, uint64_t *out_seq);

#endif
