/* state.h - what the core holds in memory, and its inner functions. Private to core/.
 *
 * Jobs are here while they live, and after their end while a living job reads from them
 * (job->readers). Rows are not written where a field changes: the object is marked and written
 * once at the end of the step, so a step writes each row at most once. */
#ifndef ATHANOR_CORE_STATE_H
#define ATHANOR_CORE_STATE_H

#include "common/base/mem.h"
#include "common/base/rng.h"
#include "coordinator/core/core.h"
#include "coordinator/core/queue.h"
#include "coordinator/core/timer.h"
#include "coordinator/policy/policy.h"

#define uthash_fatal(text) check_failed("uthash: " text, __FILE__, __LINE__)
#include <uthash.h>

#include "coordinator/core/configure.h"
#include "coordinator/core/quota.h"
#include "coordinator/core/reservation.h"
#include "coordinator/core/usage.h"

/* Bounds (invariant 9). Per job: 10,000 checkpoints x 200 B = 2 MB, the oldest are forgotten
 * (their rows stay); 1,000 artifacts x 200 B; per worker 1,024 devices, 64 labels. */
#define CHECKPOINTS_MAX 10000u
#define ARTIFACTS_MAX 1000u
#define WORKER_DEVICES_MAX 1024u
#define WORKER_LABELS_MAX 64u
#define WORKER_CORES_MAX 65536u
#define WORKER_MEMORY_MAX ((uint64_t)1 << 50)
#define SAVE_MS_MAX ((uint64_t)30 * 24 * 3600 * 1000) /* told by programs; longer is no saving */
/* Archives of code: 100,000 x 300 B = 30 MB; of those being sent the hashes to come, too: 1,000 x
 * 8 KiB = 8 MB. */
#define SNAPSHOTS_MAX 100000u
#define UPLOADS_MAX 1000u
#define REMOVALS_MAX 100000u /* ordered and not confirmed: x 300 B = 30 MB */
#define COPIES_PER_WORKER_MAX 1000u
#define COPIES_MAX 200000u /* of all workers: more are not known of; x 250 B = 50 MB */
#define DROPS_MAX 64u      /* drops repeated at a join, per job */
#define KEY_TEXT_LENGTH 40u /* Z85 of a CURVE key */
#define TEXT_KEPT_MAX 1000u /* bytes of foreign evidence, names and the like */
#define EVENT_TEXT_MAX 16384u /* bytes of an event of a program: the stack of a stuck one */

struct label {
    char *name, *value;
};

struct gpu { /* of a worker */
    uint64_t device_index;
    char *model;
};

struct pointer_list {
    void **items;
    size_t count, capacity;
};

/* What went wrong on a node by its own fault. */
struct incident {
    uint64_t number, at, job_id, attempt_id; /* at: wall us; ids 0: none */
    char *kind, *evidence;
};
#define INCIDENTS_KEPT 16u /* x 1.1 kB, only of nodes that have any */

struct worker {
    uint64_t worker_id;
    char *engine; /* hash of the engine's program, in hex; NULL or "": not known */
    char *name, *host, *labels_json, *topology_json, *drain_reason;
    char *endpoint, *public_key; /* where other workers reach it; "": nowhere */
    enum worker_state state;
    uint64_t incarnation;
    uint64_t cores, memory_bytes, gpus;
    uint64_t cores_used, memory_used, gpus_used;
    struct label *labels;
    size_t label_count;
    struct gpu *gpu_list; /* in order of device_index */
    size_t gpu_count, gpu_capacity;
    uint32_t group[POLICY_LEVELS]; /* by its labels: which switch, which rack */
    bool drained;
    uint64_t drain_by_at; /* wall us: what still runs then is preempted; 0: never */
    char *quarantine_reason; /* NULL: not in quarantine */
    uint64_t quarantined_at; /* wall us */
    char *unhealthy, *health_json; /* NULL: no check fails; nothing was told */
    uint64_t node_stamp;     /* newest NODE_REPORT taken */
    struct incident *incidents; /* oldest first; not cleared */
    size_t incident_used;
    struct pointer_list copies; /* that it keeps; in order of copy_id */
    uint64_t incident_count; /* ever: number of the newest */
    uint64_t until_at; /* wall us: when its time is over (until.c); 0: it is not limited */
    bool open_ended;   /* takes jobs without a wall time all the same */
    bool joined;   /* since this leader began */
    uint64_t peer; /* of the newest join */
    uint64_t seen_ms;
    uint64_t joined_at, ended_at; /* wall us */
    uint64_t heard_at;            /* last sign of life before it was found gone, wall us */
    struct part *parts;           /* live ones, in order of attempt_id */
    size_t part_count;
    bool taken;     /* its one part is of an exclusive job */
    size_t index;   /* in core->workers */
    bool shrunk;    /* rejoined with less than it had given away, until that ends */
    bool changed;   /* in core->changed: gained room since the last pass */
    bool dirty, is_new;
    bool targeted;  /* by the request that control.c is handling */
    struct timer timer;
    UT_hash_handle hh_id, hh_name;
};

/* A worker's share of an attempt: a node of it. It occupies the worker until it ends, which the
 * parts of one attempt do one by one; the attempt ends with the last. */
