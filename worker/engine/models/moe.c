/* moe.c - Llama whose feed-forward blocks are experts: Mixtral (Jiang et al. 2024), OLMoE
 * (Muennighoff et al. 2024), with shared experts as DeepSeekMoE has them (Dai et al. 2024).
 *
 * The experts' matrices lie one below the other, gate and up of each side by side, so that one
 * call of op_experts makes what op_swiglu takes. */
#include "worker/engine/models/table.h"

#include <math.h>

enum { EMBED };
enum {
    NORM1, Q, K, V, Q_NORM, K_NORM, O, NORM2, ROUTER, EXPERTS_IN, EXPERTS_OUT, SHARED_GATE,
    SHARED_UP, SHARED_DOWN
};
enum { NORM, HEAD };

#define LAYER "model.layers.%d."
#define MIXTRAL LAYER "block_sparse_moe."
#define OLMOE LAYER "mlp."

static const struct weight_row before[] = {
    [EMBED] = {"embed", "model.embed_tokens.weight", {DIM_VOCAB, DIM_WIDTH}, INIT_NORMAL},
};

static const struct weight_row block[] = {
    [NORM1] = {"block.%d.norm1.weight", LAYER "input_layernorm.weight", {DIM_WIDTH}, INIT_ONE},
    [Q] = {"block.%d.q.weight", LAYER "self_attn.q_proj.weight", {DIM_QUERIES, DIM_WIDTH},
           INIT_NORMAL, .joins = 3},
    [K] = {"block.%d.k.weight", LAYER "self_attn.k_proj.weight", {DIM_KEYS, DIM_WIDTH},
           INIT_NORMAL},
    [V] = {"block.%d.v.weight", LAYER "self_attn.v_proj.weight", {DIM_KEYS, DIM_WIDTH},
           INIT_NORMAL},
    [Q_NORM] = {"block.%d.q_norm.weight", LAYER "self_attn.q_norm.weight", {DIM_QUERIES},
                INIT_ONE, .need = NEED_QK_NORM},
    [K_NORM] = {"block.%d.k_norm.weight", LAYER "self_attn.k_norm.weight", {DIM_KEYS}, INIT_ONE,
                .need = NEED_QK_NORM},
    [O] = {"block.%d.o.weight", LAYER "self_attn.o_proj.weight", {DIM_WIDTH, DIM_QUERIES},
           INIT_RESIDUAL},
    [NORM2] = {"block.%d.norm2.weight", LAYER "post_attention_layernorm.weight", {DIM_WIDTH},
               INIT_ONE},
    [ROUTER] = {"block.%d.router.weight", MIXTRAL "gate.weight", {DIM_EXPERTS, DIM_WIDTH},
                INIT_NORMAL, .no_decay = true, .hf_other = OLMOE "gate.weight"},
    [EXPERTS_IN] = {"block.%d.experts.in.weight",
                    MIXTRAL "experts.%e.w1.weight|" MIXTRAL "experts.%e.w3.weight",
                    {DIM_EXPERTS_IN, DIM_WIDTH}, INIT_NORMAL,
                    .hf_other = OLMOE "experts.%e.gate_proj.weight|" OLMOE
                                      "experts.%e.up_proj.weight"},
    [EXPERTS_OUT] = {"block.%d.experts.out.weight", MIXTRAL "experts.%e.w2.weight",
                     {DIM_EXPERTS_OUT, DIM_FFN}, INIT_RESIDUAL,
                     .hf_other = OLMOE "experts.%e.down_proj.weight"},
    [SHARED_GATE] = {"block.%d.shared.gate.weight", OLMOE "shared_experts.gate_proj.weight",
                     {DIM_SHARED, DIM_WIDTH}, INIT_NORMAL, .need = NEED_SHARED, .joins = 2},
    [SHARED_UP] = {"block.%d.shared.up.weight", OLMOE "shared_experts.up_proj.weight",
                   {DIM_SHARED, DIM_WIDTH}, INIT_NORMAL, .need = NEED_SHARED},
    [SHARED_DOWN] = {"block.%d.shared.down.weight", OLMOE "shared_experts.down_proj.weight",
                     {DIM_WIDTH, DIM_SHARED}, INIT_RESIDUAL, .need = NEED_SHARED},
};

