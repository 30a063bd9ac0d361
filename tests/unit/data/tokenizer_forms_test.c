/* tokenizer_forms_test.c - WordPiece and unigram tokenizers against what others make of texts. */
#include "tests/unit/data/inputs.h"
#include "worker/engine/data/tokenizer.h"

#include <unistd.h>

static void assert_ids(const struct tokenizer *tokenizer, bool special, const char *text,
                       const uint32_t *expected, size_t count)
{
    struct token_list ids = {0};
    bool same;
    (special ? tokenizer_encode_special : tokenizer_encode)(tokenizer, text, strlen(text), &ids);
    same = ids.count == count;
    for (size_t i = 0; same && i < count; i++)
        same = ids.ids[i] == expected[i];
    if (!same) {
        for (size_t i = 0; i < ids.count; i++)
            print_message("%u ", ids.ids[i]);
        fail_msg("'%s' gives %zu ids, expected %zu", text, ids.count, count);
    }
    token_list_done(&ids);
}

#define IDS(...) (const uint32_t[]){__VA_ARGS__}, sizeof((uint32_t[]){__VA_ARGS__}) / 4

static struct tokenizer *read_tokenizer(const char *name)
{
    struct tokenizer *tokenizer = NULL;
    char *path = input_path(name);
    struct err err;
    if (tokenizer_read(path, &tokenizer, &err) < 0)
        fail_msg("%s", err.text);
    mem_free(path);
    return tokenizer;
}

/* The same tokenizer from its own text. */
static struct tokenizer *copy_of(const struct tokenizer *tokenizer)
{
    struct tokenizer *copy = NULL;
    struct err err;
    char *text = tokenizer_text(tokenizer);
    if (tokenizer_parse(text, strlen(text), &copy, &err) < 0)
        fail_msg("%s", err.text);
    assert_true(hash_equal(tokenizer_identity(tokenizer), tokenizer_identity(copy)));
    mem_free(text);
    return copy;
}

/* Ids by the BertTokenizer of @huggingface/transformers 3 from the same file. */
static void check_wordpiece(const struct tokenizer *t)
{
    assert_ids(t, false, "hello world", IDS(6598, 1094));
    assert_ids(t, false, "Hello, World!  How's it?",
               IDS(6598, 16, 1094, 5, 1135, 11, 61, 1015, 35));
    assert_ids(t, false, "unbelievably tokenization-free na\u00EFve caf\u00E9",
               IDS(3901, 7677, 1672, 2573, 5327, 18210, 2995, 17, 1495, 14749, 6674));
    assert_ids(t, false, "\u00C0\u00C9\u00CE \u00F5\u00FC \u00DF \u0130stanbul",
               IDS(28353, 1078, 14074, 102, 8966));
    assert_ids(t, false, "\u65E5\u672C\u8A9E text \u4E2D\u6587\u6DF7\u5408",
               IDS(870, 882, 956, 2799, 752, 867, 1, 798));
    assert_ids(t, false, "ab\u200Bc\u00A0d\te\r\nf", IDS(4931, 46, 47, 48));
    assert_ids(t, true, "don't stop... [MASK] [CLS]", IDS(1129, 11, 62, 1650, 18, 18, 18, 4, 2));
    assert_ids(t, false, "x1234567890 3.14 $5",
               IDS(66, 11527, 21028, 25982, 1587, 1626, 20063, 23, 18, 1409, 8, 25));
    assert_ids(t, false, "\u00BFQu\u00E9? \u00AB\u00E7a\u00BB \u201Cquotes\u201D \u2013 dash",
               IDS(100, 9867, 35, 83, 5193, 96, 529, 15620, 530, 522, 10460));
    assert_ids(t, false, "\U0001F600 emoji", IDS(1, 6867, 28153, 1078));
    assert_ids(t, false, "\uFB01ne \uFB02our", IDS(990, 1644, 991, 7168));
    assert_ids(t, false, "\u041F\u0440\u0438\u0432\u0435\u0442 \u043C\u0438\u0440",
               IDS(200, 15862, 9331, 24535, 14296, 21925, 197, 9331, 15862));
    assert_ids(t, false, "e\u0301 vs \u00E9", IDS(47, 4449, 47));
    assert_ids(t, false, "\uD55C\uAD6D\uC5B4",
               IDS(475, 29012, 29027, 28997, 29020, 29026, 29005, 29014));
}

static void wordpiece_gives_the_ids_of_bert(void **state)
{
    (void)state;
    struct tokenizer *tokenizer = read_tokenizer("models/model2vec-test/tokenizer.json"), *copy;
    assert_int_equal(tokenizer_kind(tokenizer), TOKENIZER_WORDPIECE);
    check_wordpiece(tokenizer);
    assert_ids(tokenizer, false, "  ", NULL, 0);
    copy = copy_of(tokenizer);
    check_wordpiece(copy);
    tokenizer_free(copy);
    tokenizer_free(tokenizer);
}

