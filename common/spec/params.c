/* params.c - a job against its recipe: kind, inputs and parameters. */
#include "common/spec/field.h"
#include "common/spec/json.h"

#include "common/base/buf.h"
#include "common/base/parse.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- parameters of a recipe --------------------------------------------------------------- */

static const char *param_accepts(struct reader *reader, const struct catalogue_param *param)
{
    struct buf text = {0};
    static const char *const nouns[] = {
        [PARAM_INT] = "a whole number", [PARAM_FLOAT] = "a number",  [PARAM_BOOL] = "true or false",
        [PARAM_STRING] = "text",        [PARAM_CHOICE] = "one of ",
        [PARAM_LIST] = "a list of texts such as [a, b]",
    };
    buf_puts(&text, nouns[param->type]);
    if (param->type == PARAM_INT || param->type == PARAM_FLOAT) {
        if (param->has_min && param->has_max)
            buf_printf(&text, " from %.15g to %.15g", param->min, param->max);
        else if (param->has_min)
            buf_printf(&text, ", at least %.15g", param->min);
        else if (param->has_max)
            buf_printf(&text, ", at most %.15g", param->max);
    }
    for (size_t i = 0; param->type == PARAM_CHOICE && i < param->choice_count; i++)
        buf_printf(&text, "%s%s", i ? ", " : "", param->choices[i]);
    char *copy = arena_strdup(reader->arena, buf_text(&text));
    buf_done(&text);
    return copy;
}

static bool param_in_range(const struct catalogue_param *param, double value)
{
    return (!param->has_min || value >= param->min) && (!param->has_max || value <= param->max);
}

static bool choice_known(const struct catalogue_param *param, const char *text)
{
    for (size_t i = 0; i < param->choice_count; i++)
        if (strcmp(param->choices[i], text) == 0)
            return true;
    return false;
}

static bool list_put(struct buf *out, const struct node *node)
{
    buf_putc(out, '[');
    for (size_t i = 0; i < node->count; i++) {
        if (node->items[i]->kind != NODE_SCALAR || node_is_null(node->items[i]))
            return false;
        buf_puts(out, i ? ", " : "");
        json_put_text(out, node->items[i]->text);
    }
    buf_putc(out, ']');
    return true;
}

/* Appends the value as JSON; false when it does not fit. */
static bool param_put(struct buf *out, const struct catalogue_param *param,
                      const struct node *node)
{
    struct err err;
    int64_t whole;
    double real;
    bool truth;
    if (param->type == PARAM_LIST)
        return node->kind == NODE_LIST && list_put(out, node);
    if (node->kind != NODE_SCALAR || node_is_null(node))
        return false;
    switch (param->type) {
    case PARAM_INT:
        if (!node->plain || parse_i64(node->text, &whole, &err) < 0 ||
            !param_in_range(param, (double)whole))
            return false;
        buf_printf(out, "%lld", (long long)whole);
        return true;
    case PARAM_FLOAT:
        if (!node->plain || parse_f64(node->text, &real, &err) < 0 ||
            fabs(real) > JSON_FLOAT_MAX || !param_in_range(param, real))
            return false;
        json_put_float(out, real);
        return true;
    case PARAM_BOOL:
        if (!node->plain || parse_bool(node->text, &truth, &err) < 0)
            return false;
        buf_puts(out, truth ? "true" : "false");
        return true;
    case PARAM_CHOICE:
    case PARAM_STRING:
        if (param->type == PARAM_CHOICE && !choice_known(param, node->text))
            return false;
        json_put_text(out, node->text);
        return true;
    case PARAM_LIST:
        break;
    }
    return false;
}

