/* core.h - every decision of the coordinator, as a pure function of events.
 *
 * core_step takes one event and appends to `effects`: rows to make durable and messages to
 * release after that. It cannot fail, does no I/O and reads no clock. Memory runs ahead of the
 * database and is never rolled back: after a definite commit failure the process ends and a new
 * core is built from rows (core_load_*).
 *
 * The shell's loop:
 *   1. for SUBMIT and CONTROL: core_lookups; read what it lists from the database into
 *      event.found (after committing what is pending, except for lookups of submit keys);
 *   2. core_step for each message received;
 *   3. when input is drained, or wake_at_ms has come: core_step(EVENT_TICK). Only a TICK fires
 *      timers and places jobs, so a burst of events costs one scheduling pass;
 *   4. commit effects.persist, then send effects.release, then effects_reset. */
#ifndef ATHANOR_CORE_H
#define ATHANOR_CORE_H

#include "coordinator/core/effect.h"
#include "coordinator/core/event.h"
#include "coordinator/core/life.h"

struct core_config {
    uint64_t epoch;         /* of this leader; in attempts and WORKER_WELCOME */
    uint64_t lease_ms;      /* silence after which a worker is LOST; default 30000 */
    uint64_t heartbeat_ms;  /* asked of workers; SUSPECT after min(3 heartbeats, lease/2) */
    uint64_t resend_ms;     /* unconfirmed START and STOP are sent again; default 5000 */
    uint64_t reason_ms;     /* pending reasons are recorded at this pace; default 5000 */
    uint64_t incident_window_ms; /* incidents of a node that count together; default an hour */
    uint32_t incidents_max; /* of different jobs within it bring quarantine; default 3 */
    uint64_t seed;
    uint32_t jobs_max;      /* live jobs; default 2,000,000 (README.md: bytes per job) */
    uint32_t workers_max;   /* names that ever joined; default 16,384 */
    uint32_t experiments_max; /* default 1,000,000 at about 100 B */
    const char *policy;     /* name in policy/policies.def; NULL: the first of them */
};

struct core;

struct core *core_new(const struct core_config *config); /* zero fields become defaults */
void core_free(struct core *core);
void core_step(struct core *core, const struct event *event, struct effects *effects);

#define LOG_BYTES_DEFAULT ((uint64_t)1 << 30) /* of output a job may leave, without limits.log */

/* ---- rebuilding from rows: these in this order, each any number of times ----------------- */

/* Greatest ids ever given, 0 for none. */
struct core_ids {
    uint64_t experiment, worker, job, attempt, checkpoint, artifact, event, snapshot, removal,
        copy;
};
void core_load_ids(struct core *core, const struct core_ids *ids);
void core_load_setting(struct core *core, const struct row_setting *row);       /* all */
void core_load_queue(struct core *core, const struct row_queue *row);           /* all */
void core_load_project(struct core *core, const struct row_project *row);       /* all */
void core_load_usage(struct core *core, const struct row_usage *row);           /* all */
void core_load_reservation(struct core *core, const struct row_reservation *row); /* not removed */
void core_load_quota(struct core *core, const struct row_quota *row);           /* all */
void core_load_quota_usage(struct core *core, const struct row_quota_usage *row); /* all */
void core_load_experiment(struct core *core, const struct row_experiment *row); /* all */
void core_load_worker(struct core *core, const struct row_worker *row);         /* all */
/* The models of its GPUs. */
void core_load_worker_device(struct core *core, const struct row_worker_device *row);
void core_load_worker_incident(struct core *core, const struct row_worker_incident *row); /* open */
void core_load_copy(struct core *core, const struct row_copy *row); /* not removed; by id */
void core_load_snapshot(struct core *core, const struct row_snapshot *row); /* not removed */
void core_load_removal(struct core *core, const struct row_removal *row);   /* not done; by id */
/* Every job that has not ended, and every parent (job_dependency) of such a job. Order: job_id. */
void core_load_job(struct core *core, const struct row_job *row);
/* Jobs that ended lately, for repeats of their submit (invariant 10): the newest
 * CORE_SUBMITS_MAX by job_id are enough. Only key, index, id, name and experiment are read. */
