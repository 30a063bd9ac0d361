/* job_json.c - resolved jobs as JSON and back; the scalar fields are the table's (field.h). */
#include "common/spec/field.h"
#include "common/spec/json.h"

#include "common/base/json_tree.h"
#include "common/base/mem.h"
#include "common/base/parse.h"

#include <stdlib.h>
#include <string.h>

#define JOB_FORMAT 1 /* "athanor" in the JSON */
#define CONSTRAINT_ALTERNATIVES_MAX 32u

static void put_new(json_t *object, const char *key, json_t *value)
{
    CHECK(value && json_object_set_new(object, key, value) == 0);
}

/* ---- writing ---------------------------------------------------------------------------- */

static json_t *texts_to_json(const char *const *texts, size_t count)
{
    json_t *list = json_array();
    for (size_t i = 0; i < count; i++)
        CHECK(json_array_append_new(list, json_string(texts[i])) == 0);
    return list;
}

static json_t *causes_to_json(uint32_t causes)
{
    json_t *list = json_array();
    for (enum cause cause = CAUSE_NONE + 1; cause < CAUSE_END; cause++)
        if (causes & SPEC_CAUSE_BIT(cause))
            CHECK(json_array_append_new(list, json_string(cause_name(cause))) == 0);
    return list;
}

/* An object, or a list of them where there are alternatives. */
static json_t *constraints_to_json(const struct spec_job *job)
{
    json_t *list = json_array();
    CHECK(json_array_append_new(list, json_object()) == 0);
    for (size_t i = 0; i < job->constraint_count; i++) {
        const struct spec_label *label = &job->constraints[i];
        if (label->alternative == json_array_size(list))
            CHECK(json_array_append_new(list, json_object()) == 0);
        put_new(json_array_get(list, label->alternative), label->name,
                texts_to_json(label->values, label->value_count));
    }
    if (json_array_size(list) > 1)
        return list;
    json_t *only = json_incref(json_array_get(list, 0));
    json_decref(list);
    return only;
}

static json_t *inputs_to_json(const struct spec_job *job)
{
    json_t *object = json_object();
    for (size_t i = 0; i < job->input_count; i++) {
        json_t *input = json_object();
        put_new(input, "ref", json_string(job->inputs[i].ref.text));
        if (job->inputs[i].job_id > 0)
            put_new(input, "job_id", json_integer((json_int_t)job->inputs[i].job_id));
        if (job->inputs[i].trial_count > 0)
            put_new(input, "trials", json_integer(job->inputs[i].trial_count));
        put_new(object, job->inputs[i].name, input);
    }
    return object;
}

static json_t *needs_to_json(const struct spec_job *job)
{
    struct arena arena = {0};
    json_t *list = json_array();
    for (size_t i = 0; i < job->need_count; i++) {
        json_t *need = json_object();
        put_new(need, "job", json_string(job->needs[i].job));
        put_new(need, "on",
                json_string(spec_condition_text(&arena, job->needs[i].on, job->needs[i].artifact)));
        put_new(need, "implied", json_boolean(job->needs[i].implied));
        if (job->needs[i].job_id > 0)
            put_new(need, "job_id", json_integer((json_int_t)job->needs[i].job_id));
        CHECK(json_array_append_new(list, need) == 0);
    }
    arena_done(&arena);
    return list;
}

/* Written only where they say something, so that specs of earlier versions stay as they are. */
static void group_to_json(const struct spec_job *job, json_t *object)
{
    if (job->at_once > 0)
        put_new(object, "at_once", json_integer(job->at_once));
    if (job->trial_count == 0)
        return;
    put_new(object, "trial_count", json_integer(job->trial_count));
    put_new(object, "trial_index", json_integer(job->trial_index));
}

static json_t *env_to_json(const struct spec_job *job)
{
    json_t *object = json_object();
    for (size_t i = 0; i < job->env_count; i++)
        put_new(object, job->env[i].name, json_string(job->env[i].value));
    return object;
}

/* Nothing is said where there are none, as in specs of earlier versions. */
static void secrets_to_json(const struct spec_job *job, json_t *object)
{
    json_t *secrets = job->secret_count > 0 ? json_object() : NULL;
    for (size_t i = 0; i < job->secret_count; i++)
        put_new(secrets, job->secrets[i].name, json_string(job->secrets[i].value));
    if (secrets)
        put_new(object, "secrets", secrets);
}

static json_t *params_to_json(const char *params)
{
    json_t *value;
    struct err err;
    CHECK(json_read(params, strlen(params), &value, &err) == 0); /* we wrote it */
    return value;
}

static char *json_take(json_t *object)
{
    struct buf text = {0};
    json_put(&text, object);
    json_decref(object);
    return buf_take(&text);
}

