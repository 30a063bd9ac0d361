/* sealed.h - sealed boxes for the holders of CURVE keys, and memory for what is in them.
 *
 * A value is encrypted to a public key (libsodium's crypto_box_seal: X25519 with a key pair made
 * for this box, XSalsa20-Poly1305), so that no queue, buffer or log on its way holds it in clear,
 * even where the connection's own encryption has ended. CURVE keys are X25519 keys and serve for
 * both. */
#ifndef ATHANOR_SEALED_H
#define ATHANOR_SEALED_H

#include "common/base/buf.h"
#include "common/net/keys.h"

#define SEALED_EXTRA_BYTES 48u /* a box is this much longer than its value */

/* A value in clear. The memory is locked, between guard pages, left out of core dumps and zeroed
 * when it is freed, as far as the system allows (sodium_malloc). */
struct clear_value {
    unsigned char *bytes; /* NULL: none */
    size_t length;
};

/* Room for a value, to be filled. Out of memory, or of what may be locked: ERR_LIMIT. */
int clear_value_new(size_t length, struct clear_value *out, struct err *err) WARN_UNUSED;
void clear_value_done(struct clear_value *value);

/* Appends the box. Errors: ERR_INVALID (the key). */
int sealed_make(const char *public_key, const struct clear_value *value, struct buf *out,
                struct err *err) WARN_UNUSED;
/* Errors: ERR_PROTOCOL: it is no box for these keys, or was changed; ERR_INVALID (the keys). */
int sealed_open(const struct keypair *keys, const void *box, size_t length, struct clear_value *out,
                struct err *err) WARN_UNUSED;

#endif
