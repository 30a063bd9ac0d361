/* file.h - whole files and folders, durably. */
#ifndef ATHANOR_FILE_H
#define ATHANOR_FILE_H

#include "common/base/err.h"

/* Reads a whole regular file, or a pipe to its end. *out_bytes is terminated (mem_free).
 * Errors: ERR_NOT_FOUND, ERR_IO, ERR_LIMIT (more than limit_bytes). */
int file_read(const char *path, size_t limit_bytes, char **out_bytes, size_t *out_length,
              struct err *err) WARN_UNUSED;
/* Maps a whole regular file to be read; it must not be empty. Errors: as above, ERR_INVALID. */
int file_map(const char *path, void **out_bytes, size_t *out_length, struct err *err) WARN_UNUSED;
void file_unmap(void *bytes, size_t length); /* NULL is fine */
/* Writes to a temporary name beside path, fsyncs file and folder, renames: a reader sees
 * the old content or the new one, also after a crash. mode as for open(2). */
int file_replace(const char *path, const void *bytes, size_t length, unsigned mode,
                 struct err *err) WARN_UNUSED;
/* The same for a path that nothing has yet: of all who try at once, on any host that shares the
 * folder, one succeeds. The others get ERR_EXISTS. */
int file_create(const char *path, const void *bytes, size_t length, unsigned mode,
                struct err *err) WARN_UNUSED;
/* Removes what a file_replace that was killed has left anywhere below the folder; no other may be
 * under way there. A missing folder is fine. */
int file_sweep_replaced(const char *folder, struct err *err) WARN_UNUSED;
/* Writes all bytes, retrying short writes and EINTR. */
int file_write_all(int fd, const void *bytes, size_t length, struct err *err) WARN_UNUSED;
int file_make_folders(const char *path, unsigned mode, struct err *err) WARN_UNUSED; /* mkdir -p */
int file_sync_folder(const char *path, struct err *err) WARN_UNUSED;
/* rm -rf, never following links, at any depth, also through folders closed to their owner; a
 * missing path is success. */
int file_remove_tree(const char *path, struct err *err) WARN_UNUSED;
bool file_exists(const char *path);
/* Where a module of ours lies: beside this program, in ../bin (tests) or in ../lib/athanor
 * (installed). *out: mem_free. Errors: ERR_NOT_FOUND, naming the places. */
int file_module(const char *name, char **out, struct err *err) WARN_UNUSED;

#endif
