/* unpack.c - an archive back into a folder; see snapshot.h.
 *
 * The archive comes from the network, so nothing is believed: libarchive reads the tar, and each
 * entry must be one that pack.c would have written. Files are made below descriptors of folders
 * that were opened without following links, and only where nothing is yet. */
#include "common/snapshot/snapshot.h"

#include "common/base/arena.h"
#include "common/base/file.h"
#include "common/base/mem.h"

#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define READ_BYTES 65536u

struct reading {
    struct archive *archive;
    int fd;
    char *block;    /* what libarchive reads from */
    off_t at;
    char *previous; /* path; NULL before the first */
    size_t count;
    uint64_t bytes;
};

/* What to do with the content of an entry. */
typedef int content_fn(void *user, const void *bytes, size_t length, struct err *err);

static int damaged(struct reading *reading, struct err *err)
{
    const char *why = archive_error_string(reading->archive);
    return err_set(err, ERR_PROTOCOL, "the archive is damaged: %s", why ? why : "unknown format");
}

static la_ssize_t read_block(struct archive *archive, void *user, const void **out)
{
    struct reading *reading = user;
    ssize_t got;
    do {
        got = pread(reading->fd, reading->block, READ_BYTES, reading->at);
    } while (got < 0 && errno == EINTR);
    if (got < 0)
        archive_set_error(archive, errno, "read: %s", strerror(errno));
    else
        reading->at += got;
    *out = reading->block;
    return got;
}

static int reading_open(struct reading *reading, int fd, struct err *err)
{
    *reading = (struct reading){.archive = archive_read_new(), .fd = fd};
    CHECK(reading->archive);
    reading->block = mem_alloc(READ_BYTES);
    if (archive_read_support_format_tar(reading->archive) != ARCHIVE_OK ||
        archive_read_open(reading->archive, reading, NULL, read_block, NULL) != ARCHIVE_OK)
        return damaged(reading, err);
    return 0;
}

static void reading_close(struct reading *reading)
{
    archive_read_free(reading->archive);
    mem_free(reading->block);
    mem_free(reading->previous);
}

/* ---- is this what we would have written? -------------------------------------------------- */

static bool is_below(const char *path, const char *folder)
{
    size_t length = strlen(folder);
    return strncmp(path, folder, length) == 0 && path[length] == '/';
}

static int order_check(struct reading *reading, const char *path, struct err *err)
{
    if (reading->previous && snapshot_path_compare(reading->previous, path) >= 0)
        return err_set(err, ERR_PROTOCOL, "'%s' is there twice or out of order", path);
    if (reading->previous && is_below(path, reading->previous))
        return err_set(err, ERR_PROTOCOL, "'%s' lies below '%s', which is no folder", path,
                       reading->previous);
    mem_free(reading->previous);
    reading->previous = mem_strdup(path);
    return 0;
}

static const char *kind_fault(struct archive_entry *entry, bool is_link)
{
    if (archive_entry_hardlink(entry))
        return "is a hard link";
    if (!is_link && archive_entry_filetype(entry) != AE_IFREG)
        return "is neither a file nor a symbolic link";
    if (archive_entry_sparse_count(entry) > 0)
        return "has holes";
    mode_t mode = archive_entry_perm(entry);
    if (!is_link && mode != 0755 && mode != 0644)
        return "has a mode other than 0755 and 0644";
    if (archive_entry_size(entry) < 0 || (is_link && archive_entry_size(entry) > 0))
        return "has an impossible size";
    return NULL;
}

