/* kona_import.c - see kona_import.h. */
#include "worker/engine/io/kona_import.h"

#include "common/base/buf.h"
#include "common/base/file.h"
#include "common/base/mem.h"
#include "worker/engine/models/table.h"

#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define FILE_MAX ((size_t)256 << 20)

#define DEFAULT "module_apply_default/Encoder_en/KonaTransformer/Encode/"
#define MODULE "module/Encoder_en/KonaTransformer/Encode/"

/* Weights of layer %d: our name after the block's prefix, theirs, and whether it is turned: a
 * product there is x w, [in, out]. Leading dimensions of 1 are theirs only. */
static const struct pairing {
    const char *ours, *theirs;
    bool turned;
} layer_pairings[] = {
    {"ln1.weight", DEFAULT "Layer_%d/TransformerLayer/layer_prepostprocess/layer_norm/"
                   "layer_norm_scale/ConcatPartitions/concat", false},
    {"ln1.bias", DEFAULT "Layer_%d/TransformerLayer/layer_prepostprocess/layer_norm/"
                 "layer_norm_bias/ConcatPartitions/concat", false},
    {"qkv.weight", MODULE "Layer_%d/TransformerLayer/MultiheadAttention/qkv_transform_single/"
                   "kernel/part_0", true},
    {"qkv.bias", DEFAULT "Layer_%d/TransformerLayer/MultiheadAttention/qkv_transform_single/bias/"
                 "ConcatPartitions/concat", false},
    {"o.weight", MODULE "Layer_%d/TransformerLayer/MultiheadAttention/output_transform_single/"
                 "kernel/part_0", true},
    {"o.bias", DEFAULT "Layer_%d/TransformerLayer/MultiheadAttention/output_transform_single/bias/"
               "ConcatPartitions/concat", false},
    {"ln2.weight", DEFAULT "Layer_%d/TransformerLayer/FFN/layer_prepostprocess/layer_norm/"
                   "layer_norm_scale/ConcatPartitions/concat", false},
    {"ln2.bias", DEFAULT "Layer_%d/TransformerLayer/FFN/layer_prepostprocess/layer_norm/"
                 "layer_norm_bias/ConcatPartitions/concat", false},
    {"fc.weight", DEFAULT "TransformerStack/Layer_%d/TransformerLayer/FFN/conv1/Tensordot/"
                  "Reshape_1", true},
    {"fc.bias", DEFAULT "Layer_%d/TransformerLayer/FFN/conv1/bias/ConcatPartitions/concat", false},
    {"out.weight", DEFAULT "TransformerStack/Layer_%d/TransformerLayer/FFN/conv2/Tensordot/"
                   "Reshape_1", true},
    {"out.bias", DEFAULT "Layer_%d/TransformerLayer/FFN/conv2/bias/ConcatPartitions/concat", false},
};

static const struct pairing pairings[] = {
    {"embed", "module/Embeddings_en", false},
    {"widen.weight", DEFAULT "Layer_0/TransformerLayer/dense/kernel/ConcatPartitions/concat", true},
    {"widen.bias", DEFAULT "Layer_0/TransformerLayer/dense/bias/ConcatPartitions/concat", false},
    {"top.weight", "module/Encoder_en/hidden_layers/tanh_layer_0/weights", true},
    {"top.bias", "module/Encoder_en/hidden_layers/tanh_layer_0/bias", false},
};

static const char frequencies[] =
    DEFAULT "TransformerStack/Layer_0/AddTimingSignal/TimingSignal/ExpandDims_1";

/* The manifest and the bytes of all shards, one after another. */
struct graph {
    json_t *root;
    struct buf bytes;
};

