/* interval.c - see interval.h. */
#include "worker/recipes/eval/interval.h"

#include "common/base/mem.h"
#include "common/base/rng.h"

#include <math.h>
#include <stdlib.h>

double mean_of(const double *values, size_t count)
{
    double sum = 0;

    for (size_t i = 0; i < count; i++)
        sum += values[i];
    return count ? sum / (double)count : NAN;
}

static int compare(const void *a, const void *b)
{
    double left = *(const double *)a, right = *(const double *)b;

    return (left > right) - (left < right);
}

struct interval mean_interval(const double *values, size_t count, uint64_t seed, unsigned draws)
{
    struct interval out = {NAN, NAN};
    double *means = mem_array(draws + 1, sizeof *means);

    for (unsigned d = 0; d < draws; d++) {
        double sum = 0;
        for (size_t i = 0; i < count; i++)
            sum += values[rng_at(seed, d, i) % count];
        means[d] = sum / (double)count;
    }
    if (count && draws) {
        qsort(means, draws, sizeof *means, compare);
        out.low = means[(size_t)(0.025 * (draws - 1) + 0.5)];
        out.high = means[(size_t)(0.975 * (draws - 1) + 0.5)];
    }
    mem_free(means);
    return out;
}
