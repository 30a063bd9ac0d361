/* print.c - outcomes of a replay as a table, as JSON, and start by start. */
#include "coordinator/replay/replay.h"

#include "common/base/buf.h"
#include "common/base/json_text.h"
#include "common/base/parse.h"

#include <string.h>

struct totals {
    uint64_t cores, gpus, memory_bytes;
};

static struct totals machine_totals(const struct trace *trace)
{
    struct totals totals = {0};
    for (size_t i = 0; i < trace->node_count; i++) {
        totals.cores += trace->nodes[i].cores;
        totals.gpus += trace->nodes[i].gpus;
        totals.memory_bytes += trace->nodes[i].memory_bytes;
    }
    return totals;
}

/* ---- for people -------------------------------------------------------------------------- */

static void note(struct buf *out, uint64_t count, const char *text)
{
    if (count)
        buf_printf(out, "  %llu %s\n", (unsigned long long)count, text);
}

static void print_head(const struct trace *trace, const char *name, struct buf *out)
{
    struct totals totals = machine_totals(trace);
    char span[PARSE_TEXT_SIZE];
    buf_printf(out, "%s (%s): %zu jobs of %zu users, submitted within %s; %llu cores", name,
               trace->format, trace->job_count, trace->user_count,
               format_duration_short(trace->jobs[trace->job_count - 1].submit_ms, span),
               (unsigned long long)totals.cores);
    if (totals.gpus)
        buf_printf(out, ", %llu GPUs", (unsigned long long)totals.gpus);
    buf_printf(out, " on %zu node%s\n", trace->node_count, trace->node_count == 1 ? "" : "s");
    note(out, trace->left_out.never_ran, "jobs left out: they never ran");
    note(out, trace->left_out.partial, "lines left out: parts of jobs with a line of their own");
    note(out, trace->left_out.no_request, "jobs left out: they ask for nothing");
    note(out, trace->limits_missing, "jobs without a requested time: their run time is taken");
    note(out, trace->limits_raised, "jobs ran longer than requested: the limit is raised to that");
}

static void print_row(const struct replay_outcome *outcome, bool gpus, struct buf *out)
{
    const struct measures *m = &outcome->measures;
    const struct simulated *s = &outcome->simulated;
    char mean[PARSE_TEXT_SIZE], median[PARSE_TEXT_SIZE], p95[PARSE_TEXT_SIZE],
        most[PARSE_TEXT_SIZE], span[PARSE_TEXT_SIZE];
    buf_printf(out, "%-14s %8zu %9s %9s %9s %9s %9.2f %6.1f%%", outcome->policy, m->jobs,
               format_duration_short((uint64_t)m->wait_mean_ms, mean),
               format_duration_short(m->wait_median_ms, median),
               format_duration_short(m->wait_p95_ms, p95),
               format_duration_short(m->wait_max_ms, most), m->slowdown_mean,
               100 * m->core_utilisation);
    if (gpus)
        buf_printf(out, " %6.1f%%", 100 * m->gpu_utilisation);
    buf_printf(out, " %9s %6.3f %8.2f %8llu %8.3f ms\n",
               format_duration_short(m->makespan_ms, span), m->jain, m->worst_user,
               (unsigned long long)s->passes,
               s->passes ? (double)s->pass_us / 1000 / (double)s->passes : 0);
}

void replay_print_table(const struct trace *trace, const char *name,
                        const struct replay_outcome *outcomes, size_t count, struct buf *out)
{
    bool gpus = machine_totals(trace).gpus > 0;
    print_head(trace, name, out);
    buf_printf(out, "\n%-14s %8s %9s %9s %9s %9s %9s %7s", "POLICY", "JOBS", "WAIT", "MEDIAN",
               "P95", "MAX", "SLOWDOWN", "CORES");
    if (gpus)
        buf_printf(out, " %7s", "GPUS");
    buf_printf(out, " %9s %6s %8s %8s %11s\n", "MAKESPAN", "JAIN", "WORST", "PASSES", "A PASS");
    for (size_t i = 0; i < count; i++)
        print_row(&outcomes[i], gpus, out);
    for (size_t i = 0; i < count; i++) {
        const struct simulated *s = &outcomes[i].simulated;
        if (s->refused)
            buf_printf(out, "%s: %llu jobs never started%s%s\n", outcomes[i].policy,
                       (unsigned long long)s->refused, s->refusal[0] ? "; the first: " : "",
                       s->refusal);
        if (s->preempted)
            buf_printf(out, "%s: %llu attempts were preempted and run again\n", outcomes[i].policy,
                       (unsigned long long)s->preempted);
    }
}

