/* quota.h - how much may be used at once and per period. Private to core/, part of state.h. */
#ifndef ATHANOR_CORE_QUOTA_H
#define ATHANOR_CORE_QUOTA_H

#include "coordinator/core/rights.h"

#define QUOTAS_MAX 10000u /* x 300 B */

/* How much may be used at once; -1: any amount. */
struct quota {
    char *scope;    /* "user=* queue=gpu" */
    char *parts[3]; /* user, project, queue: "" for all together, "*" for each one */
    int64_t jobs, cores, gpus, queued, gpu_ms;
    uint64_t period_ms;
    bool removed;
    UT_hash_handle hh;
};

/* What one user, project, queue or crossing has used: GPU time of the period so far. */
struct meter {
    char *scope; /* with names in the place of "*" */
    uint64_t meter_id;
    uint64_t gpu_ms, window_at, as_of; /* times: wall us */
    uint64_t rate;                     /* GPUs that run now */
    bool dirty;
    UT_hash_handle hh;
};

/* What an attempt keeps from others and is charged for: of an exclusive job all of its workers. */
struct charge {
    uint64_t cores, gpus;
};

struct limit;
void quota_configure(struct configure_pass *pass);
void quotas_join(struct core *core,
                 struct class *class); /* the limits that its jobs count against */
/* The same for a copy of a class that is asked about and counts nowhere: quotas_leave undoes it. */
void quotas_swap(struct core *core, struct class *copy);
void quota_take(struct core *core, struct limit *limit, const struct attempt *attempt);
void quota_give(struct core *core, struct limit *limit, const struct attempt *attempt);
void quotas_measure(struct core *core);           /* before a pass: what is left of periods */
uint64_t quotas_next_at(const struct core *core); /* end of a period; UINT64_MAX: none is metered */
void quotas_load_end(struct core *core);
/* Whom a job counts against. */
struct quota_asker {
    const char *account, *project, *queue;
};
/* What speaks against so many more waiting jobs that a "submit" or "retry" adds; NULL: nothing. */
const char *quota_waiting_fault(const struct core *core, const struct quota_asker *askers,
                                size_t count, const char *what, struct arena *arena);
/* Of a limit that has no room for what a job of the class would hold. */
const char *quota_why(const struct core *core, const struct limit *limit, const struct class *class,
                      struct charge charge, struct arena *arena, const char **out_remedy);
void meters_flush(struct core *core);
void quotas_dump(const struct core *core, struct buf *out);
void quotas_free(struct core *core);

#endif
