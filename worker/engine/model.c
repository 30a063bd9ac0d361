/* model.c - a model: its memory, lookup of weights, and its forward pass. */
#include "worker/engine/model.h"

#include "worker/engine/models/table.h"
#include "worker/engine/packed.h"

#include "common/base/mem.h"

#include <math.h>
#include <string.h>

/* Positions whose angles are in host memory at a time: a file may claim any context, and only the
 * device's copy is counted against the job's memory. */
#define TURNS_AT_ONCE 4096

static int make_turns(struct model *model, struct err *err)
{
    const struct model_config *c = &model->config;
    int64_t stretch = c->context < TURNS_AT_ONCE ? c->context : TURNS_AT_ONCE;
    struct tensor *turns;
    float *host;

    if (!model->table->rotary)
        return 0;
    turns = mem_zalloc(sizeof *turns);
    *turns = (struct tensor){.device = model->device, .dtype = DTYPE_F32, .rank = 2,
                             .dim = {c->context, c->head_width, 1, 1}};
    model->turns = turns;
    if (device_alloc(model->device, 4 * (size_t)tensor_count(turns), &turns->values, err) < 0)
        return err_wrap(err, "angles of rotary positions");
    host = mem_array((size_t)(stretch * c->head_width), sizeof *host);
    for (int64_t first = 0; first < c->context; first += stretch) {
        int64_t count = c->context - first < stretch ? c->context - first : stretch;
        rope_turns(host, first, count, c->head_width, c->rope_theta, &c->rope);
        model->device->backend->from_host(model->device,
                                          tensor_f32(turns) + first * c->head_width, host,
                                          4 * (size_t)(count * c->head_width));
        model->device->backend->finish(model->device);
    }
    mem_free(host);
    return 0;
}

static void free_turns(struct device *device, struct tensor *turns)
{
    if (turns)
        device_release(device, turns->values, 4 * (size_t)tensor_count(turns));
    mem_free(turns);
}

static int allocate(struct model *model, bool trains, struct err *err)
{
    size_t size_bytes = 4 * (size_t)model->flat_count;
    void *memory;

    model->flat = (struct tensor){.device = model->device, .dtype = DTYPE_F32, .rank = 1,
                                  .dim = {model->flat_count, 1, 1, 1}, .of_model = true};
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
    model->table = model_table_of(model->config.family);
    layout_weights(model);
    if (allocate(model, trains, err) < 0 || make_turns(model, err) < 0)
        goto fail;
    layout_point(model);
    model->head = &model->weight[0].tensor;
    if (!model->config.tied)
        model->head = &model->weight[model->weight_count - 1].tensor;
    if (packed_round(device, &model->flat, ROUNDED_ROWS * tensor_columns(model->head), err) < 0)
        goto fail;
    *out = model;
    return 0;
fail:
    model_free(model);
    return -1;
}

int model_new(struct device *device, const struct model_config *config, uint64_t seed,
              struct model **out, struct err *err)
{
    if (model_create(device, config, true, out, err) < 0)
        return -1;
    layout_init(*out, seed);
    return 0;
}

int model_new_frozen(struct device *device, const struct model_config *config,
                     struct model **out, struct err *err)
{
    return model_create(device, config, false, out, err);
}

int model_deepen(const struct model *from, const int64_t *map, int64_t layers,
                 struct model **out, struct err *err)
{
    struct model_config config = from->config;
    struct model *model;

    for (int64_t i = 0; i < layers; i++)
        if (map[i] < 0 || map[i] >= from->config.layers)
            return err_set(err, ERR_INVALID, "block %lld of the deeper model is block %lld, "
                           "expected 0..%lld", (long long)i, (long long)map[i],
                           (long long)from->config.layers - 1);
    config.layers = layers;
    if (model_create(from->device, &config, true, &model, err) < 0)
        return -1;
    layout_copy(from, map, model);
    *out = model;
    return 0;
}

static int check_positions(const struct model *model, const struct model_config *reached,
                           struct err *err)
{
    const struct model_config *c = &model->config;
    bool turns = model->table->rotary && !c->alibi;

    if (reached->rope_theta != c->rope_theta && !turns)
        return err_set(err, ERR_INVALID, "a %s%s has no rotary angles whose base could be %g",
                       model->table->name, c->alibi ? " of positions alibi" : "",
                       reached->rope_theta);
    if (layout_count(model->table, reached) != layout_count(model->table, c))
        return err_set(err, ERR_INVALID, "a %s has learned a row for each of its %lld positions, "
                       "so it cannot have %lld", model->table->name, (long long)c->context,
                       (long long)reached->context);
    return 0;
}

