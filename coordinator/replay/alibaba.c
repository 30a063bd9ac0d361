/* alibaba.c - Alibaba's GPU cluster trace of 2023, and lists of nodes.
 *
 * Source: github.com/alibaba/clusterdata, cluster-trace-gpu-v2023: pods in openb_pod_list_*.csv,
 * nodes in openb_node_list_*.csv. Times are seconds. A pod asks for cpu_milli, memory_mib and
 * num_gpu GPUs of gpu_milli thousandths each, on a model out of gpu_spec ("A|B"; "" for any).
 * It ran from scheduled_time to deletion_time; one never scheduled is left out. Athanor gives out
 * whole cores and whole GPUs, so shares are rounded up to one (trace_job.gpus). */
#include "coordinator/replay/columns.h"
#include "coordinator/replay/trace.h"

#include <string.h>

#define MIB ((uint64_t)1 << 20)

struct pod_columns {
    int name, cores, memory, gpus, milli, spec, qos, phase, created, deleted, scheduled;
};

static int pods_open(struct columns *c, void *found, struct err *err)
{
    struct pod_columns *at = found;
    at->qos = columns_find(c, "qos");
    at->phase = columns_find(c, "pod_phase");
    at->spec = columns_find(c, "gpu_spec");
    at->milli = columns_find(c, "gpu_milli");
    return columns_need(c, "cpu_milli", &at->cores, err) < 0 ||
                   columns_need(c, "memory_mib", &at->memory, err) < 0 ||
                   columns_need(c, "num_gpu", &at->gpus, err) < 0 ||
                   columns_need(c, "creation_time", &at->created, err) < 0 ||
                   columns_need(c, "deletion_time", &at->deleted, err) < 0 ||
                   columns_need(c, "scheduled_time", &at->scheduled, err) < 0
               ? -1
               : 0;
}

static int pod_take(struct trace *trace, const struct columns *c, const void *found,
                    struct err *err)
{
    const struct pod_columns *at = found;
    uint64_t cores, memory, gpus, created, deleted, scheduled;
    const char *spec = columns_text(c, at->spec), *qos = columns_text(c, at->qos);
    if (columns_u64(c, at->cores, 0, &cores, err) < 0 ||
        columns_u64(c, at->memory, 0, &memory, err) < 0 ||
        columns_u64(c, at->gpus, 0, &gpus, err) < 0 ||
        columns_scaled(c, at->created, 0, 1000, &created, err) < 0 ||
        columns_scaled(c, at->deleted, UINT64_MAX, 1000, &deleted, err) < 0 ||
        columns_scaled(c, at->scheduled, UINT64_MAX, 1000, &scheduled, err) < 0)
        return -1;
    if (scheduled == UINT64_MAX || deleted == UINT64_MAX) {
        trace->left_out.never_ran++;
        return 0;
    }
    if (deleted < scheduled)
        return columns_refuse(c, at->deleted, "no time before scheduled_time", err);
    struct trace_job job = {
        .number = c->line - 1,
        .submit_ms = created,
        .run_ms = deleted - scheduled,
        .memory_bytes = min_u64(memory, TRACE_MEMORY_MAX) * MIB,
        .ranks = 1,
        .cores = (uint32_t)min_u64(cores / 1000 + (cores % 1000 > 0), UINT32_MAX),
        .gpus = (uint32_t)min_u64(gpus, UINT32_MAX),
        .user = trace_user(trace, *qos ? qos : "all"),
        .failed = strcmp(columns_text(c, at->phase), "Failed") == 0,
        .gpu_models = *spec && gpus ? arena_strdup(&trace->arena, spec) : NULL,
    };
    return trace_add(trace, c->file, c->line, &job, 0, err);
}

static int alibaba_read(struct trace *trace, const char *name, char *text, size_t length,
                        struct err *err)
{
    static const struct columns_reader reader = {',', pods_open, pod_take};
    struct pod_columns at = {0};
    return columns_read(trace, name, text, length, &reader, &at, err);
}

static bool alibaba_matches(const char *head)
{
    return columns_head_has(head, ',', "cpu_milli memory_mib num_gpu creation_time");
}

const struct trace_format format_alibaba = {
    .name = "alibaba-gpu-2023",
    .summary = "Alibaba GPU 2023 (CSV of pods)",
    .matches = alibaba_matches,
    .read = alibaba_read,
};

/* ---- nodes -------------------------------------------------------------------------------- */

/* Alibaba's columns, or our own in cores and bytes. */
struct node_columns {
    int cores, memory, gpus, model;
    uint64_t cores_unit, memory_unit;
};

static int nodes_open(struct columns *c, struct node_columns *at, struct err *err)
{
    bool theirs = columns_find(c, "cpu_milli") >= 0;
    at->model = columns_find(c, theirs ? "model" : "gpu_model");
    at->gpus = columns_find(c, theirs ? "gpu" : "gpus");
    at->memory = columns_find(c, theirs ? "memory_mib" : "memory_bytes");
    at->cores_unit = theirs ? 1000 : 1;
    at->memory_unit = theirs ? MIB : 1;
    return columns_need(c, theirs ? "cpu_milli" : "cores", &at->cores, err);
}

static int node_take(struct trace *trace, const struct columns *c, const struct node_columns *at,
                     struct err *err)
{
    struct trace_node node;
    const char *model = columns_text(c, at->model);
    if (columns_u64(c, at->cores, 0, &node.cores, err) < 0 ||
        columns_u64(c, at->memory, 0, &node.memory_bytes, err) < 0 ||
        columns_u64(c, at->gpus, 0, &node.gpus, err) < 0)
        return -1;
    node.cores /= at->cores_unit;
    node.memory_bytes = min_u64(node.memory_bytes, TRACE_MEMORY_MAX + 1) * at->memory_unit;
    node.gpu_model = *model ? arena_strdup(&trace->arena, model) : NULL;
    return trace_add_node(trace, c->file, c->line, &node, err);
}

int trace_parse_nodes(struct trace *trace, const char *name, char *text, size_t length,
                      struct err *err)
{
    struct columns columns;
    struct node_columns at;
    trace->node_count = 0;
    if (columns_open(&columns, name, text, length, ',', err) < 0 ||
        nodes_open(&columns, &at, err) < 0)
        return -1;
    int got;
    while ((got = columns_next(&columns, err)) > 0)
        if (node_take(trace, &columns, &at, err) < 0)
            return -1;
    if (got == 0 && trace->node_count == 0)
        return err_set(err, ERR_INVALID, "%s: lists no nodes", name);
    return got;
}
