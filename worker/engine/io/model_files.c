/* model_files.c - weights between arrays and safetensors files; see model_files.h. */
#include "worker/engine/io/model_files.h"

#include "common/base/buf.h"
#include "common/base/file.h"
#include "common/base/json_text.h"
#include "common/base/mem.h"
#include "worker/engine/io/safetensors.h"
#include "worker/engine/io/weight_index.h"
#include "worker/engine/models/table.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SHARDS_MAX WEIGHT_INDEX_FILES_MAX

static uint64_t array_count(const struct named_array *array)
{
    uint64_t count = 1;
    for (unsigned d = 0; d < array->dim_count; d++)
        count *= array->shape[d];
    return count;
}

/* out (C, R) = in (R, C), turned in blocks that stay in cache. */
static void transpose(const float *in, uint64_t R, uint64_t C, float *out)
{
    enum { BLOCK = 32 };
    for (uint64_t r0 = 0; r0 < R; r0 += BLOCK)
        for (uint64_t c0 = 0; c0 < C; c0 += BLOCK)
            for (uint64_t r = r0; r < R && r < r0 + BLOCK; r++)
                for (uint64_t c = c0; c < C && c < c0 + BLOCK; c++)
                    out[c * R + r] = in[r * C + c];
}

static int turned_copy(const struct named_array *array, const float *values, uint64_t rows,
                       uint64_t columns, float **out, struct err *err)
{
    float *copy = malloc((rows * columns + 1) * sizeof *copy);
    if (!copy)
        return err_set(err, ERR_MEMORY, "tensor '%s': a transposed copy needs %llu bytes",
                       array->name, (unsigned long long)(rows * columns * sizeof *copy));
    transpose(values, rows, columns, copy);
    *out = copy;
    return 0;
}

int arrays_write(const char *path, const struct named_array *arrays, size_t count,
                 struct err *err)
{
    struct st_array *files = mem_array(count + 1, sizeof *files);
    float **turned = mem_array(count + 1, sizeof *turned);
    int rc = 0;
    for (size_t i = 0; i < count && rc == 0; i++) {
        const struct named_array *array = &arrays[i];
        CHECK(array->dim_count <= 4 && (!array->transposed || array->dim_count == 2));
        files[i] = (struct st_array){array->name, ST_F32, array->dim_count, {0}, array->values};
        for (unsigned d = 0; d < array->dim_count; d++)
            files[i].shape[d] = array->shape[array->transposed ? 1 - d : d];
        if (array->transposed) {
            rc = turned_copy(array, array->values, array->shape[0], array->shape[1], &turned[i],
                             err);
            files[i].values = turned[i];
        }
    }
    if (rc == 0)
        rc = safetensors_write(path, files, count, err);
    for (size_t i = 0; i < count; i++)
        free(turned[i]);
    mem_free(turned);
    mem_free(files);
    return rc;
}

/* The first array after those of the shard that begins with number `from`. */
static size_t shard_end(const struct named_array *arrays, size_t from, size_t count,
                        uint64_t most_bytes)
{
    uint64_t bytes = 0;
    size_t i = from;
    while (i < count) {
        bytes += array_count(&arrays[i]) * sizeof(float);
        if (i > from && bytes > most_bytes)
            break;
        i++;
    }
    return i;
}

static char *shard_name(size_t shard, size_t shards)
{
    return mem_printf("model-%05zu-of-%05zu.safetensors", shard + 1, shards);
}

/* {"metadata": {"total_size": bytes}, "weight_map": {name: file}} */
static int write_index(const char *path, const struct named_array *arrays, size_t count,
                       uint64_t most_bytes, size_t shards, struct err *err)
{
    struct buf out = {0};
    uint64_t total = 0;
    for (size_t i = 0; i < count; i++)
        total += array_count(&arrays[i]) * sizeof(float);
    buf_printf(&out, "{\n  \"metadata\": {\n    \"total_size\": %llu\n  },\n  \"weight_map\": {",
               (unsigned long long)total);
    for (size_t shard = 0, from = 0, to; from < count; shard++, from = to) {
        char *name = shard_name(shard, shards);
        to = shard_end(arrays, from, count, most_bytes);
        for (size_t i = from; i < to; i++) {
            buf_puts(&out, i ? ",\n    " : "\n    ");
            json_text_quote(&out, arrays[i].name, strlen(arrays[i].name));
            buf_printf(&out, ": \"%s\"", name);
        }
        mem_free(name);
    }
    buf_puts(&out, "\n  }\n}\n");
    int rc = file_replace(path, out.bytes, out.length, 0644, err);
    buf_done(&out);
    return rc;
}

