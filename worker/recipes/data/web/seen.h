/* seen.h - first come, first kept, over all ranks: has a unit with this key been seen before?
 *
 * Each rank brings the keys of its share in order; rank r's come before those of rank r + 1, and
 * those of a later call after all of an earlier one. So the order of keys is that of the corpus,
 * whatever the number of ranks, and so are the answers, also of a Bloom filter: keys travel to the
 * owner of their partition, which goes through them in that order. */
#ifndef ATHANOR_WEB_SEEN_H
#define ATHANOR_WEB_SEEN_H

#include "worker/recipes/data/web/bloom.h"

struct comm;

struct seen {
    struct comm *comm;
    struct key_set *sets[KEY_PARTITIONS]; /* of this rank's partitions; others NULL */
};

/* plan NULL: exact. Errors: ERR_MEMORY. */
int seen_init(struct seen *seen, struct comm *comm, const struct bloom_plan *plan,
              struct err *err) WARN_UNUSED;
void seen_done(struct seen *seen); /* a zeroed struct is fine */
/* All ranks call it. out[i]: whether keys[i] came before. Errors: ERR_LIMIT (see comm_exchange). */
int seen_ask(struct seen *seen, const struct key *keys, size_t count, bool *out,
             struct err *err) WARN_UNUSED;
uint64_t seen_bytes(const struct seen *seen); /* of this rank */

#endif
