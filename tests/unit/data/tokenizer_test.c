/* tokenizer_test.c - ids equal to published ones; every file form; refusals that say why. */
#include "common/base/rng.h"
#include "tests/unit/data/inputs.h"
#include "worker/engine/data/bpe.h"
#include "worker/engine/data/tokenizer.h"

static struct tokenizer *gpt2(void)
{
    struct err err = {0};
    struct tokenizer *tokenizer = NULL;
    char *vocab = input_path("tokenizers/gpt2/gpt2_vocab.json");
    char *merges = input_path("tokenizers/gpt2/gpt2_merges.txt");
    if (tokenizer_read_gpt2(vocab, merges, &tokenizer, &err) < 0)
        fail_msg("%s", err.text);
    mem_free(vocab);
    mem_free(merges);
    return tokenizer;
}

/* A small vocabulary trained here. */
static struct tokenizer *trained(void)
{
    static const char text[] = "a bird in the hand is worth two in the bush; the bird sings in "
                               "the hand of the bushman, and the bushbird answers the bird";
    struct err err = {0};
    struct tokenizer *tokenizer = NULL;
    struct word_counts counts = {0};
    word_counts_add_text(&counts, text, strlen(text));
    assert_int_equal(tokenizer_train(&counts, 280, 2, &tokenizer, &err), 0);
    word_counts_done(&counts);
    return tokenizer;
}

static void assert_ids(const struct tokenizer *tokenizer, const char *text, const uint32_t *ids,
                       size_t count)
{
    struct token_list list = {0};
    tokenizer_encode(tokenizer, text, strlen(text), &list);
    assert_int_equal(list.count, count);
    assert_memory_equal(list.ids, ids, count * sizeof *ids);
    token_list_done(&list);
}

static void assert_round_trip(const struct tokenizer *tokenizer, const char *bytes, size_t length)
{
    struct token_list list = {0};
    struct buf back = {0};
    tokenizer_encode(tokenizer, bytes, length, &list);
    tokenizer_decode(tokenizer, list.ids, list.count, &back);
    assert_int_equal(back.length, length);
    assert_memory_equal(buf_text(&back), bytes, length);
    buf_done(&back);
    token_list_done(&list);
}

static void special_tokens_come_behind_and_texts_stay_as_they_were(void **state)
{
    (void)state;
    static const char *const more[] = {"[MASK]", TOKENIZER_END_OF_TEXT, "<extra_id_0>"};
    static const char *const bad[] = {"[PAD]", ""};
    struct err err = {0};
    struct tokenizer *tokenizer = trained(), *longer = trained();
    uint32_t size = tokenizer_vocab_size(tokenizer);
    struct token_list before = {0}, after = {0};
    assert_int_equal(tokenizer_extend(&longer, more, 3, &err), 0);
    assert_int_equal(tokenizer_vocab_size(longer), size + 2);
    assert_int_equal(tokenizer_find(longer, "[MASK]", 6), size);
    assert_int_equal(tokenizer_find(longer, "<extra_id_0>", 12), size + 1);
    assert_int_equal(tokenizer_end_of_text(longer), tokenizer_end_of_text(tokenizer));
    tokenizer_encode(tokenizer, "the bird [MASK] hand", 20, &before);
    tokenizer_encode(longer, "the bird [MASK] hand", 20, &after);
    assert_int_equal(before.count, after.count); /* literally: no text has a special token */
    assert_memory_equal(before.ids, after.ids, before.count * sizeof *before.ids);
    assert_int_equal(tokenizer_extend(&longer, bad, 2, &err), -1);
    assert_int_equal(tokenizer_vocab_size(longer), size + 2);
    token_list_done(&before);
    token_list_done(&after);
    tokenizer_free(tokenizer);
    tokenizer_free(longer);
}

static void gpt2s_vocabulary_gives_the_known_ids(void **state)
{
    (void)state;
    static const uint32_t ids[] = {15496, 11, 995, 13, 1148, 428, 438, 257, 1332, 30};
    struct tokenizer *tokenizer = gpt2();
    assert_ids(tokenizer, "Hello, world. Is this-- a test?", ids, ARRAY_COUNT(ids));
    assert_int_equal(tokenizer_vocab_size(tokenizer), 50257);
    assert_int_equal(tokenizer_end_of_text(tokenizer), 50256);
    tokenizer_free(tokenizer);
}

