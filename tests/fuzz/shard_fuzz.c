/* link: engine-data */
/* shard_fuzz.c - an accepted shard's tokens and documents can all be read. The checksum is
 * set right first: else nothing behind it would ever be reached. */
#include "worker/engine/data/shard.h"

#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length);

enum { CHECKSUM_AT = 96 };

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
    struct err err;
    struct shard shard;
    uint8_t *copy = aligned_alloc(64, (length / 64 + 1) * 64);
    CHECK(copy);
    if (length)
        memcpy(copy, bytes, length);
    if (length >= SHARD_HEADER_BYTES) {
        uint64_t sum = XXH64(copy + SHARD_HEADER_BYTES, length - SHARD_HEADER_BYTES, 0);
        memcpy(copy + CHECKSUM_AT, &sum, sizeof sum);
    }
    if (shard_parse(copy, length, &shard, &err) == 0) {
        uint64_t sum = 0;
        for (uint64_t i = 0; i < shard.token_count; i++)
            sum += shard_token(&shard, i);
        for (uint64_t i = 0; i < shard.document_count; i++)
            CHECK(shard.document_start[i] <= shard.document_start[i + 1]);
        CHECK(shard.document_start[shard.document_count] == shard.token_count && sum < UINT64_MAX);
    }
    free(copy);
    return 0;
}
