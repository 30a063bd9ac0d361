/* shard.c - writing, mapping and checking of token shards; see shard.h. */
#include "worker/engine/data/shard.h"

#include "common/base/buf.h"
#include "common/base/file.h"
#include "common/base/mem.h"

#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#define SECTION_ALIGN 64
#define DOCUMENTS_MAX ((uint64_t)1 << 36)

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__,
               "shards are little-endian and used in place");

struct shard_header {
    char magic[4];
    uint32_t version, token_bytes, flags;
    uint64_t token_count, document_count;
    uint8_t tokenizer[HASH_BYTES], source[HASH_BYTES];
    uint64_t checksum;
};
_Static_assert(sizeof(struct shard_header) == 104, "the header has no holes");

static uint64_t aligned(uint64_t bytes)
{
    return (bytes + SECTION_ALIGN - 1) / SECTION_ALIGN * SECTION_ALIGN;
}

static void put_tokens(struct buf *out, const struct shard_content *content, uint32_t token_bytes)
{
    for (uint64_t i = 0; i < content->token_count; i++) {
        uint16_t narrow = (uint16_t)content->tokens[i];
        CHECK(content->tokens[i] < content->vocab_size);
        buf_add(out, token_bytes == 2 ? (const void *)&narrow : &content->tokens[i], token_bytes);
    }
}

int shard_write(const char *path, const struct shard_content *content, struct err *err)
{
    static const char zeros[SHARD_HEADER_BYTES];
    struct shard_header header = {
        .magic = "ATHS",
        .version = SHARD_VERSION,
        .token_bytes = content->vocab_size <= 65536 ? 2 : 4,
        .flags = content->flags,
        .token_count = content->token_count,
        .document_count = content->document_count,
    };
    struct buf out = {0};
    memcpy(header.tokenizer, content->tokenizer.bytes, HASH_BYTES);
    memcpy(header.source, content->source.bytes, HASH_BYTES);
    buf_add(&out, zeros, SHARD_HEADER_BYTES);
    put_tokens(&out, content, header.token_bytes);
    buf_add(&out, zeros, aligned(out.length) - out.length);
    buf_add(&out, content->document_start, (content->document_count + 1) * sizeof(uint64_t));
    header.checksum = XXH64(out.bytes + SHARD_HEADER_BYTES, out.length - SHARD_HEADER_BYTES, 0);
    memcpy(out.bytes, &header, sizeof header);
    int rc = file_replace(path, out.bytes, out.length, 0644, err);
    buf_done(&out);
    return rc;
}

static int check_header(const struct shard_header *header, size_t length, struct err *err)
{
    if (memcmp(header->magic, "ATHS", 4) != 0)
        return err_set(err, ERR_PROTOCOL, "not a token shard (magic is not ATHS)");
    if (header->version != SHARD_VERSION)
        return err_set(err, ERR_PROTOCOL, "shard version %u; version %u is accepted",
                       header->version, SHARD_VERSION);
    if (header->token_bytes != 2 && header->token_bytes != 4)
        return err_set(err, ERR_PROTOCOL, "tokens of %u bytes; 2 and 4 are accepted",
                       header->token_bytes);
    if (header->token_count > SHARD_TOKENS_MAX || header->document_count > DOCUMENTS_MAX)
        return err_set(err, ERR_PROTOCOL, "the header claims %llu tokens in %llu documents",
                       (unsigned long long)header->token_count,
                       (unsigned long long)header->document_count);
    uint64_t want = SHARD_HEADER_BYTES + aligned(header->token_count * header->token_bytes) +
                    (header->document_count + 1) * sizeof(uint64_t);
    if (want != length)
        return err_set(err, ERR_PROTOCOL, "%zu bytes long where the header demands %llu", length,
                       (unsigned long long)want);
    return 0;
}

static int check_documents(const struct shard *shard, struct err *err)
{
    const uint64_t *start = shard->document_start;
    if (start[0] != 0 || start[shard->document_count] != shard->token_count)
        return err_set(err, ERR_PROTOCOL, "document starts do not span the tokens");
    for (uint64_t i = 0; i < shard->document_count; i++)
        if (start[i] > start[i + 1])
            return err_set(err, ERR_PROTOCOL, "document %llu ends before it starts",
                           (unsigned long long)i);
    return 0;
}

int shard_parse(const void *bytes, size_t length, struct shard *out, struct err *err)
{
    struct shard_header header;
    if (length < SHARD_HEADER_BYTES)
        return err_set(err, ERR_PROTOCOL, "%zu bytes long; a shard has at least %d", length,
                       SHARD_HEADER_BYTES);
    memcpy(&header, bytes, sizeof header);
    if (check_header(&header, length, err) < 0)
        return -1;
    const uint8_t *payload = (const uint8_t *)bytes + SHARD_HEADER_BYTES;
    if (XXH64(payload, length - SHARD_HEADER_BYTES, 0) != header.checksum)
        return err_set(err, ERR_PROTOCOL, "the checksum does not match: the file is damaged");
    struct shard shard = {
        .token_bytes = header.token_bytes,
        .flags = header.flags,
        .token_count = header.token_count,
        .document_count = header.document_count,
        .tokens = payload,
        .document_start =
            (const void *)(payload + aligned(header.token_count * header.token_bytes)),
    };
    memcpy(shard.tokenizer.bytes, header.tokenizer, HASH_BYTES);
    memcpy(shard.source.bytes, header.source, HASH_BYTES);
    if (check_documents(&shard, err) < 0)
        return -1;
    *out = shard;
    return 0;
}

static int map_file(const char *path, void **out_bytes, size_t *out_length, struct err *err)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct stat status;
    if (fd < 0)
        return err_errno(err, "open shard '%s'", path);
    if (fstat(fd, &status) < 0 || status.st_size == 0) {
        close(fd);
        return err_set(err, ERR_PROTOCOL, "shard '%s' is empty", path);
    }
    void *bytes = mmap(NULL, (size_t)status.st_size, PROT_READ, MAP_SHARED, fd, 0);
    int rc = bytes == MAP_FAILED ? err_errno(err, "map shard '%s'", path) : 0;
    close(fd);
    if (rc < 0)
        return -1;
    *out_bytes = bytes;
    *out_length = (size_t)status.st_size;
    return 0;
}

int shard_open(const char *path, struct shard **out, struct err *err)
{
    struct shard parsed;
    void *bytes = NULL;
    size_t length = 0;
    if (map_file(path, &bytes, &length, err) < 0)
        return -1;
    if (shard_parse(bytes, length, &parsed, err) < 0) {
        munmap(bytes, length);
        return err_wrap(err, "shard '%s'", path);
    }
    *out = mem_alloc(sizeof **out);
    **out = parsed;
    (*out)->path = mem_strdup(path);
    (*out)->mapping = bytes;
    (*out)->mapping_bytes = length;
    return 0;
}

void shard_close(struct shard *shard)
{
    if (!shard)
        return;
    munmap(shard->mapping, shard->mapping_bytes);
    mem_free((char *)shard->path);
    mem_free(shard);
}

uint32_t shard_token(const struct shard *shard, uint64_t index)
{
    CHECK(index < shard->token_count);
    if (shard->token_bytes == 2) {
        uint16_t narrow;
        memcpy(&narrow, shard->tokens + 2 * index, sizeof narrow);
        return narrow;
    }
    uint32_t wide;
    memcpy(&wide, shard->tokens + 4 * index, sizeof wide);
    return wide;
}
