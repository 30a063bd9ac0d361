/* llama.c - Touvron et al. 2023: RMSNorm, rotary positions, grouped queries, SwiGLU. And Qwen 2
 * (Yang et al. 2024), which is the same with biases of queries, keys and values.
 *
 * q, k and v (and gate and up) lie behind one another in the flat array, so that one
 * product serves them while files see them apart. */
#include "worker/engine/models/table.h"

enum { EMBED };
enum { NORM1, Q, K, V, Q_BIAS, K_BIAS, V_BIAS, O, NORM2, GATE, UP, DOWN };
enum { NORM, HEAD };

static const struct weight_row before[] = {
    [EMBED] = {"embed", "model.embed_tokens.weight", {DIM_VOCAB, DIM_WIDTH}, INIT_NORMAL},
};

#define LAYER "model.layers.%d."
#define SELF LAYER "self_attn."

static const struct weight_row block[] = {
    [NORM1] = {"block.%d.norm1.weight", LAYER "input_layernorm.weight", {DIM_WIDTH}, INIT_ONE},
    [Q] = {"block.%d.q.weight", SELF "q_proj.weight", {DIM_QUERIES, DIM_WIDTH},
           INIT_NORMAL, .joins = 3},
    [K] = {"block.%d.k.weight", SELF "k_proj.weight", {DIM_KEYS, DIM_WIDTH},
           INIT_NORMAL},
    [V] = {"block.%d.v.weight", SELF "v_proj.weight", {DIM_KEYS, DIM_WIDTH},
           INIT_NORMAL},
    [Q_BIAS] = {"block.%d.q.bias", SELF "q_proj.bias", {DIM_QUERIES}, INIT_ZERO,
                .need = NEED_QKV_BIAS, .joins = 3},
    [K_BIAS] = {"block.%d.k.bias", SELF "k_proj.bias", {DIM_KEYS}, INIT_ZERO,
                .need = NEED_QKV_BIAS},
    [V_BIAS] = {"block.%d.v.bias", SELF "v_proj.bias", {DIM_KEYS}, INIT_ZERO,
                .need = NEED_QKV_BIAS},
    [O] = {"block.%d.o.weight", SELF "o_proj.weight", {DIM_WIDTH, DIM_QUERIES},
           INIT_RESIDUAL},
    [NORM2] = {"block.%d.norm2.weight", LAYER "post_attention_layernorm.weight", {DIM_WIDTH},
               INIT_ONE},
    [GATE] = {"block.%d.gate.weight", LAYER "mlp.gate_proj.weight", {DIM_FFN, DIM_WIDTH},
              INIT_NORMAL, .joins = 2},
    [UP] = {"block.%d.up.weight", LAYER "mlp.up_proj.weight", {DIM_FFN, DIM_WIDTH},
            INIT_NORMAL},
    [DOWN] = {"block.%d.down.weight", LAYER "mlp.down_proj.weight", {DIM_WIDTH, DIM_FFN},
              INIT_RESIDUAL},
};

static const struct weight_row after[] = {
    [NORM] = {"norm.weight", "model.norm.weight", {DIM_WIDTH}, INIT_ONE},
    [HEAD] = {"head", "lm_head.weight", {DIM_VOCAB, DIM_WIDTH}, INIT_NORMAL,
              .need = NEED_UNTIED},
};

/* What all blocks of one batch share. */
struct llama_batch {
    const struct model_batch *batch;
    struct kv_cache *cache;
    struct tensor *position, *first;
};

static struct tensor *llama_block(struct tape *tape, const struct model *model,
                                  const struct llama_batch *b, int64_t i, struct tensor *x)
{
    struct mlp mlp = {.w1 = model_joined(model, i, GATE), .w2 = model_block(model, i, DOWN),
                      .gated = true};
    double eps = model->config.norm_eps;
    struct tensor *h;

    h = op_rmsnorm(tape, x, model_block(model, i, NORM1), eps);
    h = op_linear(tape, h, model_joined(model, i, Q), model_joined(model, i, Q_BIAS));
    if (!model->config.alibi)
        h = op_rope(tape, h, b->position, model->turns, model_heads(&model->config));
    h = model_attend(tape, model, b->batch, b->cache, i, h, b->first);
    h = op_linear(tape, h, model_block(model, i, O), NULL);
    x = op_add(tape, x, model_drop(tape, model, b->batch, h, 2 * i + 1));
    h = op_rmsnorm(tape, x, model_block(model, i, NORM2), eps);
    h = op_mlp(tape, h, &mlp);
    return op_add(tape, x, model_drop(tape, model, b->batch, h, 2 * i + 2));
}

static void llama_forward(struct tape *tape, const struct model *model,
                          const struct model_batch *batch, struct kv_cache *cache,
                          struct model_states *states)
{
    int64_t N = batch->B * batch->T;
    struct llama_batch shared = {batch, cache, model_positions(tape, batch),
                                 model_first(tape, model, batch)};
    struct tensor *x = op_embed(tape, tape_i32(tape, batch->token, N), NULL,
                                model_before(model, EMBED), NULL);

    x = model_drop(tape, model, batch, x, 0);
    for (int64_t i = 0; i < model->config.layers; i++) {
        size_t mark = tape_mark(tape);

        model_remember(states, i, x);
        x = llama_block(tape, model, &shared, i, x);
        x = tape_fold(tape, mark, x);
    }
    model_remember(states, model->config.layers, x);
    states->hidden = op_rmsnorm(tape, x, model_after(model, NORM), model->config.norm_eps);
}

static void llama_defaults(struct model_config *config)
{
    if (config->ffn_width == 0)
        config->ffn_width = (8 * config->width / 3 + 31) / 32 * 32;
}

static int llama_check(const struct model_config *config, struct err *err)
{
    if (config->window < 0)
        return err_set(err, ERR_INVALID, "model window is %lld, expected 0 or more",
                       (long long)config->window);
    if (config->qkv_bias && (config->window > 0 || config->alibi))
        return err_set(err, ERR_INVALID, "a llama of biases of queries, keys and values has %s: no "
                       "such model has a name in files", config->alibi ? "positions alibi"
                                                                       : "a window");
    return 0;
}

const struct model_table model_table_llama = {
    .family = MODEL_LLAMA, .name = "llama", .rotary = true, .defaults = llama_defaults,
    .check = llama_check,
    .before = before, .before_count = ARRAY_COUNT(before),
    .block = block, .block_count = ARRAY_COUNT(block),
    .after = after, .after_count = ARRAY_COUNT(after),
    .forward = llama_forward,
};
