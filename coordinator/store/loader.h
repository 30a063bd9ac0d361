/* loader.h - a core rebuilt from rows: live jobs and what they refer to (invariant 6). */
#ifndef ATHANOR_STORE_LOADER_H
#define ATHANOR_STORE_LOADER_H

#include "common/spec/catalogue.h"
#include "coordinator/core/core.h"

struct loader_counts {
    size_t experiments, workers, jobs, attempts, submits;
};

/* Called between rows and while PostgreSQL is at work, at least every LOADER_PAUSE_MS: the lease
 * wants to be renewed. Returns false to give the loading up. */
typedef bool loader_pause_fn(void *user);
#define LOADER_PAUSE_MS   50
#define LOADER_PAUSE_ROWS 1024u

/* Blocking but for `pause` (may be NULL), in one snapshot. The lease must be held, so that nobody
 * writes meanwhile. *out_wake_ms as core_load_end. Errors: ERR_CLOSED and others of pg.h,
 * ERR_PROTOCOL, ERR_STALE (given up). */
int loader_load(const char *conninfo, struct core *core, uint64_t now_ms, uint64_t wall_us,
                loader_pause_fn *pause, void *user, struct loader_counts *out_counts,
                uint64_t *out_wake_ms, struct err *err) WARN_UNUSED;

/* Who this database is (table cluster). */
int loader_cluster_id(const char *conninfo, uint64_t *out, struct err *err) WARN_UNUSED;

/* The recipes that workers announced earlier. */
int loader_catalogue(const char *conninfo, struct catalogue *catalogue,
                     struct err *err) WARN_UNUSED;

/* Keys that are enrolled now. Texts are valid during the call. */
typedef void loader_principal_fn(void *user, const struct row_principal *row);
int loader_principals(const char *conninfo, loader_principal_fn *each, void *user,
                      struct err *err) WARN_UNUSED;

/* Secrets that were not removed, encrypted. */
typedef void loader_secret_fn(void *user, const struct row_secret *row);
typedef void loader_project_secret_fn(void *user, const struct row_project_secret *row);
int loader_project_secrets(const char *conninfo, loader_project_secret_fn *each, void *user,
                           struct err *err) WARN_UNUSED;
int loader_secrets(const char *conninfo, loader_secret_fn *each, void *user,
                   struct err *err) WARN_UNUSED;

/* Whether a server takes connections there, if only to refuse ours. Waits at most 10 s. */
bool loader_is_answered(const char *conninfo);

/* Partitions of history for now and the next weeks; also part of every start. */
int loader_prepare_history(const char *conninfo, struct err *err) WARN_UNUSED;

#endif
