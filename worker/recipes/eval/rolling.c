/* rolling.c - see rolling.h. */
#include "worker/recipes/eval/rolling.h"

static int64_t ceil_div(int64_t a, int64_t b)
{
    return a <= 0 ? 0 : (a + b - 1) / b;
}

/* Strided: y has n+1 tokens; the last window is the first that reaches the end. */
static int64_t strided_count(const struct rolling *rolling, int64_t n)
{
    return n < 1 ? 0 : 1 + ceil_div(n + 1 - rolling->K, rolling->stride);
}

int64_t rolling_count(const struct rolling *rolling, int64_t n)
{
    if (rolling->stride > 0)
        return strided_count(rolling, n);
    if (n < 1)
        return 0;
    return 1 + ceil_div(n - rolling->K, rolling->K - rolling->context + 1);
}

/* A window of K tokens y[begin .. end-1] has end-begin-1 inputs with a target inside it. */
static struct rolling_window strided_at(const struct rolling *rolling, int64_t n, int64_t index)
{
    int64_t begin = index * rolling->stride;
    int64_t end = (int64_t)min_u64((uint64_t)(begin + rolling->K), (uint64_t)(n + 1));
    int64_t scored_before = index == 0 ? 0 : begin - rolling->stride + rolling->K;
    struct rolling_window window = {begin, end - begin - 1, scored_before};

    if (window.score_from < begin + 1)
        window.score_from = begin + 1;
    return window;
}

struct rolling_window rolling_at(const struct rolling *rolling, int64_t n, int64_t index)
{
    int64_t fresh = rolling->K - rolling->context + 1;
    int64_t done, last;

    CHECK(index >= 0 && index < rolling_count(rolling, n));
    if (rolling->stride > 0)
        return strided_at(rolling, n, index);
    if (index == 0)
        return (struct rolling_window){0, n < rolling->K ? n : rolling->K, 1};
    done = rolling->K + (index - 1) * fresh;
    last = done + fresh < n ? done + fresh : n;
    return (struct rolling_window){last - rolling->K, rolling->K, done + 1};
}
