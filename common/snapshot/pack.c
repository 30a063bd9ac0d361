/* pack.c - a folder into an archive; see snapshot.h.
 *
 * The tree is walked once to know what there is and how much, then read: a folder that is too
 * large is refused before a byte of it is copied. */
#include "common/snapshot/ignore.h"
#include "common/snapshot/snapshot.h"

#include "common/base/arena.h"
#include "common/base/buf.h"
#include "common/base/file.h"
#include "common/base/mem.h"
#include "common/base/parse.h"

#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <fcntl.h>
#include <fts.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define LEVELS_MAX (SNAPSHOT_DEPTH_MAX + 64) /* folders above the packed one, and within */
#define SHOWN_MAX 5                          /* largest files named in a refusal */

struct level { /* one .gitignore */
    struct ignore *ignore;
    size_t base; /* where paths relative to its folder begin in a path from `top` */
};

struct walk {
    const char *folder;
    size_t folder_length;
    const char *prefix; /* from the top of the repository to the folder: "" or "sub/" */
    struct level levels[LEVELS_MAX];
    size_t level_count;
    struct arena arena;
    struct snapshot_file *files;
    size_t count, capacity;
    uint64_t bytes;
};

/* ---- .gitignore --------------------------------------------------------------------------- */

/* As git does, a link in the place of the file does not count. */
static int level_push(struct walk *walk, const char *folder, size_t base, struct err *err)
{
    char *path = mem_printf("%s/.gitignore", folder), *text = NULL;
    struct stat info;
    size_t length = 0;
    int rc = 0;
    struct level *level = &walk->levels[walk->level_count];
    CHECK(walk->level_count < LEVELS_MAX);
    *level = (struct level){.base = base};
    if (lstat(path, &info) == 0 && S_ISREG(info.st_mode)) {
        rc = file_read(path, IGNORE_FILE_BYTES_MAX, &text, &length, err);
        if (rc == 0)
            level->ignore = ignore_parse(text, length);
        mem_free(text);
    }
    mem_free(path);
    walk->level_count += rc == 0;
    return rc;
}

static void level_pop(struct walk *walk)
{
    ignore_free(walk->levels[--walk->level_count].ignore);
}

/* path: relative to the packed folder. */
static bool is_left_out(struct walk *walk, const char *path, bool is_folder)
{
    const char *slash = strrchr(path, '/');
    if (strcmp(slash ? slash + 1 : path, ".git") == 0)
        return true;
    char *whole = mem_printf("%s%s", walk->prefix, path);
    enum ignore_verdict verdict = IGNORE_SILENT;
    for (size_t i = walk->level_count; i > 0 && verdict == IGNORE_SILENT; i--) {
        const struct level *level = &walk->levels[i - 1];
        if (level->ignore)
            verdict = ignore_match(level->ignore, whole + level->base, is_folder);
    }
    mem_free(whole);
    return verdict == IGNORE_OUT;
}

/* The rules above the folder count when it lies in a repository: `top` is where .git is. */
static int levels_above(struct walk *walk, struct err *err)
{
    const char *folder = walk->folder;
    size_t top = walk->folder_length;
    bool found = false;
    while (!found) {
        char *git = mem_printf("%.*s/.git", (int)top, folder);
        found = file_exists(git);
        mem_free(git);
        if (found || top == 0)
            break;
        while (top > 0 && folder[top - 1] != '/')
            top--;
        top -= top > 0;
    }
    walk->prefix = "";
    if (!found || top == walk->folder_length)
        return 0;
    walk->prefix = arena_printf(&walk->arena, "%s/", folder + top + 1);
    for (size_t at = top; at < walk->folder_length;) {
        char *above = arena_strndup(&walk->arena, folder, at);
        if (walk->level_count >= LEVELS_MAX - SNAPSHOT_DEPTH_MAX)
            return err_set(err, ERR_LIMIT, "folder '%s' is too deep in its repository", folder);
        if (level_push(walk, above, at - top ? at - top : 0, err) < 0)
            return -1;
        at++;
        at += strcspn(folder + at, "/");
    }
    return 0;
}

/* ---- walking ------------------------------------------------------------------------------ */

static int file_add(struct walk *walk, const char *path, const struct snapshot_file *file,
                    struct err *err)
{
    const char *fault = snapshot_path_fault(path);
    if (fault)
        return err_set(err, ERR_INVALID, "'%s/%s': its path %s", walk->folder, path, fault);
    VEC_RESERVE(walk->files, walk->count, walk->capacity);
    struct snapshot_file *added = &walk->files[walk->count++];
    *added = *file;
    added->path = arena_strdup(&walk->arena, path);
    walk->bytes += file->size_bytes;
    if (walk->count > SNAPSHOT_FILES_MAX)
        return err_set(err, ERR_LIMIT,
                       "folder '%s' has more than %u files; name in .gitignore what is no code",
                       walk->folder, SNAPSHOT_FILES_MAX);
    return 0;
}

