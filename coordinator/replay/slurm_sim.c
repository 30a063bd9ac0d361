/* slurm_sim.c - the traces of the Slurm simulator, as CSV and as events.
 *
 * Source: N. Simakov et al., github.com/ubccr-slurm-simulator/slurm_sim_tools. In the CSV times
 * are seconds and sim_wclimit minutes; tasks of sim_cpus_per_task cores. An event is a line
 *   -dt SECONDS -e submit_batch_job | -sim-walltime SECONDS --uid=USER -N NODES -n TASKS -t LIMIT
 * with sbatch's options; a sim-walltime of -1 runs to its limit. */
#include "coordinator/replay/columns.h"
#include "coordinator/replay/trace.h"

#include "common/base/parse.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- CSV ---------------------------------------------------------------------------------- */

struct job_columns {
    int number, submit, limit, duration, tasks, per_task, per_node, user;
};

/* R writes NA where nothing is known. */
static uint64_t nodes_of(const struct columns *c, int column, uint64_t tasks)
{
    struct err err;
    uint64_t per_node;
    if (parse_u64(columns_text(c, column), &per_node, &err) < 0 || per_node == 0 ||
        per_node >= tasks)
        return 0;
    return (tasks + per_node - 1) / per_node;
}

static int job_take(struct trace *trace, const struct columns *c, const void *found,
                    struct err *err)
{
    const struct job_columns *at = found;
    uint64_t tasks, cores, limit;
    struct trace_job job = {0};
    if (columns_u64(c, at->number, c->line - 1, &job.number, err) < 0 ||
        columns_scaled(c, at->submit, 0, 1000, &job.submit_ms, err) < 0 ||
        columns_scaled(c, at->limit, 0, 60000, &limit, err) < 0 ||
        columns_scaled(c, at->duration, 0, 1000, &job.run_ms, err) < 0 ||
        columns_u64(c, at->tasks, 1, &tasks, err) < 0 ||
        columns_u64(c, at->per_task, 1, &cores, err) < 0)
        return -1;
    job.ranks = (uint32_t)min_u64(tasks, UINT32_MAX);
    job.cores = (uint32_t)min_u64(cores, UINT32_MAX);
    job.nodes = (uint32_t)min_u64(nodes_of(c, at->per_node, tasks), UINT32_MAX);
    job.user = trace_user(trace, columns_text(c, at->user));
    return trace_add(trace, c->file, c->line, &job, limit, err);
}

static int slurm_sim_open(struct columns *c, void *found, struct err *err)
{
    struct job_columns *at = found;
    at->limit = columns_find(c, "sim_wclimit");
    at->per_task = columns_find(c, "sim_cpus_per_task");
    at->per_node = columns_find(c, "sim_tasks_per_node");
    at->user = columns_find(c, "sim_username");
    return columns_need(c, "sim_job_id", &at->number, err) < 0 ||
                   columns_need(c, "sim_submit_ts", &at->submit, err) < 0 ||
                   columns_need(c, "sim_duration", &at->duration, err) < 0 ||
                   columns_need(c, "sim_tasks", &at->tasks, err) < 0
               ? -1
               : 0;
}

static int slurm_sim_read(struct trace *trace, const char *name, char *text, size_t length,
                          struct err *err)
{
    static const struct columns_reader reader = {',', slurm_sim_open, job_take};
    struct job_columns at = {0};
    return columns_read(trace, name, text, length, &reader, &at, err);
}

static bool slurm_sim_matches(const char *head)
{
    return columns_head_has(head, ',', "sim_job_id sim_submit_ts sim_duration sim_tasks");
}

const struct trace_format format_slurm_sim = {
    .name = "slurm-simulator",
    .summary = "Slurm simulator (CSV)",
    .matches = slurm_sim_matches,
    .read = slurm_sim_read,
};

/* ---- events ------------------------------------------------------------------------------- */

struct event_line {
    const char *at, *run, *user, *name, *nodes, *tasks, *cores, *limit;
};

/* "-n 32", "--uid=user001": the value of an option we know, else nothing. */
static const char **option_field(struct event_line *event, const char *word)
{
    const struct {
        const char *option;
        const char **field;
    } known[] = {{"-dt", &event->at},
                 {"-sim-walltime", &event->run},
                 {"--uid", &event->user},
                 {"-J", &event->name},
                 {"-N", &event->nodes},
                 {"-n", &event->tasks},
                 {"-c", &event->cores},
                 {"-t", &event->limit},
                 {"--nodes", &event->nodes},
                 {"--ntasks", &event->tasks},
                 {"--cpus-per-task", &event->cores},
                 {"--time", &event->limit}};
    size_t length = strcspn(word, "=");
    for (size_t i = 0; i < ARRAY_COUNT(known); i++)
        if (strlen(known[i].option) == length && memcmp(known[i].option, word, length) == 0)
            return known[i].field;
    return NULL;
}

