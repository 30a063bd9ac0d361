/* web_quantile_test.c - quantiles by histograms against those of the sorted values. */
#include "common/base/mem.h"
#include "common/base/rng.h"
#include "worker/recipes/data/web/quantile.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

/* Values such as measures have: shares with many zeros, counts, and what is out of every bin. */
static double draw(uint64_t number, uint64_t i)
{
    double unit = rng_unit_at(11, number, i);

    switch (number % 5) {
    case 0:
        return unit < 0.6 ? 0 : unit - 0.6;
    case 1:
        return floor(600 * unit);
    case 2:
        return exp(30 * unit - 10);
    case 3:
        return unit < 0.5 ? 1e-9 * unit : 1e9 * unit;
    default:
        return unit;
    }
}

/* Of a sorted sample: the limit is the value at its place, but for the width of a bin. */
static void check_low(const double *value, size_t count, double q, double limit)
{
    size_t place = (size_t)floor(q * (double)count), below = 0;
    double exact = value[place < count ? place : count - 1];

    for (size_t i = 0; i < count; i++)
        below += value[i] < limit;
    assert_true(below <= place);
    assert_true(limit <= exact);
    if (exact >= 0x1p-20 && exact < 0x1p20)
        assert_true(exact - limit < exact / 256);
    if (exact == floor(exact) && exact <= 512)
        assert_true(limit == exact);
}

static void check_high(const double *value, size_t count, double q, double limit)
{
    size_t upto = (size_t)ceil(q * (double)count), above = 0;
    double exact = value[upto > 0 ? upto - 1 : 0];

    for (size_t i = 0; i < count; i++)
        above += value[i] > limit;
    assert_true(above <= count - upto);
    assert_true(limit >= exact);
    if (exact >= 0x1p-20 && exact < 0x1p20 * 255 / 256)
        assert_true(limit - exact <= exact / 256);
    if (exact == 0)
        assert_true(limit == 0);
    if (exact >= 0x1p20)
        assert_true(isinf(limit));
}

static void limits_are_the_quantiles_of_the_sorted_sample(void **state)
{
    static const double shares[] = {0.001, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.999};
    int64_t *bins = mem_array(HISTOGRAM_BINS, sizeof *bins);
    double value[700];

    (void)state;
    for (uint64_t n = 0; n < 200; n++) {
        size_t count = n < 20 ? n + 1 : 20 + rng_at(12, n, 0) % 680;
        memset(bins, 0, HISTOGRAM_BINS * sizeof *bins);
        for (size_t i = 0; i < count; i++) {
            value[i] = draw(n, i);
            bins[histogram_bin(value[i])]++;
        }
        qsort(value, count, sizeof *value, compare);
        for (size_t s = 0; s < sizeof shares / sizeof *shares; s++) {
            check_low(value, count, shares[s], histogram_low(bins, (int64_t)count, shares[s]));
            check_high(value, count, shares[s], histogram_high(bins, (int64_t)count, shares[s]));
        }
        assert_true(isinf(histogram_low(bins, (int64_t)count, 0)));
        assert_true(isinf(histogram_high(bins, (int64_t)count, 1)));
    }
    mem_free(bins);
}

/* The card's: one in ten below, one in ten above. */
static void a_tenth_of_a_thousand_lies_beyond_either_limit(void **state)
{
    int64_t *bins = mem_array(HISTOGRAM_BINS, sizeof *bins);

    (void)state;
    for (int i = 0; i < 1000; i++)
        bins[histogram_bin((i * 7 % 1000) / 4.0)]++; /* 0 to 249.75 */
    assert_true(histogram_low(bins, 1000, 0.1) == 25);
    assert_true(histogram_high(bins, 1000, 0.9) == 225); /* 224.75 is in a bin of 0.5 */
    mem_free(bins);
}

static void only_limits_that_there_are_become_quantiles(void **state)
{
    struct measured measured = {0};
    struct gopher_limits limits, published;

    (void)state;
    for (int i = 0; i < 1000; i++) {
        double value[GOPHER_END];
        for (int m = 0; m < GOPHER_END; m++)
            value[m] = i;
        measured_add(&measured, value);
    }
    for (int v = 0; v < 2; v++) {
        enum gopher_variant variant = v ? GOPHER_DATATROVE : GOPHER_DOLMA;
        gopher_limits_init(&published, variant);
        limits = published;
        measured_limits(&measured, 0.1, 0.9, &limits);
        for (int m = 0; m < GOPHER_END; m++) {
            assert_true(isfinite(published.low[m]) ? limits.low[m] == 100
                                                   : isinf(limits.low[m]) != 0);
            assert_true(isfinite(published.high[m]) ? limits.high[m] >= 899 && limits.high[m] < 903
                                                    : isinf(limits.high[m]) != 0);
        }
    }
    measured_done(&measured);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(limits_are_the_quantiles_of_the_sorted_sample),
        cmocka_unit_test(a_tenth_of_a_thousand_lies_beyond_either_limit),
        cmocka_unit_test(only_limits_that_there_are_become_quantiles),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
