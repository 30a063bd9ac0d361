/* sweep.c - one job becomes many trials: which fields vary, over which values, in which order.
 *
 * Everything is decided here, from the spec and its seed, so a trial is an ordinary job whose
 * fields have been checked like the user's own: each is read from a copy of the job's mapping with
 * the trial's values put in place, and an error names the line of the sweep that brought it.
 * Numbers of distributions are rounded to six digits: they are read by people and compared. */
#include "common/spec/field.h"
#include "common/spec/json.h"

#include "common/base/buf.h"
#include "common/base/mem.h"
#include "common/base/parse.h"
#include "common/base/rng.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define AXES_MAX 32u     /* fields that vary together; a grid of 2^32 would be refused anyway */
#define VALUES_MAX 1000u /* of one field */
#define ORDER_STREAM 1000000u /* of rng_at: apart from those of the axes */

enum axis_kind { AXIS_LIST = 1, AXIS_UNIFORM, AXIS_LOG_UNIFORM, AXIS_INT };

struct axis {
    const char *path;
    const struct node *key;  /* where the path stands */
    const struct node *from; /* where the values stand */
    enum axis_kind kind;
    struct node **values; /* AXIS_LIST */
    size_t count;
    double low, high; /* the distributions, both inclusive */
};

struct sweep_plan {
    struct reader *reader;
    struct axis axes[AXES_MAX];
    size_t axis_count;
    bool all_lists, has_trials, has_seed;
    uint64_t grid;     /* points when all axes are lists */
    uint32_t *order;   /* trial -> point of the grid; NULL: drawn, or in the grid's order */
    struct spec_sweep *sweep;
};

/* ---- values and distributions ------------------------------------------------------------- */

static bool number_of(const struct node *node, double *out)
{
    struct err err;
    return node->kind == NODE_SCALAR && node->plain && parse_f64(node->text, out, &err) == 0 &&
           fabs(*out) <= JSON_FLOAT_MAX;
}

static void list_axis(struct sweep_plan *plan, const struct node *list, const struct place *place,
                      struct axis *axis)
{
    axis->kind = AXIS_LIST;
    axis->from = list;
    axis->values = list->items;
    axis->count = list->count;
    if (list->count < 1 || list->count > VALUES_MAX)
        reader_refuse(plan->reader, list, place, "has %zu values, expected 1 to %u", list->count,
                      VALUES_MAX);
}

/* {uniform: [LOW, HIGH]} and its like. */
static void distribution_axis(struct sweep_plan *plan, const struct node *map,
                              const struct place *place, struct axis *axis)
{
    static const char *const names[] = {[AXIS_UNIFORM] = "uniform",
                                        [AXIS_LOG_UNIFORM] = "log_uniform",
                                        [AXIS_INT] = "int"};
    const struct node *range = map->count == 1 ? map->pairs[0].value : NULL;
    const char *name = range ? map->pairs[0].key->text : "";
    struct place here = {.up = place, .key = name};
    if (strcmp(name, "choice") == 0 && range->kind == NODE_LIST) {
        list_axis(plan, range, &here, axis);
        return;
    }
    for (int kind = AXIS_UNIFORM; kind <= AXIS_INT; kind++)
        if (strcmp(names[kind], name) == 0)
            axis->kind = (enum axis_kind)kind;
    axis->from = map;
    if (!axis->kind) {
        reader_refuse(plan->reader, map, place,
                      "is %s, expected a list of values, or one of {uniform: [LOW, HIGH]}, "
                      "{log_uniform: [LOW, HIGH]}, {int: [LOW, HIGH]}, {choice: [A, B, ...]}",
                      shown(plan->reader, map));
        return;
    }
    bool fits = range->kind == NODE_LIST && range->count == 2 &&
                number_of(range->items[0], &axis->low) && number_of(range->items[1], &axis->high) &&
                axis->low < axis->high;
    if (fits && axis->kind == AXIS_LOG_UNIFORM)
        fits = axis->low > 0;
    if (fits && axis->kind == AXIS_INT)
        fits = axis->low == floor(axis->low) && axis->high == floor(axis->high) &&
               axis->high - axis->low < 1e15;
    if (!fits)
        reader_refuse(plan->reader, range, &here, "is %s, expected [LOW, HIGH] with %s",
                      shown(plan->reader, range),
                      axis->kind == AXIS_INT           ? "whole numbers, LOW below HIGH"
                      : axis->kind == AXIS_LOG_UNIFORM ? "0 < LOW < HIGH"
                                                       : "LOW < HIGH");
}

