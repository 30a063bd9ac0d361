/* config_parts.c - reading and writing fields of a config.json; see config_parts.h. */
#include "worker/engine/io/config_parts.h"

#include <string.h>

#define SIZE_MAX_ACCEPTED ((json_int_t)1 << 31)

bool config_is_absent(json_t *value)
{
    return !value || json_is_null(value);
}

/* A positive size; `fallback` when absent or null, which is refused when fallback is 0. */
int config_read_size(json_t *root, const char *field, int64_t fallback, int64_t *out,
                     struct err *err)
{
    json_t *value = json_object_get(root, field);
    if (config_is_absent(value) && fallback > 0) {
        *out = fallback;
        return 0;
    }
    if (!json_is_integer(value) || json_integer_value(value) < 1 ||
        json_integer_value(value) > SIZE_MAX_ACCEPTED)
        return err_set(err, ERR_INVALID, "%s is %s; 1 to %lld is accepted", field,
                       config_is_absent(value) ? "missing" : "not a size",
                       (long long)SIZE_MAX_ACCEPTED);
    *out = json_integer_value(value);
    return 0;
}

int config_read_positive(json_t *root, const char *field, double fallback, double *out,
                         struct err *err)
{
    json_t *value = json_object_get(root, field);
    if (config_is_absent(value)) {
        *out = fallback;
        return 0;
    }
    if (!json_is_number(value) || !(json_number_value(value) > 0))
        return err_set(err, ERR_INVALID, "%s is not a number above 0", field);
    *out = json_number_value(value);
    return 0;
}

int config_read_bool(json_t *root, const char *field, bool fallback, bool *out, struct err *err)
{
    json_t *value = json_object_get(root, field);
    if (!config_is_absent(value) && !json_is_boolean(value))
        return err_set(err, ERR_INVALID, "%s is not true or false", field);
    *out = config_is_absent(value) ? fallback : json_is_true(value);
    return 0;
}

/* Newer files may list several; the first counts. */
int config_read_token(json_t *root, const char *field, int64_t vocab_size, int32_t *out,
                      struct err *err)
{
    json_t *value = json_object_get(root, field);
    if (json_is_array(value))
        value = json_array_get(value, 0);
    if (config_is_absent(value)) {
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

static int add_end(json_t *value, struct model_config *config, struct err *err)
{
    json_int_t token = json_is_integer(value) ? json_integer_value(value) : -1;
    if (token < 0 || token >= SIZE_MAX_ACCEPTED)
        return err_set(err, ERR_INVALID, "eos_token_id is neither a token id nor a list of them");
    for (int64_t i = 0; i < config->end_count; i++)
        if (config->end_token[i] == token)
            return 0;
    if (token >= config->vocab_size)
        return 0; /* as config_read_token has it */
    if (config->end_count == MODEL_ENDS_MAX)
        return err_set(err, ERR_LIMIT, "eos_token_id lists more than %d tokens", MODEL_ENDS_MAX);
    config->end_token[config->end_count++] = (int32_t)token;
    return 0;
}

int config_read_ends(json_t *root, struct model_config *out, struct err *err)
{
    json_t *value = json_object_get(root, "eos_token_id"), *one;
    struct model_config config = *out;
    size_t index;
    if (config_is_absent(value))
        return 0;
    config.end_count = 0;
    json_array_foreach(value, index, one)
        if (add_end(one, &config, err) < 0)
            return -1;
    if (!json_is_array(value) && add_end(value, &config, err) < 0)
        return -1;
    config.eos_token = config.end_count > 0 ? config.end_token[0] : -1;
    *out = config;
    return 0;
}

json_t *config_ends_json(const struct model_config *config)
{
    if (config->end_count < 2)
        return config_token_json(config->eos_token);
    json_t *list = json_array();
    for (int64_t i = 0; i < config->end_count; i++)
        json_array_append_new(list, json_integer(config->end_token[i]));
    return list;
}

int config_expect_text(json_t *root, const char *field, const char *fallback, const char *accepted,
                       const char *also_accepted, struct err *err)
{
    json_t *value = json_object_get(root, field);
    const char *text = config_is_absent(value) ? fallback : json_string_value(value);
    if (text && (strcmp(text, accepted) == 0 || strcmp(text, also_accepted) == 0))
        return 0;
    return err_set(err, ERR_INVALID, "%s is %s; %s is accepted", field,
                   text ? text : "not a text", accepted);
}

int config_expect_bool(json_t *root, const char *field, bool accepted, struct err *err)
{
    bool value;
    if (config_read_bool(root, field, accepted, &value, err) < 0)
        return -1;
    if (value != accepted)
        return err_set(err, ERR_INVALID, "%s is %s; %s is accepted", field,
                       value ? "true" : "false", accepted ? "true" : "false");
    return 0;
}

int config_expect_null(json_t *root, const char *field, struct err *err)
{
    if (!config_is_absent(json_object_get(root, field)))
        return err_set(err, ERR_INVALID, "%s is set; null is accepted", field);
    return 0;
}

static const struct {
    const char *name;
    enum activation activation;
} activations[] = { /* the first name of each is written */
    {"relu", ACTIVATION_RELU},          {"silu", ACTIVATION_SILU},
    {"swish", ACTIVATION_SILU},         {"gelu", ACTIVATION_GELU},
    {"gelu_new", ACTIVATION_GELU_TANH}, {"gelu_pytorch_tanh", ACTIVATION_GELU_TANH},
    {"tanh", ACTIVATION_TANH},
};

int config_read_activation(json_t *root, const char *field, enum activation fallback,
                           enum activation *out, struct err *err)
{
    json_t *value = json_object_get(root, field);
    if (config_is_absent(value)) {
        *out = fallback;
        return 0;
    }
    for (size_t i = 0; json_is_string(value) && i < ARRAY_COUNT(activations); i++)
        if (strcmp(activations[i].name, json_string_value(value)) == 0) {
            *out = activations[i].activation;
            return 0;
        }
    return err_set(err, ERR_INVALID, "%s is %s; relu, silu, gelu, gelu_new and tanh are accepted",
                   field, json_is_string(value) ? json_string_value(value) : "not a text");
}

const char *config_activation_name(enum activation activation)
{
    for (size_t i = 0; i < ARRAY_COUNT(activations); i++)
        if (activations[i].activation == activation)
            return activations[i].name;
    CHECK(!"the activation has a name in files");
    return NULL;
}

json_t *config_token_json(int32_t token)
{
    return token < 0 ? json_null() : json_integer(token);
}

void config_put(json_t *root, const char *field, json_t *value)
{
    CHECK(value && json_object_set_new(root, field, value) == 0);
}
