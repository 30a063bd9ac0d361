/* stage.c - see stage.h. */
#include "worker/recipes/stage.h"

#include "common/base/file.h"
#include "common/base/hash.h"
#include "common/base/mem.h"
#include "worker/engine/comm.h"
#include "worker/engine/io/checkpoint.h"
#include "worker/recipes/registry.h"

#include <stdlib.h>
#include <string.h>

#define RECORD_BYTES_MAX ((size_t)1 << 16)
#define STATE_ALIGN      64

/* ---- plans ------------------------------------------------------------------------------ */

void stage_plan_done(struct stage_plan *plan)
{
    json_decref(plan->params);
    json_decref(plan->inputs);
    *plan = (struct stage_plan){0};
}

static json_t *input_object(const char *path, const char *ref, const char *part, const char *hash)
{
    json_t *object = json_pack("{s:s, s:s, s:s, s:s}", "path", path, "ref", ref ? ref : "", "part",
                               part ? part : "", "hash", hash ? hash : "");

    CHECK(object); /* jansson refuses text that is not UTF-8; specs are checked for it */
    return object;
}

void stage_plan_input(struct stage_plan *plan, const char *input, const char *path,
                      const char *ref, const char *part, const char *hash)
{
    if (!plan->inputs)
        plan->inputs = json_object();
    json_object_set_new(plan->inputs, input, input_object(path, ref, part, hash));
}

/* The outer job's value for a parameter of the stage; NULL: it has none. */
static json_t *inherited(const struct run *outer, const struct stage_plan *plan,
                         const struct param *wanted)
{
    const char *name = wanted->name;
    const struct param *param;
    const struct param_value *value = NULL;

    for (size_t i = 0; i < STAGE_PREFIXES_MAX && plan->prefix[i] && !value; i++) {
        char *full = mem_printf("%s%s", plan->prefix[i], name);
        value = job_value(outer->job, full, &param);
        mem_free(full);
    }
    if (!value) {
        value = job_value(outer->job, name, &param);
        if (value && param->type != wanted->type)
            value = NULL; /* the same word for another thing */
    }
    return value ? param_value_json(param, value) : NULL;
}

static json_t *resolve_params(const struct run *outer, const struct stage_plan *plan,
                              const struct recipe *recipe)
{
    json_t *params = json_object();

    for (size_t i = 0; i < recipe->param_count; i++) {
        const char *name = recipe->params[i].name;
        json_t *given = json_object_get(plan->params, name);
        json_t *value = given ? json_incref(given) : inherited(outer, plan, &recipe->params[i]);
        if (value)
            json_object_set_new(params, name, value);
    }
    return params;
}

static const struct run_input *outer_input(const struct run *outer, const char *name)
{
    for (size_t i = 0; i < outer->recipe->input_count; i++)
        if (strcmp(outer->recipe->inputs[i].name, name) == 0)
            return run_input(outer, name);
    return NULL;
}

static json_t *resolve_inputs(const struct run *outer, const struct stage_plan *plan,
                              const struct recipe *recipe)
{
    json_t *inputs = json_object();

    for (size_t i = 0; i < recipe->input_count; i++) {
        const char *name = recipe->inputs[i].name;
        json_t *given = json_object_get(plan->inputs, name);
        const struct run_input *same = given ? NULL : outer_input(outer, name);
        if (given)
            json_object_set(inputs, name, given);
        else if (same)
            json_object_set_new(inputs, name,
                                input_object(same->path, same->ref, same->part, same->hash));
    }
    return inputs;
}

/* ---- life ------------------------------------------------------------------------------- */

static int parse(struct stage *stage, json_t *spec, struct err *err)
{
    char *text = json_dumps(spec, JSON_COMPACT | JSON_SORT_KEYS);
    struct hash hash;

    CHECK(text);
    hash_bytes(text, strlen(text), &hash);
    hash_to_hex(&hash, stage->key);
    int rc = job_parse(text, strlen(text), &stage->job, err);
    free(text);
    return rc;
}

int stage_resolve(struct run *outer, const struct stage_plan *plan, struct stage *stage,
                  struct err *err)
{
    const struct recipe *recipe;

    *stage = (struct stage){.name = mem_strdup(plan->name),
                            .folder = stage_path(outer, plan->name, "")};
    if (recipe_find(plan->kind, plan->recipe, &recipe, err) < 0)
        return -1;
    json_t *spec = json_pack("{s:s, s:s, s:s, s:o, s:o}", "name", outer->name, "kind", plan->kind,
                             "recipe", plan->recipe, "params",
                             resolve_params(outer, plan, recipe), "inputs",
                             resolve_inputs(outer, plan, recipe));
    CHECK(spec);
    int rc = parse(stage, spec, err);
    json_decref(spec);
    if (rc < 0)
        return err_wrap(err, "stage '%s'", plan->name);
    stage->run = (struct run){.recipe = recipe, .comm = outer->comm, .rank = outer->rank,
                              .rank_count = outer->rank_count, .data_skip = outer->data_skip,
                              .name = outer->name, .job_dir = stage->folder,
                              .run_dir = outer->run_dir, .phase = "step", .stage = stage->name,
                              .job = &stage->job, .driver = outer->driver};
    return 0;
}

