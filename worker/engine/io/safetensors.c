/* safetensors.c - reading and writing of safetensors; see safetensors.h. */
#include "worker/engine/io/safetensors.h"

#include "common/base/buf.h"
#include "common/base/file.h"
#include "common/base/mem.h"

#include <fcntl.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const struct {
    const char *name;
    unsigned bytes;
} types[ST_TYPE_END] = {
    [ST_BOOL] = {"BOOL", 1}, [ST_U8] = {"U8", 1},     [ST_I8] = {"I8", 1},   [ST_F16] = {"F16", 2},
    [ST_BF16] = {"BF16", 2}, [ST_I32] = {"I32", 4},   [ST_F32] = {"F32", 4}, [ST_I64] = {"I64", 8},
};

const char *st_type_name(enum st_type type)
{
    CHECK(type > 0 && type < ST_TYPE_END);
    return types[type].name;
}

unsigned st_type_bytes(enum st_type type)
{
    CHECK(type > 0 && type < ST_TYPE_END);
    return types[type].bytes;
}

/* JSON nesting, so that a recursive parser is safe to call. */
static unsigned json_depth(const char *text, size_t length)
{
    unsigned depth = 0, deepest = 0;
    bool in_text = false;
    for (size_t i = 0; i < length; i++) {
        char c = text[i];
        if (in_text) {
            i += c == '\\';
            in_text = c != '"';
        } else if (c == '"') {
            in_text = true;
        } else if (c == '{' || c == '[') {
            depth++;
            deepest = depth > deepest ? depth : deepest;
        } else if ((c == '}' || c == ']') && depth > 0) {
            depth--;
        }
    }
    return deepest;
}

static int read_type(json_t *value, struct st_entry *entry, struct err *err)
{
    const char *name = json_string_value(value);
    for (int type = 1; name && type < ST_TYPE_END; type++) {
        if (strcmp(types[type].name, name) == 0) {
            entry->type = (enum st_type)type;
            return 0;
        }
    }
    return err_set(err, ERR_PROTOCOL, "tensor '%s' has dtype %s; F32, BF16, F16, I64, I32, U8 and "
                   "BOOL are accepted", entry->name, name ? name : "none");
}

static int read_offset(json_t *offsets, size_t index, uint64_t *out)
{
    json_t *value = json_array_get(offsets, index);
    if (!json_is_integer(value) || json_integer_value(value) < 0)
        return -1;
    *out = (uint64_t)json_integer_value(value);
    return 0;
}

/* prod(shape) * item size; false when it passes 2^63. */
static bool entry_bytes(const struct st_entry *entry, uint64_t *out)
{
    uint64_t bytes = types[entry->type].bytes;
    for (unsigned d = 0; d < entry->dim_count; d++)
        if (__builtin_mul_overflow(bytes, entry->shape[d], &bytes) || bytes > INT64_MAX)
            return false;
    *out = bytes;
    return true;
}

static int read_shape(json_t *shape, struct st_entry *entry, struct err *err)
{
    size_t dims = json_array_size(shape);
    if (!json_is_array(shape) || dims > SAFETENSORS_DIMS_MAX)
        return err_set(err, ERR_PROTOCOL, "tensor '%s' has no shape of at most %d dimensions",
                       entry->name, SAFETENSORS_DIMS_MAX);
    entry->dim_count = (unsigned)dims;
    for (size_t d = 0; d < dims; d++)
        if (read_offset(shape, d, &entry->shape[d]) < 0)
            return err_set(err, ERR_PROTOCOL, "tensor '%s': dimension %zu is not a size",
                           entry->name, d);
    return 0;
}

