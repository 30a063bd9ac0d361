/* event.h - everything that can happen to the core. Each event carries its own time.
 *
 * Everything an event points to is borrowed for the call. Peers are the shell's tokens: whatever
 * names the connection an answer should go to. */
#ifndef ATHANOR_CORE_EVENT_H
#define ATHANOR_CORE_EVENT_H

#include "common/spec/spec.h"
#include "common/wire/wire.h"
#include "coordinator/rows/rows.h"

enum event_kind {
    EVENT_TICK = 1,      /* time passed, or input is drained: timers, then placement */
    EVENT_SUBMIT,
    EVENT_CONTROL,
    EVENT_WORKER_JOIN,
    EVENT_HEARTBEAT,
    EVENT_WORKER_LEAVE,
    EVENT_REPORTS,
    EVENT_CONFIGURE,
    EVENT_NODE_REPORT,
    EVENT_CODE_OFFER,
    EVENT_CODE_PUT,
    EVENT_EXEC,
    EVENT_COLLECT,
    EVENT_REMOVED,
    EVENT_COPIES,
    EVENT_END,
};

/* Rows of history that the event speaks of and the core no longer holds; the shell reads them
 * from the database as core_lookups (core.h) asked. All zero when nothing was asked or found. */
struct event_found {
    const struct row_job *jobs; /* ended jobs, and the jobs of a repeated submit */
    size_t job_count;
    const struct row_job_dependency *dependencies; /* of those jobs, child side */
    size_t dependency_count;
    const struct row_checkpoint *checkpoints; /* of those jobs, not removed */
    size_t checkpoint_count;
    const struct row_artifact *artifacts; /* of those jobs */
    size_t artifact_count;
    const struct row_removal *removals; /* LOOKUP_GARBAGE: what may go, without a number yet */
    size_t removal_count;
    const struct row_trial *trials; /* LOOKUP_SWEEP: the best of sweeps that have ended, values as
                                       in athanor.trials; reports 0: none has a value */
    size_t trial_count;
};

/* Secrets that are stored; the core knows nothing else of them. */
struct secret_name {
    const char *project; /* all of its jobs may name it; "": the account's own */
    const char *name;
};

struct event_submit {
    uint64_t client;           /* peer of the answer */
    uint64_t request_seq;
    const char *account;
    const uint8_t *submit_key; /* 16 bytes, CHECKed by the shell */
    const struct spec *spec;   /* validated against the catalogue */
    const char *source;        /* the YAML as submitted */
    bool check_only;           /* answer CHECKED, keep nothing */
    bool reuse;                /* take results of identical jobs (reuse.c) */
    const struct secret_name *secrets; /* of the account and of the spec's projects; sorted */
    size_t secret_count;
    struct event_found found;
};

struct event_control {
    uint64_t client;
    uint64_t request_seq;
    const char *account;
    bool may_act_for_others; /* role operator or admin */
    const struct msg_control *control;
    struct event_found found;
};

/* Operators change what may be used by whom: queues, projects, quotas, reservations. */
struct event_configure {
    uint64_t client;
    uint64_t request_seq;
    const char *account;
    bool is_operator; /* role operator or admin */
    const struct msg_configure *configure;
    const char *const *principals; /* names of all enrolled keys; NULL: not to be checked */
    size_t principal_count;
    size_t secret_count; /* of the project that is configured */
};

/* A client offers an archive of code, or sends a chunk of one. */
struct event_code {
    uint64_t client;
    uint64_t request_seq;
    const char *account;
    const struct msg_code_offer *offer; /* EVENT_CODE_OFFER */
    const struct msg_code_put *put;     /* EVENT_CODE_PUT */
};

/* What nothing needs any more is to go: somebody says so, or it is time. */
struct event_collect {
    uint64_t client;     /* 0: nobody waits for an answer */
    uint64_t request_seq;
    const char *account; /* NULL: the coordinator itself */
    bool is_operator;    /* role operator or admin, or the coordinator itself */
    const struct msg_collect *collect;
    struct event_found found;
};

struct event_removed {
    uint64_t peer;
    uint64_t request_seq;
    const struct msg_removed *removed;
};

/* Somebody wants to be in a job. */
struct event_exec {
    uint64_t client;
    uint64_t request_seq;
    uint64_t exec_id; /* drawn by the shell */
    const char *account;
    bool is_admin;
    const struct msg_exec *exec;
};

struct event_join {
    uint64_t peer;
    uint64_t request_seq;  /* for REFUSED */
    const char *principal; /* of the key; must equal the worker's name; NULL: not checked */
    const struct msg_worker_join *join;
};

struct event_heartbeat {
    uint64_t peer;
    uint64_t request_seq;
    const struct msg_heartbeat *heartbeat;
};

struct event_leave {
    uint64_t peer;
    uint64_t request_seq;
    const struct msg_worker_leave *leave;
};

struct event_reports {
    uint64_t peer;
    uint64_t request_seq;
    const struct msg_report *reports;
};

struct event_copies {
    uint64_t peer;
    uint64_t request_seq;
    const struct msg_copies *copies;
};

struct event_node_report {
    uint64_t peer;
    uint64_t request_seq;
    const struct msg_node_report *report;
};

struct event {
    enum event_kind kind;
    uint64_t now_ms;  /* steady: leases, timers; never goes back */
    uint64_t wall_us; /* for rows; may jump */
    union {
        struct event_submit submit;
        struct event_control control;
        struct event_configure configure;
        struct event_code code;
        struct event_collect collect;
        struct event_removed removed;
        struct event_exec exec;
        struct event_join join;
        struct event_heartbeat heartbeat;
        struct event_leave leave;
        struct event_reports reports;
        struct event_node_report node_report;
        struct event_copies copies;
    };
};

#endif
