/* model_config.c - the families, and configurations made complete or refused. */
#include "worker/engine/models/table.h"

#include <stdio.h>
#include <string.h>

/* Sizes stay far from overflow: 2^40 weights are 4 TiB. */
#define WEIGHTS_MAX ((int64_t)1 << 40)

static const struct model_table *const model_tables[MODEL_FAMILY_END] = {
    [MODEL_GPT2] = &model_table_gpt2,
    [MODEL_LLAMA] = &model_table_llama,
    [MODEL_BERT] = &model_table_bert,
    [MODEL_KONA] = &model_table_kona,
    [MODEL_MOE] = &model_table_moe,
    [MODEL_TRANSNORMER] = &model_table_transnormer,
    [MODEL_T5] = &model_table_t5,
    [MODEL_OPT] = &model_table_opt,
};

const struct model_table *model_table_of(enum model_family family)
{
    CHECK(family > 0 && family < MODEL_FAMILY_END);
    return model_tables[family];
}

bool model_is_end(const struct model_config *config, int32_t stop_token, int32_t token)
{
    bool is_end = token == stop_token;

    for (int64_t i = 0; i < config->end_count && stop_token >= 0; i++)
        is_end = is_end || token == config->end_token[i];
    return is_end;
}

int64_t model_end_count(const struct model_config *config, int32_t stop_token)
{
    int64_t count = stop_token >= 0;

    for (int64_t i = 0; i < config->end_count && stop_token >= 0; i++)
        count += config->end_token[i] != stop_token;
    return count;
}

const char *model_family_name(enum model_family family)
{
    return model_table_of(family)->name;
}

int model_family_parse(const char *name, enum model_family *out, struct err *err)
{
    char known[200] = "";

    for (int i = 1; i < MODEL_FAMILY_END; i++) {
        size_t used = strlen(known);

        if (strcmp(model_tables[i]->name, name) == 0) {
            *out = (enum model_family)i;
            return 0;
        }
        snprintf(known + used, sizeof known - used, "%s%s", i > 1 ? ", " : "",
                 model_tables[i]->name);
    }
    return err_set(err, ERR_INVALID, "model family '%s' is unknown, expected one of %s", name,
                   known);
}

static void fill_defaults(struct model_config *c)
{
    if (c->kv_heads == 0)
        c->kv_heads = c->heads;
    if (c->head_width == 0 && c->heads > 0)
        c->head_width = c->width / c->heads;
    if (c->ffn_width == 0)
        c->ffn_width = 4 * c->width;
    if (c->norm_eps == 0)
        c->norm_eps = 1e-5;
    if (c->rope_theta == 0)
        c->rope_theta = 10000;
    if (c->init_std == 0)
        c->init_std = 0.02;
}

int model_size_check(const char *name, int64_t value, int64_t most, struct err *err)
{
    if (value >= 1 && value <= most)
        return 0;
    return err_set(err, ERR_INVALID, "model %s is %lld, expected 1..%lld", name, (long long)value,
                   (long long)most);
}

int model_plain_heads_check(const struct model_config *c, struct err *err)
{
    const char *name = model_family_name(c->family);

    if (c->kv_heads != c->heads)
        return err_set(err, ERR_INVALID,
                       "%s has no grouped heads: kv_heads is %lld, expected %lld", name,
                       (long long)c->kv_heads, (long long)c->heads);
    if (c->heads * c->head_width != c->width)
        return err_set(err, ERR_INVALID, "%s width is %lld, expected a multiple of heads %lld",
                       name, (long long)c->width, (long long)c->heads);
    return 0;
}

int model_tied_check(const struct model_config *c, struct err *err)
{
    if (c->tied)
        return 0;
    return err_set(err, ERR_INVALID, "%s has a tied head: tied is false, expected true",
                   model_family_name(c->family));
}

static int check_shape(const struct model_config *c, struct err *err)
{
    if (model_size_check("vocab_size", c->vocab_size, 1 << 24, err) < 0 ||
        model_size_check("context", c->context, 1 << 24, err) < 0 ||
        model_size_check("width", c->width, 1 << 20, err) < 0 ||
        model_size_check("layers", c->layers, 4096, err) < 0 ||
        model_size_check("heads", c->heads, 4096, err) < 0 ||
        model_size_check("kv_heads", c->kv_heads, c->heads, err) < 0 ||
        model_size_check("head_width", c->head_width, 1 << 16, err) < 0 ||
        model_size_check("ffn_width", c->ffn_width, 1 << 22, err) < 0)
        return -1;
    if (c->heads % c->kv_heads != 0)
        return err_set(err, ERR_INVALID, "model kv_heads is %lld, expected a divisor of heads %lld",
                       (long long)c->kv_heads, (long long)c->heads);
    return 0;
}

int model_config_complete(struct model_config *config, struct err *err)
{
    struct model_config c = *config;
    const struct model_table *table;

    if (c.family <= 0 || c.family >= MODEL_FAMILY_END)
        return err_set(err, ERR_INVALID, "model family is not set");
    table = model_table_of(c.family);
    if (table->defaults)
        table->defaults(&c);
    fill_defaults(&c);
    if (check_shape(&c, err) < 0 || (table->check && table->check(&c, err) < 0))
        return -1;
    if (table->rotary && c.head_width % 2 != 0)
        return err_set(err, ERR_INVALID, "%s head_width is %lld, expected an even number",
                       table->name, (long long)c.head_width);
    if (c.rope.kind != ROPE_PLAIN && (!table->rotary || c.alibi))
        return err_set(err, ERR_INVALID, "a %s%s has no rotary angles to scale", table->name,
                       c.alibi ? " of positions alibi" : "");
    if (rope_scaling_check(&c.rope, err) < 0)
        return err_wrap(err, "model rope_scaling");
    if (!(c.dropout >= 0) || c.dropout >= 1)
        return err_set(err, ERR_INVALID, "model dropout is %g, expected 0 to below 1", c.dropout);
    if (!(c.norm_eps > 0))
        return err_set(err, ERR_INVALID, "model norm_eps is %g, expected above 0", c.norm_eps);
    if (!(c.rope_theta > 1))
        return err_set(err, ERR_INVALID, "model rope_theta is %g, expected above 1", c.rope_theta);
    if (!(c.init_std > 0))
        return err_set(err, ERR_INVALID, "model init_std is %g, expected above 0", c.init_std);
    if (layout_count(table, &c) > WEIGHTS_MAX)
        return err_set(err, ERR_LIMIT, "model has %lld weights, expected at most %lld",
                       (long long)layout_count(table, &c), (long long)WEIGHTS_MAX);
    *config = c;
    return 0;
}

int64_t model_weight_count(const struct model_config *config)
{
    struct model_config whole = *config;

    whole.expert_ranks = 0;
    return layout_count(model_table_of(config->family), &whole);
}

int64_t model_active_count(const struct model_config *c)
{
    int64_t idle = c->family == MODEL_MOE ? c->layers * (c->experts - c->choices) : 0;

    return model_weight_count(c) - idle * 3 * c->width * c->ffn_width;
}

struct heads model_heads(const struct model_config *config)
{
    return (struct heads){config->heads, config->kv_heads, config->head_width};
}
