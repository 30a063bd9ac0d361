/* sim_inner.h - shared by the parts of the simulation. */
#ifndef ATHANOR_TESTS_SIM_INNER_H
#define ATHANOR_TESTS_SIM_INNER_H

#include "common/base/buf.h"
#include "common/base/mem.h"
#include "common/base/rng.h"
#include "coordinator/core/core.h"
#include "tests/lib/core/memory_db.h"
#include "tests/lib/core/sim.h"

#define SIM_COORDINATORS 3u
#define SIM_WORKERS 8u
#define SIM_SUBMITS_MAX 40u
#define SIM_JOBS_PER_SUBMIT 8u
#define SIM_EXPERIMENTS 4u
#define SIM_FILE_JOBS 1024u
#define SIM_FILE_STEPS 256u
#define SIM_ORPHANS 8u
#define SIM_PUBLIC_KEY "0123456789012345678901234567890123456789"
#define SIM_COPIES 4u /* that a worker keeps */
#define SIM_STURDY 3u /* workers that always come back, large enough for every job */
#define SIM_ARTIFACT_NAME "made"
#define SIM_ROUNDS 1500u
#define SIM_HEAL_ROUNDS 60000u
#define SIM_BASE_US 1700000000000000u

/* Everybody who can be cut off from anybody. */
enum sim_place {
    SIM_AT_COORDINATOR = 0,
    SIM_AT_WORKER = SIM_COORDINATORS,
    SIM_AT_PEOPLE = SIM_AT_WORKER + SIM_WORKERS,
    SIM_AT_DATABASE,
    SIM_PLACES,
};

/* A steady clock that runs too slow or too fast, and a wall clock that may be set. */
struct sim_clock {
    uint32_t rate; /* permille of true time */
    uint64_t wall_shift_us;
};

/* ---- the database ------------------------------------------------------------------------ */

enum sim_outcome { SIM_COMMITTED = 1, SIM_REFUSED, SIM_FENCED, SIM_WRITTEN };

enum sim_phase {
    SIM_IDLE = 0,
    SIM_SENT,      /* executes at due_ms                                      */
    SIM_ANSWERED,  /* the outcome is known to the coordinator at due_ms       */
    SIM_CUT_OFF,   /* the connection broke: looks at the lease row at due_ms  */
};

struct sim_transaction {
    enum sim_phase phase;
    uint64_t due_ms;
    enum sim_outcome outcome;
    uint32_t holder;
    uint64_t epoch, batch;
};

struct sim_database {
    struct memory_db *rows;
    uint64_t epoch, batch, expires_ms; /* the lease row; expires by the database's own clock */
    uint32_t holder;
    uint64_t away_until_ms;
    struct { /* sent by processes that have died since */
        struct sim_transaction transaction;
        struct effects effects;
    } orphans[SIM_ORPHANS];
};

/* ---- coordinators ------------------------------------------------------------------------ */

enum sim_role { SIM_DOWN = 1, SIM_STANDBY, SIM_LEADING };

struct sim_coordinator {
    uint32_t index;
    enum sim_role role;
    struct sim_clock clock;
    uint64_t up_ms;           /* when it starts again, while DOWN */
    uint64_t paused_until_ms; /* stopped by a signal; wakes with what it believed */
    uint64_t try_ms;          /* next look at the lease, own steady time */
    struct core *core;        /* while LEADING */
    struct core_config config;
    struct effects sets[2];   /* as in coordinator/shell/outbox.h */
    int filling;
    struct sim_transaction transaction;
    struct sim_transaction ghost; /* the same batch, sent before the connection broke */
    uint64_t batch;           /* newest begun */
    uint64_t begun_ms;        /* its time, own steady clock */
    uint64_t lease_until_ms;  /* own steady time up to which it surely leads */
    uint64_t wake_ms;         /* own steady time; 0: none */
    bool dirty;               /* events since the last tick */
    uint64_t sessions[SIM_WORKERS]; /* newest that a JOIN came from */
    size_t *parked;           /* requests that wait for a commit (coordinator/shell/parked.c) */
    size_t parked_count, parked_capacity;
};

/* ---- nodes ------------------------------------------------------------------------------- */

enum sim_report_what { SIM_STARTED = 1, SIM_METRIC, SIM_CHECKPOINT, SIM_ARTIFACT, SIM_FINISHED };

struct sim_report {
    enum sim_report_what what;
    uint64_t step;
    enum cause cause;
    bool node_fault;
};

