/* daemon.h - athanor-worker: one node's side of the coordinator's wishes.
 *
 * daemon.c   joining, heartbeats, messages, leaving
 * attempt.c  the table of attempts: found again, started, ended, swept, removed
 * start.c    from a START message to a running shepherd
 * care.c     the operator's prolog and epilog around an attempt
 * pending.c  STARTs that wait for cores of attempts that are being killed or cleaned up after, or
 *            for their code
 * code.c     the code of jobs: fetched, cached, unpacked
 * copies.c   checkpoints and datasets on other workers: fetched (copies_fetch.c), kept
 *            (copy_cache.c), and given (copies_serve.c)
 * pump.c     spools to the coordinator, acknowledgements back
 * gang.c     attempts on several nodes: finding the parent's shepherd
 * control.c  stop and checkpoint requests to shepherds
 * disk.c         a full disk, while anybody waits for it
 * node_report.c  what is wrong with this node, to the coordinator
 * exec.c     programs that people run beside the ranks
 * enrol.c    the first key, by a one-time token
 * init.c     as the first process of a container
 * until.c    nodes that are ours for a while
 *
 * The daemon keeps nothing that it could not find again: attempts are folders
 * (worker/attempt/README.md), running ones are known by their locks. */
#ifndef ATHANOR_DAEMON_DAEMON_H
#define ATHANOR_DAEMON_DAEMON_H

#include "common/base/hash.h"
#include "common/base/kinds.h"
#include "common/net/lines.h"
#include "common/net/loop.h"
#include "common/net/peer.h"
#include "worker/attempt/plan.h"
#include "worker/attempt/procs.h"
#include "worker/attempt/spool.h"
#include "worker/daemon/account.h"
#include "worker/daemon/claims.h"
#include "worker/daemon/code.h"
#include "worker/daemon/copies.h"
#include "worker/daemon/gang.h"
#include "worker/daemon/health.h"
#include "worker/daemon/inventory.h"
#include "worker/daemon/nursery.h"
#include "worker/daemon/options.h"
#include "worker/daemon/secrets.h"
#include "worker/daemon/slots.h"

#include <sys/types.h>

#define DAEMON_ATTEMPTS_MAX     65536u /* folders a worker keeps during a long outage */
#define DAEMON_TICK_MS          500u   /* for what no event announces */
#define DAEMON_COMPLAIN_MS      60000u
#define DAEMON_JOIN_AGAIN_MS    2000u
#define DAEMON_CONTROL_AGAIN_MS 200u
#define DAEMON_SWEEP_AGAIN_MS   50u
#define DAEMON_FENCE_MS         500u   /* for a shepherd's good-bye to other nodes */
#define DAEMON_LEAVE_MS         15000u /* for last reports to be acknowledged when leaving */
#define PUMP_WINDOW             4u     /* unacknowledged REPORT messages of an attempt */
#define PUMP_AGAIN_MS           10000u /* silence after which unacknowledged reports are repeated */
#define REMEMBERED_MAX          4096u  /* ended attempts whose repeated START is ignored */

enum attempt_state {
    ATTEMPT_RUNNING = 1, /* its shepherd lives                                     */
    ATTEMPT_PREPARING,   /* the prolog runs; there is no shepherd yet               */
    ATTEMPT_SWEEPING,    /* the shepherd died; its processes are being killed       */
    ATTEMPT_ENDED,       /* FINISHED is in the spool, waiting to be acknowledged    */
    ATTEMPT_FENCED,      /* killed and removed without a word                       */
    ATTEMPT_STATE_END,
};

struct attempt {
    struct daemon *daemon;
    struct attempt *next;
    uint64_t attempt_id, job_id, epoch, node; /* node: index within the attempt */
    enum attempt_state state;
    char *folder, *cgroup, *memory_cgroup, *device_cgroup; /* cgroups "": none */
    struct attempt_gang *gang; /* NULL: on this node only */

    struct hook *hook;  /* the prolog, epilog or look at a GPU that runs; NULL: none */
    struct loop_timer care_timer; /* until the next look */
    size_t gpu_at, gpu_count;     /* the one looked at */
    uint64_t gpu_until_ms;
    char *gpu_fault;    /* what was found; NULL: nothing */
    bool cared_for;     /* prepared for its ranks: the epilog is due */
    bool cleaning;      /* it has ended, but keeps its slots until the epilog has */
    bool node_fault;    /* FINISHED is to say so */
    struct account account; /* that its ranks run as */
    int listen_fd;      /* for the shepherd, until it is started; -1: none */
    struct secret_fds secrets; /* for the shepherd, until it is started */
    bool is_single;     /* of one rank in all: the nursery's */

    pid_t pid; /* of the shepherd; 0: not known yet */
    bool is_child;
    int pidfd; /* -1: none */
    struct loop_watch *pid_watch;
    struct loop_timer sweep_timer;
    struct process_list swept; /* processes that the sweep has met */
    enum cause lost_cause; /* what to write as FINISHED after the sweep */
    char *lost_text;
    bool end_known; /* both are final: only room on the disk is missing */

