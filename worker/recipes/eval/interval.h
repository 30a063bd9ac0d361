/* interval.h - percentile bootstrap of a mean over independent units (Efron 1979).
 *
 * Draws depend on (seed, draw) only. Reported as NAME_low and NAME_high, 95 %. */
#ifndef ATHANOR_INTERVAL_H
#define ATHANOR_INTERVAL_H

#include "worker/recipes/text/overlap.h"

struct interval {
    double low, high; /* NAN without values or draws */
};

struct interval mean_interval(const double *values, size_t count, uint64_t seed, unsigned draws);
double mean_of(const double *values, size_t count); /* NAN of none */

/* Of sum(top) / sum(bottom), both drawn together: a mean over tokens of which each unit has its own
 * number. NAN of fewer than two units. */
struct interval ratio_interval(const double *top, const double *bottom, size_t count,
                               uint64_t seed, unsigned draws);

/* Clopper and Pearson's exact 95 % interval of a share of k in n; n > 0. */
struct interval proportion_interval(size_t k, size_t n);

/* Percentile bootstrap of the mean of means of groups: draws groups, then in each of them as many
 * of its `each` values. values (groups, each). */
struct interval grouped_interval(const double *values, size_t groups, size_t each, uint64_t seed,
                                 unsigned draws);

/* Corpus BLEU of each of `draws` draws, made as above; of one seed the same units in every call, so
 * that draws of two corpora over the same units may be set against each other. parts (groups,
 * each): bleu_add of one text; out (draws). groups and each at least 1. */
void bleu_draws(const struct bleu *parts, size_t groups, size_t each, uint64_t seed,
                unsigned draws, double *out);

/* The 95 % percentiles of values, which are sorted here. */
struct interval percentiles(double *values, size_t count);

/* Expected calibration error over bins (lo, hi] of equal width (Naeini et al. 2015). */
double calibration_error(const double *confidence, const bool *correct, size_t count,
                         unsigned bins);

#endif
