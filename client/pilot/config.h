/* config.h - what `athanor pilot` is told: a YAML file with pools of nodes that Slurm may lend.
 *
 *   name: hpc               # principal of role pilot; workers are hpc-POOL-SLOT-NODE
 *   dir: /shared/athanor    # tokens, state, logs; seen by the nodes at the same path
 *   pools:
 *     gpu:
 *       time: 8h            # of an allocation, and per node:
 *       cores: 32
 *       memory: 200GiB
 *       gpus: 4
 *       sbatch: [--partition=gpu, --gres=gpu:4]
 *
 * Every field is a row of a table in config.c, which `athanor pilot --help` prints. */
#ifndef ATHANOR_PILOT_CONFIG_H
#define ATHANOR_PILOT_CONFIG_H

#include "common/base/arena.h"
#include "common/base/buf.h"
#include "common/spec/errors.h"

#define PILOT_POOLS_MAX       64u
#define PILOT_ALLOCATIONS_MAX 256u /* of a pool */
#define PILOT_NODES_MAX       512u /* of an allocation: 512 tokens of the coordinator's 4,096 */
#define PILOT_WORDS_MAX       64u  /* of a list of options, or labels */
#define PILOT_CONFIG_BYTES    ((size_t)256 << 10)

struct pool_words {
    const char **items;
    size_t count;
};

struct pool_config {
    const char *name;
    uint64_t time_ms, margin_ms; /* of an allocation; before its end nothing is left running */
    uint64_t nodes;              /* of an allocation */
    uint64_t cores, memory_bytes, gpus; /* of one node */
    uint64_t allocations_max, waiting_max;
    uint64_t settle_ms; /* how long there must be a backlog, or none, before anything is done */
    uint64_t idle_ms;   /* a worker without work leaves after that */
    uint64_t backoff_ms, backoff_max_ms;
    bool open_ended;                  /* also for jobs without a wall time */
    const char *queue;                /* of jobs it is for; "": any */
    struct pool_words labels;         /* "NAME=VALUE" of its workers */
    struct pool_words sbatch, worker; /* options passed on */
};

struct pilot_config {
    struct arena arena; /* of everything here */
    const char *name, *dir;
    const char *worker_program; /* "": beside this one */
    const char *jobs_dir;       /* "": DIR/jobs */
    uint64_t interval_ms;
    struct pool_config *pools;
    size_t pool_count;
};

/* 0: *out is the caller's (pilot_config_done). -1: errors holds at least one, with places. */
int pilot_config_read(const char *file, const char *bytes, size_t length, struct pilot_config *out,
                      struct spec_errors *errors) WARN_UNUSED;
void pilot_config_done(struct pilot_config *config);
/* "  pools.NAME.cores  COUNT  help" for each field. */
void pilot_config_help(struct buf *out);

#endif