static const struct weight_row after[] = {
    [NORM] = {"norm.weight", "model.norm.weight", {DIM_WIDTH}, INIT_ONE},
    [HEAD] = {"head", "lm_head.weight", {DIM_VOCAB, DIM_WIDTH}, INIT_NORMAL,
              .need = NEED_UNTIED},
};

/* What all blocks of one batch share. */
struct moe_batch {
    const struct model_batch *batch;
    struct kv_cache *cache;
    struct tensor *position, *first;
    struct route_config route;
};

/* Norms of all queries, and of all keys, across the heads. */
static struct tensor *norm_heads(struct tape *tape, const struct model *model, int64_t i,
                                 struct tensor *qkv)
{
    int64_t q = model->config.heads * model->config.head_width;
    int64_t kv = model->config.kv_heads * model->config.head_width;
    double eps = model->config.norm_eps;

    if (!model->config.qk_norm)
        return qkv;
    return op_join(tape,
                   op_rmsnorm(tape, op_slice(tape, qkv, 0, q), model_block(model, i, Q_NORM), eps),
                   op_rmsnorm(tape, op_slice(tape, qkv, q, kv), model_block(model, i, K_NORM),
                              eps),
                   op_slice(tape, qkv, q + kv, kv));
}

static struct tensor *own_experts(struct tape *tape, const struct model *model, int64_t i,
                                  struct tensor *x, const struct route *route)
{
    x = op_swiglu(tape, op_experts(tape, x, model_block(model, i, EXPERTS_IN), route));
    return op_experts(tape, x, model_block(model, i, EXPERTS_OUT), route);
}

/* The experts of this rank, or those of all ranks. */
static struct tensor *through_experts(struct tape *tape, const struct model *model, int64_t i,
                                      struct tensor *x, const struct route *route)
{
    struct spread spread;

    if (model->config.expert_ranks <= 1)
        return own_experts(tape, model, i, x, route);
    if (!op_spread(tape, route, &spread))
        return NULL;
    x = own_experts(tape, model, i, op_exchange(tape, x, &spread, false), &spread.here);
    return op_exchange(tape, x, &spread, true);
}

static struct tensor *experts(struct tape *tape, const struct model *model, int64_t i,
                              const struct route_config *config, struct tensor *x,
                              struct tensor **out_stats)
{
    struct route route;
    struct tensor *y;
    struct mlp mlp;

    if (!op_route(tape, op_linear(tape, x, model_block(model, i, ROUTER), NULL), config, &route))
        return NULL;
    if (out_stats)
        *out_stats = route.stats;
    y = op_combine(tape, through_experts(tape, model, i, op_dispatch(tape, x, &route), &route),
                   &route);
    if (!model_block(model, i, SHARED_DOWN))
        return y;
    mlp = (struct mlp){.w1 = model_joined(model, i, SHARED_GATE),
                       .w2 = model_block(model, i, SHARED_DOWN), .gated = true};
    return op_add(tape, y, op_mlp(tape, x, &mlp));
}

static struct tensor *moe_block(struct tape *tape, const struct model *model,
                                const struct moe_batch *b, int64_t i, struct tensor *x,
                                struct tensor **out_stats)
{
    double eps = model->config.norm_eps;
    struct tensor *h;

    h = op_rmsnorm(tape, x, model_block(model, i, NORM1), eps);
    h = norm_heads(tape, model, i, op_linear(tape, h, model_joined(model, i, Q), NULL));
    h = op_rope(tape, h, b->position, model->turns, model_heads(&model->config));
    h = model_attend(tape, model, b->batch, b->cache, i, h, b->first);
    h = op_linear(tape, h, model_block(model, i, O), NULL);
    x = op_add(tape, x, model_drop(tape, model, b->batch, h, 2 * i + 1));
    h = op_rmsnorm(tape, x, model_block(model, i, NORM2), eps);
    h = experts(tape, model, i, &b->route, h, out_stats);
    return op_add(tape, x, model_drop(tape, model, b->batch, h, 2 * i + 2));
}

