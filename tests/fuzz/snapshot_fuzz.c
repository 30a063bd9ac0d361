/* link: common-snapshot */
/* snapshot_fuzz.c - any bytes as an archive: what is listed is what is unpacked, and packs again to
 * a tree of the same paths; nothing appears beside the folder. */
#include "common/base/file.h"
#include "common/base/mem.h"
#include "common/snapshot/ignore.h"
#include "common/snapshot/snapshot.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length);

static int count_one(void *user, const struct snapshot_file *file, struct err *err)
{
    (void)err;
    CHECK(snapshot_path_fault(file->path) == NULL);
    ++*(size_t *)user;
    return 0;
}

static void unpack(int fd, size_t listed)
{
    char folder[] = "/tmp/athanor-snapshot-fuzz-XXXXXX";
    struct snapshot_counts counts;
    struct err err;
    CHECK(mkdtemp(folder));
    if (snapshot_extract(fd, folder, true, &counts, &err) == 0)
        CHECK(counts.files == listed);
    CHECK(file_remove_tree(folder, &err) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
    size_t listed = 0;
    struct err err;
    int fd = memfd_create("archive", MFD_CLOEXEC);
    CHECK(fd >= 0 && file_write_all(fd, bytes, length, &err) == 0);
    if (snapshot_list(fd, count_one, &listed, &err) == 0)
        unpack(fd, listed);
    close(fd);
    struct ignore *ignore = ignore_parse((const char *)bytes, min_u64(length, 300));
    ignore_match(ignore, "some/path.of/a-file", false);
    ignore_free(ignore);
    return 0;
}
