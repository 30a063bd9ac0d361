/* link: engine-io */
/* weight_index_fuzz.c - an accepted index names files of its own folder, each tensor in one. */
#include "common/base/mem.h"
#include "worker/engine/io/weight_index.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
    struct weight_index index;
    struct err err;
    char *json = mem_strndup((const char *)bytes, length); /* as file_read ends it */
    if (weight_index_parse(json, length, &index, &err) < 0) {
        CHECK(*err.text);
        mem_free(json);
        return 0;
    }
    CHECK(index.tensors.count >= 1 && index.tensors.count <= SAFETENSORS_TENSORS_MAX);
    CHECK(index.files.count >= 1 && index.files.count <= WEIGHT_INDEX_FILES_MAX);
    for (size_t i = 0; i < index.files.count; i++) {
        const struct byte_entry *file = &index.files.entries[i];
        CHECK(file->length > 12 && !memchr(file->bytes, '/', file->length));
        CHECK(file->bytes[0] != '.' && !memchr(file->bytes, 0, file->length));
        CHECK(memcmp(file->bytes + file->length - 12, ".safetensors", 12) == 0);
    }
    for (size_t i = 0; i < index.tensors.count; i++) {
        CHECK(index.tensors.entries[i].length <= SAFETENSORS_NAME_MAX);
        CHECK(index.tensors.entries[i].value < index.files.count);
    }
    weight_index_done(&index);
    mem_free(json);
    return 0;
}
