/* link: engine-io */
/* safetensors_fuzz.c - whatever is accepted has contiguous ranges and can be read whole. */
#include "common/base/mem.h"
#include "worker/engine/io/safetensors.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length);

static void read_all(const struct safetensors *file, const struct st_entry *entry)
{
    struct err err;
    uint64_t count = st_entry_count(entry);
    float *values = mem_array(count + 1, sizeof *values);
    int rc = safetensors_read_f32(file, entry, 0, count, values, &err);
    bool real = entry->type == ST_F32 || entry->type == ST_F16 || entry->type == ST_BF16;
    CHECK((rc == 0) == real);
    mem_free(values);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
    struct err err;
    struct safetensors file;
    if (safetensors_parse(bytes, length, &file, &err) < 0)
        return 0;
    uint64_t at = 0;
    for (size_t i = 0; i < file.count; i++) {
        CHECK(file.entries[i].begin == at);
        at = file.entries[i].end;
        CHECK(safetensors_find(&file, file.entries[i].name));
        read_all(&file, &file.entries[i]);
    }
    CHECK(at == file.data_bytes);
    safetensors_close(&file);
    return 0;
}
