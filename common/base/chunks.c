/* chunks.c - see chunks.h. */
#include "common/base/chunks.h"

#include "common/base/mem.h"

#include <errno.h>
#include <unistd.h>

size_t chunks_count(uint64_t size_bytes)
{
    if (size_bytes > CHUNKED_BYTES_MAX)
        return 0;
    return (size_t)((size_bytes + CHUNK_BYTES - 1) / CHUNK_BYTES);
}

size_t chunk_bytes(uint64_t size_bytes, size_t index)
{
    uint64_t from = (uint64_t)index * CHUNK_BYTES;
    return from >= size_bytes ? 0 : (size_t)min_u64(size_bytes - from, CHUNK_BYTES);
}

void chunks_hash(uint64_t size_bytes, const struct hash *each, size_t count, struct hash *out)
{
    static const char scheme[] = "athanor chunks 1";
    struct hash_stream stream;
    uint8_t size[8];
    for (size_t i = 0; i < sizeof size; i++)
        size[i] = (uint8_t)(size_bytes >> (8 * i));
    hash_start(&stream);
    hash_add(&stream, scheme, sizeof scheme);
    hash_add(&stream, size, sizeof size);
    for (size_t i = 0; i < count; i++)
        hash_add(&stream, each[i].bytes, sizeof each[i].bytes);
    hash_end(&stream, out);
}

int chunk_read(int fd, size_t index, char *out, size_t *out_length, struct err *err)
{
    off_t from = (off_t)(index * CHUNK_BYTES);
    size_t have = 0;
    while (have < CHUNK_BYTES) {
        ssize_t got = pread(fd, out + have, CHUNK_BYTES - have, from + (off_t)have);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return err_errno(err, "read chunk %zu", index);
        if (got == 0)
            break;
        have += (size_t)got;
    }
    *out_length = have;
    return 0;
}

int chunks_of_file(int fd, struct chunks *out, struct err *err)
{
    char *chunk = mem_alloc(CHUNK_BYTES);
    struct chunks *sum = mem_zalloc(sizeof *sum);
    size_t length = CHUNK_BYTES;
    int rc = 0;
    while (rc == 0 && length == CHUNK_BYTES) {
        rc = chunk_read(fd, sum->count, chunk, &length, err);
        if (rc < 0 || length == 0)
            break;
        if (sum->count == CHUNKS_MAX) {
            rc = err_set(err, ERR_LIMIT, "there are more than %u chunks of %zu bytes", CHUNKS_MAX,
                         CHUNK_BYTES);
            break;
        }
        hash_bytes(chunk, length, &sum->each[sum->count++]);
        sum->size_bytes += length;
    }
    if (rc == 0) {
        chunks_hash(sum->size_bytes, sum->each, sum->count, &sum->whole);
        *out = *sum;
    }
    mem_free(chunk);
    mem_free(sum);
    return rc;
}
