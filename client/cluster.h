/* cluster.h - what `up` was asked for, kept in HOME/up.json, and the pieces it consists of. */
#ifndef ATHANOR_CLIENT_CLUSTER_H
#define ATHANOR_CLIENT_CLUSTER_H

#include "client/home.h"

#define CLUSTER_WORKERS_MAX 64u

struct cluster {
    uint64_t workers;
    uint64_t cores; /* per worker; 0: the machine's, shared out */
    const char *listen[HOME_ENDPOINTS_MAX];
    size_t listen_count;
    bool external_db; /* HOME/conninfo is a copy of ATHANOR_DB */
};

/* A missing file is a cluster of one worker that listens on a unix socket. */
int cluster_load(struct arena *arena, const char *home, struct cluster *out,
                 struct err *err) WARN_UNUSED;
int cluster_save(struct arena *arena, const char *home, const struct cluster *cluster,
                 struct err *err) WARN_UNUSED;
/* Fills in a place to listen when none is chosen, replaces port 0 or '*' by a free one, and writes
 * HOME/endpoints, where clients and workers find the coordinator. */
int cluster_endpoints(struct arena *arena, const char *home, struct cluster *cluster,
                      struct err *err) WARN_UNUSED;

/* "worker-1" ...; index from 0. */
const char *cluster_worker_name(struct arena *arena, size_t index);
/* CPU list of a worker: the allowed CPUs dealt out in turn, again from the first when they do not
 * suffice. "" for one worker with everything. */
const char *cluster_worker_cpus(struct arena *arena, const struct cluster *cluster, size_t index);
/* Memory to offer when several workers share the machine; 0: leave it to the worker. */
uint64_t cluster_worker_memory(const struct cluster *cluster);

#endif
