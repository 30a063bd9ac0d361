/* bert.c - Devlin et al. 2019: an encoder with learned positions and token types, norms after
 * each sum, and on top a pooler, a head for masked tokens, or classes.
 *
 * RoBERTa with classes (Liu et al. 2019) is the same network: its head's dense tanh is the pooler,
 * and its first two rows of positions stand for padding. */
#include "worker/engine/models/table.h"

enum { WORD, POSITION, TYPE, EMBED_G, EMBED_B };
enum {
    Q_W, K_W, V_W, Q_B, K_B, V_B, O_W, O_B, LN1_G, LN1_B,
    FC_W, FC_B, OUT_W, OUT_B, LN2_G, LN2_B
};
enum { POOL_W, POOL_B, TURN_W, TURN_B, TURN_LN_G, TURN_LN_B, TOKEN_B, LABEL_W, LABEL_B };

#define BOTH(rest) .hf_name = "bert." rest, .hf_other = "roberta." rest
#define EMBEDDINGS "embeddings."
#define LAYER "encoder.layer.%d."
#define TOKENS "cls.predictions."
#define SQUARE {DIM_WIDTH, DIM_WIDTH}

static const struct weight_row before[] = {
    [WORD] = {"word", BOTH(EMBEDDINGS "word_embeddings.weight"),
              .dim = {DIM_VOCAB, DIM_WIDTH}, .init = INIT_NORMAL},
    [POSITION] = {"position", BOTH(EMBEDDINGS "position_embeddings.weight"),
                  .dim = {DIM_PLACES, DIM_WIDTH}, .init = INIT_NORMAL},
    [TYPE] = {"type", BOTH(EMBEDDINGS "token_type_embeddings.weight"),
              .dim = {DIM_TYPES, DIM_WIDTH}, .init = INIT_NORMAL},
    [EMBED_G] = {"embed.ln.weight", BOTH(EMBEDDINGS "LayerNorm.weight"),
                 .dim = {DIM_WIDTH}, .init = INIT_ONE},
    [EMBED_B] = {"embed.ln.bias", BOTH(EMBEDDINGS "LayerNorm.bias"),
                 .dim = {DIM_WIDTH}, .init = INIT_ZERO},
};

static const struct weight_row block[] = {
    [Q_W] = {"block.%d.q.weight", BOTH(LAYER "attention.self.query.weight"),
             .dim = SQUARE, .init = INIT_NORMAL, .joins = 3},
    [K_W] = {"block.%d.k.weight", BOTH(LAYER "attention.self.key.weight"),
             .dim = SQUARE, .init = INIT_NORMAL},
    [V_W] = {"block.%d.v.weight", BOTH(LAYER "attention.self.value.weight"),
             .dim = SQUARE, .init = INIT_NORMAL},
    [Q_B] = {"block.%d.q.bias", BOTH(LAYER "attention.self.query.bias"),
             .dim = {DIM_WIDTH}, .init = INIT_ZERO, .joins = 3},
    [K_B] = {"block.%d.k.bias", BOTH(LAYER "attention.self.key.bias"),
             .dim = {DIM_WIDTH}, .init = INIT_ZERO},
    [V_B] = {"block.%d.v.bias", BOTH(LAYER "attention.self.value.bias"),
             .dim = {DIM_WIDTH}, .init = INIT_ZERO},
    [O_W] = {"block.%d.o.weight", BOTH(LAYER "attention.output.dense.weight"),
             .dim = SQUARE, .init = INIT_NORMAL},
    [O_B] = {"block.%d.o.bias", BOTH(LAYER "attention.output.dense.bias"),
             .dim = {DIM_WIDTH}, .init = INIT_ZERO},
    [LN1_G] = {"block.%d.ln1.weight", BOTH(LAYER "attention.output.LayerNorm.weight"),
               .dim = {DIM_WIDTH}, .init = INIT_ONE},
    [LN1_B] = {"block.%d.ln1.bias", BOTH(LAYER "attention.output.LayerNorm.bias"),
               .dim = {DIM_WIDTH}, .init = INIT_ZERO},
    [FC_W] = {"block.%d.fc.weight", BOTH(LAYER "intermediate.dense.weight"),
              .dim = {DIM_FFN, DIM_WIDTH}, .init = INIT_NORMAL},
    [FC_B] = {"block.%d.fc.bias", BOTH(LAYER "intermediate.dense.bias"),
              .dim = {DIM_FFN}, .init = INIT_ZERO},
    [OUT_W] = {"block.%d.out.weight", BOTH(LAYER "output.dense.weight"),
               .dim = {DIM_WIDTH, DIM_FFN}, .init = INIT_NORMAL},
    [OUT_B] = {"block.%d.out.bias", BOTH(LAYER "output.dense.bias"),
               .dim = {DIM_WIDTH}, .init = INIT_ZERO},
    [LN2_G] = {"block.%d.ln2.weight", BOTH(LAYER "output.LayerNorm.weight"),
               .dim = {DIM_WIDTH}, .init = INIT_ONE},
    [LN2_B] = {"block.%d.ln2.bias", BOTH(LAYER "output.LayerNorm.bias"),
               .dim = {DIM_WIDTH}, .init = INIT_ZERO},
};

