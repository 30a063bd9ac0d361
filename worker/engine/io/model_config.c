/* model_config.c - config.json in both directions; see model_files.h. */
#include "common/base/buf.h"
#include "common/base/file.h"
#include "common/base/mem.h"
#include "worker/engine/io/model_files.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#define CONFIG_BYTES_MAX ((size_t)1 << 20)
#define SIZE_MAX_ACCEPTED ((json_int_t)1 << 31)

static bool is_absent(json_t *value)
{
    return !value || json_is_null(value);
}

/* A positive size; `fallback` when absent or null, which is refused when fallback is 0. */
static int read_size(json_t *root, const char *field, int64_t fallback, int64_t *out,
                     struct err *err)
{
    json_t *value = json_object_get(root, field);
    if (is_absent(value) && fallback > 0) {
        *out = fallback;
        return 0;
    }
    if (!json_is_integer(value) || json_integer_value(value) < 1 ||
        json_integer_value(value) > SIZE_MAX_ACCEPTED)
        return err_set(err, ERR_INVALID, "%s is %s; 1 to %lld is accepted", field,
                       is_absent(value) ? "missing" : "not a size",
                       (long long)SIZE_MAX_ACCEPTED);
    *out = json_integer_value(value);
    return 0;
}

static int read_positive(json_t *root, const char *field, double fallback, double *out,
                         struct err *err)
{
    json_t *value = json_object_get(root, field);
    if (is_absent(value)) {
        *out = fallback;
        return 0;
    }
    if (!json_is_number(value) || !(json_number_value(value) > 0))
        return err_set(err, ERR_INVALID, "%s is not a positive number", field);
    *out = json_number_value(value);
    return 0;
}

static int read_bool(json_t *root, const char *field, bool fallback, bool *out, struct err *err)
{
    json_t *value = json_object_get(root, field);
    if (!is_absent(value) && !json_is_boolean(value))
        return err_set(err, ERR_INVALID, "%s is not true or false", field);
    *out = is_absent(value) ? fallback : json_is_true(value);
    return 0;
}

/* Newer files may list several end tokens; the first is the one that is generated. */
static int read_token(json_t *root, const char *field, int64_t vocab_size, int32_t *out,
                      struct err *err)
{
    json_t *value = json_object_get(root, field);
    if (json_is_array(value))
        value = json_array_get(value, 0);
    if (is_absent(value)) {
        *out = -1;
        return 0;
    }
    if (!json_is_integer(value) || json_integer_value(value) < 0 ||
        json_integer_value(value) >= SIZE_MAX_ACCEPTED)
        return err_set(err, ERR_INVALID, "%s is not a token id", field);
    /* transformers' own tiny examples keep 50256 with a small vocabulary: no such token. */
    *out = json_integer_value(value) < vocab_size ? (int32_t)json_integer_value(value) : -1;
    return 0;
}

static int expect_text(json_t *root, const char *field, const char *fallback, const char *accepted,
                       const char *also_accepted, struct err *err)
{
    json_t *value = json_object_get(root, field);
    const char *text = is_absent(value) ? fallback : json_string_value(value);
    if (text && (strcmp(text, accepted) == 0 || strcmp(text, also_accepted) == 0))
        return 0;
    return err_set(err, ERR_INVALID, "%s is %s; %s is accepted", field,
                   text ? text : "not a text", accepted);
}

static int expect_bool(json_t *root, const char *field, bool accepted, struct err *err)
{
    bool value;
    if (read_bool(root, field, accepted, &value, err) < 0)
        return -1;
    if (value != accepted)
        return err_set(err, ERR_INVALID, "%s is %s; %s is accepted", field,
                       value ? "true" : "false", accepted ? "true" : "false");
    return 0;
}

static int expect_null(json_t *root, const char *field, struct err *err)
{
    if (!is_absent(json_object_get(root, field)))
        return err_set(err, ERR_INVALID, "%s is set; null is accepted", field);
    return 0;
}

static int read_gpt2(json_t *root, struct model_config *out, struct err *err)
{
    if (read_size(root, "n_positions", 1024, &out->context, err) < 0 ||
        read_size(root, "n_embd", 768, &out->width, err) < 0 ||
        read_size(root, "n_layer", 12, &out->layers, err) < 0 ||
        read_size(root, "n_head", 12, &out->heads, err) < 0 ||
        read_size(root, "n_inner", 4 * out->width, &out->ffn_width, err) < 0 ||
        read_positive(root, "layer_norm_epsilon", 1e-5, &out->norm_eps, err) < 0 ||
        read_bool(root, "tie_word_embeddings", true, &out->tied, err) < 0)
        return -1;
    out->kv_heads = out->heads;
    if (expect_text(root, "activation_function", "gelu_new", "gelu_new", "gelu_pytorch_tanh",
                    err) < 0 ||
        expect_bool(root, "scale_attn_weights", true, err) < 0 ||
        expect_bool(root, "scale_attn_by_inverse_layer_idx", false, err) < 0 ||
        expect_bool(root, "add_cross_attention", false, err) < 0)
        return -1;
    if (!out->tied)
        return err_set(err, ERR_INVALID, "tie_word_embeddings is false; true is accepted for gpt2");
    return 0;
}

