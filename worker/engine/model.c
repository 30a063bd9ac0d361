/* model.c - from a configuration to weights: layout, initialisation, lookup, forward. */
#include "worker/engine/model.h"

#include "worker/engine/models/table.h"

#include "common/base/mem.h"
#include "common/base/rng.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* Weights begin at multiples of this many floats (a cache line; 16 bf16 for tensor cores),
 * except those that continue a joined matrix. */
#define ALIGN_FLOATS 16
/* Sizes stay far from overflow: 2^40 weights are 4 TiB. */
#define WEIGHTS_MAX ((int64_t)1 << 40)

static const struct model_table *const model_tables[MODEL_FAMILY_END] = {
    [MODEL_GPT2] = &model_table_gpt2,
    [MODEL_LLAMA] = &model_table_llama,
};

const char *model_family_name(enum model_family family)
{
    CHECK(family > 0 && family < MODEL_FAMILY_END);
    return model_tables[family]->name;
}

int model_family_parse(const char *name, enum model_family *out, struct err *err)
{
    for (int i = 1; i < MODEL_FAMILY_END; i++) {
        if (strcmp(model_tables[i]->name, name) == 0) {
            *out = (enum model_family)i;
            return 0;
        }
    }
    return err_set(err, ERR_INVALID, "model family '%s' is unknown, expected gpt2 or llama", name);
}

static void fill_defaults(struct model_config *c)
{
    if (c->kv_heads == 0)
        c->kv_heads = c->heads;
    if (c->head_width == 0 && c->heads > 0)
        c->head_width = c->width / c->heads;
    if (c->ffn_width == 0)
        c->ffn_width = c->family == MODEL_GPT2 ? 4 * c->width : (8 * c->width / 3 + 31) / 32 * 32;
    if (c->norm_eps == 0)
        c->norm_eps = 1e-5;
    if (c->rope_theta == 0)
        c->rope_theta = 10000;
    if (c->init_std == 0)
        c->init_std = 0.02;
}

static int check_size(const char *name, int64_t value, int64_t most, struct err *err)
{
    if (value >= 1 && value <= most)
        return 0;
    return err_set(err, ERR_INVALID, "model %s is %lld, expected 1..%lld", name, (long long)value,
                   (long long)most);
}

static int check_shape(const struct model_config *c, struct err *err)
{
    if (check_size("vocab_size", c->vocab_size, 1 << 24, err) < 0 ||
        check_size("context", c->context, 1 << 24, err) < 0 ||
        check_size("width", c->width, 1 << 20, err) < 0 ||
        check_size("layers", c->layers, 4096, err) < 0 ||
        check_size("heads", c->heads, 4096, err) < 0 ||
        check_size("kv_heads", c->kv_heads, c->heads, err) < 0 ||
        check_size("head_width", c->head_width, 1 << 16, err) < 0 ||
        check_size("ffn_width", c->ffn_width, 1 << 22, err) < 0)
        return -1;
    if (c->heads % c->kv_heads != 0)
        return err_set(err, ERR_INVALID, "model kv_heads is %lld, expected a divisor of heads %lld",
                       (long long)c->kv_heads, (long long)c->heads);
    return 0;
}

static int check_gpt2(const struct model_config *c, struct err *err)
{
    if (c->kv_heads != c->heads)
        return err_set(err, ERR_INVALID,
                       "gpt2 has no grouped heads: kv_heads is %lld, expected %lld",
                       (long long)c->kv_heads, (long long)c->heads);
    if (c->heads * c->head_width != c->width)
        return err_set(err, ERR_INVALID, "gpt2 width is %lld, expected a multiple of heads %lld",
                       (long long)c->width, (long long)c->heads);
    if (!c->tied)
        return err_set(err, ERR_INVALID, "gpt2 has a tied head: tied is false, expected true");
    return 0;
}