    /* pump */
    struct spool_reader reader;
    int spool_watch;              /* inotify; -1: none */
    uint64_t acked;               /* sequence */
    uint64_t sent;                /* newest sequence sent in this session */
    uint64_t lost_until;          /* up to here numbers are missing; 0: none are */
    uint64_t window[PUMP_WINDOW]; /* last sequence of each unacknowledged message, oldest first */
    size_t window_count;
    uint64_t sent_ms, dropped_ms;
    bool finished_seen; /* FINISHED has been read from the spool */

    /* control: texts to hand to the shepherd, one at a time */
    char *stop_text; /* kept until the shepherd has accepted it */
    char *checkpoint_text;
    int control_fd;
    struct loop_watch *control_watch;
    struct lines control_in;
    struct lines_out control_out;
    struct loop_timer control_timer;
};

struct daemon {
    const struct options *options;
    struct loop *loop;
    struct peer *peer;
    struct inventory inventory;
    struct claims claims;
    struct slots slots;
    char *catalogue;   /* JSON */
    char engine_hash[HASH_HEX_SIZE]; /* of the program, taken at start; "": not readable */
    bool private_shm; /* attempts get a /dev/shm of their own */
    char *cgroup_base, *cgroup_memory_base, *cgroup_device_base; /* NULL: none */
    struct nursery nursery;
    char *attempts_dir;
    uint64_t incarnation;
    uint64_t epoch;     /* newest seen; older ones are refused; kept in <state>/epoch */
    uint64_t worker_id; /* 0: not joined in this session */
    char principal[128]; /* whom the coordinator takes us for */
    uint64_t heartbeat_ms, lease_ms; /* of the newest welcome */
    struct server *neighbours; /* for daemons of other nodes; NULL: --links none */
    char *links_address, *links_endpoint; /* as told to other nodes */
    struct keypair keys;
    struct meeting *meetings;
    struct pending *pending; /* in order of arrival */
    struct hook *gpu_hook;   /* a look at a withheld GPU */
    size_t gpu_look;         /* which */
    uint64_t gpu_looked_ms;
    struct hook *sample_hook; /* a sample of what GPUs do (gpu_sampler.c) */
    uint64_t sampled_ms;
    char *gpu_usage;         /* file with the newest */
    bool sample_failed;      /* said so */
    struct health *health;   /* NULL: no checks */
    char *health_text;       /* which of them fail; NULL: not known yet */
    bool found_attempts;     /* of an earlier daemon */
    char *disk_text;         /* "": it is not full, or nobody waits; NULL: not looked at yet */
    struct node_report *node_reports; /* oldest first */
    size_t node_report_count;
    uint64_t node_stamp;     /* newest given to one, or taken by the coordinator */
    uint64_t node_report_ms; /* when one was sent last */
    bool retrying;           /* pending ones: what they wait for has been said */
    struct isolation *isolation;
    struct code *code;
    struct copies *copies;
    struct attempt_secrets *secrets; /* of attempts that wait for them */
    struct loop_timer heartbeat_timer, join_timer, tick_timer, watchdog_timer, leave_timer;
    bool leaving; /* stop jobs, then end */
    bool interrupted;
    uint64_t until_ms; /* steady: nothing is left running then; 0: no end */
    uint64_t busy_ms;  /* steady: when there was something to do */
    bool forced;       /* attempts were stopped without the coordinator's word */
    struct loop_timer until_timer;
    uint64_t complained_ms; /* when we last said that nobody can be reached; 0: never */

    struct exec *execs;
    size_t exec_count;
    struct attempt *attempts; /* newest first */
    size_t attempt_count;
    int inotify_fd;
    struct arena pump_arena; /* of what a pump reads; kept, for its pages cost as much as that */
    uint64_t remembered[REMEMBERED_MAX]; /* ring of ended attempt ids */
    size_t remembered_at;
};

/* Runs until told to end. Errors: what kept it from starting, or its loop from polling. */
int daemon_run(const struct options *options, struct err *err) WARN_UNUSED;
/* enrol.c: makes and enrols this worker's key by a one-time token. Errors: as enrol_run. */
int daemon_enrol(const struct options *options, struct err *err) WARN_UNUSED;
/* What is offered has changed: the coordinator is told by a join. */
void daemon_offer_anew(struct daemon *daemon);
void daemon_leave(struct daemon *daemon); /* ends; says goodbye when nothing is left */
/* until.c */
void until_open(struct daemon *daemon);
uint64_t until_ends_in_ms(const struct daemon *daemon); /* for WORKER_JOIN */
bool until_leave(struct daemon *daemon); /* on SIGTERM; false: the node is ours for good */
void until_tick(struct daemon *daemon);
/* init.c: as process 1 stays behind as a parent that waits for everybody; returns in a child. */
int init_if_first(struct err *err) WARN_UNUSED;
/* Called when an attempt is gone for good: a leaving daemon may be able to end. */
void daemon_attempt_gone(struct daemon *daemon);