/* "EncodingName: r50k_base\nSample: TEXT\nEncoded: [ids]" */
static void all_published_plans_of_r50k_are_met(void **state)
{
    (void)state;
    static const char head[] = "EncodingName: r50k_base\nSample: ";
    struct tokenizer *tokenizer = gpt2();
    size_t length;
    char *plans = input_read("tokenizers/TestPlans.txt", &length), *at = plans;
    int met = 0;
    while ((at = strstr(at, head))) {
        char *text = at + strlen(head), *end = strstr(text, "\nEncoded: ["), *number = end + 11;
        struct token_list list = {0};
        tokenizer_encode(tokenizer, text, (size_t)(end - text), &list);
        for (size_t i = 0; *number != ']'; i++) {
            assert_true(i < list.count);
            assert_int_equal(list.ids[i], strtoul(number, &number, 10));
            number += strspn(number, ", ");
            if (*number == ']')
                assert_int_equal(list.count, i + 1);
        }
        token_list_done(&list);
        at = end;
        met++;
    }
    assert_int_equal(met, 64);
    mem_free(plans);
    tokenizer_free(tokenizer);
}

static void a_tokenizer_json_with_other_surroundings_is_read(void **state)
{
    (void)state;
    struct err err = {0};
    struct tokenizer *tokenizer;
    char *path = input_path("tokenizers/gpt2-style/tokenizer.json");
    struct token_list list = {0};
    if (tokenizer_read(path, &tokenizer, &err) < 0)
        fail_msg("%s", err.text);
    assert_int_equal(tokenizer_vocab_size(tokenizer), 50280);
    /* NFC: "e" + combining acute is one character before encoding. */
    tokenizer_encode(tokenizer, "caf\x65\xCC\x81", 6, &list);
    size_t decomposed = list.count;
    tokenizer_encode(tokenizer, "caf\xC3\xA9", 5, &list);
    assert_int_equal(list.count, 2 * decomposed);
    assert_memory_equal(list.ids, list.ids + decomposed, decomposed * sizeof *list.ids);
    token_list_done(&list);
    tokenizer_free(tokenizer);
    mem_free(path);
}

static void text_written_by_us_reads_back_as_the_same_tokenizer(void **state)
{
    (void)state;
    struct err err = {0};
    struct tokenizer *first = trained(), *second;
    char *text = tokenizer_text(first);
    assert_int_equal(tokenizer_parse(text, strlen(text), &second, &err), 0);
    assert_true(hash_equal(tokenizer_identity(first), tokenizer_identity(second)));
    assert_int_equal(tokenizer_vocab_size(second), tokenizer_vocab_size(first));
    assert_int_equal(tokenizer_end_of_text(second), tokenizer_vocab_size(first) - 1);
    mem_free(text);
    tokenizer_free(first);
    tokenizer_free(second);
}

/* Rewrites every rule "a b" of our text as ["a","b"]. */
static char *with_merges_as_pairs(const char *text)
{
    struct buf out = {0};
    const char *at = strstr(text, "\"merges\": [");
    buf_add(&out, text, (size_t)(at - text) + 11);
    for (at += 11; *at != ']';) {
        const char *open = strchr(at, '"'), *space = strchr(open, ' '), *close = space + 1;
        while (*close != '"' || close[-1] == '\\')
            close++;
        buf_puts(&out, "[");
        buf_add(&out, open, (size_t)(space - open));
        buf_puts(&out, "\", \"");
        buf_add(&out, space + 1, (size_t)(close - space - 1));
        buf_puts(&out, "\"]");
        at = close + 1;
        if (*at == ',')
            buf_putc(&out, *at++);
    }
    buf_puts(&out, at);
    return buf_take(&out);
}

