/* replay.c - loading, the machine, one simulation per policy; see replay.h. */
#include "coordinator/replay/replay.h"

#include "common/base/buf.h"
#include "common/base/file.h"
#include "common/base/mem.h"
#include "coordinator/policy/policy.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define POLICIES_MAX 16u
#define BAR_COLUMNS 40u

/* ---- the trace and its machine ----------------------------------------------------------- */

void replay_scale(struct trace *trace, uint64_t load_permille)
{
    for (size_t i = 0; load_permille && i < trace->job_count; i++)
        trace->jobs[i].submit_ms = trace->jobs[i].submit_ms * 1000 / load_permille;
}

/* --nodes, --cores, --memory and --gpus change what the trace says of its machine. */
static int machine_shape(const struct replay_config *config, struct trace *trace, struct err *err)
{
    if (!config->nodes && !config->cores && !config->gpus && !config->memory_bytes)
        return 0;
    struct trace_node node = {.cores = 1};
    uint64_t cores = 0, gpus = 0, nodes = config->nodes ? config->nodes : 1;
    for (size_t i = 0; i < trace->node_count; i++) {
        cores += trace->nodes[i].cores;
        gpus += trace->nodes[i].gpus;
    }
    if (!config->cores && !cores && !config->gpus)
        return err_set(err, ERR_INVALID,
                       "the trace does not say how many cores its machine has: give --cores (of "
                       "each node)");
    if (nodes > TRACE_NODES_MAX)
        return err_set(err, ERR_INVALID, "--nodes is %llu, expected 1..%u",
                       (unsigned long long)nodes, TRACE_NODES_MAX);
    /* What is not said is the trace's machine in equal parts; GPU jobs ask a core for each GPU. */
    node.cores = config->cores ? config->cores : cores ? (cores + nodes - 1) / nodes : config->gpus;
    node.gpus = config->gpus ? config->gpus : (gpus + nodes - 1) / nodes;
    node.memory_bytes = config->memory_bytes;
    trace->node_count = 0;
    for (uint64_t i = 0; i < nodes; i++)
        if (trace_add_node(trace, "--nodes", i + 1, &node, err) < 0)
            return -1;
    return 0;
}

int replay_load(const struct replay_config *config, struct trace *trace, struct err *err)
{
    if (trace_load(trace, config->trace, err) < 0 ||
        (config->machine && trace_load_nodes(trace, config->machine, err) < 0) ||
        machine_shape(config, trace, err) < 0)
        return -1;
    replay_scale(trace, config->load_permille);
    return 0;
}

/* ---- progress ---------------------------------------------------------------------------- */

static void progress_show(void *user, size_t done, size_t total)
{
    char bar[BAR_COLUMNS + 1];
    size_t full = total ? done * BAR_COLUMNS / total : 0;
    memset(bar, '.', BAR_COLUMNS);
    memset(bar, '#', full);
    bar[BAR_COLUMNS] = '\0';
    fprintf(stderr, "\r%-14s [%s] %zu of %zu jobs", (const char *)user, bar, done, total);
    fflush(stderr);
}

static void progress_clear(bool shown)
{
    if (shown)
        fputs("\r\033[K", stderr);
}

/* ---- policies ---------------------------------------------------------------------------- */

/* The names asked for, in arena; all of them when none is. */
static int policies_split(const char *text, struct arena *arena, const char **out, size_t *count,
                          struct err *err)
{
    *count = 0;
    for (size_t i = 0; !text && policy_at(i) && *count < POLICIES_MAX; i++)
        out[(*count)++] = policy_at(i)->name;
    while (text && *text) {
        size_t length = strcspn(text, ",");
        if (*count == POLICIES_MAX)
            return err_set(err, ERR_LIMIT, "--policy names more than %u policies", POLICIES_MAX);
        if (length)
            out[(*count)++] = arena_strndup(arena, text, length);
        text += length + (text[length] == ',');
    }
    return 0;
}

static int starts_write(const char *path, const struct trace *trace,
                        const struct replay_outcome *outcomes, size_t count, struct err *err)
{
    struct buf text = {0};
    buf_puts(&text, "policy,job,user,submit_ms,start_ms,end_ms\n");
    for (size_t i = 0; i < count; i++)
        replay_print_starts(trace, &outcomes[i], &text);
    int rc = file_replace(path, text.bytes, text.length, 0644, err);
    buf_done(&text);
    return rc;
}

static int print_all(const struct replay_config *config, const struct trace *trace,
                     const struct replay_outcome *outcomes, size_t count, struct err *err)
{
    struct buf text = {0};
    (config->json ? replay_print_json : replay_print_table)(trace, config->trace, outcomes, count,
                                                            &text);
    int rc = 0;
    if (fwrite(text.bytes, 1, text.length, stdout) != text.length || fflush(stdout) != 0)
        rc = err_errno(err, "writing the results");
    buf_done(&text);
    if (rc == 0 && config->starts)
        rc = starts_write(config->starts, trace, outcomes, count, err);
    return rc;
}

int replay(const struct replay_config *config, struct err *err)
{
    struct trace trace;
    const char *names[POLICIES_MAX];
    struct replay_outcome outcomes[POLICIES_MAX] = {0};
    size_t count = 0, done = 0;
    bool shown = isatty(STDERR_FILENO);
    int rc = replay_load(config, &trace, err);
    if (rc == 0)
        rc = policies_split(config->policies, &trace.arena, names, &count, err);
    for (; rc == 0 && done < count; done++) {
        struct replay_outcome *outcome = &outcomes[done];
        outcome->policy = names[done];
        rc = simulate(&trace, names[done], shown ? progress_show : NULL, (void *)names[done],
                      &outcome->simulated, err);
        if (rc == 0)
            measure(&trace, &outcome->simulated, &outcome->measures);
        progress_clear(shown);
    }
    if (rc == 0)
        rc = print_all(config, &trace, outcomes, count, err);
    for (size_t i = 0; i < done; i++)
        simulated_free(&outcomes[i].simulated);
    trace_free(&trace);
    return rc;
}
