/* model_config.c - config.json in both directions; see model_files.h. */
#include "common/base/buf.h"
#include "common/base/file.h"
#include "common/base/mem.h"
#include "worker/engine/io/config_parts.h"
#include "worker/engine/io/model_files.h"

#include <stdlib.h>
#include <string.h>

#define CONFIG_BYTES_MAX ((size_t)1 << 20)

static const struct config_format *const formats[] = {
    &config_gpt2,    &config_llama, &config_bert, &config_kona,        &config_mixtral,
    &config_olmoe, &config_moe,   &config_transnormer, &config_t5,
    &config_mistral, &config_qwen2, &config_alibi, &config_roberta, &config_opt,
};

static const struct config_format *format_named(const char *model_type)
{
    for (size_t i = 0; i < ARRAY_COUNT(formats); i++)
        if (strcmp(formats[i]->model_type, model_type) == 0)
            return formats[i];
    return NULL;
}

static const struct config_format *format_of(const struct model_config *config)
{
    for (size_t i = 0; i < ARRAY_COUNT(formats); i++)
        if (formats[i]->family == config->family &&
            (!formats[i]->holds || formats[i]->holds(config)))
            return formats[i];
    CHECK(!"every configuration has a format");
    return NULL;
}

static int refuse_type(const char *type, struct err *err)
{
    struct buf known = {0};

    for (size_t i = 0; i < ARRAY_COUNT(formats); i++)
        buf_printf(&known, "%s%s", i ? ", " : "", formats[i]->model_type);
    err_set(err, ERR_INVALID, "model_type is %s; %s are accepted", type ? type : "missing",
            buf_text(&known));
    buf_done(&known);
    return -1;
}

static int check_heads(json_t *root, struct model_config *out, struct err *err)
{
    bool own = !config_is_absent(json_object_get(root, "head_dim")) ||
               !config_is_absent(json_object_get(root, "d_kv"));

    if (!own && out->width % out->heads != 0)
        return err_set(err, ERR_INVALID, "the width %lld is not a multiple of %lld heads",
                       (long long)out->width, (long long)out->heads);
    if (out->head_width == 0)
        out->head_width = out->width / out->heads;
    return 0;
}

static int read_pad(json_t *root, struct model_config *out, struct err *err)
{
    if (config_is_absent(json_object_get(root, "pad_token_id")))
        return 0;
    if (config_read_token(root, "pad_token_id", out->vocab_size, &out->pad_token, err) < 0)
        return -1;
    out->has_pad = out->pad_token >= 0;
    return 0;
}

static int read_config(json_t *root, struct model_config *out, struct err *err)
{
    const char *type = json_string_value(json_object_get(root, "model_type"));
    const struct config_format *format = type ? format_named(type) : NULL;

    if (!format)
        return refuse_type(type, err);
    out->family = format->family;
    out->eos_token = -1;
    if (config_read_size(root, "vocab_size", 0, &out->vocab_size, err) < 0 ||
        config_read_positive(root, "initializer_range", 0.02, &out->init_std, err) < 0 ||
        config_read_token(root, "bos_token_id", out->vocab_size, &out->bos_token, err) < 0 ||
        config_read_ends(root, out, err) < 0 || read_pad(root, out, err) < 0 ||
        format->read(root, out, err) < 0)
        return -1;
    return check_heads(root, out, err);
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

/* What transformers generates by: it counts more than config.json. */
static int read_generation(const char *folder, struct model_config *config, struct err *err)
{
    char *path = mem_printf("%s/generation_config.json", folder), *bytes = NULL;
    json_error_t why;
    size_t length;
    int rc = 0;
    if (file_exists(path))
        rc = file_read(path, CONFIG_BYTES_MAX, &bytes, &length, err);
    if (bytes) {
        json_t *root = json_loadb(bytes, length, JSON_REJECT_DUPLICATES, &why);
        rc = root ? config_read_ends(root, config, err)
                  : err_set(err, ERR_PROTOCOL, "line %d column %d: %s", why.line, why.column,
                            why.text);
        json_decref(root);
        if (rc < 0)
            err_wrap(err, "'%s'", path);
    }
    mem_free(bytes);
    mem_free(path);
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
    return rc == 0 ? read_generation(folder, out, err) : -1;
}

char *model_generation_text(const struct model_config *config)
{
    static const char *const kept[] = {"bos_token_id", "eos_token_id", "pad_token_id",
                                       "decoder_start_token_id"};
    char *whole = model_config_text(config);
    json_t *root = json_loads(whole, 0, NULL), *out = json_object();
    CHECK(root && out);
    mem_free(whole);
    for (size_t i = 0; i < ARRAY_COUNT(kept); i++) {
        json_t *value = json_object_get(root, kept[i]);
        if (!config_is_absent(value))
            json_object_set(out, kept[i], value);
    }
    char *dumped = json_dumps(out, JSON_INDENT(2));
    CHECK(dumped);
    char *text = mem_printf("%s\n", dumped);
    free(dumped);
    json_decref(root);
    json_decref(out);
    return text;
}

char *model_config_text(const struct model_config *config)
{
    const struct config_format *format = format_of(config);
    json_t *root = json_object();
    CHECK(root);
    config_put(root, "architectures", json_pack("[s]", format->architecture(config)));
    config_put(root, "model_type", json_string(format->model_type));
    config_put(root, "vocab_size", json_integer(config->vocab_size));
    format->put(root, config);
    config_put(root, "initializer_range", json_real(config->init_std));
    config_put(root, "tie_word_embeddings", json_boolean(config->tied));
    config_put(root, "bos_token_id", config_token_json(config->bos_token));
    config_put(root, "eos_token_id", config_ends_json(config));
    if (config->has_pad)
        config_put(root, "pad_token_id", json_integer(config->pad_token));
    config_put(root, "torch_dtype", json_string("float32"));
    config_put(root, "dtype", json_string("float32"));
    char *dumped = json_dumps(root, JSON_INDENT(2) | JSON_REAL_PRECISION(17));
    CHECK(dumped);
    char *text = mem_printf("%s\n", dumped);
    free(dumped);
    json_decref(root);
    return text;
}
