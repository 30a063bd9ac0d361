/* plan.c - see plan.h. */
#include "worker/attempt/plan.h"

#include "common/base/file.h"
#include "common/base/mem.h"
#include "worker/attempt/folder.h"

#include <ctype.h>
#include <jansson.h>
#include <math.h>
#include <string.h>

/* ---- single values --------------------------------------------------------------------------- */

static int u64_get(const json_t *from, const char *name, uint64_t fallback, uint64_t *out,
                   struct err *err)
{
    const json_t *value = json_object_get(from, name);
    if (!value) {
        *out = fallback;
        return 0;
    }
    if (!json_is_integer(value) || json_integer_value(value) < 0)
        return err_set(err, ERR_PROTOCOL, "%s: expected a whole number from 0", name);
    *out = (uint64_t)json_integer_value(value);
    return 0;
}

static int text_get(struct plan *plan, const json_t *from, const char *name, const char *fallback,
                    const char **out, struct err *err)
{
    const json_t *value = json_object_get(from, name);
    if (value && !json_is_string(value))
        return err_set(err, ERR_PROTOCOL, "%s: expected a text", name);
    *out = arena_strdup(&plan->arena, value ? json_string_value(value) : fallback);
    return 0;
}

static int absolute_check(const char *name, const char *path, bool may_be_empty, struct err *err)
{
    if (path[0] == '/' || (may_be_empty && !path[0]))
        return 0;
    return err_set(err, ERR_PROTOCOL, "%s: expected an absolute path, found '%.200s'", name, path);
}

/* ---- parts ----------------------------------------------------------------------------------- */

static int numbers_read(struct plan *plan, const json_t *root, struct err *err)
{
    uint64_t format;
    struct {
        const char *name;
        uint64_t fallback, *out;
    } fields[] = {
        {"format", 0, &format},
        {"attempt_id", 0, &plan->attempt_id},
        {"attempt", 1, &plan->attempt},
        {"job_id", 0, &plan->job_id},
        {"epoch", 0, &plan->epoch},
        {"cores", 1, &plan->cores},
        {"memory_bytes", 0, &plan->memory_bytes},
        {"wall_time_ms", 0, &plan->wall_time_ms},
        {"stop_grace_ms", PLAN_STOP_GRACE_MS_DEFAULT, &plan->stop_grace_ms},
        {"stall_ms", 0, &plan->stall_ms},
        {"data_skip", 0, &plan->data_skip},
        {"log_bytes_max", PLAN_LOG_BYTES_DEFAULT, &plan->log_bytes_max},
        {"usage_ms", PLAN_USAGE_MS_DEFAULT, &plan->usage_ms},
    };
    for (size_t i = 0; i < ARRAY_COUNT(fields); i++)
        if (u64_get(root, fields[i].name, fields[i].fallback, fields[i].out, err) < 0)
            return -1;
    if (format != 1)
        return err_set(err, ERR_PROTOCOL, "format: this program reads format 1");
    if (plan->attempt_id == 0)
        return err_set(err, ERR_PROTOCOL, "attempt_id: required, from 1");
    return 0;
}

static int texts_read(struct plan *plan, const json_t *root, struct err *err)
{
    struct {
        const char *name, *fallback;
        const char **out;
        bool may_be_empty, is_path;
    } fields[] = {
        {"job_name", "", &plan->job_name, true, false},
        {"account", "", &plan->account, true, false},
        {"job_dir", "", &plan->job_dir, false, true},
        {"resume", "", &plan->resume, true, true},
        {"engine", "", &plan->engine, true, true},
        {"cgroup", "", &plan->cgroup, true, true},
        {"memory_cgroup", "", &plan->memory_cgroup, true, true},
        {"device_cgroup", "", &plan->device_cgroup, true, true},
        {"gpu_usage", "", &plan->gpu_usage, true, true},
        {"gpu_kind", "", &plan->gpu_kind, true, false},
        {"tmp", "/tmp", &plan->tmp, false, true},
        {"code", "", &plan->code, true, true},
    };
    for (size_t i = 0; i < ARRAY_COUNT(fields); i++) {
        if (text_get(plan, root, fields[i].name, fields[i].fallback, fields[i].out, err) < 0)
            return -1;
        if (fields[i].is_path &&
            absolute_check(fields[i].name, *fields[i].out, fields[i].may_be_empty, err) < 0)
            return -1;
    }
    return 0;
}

