/* link: engine-data */
/* tokenizer_fuzz.c - an accepted tokenizer.json encodes without loss and survives its own text. */
#include "common/base/mem.h"
#include "worker/engine/data/tokenizer.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length);

static void round_trip(const struct tokenizer *tokenizer)
{
    static const char text[] = "it's  two birds\n and 42 <|endoftext|> \xC3\xA9\xF0\x9F\xA6\x9C";
    struct token_list ids = {0};
    struct buf back = {0};
    tokenizer_encode(tokenizer, text, strlen(text), &ids);
    tokenizer_encode_special(tokenizer, text, strlen(text), &ids);
    for (size_t i = 0; i < ids.count; i++)
        CHECK(ids.ids[i] < tokenizer_vocab_size(tokenizer));
    tokenizer_decode(tokenizer, ids.ids, ids.count, &back);
    if (tokenizer_kind(tokenizer) == TOKENIZER_BYTES)
        CHECK(back.length == 2 * strlen(text)); /* NFC leaves this text as it is */
    token_list_done(&ids);
    buf_done(&back);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
    struct err err;
    struct tokenizer *tokenizer, *again;
    if (tokenizer_parse((const char *)bytes, length, &tokenizer, &err) < 0)
        return 0;
    round_trip(tokenizer);
    char *text = tokenizer_text(tokenizer);
    CHECK(tokenizer_parse(text, strlen(text), &again, &err) == 0);
    CHECK(hash_equal(tokenizer_identity(tokenizer), tokenizer_identity(again)));
    mem_free(text);
    tokenizer_free(again);
    tokenizer_free(tokenizer);
    return 0;
}
