/* catalogue.c - reading and merging recipe catalogues; see catalogue.h.
 *
 * A new catalogue is read whole into a list of its own and merged only when all of it is right. */
#include "common/spec/catalogue.h"

#include "common/base/mem.h"
#include "common/spec/json.h"
#include "common/spec/spec.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define CATALOGUE_FORMAT 1

static const char *const param_type_names[] = {
    [PARAM_INT] = "int",       [PARAM_FLOAT] = "float",   [PARAM_BOOL] = "bool",
    [PARAM_STRING] = "string", [PARAM_CHOICE] = "choice", [PARAM_LIST] = "list",
};
static const char *const input_type_names[] = {
    [INPUT_DATASET] = "dataset", [INPUT_CHECKPOINT] = "checkpoint", [INPUT_FILE] = "file",
};

const char *param_type_name(enum param_type type)
{
    CHECK(type >= PARAM_INT && type <= PARAM_LIST);
    return param_type_names[type];
}

const char *input_type_name(enum input_type type)
{
    CHECK(type >= INPUT_DATASET && type <= INPUT_FILE);
    return input_type_names[type];
}

struct catalogue *catalogue_new(void)
{
    return mem_zalloc(sizeof(struct catalogue));
}

void catalogue_free(struct catalogue *catalogue)
{
    if (!catalogue)
        return;
    arena_done(&catalogue->arena);
    mem_free(catalogue->recipes);
    mem_free(catalogue);
}

/* ---- reading ---------------------------------------------------------------------------- */

/* The text of a key. `otherwise` NULL: the key is required. */
static int text_get(const json_t *object, const char *key, const char *otherwise,
                    struct arena *arena, const char **out, struct err *err)
{
    const json_t *value = json_object_get(object, key);
    if (!value && otherwise) {
        *out = otherwise;
        return 0;
    }
    if (!json_is_string(value))
        return err_set(err, ERR_PROTOCOL, "'%s' is missing or no text", key);
    *out = arena_strdup(arena, json_string_value(value));
    return 0;
}

static int name_get(const json_t *object, const char *key, struct arena *arena, const char **out,
                    struct err *err)
{
    const char *name;
    if (text_get(object, key, NULL, arena, &name, err) < 0)
        return -1;
    if (!spec_name_is_valid(name))
        return err_set(err, ERR_PROTOCOL, "'%s' is '%.80s', expected a name", key, name);
    *out = name;
    return 0;
}

/* The list under a key, or NULL and count 0 when absent. */
static int list_get(const json_t *object, const char *key, const json_t **out, size_t *out_count,
                    struct err *err)
{
    const json_t *list = json_object_get(object, key);
    if (list && !json_is_array(list))
        return err_set(err, ERR_PROTOCOL, "'%s' is no list", key);
    size_t count = list ? json_array_size(list) : 0;
    if (count > CATALOGUE_ITEMS_MAX)
        return err_set(err, ERR_LIMIT, "'%s' has %zu items, at most %u are accepted", key, count,
                       CATALOGUE_ITEMS_MAX);
    *out = list;
    *out_count = count;
    return 0;
}

static int texts_get(const json_t *object, const char *key, struct arena *arena,
                     const char *const **out, size_t *out_count, struct err *err)
{
    const json_t *list;
    size_t count;
    if (list_get(object, key, &list, &count, err) < 0)
        return -1;
    const char **texts = arena_alloc(arena, (count + 1) * sizeof *texts);
    for (size_t i = 0; i < count; i++) {
        if (!json_is_string(json_array_get(list, i)))
            return err_set(err, ERR_PROTOCOL, "'%s' item %zu is no text", key, i);
        texts[i] = arena_strdup(arena, json_string_value(json_array_get(list, i)));
    }
    *out = texts;
    *out_count = count;
    return 0;
}

static int type_get(const json_t *object, const char *const *names, size_t name_count,
                    int *out, struct err *err)
{
    const char *type = json_string_value(json_object_get(object, "type"));
    for (size_t i = 1; type && i < name_count; i++)
        if (strcmp(names[i], type) == 0) {
            *out = (int)i;
            return 0;
        }
    return err_set(err, ERR_PROTOCOL, "'type' is '%.40s', which this version does not know",
                   type ? type : "");
}

static int bound_get(const json_t *object, const char *key, bool *out_has, double *out,
                     struct err *err)
{
    const json_t *value = json_object_get(object, key);
    if (value && !json_is_number(value))
        return err_set(err, ERR_PROTOCOL, "'%s' is no number", key);
    *out_has = value != NULL;
    *out = value ? json_number_value(value) : 0;
    return 0;
}

