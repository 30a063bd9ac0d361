/* layers.c - the reference of all ops but attention and the head. */
#include "worker/engine/reference/reference.h"

#include <math.h>
#include <string.h>

void reference_embed_forward(struct device *device, const struct op_call *call)
{
    const struct tensor *token = call->in[0], *position = call->in[1];
    const struct tensor *wte = call->in[2], *wpe = call->in[3];
    int64_t D = tensor_columns(wte);
    float *y = tensor_f32(call->out[0]);

    (void)device;
    for (int64_t n = 0; n < tensor_count(token); n++) {
        for (int64_t i = 0; i < D; i++) {
            y[n * D + i] = tensor_f32(wte)[tensor_i32(token)[n] * D + i];
            if (wpe)
                y[n * D + i] += tensor_f32(wpe)[tensor_i32(position)[n] * D + i];
        }
    }
}

static void add_rows(struct device *device, struct tensor *table, const struct tensor *index,
                     const float *dy)
{
    int64_t D;
    float *grad;

    if (!table || !table->grad)
        return;
    D = tensor_columns(table);
    grad = device_grad(device, table, NULL);
    for (int64_t n = 0; n < tensor_count(index); n++)
        for (int64_t i = 0; i < D; i++)
            grad[tensor_i32(index)[n] * D + i] += dy[n * D + i];
}

void reference_embed_backward(struct device *device, const struct op_call *call)
{
    add_rows(device, call->in[2], call->in[0], call->out[0]->grad);
    add_rows(device, call->in[3], call->in[1], call->out[0]->grad);
}

void reference_gather_forward(struct device *device, const struct op_call *call)
{
    const struct tensor *x = call->in[0], *index = call->in[1];
    int64_t C = tensor_columns(x);

    (void)device;
    for (int64_t m = 0; m < tensor_count(index); m++)
        for (int64_t i = 0; i < C; i++)
            tensor_f32(call->out[0])[m * C + i] = tensor_f32(x)[tensor_i32(index)[m] * C + i];
}

void reference_gather_backward(struct device *device, const struct op_call *call)
{
    add_rows(device, call->in[0], call->in[1], call->out[0]->grad);
}

/* c[r, k] (+)= sum_i a[r, i] b[i, k], with strides for both axes of a and b. */
static void product(float *c, bool adds, int64_t rows, int64_t columns, int64_t inner,
                    const float *a, int64_t a_row, int64_t a_inner, const float *b,
                    int64_t b_inner, int64_t b_column)
{
    for (int64_t r = 0; r < rows; r++) {
        for (int64_t k = 0; k < columns; k++) {
            double sum = adds ? c[r * columns + k] : 0;

            for (int64_t i = 0; i < inner; i++)
                sum += (double)a[r * a_row + i * a_inner] * b[i * b_inner + k * b_column];
            c[r * columns + k] = (float)sum;
        }
    }
}

void reference_linear_forward(struct device *device, const struct op_call *call)
{
    const struct tensor *x = call->in[0], *w = call->in[1], *b = call->in[2];
    int64_t N = tensor_rows(x), K = tensor_columns(x), M = tensor_rows(w);
    float *y = tensor_f32(call->out[0]);

    (void)device;
    for (int64_t n = 0; n < N; n++)
        for (int64_t m = 0; m < M; m++)
            y[n * M + m] = b ? tensor_f32(b)[m] : 0;
    product(y, true, N, M, K, tensor_f32(x), K, 1, tensor_f32(w), 1, K);
}

void reference_linear_backward(struct device *device, const struct op_call *call)
{
    struct tensor *x = call->in[0], *w = call->in[1], *b = call->in[2];
    const float *dy = call->out[0]->grad;
    int64_t N = tensor_rows(x), K = tensor_columns(x), M = tensor_rows(w);
    float *db;

    if (x->grad)
        product(device_grad(device, x, NULL), true, N, K, M, dy, M, 1, tensor_f32(w), K, 1);
    if (w->grad)
        product(device_grad(device, w, NULL), true, M, K, N, dy, 1, M, tensor_f32(x), K, 1);
    if (!b || !b->grad)
        return;
    db = device_grad(device, b, NULL);
    for (int64_t n = 0; n < N; n++)
        for (int64_t m = 0; m < M; m++)
            db[m] += dy[n * M + m];
}