struct part {
    struct attempt *attempt;
    struct worker *worker;
    uint32_t node;       /* index in attempt->parts */
    uint32_t first_rank, ranks;
    bool confirmed;      /* the worker is known to have it */
    bool held;           /* listed by the join being handled */
    struct charge charge;    /* on this worker */
    uint64_t seq;        /* newest report that was taken */
    uint64_t log_bytes;  /* of output in those reports */
    uint64_t started_at; /* wall us; 0: not yet */
    struct part *next, *previous; /* of the worker */
    /* Only where an attempt has several, else the attempt's own say it: */
    enum cause cause;
    int64_t code;
    char *evidence, *placement_json, *usage_json;
    uint64_t ended_at;   /* wall us */
    bool ended, dirty, is_new;
};

struct attempt {
    uint64_t attempt_id, number, epoch, resume_checkpoint_id;
    struct job *job;
    struct charge charge;   /* since it was placed, whatever its workers become meanwhile */
    struct part *parts; /* in order of ranks; most have one, `only` */
    size_t part_count, live_count;
    struct part only;
    enum attempt_state state;
    enum cause stop_cause;
    enum cause cause;   /* of several parts the first failure, also while others still stop */
    int64_t code;
    char *evidence, *placement_json, *usage_json;
    uint64_t placed_at, started_at, ended_at; /* wall us */
    bool node_fault;     /* launch_failed, and not by the job */
    uint64_t stopping_at, silent_at; /* wall us: first STOP; last sign of life of a lost worker */
    uint64_t stop_ms;      /* steady time of the first STOP by this leader */
    uint64_t wall_due_ms;  /* backstop of the wall-time limit; 0: none */
    uint64_t resend_ms;    /* next repeat of START or STOP; 0: none */
    uint64_t data_skip;      /* of the job when it was placed */
    uint64_t diverged_step;  /* 0: it has not, or nobody knows where */
    uint64_t preempt_due_ms; /* asked to save before it is stopped, at the latest then; 0: no */
    enum cause preempt_cause; /* what it is stopped with then */
    bool dirty, is_new;
    struct timer timer;
    UT_hash_handle hh;
};

struct checkpoint {
    uint64_t checkpoint_id, attempt_id, worker_id, step, size_bytes, saved_at, save_ms, removed_at;
    char *path, *metrics_json;
    struct hash content;
    bool has_score;
    double score; /* of the job's keep-best metric, sign turned so that more is better */
};

struct artifact {
    uint64_t artifact_id, attempt_id, worker_id, size_bytes, created_at;
    char *kind, *name, *path, *meta_json;
    struct hash content;
};

/* An input and, once placed, what it resolved to. */
struct input {
    char *name;
    struct spec_ref ref;      /* texts owned */
    uint64_t source_job_id;   /* 0 for files */
    uint32_t trial_count;     /* that many jobs from the source on are a sweep whose best trial is
                                 meant and not known yet; 0: the source it is */
    bool resolved;            /* for the live attempt */
    char *path;
    uint64_t checkpoint_id, artifact_id;
    struct hash content;
};

enum edge_state { EDGE_WAITING = 1, EDGE_MET, EDGE_BROKEN };

/* A dependency: the child needs the parent to end in a certain way. Owned by the child. */
struct edge {
    uint64_t parent_id;
    struct job *child;
    struct job *parent; /* NULL once neither waited for nor read from */
    enum spec_condition condition;
    char *artifact;     /* owned; its name for SPEC_ON_ARTIFACT, else NULL */
    enum edge_state state;
    bool reads;         /* an input comes from the parent, or may */
    bool chosen;        /* the parent is the best trial of a sweep that an input means */
    bool dirty, is_new;
    struct edge *next, *previous; /* among the parent's children */
};

struct open_reason {
    uint32_t reason; /* enum reason */
    uint64_t from_at;
};

struct experiment {
    uint64_t experiment_id, created_at;
    char *name, *account;
    UT_hash_handle hh, hh_id;
};

/* A cap on what may run at once (limit.c). */
enum limit_kind {
    LIMIT_GROUP = 1, /* at_once of an array or sweep; id: its first job */
    LIMIT_QUOTA,     /* of a user, project or queue; id: of its meter */
};
struct limit_key {
    uint64_t kind, id; /* compared as bytes: no padding */
};
struct limit {
    struct limit_key key;
    struct quota *quota; /* NULL: of an array or sweep */
    struct meter *meter; /* with the quota */
    uint64_t jobs_max, jobs_used; /* UINT64_MAX: any number */
    uint64_t cores_max, cores_used, gpus_max, gpus_used;
    uint64_t gpu_ms_left; /* of the period, at the newest pass */
    uint64_t live;        /* jobs of its classes, running ones included */
    bool over;            /* the cap came later than what runs */
    uint64_t class_count; /* that point here */
    size_t index;         /* in core->limits */
    UT_hash_handle hh;
};

