/* gpt2.c - Radford et al. 2019: pre-norm blocks, learned positions, GELU, tied head. And OPT
 * (Zhang et al. 2022), which is the same with ReLU, q, k and v as arrays of their own, and
 * positions that begin at row 2 of their table.
 *
 * OPT's 350M differs from the rest: its blocks normalise after each half and none comes after the
 * last (post_norm), and its embeddings are narrower than its blocks, with a matrix on the way in
 * and one on the way out to the tied head (embed_width). Source: transformers' modeling_opt.py. */
#include "worker/engine/models/table.h"

enum { WTE, WIDEN, WPE };
enum {
    LN1_G, LN1_B, QKV_W, QKV_B, Q_W, K_W, V_W, Q_B, K_B, V_B,
    PROJ_W, PROJ_B, LN2_G, LN2_B, FC_W, FC_B, OUT_W, OUT_B,
};
enum { LNF_G, LNF_B, NARROW };

#define DECODER "model.decoder."

static const struct weight_row before[] = {
    [WTE] = {"wte", "transformer.wte.weight", {DIM_VOCAB, DIM_EMBED}, INIT_NORMAL,
             .hf_other = DECODER "embed_tokens.weight"},
    [WIDEN] = {"widen", DECODER "project_in.weight", {DIM_WIDTH, DIM_EMBED}, INIT_NORMAL,
               .need = NEED_NARROW},
    [WPE] = {"wpe", "transformer.wpe.weight", {DIM_PLACES, DIM_WIDTH}, INIT_NORMAL,
             .hf_other = DECODER "embed_positions.weight"},
};

#define H "transformer.h.%d."
#define LAYER DECODER "layers.%d."
#define SELF LAYER "self_attn."

static const struct weight_row block[] = {
    [LN1_G] = {"block.%d.ln1.weight", H "ln_1.weight", {DIM_WIDTH}, INIT_ONE,
               .hf_other = LAYER "self_attn_layer_norm.weight"},
    [LN1_B] = {"block.%d.ln1.bias", H "ln_1.bias", {DIM_WIDTH}, INIT_ZERO,
               .hf_other = LAYER "self_attn_layer_norm.bias"},
    [QKV_W] = {"block.%d.qkv.weight", H "attn.c_attn.weight", {DIM_QKV, DIM_WIDTH}, INIT_NORMAL,
               .hf_transposed = true, .need = NEED_GPT2},
    [QKV_B] = {"block.%d.qkv.bias", H "attn.c_attn.bias", {DIM_QKV}, INIT_ZERO,
               .need = NEED_GPT2},
    [Q_W] = {"block.%d.q.weight", SELF "q_proj.weight", {DIM_QUERIES, DIM_WIDTH}, INIT_NORMAL,
             .need = NEED_OPT, .joins = 3},
    [K_W] = {"block.%d.k.weight", SELF "k_proj.weight", {DIM_KEYS, DIM_WIDTH}, INIT_NORMAL,
             .need = NEED_OPT},
    [V_W] = {"block.%d.v.weight", SELF "v_proj.weight", {DIM_KEYS, DIM_WIDTH}, INIT_NORMAL,
             .need = NEED_OPT},
    [Q_B] = {"block.%d.q.bias", SELF "q_proj.bias", {DIM_QUERIES}, INIT_ZERO, .need = NEED_OPT,
             .joins = 3},
    [K_B] = {"block.%d.k.bias", SELF "k_proj.bias", {DIM_KEYS}, INIT_ZERO, .need = NEED_OPT},
    [V_B] = {"block.%d.v.bias", SELF "v_proj.bias", {DIM_KEYS}, INIT_ZERO, .need = NEED_OPT},
    [PROJ_W] = {"block.%d.proj.weight", H "attn.c_proj.weight", {DIM_WIDTH, DIM_QUERIES},
                INIT_RESIDUAL, .hf_transposed = true, .hf_other = SELF "out_proj.weight"},
    [PROJ_B] = {"block.%d.proj.bias", H "attn.c_proj.bias", {DIM_WIDTH}, INIT_ZERO,
                .hf_other = SELF "out_proj.bias"},
    [LN2_G] = {"block.%d.ln2.weight", H "ln_2.weight", {DIM_WIDTH}, INIT_ONE,
               .hf_other = LAYER "final_layer_norm.weight"}, /* in spite of its name */
    [LN2_B] = {"block.%d.ln2.bias", H "ln_2.bias", {DIM_WIDTH}, INIT_ZERO,
               .hf_other = LAYER "final_layer_norm.bias"},
    [FC_W] = {"block.%d.fc.weight", H "mlp.c_fc.weight", {DIM_FFN, DIM_WIDTH}, INIT_NORMAL,
              .hf_transposed = true, .hf_other = LAYER "fc1.weight"},
    [FC_B] = {"block.%d.fc.bias", H "mlp.c_fc.bias", {DIM_FFN}, INIT_ZERO,
              .hf_other = LAYER "fc1.bias"},
    [OUT_W] = {"block.%d.out.weight", H "mlp.c_proj.weight", {DIM_WIDTH, DIM_FFN},
               INIT_RESIDUAL, .hf_transposed = true, .hf_other = LAYER "fc2.weight"},
    [OUT_B] = {"block.%d.out.bias", H "mlp.c_proj.bias", {DIM_WIDTH}, INIT_ZERO,
               .hf_other = LAYER "fc2.bias"},
};