static int read_entry(const char *name, json_t *value, struct st_entry *entry, struct err *err)
{
    json_t *offsets = json_object_get(value, "data_offsets");
    uint64_t bytes;
    if (strlen(name) > SAFETENSORS_NAME_MAX)
        return err_set(err, ERR_PROTOCOL, "a tensor's name has more than %d bytes",
                       SAFETENSORS_NAME_MAX);
    entry->name = mem_strdup(name);
    if (!json_is_object(value) || json_object_size(value) != 3)
        return err_set(err, ERR_PROTOCOL, "tensor '%s' is not {dtype, shape, data_offsets}", name);
    if (read_type(json_object_get(value, "dtype"), entry, err) < 0 ||
        read_shape(json_object_get(value, "shape"), entry, err) < 0)
        return -1;
    if (json_array_size(offsets) != 2 || read_offset(offsets, 0, &entry->begin) < 0 ||
        read_offset(offsets, 1, &entry->end) < 0)
        return err_set(err, ERR_PROTOCOL, "tensor '%s': data_offsets is not [begin, end]", name);
    if (!entry_bytes(entry, &bytes) || entry->end < entry->begin ||
        entry->end - entry->begin != bytes)
        return err_set(err, ERR_PROTOCOL, "tensor '%s': its shape and its range of %lld bytes "
                       "disagree", name, (long long)(entry->end - entry->begin));
    return 0;
}

static int check_metadata(json_t *metadata, struct err *err)
{
    const char *key;
    json_t *value;
    if (!json_is_object(metadata))
        return err_set(err, ERR_PROTOCOL, "__metadata__ is not an object");
    json_object_foreach(metadata, key, value)
        if (!json_is_string(value))
            return err_set(err, ERR_PROTOCOL, "__metadata__.%s is not a text", key);
    return 0;
}

static int entry_compare(const void *a, const void *b)
{
    const struct st_entry *x = a, *y = b;
    if (x->begin != y->begin)
        return x->begin < y->begin ? -1 : 1;
    if (x->end != y->end)
        return x->end < y->end ? -1 : 1;
    return strcmp(x->name, y->name);
}

static int check_ranges(const struct safetensors *file, struct err *err)
{
    uint64_t at = 0;
    for (size_t i = 0; i < file->count; i++) {
        if (file->entries[i].begin != at)
            return err_set(err, ERR_PROTOCOL, "tensor '%s' begins at %llu where %llu is next: "
                           "a hole or an overlap", file->entries[i].name,
                           (unsigned long long)file->entries[i].begin, (unsigned long long)at);
        at = file->entries[i].end;
    }
    if (at != file->data_bytes)
        return err_set(err, ERR_PROTOCOL, "the tensors end at %llu but the file holds %llu bytes "
                       "of data", (unsigned long long)at, (unsigned long long)file->data_bytes);
    return 0;
}

static int read_header(json_t *root, struct safetensors *file, struct err *err)
{
    const char *name;
    json_t *value;
    if (!json_is_object(root) || json_object_size(root) > SAFETENSORS_TENSORS_MAX)
        return err_set(err, ERR_PROTOCOL, "the header is not an object of at most %d tensors",
                       SAFETENSORS_TENSORS_MAX);
    file->entries = mem_array(json_object_size(root) + 1, sizeof *file->entries);
    json_object_foreach(root, name, value) {
        int rc = strcmp(name, "__metadata__") == 0
                     ? check_metadata(value, err)
                     : read_entry(name, value, &file->entries[file->count++], err);
        if (rc < 0)
            return -1;
    }
    qsort(file->entries, file->count, sizeof *file->entries, entry_compare);
    return check_ranges(file, err);
}