static void merges_in_both_encodings_give_equal_ids(void **state)
{
    (void)state;
    struct err err = {0};
    struct tokenizer *first = trained(), *second;
    char *text = tokenizer_text(first), *pairs = with_merges_as_pairs(text);
    if (tokenizer_parse(pairs, strlen(pairs), &second, &err) < 0)
        fail_msg("%s", err.text);
    assert_true(hash_equal(tokenizer_identity(first), tokenizer_identity(second)));
    mem_free(pairs);
    mem_free(text);
    tokenizer_free(first);
    tokenizer_free(second);
}

static void decoding_gives_the_bytes_back(void **state)
{
    (void)state;
    struct tokenizer *tokenizer = trained();
    struct rng rng;
    enum { MIB = 1 << 20 };
    char *bytes = mem_alloc(MIB);
    rng_init(&rng, 11);
    for (size_t i = 0; i < MIB; i++)
        bytes[i] = (char)rng_below(&rng, 256);
    assert_round_trip(tokenizer, bytes, MIB);
    for (int round = 0; round < 10000; round++) {
        static const char *const parts[] = {"bird", " the", "\xF0\x9F\xA6\x9C", "\xE9\xB3\xA5",
                                            "e\xCC\x81", "\xFF", " ", "\n", "'s", "42"};
        struct buf text = {0};
        for (uint64_t i = 0; i <= rng_below(&rng, 8); i++)
            buf_puts(&text, parts[rng_below(&rng, ARRAY_COUNT(parts))]);
        assert_round_trip(tokenizer, buf_text(&text), text.length);
        buf_done(&text);
    }
    mem_free(bytes);
    tokenizer_free(tokenizer);
}

static void special_tokens_count_only_where_asked_for(void **state)
{
    (void)state;
    struct tokenizer *tokenizer = trained();
    struct token_list plain = {0}, special = {0};
    const char *text = "the" TOKENIZER_END_OF_TEXT "bird";
    uint32_t end = tokenizer_end_of_text(tokenizer);
    tokenizer_encode(tokenizer, text, strlen(text), &plain);
    tokenizer_encode_special(tokenizer, text, strlen(text), &special);
    size_t ends = 0;
    for (size_t i = 0; i < plain.count; i++)
        assert_int_not_equal(plain.ids[i], end);
    for (size_t i = 0; i < special.count; i++)
        ends += special.ids[i] == end;
    assert_int_equal(ends, 1);
    assert_round_trip(tokenizer, text, strlen(text));
    token_list_done(&plain);
    token_list_done(&special);
    tokenizer_free(tokenizer);
}

static void extensions_are_recognised_and_listed_beside_a_model(void **state)
{
    (void)state;
    static const char *const codes[] = {"<len:1>", "<len:2>"};
    struct err err = {0};
    struct tokenizer *base = trained(), *wide = trained();
    char *folder = folder_make(), *text, *path = mem_printf("%s/special_tokens_map.json", folder);
    size_t length;
    assert_int_equal(tokenizer_extend(&wide, codes, 2, &err), 0);
    assert_true(tokenizer_extends(wide, base));
    assert_false(tokenizer_extends(base, wide) || tokenizer_extends(base, base));
    assert_int_equal(tokenizer_write(wide, folder, 128, &err), 0);
    assert_int_equal(file_read(path, 4096, &text, &length, &err), 0);
    assert_non_null(strstr(text, "\"additional_special_tokens\": [\"<len:1>\", \"<len:2>\"]"));
    tokenizer_free(wide);
    tokenizer_free(base);
    mem_free(text);
    mem_free(path);
    folder_done(folder);
}

static void the_files_beside_a_model_are_written(void **state)
{
    (void)state;
    static const char *const names[] = {"tokenizer.json", "tokenizer_config.json",
                                        "special_tokens_map.json"};
    struct err err = {0};
    struct tokenizer *tokenizer = trained(), *back;
    char *folder = folder_make();
    assert_int_equal(tokenizer_write(tokenizer, folder, 128, &err), 0);
    for (size_t i = 0; i < ARRAY_COUNT(names); i++) {
        char *path = mem_printf("%s/%s", folder, names[i]);
        assert_true(file_exists(path));
        mem_free(path);
    }
    assert_int_equal(tokenizer_read(folder, &back, &err), 0);
    assert_true(hash_equal(tokenizer_identity(tokenizer), tokenizer_identity(back)));
    tokenizer_free(back);
    tokenizer_free(tokenizer);
    folder_done(folder);
}