static const struct weight_row after[] = {
    [LNF_G] = {"lnf.weight", "transformer.ln_f.weight", {DIM_WIDTH}, INIT_ONE,
               .need = NEED_PRE_NORM, .hf_other = DECODER "final_layer_norm.weight"},
    [LNF_B] = {"lnf.bias", "transformer.ln_f.bias", {DIM_WIDTH}, INIT_ZERO,
               .need = NEED_PRE_NORM, .hf_other = DECODER "final_layer_norm.bias"},
    [NARROW] = {"narrow", DECODER "project_out.weight", {DIM_EMBED, DIM_WIDTH}, INIT_NORMAL,
                .need = NEED_NARROW},
};

static struct tensor *qkv_of(struct tape *tape, const struct model *model, int64_t i,
                             struct tensor *x)
{
    if (model->config.family == MODEL_OPT)
        return op_linear(tape, x, model_joined(model, i, Q_W), model_joined(model, i, Q_B));
    return op_linear(tape, x, model_block(model, i, QKV_W), model_block(model, i, QKV_B));
}

/* With the gain of row `gain` and the bias behind it. */
static struct tensor *normed(struct tape *tape, const struct model *model, int64_t i, int gain,
                             struct tensor *x)
{
    return op_layernorm(tape, x, model_block(model, i, gain), model_block(model, i, gain + 1),
                        model->config.norm_eps);
}

static struct tensor *fed_forward(struct tape *tape, const struct model *model, int64_t i,
                                  struct tensor *x)
{
    struct mlp mlp = {model_block(model, i, FC_W), model_block(model, i, FC_B),
                      model_block(model, i, OUT_W), model_block(model, i, OUT_B), false};

    if (model->config.family != MODEL_OPT)
        return op_mlp(tape, x, &mlp);
    x = op_activate(tape, op_linear(tape, x, mlp.w1, mlp.b1), model->config.activation);
    return op_linear(tape, x, mlp.w2, mlp.b2);
}