/* Fields that say which job this is, or that would make the trials no longer one sweep. */
static bool path_is_fixed(const char *path)
{
    static const char *const fixed[] = {"athanor", "name",  "experiment", "sweep",
                                        "array",   "needs", "hold",       "jobs"};
    for (size_t i = 0; i < ARRAY_COUNT(fixed); i++) {
        size_t length = strlen(fixed[i]);
        if (strncmp(path, fixed[i], length) == 0 && (path[length] == '.' || path[length] == '\0'))
            return true;
    }
    return false;
}

static void over_read(struct sweep_plan *plan, const struct node *over, const struct place *place)
{
    struct reader *reader = plan->reader;
    if (over->kind != NODE_MAP || over->count < 1 || over->count > AXES_MAX) {
        reader_refuse(reader, over, place,
                      "is %s, expected a mapping of 1 to %u fields, such as "
                      "params.learning_rate: [0.001, 0.01]",
                      shown(reader, over), AXES_MAX);
        return;
    }
    plan->all_lists = true;
    plan->grid = 1;
    for (size_t i = 0; i < over->count; i++) {
        const struct node *key = over->pairs[i].key, *value = over->pairs[i].value;
        struct place here = {.up = place, .key = key->text};
        struct axis *axis = &plan->axes[plan->axis_count++];
        *axis = (struct axis){.path = key->text, .key = key, .from = value};
        if (path_is_fixed(key->text))
            reader_refuse(reader, key, &here,
                          "is the same for all trials, expected a field such as "
                          "params.learning_rate, resources.cores, env.NAME or command.1");
        else if (value->kind == NODE_LIST)
            list_axis(plan, value, &here, axis);
        else
            distribution_axis(plan, value, &here, axis);
        plan->all_lists = plan->all_lists && axis->kind == AXIS_LIST;
        plan->grid = min_u64(plan->grid * max_u64(axis->count, 1), UINT32_MAX);
    }
}

/* ---- the fields of `sweep:` --------------------------------------------------------------- */

static const char sweep_keys[] =
    "method, over, trials, seed, at_once, metric, mode, resource, min_resource, max_resource, "
    "reduction";

/* One of `choices` ("a|b"), from 1; 0 after refusing. */
static unsigned choice_read(struct sweep_plan *plan, const struct node *node,
                            const struct place *place, const char *const *choices, unsigned count,
                            const char *accepted)
{
    for (unsigned i = 0; node->kind == NODE_SCALAR && i < count; i++)
        if (strcmp(choices[i], node->text) == 0)
            return i + 1;
    reader_refuse(plan->reader, node, place, "is %s, expected %s", shown(plan->reader, node),
                  accepted);
    return 0;
}

static uint64_t count_read(struct sweep_plan *plan, const struct node *node,
                           const struct place *place, uint64_t low, uint64_t high)
{
    struct err err;
    uint64_t number = 0;
    if (node->kind == NODE_SCALAR && node->plain && parse_u64(node->text, &number, &err) == 0 &&
        number >= low && number <= high)
        return number;
    reader_refuse(plan->reader, node, place, "is %s, expected a whole number from %llu to %llu",
                  shown(plan->reader, node), (unsigned long long)low, (unsigned long long)high);
    return low;
}

static const char *metric_read(struct sweep_plan *plan, const struct node *node,
                               const struct place *place)
{
    if (node->kind == NODE_SCALAR && spec_metric_is_valid(node->text))
        return node->text;
    reader_refuse(plan->reader, node, place, "is %s, expected the name of a metric",
                  shown(plan->reader, node));
    return "";
}

static void pair_take(struct sweep_plan *plan, const struct node_pair *pair,
                      const struct place *place)
{
    static const char *const methods[] = {"grid", "random", "asha"};
    static const char *const modes[] = {"min", "max"};
    struct spec_sweep *sweep = plan->sweep;
    const struct node *value = pair->value;
    const char *key = pair->key->text;
    struct place here = {.up = place, .key = key};
    if (strcmp(key, "method") == 0)
        sweep->method =
            choice_read(plan, value, &here, methods, 3, "grid, random or asha");
    else if (strcmp(key, "over") == 0)
        over_read(plan, value, &here);
    else if (strcmp(key, "trials") == 0) {
        sweep->trial_count = (uint32_t)count_read(plan, value, &here, 1, SPEC_TRIALS_MAX);
        plan->has_trials = true;
    } else if (strcmp(key, "seed") == 0)
        sweep->seed = count_read(plan, value, &here, 0, INT64_MAX);
    else if (strcmp(key, "at_once") == 0)
        sweep->at_once = (uint32_t)count_read(plan, value, &here, 1, SPEC_TRIALS_MAX);
    else if (strcmp(key, "metric") == 0)
        sweep->metric = metric_read(plan, value, &here);
    else if (strcmp(key, "mode") == 0)
        sweep->mode = choice_read(plan, value, &here, modes, 2, "min or max");
    else if (strcmp(key, "resource") == 0)
        sweep->resource = metric_read(plan, value, &here);
    else if (strcmp(key, "min_resource") == 0)
        sweep->min_resource = count_read(plan, value, &here, 1, SPEC_RESOURCE_MAX);
    else if (strcmp(key, "max_resource") == 0)
        sweep->max_resource = count_read(plan, value, &here, 2, SPEC_RESOURCE_MAX);
    else if (strcmp(key, "reduction") == 0)
        sweep->reduction = (uint32_t)count_read(plan, value, &here, 2, 100);
    else
        reader_refuse(plan->reader, pair->key, place, "there is no field %s here, expected one of "
                                                      "%s",
                      quoted(plan->reader, key), sweep_keys);
}

