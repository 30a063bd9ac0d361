/* rng.h - seeded randomness. Same seed, same numbers, on every machine.
 *
 * rng_*: a sequential generator (xoshiro256**, public domain by its authors).
 * rng_at: counter-based: a pure function of (seed, stream, index), so that
 * draws do not depend on rank count or order of evaluation. */
#ifndef ATHANOR_RNG_H
#define ATHANOR_RNG_H

#include "common/base/base.h"

struct rng {
    uint64_t state[4];
};

/* splitmix64's output function; rng_mix(0) == 0xE220A8397B1DCDAF. */
uint64_t rng_mix(uint64_t x);

void rng_init(struct rng *rng, uint64_t seed);
uint64_t rng_next(struct rng *rng);
uint64_t rng_below(struct rng *rng, uint64_t bound); /* uniform in [0, bound), bound > 0 */
double rng_unit(struct rng *rng);                    /* uniform in [0, 1), 53 bits */
double rng_normal(struct rng *rng);                  /* mean 0, variance 1 (Box-Muller) */

uint64_t rng_at(uint64_t seed, uint64_t stream, uint64_t index);
double rng_unit_at(uint64_t seed, uint64_t stream, uint64_t index);

#endif
