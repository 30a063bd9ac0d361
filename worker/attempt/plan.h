/* plan.h - start.json: everything a shepherd needs to run one attempt on one node.
 *
 * Written by the daemon, or by hand: only format, attempt_id, ranks, job_dir and spec are
 * required. Example:
 *   {"format": 1, "attempt_id": 9, "attempt": 1, "job_id": 7, "job_name": "glosses-base",
 *    "ranks": 2, "cores": 1, "memory_bytes": 1073741824,
 *    "wall_time_ms": 0, "stop_grace_ms": 30000, "stall_ms": 0, "log_bytes_max": 268435456,
 *    "cpus": [[0], [1]], "numa": [[0], [0]], "gpus": [["0"], ["1"]],
 *    "job_dir": "/…/jobs/7", "resume": "", "engine": "/…/bin/athanor-engine",
 *    "cgroup": "", "memory_cgroup": "", "device_cgroup": "",
 *    "gpu_usage": "/…/gpu-usage", "gpu_kind": "", "usage_ms": 10000,
 *    "tmp": "/tmp", "epoch": 3,
 *    "spec": { … worker/README.md … }}
 * Of an attempt on several nodes `ranks` are those of this node, and it has besides
 *   "gang": {"node": 1, "nodes": [{"name": "w1", "address": "10.0.0.1", "first_rank": 0,
 *             "ranks": 2}, …], "master_port": 4711, "silence_ms": 30000,
 *            "own": {"endpoint": "", "public_key": "", "secret_key": ""}, "parent": {…}}
 * With code of the job's own also "code", the folder it was unpacked to; with secrets "secrets",
 * their names in the order of the descriptors from --secrets-fd on. Values are nowhere in it.
 * The command, its environment, the launcher, `pty`, `diverge`, `limits.log_bytes` and the inputs
 * are read from `spec`. */
#ifndef ATHANOR_ATTEMPT_PLAN_H
#define ATHANOR_ATTEMPT_PLAN_H

#include "common/base/arena.h"
#include "common/base/err.h"
#include "worker/gang/gang.h"

#define PLAN_BYTES_MAX             ((size_t)8 << 20) /* a spec of 1 MiB, inputs, CPU lists */
#define PLAN_RANKS_MAX             1024u /* per node: 4 pipes and sockets each below 20,000 fds */
#define PLAN_CPUS_MAX              4096u /* CPU_SETSIZE grown; numbers beyond are refused */
#define PLAN_NUMA_MAX              1024u /* the kernel's own MAX_NUMNODES */
#define PLAN_SECRETS_MAX           32u   /* SPEC_SECRETS_MAX */
#define PLAN_ARGUMENTS_MAX         16384u
#define PLAN_LOG_BYTES_DEFAULT     ((uint64_t)256 << 20)
#define PLAN_STOP_GRACE_MS_DEFAULT 30000u
#define PLAN_SILENCE_MS_DEFAULT    30000u
#define PLAN_USAGE_MS_DEFAULT      10000u

enum plan_launcher { PLAN_FORK = 1, PLAN_PMIX, PLAN_MPIRUN };

struct plan_pair {
    const char *name, *value;
};

struct plan_rank {
    unsigned *cpus; /* to bind to; none: unbound */
    size_t cpu_count;
    uint64_t numa[PLAN_NUMA_MAX / 64]; /* bit n: memory from node n is wanted; all 0: from any */
    bool has_numa;
    const char *gpus; /* CUDA_VISIBLE_DEVICES: "0,1"; "" for none */
};

struct plan_diverge { /* jobspecs/README.md */
    const char *metric;  /* "": no rule; "*": any */
    double above, below; /* NAN: none */
    bool nan;
    uint64_t reports; /* in a row */
};

struct plan {
    struct arena arena; /* holds everything below */
    uint64_t attempt_id, attempt, job_id, epoch;
    const char *job_name, *account; /* account: of who submitted it; "" by hand */
    uint64_t memory_bytes;                          /* per rank; 0: unlimited */
    uint64_t cores;                                 /* per rank */
    uint64_t wall_time_ms, stop_grace_ms, stall_ms; /* 0: none, at once, none */
    uint64_t log_bytes_max;
    const char *job_dir, *resume, *engine, *tmp;
    const char *cgroup, *memory_cgroup, *device_cgroup; /* "": none; cgroup.h, device_group.h */
    uint64_t usage_ms;      /* between samples of what ranks use */
    const char *gpu_usage;  /* file, gpu_usage.h; "": none */
    const char *gpu_kind;   /* "amd": words are ROCm's; "": CUDA's */
    struct plan_rank *ranks; /* of this node */
    size_t rank_count;
    unsigned first_rank, world_size; /* rank of ranks[0]; ranks on all nodes */
    struct gang_plan *gang;          /* NULL: one node */
    enum plan_launcher launcher;
    struct plan_diverge diverge;
    uint64_t data_skip; /* ATHANOR_DATA_SKIP */
    bool pty;         /* a terminal as standard output of each rank */
    const char *code; /* tree of the job's code; "": none */
    const char *cwd;  /* where ranks start; "": in the run directory */
    const char *spec; /* JSON text for ATHANOR_SPEC */
    const char *kind;
    char **command;        /* program and arguments, NULL-terminated */
    struct plan_pair *env; /* the spec's `env` */
    size_t env_count;
    const char **secrets;  /* names, in the order of the descriptors that hold their values */
    size_t secret_count;
    struct plan_pair *inputs; /* name in upper case, path */
    size_t input_count;
};

/* Errors: ERR_NOT_FOUND, ERR_IO, ERR_LIMIT, ERR_PROTOCOL naming the field. */
int plan_read(const char *folder, struct plan *out, struct err *err) WARN_UNUSED;
/* The parser, exposed for tests and fuzzing. On success *out is the caller's (plan_done). */
int plan_parse(const char *text, size_t length, struct plan *out, struct err *err) WARN_UNUSED;
void plan_done(struct plan *plan);

#endif
