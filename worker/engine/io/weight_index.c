/* weight_index.c - see weight_index.h. */
#include "worker/engine/io/weight_index.h"

#include "common/base/buf.h"
#include "common/base/json_text.h"

#include <jansson.h>
#include <string.h>

#define ENDING ".safetensors"

void weight_index_done(struct weight_index *index)
{
    byte_map_done(&index->files);
    byte_map_done(&index->tensors);
}

size_t weight_index_line(const char *json, const char *name)
{
    struct buf quoted = {0};
    json_text_quote(&quoted, name, strlen(name));
    const char *at = strstr(json, buf_text(&quoted));
    size_t line = at != NULL;
    for (const char *c = json; at && c < at; c++)
        line += *c == '\n';
    buf_done(&quoted);
    return line;
}

static bool is_plain(const char *file)
{
    size_t length = strlen(file), ending = strlen(ENDING);
    if (length <= ending || length > 255 || file[0] == '.' || strchr(file, '/') ||
        strstr(file, ".."))
        return false;
    for (const char *c = file; *c; c++)
        if ((unsigned char)*c < 0x20 || *c == 0x7F)
            return false;
    return strcmp(file + length - ending, ENDING) == 0;
}

static int add_entry(struct weight_index *index, const char *tensor, const char *file,
                     struct err *err)
{
    size_t length = strlen(tensor), known = index->files.count;
    if (length > SAFETENSORS_NAME_MAX)
        return err_set(err, ERR_LIMIT, "weight_map names a tensor of %zu bytes; at most %d are "
                       "accepted", length, SAFETENSORS_NAME_MAX);
    if (!file || !is_plain(file))
        return err_set(err, ERR_PROTOCOL, "weight_map['%s'] is not a plain file name that ends "
                       "with " ENDING, tensor);
    if (index->tensors.count == SAFETENSORS_TENSORS_MAX)
        return err_set(err, ERR_LIMIT, "weight_map has more than %d tensors",
                       SAFETENSORS_TENSORS_MAX);
    uint32_t number = byte_map_put(&index->files, file, strlen(file));
    if (number == known && known == WEIGHT_INDEX_FILES_MAX)
        return err_set(err, ERR_LIMIT, "weight_map['%s'] is in the %dth file; at most %d are "
                       "accepted", tensor, WEIGHT_INDEX_FILES_MAX + 1, WEIGHT_INDEX_FILES_MAX);
    uint32_t entry = byte_map_put(&index->tensors, tensor, length);
    index->tensors.entries[entry].value = number;
    return 0;
}

static int read_map(struct weight_index *index, const char *json, json_t *map, struct err *err)
{
    const char *tensor;
    json_t *file;
    if (!json_is_object(map))
        return err_set(err, ERR_PROTOCOL, "weight_map is not an object of tensor to file");
    if (json_object_size(map) == 0)
        return err_set(err, ERR_PROTOCOL, "weight_map names no tensor");
    json_object_foreach(map, tensor, file)
        if (add_entry(index, tensor, json_string_value(file), err) < 0)
            return err_wrap(err, "line %zu", weight_index_line(json, tensor));
    return 0;
}

int weight_index_parse(const char *json, size_t length, struct weight_index *out, struct err *err)
{
    json_error_t why;
    struct weight_index index = {0};
    json_t *root = json_loadb(json, length, JSON_REJECT_DUPLICATES, &why);
    if (!root)
        return err_set(err, ERR_PROTOCOL, "line %d column %d: %s", why.line, why.column, why.text);
    int rc = read_map(&index, json, json_object_get(root, "weight_map"), err);
    json_decref(root);
    if (rc < 0)
        weight_index_done(&index);
    else
        *out = index;
    return rc;
}
