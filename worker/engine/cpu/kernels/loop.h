/* loop.h - loops of pointwise kernels: whole vectors, then one padded tail. */
#ifndef ATHANOR_ENGINE_CPU_LOOP_H
#define ATHANOR_ENGINE_CPU_LOOP_H

#include "worker/engine/cpu/kernels/vec.h"

#define ITEMS_LEAST 8192 /* elements per thread that pay for waking it */

/* Runs `body` on whole vectors and once on a padded tail: VALUE computes from v (and w). */
#define FOR_VECTORS(from, to, i, part, ...) \
    for (int64_t i = (from); i < (to); i += VEC_WIDTH) { \
        int64_t part = (to) - i < VEC_WIDTH ? (to) - i : VEC_WIDTH; \
        __VA_ARGS__ \
    }

static inline vec load(const float *from, int64_t part)
{
    return part == VEC_WIDTH ? vec_load(from) : vec_load_part(from, part);
}

static inline void store(float *to, vec v, int64_t part)
{
    if (part == VEC_WIDTH)
        vec_store(to, v);
    else
        vec_store_part(to, v, part);
}

static inline void put(float *to, vec v, int64_t part, bool fresh)
{
    store(to, fresh ? v : load(to, part) + v, part);
}

static inline vec vec_sigmoid(vec x)
{
    return 1.0f / (1.0f + vec_exp(-x));
}

#endif
