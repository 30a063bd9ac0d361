/* replay.h - athanor-coordinator --simulate: a trace under several policies, compared. */
#ifndef ATHANOR_REPLAY_REPLAY_H
#define ATHANOR_REPLAY_REPLAY_H

#include "coordinator/replay/measure.h"

struct replay_config {
    const char *trace;    /* file */
    const char *machine;  /* CSV of nodes, or NULL */
    const char *policies; /* names separated by commas; NULL: every policy there is */
    const char *starts;   /* file for a CSV of every start, or NULL */
    uint64_t nodes, cores, memory_bytes, gpus; /* of a machine of equal nodes; 0: not said */
    uint64_t load_permille; /* submits come this much faster; 0: as recorded, 1000 */
    bool json;
};

/* Reads, simulates, prints to stdout; progress goes to stderr when that is a terminal. */
int replay(const struct replay_config *config, struct err *err) WARN_UNUSED;

/* What replay does before it simulates: the trace with the machine and the load asked for.
 * trace_free afterwards in either case. */
int replay_load(const struct replay_config *config, struct trace *trace,
                struct err *err) WARN_UNUSED;
void replay_scale(struct trace *trace, uint64_t load_permille);

struct replay_outcome {
    const char *policy;
    struct simulated simulated;
    struct measures measures;
};

/* print.c: the outcomes for people and for programs (appended to out). */
struct buf;
void replay_print_table(const struct trace *trace, const char *name,
                        const struct replay_outcome *outcomes, size_t count, struct buf *out);
void replay_print_json(const struct trace *trace, const char *name,
                       const struct replay_outcome *outcomes, size_t count, struct buf *out);
/* One policy's starts as CSV: policy,job,user,submit_ms,start_ms,end_ms in order of start. */
void replay_print_starts(const struct trace *trace, const struct replay_outcome *outcome,
                         struct buf *out);

#endif
