/* interval.h - percentile bootstrap of a mean over independent units (Efron 1979).
 *
 * Draws depend on (seed, draw) only. Reported as NAME_low and NAME_high, 95 %. */
#ifndef ATHANOR_INTERVAL_H
#define ATHANOR_INTERVAL_H

#include "common/base/base.h"

struct interval {
    double low, high; /* NAN without values or draws */
};

struct interval mean_interval(const double *values, size_t count, uint64_t seed, unsigned draws);
double mean_of(const double *values, size_t count); /* NAN of none */

#endif
