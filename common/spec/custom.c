/* custom.c - fields with a form of their own: lists, mappings and small sentences. */
#include "common/spec/field.h"

#include "common/base/mem.h"
#include "common/base/parse.h"

#include <stdlib.h>
#include <string.h>

#define LABELS_MAX 32u         /* labels of a constraint, values of a label */
#define NODES_MAX 4096u         /* as many as ranks */
#define VARIABLES_MAX 1000u    /* of env */
#define VALUE_BYTES_MAX 65536u /* of a variable; Linux takes 131,072 with its name */
#define ARGUMENT_BYTES_MAX 131071u /* MAX_ARG_STRLEN of Linux, less the terminator */
#define INPUTS_MAX 100u
#define METRIC_BYTES_MAX 100u
#define STEPS_MAX 1000000000u
#define EVERY_MS_MIN 1000u
#define EVERY_MS_MAX (UINT64_C(30) * 86400000)
#define KEEP_MAX 1000000u

/* Whether the node is of the wanted kind; nothing at all is an empty one. */
static bool is_kind(struct reader *reader, const struct node *node, const struct place *place,
                    enum node_kind kind, const char *accepted)
{
    if (node->kind == kind && !(kind == NODE_SCALAR && node_is_null(node)))
        return true;
    if (kind == NODE_SCALAR || !node_is_null(node))
        reader_refuse(reader, node, place, "is %s, expected %s", shown(reader, node), accepted);
    return false;
}

static bool is_short(struct reader *reader, const struct node *node, const struct place *place,
                     size_t most, const char *what)
{
    if (node->count <= most)
        return true;
    reader_refuse(reader, node, place, "has %zu %s, at most %zu are accepted", node->count, what,
                  most);
    return false;
}

void read_version(struct reader *reader, const struct node *node, const struct place *place,
                  struct draft *draft)
{
    (void)draft;
    if (node->kind != NODE_SCALAR || strcmp(node->text, "1") != 0)
        reader_refuse(reader, node, place,
                      "is %s, expected 1: the version of the spec language that this program reads",
                      shown(reader, node));
}

void read_elsewhere(struct reader *reader, const struct node *node, const struct place *place,
                    struct draft *draft)
{
    /* fields_read has noted the node; draft_check and spec_read use it. */
    (void)reader, (void)node, (void)place, (void)draft;
}

/* N, or {count: N, at_once: K} */
void read_array(struct reader *reader, const struct node *node, const struct place *place,
                struct draft *draft)
{
    static const char accepted[] = "a whole number from 1 to %u, or {count: N, at_once: K}";
    bool is_map = node->kind == NODE_MAP;
    struct spec_job *job = &draft->job;
    for (size_t i = 0; i < (is_map ? node->count : 1); i++) {
        const char *key = is_map ? node->pairs[i].key->text : "count";
        const struct node *value = is_map ? node->pairs[i].value : node;
        struct place here = {.up = place, .key = key};
        struct err err;
        uint64_t number;
        bool is_count = strcmp(key, "count") == 0;
        if (!is_count && strcmp(key, "at_once") != 0)
            reader_refuse(reader, node->pairs[i].key, place,
                          "there is no field %s here, expected count, at_once",
                          quoted(reader, key));
        else if (value->kind != NODE_SCALAR || !value->plain ||
                 parse_u64(value->text, &number, &err) < 0 || number < 1 ||
                 number > SPEC_JOBS_MAX)
            reader_refuse(reader, value, is_map ? &here : place,
                          is_map ? "is %s, expected a whole number from 1 to %u"
                                 : arena_printf(reader->arena, "is %%s, expected %s", accepted),
                          shown(reader, value), SPEC_JOBS_MAX);
        else
            *(is_count ? &job->array_count : &job->at_once) = (uint32_t)number;
    }
    if (is_map && !node_get(node, "count"))
        reader_refuse(reader, node, place, "has no count, expected {count: N, at_once: K}");
}

/* ---- lists of texts --------------------------------------------------------------------- */