/* Nobody to be told: nothing is said, as in specs of earlier versions. */
static void notify_to_json(const struct spec_notify *notify, json_t *object)
{
    json_t *group = json_object_get(object, "notify"), *list = json_array();
    for (size_t i = 0; i < ARRAY_COUNT(spec_end_names); i++)
        if (notify->on & ((uint32_t)1 << i))
            CHECK(json_array_append_new(list, json_string(spec_end_names[i])) == 0);
    if (group)
        put_new(group, "on", list);
    else
        json_decref(list);
}

static json_t *job_to_json(const struct spec_job *job)
{
    json_t *object = json_object();
    put_new(object, "athanor", json_integer(JOB_FORMAT));
    fields_to_json(job, object);
    put_new(json_object_get(object, "retry"), "on", causes_to_json(job->retry.causes));
    notify_to_json(&job->notify, object);
    put_new(object, "constraint", constraints_to_json(job));
    put_new(object, "inputs", inputs_to_json(job));
    put_new(object, "needs", needs_to_json(job));
    put_new(object, "outputs", texts_to_json(job->outputs, job->output_count));
    put_new(object, "params", params_to_json(job->params));
    put_new(object, "command", texts_to_json(job->command, job->command_count));
    put_new(object, "env", env_to_json(job));
    secrets_to_json(job, object);
    group_to_json(job, object);
    return object;
}

char *spec_job_json(const struct spec_job *job)
{
    return json_take(job_to_json(job));
}

char *spec_job_identity(const struct spec_job *job)
{
    static const char *const without[] = {
        "name",  "experiment", "description", "priority",    "hold",    "needs",   "array_count",
        "array_index", "at_once", "trial_count", "trial_index", "queue", "project", "inputs",
        "notify", "retention",
    };
    bool has_code = job->code.hash && job->code.hash[0];
    if ((strcmp(job->kind, "command") == 0 && !has_code) || strcmp(job->kind, "data") == 0)
        return NULL;
    for (size_t i = 0; i < job->input_count; i++)
        if (job->inputs[i].ref.kind == SPEC_REF_FILE)
            return NULL;
    json_t *object = job_to_json(job);
    for (size_t i = 0; i < ARRAY_COUNT(without); i++)
        json_object_del(object, without[i]);
    json_object_del(json_object_get(object, "code"), "snapshot");
    return json_take(object);
}

/* ---- reading ---------------------------------------------------------------------------- */

static int wrong(struct err *err, const char *key)
{
    return err_set(err, ERR_PROTOCOL, "resolved job: '%s' is missing or of another type", key);
}

static int texts_from_json(const struct json_tree *list, struct arena *arena,
                           const char *const **out, size_t *out_count)
{
    size_t count = json_tree_count(list);
    const char **texts = arena_alloc(arena, (count + 1) * sizeof *texts);
    if (!json_tree_is(list, JSON_TREE_ARRAY))
        return -1;
    for (size_t i = 0; i < count; i++) {
        texts[i] = json_tree_text(&list->items[i]);
        if (!texts[i])
            return -1;
    }
    *out = texts;
    *out_count = count;
    return 0;
}

static int causes_from_json(const struct json_tree *list, uint32_t *out)
{
    struct err err;
    enum cause cause;
    *out = 0;
    for (size_t i = 0; i < json_tree_count(list); i++) {
        const char *name = json_tree_text(&list->items[i]);
        if (!name || cause_from_name(name, &cause, &err) < 0)
            return -1;
        *out |= SPEC_CAUSE_BIT(cause);
    }
    return json_tree_is(list, JSON_TREE_ARRAY) ? 0 : -1;
}

/* Members of objects come in byte order: the order in which jobs keep labels, inputs, variables. */
static int labels_from_json(const struct json_tree *object, struct arena *arena,
                            uint32_t alternative, struct spec_job *job)
{
    size_t count = json_tree_count(object);
    if (!json_tree_is(object, JSON_TREE_OBJECT))
        return -1;
    struct spec_label *labels =
        arena_alloc(arena, (job->constraint_count + count + 1) * sizeof *labels);
    if (job->constraint_count)
        memcpy(labels, job->constraints, job->constraint_count * sizeof *labels);
    for (size_t i = 0; i < count; i++) {
        struct spec_label *label = &labels[job->constraint_count++];
        *label = (struct spec_label){.name = object->items[i].key, .alternative = alternative};
        if (texts_from_json(&object->items[i], arena, &label->values, &label->value_count) < 0)
            return -1;
    }
    job->constraints = labels;
    return 0;
}

static int constraints_from_json(const struct json_tree *value, struct arena *arena,
                                 struct spec_job *job)
{
    if (!json_tree_is(value, JSON_TREE_ARRAY))
        return labels_from_json(value, arena, 0, job);
    if (value->count < 2 || value->count > CONSTRAINT_ALTERNATIVES_MAX)
        return -1;
    for (size_t i = 0; i < value->count; i++)
        if (json_tree_count(&value->items[i]) == 0 ||
            labels_from_json(&value->items[i], arena, (uint32_t)i, job) < 0)
            return -1;
    return 0;
}

