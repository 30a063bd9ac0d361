/* options.h - what the command line and the environment ask of the coordinator. */
#ifndef ATHANOR_SHELL_OPTIONS_H
#define ATHANOR_SHELL_OPTIONS_H

#include "common/base/err.h"

#define OPTIONS_LISTEN_MAX 8u
#define OPTIONS_ADMIN_MAX  16u
#define OPTIONS_ALLOW_MAX  64u

struct options {
    const char *db;                         /* libpq connection string or URL */
    const char *db_password;                /* file; NULL: none, or in db */
    const char *key;                        /* file of our CURVE key pair; made when missing */
    const char *secrets_key;                /* file from which the key of secrets is derived */
    const char *listen[OPTIONS_LISTEN_MAX]; /* ZeroMQ endpoints */
    size_t listen_count;
    const char *advertise[OPTIONS_LISTEN_MAX]; /* where others reach us; none: where we listen */
    size_t advertise_count;
    const char *admins[OPTIONS_ADMIN_MAX]; /* NAME:FILE */
    size_t admin_count;
    const char *principals; /* file: lines of NAME ROLE KEY */
    bool single;
    bool migrate_only;
    bool help, man, version, alive;
    uint64_t leader_ms;    /* leader lease */
    uint64_t worker_ms;    /* worker lease; 0: the core's default */
    uint64_t heartbeat_ms; /* asked of workers */
    uint64_t keep_ms;      /* metrics and logs; 0: for ever */
    uint64_t queue;        /* messages waiting for one peer */
    const char *policy;    /* NULL: the core's default; with --simulate names with commas */
    const char *notify_secret, *mail_command, *mail_from; /* courier.h */
    const char *notify_allow[OPTIONS_ALLOW_MAX];
    size_t notify_allow_count;
    uint64_t log_level;    /* enum log_level */
    /* A trace to be simulated (coordinator/replay), instead of serving. */
    const char *simulate, *machine, *starts;
    uint64_t nodes, cores, memory_bytes, gpus, load_permille;
    bool json;
};

/* argv is borrowed and may be changed. Errors: ERR_INVALID, naming the option and what is
 * accepted. */
int options_parse(int argc, char **argv, struct options *out, struct err *err) WARN_UNUSED;
/* The help page and the manual page, made from the same table (mem_free). `version` goes to the
 * footer. */
char *options_help(void);
char *options_man(const char *version);

#endif