/* A search (sweep.c). Trial i is the job sweep_id + i. */
struct trial {
    uint32_t rung;     /* rungs it has been judged at: the next one's index */
    uint64_t resource; /* greatest it has reported */
    uint64_t reports;  /* of the metric */
    double best;       /* of the metric; meaningful with reports > 0, NaN before any number */
    uint64_t best_step;
    bool dirty;
};
struct rung_value {
    size_t trial;
    double value;
};
struct rung {
    struct rung_value *items; /* of every trial that came so far */
    size_t count, capacity;
};
struct sweep {
    uint64_t sweep_id; /* number of its first trial's job */
    uint64_t experiment_id, created_at, ended_at;
    char *name, *metric, *resource;
    bool is_asha, is_max;
    uint64_t min_resource, reduction;
    struct trial *trials;
    size_t trial_count, live_count;
    struct rung *rungs;
    size_t rung_count;
    bool dirty;
    UT_hash_handle hh;
};

/* What a job asks for. Texts are borrowed, in a class they are the class's own. */
struct ask {
    struct policy_need rank; /* of one rank */
    uint32_t ranks, nodes_min, nodes_max;
    uint32_t ranks_per_node; /* at most; 0: as many as fit */
    bool exclusive, spread;
    uint64_t wall_time_ms;   /* 0: none */
    const char *gpu_model;   /* "": any */
    const struct spec_label *constraints; /* in order of alternative, then name */
    size_t constraint_count;
    uint64_t avoid_worker_id; /* 0: none */
};

/* Jobs that ask for the same on the same account. */
struct class {
    struct ask ask;
    struct policy_need need; /* of all ranks */
    const char *account;     /* interned */
    struct queue_config *queue_config;
    struct project *project;
    struct limit *limits[POLICY_LIMITS_MAX]; /* that its jobs count against */
    size_t limit_count;
    struct queue queue;  /* ready, not held */
    uint64_t job_count;  /* living jobs of the class */
    size_t index;        /* in core->classes */
    bool blocked;
    bool reads; /* a job of it has, or had, inputs or a checkpoint to resume from */
    bool avoids_nobody; /* no others can take it without the worker it avoids; see place_run */
    struct policy_verdict verdict; /* of the newest pass, on its first job */
    uint64_t why_step;             /* step whose arena holds why; see why.c */
    struct core_reason *why;
    size_t why_count;
    uint32_t why_mask;
    char *key;
    size_t key_length;
    UT_hash_handle hh;
};

struct reuse {
    struct hash spec_hash, identity; /* identity: zero until placed, or when it has none */
};

/* An archive of code that is stored, or being sent. */
struct snapshot {
    struct hash content;
    uint64_t snapshot_id, size_bytes;
    uint64_t chunks_stored, chunk_count;
    struct hash *chunks;   /* what is still to come must be; NULL once all are stored */
    char *account;
    uint64_t created_at, used_at; /* wall us */
    uint64_t jobs;         /* living ones that run it */
    bool dirty, is_new;
    UT_hash_handle hh;
};

struct job {
    uint64_t job_id;
    struct experiment *experiment;
    char *name;     /* inside name_key */
    char *name_key; /* experiment_id, then the name */
    const char *account; /* interned */
    struct queue_config *queue;
    struct project *project;
    enum job_state state;
    bool held;
    enum cause cause;
    char *detail;
    int64_t priority;
    uint64_t attempt_count, attempts_spent;
    uint64_t submitted_at, eligible_at, started_at, ended_at; /* wall us */
    uint64_t progress_step, progress_total;
    char *progress_phase;

    char *spec_json;
    uint32_t ranks, cores, gpus; /* cores, gpus, memory: per rank */
    uint64_t memory_bytes;
    struct hash *code;      /* the snapshot it runs; NULL: none */
    struct reuse *reuse;    /* NULL: no hash covers what decides its result */
    uint64_t reused_job_id; /* whose results it took; 0: its own */
    uint64_t group_id;    /* of an array or sweep: its first job */
    uint32_t at_once;     /* of that group; 0: no cap */
    uint32_t trial_count; /* 0: no trial of a sweep */
    struct spec_limits limits;
    struct spec_retry retry;
    enum spec_disconnect on_disconnect;
    bool rewinds;        /* after it diverged */
    uint64_t skip_more;  /* batches left out at each rewind, besides those between */
    uint64_t avoid_worker_id; /* where its last attempt failed (retry.elsewhere); 0: none */
    uint64_t log_bytes; /* of output that its ended attempts left */
    uint64_t data_skip;  /* of all rewinds: the data step is the step and this */
    uint32_t keep_last, keep_best;
    char *best_metric;
    enum spec_best_mode best_mode;
    char **outputs; /* names of datasets */
    size_t output_count;

    struct class *class; /* NULL once ended */
    struct input *inputs;
    size_t input_count;
    struct edge *edges;
    size_t edge_count, edges_waiting;
    struct edge *children;
    size_t readers; /* children's edges with `reads` */
    struct attempt *attempt;
    struct checkpoint *checkpoints; /* not removed; in order of checkpoint_id */
    size_t checkpoint_count, checkpoint_capacity;
    struct checkpoint *drops; /* removed ones whose drop may have been lost */
    size_t drop_count, drop_capacity;
    struct artifact *artifacts;
    size_t artifact_count, artifact_capacity;
    struct open_reason *reasons;
    size_t reason_count, reason_capacity;

    struct queue_node node; /* in class->queue while READY and not held */
    struct timer timer;     /* of a backoff */
    bool dirty, is_new;
    bool check_eviction;    /* in core->ended */
    bool targeted;          /* by the request that control.c is handling */
    struct job *older_same_name, *newer_same_name;
    struct job *maker_next, *maker_previous; /* jobs with datasets, made or promised */
    bool is_maker;
    UT_hash_handle hh_id, hh_name;
};

