/* rope.c - see rope.h. */
#include "worker/engine/rope.h"

#include "common/base/mem.h"

#include <math.h>

#define PI 3.14159265358979323846

static double within(double value, double least, double most)
{
    return fmin(fmax(value, least), most);
}

/* The element, as a fraction, whose angle turns `turns` times within the original positions. */
static double element_of(double turns, double head_width, double theta, int64_t original)
{
    return head_width * log((double)original / (2 * PI * turns)) / (2 * log(theta));
}

static double yarn_keep(int64_t i, double head_width, double theta,
                        const struct rope_scaling *scaling)
{
    double from = floor(element_of(scaling->fast, head_width, theta, scaling->original));
    double to = ceil(element_of(scaling->slow, head_width, theta, scaling->original));

    from = fmax(from, 0);
    to = fmin(to, head_width - 1);
    if (from == to)
        to += 0.001; /* as transformers does: a step, not a division by zero */
    return 1 - within(((double)i - from) / (to - from), 0, 1);
}

static double llama3_keep(double speed, const struct rope_scaling *scaling)
{
    double turns = (double)scaling->original * speed / (2 * PI);

    return within((turns - scaling->slow) / (scaling->fast - scaling->slow), 0, 1);
}

void rope_speeds(double *out, int64_t head_width, double theta,
                 const struct rope_scaling *scaling)
{
    for (int64_t i = 0; i < head_width / 2; i++) {
        double speed = pow(theta, -2.0 * (double)i / (double)head_width), keep = 0;

        out[i] = speed;
        if (scaling->kind == ROPE_PLAIN)
            continue;
        if (scaling->kind == ROPE_LLAMA3)
            keep = llama3_keep(speed, scaling);
        if (scaling->kind == ROPE_YARN)
            keep = yarn_keep(i, (double)head_width, theta, scaling);
        out[i] = speed * (keep + (1 - keep) / scaling->factor);
    }
}

static double length_of(const struct rope_scaling *scaling)
{
    if (scaling->kind != ROPE_YARN)
        return 1;
    return scaling->attention > 0 ? scaling->attention : 0.1 * log(scaling->factor) + 1;
}

void rope_turns(float *out_host, int64_t first, int64_t positions, int64_t head_width,
                double theta, const struct rope_scaling *scaling)
{
    int64_t half = head_width / 2;
    double *speed = mem_array((size_t)half, sizeof *speed), length = length_of(scaling);

    rope_speeds(speed, head_width, theta, scaling);
    for (int64_t i = 0; i < half; i++)
        for (int64_t p = 0; p < positions; p++) {
            double angle = (double)(first + p) * speed[i];
            out_host[p * head_width + i] = (float)(length * cos(angle));
            out_host[p * head_width + half + i] = (float)(length * sin(angle));
        }
    mem_free(speed);
}

int rope_scaling_check(const struct rope_scaling *scaling, struct err *err)
{
    bool turns = scaling->kind == ROPE_LLAMA3 || scaling->kind == ROPE_YARN;
    bool yarn = scaling->kind == ROPE_YARN;

    if (scaling->kind == ROPE_PLAIN)
        return 0;
    if (!(scaling->factor >= 1 && scaling->factor <= 1e6))
        return err_set(err, ERR_INVALID, "factor is %g; 1 to 1000000 is accepted",
                       scaling->factor);
    if (!turns)
        return 0;
    if (scaling->original < 1)
        return err_set(err, ERR_INVALID, "original_max_position_embeddings is %lld; 1 or more is "
                       "accepted", (long long)scaling->original);
    if (!(scaling->slow > 0 && scaling->slow < scaling->fast && scaling->fast <= 1e6))
        return err_set(err, ERR_INVALID, "%s is %g and %s is %g; above 0, and more than that up to "
                       "1000000, are accepted", yarn ? "beta_slow" : "low_freq_factor",
                       scaling->slow, yarn ? "beta_fast" : "high_freq_factor", scaling->fast);
    if (!(scaling->attention >= 0 && scaling->attention <= 1000))
        return err_set(err, ERR_INVALID, "attention_factor is %g; above 0 up to 1000 is accepted",
                       scaling->attention);
    return 0;
}

bool rope_scaling_equal(const struct rope_scaling *a, const struct rope_scaling *b)
{
    return a->kind == b->kind && a->factor == b->factor && a->slow == b->slow &&
           a->fast == b->fast && a->attention == b->attention && a->original == b->original;
}