static int write_shards(const char *folder, const struct named_array *arrays, size_t count,
                        uint64_t most_bytes, size_t shards, struct err *err)
{
    int rc = 0;
    for (size_t shard = 0, from = 0, to; from < count && rc == 0; shard++, from = to) {
        char *name = shard_name(shard, shards), *path = mem_printf("%s/%s", folder, name);
        to = shard_end(arrays, from, count, most_bytes);
        rc = arrays_write(path, arrays + from, to - from, err);
        mem_free(path);
        mem_free(name);
    }
    return rc;
}

static int remove_if_there(const char *path, struct err *err)
{
    if (unlink(path) == 0 || errno == ENOENT)
        return 0;
    return err_set(err, ERR_IO, "cannot remove '%s': %s", path, strerror(errno));
}

int arrays_write_folder(const char *folder, const struct named_array *arrays, size_t count,
                        uint64_t most_bytes, struct err *err)
{
    char *one = mem_printf("%s/model.safetensors", folder);
    char *index = mem_printf("%s/model.safetensors.index.json", folder);
    size_t shards = 0;
    int rc;
    for (size_t from = 0; from < count; from = shard_end(arrays, from, count, most_bytes))
        shards++;
    if (shards > SHARDS_MAX) {
        rc = err_set(err, ERR_LIMIT, "weights in %zu files, at most %d are read", shards,
                     SHARDS_MAX);
    } else if (shards > 1) {
        rc = write_shards(folder, arrays, count, most_bytes, shards, err);
        if (rc == 0)
            rc = write_index(index, arrays, count, most_bytes, shards, err);
        if (rc == 0)
            rc = remove_if_there(one, err);
    } else {
        rc = arrays_write(one, arrays, count, err);
        if (rc == 0)
            rc = remove_if_there(index, err);
    }
    mem_free(one);
    mem_free(index);
    return rc;
}

/* The files of one model. */
struct file_set {
    struct safetensors *files;
    char **names;
    size_t count;
};

static void file_set_done(struct file_set *set)
{
    for (size_t i = 0; i < set->count; i++) {
        safetensors_close(&set->files[i]);
        mem_free(set->names[i]);
    }
    mem_free(set->files);
    mem_free(set->names);
}

static int file_set_add(struct file_set *set, const char *folder, const char *name,
                        struct err *err)
{
    char *path = mem_printf("%s/%s", folder, name);
    set->files = mem_grow(set->files, set->count + 1, sizeof *set->files);
    set->names = mem_grow(set->names, set->count + 1, sizeof *set->names);
    int rc = safetensors_open(path, &set->files[set->count], err);
    mem_free(path);
    if (rc == 0)
        set->names[set->count++] = mem_strdup(name);
    return rc;
}

/* Every tensor is in one file, and in the one that the index says. */
static int check_index(const struct file_set *set, const struct weight_index *index,
                       struct byte_map *found, struct err *err)
{
    for (size_t f = 0; f < set->count; f++)
        for (size_t i = 0; i < set->files[f].count; i++) {
            const char *name = set->files[f].entries[i].name;
            size_t known = found->count;
            uint32_t entry = byte_map_put(found, name, strlen(name));
            if (entry < known)
                return err_set(err, ERR_PROTOCOL, "tensor '%s' is in '%s' and in '%s'", name,
                               set->names[found->entries[entry].value], set->names[f]);
            found->entries[entry].value = f;
        }
    for (size_t i = 0; i < index->tensors.count; i++) {
        const struct byte_entry *told = &index->tensors.entries[i];
        uint32_t entry = byte_map_find(found, told->bytes, told->length);
        if (entry == BYTE_MAP_NONE || found->entries[entry].value != told->value)
            return err_set(err, ERR_PROTOCOL, "weight_map['%.*s'] is '%s', which does not hold it",
                           (int)told->length, told->bytes, set->names[told->value]);
    }
    return 0;
}

static int file_set_add_index(struct file_set *set, const char *folder, const char *json,
                              size_t length, struct err *err)
{
    struct weight_index index;
    struct byte_map found = {0};
    int rc = weight_index_parse(json, length, &index, err);
    if (rc < 0)
        return -1;
    for (size_t i = 0; i < index.files.count && rc == 0; i++) {
        char *name = mem_strndup(index.files.entries[i].bytes, index.files.entries[i].length);
        rc = file_set_add(set, folder, name, err);
        if (rc < 0)
            err_wrap(err, "line %zu", weight_index_line(json, name));
        mem_free(name);
    }
    if (rc == 0)
        rc = check_index(set, &index, &found, err);
    byte_map_done(&found);
    weight_index_done(&index);
    return rc;
}