static int read_shards(struct graph *graph, const char *folder, json_t *group, struct err *err)
{
    size_t index;
    json_t *name;
    json_array_foreach(json_object_get(group, "paths"), index, name) {
        const char *file = json_string_value(name);
        char *path, *bytes = NULL;
        size_t length;
        int rc;
        if (!file || strchr(file, '/') || strstr(file, ".."))
            return err_set(err, ERR_PROTOCOL, "paths[%zu] is not a plain file name", index);
        path = mem_printf("%s/%s", folder, file);
        rc = file_read(path, FILE_MAX, &bytes, &length, err);
        if (rc == 0)
            buf_add(&graph->bytes, bytes, length);
        mem_free(bytes);
        mem_free(path);
        if (rc < 0)
            return -1;
    }
    return 0;
}

static int graph_open(struct graph *graph, const char *folder, struct err *err)
{
    char *path = mem_printf("%s/model.json", folder), *bytes = NULL;
    json_error_t why;
    size_t length, index;
    json_t *group, *groups;
    int rc = file_read(path, FILE_MAX, &bytes, &length, err);
    if (rc == 0) {
        graph->root = json_loadb(bytes, length, 0, &why);
        if (!graph->root)
            rc = err_set(err, ERR_PROTOCOL, "line %d: %s", why.line, why.text);
    }
    groups = json_object_get(graph->root, "weightsManifest");
    if (rc == 0 && !json_is_array(groups))
        rc = err_set(err, ERR_PROTOCOL, "there is no weightsManifest");
    if (rc == 0)
        json_array_foreach(groups, index, group)
            if ((rc = read_shards(graph, folder, group, err)) < 0)
                break;
    mem_free(bytes);
    if (rc < 0)
        err_wrap(err, "'%s'", path);
    mem_free(path);
    return rc;
}

static void graph_close(struct graph *graph)
{
    json_decref(graph->root);
    buf_done(&graph->bytes);
}

/* Elements of a weight of the manifest; all its types take four bytes. -1: no shape. */
static int64_t element_count(json_t *weight)
{
    json_t *shape = json_object_get(weight, "shape"), *dim;
    int64_t count = 1;
    size_t index;
    if (!json_is_array(shape))
        return -1;
    json_array_foreach(shape, index, dim) {
        json_int_t size = json_integer_value(dim);
        if (size < 1 || size > (1 << 24) || count > (1 << 26))
            return -1;
        count *= size;
    }
    return count;
}

/* The weight of this name: where its numbers begin. */
static int graph_find(const struct graph *graph, const char *name, json_t **out_weight,
                      const char **out_values, int64_t *out_count, struct err *err)
{
    json_t *group, *weight;
    size_t g, w, offset = 0;
    json_array_foreach(json_object_get(graph->root, "weightsManifest"), g, group) {
        json_array_foreach(json_object_get(group, "weights"), w, weight) {
            const char *own = json_string_value(json_object_get(weight, "name"));
            int64_t count = element_count(weight);
            if (count < 0 || !own || offset + 4 * (size_t)count > graph->bytes.length)
                return err_set(err, ERR_PROTOCOL, "weight %zu has no name or shape, or its shard "
                               "is cut off", w);
            if (strcmp(own, name) == 0) {
                *out_weight = weight;
                *out_values = graph->bytes.bytes + offset;
                *out_count = count;
                return 0;
            }
            offset += 4 * (size_t)count;
        }
    }
    return err_set(err, ERR_INVALID, "weight '%s' is missing", name);
}

/* Their last two dimensions; a vector has one. */
static void last_dims(json_t *weight, int64_t dim[2])
{
    json_t *shape = json_object_get(weight, "shape");
    size_t count = json_array_size(shape);
    dim[1] = count > 0 ? json_integer_value(json_array_get(shape, count - 1)) : 1;
    dim[0] = count > 1 ? json_integer_value(json_array_get(shape, count - 2)) : 1;
}

static const char *text_of(json_t *object, const char *field)
{
    const char *text = json_string_value(json_object_get(object, field));
    return text ? text : "";
}

