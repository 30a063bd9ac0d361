/* rights.h - who may use how much: queues, projects, settings. Private to core/, part of state.h.
 *
 * Everything here is configuration: rows that operators change with CONFIGURE (configure.c). What
 * was removed stays in memory, flagged, because ended jobs that may be opened again name it. */
#ifndef ATHANOR_CORE_RIGHTS_H
#define ATHANOR_CORE_RIGHTS_H

#include "coordinator/core/event.h"

#include <uthash.h>

struct attempt;
struct class;
struct job;
struct worker;

/* Bounds (invariant 9): 1,000 queues x 150 B, 10,000 projects x 150 B with 1,000 members of 60 B.
 */
#define QUEUES_MAX      1000u
#define PROJECTS_MAX    10000u
#define MEMBERS_MAX     1000u
#define CONFIG_NAME_MAX 60u /* bytes of the name of a queue, project or reservation */
#define POINTS_MAX      1000000
#define WEIGHT_MAX      1000000
#define PREEMPTION_MAX  1000
#define WALL_MS_MAX     (366ull * 86400000)

/* Numbers that scheduling is tuned with: name, default, least, most, meaning. A job's key is its
 * priority x 1000 points; bonuses and age are points too. */
#define SETTINGS(X)                                                                                \
    X(HALF_LIFE_MS, "half_life_ms", 604800000, 60000, 31622400000,                                 \
      "use of this age counts half in the fair share")                                             \
    X(GPU_CORES, "gpu_cores", 16, 0, 1000, "cores that a GPU counts as in the fair share")         \
    X(WEIGHT_ACCOUNT, "weight_account", 1000, 0, 1000000,                                          \
      "points of an account that has used nothing lately")                                         \
    X(WEIGHT_PROJECT, "weight_project", 1000, 0, 1000000,                                          \
      "points of a project that has used nothing lately")                                          \
    X(WEIGHT_SIZE, "weight_size", 0, 0, 1000000,                                                   \
      "points of a job that asks for all cores there are; smaller ones in proportion")             \
    X(AGE_PER_HOUR, "age_per_hour", 100, 0, 1000000, "points of each hour of waiting")
enum setting {
#define X(tag, name, initial, least, most, help) SETTING_##tag,
    SETTINGS(X)
#undef X
        SETTING_END,
};

struct queue_config {
    char *name;
    int64_t priority;                      /* points */
    uint64_t default_wall_ms, max_wall_ms; /* 0: none */
    uint64_t preemption;
    bool evicts, evictable, removed;
    uint64_t job_count; /* living jobs */
    UT_hash_handle hh;
};

struct project {
    char *name;
    bool open, removed;
    char **members; /* sorted; they count while it is not open */
    size_t member_count;
    uint64_t weight;
    uint64_t job_count; /* living jobs */
    UT_hash_handle hh;
};

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

/* What an account ("a" and its name) or project ("p") has used of late. */
struct share {
    char *key;
    uint64_t weight;  /* of an account; a project has its own */
    uint64_t core_ms; /* decayed use at as_of (wall us) */
    uint64_t as_of;
    uint64_t rate;    /* cores that run now, GPUs weighted */
    uint64_t use_now; /* of this pass */
    int64_t points;   /* of this pass */
    bool dirty;
    UT_hash_handle hh;
};

/* ---- configure.c: a CONFIGURE being answered ---------------------------------------------- */

struct configure_pass {
    struct core *core;
    const struct event_configure *event;
    const struct msg_configure *request;
    struct arena *arena;
    struct rec_refusal *refusals;
    size_t refusal_count;
    bool changed;
};

void configure_on_configure(struct core *core, const struct event_configure *event);
/* Refuses; `path` names the setting. Text in arena or static. */
void configure_refuse(struct configure_pass *pass, const char *path, const char *text);
/* The last value given, NULL when none was. */
const char *configure_value(const struct configure_pass *pass, const char *setting);
/* Takes a whole number, or "none" where none >= 0 says what that means. Leaves *out alone when the
 * setting was not given or is refused. */
void configure_number(struct configure_pass *pass, const char *setting, int64_t least, int64_t most,
                      const int64_t *none, int64_t *out);
