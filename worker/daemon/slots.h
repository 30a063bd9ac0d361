/* slots.h - which attempt has which core and GPU. No slot is ever in two attempts. */
#ifndef ATHANOR_DAEMON_SLOTS_H
#define ATHANOR_DAEMON_SLOTS_H

#include "worker/daemon/inventory.h"

struct slots {
    const struct inventory *inventory; /* borrowed */
    uint64_t *core_owner;              /* attempt id; 0: free */
    uint64_t *gpu_owner;
    uint32_t *core_place, *gpu_place;  /* which of its owner's it is, in order of ranks */
};

void slots_init(struct slots *slots, const struct inventory *inventory);
void slots_done(struct slots *slots);

struct slots_want {
    size_t ranks, cores, gpus; /* cores and GPUs of each rank */
    const char *model;         /* part of the name of the GPUs' model in any case, "" for any */
};

/* Takes ranks * cores cores and ranks * gpus GPUs for the attempt; rank r gets the r-th run of them
 * (slots_core, slots_gpu). Each rank gets its cores and GPUs in one NUMA node where one has room,
 * the same as the rank before it if that has, else the one in which least stays free; ranks without
 * GPUs keep away from nodes whose GPUs are free. Where none has room: GPUs of the node with most,
 * and cores as near to them as there are. Lowest numbers first. Nothing is taken on failure:
 * ERR_LIMIT with what is wanted and what is free. */
int slots_take(struct slots *slots, uint64_t attempt_id, const struct slots_want *want,
               struct err *err) WARN_UNUSED;
/* Whether slots_take would find so many. */
bool slots_have(const struct slots *slots, const struct slots_want *want);
/* Marks what a found attempt uses: the core that has this CPU, the GPU of this `visible`. */
void slots_mark_cpu(struct slots *slots, uint64_t attempt_id, unsigned cpu);
void slots_mark_gpu(struct slots *slots, uint64_t attempt_id, const char *visible);
/* Marks `count` cores that are not bound to CPUs. */
void slots_mark_unbound(struct slots *slots, uint64_t attempt_id, size_t count);
/* Keeps a GPU from everybody, its owner included, until it is given back. */
void slots_withhold_gpu(struct slots *slots, const struct inventory_gpu *gpu);
void slots_give_back_gpu(struct slots *slots, const struct inventory_gpu *gpu);
bool slots_gpu_is_withheld(const struct slots *slots, const struct inventory_gpu *gpu);
size_t slots_gpu_count(const struct slots *slots, uint64_t attempt_id);
void slots_release(struct slots *slots, uint64_t attempt_id);

/* The index-th core or GPU of the attempt; NULL when it has fewer. */
const struct inventory_core *slots_core(const struct slots *slots, uint64_t attempt_id,
                                        size_t index);
const struct inventory_gpu *slots_gpu(const struct slots *slots, uint64_t attempt_id, size_t index);

#endif
