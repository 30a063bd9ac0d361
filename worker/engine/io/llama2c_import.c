/* llama2c_import.c - see llama2c_import.h. */
#include "worker/engine/io/llama2c_import.h"

#include "common/base/file.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAGIC 0x616B3432u /* "ak42" */
#define HEADER_1_BYTES 256u

/* Weights in each version's order; "%d" is the block: all blocks of a kind lie together. The angles
 * stand between the last norm and the output matrix, in version 0 only. */
static const char *const order_0[] = {
    "embed",
    "block.%d.norm1.weight", "block.%d.q.weight", "block.%d.k.weight", "block.%d.v.weight",
    "block.%d.o.weight", "block.%d.norm2.weight", "block.%d.gate.weight", "block.%d.down.weight",
    "block.%d.up.weight",
    "norm.weight", "angles", "head"};
static const char *const order_1[] = {
    "block.%d.norm1.weight", "block.%d.norm2.weight", "norm.weight", "embed",
    "block.%d.q.weight", "block.%d.k.weight", "block.%d.v.weight", "block.%d.o.weight",
    "block.%d.gate.weight", "block.%d.down.weight", "block.%d.up.weight",
    "head"};

struct llama2c {
    const char *bytes;
    uint64_t length, at;
    int version;
    const char *const *order;
    size_t order_count;
    struct model_config config; /* complete */
};

static const struct {
    const char *name;
    int64_t most;
} fields[] = {{"dim", 1 << 20},       {"hidden_dim", 1 << 22}, {"n_layers", 4096},
              {"n_heads", 4096},      {"n_kv_heads", 4096},    {"vocab_size", 1 << 24},
              {"seq_len", 1 << 24}};

static int refuse_short(const struct llama2c *file, uint64_t wanted, struct err *err)
{
    return err_set(err, ERR_PROTOCOL, "it has %llu bytes, its header alone has %llu: no checkpoint "
                   "of llama2.c", (unsigned long long)file->length, (unsigned long long)wanted);
}

static int read_version(struct llama2c *file, struct err *err)
{
    uint32_t magic = 0;
    int32_t version = 0;

    file->order = order_0;
    file->order_count = ARRAY_COUNT(order_0);
    if (file->length < 28)
        return refuse_short(file, 28, err);
    memcpy(&magic, file->bytes, 4);
    if (magic != MAGIC)
        return 0;
    memcpy(&version, file->bytes + 4, 4);
    if (version != 1)
        return err_set(err, ERR_INVALID, "its header at byte 4 says version %d%s; versions 0 and 1 "
                       "are accepted (export.py --version 0)", (int)version,
                       version == 2 ? " (int8)" : "");
    if (file->length < HEADER_1_BYTES)
        return refuse_short(file, HEADER_1_BYTES, err);
    file->version = version;
    file->order = order_1;
    file->order_count = ARRAY_COUNT(order_1);
    file->at = 8;
    return 0;
}

static int read_sizes(struct llama2c *file, int64_t out[7], bool *out_tied, struct err *err)
{
    int32_t value[7];

    memcpy(value, file->bytes + file->at, sizeof value);
    *out_tied = file->version == 0 ? value[5] > 0 : file->bytes[36] != 0;
    for (size_t i = 0; i < ARRAY_COUNT(value); i++) {
        out[i] = file->version == 0 && i == 5 ? llabs((long long)value[i]) : value[i];
        if (out[i] < 1 || out[i] > fields[i].most)
            return err_set(err, ERR_PROTOCOL, "%s at byte %llu of its header is %d, expected "
                           "1..%lld: no checkpoint of llama2.c", fields[i].name,
                           (unsigned long long)(file->at + 4 * i), (int)value[i],
                           (long long)fields[i].most);
    }
    if (out[0] % out[3] != 0)
        return err_set(err, ERR_PROTOCOL, "its header has a dim of %lld for %lld heads, expected "
                       "a multiple: no checkpoint of llama2.c", (long long)out[0],
                       (long long)out[3]);
    file->at = file->version == 0 ? 28 : HEADER_1_BYTES;
    return 0;
}

static int read_header(struct llama2c *file, struct err *err)
{
    int64_t size[7] = {0};
    bool tied = false;

    if (read_version(file, err) < 0 || read_sizes(file, size, &tied, err) < 0)
        return -1;
    file->config = (struct model_config){
        .family = MODEL_LLAMA, .width = size[0], .ffn_width = size[1], .layers = size[2],
        .heads = size[3], .kv_heads = size[4], .vocab_size = size[5], .context = size[6],
        .norm_eps = 1e-5, .rope_theta = 10000, .tied = tied, .bos_token = 1, .eos_token = 1};
    return model_config_complete(&file->config, err) < 0 ? err_wrap(err, "its header") : 0;
}

/* Numbers of a weight of this name in one block. Sizes are checked, so none overflows. */
static uint64_t count_of(const struct model_config *c, const char *name)
{
    uint64_t D = (uint64_t)c->width, V = (uint64_t)c->vocab_size;
    uint64_t keys = (uint64_t)(c->kv_heads * c->head_width);

    if (strcmp(name, "head") == 0)
        return c->tied ? 0 : V * D;
    if (strcmp(name, "angles") == 0)
        return (uint64_t)(c->context * c->head_width);
    if (strcmp(name, "embed") == 0)
        return V * D;
    if (strstr(name, "norm"))
        return D;
    if (strstr(name, ".gate.") || strstr(name, ".up.") || strstr(name, ".down."))
        return (uint64_t)c->ffn_width * D;
    return strstr(name, ".k.") || strstr(name, ".v.") ? keys * D : D * D;
}