void reference_layernorm_forward(struct device *device, const struct op_call *call)
{
    int64_t N = tensor_rows(call->in[0]), C = tensor_columns(call->in[0]);
    const float *g = tensor_f32(call->in[1]), *b = tensor_f32(call->in[2]);

    (void)device;
    for (int64_t n = 0; n < N; n++) {
        const float *x = tensor_f32(call->in[0]) + n * C;
        float *y = tensor_f32(call->out[0]) + n * C;
        double mean = 0, var = 0, rstd;

        for (int64_t i = 0; i < C; i++)
            mean += x[i] / (double)C;
        for (int64_t i = 0; i < C; i++)
            var += (x[i] - mean) * (x[i] - mean) / (double)C;
        rstd = 1 / sqrt(var + call->real[0]);
        for (int64_t i = 0; i < C; i++)
            y[i] = (float)((x[i] - mean) * rstd * g[i] + b[i]);
        tensor_f32(call->out[1])[n] = (float)mean;
        tensor_f32(call->out[2])[n] = (float)rstd;
    }
}

/* With x^ = (x - mean) / std and u = dy g:
 * dx = (u - mean(u) - x^ mean(u x^)) / std;  dg = sum_n dy x^;  db = sum_n dy.
 * RMS normalisation is the same without the means. */
static void norm_row(const float *x, const float *g, const float *dy, int64_t C, double mean,
                     double rstd, bool centred, float *dx)
{
    double u_mean = 0, ux_mean = 0;

    for (int64_t i = 0; i < C; i++) {
        double u = (double)dy[i] * g[i];

        u_mean += centred ? u / (double)C : 0;
        ux_mean += u * (x[i] - mean) * rstd / (double)C;
    }
    for (int64_t i = 0; i < C; i++)
        dx[i] += (float)(rstd * ((double)dy[i] * g[i] - u_mean - (x[i] - mean) * rstd * ux_mean));
}

static void norm_backward(struct device *device, const struct op_call *call, const float *mean,
                          const float *rstd)
{
    struct tensor *x = call->in[0], *g = call->in[1], *b = call->in[2];
    int64_t N = tensor_rows(x), C = tensor_columns(x);
    float *dx = x->grad ? device_grad(device, x, NULL) : NULL;
    float *dg = g->grad ? device_grad(device, g, NULL) : NULL;
    float *db = b && b->grad ? device_grad(device, b, NULL) : NULL;

    for (int64_t n = 0; n < N; n++) {
        const float *dy = call->out[0]->grad + n * C, *row = tensor_f32(x) + n * C;
        double m = mean ? mean[n] : 0;

        if (dx)
            norm_row(row, tensor_f32(g), dy, C, m, rstd[n], mean != NULL, dx + n * C);
        for (int64_t i = 0; dg && i < C; i++)
            dg[i] += (float)(dy[i] * (row[i] - m) * rstd[n]);
        for (int64_t i = 0; db && i < C; i++)
            db[i] += dy[i];
    }
}

void reference_layernorm_backward(struct device *device, const struct op_call *call)
{
    norm_backward(device, call, tensor_f32(call->out[1]), tensor_f32(call->out[2]));
}

void reference_rmsnorm_forward(struct device *device, const struct op_call *call)
{
    int64_t N = tensor_rows(call->in[0]), C = tensor_columns(call->in[0]);

    (void)device;
    for (int64_t n = 0; n < N; n++) {
        const float *x = tensor_f32(call->in[0]) + n * C;
        double square = 0, rstd;

        for (int64_t i = 0; i < C; i++)
            square += (double)x[i] * x[i] / (double)C;
        rstd = 1 / sqrt(square + call->real[0]);
        for (int64_t i = 0; i < C; i++)
            tensor_f32(call->out[0])[n * C + i] =
                (float)(x[i] * rstd * tensor_f32(call->in[1])[i]);
        tensor_f32(call->out[1])[n] = (float)rstd;
    }
}

