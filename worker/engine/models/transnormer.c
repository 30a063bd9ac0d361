/* transnormer.c - TransNormerLLM (Qin et al. 2024): linear attention with a decay by head, RMS
 * norms without gains, a gate on attention's output, and gated units without an activation.
 *
 * What a token keeps is one state (key width, value width) a head and layer, whatever the length
 * of the text. Released models store [out, in] under the names used here. */
#include "worker/engine/cache.h"
#include "worker/engine/models/table.h"

#include <math.h>

enum { EMBED };
enum { QKVU, ANGLES, OUT, L1, L2, L3 };
enum { HEAD };

#define LAYER "model.layers.%d."

static const struct weight_row before[] = {
    [EMBED] = {"embed", "model.embed_tokens.weight", {DIM_VOCAB, DIM_WIDTH}, INIT_NORMAL},
};

static const struct weight_row block[] = {
    [QKVU] = {"block.%d.qkvu.weight", LAYER "token_mixer.qkvu_proj.weight",
              {DIM_QKVU, DIM_WIDTH}, INIT_NORMAL},
    [ANGLES] = {"block.%d.angles", LAYER "token_mixer.lrpe.theta", {DIM_HEADS, DIM_HEAD_WIDTH},
                INIT_ANGLES, .need = NEED_ANGLES, .no_decay = true},
    [OUT] = {"block.%d.out.weight", LAYER "token_mixer.out_proj.weight", {DIM_WIDTH, DIM_WIDTH},
             INIT_RESIDUAL},
    [L1] = {"block.%d.l1.weight", LAYER "channel_mixer.l1.weight", {DIM_FFN, DIM_WIDTH},
            INIT_NORMAL, .joins = 2},
    [L2] = {"block.%d.l2.weight", LAYER "channel_mixer.l2.weight", {DIM_FFN, DIM_WIDTH},
            INIT_NORMAL},
    [L3] = {"block.%d.l3.weight", LAYER "channel_mixer.l3.weight", {DIM_WIDTH, DIM_FFN},
            INIT_RESIDUAL},
};

static const struct weight_row after[] = {
    [HEAD] = {"head", "lm_head.weight", {DIM_VOCAB, DIM_WIDTH}, INIT_NORMAL,
              .need = NEED_UNTIED},
};

/* Released code: ALiBi times (1 - l/(L-1) + 1e-5). The paper prints exp(-8 h/H (1 - l/L)). */
static double slope_of(const struct model_config *c, int64_t layer, int64_t h)
{
    double rest = c->layers > 1 ? 1 - (double)layer / (double)(c->layers - 1) : 1;

    if (c->decay == DECAY_NONE)
        return 0;
    if (c->decay == DECAY_PAPER)
        return 8 * (double)h / (double)c->heads * (1 - (double)layer / (double)c->layers);
    return model_alibi_slope(h, c->heads) * (rest + 1e-5);
}

static struct tensor *slopes(struct tape *tape, const struct model_config *c, int64_t layer)
{
    float *host = tape_host(tape, c->heads, sizeof *host);

    for (int64_t h = 0; h < c->heads; h++)
        host[h] = (float)slope_of(c, layer, h);
    return tape_f32(tape, host, 1, c->heads);
}

/* What all blocks of one batch share. */
struct tnl_batch {
    const struct model_batch *batch;
    struct kv_cache *cache;
    struct tensor *position, *first, *ones;
};

static struct tensor *norm(struct tape *tape, const struct model *model, const struct tnl_batch *b,
                           struct tensor *x)
{
    return op_rmsnorm(tape, x, b->ones, model->config.norm_eps);
}