static void a_word_that_is_too_long_is_unknown(void **state)
{
    (void)state;
    struct tokenizer *tokenizer = read_tokenizer("models/model2vec-test/tokenizer.json");
    char text[104];
    memset(text, 'a', 101);
    memcpy(text + 101, " b", 3);
    assert_ids(tokenizer, false, text, IDS(1, 44));
    tokenizer_free(tokenizer);
}

static const char small_vocab[] = "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nun\n##aff\n##able\nyou\n,\n"
                                  "don\n'\nt\n\u00C9t\n";

static struct tokenizer *small_tokenizer(const char *config)
{
    struct tokenizer *tokenizer = NULL;
    char *folder = folder_make(), *path = mem_printf("%s/vocab.txt", folder);
    struct err err;
    write_bytes(path, small_vocab, strlen(small_vocab));
    if (config) {
        char *beside = mem_printf("%s/tokenizer_config.json", folder);
        write_bytes(beside, config, strlen(config));
        mem_free(beside);
    }
    if (tokenizer_read(folder, &tokenizer, &err) < 0)
        fail_msg("%s", err.text);
    mem_free(path);
    folder_done(folder);
    return tokenizer;
}

static void a_vocabulary_of_lines_is_read_and_framed(void **state)
{
    (void)state;
    struct tokenizer *t = small_tokenizer(NULL), *cased;
    struct token_list a = {0}, b = {0}, ids = {0}, types = {0};
    struct buf text = {0};
    assert_ids(t, false, "UNAFFABLE you, unx", IDS(5, 6, 7, 8, 9, 1));
    tokenizer_encode(t, "unaffable", 9, &a);
    tokenizer_encode(t, "you", 3, &b);
    tokenizer_frame(t, &a, &b, &ids, &types);
    assert_int_equal(ids.count, 7);
    assert_memory_equal(ids.ids, ((uint32_t[]){2, 5, 6, 7, 3, 8, 3}), 28);
    assert_memory_equal(types.ids, ((uint32_t[]){0, 0, 0, 0, 0, 1, 1}), 28);
    ids.count = types.count = 0;
    tokenizer_frame(t, &a, NULL, &ids, &types);
    assert_int_equal(ids.count, 5);
    assert_int_equal(tokenizer_end_of_text(t), 3);
    tokenizer_decode(t, (uint32_t[]){5, 6, 7, 9, 8}, 5, &text);
    assert_string_equal(buf_text(&text), "unaffable, you");
    cased = small_tokenizer("{\"do_lower_case\": false}");
    assert_ids(cased, false, "\u00C9t you", IDS(13, 8));
    assert_ids(cased, false, "You", IDS(1));
    tokenizer_free(copy_of(cased));
    tokenizer_free(cased);
    buf_done(&text);
    token_list_done(&a);
    token_list_done(&b);
    token_list_done(&ids);
    token_list_done(&types);
    tokenizer_free(t);
}

static void a_damaged_vocabulary_is_refused(void **state)
{
    (void)state;
    char *folder = folder_make(), *path = mem_printf("%s/vocab.txt", folder);
    struct tokenizer *tokenizer;
    struct err err;
    write_bytes(path, "a\nb\na\n", 6);
    assert_int_equal(tokenizer_read(path, &tokenizer, &err), -1);
    assert_non_null(strstr(err.text, "line 3"));
    write_bytes(path, "a\nb\n", 4);
    assert_int_equal(tokenizer_read(path, &tokenizer, &err), -1);
    assert_non_null(strstr(err.text, "no [UNK]"));
    mem_free(path);
    folder_done(folder);
}

/* All lines of the book, as sentencepiece 0.1.97 cuts them: count and hash of the ids as
 * little-endian 32-bit numbers, each line ended by -1. */
static void check_botchan(const struct tokenizer *tokenizer)
{
    static const char expected[] =
        "5db3e234844cae360f0a87b0ca0f5304ad9e6bdeb73ef702fddefca5ca18c6e4";
    size_t length, total = 0;
    char *text = input_read("tokenizers/sentencepiece/botchan.txt", &length), hex[HASH_HEX_SIZE];
    struct token_list all = {0};
    struct hash hash;
    for (char *line = text, *rest = text; rest; line = rest) {
        char *end = memchr(line, '\n', (size_t)(text + length - line));
        size_t before = all.count;
        tokenizer_encode(tokenizer, line, (size_t)((end ? end : text + length) - line), &all);
        total += all.count - before;
        token_list_add(&all, UINT32_MAX);
        rest = end ? end + 1 : NULL;
    }
    assert_int_equal(total, 95515);
    hash_sha256(all.ids, all.count * 4, &hash);
    hash_to_hex(&hash, hex);
    assert_string_equal(hex, expected);
    token_list_done(&all);
    mem_free(text);
}

