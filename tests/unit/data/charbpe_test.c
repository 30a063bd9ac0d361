/* charbpe_test.c - BPE of characters: llama2.c's tokenizer.bin, and what tokenizer.json says of it.
 *
 * The oracle is the procedure of run.c of llama2.c, in its plainest form: as long as any two
 * neighbours spell a piece, the pair whose piece has the highest score is joined. */
#include "tests/unit/data/inputs.h"
#include "common/base/buf.h"
#include "common/base/rng.h"
#include "worker/engine/data/tokenizer.h"

#define PIECES_MAX 600
#define FIRST_TEXT 259

/* A tokenizer.bin: pieces from id 259 on, scored -1, -2, ... in their order. */
static const char *const texts[] = {
    " ",  "a",  "b",  "c", "\n", "\u00E9", "th", " a", "he", "the", " the", "ab", "bc", "abc",
    "aa", "aaa", " b", "t", "h", "e", "\u00E9a"};

static void put_piece(struct buf *out, float score, const char *text, uint32_t length)
{
    buf_add(out, &score, 4);
    buf_add(out, &length, 4);
    buf_add(out, text, length);
}

/* old: bytes as characters, as the first versions of tokenizer.py had them. */
static void put_front(struct buf *out, bool old)
{
    uint32_t longest = 8;

    buf_add(out, &longest, 4);
    put_piece(out, 0, "<unk>", 5);
    put_piece(out, 0, "\n<s>\n", 5);
    put_piece(out, 0, "\n</s>\n", 6);
    for (unsigned byte = 0; byte < 256; byte++) {
        char name[8];
        uint32_t length = (uint32_t)snprintf(name, sizeof name, "<0x%02X>", byte);

        if (old && byte < 0x80) {
            name[0] = (char)byte;
            length = 1;
        } else if (old) {
            name[0] = (char)(0xC0 | byte >> 6);
            name[1] = (char)(0x80 | (byte & 0x3F));
            length = 2;
        }
        put_piece(out, 0, name, length);
    }
}

static void make_bin(struct buf *out, bool old)
{
    put_front(out, old);
    for (size_t i = 0; i < ARRAY_COUNT(texts); i++)
        put_piece(out, -1.0f - (float)i, texts[i], (uint32_t)strlen(texts[i]));
}

static struct tokenizer *parse_bin(const struct buf *bin, uint32_t count)
{
    struct tokenizer *tokenizer = NULL;
    struct err err = {0};

    if (tokenizer_parse_llama2c(bin->bytes, bin->length, count, &tokenizer, &err) < 0)
        fail_msg("%s", err.text);
    return tokenizer;
}

/* ---- the oracle --------------------------------------------------------------------------- */

struct piece {
    const char *text;
    uint32_t length;
    float score;
};

static void read_pieces(const struct buf *bin, struct piece *pieces, uint32_t count)
{
    const char *at = bin->bytes + 4;

    assert_true(count <= PIECES_MAX);
    for (uint32_t id = 0; id < count; id++) {
        memcpy(&pieces[id].score, at, 4);
        memcpy(&pieces[id].length, at + 4, 4);
        pieces[id].text = at + 8;
        at += 8 + pieces[id].length;
    }
}

static int64_t find_piece(const struct piece *pieces, uint32_t count, const char *text,
                          size_t length)
{
    for (uint32_t id = FIRST_TEXT; id < count; id++)
        if (pieces[id].length == length && memcmp(pieces[id].text, text, length) == 0)
            return id;
    return -1;
}

static size_t first_ids(const struct piece *pieces, uint32_t count, const char *text, uint32_t *ids)
{
    size_t made = 0;

    for (const char *c = text; *c;) {
        size_t bytes = 1;

        while (((uint8_t)c[bytes] & 0xC0) == 0x80)
            bytes++;
        int64_t id = find_piece(pieces, count, c, bytes);
        if (id >= 0)
            ids[made++] = (uint32_t)id;
        for (size_t i = 0; i < bytes && id < 0; i++)
            ids[made++] = 3 + (uint8_t)c[i];
        c += bytes;
    }
    return made;
}

