/* shard.h - token ids on disk: 4096-byte header, tokens, document starts; memory-mapped.
 *
 * Little-endian, sections 64-byte aligned:
 *      0  "ATHS"            4  u32 version 1     8  u32 dtype (2: u16, 4: u32)   12  u32 flags
 *     16  u64 token_count  24  u64 document_count
 *     32  tokenizer identity (32 B)   64  BLAKE2b-256 of the source documents (32 B)
 *     96  u64 xxh64 of all bytes after the header   104 ... 4095 zero
 *   4096  tokens, then zeros up to a multiple of 64, then u64 document_start[documents + 1]
 * document_start is in tokens, starts with 0, never falls and ends with token_count. */
#ifndef ATHANOR_SHARD_H
#define ATHANOR_SHARD_H

#include "common/base/err.h"
#include "common/base/hash.h"

#define SHARD_HEADER_BYTES 4096
#define SHARD_VERSION 1
#define SHARD_FLAG_SEPARATOR_BEFORE 1u /* each document begins with what begins texts */
#define SHARD_FLAG_SEPARATOR_AFTER  2u /* each document ends with what ends texts */
#define SHARD_TOKENS_MAX ((uint64_t)1 << 40)

struct shard {
    const char *path; /* owned */
    uint32_t token_bytes;       /* 2 or 4 */
    uint32_t flags;
    uint64_t token_count, document_count;
    struct hash tokenizer, source;
    const uint8_t *tokens;         /* in the mapping */
    const uint64_t *document_start; /* in the mapping, aligned */
    void *mapping;
    size_t mapping_bytes;
};

struct shard_content {
    const uint32_t *tokens;
    uint64_t token_count;
    const uint64_t *document_start; /* document_count + 1 */
    uint64_t document_count;
    uint32_t vocab_size; /* u16 on disk when it is at most 65536 */
    uint32_t flags;
    struct hash tokenizer, source;
};

/* Writes to a temporary name, syncs and renames. */
int shard_write(const char *path, const struct shard_content *content, struct err *err) WARN_UNUSED;
/* Maps and checks everything: header, sizes, checksum, document starts.
 * Errors: ERR_NOT_FOUND, ERR_IO, ERR_PROTOCOL naming the file and what is wrong. */
int shard_open(const char *path, struct shard **out, struct err *err) WARN_UNUSED;
void shard_close(struct shard *shard);
uint32_t shard_token(const struct shard *shard, uint64_t index); /* index < token_count */
/* The checks of shard_open on bytes in memory (64-byte aligned); fills `out` but path. */
int shard_parse(const void *bytes, size_t length, struct shard *out, struct err *err) WARN_UNUSED;

#endif
