/* manifest.c - manifest.json for programs that have no checksums of their own; see manifest.h. */
#include "client/manifest.h"

#include "common/base/file.h"
#include "common/base/hash.h"
#include "common/base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <fts.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int sync_file(const char *path, struct err *err)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return err_errno(err, "opening '%s'", path);
    int rc = fsync(fd) < 0 ? err_errno(err, "syncing '%s'", path) : 0;
    close(fd);
    return rc;
}

static int add_file(json_t *files, const char *folder, const FTSENT *entry, struct err *err)
{
    const char *name = entry->fts_path + strlen(folder) + 1;
    char hex[HASH_HEX_SIZE];
    struct hash hash;
    if (strcmp(name, "manifest.json") == 0)
        return 0;
    if (json_array_size(files) >= MANIFEST_FILES_MAX)
        return err_set(err, ERR_LIMIT, "checkpoint '%s' has more than %u files", folder,
                       MANIFEST_FILES_MAX);
    if (sync_file(entry->fts_path, err) < 0 || hash_file(entry->fts_path, &hash, err) < 0)
        return -1;
    hash_to_hex(&hash, hex);
    json_t *file = json_pack("{s:s, s:I, s:s}", "name", name, "size_bytes",
                             (json_int_t)entry->fts_statp->st_size, "blake2b", hex);
    if (!file)
        return err_set(err, ERR_INVALID, "file name '%s' is not UTF-8", name);
    json_array_append_new(files, file);
    return 0;
}

static int add_entry(json_t *files, const char *folder, const FTSENT *entry, struct err *err)
{
    switch (entry->fts_info) {
    case FTS_F:
        return add_file(files, folder, entry, err);
    case FTS_D:
        return 0;
    case FTS_DP:
        return file_sync_folder(entry->fts_path, err);
    case FTS_DNR:
    case FTS_ERR:
    case FTS_NS:
        return err_set(err, ERR_IO, "reading '%s': %s", entry->fts_path,
                       strerror(entry->fts_errno));
    default:
        return err_set(err, ERR_INVALID,
                       "'%s' is neither a file nor a directory: a checkpoint holds only these",
                       entry->fts_path);
    }
}

static int by_name(const FTSENT **a, const FTSENT **b)
{
    return strcmp((*a)->fts_name, (*b)->fts_name);
}

static int add_tree(json_t *files, const char *folder, struct err *err)
{
    char *path = mem_strdup(folder);
    char *const roots[] = {path, NULL};
    FTS *tree = fts_open(roots, FTS_PHYSICAL | FTS_NOCHDIR, by_name);
    FTSENT *entry;
    int rc = tree ? 0 : err_errno(err, "reading '%s'", folder);
    while (rc == 0 && (errno = 0, entry = fts_read(tree)))
        rc = add_entry(files, folder, entry, err);
    if (rc == 0 && errno)
        rc = err_errno(err, "reading '%s'", folder);
    if (tree)
        fts_close(tree);
    mem_free(path);
    return rc;
}

/* Whether there is a manifest of this step; -1 when it is of another. */
static int existing(const char *path, uint64_t step, struct err *err)
{
    if (!file_exists(path))
        return 0;
    json_t *manifest = json_load_file(path, 0, NULL);
    const json_t *said = json_object_get(manifest, "step");
    bool same = json_is_integer(said) && (uint64_t)json_integer_value(said) == step;
    json_decref(manifest);
    return same ? 1
                : err_set(
                      err, ERR_EXISTS,
                      "'%s' is there already and not of step %llu: a checkpoint gets a directory "
                      "of its own",
                      path, (unsigned long long)step);
}

static int write_text(const char *path, uint64_t step, json_t *files, struct err *err)
{
    json_t *manifest =
        json_pack("{s:i, s:I, s:O}", "format", 1, "step", (json_int_t)step, "files", files);
    char *text = manifest ? json_dumps(manifest, JSON_INDENT(1)) : NULL;
    CHECK(text);
    int rc = file_replace(path, text, strlen(text), 0644, err);
    free(text);
    json_decref(manifest);
    return rc;
}

int manifest_write(const char *folder, uint64_t step, struct err *err)
{
    size_t length = strlen(folder);
    while (length > 1 && folder[length - 1] == '/')
        length--;
    char *plain = mem_strndup(folder, length);
    char *path = mem_printf("%s/manifest.json", plain);
    json_t *files = json_array();
    int rc = existing(path, step, err);
    if (rc == 0) {
        rc = add_tree(files, plain, err);
        if (rc == 0 && json_array_size(files) == 0)
            rc = err_set(err, ERR_INVALID, "checkpoint '%s' holds no files", plain);
        if (rc == 0)
            rc = write_text(path, step, files, err);
    }
    json_decref(files);
    mem_free(path);
    mem_free(plain);
    return rc < 0 ? -1 : 0;
}
