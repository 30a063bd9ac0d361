/* dataset_test.c - writing and opening of dataset directories, and what is refused. */
#include "tests/unit/data/files.h"

#include "common/base/hash.h"
#include "worker/engine/data/batch.h"
#include "worker/engine/data/tokenizer_parts.h"

#include <dirent.h>
#include <jansson.h>
#include <sys/stat.h>

static void parts_are_read_as_they_were_written(void **state)
{
    (void)state;
    struct err err = {0};
    struct dataset *dataset;
    const struct dataset_part *odd;
    struct dataset_texts texts;
    struct token_list tokens = {0};
    struct buf text = {0};
    char *folder = folder_make(), *path = small_dataset(folder, 11, 10000);
    assert_int_equal(dataset_open(path, &dataset, &err), 0);
    assert_string_equal(dataset_name(dataset), "set");
    assert_int_equal(dataset_vocab_size(dataset), 259);
    assert_true(dataset_has_part(dataset, "even"));
    assert_false(dataset_has_part(dataset, "none"));
    assert_int_equal(dataset_part(dataset, "odd", &odd, &err), 0);
    assert_int_equal(odd->document_count, 5);
    assert_int_equal(dataset_texts_read(odd, &texts, &err), 0);
    assert_int_equal(texts.count, 5);
    uint64_t bytes = 0;
    for (uint64_t i = 0; i < 5; i++) {
        dataset_document(odd, i, &tokens);
        buf_clear(&text);
        tokenizer_decode(dataset_tokenizer(dataset), tokens.ids + 1, tokens.count - 1, &text);
        assert_string_equal(buf_text(&text), texts.items[i].text);
        bytes += text.length;
    }
    assert_string_equal(texts.items[1].id, "d3");
    assert_string_equal(texts.items[1].text, "doc 3 bird bird bird");
    assert_int_equal(odd->byte_count, bytes);
    buf_done(&text);
    token_list_done(&tokens);
    dataset_texts_done(&texts);
    dataset_close(dataset);
    mem_free(path);
    folder_done(folder);
}

static void a_part_that_is_not_there_is_refused_with_those_that_are(void **state)
{
    (void)state;
    struct err err = {0};
    struct dataset *dataset;
    const struct dataset_part *part;
    char *folder = folder_make(), *path = small_dataset(folder, 4, 10000);
    assert_int_equal(dataset_open(path, &dataset, &err), 0);
    assert_int_equal(dataset_part(dataset, "evne", &part, &err), -1);
    assert_int_equal(err.kind, ERR_NOT_FOUND);
    assert_non_null(strstr(err.text, "even, odd"));
    dataset_close(dataset);
    mem_free(path);
    folder_done(folder);
}

/* Two writes into one folder: the second replaces the first, and nothing temporary is left. */
static void writing_again_replaces_the_dataset(void **state)
{
    (void)state;
    struct err err = {0};
    struct dataset *dataset;
    const struct dataset_part *part;
    char *folder = folder_make();
    mem_free(small_dataset(folder, 4, 10000));
    char *path = small_dataset(folder, 20, 10000), *temporary = mem_printf("%s.tmp", path);
    assert_int_equal(dataset_open(path, &dataset, &err), 0);
    assert_int_equal(dataset_part(dataset, "even", &part, &err), 0);
    assert_int_equal(part->document_count, 10);
    assert_false(file_exists(temporary));
    dataset_close(dataset);
    mem_free(temporary);
    mem_free(path);
    folder_done(folder);
}

/* What another worker needs to fetch it: name, size and hash of each file but the list's own. */
static void the_index_covers_every_file_with_size_and_hash(void **state)
{
    (void)state;
    struct err err = {0};
    char *folder = folder_make(), *path = small_dataset(folder, 11, 4), *text;
    char *index = mem_printf("%s/dataset.json", path), hex[HASH_HEX_SIZE];
    struct dirent **entries;
    size_t length, found = 0;
    assert_int_equal(file_read(index, 1 << 20, &text, &length, &err), 0);
    json_t *root = json_loadb(text, length, 0, NULL), *files = json_object_get(root, "files");
    assert_true(json_array_size(files) > 6); /* shards of two parts, texts, tokenizer */
    int count = scandir(path, &entries, NULL, NULL);
    for (int i = 0; i < count; i++) {
        found += entries[i]->d_name[0] != '.';
        free(entries[i]);
    }
    free(entries);
    assert_int_equal(json_array_size(files) + 1, found);
    for (size_t i = 0; i < json_array_size(files); i++) {
        const json_t *entry = json_array_get(files, i);
        struct hash content;
        struct stat info;
        char *file = mem_printf("%s/%s", path, json_string_value(json_object_get(entry, "name")));
        assert_int_equal(hash_file(file, &content, &err), 0);
        assert_int_equal(stat(file, &info), 0);
        hash_to_hex(&content, hex);
        assert_string_equal(json_string_value(json_object_get(entry, "blake2b")), hex);
        assert_int_equal(json_integer_value(json_object_get(entry, "size_bytes")), info.st_size);
        mem_free(file);
    }
    json_decref(root);
    mem_free(text);
    mem_free(index);
    mem_free(path);
    folder_done(folder);
}

