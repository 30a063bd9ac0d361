/* hidden_losses.c - see hidden_losses.h. */
#include "worker/recipes/distillation/hidden_losses.h"

#include <math.h>

double hidden_cosine(const float *s, const float *t, int64_t width, double weight, float *grad)
{
    double dot = 0, ss = 0, tt = 0, cosine, norm;

    for (int64_t i = 0; i < width; i++) {
        dot += (double)s[i] * t[i];
        ss += (double)s[i] * s[i];
        tt += (double)t[i] * t[i];
    }
    if (ss == 0 || tt == 0)
        return 1;
    norm = sqrt(ss * tt);
    cosine = dot / norm;
    for (int64_t i = 0; i < width; i++)
        grad[i] += (float)(weight * (cosine * s[i] / ss - t[i] / norm));
    return 1 - cosine;
}

double hidden_square(const float *s, const float *t, int64_t width, double weight, float *grad)
{
    double sum = 0;

    for (int64_t i = 0; i < width; i++) {
        double difference = (double)s[i] - t[i];

        sum += difference * difference;
        grad[i] += (float)(2 * weight * difference);
    }
    return sum;
}

/* log sum exp of z / tau. */
static double log_sum(const float *z, int64_t V, double tau)
{
    double highest = -INFINITY, sum = 0;

    for (int64_t v = 0; v < V; v++)
        highest = fmax(highest, z[v]);
    for (int64_t v = 0; v < V; v++)
        sum += exp((z[v] - highest) / tau);
    return highest / tau + log(sum);
}

double hidden_soften(const float *s, const float *t, int64_t V, double tau, double weight,
                     float *grad)
{
    double lse_s = log_sum(s, V, tau), lse_t = log_sum(t, V, tau), loss = 0;

    for (int64_t v = 0; v < V; v++) {
        double log_q = s[v] / tau - lse_s, log_p = t[v] / tau - lse_t;
        double p = exp(log_p);

        if (p > 0)
            loss += p * (log_p - log_q);
        grad[v] += (float)(weight * tau * (exp(log_q) - p));
    }
    return tau * tau * loss;
}

static double product(const float *a, const float *b, int64_t width)
{
    double sum = 0;

    for (int64_t i = 0; i < width; i++)
        sum += (double)a[i] * b[i];
    return sum;
}

double hidden_scores(const struct attention_side *student, const struct attention_side *teacher,
                     int64_t n, int64_t heads, double weight, float *grad_q, float *grad_k)
{
    int64_t ds = student->width, dt = teacher->width;
    double scale = 1 / sqrt((double)ds), scale_t = 1 / sqrt((double)dt), loss = 0;

    for (int64_t h = 0; h < heads; h++)
        for (int64_t i = 0; i < n; i++)
            for (int64_t j = 0; j < n; j++) {
                int64_t q = (i * heads + h) * ds, k = (j * heads + h) * ds;
                double difference =
                    scale * product(student->q + q, student->k + k, ds) -
                    scale_t * product(teacher->q + (i * heads + h) * dt,
                                      teacher->k + (j * heads + h) * dt, dt);
                double slope = 2 * weight * difference * scale;

                loss += difference * difference;
                for (int64_t c = 0; c < ds; c++) {
                    grad_q[q + c] += (float)(slope * student->k[k + c]);
                    grad_k[k + c] += (float)(slope * student->q[q + c]);
                }
            }
    return loss;
}
