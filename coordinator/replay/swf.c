/* swf.c - the Standard Workload Format of the Parallel Workloads Archive, version 2.2.
 *
 * Source: D. Feitelson, "The Standard Workload Format",
 * https://www.cs.huji.ac.il/labs/parallel/workload/swf.html. One job a line, 18 numbers, -1 for
 * unknown; comments begin with ';' and carry "; MaxProcs: N", "; MaxNodes: N". Of its conventions:
 *   - status 2, 3 and 4 are parts of a job that has a line of its own: left out;
 *   - status 5 (cancelled) without a run time never started: left out, as is any job without run
 *     time; one cancelled while it ran holds its processors for as long as it did;
 *   - status 0 (failed) counts as a job that ran; unknown (-1) as one that succeeded;
 *   - processors are those allocated, else those requested; a run time of 0 is less than a second.
 * "Preceding job" and "think time" are not modelled: submits stay where they were. */
#include "coordinator/replay/trace.h"

#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define FIELDS 18u
enum field {
    NUMBER, SUBMIT, WAIT, RUN, PROCESSORS, CPU_TIME, MEMORY, ASKED_PROCESSORS, ASKED_TIME,
    ASKED_MEMORY, STATUS, USER, GROUP, PROGRAM, QUEUE, PARTITION, PRECEDING, THINK_TIME
};

static const char *const names[FIELDS] = {
    "job number", "submit time", "wait time", "run time", "allocated processors",
    "average CPU time", "used memory", "requested processors", "requested time",
    "requested memory", "status", "user", "group", "executable", "queue", "partition",
    "preceding job", "think time"};

struct header {
    uint64_t processors, nodes;
};

/* A value that is no number, or none that a machine can have, says nothing. */
static uint64_t header_number(const char *text)
{
    text += strspn(text, " \t");
    unsigned long long value = isdigit((unsigned char)*text) ? strtoull(text, NULL, 10) : 0;
    return value <= UINT32_MAX ? value : 0;
}

/* "; MaxProcs: 128" */
static void header_take(const char *comment, struct header *header)
{
    comment += strspn(comment, "; \t");
    if (strncasecmp(comment, "MaxProcs:", 9) == 0)
        header->processors = header_number(comment + 9);
    else if (strncasecmp(comment, "MaxNodes:", 9) == 0)
        header->nodes = header_number(comment + 9);
}

static int line_split(const char *name, size_t line, const char *text, double *values,
                      struct err *err)
{
    size_t count = 0;
    for (;;) {
        text += strspn(text, " \t\r");
        if (*text == '\0')
            break;
        char *end;
        double value = strtod(text, &end);
        if (end == text || (*end && !isspace((unsigned char)*end)) || !isfinite(value))
            return err_set(err, ERR_INVALID, "%s:%zu: field %zu%s%s%s is '%.*s', expected a number",
                           name, line, count + 1, count < FIELDS ? " (" : "",
                           count < FIELDS ? names[count] : "", count < FIELDS ? ")" : "",
                           (int)min_u64(strcspn(text, " \t\r"), 40), text);
        if (count < FIELDS)
            values[count] = value;
        count++;
        text = end;
    }
    if (count != FIELDS)
        return err_set(err, ERR_INVALID, "%s:%zu: %zu numbers, expected the %u of a line of SWF",
                       name, line, count, FIELDS);
    return 0;
}

/* Of a field that may be unknown; huge ones stay huge for the bounds of trace_add. */
static uint64_t scaled(double value, double scale)
{
    return value <= 0 ? 0 : value * scale >= 1e18 ? UINT64_MAX : (uint64_t)llround(value * scale);
}

static uint32_t bounded(double value)
{
    return value <= 0 ? 0 : value >= UINT32_MAX ? UINT32_MAX : (uint32_t)value;
}

static int job_take(struct trace *trace, const char *name, size_t line, const double *v,
                    struct err *err)
{
    if (v[SUBMIT] < 0)
        return err_set(err, ERR_INVALID,
                       "%s:%zu: field 2 (submit time) is %g, expected seconds since the start of "
                       "the log",
                       name, line, v[SUBMIT]);
    if (v[STATUS] == 2 || v[STATUS] == 3 || v[STATUS] == 4) {
        trace->left_out.partial++;
        return 0;
    }
    if (v[RUN] < 0 || (v[STATUS] == 5 && v[RUN] == 0)) {
        trace->left_out.never_ran++;
        return 0;
    }
    char user[32] = "unknown";
    if (v[USER] >= 0)
        snprintf(user, sizeof user, "u%.0f", fmin(v[USER], 1e15));
    struct trace_job job = {
        .number = scaled(v[NUMBER], 1),
        .submit_ms = scaled(v[SUBMIT], 1000),
        .run_ms = scaled(v[RUN], 1000),
        .memory_bytes = scaled(v[ASKED_MEMORY], 1024),
        .ranks = bounded(v[PROCESSORS] > 0 ? v[PROCESSORS] : v[ASKED_PROCESSORS]),
        .cores = 1,
        .user = trace_user(trace, user),
        .failed = v[STATUS] == 0 || v[STATUS] == 5,
    };
    return trace_add(trace, name, line, &job, scaled(v[ASKED_TIME], 1000), err);
}

/* The machine is its processors in one node: SWF does not say how they hang together. More than a
 * worker may have are halved until they fit. */
static int machine_take(struct trace *trace, const char *name, const struct header *header,
                        struct err *err)
{
    uint64_t processors = max_u64(header->processors, header->nodes), nodes = 1;
    for (size_t i = 0; i < trace->job_count; i++)
        processors = max_u64(processors, trace->jobs[i].ranks);
    while (processors > nodes * TRACE_NODE_CORES_MAX)
        nodes *= 2;
    for (uint64_t i = 0; i < nodes; i++) {
        struct trace_node node = {.cores = (processors + nodes - 1) / nodes};
        if (trace_add_node(trace, name, 1, &node, err) < 0)
            return -1;
    }
    return 0;
}

static int swf_read(struct trace *trace, const char *name, char *text, size_t length,
                    struct err *err)
{
    struct header header = {0};
    double values[FIELDS] = {0};
    size_t line = 1;
    for (char *at = text, *next; at < text + length; at = next, line++) {
        size_t end = strcspn(at, "\n");
        next = at + end + 1;
        at[end] = '\0';
        if (*at == ';')
            header_take(at, &header);
        else if (at[strspn(at, " \t\r")] != '\0' &&
                 (line_split(name, line, at, values, err) < 0 ||
                  job_take(trace, name, line, values, err) < 0))
            return -1;
    }
    return machine_take(trace, name, &header, err);
}

/* Comments, or a line that begins with a number and is no CSV. */
static bool swf_matches(const char *head)
{
    head += strspn(head, " \t\r\n");
    size_t line = strcspn(head, "\n");
    return *head == ';' || (isdigit((unsigned char)*head) && strcspn(head, ",|{\n") == line);
}

const struct trace_format format_swf = {
    .name = "swf",
    .summary = "SWF (18 numbers a line)",
    .matches = swf_matches,
    .read = swf_read,
};
