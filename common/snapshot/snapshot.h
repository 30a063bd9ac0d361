/* snapshot.h - a folder of code as one archive with a hash: what a job runs, whatever becomes of
 * the folder later.
 *
 * The archive is an uncompressed tar (GNU format, written by libarchive) of files and links alone,
 * sorted by path, with mode 0755 or 0644, times and owners zero: the same tree gives the same
 * bytes. Folders are there through the files in them; empty ones are left out, as by git.
 *
 * Its hash is that of common/base/chunks.h. */
#ifndef ATHANOR_SNAPSHOT_H
#define ATHANOR_SNAPSHOT_H

#include "common/base/err.h"
#include "common/base/chunks.h"

/* Code is text: 64 MiB, of CHUNKED_BYTES_MAX. 65,536 files of 100 bytes of path are 7 MB of
 * memory. */
#define SNAPSHOT_BYTES_MAX CHUNKED_BYTES_MAX
#define SNAPSHOT_FILES_MAX 65536u
#define SNAPSHOT_PATH_MAX  1000u /* bytes */
#define SNAPSHOT_DEPTH_MAX 64u

struct snapshot_file {
    const char *path; /* relative, of plain names */
    const char *link; /* NULL for a file; what a link points to */
    uint64_t size_bytes;
    bool executable;
};

struct snapshot_counts {
    size_t files;
    uint64_t bytes; /* of the files' content */
};

/* Packs the folder into fd (a file or memfd, empty). Left out: .git, and what .gitignore files
 * name in the folder, below it, and above it up to a folder with .git. Errors: ERR_INVALID (a link
 * that leads outside, a name that is no UTF-8, a socket, nothing to pack), ERR_LIMIT with the sum
 * and the largest files, ERR_NOT_FOUND, ERR_IO (also: a file changed meanwhile). */
int snapshot_pack(const char *folder, int fd, struct snapshot_counts *out,
                  struct err *err) WARN_UNUSED;

/* Calls `each` for every entry; -1 from it ends the walk. Refuses whatever snapshot_pack would not
 * have written: ERR_PROTOCOL, ERR_LIMIT. Texts are valid during the call. */
typedef int snapshot_each_fn(void *user, const struct snapshot_file *file, struct err *err);
int snapshot_list(int fd, snapshot_each_fn *each, void *user, struct err *err) WARN_UNUSED;

/* Writes the tree below `folder`, which must exist and be empty; files and folders end without
 * the right to write when `read_only`. Never follows a link. On failure the folder holds a part:
 * the caller removes it. Errors: as snapshot_list, ERR_IO. */
int snapshot_extract(int fd, const char *folder, bool read_only, struct snapshot_counts *out,
                     struct err *err) WARN_UNUSED;

/* NULL when a path may stand in an archive, else what is wrong with it. */
const char *snapshot_path_fault(const char *path);
/* The same for the target of a link at `path`: relative, ".." only at its front and not above the
 * root. As folders are no links, such a target leads to a place within the tree. */
const char *snapshot_link_fault(const char *path, const char *target);
/* Paths in the order of the archive: by names, so that what is below a folder follows it. */
int snapshot_path_compare(const char *a, const char *b);

#endif