struct submit_memory {
    uint8_t key[16];
    uint64_t first_job_id, job_count;
    char *experiment;
    UT_hash_handle hh;
};

struct account {
    char *name;
    UT_hash_handle hh;
};

struct core {
    struct core_config config;
    const struct policy *policy;
    struct core_ids ids;
    struct rng rng;

    /* of the step being made */
    uint64_t now_ms, wall_us;
    struct effects *effects;

    struct job *jobs;         /* by id */
    struct job *jobs_by_name; /* the newest of each (experiment, name) */
    uint64_t live_count;
    struct attempt *attempts;
    struct worker *workers_by_id, *workers_by_name;
    struct worker **workers; /* in order of worker_id */
    size_t worker_count, worker_capacity;
    struct experiment *experiments, *experiments_by_id;
    struct class *classes_by_key;
    struct class **classes; /* in order of creation */
    size_t class_count, class_capacity;
    struct limit *limits_by_key;
    struct limit **limits;
    size_t limit_count, limit_capacity;
    struct sweep *sweeps; /* that live */
    struct snapshot *snapshots; /* by content */
    uint64_t uploads;           /* of them, not complete */
    struct copy *copies;      /* that workers keep (copy.c) */
    struct copied *copied;    /* their contents */
    struct removal *removals; /* that workers have yet to confirm; by id */
    uint64_t collections;     /* steps that removed something, by this leader */
    struct submit_memory *submits; /* uthash keeps order of insertion: the oldest go first */
    struct account *accounts;
    int64_t settings[SETTING_END];
    struct queue_config *queues;
    struct project *projects;
    struct share *shares_by_key;
    struct pointer_list shares, dirty_shares;
    struct pointer_list reservations; /* that have not ended, by name */
    struct timer window_timer;
    struct quota *quotas;
    struct meter *meters_by_scope;
    struct pointer_list meters, dirty_meters;
    uint64_t cores_usable; /* of this pass, for the size factor */
    struct job *makers;
    struct timers timers;

    struct pointer_list dirty_jobs, dirty_attempts, dirty_workers, dirty_sweeps, dirty_snapshots;
    struct pointer_list ended;
    bool settling; /* job_end is walking core->ended */
    struct pointer_list changed; /* workers */
    bool topology_changed; /* labels of a worker: groups are to be numbered anew */
    bool some_leave;       /* at the newest pass: the time of a worker is limited */
    bool some_avoid; /* classes that avoid a worker: workers that go may change whom they get */
    bool meshed;           /* at the newest pass: a usable worker has an endpoint */
    bool placement_wanted;
    struct timer reason_timer;
    struct job *reason_next; /* where the recorder of reasons goes on; NULL: from the start */
    struct core_counts counts;
};

/* ---- core.c ------------------------------------------------------------------------------ */
void list_add(struct pointer_list *list, void *item);
void text_set(char **field, const char *text); /* frees the old one; keeps a copy */
const char *account_intern(struct core *core, const char *name);
void core_mark_placement(struct core *core);
void core_flush(struct core *core); /* writes marked rows, lets go of what nobody needs */
void edges_write(struct core *core, struct job *job);
/* A line of history; ids may be 0. detail lives in the effects' arena or longer. */
void history_add(struct core *core, const char *name, uint64_t job_id, uint64_t attempt_id,
                 uint64_t worker_id, const char *account, const char *detail);
void answer_refused(struct core *core, enum address_kind to, uint64_t peer, uint64_t request_seq,
                    enum err_kind kind, const char *text, struct rec_refusal *refusals,
                    size_t refusal_count);
struct arena *step_arena(struct core *core);

/* ---- experiment.c ------------------------------------------------------------------------ */
struct experiment *experiment_find(const struct core *core, const char *name);
struct experiment *experiment_by_id(const struct core *core, uint64_t experiment_id);
struct experiment *experiment_add(struct core *core, uint64_t id, const char *name,
                                  const char *account, uint64_t created_at);
struct submit_memory *submit_find(const struct core *core, const uint8_t key[16]);
void submit_remember(struct core *core, const uint8_t key[16], uint64_t job_id,
                     uint64_t submit_index, const char *experiment);

/* ---- class.c ----------------------------------------------------------------------------- */
/* Found or made. */
struct class *class_get(struct core *core, const struct job *job, const struct ask *ask);
struct class *class_again(struct core *core, const struct job *job);
void class_join(struct job *job, struct class *class);
void class_join_spec(struct core *core, struct job *job, const struct spec_job *spec);
void class_leave(struct core *core, struct job *job);
/* Whether the worker's labels fit, and it has GPUs of the model. */
bool class_allows(const struct class *class, const struct worker *worker);
uint64_t class_gpus_unfit(const struct class *class, const struct worker *worker);
/* How many of its ranks find place in that much room of the worker. All GPUs of another model are
 * taken for free ones: which of them are in use only the worker knows, so nothing is overbooked. */
/* Whether others that can be used now could take it with equal shares, were they empty. */
bool class_can_avoid(const struct core *core, const struct class *class, uint64_t worker_id);
/* Asks so again for every class that avoids a worker: before each pass. */
void class_review_avoided(struct core *core);
uint32_t class_ranks_on(const struct class *class, const struct worker *worker,
                        struct policy_need room);
