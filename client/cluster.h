/* cluster.h - what `up` was asked for, kept in HOME/up.json, and the pieces it consists of. */
#ifndef ATHANOR_CLIENT_CLUSTER_H
#define ATHANOR_CLIENT_CLUSTER_H

#include "client/home.h"

#define CLUSTER_WORKERS_MAX      64u
#define CLUSTER_COORDINATORS_MAX 5u

struct cluster {
    uint64_t workers;
    uint64_t cores;                         /* per worker; 0: the machine's, shared out */
    const char *listen[HOME_ENDPOINTS_MAX]; /* the first coordinator */
    size_t listen_count;
    uint64_t coordinators;                        /* 1: it leads without competition */
    const char *others[CLUSTER_COORDINATORS_MAX]; /* where the later ones listen; [0] is unused */
    bool external_db;                             /* HOME/conninfo is a copy of ATHANOR_DB */
};

/* A missing file is a cluster of one worker and one coordinator that listens on a unix socket. */
int cluster_load(struct arena *arena, const char *home, struct cluster *out,
                 struct err *err) WARN_UNUSED;
int cluster_save(struct arena *arena, const char *home, const struct cluster *cluster,
                 struct err *err) WARN_UNUSED;
/* Fills in a place to listen when none is chosen, replaces port 0 or '*' by a free one, and writes
 * HOME/endpoints, where clients and workers find the coordinators. */
int cluster_endpoints(struct arena *arena, const char *home, struct cluster *cluster,
                      struct err *err) WARN_UNUSED;

/* "coordinator", "coordinator-2" ...; index from 0. */
const char *cluster_coordinator_name(struct arena *arena, size_t index);
/* "worker-1" ...; index from 0. */
const char *cluster_worker_name(struct arena *arena, size_t index);
/* CPU list of a worker: the allowed CPUs dealt out in turn, again from the first when they do not
 * suffice. "" for one worker with everything. */
const char *cluster_worker_cpus(struct arena *arena, const struct cluster *cluster, size_t index);
/* Memory to offer when several workers share the machine; 0: leave it to the worker. */
uint64_t cluster_worker_memory(const struct cluster *cluster);

#endif