static int entry_check(struct reading *reading, struct archive_entry *entry,
                       struct snapshot_file *out, struct err *err)
{
    const char *path = archive_entry_pathname(entry);
    bool is_link = archive_entry_filetype(entry) == AE_IFLNK && !archive_entry_hardlink(entry);
    const char *link = is_link ? archive_entry_symlink(entry) : NULL;
    const char *fault = path ? snapshot_path_fault(path) : "cannot be read";
    if (fault)
        return err_set(err, ERR_PROTOCOL, "a path in the archive %s: '%.200s'", fault,
                       path ? path : "");
    if ((fault = kind_fault(entry, is_link)))
        return err_set(err, ERR_PROTOCOL, "'%s' %s, expected files and links as Athanor packs them",
                       path, fault);
    fault = !is_link ? NULL : link ? snapshot_link_fault(path, link) : "cannot be read";
    if (fault)
        return err_set(err, ERR_PROTOCOL, "the link '%s' -> '%.200s' %s", path, link ? link : "",
                       fault);
    if (order_check(reading, path, err) < 0)
        return -1;
    *out = (struct snapshot_file){.path = path,
                                  .link = link,
                                  .size_bytes = (uint64_t)archive_entry_size(entry),
                                  .executable = !is_link && archive_entry_perm(entry) & 0100};
    reading->bytes += out->size_bytes;
    if (++reading->count > SNAPSHOT_FILES_MAX || reading->bytes > SNAPSHOT_BYTES_MAX)
        return err_set(err, ERR_LIMIT, "the archive holds more than %u files or %llu bytes",
                       SNAPSHOT_FILES_MAX, (unsigned long long)SNAPSHOT_BYTES_MAX);
    return 0;
}

/* 1: *out is the next entry; 0: the end; -1. */
static int reading_next(struct reading *reading, struct snapshot_file *out, struct err *err)
{
    struct archive_entry *entry;
    int rc = archive_read_next_header(reading->archive, &entry);
    if (rc == ARCHIVE_EOF)
        return 0;
    if (rc != ARCHIVE_OK)
        return damaged(reading, err);
    return entry_check(reading, entry, out, err) < 0 ? -1 : 1;
}

/* The content of the present entry, which must be as long as its header said. */
static int content_read(struct reading *reading, const struct snapshot_file *file,
                        content_fn *take, void *user, struct err *err)
{
    uint64_t have = 0;
    for (;;) {
        const void *bytes;
        size_t length;
        la_int64_t offset;
        int rc = archive_read_data_block(reading->archive, &bytes, &length, &offset);
        if (rc == ARCHIVE_EOF)
            break;
        if (rc != ARCHIVE_OK)
            return damaged(reading, err);
        if ((uint64_t)offset != have || length > file->size_bytes - have)
            return err_set(err, ERR_PROTOCOL, "'%s' is longer than its header says, or has holes",
                           file->path);
        if (take && take(user, bytes, length, err) < 0)
            return -1;
        have += length;
    }
    if (have != file->size_bytes)
        return err_set(err, ERR_PROTOCOL, "'%s' ends early", file->path);
    return 0;
}

int snapshot_list(int fd, snapshot_each_fn *each, void *user, struct err *err)
{
    struct reading reading;
    struct snapshot_file file;
    int rc = reading_open(&reading, fd, err), more = 0;
    while (rc == 0 && (more = reading_next(&reading, &file, err)) > 0) {
        rc = content_read(&reading, &file, NULL, NULL, err);
        if (rc == 0)
            rc = each(user, &file, err);
    }
    reading_close(&reading);
    return more < 0 ? -1 : rc;
}

/* ---- writing ------------------------------------------------------------------------------ */

struct tree {
    int root;
    struct arena arena;
    const char **folders; /* made, each after the one above it */
    size_t folder_count, folder_capacity;
};

static int folder_note(struct tree *tree, const char *path, size_t length, struct err *err)
{
    if (tree->folder_count >= SNAPSHOT_FILES_MAX)
        return err_set(err, ERR_LIMIT, "the archive holds more than %u folders",
                       SNAPSHOT_FILES_MAX);
    VEC_RESERVE(tree->folders, tree->folder_count, tree->folder_capacity);
    tree->folders[tree->folder_count++] = arena_strndup(&tree->arena, path, length);
    return 0;
}