static void wanted(struct sweep_plan *plan, const struct node *map, const struct place *place,
                   const char *key, const char *text)
{
    struct place here = {.up = place, .key = key};
    if (!node_get(map, key))
        reader_refuse(plan->reader, map, &here, "is missing, expected %s", text);
}

/* What only early stopping reads has no effect elsewhere, so it is refused there. */
static void asha_check(struct sweep_plan *plan, const struct node *map, const struct place *place)
{
    static const char *const only[] = {"resource", "min_resource", "max_resource", "reduction"};
    const struct spec_sweep *sweep = plan->sweep;
    for (size_t i = 0; i < ARRAY_COUNT(only) && sweep->method != SPEC_SWEEP_ASHA; i++) {
        struct place here = {.up = place, .key = only[i]};
        if (node_get(map, only[i]))
            reader_refuse(plan->reader, node_get(map, only[i]), &here,
                          "has no effect: only method asha stops trials early");
    }
    if (sweep->method != SPEC_SWEEP_ASHA)
        return;
    wanted(plan, map, place, "metric", "the name of the metric that trials are compared by");
    wanted(plan, map, place, "min_resource", "the steps after which a trial is first judged");
    wanted(plan, map, place, "max_resource", "the steps that a trial makes when nothing stops it");
    struct place here = {.up = place, .key = "max_resource"};
    if (sweep->min_resource && sweep->max_resource && sweep->max_resource <= sweep->min_resource)
        reader_refuse(plan->reader, node_get(map, "max_resource"), &here,
                      "is %llu, expected more than min_resource, which is %llu",
                      (unsigned long long)sweep->max_resource,
                      (unsigned long long)sweep->min_resource);
}

/* How many trials; what the method needs is there. */
static void size_check(struct sweep_plan *plan, const struct node *map, const struct place *place)
{
    struct spec_sweep *sweep = plan->sweep;
    const struct node *trials = node_get(map, "trials");
    struct place here = {.up = place, .key = "trials"};
    if (sweep->method == SPEC_SWEEP_GRID && trials)
        reader_refuse(plan->reader, trials, &here,
                      "has no effect: a grid tries every combination; method random draws");
    for (size_t i = 0; sweep->method == SPEC_SWEEP_GRID && i < plan->axis_count; i++)
        if (plan->axes[i].kind != AXIS_LIST)
            reader_refuse(plan->reader, plan->axes[i].from, place,
                          "over.%s is a distribution, but method grid needs lists of values",
                          plan->axes[i].path);
    bool whole = sweep->method != SPEC_SWEEP_RANDOM && plan->all_lists;
    if (!plan->has_trials && !whole && sweep->method != SPEC_SWEEP_GRID)
        wanted(plan, map, place, "trials", "how many trials to draw");
    if (!plan->has_trials)
        sweep->trial_count = (uint32_t)plan->grid;
    if (plan->all_lists)
        sweep->trial_count = (uint32_t)min_u64(sweep->trial_count, plan->grid);
    if (sweep->trial_count > SPEC_TRIALS_MAX)
        reader_refuse(plan->reader, node_get(map, "over"), place,
                      "has %llu combinations, at most %u trials are accepted: draw some with "
                      "method random and `trials`",
                      (unsigned long long)plan->grid, SPEC_TRIALS_MAX);
}

/* ---- trials ------------------------------------------------------------------------------- */

/* A permutation of the grid's points (Fisher and Yates): random draws without repeats, and for
 * asha an order in which the first trials are not all alike. */
static void order_draw(struct sweep_plan *plan)
{
    size_t count = plan->grid;
    if (!plan->all_lists || plan->sweep->method == SPEC_SWEEP_GRID || count > SPEC_GRID_MAX)
        return;
    plan->order = arena_alloc(plan->reader->arena, count * sizeof *plan->order);
    for (size_t i = 0; i < count; i++)
        plan->order[i] = (uint32_t)i;
    for (size_t i = count; i > 1; i--) {
        size_t j = rng_at(plan->sweep->seed, ORDER_STREAM, i) % i;
        uint32_t moved = plan->order[i - 1];
        plan->order[i - 1] = plan->order[j];
        plan->order[j] = moved;
    }
}

