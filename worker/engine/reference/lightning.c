/* lightning.c - the reference of linear attention with decay: its naive, quadratic form. */
#include "worker/engine/reference/reference.h"

#include "worker/engine/ops.h"

#include <math.h>
#include <string.h>

struct shape {
    int64_t H, dk, e, B, T, width;
};

static struct shape shape_of(const struct op_call *call)
{
    struct shape s = {call->whole[0], call->whole[1], call->whole[2], call->whole[3], 0, 0};

    s.T = tensor_rows(call->in[0]) / s.B;
    s.width = s.H * (2 * s.dk + s.e);
    return s;
}

static int64_t q_at(const struct shape *s, int64_t row, int64_t h)
{
    return row * s->width + h * s->dk;
}

static int64_t k_at(const struct shape *s, int64_t row, int64_t h)
{
    return row * s->width + (s->H + h) * s->dk;
}

static int64_t v_at(const struct shape *s, int64_t row, int64_t h)
{
    return row * s->width + 2 * s->H * s->dk + h * s->e;
}

static double dot(const float *a, const float *b, int64_t count)
{
    double sum = 0;

    for (int64_t i = 0; i < count; i++)
        sum += (double)a[i] * b[i];
    return sum;
}

/* The document that token t of a row is in begins where `first` last was its own index. */
static int64_t sees_from(const struct op_call *call, int64_t row, int64_t t)
{
    return call->in[2] ? tensor_i32(call->in[2])[row + t] : 0;
}

void reference_lightning_forward(struct device *device, const struct op_call *call)
{
    struct shape s = shape_of(call);
    const float *x = tensor_f32(call->in[0]), *slope = tensor_f32(call->in[1]);

    (void)device;
    for (int64_t unit = 0; unit < s.B * s.H * s.T; unit++) {
        int64_t t = unit % s.T, h = unit / s.T % s.H, row = unit / s.T / s.H * s.T;
        float *y = tensor_f32(call->out[0]) + (row + t) * s.H * s.e + h * s.e;

        for (int64_t i = 0; i < s.e; i++) {
            double sum = 0;

            for (int64_t j = sees_from(call, row, t); j <= t; j++)
                sum += exp(-(double)slope[h] * (double)(t - j)) *
                       dot(x + q_at(&s, row + t, h), x + k_at(&s, row + j, h), s.dk) *
                       x[v_at(&s, row + j, h) + i];
            y[i] = (float)sum;
        }
    }
}

/* With a = decay (q_t k_j): dv_j += a dy, and g = decay (dy v_j): dq_t += g k_j, dk_j += g q_t. */
void reference_lightning_backward(struct device *device, const struct op_call *call)
{
    struct shape s = shape_of(call);
    const float *x = tensor_f32(call->in[0]), *slope = tensor_f32(call->in[1]);
    float *dx = device_grad(device, call->in[0], NULL);

    for (int64_t unit = 0; unit < s.B * s.H * s.T; unit++) {
        int64_t t = unit % s.T, h = unit / s.T % s.H, row = unit / s.T / s.H * s.T;
        const float *dy = call->out[0]->grad + (row + t) * s.H * s.e + h * s.e;

        for (int64_t j = sees_from(call, row, t); j <= t; j++) {
            int64_t q = q_at(&s, row + t, h), k = k_at(&s, row + j, h), v = v_at(&s, row + j, h);
            double decay = exp(-(double)slope[h] * (double)(t - j));
            double a = decay * dot(x + q, x + k, s.dk), g = decay * dot(dy, x + v, s.e);

            for (int64_t i = 0; i < s.e; i++)
                dx[v + i] += (float)(a * dy[i]);
            for (int64_t i = 0; i < s.dk; i++) {
                dx[q + i] += (float)(g * x[k + i]);
                dx[k + i] += (float)(g * x[q + i]);
            }
        }
    }
}

