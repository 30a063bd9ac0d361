/* options.h - the command line of athanor-worker, from one table. */
#ifndef ATHANOR_DAEMON_OPTIONS_H
#define ATHANOR_DAEMON_OPTIONS_H

#include "common/base/arena.h"
#include "common/base/err.h"
#include "common/net/keys.h"
#include "worker/attempt/cgroup.h"

#include <stdio.h>

#define OPTIONS_ENDPOINTS_MAX 16u
#define OPTIONS_LABELS_MAX    64u

struct option_label {
    const char *name, *value;
};

struct options {
    struct arena arena; /* holds all texts */
    const char *endpoints[OPTIONS_ENDPOINTS_MAX];
    size_t endpoint_count;
    const char *keys;       /* file of our secret key */
    const char *server_key; /* as given: file or key; "" = coordinator.pub beside keys */
    const char *name;       /* "": whom the key was enrolled for */
    const char *enrol;      /* "": run; else the token's file, or "-" */
    const char *until;      /* as given; "": this node is ours for good */
    uint64_t until_us, margin_ms; /* wall clock; 0: no end */
    uint64_t idle_ms;       /* 0: stay */
    bool open_ended;
    const char *endpoints_file; /* coordinator.endpoints beside keys */
    const char *state, *jobs_dir; /* absolute */
    const char *cores;            /* "" all, "4" that many, "0-3,8" these */
    uint64_t memory_bytes;        /* 0: most of the machine */
    const char *gpus;             /* "auto", "none", "fake:N" */
    struct option_label labels[OPTIONS_LABELS_MAX];
    size_t label_count;
    const char *engine, *shepherd; /* programs; "" = beside our own */
    const char *tmp;
    const char *links;   /* "auto", "none", an endpoint */
    const char *shm;     /* "auto", "private", "shared" */
    const char *cgroups; /* as given */
    enum cgroup_kind cgroup_kind;
    const char *job_user, *job_accounts; /* at most one of them; "same" or a file */
    uint64_t log_bytes_max, code_cache_bytes, copy_cache_bytes;
    uint64_t copy_rate; /* bytes a second; 0: any */
    const char *prolog, *epilog, *health; /* programs, and a folder of them; "": none */
    uint64_t hook_timeout_ms, health_every_ms, health_timeout_ms, gpu_free_timeout_ms;
    uint64_t usage_every_ms;
    const char *gpu_check, *gpu_sample; /* UUID: say whether it is free and leave; "" */
    bool allow_root_jobs, stop_jobs, verbose;
    bool help, man, version, alive; /* print and leave */
};

/* Errors: ERR_INVALID naming the option, its value and what is accepted. */
int options_read(int count, char *const *arguments, struct options *out,
                 struct err *err) WARN_UNUSED;
void options_done(struct options *options);
void options_help(FILE *out);
void options_man(FILE *stream, const char *version); /* `version`: for the footer */

#endif
