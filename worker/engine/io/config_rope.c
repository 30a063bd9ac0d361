/* config_rope.c - rotary angles in a config.json: their base and their scaling.
 *
 * Both stand at two places: rope_theta and rope_scaling at the top level (transformers 4.x), and
 * in rope_parameters (5.x). A reader that finds none would use its own default and give
 * plausible, wrong numbers: so an absent base, and two places that differ, are refused. */
#include "common/base/buf.h"
#include "worker/engine/io/config_parts.h"

#include <string.h>

#define ORIGINAL "original_max_position_embeddings"
#define FIELDS_MAX 5

/* What each rope_type has beside its name and rope_theta. */
static const struct rope_type {
    const char *name;
    enum rope_kind kind;
    const char *field[FIELDS_MAX + 1];
} types[] = {
    {"default", ROPE_PLAIN, {NULL}},
    {"linear", ROPE_LINEAR, {"factor"}},
    {"llama3", ROPE_LLAMA3, {"factor", "low_freq_factor", "high_freq_factor", ORIGINAL}},
    {"yarn", ROPE_YARN, {"factor", "beta_slow", "beta_fast", "attention_factor", ORIGINAL}},
};

/* Older files say type; some say both. */
static int read_type(json_t *object, const struct rope_type **out, struct err *err)
{
    json_t *value = json_object_get(object, "rope_type"), *older = json_object_get(object, "type");
    bool both = !config_is_absent(value) && !config_is_absent(older);
    if (config_is_absent(value))
        value = older;
    const char *text = config_is_absent(value) ? "default" : json_string_value(value);
    for (size_t i = 0; text && i < ARRAY_COUNT(types); i++)
        if (strcmp(types[i].name, text) == 0 && (!both || json_equal(value, older))) {
            *out = &types[i];
            return 0;
        }
    if (both && !json_equal(value, older))
        return err_set(err, ERR_INVALID, "rope_type and type differ; one of them is enough");
    return err_set(err, ERR_INVALID, "rope_type is %s; default, linear, llama3 and yarn are "
                   "accepted", text ? text : "not a text");
}

/* A field that the engine would pass over could change the angles. */
static int check_fields(json_t *object, const struct rope_type *type, bool has_theta,
                        struct err *err)
{
    struct buf known = {0};
    const char *name;
    json_t *value;
    int rc = 0;
    buf_puts(&known, "rope_type, type");
    if (has_theta)
        buf_puts(&known, ", rope_theta");
    for (size_t i = 0; type->field[i]; i++)
        buf_printf(&known, ", %s", type->field[i]);
    json_object_foreach(object, name, value) {
        bool is_known = strcmp(name, "rope_type") == 0 || strcmp(name, "type") == 0 ||
                        (has_theta && strcmp(name, "rope_theta") == 0);
        for (size_t i = 0; type->field[i]; i++)
            is_known = is_known || strcmp(name, type->field[i]) == 0;
        if (!is_known && !config_is_absent(value) && rc == 0)
            rc = err_set(err, ERR_INVALID, "%s is set; of rope_type %s are accepted: %s", name,
                         type->name, buf_text(&known));
    }
    buf_done(&known);
    return rc;
}

/* A fallback of 0: there is none. */
static int read_number(json_t *object, const char *field, double fallback, double *out,
                       struct err *err)
{
    if (fallback == 0 && config_is_absent(json_object_get(object, field)))
        return err_set(err, ERR_INVALID, "%s is missing; a positive number is accepted", field);
    return config_read_positive(object, field, fallback, out, err);
}

static int read_numbers(json_t *object, int64_t context, struct rope_scaling *out,
                        struct err *err)
{
    bool yarn = out->kind == ROPE_YARN;
    if (read_number(object, "factor", 0, &out->factor, err) < 0)
        return -1;
    if (out->kind == ROPE_LINEAR)
        return rope_scaling_check(out, err);
    if (read_number(object, yarn ? "beta_slow" : "low_freq_factor", yarn ? 1 : 0, &out->slow,
                    err) < 0 ||
        read_number(object, yarn ? "beta_fast" : "high_freq_factor", yarn ? 32 : 0, &out->fast,
                    err) < 0 ||
        config_read_size(object, ORIGINAL, yarn ? context : 0, &out->original, err) < 0)
        return -1;
    if (yarn && config_read_positive(object, "attention_factor", 0, &out->attention, err) < 0)
        return -1;
    return rope_scaling_check(out, err);
}