/* As a T5 has it: generation_config.json pads with number 0, which is the byte 0 here. */
static void a_number_that_is_text_is_no_pad_token(void **state)
{
    (void)state;
    static const char padded[] = "{\"pad_token_id\": 0}";
    struct err err = {0};
    struct tokenizer *tokenizer = trained(), *beside, *back;
    char *folder = folder_make(), *path = mem_printf("%s/generation_config.json", folder);
    assert_int_equal(tokenizer_write(tokenizer, folder, 128, &err), 0);
    assert_int_equal(file_replace(path, padded, strlen(padded), 0644, &err), 0);
    assert_int_equal(tokenizer_read(folder, &beside, &err), 0);
    assert_int_equal(tokenizer_write(beside, folder, 128, &err), 0);
    assert_int_equal(tokenizer_read(folder, &back, &err), 0);
    assert_true(hash_equal(tokenizer_identity(tokenizer), tokenizer_identity(back)));
    tokenizer_free(back);
    tokenizer_free(beside);
    tokenizer_free(tokenizer);
    mem_free(path);
    folder_done(folder);
}

/* Trained with each pattern, written, and read back the same; numbers show which it is. */
static void other_patterns_are_trained_with_written_and_read(void **state)
{
    (void)state;
    static const char text[] = "in 12345 and 12345 of 12345\n\n12345\n";
    static const size_t tokens[PIECES_END] = {1, 2, 5, 5}; /* of 12345; 123|45 */
    struct err err = {0};
    for (enum piece_pattern pattern = 0; pattern < PIECES_END; pattern++) {
        struct word_counts counts = {.pattern = pattern};
        struct tokenizer *tokenizer, *back;
        struct token_list ids = {0};
        word_counts_add_text(&counts, text, strlen(text));
        assert_int_equal(tokenizer_train(&counts, 300, 2, &tokenizer, &err), 0);
        char *json = tokenizer_text(tokenizer);
        if (tokenizer_parse(json, strlen(json), &back, &err) < 0)
            fail_msg("%s", err.text);
        assert_true(hash_equal(tokenizer_identity(tokenizer), tokenizer_identity(back)));
        tokenizer_encode(back, "12345", 5, &ids);
        assert_int_equal(ids.count, tokens[pattern]);
        assert_round_trip(back, text, strlen(text));
        mem_free(json);
        word_counts_done(&counts);
        token_list_done(&ids);
        tokenizer_free(back);
        tokenizer_free(tokenizer);
    }
}

static void assert_refused(const char *json, const char *expected)
{
    struct err err = {0};
    struct tokenizer *tokenizer = NULL;
    assert_int_equal(tokenizer_parse(json, strlen(json), &tokenizer, &err), -1);
    assert_null(tokenizer);
    if (!strstr(err.text, expected))
        fail_msg("'%s' does not say '%s'", err.text, expected);
}

