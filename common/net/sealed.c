/* sealed.c - see sealed.h. */
#include "common/net/sealed.h"

#include "common/base/mem.h"

#include <sodium.h>
#include <string.h>
#include <zmq.h>

#define KEY_BYTES 32u

_Static_assert(SEALED_EXTRA_BYTES == crypto_box_SEALBYTES, "sealed.h states libsodium's figure");
_Static_assert(KEY_BYTES == crypto_box_PUBLICKEYBYTES && KEY_BYTES == crypto_box_SECRETKEYBYTES,
              "CURVE keys and libsodium's are the same");

int clear_value_new(size_t length, struct clear_value *out, struct err *err)
{
    CHECK(sodium_init() >= 0);
    unsigned char *bytes = sodium_malloc(length ? length : 1);
    if (!bytes)
        return err_set(err, ERR_LIMIT, "there is no memory for a secret of %zu bytes", length);
    *out = (struct clear_value){bytes, length};
    return 0;
}

void clear_value_done(struct clear_value *value)
{
    sodium_free(value->bytes); /* zeroes it; NULL is nothing */
    *value = (struct clear_value){0};
}

static int key_decode(const char *text, uint8_t out[KEY_BYTES], struct err *err)
{
    if (public_key_check(text, err) < 0)
        return -1;
    CHECK(zmq_z85_decode(out, text)); /* checked a moment ago */
    return 0;
}

int sealed_make(const char *public_key, const struct clear_value *value, struct buf *out,
                struct err *err)
{
    uint8_t key[KEY_BYTES];
    CHECK(sodium_init() >= 0);
    if (key_decode(public_key, key, err) < 0)
        return -1;
    size_t length = value->length + SEALED_EXTRA_BYTES;
    unsigned char *box = mem_array(length, 1);
    int rc = crypto_box_seal(box, value->bytes, value->length, key);
    if (rc == 0)
        buf_add(out, box, length);
    mem_free(box);
    return rc < 0 ? err_set(err, ERR_INVALID, "nothing can be encrypted to this key") : 0;
}

int sealed_open(const struct keypair *keys, const void *box, size_t length, struct clear_value *out,
                struct err *err)
{
    uint8_t public_key[KEY_BYTES], secret_key[KEY_BYTES];
    struct clear_value value = {0};
    if (length < SEALED_EXTRA_BYTES)
        return err_set(err, ERR_PROTOCOL, "a sealed box has at least %u bytes, this one %zu",
                       SEALED_EXTRA_BYTES, length);
    if (key_decode(keys->public_key, public_key, err) < 0 ||
        key_decode(keys->secret_key, secret_key, err) < 0 ||
        clear_value_new(length - SEALED_EXTRA_BYTES, &value, err) < 0)
        return -1;
    int rc = crypto_box_seal_open(value.bytes, box, length, public_key, secret_key);
    sodium_memzero(secret_key, sizeof secret_key);
    if (rc < 0) {
        clear_value_done(&value);
        return err_set(err, ERR_PROTOCOL, "the sealed box is not for this key, or was changed");
    }
    *out = value;
    return 0;
}
