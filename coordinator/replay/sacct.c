/* sacct.c - Slurm's own accounting: sacct -aXP --format=JobID,User,Account,Submit,Start,End,State,
 * NCPUS,NNodes,ReqMem,Timelimit,AllocTRES (any order, more columns do no harm).
 *
 * Lines of steps ("12.batch") are left out, as are jobs that never started. JobName may hold
 * bars. Times are local ones of the cluster: a change of summer time shifts submits by an hour. */
#include "coordinator/replay/columns.h"
#include "coordinator/replay/trace.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

struct job_columns {
    int number, user, account, submit, start, end, state, cores, nodes, limit, tres;
};

static int sacct_open(struct columns *c, void *found, struct err *err)
{
    struct job_columns *at = found;
    at->user = columns_find(c, "User");
    at->account = columns_find(c, "Account");
    at->state = columns_find(c, "State");
    at->nodes = columns_find(c, "NNodes");
    at->tres = columns_find(c, "AllocTRES");
    at->limit = columns_find(c, "Timelimit");
    c->loose = columns_find(c, "JobName");
    return columns_need(c, "JobID", &at->number, err) < 0 ||
                   columns_need(c, "Submit", &at->submit, err) < 0 ||
                   columns_need(c, "Start", &at->start, err) < 0 ||
                   columns_need(c, "End", &at->end, err) < 0 ||
                   columns_need(c, "NCPUS", &at->cores, err) < 0
               ? -1
               : 0;
}

/* "billing=32,cpu=32,gres/gpu=4,mem=500G,node=1"; gres/gpu:a100=4 repeats it by type. */
static uint64_t tres_gpus(const char *text)
{
    const char *found = strstr(text, "gres/gpu=");
    return found ? strtoull(found + 9, NULL, 10) : 0;
}

/* UNLIMITED and Partition_Limit are no limit. */
static int limit_take(const struct columns *c, int column, uint64_t *out, struct err *err)
{
    const char *text = columns_text(c, column);
    *out = 0;
    if (strcasecmp(text, "UNLIMITED") == 0 || strcasecmp(text, "Partition_Limit") == 0 ||
        strcasecmp(text, "INVALID") == 0)
        return 0;
    return columns_clock(c, column, 0, out, err);
}

static int job_take(struct trace *trace, const struct columns *c, const void *found,
                    struct err *err)
{
    const struct job_columns *at = found;
    uint64_t start, end, limit, cores, nodes;
    struct trace_job job = {0};
    const char *user = columns_text(c, at->user), *account = columns_text(c, at->account);
    if (strchr(columns_text(c, at->number), '.')) {
        trace->left_out.partial++;
        return 0;
    }
    if (!text_time_ms(columns_text(c, at->start), &start) ||
        !text_time_ms(columns_text(c, at->end), &end)) { /* Unknown, None, "" */
        trace->left_out.never_ran++;
        return 0;
    }
    if (columns_time(c, at->submit, &job.submit_ms, err) < 0 ||
        columns_u64(c, at->cores, 0, &cores, err) < 0 ||
        columns_u64(c, at->nodes, 1, &nodes, err) < 0 || limit_take(c, at->limit, &limit, err) < 0)
        return -1;
    const char *state = columns_text(c, at->state);
    /* A job cancelled in the queue has Start at or, held, behind its End. */
    if (end < start || (strncasecmp(state, "CANCELLED", 9) == 0 && end == start)) {
        trace->left_out.never_ran++;
        return 0;
    }
    uint64_t gpus = tres_gpus(columns_text(c, at->tres));
    job.number = strtoull(columns_text(c, at->number), NULL, 10);
    job.run_ms = end - start;
    job.ranks = (uint32_t)min_u64(cores, UINT32_MAX);
    job.cores = 1;
    job.nodes = nodes > 1 ? (uint32_t)min_u64(nodes, UINT32_MAX) : 0;
    if (gpus && gpus <= cores && cores % gpus == 0) { /* a rank per GPU */
        job.ranks = (uint32_t)gpus;
        job.cores = (uint32_t)(cores / gpus);
        job.gpus = 1;
    }
    job.user = trace_user(trace, *user ? user : *account ? account : "unknown");
    job.failed = strncasecmp(state, "COMPLETED", 9) != 0;
    return trace_add(trace, c->file, c->line, &job, limit, err);
}

static int sacct_read(struct trace *trace, const char *name, char *text, size_t length,
                      struct err *err)
{
    static const struct columns_reader reader = {'|', sacct_open, job_take};
    struct job_columns at = {0};
    return columns_read(trace, name, text, length, &reader, &at, err);
}

static bool sacct_matches(const char *head)
{
    return columns_head_has(head, '|', "JobID Submit");
}

const struct trace_format format_sacct = {
    .name = "sacct",
    .summary = "Slurm (sacct -P with JobID, Submit, Start, End, NCPUS)",
    .matches = sacct_matches,
    .read = sacct_read,
};