void core_load_submit(struct core *core, const struct row_job *row);
void core_load_job_dependency(struct core *core, const struct row_job_dependency *row);
void core_load_attempt(struct core *core, const struct row_attempt *row); /* not ended */
/* Of the loaded attempts, ended ones too; in order of attempt and node. */
void core_load_attempt_node(struct core *core, const struct row_attempt_node *row);
/* Of the loaded jobs; not removed, or removed within the last hour (their drop may be unsent). */
void core_load_checkpoint(struct core *core, const struct row_checkpoint *row);
void core_load_artifact(struct core *core, const struct row_artifact *row); /* of loaded jobs */
void core_load_lineage(struct core *core, const struct row_lineage *row);   /* of loaded attempts */
void core_load_report_cursor(struct core *core, const struct row_report_cursor *row); /* same */
void core_load_pending_reason(struct core *core, const struct row_pending_reason *row); /* open */
/* These in this order, behind the jobs; of sweeps that have not ended. */
void core_load_sweep(struct core *core, const struct row_sweep *row);
void core_load_trial(struct core *core, const struct row_trial *row);
void core_load_trial_rung(struct core *core, const struct row_trial_rung *row);
/* Derives the rest; every worker gets a fresh lease and must join again. Returns wake_at_ms. */
uint64_t core_load_end(struct core *core, uint64_t now_ms, uint64_t wall_us);

#define CORE_SUBMITS_MAX 65536u /* remembered submit keys x 80 B = 5 MB */

/* ---- what the core must be told about history -------------------------------------------- */

enum lookup_kind {
    LOOKUP_SUBMIT = 1, /* jobs with `submit_key`, all of them                                  */
    LOOKUP_JOB_ID,     /* the ended job `job_id`                                               */
    LOOKUP_JOB_NAME,   /* the newest ended job `name` in `experiment`, else the newest of all
                          experiments ("" asks all at once)                                    */
    LOOKUP_EXPERIMENT, /* ended jobs of `experiment` that are FAILED or CANCELLED              */
    LOOKUP_DATASET,    /* the job that made the newest artifact of kind "dataset" called `name`:
                          in `experiment`, else anywhere                                       */
    LOOKUP_TWIN,       /* the newest LOOKUP_TWINS_MAX jobs of spec_hash `name` (hex) that
                          succeeded, have an identity and all of their results, and ran
                          themselves                                                           */
    LOOKUP_GARBAGE,    /* at most LOOKUP_GARBAGE_MAX checkpoints and artifacts that may go; those
                          of kind `name` when they were last used `job_id` ms ago              */
    LOOKUP_SWEEP,      /* the newest sweep `name` in `experiment`, else anywhere: while it lives its
                          trials that have ended, afterwards the best one, also as found.trials.
                          job_id is what the core knows of it, so that it asks again when that is
                          no longer so */
};

#define LOOKUP_GARBAGE_MAX 1000 /* the next look finds the rest */
#define LOOKUP_TWINS_MAX 10 /* they differ in inputs or engine; older ones are out of date */

struct core_lookup {
    enum lookup_kind kind;
    const char *name, *experiment; /* live in the event or the arena */
    uint64_t job_id;
    const uint8_t *submit_key;
    uint64_t collections; /* what was read before another one must be read again */
    bool with_parents; /* also the parents of those jobs: rows, checkpoints, artifacts */
};

/* What to read before this event. event.found then holds the rows of all these jobs with their
 * dependencies (child side), checkpoints and artifacts, each once, and of a job that took another's
 * results (reused_job_id) also that job. Returns the count; *out lives
 * in arena. */
size_t core_lookups(const struct core *core, const struct event *event, struct arena *arena,
                    struct core_lookup **out);

/* ---- looking in -------------------------------------------------------------------------- */

/* One constraint that keeps a job from running now. */
struct core_reason {
    const char *reason; /* short name, as in pending_reason: "cores", "dependency", ... */
    const char *detail; /* with figures */
    const char *remedy; /* what would have to change */
};

/* All binding constraints of a live job at the time of the newest step; texts live in arena.
 * Returns the count, 0 for a job whose worker is there, -1 when the job is not live. */
int core_why(const struct core *core, uint64_t job_id, struct arena *arena,
             struct core_reason **out);

/* Whether the job is live and has no worker. */
bool core_waits(const struct core *core, uint64_t job_id);