static void event_split(char *text, struct event_line *event)
{
    char *rest = text, *word;
    while ((word = strtok_r(rest, " \t\r", &rest))) {
        const char **field = option_field(event, word);
        char *value = strchr(word, '=');
        if (field)
            *field = value ? value + 1 : strtok_r(rest, " \t\r", &rest);
        if (!rest)
            break;
    }
}

static int seconds_of(const char *name, size_t line, const char *option, const char *text,
                      double *out, struct err *err)
{
    if (!text || parse_f64(text, out, err) < 0 || fabs(*out) > 1e10)
        return err_set(err, ERR_INVALID, "%s:%zu: option %s is '%.40s', expected seconds", name,
                       line, option, text ? text : "");
    return 0;
}

static int count_of(const char *name, size_t line, const char *option, const char *text,
                    uint32_t *out, struct err *err)
{
    uint64_t value = 1;
    if (text && (parse_u64(text, &value, err) < 0 || value > UINT32_MAX))
        return err_set(err, ERR_INVALID, "%s:%zu: option %s is '%.40s', expected a whole number",
                       name, line, option, text);
    *out = (uint32_t)value;
    return 0;
}

static int event_take(struct trace *trace, const char *name, size_t line,
                      const struct event_line *event, struct err *err)
{
    struct trace_job job = {.number = line};
    double at, run;
    uint64_t limit = 0, minutes;
    if (seconds_of(name, line, "-dt", event->at, &at, err) < 0 ||
        seconds_of(name, line, "-sim-walltime", event->run, &run, err) < 0 ||
        count_of(name, line, "-N", event->nodes, &job.nodes, err) < 0 ||
        count_of(name, line, "-n", event->tasks, &job.ranks, err) < 0 ||
        count_of(name, line, "-c", event->cores, &job.cores, err) < 0)
        return -1;
    if (at < 0)
        return err_set(err, ERR_INVALID,
                       "%s:%zu: option -dt is %g, expected seconds since the "
                       "start",
                       name, line, at);
    /* A bare number is minutes, as for sbatch. */
    if (event->limit && parse_u64(event->limit, &minutes, err) == 0)
        limit = min_u64(minutes, TRACE_MS_MAX) * 60000;
    else if (event->limit && !text_clock_ms(event->limit, &limit))
        return err_set(err, ERR_INVALID,
                       "%s:%zu: option -t is '%.40s', expected minutes or "
                       "D-HH:MM:SS",
                       name, line, event->limit);
    job.submit_ms = (uint64_t)llround(at * 1000);
    job.run_ms = run < 0 ? limit : (uint64_t)llround(run * 1000);
    job.nodes = job.nodes > 1 ? job.nodes : 0;
    job.user = trace_user(trace, event->user ? event->user : "unknown");
    return trace_add(trace, name, line, &job, limit, err);
}

static int slurm_events_read(struct trace *trace, const char *name, char *text, size_t length,
                             struct err *err)
{
    size_t line = 1;
    for (char *at = text, *next; at < text + length; at = next, line++) {
        size_t end = strcspn(at, "\n");
        struct event_line event = {0};
        next = at + end + 1;
        at[end] = '\0';
        bool submit = strstr(at, "submit_batch_job") != NULL;
        if (!submit && at[strspn(at, " \t\r")] && *at != '#')
            return err_set(err, ERR_INVALID,
                           "%s:%zu: not an event we know, expected '-dt SECONDS -e "
                           "submit_batch_job | ...'",
                           name, line);
        if (!submit)
            continue;
        event_split(at, &event);
        if (event_take(trace, name, line, &event, err) < 0)
            return -1;
    }
    return 0;
}

static bool slurm_events_matches(const char *head)
{
    head += strspn(head, " \t\r\n");
    return strncmp(head, "-dt", 3) == 0;
}

const struct trace_format format_slurm_events = {
    .name = "slurm-events",
    .summary = "Slurm simulator (events)",
    .matches = slurm_events_matches,
    .read = slurm_events_read,
};
