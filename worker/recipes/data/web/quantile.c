/* quantile.c - see quantile.h. */
#include "worker/recipes/data/web/quantile.h"

#include "common/base/mem.h"

#include <math.h>

#define FIRST_OCTAVE (-HISTOGRAM_OCTAVES / 2)

size_t histogram_bin(double value)
{
    int exponent;

    if (!(value > 0))
        return 0;
    double fraction = frexp(value, &exponent); /* [1/2, 1) */
    int octave = exponent - 1 - FIRST_OCTAVE;
    if (octave < 0)
        return 1;
    if (octave >= HISTOGRAM_OCTAVES)
        return HISTOGRAM_BINS - 1;
    return 2 + (size_t)octave * HISTOGRAM_FINE + (size_t)((fraction * 2 - 1) * HISTOGRAM_FINE);
}

/* The least value of a bin; of bins 0 and 1 what lies below it. */
static double lower_edge(size_t bin)
{
    if (bin < 2)
        return 0;
    size_t octave = (bin - 2) / HISTOGRAM_FINE, fine = (bin - 2) % HISTOGRAM_FINE;
    return ldexp(1 + (double)fine / HISTOGRAM_FINE, (int)octave + FIRST_OCTAVE);
}

/* The bin of document number `place` in ascending order. */
static size_t bin_at(const int64_t *bins, int64_t place)
{
    size_t bin = 0;

    for (; bin + 1 < HISTOGRAM_BINS && place >= bins[bin]; bin++)
        place -= bins[bin];
    return bin;
}

double histogram_low(const int64_t *bins, int64_t total, double q)
{
    CHECK(total > 0);
    if (q <= 0)
        return -INFINITY;
    double place = floor(q * (double)total);
    return lower_edge(bin_at(bins, place < (double)total ? (int64_t)place : total - 1));
}

double histogram_high(const int64_t *bins, int64_t total, double q)
{
    CHECK(total > 0);
    if (q >= 1)
        return INFINITY;
    double place = ceil(q * (double)total) - 1;
    size_t bin = bin_at(bins, place > 0 ? (int64_t)place : 0);
    if (bin == 0)
        return 0;
    return bin + 1 < HISTOGRAM_BINS ? lower_edge(bin + 1) : INFINITY;
}

void measured_add(struct measured *measured, const double value[GOPHER_END])
{
    if (!measured->bins)
        measured->bins = mem_array(GOPHER_END * HISTOGRAM_BINS, sizeof *measured->bins);
    for (size_t m = 0; m < GOPHER_END; m++)
        measured->bins[m * HISTOGRAM_BINS + histogram_bin(value[m])]++;
    measured->documents++;
}

void measured_done(struct measured *measured)
{
    mem_free(measured->bins);
    *measured = (struct measured){0};
}

void measured_limits(const struct measured *measured, double q_low, double q_high,
                     struct gopher_limits *limits)
{
    for (size_t m = 0; m < GOPHER_END; m++) {
        const int64_t *bins = measured->bins + m * HISTOGRAM_BINS;
        if (isfinite(limits->low[m]))
            limits->low[m] = histogram_low(bins, measured->documents, q_low);
        if (isfinite(limits->high[m]))
            limits->high[m] = histogram_high(bins, measured->documents, q_high);
    }
}
