/* bloom.c - see bloom.h. */
#include "worker/recipes/data/web/bloom.h"

#include "common/base/mem.h"
#include "common/base/rng.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#define BLOOM_BYTES_MIN ((uint64_t)1 << 20)
#define BLOOM_BYTES_MAX ((uint64_t)1 << 48)

struct key key_of(const void *bytes, size_t length, uint64_t seed)
{
    XXH128_hash_t hash = XXH3_128bits_withSeed(bytes, length, seed);

    return (struct key){hash.high64, hash.low64};
}

int bloom_plan(double n, double p, unsigned k_max, struct bloom_plan *out, struct err *err)
{
    for (uint64_t bytes = BLOOM_BYTES_MIN; bytes <= BLOOM_BYTES_MAX; bytes *= 2) {
        double m = 8.0 * (double)bytes, best = ceil(m / n * log(2));
        double k = best < k_max ? best : k_max;
        /* 1 - (1 - 1/m)^(kn) without cancellation */
        double reached = pow(-expm1(k * n * log1p(-1 / m)), k);
        if (reached <= p) {
            *out = (struct bloom_plan){bytes, (unsigned)k, reached};
            return 0;
        }
    }
    return err_set(err, ERR_LIMIT, "no Bloom filter of up to 2^48 bytes and %u hashes holds %.0f "
                   "keys at a false positive rate of %g; raise bloom_k_max or bloom_p", k_max, n,
                   p);
}

struct key_set {
    struct key *slots; /* exact; {0, 0} is free */
    size_t slot_count, count;
    bool has_zero;
    uint64_t *words; /* a filter */
    uint64_t bits;
    unsigned k;
};

int key_set_new(const struct bloom_plan *plan, struct key_set **out, struct err *err)
{
    struct key_set *set = mem_zalloc(sizeof *set);

    if (plan) {
        uint64_t bytes = plan->bytes / KEY_PARTITIONS;
        set->bits = 8 * bytes;
        set->k = plan->k;
        set->words = calloc(bytes / 8, 8);
        if (!set->words) {
            mem_free(set);
            return err_set(err, ERR_MEMORY, "a Bloom filter needs %llu bytes in each of its %d "
                           "partitions", (unsigned long long)bytes, KEY_PARTITIONS);
        }
    }
    *out = set;
    return 0;
}

void key_set_free(struct key_set *set)
{
    if (!set)
        return;
    mem_free(set->slots);
    free(set->words);
    mem_free(set);
}

uint64_t key_set_bytes(const struct key_set *set)
{
    return set->words ? set->bits / 8 : set->slot_count * sizeof *set->slots;
}

/* The bits of the high half that choose a partition take no part: it is the low half and a mix
 * of all. bits is a power of two. */
static bool bloom_seen(struct key_set *set, struct key key)
{
    uint64_t h1 = key.low, h2 = rng_mix(key.high ^ key.low) | 1;
    bool seen = true;

    for (unsigned i = 0; i < set->k; i++) {
        uint64_t bit = (h1 + i * h2) & (set->bits - 1);
        uint64_t mask = (uint64_t)1 << (bit & 63);
        seen = seen && (set->words[bit >> 6] & mask);
        set->words[bit >> 6] |= mask;
    }
    return seen;
}

static struct key *slot_of(const struct key_set *set, struct key key)
{
    size_t at = (size_t)key.low & (set->slot_count - 1);

    while ((set->slots[at].high | set->slots[at].low) &&
           (set->slots[at].high != key.high || set->slots[at].low != key.low))
        at = (at + 1) & (set->slot_count - 1);
    return &set->slots[at];
}

static void grow(struct key_set *set)
{
    struct key *old = set->slots;
    size_t old_count = set->slot_count;

    set->slot_count = old_count ? 2 * old_count : 64;
    set->slots = mem_array(set->slot_count, sizeof *set->slots);
    for (size_t i = 0; i < old_count; i++)
        if (old[i].high | old[i].low)
            *slot_of(set, old[i]) = old[i];
    mem_free(old);
}

static bool exact_seen(struct key_set *set, struct key key)
{
    if (!(key.high | key.low)) { /* the hash of something, once in 2^128 */
        bool seen = set->has_zero;
        set->has_zero = true;
        return seen;
    }
    if (3 * (set->count + 1) > 2 * set->slot_count)
        grow(set);
    struct key *slot = slot_of(set, key);
    if (slot->high | slot->low)
        return true;
    *slot = key;
    set->count++;
    return false;
}

bool key_set_seen(struct key_set *set, struct key key)
{
    return set->words ? bloom_seen(set, key) : exact_seen(set, key);
}