/* Opens the folder of a path, making what is missing; *out_name is the path's last name. */
static int folder_open(struct tree *tree, const char *path, int *out_fd, const char **out_name,
                       struct err *err)
{
    int at = fcntl(tree->root, F_DUPFD_CLOEXEC, 0);
    const char *name = path;
    int rc = at < 0 ? err_errno(err, "open a folder") : 0;
    for (const char *slash; rc == 0 && (slash = strchr(name, '/')); name = slash + 1) {
        char step[SNAPSHOT_PATH_MAX + 1];
        memcpy(step, name, (size_t)(slash - name));
        step[slash - name] = '\0';
        if (mkdirat(at, step, 0755) == 0)
            rc = folder_note(tree, path, (size_t)(slash - path), err);
        else if (errno != EEXIST)
            rc = err_errno(err, "make the folder of '%s'", path);
        int next = rc < 0 ? -1 : openat(at, step, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (rc == 0 && next < 0)
            rc = err_errno(err, "open the folder of '%s'", path);
        close(at);
        at = next;
    }
    if (rc < 0) {
        if (at >= 0)
            close(at);
        return -1;
    }
    *out_fd = at;
    *out_name = name;
    return 0;
}

static int take_content(void *user, const void *bytes, size_t length, struct err *err)
{
    return file_write_all(*(const int *)user, bytes, length, err);
}

static int file_make(struct reading *reading, const struct snapshot_file *file, int folder,
                     const char *name, bool read_only, struct err *err)
{
    int fd = openat(folder, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0)
        return err_errno(err, "make '%s'", file->path);
    int rc = content_read(reading, file, take_content, &fd, err);
    mode_t mode = (file->executable ? 0755 : 0644) & (read_only ? 0555 : 0777);
    if (rc == 0 && fchmod(fd, mode) < 0)
        rc = err_errno(err, "make '%s'", file->path);
    close(fd);
    return rc;
}

static int entry_make(struct reading *reading, struct tree *tree, const struct snapshot_file *file,
                      bool read_only, struct err *err)
{
    const char *name;
    int folder;
    if (folder_open(tree, file->path, &folder, &name, err) < 0)
        return -1;
    int rc = 0;
    if (!file->link)
        rc = file_make(reading, file, folder, name, read_only, err);
    else if (symlinkat(file->link, folder, name) < 0)
        rc = err_errno(err, "make the link '%s'", file->path);
    close(folder);
    return rc;
}

/* From the deepest up, because a closed folder still lets its own folders be closed. */
static int folders_close(struct tree *tree, struct err *err)
{
    for (size_t i = tree->folder_count; i > 0; i--)
        if (fchmodat(tree->root, tree->folders[i - 1], 0555, 0) < 0)
            return err_errno(err, "close the folder '%s'", tree->folders[i - 1]);
    return fchmod(tree->root, 0555) < 0 ? err_errno(err, "close the folder") : 0;
}

int snapshot_extract(int fd, const char *folder, bool read_only, struct snapshot_counts *out,
                     struct err *err)
{
    struct tree tree = {.root = open(folder, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)};
    struct reading reading;
    struct snapshot_file file;
    int more = 0;
    if (tree.root < 0)
        return err_errno(err, "unpack into '%s'", folder);
    int rc = reading_open(&reading, fd, err);
    while (rc == 0 && (more = reading_next(&reading, &file, err)) > 0)
        rc = entry_make(&reading, &tree, &file, read_only, err);
    if (rc == 0 && more == 0 && read_only)
        rc = folders_close(&tree, err);
    if (rc == 0 && more == 0)
        *out = (struct snapshot_counts){reading.count, reading.bytes};
    reading_close(&reading);
    arena_done(&tree.arena);
    mem_free(tree.folders);
    close(tree.root);
    return rc < 0 || more < 0 ? -1 : 0;
}
