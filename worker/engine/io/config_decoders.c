/* config_decoders.c - config.json of decoders: GPT-2, OPT, Llama, Mistral, Qwen 2. */
#include "worker/engine/io/config_parts.h"

#include <string.h>

static int read_gpt2(json_t *root, struct model_config *out, struct err *err)
{
    if (config_read_size(root, "n_positions", 1024, &out->context, err) < 0 ||
        config_read_size(root, "n_embd", 768, &out->width, err) < 0 ||
        config_read_size(root, "n_layer", 12, &out->layers, err) < 0 ||
        config_read_size(root, "n_head", 12, &out->heads, err) < 0 ||
        config_read_size(root, "n_inner", 4 * out->width, &out->ffn_width, err) < 0 ||
        config_read_positive(root, "layer_norm_epsilon", 1e-5, &out->norm_eps, err) < 0 ||
        config_read_bool(root, "tie_word_embeddings", true, &out->tied, err) < 0)
        return -1;
    out->kv_heads = out->heads;
    if (config_expect_text(root, "activation_function", "gelu_new", "gelu_new", "gelu_pytorch_tanh",
                    err) < 0 ||
        config_expect_bool(root, "scale_attn_weights", true, err) < 0 ||
        config_expect_bool(root, "scale_attn_by_inverse_layer_idx", false, err) < 0 ||
        config_expect_bool(root, "add_cross_attention", false, err) < 0)
        return -1;
    if (!out->tied)
        return err_set(err, ERR_INVALID, "tie_word_embeddings is false; true is accepted for gpt2");
    return 0;
}

/* Defaults are those of OPTConfig. Files without biases or without gains (as Galactica's) would
 * need weights that are not there; layer norms have a fixed epsilon and no field for it. */
static int read_opt(json_t *root, struct model_config *out, struct err *err)
{
    bool pre_norm = true;

    if (config_read_size(root, "max_position_embeddings", 2048, &out->context, err) < 0 ||
        config_read_size(root, "hidden_size", 768, &out->width, err) < 0 ||
        config_read_size(root, "num_hidden_layers", 12, &out->layers, err) < 0 ||
        config_read_size(root, "num_attention_heads", 12, &out->heads, err) < 0 ||
        config_read_size(root, "ffn_dim", 3072, &out->ffn_width, err) < 0 ||
        config_read_size(root, "word_embed_proj_dim", out->width, &out->embed_width, err) < 0 ||
        config_read_bool(root, "do_layer_norm_before", true, &pre_norm, err) < 0 ||
        config_read_bool(root, "tie_word_embeddings", true, &out->tied, err) < 0 ||
        config_read_activation(root, "activation_function", ACTIVATION_RELU, &out->activation,
                               err) < 0)
        return -1;
    out->kv_heads = out->heads;
    out->norm_eps = 1e-5;
    out->post_norm = !pre_norm;
    if (out->embed_width == out->width)
        out->embed_width = 0;
    if (config_expect_bool(root, "enable_bias", true, err) < 0 ||
        config_expect_bool(root, "layer_norm_elementwise_affine", true, err) < 0 ||
        config_expect_bool(root, "_remove_final_layer_norm", false, err) < 0)
        return -1;
    if (!out->tied)
        return err_set(err, ERR_INVALID, "tie_word_embeddings is false; true is accepted for opt");
    return 0;
}