static struct tensor *mix_tokens(struct tape *tape, const struct model *model,
                                 const struct tnl_batch *b, int64_t i, struct tensor *x)
{
    const struct model_config *c = &model->config;
    struct tensor *angles = model_block(model, i, ANGLES);
    struct lightning l = {.H = c->heads, .e = c->head_width, .B = b->batch->B,
                          .dk = angles ? 2 * c->head_width : c->head_width,
                          .slope = slopes(tape, c, i), .first = b->first};
    struct tensor *all = op_linear(tape, norm(tape, model, b, x), model_block(model, i, QKVU),
                                   NULL);
    struct tensor *qkv = op_lrpe(tape, all, b->position, angles, c->heads, c->head_width,
                                 ACTIVATION_SILU);
    struct tensor *y;

    if (b->cache)
        y = op_lightning_step(tape, qkv, &l, kv_cache_take(b->cache),
                              kv_cache_kept(b->cache, i, 0));
    else
        y = op_lightning(tape, qkv, &l);
    y = norm(tape, model, b, y);
    if (!c->ungated)
        y = op_mul(tape, y, op_slice(tape, all, 3 * c->width, c->width));
    return op_linear(tape, y, model_block(model, i, OUT), NULL);
}

static struct tensor *mix_channels(struct tape *tape, const struct model *model,
                                   const struct tnl_batch *b, int64_t i, struct tensor *x)
{
    struct tensor *h = op_linear(tape, norm(tape, model, b, x), model_joined(model, i, L1), NULL);

    return op_linear(tape, op_glu(tape, h, ACTIVATION_NONE), model_block(model, i, L3), NULL);
}

static void tnl_forward(struct tape *tape, const struct model *model,
                        const struct model_batch *batch, struct kv_cache *cache,
                        struct model_states *states)
{
    int64_t N = batch->B * batch->T;
    struct tnl_batch b = {batch, cache, model_positions(tape, batch),
                          tape_i32(tape, batch->first, N),
                          model_ones(tape, model->config.width)};
    struct tensor *x = op_embed(tape, tape_i32(tape, batch->token, N), NULL,
                                model_before(model, EMBED), NULL), *h;

    if (batch->last)
        tape_fail(tape, ERR_INVALID, "transnormer sees only what came before: it takes no prefix");
    if (!model->config.plain_embedding)
        x = op_scale(tape, x, sqrt((double)model->config.width));
    x = model_drop(tape, model, batch, x, 0);
    for (int64_t i = 0; i < model->config.layers; i++) {
        size_t mark = tape_mark(tape);

        model_remember(states, i, x);
        h = mix_tokens(tape, model, &b, i, x);
        x = op_add(tape, x, model_drop(tape, model, batch, h, 2 * i + 1));
        h = mix_channels(tape, model, &b, i, x);
        x = op_add(tape, x, model_drop(tape, model, batch, h, 2 * i + 2));
        x = tape_fold(tape, mark, x);
    }
    model_remember(states, model->config.layers, x);
    states->hidden = norm(tape, model, &b, x);
}

static bool tnl_kept(const struct model_config *c, int64_t layer, int which, int64_t capacity,
                     int64_t out[2])
{
    bool angles = c->lrpe == LRPE_ALL || (c->lrpe == LRPE_FIRST && layer == 0);

    (void)capacity;
    out[0] = c->heads * c->head_width * (angles ? 2 : 1);
    out[1] = c->head_width;
    return which == 0;
}

static void tnl_defaults(struct model_config *c)
{
    if (c->ffn_width == 0)
        c->ffn_width = (11 * c->width / 4 + 63) / 64 * 64;
    if (c->norm_eps == 0)
        c->norm_eps = 1e-6;
}

const struct model_table model_table_transnormer = {
    .family = MODEL_TRANSNORMER, .name = "transnormer",
    .defaults = tnl_defaults, .check = model_plain_heads_check,
    .before = before, .before_count = ARRAY_COUNT(before),
    .block = block, .block_count = ARRAY_COUNT(block),
    .after = after, .after_count = ARRAY_COUNT(after),
    .forward = tnl_forward, .kept = tnl_kept,
};
