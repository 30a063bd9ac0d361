/* hash.c - libsodium's hashes under our names; see hash.h. */
#include "common/base/hash.h"

#include <sodium.h>
#include <stdio.h>
#include <string.h>

_Static_assert(sizeof(crypto_generichash_state) <= sizeof(struct hash_stream), "state fits");
_Static_assert(HASH_BYTES == crypto_generichash_BYTES, "BLAKE2b-256");
_Static_assert(HASH_BYTES == crypto_hash_sha256_BYTES, "SHA-256");

static crypto_generichash_state *stream_state(struct hash_stream *stream)
{
    return (crypto_generichash_state *)(void *)stream->state;
}

void hash_start(struct hash_stream *stream)
{
    CHECK(crypto_generichash_init(stream_state(stream), NULL, 0, HASH_BYTES) == 0);
}

void hash_add(struct hash_stream *stream, const void *bytes, size_t length)
{
    CHECK(crypto_generichash_update(stream_state(stream), bytes, length) == 0);
}

void hash_end(struct hash_stream *stream, struct hash *out)
{
    CHECK(crypto_generichash_final(stream_state(stream), out->bytes, HASH_BYTES) == 0);
}

void hash_bytes(const void *bytes, size_t length, struct hash *out)
{
    struct hash_stream stream;
    hash_start(&stream);
    hash_add(&stream, bytes, length);
    hash_end(&stream, out);
}

int hash_file(const char *path, struct hash *out, struct err *err)
{
    FILE *file = fopen(path, "rbe");
    if (!file)
        return err_errno(err, "read '%s'", path);
    struct hash_stream stream;
    hash_start(&stream);
    char chunk[65536];
    size_t got;
    while ((got = fread(chunk, 1, sizeof chunk, file)) > 0)
        hash_add(&stream, chunk, got);
    int failed = ferror(file);
    fclose(file);
    if (failed)
        return err_set(err, ERR_IO, "read '%s' failed", path);
    hash_end(&stream, out);
    return 0;
}

void hash_sha256(const void *bytes, size_t length, struct hash *out)
{
    CHECK(crypto_hash_sha256(out->bytes, bytes, length) == 0);
}

void hash_to_hex(const struct hash *hash, char out[HASH_HEX_SIZE])
{
    sodium_bin2hex(out, HASH_HEX_SIZE, hash->bytes, HASH_BYTES);
}

int hash_from_hex(const char *hex, struct hash *out, struct err *err)
{
    size_t length = 0;
    const char *end = NULL;
    struct hash hash;
    if (sodium_hex2bin(hash.bytes, HASH_BYTES, hex, strlen(hex), NULL, &length, &end) != 0 ||
        length != HASH_BYTES || *end != '\0')
        return err_set(err, ERR_INVALID, "'%.80s' is not a hash, expected %d hex digits", hex,
                       2 * HASH_BYTES);
    *out = hash;
    return 0;
}

bool hash_equal(const struct hash *a, const struct hash *b)
{
    return memcmp(a->bytes, b->bytes, HASH_BYTES) == 0;
}

bool hash_is_zero(const struct hash *hash)
{
    static const struct hash zero;
    return hash_equal(hash, &zero);
}

void random_bytes(void *out, size_t length)
{
    CHECK(sodium_init() >= 0);
    randombytes_buf(out, length);
}

uint64_t random_u64(void)
{
    uint64_t value;
    random_bytes(&value, sizeof value);
    return value;
}