int model_config_complete(struct model_config *config, struct err *err)
{
    struct model_config c = *config;

    if (c.family <= 0 || c.family >= MODEL_FAMILY_END)
        return err_set(err, ERR_INVALID, "model family is not set, expected gpt2 or llama");
    fill_defaults(&c);
    if (check_shape(&c, err) < 0)
        return -1;
    if (c.family == MODEL_GPT2 && check_gpt2(&c, err) < 0)
        return -1;
    if (c.family == MODEL_LLAMA && c.head_width % 2 != 0)
        return err_set(err, ERR_INVALID, "llama head_width is %lld, expected an even number",
                       (long long)c.head_width);
    if (!(c.norm_eps > 0) || !(c.rope_theta > 1) || !(c.init_std > 0))
        return err_set(err, ERR_INVALID,
                       "model norm_eps %g, rope_theta %g, init_std %g: expected above 0, 1, 0",
                       c.norm_eps, c.rope_theta, c.init_std);
    if (model_weight_count(&c) > WEIGHTS_MAX)
        return err_set(err, ERR_LIMIT, "model has %lld weights, expected at most %lld",
                       (long long)model_weight_count(&c), (long long)WEIGHTS_MAX);
    *config = c;
    return 0;
}

struct heads model_heads(const struct model_config *config)
{
    return (struct heads){config->heads, config->kv_heads, config->head_width};
}

static int64_t size_of(const struct model_config *c, enum dim dim)
{
    switch (dim) {
    case DIM_NONE:
        return 1;
    case DIM_VOCAB:
        return c->vocab_size;
    case DIM_CONTEXT:
        return c->context;
    case DIM_WIDTH:
        return c->width;
    case DIM_QUERIES:
        return c->heads * c->head_width;
    case DIM_KEYS:
        return c->kv_heads * c->head_width;
    case DIM_QKV:
        return (c->heads + 2 * c->kv_heads) * c->head_width;
    case DIM_FFN:
        return c->ffn_width;
    }
    CHECK(!"dimension is known");
    return 0;
}

static int64_t row_count(const struct model_config *c, const struct weight_row *row)
{
    if (row->untied_only && c->tied)
        return 0;
    return size_of(c, row->dim[0]) * size_of(c, row->dim[1]);
}

int64_t model_weight_count(const struct model_config *config)
{
    const struct model_table *table = model_tables[config->family];
    int64_t count = 0;

    for (int i = 0; i < table->before_count; i++)
        count += row_count(config, &table->before[i]);
    for (int i = 0; i < table->block_count; i++)
        count += config->layers * row_count(config, &table->block[i]);
    for (int i = 0; i < table->after_count; i++)
        count += row_count(config, &table->after[i]);
    return count;
}

/* Copies a name of the table with "%d" replaced by the block's number. */
static void expand_name(char out[MODEL_NAME_SIZE], const char *name, int64_t block)
{
    const char *mark = strstr(name, "%d");

    if (mark)
        snprintf(out, MODEL_NAME_SIZE, "%.*s%lld%s", (int)(mark - name), name, (long long)block,
                 mark + 2);
    else
        snprintf(out, MODEL_NAME_SIZE, "%s", name);
}

/* While laying out: how many rows still continue the current joined matrix. */
struct layout {
    struct model *model;
    int joining;
};

static void add_weight(struct layout *layout, const struct weight_row *row, int64_t block)
{
    struct model *model = layout->model;
    struct model_weight *weight;
    int64_t count = row_count(&model->config, row);

    if (count == 0)
        return;
    weight = &model->weight[model->weight_count++];
    expand_name(weight->name, row->name, block);
    expand_name(weight->hf_name, row->hf_name, block);
    weight->hf_transposed = row->hf_transposed;
    weight->decays = row->dim[1] != DIM_NONE;
    if (layout->joining == 0)
        model->flat_count = (model->flat_count + ALIGN_FLOATS - 1) / ALIGN_FLOATS * ALIGN_FLOATS;
    else
        layout->joining--;
    if (row->joins)
        layout->joining = row->joins - 1;
    weight->offset = model->flat_count;
    weight->tensor = (struct tensor){.dtype = DTYPE_F32, .rank = weight->decays ? 2 : 1,
                                     .dim = {size_of(&model->config, row->dim[0]),
                                             size_of(&model->config, row->dim[1]), 1, 1}};
    model->flat_count += count;
}