/* Changes to what a job asks for; per rank as in its spec. Only what `given` names counts. */
enum core_change {
    CORE_CHANGE_CORES = 1,
    CORE_CHANGE_MEMORY = 2,
    CORE_CHANGE_GPUS = 4,
    CORE_CHANGE_RANKS = 8,
    CORE_CHANGE_NODES = 16,
    CORE_CHANGE_WALL_TIME = 32,
};
struct core_changes {
    unsigned given; /* of enum core_change */
    uint64_t cores, memory_bytes, gpus, ranks, nodes, wall_time_ms;
    const char *queue; /* NULL: its own */
};

enum core_starts {
    CORE_STARTS_NOW = 1,
    CORE_STARTS_BY,       /* in in_ms; firm: at the latest, else by the present queue */
    CORE_STARTS_SOMETIME, /* room is kept, the date is not known */
    CORE_STARTS_UNKNOWN,
};
struct core_outlook {
    enum core_starts when;
    uint64_t in_ms;
    bool firm;
    bool ready;       /* false: this is how it would be if the job were ready */
    const char *text; /* the same in a sentence, with workers */
    const char *const *workers;
    size_t worker_count;
    struct core_reason *reasons; /* as of core_why, for what it would ask */
    size_t reason_count;
};
/* When a live job would start by the policy's plan, had it asked for this. Changes nothing. Texts
 * live in arena. Errors: ERR_NOT_FOUND for a job that is not live or an unknown queue,
 * ERR_INVALID for changes that contradict each other. Costs a scheduling pass. */
int core_outlook(struct core *core, uint64_t job_id, const struct core_changes *changes,
                 struct arena *arena, struct core_outlook *out, struct err *err) WARN_UNUSED;

struct core_worker_view {
    uint64_t worker_id;
    const char *name, *drain_reason;
    enum worker_state state;
    bool joined; /* since this leader began */
    bool drained;
    const char *kept_away; /* by quarantine or failing health checks, why; NULL: it is not */
    uint64_t cores, cores_used, memory_bytes, memory_used, gpus, gpus_used;
    uint64_t attempt_count;
    uint64_t silent_ms; /* since the last sign of life */
};
/* Workers in order of id: index from 0. False at the end. */
bool core_worker_at(const struct core *core, size_t index, struct core_worker_view *out);

/* Where an exec goes, if it may: the same that EVENT_EXEC decides. Errors: ERR_NOT_FOUND (no living
 * attempt, or no such rank), ERR_DENIED, ERR_INVALID, ERR_CLOSED (its worker is silent). */
struct core_exec_place {
    uint64_t attempt_id, worker_peer;
    const char *worker;
};
int core_exec_find(const struct core *core, const struct event_exec *event,
                   struct core_exec_place *out, struct err *err) WARN_UNUSED;
/* Whether the attempt still has a part on the worker behind this peer. */
bool core_exec_lives(const struct core *core, uint64_t attempt_id, uint64_t worker_peer);

/* The secrets that an attempt may have on the worker behind this peer. Errors: ERR_DENIED: it has
 * no part there. */
struct spec_variable;
struct core_secrets {
    const char *account;               /* whose they are */
    const char *project;               /* or whose, if not the account's; "": may not use it now */
    const struct spec_variable *items; /* name in the job -> name of the secret */
    size_t count;
};
int core_secrets_find(const struct core *core, uint64_t attempt_id, uint64_t worker_peer,
                      struct arena *arena, struct core_secrets *out, struct err *err) WARN_UNUSED;

/* Whether an account may set and remove secrets of a project: operators, and members of one that is
 * not open to everybody. Errors: ERR_NOT_FOUND, ERR_DENIED. */
int core_secret_right(const struct core *core, const char *project, const char *account,
                      bool is_operator, struct err *err) WARN_UNUSED;

struct core_counts {
    uint64_t jobs_by_state[JOB_STATE_END]; /* live ones only */
    uint64_t attempts, workers_usable, experiments, classes;
    uint64_t passes, placements, placements_refused, steps; /* since the core was made */
};
void core_counts(const struct core *core, struct core_counts *out);

/* Checks the invariants that can be seen in memory; thorough: also the indexes, at a cost that
 * grows with the number of jobs. NULL, or which is broken (in arena). */
const char *core_check(const struct core *core, bool thorough, struct arena *arena);

/* Everything durable that the core holds, as text in a defined order: equal texts, equal states
 * (invariant 6). */
void core_dump(const struct core *core, struct buf *out);

#endif
