/* hash.h - content hashes (BLAKE2b-256 and SHA-256 of libsodium), and hex texts.
 *
 * One place, because wire, checkpoints, shards and code archives must agree. */
#ifndef ATHANOR_HASH_H
#define ATHANOR_HASH_H

#include "common/base/err.h"

#define HASH_BYTES 32
#define HASH_HEX_SIZE (2 * HASH_BYTES + 1) /* terminated */

struct hash {
    uint8_t bytes[HASH_BYTES];
};

struct hash_stream {
    _Alignas(64) unsigned char state[384]; /* crypto_generichash_state; size CHECKed in hash.c */
};

void hash_bytes(const void *bytes, size_t length, struct hash *out); /* BLAKE2b-256 */
void hash_start(struct hash_stream *stream);
void hash_add(struct hash_stream *stream, const void *bytes, size_t length);
void hash_end(struct hash_stream *stream, struct hash *out);
/* Of a regular file's content. Errors: ERR_NOT_FOUND, ERR_IO. */
int hash_file(const char *path, struct hash *out, struct err *err) WARN_UNUSED;
void hash_sha256(const void *bytes, size_t length, struct hash *out);

void hash_to_hex(const struct hash *hash, char out[HASH_HEX_SIZE]);
int hash_from_hex(const char *hex, struct hash *out, struct err *err) WARN_UNUSED;
bool hash_equal(const struct hash *a, const struct hash *b);
bool hash_is_zero(const struct hash *hash); /* as one that was left out on the wire */

/* Fills with unpredictable bytes (keys, tokens, session numbers). */
void random_bytes(void *out, size_t length);
uint64_t random_u64(void);

#endif
