/* registry.h - the recipes of this engine, from recipes.def, and their catalogue. */
#ifndef ATHANOR_REGISTRY_H
#define ATHANOR_REGISTRY_H

#include "worker/recipes/recipe.h"

#include <jansson.h>

#define ENGINE_VERSION "0.1.0"

size_t recipe_count(void);
const struct recipe *recipe_at(size_t index); /* in the order of recipes.def */
const char *recipe_kind_name(enum recipe_kind kind);
const char *param_type_name(enum param_type type);
const char *input_type_name(enum input_type type);
/* Errors: ERR_NOT_FOUND, with the nearest name or the kinds there are. */
int recipe_find(const char *kind, const char *name, const struct recipe **out,
                struct err *err) WARN_UNUSED;
struct param_value; /* job.h */
/* A value as the catalogue and specs write it; the caller owns it. */
json_t *param_value_json(const struct param *param, const struct param_value *value);
/* The JSON catalogue of worker/README.md (mem_free). */
char *recipe_catalogue(void);

#endif