/* A number of a distribution as a plain scalar that stands where the distribution does. */
static struct node *number_node(struct sweep_plan *plan, const struct axis *axis, double unit)
{
    char text[40];
    double value;
    if (axis->kind == AXIS_INT) {
        value = axis->low + floor(unit * (axis->high - axis->low + 1));
        snprintf(text, sizeof text, "%.0f", value);
    } else {
        value = axis->kind == AXIS_UNIFORM
                    ? axis->low + unit * (axis->high - axis->low)
                    : exp(log(axis->low) + unit * (log(axis->high) - log(axis->low)));
        snprintf(text, sizeof text, "%.6g", value);
        double rounded = strtod(text, NULL);
        if (rounded < axis->low || rounded > axis->high)
            snprintf(text, sizeof text, "%.17g", rounded < axis->low ? axis->low : axis->high);
    }
    struct node *node =
        node_scalar_new(plan->reader->arena, arena_strdup(plan->reader->arena, text), true);
    node->source = axis->from->source;
    node->line = axis->from->line;
    node->column = axis->from->column;
    return node;
}

/* The value of an axis in a trial. In a grid the last field varies fastest. */
static struct node *axis_value(struct sweep_plan *plan, size_t index, uint32_t trial)
{
    const struct axis *axis = &plan->axes[index];
    uint64_t seed = plan->sweep->seed;
    if (axis->kind != AXIS_LIST)
        return number_node(plan, axis, rng_unit_at(seed, index, trial));
    if (!plan->all_lists || (!plan->order && plan->sweep->method != SPEC_SWEEP_GRID))
        return axis->values[rng_at(seed, index, trial) % axis->count];
    uint64_t point = plan->order ? plan->order[trial] : trial;
    for (size_t i = plan->axis_count; i-- > index + 1;)
        point /= plan->axes[i].count;
    return axis->values[point % axis->count];
}

struct node *sweep_trial(struct sweep_plan *plan, struct node *job, uint32_t trial)
{
    struct arena *arena = plan->reader->arena;
    struct buf json = {0};
    buf_putc(&json, '{');
    for (size_t i = 0; i < plan->axis_count; i++) {
        const struct axis *axis = &plan->axes[i];
        struct node *value = axis_value(plan, i, trial);
        struct place place = {.key = axis->path};
        buf_puts(&json, i ? ", " : "");
        json_put_text(&json, axis->path);
        buf_puts(&json, ": ");
        node_put_json(plan->reader, &json, value, &place);
        if (!tree_set(plan->reader, &job, axis->path, value, axis->key))
            break;
    }
    buf_putc(&json, '}');
    plan->sweep->params[trial] = arena_strdup(arena, buf_text(&json));
    buf_done(&json);
    return job;
}

/* ---- entry -------------------------------------------------------------------------------- */

static const char *space_json(struct sweep_plan *plan, const struct node *over,
                              const struct place *place)
{
    struct buf json = {0};
    node_put_json(plan->reader, &json, over, place);
    const char *copy = arena_strdup(plan->reader->arena, buf_text(&json));
    buf_done(&json);
    return copy;
}

struct sweep_plan *sweep_read(struct reader *reader, const struct node *node,
                              const struct place *place, struct spec_sweep *out)
{
    size_t errors_before = reader->error_count;
    struct sweep_plan *plan = arena_alloc(reader->arena, sizeof *plan);
    *plan = (struct sweep_plan){.reader = reader, .sweep = out};
    *out = (struct spec_sweep){
        .metric = "", .mode = SPEC_BEST_MIN, .resource = "step", .reduction = 3};
    if (node->kind != NODE_MAP) {
        reader_refuse(reader, node, place, "is %s, expected a mapping of %s", shown(reader, node),
                      sweep_keys);
        return NULL;
    }
    for (size_t i = 0; i < node->count; i++)
        pair_take(plan, &node->pairs[i], place);
    wanted(plan, node, place, "method", "grid, random or asha");
    wanted(plan, node, place, "over", "a mapping of fields to lists or distributions");
    if (reader->error_count == errors_before) {
        asha_check(plan, node, place);
        size_check(plan, node, place);
    }
    if (reader->error_count > errors_before)
        return NULL;
    struct place over = {.up = place, .key = "over"};
    out->space = space_json(plan, node_get(node, "over"), &over);
    out->params = arena_alloc(reader->arena, out->trial_count * sizeof *out->params);
    order_draw(plan);
    return reader->error_count > errors_before ? NULL : plan;
}