int safetensors_parse(const void *bytes, size_t length, struct safetensors *out, struct err *err)
{
    uint64_t header_bytes;
    const char *header = (const char *)bytes + sizeof header_bytes;
    json_error_t why;
    if (length < sizeof header_bytes + 2)
        return err_set(err, ERR_PROTOCOL, "%zu bytes long: not a safetensors file", length);
    memcpy(&header_bytes, bytes, sizeof header_bytes);
    if (header_bytes > SAFETENSORS_HEADER_MAX || header_bytes > length - sizeof header_bytes)
        return err_set(err, ERR_PROTOCOL, "a header of %llu bytes does not fit; at most %llu are "
                       "accepted", (unsigned long long)header_bytes,
                       (unsigned long long)SAFETENSORS_HEADER_MAX);
    if (header_bytes < 2 || header[0] != '{')
        return err_set(err, ERR_PROTOCOL, "the header does not begin with '{'");
    if (json_depth(header, header_bytes) > SAFETENSORS_DEPTH_MAX)
        return err_set(err, ERR_PROTOCOL, "the header nests deeper than %d",
                       SAFETENSORS_DEPTH_MAX);
    json_t *root = json_loadb(header, header_bytes, JSON_REJECT_DUPLICATES, &why);
    if (!root)
        return err_set(err, ERR_PROTOCOL, "header: byte %d: %s", why.position, why.text);
    struct safetensors file = {
        .data = (const uint8_t *)header + header_bytes,
        .data_bytes = length - sizeof header_bytes - header_bytes,
    };
    int rc = read_header(root, &file, err);
    json_decref(root);
    if (rc < 0)
        safetensors_close(&file);
    else
        *out = file;
    return rc;
}

int safetensors_open(const char *path, struct safetensors *out, struct err *err)
{
    void *bytes = NULL;
    size_t length = 0;
    if (file_map(path, &bytes, &length, err) < 0)
        return -1;
    if (safetensors_parse(bytes, length, out, err) < 0) {
        file_unmap(bytes, length);
        return err_wrap(err, "'%s'", path);
    }
    out->mapping = bytes;
    out->mapping_bytes = length;
    return 0;
}

void safetensors_close(struct safetensors *file)
{
    for (size_t i = 0; i < file->count; i++)
        mem_free(file->entries[i].name);
    mem_free(file->entries);
    file_unmap(file->mapping, file->mapping_bytes);
    *file = (struct safetensors){0};
}

const struct st_entry *safetensors_find(const struct safetensors *file, const char *name)
{
    for (size_t i = 0; i < file->count; i++)
        if (strcmp(file->entries[i].name, name) == 0)
            return &file->entries[i];
    return NULL;
}

uint64_t st_entry_count(const struct st_entry *entry)
{
    return (entry->end - entry->begin) / types[entry->type].bytes;
}

float float_from_bf16(uint16_t bits)
{
    uint32_t wide = (uint32_t)bits << 16;
    float value;
    memcpy(&value, &wide, sizeof value);
    return value;
}