/* The rotary base: at the top level (4.x) and in rope_parameters (5.x). A reader that finds
 * none would use its own default and give plausible, wrong numbers: so absence is refused. */
static int read_rope(json_t *root, double *out, struct err *err)
{
    json_t *top = json_object_get(root, "rope_theta");
    json_t *nested = json_object_get(root, "rope_parameters");
    json_t *inner = json_object_get(nested, "rope_theta");
    if (!is_absent(nested) &&
        expect_text(nested, "rope_type", "default", "default", "default", err) < 0)
        return err_wrap(err, "rope_parameters");
    if (expect_null(root, "rope_scaling", err) < 0)
        return -1;
    if (is_absent(top) && is_absent(inner))
        return err_set(err, ERR_INVALID, "rope_theta is missing, at the top level and in "
                       "rope_parameters; at least one is needed");
    json_t *value = is_absent(top) ? inner : top;
    if (!json_is_number(value) || !(json_number_value(value) > 0))
        return err_set(err, ERR_INVALID, "rope_theta is not a positive number");
    *out = json_number_value(value);
    if (!is_absent(top) && !is_absent(inner) && json_number_value(inner) != *out)
        return err_set(err, ERR_INVALID, "rope_theta is %g at the top level but %g in "
                       "rope_parameters", *out, json_number_value(inner));
    return 0;
}

static int read_llama(json_t *root, struct model_config *out, struct err *err)
{
    if (read_size(root, "max_position_embeddings", 2048, &out->context, err) < 0 ||
        read_size(root, "hidden_size", 0, &out->width, err) < 0 ||
        read_size(root, "num_hidden_layers", 0, &out->layers, err) < 0 ||
        read_size(root, "num_attention_heads", 0, &out->heads, err) < 0 ||
        read_size(root, "num_key_value_heads", out->heads, &out->kv_heads, err) < 0 ||
        read_size(root, "intermediate_size", 0, &out->ffn_width, err) < 0 ||
        read_positive(root, "rms_norm_eps", 1e-6, &out->norm_eps, err) < 0 ||
        read_bool(root, "tie_word_embeddings", false, &out->tied, err) < 0 ||
        read_rope(root, &out->rope_theta, err) < 0)
        return -1;
    if (read_size(root, "head_dim", out->width / out->heads ? out->width / out->heads : 1,
                  &out->head_width, err) < 0)
        return -1;
    if (expect_text(root, "hidden_act", "silu", "silu", "swish", err) < 0 ||
        expect_bool(root, "attention_bias", false, err) < 0 ||
        expect_bool(root, "mlp_bias", false, err) < 0 ||
        expect_null(root, "sliding_window", err) < 0)
        return -1;
    if (out->heads % out->kv_heads != 0)
        return err_set(err, ERR_INVALID, "num_attention_heads %lld is not a multiple of "
                       "num_key_value_heads %lld", (long long)out->heads,
                       (long long)out->kv_heads);
    return 0;
}

static int read_config(json_t *root, struct model_config *out, struct err *err)
{
    const char *type = json_string_value(json_object_get(root, "model_type"));
    if (!type || (strcmp(type, "gpt2") != 0 && strcmp(type, "llama") != 0))
        return err_set(err, ERR_INVALID, "model_type is %s; gpt2 and llama are accepted",
                       type ? type : "missing");
    out->family = strcmp(type, "gpt2") == 0 ? MODEL_GPT2 : MODEL_LLAMA;
    if (read_size(root, "vocab_size", 0, &out->vocab_size, err) < 0 ||
        read_positive(root, "initializer_range", 0.02, &out->init_std, err) < 0 ||
        read_token(root, "bos_token_id", out->vocab_size, &out->bos_token, err) < 0 ||
        read_token(root, "eos_token_id", out->vocab_size, &out->eos_token, err) < 0)
        return -1;
    if ((out->family == MODEL_GPT2 ? read_gpt2 : read_llama)(root, out, err) < 0)
        return -1;
    bool own_heads = out->family == MODEL_LLAMA && !is_absent(json_object_get(root, "head_dim"));
    if (!own_heads && out->width % out->heads != 0)
        return err_set(err, ERR_INVALID, "the width %lld is not a multiple of %lld heads",
                       (long long)out->width, (long long)out->heads);
    if (out->family == MODEL_GPT2)
        out->head_width = out->width / out->heads;
    if (out->family == MODEL_LLAMA && out->head_width % 2 != 0)
        return err_set(err, ERR_INVALID, "head_dim is %lld; rotary embeddings need an even one",
                       (long long)out->head_width);
    return 0;
}

