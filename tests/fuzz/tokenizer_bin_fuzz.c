/* link: engine-data */
/* tokenizer_bin_fuzz.c - an accepted tokenizer.bin of llama2.c survives its own tokenizer.json, and
 * keeps texts if it has a piece for spaces: else their mark comes back, as its bytes. The first two
 * bytes are the number of the model's tokens. */
#include "common/base/mem.h"
#include "worker/engine/data/tokenizer.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
    static const char text[] = "it's  two\n \xC3\xA9\xF0\x9F\xA6\x9C \xFF ab <0x41>";
    struct tokenizer *tokenizer, *again;
    struct token_list ids = {0};
    struct buf back = {0};
    struct err err;

    if (length < 2 || tokenizer_parse_llama2c(bytes + 2, length - 2,
                                              (uint32_t)bytes[0] | (uint32_t)bytes[1] << 8,
                                              &tokenizer, &err) < 0)
        return 0;
    tokenizer_encode(tokenizer, text, strlen(text), &ids);
    tokenizer_decode(tokenizer, ids.ids, ids.count, &back);
    if (tokenizer_find(tokenizer, "\xE2\x96\x81", 3) < TOKENIZER_VOCAB_MAX)
        CHECK(back.length == strlen(text) && memcmp(back.bytes, text, back.length) == 0);
    char *own = tokenizer_text(tokenizer);
    CHECK(tokenizer_parse(own, strlen(own), &again, &err) == 0);
    CHECK(hash_equal(tokenizer_identity(tokenizer), tokenizer_identity(again)));
    mem_free(own);
    token_list_done(&ids);
    buf_done(&back);
    tokenizer_free(again);
    tokenizer_free(tokenizer);
    return 0;
}
