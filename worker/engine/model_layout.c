/* model_layout.c - from a table of weights to slices of one flat array, and their first values.
 *
 * Rows of a table are numbered in one sequence: those before the blocks, those of each block,
 * those of each second block (a decoder's), those after. Rows that a configuration does not
 * need keep their number but have no weight. */
#include "worker/engine/comm.h"
#include "worker/engine/models/table.h"

#include "common/base/mem.h"
#include "common/base/rng.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* Weights begin at multiples of this many floats (a cache line; 16 bf16 for tensor cores),
 * except those that continue a joined matrix. */
#define ALIGN_FLOATS 16

static int64_t experts_here(const struct model_config *c)
{
    int64_t from = 0, to = c->experts;

    if (c->expert_ranks > 1)
        comm_share(c->experts, (int)c->expert_ranks, (int)c->expert_rank, &from, &to);
    return to - from;
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
    case DIM_PLACES:
        return c->context + model_places_before(c);
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
    case DIM_TYPES:
        return c->token_types;
    case DIM_LABELS:
        return c->labels;
    case DIM_HALF:
        return c->width / 2;
    case DIM_HALF_QKV:
        return 3 * c->width / 2;
    case DIM_HEADS:
        return c->heads;
    case DIM_HEAD_WIDTH:
        return c->head_width;
    case DIM_BUCKETS:
        return c->buckets;
    case DIM_EXPERTS:
        return c->experts;
    case DIM_EXPERTS_IN:
        return 2 * experts_here(c) * c->ffn_width;
    case DIM_EXPERTS_OUT:
        return experts_here(c) * c->width;
    case DIM_SHARED:
        return c->shared_experts * c->ffn_width;
    case DIM_QKVU:
        return 4 * c->width;
    case DIM_EMBED:
        return c->embed_width ? c->embed_width : c->width;
    }
    CHECK(!"dimension is known");
    return 0;
}

static bool is_needed(const struct model_config *c, enum need need, int64_t block)
{
    switch (need) {
    case NEED_ALWAYS:
        return true;
    case NEED_UNTIED:
        return !c->tied;
    case NEED_POOLER:
        return c->top != MODEL_TOP_TOKENS;
    case NEED_TOKENS:
        return c->top == MODEL_TOP_TOKENS;
    case NEED_LABELS:
        return c->top == MODEL_TOP_LABELS;
    case NEED_GATED:
        return c->gated;
    case NEED_PLAIN:
        return !c->gated;
    case NEED_SHARED:
        return c->shared_experts > 0;
    case NEED_QK_NORM:
        return c->qk_norm;
    case NEED_GPT2:
        return c->family == MODEL_GPT2;
    case NEED_OPT:
        return c->family == MODEL_OPT;
    case NEED_PRE_NORM:
        return !c->post_norm;
    case NEED_NARROW:
        return c->embed_width > 0;
    case NEED_QKV_BIAS:
        return c->qkv_bias;
    case NEED_ANGLES:
        return c->lrpe == LRPE_ALL || (c->lrpe == LRPE_FIRST && block == 0);
    }
    CHECK(!"need is known");
    return false;
}

static int64_t row_count(const struct model_config *c, const struct weight_row *row, int64_t block)
{
    if (!is_needed(c, row->need, block))
        return 0;
    return size_of(c, row->dim[0]) * size_of(c, row->dim[1]);
}

static int64_t rows_of(const struct model_table *table, const struct model_config *c)
{
    return table->before_count + c->layers * table->block_count +
           c->decoder_layers * table->second_count + table->after_count;
}

int64_t layout_rows(const struct model *model)
{
    return rows_of(model->table, &model->config);
}

/* The row with this number, and which block it is in. */
static const struct weight_row *row_at(const struct model_table *table,
                                       const struct model_config *c, int64_t number,
                                       int64_t *out_block)
{
    int64_t blocks = c->layers * table->block_count;
    int64_t seconds = c->decoder_layers * table->second_count;

    *out_block = 0;
    if (number < table->before_count)
        return &table->before[number];
    number -= table->before_count;
    if (number < blocks) {
        *out_block = number / table->block_count;
        return &table->block[number % table->block_count];
    }
    number -= blocks;
    if (number < seconds) {
        *out_block = number / table->second_count;
        return &table->second[number % table->second_count];
    }
    return &table->after[number - seconds];
}