static int link_add(struct walk *walk, const FTSENT *entry, const char *path, struct err *err)
{
    char target[SNAPSHOT_PATH_MAX + 2];
    ssize_t length = readlink(entry->fts_accpath, target, sizeof target - 1);
    if (length < 0)
        return err_errno(err, "read the link '%s/%s'", walk->folder, path);
    target[length] = '\0';
    const char *fault = snapshot_link_fault(path, target);
    if (fault)
        return err_set(err, ERR_INVALID,
                       "the link '%s/%s' -> '%s' %s; name it in .gitignore if it is no code",
                       walk->folder, path, target, fault);
    struct snapshot_file file = {.link = arena_strdup(&walk->arena, target)};
    return file_add(walk, path, &file, err);
}

static int folder_enter(struct walk *walk, FTS *tree, FTSENT *entry, const char *path,
                        struct err *err)
{
    if (*path && is_left_out(walk, path, true)) {
        fts_set(tree, entry, FTS_SKIP);
        return 0;
    }
    if (entry->fts_level > (int)SNAPSHOT_DEPTH_MAX)
        return err_set(err, ERR_LIMIT, "'%s' is more than %u folders deep", entry->fts_path,
                       SNAPSHOT_DEPTH_MAX);
    entry->fts_number = 1; /* its rules are to be popped */
    size_t base = strlen(walk->prefix) + (*path ? strlen(path) + 1 : 0);
    return level_push(walk, entry->fts_path, base, err);
}

static int entry_add(struct walk *walk, FTS *tree, FTSENT *entry, struct err *err)
{
    const char *path = entry->fts_path + walk->folder_length;
    path += *path == '/';
    struct snapshot_file file = {.size_bytes = (uint64_t)entry->fts_statp->st_size,
                                 .executable = entry->fts_statp->st_mode & 0100};
    switch (entry->fts_info) {
    case FTS_D:
        return folder_enter(walk, tree, entry, path, err);
    case FTS_DP:
        if (entry->fts_number)
            level_pop(walk);
        return 0;
    case FTS_F:
        return is_left_out(walk, path, false) ? 0 : file_add(walk, path, &file, err);
    case FTS_SL:
    case FTS_SLNONE:
        return is_left_out(walk, path, false) ? 0 : link_add(walk, entry, path, err);
    case FTS_DNR:
    case FTS_ERR:
    case FTS_NS:
        return err_set(err, ERR_IO, "reading '%s': %s", entry->fts_path,
                       strerror(entry->fts_errno));
    default:
        if (is_left_out(walk, path, false))
            return 0;
        return err_set(err, ERR_INVALID,
                       "'%s' is neither a file, a folder nor a link; name it in .gitignore",
                       entry->fts_path);
    }
}

static int by_name(const FTSENT **a, const FTSENT **b)
{
    return strcmp((*a)->fts_name, (*b)->fts_name);
}

static int walk_tree(struct walk *walk, struct err *err)
{
    char *path = mem_strdup(walk->folder);
    char *const roots[] = {path, NULL};
    FTS *tree = fts_open(roots, FTS_PHYSICAL | FTS_NOCHDIR, by_name);
    FTSENT *entry;
    int rc = tree ? 0 : err_errno(err, "reading '%s'", walk->folder);
    while (rc == 0 && (errno = 0, entry = fts_read(tree)))
        rc = entry_add(walk, tree, entry, err);
    if (rc == 0 && errno)
        rc = err_errno(err, "reading '%s'", walk->folder);
    if (tree)
        fts_close(tree);
    mem_free(path);
    return rc;
}

/* ---- how much ----------------------------------------------------------------------------- */

static int larger_first(const void *a, const void *b)
{
    const struct snapshot_file *x = a, *y = b;
    return (x->size_bytes < y->size_bytes) - (x->size_bytes > y->size_bytes);
}

/* An entry is a header of 512 bytes and content filled up to 512; names over 100 bytes take two
 * entries more, each at most 1,536 bytes. */
static uint64_t archive_bytes(const struct walk *walk)
{
    uint64_t sum = 1024;
    for (size_t i = 0; i < walk->count; i++) {
        const struct snapshot_file *file = &walk->files[i];
        sum += 512 + (file->size_bytes + 511) / 512 * 512;
        sum += strlen(file->path) > 99 ? 1536 : 0;
        sum += file->link && strlen(file->link) > 99 ? 1536 : 0;
    }
    return sum;
}

static int refuse_sum(const struct walk *walk, struct err *err)
{
    struct snapshot_file *sorted = mem_array(walk->count, sizeof *sorted);
    struct buf text = {0};
    char one[PARSE_TEXT_SIZE];
    memcpy(sorted, walk->files, walk->count * sizeof *sorted);
    qsort(sorted, walk->count, sizeof *sorted, larger_first);
    for (size_t i = 0; i < walk->count && i < SHOWN_MAX; i++)
        buf_printf(&text, "%s%s (%s)", i ? ", " : "", sorted[i].path,
                   format_size_short(sorted[i].size_bytes, one));
    err_set(err, ERR_LIMIT,
            "folder '%s' would make an archive of %llu bytes: %llu in %zu files, and their "
            "headers; at most %llu (64 MiB) are accepted. The largest: %s. Name in .gitignore what "
            "is no code; data belongs into a dataset or an input",
            walk->folder, (unsigned long long)archive_bytes(walk),
            (unsigned long long)walk->bytes, walk->count, (unsigned long long)SNAPSHOT_BYTES_MAX,
            buf_text(&text));
    buf_done(&text);
    mem_free(sorted);
    return -1;
}

