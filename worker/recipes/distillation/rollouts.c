/* rollouts.c - see rollouts.h. */
#include "worker/recipes/distillation/rollouts.h"

#include <math.h>

void rollout_returns(const double *reward, int64_t n, bool per_token, double *out)
{
    double sum = 0;

    for (int64_t t = n - 1; t >= 0; t--) {
        out[t] = per_token && t < n - 1 ? sum / (double)(n - t - 1) : sum;
        sum += reward[t];
    }
}

double rollout_weight(double log_q, double log_p, double mix)
{
    return 1 / (mix * exp(log_p - log_q) + 1 - mix);
}

static double log_sum(const float *z, int64_t V)
{
    double highest = -INFINITY, sum = 0;

    for (int64_t v = 0; v < V; v++)
        highest = fmax(highest, z[v]);
    for (int64_t v = 0; v < V; v++)
        sum += exp(z[v] - highest);
    return highest + log(sum);
}

void rollout_mix(float *student, const float *teacher, int64_t V, double mix)
{
    double lse_q = log_sum(student, V), lse_p = log_sum(teacher, V);

    for (int64_t v = 0; v < V; v++)
        student[v] = (float)log(mix * exp(teacher[v] - lse_p) +
                                (1 - mix) * exp(student[v] - lse_q));
}

double rollout_slope(double gain, double ratio, double most)
{
    bool beyond = gain > 0 ? ratio > 1 + most : ratio < 1 - most;

    return beyond ? 0 : gain * ratio;
}