static int inputs_from_json(const struct json_tree *object, struct arena *arena,
                            struct spec_job *job)
{
    if (!json_tree_is(object, JSON_TREE_OBJECT))
        return -1;
    job->input_count = object->count;
    job->inputs = arena_alloc(arena, (job->input_count + 1) * sizeof *job->inputs);
    for (size_t i = 0; i < job->input_count; i++) {
        const struct json_tree *value = &object->items[i];
        const char *ref = json_tree_text(json_tree_get(value, "ref"));
        struct spec_input *input = &job->inputs[i];
        struct err err;
        if (!ref || spec_ref_parse(ref, NULL, arena, &input->ref, &err) < 0)
            return -1;
        input->name = value->key;
        input->job_index = SPEC_EXTERNAL;
        input->job_id = (uint64_t)json_tree_integer(json_tree_get(value, "job_id"));
        int64_t trials = json_tree_integer(json_tree_get(value, "trials"));
        if (trials < 0 || trials > SPEC_TRIALS_MAX)
            return -1;
        input->trial_count = (uint32_t)trials;
    }
    return 0;
}

static int need_from_json(const struct json_tree *value, struct spec_need *need)
{
    const char *job = json_tree_text(json_tree_get(value, "job"));
    const char *on = json_tree_text(json_tree_get(value, "on"));
    if (!job || !on)
        return -1;
    *need = (struct spec_need){.job = job, .job_index = SPEC_EXTERNAL};
    need->implied = json_tree_is(json_tree_get(value, "implied"), JSON_TREE_TRUE);
    need->job_id = (uint64_t)json_tree_integer(json_tree_get(value, "job_id"));
    return spec_condition_read(on, &need->on, &need->artifact) ? 0 : -1;
}

/* 0 when the number is not there; -1 when it is none. */
static int count_from_json(const struct json_tree *object, const char *key, uint32_t *out)
{
    const struct json_tree *value = json_tree_get(object, key);
    int64_t number = json_tree_integer(value);
    bool fits = json_tree_is(value, JSON_TREE_INTEGER) && number >= 0 && number <= UINT32_MAX;
    *out = (uint32_t)number;
    return !value || fits ? 0 : -1;
}

static int needs_from_json(const struct json_tree *list, struct arena *arena,
                           struct spec_job *job)
{
    if (!json_tree_is(list, JSON_TREE_ARRAY))
        return -1;
    job->need_count = list->count;
    job->needs = arena_alloc(arena, (job->need_count + 1) * sizeof *job->needs);
    for (size_t i = 0; i < job->need_count; i++)
        if (need_from_json(&list->items[i], &job->needs[i]) < 0)
            return -1;
    return 0;
}

static int variables_from_json(const struct json_tree *object, struct arena *arena,
                               const struct spec_variable **out, size_t *out_count)
{
    if (!json_tree_is(object, JSON_TREE_OBJECT))
        return -1;
    *out_count = object->count;
    struct spec_variable *all = arena_alloc(arena, (*out_count + 1) * sizeof *all);
    for (size_t i = 0; i < *out_count; i++) {
        all[i] = (struct spec_variable){object->items[i].key, object->items[i].text};
        if (!all[i].value)
            return -1;
    }
    *out = all;
    return 0;
}

/* Parameters are kept as canonical text, which jsonb's is not. */
static int params_from_json(const struct json_tree *object, struct arena *arena,
                            struct spec_job *job)
{
    json_t *value;
    struct err err;
    struct buf text = {0};
    job->params = "{}";
    if (json_tree_is(object, JSON_TREE_OBJECT) && object->count == 0)
        return 0;
    if (!json_tree_is(object, JSON_TREE_OBJECT) ||
        json_read(object->source, object->source_length, &value, &err) < 0)
        return -1;
    json_put(&text, value);
    json_decref(value);
    job->params = arena_strdup(arena, buf_text(&text));
    buf_done(&text);
    return 0;
}

static int notify_from_json(const struct json_tree *group, uint32_t *out)
{
    const struct json_tree *list = json_tree_get(group, "on");
    *out = group ? 0 : SPEC_END_FAILED;
    for (size_t i = 0; i < json_tree_count(list); i++) {
        const char *name = json_tree_text(&list->items[i]);
        for (size_t k = 0; name && k < ARRAY_COUNT(spec_end_names); k++)
            if (strcmp(name, spec_end_names[k]) == 0)
                *out |= (uint32_t)1 << k;
    }
    return !group || json_tree_is(list, JSON_TREE_ARRAY) ? 0 : -1;
}