int model_config_parse(const char *json, size_t length, struct model_config *out, struct err *err)
{
    json_error_t why;
    struct model_config config = {0};
    json_t *root = json_loadb(json, length, JSON_REJECT_DUPLICATES, &why);
    if (!root)
        return err_set(err, ERR_PROTOCOL, "line %d column %d: %s", why.line, why.column, why.text);
    int rc = json_is_object(root) ? read_config(root, &config, err)
                                  : err_set(err, ERR_PROTOCOL, "not a JSON object");
    json_decref(root);
    if (rc == 0)
        *out = config;
    return rc;
}

int model_config_read(const char *folder, struct model_config *out, struct err *err)
{
    char *path = mem_printf("%s/config.json", folder), *bytes = NULL;
    size_t length;
    int rc = file_read(path, CONFIG_BYTES_MAX, &bytes, &length, err);
    if (rc == 0 && model_config_parse(bytes, length, out, err) < 0)
        rc = err_wrap(err, "'%s'", path);
    mem_free(bytes);
    mem_free(path);
    return rc;
}

static json_t *token_json(int32_t token)
{
    return token < 0 ? json_null() : json_integer(token);
}

static void put(json_t *root, const char *field, json_t *value)
{
    CHECK(value && json_object_set_new(root, field, value) == 0);
}

static void put_gpt2(json_t *root, const struct model_config *config)
{
    put(root, "n_positions", json_integer(config->context));
    put(root, "n_ctx", json_integer(config->context));
    put(root, "n_embd", json_integer(config->width));
    put(root, "n_layer", json_integer(config->layers));
    put(root, "n_head", json_integer(config->heads));
    put(root, "n_inner", json_integer(config->ffn_width));
    put(root, "activation_function", json_string("gelu_new"));
    put(root, "layer_norm_epsilon", json_real(config->norm_eps));
    static const char *const dropouts[] = {"attn_pdrop", "embd_pdrop", "resid_pdrop"};
    for (size_t i = 0; i < ARRAY_COUNT(dropouts); i++)
        put(root, dropouts[i], json_real(0));
}

static void put_llama(json_t *root, const struct model_config *config)
{
    put(root, "hidden_size", json_integer(config->width));
    put(root, "intermediate_size", json_integer(config->ffn_width));
    put(root, "num_hidden_layers", json_integer(config->layers));
    put(root, "num_attention_heads", json_integer(config->heads));
    put(root, "num_key_value_heads", json_integer(config->kv_heads));
    put(root, "head_dim", json_integer(config->head_width));
    put(root, "hidden_act", json_string("silu"));
    put(root, "max_position_embeddings", json_integer(config->context));
    put(root, "rms_norm_eps", json_real(config->norm_eps));
    put(root, "attention_bias", json_false());
    put(root, "mlp_bias", json_false());
    put(root, "rope_theta", json_real(config->rope_theta));
    put(root, "rope_scaling", json_null());
    put(root, "rope_parameters", json_pack("{s:s, s:f}", "rope_type", "default", "rope_theta",
                                           config->rope_theta));
}

char *model_config_text(const struct model_config *config)
{
    bool gpt2 = config->family == MODEL_GPT2;
    json_t *root = json_object();
    CHECK(root);
    put(root, "architectures", json_pack("[s]", gpt2 ? "GPT2LMHeadModel" : "LlamaForCausalLM"));
    put(root, "model_type", json_string(gpt2 ? "gpt2" : "llama"));
    put(root, "vocab_size", json_integer(config->vocab_size));
    if (gpt2)
        put_gpt2(root, config);
    else
        put_llama(root, config);
    put(root, "initializer_range", json_real(config->init_std));
    put(root, "tie_word_embeddings", json_boolean(config->tied));
    put(root, "bos_token_id", token_json(config->bos_token));
    put(root, "eos_token_id", token_json(config->eos_token));
    put(root, "torch_dtype", json_string("float32"));
    put(root, "dtype", json_string("float32"));
    char *dumped = json_dumps(root, JSON_INDENT(2) | JSON_REAL_PRECISION(17));
    CHECK(dumped);
    char *text = mem_printf("%s\n", dumped);
    free(dumped);
    json_decref(root);
    return text;
}