static void param_refuse(struct reader *reader, const struct catalogue_param *param,
                         const struct node *node, const struct place *place)
{
    const char *hint = "";
    if (param->type == PARAM_CHOICE && node->kind == NODE_SCALAR) {
        struct nearest nearest = nearest_of(reader, node->text);
        for (size_t i = 0; i < param->choice_count; i++)
            nearest_offer(&nearest, param->choices[i]);
        hint = nearest_hint(reader, &nearest);
    }
    bool is_scalar = node->kind == NODE_SCALAR;
    bool in_quotes = is_scalar && !node->plain &&
                     (param->type == PARAM_INT || param->type == PARAM_FLOAT ||
                      param->type == PARAM_BOOL);
    reader_refuse(reader, node, place, "is %s, expected %s%s%s", shown(reader, node),
                  param_accepts(reader, param), in_quotes ? ", without quotes" : "", hint);
}

static void params_unknown(struct reader *reader, const struct draft *draft,
                           const struct node *params, const struct place *place)
{
    const struct catalogue_recipe *recipe = draft->recipe;
    for (size_t i = 0; params && i < params->count; i++) {
        const struct node *key = params->pairs[i].key;
        struct nearest nearest = nearest_of(reader, key->text);
        bool known = false;
        for (size_t j = 0; j < recipe->param_count && !known; j++) {
            nearest_offer(&nearest, recipe->params[j].name);
            known = strcmp(recipe->params[j].name, key->text) == 0;
        }
        const char *hint = nearest_hint(reader, &nearest);
        if (!known)
            reader_refuse(reader, key, place, "%s has no parameter %s%s%s", recipe->name,
                          quoted(reader, key->text), hint,
                          hint[0] ? "" : "; `athanor recipes` lists them");
    }
}

static int param_compare(const void *a, const void *b)
{
    return strcmp((*(const struct catalogue_param *const *)a)->name,
                  (*(const struct catalogue_param *const *)b)->name);
}

/* The parameters by name, as canonical JSON orders them; in arena. */
static const struct catalogue_param **params_sorted(struct reader *reader,
                                                    const struct catalogue_recipe *recipe)
{
    const struct catalogue_param **sorted =
        arena_alloc(reader->arena, (recipe->param_count + 1) * sizeof *sorted);
    for (size_t i = 0; i < recipe->param_count; i++)
        sorted[i] = &recipe->params[i];
    qsort(sorted, recipe->param_count, sizeof *sorted, param_compare);
    return sorted;
}

/* The dataset that a data recipe writes is called by its parameter `name`, or as the job. */
static void output_note(struct reader *reader, struct draft *draft, const char *name_json,
                        const struct node *params, const struct place *place)
{
    bool writes = false;
    for (size_t i = 0; i < draft->recipe->output_count; i++)
        writes = writes || strcmp(draft->recipe->outputs[i], "dataset") == 0;
    const char *name = draft->job.name;
    if (!writes)
        return;
    if (name_json && strlen(name_json) > strlen("\"\""))
        name = arena_strndup(reader->arena, name_json + 1, strlen(name_json) - 2);
    const struct node *node = params ? node_get(params, "name") : NULL;
    if (!spec_name_is_valid(name)) {
        if (node && name != draft->job.name)
            reader_refuse(reader, node, place, "is %s, expected %s", quoted(reader, name),
                          field_accepts(reader->arena, &fields[field_index("experiment")]));
        return; /* a wrong name of the job is refused elsewhere */
    }
    const char **outputs = arena_alloc(reader->arena, sizeof *outputs);
    outputs[0] = name;
    draft->job.outputs = outputs;
    draft->job.output_count = 1;
}

static void params_check(struct reader *reader, struct draft *draft, const struct node *params,
                         const struct place *place)
{
    const struct catalogue_param **sorted = params_sorted(reader, draft->recipe);
    const char *name_json = NULL;
    struct buf json = {0};
    buf_putc(&json, '{');
    for (size_t i = 0; i < draft->recipe->param_count; i++) {
        const struct catalogue_param *param = sorted[i];
        const struct node *value = params ? node_get(params, param->name) : NULL;
        struct place here = {.up = place, .key = param->name};
        buf_puts(&json, i ? ", " : "");
        json_put_text(&json, param->name);
        buf_puts(&json, ": ");
        size_t start = json.length;
        if (!value && param->default_json)
            buf_puts(&json, param->default_json);
        else if (!value)
            reader_refuse(reader, params ? params : draft->node, &here,
                          "is missing: %s needs it, expected %s", draft->recipe->name,
                          param_accepts(reader, param));
        else if (!param_put(&json, param, value))
            param_refuse(reader, param, value, &here);
        if (strcmp(param->name, "name") == 0 && param->type == PARAM_STRING)
            name_json = arena_strdup(reader->arena, buf_text(&json) + start);
    }
    buf_putc(&json, '}');
    draft->job.params = arena_strdup(reader->arena, buf_text(&json));
    buf_done(&json);
    params_unknown(reader, draft, params, place);
    struct place name_place = {.up = place, .key = "name"};
    output_note(reader, draft, name_json, params, &name_place);
}