int64_t layout_count(const struct model_table *table, const struct model_config *config)
{
    int64_t count = 0;

    for (int64_t i = 0; i < rows_of(table, config); i++) {
        int64_t block;
        const struct weight_row *row = row_at(table, config, i, &block);

        count += row_count(config, row, block);
    }
    return count;
}

/* Copies a name of the table with each "%d" replaced by the block's number. */
static void expand_name(char out[MODEL_NAME_SIZE], const char *name, int64_t block)
{
    size_t used = 0;

    for (const char *mark; (mark = strstr(name, "%d")); name = mark + 2)
        used += (size_t)snprintf(out + used, MODEL_NAME_SIZE - used, "%.*s%lld",
                                 (int)(mark - name), name, (long long)block);
    snprintf(out + used, MODEL_NAME_SIZE - used, "%s", name);
}

static int64_t align_up(int64_t count)
{
    return (count + ALIGN_FLOATS - 1) / ALIGN_FLOATS * ALIGN_FLOATS;
}

static bool is_expert(const struct weight_row *row)
{
    return row->dim[0] == DIM_EXPERTS_IN || row->dim[0] == DIM_EXPERTS_OUT;
}

/* Where each numbered row begins in a flat array that holds `which` of them from `at` on; returns
 * where they end. */
enum which { ROWS_ALL, ROWS_SHARED, ROWS_OWN };
static int64_t place_rows(const struct model *model, const struct model_config *c,
                          enum which which, int64_t at, int64_t *place)
{
    int joining = 0; /* rows that still continue the current joined matrix */

    for (int64_t i = 0; i < layout_rows(model); i++) {
        int64_t block;
        const struct weight_row *row = row_at(model->table, c, i, &block);

        if (row_count(c, row, block) == 0 ||
            (which != ROWS_ALL && is_expert(row) != (which == ROWS_OWN)))
            continue;
        if (joining == 0)
            at = align_up(at);
        else
            joining--;
        if (row->joins)
            joining = row->joins - 1;
        place[i] = at;
        at += row_count(c, row, block);
    }
    return align_up(at);
}

static void add_weight(struct model *model, const struct weight_row *row, int64_t block,
                       int64_t place)
{
    struct model_weight *weight = &model->weight[model->weight_count++];

    *weight = (struct model_weight){.offset = place,
                                    .hf_transposed = row->hf_transposed &&
                                                     !model->table->other_format,
                                    .decays = row->dim[1] != DIM_NONE && !row->no_decay};
    bool other = model->config.qk_norm || model->config.roberta || model->table->other_format;
    const char *hf_name = other && row->hf_other ? row->hf_other : row->hf_name;

    expand_name(weight->name, row->name, block);
    expand_name(weight->hf_name, hf_name, block);
    weight->experts = strstr(hf_name, "%e") ? model->config.experts : 1;
    weight->tensor = (struct tensor){.dtype = DTYPE_F32, .rank = row->dim[1] != DIM_NONE ? 2 : 1,
                                     .dim = {size_of(&model->config, row->dim[0]),
                                             size_of(&model->config, row->dim[1]), 1, 1}};
}

/* Elements of an expert's part that come before those of this rank's experts. */
static int64_t others_before(const struct model_config *c, const struct model_weight *weight)
{
    int64_t from, to;

    comm_share(c->experts, (int)c->expert_ranks, (int)c->expert_rank, &from, &to);
    return tensor_count(&weight->tensor) / (to - from) * from;
}

/* Experts of this rank behind what all ranks have, and where all of it is in a whole model. */
static void spread_weights(struct model *model, int64_t *place)
{
    struct model_config whole = model->config;
    int64_t shared = place_rows(model, &model->config, ROWS_SHARED, 0, place);

    model->flat_count = place_rows(model, &model->config, ROWS_OWN, shared, place);
    model->own_count = model->flat_count - shared;
    for (int64_t i = 0; i < layout_rows(model); i++)
        if (model->row[i] >= 0)
            model->weight[model->row[i]].offset = place[i];
    whole.expert_ranks = 0;
    place_rows(model, &whole, ROWS_ALL, 0, place);
    for (int64_t i = 0; i < layout_rows(model); i++) {
        struct model_weight *weight = model->row[i] < 0 ? NULL : &model->weight[model->row[i]];

        if (!weight)
            continue;
        weight->own = weight->offset >= shared;
        weight->shift = place[i] - weight->offset;
        if (weight->own)
            weight->shift += others_before(&model->config, weight);
    }
}

