/* lease.h - which rank makes which block: files in the folder of the blocks, and no messages.
 *
 * block-NNNNNN.lease-K is the K-th lease on a block. It is made by giving its name to a whole
 * file, which of all ranks on all hosts one can do; the newest is the one that counts, and nobody
 * ever changes one or gives it back: a block that is done has no need of leases, and a new attempt
 * removes all. It holds {"rank": R, "ms": M}: who has it, and how long it may take at most by what
 * that rank's own blocks took.
 *
 * Clocks of hosts differ. So a rank counts the time of another's lease from when it first saw it,
 * by its own clock, and a lease that it saw for too long with no block to show for it is expired:
 * it may make the next one. Two ranks with leases on one block make the same bytes. */
#ifndef ATHANOR_LEASE_H
#define ATHANOR_LEASE_H

#include "common/base/err.h"

#define LEASE_LEAST_MS 60000
#define LEASE_MARGIN   4 /* times the longest block */

/* What this rank has seen of the leases on a block; zeroed: nothing. */
struct lease_seen {
    unsigned turn; /* K of the newest */
    unsigned rank;
    uint64_t since_ms, given_ms;
};

struct lease_rules {
    const char *folder;
    unsigned rank;
    uint64_t given_ms;   /* of every lease; 0: by what blocks took */
    uint64_t longest_ms; /* that a block took, as far as this rank knows; 0: none was finished */
    uint64_t own_ms;     /* that one takes this rank; 0: it has made none */
};

/* Takes a lease on the block if there is none, or an expired one. *out_taken: seen->turn is ours.
 * Errors: ERR_IO; ERR_PROTOCOL for a damaged lease, naming the file. */
int lease_take(const struct lease_rules *rules, uint64_t block, uint64_t now_ms,
               struct lease_seen *seen, bool *out_taken, struct err *err) WARN_UNUSED;
/* When a lease that was given for so long ends: never (UINT64_MAX) while nobody knows how long a
 * block takes. */
uint64_t lease_limit_ms(const struct lease_rules *rules, uint64_t given_ms);

/* Removes all leases in the folder, those of an earlier attempt, and what versions without leases
 * left half-made. */
int lease_sweep(const char *folder, struct err *err) WARN_UNUSED;

#endif