/* ---- writing ------------------------------------------------------------------------------ */

static int trouble(struct archive *archive, struct err *err)
{
    const char *why = archive_error_string(archive);
    return err_set(err, ERR_IO, "writing the archive: %s", why ? why : "out of memory");
}

static int content_write(struct archive *archive, int fd, const char *path, uint64_t size_bytes,
                         struct err *err)
{
    char chunk[65536];
    uint64_t left = size_bytes;
    for (;;) {
        ssize_t got = read(fd, chunk, sizeof chunk);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return err_errno(err, "read '%s'", path);
        if ((uint64_t)got > left || (got == 0 && left > 0))
            return err_set(err, ERR_IO, "'%s' changed while it was packed, submit again", path);
        if (got == 0)
            return 0;
        if (archive_write_data(archive, chunk, (size_t)got) != got)
            return trouble(archive, err);
        left -= (uint64_t)got;
    }
}

static int file_write(struct archive *archive, const struct walk *walk,
                      const struct snapshot_file *file, struct err *err)
{
    char *path = mem_printf("%s/%s", walk->folder, file->path);
    int fd = open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    int rc = fd < 0 ? err_errno(err, "read '%s'", path)
                    : content_write(archive, fd, path, file->size_bytes, err);
    if (fd >= 0)
        close(fd);
    mem_free(path);
    return rc;
}

static int entry_write(struct archive *archive, const struct walk *walk,
                       const struct snapshot_file *file, struct err *err)
{
    struct archive_entry *entry = archive_entry_new();
    int rc = entry ? 0 : err_set(err, ERR_IO, "writing the archive: out of memory");
    if (rc == 0) {
        archive_entry_set_pathname(entry, file->path);
        archive_entry_set_filetype(entry, file->link ? AE_IFLNK : AE_IFREG);
        archive_entry_set_perm(entry, file->executable ? 0755 : 0644);
        archive_entry_set_mtime(entry, 0, 0);
        archive_entry_set_size(entry, (int64_t)file->size_bytes);
        if (file->link)
            archive_entry_set_symlink(entry, file->link);
        if (archive_write_header(archive, entry) != ARCHIVE_OK)
            rc = trouble(archive, err);
    }
    if (rc == 0 && !file->link)
        rc = file_write(archive, walk, file, err);
    archive_entry_free(entry);
    return rc;
}

static int archive_write_all(const struct walk *walk, int fd, struct err *err)
{
    struct archive *archive = archive_write_new();
    int rc = 0;
    CHECK(archive);
    if (archive_write_set_format_gnutar(archive) != ARCHIVE_OK ||
        archive_write_add_filter_none(archive) != ARCHIVE_OK ||
        archive_write_set_bytes_in_last_block(archive, 1) != ARCHIVE_OK ||
        archive_write_open_fd(archive, fd) != ARCHIVE_OK)
        rc = trouble(archive, err);
    for (size_t i = 0; rc == 0 && i < walk->count; i++)
        rc = entry_write(archive, walk, &walk->files[i], err);
    if (rc == 0 && archive_write_close(archive) != ARCHIVE_OK)
        rc = trouble(archive, err);
    archive_write_free(archive);
    return rc;
}

int snapshot_pack(const char *folder, int fd, struct snapshot_counts *out, struct err *err)
{
    struct walk walk = {0};
    struct stat info;
    char *real = realpath(folder, NULL);
    if (!real)
        return err_errno(err, "pack folder '%s'", folder);
    walk.folder = real;
    walk.folder_length = strlen(real);
    int rc = stat(real, &info) == 0 && S_ISDIR(info.st_mode) && walk.folder_length > 1
                 ? 0
                 : err_set(err, ERR_INVALID, "'%s' is no folder of code", folder);
    if (rc == 0)
        rc = levels_above(&walk, err);
    if (rc == 0)
        rc = walk_tree(&walk, err);
    if (rc == 0 && walk.count == 0)
        rc = err_set(err, ERR_INVALID, "folder '%s' holds nothing to pack", folder);
    if (rc == 0 && archive_bytes(&walk) > SNAPSHOT_BYTES_MAX)
        rc = refuse_sum(&walk, err);
    if (rc == 0)
        rc = archive_write_all(&walk, fd, err);
    if (rc == 0)
        *out = (struct snapshot_counts){walk.count, walk.bytes};
    while (walk.level_count > 0)
        level_pop(&walk);
    mem_free(walk.files);
    arena_done(&walk.arena);
    free(real);
    return rc;
}
