/* rules.c - what an archive may hold, and its hash: what writer and reader agree on. */
#include "common/snapshot/snapshot.h"

#include "common/base/mem.h"
#include "common/base/parse.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

const char *snapshot_path_fault(const char *path)
{
    size_t depth = 0, length = strlen(path);
    if (length == 0 || length > SNAPSHOT_PATH_MAX)
        return "is empty or longer than 1000 bytes";
    if (!text_is_utf8(path, length))
        return "is not UTF-8";
    for (const char *name = path; name; depth++) {
        const char *slash = strchr(name, '/');
        size_t bytes = slash ? (size_t)(slash - name) : strlen(name);
        if (bytes == 0)
            return "is absolute or has an empty name";
        if ((bytes == 1 && name[0] == '.') || (bytes == 2 && name[0] == '.' && name[1] == '.'))
            return "has a name '.' or '..'";
        name = slash ? slash + 1 : NULL;
    }
    return depth > SNAPSHOT_DEPTH_MAX ? "is more than 64 folders deep" : NULL;
}

const char *snapshot_link_fault(const char *path, const char *target)
{
    size_t above = 0, length = strlen(target);
    for (const char *at = path; (at = strchr(at, '/')); at++)
        above++;
    if (length == 0 || length > SNAPSHOT_PATH_MAX || !text_is_utf8(target, length))
        return "is empty, longer than 1000 bytes or not UTF-8";
    if (target[0] == '/')
        return "is absolute, expected one within the folder";
    bool front = true;
    for (const char *name = target; name;) {
        size_t bytes = strcspn(name, "/");
        bool up = bytes == 2 && name[0] == '.' && name[1] == '.';
        if (up && !front)
            return "has '..' behind another name, expected it at the front alone";
        if (up && above-- == 0)
            return "leads outside the folder";
        front = front && (up || bytes == 0 || (bytes == 1 && name[0] == '.'));
        name = name[bytes] ? name + bytes + 1 : NULL;
    }
    return NULL;
}

int snapshot_path_compare(const char *a, const char *b)
{
    while (*a && *a == *b) {
        a++;
        b++;
    }
    unsigned x = *a == '/' ? 1 : *a ? (unsigned char)*a + 1u : 0;
    unsigned y = *b == '/' ? 1 : *b ? (unsigned char)*b + 1u : 0;
    return (x > y) - (x < y);
}

/* ---- the hash ----------------------------------------------------------------------------- */

size_t snapshot_chunk_count(uint64_t size_bytes)
{
    if (size_bytes > SNAPSHOT_BYTES_MAX)
        return 0;
    return (size_t)((size_bytes + SNAPSHOT_CHUNK_BYTES - 1) / SNAPSHOT_CHUNK_BYTES);
}

size_t snapshot_chunk_bytes(uint64_t size_bytes, size_t index)
{
    uint64_t from = (uint64_t)index * SNAPSHOT_CHUNK_BYTES;
    return from >= size_bytes ? 0 : (size_t)min_u64(size_bytes - from, SNAPSHOT_CHUNK_BYTES);
}

void snapshot_root(uint64_t size_bytes, const struct hash *chunks, size_t count, struct hash *out)
{
    static const char scheme[] = "athanor snapshot 1";
    struct hash_stream stream;
    uint8_t size[8];
    for (size_t i = 0; i < sizeof size; i++)
        size[i] = (uint8_t)(size_bytes >> (8 * i));
    hash_start(&stream);
    hash_add(&stream, scheme, sizeof scheme);
    hash_add(&stream, size, sizeof size);
    for (size_t i = 0; i < count; i++)
        hash_add(&stream, chunks[i].bytes, sizeof chunks[i].bytes);
    hash_end(&stream, out);
}

/* Fills the chunk as far as the file goes. */
static int chunk_read(int fd, char *chunk, off_t from, size_t *out_length, struct err *err)
{
    size_t have = 0;
    while (have < SNAPSHOT_CHUNK_BYTES) {
        ssize_t got = pread(fd, chunk + have, SNAPSHOT_CHUNK_BYTES - have, from + (off_t)have);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return err_errno(err, "read an archive");
        if (got == 0)
            break;
        have += (size_t)got;
    }
    *out_length = have;
    return 0;
}

int snapshot_sum(int fd, struct snapshot_sum *out, struct err *err)
{
    char *chunk = mem_alloc(SNAPSHOT_CHUNK_BYTES);
    struct snapshot_sum sum = {0};
    size_t length = SNAPSHOT_CHUNK_BYTES;
    int rc = 0;
    while (rc == 0 && length == SNAPSHOT_CHUNK_BYTES) {
        rc = chunk_read(fd, chunk, (off_t)sum.size_bytes, &length, err);
        if (rc == 0 && length > 0 && sum.chunk_count == SNAPSHOT_CHUNKS_MAX)
            rc = err_set(err, ERR_LIMIT, "the archive is larger than %u chunks of %zu bytes",
                         SNAPSHOT_CHUNKS_MAX, SNAPSHOT_CHUNK_BYTES);
        if (rc < 0 || length == 0)
            break;
        hash_bytes(chunk, length, &sum.chunks[sum.chunk_count++]);
        sum.size_bytes += length;
    }
    mem_free(chunk);
    if (rc < 0)
        return -1;
    snapshot_root(sum.size_bytes, sum.chunks, sum.chunk_count, &sum.hash);
    *out = sum;
    return 0;
}
