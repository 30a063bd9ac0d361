/* link: engine-data */
/* dataset_index_fuzz.c - an accepted dataset.json names plain files only. */
#include "worker/engine/data/dataset.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
    struct err err;
    struct dataset_index index;
    if (dataset_index_parse((const char *)bytes, length, &index, &err) < 0)
        return 0;
    CHECK(index.part_count <= DATASET_PARTS_MAX && !strchr(index.tokenizer, '/'));
    for (size_t p = 0; p < index.part_count; p++) {
        CHECK(index.parts[p].shard_count > 0);
        for (size_t i = 0; i < index.parts[p].shard_count; i++)
            CHECK(!strchr(index.parts[p].shards[i], '/'));
    }
    dataset_index_done(&index);
    return 0;
}
