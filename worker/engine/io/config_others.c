/* config_others.c - config.json of TransNormerLLM and T5. */
#include "worker/engine/io/config_parts.h"

#include <string.h>

static const char *const lrpe_names[] = {"first", "none", "all"};
static const char *const decay_names[] = {"alibi", "paper", "none"};

/* One of three names; the first when absent. */
static int read_name(json_t *root, const char *field, const char *const names[3], int *out,
                     struct err *err)
{
    json_t *value = json_object_get(root, field);

    *out = 0;
    if (config_is_absent(value))
        return 0;
    for (int i = 0; json_is_string(value) && i < 3; i++)
        if (strcmp(names[i], json_string_value(value)) == 0) {
            *out = i;
            return 0;
        }
    return err_set(err, ERR_INVALID, "%s is not one of %s, %s, %s", field, names[0], names[1],
                   names[2]);
}

/* The released files list, per layer, whether it has angles: all, none, or the first alone. */
static int read_angles(json_t *root, struct model_config *out, struct err *err)
{
    json_t *list = json_object_get(root, "linear_use_lrpe_list"), *value;
    size_t index, count = 0;
    int lrpe;

    if (config_is_absent(list)) {
        if (read_name(root, "lrpe", lrpe_names, &lrpe, err) < 0)
            return -1;
        out->lrpe = (enum model_lrpe)lrpe;
        return 0;
    }
    json_array_foreach(list, index, value)
        count += json_integer_value(value) != 0;
    if ((int64_t)json_array_size(list) != out->layers ||
        (count > 1 && count != json_array_size(list)) ||
        (count == 1 && out->layers > 1 && json_integer_value(json_array_get(list, 0)) == 0))
        return err_set(err, ERR_INVALID, "linear_use_lrpe_list is not all, none or the first of "
                       "%lld layers", (long long)out->layers);
    out->lrpe = count == 0 ? LRPE_NONE : count == 1 && out->layers > 1 ? LRPE_FIRST : LRPE_ALL;
    return 0;
}

static int read_transnormer(json_t *root, struct model_config *out, struct err *err)
{
    int decay;

    if (config_read_size(root, "max_position_embeddings", 2048, &out->context, err) < 0 ||
        config_read_size(root, "decoder_embed_dim", 0, &out->width, err) < 0 ||
        config_read_size(root, "decoder_layers", 0, &out->layers, err) < 0 ||
        config_read_size(root, "decoder_attention_heads", 0, &out->heads, err) < 0 ||
        config_read_size(root, "glu_dim", 0, &out->ffn_width, err) < 0 ||
        config_read_bool(root, "no_scale_embedding", false, &out->plain_embedding, err) < 0 ||
        config_read_bool(root, "ungated", false, &out->ungated, err) < 0 ||
        config_read_bool(root, "tie_word_embeddings", true, &out->tied, err) < 0 ||
        config_read_positive(root, "norm_eps", 1e-6, &out->norm_eps, err) < 0 ||
        read_angles(root, out, err) < 0 || read_name(root, "decay", decay_names, &decay, err) < 0)
        return -1;
    out->decay = (enum model_decay)decay;
    out->kv_heads = out->heads;
    if (config_expect_text(root, "linear_act_fun", "silu", "silu", "swish", err) < 0 ||
        config_expect_text(root, "norm_type", "simplermsnorm", "simplermsnorm", "srmsnorm",
                           err) < 0)
        return -1;
    return 0;
}

static void put_transnormer(json_t *root, const struct model_config *config)
{
    json_t *list = json_array();

    config_put(root, "max_position_embeddings", json_integer(config->context));
    config_put(root, "decoder_embed_dim", json_integer(config->width));
    config_put(root, "decoder_layers", json_integer(config->layers));
    config_put(root, "decoder_attention_heads", json_integer(config->heads));
    config_put(root, "hidden_dim", json_integer(config->width));
    config_put(root, "glu_dim", json_integer(config->ffn_width));
    config_put(root, "no_scale_embedding", json_boolean(config->plain_embedding));
    config_put(root, "ungated", json_boolean(config->ungated));
    config_put(root, "norm_eps", json_real(config->norm_eps));
    config_put(root, "linear_act_fun", json_string("silu"));
    config_put(root, "norm_type", json_string("simplermsnorm"));
    for (int64_t i = 0; i < config->layers; i++)
        json_array_append_new(list, json_integer(config->lrpe == LRPE_ALL ||
                                                 (config->lrpe == LRPE_FIRST && i == 0)));
    config_put(root, "linear_use_lrpe_list", list);
    config_put(root, "decay", json_string(decay_names[config->decay]));
}

