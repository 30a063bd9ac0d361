/* chunks.h - something stored or sent in pieces, each of which can be checked alone.
 *
 * Its hash is taken over the hashes of its chunks,
 *     BLAKE2b("athanor chunks 1", size as 8 bytes little-endian, BLAKE2b(chunk 0), ...),
 * so that whoever knows the hash can trust a list of hashes from anybody, and then each chunk. */
#ifndef ATHANOR_CHUNKS_H
#define ATHANOR_CHUNKS_H

#include "common/base/hash.h"

/* A chunk travels in one message and is one row. 256 of them are 64 MiB, and their hashes 8 KiB in
 * one message. */
#define CHUNK_BYTES    ((size_t)256 << 10)
#define CHUNKS_MAX     256u
#define CHUNKED_BYTES_MAX ((uint64_t)CHUNKS_MAX * CHUNK_BYTES)

struct chunks {
    uint64_t size_bytes;
    size_t count; /* 0 for nothing */
    struct hash each[CHUNKS_MAX];
    struct hash whole;
};

/* Of a file, from its beginning (pread). Errors: ERR_IO, ERR_LIMIT. */
int chunks_of_file(int fd, struct chunks *out, struct err *err) WARN_UNUSED;
/* Reads as much of one chunk as there is into CHUNK_BYTES of room. Errors: ERR_IO. */
int chunk_read(int fd, size_t index, char *out, size_t *out_length, struct err *err) WARN_UNUSED;
void chunks_hash(uint64_t size_bytes, const struct hash *each, size_t count, struct hash *out);
/* How many chunks that size has; 0 for none or more than CHUNKED_BYTES_MAX. */
size_t chunks_count(uint64_t size_bytes);
size_t chunk_bytes(uint64_t size_bytes, size_t index); /* 0 behind the end */

#endif
