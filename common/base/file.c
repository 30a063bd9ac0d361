/* file.c - whole files and folders; see file.h. */
#include "common/base/file.h"

#include "common/base/buf.h"
#include "common/base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
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

int file_replace(const char *path, const void *bytes, size_t length, unsigned mode,
                 struct err *err)
{
    char *temporary = mem_printf("%s.tmp-XXXXXX", path);
    int rc = -1;
    int fd = mkostemp(temporary, O_CLOEXEC);
    if (fd < 0) {
        err_errno(err, "write '%s'", path);
        goto out;
    }
    rc = write_and_sync(fd, bytes, length, mode, err);
    close(fd);
    if (rc == 0 && rename(temporary, path) < 0)
        rc = err_errno(err, "rename to '%s'", path);
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

static int remove_one(const char *path, const struct stat *info, int type, struct FTW *walk)
{
    (void)info, (void)type, (void)walk;
    return remove(path) < 0 && errno != ENOENT ? -1 : 0;
}

int file_remove_tree(const char *path, struct err *err)
{
    if (nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS) < 0 && errno != ENOENT)
        return err_errno(err, "remove '%s'", path);
    return 0;
}

bool file_exists(const char *path)
{
    return access(path, F_OK) == 0;
}