/* What an attempt really did on one of its nodes, for ever: its reports in order; seq - 1 is the
 * index. */
struct sim_truth {
    struct sim_truth *next; /* of another node of the attempt */
    uint64_t attempt_id, job_id, node;
    uint32_t worker;
    struct sim_report *reports;
    size_t count, capacity;
    uint64_t stored;          /* reports that the rows have, by their cursor */
    uint64_t metrics, in_rows; /* metrics among those, and those that rows hold */
    uint64_t newest_row;      /* greatest number of a metric in a row */
};

/* An attempt as its node knows it: the shepherd and the spool. */
struct sim_attempt {
    uint64_t attempt_id, job_id;
    struct sim_truth *truth;
    uint64_t node, node_count; /* of the attempt: which this is, of how many; 0: of one */
    uint64_t cores, gpus;
    bool save_now;         /* asked for a checkpoint */
    uint64_t step, steps;  /* done, in all */
    uint64_t next_ms;      /* of its next step; this and others: the node's steady time */
    bool waiting;          /* for cores that a dying one still holds */
    bool running;          /* holds cores */
    bool gone;             /* fenced or acknowledged; remembered by id only */
    bool hung;             /* makes no steps; ends when it is stopped */
    bool deaf;             /* its shepherd does not see to the limit of wall time */
    bool stopping;
    enum cause stop_cause;
    uint64_t wall_due_ms;  /* 0: no limit */
    uint64_t acked, sent;  /* reports */
    uint64_t sent_ms;
};

enum sim_link { SIM_OFF = 1, SIM_AWAY, SIM_JOINING, SIM_JOINED };

struct sim_worker {
    uint32_t index;
    char name[16];
    struct sim_clock clock;
    enum sim_link link;
    uint32_t target;     /* coordinator it talks to, or tries next */
    uint64_t up_ms;      /* when a node that is OFF, or a daemon that is AWAY, tries again */
    bool for_ever;       /* OFF, and will not come back */
    uint64_t paused_until_ms;
    uint64_t incarnation, session, worker_id, epoch;
    uint64_t beat_ms, heard_ms, lease_ms, heartbeat_ms;
    uint64_t cores, gpus;
    const char *zone;    /* label; NULL: has none */
    bool small, slow;    /* labels vram and slow */
    const char *model;   /* of its GPUs, for life */
    bool is_met;         /* others can reach it: it takes parts of gangs */
    bool ill, ill_told;  /* a health check fails; what the newest report of it said */
    bool health_told;    /* this daemon has said anything of it */
    bool incident;       /* an epilog has failed, and is to be told */
    uint64_t stamp;      /* newest given to a NODE_REPORT, or told by the welcome */
    uint64_t stamp_open; /* of the one that is not acknowledged; 0: none */
    bool open_is_health;
    uint64_t told_ms;
    struct sim_copy {
        struct hash content;
        uint64_t fetched_us;
    } copies[SIM_COPIES]; /* oldest first */
    size_t copy_count;
    bool copies_told; /* in this session, as they are */
    struct sim_attempt *attempts;
    size_t attempt_count, attempt_capacity;
};

/* ---- people ------------------------------------------------------------------------------ */

struct sim_submit {
    uint8_t key[16];
    struct spec *spec;
    const char *account;
    bool reaches_out; /* needs jobs of other submits, and may be refused for that */
    bool answered;
    uint64_t next_ms, first_job_id;
};

enum sim_request_kind { SIM_SUBMIT = 1, SIM_CONTROL, SIM_CONFIGURE };

struct sim_request {
    enum sim_request_kind kind;
    size_t submit;            /* index of it */
    const char *action, *target; /* of CONFIGURE: action and table */
    char value[24];              /* and name; then one setting and its value */
    const char *setting;
    char to[24];
    const char *scope_part;      /* of a quota: user, project, queue; NULL: it is none */
    char scope_name[8];
    uint64_t deadline_us;        /* of a drain; 0: none */
    uint64_t from_us, until_us;  /* of a reservation */
};

#define SIM_QUEUES 3u
#define SIM_PROJECTS 3u
extern const char *const sim_queues[SIM_QUEUES], *const sim_projects[SIM_PROJECTS];

/* ---- the whole --------------------------------------------------------------------------- */

struct sim_packet {
    uint64_t due_ms, order;
    uint32_t from, to; /* places */
    uint64_t session, epoch;
    char *bytes;       /* a frame; NULL: `request` */
    size_t length, request;
    bool ends_session; /* when it is lost */
};

