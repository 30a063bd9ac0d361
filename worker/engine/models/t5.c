/* t5.c - Raffel et al. 2020: an encoder and a decoder, relative positions as biases in buckets that
 * all layers share, RMS norms, attention without a scale; version 1.1 with gated units.
 *
 * hidden are the decoder's states after its norm (times width^-1/2 where the head is tied). */
#include "worker/engine/cache.h"
#include "worker/engine/models/table.h"

#include <math.h>
#include <stdlib.h>

enum { SHARED, ENCODER_BIAS, DECODER_BIAS };
enum { E_LN1, E_Q, E_K, E_V, E_O, E_LN2, E_IN, E_IN0, E_IN1, E_OUT };
enum { D_LN1, D_Q, D_K, D_V, D_O, D_LN2, C_Q, C_K, C_V, C_O, D_LN3, D_IN, D_IN0, D_IN1, D_OUT };
enum { ENCODER_LN, DECODER_LN, HEAD };

#define ENCODER "encoder.block.%d.layer."
#define DECODER "decoder.block.%d.layer."
#define IN {DIM_QUERIES, DIM_WIDTH}

static const struct weight_row before[] = {
    [SHARED] = {"embed", "shared.weight", {DIM_VOCAB, DIM_WIDTH}, INIT_UNIT},
    [ENCODER_BIAS] = {"encoder.bias",
                      "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight",
                      {DIM_BUCKETS, DIM_HEADS}, INIT_NORMAL, .no_decay = true},
    [DECODER_BIAS] = {"decoder.bias",
                      "decoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight",
                      {DIM_BUCKETS, DIM_HEADS}, INIT_NORMAL, .no_decay = true},
};

#define ATTENTION_ROWS(name, hf) \
    {name "q.weight", hf "q.weight", IN, INIT_QUERY, .joins = 3}, \
    {name "k.weight", hf "k.weight", IN, INIT_FAN_IN}, \
    {name "v.weight", hf "v.weight", IN, INIT_FAN_IN}, \
    {name "o.weight", hf "o.weight", {DIM_WIDTH, DIM_QUERIES}, INIT_FAN_IN}

#define FFN_ROWS(name, hf) \
    {name "in.weight", hf "wi.weight", {DIM_FFN, DIM_WIDTH}, INIT_FAN_IN, .need = NEED_PLAIN}, \
    {name "gate.weight", hf "wi_0.weight", {DIM_FFN, DIM_WIDTH}, INIT_FAN_IN, \
     .need = NEED_GATED, .joins = 2}, \
    {name "up.weight", hf "wi_1.weight", {DIM_FFN, DIM_WIDTH}, INIT_FAN_IN, \
     .need = NEED_GATED}, \
    {name "out.weight", hf "wo.weight", {DIM_WIDTH, DIM_FFN}, INIT_FAN_IN}

static const struct weight_row block[] = {
    {"encoder.%d.ln1.weight", ENCODER "0.layer_norm.weight", {DIM_WIDTH}, INIT_ONE},
    ATTENTION_ROWS("encoder.%d.", ENCODER "0.SelfAttention."),
    {"encoder.%d.ln2.weight", ENCODER "1.layer_norm.weight", {DIM_WIDTH}, INIT_ONE},
    FFN_ROWS("encoder.%d.", ENCODER "1.DenseReluDense."),
};
_Static_assert(ARRAY_COUNT(block) == E_OUT + 1, "rows are as numbered");

static const struct weight_row second[] = {
    {"decoder.%d.ln1.weight", DECODER "0.layer_norm.weight", {DIM_WIDTH}, INIT_ONE},
    ATTENTION_ROWS("decoder.%d.", DECODER "0.SelfAttention."),
    {"decoder.%d.ln2.weight", DECODER "1.layer_norm.weight", {DIM_WIDTH}, INIT_ONE},
    {"decoder.%d.cross.q.weight", DECODER "1.EncDecAttention.q.weight", IN, INIT_QUERY},
    {"decoder.%d.cross.k.weight", DECODER "1.EncDecAttention.k.weight", IN, INIT_FAN_IN,
     .joins = 2},
    {"decoder.%d.cross.v.weight", DECODER "1.EncDecAttention.v.weight", IN, INIT_FAN_IN},
    {"decoder.%d.cross.o.weight", DECODER "1.EncDecAttention.o.weight",
     {DIM_WIDTH, DIM_QUERIES}, INIT_FAN_IN},
    {"decoder.%d.ln3.weight", DECODER "2.layer_norm.weight", {DIM_WIDTH}, INIT_ONE},
    FFN_ROWS("decoder.%d.", DECODER "2.DenseReluDense."),
};
_Static_assert(ARRAY_COUNT(second) == D_OUT + 1, "rows are as numbered");

