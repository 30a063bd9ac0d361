/* checkpoint_read.c - opening a checkpoint, whoever wrote it with however many ranks. */
#include "common/base/file.h"
#include "common/base/mem.h"
#include "common/base/parse.h"
#include "worker/engine/io/checkpoint.h"
#include "worker/engine/io/safetensors.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define JSON_BYTES_MAX ((size_t)64 << 20)

/* One stored slice: elements [begin, end) of kind:name. */
struct slice {
    const struct safetensors *file;
    const struct st_entry *entry;
    size_t prefix_length; /* of entry->name up to and with the last ':' */
    uint64_t begin, end;
};

struct checkpoint_reader {
    char *path;
    struct manifest manifest;
    json_t *trainer;
    struct safetensors *files; /* optim-* */
    size_t file_count;
    struct slice *slices;
    size_t slice_count, slice_capacity;
};

static int check_file(const char *folder, const struct manifest_file *file, struct err *err)
{
    char *path = mem_printf("%s/%s", folder, file->name);
    struct stat status;
    struct hash hash;
    int rc = 0;
    if (stat(path, &status) < 0)
        rc = err_errno(err, "'%s'", path);
    else if ((uint64_t)status.st_size != file->size_bytes)
        rc = err_set(err, ERR_PROTOCOL, "'%s' has %lld bytes where the manifest says %llu", path,
                     (long long)status.st_size, (unsigned long long)file->size_bytes);
    else if ((rc = hash_file(path, &hash, err)) == 0 && !hash_equal(&hash, &file->hash))
        rc = err_set(err, ERR_PROTOCOL, "'%s' does not have the hash that the manifest says",
                     path);
    mem_free(path);
    return rc;
}

static int read_manifest_file(struct checkpoint_reader *reader, struct err *err)
{
    char *path = mem_printf("%s/manifest.json", reader->path), *bytes = NULL;
    size_t length;
    int rc = file_read(path, JSON_BYTES_MAX, &bytes, &length, err);
    if (rc == 0 && manifest_parse(bytes, length, &reader->manifest, err) < 0)
        rc = err_wrap(err, "'%s'", path);
    mem_free(bytes);
    mem_free(path);
    for (size_t i = 0; i < reader->manifest.file_count && rc == 0; i++)
        rc = check_file(reader->path, &reader->manifest.files[i], err);
    return rc;
}

/* trainer.json is absent in checkpoints of other programs: then there are no values. */
static int read_trainer(struct checkpoint_reader *reader, struct err *err)
{
    char *path = mem_printf("%s/trainer.json", reader->path), *bytes = NULL;
    size_t length;
    json_error_t why;
    int rc = 0;
    if (file_exists(path)) {
        rc = file_read(path, JSON_BYTES_MAX, &bytes, &length, err);
        if (rc == 0)
            reader->trainer = json_loadb(bytes, length, JSON_REJECT_DUPLICATES, &why);
        if (rc == 0 && !reader->trainer)
            rc = err_set(err, ERR_PROTOCOL, "'%s' line %d: %s", path, why.line, why.text);
    }
    mem_free(bytes);
    mem_free(path);
    return rc;
}

/* "m:flat:0-1024" -> the range and where the name ends. False for another form. */
static bool slice_parse(const struct st_entry *entry, struct slice *out)
{
    struct err ignored;
    const char *colon = strrchr(entry->name, ':');
    const char *dash = colon ? strchr(colon, '-') : NULL;
    if (!dash || entry->type != ST_F32)
        return false;
    char *begin = mem_strndup(colon + 1, (size_t)(dash - colon - 1));
    bool good = parse_u64(begin, &out->begin, &ignored) == 0 &&
                parse_u64(dash + 1, &out->end, &ignored) == 0;
    mem_free(begin);
    out->entry = entry;
    out->prefix_length = (size_t)(colon - entry->name) + 1;
    return good && out->begin <= out->end && out->end - out->begin == st_entry_count(entry);
}

static int index_slices(struct checkpoint_reader *reader, const struct safetensors *file,
                        const char *name, struct err *err)
{
    for (size_t e = 0; e < file->count; e++) {
        struct slice slice = {.file = file};
        if (!slice_parse(&file->entries[e], &slice))
            return err_set(err, ERR_PROTOCOL, "'%s': '%s' is not a slice kind:name:begin-end of "
                           "its length", name, file->entries[e].name);
        VEC_RESERVE(reader->slices, reader->slice_count, reader->slice_capacity);
        reader->slices[reader->slice_count++] = slice;
    }
    return 0;
}