/* ---- parameters of a user's program ------------------------------------------------------- */

/* Whether plain text is a number; *out_fits: and one that can be stored, as was put. */
static bool number_put(struct buf *out, const char *text, bool *out_fits)
{
    struct err err;
    int64_t whole;
    char *end;
    double real = strtod(text, &end);
    *out_fits = true;
    if (parse_i64(text, &whole, &err) == 0)
        buf_printf(out, "%lld", (long long)whole);
    else if (text[strspn(text, "0123456789+-.eE")] != '\0' || end == text || *end != '\0')
        return false;
    else if (fabs(real) <= JSON_FLOAT_MAX)
        json_put_float(out, real);
    else
        *out_fits = false;
    return true;
}

/* YAML 1.2's core schema: what is plain and looks like null, a truth value or a number is one. */
static void free_scalar_put(struct reader *reader, struct buf *out, const struct node *node,
                            const struct place *place)
{
    bool fits = true;
    if (node_is_null(node))
        buf_puts(out, "null");
    else if (node->plain && (strcmp(node->text, "true") == 0 || strcmp(node->text, "false") == 0))
        buf_puts(out, node->text);
    else if (!node->plain || !number_put(out, node->text, &fits))
        json_put_text(out, node->text);
    if (!fits)
        reader_refuse(reader, node, place,
                      "holds the number %s, expected at most 1e18; write it in quotes to pass it "
                      "on as text",
                      quoted(reader, node->text));
}

static int pair_compare(const void *a, const void *b)
{
    return strcmp(((const struct node_pair *)a)->key->text,
                  ((const struct node_pair *)b)->key->text);
}

/* Recurses at most NODE_DEPTH_MAX deep: node.c and set.c refuse deeper values. */
void node_put_json(struct reader *reader, struct buf *out, const struct node *node,
                   const struct place *place)
{
    if (node->kind == NODE_SCALAR) {
        free_scalar_put(reader, out, node, place);
        return;
    }
    bool is_map = node->kind == NODE_MAP;
    struct node *sorted = node_copy(reader->arena, node);
    if (is_map && node->count > 0)
        qsort(sorted->pairs, sorted->count, sizeof *sorted->pairs, pair_compare);
    buf_putc(out, is_map ? '{' : '[');
    for (size_t i = 0; i < node->count; i++) {
        buf_puts(out, i ? ", " : "");
        if (is_map) {
            json_put_text(out, sorted->pairs[i].key->text);
            buf_puts(out, ": ");
        }
        node_put_json(reader, out, is_map ? sorted->pairs[i].value : sorted->items[i], place);
    }
    buf_putc(out, is_map ? '}' : ']');
}

#define FREE_NODES_MAX 10000u /* an alias bomb within params may not become a JSON bomb */

static void free_params_put(struct reader *reader, struct draft *draft, const struct node *params,
                            const struct place *place)
{
    if (params->walk_count > FREE_NODES_MAX) {
        reader_refuse(reader, params, place, "has %llu values, at most %u are accepted",
                      (unsigned long long)params->walk_count, FREE_NODES_MAX);
        return;
    }
    struct buf json = {0};
    node_put_json(reader, &json, params, place);
    draft->job.params = arena_strdup(reader->arena, buf_text(&json));
    buf_done(&json);
}

/* ---- inputs of a recipe ------------------------------------------------------------------- */