static int file_set_open(struct file_set *set, const char *folder, struct err *err)
{
    char *path = mem_printf("%s/model.safetensors.index.json", folder), *bytes = NULL;
    size_t length;
    int rc;
    if (!file_exists(path)) {
        rc = file_set_add(set, folder, "model.safetensors", err);
    } else if ((rc = file_read(path, WEIGHT_INDEX_BYTES_MAX, &bytes, &length, err)) == 0) {
        rc = file_set_add_index(set, folder, bytes, length, err);
        if (rc < 0)
            err_wrap(err, "'%s'", path);
    }
    mem_free(bytes);
    mem_free(path);
    return rc;
}

/* "transformer.h.0.ln_1.bias" and "h.0.ln_1.bias" are one tensor: old files lack the prefix. */
static const char *without_prefix(const char *name)
{
    static const char *const prefixes[] = {"transformer.", "model.", "bert."};
    for (size_t i = 0; i < ARRAY_COUNT(prefixes); i++)
        if (strncmp(name, prefixes[i], strlen(prefixes[i])) == 0)
            return name + strlen(prefixes[i]);
    return name;
}

static const struct st_entry *set_find(const struct file_set *set, const char *name,
                                       const struct safetensors **out_file)
{
    for (size_t f = 0; f < set->count; f++) {
        const struct safetensors *file = &set->files[f];
        for (size_t i = 0; i < file->count; i++)
            if (strcmp(without_prefix(file->entries[i].name), without_prefix(name)) == 0) {
                *out_file = file;
                return &file->entries[i];
            }
    }
    return NULL;
}

static bool ends_with(const char *name, const char *end)
{
    size_t length = strlen(name), tail = strlen(end);
    return length >= tail && strcmp(name + length - tail, end) == 0;
}

/* Heads of a BERT: files often hold more of them than the class that is asked for has. */
static bool is_top(const char *name)
{
    static const char *const tops[] = {"pooler.dense.", "cls.", "classifier."};
    for (size_t i = 0; i < ARRAY_COUNT(tops); i++)
        if (strncmp(without_prefix(name), tops[i], strlen(tops[i])) == 0)
            return true;
    return false;
}

/* Tables that are computed, copies of tied matrices, and heads that nothing asks for. */
static bool is_ignored(const char *name, bool tied)
{
    return ends_with(name, ".attn.bias") || ends_with(name, ".attn.masked_bias") ||
           ends_with(name, ".rotary_emb.inv_freq") || ends_with(name, "embeddings.position_ids") ||
           is_top(name) || strcmp(name, "encoder.embed_tokens.weight") == 0 ||
           strcmp(name, "decoder.embed_tokens.weight") == 0 || /* T5's copies of shared.weight */
           (tied && strcmp(name, "lm_head.weight") == 0);
}

static int check_known(const struct file_set *set, bool tied, const struct named_array *arrays,
                       size_t count, struct err *err)
{
    for (size_t f = 0; f < set->count; f++)
        for (size_t e = 0; e < set->files[f].count; e++) {
            const char *name = set->files[f].entries[e].name;
            bool known = is_ignored(name, tied);
            for (size_t i = 0; i < count && !known; i++)
                known = strcmp(without_prefix(arrays[i].name), without_prefix(name)) == 0;
            if (!known)
                return err_set(err, ERR_INVALID, "'%s' holds tensor '%s', which a model of this "
                               "configuration has not", set->names[f], name);
        }
    return 0;
}

static void put_shape(struct buf *out, const uint64_t *shape, unsigned dims)
{
    buf_putc(out, '[');
    for (unsigned d = 0; d < dims; d++)
        buf_printf(out, "%s%llu", d ? ", " : "", (unsigned long long)shape[d]);
    buf_putc(out, ']');
}

static int check_shape(const struct named_array *array, const struct st_entry *entry,
                       struct err *err)
{
    uint64_t want[4];
    bool same = entry->dim_count == array->dim_count;
    for (unsigned d = 0; d < array->dim_count; d++) {
        want[d] = array->shape[array->transposed ? 1 - d : d];
        same = same && entry->shape[d] == want[d];
    }
    if (same)
        return 0;
    struct buf have = {0};
    put_shape(&have, entry->shape, entry->dim_count);
    buf_puts(&have, " where the configuration demands ");
    put_shape(&have, want, array->dim_count);
    int rc = err_set(err, ERR_INVALID, "tensor '%s' is %s", entry->name, buf_text(&have));
    buf_done(&have);
    return rc;
}