void read_command(struct reader *reader, const struct node *node, const struct place *place,
                  struct draft *draft)
{
    if (!is_kind(reader, node, place, NODE_LIST, fields[field_index("command")].form))
        return;
    const char **arguments = arena_alloc(reader->arena, (node->count + 1) * sizeof *arguments);
    for (size_t i = 0; i < node->count; i++) {
        struct place here = {.up = place, .index = i};
        arguments[i] = "";
        if (!is_kind(reader, node->items[i], &here, NODE_SCALAR,
                     "text; write '' for an empty argument"))
            continue;
        arguments[i] = node->items[i]->text;
        if (strlen(arguments[i]) > ARGUMENT_BYTES_MAX)
            reader_refuse(reader, node->items[i], &here,
                          "has %zu bytes, the operating system takes at most %u",
                          strlen(arguments[i]), ARGUMENT_BYTES_MAX);
        else if (i == 0 && arguments[i][0] == '\0')
            reader_refuse(reader, node->items[i], &here, "is empty, expected a program");
    }
    if (node->count == 0)
        reader_refuse(reader, node, place, "is an empty list, expected [program, argument, ...]");
    draft->job.command = arguments;
    draft->job.command_count = node->count;
}

void read_outputs(struct reader *reader, const struct node *node, const struct place *place,
                  struct draft *draft)
{
    static const char before[] = "dataset:";
    if (!is_kind(reader, node, place, NODE_LIST, "a list of dataset:NAME") ||
        !is_short(reader, node, place, INPUTS_MAX, "outputs"))
        return;
    const char **names = arena_alloc(reader->arena, (node->count + 1) * sizeof *names);
    size_t count = 0;
    for (size_t i = 0; i < node->count; i++) {
        const struct node *item = node->items[i];
        struct place here = {.up = place, .index = i};
        bool fits = item->kind == NODE_SCALAR && strncmp(item->text, before, strlen(before)) == 0 &&
                    spec_name_is_valid(item->text + strlen(before));
        if (fits)
            names[count++] = item->text + strlen(before);
        else
            reader_refuse(reader, item, &here, "is %s, expected dataset:NAME", shown(reader, item));
    }
    draft->job.outputs = names;
    draft->job.output_count = count;
}

/* ---- retry.on --------------------------------------------------------------------------- */

static bool cause_may_retry(enum cause cause)
{
    return cause != CAUSE_SUCCESS && cause != CAUSE_CANCELLED && cause != CAUSE_DEPENDENCY &&
           cause != CAUSE_PRUNED && cause != CAUSE_REUSED && cause != CAUSE_PEER_FAILED &&
           cause != CAUSE_STALE_CHECKPOINT && cause != CAUSE_NODE_ENDED &&
           cause != CAUSE_DRAINED;
}

static void cause_refuse(struct reader *reader, const struct node *node,
                         const struct place *place)
{
    struct nearest nearest = nearest_of(reader, node->kind == NODE_SCALAR ? node->text : "");
    for (enum cause cause = CAUSE_NONE + 1; cause < CAUSE_END; cause++)
        if (cause_may_retry(cause))
            nearest_offer(&nearest, cause_name(cause));
    reader_refuse(reader, node, place,
                  "is %s, expected a cause out of exit, signal, oom, time_limit, preempted, "
                  "worker_lost, shepherd_lost, launch_failed, stalled, diverged, gave_up%s",
                  shown(reader, node), nearest_hint(reader, &nearest));
}

void read_causes(struct reader *reader, const struct node *node, const struct place *place,
                 struct draft *draft)
{
    if (!is_kind(reader, node, place, NODE_LIST, "a list of causes such as [worker_lost, oom]"))
        return;
    draft->job.retry.causes = 0;
    for (size_t i = 0; i < node->count; i++) {
        struct place here = {.up = place, .index = i};
        const struct node *item = node->items[i];
        enum cause cause;
        struct err err;
        if (item->kind != NODE_SCALAR || cause_from_name(item->text, &cause, &err) < 0 ||
            !cause_may_retry(cause))
            cause_refuse(reader, item, &here);
        else
            draft->job.retry.causes |= SPEC_CAUSE_BIT(cause);
    }
}

/* ---- resources.nodes -------------------------------------------------------------------- */

static bool nodes_parse(const char *text, uint32_t *out_min, uint32_t *out_max)
{
    char low[16];
    uint64_t min, max;
    struct err err;
    const char *dots = strstr(text, "..");
    size_t length = dots ? (size_t)(dots - text) : strlen(text);
    if (length >= sizeof low)
        return false;
    memcpy(low, text, length);
    low[length] = '\0';
    if (parse_u64(low, &min, &err) < 0 || parse_u64(dots ? dots + 2 : low, &max, &err) < 0 ||
        min < 1 || max < min || max > NODES_MAX)
        return false;
    *out_min = (uint32_t)min;
    *out_max = (uint32_t)max;
    return true;
}