static void other_kinds_of_tokenizer_are_refused_by_name(void **state)
{
    (void)state;
#define HEAD "{\"version\": \"1.0\", \"pre_tokenizer\": {\"type\": \"ByteLevel\", " \
             "\"add_prefix_space\": false}, "
    assert_refused("[]", "not a JSON object");
    assert_refused("{\"version\": \"1.0\", ", "line 1");
    assert_refused("{\"version\": \"2.0\"}", "version is '2.0'");
    assert_refused("{\"version\": \"1.0\", \"normalizer\": {\"type\": \"Lowercase\"}}",
                   "normalizer is Lowercase");
    assert_refused("{\"version\": \"1.0\", \"pre_tokenizer\": {\"type\": \"Whitespace\"}}",
                   "pre_tokenizer is Whitespace");
    assert_refused("{\"version\": \"1.0\", \"pre_tokenizer\": {\"type\": \"ByteLevel\", "
                   "\"add_prefix_space\": true}}", "add_prefix_space");
    assert_refused("{\"version\": \"1.0\", \"pre_tokenizer\": {\"type\": \"Sequence\", "
                   "\"pretokenizers\": [{\"type\": \"Split\", \"pattern\": {\"Regex\": \"x+\"}, "
                   "\"behavior\": \"Isolated\"}, {\"type\": \"ByteLevel\", \"use_regex\": false, "
                   "\"add_prefix_space\": false}]}}", "a pattern that is not GPT-2's");
    assert_refused(HEAD "\"model\": {\"type\": \"WordLevel\"}}", "model.type is WordLevel");
    assert_refused(HEAD "\"model\": {\"type\": \"Unigram\", \"unk_id\": 0}}",
                   "for Unigram Metaspace");
    assert_refused(HEAD "\"model\": {\"type\": \"BPE\", \"byte_fallback\": true}}",
                   "byte_fallback");
    assert_refused(HEAD "\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 0}, \"merges\": []}}",
                   "byte 0x00");
    assert_refused(HEAD "\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": -1}, \"merges\": []}}",
                   "is not an id");
    assert_refused(HEAD "\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 1, \"b\": 1}, "
                   "\"merges\": []}}", "given twice");
    assert_refused(HEAD "\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 1}, "
                   "\"merges\": [\"a a\"]}}", "vocabulary lacks");
    assert_refused(HEAD "\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 1, \"a b\": 2}, "
                   "\"merges\": []}}", "byte alphabet");
    assert_refused(HEAD "\"added_tokens\": [{\"id\": 1, \"content\": \"<m>\", \"lstrip\": true}], "
                   "\"model\": {\"type\": \"BPE\", \"vocab\": {}, \"merges\": []}}", "lstrip");
    assert_refused(HEAD "\"added_tokens\": [{\"id\": 1, \"content\": \"<m>\"}], "
                   "\"model\": {\"type\": \"BPE\", \"vocab\": {\"<m>\": 2}, \"merges\": []}}",
                   "is id 2 in model.vocab but 1");
    assert_refused(HEAD "\"added_tokens\": [{\"id\": 1, \"content\": \"<m>\"}, "
                   "{\"id\": 2, \"content\": \"<m>\"}], "
                   "\"model\": {\"vocab\": {}}}", "is given twice");
#undef HEAD
}

static void a_vocabulary_size_out_of_range_is_refused(void **state)
{
    (void)state;
    struct err err = {0};
    struct word_counts counts = {0};
    struct tokenizer *tokenizer;
    assert_int_equal(tokenizer_train(&counts, 256, 1, &tokenizer, &err), -1);
    assert_non_null(strstr(err.text, "257"));
    assert_int_equal(tokenizer_train(&counts, 257, 1, &tokenizer, &err), 0);
    assert_int_equal(tokenizer_vocab_size(tokenizer), 257);
    tokenizer_free(tokenizer);
    word_counts_done(&counts);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gpt2s_vocabulary_gives_the_known_ids),
        cmocka_unit_test(all_published_plans_of_r50k_are_met),
        cmocka_unit_test(a_tokenizer_json_with_other_surroundings_is_read),
        cmocka_unit_test(text_written_by_us_reads_back_as_the_same_tokenizer),
        cmocka_unit_test(merges_in_both_encodings_give_equal_ids),
        cmocka_unit_test(decoding_gives_the_bytes_back),
        cmocka_unit_test(special_tokens_count_only_where_asked_for),
        cmocka_unit_test(extensions_are_recognised_and_listed_beside_a_model),
        cmocka_unit_test(the_files_beside_a_model_are_written),
        cmocka_unit_test(a_number_that_is_text_is_no_pad_token),
        cmocka_unit_test(special_tokens_come_behind_and_texts_stay_as_they_were),
        cmocka_unit_test(other_kinds_of_tokenizer_are_refused_by_name),
        cmocka_unit_test(a_vocabulary_size_out_of_range_is_refused),
        cmocka_unit_test(other_patterns_are_trained_with_written_and_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