/* Jobs that may have one node keep to one while no worker has an endpoint. */
uint32_t class_nodes_max(const struct core *core, const struct class *class);
void class_free(struct class *class);
/* What so many ranks of it hold there. */
struct charge class_charge_on(const struct class *class, const struct worker *worker,
                              uint32_t ranks);
/* The least that a job of it may hold by the workers there are. */
struct charge class_charge_least(const struct core *core, const struct class *class);
/* GPU time that it is charged with at its start; UINT64_MAX: nobody can say. */
uint64_t class_gpu_ms(const struct class *class, struct charge charge);

/* ---- limit.c ----------------------------------------------------------------------------- */
/* What a job counts against, as keys; the rest of the array is zero. */
size_t limit_keys(const struct job *job, struct limit_key out[POLICY_LIMITS_MAX]);
void limits_join(struct core *core, struct class *class, const struct job *job);
void limits_leave(struct core *core, struct class *class);
void limits_take(struct core *core, const struct attempt *attempt); /* it begins */
void limits_give(struct core *core, const struct attempt *attempt); /* it has ended */
/* NULL: another job may start that holds so much. */
const struct limit *limits_full(const struct class *class, struct charge charge);
void limits_view(const struct core *core, struct arena *arena, struct policy_view *view);
void limits_done(struct core *core);
struct limit *limit_find(const struct core *core, enum limit_kind kind, uint64_t id);
struct limit *limit_get(struct core *core, enum limit_kind kind, uint64_t id, uint64_t jobs_max);
void limits_retake(struct core *core, const struct attempt *attempt); /* quotas only */
void limits_live(const struct class *class, bool more); /* a job joined or left the class */
bool limit_is_over(const struct limit *limit);
bool limit_is_full(const struct limit *limit, const struct class *class, struct charge charge);
bool fits_below(uint64_t used, uint64_t need, uint64_t most);
void quotas_leave(struct core *core, struct class *class);

/* ---- preempt.c ------------------------------------------------------------------------------ */

/* Asks to save, then stops it with a cause that requeues its job (cause_is_requeued). Nothing
 * when it is stopping already. */
void attempt_preempt(struct core *core, struct attempt *attempt, enum cause cause, const char *why);
/* A checkpoint has arrived, or the time for one is over. */
void attempt_preempt_go_on(struct core *core, struct attempt *attempt);
void job_requeue(struct core *core, struct job *job, enum cause cause, const char *detail);

/* ---- sweep.c ----------------------------------------------------------------------------- */
struct sweep *sweep_find(const struct core *core, uint64_t sweep_id);
/* The newest that lives, of the experiment (NULL: none) before all others. */
struct sweep *sweep_find_name(const struct core *core, const struct experiment *experiment,
                              const char *name);
void sweep_make(struct core *core, const struct spec_sweep *spec, uint64_t first_job_id,
                const struct experiment *experiment, const char *account);
void sweep_on_metric(struct core *core, struct job *job, const char *name, uint64_t step,
                     double value);
void sweep_trial_ended(struct core *core, const struct job *job);
void sweep_trial_reopened(struct core *core, struct job *job);
/* The edge from `parent` to `child` is settled. If that was the end of a sweep whose best trial the
 * child reads, the trial is chosen now. False: there is none, and the child has ended. */
bool sweep_choose(struct core *core, struct job *child, const struct job *parent);
/* The best trial so far, as athanor.best_trials has it; NULL: none has reported a number. */
const struct trial *sweep_best(const struct sweep *sweep);
void sweeps_flush(struct core *core);
void sweeps_done(struct core *core);
void sweeps_dump(const struct core *core, struct buf *out);
const char *sweeps_check(const struct core *core, struct arena *arena);

/* ---- snapshot.c -------------------------------------------------------------------------- */
void snapshot_on_offer(struct core *core, const struct event_code *event);
void snapshot_on_put(struct core *core, const struct event_code *event);
/* NULL when a job may run it, else what keeps it from that. */
const char *snapshot_fault(const struct core *core, const struct hash *content);
/* A job that runs it lives, or has ended. */
void snapshot_hold(struct core *core, const struct hash *content);
void snapshot_release(struct core *core, const struct hash *content);
/* Removes what no living job runs and was last used longer ago; how many. Adds up their sizes. */
size_t snapshots_collect(struct core *core, uint64_t keep_ms, uint64_t *bytes);
void snapshots_flush(struct core *core);
void snapshots_done(struct core *core);
void snapshots_dump(const struct core *core, struct buf *out);
const char *snapshots_check(const struct core *core, struct arena *arena);

/* ---- retention.c ------------------------------------------------------------------------- */
size_t retention_lookups(const struct event_collect *event, struct arena *arena,
                         struct core_lookup **out);
void retention_on_collect(struct core *core, const struct event_collect *event);
void retention_on_removed(struct core *core, const struct event_removed *event);
void removals_send(struct core *core, const struct worker *worker); /* it has joined */
void removals_done(struct core *core);
void removals_dump(const struct core *core, struct buf *out);

/* ---- copy.c ------------------------------------------------------------------------------ */
/* All that the worker keeps now. */
void copies_take(struct core *core, struct worker *worker, const struct rec_held_copy *list,
                 size_t count);
