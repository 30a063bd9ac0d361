/* event.h - everything that can happen to the core. Each event carries its own time. */
#ifndef ATHANOR_CORE_EVENT_H
#define ATHANOR_CORE_EVENT_H

#include "common/spec/spec.h"
#include "common/wire/wire.h"

enum event_kind {
    EVENT_TICK = 1,     /* time passed: leases, backoffs, time limits, placement */
    EVENT_SUBMIT,
    EVENT_CONTROL,
    EVENT_WORKER_JOIN,
    EVENT_HEARTBEAT,
    EVENT_WORKER_LEAVE,
    EVENT_REPORTS,
    EVENT_END,
};

/* An input whose source is not among the jobs of the submit nor live in the core: the shell found
 * it in the database. Jobs and inputs are indexes into the spec. */
struct submit_found {
    size_t job_index, input_index;
    uint64_t source_job_id;     /* 0 for a plain path */
    uint64_t checkpoint_id, artifact_id;
    const char *path;
    struct hash content;
};

struct event_submit {
    uint64_t client;            /* address of the reply */
    uint64_t request_seq;
    const char *account;
    const uint8_t *submit_key;  /* 16 bytes */
    const struct spec *spec;    /* validated against the catalogue */
    const char *const *spec_json; /* resolved JSON of each job */
    const char *source;         /* the YAML as submitted */
    const struct submit_found *found;
    size_t found_count;
};

struct event_control {
    uint64_t client;
    uint64_t request_seq;
    const char *account;
    bool may_act_for_others;    /* role operator or admin */
    const struct msg_control *control;
};

struct event {
    enum event_kind kind;
    uint64_t now_ms;            /* steady: leases, timers; never goes back */
    uint64_t wall_us;           /* for rows */
    union {
        struct event_submit submit;
        struct event_control control;
        struct { uint64_t route; const char *principal; const struct msg_worker_join *join; } join;
        const struct msg_heartbeat *heartbeat;
        const struct msg_worker_leave *leave;
        const struct msg_report *reports;
    };
};

#endif
