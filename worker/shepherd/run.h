/* run.h - one attempt on one node, from its plan to FINISHED.
 *
 * run.c     the life of the run as a table, the ladder, the loop
 * ranks.c   starting ranks, collecting their ends and what they used
 * peers.c   what ends an attempt of several nodes everywhere
 * reports.c accepting report lines, writing the stream into the spool
 * watch.c   wall time, stall, memory
 * diverge.c metrics against the spec's bounds
 * exec.c    programs that people run beside the ranks
 * secrets.c descriptors of the job's secrets for whatever runs in it
 * usage.c   processor time, memory and I/O of ranks as metrics */
#ifndef ATHANOR_SHEPHERD_RUN_H
#define ATHANOR_SHEPHERD_RUN_H

#include "common/base/kinds.h"
#include "worker/attempt/plan.h"
#include "worker/attempt/procs.h"
#include "worker/attempt/spool.h"
#include "worker/shepherd/environment.h"
#include "worker/shepherd/line_server.h"
#include "worker/shepherd/logs.h"
#include "worker/shepherd/mpirun.h"
#include "worker/shepherd/pmix_host.h"
#include "worker/shepherd/poller.h"
#include "worker/shepherd/report_line.h"
#include "worker/shepherd/stack.h"
#include "worker/shepherd/verdict.h"

#include <sys/resource.h>
#include <sys/types.h>

/* A stopped program that listens gets its grace before SIGTERM, and this long after it. */
#define RUN_TERM_MS 5000u
/* What stays of a run in which a rank failed, or all ranks have ended, gets this much. */
#define RUN_PEERS_MS      2000u
#define RUN_KILL_AGAIN_MS 20u
#define RUN_WATCH_MS      500u   /* between looks at memory and stall */
#define RUN_GPU_AGES      3u     /* a sample of GPUs is too old after so many of ours */
#define RUN_PROGRESS_MS   250u   /* at most one progress entry a rank in this time */
#define RUN_LEAVE_MS      5000u  /* a node that ends waits so long for room for our last word */
#define RUN_SYNC_MS       10000u /* a run this long has its end synced to the disk */
#define RUN_REFUSED_MAX   10u    /* refused lines that are told as events */
#define WATCH_STACKS_MAX  8u     /* ranks of a node whose stacks are taken, STACK_WAIT_MS each */
#define WATCH_OTHERS_MS   10000u /* ranks that wait leave it to another node to name the culprit */
#define RUN_PIDS_MAX      4096u  /* ended processes remembered for the sweep of /dev/shm */

enum run_state {
    RUN_UP = 1,
    RUN_ASKED,
    RUN_TERMINATING,
    RUN_KILLING,
    RUN_LINGERING, /* no process is left, but other nodes have yet to find us */
    RUN_OVER,
    RUN_STATE_END,
};
enum run_input {
    INPUT_STOP = 1, /* someone, or a limit, wants it to end        */
    INPUT_FAILED,   /* a rank has ended badly                      */
    INPUT_DONE,     /* all ranks have ended, other processes not   */
    INPUT_DEADLINE, /* the time of this rung is over               */
    INPUT_EMPTY,    /* no process is left                          */
    INPUT_MET,      /* all nodes that look for us have found us    */
    RUN_INPUT_END,
};

struct rank {
    pid_t pid; /* 0: not started */
    bool ended;
    int status; /* of waitpid */
    struct rusage usage;
    /* beacons: steady ms, 0: none yet */
    uint64_t spoke_ms;    /* newest accepted line                        */
    uint64_t progress_ms; /* newest progress line                        */
    unsigned progress_count;
    uint64_t step, total; /* of it                                       */
    char phase[REPORT_NAME_BYTES_MAX + 1];
    bool progress_waits; /* not in the spool yet                        */
    uint64_t spooled_ms;
    struct process_usage sampled;
};

struct run {
    struct plan plan;
    char *folder;
    int folder_fd;                    /* for the control socket's path; kept until it is removed */
    struct environment_places places; /* texts owned here */
    char *made[3];                    /* directories of ours outside of the folder */
    size_t made_count;
    const struct pmix_host *pmix;     /* NULL: not needed */
    const struct gang_host *links;    /* to other nodes; NULL: one node */
    int listen_fd;                    /* for links; -1: none */
    int secrets_fd;                   /* first of plan.secret_count; -1: none */
    int lender_fd;                    /* socket for ranks of mpirun; -1: none */
    struct poller *poller;
    struct line_server *report, *control;
    struct logs *logs;
    int signal_fd, wake_fd;

    struct rank *ranks;
    struct launcher launcher; /* mpirun's, if the plan wants it */
    size_t ended_count;
    pid_t pids[RUN_PIDS_MAX]; /* that have ended, ours first */
    size_t pid_count;
    struct rusage others; /* of processes that were not ranks */

    struct exec *execs;