void copies_on_copies(struct core *core, const struct event_copies *event);
/* Who has what the attempt reads, for START, the best first; tells those whom to let read it. */
size_t copies_sources(struct core *core, const struct part *part,
                      const struct checkpoint *resume, struct rec_copy_source **out);
/* For the policy: who has something of what the job would read if it were placed now. */
size_t copies_holders(const struct core *core, const struct job *job,
                      struct policy_holder out[POLICY_HOLDERS_MAX]);
/* Where what the job reads lies, when a worker that `class` allows has not got all of it, or nobody
 * who is there has; else NULL. */
const char *copies_why(const struct core *core, const struct job *job, const struct class *class,
                       struct arena *arena, const char **out_remedy);
void copies_done(struct core *core);
void copies_dump(const struct worker *worker, struct buf *out);

/* ---- reuse.c ----------------------------------------------------------------------------- */
/* False when the result hangs on more than hashes cover. */
bool reuse_spec_hash(const struct spec_job *spec, struct hash *out);
/* Of a job that is new, or was loaded: then `stored` is its column, which spares the hashing. */
void reuse_take(struct job *job, const struct spec_job *spec, const struct hash *stored);
/* An attempt is being placed: its identity is known now. Called for each of its workers, `first`
 * for the first one: those of several engines have none. */
void reuse_placed(struct job *job, const struct worker *worker, bool first);
struct reuse_input {
    const char *part;
    struct hash content; /* zero: not known */
};
/* A job of the event's rows that is identical; inputs as in spec->inputs. NULL: none. */
struct job *reuse_find(struct core *core, const struct event_found *found,
                       const struct spec_job *spec, const struct reuse_input *inputs);

/* ---- job.c ------------------------------------------------------------------------------- */
struct job *job_find(const struct core *core, uint64_t job_id);
struct job *job_find_name(const struct core *core, uint64_t experiment_id, const char *name);
/* Takes what the core needs from the spec; the job is not yet in any index. */
struct job *job_new(struct core *core, uint64_t job_id, struct experiment *experiment,
                    const char *account, const struct spec_job *spec, const char *spec_json);
void job_add(struct core *core, struct job *job); /* to the indexes */
void job_evict(struct core *core, struct job *job);
void job_free(struct job *job); /* in no index and no class */
void job_consider_eviction(struct core *core, struct job *job);
void job_mark(struct core *core, struct job *job);
/* The one place where job->state changes. The edge must exist (CHECK). */
void job_move(struct core *core, struct job *job, enum job_event event);
/* Ends it: final row, edges of children, class, queue. */
void job_end(struct core *core, struct job *job, enum job_event event, enum cause cause,
             const char *detail);
void job_parents_check(struct core *core, struct job *job); /* WAITING: ready or broken? */
/* stop_cause: why we asked it to stop, if we did. */
void job_after_attempt(struct core *core, struct job *job, const struct attempt *attempt);
uint64_t backoff_ms(const struct job *job);
void job_backoff_due(struct core *core, struct job *job);
void job_queue_update(struct core *core, struct job *job); /* in the queue iff it may be placed */
void job_edges_make(struct job *job, size_t count);
void edge_link(struct edge *edge, struct job *parent);
void edge_unlink(struct core *core, struct edge *edge);
/* Whether a parent that has ended satisfies the condition. */
bool condition_met(enum spec_condition condition, const char *artifact, const struct job *parent);
/* "success", "artifact 'x'": what of a parent is needed, for messages. */
const char *condition_wanted(struct arena *arena, enum spec_condition condition,
                             const char *artifact);
/* An artifact of this name is there now: settles the edges that wait for it. */
void job_artifact_made(struct core *core, struct job *job, const char *name);
void job_edges_free(struct job *job);
void job_make_maker(struct core *core, struct job *job);

/* ---- attempt.c --------------------------------------------------------------------------- */
struct slot {
    struct worker *worker;
    uint32_t ranks;
};
struct attempt *attempt_find(const struct core *core, uint64_t attempt_id);
/* In the indexes, occupying nothing yet (attempt_occupy). */
struct attempt *attempt_add(struct core *core, struct job *job, uint64_t attempt_id,
                            const struct slot *slots, size_t count, const struct charge *charge);
void attempt_occupy(struct core *core, struct attempt *attempt);
void attempt_free(struct attempt *attempt); /* in no index */
bool attempt_is_gang(const struct attempt *attempt);
/* Its part on that worker, NULL when it has none. */
struct part *attempt_part_on(const struct attempt *attempt, const struct worker *worker);
void attempt_mark(struct core *core, struct attempt *attempt);
void attempt_place(struct core *core, struct job *job, const struct slot *slots, size_t count);
void part_send_start(struct core *core, struct part *part);
void attempt_stop(struct core *core, struct attempt *attempt, enum cause cause);
void part_started(struct core *core, struct part *part, const char *placement_json);
void part_finished(struct core *core, struct part *part, enum cause cause, int64_t code,
                   const char *evidence, const char *usage_json);