void configure_flag(struct configure_pass *pass, const char *setting, bool *out);
/* Refuses settings beyond `names` (NULL at the end) with the nearest one as a hint. */
void configure_known(struct configure_pass *pass, const char *const *names);
/* False, and refused, unless text may be a name: CONFIG_NAME_MAX bytes as in specs. */
bool configure_name(struct configure_pass *pass, const char *path, const char *name);
/* False, and refused, when nobody of that name is enrolled. */
bool configure_principal(struct configure_pass *pass, const char *path, const char *name);
/* "; did you mean 'x'?" for the name nearest to `wrong` that was offered; "" for none. */
struct hint {
    const char *wrong, *best;
    unsigned distance;
};
void hint_offer(struct hint *hint, const char *name);
const char *hint_text(const struct hint *hint, struct arena *arena);

/* ---- queue_config.c: queues, projects, settings -------------------------------------------- */

void rights_init(struct core *core);
void rights_free(struct core *core);
/* Never NULL: a name without a row is known as removed. */
struct queue_config *queue_config_get(struct core *core, const char *name);
struct project *project_get(struct core *core, const char *name);
/* NULL when it is not there or was removed. */
struct queue_config *queue_config_find(const struct core *core, const char *name);
struct project *project_find(const struct core *core, const char *name);
const char *queue_hint(const struct core *core, const char *name, struct arena *arena);
const char *project_hint(const struct core *core, const char *name, struct arena *arena);
bool project_admits(const struct project *project, const char *account);
void queue_configure(struct configure_pass *pass);
void project_configure(struct configure_pass *pass);
void setting_configure(struct configure_pass *pass);
/* What speaks against a job in this queue and project; NULL: nothing. `*out_path` is the field. */
const char *rights_fault(struct core *core, const char *account, const struct spec_job *spec,
                         struct arena *arena, const char **out_path);
/* Account, queue and project are part of what tells classes apart. */
void rights_key_add(struct buf *key, const struct job *job);
/* After a change: classes count against other limits, and what was blocked may go on. */
void rights_changed(struct core *core);
void settings_change(struct core *core, const int64_t wanted[SETTING_END]);
void rights_dump(const struct core *core, struct buf *out);
/* A waiting job's place in its class: the policy's order of priority and age. */
int64_t job_key(const struct core *core, const struct job *job);
/* Before a pass; then what queue and shares mean for a class. */
void rights_pass(struct core *core);
void rights_view(const struct core *core, const struct class *class, struct policy_class *out);

/* ---- reservation.c: windows, and the deadlines of drains ------------------------------------ */

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

/* ---- until.c: workers whose time is limited --------------------------------------------------- */

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
struct part;
/* What an end means on such a worker. told: the worker said so; else it is gone. */
enum cause until_cause(const struct core *core, const struct part *part, enum cause cause,
                       int64_t code, bool told);
void untils_due(struct core *core);
uint64_t untils_next_at(const struct core *core); /* UINT64_MAX: nothing is to be done */
const char *until_why(const struct core *core, const struct class *class, struct arena *arena,
                      const char **out_remedy);

/* ---- quota.c -------------------------------------------------------------------------------- */

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

/* ---- preempt.c ------------------------------------------------------------------------------ */

/* Asks to save, then stops it with a cause that requeues its job (cause_is_requeued). Nothing
 * when it is stopping already. */
void attempt_preempt(struct core *core, struct attempt *attempt, enum cause cause, const char *why);
/* A checkpoint has arrived, or the time for one is over. */
void attempt_preempt_go_on(struct core *core, struct attempt *attempt);
void job_requeue(struct core *core, struct job *job, enum cause cause, const char *detail);

/* ---- usage.c: fair share -------------------------------------------------------------------- */

/* 2^-(elapsed/half_life) in 32-bit fixed point; half_life below 2^35. */
uint64_t decay_q32(uint64_t elapsed_ms, uint64_t half_life_ms);
/* What a rate of 1 leaves behind after that time. */
uint64_t decay_integral_ms(uint64_t elapsed_ms, uint64_t half_life_ms);
void shares_take(struct core *core, const struct attempt *attempt); /* it begins */
void shares_give(struct core *core, const struct attempt *attempt); /* it has ended */
void shares_take_loaded(struct core *core, const struct attempt *attempt);
void shares_load_end(struct core *core);
void shares_resettle(struct core *core, const int64_t wanted[SETTING_END]);
bool share_weigh(struct core *core, const char *account, uint64_t weight); /* true: changed */
void shares_rate(struct core *core); /* works out the points of all */
int64_t share_points(const struct core *core, const struct class *class);
void shares_flush(struct core *core);
void shares_dump(const struct core *core, struct buf *out);
void shares_free(struct core *core);

#endif