int model_reach(struct model *model, int64_t context, double rope_theta, struct err *err)
{
    struct model_config before = model->config, reached = before;
    struct tensor *turns = model->turns;

    reached.context = context != 0 ? context : before.context;
    reached.rope_theta = rope_theta != 0 ? rope_theta : before.rope_theta;
    if (model_config_complete(&reached, err) < 0 || check_positions(model, &reached, err) < 0)
        return -1;
    model->config = reached;
    if (make_turns(model, err) < 0) {
        free_turns(model->device, model->turns);
        model->config = before;
        model->turns = turns;
        return -1;
    }
    if (model->turns == turns) /* it has none */
        return 0;
    model->device->backend->finish(model->device);
    free_turns(model->device, turns);
    return 0;
}

/* Fills a weight whose rows are tokens: known rows as they are, then mean and draw. */
static void widen_rows(const struct model_weight *from, struct model_weight *to, int64_t known,
                       int64_t rows)
{
    int64_t count = tensor_count(&to->tensor), width = count / rows;
    float *old = mem_array((size_t)tensor_count(&from->tensor), sizeof *old);
    float *new = mem_array((size_t)count, sizeof *new);

    model_weight_read(from, old);
    model_weight_read(to, new); /* the draws */
    for (int64_t d = 0; d < width; d++) {
        double mean = 0;

        for (int64_t r = 0; r < known; r++)
            mean += (double)old[r * width + d] / (double)known;
        for (int64_t r = known; r < rows; r++)
            new[r * width + d] += (float)mean;
    }
    memcpy(new, old, sizeof *new * (size_t)(known * width));
    model_weight_write(to, new);
    mem_free(old);
    mem_free(new);
}

int model_widen(const struct model *from, int64_t vocab_size, uint64_t seed, struct model **out,
                struct err *err)
{
    struct model_config config = from->config;
    int64_t known = config.vocab_size;
    struct model *model;

    if (vocab_size < known)
        return err_set(err, ERR_INVALID, "%lld tokens are fewer than the model's %lld",
                       (long long)vocab_size, (long long)known);
    config.vocab_size = vocab_size;
    if (model_new(from->device, &config, seed, &model, err) < 0)
        return -1;
    for (int64_t w = 0; w < model->weight_count; w++) {
        struct model_weight *to = &model->weight[w];
        const struct model_weight *old = &from->weight[w];

        if (tensor_count(&to->tensor) != tensor_count(&old->tensor)) {
            widen_rows(old, to, known, vocab_size);
        } else {
            float *host = mem_array((size_t)tensor_count(&old->tensor), sizeof *host);
            model_weight_read(old, host);
            model_weight_write(to, host);
            mem_free(host);
        }
    }
    from->device->backend->finish(from->device);
    *out = model;
    return 0;
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
    free_turns(model->device, model->turns);
    mem_free(model->weight);
    mem_free(model->row);
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

double model_alibi_slope(int64_t head, int64_t heads)
{
    int64_t power = 1;

    while (2 * power <= heads)
        power *= 2;
    if (head < power)
        return pow(2, -8.0 * (double)(head + 1) / (double)power);
    return pow(2, -8.0 * (double)(2 * (head - power) + 1) / (double)(2 * power));
}

/* -slope times how far a key is behind: by key minus query = r - before, or by distance r. */
static struct tensor *alibi(struct tape *tape, int64_t heads, int64_t rows, int64_t before)
{
    float *host = tape_host(tape, rows * heads, sizeof *host);

