/* verdict.h - why an attempt ended: facts in, cause and evidence out. Pure. */
#ifndef ATHANOR_SHEPHERD_VERDICT_H
#define ATHANOR_SHEPHERD_VERDICT_H

#include "common/base/kinds.h"

#define VERDICT_TEXT_BYTES 2000u

struct verdict_facts {
    const char *launch_error; /* nothing, or not everything, could be started; NULL: it was */
    enum cause stop_cause;    /* we began to stop it, before any rank had failed; or none */
    const char *stop_text;    /* why, with figures: "ran for 20m, its wall_time" */
    bool failed;              /* a rank ended otherwise than with exit 0, and not through us */
    unsigned rank;            /* the first one that did */
    const char *launcher;     /* it was no rank but this, such as mpirun; NULL: a rank */
    bool by_signal;
    int code;                /* exit code or signal number */
    const char *stderr_line; /* its last line on stderr; "" */
    const char *abort_text;  /* "rank 1 called MPI_Abort(3): ..."; "" */
    const char *gave_up;     /* an event said so, and why; NULL: none did */
    bool diverged;           /* an event said so */
    const char *diverged_text;
    uint64_t cgroup_oom_kills;   /* within the attempt */
    uint64_t machine_oom_kills;  /* on the machine while it ran, its own or of others */
    bool memory_counted;         /* cgroup_oom_kills has all of the attempt's, whoever's limit */
    uint64_t memory_peak_bytes;  /* 0: not measured */
    uint64_t memory_limit_bytes; /* of all ranks; 0: none */
};

struct verdict {
    enum cause cause;
    int64_t code; /* exit code, or signal number for CAUSE_SIGNAL */
    char text[VERDICT_TEXT_BYTES];
};

void verdict_reach(const struct verdict_facts *facts, struct verdict *out);

#endif