static int array_read(const struct file_set *set, const struct named_array *array,
                      struct err *err)
{
    const struct safetensors *file;
    const struct st_entry *entry = set_find(set, array->name, &file);
    if (!entry)
        return err_set(err, ERR_NOT_FOUND, "tensor '%s' is missing", array->name);
    if (check_shape(array, entry, err) < 0)
        return -1;
    uint64_t count = array_count(array);
    if (safetensors_read_f32(file, entry, 0, count, array->values, err) < 0)
        return -1;
    if (!array->transposed)
        return 0;
    float *turned;
    if (turned_copy(array, array->values, array->shape[1], array->shape[0], &turned, err) < 0)
        return -1;
    memcpy(array->values, turned, count * sizeof *turned);
    free(turned);
    return 0;
}

int arrays_read(const char *folder, bool tied, const struct named_array *arrays, size_t count,
                struct err *err)
{
    struct file_set set = {0};
    int rc = file_set_open(&set, folder, err);
    if (rc == 0)
        rc = check_known(&set, tied, arrays, count, err);
    for (size_t i = 0; i < count && rc == 0; i++)
        rc = array_read(&set, &arrays[i], err);
    file_set_done(&set);
    return rc < 0 ? err_wrap(err, "weights of '%s'", folder) : 0;
}

/* Host copies of all weights of a model, as named arrays: one a part. */
struct host_weights {
    struct named_array *arrays;
    char (*names)[MODEL_NAME_SIZE]; /* of the parts */
    float **values;                 /* of each weight, its parts side by side */
    size_t count;
    int64_t weight_count;
};

static void host_weights_done(struct host_weights *host)
{
    for (int64_t i = 0; i < host->weight_count; i++)
        free(host->values[i]);
    mem_free(host->values);
    mem_free(host->names);
    mem_free(host->arrays);
}

static void add_parts(struct host_weights *host, const struct model_weight *weight, float *values)
{
    int64_t parts = model_weight_parts(weight), rows = weight->tensor.dim[0] / parts;
    for (int64_t k = 0; k < parts; k++) {
        struct named_array *array = &host->arrays[host->count];
        model_weight_part_name(weight, k, host->names[host->count]);
        *array = (struct named_array){host->names[host->count], weight->hf_transposed,
                                      (unsigned)weight->tensor.rank,
                                      {(uint64_t)rows, (uint64_t)weight->tensor.dim[1]},
                                      values + k * rows * weight->tensor.dim[1]};
        host->count++;
    }
}

static int host_weights_init(struct host_weights *host, const struct model *model, bool filled,
                             struct err *err)
{
    size_t parts = 1;
    for (int64_t i = 0; i < model->weight_count; i++)
        parts += (size_t)model_weight_parts(&model->weight[i]);
    *host = (struct host_weights){.arrays = mem_array(parts, sizeof *host->arrays),
                                  .names = mem_array(parts, sizeof *host->names),
                                  .values = mem_array((size_t)model->weight_count + 1,
                                                      sizeof *host->values)};
    for (int64_t i = 0; i < model->weight_count; i++) {
        const struct model_weight *weight = &model->weight[i];
        size_t bytes = (size_t)tensor_count(&weight->tensor) * sizeof(float);
        float *values = malloc(bytes);
        host->values[host->weight_count++] = values;
        if (!values)
            return err_set(err, ERR_MEMORY, "a host copy of '%s' needs %zu bytes",
                           weight->hf_name, bytes);
        add_parts(host, weight, values);
        if (filled)
            model_weight_read(weight, values);
    }
    return 0;
}

/* Frees the text. */
static int write_text(const char *folder, const char *name, char *text, struct err *err)
{
    char *path = mem_printf("%s/%s", folder, name);
    int rc = file_replace(path, text, strlen(text), 0644, err);
    mem_free(path);
    mem_free(text);
    return rc;
}

int model_files_write(const char *folder, const struct model *model, struct err *err)
{
    struct host_weights host;
    int rc = host_weights_init(&host, model, true, err);
    if (rc == 0)
        rc = arrays_write_folder(folder, host.arrays, host.count, MODEL_SHARD_BYTES, err);
    host_weights_done(&host);
    if (rc < 0)
        return -1;
    bool encoder = model->config.family == MODEL_BERT || model->config.family == MODEL_KONA;
    rc = write_text(folder, "config.json", model_config_text(&model->config), err);
    if (rc == 0 && !encoder)
        rc = write_text(folder, "generation_config.json", model_generation_text(&model->config),
                        err);
    return rc;
}

