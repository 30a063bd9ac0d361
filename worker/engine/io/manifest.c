/* manifest.c - the list of a checkpoint's files; see checkpoint.h. */
#include "common/base/mem.h"
#include "worker/engine/io/checkpoint.h"

#include <jansson.h>
#include <string.h>

#define MANIFEST_FILES_MAX 65536

static int read_file_entry(json_t *entry, size_t index, struct manifest_file *out,
                           struct err *err)
{
    json_t *size = json_object_get(entry, "size_bytes");
    const char *name = json_string_value(json_object_get(entry, "name"));
    const char *hex = json_string_value(json_object_get(entry, "blake2b"));
    if (!name || !*name || strchr(name, '/') || name[0] == '.' || strlen(name) > 255)
        return err_set(err, ERR_PROTOCOL, "files[%zu].name is not a plain file name", index);
    if (!json_is_integer(size) || json_integer_value(size) < 0)
        return err_set(err, ERR_PROTOCOL, "files[%zu].size_bytes is not a size", index);
    if (!hex || hash_from_hex(hex, &out->hash, err) < 0)
        return err_set(err, ERR_PROTOCOL, "files[%zu].blake2b is not 64 hex digits", index);
    out->name = mem_strdup(name);
    out->size_bytes = (uint64_t)json_integer_value(size);
    return 0;
}

static int read_manifest(json_t *root, struct manifest *out, struct err *err)
{
    json_t *format = json_object_get(root, "format"), *step = json_object_get(root, "step");
    json_t *files = json_object_get(root, "files"), *entry;
    size_t i;
    if (!json_is_integer(format) || json_integer_value(format) != 1)
        return err_set(err, ERR_PROTOCOL, "format is not 1");
    if (!json_is_integer(step) || json_integer_value(step) < 0)
        return err_set(err, ERR_PROTOCOL, "step is not a step number");
    if (!json_is_array(files) || json_array_size(files) > MANIFEST_FILES_MAX)
        return err_set(err, ERR_PROTOCOL, "files is not an array of at most %d",
                       MANIFEST_FILES_MAX);
    out->step = (uint64_t)json_integer_value(step);
    out->files = mem_array(json_array_size(files) + 1, sizeof *out->files);
    json_array_foreach(files, i, entry) {
        if (read_file_entry(entry, i, &out->files[i], err) < 0)
            return -1;
        out->file_count++;
    }
    return 0;
}

int manifest_parse(const char *json, size_t length, struct manifest *out, struct err *err)
{
    json_error_t why;
    struct manifest manifest = {0};
    json_t *root = json_loadb(json, length, JSON_REJECT_DUPLICATES, &why);
    if (!root)
        return err_set(err, ERR_PROTOCOL, "line %d column %d: %s", why.line, why.column, why.text);
    int rc = read_manifest(root, &manifest, err);
    json_decref(root);
    if (rc < 0)
        manifest_done(&manifest);
    else
        *out = manifest;
    return rc;
}

void manifest_done(struct manifest *manifest)
{
    for (size_t i = 0; i < manifest->file_count; i++)
        mem_free(manifest->files[i].name);
    mem_free(manifest->files);
    *manifest = (struct manifest){0};
}