/* A stopping part that will not report its end any more; the others go on stopping. */
void part_lose(struct core *core, struct part *part, enum cause cause, const char *evidence);
/* The part is lost, and with it the attempt. */
void attempt_lose(struct core *core, struct part *part, enum cause cause, const char *evidence);
/* Ends it with all its parts. FINISH is the workers' word; LOSE is ours, and they are told to
 * forget it. What failed first is its cause, whatever is given. */
void attempt_end(struct core *core, struct attempt *attempt, enum attempt_event event,
                 enum cause cause, int64_t code, const char *evidence, const char *usage_json);
bool attempt_wants_repeats(const struct attempt *attempt); /* of START or STOP */
uint64_t attempt_wall_due(const struct core *core, const struct attempt *attempt);
void attempt_timer_set(struct core *core, struct attempt *attempt);
void attempt_timer_due(struct core *core, struct attempt *attempt);
void attempt_fence(struct core *core, uint64_t peer, uint64_t attempt_id);
struct policy_need job_need(const struct job *job, uint32_t ranks); /* of so many ranks */

/* ---- worker.c ---------------------------------------------------------------------------- */
struct worker *worker_find(const struct core *core, uint64_t worker_id);
struct worker *worker_find_name(const struct core *core, const char *name);
struct worker *worker_add(struct core *core, uint64_t worker_id, const char *name);
void worker_mark(struct core *core, struct worker *worker);
void worker_gained(struct core *core, struct worker *worker);
bool worker_is_usable(const struct worker *worker);
bool worker_is_reachable(const struct worker *worker); /* messages find it */
struct policy_need worker_free_need(const struct worker *worker);
void worker_on_join(struct core *core, const struct event_join *event);
void worker_on_heartbeat(struct core *core, const struct event_heartbeat *event);
void worker_on_leave(struct core *core, const struct event_leave *event);
void worker_timer_set(struct core *core, struct worker *worker);
void worker_timer_due(struct core *core, struct worker *worker);
void worker_seen(struct core *core, struct worker *worker); /* any sign of life */
void worker_labels_set(struct worker *worker, struct label *labels, size_t count); /* takes */
const char *worker_label(const struct worker *worker, const char *name); /* NULL: has none */
void worker_gpu_set(struct worker *worker, uint64_t device_index, const char *model);
uint64_t worker_gpus_of(const struct worker *worker, const char *model); /* spec_gpu_model_fits */
void worker_free(struct worker *worker);
/* Who may speak for the worker, else NULL: then it was told to join again. */
struct worker *worker_speaking(struct core *core, uint64_t peer, uint64_t request_seq,
                               uint64_t worker_id, uint64_t incarnation);

/* ---- hygiene.c --------------------------------------------------------------------------- */
void hygiene_on_report(struct core *core, const struct event_node_report *event);
/* severe: it alone brings quarantine. Texts are copied. */
void incident_note(struct core *core, struct worker *worker, const char *kind, uint64_t job_id,
                   uint64_t attempt_id, const char *evidence, bool severe);
/* Ends a quarantine; what was noted no longer counts. False: there was nothing to end. */
bool quarantine_end(struct core *core, struct worker *worker);
/* Why new work is kept away from a worker that is there; NULL: it is not. */
const char *worker_kept_away(const struct worker *worker);
void incidents_free(struct worker *worker);
void hygiene_dump(const struct worker *worker, struct buf *out);
uint64_t suspect_after_ms(const struct core *core);

/* ---- report.c, checkpoint.c, input.c ------------------------------------------------------ */
void report_on_reports(struct core *core, const struct event_reports *event);
/* Foreign bytes as a text that a column takes; in the step's arena. */
/* Foreign bytes as text: terminated, UTF-8, without zero bytes, bounded. */
char *text_clean(struct arena *arena, const char *bytes, size_t length, size_t most);
const char *report_text(struct core *core, const char *bytes, size_t length);
void checkpoint_report(struct core *core, struct part *part, const struct rec_report *report);
void checkpoint_retain(struct core *core, struct job *job);
/* It is not what was saved: never resume from it again. */
void checkpoint_discard(struct core *core, struct job *job, uint64_t checkpoint_id);
/* Back to before its divergence: what it must not resume from is discarded, data_skip grows. */
/* exec.c */
void exec_on_exec(struct core *core, const struct event_exec *event);

void checkpoint_rewind(struct core *core, struct job *job, const struct attempt *attempt);
void checkpoint_drops_send(struct core *core, struct worker *worker);
void checkpoint_load(struct core *core, struct job *job, const struct row_checkpoint *row);
const struct checkpoint *checkpoint_resume(const struct job *job);
const struct checkpoint *checkpoint_best(const struct job *job);
const struct checkpoint *checkpoint_at(const struct job *job, uint64_t step);
struct checkpoint *checkpoint_by_id(const struct job *job, uint64_t checkpoint_id);
void checkpoint_free(struct checkpoint *checkpoint);
void artifact_report(struct core *core, struct part *part, const struct rec_report *report);
void artifact_load(struct core *core, struct job *job, const struct row_artifact *row);
void artifact_free(struct artifact *artifact);
const struct artifact *artifact_by_id(const struct job *job, uint64_t artifact_id);
const struct artifact *artifact_dataset(const struct job *job, const char *name);
bool artifact_exists(const struct job *job, const char *name); /* of any kind */
/* 0: every input of the job has something to read; -1: err says which has not. */
int input_resolve_all(struct core *core, struct job *job, struct err *err) WARN_UNUSED;
void input_rows(struct core *core, const struct attempt *attempt);
/* Whether an input comes from that job, or may: while the best trial of a sweep is not known, from
 * any of them. */