static int cpus_read(struct plan *plan, const json_t *list, struct plan_rank *rank, struct err *err)
{
    size_t count = json_array_size(list);
    if (!json_is_array(list) || count > PLAN_CPUS_MAX)
        return err_set(err, ERR_PROTOCOL, "cpus: expected a list of at most %u CPU numbers a rank",
                       PLAN_CPUS_MAX);
    rank->cpus = arena_alloc(&plan->arena, (count + 1) * sizeof *rank->cpus);
    rank->cpu_count = count;
    for (size_t i = 0; i < count; i++) {
        const json_t *value = json_array_get(list, i);
        if (!json_is_integer(value) || json_integer_value(value) < 0 ||
            json_integer_value(value) >= (json_int_t)PLAN_CPUS_MAX)
            return err_set(err, ERR_PROTOCOL, "cpus: expected CPU numbers from 0 to %u",
                           PLAN_CPUS_MAX - 1);
        rank->cpus[i] = (unsigned)json_integer_value(value);
    }
    return 0;
}

static int numa_read(const json_t *list, struct plan_rank *rank, struct err *err)
{
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *value = json_array_get(list, i);
        if (!json_is_integer(value) || json_integer_value(value) < 0 ||
            json_integer_value(value) >= (json_int_t)PLAN_NUMA_MAX)
            return err_set(err, ERR_PROTOCOL, "numa: expected numbers of nodes from 0 to %u",
                           PLAN_NUMA_MAX - 1);
        uint64_t node = (uint64_t)json_integer_value(value);
        rank->numa[node / 64] |= (uint64_t)1 << node % 64;
        rank->has_numa = true;
    }
    return 0;
}

static int gpus_read(struct plan *plan, const json_t *list, struct plan_rank *rank, struct err *err)
{
    const char *text = "";
    for (size_t i = 0; i < json_array_size(list); i++) {
        const char *gpu = json_string_value(json_array_get(list, i));
        if (!gpu || !gpu[0] || strpbrk(gpu, ", "))
            return err_set(err, ERR_PROTOCOL, "gpus: expected texts without commas");
        text = arena_printf(&plan->arena, "%s%s%s", text, i ? "," : "", gpu);
    }
    rank->gpus = text;
    return 0;
}

static int ranks_read(struct plan *plan, const json_t *root, struct err *err)
{
    uint64_t count;
    const json_t *cpus = json_object_get(root, "cpus"), *gpus = json_object_get(root, "gpus");
    const json_t *numa = json_object_get(root, "numa");
    if (u64_get(root, "ranks", 0, &count, err) < 0)
        return -1;
    if (count == 0 || count > PLAN_RANKS_MAX)
        return err_set(err, ERR_PROTOCOL, "ranks: expected 1 to %u", PLAN_RANKS_MAX);
    if ((cpus && json_array_size(cpus) != count) || (gpus && json_array_size(gpus) != count) ||
        (numa && json_array_size(numa) != count))
        return err_set(err, ERR_PROTOCOL,
                       "cpus, numa, gpus: expected one list for each of %u ranks",
                       (unsigned)count);
    plan->rank_count = (size_t)count;
    plan->ranks = arena_alloc(&plan->arena, plan->rank_count * sizeof *plan->ranks);
    for (size_t i = 0; i < plan->rank_count; i++) {
        plan->ranks[i].gpus = "";
        if (cpus && cpus_read(plan, json_array_get(cpus, i), &plan->ranks[i], err) < 0)
            return -1;
        if (numa && numa_read(json_array_get(numa, i), &plan->ranks[i], err) < 0)
            return -1;
        if (gpus && gpus_read(plan, json_array_get(gpus, i), &plan->ranks[i], err) < 0)
            return -1;
    }
    return 0;
}

/* ---- several nodes --------------------------------------------------------------------------- */

static int node_read(struct plan *plan, const json_t *from, unsigned first, struct gang_node *out,
                     struct err *err)
{
    uint64_t first_rank, ranks;
    if (!json_is_object(from) || text_get(plan, from, "name", "", &out->name, err) < 0 ||
        text_get(plan, from, "address", "", &out->address, err) < 0 ||
        text_get(plan, from, "public_key", "", &out->public_key, err) < 0 ||
        u64_get(from, "first_rank", first, &first_rank, err) < 0 ||
        u64_get(from, "ranks", 0, &ranks, err) < 0)
        return err_set(err, ERR_PROTOCOL,
                       "gang.nodes: expected objects of name, address, first_rank, ranks");
    if (!out->name[0] || strpbrk(out->name, ",; ") || !out->address[0] || ranks == 0 ||
        ranks > PLAN_RANKS_MAX || first_rank != first)
        return err_set(err, ERR_PROTOCOL,
                       "gang.nodes: a node needs a name, an address and 1 to %u ranks that follow "
                       "those of the node before it",
                       PLAN_RANKS_MAX);
    out->first_rank = first;
    out->ranks = (unsigned)ranks;
    return 0;
}