void layout_weights(struct model *model)
{
    int64_t rows = layout_rows(model), *place = mem_array((size_t)rows, sizeof *place);

    model->weight = mem_array((size_t)rows, sizeof *model->weight);
    model->row = mem_array((size_t)rows, sizeof *model->row);
    model->flat_count = place_rows(model, &model->config, ROWS_ALL, 0, place);
    for (int64_t i = 0; i < rows; i++) {
        int64_t block;
        const struct weight_row *row = row_at(model->table, &model->config, i, &block);

        model->row[i] = -1;
        if (row_count(&model->config, row, block) == 0)
            continue;
        model->row[i] = model->weight_count;
        add_weight(model, row, block, place[i]);
    }
    if (model->config.expert_ranks > 1)
        spread_weights(model, place);
    mem_free(place);
}

static void point(struct model *model, struct tensor *tensor, int64_t offset)
{
    tensor->device = model->device;
    tensor->of_model = true;
    tensor->values = tensor_f32(&model->flat) + offset;
    tensor->grad = model->flat.grad ? model->flat.grad + offset : NULL;
    tensor->wants_grad = tensor->grad_ready = tensor->is_weight = tensor->grad != NULL;
}

void layout_point(struct model *model)
{
    for (int64_t i = 0; i < model->weight_count; i++)
        point(model, &model->weight[i].tensor, model->weight[i].offset);
    for (int64_t i = 0; i < layout_rows(model); i++) {
        int64_t block;
        const struct weight_row *row = row_at(model->table, &model->config, i, &block);
        struct model_weight *weight;

        if (!row->joins || model->row[i] < 0)
            continue;
        weight = &model->weight[model->row[i]];
        weight->joined = weight->tensor;
        for (int k = 1; k < row->joins; k++)
            weight->joined.dim[0] += weight[k].tensor.dim[0];
        point(model, &weight->joined, weight->offset);
    }
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

/* Standard deviation of a random first value. */
static double spread_of(const struct model_config *c, const struct weight_row *row,
                        const struct tensor *tensor)
{
    double columns = (double)tensor->dim[1];

    switch (row->init) {
    case INIT_RESIDUAL:
        return c->init_std / sqrt(2.0 * (double)c->layers);
    case INIT_UNIT:
        return 1;
    case INIT_FAN_IN:
        return 1 / sqrt(columns);
    case INIT_QUERY:
        return 1 / sqrt(columns * (double)c->head_width);
    default:
        return c->init_std;
    }
}

/* Numbers of a weight where no other rank has some of them. */
static int64_t whole_count(const struct model *model, const struct model_weight *weight)
{
    int64_t count = tensor_count(&weight->tensor);

    return weight->own ? count / experts_here(&model->config) * model->config.experts : count;
}

static void init_weight(const struct model *model, const struct weight_row *row,
                        struct model_weight *weight, float *host, uint64_t seed)
{
    int64_t count = whole_count(model, weight), columns = weight->tensor.dim[1];

    for (int64_t i = 0; i < count; i++) {
        if (row->init == INIT_ZERO || row->init == INIT_ONE)
            host[i] = row->init == INIT_ONE ? 1.0f : 0.0f;
        if (row->init == INIT_ANGLES)
            host[i] = (float)pow(10000, -2.0 * (double)(i % columns) / (double)columns);
    }
    if (row->init != INIT_ZERO && row->init != INIT_ONE && row->init != INIT_ANGLES)
        fill_weight(host, count, spread_of(&model->config, row, &weight->tensor), seed,
                    weight->name);
    if (weight->own)
        host += others_before(&model->config, weight);
    tensor_write(&weight->tensor, host);
    model->device->backend->finish(model->device);
}

void layout_init(struct model *model, uint64_t seed)
{
    int64_t largest = 0;
    float *host;

    for (int64_t i = 0; i < model->weight_count; i++)
        largest = (int64_t)max_u64((uint64_t)largest,
                                   (uint64_t)whole_count(model, &model->weight[i]));
    host = mem_array((size_t)largest, sizeof *host);
    for (int64_t i = 0; i < layout_rows(model); i++) {
        int64_t block;
        const struct weight_row *row = row_at(model->table, &model->config, i, &block);

        if (model->row[i] >= 0)
            init_weight(model, row, &model->weight[model->row[i]], host, seed);
    }
    mem_free(host);
}

static struct model_weight *weight_at(const struct model *model, int64_t number)
{
    return model->row[number] < 0 ? NULL : &model->weight[model->row[number]];
}

static struct tensor *tensor_at(const struct model *model, int64_t number)
{
    struct model_weight *weight = weight_at(model, number);

    return weight ? &weight->tensor : NULL;
}

static struct tensor *joined_at(const struct model *model, int64_t number)
{
    struct model_weight *weight = weight_at(model, number);

    return weight ? &weight->joined : NULL;
}

static int64_t block_number(const struct model *model, int64_t i, int row)
{
    return model->table->before_count + i * model->table->block_count + row;
}

static int64_t second_number(const struct model *model, int64_t i, int row)
{
    return block_number(model, model->config.layers, 0) + i * model->table->second_count + row;
}

struct tensor *model_before(const struct model *model, int row)
{
    return tensor_at(model, row);
}

struct tensor *model_block(const struct model *model, int64_t i, int row)
{
    return tensor_at(model, block_number(model, i, row));
}

struct tensor *model_joined(const struct model *model, int64_t i, int row)
{
    return joined_at(model, block_number(model, i, row));
}

struct tensor *model_second(const struct model *model, int64_t i, int row)
{
    return tensor_at(model, second_number(model, i, row));
}

struct tensor *model_second_joined(const struct model *model, int64_t i, int row)
{
    return joined_at(model, second_number(model, i, row));
}

struct tensor *model_after(const struct model *model, int row)
{
    return tensor_at(model, second_number(model, model->config.decoder_layers, row));
}

static int64_t pieces_of(const struct model_weight *weight)
{
    int64_t pieces = 1;

    for (const char *c = weight->hf_name; *c; c++)
        pieces += *c == '|';
    return pieces;
}

int64_t model_weight_parts(const struct model_weight *weight)
{
    return pieces_of(weight) * weight->experts;
}

void model_weight_part_name(const struct model_weight *weight, int64_t part,
                            char out[MODEL_NAME_SIZE])
{
    int64_t pieces = pieces_of(weight);
    const char *piece = weight->hf_name, *end, *mark;

    for (int64_t i = 0; i < part % pieces; i++)
        piece = strchr(piece, '|') + 1;
    end = piece + strcspn(piece, "|");
    mark = strstr(piece, "%e");
    if (mark && mark < end)
        snprintf(out, MODEL_NAME_SIZE, "%.*s%lld%.*s", (int)(mark - piece), piece,
                 (long long)(part / pieces), (int)(end - mark - 2), mark + 2);
    else
        snprintf(out, MODEL_NAME_SIZE, "%.*s", (int)(end - piece), piece);
}

/* The number in `from` of what has this number in a model with other blocks. */
static int64_t source_number(const struct model *from, const int64_t *map, const struct model *to,
                             int64_t number)
{
    const struct model_table *table = to->table;
    int64_t blocks = to->config.layers * table->block_count, at = number - table->before_count;

    if (at < 0)
        return number;
    if (at >= blocks)
        return number + (from->config.layers - to->config.layers) * table->block_count;
    return table->before_count + map[at / table->block_count] * table->block_count +
           at % table->block_count;
}

void layout_copy(const struct model *from, const int64_t *map, struct model *to)
{
    for (int64_t i = 0; i < layout_rows(to); i++) {
        struct model_weight *weight = weight_at(to, i);
        struct model_weight *source = weight_at(from, source_number(from, map, to, i));
        float *host;

        if (!weight)
            continue;
        CHECK(source && tensor_count(&source->tensor) == tensor_count(&weight->tensor));
        host = mem_array((size_t)tensor_count(&weight->tensor), sizeof *host);
        model_weight_read(source, host);
        model_weight_write(weight, host);
        mem_free(host);
    }
}
