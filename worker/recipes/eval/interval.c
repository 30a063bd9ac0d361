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

struct interval percentiles(double *values, size_t count)
{
    if (count == 0)
        return (struct interval){NAN, NAN};
    qsort(values, count, sizeof *values, compare);
    return (struct interval){values[(size_t)(0.025 * (double)(count - 1) + 0.5)],
                             values[(size_t)(0.975 * (double)(count - 1) + 0.5)]};
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
    if (count && draws)
        out = percentiles(means, draws);
    mem_free(means);
    return out;
}

struct interval ratio_interval(const double *top, const double *bottom, size_t count,
                               uint64_t seed, unsigned draws)
{
    struct interval out = {NAN, NAN};
    double *ratios = mem_array(draws + 1, sizeof *ratios);

    for (unsigned d = 0; d < draws; d++) {
        double above = 0, below = 0;

        for (size_t i = 0; i < count; i++) {
            size_t drawn = rng_at(seed, d, i) % count;

            above += top[drawn];
            below += bottom[drawn];
        }
        ratios[d] = above / below;
    }
    if (count > 1 && draws)
        out = percentiles(ratios, draws);
    mem_free(ratios);
    return out;
}

struct interval grouped_interval(const double *values, size_t groups, size_t each, uint64_t seed,
                                 unsigned draws)
{
    struct interval out = {NAN, NAN};
    double *means = mem_array(draws + 1, sizeof *means);

    for (unsigned d = 0; d < draws; d++) {
        double sum = 0;

        for (size_t g = 0; g < groups; g++) {
            size_t group = rng_at(seed, d, g) % groups;

            for (size_t i = 0; i < each; i++) /* streams beyond those of the groups */
                sum += values[group * each +
                              rng_at(seed, (uint64_t)draws + d, g * each + i) % each];
        }
        means[d] = sum / (double)(groups * each);
    }
    if (groups && each && draws)
        out = percentiles(means, draws);
    mem_free(means);
    return out;
}

void bleu_draws(const struct bleu *parts, size_t groups, size_t each, uint64_t seed,
                unsigned draws, double *out)
{
    for (unsigned d = 0; d < draws; d++) {
        struct bleu sum = {0};

        for (size_t g = 0; g < groups; g++) {
            size_t group = rng_at(seed, d, g) % groups;

            for (size_t i = 0; i < each; i++)
                bleu_join(&sum, &parts[group * each +
                                       rng_at(seed, (uint64_t)draws + d, g * each + i) % each]);
        }
        out[d] = bleu_score(&sum, false);
    }
}

/* The continued fraction of the incomplete beta function (Press et al., Numerical Recipes, 6.4,
 * by Lentz's method). Converges within some tens of terms for x below (a+1)/(a+b+2). */
static double beta_fraction(double a, double b, double x)
{
    const double tiny = 1e-300;
    double c = 1, d = 1 - (a + b) * x / (a + 1), h;

    d = 1 / (fabs(d) < tiny ? tiny : d);
    h = d;
    for (int m = 1; m <= 10000; m++) {
        double term = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)), step;

        d = 1 + term * d;
        c = 1 + term / c;
        d = 1 / (fabs(d) < tiny ? tiny : d);
        c = fabs(c) < tiny ? tiny : c;
        h *= d * c;
        term = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1));
        d = 1 + term * d;
        c = 1 + term / c;
        d = 1 / (fabs(d) < tiny ? tiny : d);
        c = fabs(c) < tiny ? tiny : c;
        step = d * c;
        h *= step;
        if (fabs(step - 1) < 1e-15)
            break;
    }
    return h;
}

/* The distribution function of Beta(a, b). */
static double beta_below(double a, double b, double x)
{
    double front;

    if (x <= 0 || x >= 1)
        return x >= 1;
    front = exp(lgamma(a + b) - lgamma(a) - lgamma(b) + a * log(x) + b * log1p(-x));
    return x < (a + 1) / (a + b + 2) ? front * beta_fraction(a, b, x) / a
                                     : 1 - front * beta_fraction(b, a, 1 - x) / b;
}

/* Where it reaches `share`: 60 halvings leave less than 1e-18. */
static double beta_quantile(double a, double b, double share)
{
    double low = 0, high = 1;

    for (int i = 0; i < 60; i++) {
        double middle = (low + high) / 2;

        if (beta_below(a, b, middle) < share)
            low = middle;
        else
            high = middle;
    }
    return (low + high) / 2;
}

struct interval proportion_interval(size_t k, size_t n)
{
    double hits = (double)k, misses = (double)(n - k);

    CHECK(n > 0 && k <= n);
    return (struct interval){k == 0 ? 0 : beta_quantile(hits, misses + 1, 0.025),
                             k == n ? 1 : beta_quantile(hits + 1, misses, 0.975)};
}

double calibration_error(const double *confidence, const bool *correct, size_t count,
                         unsigned bins)
{
    double error = 0;

    for (unsigned b = 0; b < bins; b++) {
        double sum = 0, hits = 0;

        for (size_t i = 0; i < count; i++) {
            double bin = ceil(confidence[i] * bins) - 1;

            if ((bin < 0 ? 0 : bin) == b) {
                sum += confidence[i];
                hits += correct[i];
            }
        }
        error += fabs(hits - sum);
    }
    return count ? error / (double)count : NAN;
}