static int nodes_read(struct plan *plan, const json_t *list, struct err *err)
{
    struct gang_plan *gang = plan->gang;
    size_t count = json_array_size(list);
    if (count < 2 || count > GANG_NODES_MAX)
        return err_set(err, ERR_PROTOCOL, "gang.nodes: expected 2 to %u nodes", GANG_NODES_MAX);
    struct gang_node *nodes = arena_alloc(&plan->arena, count * sizeof *nodes);
    for (size_t i = 0; i < count; i++) {
        if (node_read(plan, json_array_get(list, i), plan->world_size, &nodes[i], err) < 0)
            return -1;
        plan->world_size += nodes[i].ranks;
    }
    gang->nodes = nodes;
    gang->node_count = (unsigned)count;
    return 0;
}

static int link_read(struct plan *plan, const json_t *gang, const char *name,
                     struct gang_link *out, struct err *err)
{
    const json_t *from = json_object_get(gang, name);
    if (from && !json_is_object(from))
        return err_set(err, ERR_PROTOCOL, "gang.%s: expected an object", name);
    return text_get(plan, from, "endpoint", "", &out->endpoint, err) < 0 ||
                   text_get(plan, from, "public_key", "", &out->public_key, err) < 0 ||
                   text_get(plan, from, "secret_key", "", &out->secret_key, err) < 0
               ? -1
               : 0;
}

static int gang_read(struct plan *plan, const json_t *root, struct err *err)
{
    const json_t *from = json_object_get(root, "gang");
    uint64_t node, port;
    plan->world_size = (unsigned)plan->rank_count;
    if (!from)
        return 0;
    struct gang_plan *gang = arena_alloc(&plan->arena, sizeof *gang);
    *gang = (struct gang_plan){0};
    plan->gang = gang;
    plan->world_size = 0;
    if (!json_is_object(from))
        return err_set(err, ERR_PROTOCOL, "gang: expected an object");
    if (nodes_read(plan, json_object_get(from, "nodes"), err) < 0 ||
        u64_get(from, "node", 0, &node, err) < 0 ||
        u64_get(from, "master_port", 0, &port, err) < 0 ||
        u64_get(from, "silence_ms", PLAN_SILENCE_MS_DEFAULT, &gang->silence_ms, err) < 0 ||
        link_read(plan, from, "own", &gang->own, err) < 0 ||
        link_read(plan, from, "parent", &gang->parent, err) < 0)
        return -1;
    if (node >= gang->node_count || gang->nodes[node].ranks != plan->rank_count ||
        port > UINT16_MAX)
        return err_set(err, ERR_PROTOCOL,
                       "gang: expected a node below %u with the ranks of this plan, and a port",
                       gang->node_count);
    gang->node = (unsigned)node;
    gang->master_port = (unsigned)port;
    plan->first_rank = gang->nodes[node].first_rank;
    return 0;
}

static bool is_variable_name(const char *name)
{
    return name[0] && !strchr(name, '=');
}

static int env_read(struct plan *plan, const json_t *spec, struct err *err)
{
    json_t *env = json_object_get(spec, "env"), *value;
    const char *name;
    if (env && !json_is_object(env))
        return err_set(err, ERR_PROTOCOL, "spec.env: expected an object of texts");
    plan->env = arena_alloc(&plan->arena, (json_object_size(env) + 1) * sizeof *plan->env);
    json_object_foreach(env, name, value)
    {
        if (!json_is_string(value) || !is_variable_name(name))
            return err_set(err, ERR_PROTOCOL, "spec.env.%.100s: expected a text", name);
        plan->env[plan->env_count++] =
            (struct plan_pair){arena_strdup(&plan->arena, name),
                               arena_strdup(&plan->arena, json_string_value(value))};
    }
    return 0;
}

