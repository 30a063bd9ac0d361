/* tiresias.c - the traces of Tiresias' simulator: job_id,num_gpu,submit_time,iterations,model_name,
 * duration,interval. Times are seconds; a job is its GPUs, one rank each, with a core for each.
 * Source: Gu et al., "Tiresias: a GPU cluster manager for distributed deep learning", NSDI 2019,
 * github.com/SymbioticLab/Tiresias. Its users are not recorded: models stand in for them. */
#include "coordinator/replay/columns.h"
#include "coordinator/replay/trace.h"

struct job_columns {
    int number, gpus, submit, duration, model;
};

static int job_take(struct trace *trace, const struct columns *c, const void *found,
                    struct err *err)
{
    const struct job_columns *at = found;
    uint64_t number, gpus;
    struct trace_job job = {.cores = 1, .gpus = 1};
    if (columns_u64(c, at->number, c->line - 1, &number, err) < 0 ||
        columns_u64(c, at->gpus, 0, &gpus, err) < 0 ||
        columns_scaled(c, at->submit, 0, 1000, &job.submit_ms, err) < 0 ||
        columns_scaled(c, at->duration, 0, 1000, &job.run_ms, err) < 0)
        return -1;
    job.number = number;
    job.ranks = (uint32_t)min_u64(gpus, UINT32_MAX);
    job.user = trace_user(trace, columns_text(c, at->model));
    return trace_add(trace, c->file, c->line, &job, 0, err);
}

static int tiresias_open(struct columns *c, void *found, struct err *err)
{
    struct job_columns *at = found;
    at->model = columns_find(c, "model_name");
    return columns_need(c, "job_id", &at->number, err) < 0 ||
                   columns_need(c, "num_gpu", &at->gpus, err) < 0 ||
                   columns_need(c, "submit_time", &at->submit, err) < 0 ||
                   columns_need(c, "duration", &at->duration, err) < 0
               ? -1
               : 0;
}

static int tiresias_read(struct trace *trace, const char *name, char *text, size_t length,
                         struct err *err)
{
    static const struct columns_reader reader = {',', tiresias_open, job_take};
    struct job_columns at = {0};
    return columns_read(trace, name, text, length, &reader, &at, err);
}

static bool tiresias_matches(const char *head)
{
    return columns_head_has(head, ',', "job_id num_gpu submit_time duration");
}

const struct trace_format format_tiresias = {
    .name = "tiresias",
    .summary = "Tiresias (CSV of GPU jobs)",
    .matches = tiresias_matches,
    .read = tiresias_read,
};
