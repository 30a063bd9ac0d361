/* pmix_host.h - the embedded PMIx server through which MPI ranks find each other.
 *
 * One per process (the library's own rule). When all ranks are on this node a fence is complete as
 * soon as the library says that the local ranks have contributed; otherwise it goes over the
 * links of worker/gang. The library calls back on a thread of its own; what it tells is kept
 * until asked for, and `wake_fd` (an eventfd) is written. */
#ifndef ATHANOR_SHEPHERD_PMIX_HOST_H
#define ATHANOR_SHEPHERD_PMIX_HOST_H

#include "common/base/err.h"
#include "worker/gang/gang.h"

#include <sys/types.h>

struct pmix_host_config {
    const char *nspace; /* unique on the node, the same on all nodes of the attempt */
    size_t rank_count;  /* on this node */
    const struct gang_plan *gang; /* NULL: one node */
    const struct gang_host *links; /* open, when there is a gang */
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
    /* What a local rank has published, for other nodes: gang_config.ask_local. */
    void (*ask)(unsigned rank, gang_done *done, void *cookie);
    /* Calls `set` for each variable that this rank's environment needs; `rank` counts over all
     * nodes. */
    int (*environment)(unsigned rank, void (*set)(void *user, const char *assignment), void *user,
                       struct err *err);
    /* The first MPI_Abort, if there was one. */
    bool (*aborted)(struct pmix_abort *out);
    /* What a rank asked for first that is not offered here, as a sentence; NULL: nothing. */
    const char *(*refused)(void);
};

#define PMIX_HOST_MODULE "athanor-pmix.so" /* found by file_module */
#define PMIX_HOST_SYMBOL "pmix_host_module"

/* Loads the module: only attempts that need PMIx pay for its libraries. Errors: ERR_NOT_FOUND. */
int pmix_host_load(const struct pmix_host **out, struct err *err) WARN_UNUSED;

/* There is no close: the process ends with its attempt, and finalizing has been seen to wait for
 * clients that died. */

#endif