static const char *transnormer_architecture(const struct model_config *config)
{
    (void)config;
    return "TransnormerForCausalLM";
}

const struct config_format config_transnormer = {
    .model_type = "transnormer", .family = MODEL_TRANSNORMER,
    .architecture = transnormer_architecture, .read = read_transnormer, .put = put_transnormer,
};

/* "relu", "gated-gelu" (which means the tanh form), "gated-silu", …; empty: relu. */
static int read_feed(json_t *root, struct model_config *out, struct err *err)
{
    json_t *value = json_object_get(root, "feed_forward_proj");
    const char *name = config_is_absent(value) ? "relu" : json_string_value(value);
    static const struct {
        const char *name;
        bool gated;
        enum activation activation;
    } feeds[] = {{"relu", false, ACTIVATION_RELU},
                 {"gelu", false, ACTIVATION_GELU},
                 {"gated-gelu", true, ACTIVATION_GELU_TANH},
                 {"gated-silu", true, ACTIVATION_SILU},
                 {"gated-relu", true, ACTIVATION_RELU}};

    for (size_t i = 0; name && i < ARRAY_COUNT(feeds); i++)
        if (strcmp(feeds[i].name, name) == 0) {
            out->gated = feeds[i].gated;
            out->activation = feeds[i].activation;
            return 0;
        }
    return err_set(err, ERR_INVALID, "feed_forward_proj is %s; relu, gelu, gated-gelu, gated-silu "
                   "and gated-relu are accepted", name ? name : "not a text");
}

static int read_t5(json_t *root, struct model_config *out, struct err *err)
{
    if (config_read_size(root, "n_positions", 512, &out->context, err) < 0 ||
        config_read_size(root, "d_model", 512, &out->width, err) < 0 ||
        config_read_size(root, "d_kv", 64, &out->head_width, err) < 0 ||
        config_read_size(root, "d_ff", 2048, &out->ffn_width, err) < 0 ||
        config_read_size(root, "num_layers", 6, &out->layers, err) < 0 ||
        config_read_size(root, "num_decoder_layers", out->layers, &out->decoder_layers, err) < 0 ||
        config_read_size(root, "num_heads", 8, &out->heads, err) < 0 ||
        config_read_size(root, "relative_attention_num_buckets", 32, &out->buckets, err) < 0 ||
        config_read_size(root, "relative_attention_max_distance", 128, &out->bucket_span,
                         err) < 0 ||
        config_read_positive(root, "layer_norm_epsilon", 1e-6, &out->norm_eps, err) < 0 ||
        config_read_bool(root, "tie_word_embeddings", true, &out->tied, err) < 0)
        return -1;
    out->kv_heads = out->heads;
    return read_feed(root, out, err);
}

static void put_t5(json_t *root, const struct model_config *config)
{
    const char *feed = config->activation == ACTIVATION_RELU   ? "relu"
                       : config->activation == ACTIVATION_SILU ? "silu"
                                                               : "gelu";
    char name[24];

    snprintf(name, sizeof name, "%s%s", config->gated ? "gated-" : "", feed);
    config_put(root, "n_positions", json_integer(config->context));
    config_put(root, "d_model", json_integer(config->width));
    config_put(root, "d_kv", json_integer(config->head_width));
    config_put(root, "d_ff", json_integer(config->ffn_width));
    config_put(root, "num_layers", json_integer(config->layers));
    config_put(root, "num_decoder_layers", json_integer(config->decoder_layers));
    config_put(root, "num_heads", json_integer(config->heads));
    config_put(root, "relative_attention_num_buckets", json_integer(config->buckets));
    config_put(root, "relative_attention_max_distance", json_integer(config->bucket_span));
    config_put(root, "layer_norm_epsilon", json_real(config->norm_eps));
    config_put(root, "feed_forward_proj", json_string(name));
    config_put(root, "is_encoder_decoder", json_true());
    config_put(root, "dropout_rate", json_real(0));
    config_put(root, "pad_token_id", json_integer(0));
    config_put(root, "decoder_start_token_id", json_integer(0));
}

static const char *t5_architecture(const struct model_config *config)
{
    (void)config;
    return "T5ForConditionalGeneration";
}

const struct config_format config_t5 = {
    .model_type = "t5", .family = MODEL_T5, .architecture = t5_architecture, .read = read_t5,
    .put = put_t5,
};
