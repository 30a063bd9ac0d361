/* dataset_write.h - making a dataset directory: encode once, pick parts, publish at once.
 *
 * All is written into a temporary folder beside the final one; commit renames. A reader sees
 * a whole dataset or none. */
#ifndef ATHANOR_DATASET_WRITE_H
#define ATHANOR_DATASET_WRITE_H

#include "worker/engine/data/dataset.h"

struct dataset_writer;

struct dataset_document {
    const char *id, *text; /* terminated UTF-8, borrowed until the writer is closed */
    size_t length;         /* of text */
    const uint32_t *codes; /* tokens before the text, as control codes are; not in `text` */
    size_t code_count;
};

/* Creates the temporary folder (an older leftover is removed), encodes the documents, each
 * with what begins texts, its codes and, where it is another token, what ends them, and writes the
 * tokenizer's files.
 * shard_tokens: a shard is closed when it reaches this many. */
int dataset_writer_open(const char *folder, const char *name, const struct tokenizer *tokenizer,
                        const struct dataset_document *documents, size_t count,
                        uint64_t shard_tokens, struct dataset_writer **out,
                        struct err *err) WARN_UNUSED;
uint64_t dataset_writer_tokens(const struct dataset_writer *writer); /* of all documents */
/* A part of the documents with these numbers, in this order: shards and NAME.jsonl. count > 0.
 * ERR_INVALID for a name that is not [A-Za-z0-9_.-]{1,64}. */
int dataset_writer_part(struct dataset_writer *writer, const char *name, const uint64_t *indices,
                        size_t count, struct err *err) WARN_UNUSED;
/* Writes dataset.json so that dataset_open works on the temporary folder, with size and hash of
 * every file that is there by now. extra_json: members to merge into it ("{...}"), or NULL. May be
 * called again with more; a file written before must not have changed since. */
int dataset_writer_index(struct dataset_writer *writer, const char *extra_json,
                         struct err *err) WARN_UNUSED;
const char *dataset_writer_folder(const struct dataset_writer *writer); /* the temporary one */
/* Renames over an older dataset of that folder. */
int dataset_writer_commit(struct dataset_writer *writer, struct err *err) WARN_UNUSED;
/* Frees; removes the temporary folder when not committed. NULL is fine. */
void dataset_writer_close(struct dataset_writer *writer);

#endif
