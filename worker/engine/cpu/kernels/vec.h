/* vec.h - one native vector of floats, with exp and log, for whatever set is compiled.
 *
 * Loads and stores need no alignment. Tails use vec_load_part, whose missing lanes are 0.
 * Sums over a row keep VEC_WIDTH partial sums and fold them in a fixed order. */
#ifndef ATHANOR_ENGINE_CPU_VEC_H
#define ATHANOR_ENGINE_CPU_VEC_H

#include "worker/engine/cpu/kernels/kernels.h"

#if defined(__AVX512F__)
#define VEC_WIDTH 16
#elif defined(__AVX2__)
#define VEC_WIDTH 8
#else
#define VEC_WIDTH 4
#endif

typedef float vec __attribute__((vector_size(4 * VEC_WIDTH)));
typedef int32_t ivec __attribute__((vector_size(4 * VEC_WIDTH)));

static inline vec vec_load(const float *from)
{
    vec v;

    __builtin_memcpy(&v, from, sizeof v);
    return v;
}

static inline void vec_store(float *to, vec v)
{
    __builtin_memcpy(to, &v, sizeof v);
}

static inline vec vec_load_part(const float *from, int64_t count)
{
    vec v = {0};

    __builtin_memcpy(&v, from, 4 * (size_t)count);
    return v;
}

static inline void vec_store_part(float *to, vec v, int64_t count)
{
    __builtin_memcpy(to, &v, 4 * (size_t)count);
}

static inline vec vec_set(float x)
{
    return x - (vec){0};
}

/* Lanes where mask is all ones from a, others from b. */
static inline vec vec_select(ivec mask, vec a, vec b)
{
    return (vec)((mask & (ivec)a) | (~mask & (ivec)b));
}

static inline vec vec_max(vec a, vec b)
{
    return vec_select(a > b, a, b);
}

static inline vec vec_min(vec a, vec b)
{
    return vec_select(a < b, a, b);
}

static inline float vec_sum(vec v)
{
    float sum = 0;

    for (int i = 0; i < VEC_WIDTH; i++)
        sum += v[i];
    return sum;
}

static inline float vec_highest(vec v)
{
    float highest = v[0];

    for (int i = 1; i < VEC_WIDTH; i++)
        highest = v[i] > highest ? v[i] : highest;
    return highest;
}

/* exp to about 2 ulp; 0 below -87.3, clamped above 88.3 (callers pass differences to a
 * maximum). Range reduction by n ln 2 in two parts, then the degree-5 polynomial of the
 * Cephes library's expf. */
static inline vec vec_exp(vec x)
{
    const vec shift = vec_set(12582912.0f); /* 1.5 * 2^23: rounds to an integer when added */
    vec clamped = vec_min(vec_max(x, vec_set(-87.33f)), vec_set(88.3f));
    vec rounded = clamped * vec_set(1.44269504088896341f) + shift;
    ivec exponent = (ivec)rounded << 23; /* the shift's own bits leave at the top */
    vec n = rounded - shift;
    vec r = clamped - n * vec_set(0.693359375f) + n * vec_set(2.12194440e-4f);
    vec p = vec_set(1.9875691500e-4f);

    p = p * r + vec_set(1.3981999507e-3f);
    p = p * r + vec_set(8.3334519073e-3f);
    p = p * r + vec_set(4.1665795894e-2f);
    p = p * r + vec_set(1.6666665459e-1f);
    p = p * r + vec_set(5.0000001201e-1f);
    p = p * r * r + r + vec_set(1.0f);
    p = (vec)((ivec)p + exponent);
    return vec_select(x < vec_set(-87.33f), vec_set(0), p);
}

/* erf to 2e-7: Abramowitz and Stegun 7.1.26. */
static inline vec vec_erf(vec x)
{
    vec a = vec_max(x, -x), t = 1.0f / (1.0f + 0.3275911f * a);
    vec p = vec_set(1.061405429f);

    p = p * t - 1.453152027f;
    p = p * t + 1.421413741f;
    p = p * t - 0.284496736f;
    p = p * t + 0.254829592f;
    p = 1.0f - p * t * vec_exp(-a * a);
    return vec_select(x < vec_set(0), -p, p);
}

/* (log(1 + m) - m + m^2 / 2) / m^3 for m from sqrt(1/2) - 1 to sqrt(2) - 1: Cephes' logf. */
static inline vec vec_log_cubic(vec m)
{
    vec p = vec_set(7.0376836292e-2f);

    p = p * m - vec_set(1.1514610310e-1f);
    p = p * m + vec_set(1.1676998740e-1f);
    p = p * m - vec_set(1.2420140846e-1f);
    p = p * m + vec_set(1.4249322787e-1f);
    p = p * m - vec_set(1.6668057665e-1f);
    p = p * m + vec_set(2.0000714765e-1f);
    p = p * m - vec_set(2.4999993993e-1f);
    return p * m + vec_set(3.3333331174e-1f);
}

/* log of positive normal numbers to about 2 ulp; smaller ones count as the least normal.
 * Mantissa to [sqrt(1/2), sqrt(2)), then the polynomial. */
static inline vec vec_log(vec x)
{
    ivec bits = (ivec)vec_max(x, vec_set(1.17549435e-38f));
    vec m = (vec)((bits & 0x007fffff) | 0x3f000000);
    vec e = __builtin_convertvector(((bits >> 23) & 0xff) - 126, vec);
    ivec low = m < vec_set(0.707106781186547524f);
    vec z, p;

    e = vec_select(low, e - 1.0f, e);
    m = vec_select(low, m + m, m) - 1.0f;
    z = m * m;
    p = vec_log_cubic(m) * m * z - 0.5f * z + e * vec_set(-2.12194440e-4f) + m;
    return p + e * vec_set(0.693359375f);
}

/* log(1 + m) - m for m from sqrt(1/2) - 1 to sqrt(2) - 1, with the digits that m would cancel. */
static inline vec vec_log1p_rest(vec m)
{
    return (vec_log_cubic(m) * m - 0.5f) * m * m;
}

#endif
