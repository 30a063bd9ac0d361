/* pmix_host.h - the embedded PMIx server through which MPI ranks find each other.
 *
 * One per process (the library's own rule). All ranks are on this node, so that a fence is
 * complete as soon as the library says that the local ranks have contributed. The library calls
 * back on a thread of its own; what it tells is kept until asked for, and `wake_fd` (an eventfd)
 * is written. */
#ifndef ATHANOR_SHEPHERD_PMIX_HOST_H
#define ATHANOR_SHEPHERD_PMIX_HOST_H

#include "common/base/err.h"

#include <sys/types.h>

struct pmix_host_config {
    const char *nspace; /* unique on the node */
    size_t rank_count;
    const char *folder; /* exists; for the library's files; removed by the caller afterwards */
    int wake_fd;
};

struct pmix_abort {
    unsigned rank;
    int status;
    char text[200];
};

/* What the module offers; its only visible symbol is PMIX_HOST_SYMBOL. */
struct pmix_host {
    /* Starts the server and registers every rank. Errors: ERR_IO with the library's word. */
    int (*open)(const struct pmix_host_config *config, struct err *err);
    /* Calls `set` for each variable that this rank's environment needs. */
    int (*environment)(unsigned rank, void (*set)(void *user, const char *assignment), void *user,
                       struct err *err);
    /* The first MPI_Abort, if there was one. */
    bool (*aborted)(struct pmix_abort *out);
};

#define PMIX_HOST_MODULE "athanor-pmix.so" /* found by file_module */
#define PMIX_HOST_SYMBOL "pmix_host_module"

/* Loads the module: only attempts that need PMIx pay for its libraries. Errors: ERR_NOT_FOUND. */
int pmix_host_load(const struct pmix_host **out, struct err *err) WARN_UNUSED;

/* There is no close: the process ends with its attempt, and finalizing has been seen to wait for
 * clients that died. */

#endif