static size_t oracle(const struct piece *pieces, uint32_t count, const char *text, uint32_t *ids)
{
    char *spaced = mem_printf(" %s", text);
    size_t made = first_ids(pieces, count, spaced, ids);

    for (;;) {
        int64_t best = -1, best_id = -1;

        for (size_t i = 0; i + 1 < made; i++) {
            const struct piece *a = &pieces[ids[i]], *b = &pieces[ids[i + 1]];
            char joined[32];

            snprintf(joined, sizeof joined, "%.*s%.*s", (int)a->length, a->text, (int)b->length,
                     b->text);
            int64_t id = ids[i] < FIRST_TEXT || ids[i + 1] < FIRST_TEXT
                             ? -1 : find_piece(pieces, count, joined, strlen(joined));
            if (id >= 0 && (best < 0 || pieces[id].score > pieces[best_id].score)) {
                best = (int64_t)i;
                best_id = id;
            }
        }
        if (best < 0)
            break;
        ids[best] = (uint32_t)best_id;
        memmove(ids + best + 1, ids + best + 2, (made - (size_t)best - 2) * sizeof *ids);
        made--;
    }
    mem_free(spaced);
    return made;
}

static void check_text(const struct tokenizer *t, const struct piece *pieces, uint32_t count,
                       const char *text)
{
    uint32_t *expected = mem_array(4 * strlen(text) + 8, sizeof *expected);
    size_t made = oracle(pieces, count, text, expected);
    struct token_list ids = {0};
    struct buf back = {0};

    tokenizer_encode(t, text, strlen(text), &ids);
    if (ids.count != made || memcmp(ids.ids, expected, made * sizeof *expected) != 0)
        fail_msg("'%s' gives %zu ids, run.c %zu, or others", text, ids.count, made);
    tokenizer_decode(t, ids.ids, ids.count, &back);
    assert_string_equal(buf_text(&back), text);
    buf_done(&back);
    token_list_done(&ids);
    mem_free(expected);
}

/* ---- tests -------------------------------------------------------------------------------- */

static struct tokenizer *copy_of(const struct tokenizer *tokenizer)
{
    struct tokenizer *copy = NULL;
    struct err err = {0};
    char *text = tokenizer_text(tokenizer);

    if (tokenizer_parse(text, strlen(text), &copy, &err) < 0)
        fail_msg("%s", err.text);
    assert_true(hash_equal(tokenizer_identity(tokenizer), tokenizer_identity(copy)));
    mem_free(text);
    return copy;
}

static void merges_are_those_of_the_scores_and_texts_come_back(void **state)
{
    static const char *const parts[] = {"a",      "b",  "c", "the",       " ",
                                        "\u00E9", "\n", "q", "\U0001F600"};
    uint32_t count = FIRST_TEXT + ARRAY_COUNT(texts);
    struct piece pieces[PIECES_MAX];
    struct buf bin = {0}, text = {0};
    struct rng rng;

    (void)state;
    make_bin(&bin, false);
    read_pieces(&bin, pieces, count);
    struct tokenizer *t = parse_bin(&bin, count), *copy = copy_of(t);
    assert_int_equal(tokenizer_kind(t), TOKENIZER_CHARBPE);
    assert_int_equal(tokenizer_vocab_size(t), count);
    assert_int_equal(tokenizer_end_of_text(t), 1);
    assert_int_equal(tokenizer_begin_of_text(t), 1);
    assert_int_equal(tokenizer_begin_of_text(copy), 1);
    assert_int_equal(tokenizer_end_of_text(copy), 2); /* the file alone names no other */
    rng_init(&rng, 1);
    for (int round = 0; round < 300; round++) {
        buf_clear(&text);
        for (uint64_t n = 1 + rng_below(&rng, round < 290 ? 12 : 200); n > 0; n--)
            buf_puts(&text, parts[rng_below(&rng, ARRAY_COUNT(parts))]);
        check_text(t, pieces, count, buf_text(&text));
        check_text(copy, pieces, count, buf_text(&text));
    }
    tokenizer_free(copy);
    tokenizer_free(t);
    buf_done(&text);
    buf_done(&bin);
}

static void the_tokenizer_of_stories_encodes_as_llama2c_does(void **state)
{
    struct piece pieces[PIECES_MAX];
    struct buf bin = {0};
    size_t length, story_length;
    char *bytes = input_read("models/stories260K/tok512.bin", &length), *rest, *line;
    char *story = input_read("tokenizers/bpe-train/tinystories_sample.txt", &story_length);

    (void)state;
    buf_add(&bin, bytes, length);
    read_pieces(&bin, pieces, 512);
    struct tokenizer *t = parse_bin(&bin, 512);
    for (rest = story; (line = strsep(&rest, "\n"));)
        if (*line)
            check_text(t, pieces, 512, line);
    tokenizer_free(t);
    buf_done(&bin);
    mem_free(bytes);
    mem_free(story);
}