static void check_unigram(const struct tokenizer *t)
{
    assert_ids(t, false, "Hello world", IDS(151, 88, 21, 887));
    assert_ids(t, false, "  two  spaces ", IDS(213, 273, 19, 135, 8));
    assert_ids(t, false, "\uFB01ne \u2460 \uFF12 \u2167 \u30AB\uFF9E",
               IDS(706, 4, 357, 4, 596, 4, 0, 100, 100, 100, 4, 0));
    assert_ids(t, false, "\u65E5\u672C\u8A9E x", IDS(4, 0, 4, 297));
    assert_ids(t, false, "a\tb\nc", IDS(11, 0, 66, 0, 28));
    assert_ids(t, false, "\U0001F600\U0001F600 ok", IDS(4, 0, 4, 21, 46));
    assert_ids(t, false, "\u2581under", IDS(4, 643));
    assert_ids(t, false, "", NULL, 0);
    assert_ids(t, false, "   ", NULL, 0);
}

static void unigram_gives_the_ids_of_sentencepiece(void **state)
{
    (void)state;
    struct tokenizer *copy;
    struct tokenizer *tokenizer = read_tokenizer("tokenizers/sentencepiece/test_model.model");
    struct buf back = {0};
    assert_int_equal(tokenizer_kind(tokenizer), TOKENIZER_UNIGRAM);
    assert_int_equal(tokenizer_vocab_size(tokenizer), 1000);
    check_unigram(tokenizer);
    check_botchan(tokenizer);
    copy = copy_of(tokenizer);
    check_unigram(copy);
    tokenizer_decode(tokenizer, (uint32_t[]){151, 88, 21, 887}, 4, &back);
    assert_string_equal(buf_text(&back), "Hello world");
    buf_done(&back);
    tokenizer_free(copy);
    tokenizer_free(tokenizer);
}

/* Every cut of a model's bytes, and every flip of one byte in a stretch, is refused or read. */
static void damaged_sentencepiece_models_never_crash(void **state)
{
    (void)state;
    size_t length;
    char *bytes = input_read("tokenizers/sentencepiece/test_model.model", &length);
    struct tokenizer *tokenizer = NULL;
    struct err err;
    for (size_t cut = 0; cut < length; cut += length / 37 + 1)
        if (tokenizer_parse_sentencepiece(bytes, cut, &tokenizer, &err) == 0)
            tokenizer_free(tokenizer);
    for (size_t at = 0; at < 40; at++) {
        bytes[at] = (char)~bytes[at];
        if (tokenizer_parse_sentencepiece(bytes, length, &tokenizer, &err) == 0)
            tokenizer_free(tokenizer);
        bytes[at] = (char)~bytes[at];
    }
    assert_int_equal(tokenizer_parse_sentencepiece("\x0A\x7F", 2, &tokenizer, &err), -1);
    assert_non_null(strstr(err.text, "cut off"));
    mem_free(bytes);
}

/* Byte pieces stand for what the vocabulary lacks, and come back as bytes. */
static void bytes_stand_for_unknown_characters(void **state)
{
    (void)state;
    struct buf json = {0}, back = {0};
    struct tokenizer *tokenizer = NULL;
    struct token_list ids = {0};
    struct err err;
    buf_puts(&json, "{\"version\": \"1.0\", \"pre_tokenizer\": {\"type\": \"Metaspace\", "
                    "\"replacement\": \"\u2581\"}, \"model\": {\"type\": \"Unigram\", "
                    "\"unk_id\": 0, \"byte_fallback\": true, \"vocab\": [[\"<unk>\", 0], "
                    "[\"\u2581a\", -1]");
    for (int byte = 0; byte < 256; byte++)
        buf_printf(&json, ", [\"<0x%02X>\", 0]", byte);
    buf_puts(&json, "]}}");
    if (tokenizer_parse(json.bytes, json.length, &tokenizer, &err) < 0)
        fail_msg("%s", err.text);
    tokenizer_encode(tokenizer, "a\u00E9", 3, &ids);
    assert_int_equal(ids.count, 3);
    assert_memory_equal(ids.ids, ((uint32_t[]){1, 2 + 0xC3, 2 + 0xA9}), 12);
    tokenizer_decode(tokenizer, ids.ids, ids.count, &back);
    assert_string_equal(buf_text(&back), "a\u00E9");
    buf_done(&back);
    buf_done(&json);
    token_list_done(&ids);
    tokenizer_free(tokenizer);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(wordpiece_gives_the_ids_of_bert),
        cmocka_unit_test(a_word_that_is_too_long_is_unknown),
        cmocka_unit_test(a_vocabulary_of_lines_is_read_and_framed),
        cmocka_unit_test(a_damaged_vocabulary_is_refused),
        cmocka_unit_test(unigram_gives_the_ids_of_sentencepiece),
        cmocka_unit_test(damaged_sentencepiece_models_never_crash),
        cmocka_unit_test(bytes_stand_for_unknown_characters),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
