/* trace.h - a recorded workload in one shape, whatever it was written in.
 *
 * A trace says when each job was submitted, what it asked for and how long it ran; when it
 * started then is not kept, because that is what a replay decides anew. Times are milliseconds
 * since the earliest submit. Jobs are in order of submit, ties in the order of the file.
 *
 * Jobs that cannot be replayed are left out and counted (struct trace_left_out); damaged files
 * are refused as "FILE:LINE: what is wrong, what is expected". */
#ifndef ATHANOR_REPLAY_TRACE_H
#define ATHANOR_REPLAY_TRACE_H

#include "common/base/arena.h"
#include "common/base/err.h"

/* Bounds on foreign numbers, so that sums stay within 64 bits. */
#define TRACE_BYTES_MAX   ((size_t)1 << 31) /* unpacked; the largest SWF archives have 1 GiB */
#define TRACE_JOBS_MAX    10000000u         /* x 96 B = 960 MB */
#define TRACE_NODES_MAX   16384u            /* the core's workers_max */
#define TRACE_MS_MAX      ((uint64_t)100 * 366 * 86400 * 1000) /* a century */
#define TRACE_RANKS_MAX   10000000u
#define TRACE_NODE_CORES_MAX 65536u         /* the core's bound of one worker */
#define TRACE_MEMORY_MAX  ((uint64_t)1 << 50)

struct trace_job {
    uint64_t number;       /* in the trace; else its line */
    uint64_t submit_ms, run_ms;
    uint64_t wall_ms;      /* limit it was submitted with, never below run_ms */
    uint64_t memory_bytes; /* per rank; 0: not said */
    uint32_t ranks;
    uint32_t cores, gpus;  /* per rank */
    uint32_t nodes;        /* that its ranks must be spread over; 0: as few as hold them */
    uint32_t user;         /* index into trace->users */
    int32_t priority;
    bool failed;           /* ended otherwise than well; its time on the machine counts the same */
    const char *gpu_models; /* "A|B": any of these; NULL: any at all */
};

struct trace_node {
    uint64_t cores, memory_bytes, gpus; /* memory_bytes 0: not said, never short of it */
    const char *gpu_model;              /* NULL: not said */
};

struct trace_left_out {
    uint64_t never_ran;  /* cancelled before they started, or without a run time */
    uint64_t partial;    /* lines about parts of jobs that have a line of their own */
    uint64_t no_request; /* no processors and no GPUs asked for */
};

struct trace {
    struct arena arena; /* of all texts */
    const char *format; /* short name */
    struct trace_job *jobs;
    size_t job_count, job_capacity;
    struct trace_node *nodes; /* as the trace describes them; may be none */
    size_t node_count, node_capacity;
    const char **users;
    size_t user_count, user_capacity;
    struct trace_user *users_by_name; /* uthash */
    struct trace_left_out left_out;
    uint64_t limits_missing; /* jobs without a requested time: their run time is taken */
    uint64_t limits_raised;  /* jobs that ran longer than they had asked for */
};

/* Reads a file of any known format, gzip or plain. Errors: ERR_NOT_FOUND, ERR_IO, ERR_LIMIT,
 * ERR_INVALID (not a known format, or "FILE:LINE: ..."). Afterwards trace_free in either case. */
int trace_load(struct trace *trace, const char *path, struct err *err) WARN_UNUSED;
/* The same from memory; `text` is cut up and must be writable, `name` is for messages. */
int trace_parse(struct trace *trace, const char *name, char *text, size_t length,
                struct err *err) WARN_UNUSED;
/* Only the machine: a CSV of nodes (Alibaba's, or our own: name,cores,memory_bytes,gpus,gpu_model).
 * Replaces trace->nodes. */
int trace_load_nodes(struct trace *trace, const char *path, struct err *err) WARN_UNUSED;
int trace_parse_nodes(struct trace *trace, const char *name, char *text, size_t length,
                      struct err *err) WARN_UNUSED;
void trace_free(struct trace *trace);

/* ---- for formats ------------------------------------------------------------------------- */

/* Adds a job, with what it says checked against the bounds above. `requested_ms` is the limit it
 * was submitted with, 0 when it had none. `line` is for messages. */
int trace_add(struct trace *trace, const char *name, size_t line, const struct trace_job *job,
              uint64_t requested_ms, struct err *err) WARN_UNUSED;
int trace_add_node(struct trace *trace, const char *name, size_t line,
                   const struct trace_node *node, struct err *err) WARN_UNUSED;
/* Index of the user of this name, which is added when new. */
uint32_t trace_user(struct trace *trace, const char *name);

struct trace_format {
    const char *name, *summary;
    /* Whether a file that begins like this is of the format; `head` is its first lines. */
    bool (*matches)(const char *head);
    int (*read)(struct trace *trace, const char *name, char *text, size_t length,
                struct err *err);
};
/* In order of formats.def; NULL behind the last. */
const struct trace_format *trace_format_at(size_t index);

#endif
