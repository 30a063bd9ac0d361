/* batsim.c - Batsim's workloads: JSON with jobs, their profiles, and the size of the machine.
 *
 * Source: batsim.readthedocs.io, "Input workload". Times are seconds, `res` is cores, `walltime`
 * the limit. Only profiles that state a time can be replayed without a model of the machine:
 * delay, DelayProfile; and any profile with `runtime` or `delay`. */
#include "coordinator/replay/trace.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#define SECONDS_MAX 1e10

static int refuse(const char *name, size_t index, const char *what, struct err *err)
{
    return err_set(err, ERR_INVALID, "%s: jobs[%zu]: %s", name, index, what);
}

/* Milliseconds, or false for what is no number in range. */
static bool seconds_ms(const json_t *value, uint64_t *out)
{
    double seconds = json_number_value(value);
    if (!json_is_number(value) || !(seconds >= 0 && seconds <= SECONDS_MAX))
        return false;
    *out = (uint64_t)llround(seconds * 1000);
    return true;
}

static bool profile_ms(const json_t *profile, uint64_t *out)
{
    return seconds_ms(json_object_get(profile, "delay"), out) ||
           seconds_ms(json_object_get(profile, "runtime"), out);
}

static int job_take(struct trace *trace, const char *name, size_t index, const json_t *from,
                    const json_t *profiles, struct err *err)
{
    const json_t *res = json_object_get(from, "res");
    const json_t *id = json_object_get(from, "id"), *limit = json_object_get(from, "walltime");
    const char *profile = json_string_value(json_object_get(from, "profile"));
    struct trace_job job = {.cores = 1, .number = index};
    uint64_t limit_ms = 0;
    if (!json_is_integer(res) || json_integer_value(res) < 1 ||
        json_integer_value(res) > TRACE_RANKS_MAX)
        return refuse(name, index, "'res' must be a number of cores from 1", err);
    if (!seconds_ms(json_object_get(from, "subtime"), &job.submit_ms))
        return refuse(name, index, "'subtime' must be seconds since the start", err);
    if (!profile || !profile_ms(json_object_get(profiles, profile), &job.run_ms))
        return refuse(name, index,
                      "its profile must be among 'profiles' and have a 'delay' or 'runtime' in "
                      "seconds: others need a model of the machine",
                      err);
    if (limit && json_number_value(limit) > 0 && !seconds_ms(limit, &limit_ms))
        return refuse(name, index, "'walltime' must be seconds", err);
    job.number = json_is_integer(id) && json_integer_value(id) >= 0
                     ? (uint64_t)json_integer_value(id)
                     : index;
    job.ranks = (uint32_t)json_integer_value(res);
    job.user = trace_user(trace, profile);
    return trace_add(trace, name, 1, &job, limit_ms, err);
}

static int workload_take(struct trace *trace, const char *name, const json_t *root,
                         struct err *err)
{
    const json_t *jobs = json_object_get(root, "jobs"), *res = json_object_get(root, "nb_res");
    const json_t *profiles = json_object_get(root, "profiles");
    if (!json_is_array(jobs) || !json_is_object(profiles))
        return err_set(err, ERR_INVALID,
                       "%s: no workload of Batsim: expected an object with 'jobs', 'profiles' and "
                       "'nb_res'",
                       name);
    for (size_t i = 0; i < json_array_size(jobs); i++)
        if (job_take(trace, name, i, json_array_get(jobs, i), profiles, err) < 0)
            return -1;
    if (json_is_integer(res) && json_integer_value(res) > 0) {
        struct trace_node node = {.cores = (uint64_t)json_integer_value(res)};
        return trace_add_node(trace, name, 1, &node, err);
    }
    return 0;
}

static int batsim_read(struct trace *trace, const char *name, char *text, size_t length,
                       struct err *err)
{
    json_error_t error;
    json_t *root = json_loadb(text, length, JSON_REJECT_DUPLICATES, &error);
    if (!root)
        return err_set(err, ERR_INVALID, "%s:%d:%d: %s", name, error.line, error.column,
                       error.text);
    int rc = workload_take(trace, name, root, err);
    json_decref(root);
    return rc;
}

static bool batsim_matches(const char *head)
{
    head += strspn(head, " \t\r\n");
    return *head == '{';
}

const struct trace_format format_batsim = {
    .name = "batsim",
    .summary = "Batsim (JSON)",
    .matches = batsim_matches,
    .read = batsim_read,
};