static const struct weight_row after[] = {
    [ENCODER_LN] = {"encoder.ln.weight", "encoder.final_layer_norm.weight", {DIM_WIDTH},
                    INIT_ONE},
    [DECODER_LN] = {"decoder.ln.weight", "decoder.final_layer_norm.weight", {DIM_WIDTH},
                    INIT_ONE},
    [HEAD] = {"head", "lm_head.weight", {DIM_VOCAB, DIM_WIDTH}, INIT_FAN_IN,
              .need = NEED_UNTIED},
};

/* The bucket of key position minus query position: half of them exact, the rest in steps that
 * grow to the span; with both ways, half of all for keys that come after. */
static int32_t bucket_of(const struct model_config *c, int64_t relative, bool both_ways)
{
    int64_t count = both_ways ? c->buckets / 2 : c->buckets, exact = count / 2;
    int64_t far = both_ways ? llabs(relative) : relative < 0 ? -relative : 0;
    int64_t base = both_ways && relative > 0 ? count : 0, grown;

    if (far < exact)
        return (int32_t)(base + far);
    grown = exact + (int64_t)(logf((float)far / (float)exact) /
                              logf((float)c->bucket_span / (float)exact) *
                              (float)(count - exact));
    return (int32_t)(base + (grown < count - 1 ? grown : count - 1));
}

/* Biases by distance, as op_attend takes them: row r is key minus query = r - (T - 1). */
static struct tensor *biases(struct tape *tape, const struct model *model, int row, int64_t T,
                             bool both_ways)
{
    int32_t *host = tape_host(tape, 2 * T - 1, sizeof *host);

    for (int64_t r = 0; r < 2 * T - 1; r++)
        host[r] = bucket_of(&model->config, r - (T - 1), both_ways);
    return op_embed(tape, tape_i32(tape, host, 2 * T - 1), NULL, model_before(model, row),
                    NULL);
}

/* As op_attend_cached takes them: row r is query minus key. */
static struct tensor *biases_cached(struct tape *tape, const struct model *model,
                                    const struct kv_cache *cache)
{
    int64_t count = kv_cache_capacity(cache);
    int32_t *host = tape_host(tape, count, sizeof *host);

    for (int64_t r = 0; r < count; r++)
        host[r] = bucket_of(&model->config, -r, false);
    return op_embed(tape, tape_i32(tape, host, count), NULL,
                    model_before(model, DECODER_BIAS), NULL);
}

/* Weights of a feed-forward block: one matrix in, or two that a gate joins. */
static struct tensor *feed(struct tape *tape, const struct model *model, struct tensor *x,
                           struct tensor *in, struct tensor *gated, struct tensor *out)
{
    x = op_linear(tape, x, model->config.gated ? gated : in, NULL);
    x = model->config.gated ? op_glu(tape, x, model->config.activation)
                            : op_activate(tape, x, model->config.activation);
    return op_linear(tape, x, out, NULL);
}