static bool default_fits(const struct catalogue_param *param, const json_t *value)
{
    switch (param->type) {
    case PARAM_INT:
        return json_is_integer(value);
    case PARAM_FLOAT:
        return json_is_number(value) && fabs(json_number_value(value)) <= JSON_FLOAT_MAX;
    case PARAM_BOOL:
        return json_is_boolean(value);
    case PARAM_STRING:
    case PARAM_CHOICE:
        return json_is_string(value);
    case PARAM_LIST:
        for (size_t i = 0; i < json_array_size(value); i++)
            if (!json_is_string(json_array_get(value, i)))
                return false;
        return json_is_array(value);
    }
    return false;
}

static int default_get(const json_t *object, struct arena *arena, struct catalogue_param *param,
                       struct err *err)
{
    const json_t *value = json_object_get(object, "default");
    if (!value)
        return 0;
    if (!default_fits(param, value))
        return err_set(err, ERR_PROTOCOL, "'default' does not fit the type %s",
                       param_type_name(param->type));
    struct buf text = {0};
    if (param->type == PARAM_FLOAT)
        json_put_float(&text, json_number_value(value));
    else
        json_put(&text, value);
    param->default_json = arena_strdup(arena, buf_text(&text));
    buf_done(&text);
    return 0;
}

static int param_read(const json_t *object, struct arena *arena, struct catalogue_param *param,
                      struct err *err)
{
    int type;
    if (name_get(object, "name", arena, &param->name, err) < 0)
        return -1;
    if (text_get(object, "help", "", arena, &param->help, err) < 0 ||
        type_get(object, param_type_names, ARRAY_COUNT(param_type_names), &type, err) < 0 ||
        bound_get(object, "min", &param->has_min, &param->min, err) < 0 ||
        bound_get(object, "max", &param->has_max, &param->max, err) < 0 ||
        texts_get(object, "choices", arena, &param->choices, &param->choice_count, err) < 0)
        return err_wrap(err, "param '%s'", param->name);
    param->type = (enum param_type)type;
    if (default_get(object, arena, param, err) < 0)
        return err_wrap(err, "param '%s'", param->name);
    return 0;
}

static int input_read(const json_t *object, struct arena *arena, struct catalogue_input *input,
                      struct err *err)
{
    int type;
    if (name_get(object, "name", arena, &input->name, err) < 0)
        return -1;
    if (text_get(object, "help", "", arena, &input->help, err) < 0 ||
        type_get(object, input_type_names, ARRAY_COUNT(input_type_names), &type, err) < 0)
        return err_wrap(err, "input '%s'", input->name);
    input->type = (enum input_type)type;
    input->required = json_is_true(json_object_get(object, "required"));
    return 0;
}

static int params_read(const json_t *object, struct arena *arena, struct catalogue_recipe *recipe,
                       struct err *err)
{
    const json_t *list;
    if (list_get(object, "params", &list, &recipe->param_count, err) < 0)
        return -1;
    recipe->params = arena_alloc(arena, (recipe->param_count + 1) * sizeof *recipe->params);
    for (size_t i = 0; i < recipe->param_count; i++) {
        if (param_read(json_array_get(list, i), arena, &recipe->params[i], err) < 0)
            return -1;
        for (size_t j = 0; j < i; j++)
            if (strcmp(recipe->params[i].name, recipe->params[j].name) == 0)
                return err_set(err, ERR_PROTOCOL, "param '%s' is listed twice",
                               recipe->params[i].name);
    }
    return 0;
}

static int inputs_read(const json_t *object, struct arena *arena, struct catalogue_recipe *recipe,
                       struct err *err)
{
    const json_t *list;
    if (list_get(object, "inputs", &list, &recipe->input_count, err) < 0)
        return -1;
    recipe->inputs = arena_alloc(arena, (recipe->input_count + 1) * sizeof *recipe->inputs);
    for (size_t i = 0; i < recipe->input_count; i++)
        if (input_read(json_array_get(list, i), arena, &recipe->inputs[i], err) < 0)
            return -1;
    return 0;
}

static int recipe_read(const json_t *object, struct arena *arena, struct catalogue_recipe *recipe,
                       struct err *err)
{
    *recipe = (struct catalogue_recipe){0};
    json_int_t version = json_integer_value(json_object_get(object, "version"));
    if (name_get(object, "name", arena, &recipe->name, err) < 0)
        return -1;
    if (name_get(object, "kind", arena, &recipe->kind, err) < 0 ||
        text_get(object, "summary", "", arena, &recipe->summary, err) < 0 ||
        text_get(object, "source", "", arena, &recipe->source, err) < 0 ||
        params_read(object, arena, recipe, err) < 0 ||
        inputs_read(object, arena, recipe, err) < 0 ||
        texts_get(object, "outputs", arena, &recipe->outputs, &recipe->output_count, err) < 0)
        return err_wrap(err, "recipe '%s'", recipe->name);
    if (version < 1 || version > UINT32_MAX || strcmp(recipe->kind, "command") == 0)
        return err_set(err, ERR_PROTOCOL,
                       "recipe '%s': expected a version from 1 and a kind other than command",
                       recipe->name);
    recipe->version = (uint32_t)version;
    return 0;
}

