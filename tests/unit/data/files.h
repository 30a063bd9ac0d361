/* files.h - a small dataset on disk for the tests of shards, batches and datasets. */
#ifndef ATHANOR_TEST_DATASET_FILES_H
#define ATHANOR_TEST_DATASET_FILES_H

#include "tests/unit/data/inputs.h"
#include "worker/engine/data/bpe.h"
#include "worker/engine/data/dataset_write.h"

/* A tokenizer of bytes, two merges and <|endoftext|> (id 258). */
static inline struct tokenizer *small_tokenizer(void)
{
    struct err err;
    struct tokenizer *tokenizer;
    struct word_counts counts = {0};
    word_counts_add_text(&counts, "bird bird", 9);
    assert_int_equal(tokenizer_train(&counts, 259, 1, &tokenizer, &err), 0);
    word_counts_done(&counts);
    return tokenizer;
}

/* Document i is "doc i" and i times " bird". */
static inline void add_documents(struct dataset_document *documents, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        struct buf text = {0};
        buf_printf(&text, "doc %zu", i);
        for (size_t n = 0; n < i; n++)
            buf_puts(&text, " bird");
        documents[i].length = text.length;
        documents[i].text = buf_take(&text);
        documents[i].id = mem_printf("d%zu", i);
    }
}

static inline void documents_done(struct dataset_document *documents, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        mem_free((char *)documents[i].text);
        mem_free((char *)documents[i].id);
    }
}

/* folder/set with parts "even" and "odd" of `count` documents; several shards when
 * shard_tokens is small. Returns the dataset's path (mem_free). */
static inline char *small_dataset(const char *folder, size_t count, uint64_t shard_tokens)
{
    struct err err = {0};
    struct tokenizer *tokenizer = small_tokenizer();
    struct dataset_document *documents = mem_array(count, sizeof *documents);
    struct dataset_writer *writer;
    uint64_t *indices = mem_array(count, sizeof *indices);
    char *path = mem_printf("%s/set", folder);
    add_documents(documents, count);
    assert_int_equal(dataset_writer_open(path, "set", tokenizer, documents, count, shard_tokens,
                                         &writer, &err), 0);
    for (unsigned odd = 0; odd < 2; odd++) {
        size_t chosen = 0;
        for (size_t i = odd; i < count; i += 2)
            indices[chosen++] = i;
        assert_int_equal(dataset_writer_part(writer, odd ? "odd" : "even", indices, chosen, &err),
                         0);
    }
    assert_int_equal(dataset_writer_index(writer, "{\"note\": 1}", &err), 0);
    assert_int_equal(dataset_writer_commit(writer, &err), 0);
    dataset_writer_close(writer);
    documents_done(documents, count);
    mem_free(documents);
    mem_free(indices);
    tokenizer_free(tokenizer);
    return path;
}

#endif
