/* sampler.c - the Feistel permutation and the shares of ranks; see sampler.h. */
#include "worker/engine/data/sampler.h"

#include "common/base/rng.h"

#define FEISTEL_ROUNDS 6

/* Half the bits of the smallest even power of two that holds [0, count). */
static unsigned half_bits(uint64_t count)
{
    unsigned half = 1;
    while (half < 32 && ((uint64_t)1 << (2 * half)) < count)
        half++;
    return half;
}

uint64_t sampler_permute(uint64_t key, uint64_t count, uint64_t i)
{
    CHECK(i < count);
    unsigned half = half_bits(count);
    uint64_t mask = ((uint64_t)1 << half) - 1;
    do { /* values past count are sent round again: still a bijection */
        uint64_t left = i >> half, right = i & mask;
        for (uint64_t round = 0; round < FEISTEL_ROUNDS; round++) {
            uint64_t mixed = rng_mix(key ^ rng_mix((round << 56) ^ right)) & mask;
            uint64_t next = left ^ mixed;
            left = right;
            right = next;
        }
        i = (left << half) | right;
    } while (i >= count);
    return i;
}

uint64_t sampler_item(uint64_t seed, uint64_t count, uint64_t s)
{
    uint64_t epoch = s / count;
    return sampler_permute(rng_mix(seed ^ rng_mix(epoch)), count, s % count);
}

void sampler_share(uint64_t step, uint64_t global_batch, unsigned rank, unsigned rank_count,
                   uint64_t *first, uint64_t *count)
{
    CHECK(rank < rank_count && global_batch % rank_count == 0);
    *count = global_batch / rank_count;
    *first = step * global_batch + rank * *count;
}
