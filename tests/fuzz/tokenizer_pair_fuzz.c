/* link: engine-data */
/* tokenizer_pair_fuzz.c - vocab.json, merges.txt and the files beside them, form feeds between:
 * what is accepted encodes within its vocabulary and survives its own text. */
#include "common/base/mem.h"
#include "worker/engine/data/tokenizer_parts.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length);

/* The next part (mem_free), as a text with an end. */
static char *next_part(const char **at, const char *end, size_t *out_length)
{
    const char *start = *at, *stop = memchr(start, '\f', (size_t)(end - start));
    *at = stop ? stop + 1 : end;
    *out_length = (size_t)((stop ? stop : end) - start);
    return mem_strndup(start, *out_length);
}

static void check(const struct tokenizer *tokenizer, const struct tokenizer_sides *sides)
{
    static const char text[] = "it's  two birds\n 42 <|endoftext|></s> \xC3\xA9\xF0\x9F\xA6\x9C";
    struct token_list ids = {0}, framed = {0}, types = {0};
    struct tokenizer *again;
    struct err err;
    tokenizer_encode_special(tokenizer, text, strlen(text), &ids);
    tokenizer_frame(tokenizer, &ids, &ids, &framed, &types);
    for (size_t i = 0; i < framed.count; i++)
        CHECK(framed.ids[i] < tokenizer_vocab_size(tokenizer));
    uint32_t begin = tokenizer_begin_of_text(tokenizer), end = tokenizer_end_of_text(tokenizer);
    CHECK(begin < tokenizer_vocab_size(tokenizer) || begin == TOKENIZER_VOCAB_MAX);
    CHECK(end < tokenizer_vocab_size(tokenizer) || end == TOKENIZER_VOCAB_MAX);
    char *json = tokenizer_text(tokenizer);
    CHECK(tokenizer_parse(json, strlen(json), &again, &err) == 0);
    CHECK(hash_equal(tokenizer_identity(tokenizer), tokenizer_identity(again)));
    tokenizer_take_sides(again, sides);
    mem_free(json);
    tokenizer_free(again);
    token_list_done(&ids);
    token_list_done(&framed);
    token_list_done(&types);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
    const char *at = (const char *)bytes, *end = at + length;
    struct tokenizer_text pair[2] = {{"vocab.json", NULL, 0}, {"merges.txt", NULL, 0}};
    char *text[2];
    struct tokenizer_sides sides = {0};
    struct tokenizer *tokenizer;
    struct err err;
    int rc = 0;
    for (int i = 0; i < 2; i++)
        pair[i].text = text[i] = next_part(&at, end, &pair[i].length);
    for (enum tokenizer_side side = 0; side < TOKENIZER_SIDES && at < end && rc == 0; side++) {
        size_t count;
        char *part = next_part(&at, end, &count);
        rc = count ? tokenizer_sides_parse(&sides, side, part, count, &err) : 0;
        mem_free(part);
    }
    if (rc == 0 && tokenizer_parse_pair(&pair[0], &pair[1], &sides, &tokenizer, &err) == 0) {
        check(tokenizer, &sides);
        tokenizer_free(tokenizer);
    }
    tokenizer_sides_done(&sides);
    mem_free(text[0]);
    mem_free(text[1]);
    return 0;
}
