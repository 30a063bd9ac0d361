/* trace.c - reading any trace: unpack, recognise, parse, put in order. */
#include "coordinator/replay/trace.h"

#include "common/base/buf.h"
#include "common/base/mem.h"

#include <stdlib.h>
#include <string.h>

#include <uthash.h>
#include <zlib.h>

#define HEAD_BYTES 4096u /* that formats are recognised by */

struct trace_user {
    const char *name;
    uint32_t index;
    UT_hash_handle hh;
};

#define TRACE_FORMAT(symbol) extern const struct trace_format format_##symbol;
#include "coordinator/replay/formats.def"
#undef TRACE_FORMAT

static const struct trace_format *const formats[] = {
#define TRACE_FORMAT(symbol) &format_##symbol,
#include "coordinator/replay/formats.def"
#undef TRACE_FORMAT
};

const struct trace_format *trace_format_at(size_t index)
{
    return index < ARRAY_COUNT(formats) ? formats[index] : NULL;
}

/* ---- what formats add -------------------------------------------------------------------- */

uint32_t trace_user(struct trace *trace, const char *name)
{
    struct trace_user *user = NULL;
    HASH_FIND_STR(trace->users_by_name, name, user);
    if (user)
        return user->index;
    user = arena_alloc(&trace->arena, sizeof *user);
    user->name = arena_strdup(&trace->arena, name);
    user->index = (uint32_t)trace->user_count;
    HASH_ADD_KEYPTR(hh, trace->users_by_name, user->name, strlen(user->name), user);
    VEC_RESERVE(trace->users, trace->user_count, trace->user_capacity);
    trace->users[trace->user_count++] = user->name;
    return user->index;
}

struct bound {
    const char *what;
    uint64_t value, most;
};

static int bounds_check(const char *name, size_t line, const struct bound *bounds, size_t count,
                        struct err *err)
{
    for (size_t i = 0; i < count; i++)
        if (bounds[i].value > bounds[i].most)
            return err_set(err, ERR_INVALID, "%s:%zu: %s is %llu, expected at most %llu", name,
                           line, bounds[i].what, (unsigned long long)bounds[i].value,
                           (unsigned long long)bounds[i].most);
    return 0;
}

int trace_add(struct trace *trace, const char *name, size_t line, const struct trace_job *job,
              uint64_t requested_ms, struct err *err)
{
    const struct bound bounds[] = {
        {"the submit time in ms", job->submit_ms, TRACE_MS_MAX},
        {"the run time in ms", job->run_ms, TRACE_MS_MAX},
        {"the requested time in ms", requested_ms, TRACE_MS_MAX},
        {"the number of processors", job->ranks, TRACE_RANKS_MAX},
        {"cores per rank", job->cores, TRACE_NODE_CORES_MAX},
        {"GPUs per rank", job->gpus, TRACE_NODE_CORES_MAX},
        {"the number of nodes", job->nodes, TRACE_NODES_MAX},
        {"memory per rank in bytes", job->memory_bytes, TRACE_MEMORY_MAX},
    };
    if (bounds_check(name, line, bounds, ARRAY_COUNT(bounds), err) < 0)
        return -1;
    if (job->ranks == 0 || (job->cores == 0 && job->gpus == 0)) {
        trace->left_out.no_request++;
        return 0;
    }
    if (trace->job_count >= TRACE_JOBS_MAX)
        return err_set(err, ERR_LIMIT, "%s:%zu: more than %u jobs", name, line, TRACE_JOBS_MAX);
    VEC_RESERVE(trace->jobs, trace->job_count, trace->job_capacity);
    struct trace_job *added = &trace->jobs[trace->job_count++];
    *added = *job;
    added->wall_ms = max_u64(requested_ms, job->run_ms);
    trace->limits_missing += requested_ms == 0;
    trace->limits_raised += requested_ms > 0 && requested_ms < job->run_ms;
    if (added->wall_ms == 0)
        added->wall_ms = 1; /* a limit of 0 would mean none */
    return 0;
}

int trace_add_node(struct trace *trace, const char *name, size_t line,
                   const struct trace_node *node, struct err *err)
{
    const struct bound bounds[] = {
        {"a node's cores", node->cores, TRACE_NODE_CORES_MAX},
        {"a node's GPUs", node->gpus, TRACE_NODE_CORES_MAX},
        {"a node's memory in bytes", node->memory_bytes, TRACE_MEMORY_MAX},
        {"the number of nodes", trace->node_count + 1, TRACE_NODES_MAX},
    };
    if (bounds_check(name, line, bounds, ARRAY_COUNT(bounds), err) < 0)
        return -1;
    VEC_RESERVE(trace->nodes, trace->node_count, trace->node_capacity);
    trace->nodes[trace->node_count++] = *node;
    return 0;
}

/* ---- reading ----------------------------------------------------------------------------- */