static const struct weight_row after[] = {
    [POOL_W] = {"pooler.weight", "bert.pooler.dense.weight", SQUARE, INIT_NORMAL,
                .need = NEED_POOLER, .hf_other = "classifier.dense.weight"},
    [POOL_B] = {"pooler.bias", "bert.pooler.dense.bias", {DIM_WIDTH}, INIT_ZERO,
                .need = NEED_POOLER, .hf_other = "classifier.dense.bias"},
    [TURN_W] = {"tokens.dense.weight", TOKENS "transform.dense.weight", SQUARE, INIT_NORMAL,
                .need = NEED_TOKENS},
    [TURN_B] = {"tokens.dense.bias", TOKENS "transform.dense.bias", {DIM_WIDTH}, INIT_ZERO,
                .need = NEED_TOKENS},
    [TURN_LN_G] = {"tokens.ln.weight", TOKENS "transform.LayerNorm.weight", {DIM_WIDTH}, INIT_ONE,
                   .need = NEED_TOKENS},
    [TURN_LN_B] = {"tokens.ln.bias", TOKENS "transform.LayerNorm.bias", {DIM_WIDTH}, INIT_ZERO,
                   .need = NEED_TOKENS},
    [TOKEN_B] = {"tokens.bias", TOKENS "bias", {DIM_VOCAB}, INIT_ZERO, .need = NEED_TOKENS},
    [LABEL_W] = {"labels.weight", "classifier.weight", {DIM_LABELS, DIM_WIDTH}, INIT_NORMAL,
                 .need = NEED_LABELS, .hf_other = "classifier.out_proj.weight"},
    [LABEL_B] = {"labels.bias", "classifier.bias", {DIM_LABELS}, INIT_ZERO, .need = NEED_LABELS,
                 .hf_other = "classifier.out_proj.bias"},
};

static struct tensor *bert_embed(struct tape *tape, const struct model *model,
                                 const struct model_batch *batch)
{
    int64_t N = batch->B * batch->T;
    struct tensor *x = op_embed(tape, tape_i32(tape, batch->token, N),
                                model_places(tape, model, batch), model_before(model, WORD),
                                model_before(model, POSITION));

    x = op_add(tape, x, op_embed(tape, model_types(tape, batch), NULL, model_before(model, TYPE),
                                 NULL));
    return op_layernorm(tape, x, model_before(model, EMBED_G), model_before(model, EMBED_B),
                        model->config.norm_eps);
}

