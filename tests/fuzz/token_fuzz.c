/* link: common-net */
/* token_fuzz.c - any text parses to a token that writes itself, or is refused. */
#include "common/net/token.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
    struct token token, again;
    struct buf text = {0};
    struct err err;
    if (token_parse((const char *)bytes, length, &token, &err) == 0) {
        CHECK(public_key_check(token.server_key, &err) == 0);
        token_write(&token, &text);
        CHECK(token_parse(text.bytes, text.length, &again, &err) == 0);
        CHECK(memcmp(&token, &again, sizeof token) == 0);
    } else {
        CHECK(err.kind == ERR_INVALID || err.kind == ERR_LIMIT);
    }
    buf_done(&text);
    return 0;
}
