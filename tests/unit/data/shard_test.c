/* shard_test.c - what is written is read; what is damaged is refused. */
#include "common/base/rng.h"
#include "tests/unit/data/inputs.h"
#include "worker/engine/data/shard.h"

static const uint64_t starts[] = {0, 3, 3, 7};

static struct shard_content content_of(const uint32_t *tokens, uint32_t vocab_size)
{
    struct shard_content content = {.tokens = tokens, .token_count = 7, .document_start = starts,
                                    .document_count = 3, .vocab_size = vocab_size,
                                    .flags = SHARD_FLAG_SEPARATOR_BEFORE};
    memset(&content.tokenizer, 1, sizeof content.tokenizer);
    memset(&content.source, 2, sizeof content.source);
    return content;
}

static void assert_round_trip(const uint32_t *tokens, uint32_t vocab_size, uint32_t token_bytes)
{
    struct err err = {0};
    struct shard *shard;
    char *folder = folder_make(), *path = mem_printf("%s/x.aths", folder);
    struct shard_content content = content_of(tokens, vocab_size);
    assert_int_equal(shard_write(path, &content, &err), 0);
    assert_int_equal(shard_open(path, &shard, &err), 0);
    assert_int_equal(shard->token_bytes, token_bytes);
    assert_int_equal(shard->token_count, 7);
    assert_int_equal(shard->document_count, 3);
    assert_int_equal(shard->flags, SHARD_FLAG_SEPARATOR_BEFORE);
    assert_true(hash_equal(&shard->tokenizer, &content.tokenizer));
    assert_true(hash_equal(&shard->source, &content.source));
    for (uint64_t i = 0; i < 7; i++)
        assert_int_equal(shard_token(shard, i), tokens[i]);
    assert_memory_equal(shard->document_start, starts, sizeof starts);
    shard_close(shard);
    mem_free(path);
    folder_done(folder);
}

static void small_vocabularies_take_two_bytes_a_token(void **state)
{
    (void)state;
    static const uint32_t tokens[] = {0, 1, 65535, 3, 4, 5, 256};
    assert_round_trip(tokens, 65536, 2);
}

static void large_vocabularies_take_four_bytes_a_token(void **state)
{
    (void)state;
    static const uint32_t tokens[] = {0, 1, 65536, 3, 4, 5, 4000000};
    assert_round_trip(tokens, 4000001, 4);
}

/* One shard in 64-byte aligned memory. */
static uint8_t *shard_in_memory(size_t *out_length)
{
    static const uint32_t tokens[] = {0, 1, 2, 3, 4, 5, 6};
    struct err err = {0};
    char *folder = folder_make(), *path = mem_printf("%s/x.aths", folder), *bytes;
    struct shard_content content = content_of(tokens, 10);
    assert_int_equal(shard_write(path, &content, &err), 0);
    assert_int_equal(file_read(path, INPUT_BYTES_MAX, &bytes, out_length, &err), 0);
    uint8_t *aligned = aligned_alloc(64, (*out_length + 63) / 64 * 64);
    memcpy(aligned, bytes, *out_length);
    mem_free(bytes);
    mem_free(path);
    folder_done(folder);
    return aligned;
}

static void any_changed_payload_byte_is_noticed(void **state)
{
    (void)state;
    struct err err = {0};
    struct shard shard;
    size_t length;
    uint8_t *bytes = shard_in_memory(&length);
    assert_int_equal(shard_parse(bytes, length, &shard, &err), 0);
    for (size_t i = SHARD_HEADER_BYTES; i < length; i++) {
        bytes[i] ^= 0x10;
        assert_int_equal(shard_parse(bytes, length, &shard, &err), -1);
        assert_int_equal(err.kind, ERR_PROTOCOL);
        bytes[i] ^= 0x10;
    }
    free(bytes);
}

static void every_truncation_and_header_mutation_is_refused_or_harmless(void **state)
{
    (void)state;
    struct err err = {0};
    struct shard shard;
    size_t length;
    uint8_t *bytes = shard_in_memory(&length);
    for (size_t cut = 0; cut < length; cut++)
        assert_int_equal(shard_parse(bytes, cut, &shard, &err), -1);
    for (size_t i = 0; i < 104; i++)
        for (unsigned value = 0; value < 256; value++) {
            uint8_t kept = bytes[i];
            bytes[i] = (uint8_t)value;
            if (shard_parse(bytes, length, &shard, &err) == 0)
                for (uint64_t t = 0; t < shard.token_count; t++)
                    assert_true(shard_token(&shard, t) <= UINT32_MAX);
            bytes[i] = kept;
        }
    free(bytes);
}

static void a_damaged_file_is_refused_by_name(void **state)
{
    (void)state;
    struct err err = {0};
    struct shard *shard;
    size_t length;
    uint8_t *bytes = shard_in_memory(&length);
    char *folder = folder_make(), *path = mem_printf("%s/hurt.aths", folder);
    bytes[length - 1] ^= 1;
    write_bytes(path, bytes, length);
    assert_int_equal(shard_open(path, &shard, &err), -1);
    assert_non_null(strstr(err.text, "hurt.aths"));
    assert_non_null(strstr(err.text, "checksum"));
    write_bytes(path, bytes, 0);
    assert_int_equal(shard_open(path, &shard, &err), -1);
    assert_int_equal(shard_open("/nowhere/x.aths", &shard, &err), -1);
    assert_int_equal(err.kind, ERR_NOT_FOUND);
    mem_free(path);
    folder_done(folder);
    free(bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(small_vocabularies_take_two_bytes_a_token),
        cmocka_unit_test(large_vocabularies_take_four_bytes_a_token),
        cmocka_unit_test(any_changed_payload_byte_is_noticed),
        cmocka_unit_test(every_truncation_and_header_mutation_is_refused_or_harmless),
        cmocka_unit_test(a_damaged_file_is_refused_by_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
