/* plan.h - one scheduling pass, as the policies share it. Private to policy/.
 *
 * Every policy is the same walk over the jobs in order of priority (pass.c) with other rules:
 * how many of those that find no room get a reservation, and whether others may overtake them.
 * Room is known in two forms: now, per worker (struct room), and over time (profile.c), which
 * is made only when somebody who fits now might delay somebody who waits. */
#ifndef ATHANOR_POLICY_PLAN_H
#define ATHANOR_POLICY_PLAN_H

#include "coordinator/policy/policy.h"

/* Jobs of one pass that get a forecast with view->estimate, and that may evict: each costs a sweep
 * over the ends of what runs (reserve.c). */
#define POLICY_DEPTH 64u
/* Classes that fit now and are refused for the sake of a reservation, in one pass: each costs a
 * walk over the workers. Those behind them wait for the next pass. */
#define POLICY_REFUSALS_MAX 1000u

struct policy_rules {
    size_t depth;    /* blocked jobs that get a reservation */
    bool overtaking; /* jobs behind a blocked one may start */
    bool evicting;   /* blocked jobs of classes that may evict do */
};

/* What is free on a worker, at some time. */
struct room {
    struct policy_need free;
    uint32_t jobs, exclusives; /* that are there */
};

/* A class during the pass. */
struct lane {
    struct policy_job head;
    struct policy_need need; /* of all ranks */
    uint32_t round; /* candidates before round and cursor are known not to take the job; see */
    size_t cursor;  /* start.c */
    bool delays;    /* a worker before the cursor has room, but a reservation needs it */
    bool over;      /* the same, but an exclusive job there would exceed a limit */
    size_t over_limit; /* that one */
    bool stuck;     /* no job of it can start in this pass */
    bool open;      /* head is a job */
    bool possible, possible_known; /* it would fit if nothing ran */
};

struct waiter {
    size_t class_index;
    uint64_t job_id;
    const struct policy_share *shares; /* room that evictions bring it; NULL: any */
    size_t share_count;
};

struct profile;

struct pass {
    const struct policy_view *view;
    const struct policy_rules *rules;
    struct policy_plan *plan;
    struct room *rooms; /* per worker, now; jobs is 0 or 1 */
    bool has_gpus;      /* some worker */
    struct policy_limit *limits;
    struct lane *lanes; /* per class */
    size_t *heap;       /* classes with a job to look at, the first in order on top */
    size_t heap_count;
    struct seat *seats;     /* scratch: one per worker, twice */
    struct moment *moments; /* scratch of reserve.c */
    size_t moment_capacity;

    struct waiter *waiters; /* blocked jobs to reserve for, in order */
    size_t waiter_count, waiter_capacity;
    size_t reserved_count; /* of waiters: their reservations are in the profile */
    size_t ordinary_count; /* of waiters: those that do not evict */
    size_t refusals;       /* for the sake of reservations */
    bool unlimited;        /* for the question what limits keep an exclusive job from */
    bool closed;           /* nobody else may start */
    uint64_t closed_by;    /* for the sake of this job */

    const struct policy_running *running; /* once asked for */
    size_t running_count;
    bool running_known;
    bool *evicted;           /* per running; NULL while nobody is */
    struct room *coming;     /* per worker: now and what stops; NULL until an eviction is tried */
    uint64_t coming_ms;      /* when all that has come, at the latest */
    struct profile *profile; /* NULL until wanted */
};

/* ---- policy.c: arithmetic and the plan's lists -------------------------------------------- */
struct policy_need need_times(const struct policy_need *need, uint64_t times);
void need_add(struct policy_need *to, const struct policy_need *need,
              const struct policy_need *max);
void need_cut(struct policy_need *from, const struct policy_need *need); /* not below 0 */
uint64_t time_after(uint64_t from_ms, uint64_t duration_ms);             /* POLICY_NEVER absorbs */
/* Shares are borrowed; they live in the plan's arena. */
void plan_place(struct policy_plan *plan, const struct policy_placement *placement);
void plan_reserve(struct policy_plan *plan, const struct policy_reservation *reservation);
void plan_evict(struct policy_plan *plan, uint64_t job_id, uint64_t for_job_id);
/* Room of array `list` for one more: grown in the arena, twice as large. */
#define PLAN_GROW(arena, list, count, capacity)                                                    \
    ((list) = plan_grow((arena), (list), (count), &(capacity), sizeof *(list)))
void *plan_grow(struct arena *arena, void *list, size_t count, size_t *capacity, size_t size);

/* ---- pass.c ------------------------------------------------------------------------------- */
void pass_run(const struct policy_rules *rules, const struct policy_view *view,
              struct policy_plan *plan);
void pass_running_read(struct pass *pass);

