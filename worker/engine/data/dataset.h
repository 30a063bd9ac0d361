/* dataset.h - a directory of token shards in named parts, opened for reading.
 *
 * dataset.json (worker/README.md) names parts; a part is a list of shards (shard.h) and
 * optionally a texts file. Tokens of one document are contiguous in one shard, between what begins
 * texts and, where that is another token (Llama's <s> and </s>), what ends them. */
#ifndef ATHANOR_DATASET_H
#define ATHANOR_DATASET_H

#include "worker/engine/data/shard.h"
#include "worker/engine/data/tokenizer.h"

#define DATASET_PARTS_MAX 256
#define DATASET_SHARDS_MAX 4096 /* per part: 4096 * 1e8 tokens is more than any corpus here */

#define DATASET_FORMAT 1

struct dataset;

/* A part; everything is borrowed from the dataset. */
struct dataset_part {
    const char *name;
    const struct dataset *dataset;
    struct shard **shards;
    size_t shard_count;
    uint64_t token_count, document_count, byte_count;
    uint64_t *document_base; /* shard_count + 1 prefix sums of documents */
    const char *texts_path;  /* absolute; NULL when absent */
};

/* Reads dataset.json and tokenizer.json; maps no shard yet. */
int dataset_open(const char *path, struct dataset **out, struct err *err) WARN_UNUSED;
void dataset_close(struct dataset *dataset);
const char *dataset_name(const struct dataset *dataset);
const char *dataset_path(const struct dataset *dataset);
uint32_t dataset_vocab_size(const struct dataset *dataset);
const struct tokenizer *dataset_tokenizer(const struct dataset *dataset);
/* Maps the shards of a part, checking header, checksum and tokenizer identity once.
 * ERR_NOT_FOUND lists the parts there are. The part belongs to the dataset. */
int dataset_part(struct dataset *dataset, const char *name, const struct dataset_part **out,
                 struct err *err) WARN_UNUSED;
bool dataset_has_part(const struct dataset *dataset, const char *name);

/* Index of the shard that holds document `index` (below document_count, CHECK). */
size_t dataset_shard_of(const struct dataset_part *part, uint64_t index);
/* Tokens of document `index` (0 .. document_count-1), the one that begins
 * texts included, the one that ends them not. Ids are widened into *out, which is cleared first. */
void dataset_document(const struct dataset_part *part, uint64_t index, struct token_list *out);

/* One document of a part as text. */
struct dataset_text {
    char *id, *text; /* UTF-8, terminated */
};
struct dataset_texts {
    struct dataset_text *items;
    size_t count;
};
/* The texts file of a part, in document order. ERR_NOT_FOUND when the part has none. */
int dataset_texts_read(const struct dataset_part *part, struct dataset_texts *out,
                       struct err *err) WARN_UNUSED;
void dataset_texts_done(struct dataset_texts *texts);

/* What a dataset.json says, before any shard is opened: for the reader and for fuzzing. */
struct dataset_index {
    char *name, *tokenizer;
    uint32_t vocab_size;
    struct dataset_index_part {
        char *name, *texts; /* texts: NULL when absent */
        char **shards;
        size_t shard_count;
        uint64_t tokens, documents, bytes;
    } *parts;
    size_t part_count;
};
/* Errors: ERR_PROTOCOL or ERR_INVALID naming the field. File names have no '/' and no "..". */
int dataset_index_parse(const char *json, size_t length, struct dataset_index *out,
                        struct err *err) WARN_UNUSED;
void dataset_index_done(struct dataset_index *index);

#endif