static int read_llama_shape(json_t *root, struct model_config *out, struct err *err)
{
    if (config_read_size(root, "max_position_embeddings", 2048, &out->context, err) < 0 ||
        config_read_size(root, "hidden_size", 0, &out->width, err) < 0 ||
        config_read_size(root, "num_hidden_layers", 0, &out->layers, err) < 0 ||
        config_read_size(root, "num_attention_heads", 0, &out->heads, err) < 0 ||
        config_read_size(root, "num_key_value_heads", out->heads, &out->kv_heads, err) < 0 ||
        config_read_size(root, "intermediate_size", 0, &out->ffn_width, err) < 0 ||
        config_read_positive(root, "rms_norm_eps", 1e-6, &out->norm_eps, err) < 0 ||
        config_read_bool(root, "tie_word_embeddings", false, &out->tied, err) < 0 ||
        config_read_rope(root, out, err) < 0)
        return -1;
    if (config_read_size(root, "head_dim", out->width / out->heads ? out->width / out->heads : 1,
                  &out->head_width, err) < 0)
        return -1;
    if (config_expect_text(root, "hidden_act", "silu", "silu", "swish", err) < 0 ||
        config_expect_bool(root, "mlp_bias", false, err) < 0)
        return -1;
    if (out->heads % out->kv_heads != 0)
        return err_set(err, ERR_INVALID, "num_attention_heads %lld is not a multiple of "
                       "num_key_value_heads %lld", (long long)out->heads,
                       (long long)out->kv_heads);
    if (out->head_width % 2 != 0)
        return err_set(err, ERR_INVALID, "head_dim is %lld; rotary embeddings need an even one",
                       (long long)out->head_width);
    return 0;
}

/* A Llama's attention_bias means four biases, of the output too. */
static int read_llama(json_t *root, struct model_config *out, struct err *err)
{
    if (config_expect_null(root, "sliding_window", err) < 0 ||
        config_expect_bool(root, "attention_bias", false, err) < 0)
        return -1;
    return read_llama_shape(root, out, err);
}

static int expect_full_attention(json_t *root, struct err *err)
{
    json_t *list = json_object_get(root, "layer_types"), *type;
    size_t layer;
    if (!config_is_absent(list) && !json_is_array(list))
        return err_set(err, ERR_INVALID, "layer_types is not a list; one of full_attention is "
                       "accepted");
    json_array_foreach(list, layer, type)
        if (!json_is_string(type) || strcmp(json_string_value(type), "full_attention") != 0)
            return err_set(err, ERR_INVALID, "layer_types[%zu] is %s; full_attention is accepted",
                           layer, json_is_string(type) ? json_string_value(type) : "not a text");
    return 0;
}

/* Its biases have no field: queries, keys and values have them, the output has none. Published
 * files name a sliding_window and switch it off beside. */
static int read_qwen2(json_t *root, struct model_config *out, struct err *err)
{
    out->qkv_bias = true;
    if (config_expect_bool(root, "use_sliding_window", false, err) < 0 ||
        expect_full_attention(root, err) < 0)
        return -1;
    return read_llama_shape(root, out, err);
}

static int read_window(json_t *root, struct model_config *out, struct err *err)
{
    if (config_is_absent(json_object_get(root, "sliding_window")))
        return 0;
    return config_read_size(root, "sliding_window", 0, &out->window, err);
}

static int read_mistral(json_t *root, struct model_config *out, struct err *err)
{
    if (read_window(root, out, err) < 0 ||
        config_expect_bool(root, "attention_bias", false, err) < 0)
        return -1;
    return read_llama_shape(root, out, err);
}

static int read_alibi(json_t *root, struct model_config *out, struct err *err)
{
    out->alibi = true;
    return read_mistral(root, out, err);
}

static void put_gpt2(json_t *root, const struct model_config *config)
{
    config_put(root, "n_positions", json_integer(config->context));
    config_put(root, "n_ctx", json_integer(config->context));
    config_put(root, "n_embd", json_integer(config->width));
    config_put(root, "n_layer", json_integer(config->layers));
    config_put(root, "n_head", json_integer(config->heads));
    config_put(root, "n_inner", json_integer(config->ffn_width));
    config_put(root, "activation_function", json_string("gelu_new"));
    config_put(root, "layer_norm_epsilon", json_real(config->norm_eps));
    static const char *const dropouts[] = {"attn_pdrop", "embd_pdrop", "resid_pdrop"};
    for (size_t i = 0; i < ARRAY_COUNT(dropouts); i++)
        config_put(root, dropouts[i], json_real(0));
}

