/* bloom.h - sets of 128-bit keys: exact, or as Bloom filters of a stated false positive rate.
 *
 * A filter of m bits and k hashes that holds n keys says "seen" of a fresh one with probability
 *   p = (1 - (1 - 1/m)^(kn))^k,   k = ceil(m/n ln 2), at most k_max
 * and m starts at 1 MiB and doubles until p is at most what was asked (card data-dolma, "Bloom
 * filter", which computes 256 GiB and k = 26 for 6e10 keys at 1e-6; 4 MiB, k = 24 for 1e6 at
 * 1e-6; 2 MiB, k = 12 for 1e6 at 1e-3). The k places of a key are h1 + i*h2 (Kirsch and
 * Mitzenmacher 2006), which costs nothing in p at these sizes.
 *
 * The keys are split by their top bits into KEY_PARTITIONS sets that never meet, so that what a
 * set answers does not depend on how many ranks share them: partition q belongs to rank q % P. */
#ifndef ATHANOR_WEB_BLOOM_H
#define ATHANOR_WEB_BLOOM_H

#include "common/base/err.h"

#define KEY_PARTITIONS 64

struct key {
    uint64_t high, low;
};

/* XXH3's 128 bits of the bytes: among 10^10 units two collide with probability 10^-19. */
struct key key_of(const void *bytes, size_t length, uint64_t seed);
static inline unsigned key_partition(struct key key)
{
    return (unsigned)(key.high >> 58);
}

struct bloom_plan {
    uint64_t bytes; /* a power of two, at least 1 MiB */
    unsigned k;
    double p;       /* what the formula gives */
};
/* Errors: ERR_LIMIT when 2^48 bytes do not suffice (k_max too small for p). */
int bloom_plan(double n, double p, unsigned k_max, struct bloom_plan *out,
               struct err *err) WARN_UNUSED;

struct key_set;

/* plan NULL: exact, 16 bytes a slot at a load of 1/3 to 2/3, so 24 to 48 bytes a key. Otherwise a
 * filter of plan->bytes / KEY_PARTITIONS. Errors: ERR_MEMORY. */
int key_set_new(const struct bloom_plan *plan, struct key_set **out, struct err *err) WARN_UNUSED;
/* Whether the key was there (or seems so), and puts it in. */
bool key_set_seen(struct key_set *set, struct key key);
uint64_t key_set_bytes(const struct key_set *set);
void key_set_free(struct key_set *set);

#endif