/* ---- for programs ------------------------------------------------------------------------ */

static void json_u64(struct buf *out, const char *name, uint64_t value)
{
    buf_printf(out, ",\"%s\":%llu", name, (unsigned long long)value);
}

static void json_f64(struct buf *out, const char *name, double value)
{
    buf_printf(out, ",\"%s\":%.17g", name, value);
}

static void json_policy(const struct replay_outcome *outcome, struct buf *out)
{
    const struct measures *m = &outcome->measures;
    const struct simulated *s = &outcome->simulated;
    buf_puts(out, "{\"policy\":");
    json_text_quote(out, outcome->policy, strlen(outcome->policy));
    json_u64(out, "jobs", m->jobs);
    json_u64(out, "users", m->users);
    json_u64(out, "never_started", s->refused);
    json_u64(out, "preempted", s->preempted);
    json_u64(out, "wait_sum_ms", m->wait_sum_ms);
    json_f64(out, "wait_mean_ms", m->wait_mean_ms);
    json_u64(out, "wait_median_ms", m->wait_median_ms);
    json_u64(out, "wait_p95_ms", m->wait_p95_ms);
    json_u64(out, "wait_max_ms", m->wait_max_ms);
    json_f64(out, "slowdown_mean", m->slowdown_mean);
    json_f64(out, "slowdown_p95", m->slowdown_p95);
    json_f64(out, "slowdown_max", m->slowdown_max);
    json_f64(out, "core_utilisation", m->core_utilisation);
    json_f64(out, "gpu_utilisation", m->gpu_utilisation);
    json_u64(out, "makespan_ms", m->makespan_ms);
    json_f64(out, "jain", m->jain);
    json_f64(out, "worst_user", m->worst_user);
    json_u64(out, "passes", s->passes);
    json_u64(out, "pass_us", s->pass_us);
    json_u64(out, "pass_us_max", s->pass_us_max);
    json_u64(out, "steps", s->steps);
    buf_putc(out, '}');
}

void replay_print_json(const struct trace *trace, const char *name,
                       const struct replay_outcome *outcomes, size_t count, struct buf *out)
{
    struct totals totals = machine_totals(trace);
    buf_puts(out, "{\"trace\":");
    json_text_quote(out, name, strlen(name));
    buf_puts(out, ",\"format\":");
    json_text_quote(out, trace->format, strlen(trace->format));
    json_u64(out, "jobs", trace->job_count);
    json_u64(out, "left_out_never_ran", trace->left_out.never_ran);
    json_u64(out, "left_out_partial", trace->left_out.partial);
    json_u64(out, "left_out_no_request", trace->left_out.no_request);
    json_u64(out, "limits_missing", trace->limits_missing);
    json_u64(out, "limits_raised", trace->limits_raised);
    json_u64(out, "nodes", trace->node_count);
    json_u64(out, "cores", totals.cores);
    json_u64(out, "gpus", totals.gpus);
    buf_puts(out, ",\"policies\":[");
    for (size_t i = 0; i < count; i++) {
        buf_puts(out, i ? "," : "");
        json_policy(&outcomes[i], out);
    }
    buf_puts(out, "]}\n");
}

static void csv_text(struct buf *out, const char *text)
{
    if (!strpbrk(text, ",\"\r\n")) {
        buf_puts(out, text);
        return;
    }
    buf_putc(out, '"');
    for (; *text; text++) {
        if (*text == '"')
            buf_putc(out, '"');
        buf_putc(out, *text);
    }
    buf_putc(out, '"');
}

void replay_print_starts(const struct trace *trace, const struct replay_outcome *outcome,
                         struct buf *out)
{
    const struct simulated *s = &outcome->simulated;
    for (size_t i = 0; i < s->started; i++) {
        const struct trace_job *job = &trace->jobs[s->order[i]];
        buf_printf(out, "%s,%llu,", outcome->policy, (unsigned long long)job->number);
        csv_text(out, trace->users[job->user]);
        buf_printf(out, ",%llu,%llu,%llu\n", (unsigned long long)job->submit_ms,
                   (unsigned long long)s->start_ms[s->order[i]],
                   (unsigned long long)s->end_ms[s->order[i]]);
    }
}
