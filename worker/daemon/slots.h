/* slots.h - which attempt has which core and GPU. No slot is ever in two attempts. */
#ifndef ATHANOR_DAEMON_SLOTS_H
#define ATHANOR_DAEMON_SLOTS_H

#include "worker/daemon/inventory.h"

struct slots {
    const struct inventory *inventory; /* borrowed */
    uint64_t *core_owner;              /* attempt id; 0: free */
    uint64_t *gpu_owner;
};

void slots_init(struct slots *slots, const struct inventory *inventory);
void slots_done(struct slots *slots);

/* Takes ranks * cores cores and ranks * gpus GPUs for the attempt, lowest numbers first; rank r
 * gets the r-th run of them (slots_core, slots_gpu). `model`: part of the name of the GPUs' model
 * in any case, "" for any. Nothing is taken on failure: ERR_LIMIT with what is wanted and what is
 * free. */
int slots_take(struct slots *slots, uint64_t attempt_id, size_t core_count, size_t gpu_count,
               const char *model, struct err *err) WARN_UNUSED;
/* Whether slots_take would find so many. */
bool slots_have(const struct slots *slots, size_t core_count, size_t gpu_count, const char *model);
/* Marks what a found attempt uses: the core that has this CPU, the GPU of this `visible`. */
void slots_mark_cpu(struct slots *slots, uint64_t attempt_id, unsigned cpu);
void slots_mark_gpu(struct slots *slots, uint64_t attempt_id, const char *visible);
/* Marks `count` cores that are not bound to CPUs. */
void slots_mark_unbound(struct slots *slots, uint64_t attempt_id, size_t count);
void slots_release(struct slots *slots, uint64_t attempt_id);

/* The index-th core or GPU of the attempt; NULL when it has fewer. */
const struct inventory_core *slots_core(const struct slots *slots, uint64_t attempt_id,
                                        size_t index);
const struct inventory_gpu *slots_gpu(const struct slots *slots, uint64_t attempt_id, size_t index);

#endif
