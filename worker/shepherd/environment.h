/* environment.h - what a rank finds in its environment (worker/README.md), built from nothing.
 *
 * Later groups win: an allow-list of ours (PATH, HOME, locale ...), defaults (threads, Open MPI
 * settings), the spec's `env`, the contract (ATHANOR_*, RANK ...), PMIx. Everything else that the
 * daemon happened to inherit stays behind: leaked variables have run wrong code before. */
#ifndef ATHANOR_SHEPHERD_ENVIRONMENT_H
#define ATHANOR_SHEPHERD_ENVIRONMENT_H

#include "worker/attempt/plan.h"

struct environment {
    char **items; /* "NAME=value", NULL-terminated once something is set */
    size_t count, capacity;
};

void environment_set(struct environment *environment, const char *name, const char *format, ...)
    FORMAT(3, 4);
/* "NAME=value" as one text. */
void environment_assign(struct environment *environment, const char *assignment);
const char *environment_get(const struct environment *environment, const char *name);
void environment_done(struct environment *environment);

struct environment_places {
    const char *run_dir, *spec, *report, *tmp, *shared_memory; /* shared_memory "": none */
    unsigned master_port;
};

#define ENVIRONMENT_NETWORK_SIZE 64

/* Where the nodes of an attempt reach each other, as "10.0.0.0/24"; loopback on one node. */
const char *environment_network(const struct plan *plan, char out[ENVIRONMENT_NETWORK_SIZE]);

/* Everything but PMIx. Under mpirun: what mpirun and orted are started with, from which
 * athanor-rsh --rank makes the rest; `rank` does not matter then. */
void environment_build(const struct plan *plan, const struct environment_places *places,
                       unsigned rank, struct environment *out);

#endif