/* S = decay S + k v', y = S' q, for the tokens that count. */
void reference_lightning_step_forward(struct device *device, const struct op_call *call)
{
    struct shape s = shape_of(call);
    const float *x = tensor_f32(call->in[0]), *slope = tensor_f32(call->in[1]);

    (void)device;
    memset(tensor_f32(call->out[0]), 0, 4 * (size_t)tensor_count(call->out[0]));
    for (int64_t unit = 0; unit < s.B * s.H; unit++) {
        int64_t h = unit % s.H, b = unit / s.H;
        float *S = tensor_f32(call->in[3]) + unit * s.dk * s.e;
        double decay = exp(-(double)slope[h]);

        for (int64_t t = 0; t < tensor_i32(call->in[2])[b]; t++) {
            const float *q = x + q_at(&s, b * s.T + t, h), *k = x + k_at(&s, b * s.T + t, h);
            const float *v = x + v_at(&s, b * s.T + t, h);
            float *y = tensor_f32(call->out[0]) + (b * s.T + t) * s.H * s.e + h * s.e;

            for (int64_t i = 0; i < s.dk; i++)
                for (int64_t j = 0; j < s.e; j++) {
                    S[i * s.e + j] = (float)(decay * S[i * s.e + j] + (double)k[i] * v[j]);
                    y[j] += q[i] * S[i * s.e + j];
                }
        }
    }
}

static double act(int64_t f, double x)
{
    if (f == ACTIVATION_SILU)
        return x / (1 + exp(-x));
    if (f == ACTIVATION_ELU1)
        return x > 0 ? 1 + x : exp(x);
    return x;
}

static double act_slope(int64_t f, double x)
{
    double s = 1 / (1 + exp(-x));

    if (f == ACTIVATION_SILU)
        return s * (1 + x * (1 - s));
    if (f == ACTIVATION_ELU1)
        return x > 0 ? 1 : exp(x);
    return 1;
}

/* Columns of x: q heads, k heads (width d each), v heads. Columns of y: the same, with q and k
 * twice as wide (cosine part, then sine part) where there are angles. */
void reference_lrpe_forward(struct device *device, const struct op_call *call)
{
    int64_t H = call->whole[0], d = call->whole[1], f = call->whole[2];
    int64_t from = tensor_columns(call->in[0]), to = tensor_columns(call->out[0]);
    const struct tensor *theta = call->in[2];
    int64_t dk = theta ? 2 * d : d;

    (void)device;
    for (int64_t n = 0; n < tensor_rows(call->in[0]); n++) {
        const float *x = tensor_f32(call->in[0]) + n * from;
        float *y = tensor_f32(call->out[0]) + n * to;

        for (int64_t u = 0; u < 2 * H * d; u++) {
            double a = act(f, x[u]), p = 0;
            float *at = y + u / d * dk + u % d;

            if (theta)
                p = (double)tensor_i32(call->in[1])[n] * tensor_f32(theta)[u % (H * d)];
            at[0] = (float)(a * cos(p));
            if (theta)
                at[d] = (float)(a * sin(p));
        }
        memcpy(y + 2 * H * dk, x + 2 * H * d, 4 * (size_t)(H * d));
    }
}

void reference_lrpe_backward(struct device *device, const struct op_call *call)
{
    int64_t H = call->whole[0], d = call->whole[1], f = call->whole[2];
    int64_t from = tensor_columns(call->in[0]), to = tensor_columns(call->out[0]);
    struct tensor *theta = call->in[2];
    int64_t dk = theta ? 2 * d : d;
    float *dx = call->in[0]->grad ? device_grad(device, call->in[0], NULL) : NULL;
    float *dtheta = theta && theta->grad ? device_grad(device, theta, NULL) : NULL;

    for (int64_t n = 0; n < tensor_rows(call->in[0]); n++) {
        const float *x = tensor_f32(call->in[0]) + n * from;
        const float *dy = call->out[0]->grad + n * to;

        for (int64_t u = 0; u < 2 * H * d; u++) {
            const float *g = dy + u / d * dk + u % d;
            double t = theta ? (double)tensor_i32(call->in[1])[n] : 0;
            double p = theta ? t * tensor_f32(theta)[u % (H * d)] : 0, sine = theta ? g[d] : 0;

            if (dx)
                dx[n * from + u] +=
                    (float)(act_slope(f, x[u]) * (g[0] * cos(p) + sine * sin(p)));
            if (dtheta)
                dtheta[u % (H * d)] +=
                    (float)(t * act(f, x[u]) * (sine * cos(p) - g[0] * sin(p)));
        }
        for (int64_t u = 0; dx && u < H * d; u++)
            dx[n * from + 2 * H * d + u] += dy[2 * H * dk + u];
    }
}
