/* job.c - reading a resolved job; see job.h. */
#include "worker/recipes/job.h"

#include "common/base/mem.h"
#include "common/base/parse.h"
#include "worker/recipes/registry.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

static int check_range(const struct param *param, double value, struct err *err)
{
    if (!isfinite(value))
        return err_set(err, ERR_INVALID, "params.%s is not finite", param->name);
    if (param->min < param->max && (value < param->min || value > param->max))
        return err_set(err, ERR_INVALID, "params.%s is %.12g; %.12g to %.12g is accepted",
                       param->name, value, param->min, param->max);
    return 0;
}

static int check_choice(const struct param *param, const char *text, struct err *err)
{
    size_t length = strlen(text);
    for (const char *at = param->choices; *at;) {
        size_t word = strcspn(at, "|");
        if (word == length && memcmp(at, text, length) == 0)
            return 0;
        at += word + (at[word] == '|');
    }
    return err_set(err, ERR_INVALID, "params.%s is '%s'; one of %s is accepted", param->name, text,
                   param->choices);
}

static int refuse_type(const struct param *param, const json_t *json, struct err *err)
{
    static const char *const expected[PARAM_TYPE_END] = {
        [PARAM_INT] = "a whole number", [PARAM_FLOAT] = "a number",
        [PARAM_BOOL] = "true or false", [PARAM_STRING] = "a string",
        [PARAM_CHOICE] = "one of ",     [PARAM_LIST] = "a list of strings"};
    char *given = json_dumps(json, JSON_COMPACT | JSON_ENCODE_ANY | JSON_ENSURE_ASCII);
    CHECK(given);
    err_set(err, ERR_INVALID, "params.%s is %.40s, expected %s%s", param->name, given,
            expected[param->type], param->type == PARAM_CHOICE ? param->choices : "");
    if ((param->type == PARAM_INT || param->type == PARAM_FLOAT) && param->min < param->max)
        err_set(err, ERR_INVALID, "params.%s is %.40s, expected %s from %.12g to %.12g",
                param->name, given, expected[param->type], param->min, param->max);
    mem_free(given);
    return -1;
}

static int read_list(const struct param *param, json_t *json, struct param_value *out,
                     struct err *err)
{
    json_t *item;
    size_t i;
    if (!json_is_array(json))
        return refuse_type(param, json, err);
    out->items = mem_array(json_array_size(json) + 1, sizeof *out->items);
    json_array_foreach(json, i, item) {
        if (!json_is_string(item))
            return refuse_type(param, json, err);
        out->items[out->item_count++] = mem_strdup(json_string_value(item));
    }
    return 0;
}

static int read_value(const struct param *param, json_t *json, struct param_value *out,
                      struct err *err)
{
    switch (param->type) {
    case PARAM_INT:
        if (!json_is_integer(json))
            return refuse_type(param, json, err);
        out->whole = json_integer_value(json);
        return check_range(param, (double)out->whole, err);
    case PARAM_FLOAT:
        if (!json_is_number(json))
            return refuse_type(param, json, err);
        out->real = json_number_value(json);
        return check_range(param, out->real, err);
    case PARAM_BOOL:
        if (!json_is_boolean(json))
            return refuse_type(param, json, err);
        out->truth = json_is_true(json);
        return 0;
    case PARAM_STRING:
    case PARAM_CHOICE:
        if (!json_is_string(json))
            return refuse_type(param, json, err);
        out->text = mem_strdup(json_string_value(json));
        return param->type == PARAM_CHOICE ? check_choice(param, out->text, err) : 0;
    case PARAM_LIST:
    case PARAM_TYPE_END:
        break;
    }
    return read_list(param, json, out, err);
}

static json_t *initial_list(const char *text)
{
    json_t *array = json_array();
    for (const char *at = text; *at;) {
        size_t length = strcspn(at, ";");
        CHECK(json_array_append_new(array, json_stringn(at, length)) == 0);
        at += length + (at[length] == ';');
    }
    return array;
}

