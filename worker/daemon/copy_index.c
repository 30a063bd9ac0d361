/* copy_index.c - see copy_index.h. */
#include "worker/daemon/copy_index.h"

#include <jansson.h>
#include <string.h>

const char *copy_index_name(bool is_dataset)
{
    return is_dataset ? "dataset.json" : "manifest.json";
}

bool copy_name_is_inside(const char *name)
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

static int file_read_entry(const json_t *entry, bool is_dataset, struct arena *arena,
                           struct copy_file *out, struct err *err)
{
    const char *name = json_string_value(json_object_get(entry, "name"));
    const char *hex = json_string_value(json_object_get(entry, "blake2b"));
    const json_t *size = json_object_get(entry, "size_bytes");
    if (!name || !copy_name_is_inside(name) || strcmp(name, copy_index_name(is_dataset)) == 0 ||
        !json_is_integer(size) || json_integer_value(size) < 0 || !hex ||
        hash_from_hex(hex, &out->content, err) < 0)
        return err_set(err, ERR_PROTOCOL, "its %s lists '%.100s' without size or hash",
                       copy_index_name(is_dataset), name ? name : "");
    out->name = arena_strdup(arena, name);
    out->size_bytes = (uint64_t)json_integer_value(size);
    return 0;
}

int copy_index_read(const char *bytes, size_t length, bool is_dataset, struct arena *arena,
                    struct copy_file **out, size_t *out_count, struct err *err)
{
    json_t *root = json_loadb(bytes, length, JSON_REJECT_DUPLICATES, NULL);
    const json_t *files = json_object_get(root, "files");
    size_t count = json_array_size(files);
    struct copy_file *list = NULL;
    int rc = count > 0 && count <= COPY_FILES_MAX
                 ? 0
                 : err_set(err, ERR_PROTOCOL,
                           "its %s lists no files with their hashes, or more than %u: it can be "
                           "used where it was made or on a shared file system, or be made anew",
                           copy_index_name(is_dataset), COPY_FILES_MAX);
    if (rc == 0)
        list = arena_alloc(arena, count * sizeof *list);
    for (size_t i = 0; rc == 0 && i < count; i++)
        rc = file_read_entry(json_array_get(files, i), is_dataset, arena, &list[i], err);
    json_decref(root);
    if (rc == 0) {
        *out = list;
        *out_count = count;
    }
    return rc;
}