static struct tensor *gpt2_block(struct tape *tape, const struct model *model,
                                 const struct model_batch *batch, struct kv_cache *cache,
                                 int64_t i, struct tensor *x, struct tensor *first)
{
    bool post = model->config.post_norm;
    struct tensor *h;

    h = qkv_of(tape, model, i, post ? x : normed(tape, model, i, LN1_G, x));
    h = model_attend(tape, model, batch, cache, i, h, first);
    h = op_linear(tape, h, model_block(model, i, PROJ_W), model_block(model, i, PROJ_B));
    x = op_add(tape, x, model_drop(tape, model, batch, h, 2 * i + 1));
    if (post)
        x = normed(tape, model, i, LN1_G, x);
    h = post ? x : normed(tape, model, i, LN2_G, x);
    h = fed_forward(tape, model, i, h);
    x = op_add(tape, x, model_drop(tape, model, batch, h, 2 * i + 2));
    return post ? normed(tape, model, i, LN2_G, x) : x;
}

static struct tensor *gpt2_embed(struct tape *tape, const struct model *model,
                                 const struct model_batch *batch)
{
    struct tensor *token = tape_i32(tape, batch->token, batch->B * batch->T), *x;
    struct tensor *place = model_places(tape, model, batch);
    struct tensor *wte = model_before(model, WTE), *wpe = model_before(model, WPE);

    if (!model_before(model, WIDEN))
        return op_embed(tape, token, place, wte, wpe);
    x = op_linear(tape, op_embed(tape, token, NULL, wte, NULL), model_before(model, WIDEN), NULL);
    return op_add(tape, x, op_embed(tape, place, NULL, wpe, NULL));
}

static void gpt2_forward(struct tape *tape, const struct model *model,
                         const struct model_batch *batch, struct kv_cache *cache,
                         struct model_states *states)
{
    int64_t N = batch->B * batch->T;
    struct tensor *x = gpt2_embed(tape, model, batch);
    struct tensor *first = tape_i32(tape, batch->first, N);

    x = model_drop(tape, model, batch, x, 0);
    for (int64_t i = 0; i < model->config.layers; i++) {
        size_t mark = tape_mark(tape);

        model_remember(states, i, x);
        x = gpt2_block(tape, model, batch, cache, i, x, first);
        x = tape_fold(tape, mark, x);
    }
    model_remember(states, model->config.layers, x);
    if (model_after(model, LNF_G))
        x = op_layernorm(tape, x, model_after(model, LNF_G), model_after(model, LNF_B),
                         model->config.norm_eps);
    if (model_after(model, NARROW))
        x = op_linear(tape, x, model_after(model, NARROW), NULL);
    states->hidden = x;
}

static int gpt2_check(const struct model_config *config, struct err *err)
{
    return model_plain_heads_check(config, err) < 0 ? -1 : model_tied_check(config, err);
}

const struct model_table model_table_gpt2 = {
    .family = MODEL_GPT2, .name = "gpt2", .check = gpt2_check,
    .before = before, .before_count = ARRAY_COUNT(before),
    .block = block, .block_count = ARRAY_COUNT(block),
    .after = after, .after_count = ARRAY_COUNT(after),
    .forward = gpt2_forward,
};

static void opt_defaults(struct model_config *config)
{
    if (config->activation == ACTIVATION_NONE)
        config->activation = ACTIVATION_RELU;
    if (config->embed_width == config->width)
        config->embed_width = 0;
}

static int opt_check(const struct model_config *config, struct err *err)
{
    if (config->embed_width != 0 &&
        model_size_check("embed_width", config->embed_width, 1 << 20, err) < 0)
        return -1;
    if (config->norm_eps != 1e-5) /* files have no field for it */
        return err_set(err, ERR_INVALID, "opt norm_eps is %g, expected 1e-5", config->norm_eps);
    return gpt2_check(config, err);
}

const struct model_table model_table_opt = {
    .family = MODEL_OPT, .name = "opt", .other_format = true,
    .defaults = opt_defaults, .check = opt_check,
    .before = before, .before_count = ARRAY_COUNT(before),
    .block = block, .block_count = ARRAY_COUNT(block),
    .after = after, .after_count = ARRAY_COUNT(after),
    .forward = gpt2_forward,
};