static int job_from_json(const struct json_tree *object, struct arena *arena,
                         struct spec_job *job, struct err *err)
{
    if (json_tree_integer(json_tree_get(object, "athanor")) != JOB_FORMAT)
        return err_set(err, ERR_PROTOCOL, "resolved job: expected \"athanor\": %d", JOB_FORMAT);
    if (fields_from_json(object, arena, job, err) < 0)
        return -1;
    if (causes_from_json(json_tree_at(object, "retry.on"), &job->retry.causes) < 0)
        return wrong(err, "retry.on");
    if (notify_from_json(json_tree_get(object, "notify"), &job->notify.on) < 0)
        return wrong(err, "notify.on");
    if (constraints_from_json(json_tree_get(object, "constraint"), arena, job) < 0)
        return wrong(err, "constraint");
    if (inputs_from_json(json_tree_get(object, "inputs"), arena, job) < 0)
        return wrong(err, "inputs");
    if (needs_from_json(json_tree_get(object, "needs"), arena, job) < 0)
        return wrong(err, "needs");
    if (texts_from_json(json_tree_get(object, "outputs"), arena, &job->outputs,
                        &job->output_count) < 0)
        return wrong(err, "outputs");
    if (params_from_json(json_tree_get(object, "params"), arena, job) < 0)
        return wrong(err, "params");
    if (texts_from_json(json_tree_get(object, "command"), arena, &job->command,
                        &job->command_count) < 0)
        return wrong(err, "command");
    if (variables_from_json(json_tree_get(object, "env"), arena, &job->env, &job->env_count) < 0)
        return wrong(err, "env");
    const struct json_tree *secrets = json_tree_get(object, "secrets");
    if (secrets &&
        variables_from_json(secrets, arena, &job->secrets, &job->secret_count) < 0)
        return wrong(err, "secrets");
    if (count_from_json(object, "at_once", &job->at_once) < 0 ||
        count_from_json(object, "trial_count", &job->trial_count) < 0 ||
        count_from_json(object, "trial_index", &job->trial_index) < 0)
        return wrong(err, "at_once, trial_count or trial_index");
    return 0;
}

int spec_job_from_json(const char *text, struct arena *arena, struct spec_job *out,
                       struct err *err)
{
    struct json_tree object;
    struct spec_job job = {0};
    if (json_tree_read(text, strlen(text), arena, &object, err) < 0)
        return err_wrap(err, "resolved job");
    if (job_from_json(&object, arena, &job, err) < 0)
        return -1;
    *out = job;
    return 0;
}

/* ---- ATHANOR_SPEC ----------------------------------------------------------------------- */

static const struct spec_place *place_of(const struct spec_run *run, const char *name)
{
    for (size_t i = 0; i < run->place_count; i++)
        if (strcmp(run->places[i].name, name) == 0)
            return &run->places[i];
    return NULL;
}

/* Paths come from programs and folders, so they may be no UTF-8. */
static int place_put(json_t *input, const char *key, const char *text, struct err *err)
{
    if (!text || text[0] == '\0')
        return 0;
    if (!text_is_utf8(text, strlen(text)))
        return err_set(err, ERR_INVALID, "its %s is not UTF-8, which JSON requires", key);
    put_new(input, key, json_string(text));
    return 0;
}

static int inputs_complete(json_t *inputs, const struct spec_run *run, struct err *err)
{
    for (void *at = json_object_iter(inputs); at; at = json_object_iter_next(inputs, at)) {
        const char *name = json_object_iter_key(at);
        json_t *input = json_object_iter_value(at);
        const struct spec_place *place = place_of(run, name);
        if (!place)
            return err_set(err, ERR_INVALID, "input '%s' has no path: it was not found", name);
        if (!json_is_object(input))
            return wrong(err, "inputs");
        if (place_put(input, "path", place->path, err) < 0 ||
            place_put(input, "part", place->part, err) < 0 ||
            place_put(input, "hash", place->hash, err) < 0)
            return err_wrap(err, "input '%s'", name);
    }
    return 0;
}

int spec_json_complete(const char *job_json, const struct spec_run *run, char **out,
                       struct err *err)
{
    json_t *object = NULL;
    if (json_read(job_json, strlen(job_json), &object, err) < 0)
        return err_wrap(err, "resolved job");
    json_t *inputs = json_object_get(object, "inputs");
    if (!json_is_object(inputs)) {
        json_decref(object);
        return wrong(err, "inputs");
    }
    if (inputs_complete(inputs, run, err) < 0) {
        json_decref(object);
        return -1;
    }
    put_new(object, "job_id", json_integer((json_int_t)run->job_id));
    put_new(object, "attempt_id", json_integer((json_int_t)run->attempt_id));
    put_new(object, "attempt", json_integer((json_int_t)run->attempt));
    *out = json_take(object);
    return 0;
}
