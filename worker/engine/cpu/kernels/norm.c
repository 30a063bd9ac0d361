/* norm.c - layer and RMS normalisation.
 *
 * Backward splits rows over threads; each thread sums dg and db of its rows in scratch,
 * and the sums are added in thread order. */
#include "worker/engine/cpu/kernels/vec.h"

#include <math.h>
#include <string.h>

#define ROWS_LEAST 8

struct norm {
    const float *x, *g, *b;
    float *y, *mean, *rstd;
    const float *dy;
    float *dx;
    bool dx_fresh;
    float *partial; /* (threads, 2, C): dg, db */
    int64_t C;
    float eps;
};

/* Sum of x - shift, or of its square, over a row. */
static float row_sum(const float *x, int64_t C, float shift, bool squared)
{
    vec sum = {0}, s = vec_set(shift);
    float rest = 0;
    int64_t i = 0;

    for (; i + VEC_WIDTH <= C; i += VEC_WIDTH) {
        vec v = vec_load(x + i) - s;

        sum += squared ? v * v : v;
    }
    for (; i < C; i++)
        rest += squared ? (x[i] - shift) * (x[i] - shift) : x[i] - shift;
    return vec_sum(sum) + rest;
}

static void layernorm_share(void *argument, int64_t from, int64_t to, unsigned thread)
{
    const struct norm *n = argument;

    (void)thread;
    for (int64_t r = from; r < to; r++) {
        const float *x = n->x + r * n->C;
        float *y = n->y + r * n->C;
        float mean = row_sum(x, n->C, 0, false) / (float)n->C;
        float rstd = 1.0f / sqrtf(row_sum(x, n->C, mean, true) / (float)n->C + n->eps);
        int64_t i = 0;

        for (; i + VEC_WIDTH <= n->C; i += VEC_WIDTH)
            vec_store(y + i, (vec_load(x + i) - mean) * rstd * vec_load(n->g + i) +
                                 vec_load(n->b + i));
        for (; i < n->C; i++)
            y[i] = (x[i] - mean) * rstd * n->g[i] + n->b[i];
        n->mean[r] = mean;
        n->rstd[r] = rstd;
    }
}

void KERNEL(layernorm_forward)(struct device *device, const struct op_call *call)
{
    struct norm n = {.x = tensor_f32(call->in[0]), .g = tensor_f32(call->in[1]),
                     .b = tensor_f32(call->in[2]), .y = tensor_f32(call->out[0]),
                     .mean = tensor_f32(call->out[1]), .rstd = tensor_f32(call->out[2]),
                     .C = tensor_columns(call->in[0]), .eps = (float)call->real[0]};

    threads_run(device->threads, tensor_rows(call->in[0]), ROWS_LEAST, layernorm_share, &n);
}

static void rmsnorm_share(void *argument, int64_t from, int64_t to, unsigned thread)
{
    const struct norm *n = argument;

    (void)thread;
    for (int64_t r = from; r < to; r++) {
        const float *x = n->x + r * n->C;
        float *y = n->y + r * n->C;
        float rstd = 1.0f / sqrtf(row_sum(x, n->C, 0, true) / (float)n->C + n->eps);
        int64_t i = 0;

        for (; i + VEC_WIDTH <= n->C; i += VEC_WIDTH)
            vec_store(y + i, vec_load(x + i) * rstd * vec_load(n->g + i));
        for (; i < n->C; i++)
            y[i] = x[i] * rstd * n->g[i];
        n->rstd[r] = rstd;
    }
}

void KERNEL(rmsnorm_forward)(struct device *device, const struct op_call *call)
{
    struct norm n = {.x = tensor_f32(call->in[0]), .g = tensor_f32(call->in[1]),
                     .y = tensor_f32(call->out[0]), .rstd = tensor_f32(call->out[1]),
                     .C = tensor_columns(call->in[0]), .eps = (float)call->real[0]};

    threads_run(device->threads, tensor_rows(call->in[0]), ROWS_LEAST, rmsnorm_share, &n);
}

/* One lane group of backward: x^ = (x - mean) rstd, u = dy g;
 * dx = rstd (u - mean(u) - x^ mean(u x^)), for RMS without mean(u). */
struct row {
    float mean, rstd, u_mean, ux_mean;
};

static struct row row_facts(const struct norm *n, int64_t r)
{
    const float *x = n->x + r * n->C, *dy = n->dy + r * n->C;
    struct row row = {n->mean ? n->mean[r] : 0, n->rstd[r], 0, 0};
    vec u_sum = {0}, ux_sum = {0};
    float u_rest = 0, ux_rest = 0;
    int64_t i = 0;