static int read_scaling(json_t *root, const char *field, int64_t context,
                        struct rope_scaling *out, struct err *err)
{
    bool has_theta = strcmp(field, "rope_parameters") == 0;
    json_t *object = json_object_get(root, field);
    const struct rope_type *type = &types[0];
    if (config_is_absent(object))
        return 0;
    if (!json_is_object(object))
        return err_set(err, ERR_INVALID, "%s is not an object; one with rope_type is accepted",
                       field);
    if (read_type(object, &type, err) < 0 || check_fields(object, type, has_theta, err) < 0)
        return err_wrap(err, "%s", field);
    out->kind = type->kind;
    if (type->kind != ROPE_PLAIN && read_numbers(object, context, out, err) < 0)
        return err_wrap(err, "%s of rope_type %s", field, type->name);
    return 0;
}

/* Models published for a million tokens and more have bases above 1e9. */
static int read_base(json_t *value, const char *field, double *out, struct err *err)
{
    if (config_is_absent(value))
        return 0;
    *out = json_number_value(value);
    if (!json_is_number(value) || !(*out > 1 && *out <= 1e12))
        return err_set(err, ERR_INVALID, "%s is not a number above 1, at most 1e12", field);
    return 0;
}

static int read_theta(json_t *root, double *out, struct err *err)
{
    json_t *top = json_object_get(root, "rope_theta");
    json_t *inner = json_object_get(json_object_get(root, "rope_parameters"), "rope_theta");
    if (config_is_absent(top) && config_is_absent(inner))
        return err_set(err, ERR_INVALID, "rope_theta is missing, at the top level and in "
                       "rope_parameters; at least one is needed");
    if (read_base(top, "rope_theta", out, err) < 0 ||
        read_base(inner, "rope_parameters.rope_theta", out, err) < 0)
        return -1;
    if (!config_is_absent(top))
        *out = json_number_value(top);
    if (!config_is_absent(top) && !config_is_absent(inner) && json_number_value(inner) != *out)
        return err_set(err, ERR_INVALID, "rope_theta is %g at the top level but %g in "
                       "rope_parameters", *out, json_number_value(inner));
    return 0;
}

int config_read_rope(json_t *root, struct model_config *out, struct err *err)
{
    struct rope_scaling top = {0}, inner = {0};
    bool both = !config_is_absent(json_object_get(root, "rope_scaling")) &&
                !config_is_absent(json_object_get(root, "rope_parameters"));
    if (read_scaling(root, "rope_parameters", out->context, &inner, err) < 0 ||
        read_scaling(root, "rope_scaling", out->context, &top, err) < 0 ||
        read_theta(root, &out->rope_theta, err) < 0)
        return -1;
    if (both && !rope_scaling_equal(&top, &inner))
        return err_set(err, ERR_INVALID, "rope_scaling and rope_parameters are different scalings "
                       "of rotary angles; the same, or one of them, are accepted");
    out->rope = top.kind != ROPE_PLAIN ? top : inner;
    return 0;
}

static void put_scaling(json_t *object, const struct rope_scaling *scaling)
{
    bool yarn = scaling->kind == ROPE_YARN;
    if (scaling->kind == ROPE_PLAIN)
        return;
    config_put(object, "factor", json_real(scaling->factor));
    if (scaling->kind == ROPE_LINEAR)
        return;
    config_put(object, yarn ? "beta_slow" : "low_freq_factor", json_real(scaling->slow));
    config_put(object, yarn ? "beta_fast" : "high_freq_factor", json_real(scaling->fast));
    if (yarn && scaling->attention > 0)
        config_put(object, "attention_factor", json_real(scaling->attention));
    config_put(object, ORIGINAL, json_integer(scaling->original));
}

static const char *type_name(enum rope_kind kind)
{
    for (size_t i = 0; i < ARRAY_COUNT(types); i++)
        if (types[i].kind == kind)
            return types[i].name;
    CHECK(!"the scaling has a name in files");
    return NULL;
}

void config_put_rope(json_t *root, const struct model_config *config)
{
    const char *type = type_name(config->rope.kind);
    bool scaled = config->rope.kind != ROPE_PLAIN;
    json_t *top = scaled ? json_pack("{s:s, s:s}", "rope_type", type, "type", type) : json_null();
    json_t *inner = json_pack("{s:s, s:f}", "rope_type", type, "rope_theta", config->rope_theta);
    put_scaling(top, &config->rope);
    put_scaling(inner, &config->rope);
    config_put(root, "rope_theta", json_real(config->rope_theta));
    config_put(root, "rope_scaling", top);
    config_put(root, "rope_parameters", inner);
}
