/* softmax.h - one row of attention scores to probabilities. */
#ifndef ATHANOR_ENGINE_CPU_SOFTMAX_H
#define ATHANOR_ENGINE_CPU_SOFTMAX_H

#include "worker/engine/cpu/kernels/vec.h"

#include <math.h>
#include <string.h>

/* Scores to probabilities, given a row's visible keys begin..end; others become 0.
 * Returns the log-sum-exp. */
static inline float softmax_row(float *score, int64_t begin, int64_t end, int64_t keys, float scale)
{
    float highest = score[begin], rest = 0, inverse;
    vec high = vec_set(highest), sum = {0};
    int64_t i = begin;

    for (; i + VEC_WIDTH <= end; i += VEC_WIDTH)
        high = vec_max(high, vec_load(score + i));
    highest = vec_highest(high);
    for (; i < end; i++)
        highest = score[i] > highest ? score[i] : highest;
    for (i = begin; i + VEC_WIDTH <= end; i += VEC_WIDTH) {
        vec e = vec_exp((vec_load(score + i) - highest) * scale);

        sum += e;
        vec_store(score + i, e);
    }
    if (i < end) {
        vec e = vec_exp((vec_load_part(score + i, end - i) - highest) * scale);

        vec_store_part(score + i, e, end - i);
        for (int64_t k = 0; k < end - i; k++)
            rest += e[k];
    }
    rest += vec_sum(sum);
    inverse = 1.0f / rest;
    memset(score, 0, 4 * (size_t)begin);
    for (i = begin; i < end; i++)
        score[i] *= inverse;
    memset(score + end, 0, 4 * (size_t)(keys - end));
    return highest * scale + logf(rest);
}

#endif