static struct tensor *encode(struct tape *tape, const struct model *model,
                             const struct model_batch *batch)
{
    int64_t B = batch->B, S = batch->S;
    double eps = model->config.norm_eps;
    struct attend self = {.heads = model_heads(&model->config), .B = B, .Tq = S, .Tk = S,
                          .scale = 1};
    struct tensor *x, *h;

    self.last = model_last_by_length(tape, batch->source_length, B, S, S);
    self.bias = biases(tape, model, ENCODER_BIAS, S, true);
    x = op_embed(tape, tape_i32(tape, batch->source, B * S), NULL, model_before(model, SHARED),
                 NULL);
    for (int64_t i = 0; i < model->config.layers; i++) {
        size_t mark = tape_mark(tape);

        h = op_rmsnorm(tape, x, model_block(model, i, E_LN1), eps);
        h = op_attend(tape, op_linear(tape, h, model_joined(model, i, E_Q), NULL), &self);
        x = op_add(tape, x, op_linear(tape, h, model_block(model, i, E_O), NULL));
        h = op_rmsnorm(tape, x, model_block(model, i, E_LN2), eps);
        h = feed(tape, model, h, model_block(model, i, E_IN), model_joined(model, i, E_IN0),
                 model_block(model, i, E_OUT));
        x = tape_fold(tape, mark, op_add(tape, x, h));
    }
    return op_rmsnorm(tape, x, model_after(model, ENCODER_LN), eps);
}

/* Keys and values of the encoder's states for one decoder layer. */
static struct tensor *cross_keys(struct tape *tape, const struct model *model, int64_t i,
                                 struct tensor *encoded)
{
    return op_linear(tape, encoded, model_second_joined(model, i, C_K), NULL);
}

/* What all blocks of the decoder share. */
struct t5_batch {
    const struct model_batch *batch;
    struct kv_cache *cache;
    struct tensor *encoded;
    struct attend self, cross;
    struct attend_cached cached;
};

static struct tensor *decoder_self(struct tape *tape, const struct model *model,
                                   struct t5_batch *b, int64_t i, struct tensor *x)
{
    struct tensor *qkv = op_linear(tape, x, model_second_joined(model, i, D_Q), NULL);

    if (!b->cache)
        return op_attend(tape, qkv, &b->self);
    b->cached.k = kv_cache_kept(b->cache, i, 0);
    b->cached.v = kv_cache_kept(b->cache, i, 1);
    return op_attend_cached(tape, qkv, &b->cached);
}

static struct tensor *decoder_block(struct tape *tape, const struct model *model,
                                    struct t5_batch *b, int64_t i, struct tensor *x)
{
    double eps = model->config.norm_eps;
    struct tensor *h = op_rmsnorm(tape, x, model_second(model, i, D_LN1), eps);

    h = decoder_self(tape, model, b, i, h);
    x = op_add(tape, x, op_linear(tape, h, model_second(model, i, D_O), NULL));
    h = op_rmsnorm(tape, x, model_second(model, i, D_LN2), eps);
    h = op_linear(tape, h, model_second(model, i, C_Q), NULL);
    b->cross.kv = b->cache ? kv_cache_kept(b->cache, i, 2) : cross_keys(tape, model, i, b->encoded);
    h = b->cross.kv ? op_attend(tape, h, &b->cross) : NULL;
    x = op_add(tape, x, op_linear(tape, h, model_second(model, i, C_O), NULL));
    h = op_rmsnorm(tape, x, model_second(model, i, D_LN3), eps);
    h = feed(tape, model, h, model_second(model, i, D_IN), model_second_joined(model, i, D_IN0),
             model_second(model, i, D_OUT));
    return op_add(tape, x, h);
}

static void start_decoder(struct tape *tape, const struct model *model, struct t5_batch *b)
{
    const struct model_batch *batch = b->batch;
    struct heads heads = model_heads(&model->config);
    const int32_t *length = b->cache ? kv_cache_source_length(b->cache) : batch->source_length;
    struct tensor *kept = b->cache ? kv_cache_kept(b->cache, 0, 2) : NULL;
    int64_t S = kept ? kept->dim[1] : batch->S;

    b->cross = (struct attend){.heads = heads, .B = batch->B, .Tq = batch->T, .Tk = S, .scale = 1,
                               .last = model_last_by_length(tape, length, batch->B, batch->T, S)};
    if (b->cache) {
        b->cached = (struct attend_cached){.heads = heads, .B = batch->B, .scale = 1,
                                           .start = kv_cache_start(b->cache),
                                           .bias = biases_cached(tape, model, b->cache)};
        return;
    }
    b->self = (struct attend){.heads = heads, .B = batch->B, .Tq = batch->T, .Tk = batch->T,
                              .scale = 1, .last = model_causal_last(tape, batch->B, batch->T),
                              .bias = biases(tape, model, DECODER_BIAS, batch->T, false)};
}