    for (int64_t r = 0; r < rows; r++)
        for (int64_t h = 0; h < heads; h++) {
            int64_t behind = before > 0 ? before - r : r;

            host[r * heads + h] =
                behind > 0 ? (float)(-model_alibi_slope(h, heads) * (double)behind) : 0;
        }
    return tape_f32(tape, host, rows, heads);
}

struct tensor *model_first(struct tape *tape, const struct model *model,
                           const struct model_batch *batch)
{
    int64_t window = model->config.window, N = batch->B * batch->T;
    int32_t *host;

    if (window == 0)
        return tape_i32(tape, batch->first, N);
    host = tape_host(tape, N, sizeof *host);
    for (int64_t n = 0; n < N; n++) {
        int32_t own = batch->first ? batch->first[n] : 0;
        int64_t start = n % batch->T + 1 - window;

        host[n] = start > own ? (int32_t)start : own;
    }
    return tape_i32(tape, host, N);
}

struct tensor *model_drop(struct tape *tape, const struct model *model,
                          const struct model_batch *batch, struct tensor *x, int64_t site)
{
    if (model->config.dropout == 0 || batch->share == 0 || !x)
        return x;
    return op_dropout(tape, x, model->config.dropout, batch->dropout_seed, (uint64_t)site);
}

static struct tensor *attend_cached(struct tape *tape, const struct model *model,
                                    struct kv_cache *cache, int64_t layer, struct tensor *qkv,
                                    int64_t B)
{
    const struct model_config *c = &model->config;
    struct attend_cached attend = {.start = kv_cache_start(cache), .heads = model_heads(c), .B = B,
                                   .k = kv_cache_kept(cache, layer, 0),
                                   .v = kv_cache_kept(cache, layer, 1), .window = c->window};

    if (c->alibi)
        attend.bias = alibi(tape, c->heads, kv_cache_capacity(cache), 0);
    return op_attend_cached(tape, qkv, &attend);
}

struct tensor *model_attend(struct tape *tape, const struct model *model,
                            const struct model_batch *batch, struct kv_cache *cache,
                            int64_t layer, struct tensor *qkv, struct tensor *first)
{
    const struct model_config *c = &model->config;
    int64_t B = batch->B, T = batch->T;
    struct attend attend = {.first = first, .heads = model_heads(c), .B = B, .Tq = T, .Tk = T};

    if (cache && (c->window > 0 || c->alibi))
        return attend_cached(tape, model, cache, layer, qkv, B);
    if (cache)
        return kv_cache_attend(tape, cache, layer, qkv, B, T);
    if (!batch->last && !c->alibi)
        return op_attention(tape, qkv, first, model_heads(c), B, T);
    /* A prefix that is seen both ways, or biases. */
    attend.last = batch->last ? tape_i32(tape, batch->last, B * T) : model_causal_last(tape, B, T);
    if (c->alibi)
        attend.bias = alibi(tape, c->heads, 2 * T - 1, T - 1);
    return op_attend(tape, qkv, &attend);
}

void model_remember(struct model_states *states, int64_t i, struct tensor *x)
{
    if (states->layer)
        states->layer[i] = x;
}

struct tensor *model_ones(struct tape *tape, int64_t C)
{
    float *host = tape_host(tape, C, sizeof *host);

    for (int64_t i = 0; i < C; i++)
        host[i] = 1;
    return tape_f32(tape, host, 1, C);
}

struct tensor *model_causal_last(struct tape *tape, int64_t B, int64_t T)
{
    int32_t *host = tape_host(tape, B * T, sizeof *host);

    for (int64_t n = 0; n < B * T; n++)
        host[n] = (int32_t)(n % T);
    return tape_i32(tape, host, B * T);
}

struct tensor *model_last_by_length(struct tape *tape, const int32_t *length, int64_t B,
                                    int64_t Tq, int64_t Tk)
{
    int32_t *last;

    if (!length)
        return NULL;
    last = tape_host(tape, B * Tq, sizeof *last);
    for (int64_t n = 0; n < B * Tq; n++) {
        last[n] = length[n / Tq] - 1;
        CHECK(last[n] >= 0 && last[n] < Tk);
    }
    return tape_i32(tape, last, B * Tq);
}

struct tensor *model_attend_heads(struct tape *tape, const struct model_batch *batch,
                                  struct tensor *qkv, struct heads heads)
{
    int64_t B = batch->B, T = batch->T;
    struct attend attend = {.heads = heads, .B = B, .Tq = T, .Tk = T};

    attend.first = tape_i32(tape, batch->first, B * T);
    attend.last = batch->last ? tape_i32(tape, batch->last, B * T)
                              : model_last_by_length(tape, batch->length, B, T, T);
    return op_attend(tape, qkv, &attend);
}

struct tensor *model_attend_all(struct tape *tape, const struct model *model,
                                const struct model_batch *batch, struct tensor *qkv)
{
    return model_attend_heads(tape, batch, qkv, model_heads(&model->config));
}

struct tensor *model_types(struct tape *tape, const struct model_batch *batch)
{
    int64_t N = batch->B * batch->T;

    if (batch->type)
        return tape_i32(tape, batch->type, N);
    return tape_i32(tape, tape_host(tape, N, sizeof(int32_t)), N);
}

struct tensor *model_first_rows(struct tape *tape, const struct model_batch *batch)
{
    int32_t *row = tape_host(tape, batch->B, sizeof *row);

    for (int64_t b = 0; b < batch->B; b++)
        row[b] = (int32_t)(b * batch->T);
    return tape_i32(tape, row, batch->B);
}

struct tensor *model_positions(struct tape *tape, const struct model_batch *batch)
{
    int64_t N = batch->B * batch->T;
    int32_t *position;

