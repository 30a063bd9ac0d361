/* pool.c - slices of columns, means of rows, losses of rows. */
#include "worker/engine/cpu/kernels/loop.h"

#include <math.h>
#include <string.h>

#define ROWS_LEAST 8

struct pool {
    const float *x;
    const int32_t *bound, *target;
    float *y, *lse, *dx;
    const float *dy;
    int64_t C, M, from;
};

static void slice_share(void *argument, int64_t from, int64_t to, unsigned thread)
{
    const struct pool *p = argument;

    (void)thread;
    for (int64_t n = from; n < to; n++)
        memcpy(p->y + n * p->M, p->x + n * p->C + p->from, 4 * (size_t)p->M);
}

void KERNEL(slice_forward)(struct device *device, const struct op_call *call)
{
    struct pool p = {.x = tensor_f32(call->in[0]), .y = tensor_f32(call->out[0]),
                     .C = tensor_columns(call->in[0]), .M = tensor_columns(call->out[0]),
                     .from = call->whole[0]};

    threads_run(device->threads, tensor_rows(call->in[0]), ROWS_LEAST, slice_share, &p);
}

static void slice_back_share(void *argument, int64_t from, int64_t to, unsigned thread)
{
    const struct pool *p = argument;

    (void)thread;
    for (int64_t n = from; n < to; n++)
        FOR_VECTORS(0, p->M, i, part, {
            put(p->dx + n * p->C + p->from + i, load(p->dy + n * p->M + i, part), part, false);
        })
}

void KERNEL(slice_backward)(struct device *device, const struct op_call *call)
{
    struct pool p = {.dy = call->out[0]->grad, .dx = device_grad(device, call->in[0], NULL),
                     .C = tensor_columns(call->in[0]), .M = tensor_columns(call->out[0]),
                     .from = call->whole[0]};

    threads_run(device->threads, tensor_rows(call->in[0]), ROWS_LEAST, slice_back_share, &p);
}

/* One input of JOIN: rows of C columns, from column `from` of rows of M. */
static void join_share(void *argument, int64_t from, int64_t to, unsigned thread)
{
    const struct pool *p = argument;

    (void)thread;
    for (int64_t n = from; n < to; n++)
        memcpy(p->y + n * p->M + p->from, p->x + n * p->C, 4 * (size_t)p->C);
}

void KERNEL(join_forward)(struct device *device, const struct op_call *call)
{
    struct pool p = {.y = tensor_f32(call->out[0]), .M = tensor_columns(call->out[0])};

    for (int k = 0; k < 3 && call->in[k]; k++) {
        p.x = tensor_f32(call->in[k]);
        p.C = tensor_columns(call->in[k]);
        threads_run(device->threads, tensor_rows(call->in[k]), ROWS_LEAST, join_share, &p);
        p.from += p.C;
    }
}

static void join_back_share(void *argument, int64_t from, int64_t to, unsigned thread)
{
    const struct pool *p = argument;

    (void)thread;
    for (int64_t n = from; n < to; n++)
        FOR_VECTORS(0, p->C, i, part, {
            put(p->dx + n * p->C + i, load(p->dy + n * p->M + p->from + i, part), part, false);
        })
}

void KERNEL(join_backward)(struct device *device, const struct op_call *call)
{
    struct pool p = {.dy = call->out[0]->grad, .M = tensor_columns(call->out[0])};

    for (int k = 0; k < 3 && call->in[k]; k++) {
        p.C = tensor_columns(call->in[k]);
        if (call->in[k]->grad) {
            p.dx = device_grad(device, call->in[k], NULL);
            threads_run(device->threads, tensor_rows(call->in[k]), ROWS_LEAST, join_back_share,
                        &p);
        }
        p.from += p.C;
    }
}

/* y of `part` columns = mean of the rows begin..end. */
static vec mean_of(const struct pool *p, int64_t begin, int64_t end, int64_t i, int64_t part)
{
    vec sum = {0};

    for (int64_t n = begin; n < end; n++)
        sum += load(p->x + n * p->C + i, part);
    return sum / (float)(end > begin ? end - begin : 1);
}