/* The table's text as the JSON a spec would hold. */
static json_t *initial_json(const struct param *param)
{
    struct err err;
    int64_t whole;
    double real;
    bool truth;
    switch (param->type) {
    case PARAM_INT:
        CHECK(parse_i64(param->initial, &whole, &err) == 0);
        return json_integer(whole);
    case PARAM_FLOAT:
        CHECK(parse_f64(param->initial, &real, &err) == 0);
        return json_real(real);
    case PARAM_BOOL:
        CHECK(parse_bool(param->initial, &truth, &err) == 0);
        return json_boolean(truth);
    case PARAM_STRING:
    case PARAM_CHOICE:
        return json_string(param->initial);
    case PARAM_LIST:
    case PARAM_TYPE_END:
        break;
    }
    return initial_list(param->initial);
}

void param_value_default(const struct param *param, struct param_value *out)
{
    struct err err;
    json_t *json = initial_json(param);
    *out = (struct param_value){0};
    CHECK(json && read_value(param, json, out, &err) == 0);
    json_decref(json);
}

void param_value_done(struct param_value *value)
{
    for (size_t i = 0; i < value->item_count; i++)
        mem_free(value->items[i]);
    mem_free(value->items);
    mem_free(value->text);
    *value = (struct param_value){0};
}

static int refuse_unknown_param(const struct recipe *recipe, const char *name, struct err *err)
{
    const char *nearest = NULL;
    unsigned nearest_distance = 4;
    for (size_t i = 0; i < recipe->param_count; i++) {
        unsigned distance = text_distance(recipe->params[i].name, name);
        if (distance < nearest_distance) {
            nearest = recipe->params[i].name;
            nearest_distance = distance;
        }
    }
    return err_set(err, ERR_INVALID, "params.%s is no parameter of %s/%s%s%s", name,
                   recipe_kind_name(recipe->kind), recipe->name,
                   nearest ? "; did you mean " : "", nearest ? nearest : "");
}

static const struct param *param_find(const struct recipe *recipe, const char *name)
{
    for (size_t i = 0; i < recipe->param_count; i++)
        if (strcmp(recipe->params[i].name, name) == 0)
            return &recipe->params[i];
    return NULL;
}

static int read_params(struct job *job, json_t *params, struct err *err)
{
    const struct recipe *recipe = job->recipe;
    const char *name;
    json_t *value;
    if (params && !json_is_object(params))
        return err_set(err, ERR_INVALID, "params is not an object");
    json_object_foreach(params, name, value)
        if (!param_find(recipe, name))
            return refuse_unknown_param(recipe, name, err);
    job->values = mem_array(recipe->param_count + 1, sizeof *job->values);
    for (size_t i = 0; i < recipe->param_count; i++) {
        const struct param *param = &recipe->params[i];
        json_t *given = json_object_get(params, param->name);
        if (given && read_value(param, given, &job->values[i], err) < 0)
            return -1;
        if (!given && !param->initial)
            return err_set(err, ERR_INVALID, "params.%s (%s) is required: %s", param->name,
                           param_type_name(param->type), param->help);
        if (!given)
            param_value_default(param, &job->values[i]);
    }
    return 0;
}

static char *text_or_empty(json_t *object, const char *field)
{
    const char *text = json_string_value(json_object_get(object, field));
    return mem_strdup(text ? text : "");
}

static int read_input(struct run_input *input, json_t *given, struct err *err)
{
    if (!json_is_object(given) || !json_is_string(json_object_get(given, "path")))
        return err_set(err, ERR_INVALID, "inputs.%s has no path", input->input->name);
    input->path = text_or_empty(given, "path");
    input->ref = text_or_empty(given, "ref");
    input->part = text_or_empty(given, "part");
    input->hash = text_or_empty(given, "hash");
    return 0;
}

