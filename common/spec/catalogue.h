/* catalogue.h - the recipes that workers announce, as data (worker/README.md).
 *
 * Foreign bytes: sizes, counts and types are checked. Kind `command` has no recipe and is not
 * listed. Plain data: who shows recipes reads the structs. */
#ifndef ATHANOR_SPEC_CATALOGUE_H
#define ATHANOR_SPEC_CATALOGUE_H

#include "common/base/arena.h"
#include "common/base/err.h"

#define CATALOGUE_TEXT_BYTES_MAX ((size_t)1 << 20)
#define CATALOGUE_RECIPES_MAX 1000u /* 20 times today's list */
#define CATALOGUE_ITEMS_MAX 256u    /* params, inputs, outputs or choices of one recipe */

enum param_type {
    PARAM_INT = 1,
    PARAM_FLOAT,
    PARAM_BOOL,
    PARAM_STRING,
    PARAM_CHOICE,
    PARAM_LIST, /* of strings */
};
enum input_type { INPUT_DATASET = 1, INPUT_CHECKPOINT, INPUT_FILE };

struct catalogue_param {
    const char *name, *help;
    enum param_type type;
    const char *default_json; /* JSON text of the default; NULL: required */
    bool has_min, has_max;
    double min, max;          /* inclusive; int and float only */
    const char *const *choices;
    size_t choice_count;
};

struct catalogue_input {
    const char *name, *help;
    enum input_type type;
    bool required;
};

struct catalogue_recipe {
    const char *kind, *name, *summary, *source;
    uint32_t version;
    struct catalogue_param *params;
    size_t param_count;
    struct catalogue_input *inputs;
    size_t input_count;
    const char *const *outputs; /* "checkpoint", "dataset", ... */
    size_t output_count;
};

struct catalogue {
    struct arena arena;
    struct catalogue_recipe *recipes; /* sorted by kind, then name */
    size_t count, capacity;
};

struct catalogue *catalogue_new(void);
void catalogue_free(struct catalogue *catalogue);
/* Adds one worker's catalogue; of two recipes with the same kind and name the higher version
 * stays. On failure nothing is added. Errors: ERR_PROTOCOL (what and where), ERR_LIMIT. */
int catalogue_add(struct catalogue *catalogue, const char *json, size_t length,
                  struct err *err) WARN_UNUSED;
const struct catalogue_recipe *catalogue_find(const struct catalogue *catalogue, const char *kind,
                                              const char *name); /* NULL when absent */
const char *param_type_name(enum param_type type);
const char *input_type_name(enum input_type type);

#endif