static void put_opt(json_t *root, const struct model_config *config)
{
    static const char *const dropouts[] = {"dropout", "attention_dropout", "layerdrop"};

    config_put(root, "max_position_embeddings", json_integer(config->context));
    config_put(root, "hidden_size", json_integer(config->width));
    config_put(root, "num_hidden_layers", json_integer(config->layers));
    config_put(root, "num_attention_heads", json_integer(config->heads));
    config_put(root, "ffn_dim", json_integer(config->ffn_width));
    config_put(root, "word_embed_proj_dim",
               json_integer(config->embed_width ? config->embed_width : config->width));
    config_put(root, "do_layer_norm_before", json_boolean(!config->post_norm));
    config_put(root, "activation_function",
               json_string(config_activation_name(config->activation)));
    config_put(root, "enable_bias", json_true());
    config_put(root, "layer_norm_elementwise_affine", json_true());
    config_put(root, "_remove_final_layer_norm", json_false());
    config_put(root, "pad_token_id", json_null()); /* absent, it would be token 1 */
    for (size_t i = 0; i < ARRAY_COUNT(dropouts); i++)
        config_put(root, dropouts[i], json_real(0));
}

static void put_llama_shape(json_t *root, const struct model_config *config)
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
    config_put_rope(root, config);
}

static void put_llama(json_t *root, const struct model_config *config)
{
    put_llama_shape(root, config);
    config_put(root, "attention_bias", json_false());
    config_put(root, "mlp_bias", json_false());
}

static void put_qwen2(json_t *root, const struct model_config *config)
{
    put_llama_shape(root, config);
    config_put(root, "use_sliding_window", json_false());
    config_put(root, "sliding_window", json_null());
    config_put(root, "max_window_layers", json_integer(config->layers));
}

static const char *gpt2_architecture(const struct model_config *config)
{
    (void)config;
    return "GPT2LMHeadModel";
}

static const char *opt_architecture(const struct model_config *config)
{
    (void)config;
    return "OPTForCausalLM";
}

static const char *llama_architecture(const struct model_config *config)
{
    (void)config;
    return "LlamaForCausalLM";
}

const struct config_format config_gpt2 = {
    .model_type = "gpt2", .family = MODEL_GPT2, .architecture = gpt2_architecture,
    .read = read_gpt2, .put = put_gpt2,
};

const struct config_format config_opt = {
    .model_type = "opt", .family = MODEL_OPT, .architecture = opt_architecture,
    .read = read_opt, .put = put_opt,
};

static bool is_llama(const struct model_config *config)
{
    return config->window == 0 && !config->alibi && !config->qkv_bias;
}

static bool is_mistral(const struct model_config *config)
{
    return config->window > 0 && !config->alibi;
}

static bool is_qwen2(const struct model_config *config)
{
    return config->qkv_bias;
}

static void put_mistral(json_t *root, const struct model_config *config)
{
    put_llama(root, config);
    config_put(root, "sliding_window",
               config->window > 0 ? json_integer(config->window) : json_null());
}

static const char *mistral_architecture(const struct model_config *config)
{
    (void)config;
    return "MistralForCausalLM";
}

static const char *qwen2_architecture(const struct model_config *config)
{
    (void)config;
    return "Qwen2ForCausalLM";
}

static const char *alibi_architecture(const struct model_config *config)
{
    (void)config;
    return "AthanorAlibiForCausalLM";
}

const struct config_format config_mistral = {
    .model_type = "mistral", .family = MODEL_LLAMA, .architecture = mistral_architecture,
    .holds = is_mistral, .read = read_mistral, .put = put_mistral,
};

const struct config_format config_qwen2 = {
    .model_type = "qwen2", .family = MODEL_LLAMA, .architecture = qwen2_architecture,
    .holds = is_qwen2, .read = read_qwen2, .put = put_qwen2,
};

/* Llama with ALiBi: no class of transformers is quite this. */
const struct config_format config_alibi = {
    .model_type = "athanor_alibi", .family = MODEL_LLAMA, .architecture = alibi_architecture,
    .read = read_alibi, .put = put_mistral,
};

const struct config_format config_llama = {
    .model_type = "llama", .family = MODEL_LLAMA, .architecture = llama_architecture,
    .holds = is_llama,
    .read = read_llama, .put = put_llama,
};
