/* slurm.h - what the pilot asks of Slurm: its command-line programs, and what they print. */
#ifndef ATHANOR_PILOT_SLURM_H
#define ATHANOR_PILOT_SLURM_H

#include "client/pilot/pool.h"
#include "common/base/err.h"

#define SLURM_OUTPUT_MAX ((size_t)4 << 20) /* squeue of 20,000 allocations */

/* One line of squeue: "ID|STATE|NAME". */
struct slurm_job {
    uint64_t id;
    enum allocation_state state;
    const char *name;
};

/* Lines that are none of ours may be anything; a line that cannot be read is ERR_PROTOCOL. */
int slurm_parse_queue(const char *text, size_t length, struct arena *arena, struct slurm_job **out,
                      size_t *out_count, struct err *err) WARN_UNUSED;
/* What `scontrol show job` says of one that is over; END_UNKNOWN when it says nothing. A job that
 * ended by itself is END_NO_WORKER: whoever knows better says END_ENDED. */
enum end slurm_parse_end(const char *text, size_t length, struct arena *arena,
                         const char **out_reason);
/* "athanor-NAME-POOL-SLOT": the slot, 0 when the name is not of that shape. */
uint32_t slurm_slot(const char *job_name, const char *name, const char *pool);

/* Runs a program found in PATH, its words an argv that ends with NULL; `out` gets what it printed.
 * Errors: ERR_NOT_FOUND, ERR_IO with what it said (also when it exits with another code than 0),
 * ERR_TIMEOUT (it is killed then), ERR_LIMIT. */
int command_run(const char *const *words, uint64_t timeout_ms, struct buf *out,
                struct err *err) WARN_UNUSED;

#endif