struct sim_file {
    bool there;
    uint64_t content; /* attempt that wrote it */
};

/* What a seed draws once. */
struct sim_swarm {
    uint32_t chances[SIM_FAULT_END]; /* permille */
    uint32_t coordinators, workers;
    uint32_t submit_every;           /* rounds, on average */
    uint32_t gpu_jobs, limited_jobs, held_jobs, needy_jobs; /* permille of jobs */
    uint32_t arrays, sweeps, queued_jobs, gangs, lonely;    /* of submits; of jobs */
    uint32_t choosy, best;  /* of jobs: name labels, GPU models; read the best trial of a sweep */
    uint64_t leader_ms;
};

struct judge;

struct sim {
    struct sim_options options;
    struct sim_result *result;
    struct sim_swarm swarm;
    struct rng rng;                       /* of everything but faults */
    struct rng fault_rngs[SIM_FAULT_END]; /* one each: switching one off moves no other */
    bool healing;
    uint64_t now_ms, healed_ms;
    struct core_config config;
    struct sim_database database;
    struct sim_coordinator coordinators[SIM_COORDINATORS];
    struct sim_worker workers[SIM_WORKERS];
    uint64_t cut_until_ms[SIM_PLACES][SIM_PLACES]; /* from, to */
    uint64_t newest_due_ms[SIM_PLACES][SIM_PLACES];
    uint64_t next_session;
    struct sim_packet *packets; /* a heap, the next one first */
    size_t packet_count, packet_capacity;
    uint64_t packet_order;
    struct sim_truth **truths; /* by attempt_id, one for each node */
    size_t truth_count;
    struct sim_file files[SIM_FILE_JOBS][SIM_FILE_STEPS]; /* shared storage, by job and step */
    struct sim_submit submits[SIM_SUBMITS_MAX];
    size_t submit_count;
    struct sim_request *requests;
    size_t request_count, request_capacity;
    uint32_t people_target; /* coordinator that they talk to */
    struct judge *judge;
    bool stretched;     /* by SIM_BUG_OVERBOOK, around a step; as is: */
    bool swapped, turned;
    size_t windows_hidden;
    void *hidden[SIM_WORKERS + 1]; /* labels, GPUs */
    size_t hidden_counts[SIM_WORKERS + 1];
    struct arena arena; /* of one round */
    struct err *err;    /* first violation */
    bool violated;
};

/* ---- sim.c ------------------------------------------------------------------------------- */
bool sim_fault(struct sim *sim, enum sim_fault fault); /* draws; counts when it happens */
bool sim_permille(struct sim *sim, uint32_t permille);
uint64_t sim_between(struct sim *sim, uint64_t least, uint64_t most);
void sim_violation(struct sim *sim, const char *format, ...) FORMAT(2, 3);
bool sim_has_bug(const struct sim *sim, enum sim_bug bug); /* planted, and it is time */
uint64_t clock_ms(const struct sim *sim, const struct sim_clock *clock);
uint64_t clock_us(const struct sim *sim, const struct sim_clock *clock);
/* The files of a checkpoint, by its path "/job/JOB/STEP". */
struct sim_file *sim_file(struct sim *sim, const char *path);

/* ---- sim_trace.c ------------------------------------------------------------------------- */
void trace_line(struct sim *sim, const char *format, ...) FORMAT(2, 3);
void trace_bytes(struct sim *sim, const void *bytes, size_t length); /* into the hash */
void trace_effects(struct sim *sim, uint32_t coordinator, const struct effects *effects,
                   size_t first_row, size_t first_message);

/* ---- sim_net.c --------------------------------------------------------------------------- */
bool net_is_cut(const struct sim *sim, uint32_t from, uint32_t to);
void net_send(struct sim *sim, uint32_t from, uint32_t to, uint64_t session, uint64_t epoch,
              const struct message *message);
void net_request(struct sim *sim, uint32_t coordinator, size_t request);
void net_faults(struct sim *sim);
void net_round(struct sim *sim);
void net_heal(struct sim *sim);
void net_done(struct sim *sim);