static void t5_forward(struct tape *tape, const struct model *model,
                       const struct model_batch *batch, struct kv_cache *cache,
                       struct model_states *states)
{
    struct t5_batch b = {.batch = batch, .cache = cache};
    struct tensor *x;

    if (cache ? !kv_cache_kept(cache, 0, 2) : !batch->source) {
        tape_fail(tape, ERR_INVALID, "t5 needs a source for its encoder");
        return;
    }
    if (!cache)
        states->encoded = b.encoded = encode(tape, model, batch);
    start_decoder(tape, model, &b);
    x = op_embed(tape, tape_i32(tape, batch->token, batch->B * batch->T), NULL,
                 model_before(model, SHARED), NULL);
    for (int64_t i = 0; i < model->config.decoder_layers; i++) {
        size_t mark = tape_mark(tape);

        model_remember(states, i, x);
        x = tape_fold(tape, mark, decoder_block(tape, model, &b, i, x));
    }
    model_remember(states, model->config.decoder_layers, x);
    x = op_rmsnorm(tape, x, model_after(model, DECODER_LN), model->config.norm_eps);
    states->hidden = model->config.tied ? op_scale(tape, x, 1 / sqrt((double)model->config.width))
                                        : x;
}

int t5_read(struct tape *tape, const struct model *model, const struct model_batch *batch,
            struct kv_cache *cache, struct err *err)
{
    struct device *device = model->device;
    struct tensor *encoded = encode(tape, model, batch);

    for (int64_t i = 0; i < model->config.decoder_layers; i++) {
        struct tensor *keys = cross_keys(tape, model, i, encoded);
        struct tensor *kept = kv_cache_kept(cache, i, 2);

        if (keys)
            device->backend->copy(device, kept->values, keys->values,
                                  4 * (size_t)tensor_count(keys));
    }
    return tape_check(tape, err);
}

static bool t5_kept(const struct model_config *c, int64_t layer, int which, int64_t capacity,
                    int64_t out[2])
{
    (void)layer;
    out[0] = capacity;
    out[1] = c->heads * c->head_width;
    return which < 2; /* the third comes with the source */
}

static void t5_defaults(struct model_config *c)
{
    if (c->decoder_layers == 0)
        c->decoder_layers = c->layers;
    if (c->buckets == 0)
        c->buckets = 32;
    if (c->bucket_span == 0)
        c->bucket_span = 128;
    if (c->norm_eps == 0)
        c->norm_eps = 1e-6;
    if (c->activation == ACTIVATION_NONE)
        c->activation = c->gated ? ACTIVATION_GELU_TANH : ACTIVATION_RELU;
}

static int t5_check(const struct model_config *c, struct err *err)
{
    if (model_size_check("decoder_layers", c->decoder_layers, 4096, err) < 0)
        return -1;
    if (c->buckets < 4 || c->buckets % 4 != 0 || c->buckets > 65536 ||
        c->bucket_span <= c->buckets / 2)
        return err_set(err, ERR_INVALID, "t5 has %lld buckets of distances up to %lld, expected a "
                       "multiple of 4 and more than half of it", (long long)c->buckets,
                       (long long)c->bucket_span);
    if (c->kv_heads != c->heads)
        return err_set(err, ERR_INVALID, "t5 has no grouped heads: kv_heads is %lld, expected %lld",
                       (long long)c->kv_heads, (long long)c->heads);
    return 0;
}

const struct model_table model_table_t5 = {
    .family = MODEL_T5, .name = "t5", .defaults = t5_defaults, .check = t5_check,
    .before = before, .before_count = ARRAY_COUNT(before),
    .block = block, .block_count = ARRAY_COUNT(block),
    .second = second, .second_count = ARRAY_COUNT(second),
    .after = after, .after_count = ARRAY_COUNT(after),
    .forward = t5_forward, .kept = t5_kept,
};