static int open_slices(struct checkpoint_reader *reader, struct err *err)
{
    const struct manifest *manifest = &reader->manifest;
    reader->files = mem_array(manifest->file_count + 1, sizeof *reader->files);
    for (size_t i = 0; i < manifest->file_count; i++) {
        const char *name = manifest->files[i].name;
        if (strncmp(name, "optim-", 6) != 0)
            continue;
        char *path = mem_printf("%s/%s", reader->path, name);
        int rc = safetensors_open(path, &reader->files[reader->file_count], err);
        mem_free(path);
        if (rc < 0)
            return -1;
        if (index_slices(reader, &reader->files[reader->file_count++], name, err) < 0)
            return -1;
    }
    return 0;
}

int checkpoint_open(const char *path, struct checkpoint_reader **out, struct err *err)
{
    struct checkpoint_reader *reader = mem_zalloc(sizeof *reader);
    reader->path = mem_strdup(path);
    if (read_manifest_file(reader, err) < 0 || read_trainer(reader, err) < 0 ||
        open_slices(reader, err) < 0) {
        checkpoint_close(reader);
        return err_wrap(err, "checkpoint '%s'", path);
    }
    *out = reader;
    return 0;
}

const char *checkpoint_path(const struct checkpoint_reader *reader)
{
    return reader->path;
}

uint64_t checkpoint_step(const struct checkpoint_reader *reader)
{
    return reader->manifest.step;
}

int checkpoint_read_arrays(struct checkpoint_reader *reader, bool tied,
                           const struct named_array *arrays, size_t count, struct err *err)
{
    return arrays_read(reader->path, tied, arrays, count, err);
}

/* The slice that holds element `at` of "kind:name:". */
static const struct slice *slice_at(const struct checkpoint_reader *reader, const char *prefix,
                                    uint64_t at)
{
    for (size_t i = 0; i < reader->slice_count; i++) {
        const struct slice *slice = &reader->slices[i];
        if (slice->begin <= at && at < slice->end && strlen(prefix) == slice->prefix_length &&
            strncmp(slice->entry->name, prefix, slice->prefix_length) == 0)
            return slice;
    }
    return NULL;
}

int checkpoint_read_slice(struct checkpoint_reader *reader, const char *kind, const char *name,
                          uint64_t begin, uint64_t end, float *out, struct err *err)
{
    char *prefix = mem_printf("%s:%s:", kind, name);
    int rc = 0;
    for (uint64_t at = begin; at < end && rc == 0;) {
        const struct slice *slice = slice_at(reader, prefix, at);
        if (!slice) {
            rc = err_set(err, ERR_PROTOCOL, "checkpoint '%s' lacks element %llu of %s of '%s'",
                         reader->path, (unsigned long long)at, kind, name);
            break;
        }
        uint64_t stop = min_u64(end, slice->end);
        rc = safetensors_read_f32(slice->file, slice->entry, at - slice->begin, stop - at,
                                  out + (at - begin), err);
        at = stop;
    }
    mem_free(prefix);
    return rc;
}

static int find_value(const struct checkpoint_reader *reader, const char *name, json_t **out,
                      struct err *err)
{
    *out = json_object_get(json_object_get(reader->trainer, "values"), name);
    if (*out)
        return 0;
    return err_set(err, ERR_NOT_FOUND, "checkpoint '%s' has no value '%s'", reader->path, name);
}

static int refuse_type(const struct checkpoint_reader *reader, const char *name, const char *type,
                       struct err *err)
{
    return err_set(err, ERR_PROTOCOL, "checkpoint '%s': value '%s' is not %s", reader->path, name,
                   type);
}

int checkpoint_get_int(const struct checkpoint_reader *reader, const char *name, int64_t *out,
                       struct err *err)
{
    json_t *value;
    if (find_value(reader, name, &value, err) < 0)
        return -1;
    if (!json_is_integer(value))
        return refuse_type(reader, name, "a whole number", err);
    *out = json_integer_value(value);
    return 0;
}

int checkpoint_get_float(const struct checkpoint_reader *reader, const char *name, double *out,
                         struct err *err)
{
    json_t *value;
    if (find_value(reader, name, &value, err) < 0)
        return -1;
    if (!json_is_number(value))
        return refuse_type(reader, name, "a number", err);
    *out = json_number_value(value);
    return 0;
}

int checkpoint_get_text(const struct checkpoint_reader *reader, const char *name,
                        const char **out, struct err *err)
{
    json_t *value;
    if (find_value(reader, name, &value, err) < 0)
        return -1;
    if (!json_is_string(value))
        return refuse_type(reader, name, "a text", err);
    *out = json_string_value(value);
    return 0;
}

void checkpoint_close(struct checkpoint_reader *reader)
{
    if (!reader)
        return;
    for (size_t i = 0; i < reader->file_count; i++)
        safetensors_close(&reader->files[i]);
    mem_free(reader->files);
    mem_free(reader->slices);
    manifest_done(&reader->manifest);
    json_decref(reader->trainer);
    mem_free(reader->path);
    mem_free(reader);
}