static void lay_out(struct model *model)
{
    const struct model_table *table = model->table;
    struct layout layout = {.model = model};

    model->weight = mem_array((size_t)(table->before_count + table->after_count +
                                       model->config.layers * table->block_count),
                              sizeof *model->weight);
    for (int i = 0; i < table->before_count; i++)
        add_weight(&layout, &table->before[i], 0);
    for (int64_t b = 0; b < model->config.layers; b++)
        for (int i = 0; i < table->block_count; i++)
            add_weight(&layout, &table->block[i], b);
    for (int i = 0; i < table->after_count; i++)
        add_weight(&layout, &table->after[i], 0);
    model->flat_count = (model->flat_count + ALIGN_FLOATS - 1) / ALIGN_FLOATS * ALIGN_FLOATS;
}

static void point(struct model *model, struct tensor *tensor, int64_t offset)
{
    tensor->device = model->device;
    tensor->values = tensor_f32(&model->flat) + offset;
    tensor->grad = model->flat.grad ? model->flat.grad + offset : NULL;
    tensor->wants_grad = tensor->grad_ready = tensor->is_weight = tensor->grad != NULL;
}

static void point_weights(struct model *model)
{
    const struct model_table *table = model->table;

    for (int64_t i = 0; i < model->weight_count; i++)
        point(model, &model->weight[i].tensor, model->weight[i].offset);
    for (int64_t b = 0; b < model->config.layers; b++) {
        for (int i = 0; i < table->block_count; i++) {
            struct model_weight *weight =
                &model->weight[table->before_count + b * table->block_count + i];

            if (!table->block[i].joins)
                continue;
            weight->joined = weight->tensor;
            for (int k = 1; k < table->block[i].joins; k++)
                weight->joined.dim[0] += weight[k].tensor.dim[0];
            point(model, &weight->joined, weight->offset);
        }
    }
}

static int make_turns(struct model *model, struct err *err)
{
    const struct model_config *c = &model->config;
    int64_t count = c->context * c->head_width;
    struct tensor *turns;
    float *host;

    if (c->family != MODEL_LLAMA)
        return 0;
    turns = mem_zalloc(sizeof *turns);
    *turns = (struct tensor){.device = model->device, .dtype = DTYPE_F32, .rank = 2,
                             .dim = {c->context, c->head_width, 1, 1}};
    model->turns = turns;
    if (device_alloc(model->device, 4 * (size_t)count, &turns->values, err) < 0)
        return err_wrap(err, "angles of rotary positions");
    host = mem_array((size_t)count, sizeof *host);
    rope_turns(host, c->context, c->head_width, c->rope_theta);
    tensor_write(turns, host);
    model->device->backend->finish(model->device);
    mem_free(host);
    return 0;
}

static int allocate(struct model *model, bool trains, struct err *err)
{
    size_t size_bytes = 4 * (size_t)model->flat_count;
    void *memory;

    model->flat = (struct tensor){.device = model->device, .dtype = DTYPE_F32, .rank = 1,
                                  .dim = {model->flat_count, 1, 1, 1}};
    if (device_alloc(model->device, size_bytes, &memory, err) < 0)
        return err_wrap(err, "weights of the model");
    model->flat.values = memory;
    model->device->backend->zero(model->device, memory, size_bytes);
    if (!trains)
        return 0;
    if (device_alloc(model->device, size_bytes, &memory, err) < 0)
        return err_wrap(err, "gradients of the model");
    model->flat.grad = memory;
    model->flat.wants_grad = model->flat.grad_ready = model->flat.is_weight = true;
    model_zero_grad(model);
    return 0;
}

static int model_create(struct device *device, const struct model_config *config, bool trains,
                        struct model **out, struct err *err)
{
    struct model *model = mem_zalloc(sizeof *model);

    model->device = device;
    model->config = *config;
    if (model_config_complete(&model->config, err) < 0)
        goto fail;
    model->table = model_tables[model->config.family];
    lay_out(model);
    if (allocate(model, trains, err) < 0 || make_turns(model, err) < 0)
        goto fail;
    point_weights(model);
    model->head = &model->weight[0].tensor;
    if (!model->config.tied)
        model->head = &model->weight[model->weight_count - 1].tensor;
    *out = model;
    return 0;
fail:
    model_free(model);
    return -1;
}