void reference_rmsnorm_backward(struct device *device, const struct op_call *call)
{
    norm_backward(device, call, NULL, tensor_f32(call->out[1]));
}

#define GELU_SLOPE 0.79788456080286535588 /* sqrt(2 / pi) */

void reference_gelu_forward(struct device *device, const struct op_call *call)
{
    (void)device;
    for (int64_t i = 0; i < tensor_count(call->in[0]); i++) {
        double x = tensor_f32(call->in[0])[i];

        tensor_f32(call->out[0])[i] =
            (float)(0.5 * x * (1 + tanh(GELU_SLOPE * (x + 0.044715 * x * x * x))));
    }
}

void reference_gelu_backward(struct device *device, const struct op_call *call)
{
    float *dx = device_grad(device, call->in[0], NULL);

    for (int64_t i = 0; i < tensor_count(call->in[0]); i++) {
        double x = tensor_f32(call->in[0])[i];
        double t = tanh(GELU_SLOPE * (x + 0.044715 * x * x * x));
        double slope = 0.5 * (1 + t) +
                       0.5 * x * (1 - t * t) * GELU_SLOPE * (1 + 3 * 0.044715 * x * x);

        dx[i] += (float)(call->out[0]->grad[i] * slope);
    }
}

static double sigmoid(double x)
{
    return 1 / (1 + exp(-x));
}

void reference_swiglu_forward(struct device *device, const struct op_call *call)
{
    int64_t N = tensor_rows(call->out[0]), F = tensor_columns(call->out[0]);

    (void)device;
    for (int64_t n = 0; n < N; n++) {
        const float *gate = tensor_f32(call->in[0]) + n * 2 * F, *up = gate + F;

        for (int64_t i = 0; i < F; i++)
            tensor_f32(call->out[0])[n * F + i] = (float)(gate[i] * sigmoid(gate[i]) * up[i]);
    }
}

void reference_swiglu_backward(struct device *device, const struct op_call *call)
{
    int64_t N = tensor_rows(call->out[0]), F = tensor_columns(call->out[0]);
    float *dx = device_grad(device, call->in[0], NULL);

    for (int64_t n = 0; n < N; n++) {
        const float *gate = tensor_f32(call->in[0]) + n * 2 * F, *up = gate + F;
        const float *dy = call->out[0]->grad + n * F;

        for (int64_t i = 0; i < F; i++) {
            double s = sigmoid(gate[i]);

            dx[n * 2 * F + i] += (float)(dy[i] * up[i] * s * (1 + gate[i] * (1 - s)));
            dx[n * 2 * F + F + i] += (float)(dy[i] * gate[i] * s);
        }
    }
}

void reference_add_forward(struct device *device, const struct op_call *call)
{
    (void)device;
    for (int64_t i = 0; i < tensor_count(call->in[0]); i++)
        tensor_f32(call->out[0])[i] = tensor_f32(call->in[0])[i] + tensor_f32(call->in[1])[i];
}

void reference_add_backward(struct device *device, const struct op_call *call)
{
    for (int k = 0; k < 2; k++) {
        float *grad;

        if (!call->in[k]->grad)
            continue;
        grad = device_grad(device, call->in[k], NULL);
        for (int64_t i = 0; i < tensor_count(call->in[k]); i++)
            grad[i] += call->out[0]->grad[i];
    }
}

void reference_softmax_forward(struct device *device, const struct op_call *call)
{
    int64_t N = tensor_rows(call->in[0]), C = tensor_columns(call->in[0]);

    (void)device;
    for (int64_t n = 0; n < N; n++) {
        const float *x = tensor_f32(call->in[0]) + n * C;
        double highest = -INFINITY, sum = 0;

        for (int64_t i = 0; i < C; i++)
            highest = fmax(highest, x[i]);
        for (int64_t i = 0; i < C; i++)
            sum += exp((x[i] - highest) / call->real[0]);
        for (int64_t i = 0; i < C; i++)
            tensor_f32(call->out[0])[n * C + i] =
                (float)(exp((x[i] - highest) / call->real[0]) / sum);
    }
}