/* Outside training nothing is dropped, and no layer adds to the loss. */
static struct route_config route_config_of(const struct model_config *c,
                                           const struct model_batch *batch)
{
    double tokens = (double)(batch->B * batch->T * c->choices) / (double)c->experts;

    return (struct route_config){
        .choices = c->choices, .mode = c->gate_before ? ROUTE_BEFORE : ROUTE_AFTER,
        .capacity = batch->share > 0 ? (int64_t)ceil(c->capacity_factor * tokens) : 0,
        .drop = ROUTE_DROP_WEAK, .balance_weight = batch->share * c->balance_loss,
        .z_weight = batch->share * c->z_loss, .comm = batch->comm};
}

static void moe_forward(struct tape *tape, const struct model *model,
                        const struct model_batch *batch, struct kv_cache *cache,
                        struct model_states *states)
{
    int64_t N = batch->B * batch->T;
    struct moe_batch shared = {batch, cache, model_positions(tape, batch),
                               tape_i32(tape, batch->first, N),
                               route_config_of(&model->config, batch)};
    struct tensor *x = op_embed(tape, tape_i32(tape, batch->token, N), NULL,
                                model_before(model, EMBED), NULL);

    if (model->config.expert_ranks > 1 && !batch->comm)
        tape_fail(tape, ERR_INVALID, "the experts are on %lld ranks, which do not run this batch "
                  "together: gather the model first", (long long)model->config.expert_ranks);
    x = model_drop(tape, model, batch, x, 0);
    for (int64_t i = 0; i < model->config.layers; i++) {
        size_t mark = tape_mark(tape);

        model_remember(states, i, x);
        x = moe_block(tape, model, &shared, i, x, states->route ? &states->route[i] : NULL);
        if (!states->route || tape_records(tape)) /* else the numbers would go with the block */
            x = tape_fold(tape, mark, x);
    }
    model_remember(states, model->config.layers, x);
    states->hidden = op_rmsnorm(tape, x, model_after(model, NORM), model->config.norm_eps);
}

static void moe_defaults(struct model_config *c)
{
    if (c->experts == 0)
        c->experts = 8;
    if (c->choices == 0)
        c->choices = c->experts < 2 ? c->experts : 2;
    if (c->ffn_width == 0 && c->choices > 0)
        c->ffn_width = (8 * c->width / 3 / c->choices + 31) / 32 * 32;
}

static int moe_check(const struct model_config *c, struct err *err)
{
    int64_t most = c->experts < ROUTE_CHOICES_MAX ? c->experts : ROUTE_CHOICES_MAX;

    if (model_size_check("experts", c->experts, 1024, err) < 0 ||
        model_size_check("choices", c->choices, most, err) < 0)
        return -1;
    if (c->expert_ranks > c->experts || c->expert_rank < 0 ||
        (c->expert_ranks > 1 && c->expert_rank >= c->expert_ranks))
        return err_set(err, ERR_INVALID, "%lld experts cannot be spread over %lld ranks: each "
                       "needs one", (long long)c->experts, (long long)c->expert_ranks);
    if (c->shared_experts < 0 || c->shared_experts > 64)
        return err_set(err, ERR_INVALID, "model shared_experts is %lld, expected 0..64",
                       (long long)c->shared_experts);
    if (!(c->balance_loss >= 0) || !(c->z_loss >= 0) ||
        !(c->capacity_factor == 0 || (c->capacity_factor >= 0.1 && c->capacity_factor <= 100)))
        return err_set(err, ERR_INVALID, "model balance_loss %g, z_loss %g, capacity_factor %g: "
                       "expected 0 or more, 0 or more, 0 or 0.1..100", c->balance_loss, c->z_loss,
                       c->capacity_factor);
    return 0;
}

const struct model_table model_table_moe = {
    .family = MODEL_MOE, .name = "moe", .rotary = true,
    .defaults = moe_defaults, .check = moe_check,
    .before = before, .before_count = ARRAY_COUNT(before),
    .block = block, .block_count = ARRAY_COUNT(block),
    .after = after, .after_count = ARRAY_COUNT(after),
    .forward = moe_forward,
};
