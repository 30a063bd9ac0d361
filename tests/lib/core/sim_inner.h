/* sim_inner.h - shared by the parts of the simulation. */
#ifndef ATHANOR_TESTS_SIM_INNER_H
#define ATHANOR_TESTS_SIM_INNER_H

#include "common/base/buf.h"
#include "common/base/mem.h"
#include "common/base/rng.h"
#include "coordinator/core/core.h"
#include "tests/lib/core/memory_db.h"
#include "tests/lib/core/sim.h"

#define SIM_WORKERS 5
#define SIM_SUBMITS_MAX 40
#define SIM_JOBS_PER_SUBMIT 5
#define SIM_FILE_JOBS 1024
#define SIM_FILE_STEPS 256
#define SIM_ROUNDS 2000u
#define SIM_HEAL_ROUNDS 60000u
#define SIM_BASE_US 1700000000000000u
#define SIM_CLIENT_PEER 1u

/* Chances, in permille per opportunity. */
struct sim_chances {
    uint32_t lose, twice, reorder, cut;
    uint32_t leader_kill, commit_fail, commit_unknown, commit_slow;
    uint32_t daemon_restart, node_loss, disk_loss, clock_jump;
    uint32_t control, resubmit, fail_attempt;
};

enum sim_report_what { SIM_STARTED = 1, SIM_METRIC, SIM_CHECKPOINT, SIM_FINISHED };

struct sim_report {
    enum sim_report_what what;
    uint64_t step;
    enum cause cause;
};

/* An attempt as the node knows it: its shepherd, and its spool. */
struct sim_attempt {
    uint64_t attempt_id, job_id;
    uint64_t step, steps; /* done, in all */
    uint64_t next_ms;     /* of its next step */
    bool running, gone;   /* gone: fenced or acknowledged; remembered by id only */
    bool stopping;
    enum cause stop_cause;
    struct sim_report *reports; /* seq - 1 is the index */
    size_t report_count, report_capacity;
    uint64_t acked, metrics;
    uint64_t sent_ms;
};

enum sim_link { SIM_DOWN = 1, SIM_AWAY, SIM_JOINING, SIM_JOINED };

struct sim_worker {
    uint32_t index;
    char name[16];
    enum sim_link link;
    uint64_t up_ms;      /* when a DOWN node or an AWAY daemon tries again */
    uint64_t incarnation, session, worker_id, epoch;
    uint64_t beat_ms, heard_ms, lease_ms, heartbeat_ms;
    uint64_t cores, gpus;
    struct sim_attempt *attempts;
    size_t attempt_count, attempt_capacity;
};

struct sim_packet {
    uint64_t due_ms, order;
    bool to_leader;
    uint32_t worker;
    uint64_t session, epoch;
    char *bytes; /* a frame */
    size_t length;
};

struct sim_submit {
    uint8_t key[16];
    struct spec *spec;
    bool answered;
    uint64_t next_ms, first_job_id;
    size_t made; /* answers that created jobs: at most one (invariant 10) */
};

struct sim {
    struct sim_options options;
    struct sim_result *result;
    struct rng rng;
    struct sim_chances chances;
    bool healing;
    uint64_t now_ms, wall_shift_us;

    struct core *core; /* NULL while no leader lives */
    struct core_config config;
    struct effects effects; /* of the batch that is open */
    bool committing;
    uint64_t commit_due_ms, leader_up_ms, wake_ms, request_seq;
    uint64_t sessions[SIM_WORKERS]; /* newest that a JOIN came from */

    struct memory_db *db;
    struct sim_worker workers[SIM_WORKERS];
    uint64_t next_session;
    struct sim_packet *packets;
    size_t packet_count, packet_capacity;
    uint64_t packet_order;
    bool files[SIM_FILE_JOBS][SIM_FILE_STEPS]; /* shared storage: checkpoints by job and step */
    struct sim_submit submits[SIM_SUBMITS_MAX];
    size_t submit_count;
    bool bug_done;
    struct arena arena; /* of one round */
    struct err *err;    /* first violation */
    bool violated;
};

bool sim_chance(struct sim *sim, uint32_t permille);
void sim_violation(struct sim *sim, const char *text);
uint64_t sim_wall_us(const struct sim *sim);
/* The files of a checkpoint, by its path "/job/JOB/STEP". */
bool *sim_file(struct sim *sim, const char *path);

/* sim_net.c */
void sim_send(struct sim *sim, uint32_t worker, bool to_leader, uint64_t session, uint64_t epoch,
              const struct message *message);
void sim_session_cut(struct sim *sim, uint32_t worker); /* packets of it are dropped */
void sim_packets_due(struct sim *sim);
void sim_net_done(struct sim *sim);

/* sim_leader.c */
void leader_step(struct sim *sim, struct event *event);
void leader_on_packet(struct sim *sim, uint32_t worker, uint64_t session,
                      const struct message *message);
void leader_round(struct sim *sim);
void leader_kill(struct sim *sim);
uint64_t sim_peer(uint32_t worker, uint64_t session);

/* sim_worker.c */
void worker_init(struct sim *sim, uint32_t index);
void worker_on_message(struct sim *sim, struct sim_worker *worker, uint64_t epoch,
                       const struct message *message);
void worker_round(struct sim *sim, struct sim_worker *worker);
void worker_cut(struct sim *sim, struct sim_worker *worker);
void worker_done(struct sim_worker *worker);
struct sim_attempt *worker_attempt(struct sim_worker *worker, uint64_t attempt_id);

/* sim_client.c */
void client_round(struct sim *sim);
void client_on_answer(struct sim *sim, const struct message *message);
void client_done(struct sim *sim);

/* sim_check.c */
void check_batch(struct sim *sim, const struct effects *effects);   /* rows before they apply */
void check_release(struct sim *sim, const struct outgoing *outgoing); /* invariant 3 */
void check_commit(struct sim *sim);                                 /* invariants of the rows */
void check_rebuilt(struct sim *sim);                                /* invariant 6 */
void check_end(struct sim *sim);                                    /* every job ended, once */
bool check_all_ended(struct sim *sim);

/* sim_bug.c */
void bug_before_step(struct sim *sim);
void bug_in_batch(struct sim *sim, struct effects *effects);

#endif