/* ---- sim_db.c ---------------------------------------------------------------------------- */
void database_init(struct sim *sim);
void database_round(struct sim *sim);
bool database_reaches(const struct sim *sim, uint32_t coordinator);
/* True: the lease was free, or taken by force; the epoch has risen. */
bool database_lease_take(struct sim *sim, struct sim_coordinator *coordinator, bool by_force);
void database_send(struct sim *sim, struct sim_coordinator *coordinator);
/* A process died: what it had sent may still be executed. */
void database_orphan(struct sim *sim, struct sim_coordinator *coordinator);
void database_heal(struct sim *sim);
void database_done(struct sim *sim);

/* ---- sim_leader.c ------------------------------------------------------------------------ */
void coordinator_init(struct sim *sim, uint32_t index);
void coordinator_round(struct sim *sim, struct sim_coordinator *coordinator);
void coordinator_on_packet(struct sim *sim, struct sim_coordinator *coordinator,
                           const struct sim_packet *packet, const struct message *message);
void coordinator_on_request(struct sim *sim, struct sim_coordinator *coordinator, size_t request);
void coordinator_heal(struct sim *sim, struct sim_coordinator *coordinator);
void coordinator_done(struct sim_coordinator *coordinator);
struct effects *coordinator_flying(struct sim_coordinator *coordinator);
/* The one whose epoch is the database's; NULL while there is none. */
struct sim_coordinator *coordinator_true(struct sim *sim);
bool coordinator_is_quiet(const struct sim_coordinator *coordinator); /* nothing waits */

/* ---- sim_worker.c ------------------------------------------------------------------------ */
void worker_init(struct sim *sim, uint32_t index);
void worker_on_message(struct sim *sim, struct sim_worker *worker, uint64_t epoch,
                       const struct message *message);
void worker_round(struct sim *sim, struct sim_worker *worker);
void worker_cut(struct sim *sim, struct sim_worker *worker); /* its session has ended */
void worker_heal(struct sim *sim, struct sim_worker *worker);
void worker_done(struct sim_worker *worker);
/* What of an attempt one of its nodes did; NULL: it never began there. */
struct sim_truth *sim_truth(const struct sim *sim, uint64_t attempt_id, uint64_t node);
bool worker_is_clean(const struct sim_worker *worker); /* joined, nothing runs or waits */

/* ---- sim_client.c, sim_jobs.c ------------------------------------------------------------- */
void people_round(struct sim *sim);
void people_on_answer(struct sim *sim, uint32_t coordinator, const struct message *message);
void people_done(struct sim *sim);
void jobs_draw(struct sim *sim, struct sim_submit *submit);

/* ---- sim_check.c ------------------------------------------------------------------------- */
struct judge *judge_new(void);
void judge_free(struct judge *judge);
/* A batch, before and after it is applied. */
void judge_rows(struct sim *sim, const struct effects *effects);
void judge_commit(struct sim *sim, const struct effects *effects);
/* A message as it is released (invariant 3). */
void judge_release(struct sim *sim, const struct outgoing *outgoing);
/* A worker starts an attempt that it did not know; it kills one that it runs. */
void judge_started(struct sim *sim, const struct sim_worker *worker,
                   const struct msg_start *start);
void judge_source(struct sim *sim, const struct sim_worker *reader,
                  const struct rec_copy_source *source);
void judge_fenced(struct sim *sim, const struct sim_worker *worker,
                  const struct sim_attempt *attempt);
/* What was submitted as that job, which the rows must have. */
const struct spec_job *judge_spec(const struct sim *sim, uint64_t job_id);
/* A person asked this of a job or of all jobs of an experiment. */
void judge_asked(struct sim *sim, const struct sim_request *request);
/* Invariant 6; only between batches: memory runs ahead of the rows. */
void judge_rebuilt(struct sim *sim, struct sim_coordinator *coordinator);
bool judge_all_ended(struct sim *sim);
void judge_end(struct sim *sim);

/* The attempts that have not ended, by the rows. */
size_t judge_live(const struct sim *sim, const uint64_t **out);

/* ---- sim_quota.c ------------------------------------------------------------------------- */
struct sim_request quota_draw(struct sim *sim);
bool quota_lift(const struct sim *sim, size_t *from, struct sim_request *out);
/* The job was placed by this batch, which is in the rows. */
void judge_quotas(struct sim *sim, const struct effects *effects, uint64_t job_id);

/* ---- sim_bug.c --------------------------------------------------------------------------- */
void bug_before_step(struct sim *sim, struct core *core, const struct event *event);
void bug_after_step(struct sim *sim, struct core *core, const struct event *event);
void bug_in_batch(struct sim *sim, struct effects *effects);

#endif
