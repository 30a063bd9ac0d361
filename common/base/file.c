/* file.c - whole files and folders; see file.h. */
#include "common/base/file.h"

#include "common/base/buf.h"
#include "common/base/mem.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <inttypes.h>
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static int read_to_limit(int fd, const char *path, size_t limit, struct buf *buf, struct err *err)
{
    char chunk[65536];
    for (;;) {
        ssize_t got = read(fd, chunk, sizeof chunk);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return err_errno(err, "read '%s'", path);
        if (got == 0)
            return 0;
        if (buf->length + (size_t)got > limit)
            return err_set(err, ERR_LIMIT, "'%s' is larger than %zu bytes", path, limit);
        buf_add(buf, chunk, (size_t)got);
    }
}

int file_read(const char *path, size_t limit_bytes, char **out_bytes, size_t *out_length,
              struct err *err)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return err_errno(err, "read '%s'", path);
    struct buf buf = {0};
    int rc = read_to_limit(fd, path, limit_bytes, &buf, err);
    close(fd);
    if (rc < 0) {
        buf_done(&buf);
        return -1;
    }
    *out_length = buf.length;
    *out_bytes = buf_take(&buf);
    return 0;
}

int file_write_all(int fd, const void *bytes, size_t length, struct err *err)
{
    const char *at = bytes;
    while (length > 0) {
        ssize_t wrote = write(fd, at, length);
        if (wrote < 0 && errno == EINTR)
            continue;
        if (wrote < 0)
            return err_errno(err, "write %zu bytes", length);
        at += wrote;
        length -= (size_t)wrote;
    }
    return 0;
}

int file_sync_folder(const char *path, struct err *err)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return err_errno(err, "open folder '%s'", path);
    int rc = fsync(fd);
    if (rc < 0)
        err_errno(err, "fsync folder '%s'", path);
    close(fd);
    return rc;
}

static int sync_parent(const char *path, struct err *err)
{
    char *copy = mem_strdup(path);
    int rc = file_sync_folder(dirname(copy), err);
    mem_free(copy);
    return rc;
}

#define TEMPORARY        ".tmp-"
#define TEMPORARY_DRAWN  6u /* characters that mkostemp draws behind it */

static int write_and_sync(int fd, const void *bytes, size_t length, unsigned mode, struct err *err)
{
    if (file_write_all(fd, bytes, length, err) < 0)
        return -1;
    if (fchmod(fd, mode) < 0)
        return err_errno(err, "chmod");
    if (fsync(fd) < 0)
        return err_errno(err, "fsync");
    return 0;
}

/* rename replaces what has the name; link, atomic on NFS as well, does not. */
static int give_name(const char *temporary, const char *path, bool replace, struct err *err)
{
    if (replace)
        return rename(temporary, path) < 0 ? err_errno(err, "rename to '%s'", path) : 0;
    if (link(temporary, path) == 0) {
        unlink(temporary);
        return 0;
    }
    if (errno == EEXIST)
        return err_set(err, ERR_EXISTS, "'%s' is there already", path);
    return err_errno(err, "link to '%s'", path);
}

static int write_whole(const char *path, const void *bytes, size_t length, unsigned mode,
                       bool replace, struct err *err)
{
    char *temporary = mem_printf("%s" TEMPORARY "XXXXXX", path);
    int rc = -1;
    int fd = mkostemp(temporary, O_CLOEXEC);
    if (fd < 0) {
        err_errno(err, "write '%s'", path);
        goto out;
    }
    rc = write_and_sync(fd, bytes, length, mode, err);
    close(fd);
    if (rc == 0)
        rc = give_name(temporary, path, replace, err);
    if (rc < 0) {
        unlink(temporary);
        err_wrap(err, "write '%s'", path);
        goto out;
    }
    rc = sync_parent(path, err);
out:
    mem_free(temporary);
    return rc;
}

int file_replace(const char *path, const void *bytes, size_t length, unsigned mode, struct err *err)
{
    return write_whole(path, bytes, length, mode, true, err);
}

int file_create(const char *path, const void *bytes, size_t length, unsigned mode, struct err *err)
{
    return write_whole(path, bytes, length, mode, false, err);
}

#define SWEEP_OPEN_FILES 16

static int temporary_remove(const char *path, const struct stat *info, int type, struct FTW *at)
{
    (void)at;
    size_t length = strlen(path), tail = sizeof TEMPORARY - 1 + TEMPORARY_DRAWN;
    bool is_temporary = type == FTW_F && S_ISREG(info->st_mode) && length > tail &&
                        memcmp(path + length - tail, TEMPORARY, sizeof TEMPORARY - 1) == 0;
    return is_temporary && unlink(path) < 0 && errno != ENOENT ? -1 : 0;
}

int file_sweep_replaced(const char *folder, struct err *err)
{
    if (nftw(folder, temporary_remove, SWEEP_OPEN_FILES, FTW_PHYS | FTW_MOUNT) < 0 &&
        errno != ENOENT)
        return err_errno(err, "sweep '%s'", folder);
    return 0;
}

int file_make_folders(const char *path, unsigned mode, struct err *err)
{
    char *copy = mem_strdup(path);
    int rc = 0;
    for (char *slash = strchr(copy + 1, '/'); rc == 0; slash = strchr(slash + 1, '/')) {
        if (slash)
            *slash = '\0';
        if (mkdir(copy, mode) < 0 && errno != EEXIST)
            rc = err_errno(err, "make folder '%s'", copy);
        if (!slash)
            break;
        *slash = '/';
    }
    mem_free(copy);
    return rc;
}

/* ---- removing a tree -------------------------------------------------------------------------
 *
 * What jobs leave may be nested deeper than a path can say, or be closed to its own owner. So a
 * folder two levels down is moved up to the first level under another name: nothing is ever more
 * than two names away from the top, whatever its depth was. */