/* attempt.c */
struct attempt *attempt_find(struct daemon *daemon, uint64_t attempt_id);
bool attempt_remembered(const struct daemon *daemon, uint64_t attempt_id);
/* Adds one in state RUNNING whose folder exists; watches its spool. */
struct attempt *attempt_add(struct daemon *daemon, uint64_t attempt_id, const char *folder);
/* Watches the shepherd's life through its pid, or the pidfd of it (-1: made here). */
void attempt_watch(struct attempt *attempt, pid_t pid, int pidfd, bool is_child);
/* Writes FINISHED in the shepherd's stead and frees the slots. */
void attempt_finish(struct attempt *attempt, enum cause cause, const char *text);
/* Starts its shepherd. */
int attempt_launch(struct attempt *attempt, struct err *err) WARN_UNUSED;
/* The node is as before it: frees the slots; the attempt may be freed. */
void attempt_cleaned(struct attempt *attempt);
/* Kills everything at once and forgets it. */
void attempt_fence(struct attempt *attempt);
/* The coordinator has FINISHED: removes the folder. The attempt is freed. */
void attempt_remove(struct attempt *attempt);
int attempts_discover(struct daemon *daemon, struct err *err) WARN_UNUSED;
void attempts_tick(struct daemon *daemon);
void attempts_close(struct daemon *daemon); /* forgets them; shepherds run on */

/* start.c */
void start_attempt(struct daemon *daemon, const struct msg_start *start, uint64_t epoch);
bool start_has_room(const struct daemon *daemon, const struct msg_start *start);
/* A message is borrowed for its callback: this one is the arena's. */
int start_copy(const struct msg_start *start, struct arena *arena, struct msg_start *out,
               struct err *err) WARN_UNUSED;

/* care.c. Errors of care_before: what kept the shepherd from starting. */
int care_before(struct attempt *attempt, struct err *err) WARN_UNUSED;
void care_stop(struct attempt *attempt, enum cause cause); /* while PREPARING */
bool care_is_wanted(const struct attempt *attempt);
void care_after(struct attempt *attempt);
void care_cancel(struct attempt *attempt);
/* Looks whether withheld GPUs have come free. */
void care_tick(struct daemon *daemon);

/* isolation.c */
void isolation_open(struct daemon *daemon);
void isolation_close(struct daemon *daemon);
/* Before its shepherd starts; name: of the attempt's groups. What keeps it from working is logged
 * once. */
void isolation_apply(struct attempt *attempt, const char *name);

/* gpu_sampler.c */
void gpu_sampler_tick(struct daemon *daemon);

/* removal.c. Removes what lies at the path, if it is that (a zero hash: whatever it is), at once
 * for everybody else; 0 also when nothing does. with_parents: and folders that are empty then. */
int removal_do(struct daemon *daemon, const char *path, const struct hash *content,
               bool with_parents, struct err *err) WARN_UNUSED;
void removal_on_remove(struct daemon *daemon, const struct msg_remove *remove);
void removed_send(struct daemon *daemon, uint64_t removal_id, const char *failure); /* "": done */
void removals_finish(struct daemon *daemon); /* what an earlier daemon was removing */

/* daemon.c: the state of health checks and disk, as it is now. */
void health_tell(struct daemon *daemon);

/* disk.c */
char *disk_full_text(const char *folder); /* mem_free; "": there is room */
void disk_tick(struct daemon *daemon);

/* node_report.c. kind: as in NODE_REPORT. */
void node_report_add(struct daemon *daemon, const char *kind, bool severe, const char *text,
                     uint64_t job_id, uint64_t attempt_id);
void node_report_acked(struct daemon *daemon, uint64_t stamp);
void node_report_tick(struct daemon *daemon);
void node_reports_close(struct daemon *daemon);

/* pending.c */
bool pending_must_wait(const struct daemon *daemon, const struct msg_start *start);
bool pending_has(const struct daemon *daemon, uint64_t attempt_id);
void pending_add(struct daemon *daemon, const struct msg_start *start, uint64_t epoch);
void pending_retry(struct daemon *daemon);
void pending_wake(struct daemon *daemon); /* something has ended: try again soon */
void pending_stop(struct daemon *daemon, uint64_t attempt_id, enum cause cause);
void pending_forget(struct daemon *daemon, uint64_t attempt_id);
void pending_close(struct daemon *daemon);

/* pump.c */
void pump_attempt(struct attempt *attempt); /* sends what the window allows */
void pump_rewind(struct attempt *attempt);  /* a new session: everything unacknowledged again */
void pump_ack(struct attempt *attempt, uint64_t seq);

/* control.c */
void control_stop(struct attempt *attempt, enum cause cause, uint64_t grace_ms);
void control_checkpoint(struct attempt *attempt);
void control_close(struct attempt *attempt);

/* exec.c */
void exec_start(struct daemon *daemon, const struct msg_exec_start *start);
void exec_message(struct daemon *daemon, const struct message *message);
void execs_close(struct daemon *daemon, const char *why); /* all; tells whom it can */

#endif