    if (batch->position)
        return tape_i32(tape, batch->position, N);
    position = tape_host(tape, N, sizeof *position);
    for (int64_t n = 0; n < N; n++)
        position[n] = (int32_t)(n % batch->T);
    return tape_i32(tape, position, N);
}

int64_t model_places_before(const struct model_config *config)
{
    return config->roberta || config->family == MODEL_OPT ? 2 : 0;
}

struct tensor *model_places(struct tape *tape, const struct model *model,
                            const struct model_batch *batch)
{
    int32_t before = (int32_t)model_places_before(&model->config), *place;
    int64_t N = batch->B * batch->T;

    if (before == 0)
        return model_positions(tape, batch);
    place = tape_host(tape, N, sizeof *place);
    for (int64_t n = 0; n < N; n++)
        place[n] = before + (batch->position ? batch->position[n] : (int32_t)(n % batch->T));
    return tape_i32(tape, place, N);
}

static int refuse_cell(const char *what, int32_t value, int64_t n, int64_t T, int64_t least,
                       int64_t most, struct err *err)
{
    return err_set(err, ERR_INVALID, "%s %d at row %lld, column %lld, expected %lld..%lld", what,
                   (int)value, (long long)(n / T), (long long)(n % T), (long long)least,
                   (long long)most);
}

/* Which keys a token may see: see model_batch. */
static int check_reach(const struct model *model, const struct model_batch *batch, int64_t n,
                       struct err *err)
{
    int64_t T = batch->T, last = n % T;

    if (batch->last) {
        last = batch->last[n];
        if (last < 0 || last >= T)
            return refuse_cell("last key", batch->last[n], n, T, 0, T - 1, err);
    } else if (model->table->sees_both_ways) {
        last = T - 1;
    }
    if (batch->first && (batch->first[n] < 0 || batch->first[n] > last))
        return refuse_cell("first key", batch->first[n], n, T, 0, last, err);
    return 0;
}

static int check_lengths(const struct model_batch *batch, struct err *err)
{
    for (int64_t b = 0; batch->length && b < batch->B; b++)
        if (batch->length[b] < 1 || batch->length[b] > batch->T)
            return err_set(err, ERR_INVALID, "length %d of row %lld, expected 1..%lld",
                           (int)batch->length[b], (long long)b, (long long)batch->T);
    return 0;
}

static int check_source(const struct model_config *c, const struct model_batch *batch,
                        struct err *err)
{
    if (!batch->source)
        return 0;
    if (batch->S < 1 || batch->S > c->context)
        return err_set(err, ERR_INVALID, "source of %lld tokens, expected 1..%lld",
                       (long long)batch->S, (long long)c->context);
    for (int64_t n = 0; n < batch->B * batch->S; n++)
        if (batch->source[n] < 0 || batch->source[n] >= c->vocab_size)
            return refuse_cell("source token", batch->source[n], n, batch->S, 0,
                               c->vocab_size - 1, err);
    for (int64_t b = 0; batch->source_length && b < batch->B; b++)
        if (batch->source_length[b] < 1 || batch->source_length[b] > batch->S)
            return err_set(err, ERR_INVALID, "source length %d of row %lld, expected 1..%lld",
                           (int)batch->source_length[b], (long long)b, (long long)batch->S);
    return 0;
}

static int check_batch(const struct model *model, const struct model_batch *batch,
                       struct err *err)
{
    const struct model_config *c = &model->config;
    int64_t T = batch->T;

    if (batch->B < 1 || T < 1 || T > c->context)
        return err_set(err, ERR_INVALID, "batch of %lld rows of %lld tokens, expected 1 or more "
                       "rows of 1..%lld (the model's context)", (long long)batch->B, (long long)T,
                       (long long)c->context);
    for (int64_t n = 0; n < batch->B * T; n++) {
        if (batch->token[n] < 0 || batch->token[n] >= c->vocab_size)
            return refuse_cell("token", batch->token[n], n, T, 0, c->vocab_size - 1, err);
        if (batch->position && (batch->position[n] < 0 || batch->position[n] >= c->context))
            return refuse_cell("position", batch->position[n], n, T, 0, c->context - 1, err);
        if (batch->type && (batch->type[n] < 0 || batch->type[n] >= c->token_types))
            return refuse_cell("token type", batch->type[n], n, T, 0, c->token_types - 1, err);
        if (check_reach(model, batch, n, err) < 0)
            return -1;
    }
    if (check_lengths(batch, err) < 0)
        return -1;
    return check_source(c, batch, err);
}

int model_run(struct tape *tape, const struct model *model, const struct model_batch *batch,
              struct kv_cache *cache, struct model_states *states, struct err *err)
{
    if (tape_check(tape, err) < 0 || check_batch(model, batch, err) < 0)
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