#define MOVED_PREFIX ".removing-"

static bool is_dots(const char *name)
{
    return strcmp(name, ".") == 0 || strcmp(name, "..") == 0;
}

/* Opens a folder, never through a link, and makes it one that we may empty. */
static DIR *folder_to_empty(int parent, const char *name)
{
    const int flags = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;
    int fd = openat(parent, name, flags);
    if (fd < 0 && errno == EACCES && fchmodat(parent, name, 0700, 0) == 0)
        fd = openat(parent, name, flags);
    if (fd < 0)
        return NULL;
    struct stat info;
    if (fstat(fd, &info) == 0 && (info.st_mode & 0700) != 0700 && fchmod(fd, 0700) < 0)
        errno = 0; /* not ours: unlinking says why */
    DIR *folder = fdopendir(fd);
    if (!folder)
        close(fd);
    return folder;
}

/* Returns 1 when a folder has the name, 0 when nothing has it any more. */
static int unlink_unless_folder(int parent, const char *name)
{
    if (unlinkat(parent, name, 0) == 0 || errno == ENOENT)
        return 0;
    return errno == EISDIR ? 1 : -1;
}

static int move_up(int from, const char *name, int top, uint64_t *counter)
{
    char moved[sizeof MOVED_PREFIX + 20];
    bool opened = false;
    for (;;) {
        snprintf(moved, sizeof moved, MOVED_PREFIX "%" PRIu64, (*counter)++);
        if (renameat(from, name, top, moved) == 0)
            return 0;
        if (errno == EACCES && !opened && fchmodat(from, name, 0700, 0) == 0)
            opened = true; /* moving a folder changes its "..", which takes the right to write */
        else if (errno != ENOTEMPTY && errno != EEXIST && errno != ENOTDIR)
            return -1;
    }
}

/* Removes the folder `name` of top; what it holds in folders is moved to top. */
static int folder_dissolve(int top, const char *name, uint64_t *counter)
{
    DIR *folder = folder_to_empty(top, name);
    int rc = folder ? 0 : -1;
    for (struct dirent *entry; rc == 0 && (entry = readdir(folder));) {
        if (is_dots(entry->d_name))
            continue;
        rc = unlink_unless_folder(dirfd(folder), entry->d_name);
        if (rc > 0)
            rc = move_up(dirfd(folder), entry->d_name, top, counter);
    }
    int error = errno;
    if (folder)
        closedir(folder);
    errno = error;
    return rc < 0 ? -1 : unlinkat(top, name, AT_REMOVEDIR);
}

/* Until a pass meets no folder: those moved up may have been missed by the pass under way. */
static int folder_empty(DIR *top)
{
    uint64_t counter = 0;
    for (bool again = true; again;) {
        again = false;
        rewinddir(top);
        for (struct dirent *entry; (entry = readdir(top));) {
            int rc = is_dots(entry->d_name) ? 0 : unlink_unless_folder(dirfd(top), entry->d_name);
            if (rc < 0 || (rc > 0 && folder_dissolve(dirfd(top), entry->d_name, &counter) < 0))
                return -1;
            again = again || rc > 0;
        }
    }
    return 0;
}

int file_remove_tree(const char *path, struct err *err)
{
    int rc = unlink_unless_folder(AT_FDCWD, path);
    if (rc == 0)
        return 0;
    DIR *top = rc > 0 ? folder_to_empty(AT_FDCWD, path) : NULL;
    rc = top ? folder_empty(top) : -1;
    int error = errno;
    if (top)
        closedir(top);
    errno = error;
    if (rc < 0 || (rmdir(path) < 0 && errno != ENOENT))
        return err_errno(err, "remove '%s'", path);
    return 0;
}

int file_map(const char *path, void **out_bytes, size_t *out_length, struct err *err)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK), rc = 0; /* a pipe must not hang it */
    void *bytes = MAP_FAILED;
    struct stat status;

    if (fd < 0)
        return err_errno(err, "open '%s'", path);
    if (fstat(fd, &status) < 0)
        rc = err_errno(err, "read '%s'", path);
    else if (!S_ISREG(status.st_mode) || status.st_size == 0)
        rc = err_set(err, ERR_INVALID, "'%s' is %s, expected a file with something in it", path,
                     S_ISREG(status.st_mode) ? "empty" : "not a regular file");
    if (rc == 0) {
        bytes = mmap(NULL, (size_t)status.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
        rc = bytes == MAP_FAILED ? err_errno(err, "map '%s'", path) : 0;
    }
    close(fd);
    if (rc < 0)
        return -1;
    *out_bytes = bytes;
    *out_length = (size_t)status.st_size;
    return 0;
}

void file_unmap(void *bytes, size_t length)
{
    if (bytes)
        munmap(bytes, length);
}

bool file_exists(const char *path)
{
    return access(path, F_OK) == 0;
}

int file_module(const char *name, char **out, struct err *err)
{
    static const char *const places[] = {"", "/../bin", "/../lib/athanor"};
    char folder[PATH_MAX];
    ssize_t length = readlink("/proc/self/exe", folder, sizeof folder - 1);
    if (length <= 0)
        return err_errno(err, "find our own program");
    folder[length] = '\0';
    *strrchr(folder, '/') = '\0';
    for (size_t i = 0; i < ARRAY_COUNT(places); i++) {
        char *path = mem_printf("%s%s/%s", folder, places[i], name);
        if (file_exists(path)) {
            *out = path;
            return 0;
        }
        mem_free(path);
    }
    return err_set(err, ERR_NOT_FOUND, "no %s in %s, nor in ../lib/athanor from there", name,
                   folder);
}
