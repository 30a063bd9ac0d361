/* link: common-net */
/* keyfile_fuzz.c - any text parses to keys that pass the check, or is refused. */
#include "common/net/keys.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
    struct keypair keys;
    struct err err;
    if (keypair_parse((const char *)bytes, length, &keys, &err) == 0) {
        CHECK(public_key_check(keys.public_key, &err) == 0);
        CHECK(!keys.secret_key[0] || public_key_check(keys.secret_key, &err) == 0);
    } else {
        CHECK(err.kind == ERR_INVALID || err.kind == ERR_LIMIT);
    }
    return 0;
}
