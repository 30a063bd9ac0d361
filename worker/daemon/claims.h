/* claims.h - telling other workers of this machine which CPUs we bind jobs to.
 *
 * A claim is an abstract unix socket named after the CPU: taken atomically, given back by the
 * kernel when we end, without files that could stay behind. Two workers of one machine so never
 * bind two jobs to one core, also when nobody told them of each other. */
#ifndef ATHANOR_DAEMON_CLAIMS_H
#define ATHANOR_DAEMON_CLAIMS_H

#include "common/base/base.h"

struct claims {
    int *fds;
    size_t count, capacity;
};

/* An inventory_claim_fn; user is a struct claims. */
bool claims_take(void *user, unsigned cpu);
void claims_done(struct claims *claims);

#endif