static bool input_type_fits(enum input_type type, enum spec_ref_kind kind)
{
    return kind == SPEC_REF_FILE || (type == INPUT_DATASET && kind == SPEC_REF_DATASET) ||
           (type == INPUT_CHECKPOINT && kind == SPEC_REF_CHECKPOINT);
}

static const char *input_forms(enum input_type type)
{
    static const char *const forms[] = {
        [INPUT_DATASET] = "dataset:NAME, dataset:NAME/PART or file:PATH of a dataset folder",
        [INPUT_CHECKPOINT] =
            "job:NAME/checkpoint:best|last|STEP or file:PATH of a checkpoint folder",
        [INPUT_FILE] = "file:PATH",
    };
    return forms[type];
}

static const struct spec_input *input_given(const struct draft *draft, const char *name)
{
    for (size_t i = 0; i < draft->job.input_count; i++)
        if (strcmp(draft->job.inputs[i].name, name) == 0)
            return &draft->job.inputs[i];
    return NULL;
}

static void inputs_wanted(struct reader *reader, const struct draft *draft,
                          const struct node *inputs, const struct place *place)
{
    for (size_t i = 0; i < draft->recipe->input_count; i++) {
        const struct catalogue_input *wanted = &draft->recipe->inputs[i];
        const struct spec_input *input = input_given(draft, wanted->name);
        const struct node *node = inputs ? node_get(inputs, wanted->name) : NULL;
        struct place here = {.up = place, .key = wanted->name};
        if (!node && wanted->required)
            reader_refuse(reader, inputs ? inputs : draft->node, &here,
                          "is missing: %s needs it, expected %s", draft->recipe->name,
                          input_forms(wanted->type));
        else if (input && !input_type_fits(wanted->type, input->ref.kind))
            reader_refuse(reader, node, &here, "is %s, expected a %s: %s",
                          quoted(reader, input->ref.text), input_type_name(wanted->type),
                          input_forms(wanted->type));
    }
}

static void inputs_check(struct reader *reader, const struct draft *draft,
                         const struct node *inputs, const struct place *place)
{
    inputs_wanted(reader, draft, inputs, place);
    for (size_t i = 0; inputs && i < inputs->count; i++) {
        const struct node *key = inputs->pairs[i].key;
        struct nearest nearest = nearest_of(reader, key->text);
        struct buf list = {0};
        bool known = false;
        for (size_t j = 0; j < draft->recipe->input_count; j++) {
            nearest_offer(&nearest, draft->recipe->inputs[j].name);
            buf_printf(&list, "%s%s", j ? ", " : "", draft->recipe->inputs[j].name);
            known = known || strcmp(draft->recipe->inputs[j].name, key->text) == 0;
        }
        const char *hint = nearest_hint(reader, &nearest);
        if (!known && hint[0])
            reader_refuse(reader, key, place, "%s has no input %s%s", draft->recipe->name,
                          quoted(reader, key->text), hint);
        else if (!known)
            reader_refuse(reader, key, place, "%s has no input %s, expected %s",
                          draft->recipe->name, quoted(reader, key->text),
                          list.length ? buf_text(&list) : "none");
        buf_done(&list);
    }
}

/* ---- kind and recipe ---------------------------------------------------------------------- */

static const char *kinds_text(struct reader *reader, struct nearest *nearest)
{
    struct buf list = {0};
    const char *last = "";
    nearest_offer(nearest, "command");
    buf_puts(&list, "command");
    for (size_t i = 0; i < reader->catalogue->count; i++) {
        const char *kind = reader->catalogue->recipes[i].kind;
        if (strcmp(kind, last) == 0)
            continue;
        nearest_offer(nearest, kind);
        buf_printf(&list, ", %s", kind);
        last = kind;
    }
    char *copy = arena_strdup(reader->arena, buf_text(&list));
    buf_done(&list);
    return copy;
}

static bool kind_known(struct reader *reader, const char *kind)
{
    for (size_t i = 0; i < reader->catalogue->count; i++)
        if (strcmp(reader->catalogue->recipes[i].kind, kind) == 0)
            return true;
    return false;
}

