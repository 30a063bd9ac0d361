/* copy_index.h - the list of files of a checkpoint or dataset, as another worker sends it.
 *
 * manifest.json and dataset.json have a member "files": [{"name", "size_bytes", "blake2b"}]. The
 * hash of the index is that of the whole, so what it lists is as it was made. */
#ifndef ATHANOR_DAEMON_COPY_INDEX_H
#define ATHANOR_DAEMON_COPY_INDEX_H

#include "common/base/arena.h"
#include "common/base/err.h"
#include "common/base/hash.h"

#define COPY_MANIFEST_MAX ((size_t)16 << 20) /* as the shepherd accepts */
#define COPY_FILES_MAX    100000u

struct copy_file {
    const char *name; /* plain and relative */
    uint64_t size_bytes;
    struct hash content;
};

/* "manifest.json" or "dataset.json" */
const char *copy_index_name(bool is_dataset);
/* A plain relative path: what an index may name. */
bool copy_name_is_inside(const char *name);
/* Files and names live in the arena. Errors: ERR_PROTOCOL, as "its dataset.json ...". */
int copy_index_read(const char *bytes, size_t length, bool is_dataset, struct arena *arena,
                    struct copy_file **out, size_t *out_count, struct err *err) WARN_UNUSED;

#endif