static int secrets_read(struct plan *plan, const json_t *root, struct err *err)
{
    const json_t *list = json_object_get(root, "secrets");
    size_t count = json_array_size(list);
    if ((list && !json_is_array(list)) || count > PLAN_SECRETS_MAX)
        return err_set(err, ERR_PROTOCOL, "secrets: expected a list of at most %u names",
                       PLAN_SECRETS_MAX);
    plan->secrets = arena_alloc(&plan->arena, (count + 1) * sizeof *plan->secrets);
    for (size_t i = 0; i < count; i++) {
        const char *name = json_string_value(json_array_get(list, i));
        if (!name || !is_variable_name(name))
            return err_set(err, ERR_PROTOCOL, "secrets[%zu]: expected a name", i);
        plan->secrets[plan->secret_count++] = arena_strdup(&plan->arena, name);
    }
    return 0;
}

static int inputs_read(struct plan *plan, const json_t *spec, struct err *err)
{
    json_t *inputs = json_object_get(spec, "inputs"), *value;
    const char *name;
    if (inputs && !json_is_object(inputs))
        return err_set(err, ERR_PROTOCOL, "spec.inputs: expected an object");
    plan->inputs = arena_alloc(&plan->arena, (json_object_size(inputs) + 1) * sizeof *plan->inputs);
    json_object_foreach(inputs, name, value)
    {
        const char *path = json_string_value(json_object_get(value, "path"));
        if (!path || !is_variable_name(name))
            return err_set(err, ERR_PROTOCOL, "spec.inputs.%.100s.path: expected a path", name);
        char *upper = arena_strdup(&plan->arena, name);
        for (char *c = upper; *c; c++)
            *c = isalnum((unsigned char)*c) ? (char)toupper((unsigned char)*c) : '_';
        plan->inputs[plan->input_count++] =
            (struct plan_pair){upper, arena_strdup(&plan->arena, path)};
    }
    return 0;
}

static int command_read(struct plan *plan, const json_t *spec, struct err *err)
{
    const json_t *command = json_object_get(spec, "command");
    size_t count = json_array_size(command);
    bool own = strcmp(plan->kind, "command") == 0;
    if (!own && !plan->engine[0])
        return err_set(err, ERR_PROTOCOL, "engine: required for kind '%.40s'", plan->kind);
    if (own && (count == 0 || count > PLAN_ARGUMENTS_MAX))
        return err_set(err, ERR_PROTOCOL, "spec.command: expected 1 to %u texts",
                       PLAN_ARGUMENTS_MAX);
    plan->command = arena_alloc(&plan->arena, (count + 3) * sizeof *plan->command);
    if (!own) {
        plan->command[0] = arena_strdup(&plan->arena, plan->engine);
        plan->command[1] = arena_strdup(&plan->arena, "run");
        return 0;
    }
    for (size_t i = 0; i < count; i++) {
        const char *word = json_string_value(json_array_get(command, i));
        if (!word)
            return err_set(err, ERR_PROTOCOL, "spec.command: expected texts only");
        plan->command[i] = arena_strdup(&plan->arena, word);
    }
    return 0;
}

static int launcher_read(struct plan *plan, const json_t *spec, struct err *err)
{
    const char *name;
    if (text_get(plan, spec, "launcher", "auto", &name, err) < 0)
        return -1;
    if (strcmp(name, "auto") == 0)
        plan->launcher = plan->world_size > 1 ? PLAN_PMIX : PLAN_FORK;
    else if (strcmp(name, "fork") == 0)
        plan->launcher = PLAN_FORK;
    else if (strcmp(name, "pmix") == 0)
        plan->launcher = PLAN_PMIX;
    else if (strcmp(name, "mpirun") == 0)
        plan->launcher = PLAN_MPIRUN;
    else
        return err_set(err, ERR_PROTOCOL,
                       "spec.launcher: '%.40s', expected auto, fork, pmix or mpirun", name);
    return 0;
}

/* What earlier versions did not write: missing is off, and of two limits the lower one holds. */
static int output_read(struct plan *plan, const json_t *spec, struct err *err)
{
    const json_t *pty = json_object_get(spec, "pty");
    uint64_t log_bytes;
    if (pty && !json_is_boolean(pty))
        return err_set(err, ERR_PROTOCOL, "spec.pty: expected true or false");
    plan->pty = json_is_true(pty);
    if (u64_get(json_object_get(spec, "limits"), "log_bytes", 0, &log_bytes, err) < 0)
        return err_wrap(err, "spec.limits");
    if (log_bytes)
        plan->log_bytes_max = min_u64(plan->log_bytes_max, log_bytes);
    return 0;
}

