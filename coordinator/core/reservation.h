/* reservation.h - windows, the deadlines of drains, and workers whose time is limited. Private to
 * core/, part of state.h. */
#ifndef ATHANOR_CORE_RESERVATION_H
#define ATHANOR_CORE_RESERVATION_H

#include "coordinator/core/rights.h"

#define RESERVATIONS_MAX 1000u /* that have not ended, x 1 KB of names */

/* Workers kept free for the entitled, or for nobody, from from_at to until_at (wall us). */
struct reservation {
    char *name, *reason, *account;
    uint64_t from_at, until_at;
    char **workers;  /* names */
    char **labels;   /* "NAME=VALUE", all of which a worker must carry */
    char **entitled; /* "user:NAME", "project:NAME" */
    size_t worker_count, label_count, entitled_count;
    bool stop; /* what still runs at its begin is preempted */
};

/* The window that keeps a job of the class from starting there then; NULL: none. */
const struct reservation *reservation_against(const struct core *core, const struct class *class,
                                              const struct worker *worker, uint64_t start_ms);
/* Why windows keep it from workers that it fits, NULL: they do not; and what would help. */
const char *reservation_why(const struct core *core, const struct class *class, struct arena *arena,
                            const char **out_remedy);
void reservations_view(const struct core *core, struct arena *arena, struct policy_view *view);
/* The limit of its jobs, or the default of their queue; 0: none. */
uint64_t class_wall_ms(const struct class *class);
void reservation_configure(struct configure_pass *pass);
void windows_due(struct core *core);
void windows_timer_set(struct core *core);
void windows_look(struct core *core); /* with the next TICK */
void reservations_dump(const struct core *core, struct buf *out);
void reservations_free(struct core *core);

/* ---- until.c: workers whose time is limited -------------------------------------------------- */

#define UNTIL_MS_MAX (10ull * 366 * 86400 * 1000)

/* Whether a job of the class that starts there then might outlast the worker. */
bool worker_leaves_before(const struct core *core, const struct class *class,
                          const struct worker *worker, uint64_t start_ms);
/* What the first of its workers to leave has left; UINT64_MAX: none leaves. */
uint64_t attempt_left_ms(const struct core *core, const struct attempt *attempt);
uint64_t attempt_grace_ms(const struct core *core, const struct attempt *attempt); /* of a stop */
/* ends_in_ms 0: its time is not limited. */
void worker_until_set(struct core *core, struct worker *worker, uint64_t ends_in_ms,
                      bool open_ended);
/* What an end means on such a worker. told: the worker said so; else it is gone. */
struct part;
enum cause until_cause(const struct core *core, const struct part *part, enum cause cause,
                       int64_t code, bool told);
void untils_due(struct core *core);
uint64_t untils_next_at(const struct core *core); /* UINT64_MAX: nothing is to be done */
const char *until_why(const struct core *core, const struct class *class, struct arena *arena,
                      const char **out_remedy);

#endif