uint16_t float_to_bf16(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    if ((bits & 0x7FFFFFFF) > 0x7F800000)
        return (uint16_t)(bits >> 16 | 0x40); /* a quiet NaN, whatever its payload */
    return (uint16_t)((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}

float float_from_f16(uint16_t bits)
{
    uint32_t sign = (uint32_t)(bits & 0x8000) << 16, exponent = bits >> 10 & 31;
    uint32_t fraction = bits & 0x3FF, wide;
    float value;
    if (exponent == 0) { /* zero or subnormal: fraction * 2^-24, exact in F32 */
        value = (float)fraction * 0x1.0p-24f;
        return sign ? -value : value;
    }
    wide = sign | (exponent == 31 ? 0x7F800000 : (exponent + 112) << 23) | fraction << 13;
    memcpy(&value, &wide, sizeof value);
    return value;
}

int safetensors_read_f32(const struct safetensors *file, const struct st_entry *entry,
                         uint64_t first, uint64_t count, float *out, struct err *err)
{
    const uint8_t *at = file->data + entry->begin + first * types[entry->type].bytes;
    CHECK(first <= st_entry_count(entry) && count <= st_entry_count(entry) - first);
    if (entry->type == ST_F32) {
        if (count)
            memcpy(out, at, count * sizeof *out);
        return 0;
    }
    if (entry->type != ST_F16 && entry->type != ST_BF16)
        return err_set(err, ERR_INVALID, "tensor '%s' is %s; F32, F16 and BF16 are accepted",
                       entry->name, types[entry->type].name);
    for (uint64_t i = 0; i < count; i++) {
        uint16_t bits;
        memcpy(&bits, at + 2 * i, sizeof bits);
        out[i] = entry->type == ST_F16 ? float_from_f16(bits) : float_from_bf16(bits);
    }
    return 0;
}

/* Bigger types first, so that all begin aligned when the data section does; then by name. */
static int array_compare(const void *a, const void *b)
{
    const struct st_array *x = *(const struct st_array *const *)a;
    const struct st_array *y = *(const struct st_array *const *)b;
    if (x->type != y->type)
        return x->type > y->type ? -1 : 1;
    return strcmp(x->name, y->name);
}

static int array_compare_names(const void *a, const void *b)
{
    return strcmp((*(const struct st_array *const *)a)->name,
                  (*(const struct st_array *const *)b)->name);
}

static uint64_t array_bytes(const struct st_array *array)
{
    struct st_entry entry = {.type = array->type, .dim_count = array->dim_count};
    uint64_t bytes;
    memcpy(entry.shape, array->shape, sizeof entry.shape);
    CHECK(entry_bytes(&entry, &bytes));
    return bytes;
}

static void put_header_entry(struct buf *header, const struct st_array *array, uint64_t begin)
{
    json_t *name = json_string(array->name);
    char *quoted = name ? json_dumps(name, JSON_ENCODE_ANY) : NULL;
    CHECK(quoted); /* names of arrays are ours, and UTF-8 */
    buf_printf(header, ",%s:{\"dtype\":\"%s\",\"shape\":[", quoted, st_type_name(array->type));
    free(quoted);
    json_decref(name);
    for (unsigned d = 0; d < array->dim_count; d++)
        buf_printf(header, "%s%llu", d ? "," : "", (unsigned long long)array->shape[d]);
    buf_printf(header, "],\"data_offsets\":[%llu,%llu]}", (unsigned long long)begin,
               (unsigned long long)(begin + array_bytes(array)));
}

static int write_sorted(int fd, const struct st_array *const *sorted, size_t count,
                        struct err *err)
{
    struct buf header = {0};
    uint64_t at = 0;
    buf_puts(&header, "{\"__metadata__\":{\"format\":\"pt\"}");
    for (size_t i = 0; i < count; i++) {
        put_header_entry(&header, sorted[i], at);
        at += array_bytes(sorted[i]);
    }
    buf_putc(&header, '}');
    while (header.length % 8)
        buf_putc(&header, ' ');
    uint64_t header_bytes = header.length;
    int rc = file_write_all(fd, &header_bytes, sizeof header_bytes, err);
    if (rc == 0)
        rc = file_write_all(fd, header.bytes, header.length, err);
    for (size_t i = 0; i < count && rc == 0; i++)
        rc = file_write_all(fd, sorted[i]->values, array_bytes(sorted[i]), err);
    buf_done(&header);
    if (rc == 0 && fsync(fd) < 0)
        rc = err_errno(err, "sync");
    return rc;
}

int safetensors_write(const char *path, const struct st_array *arrays, size_t count,
                      struct err *err)
{
    const struct st_array **sorted = mem_array(count + 1, sizeof(struct st_array *));
    int fd = -1, rc = -1;
    for (size_t i = 0; i < count; i++)
        sorted[i] = &arrays[i];
    qsort(sorted, count, sizeof(struct st_array *), array_compare_names);
    for (size_t i = 1; i < count; i++)
        if (strcmp(sorted[i - 1]->name, sorted[i]->name) == 0) {
            err_set(err, ERR_INVALID, "write '%s': two tensors are called '%s'", path,
                    sorted[i]->name);
            goto out;
        }
    qsort(sorted, count, sizeof(struct st_array *), array_compare);
    fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (fd < 0) {
        err_errno(err, "write '%s'", path);
        goto out;
    }
    if (write_sorted(fd, sorted, count, err) < 0) {
        err_wrap(err, "write '%s'", path);
        goto out;
    }
    rc = 0;
out:
    if (fd >= 0)
        close(fd);
    mem_free(sorted);
    return rc;
}