/* ---- limits.c: quotas ---------------------------------------------------------------------- */
/* False: limit *out has not enough left for one more job of the class that holds so much. */
bool limits_allow(const struct pass *pass, size_t class_index, const struct policy_need *held,
                  size_t *out);
/* Whether the whole of these workers may be charged to an exclusive class; others: always. */
bool workers_within_limits(const struct pass *pass, size_t class_index,
                           const struct policy_share *shares, size_t share_count, size_t *out);
void limits_charge(struct pass *pass, size_t class_index, const struct policy_share *shares,
                   size_t share_count);

/* ---- room.c: what a worker takes of a job ------------------------------------------------- */
/* Ranks of the class that fit, at most all of them and ranks_per_node. */
uint32_t room_ranks(const struct policy_class *class, const struct room *room, uint64_t gpus_unfit);
void room_occupy(struct room *room, const struct policy_class *class, uint32_t ranks);
void room_release(struct room *room, const struct policy_class *class, uint32_t ranks,
                  const struct policy_need *total);
/* Usable, and allowed to what starts at start_ms. */
bool worker_admits(const struct pass *pass, size_t class_index, size_t worker_index,
                   uint64_t start_ms, struct policy_fit *out);
/* And within the limits of an exclusive job: where one may be. */
bool worker_allows(const struct pass *pass, size_t class_index, size_t worker_index,
                   uint64_t start_ms, struct policy_fit *out);
/* Whether allowed at now or at one of view->times. */
bool worker_allows_ever(const struct pass *pass, size_t class_index, size_t worker_index,
                        struct policy_fit *out);

/* ---- gang.c: which workers ---------------------------------------------------------------- */
struct seat { /* a worker that takes some of the job */
    size_t worker_index;
    uint32_t ranks;  /* at most; at least 1 */
    bool gpus;       /* has GPUs that the job does not want */
    uint64_t favour; /* greater first, among equals in ranks */
    uint64_t load;   /* smaller first, among those */
    uint64_t held;   /* bytes of what the job reads; greater first, among those */
    uint32_t group[POLICY_LEVELS];
    uint64_t order; /* scratch */
};
struct seat seat_make(const struct pass *pass, size_t class_index, size_t worker_index,
                      uint32_t ranks, const struct policy_need *free);
/* Chooses among seats (which it sorts); scratch holds as many. Returns how many shares. */
size_t gang_choose(const struct policy_class *class, struct seat *seats, size_t count,
                   struct seat *scratch, struct arena *arena, const struct policy_share **out);
/* The same on the given rooms of all workers, for what starts at start_ms. */
size_t gang_fit(const struct pass *pass, size_t class_index, const struct room *rooms,
                uint64_t start_ms, const struct policy_share **out);
/* Whether it would fit if nothing ran. */
bool gang_is_possible(const struct pass *pass, size_t class_index);

/* ---- start.c: can the first job of a class start now -------------------------------------- */
enum start_answer { START_NO_ROOM, START_WOULD_DELAY, START_OVER_LIMIT, START_FITS };
enum start_answer start_find(struct pass *pass, size_t class_index, const struct policy_share **out,
                             size_t *out_count);

/* ---- profile.c: room over time ------------------------------------------------------------ */
void profile_make(struct pass *pass); /* from rooms, what runs and what the plan places */
/* A job that the plan starts now. */
void profile_place(struct pass *pass, size_t class_index, const struct policy_share *shares,
                   size_t share_count);
void profile_reserve(struct pass *pass, size_t class_index, const struct policy_share *shares,
                     size_t share_count, uint64_t start_ms);
/* Whether a reservation holds the worker, and from when on. */
bool profile_is_booked(const struct profile *profile, size_t worker_index, uint64_t *out_from_ms);
/* Ranks that fit at every instant of [start_ms, end_ms). */
uint32_t profile_ranks(const struct pass *pass, size_t class_index, size_t worker_index,
                       uint64_t gpus_unfit, uint64_t start_ms, uint64_t end_ms);
/* Times at which the worker's room changes. */
size_t profile_steps(const struct profile *profile, size_t worker_index);
uint64_t profile_step_ms(const struct profile *profile, size_t worker_index, size_t step);

/* ---- reserve.c, evict.c ------------------------------------------------------------------- */
/* Books the earliest start of a job that delays no reservation made so far. False: never. */
bool reserve_one(struct pass *pass, size_t class_index, uint64_t job_id, bool firm);
/* The same for a waiter whose workers are known. */
bool reserve_claim(struct pass *pass, const struct waiter *waiter);
/* True when the job has room coming by evictions, ordered now or earlier: fills in shares. */
bool evict_for(struct pass *pass, struct waiter *waiter);

#endif