static bool is_of_blocks(const char *name)
{
    return strstr(name, "%d") != NULL;
}

static const char *name_in(const char *name, int64_t block, char out[MODEL_NAME_SIZE])
{
    const char *mark = strstr(name, "%d");

    if (!mark)
        return name;
    snprintf(out, MODEL_NAME_SIZE, "%.*s%lld%s", (int)(mark - name), name, (long long)block,
             mark + 2);
    return out;
}

/* The file must end with the last weight; else the message says which it ends within. */
static int check_length(const struct llama2c *file, struct err *err)
{
    const struct model_config *c = &file->config;
    uint64_t at = file->at;
    char name[MODEL_NAME_SIZE];

    for (size_t k = 0; k < file->order_count; k++) {
        int64_t blocks = is_of_blocks(file->order[k]) ? c->layers : 1;
        uint64_t bytes = 4 * count_of(c, file->order[k]);

        for (int64_t i = 0; i < blocks; i++, at += bytes)
            if (at + bytes > file->length)
                return err_set(err, ERR_PROTOCOL, "it has %llu bytes and ends within '%s', which "
                               "its header (dim %lld, %lld layers, %lld tokens) puts at bytes "
                               "%llu..%llu: cut off, or no checkpoint of llama2.c",
                               (unsigned long long)file->length, name_in(file->order[k], i, name),
                               (long long)c->width, (long long)c->layers,
                               (long long)c->vocab_size, (unsigned long long)at,
                               (unsigned long long)(at + bytes));
    }
    if (at < file->length)
        return err_set(err, ERR_PROTOCOL, "it has %llu bytes, but its weights end at byte %llu "
                       "(dim %lld, %lld layers, %lld tokens): no checkpoint of llama2.c",
                       (unsigned long long)file->length, (unsigned long long)at,
                       (long long)c->width, (long long)c->layers, (long long)c->vocab_size);
    return 0;
}

/* Rows of each head from (pair, half) to (half, pair). */
static void part_pairs(const float *from, int64_t rows, int64_t width, int64_t head, float *out)
{
    for (int64_t r = 0; r < rows; r++) {
        int64_t j = r % head, source = r - j + (j < head / 2 ? 2 * j : 2 * (j - head / 2) + 1);

        memcpy(out + r * width, from + source * width, (size_t)width * sizeof *out);
    }
}

static int fill_weight(struct llama2c *file, struct model *model, const char *name,
                       struct err *err)
{
    struct model_weight *weight = model_weight_find(model, name);
    int64_t count = tensor_count(&weight->tensor);
    float *values = malloc((size_t)count * sizeof *values), *turned = NULL;
    bool turns = strstr(name, ".q.") || strstr(name, ".k.");
    int rc = 0;

    if (turns)
        turned = malloc((size_t)count * sizeof *turned);
    if (!values || (turns && !turned))
        rc = err_set(err, ERR_MEMORY, "a host copy of '%s' needs %lld bytes", name,
                     (long long)count * 4);
    else
        memcpy(values, file->bytes + file->at, (size_t)count * sizeof *values);
    for (int64_t i = 0; i < count && rc == 0; i++)
        if (!isfinite(values[i]))
            rc = err_set(err, ERR_PROTOCOL, "number %lld of '%s', at byte %llu, is not finite",
                         (long long)i, name, (unsigned long long)file->at + 4 * (uint64_t)i);
    if (rc == 0 && turns)
        part_pairs(values, weight->tensor.dim[0], weight->tensor.dim[1], model->config.head_width,
                   turned);
    if (rc == 0)
        model_weight_write(weight, turns ? turned : values);
    free(values);
    free(turned);
    return rc;
}

static int fill_model(struct llama2c *file, struct model *model, struct err *err)
{
    char name[MODEL_NAME_SIZE];

    for (size_t k = 0; k < file->order_count; k++) {
        const char *kind = file->order[k];
        uint64_t bytes = 4 * count_of(&file->config, kind);
        int64_t blocks = is_of_blocks(kind) ? file->config.layers : 1;

        for (int64_t i = 0; i < blocks && bytes > 0; i++, file->at += bytes)
            if (strcmp(kind, "angles") != 0 &&
                fill_weight(file, model, name_in(kind, i, name), err) < 0)
                return -1;
    }
    return 0;
}

int llama2c_parse(const void *bytes, size_t length, struct device *device, struct model **out,
                  struct err *err)
{
    struct llama2c file = {.bytes = bytes, .length = length};
    struct model *model = NULL;

    if (read_header(&file, err) < 0 || check_length(&file, err) < 0 ||
        model_new_frozen(device, &file.config, &model, err) < 0)
        return -1;
    if (fill_model(&file, model, err) < 0) {
        model_free(model);
        return -1;
    }
    *out = model;
    return 0;
}

int llama2c_import(const char *path, struct device *device, struct model **out, struct err *err)
{
    void *bytes = NULL;
    size_t length = 0;
    int rc;

    if (file_map(path, &bytes, &length, err) < 0)
        return -1;
    rc = llama2c_parse(bytes, length, device, out, err);
    file_unmap(bytes, length);
    return rc < 0 ? err_wrap(err, "'%s'", path) : 0;
}