static void shards_of_another_tokenizer_are_refused(void **state)
{
    (void)state;
    struct err err = {0};
    struct dataset *dataset;
    const struct dataset_part *part;
    struct tokenizer *other;
    struct word_counts counts = {0};
    char *folder = folder_make(), *path = small_dataset(folder, 4, 10000);
    word_counts_add_text(&counts, "fish fish", 9);
    assert_int_equal(tokenizer_train(&counts, 259, 1, &other, &err), 0);
    assert_int_equal(tokenizer_write(other, path, 10, &err), 0);
    assert_int_equal(dataset_open(path, &dataset, &err), 0);
    assert_int_equal(dataset_part(dataset, "even", &part, &err), -1);
    assert_non_null(strstr(err.text, "another tokenizer"));
    dataset_close(dataset);
    tokenizer_free(other);
    word_counts_done(&counts);
    mem_free(path);
    folder_done(folder);
}

static void assert_index_refused(const char *json, const char *expected)
{
    struct err err = {0};
    struct dataset_index index;
    assert_int_equal(dataset_index_parse(json, strlen(json), &index, &err), -1);
    if (!strstr(err.text, expected))
        fail_msg("'%s' does not say '%s'", err.text, expected);
}

static void damaged_indexes_are_refused_by_field(void **state)
{
    (void)state;
#define HEAD "{\"format\": 1, \"name\": \"x\", \"tokenizer\": \"t.json\", \"vocab_size\": 9, "
    assert_index_refused("", "line");
    assert_index_refused("{\"format\": 2}", "format");
    assert_index_refused("{\"format\": 1, \"name\": \"x\", \"tokenizer\": \"../t\"}", "tokenizer");
    assert_index_refused("{\"format\": 1, \"name\": \"x\", \"tokenizer\": \"t\", "
                         "\"vocab_size\": 0}", "vocab_size");
    assert_index_refused(HEAD "\"parts\": []}", "parts");
    assert_index_refused(HEAD "\"parts\": {\"p\": {\"shards\": []}}}", "parts.p.shards");
    assert_index_refused(HEAD "\"parts\": {\"p\": {\"shards\": [\"a/b\"]}}}", "shards[0]");
    assert_index_refused(HEAD "\"parts\": {\"p\": {\"shards\": [\"a\"], \"tokens\": -1}}}",
                         "parts.p.tokens");
    assert_index_refused(HEAD "\"parts\": {\"p\": {\"shards\": [\"a\"], \"texts\": 3}}}",
                         "parts.p.texts");
#undef HEAD
}

/* As Llama's: texts lie between two tokens in a stream, and alone in a row. */
static void documents_of_a_tokenizer_with_two_ends_lie_between_them(void **state)
{
    (void)state;
    static const char *const more[] = {"<s>"};
    struct dataset_document documents[] = {{"a", "doc", 3, NULL, 0}, {"b", "bird", 4, NULL, 0}};
    struct err err = {0};
    struct tokenizer *tokenizer = small_tokenizer();
    struct dataset_writer *writer;
    struct dataset *dataset;
    const struct dataset_part *part;
    struct token_list tokens = {0};
    struct batch batch;
    char *folder = folder_make(), *path = mem_printf("%s/set", folder);
    assert_int_equal(tokenizer_extend(&tokenizer, more, 1, &err), 0);
    tokenizer->role[ROLE_BOS] = 259;
    tokenizer_settle(tokenizer);
    assert_int_equal(dataset_writer_open(path, "set", tokenizer, documents, 2, 10000, &writer,
                                         &err), 0);
    assert_int_equal(dataset_writer_part(writer, "all", (uint64_t[]){0, 1}, 2, &err), 0);
    assert_int_equal(dataset_writer_index(writer, NULL, &err), 0);
    assert_int_equal(dataset_writer_commit(writer, &err), 0);
    dataset_writer_close(writer);
    assert_int_equal(dataset_open(path, &dataset, &err), 0); /* what its files say again */
    assert_int_equal(tokenizer_begin_of_text(dataset_tokenizer(dataset)), 259);
    assert_int_equal(tokenizer_end_of_text(dataset_tokenizer(dataset)), 258);
    assert_int_equal(dataset_part(dataset, "all", &part, &err), 0);
    const struct shard *shard = part->shards[0];
    assert_int_equal(shard->flags, SHARD_FLAG_SEPARATOR_BEFORE | SHARD_FLAG_SEPARATOR_AFTER);
    for (uint64_t d = 0; d < 2; d++) {
        assert_int_equal(shard_token(shard, shard->document_start[d]), 259);
        assert_int_equal(shard_token(shard, shard->document_start[d + 1] - 1), 258);
    }
    dataset_document(part, 0, &tokens);
    assert_int_equal(tokens.count, 4); /* <s>, d, o, c */
    assert_int_equal(tokens.ids[3], 'c');
    assert_int_equal(batch_init(&batch, 1, 6, &err), 0);
    assert_int_equal(documents_fill_ordered(part, 0, &batch), 1);
    assert_memory_equal(batch.token, ((int32_t[]){259, 'd', 'o', 'c', 0, 0}), 24);
    assert_memory_equal(batch.target, ((int32_t[]){'d', 'o', 'c', 258, -1, -1}), 24);
    assert_int_equal(documents_longest(part), 4);
    batch_done(&batch);
    token_list_done(&tokens);
    dataset_close(dataset);
    tokenizer_free(tokenizer);
    mem_free(path);
    folder_done(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(parts_are_read_as_they_were_written),
        cmocka_unit_test(a_part_that_is_not_there_is_refused_with_those_that_are),
        cmocka_unit_test(writing_again_replaces_the_dataset),
        cmocka_unit_test(the_index_covers_every_file_with_size_and_hash),
        cmocka_unit_test(shards_of_another_tokenizer_are_refused),
        cmocka_unit_test(documents_of_a_tokenizer_with_two_ends_lie_between_them),
        cmocka_unit_test(damaged_indexes_are_refused_by_field),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