/* FNV-1a, then mixed: names differ in few characters, streams must not. */
static uint64_t name_stream(const char *name)
{
    uint64_t hash = 0xcbf29ce484222325u;

    for (const char *c = name; *c; c++)
        hash = (hash ^ (unsigned char)*c) * 0x100000001b3u;
    return rng_mix(hash);
}

static void fill_weight(float *out, int64_t count, double std, uint64_t seed, const char *name)
{
    struct rng rng;

    rng_init(&rng, rng_at(seed, name_stream(name), 0));
    for (int64_t i = 0; i < count; i++)
        out[i] = (float)(std * rng_normal(&rng));
}

static void init_weight(const struct model *model, const struct weight_row *row,
                        struct model_weight *weight, float *host, uint64_t seed)
{
    int64_t count = tensor_count(&weight->tensor);
    double std = model->config.init_std;

    if (row->init == INIT_RESIDUAL)
        std /= sqrt(2.0 * (double)model->config.layers);
    if (row->init == INIT_ZERO || row->init == INIT_ONE)
        for (int64_t i = 0; i < count; i++)
            host[i] = row->init == INIT_ONE ? 1.0f : 0.0f;
    else
        fill_weight(host, count, std, seed, weight->name);
    tensor_write(&weight->tensor, host);
    model->device->backend->finish(model->device);
}

static const struct weight_row *row_of(const struct model *model, int64_t i)
{
    const struct model_table *table = model->table;
    int64_t blocks_end = table->before_count + model->config.layers * table->block_count;

    if (i < table->before_count)
        return &table->before[i];
    if (i < blocks_end)
        return &table->block[(i - table->before_count) % table->block_count];
    return &table->after[i - blocks_end];
}

int model_new(struct device *device, const struct model_config *config, uint64_t seed,
              struct model **out, struct err *err)
{
    struct model *model;
    int64_t largest = 0;
    float *host;

    if (model_create(device, config, true, &model, err) < 0)
        return -1;
    for (int64_t i = 0; i < model->weight_count; i++)
        largest = (int64_t)max_u64((uint64_t)largest,
                                   (uint64_t)tensor_count(&model->weight[i].tensor));
    host = mem_array((size_t)largest, sizeof *host);
    for (int64_t i = 0; i < model->weight_count; i++)
        init_weight(model, row_of(model, i), &model->weight[i], host, seed);
    mem_free(host);
    *out = model;
    return 0;
}

int model_new_frozen(struct device *device, const struct model_config *config,
                     struct model **out, struct err *err)
{
    return model_create(device, config, false, out, err);
}

int model_clone_frozen(const struct model *model, struct device *device, struct model **out,
                       struct err *err)
{
    struct model *copy;
    float *host;

    if (model_create(device, &model->config, false, &copy, err) < 0)
        return -1;
    host = mem_array((size_t)model->flat_count, sizeof *host);
    tensor_read(&model->flat, host);
    tensor_write(&copy->flat, host);
    device->backend->finish(device);
    mem_free(host);
    *out = copy;
    return 0;
}

void model_free(struct model *model)
{
    size_t size_bytes;

    if (!model)
        return;
    size_bytes = 4 * (size_t)model->flat_count;
    model->device->backend->finish(model->device);
    device_release(model->device, model->flat.values, size_bytes);
    device_release(model->device, model->flat.grad, size_bytes);
    if (model->turns)
        device_release(model->device, model->turns->values,
                       4 * (size_t)(model->config.context * model->config.head_width));
    mem_free(model->turns);
    mem_free(model->weight);
    mem_free(model);
}

struct model_weight *model_weight_find(struct model *model, const char *name)
{
    for (int64_t i = 0; i < model->weight_count; i++) {
        struct model_weight *weight = &model->weight[i];
        const char *dot = strchr(weight->hf_name, '.');

        if (strcmp(weight->name, name) == 0 || strcmp(weight->hf_name, name) == 0 ||
            (dot && strcmp(dot + 1, name) == 0))
            return weight;
    }
    return NULL;
}

void model_weight_read(const struct model_weight *weight, float *out_host)
{
    tensor_read(&weight->tensor, out_host);
}

void model_weight_write(struct model_weight *weight, const float *host)
{
    tensor_write(&weight->tensor, host);
    weight->tensor.device->backend->finish(weight->tensor.device);
}

