/* lease.h - who leads: one row of athanor.coordinator_lease.
 *
 * Taking the lease raises the epoch, at least to the seconds since 1970: so it rises also across
 * a restored database, as long as the clock was right. A leader renews it with every batch it
 * writes (writer.h); the database refuses batches of a passed epoch, so a leader that slept through
 * its lease cannot harm. --single takes the lease whether or not it has expired. */
#ifndef ATHANOR_STORE_LEASE_H
#define ATHANOR_STORE_LEASE_H

#include "common/base/err.h"

#define LEASE_HOLDER_SIZE 128

struct lease {
    char holder[LEASE_HOLDER_SIZE]; /* host:pid:random, unique for each process */
    uint64_t epoch;                 /* ours, once taken */
    uint64_t batch;                 /* newest batch written under any epoch */
    uint64_t lease_ms;
    uint64_t cluster_id;
};

struct lease_keeper; /* a connection that tries to take the lease */

int lease_open(const char *conninfo, uint64_t lease_ms, struct lease_keeper **out,
               struct err *err) WARN_UNUSED;
void lease_close(struct lease_keeper *keeper);

/* Blocking. 1: taken, *out is set; 0: another leads, out->holder names it; -1: ERR_CLOSED and
 * others, the keeper reconnects at the next try. by_force: --single. */
int lease_take(struct lease_keeper *keeper, bool by_force, struct lease *out,
               struct err *err) WARN_UNUSED;

/* Gives the lease up at a clean end, so that a standby need not wait for it to expire. */
int lease_release(const char *conninfo, const struct lease *lease, struct err *err) WARN_UNUSED;

#endif
