/* link: coordinator-replay */
/* trace_fuzz.c - any bytes are a trace within its bounds, or an error with a text; the same for
 * lists of nodes. */
#include "common/base/mem.h"
#include "coordinator/replay/trace.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length);

static void jobs_check(const struct trace *trace)
{
    for (size_t i = 0; i < trace->job_count; i++) {
        const struct trace_job *job = &trace->jobs[i];
        CHECK(i == 0 ? job->submit_ms == 0 : job->submit_ms >= trace->jobs[i - 1].submit_ms);
        CHECK(job->submit_ms <= TRACE_MS_MAX && job->run_ms <= job->wall_ms);
        CHECK(job->wall_ms > 0 && job->wall_ms <= TRACE_MS_MAX);
        CHECK(job->ranks > 0 && job->ranks <= TRACE_RANKS_MAX && job->cores + job->gpus > 0);
        CHECK(job->user < trace->user_count);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
    struct trace trace;
    struct err err = {0};
    char *text = mem_strndup((const char *)bytes, length);
    size_t kept = strlen(text); /* nodes: as trace_load, which refuses zero bytes */
    memcpy(text, bytes, length);
    if (trace_parse(&trace, "fuzz", text, length, &err) == 0)
        jobs_check(&trace);
    else
        CHECK(err.kind != ERR_NONE && err.text[0]);
    memcpy(text, bytes, length);
    text[kept] = '\0';
    if (trace_parse_nodes(&trace, "fuzz", text, kept, &err) == 0)
        for (size_t i = 0; i < trace.node_count; i++)
            CHECK(trace.nodes[i].cores <= TRACE_NODE_CORES_MAX &&
                  trace.nodes[i].memory_bytes <= TRACE_MEMORY_MAX);
    trace_free(&trace);
    mem_free(text);
    return 0;
}