    enum run_state state;
    uint64_t started_ms, started_us;
    bool leaving;         /* the node ends: it has asked us to, too */
    uint64_t deadline_ms; /* of the present rung; 0: none */
    uint64_t watch_ms;    /* next look */
    uint64_t stalled_ms;  /* since when there is no progress; 0: there is */
    bool stacks_taken;              /* of this stall */
    size_t culprit;                 /* index of the rank they wait for; rank_count: not here */
    enum stack_finding culprit_finding;
    uint64_t full_ms;     /* when the spool was last seen full: then programs wait for us */
    uint64_t sampled_ms;  /* newest sample of what ranks use */
    enum cause stop_cause;
    char stop_text[800];
    uint64_t stop_grace_ms;
    char *launch_error;
    bool node_fault; /* it was the node's fault */
    bool failed;
    unsigned failed_rank;
    uint64_t failed_ms; /* when the first failure here was noticed; 0: none, or heard of */
    char *gave_up; /* the program says why; NULL: it has not */
    bool diverged; /* the program says so */
    char *diverged_text;
    uint64_t diverged_step;             /* where it did, or we found it; 0: not known */
    uint64_t newest_step;               /* of any line */
    uint64_t bad_reports, bad_since;    /* in a row, of the spec's rule; step of the first */
    uint64_t oom_kills_before, memory_peak;
    bool memory_joined; /* ranks are in the group that limits their memory */
    unsigned refused;

    struct spool_writer spool;
    struct arena batch_arena; /* texts of the batch */
    struct rec_report *batch;
    size_t batch_count, batch_capacity, batch_bytes;
    bool spool_broken; /* the disk refuses: said once, tried again */
    uint64_t spool_retry_ms;
};

/* Counted over all nodes, as people and programs see it. */
unsigned run_rank(const struct run *run, unsigned index);

/* peers.c: ends, told to the other nodes of the attempt and heard from them. */
void peers_tell(struct run *run, uint64_t grace_ms); /* of our own failure, once */
void peers_heard(struct run *run);
/* The attempt has failed elsewhere: nothing here is worth waiting for. */
void peers_end(struct run *run, const char *text);
/* The coordinator has given this node up: the others must not wait for it. Does not return. */
void peers_leave(struct run *run) __attribute__((noreturn));

/* gang_load.c. Errors: ERR_NOT_FOUND. */
int gang_host_load(const struct gang_host **out, struct err *err) WARN_UNUSED;

/* Runs to the end, which is FINISHED in the spool. -1: the folder, plan or spool cannot be used,
 * or polling failed. */
struct run_fds {
    int listen;  /* where the links of children arrive, from the daemon; -1: none */
    int secrets; /* the first of the secrets that the plan names; -1: none */
};
int run_attempt(const char *folder, const struct run_fds *fds, struct err *err) WARN_UNUSED;

/* run.c */
void run_input(struct run *run, enum run_input input);
/* Begins the ladder; the first cause stays, a later call may shorten the grace. */
void run_stop(struct run *run, enum cause cause, uint64_t grace_ms, const char *format, ...)
    FORMAT(4, 5);

/* Nothing could be started; the first reason stays. */
void run_launch_failed(struct run *run, const struct err *why);
/* As far as it is known now. */
void run_judge(struct run *run, struct verdict *out);

/* ranks.c */
int ranks_start(struct run *run, struct err *err) WARN_UNUSED;
void ranks_reap(struct run *run);
/* Signals every process of the attempt but the shepherd. */
void ranks_signal(struct run *run, int signal_number);
/* JSON of what the attempt used (mem_free). */
char *ranks_usage(const struct run *run);

/* reports.c: entries are collected and written together; texts are copied. */
void reports_add(struct run *run, const struct rec_report *report);
void reports_flush(struct run *run);
void reports_sync(struct run *run);                  /* and onto the disk */
void reports_tick(struct run *run, uint64_t now_ms); /* progress that waits, a disk that refused */
int reports_open(struct run *run, struct err *err) WARN_UNUSED; /* both sockets */

/* watch.c */
void watch_tick(struct run *run, uint64_t now_ms);
/* Where the ranks are, as events, once in a stall: here, or on another node of the attempt. The
 * suspect first. */
void watch_stacks(struct run *run, unsigned suspect);

/* diverge.c: looks at a metric; may begin the ladder. */
void diverge_metric(struct run *run, unsigned index, const char *name, uint64_t step, double value);

/* exec.c: the daemon listens at `name` in the attempt's folder and hands over what is to run. */
int exec_begin(struct run *run, const char *name, struct err *err) WARN_UNUSED;
/* Whether the ended process was one of these. */
bool exec_reaped(struct run *run, pid_t pid, int status);
void exec_tick(struct run *run, uint64_t now_ms);
void execs_close(struct run *run);

/* secrets.c */
struct secret_fds {
    int fds[PLAN_SECRETS_MAX];
    size_t count;
};
int secrets_open(struct run *run, struct err *err) WARN_UNUSED;
/* Descriptors for one program, close-on-exec: launch.h hands them over. */
int secrets_lend(const struct run *run, struct secret_fds *out, struct err *err) WARN_UNUSED;
void secret_fds_close(struct secret_fds *fds);
void secrets_environment(const struct run *run, const struct secret_fds *fds,
                         struct environment *environment);

/* usage.c */
void usage_tick(struct run *run, uint64_t now_ms);

#endif