static int fill_weight(const struct graph *graph, struct model_weight *weight, const char *theirs,
                       bool turned, struct err *err)
{
    const struct tensor *tensor = &weight->tensor;
    int64_t rows = tensor->dim[0], columns = tensor->dim[1], count = 0, dim[2];
    const char *bytes = NULL;
    json_t *entry = NULL;
    float *values;
    if (graph_find(graph, theirs, &entry, &bytes, &count, err) < 0)
        return -1;
    last_dims(entry, dim);
    if (strcmp(text_of(entry, "dtype"), "float32") != 0 ||
        count != rows * columns || (turned && (dim[0] != columns || dim[1] != rows)))
        return err_set(err, ERR_INVALID, "weight '%s' is not float32 of %lld by %lld", theirs,
                       (long long)(turned ? columns : rows), (long long)(turned ? rows : columns));
    values = mem_array((size_t)count, sizeof *values);
    for (int64_t i = 0; i < count; i++) {
        int64_t to = turned ? i % rows * columns + i / rows : i;
        memcpy(&values[to], bytes + 4 * i, 4);
    }
    model_weight_write(weight, values);
    mem_free(values);
    return 0;
}

static int fill_layer(const struct graph *graph, struct model *model, int layer, struct err *err)
{
    for (size_t i = 0; i < ARRAY_COUNT(layer_pairings); i++) {
        const struct pairing *p = &layer_pairings[i];
        const char *mark = strstr(p->theirs, "%d");
        char ours[MODEL_NAME_SIZE], theirs[300];
        snprintf(ours, sizeof ours, "%s%s", layer == 0 ? "first." : "block.0.", p->ours);
        snprintf(theirs, sizeof theirs, "%.*s%d%s", (int)(mark - p->theirs), p->theirs, layer,
                 mark + 2);
        if (fill_weight(graph, model_weight_find(model, ours), theirs, p->turned, err) < 0)
            return -1;
    }
    return 0;
}

/* We compute the table of positions: theirs must be the same. 1e-5: they stored float32. */
static int check_frequencies(const struct graph *graph, struct err *err)
{
    const char *bytes = NULL;
    json_t *entry;
    int64_t count = 0;
    if (graph_find(graph, frequencies, &entry, &bytes, &count, err) < 0)
        return -1;
    for (int64_t i = 0; i < count; i++) {
        float value;
        memcpy(&value, bytes + 4 * i, 4);
        if (fabs(value / kona_frequency(i, count) - 1) > 1e-5)
            return err_set(err, ERR_INVALID, "frequency %lld of the positions is %g, expected %g",
                           (long long)i, (double)value, kona_frequency(i, count));
    }
    return 0;
}

static int fill_model(const struct graph *graph, struct model *model, struct err *err)
{
    for (size_t i = 0; i < ARRAY_COUNT(pairings); i++)
        if (fill_weight(graph, model_weight_find(model, pairings[i].ours), pairings[i].theirs,
                        pairings[i].turned, err) < 0)
            return -1;
    if (fill_layer(graph, model, 0, err) < 0 || fill_layer(graph, model, 1, err) < 0)
        return -1;
    return check_frequencies(graph, err);
}

int kona_import(const char *folder, struct device *device, struct model **out, struct err *err)
{
    const struct model_config config = {
        .family = MODEL_KONA, .vocab_size = 8002, .context = 128, .width = 512, .layers = 1,
        .heads = 4, .ffn_width = 1536, .bos_token = -1, .eos_token = -1};
    struct graph graph = {0};
    struct model *model = NULL;
    int rc = graph_open(&graph, folder, err);
    if (rc == 0)
        rc = model_new_frozen(device, &config, &model, err);
    if (rc == 0 && (rc = fill_model(&graph, model, err)) < 0)
        err_wrap(err, "'%s'", folder);
    graph_close(&graph);
    if (rc < 0)
        model_free(model);
    else
        *out = model;
    return rc;
}

int kona_import_tokenizer(const char *folder, struct tokenizer **out, struct err *err)
{
    char *path = mem_printf("%s/vocab.json", folder);
    int rc = tokenizer_read_kona(path, out, err);
    mem_free(path);
    return rc;
}