/* ---- merging ---------------------------------------------------------------------------- */

static int recipe_compare(const void *left, const void *right)
{
    const struct catalogue_recipe *a = left, *b = right;
    int order = strcmp(a->kind, b->kind);
    return order ? order : strcmp(a->name, b->name);
}

static struct catalogue_recipe *recipe_find(const struct catalogue *catalogue, const char *kind,
                                            const char *name)
{
    struct catalogue_recipe key = {.kind = kind, .name = name};
    if (catalogue->count == 0)
        return NULL;
    return bsearch(&key, catalogue->recipes, catalogue->count, sizeof key, recipe_compare);
}

const struct catalogue_recipe *catalogue_find(const struct catalogue *catalogue, const char *kind,
                                              const char *name)
{
    return recipe_find(catalogue, kind, name);
}

static bool recipe_is_news(const struct catalogue *catalogue, const struct catalogue_recipe *recipe)
{
    const struct catalogue_recipe *known = recipe_find(catalogue, recipe->kind, recipe->name);
    return !known || known->version < recipe->version;
}

static void recipe_merge(struct catalogue *catalogue, const struct catalogue_recipe *recipe)
{
    struct catalogue_recipe *known = recipe_find(catalogue, recipe->kind, recipe->name);
    if (known) {
        *known = *recipe;
        return;
    }
    VEC_RESERVE(catalogue->recipes, catalogue->count, catalogue->capacity);
    catalogue->recipes[catalogue->count++] = *recipe;
    qsort(catalogue->recipes, catalogue->count, sizeof *recipe, recipe_compare);
}

static int recipes_read(const json_t *list, struct arena *arena, struct catalogue_recipe *recipes,
                        struct err *err)
{
    for (size_t i = 0; i < json_array_size(list); i++)
        if (recipe_read(json_array_get(list, i), arena, &recipes[i], err) < 0)
            return err_wrap(err, "recipe catalogue, entry %zu", i);
    return 0;
}

/* Reads into a scratch arena first: a worker that joins again every hour for weeks brings no
 * news and must not grow the catalogue. */
static int recipes_add(struct catalogue *catalogue, const json_t *list, struct err *err)
{
    size_t count = json_array_size(list);
    bool news = false;
    if (count + catalogue->count > 2 * CATALOGUE_RECIPES_MAX || count > CATALOGUE_RECIPES_MAX)
        return err_set(err, ERR_LIMIT, "%zu recipes beside %zu known ones, at most %u are accepted",
                       count, catalogue->count, CATALOGUE_RECIPES_MAX);
    struct catalogue_recipe *recipes = mem_array(count + 1, sizeof *recipes);
    struct arena scratch = {0};
    int rc = recipes_read(list, &scratch, recipes, err);
    for (size_t i = 0; rc == 0 && i < count; i++)
        news = news || recipe_is_news(catalogue, &recipes[i]);
    if (news)
        rc = recipes_read(list, &catalogue->arena, recipes, err);
    for (size_t i = 0; rc == 0 && news && i < count; i++)
        if (recipe_is_news(catalogue, &recipes[i]))
            recipe_merge(catalogue, &recipes[i]);
    arena_done(&scratch);
    mem_free(recipes);
    return rc;
}

int catalogue_add(struct catalogue *catalogue, const char *json, size_t length, struct err *err)
{
    json_t *root = NULL;
    if (length > CATALOGUE_TEXT_BYTES_MAX)
        return err_set(err, ERR_LIMIT, "recipe catalogue of %zu bytes, at most %zu are accepted",
                       length, CATALOGUE_TEXT_BYTES_MAX);
    if (json_read(json, length, &root, err) < 0)
        return err_wrap(err, "recipe catalogue");
    int rc;
    json_int_t format = json_integer_value(json_object_get(root, "format"));
    const json_t *recipes = json_object_get(root, "recipes");
    if (format != CATALOGUE_FORMAT || !json_is_array(recipes))
        rc = err_set(err, ERR_PROTOCOL,
                     "recipe catalogue: expected \"format\": %d and a list of \"recipes\"",
                     CATALOGUE_FORMAT);
    else
        rc = recipes_add(catalogue, recipes, err);
    json_decref(root);
    return rc;
}
