/* sampler.h - which window or document a training step sees: a pure function of the seed
 * and the position, so the state is the step number alone.
 *
 * Position s = step * global_batch + row. Epoch e = s / N, item = perm_e(s mod N), where
 * perm_e is a Feistel bijection of [0, N) keyed by (seed, e). Neither the number of ranks
 * nor the micro-batch enters; a batch may straddle two epochs and nothing is dropped.
 * Source: card data-tokenizers-and-shards, section 5 (with its test vectors). */
#ifndef ATHANOR_SAMPLER_H
#define ATHANOR_SAMPLER_H

#include "common/base/base.h"

/* The place of i under the permutation of [0, count) that belongs to key. count > 0. */
uint64_t sampler_permute(uint64_t key, uint64_t count, uint64_t i);
/* The item at position s of the endless shuffled stream over [0, count). */
uint64_t sampler_item(uint64_t seed, uint64_t count, uint64_t s);

/* The rows of rank r of `rank_count` in step `step`: positions [*first, *first + *count).
 * global_batch must be a multiple of rank_count (CHECK; recipes refuse it in open). */
void sampler_share(uint64_t step, uint64_t global_batch, unsigned rank, unsigned rank_count,
                   uint64_t *first, uint64_t *count);

#endif
