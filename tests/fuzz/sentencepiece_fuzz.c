/* link: engine-data */
/* sentencepiece_fuzz.c - an accepted .model encodes within its vocabulary and survives its text. */
#include "common/base/mem.h"
#include "worker/engine/data/tokenizer.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
    static const char text[] = " it's  two\n \xC3\xA9\xF0\x9F\xA6\x9C \xFF ab";
    struct tokenizer *tokenizer, *again;
    struct token_list ids = {0};
    struct buf back = {0};
    struct err err;
    if (tokenizer_parse_sentencepiece(bytes, length, &tokenizer, &err) < 0)
        return 0;
    tokenizer_encode_special(tokenizer, text, strlen(text), &ids);
    for (size_t i = 0; i < ids.count; i++)
        CHECK(ids.ids[i] < tokenizer_vocab_size(tokenizer));
    tokenizer_decode(tokenizer, ids.ids, ids.count, &back);
    char *own = tokenizer_text(tokenizer);
    CHECK(tokenizer_parse(own, strlen(own), &again, &err) == 0);
    mem_free(own);
    token_list_done(&ids);
    buf_done(&back);
    tokenizer_free(again);
    tokenizer_free(tokenizer);
    return 0;
}