static int unpack(const char *path, struct buf *out, struct err *err)
{
    gzFile file = gzopen(path, "rb"); /* plain files pass through unchanged */
    if (!file)
        return err_errno(err, "opening trace '%s'", path);
    char *block = mem_alloc(1 << 16);
    int got, rc = 0, code;
    while ((got = gzread(file, block, 1 << 16)) > 0 && out->length <= TRACE_BYTES_MAX)
        buf_add(out, block, (size_t)got);
    const char *text = gzerror(file, &code);
    if (out->length > TRACE_BYTES_MAX)
        rc = err_set(err, ERR_LIMIT, "trace '%s' has more than %zu bytes unpacked", path,
                     (size_t)TRACE_BYTES_MAX);
    else if (got < 0 && code == Z_ERRNO)
        rc = err_errno(err, "reading trace '%s'", path);
    else if (got < 0 || code == Z_BUF_ERROR)
        rc = err_set(err, ERR_INVALID, "trace '%s' is damaged gzip: %s", path,
                     code == Z_BUF_ERROR ? "it ends in the middle" : text);
    gzclose(file);
    mem_free(block);
    return rc;
}

static int job_compare(const void *left, const void *right)
{
    const struct trace_job *a = left, *b = right;
    return a->submit_ms < b->submit_ms ? -1 : a->submit_ms > b->submit_ms;
}

/* Stable, in place of the order of submit: nearly every trace is sorted already. */
static void jobs_sort(struct trace *trace)
{
    size_t i = 1;
    while (i < trace->job_count && trace->jobs[i - 1].submit_ms <= trace->jobs[i].submit_ms)
        i++;
    if (i >= trace->job_count)
        return;
    /* Merge sort of runs of one: qsort need not be stable. */
    struct trace_job *spare = mem_array(trace->job_count, sizeof *spare);
    for (size_t width = 1; width < trace->job_count; width *= 2) {
        for (size_t from = 0; from < trace->job_count; from += 2 * width) {
            size_t middle = min_u64(from + width, trace->job_count);
            size_t end = min_u64(from + 2 * width, trace->job_count);
            size_t a = from, b = middle, at = from;
            while (a < middle || b < end)
                spare[at++] = b == end || (a < middle && job_compare(&trace->jobs[a],
                                                                     &trace->jobs[b]) <= 0)
                                  ? trace->jobs[a++]
                                  : trace->jobs[b++];
        }
        memcpy(trace->jobs, spare, trace->job_count * sizeof *spare);
    }
    mem_free(spare);
}

static const struct trace_format *format_of(const char *text, size_t length)
{
    char head[HEAD_BYTES + 1];
    size_t kept = min_u64(length, HEAD_BYTES);
    memcpy(head, text, kept);
    head[kept] = '\0';
    for (size_t i = 0; i < ARRAY_COUNT(formats); i++)
        if (formats[i]->matches(head))
            return formats[i];
    return NULL;
}

static int refuse_format(const char *name, struct err *err)
{
    struct buf list = {0};
    for (size_t i = 0; i < ARRAY_COUNT(formats); i++)
        buf_printf(&list, "%s%s", i ? ", " : "", formats[i]->summary);
    err_set(err, ERR_INVALID, "%s:1: no known trace format, expected one of: %s", name,
            buf_text(&list));
    buf_done(&list);
    return -1;
}

int trace_parse(struct trace *trace, const char *name, char *text, size_t length, struct err *err)
{
    *trace = (struct trace){0};
    if (memchr(text, '\0', length))
        return err_set(err, ERR_INVALID, "%s: has zero bytes, so it is no trace", name);
    const struct trace_format *format = format_of(text, length);
    if (!format)
        return refuse_format(name, err);
    trace->format = format->name;
    if (format->read(trace, name, text, length, err) < 0)
        return -1;
    if (trace->job_count == 0)
        return err_set(err, ERR_INVALID, "%s: holds no job that can be replayed", name);
    jobs_sort(trace);
    uint64_t first = trace->jobs[0].submit_ms;
    for (size_t i = 0; i < trace->job_count; i++)
        trace->jobs[i].submit_ms -= first;
    return 0;
}

int trace_load(struct trace *trace, const char *path, struct err *err)
{
    struct buf text = {0};
    *trace = (struct trace){0};
    int rc = unpack(path, &text, err);
    if (rc == 0 && text.length == 0)
        rc = err_set(err, ERR_INVALID, "trace '%s' is empty", path);
    if (rc == 0)
        rc = trace_parse(trace, path, text.bytes, text.length, err);
    buf_done(&text);
    return rc;
}

int trace_load_nodes(struct trace *trace, const char *path, struct err *err)
{
    struct buf text = {0};
    int rc = unpack(path, &text, err);
    if (rc == 0 && (text.length == 0 || memchr(text.bytes, '\0', text.length)))
        rc = err_set(err, ERR_INVALID, "'%s' is no list of nodes", path);
    if (rc == 0)
        rc = trace_parse_nodes(trace, path, text.bytes, text.length, err);
    buf_done(&text);
    return rc;
}

void trace_free(struct trace *trace)
{
    HASH_CLEAR(hh, trace->users_by_name);
    mem_free(trace->users);
    mem_free(trace->jobs);
    mem_free(trace->nodes);
    arena_done(&trace->arena);
    *trace = (struct trace){0};
}