bool inputs_read(const struct job *job, uint64_t parent_id);
/* The first input whose sweep has not chosen yet; NULL: none. */
const struct input *input_open(const struct job *job);
/* What the chosen edges say: such inputs have one source from now on, and other trials' edges are
 * not read from any more. Edges are not linked yet. */
void inputs_decide(struct job *job);
/* What of the source is meant is there; NULL: nothing. */
const struct checkpoint *input_checkpoint(const struct job *source, const struct spec_ref *ref);
/* What a reference to a job means now; false: nothing. */
bool input_content(const struct job *source, const struct spec_ref *ref, struct hash *out);

/* ---- submit.c, control.c ------------------------------------------------------------------ */
void submit_on_submit(struct core *core, const struct event_submit *event);
size_t submit_lookups(const struct core *core, const struct event_submit *event,
                      struct arena *arena, struct core_lookup **out);
void control_on_control(struct core *core, const struct event_control *event);
size_t control_lookups(const struct core *core, const struct event_control *event,
                       struct arena *arena, struct core_lookup **out);
/* ---- found.c ------------------------------------------------------------------------------ */
void job_take_row(struct job *job, const struct row_job *row);
struct job *job_from_row(struct core *core, const struct row_job *row);
/* Takes an ended job of the event's rows into memory, with its checkpoints and artifacts; or
 * returns the one that is there. NULL when the rows have no such job. */
struct job *found_take(struct core *core, const struct event_found *found, uint64_t job_id);

/* ---- place.c, why.c ----------------------------------------------------------------------- */
void place_run(struct core *core);
/* What a policy sees of now; and of a class, which need not be in core->classes. */
void place_view(struct core *core, struct arena *arena, struct policy_view *out);
void place_class_view(const struct core *core, const struct class *class, struct policy_class *out);
/* When its own limit ends it, or its stop is over; POLICY_NEVER: no limit. Steady. */
uint64_t attempt_ends_ms(const struct core *core, const struct attempt *attempt);
bool place_allows(const struct core *core, const struct class *class, size_t worker_index,
                  uint64_t start_ms, struct policy_fit *out);
/* outlook.c: when the job (id and key) would start in `class`, which may be imagined. */
void outlook_find(struct core *core, const struct class *class, struct policy_job job,
                  struct arena *arena, struct core_outlook *out,
                  struct policy_verdict *out_verdict);
#define REASONS(X) \
    X(HELD, "held") X(DEPENDENCY, "dependency") X(BACKOFF, "backoff") X(NO_WORKER, "no_worker") \
    X(CONSTRAINT, "constraint") X(SIZE, "size") X(CORES, "cores") X(MEMORY, "memory") \
    X(GPUS, "gpus") X(FRAGMENTS, "fragments") X(NODES, "nodes") X(AT_ONCE, "at_once") \
    X(ORDER, "order") X(QUEUE, "queue") X(NODE_LOST, "node_lost") X(LIMIT, "limit") \
    X(RESERVATION, "reservation") X(NODE_TIME, "node_time")
enum reason {
    REASON_NONE = 0,
#define X(tag, name) REASON_##tag,
    REASONS(X)
#undef X
    REASON_END,
};
const char *reason_name(enum reason reason);
void why_record_due(struct core *core);
void why_timer_set(struct core *core);
void why_close(struct core *core, struct job *job); /* ends all recorded intervals */
/* All reasons of a job without attempt, had it asked for `class`; verdict: of the newest plan for
 * it. Returns the count, less than REASON_END. */
size_t why_job(const struct core *core, const struct job *job, const struct class *class,
               const struct policy_verdict *verdict, struct arena *arena, struct core_reason *out);
/* The same, and behind them where its inputs are: no reason by itself, so it is in no record.
 * Returns the count, at most REASON_END. */
size_t why_job_and_inputs(const struct core *core, const struct job *job,
                          const struct class *class, const struct policy_verdict *verdict,
                          struct arena *arena, struct core_reason *out);
const char *why_span_text(struct arena *arena, uint64_t ms); /* "90 s", "2 h 5 min" */
/* What keeps a job that asks for `class` from a worker now; appended as reasons. */
size_t why_class(const struct core *core, const struct class *class, struct arena *arena,
                 struct core_reason *out, uint32_t *out_mask);

/* ---- json.c ------------------------------------------------------------------------------- */
/* True for a JSON text that jsonb takes, of at most `bytes_max` bytes. */
bool json_is_storable(const char *text, size_t bytes_max);
/* Value of a member of the top-level object; false when absent or of another type. */
bool json_number(const char *text, const char *key, double *out);
bool json_text(const char *text, const char *key, struct arena *arena, const char **out);
void json_quote(struct buf *out, const char *text);
/* The members of the top-level object whose values are texts, none of them with escapes. */
struct json_pair {
    const char *name, *value;
};
size_t json_pairs(const char *text, struct arena *arena, struct json_pair **out);
/* The elements of an array that are texts, none of them with escapes. */
size_t json_texts(const char *text, struct arena *arena, const char ***out);

#endif