static int read_inputs(struct job *job, json_t *inputs, struct err *err)
{
    const struct recipe *recipe = job->recipe;
    const char *name;
    json_t *value;
    if (inputs && !json_is_object(inputs))
        return err_set(err, ERR_INVALID, "inputs is not an object");
    job->inputs = mem_array(recipe->input_count + 1, sizeof *job->inputs);
    size_t used = 0;
    for (size_t i = 0; i < recipe->input_count; i++) {
        json_t *given = json_object_get(inputs, recipe->inputs[i].name);
        job->inputs[i].input = &recipe->inputs[i];
        used += given != NULL;
        if (given && read_input(&job->inputs[i], given, err) < 0)
            return -1;
        if (!given && recipe->inputs[i].required)
            return err_set(err, ERR_INVALID, "inputs.%s (%s) is required: %s",
                           recipe->inputs[i].name, input_type_name(recipe->inputs[i].type),
                           recipe->inputs[i].help);
    }
    if (used == json_object_size(inputs))
        return 0;
    json_object_foreach(inputs, name, value) {
        bool known = false;
        for (size_t i = 0; i < recipe->input_count; i++)
            known = known || strcmp(recipe->inputs[i].name, name) == 0;
        if (!known)
            return err_set(err, ERR_INVALID, "inputs.%s is no input of %s/%s", name,
                           recipe_kind_name(recipe->kind), recipe->name);
    }
    return 0;
}

static int read_policy(json_t *policy, const char *field, uint64_t *out, struct err *err)
{
    json_t *value = json_object_get(policy, field);
    if (value && !json_is_null(value) &&
        (!json_is_integer(value) || json_integer_value(value) < 0))
        return err_set(err, ERR_INVALID, "checkpoint.%s is not a count", field);
    *out = (uint64_t)json_integer_value(value);
    return 0;
}

static int read_job(json_t *root, struct job *job, struct err *err)
{
    const char *kind = json_string_value(json_object_get(root, "kind"));
    const char *recipe = json_string_value(json_object_get(root, "recipe"));
    json_t *policy = json_object_get(root, "checkpoint");
    json_t *version = json_object_get(root, "athanor");
    if (version && json_integer_value(version) != 1)
        return err_set(err, ERR_PROTOCOL, "the spec's version (athanor) is not 1");
    if (!kind || !recipe)
        return err_set(err, ERR_INVALID, "kind and recipe are required texts");
    if (recipe_find(kind, recipe, &job->recipe, err) < 0)
        return -1;
    job->name = text_or_empty(root, "name");
    if (!*job->name) {
        mem_free(job->name);
        job->name = mem_strdup(recipe);
    }
    if (read_policy(policy, "every_steps", &job->checkpoint_every_steps, err) < 0 ||
        read_policy(policy, "every_ms", &job->checkpoint_every_ms, err) < 0 ||
        read_params(job, json_object_get(root, "params"), err) < 0)
        return -1;
    return read_inputs(job, json_object_get(root, "inputs"), err);
}

int job_parse(const char *json, size_t length, struct job *out, struct err *err)
{
    json_error_t why;
    struct job job = {0};
    json_t *root = json_loadb(json, length, JSON_REJECT_DUPLICATES, &why);
    if (!root)
        return err_set(err, ERR_PROTOCOL, "line %d column %d: %s", why.line, why.column, why.text);
    int rc = json_is_object(root) ? read_job(root, &job, err)
                                  : err_set(err, ERR_PROTOCOL, "not a JSON object");
    json_decref(root);
    if (rc < 0)
        job_done(&job);
    else
        *out = job;
    return rc;
}

const struct param_value *job_value(const struct job *job, const char *name,
                                    const struct param **out)
{
    for (size_t i = 0; i < job->recipe->param_count; i++)
        if (strcmp(job->recipe->params[i].name, name) == 0) {
            *out = &job->recipe->params[i];
            return &job->values[i];
        }
    return NULL;
}

void job_done(struct job *job)
{
    for (size_t i = 0; job->values && i < job->recipe->param_count; i++)
        param_value_done(&job->values[i]);
    for (size_t i = 0; job->inputs && i < job->recipe->input_count; i++) {
        mem_free((char *)job->inputs[i].path);
        mem_free((char *)job->inputs[i].ref);
        mem_free((char *)job->inputs[i].part);
        mem_free((char *)job->inputs[i].hash);
    }
    mem_free(job->values);
    mem_free(job->inputs);
    mem_free(job->name);
    *job = (struct job){0};
}
