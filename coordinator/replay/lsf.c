/* lsf.c - jobs as LSF's bacct tells them, in a CSV with job_id, num_cores, max_mem_gb, num_hosts,
 * submit_time, run_time and exit_status. There are no users in it; memory is what a job used. */
#include "coordinator/replay/columns.h"
#include "coordinator/replay/trace.h"

#include <string.h>

struct job_columns {
    int number, cores, hosts, memory, submit, run, exit;
};

static int job_take(struct trace *trace, const struct columns *c, const void *found,
                    struct err *err)
{
    const struct job_columns *at = found;
    uint64_t ranks, hosts, memory;
    struct trace_job job = {.cores = 1, .user = trace_user(trace, "all")};
    if (*columns_text(c, at->run) == '\0') {
        trace->left_out.never_ran++;
        return 0;
    }
    if (columns_u64(c, at->number, c->line - 1, &job.number, err) < 0 ||
        columns_u64(c, at->cores, 1, &ranks, err) < 0 ||
        columns_u64(c, at->hosts, 1, &hosts, err) < 0 ||
        columns_scaled(c, at->memory, 0, (uint64_t)1 << 30, &memory, err) < 0 ||
        columns_time(c, at->submit, &job.submit_ms, err) < 0 ||
        columns_clock(c, at->run, 0, &job.run_ms, err) < 0)
        return -1;
    job.ranks = (uint32_t)min_u64(ranks, UINT32_MAX);
    job.nodes = hosts > 1 ? (uint32_t)min_u64(hosts, UINT32_MAX) : 0;
    job.memory_bytes = ranks ? memory / ranks : memory;
    job.failed = strcmp(columns_text(c, at->exit), "0") != 0;
    return trace_add(trace, c->file, c->line, &job, 0, err);
}

static int lsf_open(struct columns *c, void *found, struct err *err)
{
    struct job_columns *at = found;
    at->hosts = columns_find(c, "num_hosts");
    at->memory = columns_find(c, "max_mem_gb");
    at->exit = columns_find(c, "exit_status");
    return columns_need(c, "job_id", &at->number, err) < 0 ||
                   columns_need(c, "num_cores", &at->cores, err) < 0 ||
                   columns_need(c, "submit_time", &at->submit, err) < 0 ||
                   columns_need(c, "run_time", &at->run, err) < 0
               ? -1
               : 0;
}

static int lsf_read(struct trace *trace, const char *name, char *text, size_t length,
                    struct err *err)
{
    static const struct columns_reader reader = {',', lsf_open, job_take};
    struct job_columns at = {0};
    return columns_read(trace, name, text, length, &reader, &at, err);
}

static bool lsf_matches(const char *head)
{
    return columns_head_has(head, ',', "job_id num_cores submit_time run_time");
}

const struct trace_format format_lsf = {
    .name = "lsf",
    .summary = "LSF (CSV of bacct)",
    .matches = lsf_matches,
    .read = lsf_read,
};