static void bytes_as_characters_are_read_too(void **state)
{
    uint32_t count = FIRST_TEXT + ARRAY_COUNT(texts);
    struct buf new = {0}, old = {0};

    (void)state;
    make_bin(&new, false);
    make_bin(&old, true);
    struct tokenizer *a = parse_bin(&new, count), *b = parse_bin(&old, count);
    assert_true(hash_equal(tokenizer_identity(a), tokenizer_identity(b)));
    tokenizer_free(a);
    tokenizer_free(b);
    buf_done(&new);
    buf_done(&old);
}

static void assert_bin_refused(const struct buf *bin, size_t length, uint32_t count,
                               const char *expected)
{
    struct tokenizer *tokenizer = NULL;
    struct err err = {0};

    assert_int_equal(tokenizer_parse_llama2c(bin->bytes, length, count, &tokenizer, &err), -1);
    assert_null(tokenizer);
    if (!strstr(err.text, expected))
        fail_msg("'%s' does not say '%s'", err.text, expected);
}

static void damaged_bins_are_refused_by_piece_and_byte(void **state)
{
    static const char *const bad[][2] = {{"", "has 0 bytes, expected 1..8"},
                                         {"123456789", "has 9 bytes, expected 1..8"},
                                         {"\xFF", "is not UTF-8"},
                                         {"the", "are the same bytes"}};
    uint32_t count = FIRST_TEXT + ARRAY_COUNT(texts);
    struct buf bin = {0};

    (void)state;
    make_bin(&bin, false);
    for (size_t cut = 0; cut < bin.length; cut += cut < 40 ? 1 : 61)
        assert_bin_refused(&bin, cut, count, "cut off at byte");
    assert_bin_refused(&bin, bin.length - 1, count, "within piece 279");
    assert_bin_refused(&bin, bin.length, count - 1, "bytes follow its 279 pieces");
    assert_bin_refused(&bin, bin.length, 259, "a model of 259 tokens, expected 260..");
    for (size_t i = 0; i < ARRAY_COUNT(bad); i++) {
        buf_clear(&bin);
        make_bin(&bin, false);
        put_piece(&bin, -99, bad[i][0], (uint32_t)strlen(bad[i][0]));
        assert_bin_refused(&bin, bin.length, count + 1, bad[i][1]);
    }
    buf_clear(&bin);
    make_bin(&bin, false);
    put_piece(&bin, __builtin_nanf(""), "x", 1);
    assert_bin_refused(&bin, bin.length, count + 1, "piece 280 at byte");
    bin.bytes[4 + 8] = '[';
    assert_bin_refused(&bin, bin.length, count + 1, "piece 0 is '[unk>', expected <unk>");
    bin.bytes[4 + 8] = '<';
    bin.bytes[4 + 13 + 13 + 14 + 8 + 4] = '7';
    assert_bin_refused(&bin, bin.length, count + 1, "piece 3 is '<0x07>', expected the byte <0x0");
    memset(bin.bytes, 0xFF, 4);
    assert_bin_refused(&bin, bin.length, count + 1, "4294967295 bytes, expected 1..1024");
    buf_done(&bin);
}

/* ---- tokenizer.json, as the converters of Llama, Yi and Mistral write it ------------------ */

#define PREPEND "{\"type\": \"Prepend\", \"prepend\": \"\u2581\"}"
#define REPLACE \
    "{\"type\": \"Replace\", \"pattern\": {\"String\": \" \"}, \"content\": \"\u2581\"}"
#define BOTH "{\"type\": \"Sequence\", \"normalizers\": [" PREPEND ", " REPLACE "]}"
#define METASPACE(scheme, split) \
    "{\"type\": \"Metaspace\", \"replacement\": \"\u2581\", \"prepend_scheme\": \"" scheme "\", " \
    "\"split\": " split "}"