static void kind_refuse(struct reader *reader, const struct draft *draft)
{
    const struct node *node = draft_given(draft, "kind");
    struct place here = {.up = draft_place(draft), .key = "kind"};
    struct nearest nearest = nearest_of(reader, draft->job.kind);
    const char *list = kinds_text(reader, &nearest);
    if (!node)
        reader_refuse(reader, draft->node, &here, "is missing, expected one of %s", list);
    else if (reader->catalogue->count == 0)
        reader_refuse(reader, node, &here,
                      "is %s, and no worker has announced recipes yet, so only command is known: "
                      "start a worker, then submit again",
                      quoted(reader, draft->job.kind));
    else
        reader_refuse(reader, node, &here, "is %s, expected one of %s%s",
                      quoted(reader, draft->job.kind), list, nearest_hint(reader, &nearest));
}

static void recipe_refuse(struct reader *reader, const struct draft *draft)
{
    const struct node *node = draft_given(draft, "recipe");
    const char *kind = draft->job.kind, *elsewhere = NULL;
    struct place here = {.up = draft_place(draft), .key = "recipe"};
    struct nearest nearest = nearest_of(reader, draft->job.recipe);
    struct buf list = {0};
    for (size_t i = 0; i < reader->catalogue->count; i++) {
        const struct catalogue_recipe *recipe = &reader->catalogue->recipes[i];
        if (strcmp(recipe->kind, kind) == 0) {
            nearest_offer(&nearest, recipe->name);
            buf_printf(&list, "%s%s", list.length ? ", " : "", recipe->name);
        } else if (strcmp(recipe->name, draft->job.recipe) == 0)
            elsewhere = recipe->kind;
    }
    if (!node)
        reader_refuse(reader, draft->node, &here, "is missing, expected one of %s",
                      buf_text(&list));
    else if (elsewhere)
        reader_refuse(reader, node, &here, "is '%s', which is of kind %s, not %s",
                      draft->job.recipe, elsewhere, kind);
    else
        reader_refuse(reader, node, &here, "is %s, expected a recipe of kind %s: %s%s",
                      quoted(reader, draft->job.recipe), kind, buf_text(&list),
                      nearest_hint(reader, &nearest));
    buf_done(&list);
}

static const struct node *map_given(struct reader *reader, const struct draft *draft,
                                    const char *path, const struct place *place)
{
    const struct node *node = draft_given(draft, path);
    if (!node || node_is_null(node))
        return NULL;
    if (node->kind == NODE_MAP)
        return node;
    reader_refuse(reader, node, place, "is %s, expected a mapping of name: value",
                  shown(reader, node));
    return NULL;
}

static void command_check(struct reader *reader, struct draft *draft, const struct node *params,
                          const struct place *params_place)
{
    struct place recipe = {.up = draft_place(draft), .key = "recipe"};
    struct place command = {.up = draft_place(draft), .key = "command"};
    if (draft_gives(draft, "recipe"))
        reader_refuse(reader, draft_given(draft, "recipe"), &recipe,
                      "is given, but kind command has no recipe: it starts your own program");
    if (!draft_gives(draft, "command"))
        reader_refuse(reader, draft->node, &command,
                      "is missing, expected a list [program, argument, ...]");
    if (params)
        free_params_put(reader, draft, params, params_place);
}

static void recipe_check(struct reader *reader, struct draft *draft, const struct node *params,
                         const struct place *params_place)
{
    struct place command = {.up = draft_place(draft), .key = "command"};
    struct place inputs_place = {.up = draft_place(draft), .key = "inputs"};
    struct place outputs = {.up = draft_place(draft), .key = "outputs"};
    const struct node *inputs = draft_given(draft, "inputs");
    if (draft_gives(draft, "command"))
        reader_refuse(reader, draft_given(draft, "command"), &command,
                      "is given, but only kind command starts a program; kind is '%s'",
                      draft->job.kind);
    if (draft_gives(draft, "outputs"))
        reader_refuse(reader, draft_given(draft, "outputs"), &outputs,
                      "is given, but only kind command names its outputs: a recipe knows its own");
    if (!kind_known(reader, draft->job.kind)) {
        kind_refuse(reader, draft);
        return;
    }
    draft->recipe = catalogue_find(reader->catalogue, draft->job.kind, draft->job.recipe);
    if (!draft->recipe) {
        recipe_refuse(reader, draft);
        return;
    }
    inputs_check(reader, draft, inputs && inputs->kind == NODE_MAP ? inputs : NULL, &inputs_place);
    params_check(reader, draft, params, params_place);
}