void read_nodes(struct reader *reader, const struct node *node, const struct place *place,
                struct draft *draft)
{
    struct spec_resources *resources = &draft->job.resources;
    if (node->kind != NODE_SCALAR || !node->plain ||
        !nodes_parse(node->text, &resources->nodes_min, &resources->nodes_max))
        reader_refuse(reader, node, place,
                      "is %s, expected a whole number from 1 to %u, or a range such as 2..4",
                      shown(reader, node), NODES_MAX);
}

/* ---- constraint and env ----------------------------------------------------------------- */

static int label_compare(const void *left, const void *right)
{
    const struct spec_label *a = left, *b = right;
    if (a->alternative != b->alternative)
        return a->alternative < b->alternative ? -1 : 1;
    return strcmp(a->name, b->name);
}

/* NULL when it may stand there. */
static const char *label_value_fault(struct reader *reader, const struct node *node)
{
    if (node->kind != NODE_SCALAR || node->text[0] == '\0' ||
        strlen(node->text) > SPEC_NAME_BYTES_MAX)
        return arena_printf(reader->arena,
                            "expected a value of at most %u bytes, or a list of 1 to %u of them",
                            SPEC_NAME_BYTES_MAX, LABELS_MAX);
    const char *fault = spec_label_fault(node->text);
    return fault ? arena_printf(reader->arena,
                                "which %s; expected a value, !value, *, !*, >=N, >N, <=N or <N",
                                fault)
                 : NULL;
}

static bool label_read(struct reader *reader, const struct node_pair *pair,
                       const struct place *place, struct spec_label *label)
{
    const struct node *value = pair->value;
    bool is_list = value->kind == NODE_LIST;
    size_t count = is_list ? value->count : 1;
    const char **values = arena_alloc(reader->arena, (count + 1) * sizeof *values);
    const char *fault = NULL;
    if (!spec_name_is_valid(pair->key->text)) {
        reader_refuse(reader, pair->key, place, "is no label, expected %s",
                      field_accepts(reader->arena, &fields[field_index("name")]));
        return false;
    }
    if (count == 0 || count > LABELS_MAX)
        fault = arena_printf(reader->arena,
                             "expected a value of at most %u bytes, or a list of 1 to %u of them",
                             SPEC_NAME_BYTES_MAX, LABELS_MAX);
    for (size_t i = 0; !fault && i < count; i++) {
        const struct node *item = is_list ? pair->value->items[i] : value;
        fault = label_value_fault(reader, item);
        if (fault)
            value = item;
        values[i] = item->text;
    }
    if (fault)
        reader_refuse(reader, value, place, "is %s, %s", shown(reader, value), fault);
    *label = (struct spec_label){.name = pair->key->text, .values = values, .value_count = count};
    return !fault;
}

/* Adds the labels of one mapping. */
static size_t labels_read(struct reader *reader, const struct node *map, const struct place *place,
                          uint32_t alternative, struct spec_label *labels)
{
    size_t count = 0;
    for (size_t i = 0; i < map->count; i++) {
        struct place here = {.up = place, .key = map->pairs[i].key->text};
        if (label_read(reader, &map->pairs[i], &here, &labels[count]))
            labels[count++].alternative = alternative;
    }
    return count;
}

/* A list of mappings: one of them must fit. It replaces what `defaults:` say. */
static void alternatives_read(struct reader *reader, const struct node *list,
                              const struct place *place, struct spec_job *job)
{
    if (!is_short(reader, list, place, LABELS_MAX, "mappings"))
        return;
    struct spec_label *labels =
        arena_alloc(reader->arena, (list->count * LABELS_MAX + 1) * sizeof *labels);
    size_t count = 0;
    for (uint32_t i = 0; i < list->count; i++) {
        struct place here = {.up = place, .index = i};
        const struct node *map = list->items[i];
        if (map->kind != NODE_MAP || map->count == 0)
            reader_refuse(reader, map, &here, "is %s, expected a mapping of label: value",
                          map->kind == NODE_MAP ? "empty" : shown(reader, map));
        else if (is_short(reader, map, &here, LABELS_MAX, "labels"))
            count += labels_read(reader, map, &here, i, labels + count);
    }
    qsort(labels, count, sizeof *labels, label_compare);
    job->constraints = labels;
    job->constraint_count = count;
}

