/* checkpoint_check.c - see checkpoint_check.h. */
#include "worker/shepherd/checkpoint_check.h"

#include "common/base/file.h"
#include "common/base/mem.h"

#include <errno.h>
#include <ftw.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* A plain relative path: what a manifest may name must stay within its directory. */
static bool name_is_inside(const char *name)
{
    if (!name[0] || name[0] == '/')
        return false;
    for (const char *part = name; part; part = strchr(part, '/')) {
        part += *part == '/';
        size_t length = strcspn(part, "/");
        if (length == 0 || (length <= 2 && strspn(part, ".") >= length))
            return false;
    }
    return true;
}

static int entry_read(const json_t *entry, manifest_file_fn *file, void *user, uint64_t *sum,
                      struct err *err)
{
    const char *name = json_string_value(json_object_get(entry, "name"));
    const json_t *size = json_object_get(entry, "size_bytes");
    if (!name || !name_is_inside(name))
        return err_set(err, ERR_INVALID,
                       "manifest.json: file name '%.100s', expected a path within "
                       "the checkpoint",
                       name ? name : "");
    if (!json_is_integer(size) || json_integer_value(size) < 0)
        return err_set(err, ERR_INVALID, "manifest.json: size_bytes of '%.100s' is not a count",
                       name);
    uint64_t bytes = (uint64_t)json_integer_value(size);
    if (*sum + bytes < *sum)
        return err_set(err, ERR_INVALID, "manifest.json: sizes add up to more than 2^64");
    *sum += bytes;
    return file ? file(user, name, bytes, err) : 0;
}

static int root_check(const json_t *root, uint64_t step, struct err *err)
{
    const json_t *said = json_object_get(root, "step");
    if (json_integer_value(json_object_get(root, "format")) != 1)
        return err_set(err, ERR_INVALID, "manifest.json: expected \"format\": 1");
    if (!json_is_integer(said) || (uint64_t)json_integer_value(said) != step)
        return err_set(err, ERR_INVALID,
                       "manifest.json is of step %" JSON_INTEGER_FORMAT
                       ", the report says %" PRIu64,
                       json_is_integer(said) ? json_integer_value(said) : -1, step);
    if (json_array_size(json_object_get(root, "files")) == 0)
        return err_set(err, ERR_INVALID, "manifest.json lists no files");
    return 0;
}

int manifest_parse(const char *text, size_t length, uint64_t step, manifest_file_fn *file,
                   void *user, uint64_t *out_bytes, struct err *err)
{
    json_error_t why;
    json_t *root = json_loadb(text, length, JSON_REJECT_DUPLICATES, &why);
    if (!root)
        return err_set(err, ERR_INVALID, "manifest.json line %d: %s", why.line, why.text);
    uint64_t sum = 0;
    int rc = root_check(root, step, err);
    const json_t *files = json_object_get(root, "files");
    for (size_t i = 0; rc == 0 && i < json_array_size(files); i++)
        rc = entry_read(json_array_get(files, i), file, user, &sum, err);
    json_decref(root);
    if (rc == 0)
        *out_bytes = sum;
    return rc;
}

/* `what` follows the refused path in the refusal, with the base in quotes behind it. */
static int below_check(const char *path, const char *base, const char *what, struct err *err)
{
    char *real = realpath(path, NULL);
    if (!real)
        return err_set(err, ERR_INVALID, "'%s': %s", path, strerror(errno));
    char *real_base = realpath(base, NULL);
    int rc = 0;
    if (!real_base)
        rc = err_errno(err, "directory '%s'", base);
    else if (strncmp(real, real_base, strlen(real_base)) != 0 || real[strlen(real_base)] != '/')
        rc = err_set(err, ERR_INVALID, "'%s' is not below %s '%s'", path, what, base);
    free(real);
    free(real_base);
    return rc;
}

static int inside_check(const char *path, const char *job_dir, struct err *err)
{
    return below_check(path, job_dir, "ATHANOR_JOB_DIR, where what is to be kept belongs,", err);
}

/* A link out of the checkpoint would outlive its target, or change with it. */
static int file_check(void *user, const char *name, uint64_t size_bytes, struct err *err)
{
    const char *folder = user;
    struct stat info;
    char *path = mem_printf("%s/%s", folder, name);
    int rc = 0;
    if (stat(path, &info) < 0)
        rc = err_set(err, ERR_INVALID, "file '%s' of the manifest: %s", path, strerror(errno));
    else if (!S_ISREG(info.st_mode) || (uint64_t)info.st_size != size_bytes)
        rc = err_set(err, ERR_INVALID, "file '%s' has %jd bytes, the manifest says %" PRIu64, path,
                     (intmax_t)info.st_size, size_bytes);
    else
        rc = below_check(path, folder, "the checkpoint", err);
    mem_free(path);
    return rc;
}

int checkpoint_check(const char *path, uint64_t step, const char *job_dir,
                     struct checkpoint_facts *out, struct err *err)
{
    if (inside_check(path, job_dir, err) < 0)
        return -1;
    char *manifest = mem_printf("%s/manifest.json", path), *text = NULL;
    struct checkpoint_facts facts;
    size_t length;
    int rc = file_read(manifest, MANIFEST_BYTES_MAX, &text, &length, err);
    if (rc < 0)
        rc = err_set(err, ERR_INVALID,
                     "'%s' is not a complete checkpoint: no readable "
                     "manifest.json",
                     path);
    if (rc == 0)
        rc = manifest_parse(text, length, step, file_check, (void *)path, &facts.size_bytes, err);
    if (rc == 0) {
        hash_bytes(text, length, &facts.content);
        *out = facts;
    }
    mem_free(text);
    mem_free(manifest);
    return rc;
}

/* nftw has no user pointer; the shepherd has one thread that comes here. */
static uint64_t tree_bytes;

static int tree_add(const char *path, const struct stat *info, int type, struct FTW *walk)
{
    (void)path, (void)walk;
    if (type == FTW_F)
        tree_bytes += (uint64_t)info->st_size;
    return 0;
}

static int folder_hash(const char *path, struct hash *out, struct err *err)
{
    static const char *const names[] = {"manifest.json", "dataset.json"};
    for (size_t i = 0; i < ARRAY_COUNT(names); i++) {
        char *file = mem_printf("%s/%s", path, names[i]);
        bool there = file_exists(file);
        int rc = there ? hash_file(file, out, err) : 0;
        mem_free(file);
        if (there)
            return rc;
    }
    memset(out, 0, sizeof *out);
    return 0;
}

int artifact_check(const char *path, const char *job_dir, struct checkpoint_facts *out,
                   struct err *err)
{
    struct stat info;
    struct checkpoint_facts facts = {0};
    if (inside_check(path, job_dir, err) < 0)
        return -1;
    if (stat(path, &info) < 0)
        return err_errno(err, "artifact '%s'", path);
    tree_bytes = 0;
    if (nftw(path, tree_add, 16, FTW_PHYS) < 0)
        return err_errno(err, "look into artifact '%s'", path);
    facts.size_bytes = tree_bytes;
    int rc = S_ISDIR(info.st_mode) ? folder_hash(path, &facts.content, err)
                                   : hash_file(path, &facts.content, err);
    if (rc == 0)
        *out = facts;
    return rc;
}