/* A vocabulary of <unk>, the bytes, and from 257 on: mark, a, b, "mark a", ab. */
static char *json_with(const char *normalizer, const char *cutter, const char *more)
{
    struct buf out = {0};

    buf_printf(&out, "{\"version\": \"1.0\", \"normalizer\": %s, \"pre_tokenizer\": %s, "
                     "\"model\": {\"type\": \"BPE\", \"byte_fallback\": true, %s"
                     "\"unk_token\": \"<unk>\", \"vocab\": {\"<unk>\": 0",
               normalizer, cutter, more);
    for (unsigned byte = 0; byte < 256; byte++)
        buf_printf(&out, ", \"<0x%02X>\": %u", byte, byte + 1);
    buf_puts(&out, ", \"\u2581\": 257, \"a\": 258, \"b\": 259, \"\u2581a\": 260, \"ab\": 261}, "
                   "\"merges\": [[\"a\", \"b\"], \"\u2581 a\"]}}");
    return buf_take(&out);
}

static void assert_json_gives(const char *normalizer, const char *cutter, const char *text,
                              const uint32_t *expected, size_t count)
{
    char *json = json_with(normalizer, cutter, "");
    struct tokenizer *tokenizer = NULL;
    struct token_list ids = {0};
    struct buf back = {0};
    struct err err = {0};

    if (tokenizer_parse(json, strlen(json), &tokenizer, &err) < 0)
        fail_msg("%s", err.text);
    tokenizer_encode(tokenizer, text, strlen(text), &ids);
    assert_int_equal(ids.count, count);
    assert_memory_equal(ids.ids, expected, count * sizeof *expected);
    tokenizer_decode(tokenizer, ids.ids, ids.count, &back);
    assert_string_equal(buf_text(&back), text);
    tokenizer_free(copy_of(tokenizer));
    tokenizer_free(tokenizer);
    token_list_done(&ids);
    buf_done(&back);
    mem_free(json);
}

#define IDS(...) (const uint32_t[]){__VA_ARGS__}, sizeof((uint32_t[]){__VA_ARGS__}) / 4

static void the_forms_of_llama_yi_and_mistral_are_read(void **state)
{
    (void)state;
    assert_json_gives(BOTH, "null", "ab a", IDS(257, 261, 260));
    assert_json_gives(REPLACE, "null", "ab a", IDS(261, 260));
    assert_json_gives("null", METASPACE("always", "false"), "ab a", IDS(257, 261, 260));
    assert_json_gives("null", METASPACE("never", "false"), "a a", IDS(258, 260));
    assert_json_gives(BOTH, "null", "a\u00E9", IDS(260, 1 + 0xC3, 1 + 0xA9));
    assert_json_gives(BOTH, "null", " ", IDS(257, 257));
}

static void assert_json_refused(const char *normalizer, const char *cutter, const char *more,
                                const char *expected)
{
    char *json = json_with(normalizer, cutter, more);
    struct tokenizer *tokenizer = NULL;
    struct err err = {0};

    assert_int_equal(tokenizer_parse(json, strlen(json), &tokenizer, &err), -1);
    if (!strstr(err.text, expected))
        fail_msg("'%s' does not say '%s'", err.text, expected);
    mem_free(json);
}

static void what_would_give_other_ids_is_refused(void **state)
{
    (void)state;
    assert_json_refused("{\"type\": \"NFKC\"}", "null", "", "normalizer is NFKC");
    assert_json_refused("null", "null", "", "replaces spaces");
    assert_json_refused("null", METASPACE("always", "true"), "", "split false");
    assert_json_refused("null", METASPACE("first", "false"), "", "always or never");
    assert_json_refused(BOTH, "{\"type\": \"ByteLevel\"}", "", "pre_tokenizer is ByteLevel");
    assert_json_refused(BOTH, "null", "\"dropout\": 0.1, ", "dropout");
    assert_json_refused(BOTH, "null", "\"ignore_merges\": true, ", "ignore_merges");
    assert_json_refused(BOTH, "null", "\"end_of_word_suffix\": \"</w>\", ", "suffix");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(merges_are_those_of_the_scores_and_texts_come_back),
        cmocka_unit_test(the_tokenizer_of_stories_encodes_as_llama2c_does),
        cmocka_unit_test(bytes_as_characters_are_read_too),
        cmocka_unit_test(damaged_bins_are_refused_by_piece_and_byte),
        cmocka_unit_test(the_forms_of_llama_yi_and_mistral_are_read),
        cmocka_unit_test(what_would_give_other_ids_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