void read_constraint(struct reader *reader, const struct node *node, const struct place *place,
                     struct draft *draft)
{
    struct spec_job *job = &draft->job;
    if (node->kind == NODE_LIST) {
        alternatives_read(reader, node, place, job);
        return;
    }
    if (!is_kind(reader, node, place, NODE_MAP,
                 "a mapping of label: value, or a list of such mappings") ||
        !is_short(reader, node, place, LABELS_MAX, "labels"))
        return;
    size_t count = 0, before = job->constraint_count;
    if (before && job->constraints[before - 1].alternative > 0)
        before = 0; /* there is no one mapping in `defaults:` to add to */
    struct spec_label *labels =
        arena_alloc(reader->arena, (before + node->count + 1) * sizeof *labels);
    for (size_t i = 0; i < before; i++) /* of `defaults:`, unless given again */
        if (!node_get(node, job->constraints[i].name))
            labels[count++] = job->constraints[i];
    count += labels_read(reader, node, place, 0, labels + count);
    qsort(labels, count, sizeof *labels, label_compare);
    job->constraints = labels;
    job->constraint_count = count;
}

static int variable_compare(const void *a, const void *b)
{
    return strcmp(((const struct spec_variable *)a)->name, ((const struct spec_variable *)b)->name);
}

static bool variable_name_fits(const char *name)
{
    static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_";
    static const char rest[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_0123456789";
    return name[0] != '\0' && strchr(letters, name[0]) && name[strspn(name, rest)] == '\0';
}

/* What every rank gets from the worker (worker/README.md): a spec may not contradict it. */
static bool variable_is_reserved(const char *name)
{
    static const char *const names[] = {
        "RANK",        "WORLD_SIZE",      "LOCAL_RANK",      "LOCAL_WORLD_SIZE",
        "MASTER_ADDR", "MASTER_PORT",     "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS",
        "TMPDIR",      "CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES",
    };
    for (size_t i = 0; i < ARRAY_COUNT(names); i++)
        if (strcmp(names[i], name) == 0)
            return true;
    return strncmp(name, "ATHANOR_", strlen("ATHANOR_")) == 0 ||
           strncmp(name, "PMIX_", strlen("PMIX_")) == 0;
}

static bool variable_read(struct reader *reader, const struct node_pair *pair,
                          const struct place *place, struct spec_variable *variable)
{
    const char *name = pair->key->text;
    const struct node *value = pair->value;
    if (!variable_name_fits(name))
        reader_refuse(reader, pair->key, place,
                      "is no name of a variable, expected letters, digits and _");
    else if (variable_is_reserved(name))
        reader_refuse(reader, pair->key, place, "is set by Athanor for every rank, not by specs");
    else if (value->kind != NODE_SCALAR || node_is_null(value))
        reader_refuse(reader, value, place, "is %s, expected text; write '' for an empty one",
                      shown(reader, value));
    else if (strlen(value->text) > VALUE_BYTES_MAX)
        reader_refuse(reader, value, place, "has %zu bytes, at most %u are accepted",
                      strlen(value->text), VALUE_BYTES_MAX);
    else {
        *variable = (struct spec_variable){name, value->text};
        return true;
    }
    return false;
}

void read_env(struct reader *reader, const struct node *node, const struct place *place,
              struct draft *draft)
{
    struct spec_job *job = &draft->job;
    if (!is_kind(reader, node, place, NODE_MAP, "a mapping of NAME: text") ||
        !is_short(reader, node, place, VARIABLES_MAX, "variables"))
        return;
    size_t count = 0;
    struct spec_variable *env =
        arena_alloc(reader->arena, (job->env_count + node->count + 1) * sizeof *env);
    for (size_t i = 0; i < job->env_count; i++)
        if (!node_get(node, job->env[i].name))
            env[count++] = job->env[i];
    for (size_t i = 0; i < node->count; i++) {
        struct place here = {.up = place, .key = node->pairs[i].key->text};
        count += variable_read(reader, &node->pairs[i], &here, &env[count]);
    }
    qsort(env, count, sizeof *env, variable_compare);
    job->env = env;
    job->env_count = count;
}

/* ---- secrets ---------------------------------------------------------------------------- */

/* The name becomes part of ATHANOR_SECRET_<NAME>_FD, so any name of a variable will do. */
static bool secret_read(struct reader *reader, const struct node_pair *pair,
                        const struct place *place, struct spec_variable *secret)
{
    const char *name = pair->key->text;
    const struct node *value = pair->value;
    if (!variable_name_fits(name) || strlen(name) > SPEC_NAME_BYTES_MAX)
        reader_refuse(reader, pair->key, place,
                      "is no name for a variable, expected at most %u letters, digits and _",
                      SPEC_NAME_BYTES_MAX);
    else if (value->kind != NODE_SCALAR || !spec_name_is_valid(value->text))
        reader_refuse(reader, value, place,
                      "is %s, expected the name of a secret of yours or of the project (`athanor "
                      "secret ls`), not its value",
                      value->kind == NODE_SCALAR ? "no name" : shown(reader, value));
    else {
        *secret = (struct spec_variable){name, value->text, reader_mark(reader, value)};
        return true;
    }
    return false;
}

void read_secrets(struct reader *reader, const struct node *node, const struct place *place,
                  struct draft *draft)
{
    struct spec_job *job = &draft->job;
    if (!is_kind(reader, node, place, NODE_MAP, "a mapping of NAME: secret") ||
        !is_short(reader, node, place, SPEC_SECRETS_MAX, "secrets"))
        return;
    size_t count = 0;
    struct spec_variable *secrets =
        arena_alloc(reader->arena, (job->secret_count + node->count + 1) * sizeof *secrets);
    for (size_t i = 0; i < job->secret_count; i++)
        if (!node_get(node, job->secrets[i].name))
            secrets[count++] = job->secrets[i];
    for (size_t i = 0; i < node->count; i++) {
        struct place here = {.up = place, .key = node->pairs[i].key->text};
        count += secret_read(reader, &node->pairs[i], &here, &secrets[count]);
    }
    if (count > SPEC_SECRETS_MAX) {
        reader_refuse(reader, node, place, "and what all jobs get are %zu secrets, at most %u",
                      count, SPEC_SECRETS_MAX);
        return;
    }
    qsort(secrets, count, sizeof *secrets, variable_compare);
    job->secrets = secrets;
    job->secret_count = count;
}

/* ---- inputs and needs ------------------------------------------------------------------- */

static int input_compare(const void *a, const void *b)
{
    return strcmp(((const struct spec_input *)a)->name, ((const struct spec_input *)b)->name);
}

/* Lower case, because ATHANOR_INPUT_<NAME> is upper case and must stay unambiguous. */
static bool input_name_fits(const char *name)
{
    static const char rest[] = "abcdefghijklmnopqrstuvwxyz0123456789_";
    return name[0] >= 'a' && name[0] <= 'z' && name[strspn(name, rest)] == '\0' &&
           strlen(name) <= SPEC_NAME_BYTES_MAX;
}

void read_inputs(struct reader *reader, const struct node *node, const struct place *place,
                 struct draft *draft)
{
    if (!is_kind(reader, node, place, NODE_MAP, "a mapping of name: reference") ||
        !is_short(reader, node, place, INPUTS_MAX, "inputs"))
        return;
    struct spec_input *inputs = arena_alloc(reader->arena, (node->count + 1) * sizeof *inputs);
    size_t count = 0;
    for (size_t i = 0; i < node->count; i++) {
        const struct node *key = node->pairs[i].key, *value = node->pairs[i].value;
        struct place here = {.up = place, .key = key->text};
        struct spec_input *input = &inputs[count];
        struct err err;
        if (!input_name_fits(key->text))
            reader_refuse(reader, key, &here,
                          "is no name of an input, expected a lower-case letter, then lower-case "
                          "letters, digits and _");
        else if (!is_kind(reader, value, &here, NODE_SCALAR,
                          "job:NAME/checkpoint:best|last|STEP, dataset:NAME[/PART] or file:PATH"))
            continue;
        else if (spec_ref_parse(value->text, reader->source->folder, reader->arena, &input->ref,
                                &err) < 0)
            reader_refuse(reader, value, &here, "%s", err.text);
        else {
            input->name = key->text;
            input->job_index = SPEC_EXTERNAL;
            input->mark = reader_mark(reader, value);
            count++;
        }
    }
    qsort(inputs, count, sizeof *inputs, input_compare);
    draft->job.inputs = inputs;
    draft->job.input_count = count;
}

static const char *const condition_names[] = {
    [SPEC_ON_SUCCESS] = "success", [SPEC_ON_FAILURE] = "failure", [SPEC_ON_ANY] = "any",
};
static const char on_artifact[] = "artifact:";

const char *spec_condition_text(struct arena *arena, enum spec_condition on, const char *artifact)
{
    CHECK(on >= SPEC_ON_SUCCESS && on <= SPEC_ON_ARTIFACT);
    return on == SPEC_ON_ARTIFACT ? arena_printf(arena, "%s%s", on_artifact, artifact)
                                  : condition_names[on];
}

bool spec_condition_read(const char *text, enum spec_condition *out, const char **out_artifact)
{
    const char *name = text + strlen(on_artifact);
    for (size_t i = 1; i < ARRAY_COUNT(condition_names); i++)
        if (strcmp(condition_names[i], text) == 0) {
            *out = (enum spec_condition)i;
            *out_artifact = "";
            return true;
        }
    if (strncmp(text, on_artifact, strlen(on_artifact)) != 0 || !spec_name_is_valid(name))
        return false;
    *out = SPEC_ON_ARTIFACT;
    *out_artifact = name;
    return true;
}

static void condition_read(struct reader *reader, const struct node *node,
                           const struct place *place, struct spec_need *need)
{
    if (node->kind != NODE_SCALAR || !spec_condition_read(node->text, &need->on, &need->artifact))
        reader_refuse(reader, node, place, "is %s, expected success, failure, any or artifact:NAME",
                      shown(reader, node));
}

/* {job: NAME, on: CONDITION} */
static const struct node *need_map_read(struct reader *reader, const struct node *node,
                                        const struct place *place, struct spec_need *need)
{
    const struct node *job = NULL;
    for (size_t i = 0; i < node->count; i++) {
        const struct node_pair *pair = &node->pairs[i];
        struct place here = {.up = place, .key = pair->key->text};
        if (strcmp(pair->key->text, "job") == 0)
            job = pair->value;
        else if (strcmp(pair->key->text, "on") == 0)
            condition_read(reader, pair->value, &here, need);
        else
            reader_refuse(reader, pair->key, place, "there is no field %s here, expected job, on",
                          quoted(reader, pair->key->text));
    }
    if (!job)
        reader_refuse(reader, node, place, "names no job, expected {job: NAME, on: success}");
    return job;
}

static bool need_read(struct reader *reader, const struct node *node, const struct place *place,
                      struct spec_need *need)
{
    static const char before[] = "job:";
    *need = (struct spec_need){
        .on = SPEC_ON_SUCCESS, .artifact = "", .job_index = SPEC_EXTERNAL};
    const struct node *job = node;
    if (node->kind == NODE_MAP && !(job = need_map_read(reader, node, place, need)))
        return false;
    const char *name = job->kind == NODE_SCALAR ? job->text : "";
    if (strncmp(name, before, strlen(before)) == 0)
        name += strlen(before);
    if (!spec_name_is_valid(name)) {
        reader_refuse(reader, job, place,
                      "is %s, expected the name of a job of this spec, or job:NAME or an id for "
                      "one submitted earlier",
                      shown(reader, job));
        return false;
    }
    need->job = job->text; /* graph.c tells "NAME" from "job:NAME" and strips the prefix */
    need->mark = reader_mark(reader, job);
    return true;
}

void read_needs(struct reader *reader, const struct node *node, const struct place *place,
                struct draft *draft)
{
    if (node_is_null(node))
        return;
    bool is_list = node->kind == NODE_LIST;
    size_t count = is_list ? node->count : 1, kept = 0;
    if (!is_short(reader, node, place, SPEC_JOBS_MAX, "items"))
        return;
    struct spec_need *needs = arena_alloc(reader->arena, (count + 1) * sizeof *needs);
    draft->need_nodes = arena_alloc(reader->arena, (count + 1) * sizeof(struct node *));
    for (size_t i = 0; i < count; i++) {
        struct place here = {.up = place, .index = i};
        const struct node *item = is_list ? node->items[i] : node;
        draft->need_nodes[kept] = item;
        kept += need_read(reader, item, is_list ? &here : place, &needs[kept]);
    }
    draft->job.needs = needs;
    draft->job.need_count = kept;
}

/* ---- checkpoint ------------------------------------------------------------------------- */

#define PARTS_MAX 4

/* "a, b" or [a, b] as trimmed texts in arena; 0 when it is neither. */
static size_t parts_read(struct reader *reader, const struct node *node,
                         const char *parts[PARTS_MAX])
{
    size_t count = 0;
    if (node->kind == NODE_LIST) {
        for (; count < node->count && count < PARTS_MAX; count++) {
            if (node->items[count]->kind != NODE_SCALAR)
                return 0;
            parts[count] = node->items[count]->text;
        }
        return node->count <= PARTS_MAX ? count : 0;
    }
    char *rest = node->kind == NODE_SCALAR ? arena_strdup(reader->arena, node->text) : NULL;
    for (char *part; rest && (part = strsep(&rest, ","));) {
        if (count == PARTS_MAX)
            return 0;
        part += strspn(part, " ");
        for (size_t end = strlen(part); end > 0 && part[end - 1] == ' '; end--)
            part[end - 1] = '\0';
        parts[count++] = part;
    }
    return count;
}

/* Cuts a text into words; returns how many, most + 1 when there are more. */
static size_t words_read(struct reader *reader, const char *text, const char **words, size_t most)
{
    size_t count = 0;
    char *rest = arena_strdup(reader->arena, text);
    for (char *word; (word = strsep(&rest, " "));) {
        if (word[0] == '\0')
            continue;
        if (count == most)
            return most + 1;
        words[count++] = word;
    }
    return count;
}

static bool number_read(const char *text, uint64_t most, uint64_t *out)
{
    struct err err;
    return parse_u64(text, out, &err) == 0 && *out >= 1 && *out <= most;
}

static bool every_part_read(struct reader *reader, const char *part, struct spec_checkpoint *policy)
{
    const char *words[2];
    struct err err;
    size_t count = words_read(reader, part, words, ARRAY_COUNT(words));
    if (count == 2)
        return (strcmp(words[1], "steps") == 0 || strcmp(words[1], "step") == 0) &&
               policy->every_steps == 0 && number_read(words[0], STEPS_MAX, &policy->every_steps);
    return count == 1 && policy->every_ms == 0 &&
           parse_duration_ms(words[0], &policy->every_ms, &err) == 0 &&
           policy->every_ms >= EVERY_MS_MIN && policy->every_ms <= EVERY_MS_MAX;
}

void read_every(struct reader *reader, const struct node *node, const struct place *place,
                struct draft *draft)
{
    const char *parts[PARTS_MAX];
    struct spec_checkpoint policy = draft->job.checkpoint;
    policy.every_steps = policy.every_ms = 0;
    size_t count = parts_read(reader, node, parts);
    bool fits = count > 0;
    if (!(count == 1 && strcmp(parts[0], "never") == 0))
        for (size_t i = 0; fits && i < count; i++)
            fits = every_part_read(reader, parts[i], &policy);
    if (fits)
        draft->job.checkpoint = policy;
    else
        reader_refuse(reader, node, place,
                      "is %s, expected a number of steps such as '50 steps', a duration from 1s to "
                      "30d such as '10m', both as '50 steps, 10m', or never",
                      shown(reader, node));
}

bool spec_metric_is_valid(const char *name)
{
    static const char accepted[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_./-@";
    return name[0] != '\0' && name[strspn(name, accepted)] == '\0' &&
           strlen(name) <= METRIC_BYTES_MAX;
}

/* last N | best N by [min|max] METRIC */
static bool keep_part_read(struct reader *reader, const char *part, struct spec_checkpoint *policy)
{
    const char *words[5];
    uint64_t number;
    size_t count = words_read(reader, part, words, ARRAY_COUNT(words));
    if (count < 2 || count > ARRAY_COUNT(words) || !number_read(words[1], KEEP_MAX, &number))
        return false;
    if (count == 2 && strcmp(words[0], "last") == 0) {
        policy->keep_last = (uint32_t)number;
        return true;
    }
    bool has_mode = count == 5;
    if (count < 4 || strcmp(words[0], "best") != 0 || strcmp(words[2], "by") != 0 ||
        policy->keep_best > 0 || !spec_metric_is_valid(words[count - 1]) ||
        (has_mode && strcmp(words[3], "max") != 0 && strcmp(words[3], "min") != 0))
        return false;
    policy->keep_best = (uint32_t)number;
    policy->best_metric = words[count - 1];
    policy->best_mode = has_mode && strcmp(words[3], "max") == 0 ? SPEC_BEST_MAX : SPEC_BEST_MIN;
    return true;
}

void read_keep(struct reader *reader, const struct node *node, const struct place *place,
               struct draft *draft)
{
    const char *parts[PARTS_MAX];
    struct spec_checkpoint policy = draft->job.checkpoint;
    policy.keep_last = 1; /* the newest one always stays: a retry resumes from it */
    policy.keep_best = 0;
    policy.best_metric = "";
    policy.best_mode = SPEC_BEST_MIN;
    size_t count = parts_read(reader, node, parts);
    bool fits = count > 0;
    for (size_t i = 0; fits && i < count; i++)
        fits = keep_part_read(reader, parts[i], &policy);
    if (fits)
        draft->job.checkpoint = policy;
    else
        reader_refuse(reader, node, place,
                      "is %s, expected 'last N', or 'last N, best N by METRIC' ('by max METRIC' "
                      "when the highest value is best)",
                      shown(reader, node));
}

/* ---- sweep ------------------------------------------------------------------------------ */

const char *spec_sweep_method_name(enum spec_sweep_method method)
{
    static const char *const names[] = {
        [SPEC_SWEEP_GRID] = "grid", [SPEC_SWEEP_RANDOM] = "random", [SPEC_SWEEP_ASHA] = "asha"};
    CHECK(method >= SPEC_SWEEP_GRID && method <= SPEC_SWEEP_ASHA);
    return names[method];
}

/* ---- notify ------------------------------------------------------------------------------ */

const char *const spec_end_names[3] = {"done", "failed", "cancelled"};

void read_notify(struct reader *reader, const struct node *node, const struct place *place,
                 struct draft *draft)
{
    bool is_list = node->kind == NODE_LIST;
    draft->job.notify.on = 0;
    for (size_t i = 0; i < (is_list ? node->count : 1); i++) {
        const struct node *item = is_list ? node->items[i] : node;
        struct place here = {.up = place, .index = i};
        size_t k = 0;
        while (k < ARRAY_COUNT(spec_end_names) &&
               (item->kind != NODE_SCALAR || strcmp(item->text, spec_end_names[k]) != 0))
            k++;
        if (k == ARRAY_COUNT(spec_end_names))
            reader_refuse(reader, item, is_list ? &here : place,
                          "is %s, expected done, failed or cancelled", shown(reader, item));
        else
            draft->job.notify.on |= (uint32_t)1 << k;
    }
}

/* One line, printable, with something on both sides of one '@'. */
static bool mail_fits(const char *text)
{
    const char *at = strchr(text, '@');
    for (const char *c = text; *c; c++)
        if (*c <= ' ' || *c >= 127 || strchr("<>,;:\"\\()", *c))
            return false;
    return at && at > text && at[1] && !strchr(at + 1, '@') && text[0] != '-';
}

static bool webhook_fits(const char *text)
{
    const char *rest = strncmp(text, "http://", 7) == 0    ? text + 7
                       : strncmp(text, "https://", 8) == 0 ? text + 8
                                                           : "";
    for (const char *c = text; *c; c++)
        if (*c <= ' ' || *c >= 127)
            return false;
    return *rest && *rest != '/';
}

void notify_check(struct reader *reader, const struct draft *draft)
{
    struct place notify = {.up = draft_place(draft), .key = "notify"};
    struct place webhook = {.up = &notify, .key = "webhook"}, mail = {.up = &notify, .key = "mail"};
    const struct spec_notify *given = &draft->job.notify;
    const struct node *node = draft_given(draft, "notify.webhook");
    if (node && node->kind == NODE_SCALAR && given->webhook[0] && !webhook_fits(given->webhook))
        reader_refuse(reader, node, &webhook, "is %s, expected http://HOST/... or https://HOST/...",
                      shown(reader, node));
    node = draft_given(draft, "notify.mail");
    if (node && node->kind == NODE_SCALAR && given->mail[0] && !mail_fits(given->mail))
        reader_refuse(reader, node, &mail, "is %s, expected one address such as ann@example.org",
                      shown(reader, node));
}
