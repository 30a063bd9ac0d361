/* link: engine-io */
/* checkpoint_manifest_fuzz.c - an accepted manifest names plain files only. */
#include "worker/engine/io/checkpoint.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
    struct err err;
    struct manifest manifest;
    if (manifest_parse((const char *)bytes, length, &manifest, &err) < 0)
        return 0;
    for (size_t i = 0; i < manifest.file_count; i++)
        CHECK(manifest.files[i].name[0] != '.' && !strchr(manifest.files[i].name, '/'));
    manifest_done(&manifest);
    return 0;
}