static struct tensor *bert_block(struct tape *tape, const struct model *model,
                                 const struct model_batch *batch, int64_t i, struct tensor *x)
{
    double eps = model->config.norm_eps;
    struct tensor *h;

    h = op_linear(tape, x, model_joined(model, i, Q_W), model_joined(model, i, Q_B));
    h = model_attend_all(tape, model, batch, h);
    h = op_linear(tape, h, model_block(model, i, O_W), model_block(model, i, O_B));
    x = op_add(tape, x, h);
    x = op_layernorm(tape, x, model_block(model, i, LN1_G), model_block(model, i, LN1_B), eps);
    h = op_linear(tape, x, model_block(model, i, FC_W), model_block(model, i, FC_B));
    h = op_activate(tape, h, model->config.activation);
    h = op_linear(tape, h, model_block(model, i, OUT_W), model_block(model, i, OUT_B));
    x = op_add(tape, x, h);
    return op_layernorm(tape, x, model_block(model, i, LN2_G), model_block(model, i, LN2_B), eps);
}

static void bert_forward(struct tape *tape, const struct model *model,
                         const struct model_batch *batch, struct kv_cache *cache,
                         struct model_states *states)
{
    struct tensor *x = bert_embed(tape, model, batch);

    if (cache)
        tape_fail(tape, ERR_INVALID, "bert is an encoder: it cannot continue texts");
    for (int64_t i = 0; i < model->config.layers; i++) {
        size_t mark = tape_mark(tape);

        model_remember(states, i, x);
        x = bert_block(tape, model, batch, i, x);
        x = tape_fold(tape, mark, x);
    }
    model_remember(states, model->config.layers, x);
    states->hidden = x;
}

static struct tensor *bert_pooled(struct tape *tape, const struct model *model,
                                  const struct model_batch *batch, struct tensor *hidden)
{
    struct tensor *x = op_gather(tape, hidden, model_first_rows(tape, batch));

    if (!model_after(model, POOL_W)) {
        tape_fail(tape, ERR_INVALID, "this bert has no pooler: it predicts masked tokens");
        return NULL;
    }
    x = op_linear(tape, x, model_after(model, POOL_W), model_after(model, POOL_B));
    return op_activate(tape, x, ACTIVATION_TANH);
}

struct tensor *bert_tokens(struct tape *tape, const struct model *model, struct tensor *x)
{
    if (!model_after(model, TURN_W)) {
        tape_fail(tape, ERR_INVALID, "this bert has no head for masked tokens");
        return NULL;
    }
    x = op_linear(tape, x, model_after(model, TURN_W), model_after(model, TURN_B));
    x = op_activate(tape, x, model->config.activation);
    x = op_layernorm(tape, x, model_after(model, TURN_LN_G), model_after(model, TURN_LN_B),
                     model->config.norm_eps);
    return op_linear(tape, x, model_before(model, WORD), model_after(model, TOKEN_B));
}

struct tensor *bert_labels(struct tape *tape, const struct model *model, struct tensor *pooled)
{
    if (!model_after(model, LABEL_W)) {
        tape_fail(tape, ERR_INVALID, "this bert has no classes");
        return NULL;
    }
    return op_linear(tape, pooled, model_after(model, LABEL_W), model_after(model, LABEL_B));
}

static void bert_defaults(struct model_config *config)
{
    config->tied = true;
    if (config->token_types == 0)
        config->token_types = 2;
    if (config->activation == ACTIVATION_NONE)
        config->activation = ACTIVATION_GELU;
    if (config->norm_eps == 0)
        config->norm_eps = 1e-12;
}

static int bert_check(const struct model_config *config, struct err *err)
{
    if (model_plain_heads_check(config, err) < 0 ||
        model_size_check("token_types", config->token_types, 1024, err) < 0)
        return -1;
    if (config->roberta && config->top != MODEL_TOP_LABELS)
        return err_set(err, ERR_INVALID, "a RoBERTa without classes; only one with them is known");
    if (config->top == MODEL_TOP_LABELS)
        return model_size_check("labels", config->labels, 1 << 20, err);
    return 0;
}

const struct model_table model_table_bert = {
    .family = MODEL_BERT, .name = "bert", .sees_both_ways = true,
    .defaults = bert_defaults, .check = bert_check,
    .before = before, .before_count = ARRAY_COUNT(before),
    .block = block, .block_count = ARRAY_COUNT(block),
    .after = after, .after_count = ARRAY_COUNT(after),
    .forward = bert_forward, .pooled = bert_pooled,
};