void model_zero_grad(struct model *model)
{
    CHECK(model->flat.grad != NULL);
    model->device->backend->zero(model->device, model->flat.grad, 4 * (size_t)model->flat_count);
}

struct tensor *model_before(const struct model *model, int row)
{
    return &model->weight[row].tensor;
}

static struct model_weight *block_weight(const struct model *model, int64_t i, int row)
{
    return &model->weight[model->table->before_count + i * model->table->block_count + row];
}

struct tensor *model_block(const struct model *model, int64_t i, int row)
{
    return &block_weight(model, i, row)->tensor;
}

struct tensor *model_joined(const struct model *model, int64_t i, int row)
{
    return &block_weight(model, i, row)->joined;
}

struct tensor *model_after(const struct model *model, int row)
{
    return &block_weight(model, model->config.layers, row)->tensor;
}

struct tensor *model_attend(struct tape *tape, const struct model *model,
                            const struct model_batch *batch, struct kv_cache *cache,
                            int64_t layer, struct tensor *qkv, struct tensor *first)
{
    if (cache)
        return kv_cache_attend(tape, cache, layer, qkv, batch->B, batch->T);
    return op_attention(tape, qkv, first, model_heads(&model->config), batch->B, batch->T);
}

void model_remember(struct model_states *states, int64_t i, struct tensor *x)
{
    if (states->layer)
        states->layer[i] = x;
}

struct tensor *model_positions(struct tape *tape, const struct model_batch *batch)
{
    int64_t N = batch->B * batch->T;
    struct tensor *tensor;
    int32_t *position;

    if (batch->position)
        return tape_i32(tape, batch->position, N);
    position = mem_array((size_t)N, sizeof *position);
    for (int64_t n = 0; n < N; n++)
        position[n] = (int32_t)(n % batch->T);
    tensor = tape_i32(tape, position, N);
    tape_device(tape)->backend->finish(tape_device(tape));
    mem_free(position);
    return tensor;
}

static int check_batch(const struct model_config *c, const struct model_batch *batch,
                       struct err *err)
{
    int64_t T = batch->T;

    if (batch->B < 1 || T < 1 || T > c->context)
        return err_set(err, ERR_INVALID, "batch of %lld rows of %lld tokens, expected 1 or more "
                       "rows of 1..%lld (the model's context)", (long long)batch->B, (long long)T,
                       (long long)c->context);
    for (int64_t n = 0; n < batch->B * T; n++) {
        if (batch->token[n] < 0 || batch->token[n] >= c->vocab_size)
            return err_set(err, ERR_INVALID, "token %d at row %lld, column %lld, expected 0..%lld",
                           (int)batch->token[n], (long long)(n / T), (long long)(n % T),
                           (long long)c->vocab_size - 1);
        if (batch->position && (batch->position[n] < 0 || batch->position[n] >= c->context))
            return err_set(err, ERR_INVALID,
                           "position %d at row %lld, column %lld, expected 0..%lld",
                           (int)batch->position[n], (long long)(n / T), (long long)(n % T),
                           (long long)c->context - 1);
        if (batch->first && (batch->first[n] < 0 || batch->first[n] > n % T))
            return err_set(err, ERR_INVALID,
                           "first key %d at row %lld, column %lld, expected 0..%lld",
                           (int)batch->first[n], (long long)(n / T), (long long)(n % T),
                           (long long)(n % T));
    }
    return 0;
}

int model_run(struct tape *tape, const struct model *model, const struct model_batch *batch,
              struct kv_cache *cache, struct model_states *states, struct err *err)
{
    if (tape_check(tape, err) < 0 || check_batch(&model->config, batch, err) < 0)
        return -1;
    CHECK(tape_device(tape) == model->device);
    states->hidden = NULL;
    model->table->forward(tape, model, batch, cache, states);
    return tape_check(tape, err);
}

int model_forward(struct tape *tape, const struct model *model, const struct model_batch *batch,
                  struct model_states *states, struct err *err)
{
    return model_run(tape, model, batch, NULL, states, err);
}

struct tensor *model_logits(struct tape *tape, const struct model *model, struct tensor *hidden)
{
    return op_linear(tape, hidden, model->head, NULL);
}
