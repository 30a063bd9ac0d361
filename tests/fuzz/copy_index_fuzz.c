/* link: worker-daemon */
/* copy_index_fuzz.c - an accepted index lists files within the copy, other than itself. */
#include "worker/daemon/copy_index.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
    struct err err;
    for (int is_dataset = 0; is_dataset <= 1; is_dataset++) {
        struct arena arena = {0};
        struct copy_file *files;
        size_t count;
        if (copy_index_read((const char *)bytes, length, is_dataset, &arena, &files, &count,
                            &err) == 0) {
            CHECK(count > 0 && count <= COPY_FILES_MAX);
            for (size_t i = 0; i < count; i++)
                CHECK(files[i].name[0] != '/' && !strstr(files[i].name, "/../") &&
                      strncmp(files[i].name, "../", 3) != 0 && files[i].size_bytes <= INT64_MAX &&
                      strcmp(files[i].name, copy_index_name(is_dataset)) != 0);
        }
        arena_done(&arena);
    }
    return 0;
}