    for (; i + VEC_WIDTH <= n->C; i += VEC_WIDTH) {
        vec u = vec_load(dy + i) * vec_load(n->g + i);

        u_sum += u;
        ux_sum += u * (vec_load(x + i) - row.mean) * row.rstd;
    }
    for (; i < n->C; i++) {
        float u = dy[i] * n->g[i];

        u_rest += u;
        ux_rest += u * (x[i] - row.mean) * row.rstd;
    }
    row.u_mean = n->mean ? (vec_sum(u_sum) + u_rest) / (float)n->C : 0;
    row.ux_mean = (vec_sum(ux_sum) + ux_rest) / (float)n->C;
    return row;
}

static void backward_row(const struct norm *n, int64_t r, float *dg, float *db)
{
    const float *x = n->x + r * n->C, *dy = n->dy + r * n->C;
    float *dx = n->dx ? n->dx + r * n->C : NULL;
    struct row row = row_facts(n, r);

    for (int64_t i = 0; i < n->C; i += VEC_WIDTH) {
        int64_t part = n->C - i < VEC_WIDTH ? n->C - i : VEC_WIDTH;
        bool whole = part == VEC_WIDTH;
        vec d = whole ? vec_load(dy + i) : vec_load_part(dy + i, part);
        vec g = whole ? vec_load(n->g + i) : vec_load_part(n->g + i, part);
        vec v = whole ? vec_load(x + i) : vec_load_part(x + i, part);
        vec normal = (v - row.mean) * row.rstd;
        vec in = (d * g - row.u_mean - normal * row.ux_mean) * row.rstd;

        if (whole) {
            vec_store(dg + i, vec_load(dg + i) + d * normal);
            vec_store(db + i, vec_load(db + i) + d);
            if (dx)
                vec_store(dx + i, n->dx_fresh ? in : vec_load(dx + i) + in);
            continue;
        }
        for (int64_t k = 0; k < part; k++) {
            dg[i + k] += d[k] * normal[k];
            db[i + k] += d[k];
            if (dx)
                dx[i + k] = n->dx_fresh ? in[k] : dx[i + k] + in[k];
        }
    }
}

static void backward_share(void *argument, int64_t from, int64_t to, unsigned thread)
{
    const struct norm *n = argument;
    float *dg = n->partial + (int64_t)thread * 2 * n->C;

    for (int64_t r = from; r < to; r++)
        backward_row(n, r, dg, dg + n->C);
}

static void add_partials(struct device *device, const struct norm *n, struct tensor *weight,
                         int64_t offset)
{
    float *grad;

    if (!weight || !weight->grad)
        return;
    grad = device_grad(device, weight, NULL);
    for (unsigned t = 0; t < threads_count(device->threads); t++)
        for (int64_t i = 0; i < n->C; i++)
            grad[i] += n->partial[(int64_t)t * 2 * n->C + offset + i];
}

static void norm_backward(struct device *device, const struct op_call *call, struct norm *n)
{
    struct tensor *x = call->in[0];

    n->partial = device->scratch;
    memset(n->partial, 0, KERNEL(norm_scratch)(device, call));
    if (x->grad)
        n->dx = device_grad(device, x, &n->dx_fresh);
    threads_run(device->threads, tensor_rows(x), ROWS_LEAST, backward_share, n);
    add_partials(device, n, call->in[1], 0);
    if (n->mean)
        add_partials(device, n, call->in[2], n->C);
}

void KERNEL(layernorm_backward)(struct device *device, const struct op_call *call)
{
    struct norm n = {.x = tensor_f32(call->in[0]), .g = tensor_f32(call->in[1]),
                     .mean = tensor_f32(call->out[1]), .rstd = tensor_f32(call->out[2]),
                     .dy = call->out[0]->grad, .C = tensor_columns(call->in[0])};

    norm_backward(device, call, &n);
}

void KERNEL(rmsnorm_backward)(struct device *device, const struct op_call *call)
{
    struct norm n = {.x = tensor_f32(call->in[0]), .g = tensor_f32(call->in[1]),
                     .rstd = tensor_f32(call->out[1]), .dy = call->out[0]->grad,
                     .C = tensor_columns(call->in[0])};

    norm_backward(device, call, &n);
}

size_t KERNEL(norm_scratch)(const struct device *device, const struct op_call *call)
{
    return 4 * 2 * (size_t)tensor_columns(call->in[0]) * threads_count(device->threads);
}
