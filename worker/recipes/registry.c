/* registry.c - recipes by name, and the catalogue; see registry.h. */
#include "worker/recipes/registry.h"

#include "common/base/mem.h"
#include "common/base/parse.h"
#include "worker/recipes/job.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#define RECIPE(kind, name) extern const struct recipe recipe_##kind##_##name;
#include "worker/recipes/recipes.def"
#undef RECIPE

static const struct recipe *const recipes[] = {
#define RECIPE(kind, name) &recipe_##kind##_##name,
#include "worker/recipes/recipes.def"
#undef RECIPE
};

static const char *const kind_names[RECIPE_KIND_END] = {
    [RECIPE_DATA] = "data",
    [RECIPE_PRETRAINING] = "pretraining",
    [RECIPE_FINETUNING] = "finetuning",
    [RECIPE_DISTILLATION] = "distillation",
    [RECIPE_UNLEARNING] = "unlearning",
    [RECIPE_EVAL] = "eval",
};

static const char *const param_type_names[PARAM_TYPE_END] = {
    [PARAM_INT] = "int",       [PARAM_FLOAT] = "float",   [PARAM_BOOL] = "bool",
    [PARAM_STRING] = "string", [PARAM_CHOICE] = "choice", [PARAM_LIST] = "list",
};

static const char *const input_type_names[INPUT_TYPE_END] = {
    [INPUT_DATASET] = "dataset",
    [INPUT_CHECKPOINT] = "checkpoint",
    [INPUT_FILE] = "file",
};

size_t recipe_count(void)
{
    return ARRAY_COUNT(recipes);
}

const struct recipe *recipe_at(size_t index)
{
    CHECK(index < ARRAY_COUNT(recipes));
    return recipes[index];
}

const char *recipe_kind_name(enum recipe_kind kind)
{
    CHECK(kind > 0 && kind < RECIPE_KIND_END);
    return kind_names[kind];
}

const char *param_type_name(enum param_type type)
{
    CHECK(type > 0 && type < PARAM_TYPE_END);
    return param_type_names[type];
}

const char *input_type_name(enum input_type type)
{
    CHECK(type > 0 && type < INPUT_TYPE_END);
    return input_type_names[type];
}

int recipe_find(const char *kind, const char *name, const struct recipe **out, struct err *err)
{
    const struct recipe *nearest = NULL;
    unsigned nearest_distance = 4;
    for (size_t i = 0; i < ARRAY_COUNT(recipes); i++) {
        unsigned distance = text_distance(recipes[i]->name, name);
        if (distance == 0 && strcmp(kind_names[recipes[i]->kind], kind) == 0) {
            *out = recipes[i];
            return 0;
        }
        if (distance < nearest_distance) {
            nearest = recipes[i];
            nearest_distance = distance;
        }
    }
    if (nearest)
        return err_set(err, ERR_NOT_FOUND, "there is no recipe %s/%s; did you mean %s/%s?", kind,
                       name, kind_names[nearest->kind], nearest->name);
    return err_set(err, ERR_NOT_FOUND, "there is no recipe %s/%s; see athanor-engine --catalogue",
                   kind, name);
}

static void put(json_t *object, const char *key, json_t *value)
{
    CHECK(value && json_object_set_new(object, key, value) == 0);
}

static json_t *words_json(const char *words)
{
    json_t *array = json_array();
    for (const char *at = words; at && *at;) {
        size_t length = strcspn(at, "|");
        CHECK(json_array_append_new(array, json_stringn(at, length)) == 0);
        at += length + (at[length] == '|');
    }
    return array;
}

json_t *param_value_json(const struct param *param, const struct param_value *value)
{
    switch (param->type) {
    case PARAM_INT:
        return json_integer(value->whole);
    case PARAM_FLOAT:
        return json_real(value->real);
    case PARAM_BOOL:
        return json_boolean(value->truth);
    case PARAM_STRING:
    case PARAM_CHOICE:
        return json_string(value->text);
    case PARAM_LIST:
    case PARAM_TYPE_END:
        break;
    }
    json_t *array = json_array();
    for (size_t i = 0; i < value->item_count; i++)
        CHECK(json_array_append_new(array, json_string(value->items[i])) == 0);
    return array;
}

static json_t *param_json(const struct param *param)
{
    json_t *object = json_object();
    put(object, "name", json_string(param->name));
    put(object, "type", json_string(param_type_names[param->type]));
    if (param->initial) {
        struct param_value value = {0};
        param_value_default(param, &value); /* CHECKs that the table's text is good */
        put(object, "default", param_value_json(param, &value));
        param_value_done(&value);
    }
    bool whole = param->type == PARAM_INT;
    if (param->min < param->max) {
        put(object, "min", whole ? json_integer((json_int_t)param->min) : json_real(param->min));
        put(object, "max", whole ? json_integer((json_int_t)param->max) : json_real(param->max));
    }
    if (param->choices)
        put(object, "choices", words_json(param->choices));
    put(object, "help", json_string(param->help));
    return object;
}

static json_t *input_json(const struct input *input)
{
    json_t *object = json_object();
    put(object, "name", json_string(input->name));
    put(object, "type", json_string(input_type_names[input->type]));
    put(object, "required", json_boolean(input->required));
    put(object, "help", json_string(input->help));
    return object;
}

static json_t *recipe_json(const struct recipe *recipe)
{
    json_t *object = json_object(), *inputs = json_array(), *params = json_array();
    put(object, "name", json_string(recipe->name));
    put(object, "kind", json_string(kind_names[recipe->kind]));
    put(object, "version", json_integer(recipe->version));
    put(object, "summary", json_string(recipe->summary));
    put(object, "source", json_string(recipe->source));
    for (size_t i = 0; i < recipe->input_count; i++)
        CHECK(json_array_append_new(inputs, input_json(&recipe->inputs[i])) == 0);
    for (size_t i = 0; i < recipe->param_count; i++)
        CHECK(json_array_append_new(params, param_json(&recipe->params[i])) == 0);
    put(object, "inputs", inputs);
    put(object, "params", params);
    put(object, "outputs", words_json(recipe->outputs));
    return object;
}

char *recipe_catalogue(void)
{
    json_t *root = json_object(), *list = json_array();
    put(root, "format", json_integer(1));
    put(root, "engine", json_string(ENGINE_VERSION));
    for (size_t i = 0; i < ARRAY_COUNT(recipes); i++)
        CHECK(json_array_append_new(list, recipe_json(recipes[i])) == 0);
    put(root, "recipes", list);
    char *dumped = json_dumps(root, JSON_INDENT(1) | JSON_REAL_PRECISION(12));
    CHECK(dumped);
    char *text = mem_printf("%s\n", dumped);
    free(dumped);
    json_decref(root);
    return text;
}