static void retry_check(struct reader *reader, const struct draft *draft)
{
    struct place up = {.up = draft_place(draft), .key = "retry"};
    struct place here = {.up = &up, .key = "memory_factor"};
    const struct spec_retry *retry = &draft->job.retry;
    if (retry->memory_factor_permille != 1000 && !(retry->causes & SPEC_CAUSE_BIT(CAUSE_OOM)))
        reader_refuse(reader, draft_given(draft, "retry.memory_factor"), &here,
                      "has no effect unless retry.on lists oom");
    here.key = "memory_max";
    if (retry->memory_max_bytes && retry->memory_factor_permille == 1000)
        reader_refuse(reader, draft_given(draft, "retry.memory_max"), &here,
                      "has no effect without retry.memory_factor");
    else if (retry->memory_max_bytes &&
             retry->memory_max_bytes < draft->job.resources.memory_bytes)
        reader_refuse(reader, draft_given(draft, "retry.memory_max"), &here,
                      "is less than resources.memory");
}

/* Where a field was written: its node, else the job's. */
static void shape_refuse(struct reader *reader, const struct draft *draft, const char *key,
                         const char *text)
{
    struct place group = {.up = draft_place(draft), .key = "resources"};
    struct place here = {.up = &group, .key = key};
    const struct node *node =
        draft_given(draft, arena_printf(reader->arena, "resources.%s", key));
    reader_refuse(reader, node ? node : draft->node, &here, "%s", text);
}

/* Ranks over nodes; and without `nodes`, how many ranks_per_node asks for. */
static void shape_check(struct reader *reader, struct draft *draft)
{
    struct spec_resources *want = &draft->job.resources;
    uint32_t per_node = want->ranks_per_node;
    if (per_node && !draft_gives(draft, "resources.nodes"))
        want->nodes_min = want->nodes_max = (want->ranks - 1) / per_node + 1;
    if (want->nodes_max > want->ranks)
        shape_refuse(reader, draft, "nodes",
                     arena_printf(reader->arena,
                                  "is up to %u, but there are %u ranks and every node needs one",
                                  want->nodes_max, want->ranks));
    else if (per_node && (uint64_t)per_node * want->nodes_max < want->ranks)
        shape_refuse(reader, draft, "ranks_per_node",
                     arena_printf(reader->arena,
                                  "is %u, and %u nodes of so many cannot hold %u ranks", per_node,
                                  want->nodes_max, want->ranks));
    if (want->gpu_model[0] && want->gpus == 0)
        shape_refuse(reader, draft, "gpu_model",
                     "is given, but resources.gpus is 0: how many GPUs of it has each rank?");
}

void draft_check(struct reader *reader, struct draft *draft)
{
    size_t errors_before = reader->error_count;
    struct place params_place = {.up = draft_place(draft), .key = "params"};
    const struct node *params = map_given(reader, draft, "params", &params_place);
    retry_check(reader, draft);
    shape_check(reader, draft);
    notify_check(reader, draft);
    draft->job.queue_mark = reader_mark(reader, draft_given(draft, "queue"));
    draft->job.project_mark = reader_mark(reader, draft_given(draft, "project"));
    draft->job.wall_time_mark = reader_mark(reader, draft_given(draft, "limits.wall_time"));
    if (!draft_gives(draft, "kind"))
        kind_refuse(reader, draft);
    else if (strcmp(draft->job.kind, "command") == 0)
        command_check(reader, draft, params, &params_place);
    else
        recipe_check(reader, draft, params, &params_place);
    draft->failed = draft->failed || reader->error_count > errors_before;
}