static int check_same(const struct model_config *have, const struct model_config *want,
                      struct err *err)
{
    const struct {
        const char *name;
        double have, want;
    } fields[] = {
        {"model_type", have->family, want->family},
        {"vocab_size", (double)have->vocab_size, (double)want->vocab_size},
        {"context", (double)have->context, (double)want->context},
        {"width", (double)have->width, (double)want->width},
        {"layers", (double)have->layers, (double)want->layers},
        {"heads", (double)have->heads, (double)want->heads},
        {"key-value heads", (double)have->kv_heads, (double)want->kv_heads},
        {"head width", (double)have->head_width, (double)want->head_width},
        {"ffn width", (double)have->ffn_width, (double)want->ffn_width},
        {"norm epsilon", have->norm_eps, want->norm_eps},
        {"tied embeddings", have->tied, want->tied},
        {"token types", (double)have->token_types, (double)want->token_types},
        {"top (architectures)", have->top, want->top},
        {"RoBERTa's positions", have->roberta, want->roberta},
        {"labels", (double)have->labels, (double)want->labels},
        {"activation", have->activation, want->activation},
        {"decoder layers", (double)have->decoder_layers, (double)want->decoder_layers},
        {"gated units", have->gated, want->gated},
        {"buckets", (double)have->buckets, (double)want->buckets},
        {"bucket span", (double)have->bucket_span, (double)want->bucket_span},
        {"experts", (double)have->experts, (double)want->experts},
        {"choices", (double)have->choices, (double)want->choices},
        {"shared experts", (double)have->shared_experts, (double)want->shared_experts},
        {"gates before the choice", have->gate_before, want->gate_before},
        {"norms of queries and keys", have->qk_norm, want->qk_norm},
        {"window", (double)have->window, (double)want->window},
        {"alibi", have->alibi, want->alibi},
        {"biases of queries, keys and values", have->qkv_bias, want->qkv_bias},
        {"lrpe", have->lrpe, want->lrpe},
        {"decay", have->decay, want->decay},
        {"plain embedding", have->plain_embedding, want->plain_embedding},
        {"missing gate", have->ungated, want->ungated},
        {"norms after each half", have->post_norm, want->post_norm},
        {"embedding width", (double)have->embed_width, (double)want->embed_width},
    };
    for (size_t i = 0; i < ARRAY_COUNT(fields); i++)
        if (fields[i].have != fields[i].want)
            return err_set(err, ERR_INVALID, "its %s is %g, but %g is wanted", fields[i].name,
                           fields[i].have, fields[i].want);
    if (model_table_of(want->family)->rotary && have->rope_theta != want->rope_theta)
        return err_set(err, ERR_INVALID, "its rope_theta is %g, but %g is wanted",
                       have->rope_theta, want->rope_theta);
    if (!rope_scaling_equal(&have->rope, &want->rope))
        return err_set(err, ERR_INVALID, "its rope_scaling is not the one that is wanted");
    return 0;
}

static int fill_model(const char *folder, struct model *model, struct err *err)
{
    struct host_weights host;
    int rc = host_weights_init(&host, model, false, err);
    if (rc == 0)
        rc = arrays_read(folder, model->config.tied, host.arrays, host.count, err);
    for (int64_t i = 0; i < model->weight_count && rc == 0; i++)
        model_weight_write(&model->weight[i], host.values[i]);
    host_weights_done(&host);
    return rc;
}

int model_files_read(const char *folder, struct model *model, struct err *err)
{
    struct model_config config;
    if (model_config_read(folder, &config, err) < 0 || model_config_complete(&config, err) < 0)
        return -1;
    if (check_same(&config, &model->config, err) < 0)
        return err_wrap(err, "model '%s'", folder);
    return fill_model(folder, model, err);
}

int model_files_open(const char *folder, struct device *device, bool frozen, struct model **out,
                     struct err *err)
{
    struct model_config config;
    struct model *model = NULL;
    if (model_config_read(folder, &config, err) < 0)
        return -1;
    int rc = frozen ? model_new_frozen(device, &config, &model, err)
                    : model_new(device, &config, 0, &model, err);
    if (rc == 0 && fill_model(folder, model, err) < 0) {
        model_free(model);
        rc = -1;
    }
    if (rc == 0)
        *out = model;
    return rc;
}
