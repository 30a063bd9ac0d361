/* link: worker-shepherd */
/* manifest_fuzz.c - manifest.json of a checkpoint, from any program: no name leaves its folder. */
#include "worker/shepherd/checkpoint_check.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length);

static int file(void *user, const char *name, uint64_t size_bytes, struct err *err)
{
    (void)user, (void)size_bytes, (void)err;
    CHECK(name[0] != '/' && strncmp(name, "../", 3) != 0 && !strstr(name, "/../"));
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
    struct err err = {0};
    uint64_t sum;
    if (manifest_parse((const char *)bytes, length, 5, file, NULL, &sum, &err) < 0)
        CHECK(err.kind == ERR_INVALID && err.text[0]);
    return 0;
}
