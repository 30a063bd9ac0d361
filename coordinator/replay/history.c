/* history.c - our own past, as `athanor history` writes it: CSV with a line per ended job.
 *
 * Columns that are read: job_id, account, submitted_at, ran_ms, ranks, cores, gpus, memory_bytes
 * (per rank), priority, wall_time_ms, state, and nodes and gpu_model where there are any. ran_ms
 * is the time that all attempts held their workers. A job that never had a worker is left out. */
#include "coordinator/replay/columns.h"
#include "coordinator/replay/trace.h"

#include "common/base/parse.h"

#include <string.h>

struct job_columns {
    int number, account, submitted, ran, ranks, cores, gpus, memory, priority, wall, state, nodes,
        model;
};

static int history_open(struct columns *c, void *found, struct err *err)
{
    struct job_columns *at = found;
    at->gpus = columns_find(c, "gpus");
    at->memory = columns_find(c, "memory_bytes");
    at->priority = columns_find(c, "priority");
    at->wall = columns_find(c, "wall_time_ms");
    at->state = columns_find(c, "state");
    at->nodes = columns_find(c, "nodes");
    at->model = columns_find(c, "gpu_model");
    return columns_need(c, "job_id", &at->number, err) < 0 ||
                   columns_need(c, "account", &at->account, err) < 0 ||
                   columns_need(c, "submitted_at", &at->submitted, err) < 0 ||
                   columns_need(c, "ran_ms", &at->ran, err) < 0 ||
                   columns_need(c, "ranks", &at->ranks, err) < 0 ||
                   columns_need(c, "cores", &at->cores, err) < 0
               ? -1
               : 0;
}

static int shape_take(const struct columns *c, const struct job_columns *at, struct trace_job *job,
                      struct err *err)
{
    uint64_t ranks, cores, gpus, nodes;
    int64_t priority = 0;
    if (columns_u64(c, at->ranks, 1, &ranks, err) < 0 ||
        columns_u64(c, at->cores, 1, &cores, err) < 0 ||
        columns_u64(c, at->gpus, 0, &gpus, err) < 0 ||
        columns_u64(c, at->nodes, 0, &nodes, err) < 0 ||
        columns_u64(c, at->memory, 0, &job->memory_bytes, err) < 0)
        return -1;
    const char *text = columns_text(c, at->priority);
    if (*text && (parse_i64(text, &priority, err) < 0 || priority < -1000 || priority > 1000))
        return columns_refuse(c, at->priority, "a whole number in -1000..1000", err);
    job->ranks = (uint32_t)min_u64(ranks, UINT32_MAX);
    job->cores = (uint32_t)min_u64(cores, UINT32_MAX);
    job->gpus = (uint32_t)min_u64(gpus, UINT32_MAX);
    job->nodes = nodes > 1 ? (uint32_t)min_u64(nodes, UINT32_MAX) : 0;
    job->priority = (int32_t)priority;
    return 0;
}

static int job_take(struct trace *trace, const struct columns *c, const void *found,
                    struct err *err)
{
    const struct job_columns *at = found;
    struct trace_job job = {0};
    uint64_t wall;
    const char *account = columns_text(c, at->account), *model = columns_text(c, at->model);
    if (*columns_text(c, at->ran) == '\0') {
        trace->left_out.never_ran++;
        return 0;
    }
    if (columns_u64(c, at->number, 0, &job.number, err) < 0 ||
        columns_time(c, at->submitted, &job.submit_ms, err) < 0 ||
        columns_u64(c, at->ran, 0, &job.run_ms, err) < 0 ||
        columns_u64(c, at->wall, 0, &wall, err) < 0 || shape_take(c, at, &job, err) < 0)
        return -1;
    job.user = trace_user(trace, *account ? account : "unknown");
    job.failed = strcmp(columns_text(c, at->state), "SUCCEEDED") != 0;
    job.gpu_models = *model && job.gpus ? arena_strdup(&trace->arena, model) : NULL;
    return trace_add(trace, c->file, c->line, &job, wall, err);
}

static int history_read(struct trace *trace, const char *name, char *text, size_t length,
                        struct err *err)
{
    static const struct columns_reader reader = {',', history_open, job_take};
    struct job_columns at = {0};
    return columns_read(trace, name, text, length, &reader, &at, err);
}

static bool history_matches(const char *head)
{
    return columns_head_has(head, ',', "job_id account submitted_at ran_ms ranks cores");
}

const struct trace_format format_history = {
    .name = "history",
    .summary = "athanor history (CSV)",
    .matches = history_matches,
    .read = history_read,
};