int stage_open(struct stage *stage, struct err *err)
{
    size_t bytes = (stage->run.recipe->state_size + STATE_ALIGN) / STATE_ALIGN * STATE_ALIGN;

    stage->run.job = &stage->job; /* the struct may have moved */
    stage->state = aligned_alloc(STATE_ALIGN, bytes);
    if (!stage->state)
        return err_set(err, ERR_MEMORY, "stage '%s' needs %zu bytes", stage->name, bytes);
    memset(stage->state, 0, bytes);
    char *models = mem_printf("%s/checkpoints", stage->folder);
    int rc = file_make_folders(models, 0755, err);
    if (rc == 0 && stage->run.rank == 0)
        rc = checkpoint_sweep(models, err);
    mem_free(models);
    stage->opened = true;
    if (rc < 0 || stage->run.recipe->open(&stage->run, stage->state, err) < 0)
        return err_wrap(err, "stage '%s'", stage->name);
    return 0;
}

int stage_step(struct stage *stage, struct err *err)
{
    if (stage->run.recipe->step(&stage->run, stage->state, err) < 0)
        return err_wrap(err, "stage '%s'", stage->name);
    stage->run.step += !stage->run.pace.again;
    return 0;
}

void stage_close(struct stage *stage)
{
    if (stage->opened)
        stage->run.recipe->close(&stage->run, stage->state);
    free(stage->state);
    job_done(&stage->job);
    mem_free(stage->name);
    mem_free(stage->folder);
    *stage = (struct stage){0};
}

/* ---- done ------------------------------------------------------------------------------- */

char *stage_path(const struct run *outer, const char *name, const char *rest)
{
    return mem_printf("%s/stages/%s%s%s", outer->job_dir, name, *rest ? "/" : "", rest);
}

char *stage_model(const struct run *outer, const char *name, uint64_t steps)
{
    char *rest = mem_printf("checkpoints/step-%010llu", (unsigned long long)steps);
    char *path = stage_path(outer, name, rest);

    mem_free(rest);
    return path;
}

static bool read_record(const json_t *root, const char *key, struct stage_record *out)
{
    const char *made = json_string_value(json_object_get(root, "key"));
    const json_t *values = json_object_get(root, "values");

    if (!made || strcmp(made, key) != 0 || json_array_size(values) != STAGE_VALUES_MAX)
        return false;
    out->steps = (uint64_t)json_integer_value(json_object_get(root, "steps"));
    for (size_t i = 0; i < STAGE_VALUES_MAX; i++)
        out->values[i] = json_number_value(json_array_get(values, i));
    return true;
}

int stage_find(struct stage *stage, bool *out_done, struct stage_record *out, struct err *err)
{
    char *path = mem_printf("%s/done.json", stage->folder), *text = NULL;
    struct {
        bool done;
        struct stage_record record;
    } found = {0};
    size_t length;
    int rc = 0;

    if (stage->run.rank == 0 && file_exists(path)) {
        rc = file_read(path, RECORD_BYTES_MAX, &text, &length, err);
        json_t *root = rc == 0 ? json_loadb(text, length, 0, NULL) : NULL;
        found.done = read_record(root, stage->key, &found.record);
        json_decref(root);
    }
    mem_free(text);
    mem_free(path);
    if (rc < 0)
        return -1;
    comm_broadcast(stage->run.comm, &found, sizeof found, 0);
    *out_done = found.done;
    *out = found.record;
    return 0;
}

static int write_record(const struct stage *stage, const struct stage_record *record,
                        struct err *err)
{
    char *path = mem_printf("%s/done.json", stage->folder);
    json_t *values = json_array();

    for (size_t i = 0; i < STAGE_VALUES_MAX; i++)
        json_array_append_new(values, json_real(record->values[i]));
    json_t *root = json_pack("{s:s, s:I, s:o}", "key", stage->key, "steps",
                             (json_int_t)record->steps, "values", values);
    CHECK(root); /* values are finite */
    char *text = json_dumps(root, JSON_COMPACT | JSON_SORT_KEYS);
    CHECK(text);
    int rc = file_replace(path, text, strlen(text), 0644, err);
    free(text);
    json_decref(root);
    mem_free(path);
    return rc;
}

int stage_finish(struct stage *stage, const struct stage_record *record, struct err *err)
{
    char *models = mem_printf("%s/checkpoints", stage->folder), *path = NULL;
    int rc = 0;

    if (stage->run.recipe->save)
        rc = run_save(&stage->run, stage->state, models, &path, err);
    mem_free(models);
    mem_free(path);
    if (rc == 0 && stage->run.rank == 0)
        rc = run_settle(&stage->run, err);
    if (rc == 0 && stage->run.rank == 0)
        rc = write_record(stage, record, err);
    if (rc < 0)
        return err_wrap(err, "stage '%s'", stage->name);
    comm_barrier(stage->run.comm);
    return 0;
}