static void pool_share(void *argument, int64_t from, int64_t to, unsigned thread)
{
    const struct pool *p = argument;

    (void)thread;
    for (int64_t s = from; s < to; s++)
        FOR_VECTORS(0, p->C, i, part, {
            store(p->y + s * p->C + i,
                  mean_of(p, p->bound[2 * s], p->bound[2 * s + 1], i, part), part);
        })
}

void KERNEL(pool_forward)(struct device *device, const struct op_call *call)
{
    struct pool p = {.x = tensor_f32(call->in[0]), .bound = tensor_i32(call->in[1]),
                     .y = tensor_f32(call->out[0]), .C = tensor_columns(call->in[0])};

    threads_run(device->threads, tensor_rows(call->out[0]), 1, pool_share, &p);
}

static void pool_back_share(void *argument, int64_t from, int64_t to, unsigned thread)
{
    const struct pool *p = argument;

    (void)thread;
    for (int64_t s = from; s < to; s++) {
        float share = 1.0f / (float)(p->bound[2 * s + 1] - p->bound[2 * s]);

        for (int64_t n = p->bound[2 * s]; n < p->bound[2 * s + 1]; n++)
            FOR_VECTORS(0, p->C, i, part, {
                put(p->dx + n * p->C + i, load(p->dy + s * p->C + i, part) * share, part, false);
            })
    }
}

void KERNEL(pool_backward)(struct device *device, const struct op_call *call)
{
    struct pool p = {.bound = tensor_i32(call->in[1]), .dy = call->out[0]->grad,
                     .dx = device_grad(device, call->in[0], NULL),
                     .C = tensor_columns(call->in[0])};

    threads_run(device->threads, tensor_rows(call->out[0]), 1, pool_back_share, &p);
}

static float row_lse(const float *x, int64_t V)
{
    float highest = x[0], sum = 0;

    for (int64_t i = 1; i < V; i++)
        highest = x[i] > highest ? x[i] : highest;
    for (int64_t i = 0; i < V; i += VEC_WIDTH) {
        int64_t part = V - i < VEC_WIDTH ? V - i : VEC_WIDTH;
        vec e = vec_exp(load(x + i, part) - highest);

        for (int64_t k = 0; k < part; k++)
            sum += e[k];
    }
    return highest + logf(sum);
}

static void nll_share(void *argument, int64_t from, int64_t to, unsigned thread)
{
    const struct pool *p = argument;

    (void)thread;
    for (int64_t n = from; n < to; n++) {
        p->lse[n] = row_lse(p->x + n * p->C, p->C);
        p->y[n] = p->target[n] < 0 ? 0 : p->lse[n] - p->x[n * p->C + p->target[n]];
    }
}

void KERNEL(nll_forward)(struct device *device, const struct op_call *call)
{
    struct pool p = {.x = tensor_f32(call->in[0]), .target = tensor_i32(call->in[1]),
                     .y = tensor_f32(call->out[0]), .lse = tensor_f32(call->out[1]),
                     .C = tensor_columns(call->in[0])};

    threads_run(device->threads, tensor_rows(call->in[0]), ROWS_LEAST, nll_share, &p);
}

static void nll_back_share(void *argument, int64_t from, int64_t to, unsigned thread)
{
    const struct pool *p = argument;

    (void)thread;
    for (int64_t n = from; n < to; n++) {
        float dy = p->target[n] < 0 ? 0 : p->dy[n];
        float *dx = p->dx + n * p->C;

        if (dy == 0)
            continue;
        FOR_VECTORS(0, p->C, i, part, {
            put(dx + i, dy * vec_exp(load(p->x + n * p->C + i, part) - p->lse[n]), part, false);
        })
        dx[p->target[n]] -= dy;
    }
}

void KERNEL(nll_backward)(struct device *device, const struct op_call *call)
{
    struct pool p = {.x = tensor_f32(call->in[0]), .target = tensor_i32(call->in[1]),
                     .lse = tensor_f32(call->out[1]), .dy = call->out[0]->grad,
                     .dx = device_grad(device, call->in[0], NULL),
                     .C = tensor_columns(call->in[0])};

    threads_run(device->threads, tensor_rows(call->in[0]), ROWS_LEAST, nll_back_share, &p);
}