/* A program starts in its code, the engine in the run directory. */
static int cwd_read(struct plan *plan, const json_t *spec, struct err *err)
{
    const char *cwd;
    plan->cwd = "";
    if (text_get(plan, json_object_get(spec, "code"), "cwd", "", &cwd, err) < 0)
        return err_wrap(err, "spec.code");
    if (!plan->code[0] || strcmp(plan->kind, "command") != 0 || strcmp(cwd, "-") == 0)
        return 0;
    plan->cwd = cwd[0] ? arena_printf(&plan->arena, "%s/%s", plan->code, cwd) : plan->code;
    return 0;
}

static int bound_read(const json_t *rule, const char *name, double *out, struct err *err)
{
    const json_t *value = json_object_get(rule, name);
    *out = value ? json_number_value(value) : (double)NAN;
    return !value || json_is_number(value)
               ? 0
               : err_set(err, ERR_PROTOCOL, "spec.diverge.%s: expected a number", name);
}

static int diverge_read(struct plan *plan, const json_t *spec, struct err *err)
{
    struct plan_diverge *diverge = &plan->diverge;
    const json_t *rule = json_object_get(spec, "diverge"), *nan = json_object_get(rule, "nan");
    if (rule && (!json_is_object(rule) || (nan && !json_is_boolean(nan))))
        return err_set(err, ERR_PROTOCOL, "spec.diverge: expected an object, and nan a bool");
    if (text_get(plan, rule, "metric", "", &diverge->metric, err) < 0 ||
        bound_read(rule, "above", &diverge->above, err) < 0 ||
        bound_read(rule, "below", &diverge->below, err) < 0 ||
        u64_get(rule, "for", 1, &diverge->reports, err) < 0)
        return err_wrap(err, "spec.diverge");
    diverge->nan = !json_is_false(nan);
    diverge->reports = max_u64(diverge->reports, 1);
    return 0;
}

static int spec_read(struct plan *plan, const json_t *root, struct err *err)
{
    const json_t *spec = json_object_get(root, "spec");
    if (!json_is_object(spec))
        return err_set(err, ERR_PROTOCOL, "spec: expected the resolved job");
    if (text_get(plan, spec, "kind", "", &plan->kind, err) < 0)
        return -1;
    if (!plan->kind[0])
        return err_set(err, ERR_PROTOCOL, "spec.kind: required");
    if (launcher_read(plan, spec, err) < 0 || command_read(plan, spec, err) < 0 ||
        env_read(plan, spec, err) < 0 || inputs_read(plan, spec, err) < 0 ||
        output_read(plan, spec, err) < 0 || cwd_read(plan, spec, err) < 0 ||
        diverge_read(plan, spec, err) < 0)
        return -1;
    char *text = json_dumps(spec, JSON_COMPACT);
    CHECK(text); /* parsed a moment ago; only memory can be missing */
    plan->spec = arena_strdup(&plan->arena, text);
    mem_free(text);
    return 0;
}

int plan_parse(const char *text, size_t length, struct plan *out, struct err *err)
{
    json_error_t why;
    json_t *root = json_loadb(text, length, JSON_REJECT_DUPLICATES, &why);
    if (!json_is_object(root)) {
        json_decref(root);
        return err_set(err, ERR_PROTOCOL, "line %d: %s", root ? 1 : why.line,
                       root ? "expected an object" : why.text);
    }
    struct plan plan = {0};
    int rc = -1;
    if (numbers_read(&plan, root, err) == 0 && texts_read(&plan, root, err) == 0 &&
        ranks_read(&plan, root, err) == 0 && gang_read(&plan, root, err) == 0 &&
        secrets_read(&plan, root, err) == 0 &&
        spec_read(&plan, root, err) == 0)
        rc = 0;
    json_decref(root);
    if (rc < 0)
        plan_done(&plan);
    else
        *out = plan;
    return rc;
}

int plan_read(const char *folder, struct plan *out, struct err *err)
{
    char *path = folder_file(folder, FOLDER_PLAN), *text = NULL;
    size_t length;
    int rc = file_read(path, PLAN_BYTES_MAX, &text, &length, err);
    if (rc == 0 && plan_parse(text, length, out, err) < 0)
        rc = err_wrap(err, "plan '%s'", path);
    mem_free(text);
    mem_free(path);
    return rc;
}

void plan_done(struct plan *plan)
{
    arena_done(&plan->arena);
    memset(plan, 0, sizeof *plan);
}
