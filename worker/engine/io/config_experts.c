/* config_experts.c - config.json of experts: Mixtral, OLMoE, and what neither can say. */
#include "worker/engine/io/config_parts.h"

#include <string.h>

/* What Llama, Mixtral and OLMoE have in common. */
static int read_common(json_t *root, struct model_config *out, struct err *err)
{
    if (config_read_size(root, "max_position_embeddings", 4096, &out->context, err) < 0 ||
        config_read_size(root, "hidden_size", 0, &out->width, err) < 0 ||
        config_read_size(root, "num_hidden_layers", 0, &out->layers, err) < 0 ||
        config_read_size(root, "num_attention_heads", 0, &out->heads, err) < 0 ||
        config_read_size(root, "num_key_value_heads", out->heads, &out->kv_heads, err) < 0 ||
        config_read_size(root, "intermediate_size", 0, &out->ffn_width, err) < 0 ||
        config_read_size(root, "num_experts_per_tok", 0, &out->choices, err) < 0 ||
        config_read_positive(root, "rms_norm_eps", 1e-5, &out->norm_eps, err) < 0 ||
        config_read_bool(root, "tie_word_embeddings", false, &out->tied, err) < 0 ||
        config_read_rope(root, out, err) < 0)
        return -1;
    if (config_read_size(root, "head_dim", out->width / out->heads ? out->width / out->heads : 1,
                         &out->head_width, err) < 0 ||
        config_expect_text(root, "hidden_act", "silu", "silu", "swish", err) < 0 ||
        config_expect_bool(root, "attention_bias", false, err) < 0)
        return -1;
    if (!config_is_absent(json_object_get(root, "router_aux_loss_coef")) &&
        json_number_value(json_object_get(root, "router_aux_loss_coef")) != 0)
        return config_read_positive(root, "router_aux_loss_coef", 0.01, &out->balance_loss, err);
    return 0;
}

static void put_common(json_t *root, const struct model_config *config)
{
    config_put(root, "hidden_size", json_integer(config->width));
    config_put(root, "intermediate_size", json_integer(config->ffn_width));
    config_put(root, "num_hidden_layers", json_integer(config->layers));
    config_put(root, "num_attention_heads", json_integer(config->heads));
    config_put(root, "num_key_value_heads", json_integer(config->kv_heads));
    config_put(root, "head_dim", json_integer(config->head_width));
    config_put(root, "hidden_act", json_string("silu"));
    config_put(root, "max_position_embeddings", json_integer(config->context));
    config_put(root, "rms_norm_eps", json_real(config->norm_eps));
    config_put(root, "attention_bias", json_false());
    config_put(root, "num_experts_per_tok", json_integer(config->choices));
    config_put(root, "router_aux_loss_coef", json_real(config->balance_loss));
    config_put_rope(root, config);
}

static bool is_mixtral(const struct model_config *c)
{
    return !c->qk_norm && !c->gate_before && c->shared_experts == 0;
}

static int read_mixtral(json_t *root, struct model_config *out, struct err *err)
{
    if (config_read_size(root, "num_local_experts", 8, &out->experts, err) < 0 ||
        config_expect_null(root, "sliding_window", err) < 0)
        return -1;
    return read_common(root, out, err);
}

static void put_mixtral(json_t *root, const struct model_config *config)
{
    put_common(root, config);
    config_put(root, "num_local_experts", json_integer(config->experts));
    config_put(root, "sliding_window", json_null());
}

static const char *mixtral_architecture(const struct model_config *config)
{
    (void)config;
    return "MixtralForCausalLM";
}

const struct config_format config_mixtral = {
    .model_type = "mixtral", .family = MODEL_MOE, .architecture = mixtral_architecture,
    .holds = is_mixtral, .read = read_mixtral, .put = put_mixtral,
};

static bool is_olmoe(const struct model_config *c)
{
    return c->qk_norm && c->shared_experts == 0 && c->heads * c->head_width == c->width;
}

static int read_olmoe(json_t *root, struct model_config *out, struct err *err)
{
    bool after = false;

    if (config_read_size(root, "num_experts", 64, &out->experts, err) < 0 ||
        config_read_bool(root, "norm_topk_prob", false, &after, err) < 0 ||
        config_expect_null(root, "clip_qkv", err) < 0)
        return -1;
    out->qk_norm = true;
    out->gate_before = !after;
    return read_common(root, out, err);
}

static void put_olmoe(json_t *root, const struct model_config *config)
{
    put_common(root, config);
    config_put(root, "num_experts", json_integer(config->experts));
    config_put(root, "norm_topk_prob", json_boolean(!config->gate_before));
    config_put(root, "clip_qkv", json_null());
}

static const char *olmoe_architecture(const struct model_config *config)
{
    (void)config;
    return "OlmoeForCausalLM";
}

const struct config_format config_olmoe = {
    .model_type = "olmoe", .family = MODEL_MOE, .architecture = olmoe_architecture,
    .holds = is_olmoe, .read = read_olmoe, .put = put_olmoe,
};

/* Our own: shared experts, or gates before the choice without the norms of OLMoE. */
static int read_own(json_t *root, struct model_config *out, struct err *err)
{
    json_t *shared = json_object_get(root, "num_shared_experts");

    if (config_read_size(root, "num_experts", 8, &out->experts, err) < 0 ||
        config_read_bool(root, "gate_before_choice", false, &out->gate_before, err) < 0 ||
        config_read_bool(root, "qk_norm", false, &out->qk_norm, err) < 0)
        return -1;
    if (!json_is_integer(shared) || json_integer_value(shared) < 0 ||
        json_integer_value(shared) > 64)
        return err_set(err, ERR_INVALID, "num_shared_experts is not 0 to 64");
    out->shared_experts = json_integer_value(shared);
    return read_common(root, out, err);
}

static void put_own(json_t *root, const struct model_config *config)
{
    put_common(root, config);
    config_put(root, "num_experts", json_integer(config->experts));
    config_put(root, "num_shared_experts", json_integer(config->shared_experts));
    config_put(root, "gate_before_choice", json_boolean(config->gate_before));
    config_put(root, "qk_norm", json_boolean(config->qk_norm));
}

static const char *own_architecture(const struct model_config *config)
{
    (void)config;
    return "AthanorMoeForCausalLM";
}

const struct config_format config_moe = {
    .model_type = "athanor_moe", .family = MODEL_MOE, .architecture = own_architecture,
    .read = read_own, .put = put_own,
};