void reference_softmax_backward(struct device *device, const struct op_call *call)
{
    int64_t N = tensor_rows(call->in[0]), C = tensor_columns(call->in[0]);
    float *dx = device_grad(device, call->in[0], NULL);

    for (int64_t n = 0; n < N; n++) {
        const float *y = tensor_f32(call->out[0]) + n * C, *dy = call->out[0]->grad + n * C;
        double dot = 0;

        for (int64_t i = 0; i < C; i++)
            dot += (double)y[i] * dy[i];
        for (int64_t i = 0; i < C; i++)
            dx[n * C + i] += (float)(y[i] * (dy[i] - dot) / call->real[0]);
    }
}

/* y += the rotation of x by the angles' cosines and `sign` times their sines. */
static void rope(const struct op_call *call, const float *x, float *y, double sign)
{
    int64_t turning = call->whole[0] + call->whole[1], all = turning + call->whole[1];
    int64_t d = call->whole[2], half = d / 2;

    for (int64_t n = 0; n < tensor_rows(call->in[0]); n++) {
        const float *turn = tensor_f32(call->in[2]) + tensor_i32(call->in[1])[n] * d;

        for (int64_t h = 0; h < all; h++) {
            const float *a = x + (n * all + h) * d;
            float *b = y + (n * all + h) * d;

            for (int64_t i = 0; i < half; i++) {
                double c = h < turning ? turn[i] : 1, s = h < turning ? sign * turn[half + i] : 0;

                b[i] += (float)(a[i] * c - a[half + i] * s);
                b[half + i] += (float)(a[half + i] * c + a[i] * s);
            }
        }
    }
}

void reference_rope_forward(struct device *device, const struct op_call *call)
{
    (void)device;
    memset(tensor_f32(call->out[0]), 0, 4 * (size_t)tensor_count(call->out[0]));
    rope(call, tensor_f32(call->in[0]), tensor_f32(call->out[0]), 1);
}

void reference_rope_backward(struct device *device, const struct op_call *call)
{
    rope(call, call->out[0]->grad, device_grad(device, call->in[0], NULL), -1);
}

void reference_sum_squares_forward(struct device *device, const struct op_call *call)
{
    double sum = 0;

    (void)device;
    for (int64_t i = 0; i < tensor_count(call->in[0]); i++)
        sum += (double)tensor_f32(call->in[0])[i] * tensor_f32(call->in[0])[i];
    tensor_f32(call->out[0])[0] = (float)sum;
}

/* Loshchilov and Hutter 2019, algorithm 2, with decay times the learning rate; then g = 0. */
void reference_adamw_forward(struct device *device, const struct op_call *call)
{
    float *p = tensor_f32(call->in[0]), *g = tensor_f32(call->in[1]);
    float *m = tensor_f32(call->in[2]), *v = tensor_f32(call->in[3]);
    double rate = call->real[0], beta1 = call->real[1], beta2 = call->real[2];
    double eps = call->real[3], decay = call->real[4], scale = call->real[5];
    double m_fix = 1 / (1 - pow(beta1, (double)call->whole[0]));
    double v_fix = 1 / (1 - pow(beta2, (double)call->whole[0]));

    (void)device;
    for (int64_t i = 0; i < tensor_count(call->in[0]); i++) {
        double grad = scale * g[i];

        m[i] = (float)(beta1 * m[i] + (1 - beta1) * grad);
        v[i] = (float)(beta2 * v[i] + (1 - beta2) * grad * grad);
        p[i] = (float)(p[i] - rate * decay * p[i] -
                       rate * m[i] * m_fix / (sqrt(v[i] * v_fix) + eps));
        g[i] = 0;
    }
}
