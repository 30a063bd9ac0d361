/* gpt2.c - Radford et al. 2019: pre-norm blocks, learned positions, GELU, tied head. */
#include "worker/engine/models/table.h"

enum { WTE, WPE };
enum { LN1_G, LN1_B, QKV_W, QKV_B, PROJ_W, PROJ_B, LN2_G, LN2_B, FC_W, FC_B, OUT_W, OUT_B };
enum { LNF_G, LNF_B };

static const struct weight_row before[] = {
    [WTE] = {"wte", "transformer.wte.weight", {DIM_VOCAB, DIM_WIDTH}, INIT_NORMAL},
    [WPE] = {"wpe", "transformer.wpe.weight", {DIM_CONTEXT, DIM_WIDTH}, INIT_NORMAL},
};

#define H "transformer.h.%d."

static const struct weight_row block[] = {
    [LN1_G] = {"block.%d.ln1.weight", H "ln_1.weight", {DIM_WIDTH}, INIT_ONE},
    [LN1_B] = {"block.%d.ln1.bias", H "ln_1.bias", {DIM_WIDTH}, INIT_ZERO},
    [QKV_W] = {"block.%d.qkv.weight", H "attn.c_attn.weight", {DIM_QKV, DIM_WIDTH}, INIT_NORMAL,
               .hf_transposed = true},
    [QKV_B] = {"block.%d.qkv.bias", H "attn.c_attn.bias", {DIM_QKV}, INIT_ZERO},
    [PROJ_W] = {"block.%d.proj.weight", H "attn.c_proj.weight", {DIM_WIDTH, DIM_QUERIES},
                INIT_RESIDUAL, .hf_transposed = true},
    [PROJ_B] = {"block.%d.proj.bias", H "attn.c_proj.bias", {DIM_WIDTH}, INIT_ZERO},
    [LN2_G] = {"block.%d.ln2.weight", H "ln_2.weight", {DIM_WIDTH}, INIT_ONE},
    [LN2_B] = {"block.%d.ln2.bias", H "ln_2.bias", {DIM_WIDTH}, INIT_ZERO},
    [FC_W] = {"block.%d.fc.weight", H "mlp.c_fc.weight", {DIM_FFN, DIM_WIDTH}, INIT_NORMAL,
              .hf_transposed = true},
    [FC_B] = {"block.%d.fc.bias", H "mlp.c_fc.bias", {DIM_FFN}, INIT_ZERO},
    [OUT_W] = {"block.%d.out.weight", H "mlp.c_proj.weight", {DIM_WIDTH, DIM_FFN},
               INIT_RESIDUAL, .hf_transposed = true},
    [OUT_B] = {"block.%d.out.bias", H "mlp.c_proj.bias", {DIM_WIDTH}, INIT_ZERO},
};

static const struct weight_row after[] = {
    [LNF_G] = {"lnf.weight", "transformer.ln_f.weight", {DIM_WIDTH}, INIT_ONE},
    [LNF_B] = {"lnf.bias", "transformer.ln_f.bias", {DIM_WIDTH}, INIT_ZERO},
};

static struct tensor *gpt2_block(struct tape *tape, const struct model *model,
                                 const struct model_batch *batch, struct kv_cache *cache,
                                 int64_t i, struct tensor *x, struct tensor *first)
{
    double eps = model->config.norm_eps;
    struct tensor *h;

    h = op_layernorm(tape, x, model_block(model, i, LN1_G), model_block(model, i, LN1_B), eps);
    h = op_linear(tape, h, model_block(model, i, QKV_W), model_block(model, i, QKV_B));
    h = model_attend(tape, model, batch, cache, i, h, first);
    h = op_linear(tape, h, model_block(model, i, PROJ_W), model_block(model, i, PROJ_B));
    x = op_add(tape, x, model_drop(tape, model, batch, h, 2 * i + 1));
    h = op_layernorm(tape, x, model_block(model, i, LN2_G), model_block(model, i, LN2_B), eps);
    h = op_linear(tape, h, model_block(model, i, FC_W), model_block(model, i, FC_B));
    h = op_gelu(tape, h);
    h = op_linear(tape, h, model_block(model, i, OUT_W), model_block(model, i, OUT_B));
    return op_add(tape, x, model_drop(tape, model, batch, h, 2 * i + 2));
}

static void gpt2_forward(struct tape *tape, const struct model *model,
                         const struct model_batch *batch, struct kv_cache *cache,
                         struct model_states *states)
{
    int64_t N = batch->B * batch->T;
    struct tensor *position = model_positions(tape, batch);
    struct tensor *first = tape_i32(tape, batch->first, N);
    struct tensor *x = op_embed(tape, tape_i32(tape, batch->token, N), position,
                                model_before(model, WTE), model_before(model, WPE));

    x = model_drop(tape, model, batch, x, 0);
    for (int64_t i = 0; i < model->config.layers; i++) {
        size_t mark = tape_mark(tape);

        model_remember(states, i, x);
        x = gpt2_block(tape, model, batch, cache, i, x, first);
        if (!states->layer)
            x = tape_fold(tape, mark, x);
    }
    model_remember(states, model->config.layers, x);
    states->hidden = op_layernorm(tape, x, model_after(model, LNF_G), model_after(model, LNF_B),
                                  model->config.norm_eps);
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
