/* experts.c - routing tokens to experts and back.
 *
 * Choices and gates of rows are shared out to threads; placing them is a count and a prefix sum
 * on one thread, so rows of an expert are in the order of their tokens whatever the threads. */
#include "worker/engine/cpu/kernels/gemm.h"
#include "worker/engine/cpu/kernels/loop.h"

#include "worker/engine/ops.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define ROWS_LEAST 16

struct routing {
    int64_t N, E, k, mode, capacity, drop;
    const float *logits, *gamma;
    float *gate, *stats, *loads, *dx; /* loads: f, then the means of probabilities */
    int32_t *expert, *slot, *starts;
    float *lse, *mean; /* scratch: (N), (E) */
    int32_t *keep;     /* scratch: (N k)    */
    float balance, z;
};

static struct routing route_of(struct device *device, const struct op_call *call)
{
    struct routing r = {.N = tensor_rows(call->in[0]), .E = tensor_columns(call->in[0]),
                      .k = call->whole[0], .mode = call->whole[1], .capacity = call->whole[2],
                      .drop = call->whole[3], .logits = tensor_f32(call->in[0]),
                      .gate = tensor_f32(call->out[0]), .expert = tensor_i32(call->out[1]),
                      .slot = tensor_i32(call->out[2]), .starts = tensor_i32(call->out[3]),
                      .stats = tensor_f32(call->out[4]), .loads = tensor_f32(call->out[5]),
                      .lse = device->scratch};

    r.mean = r.lse + r.N;
    r.keep = (int32_t *)(r.mean + r.E);
    return r;
}

size_t KERNEL(route_scratch)(const struct device *device, const struct op_call *call)
{
    (void)device;
    return 4 * (size_t)(tensor_rows(call->in[0]) * (1 + call->whole[0]) +
                        tensor_columns(call->in[0]));
}

static float log_sum(const float *x, int64_t count)
{
    float highest = x[0], sum = 0;

    for (int64_t i = 1; i < count; i++)
        highest = x[i] > highest ? x[i] : highest;
    for (int64_t i = 0; i < count; i++)
        sum += expf(x[i] - highest);
    return highest + logf(sum);
}

/* Insertion into the short list of the highest: k is small. */
static void choose(const struct routing *r, int64_t n)
{
    const float *x = r->logits + n * r->E;
    int32_t *expert = r->expert + n * r->k;
    int64_t have = 0;

    for (int32_t i = 0; i < r->E; i++) {
        int64_t at = have;

        while (at > 0 && x[i] > x[expert[at - 1]])
            at--;
        if (at == r->k)
            continue;
        have += have < r->k;
        memmove(expert + at + 1, expert + at, 4 * (size_t)(have - 1 - at));
        expert[at] = i;
    }
}

static void route_share(void *argument, int64_t from, int64_t to, unsigned thread)
{
    const struct routing *r = argument;

    (void)thread;
    for (int64_t n = from; n < to; n++) {
        const float *x = r->logits + n * r->E;
        float chosen[ROUTE_CHOICES_MAX], base;

        choose(r, n);
        for (int64_t j = 0; j < r->k; j++)
            chosen[j] = x[r->expert[n * r->k + j]];
        r->lse[n] = log_sum(x, r->E);
        base = r->mode == ROUTE_AFTER ? log_sum(chosen, r->k) : r->lse[n];
        for (int64_t j = 0; j < r->k; j++)
            r->gate[n * r->k + j] = expf(chosen[j] - base);
    }
}

static void count_loads(const struct routing *r)
{
    memset(r->starts, 0, 4 * (size_t)(r->E + 1));
    for (int64_t a = 0; a < r->N * r->k; a++)
        r->starts[r->expert[a] + 1]++;
}

static void sum_stats(const struct routing *r)
{
    double aux = 0, z = 0;
    int32_t most = 0, least = INT32_MAX;

    memset(r->mean, 0, 4 * (size_t)r->E);
    for (int64_t n = 0; n < r->N; n++) {
        z += (double)r->lse[n] * r->lse[n];
        for (int64_t i = 0; i < r->E; i++)
            r->mean[i] += expf(r->logits[n * r->E + i] - r->lse[n]);
    }
    for (int64_t i = 0; i < r->E; i++) {
        aux += (double)r->starts[i + 1] * r->mean[i];
        r->loads[i] = (float)r->starts[i + 1] / (float)(r->N * r->k);
        r->loads[r->E + i] = r->mean[i] / (float)r->N;
        most = r->starts[i + 1] > most ? r->starts[i + 1] : most;
        least = r->starts[i + 1] < least ? r->starts[i + 1] : least;
    }
    r->stats[ROUTE_STAT_BALANCE] =
        (float)(aux * (double)r->E / ((double)(r->N * r->k) * (double)r->N));
    r->stats[ROUTE_STAT_Z] = (float)(z / (double)r->N);
    r->stats[ROUTE_STAT_HIGHEST_LOAD] = (float)most * (float)r->E / (float)(r->N * r->k);
    r->stats[ROUTE_STAT_LOWEST_LOAD] = (float)least * (float)r->E / (float)(r->N * r->k);
}

/* Which of an expert's assignments stay: the strongest gates, or the first tokens. `keep` holds
 * the assignments in order of tokens and is cut to the capacity in that order. */
static int64_t cut(const struct routing *r, int32_t *keep, int64_t count)
{
    if (r->drop == ROUTE_DROP_WEAK) {
        while (count > r->capacity) { /* the weakest, the later of equal ones */
            int64_t weakest = 0;

            for (int64_t i = 1; i < count; i++)
                if (r->gate[keep[i]] <= r->gate[keep[weakest]])
                    weakest = i;
            r->slot[keep[weakest]] = -1;
            memmove(keep + weakest, keep + weakest + 1, 4 * (size_t)(count - 1 - weakest));
            count--;
        }
    }
    for (int64_t i = r->capacity; i < count; i++)
        r->slot[keep[i]] = -1;
    return count < r->capacity ? count : r->capacity;
}

static void place(const struct routing *r)
{
    int64_t all = r->N * r->k, next = 0;
    int32_t *keep = r->keep;

    r->starts[0] = 0;
    for (int64_t e = 0; e < r->E; e++) {
        int64_t count = 0;

        for (int64_t a = 0; a < all; a++)
            if (r->expert[a] == e)
                keep[count++] = (int32_t)a;
        if (r->capacity > 0 && count > r->capacity)
            count = cut(r, keep, count);
        for (int64_t i = 0; i < count; i++)
            r->slot[keep[i]] = (int32_t)next++;
        r->starts[e + 1] = (int32_t)next;
    }
    r->stats[ROUTE_STAT_DROPPED] = (float)(all - next) / (float)all;
}

void KERNEL(route_forward)(struct device *device, const struct op_call *call)
{
    struct routing r = route_of(device, call);

    threads_run(device->threads, r.N, ROWS_LEAST, route_share, &r);
    count_loads(&r);
    sum_stats(&r);
    place(&r);
}

static void route_back_row(const struct routing *r, int64_t n)
{
    const float *x = r->logits + n * r->E, *gamma = r->gamma + n * r->k;
    const float *gate = r->gate + n * r->k;
    float *dx = r->dx + n * r->E;
    float lse = log_sum(x, r->E), mean = 0, dot = 0;

    for (int64_t j = 0; j < r->k; j++)
        dot += gate[j] * gamma[j];
    for (int64_t i = 0; i < r->E; i++)
        mean += expf(x[i] - lse) * r->loads[i];
    for (int64_t i = 0; i < r->E; i++) {
        float p = expf(x[i] - lse);

        dx[i] += r->balance * p * (r->loads[i] - mean) + r->z * lse * p;
        if (r->mode != ROUTE_AFTER)
            dx[i] -= p * dot;
    }
    for (int64_t j = 0; j < r->k; j++)
        dx[r->expert[n * r->k + j]] += gate[j] * (gamma[j] - (r->mode == ROUTE_AFTER ? dot : 0));
}

static void route_back_share(void *argument, int64_t from, int64_t to, unsigned thread)
{
    (void)thread;
    for (int64_t n = from; n < to; n++)
        route_back_row(argument, n);
}

void KERNEL(route_backward)(struct device *device, const struct op_call *call)
{
    struct routing r = route_of(device, call);

    r.dx = device_grad(device, call->in[0], NULL);
    r.gamma = call->out[0]->grad;
    r.balance = (float)(call->real[0] * (double)r.E / (double)r.N);
    r.z = (float)(call->real[1] * 2 / (double)r.N);
    threads_run(device->threads, r.N, ROWS_LEAST, route_back_share, &r);
}

struct moves {
    const float *x, *gate, *dy;
    const int32_t *slot;
    float *y, *dx, *dgate;
    int64_t D, k;
};

static void dispatch_share(void *argument, int64_t from, int64_t to, unsigned thread)
{
    const struct moves *m = argument;

    (void)thread;
    for (int64_t a = from * m->k; a < to * m->k; a++)
        if (m->slot[a] >= 0)
            memcpy(m->y + m->slot[a] * m->D, m->x + a / m->k * m->D, 4 * (size_t)m->D);
}

void KERNEL(dispatch_forward)(struct device *device, const struct op_call *call)
{
    struct moves m = {.x = tensor_f32(call->in[0]), .slot = tensor_i32(call->in[1]),
                      .y = tensor_f32(call->out[0]), .D = tensor_columns(call->in[0]),
                      .k = call->whole[0]};

    memset(m.y, 0, 4 * (size_t)tensor_count(call->out[0]));
    threads_run(device->threads, tensor_rows(call->in[0]), ROWS_LEAST, dispatch_share, &m);
}

static void add_row(float *to, const float *from, float factor, int64_t D)
{
    FOR_VECTORS(0, D, i, part, { put(to + i, load(from + i, part) * factor, part, false); })
}

static void dispatch_back_share(void *argument, int64_t from, int64_t to, unsigned thread)
{
    const struct moves *m = argument;

    (void)thread;
    for (int64_t a = from * m->k; a < to * m->k; a++)
        if (m->slot[a] >= 0)
            add_row(m->dx + a / m->k * m->D, m->dy + m->slot[a] * m->D, 1, m->D);
}

void KERNEL(dispatch_backward)(struct device *device, const struct op_call *call)
{
    struct moves m = {.slot = tensor_i32(call->in[1]), .dy = call->out[0]->grad,
                      .dx = device_grad(device, call->in[0], NULL),
                      .D = tensor_columns(call->in[0]), .k = call->whole[0]};

    threads_run(device->threads, tensor_rows(call->in[0]), ROWS_LEAST, dispatch_back_share, &m);
}

static void combine_share(void *argument, int64_t from, int64_t to, unsigned thread)
{
    const struct moves *m = argument;

    (void)thread;
    memset(m->y + from * m->D, 0, 4 * (size_t)((to - from) * m->D));
    for (int64_t a = from * m->k; a < to * m->k; a++)
        if (m->slot[a] >= 0)
            add_row(m->y + a / m->k * m->D, m->x + m->slot[a] * m->D, m->gate[a], m->D);
}

void KERNEL(combine_forward)(struct device *device, const struct op_call *call)
{
    struct moves m = {.x = tensor_f32(call->in[0]), .slot = tensor_i32(call->in[1]),
                      .gate = tensor_f32(call->in[2]), .y = tensor_f32(call->out[0]),
                      .D = tensor_columns(call->in[0]), .k = call->whole[0]};

    threads_run(device->threads, tensor_rows(call->out[0]), ROWS_LEAST, combine_share, &m);
}

static void combine_back_share(void *argument, int64_t from, int64_t to, unsigned thread)
{
    const struct moves *m = argument;

    (void)thread;
    for (int64_t a = from * m->k; a < to * m->k; a++) {
        const float *dy = m->dy + a / m->k * m->D;
        int32_t slot = m->slot[a];

        if (slot < 0)
            continue;
        if (m->dgate)
            m->dgate[a] += cblas_sdot((int)m->D, dy, 1, m->x + slot * m->D, 1);
        if (m->dx)
            add_row(m->dx + slot * m->D, dy, m->gate[a], m->D);
    }
}

void KERNEL(combine_backward)(struct device *device, const struct op_call *call)
{
    struct moves m = {.x = tensor_f32(call->in[0]), .slot = tensor_i32(call->in[1]),
                      .gate = tensor_f32(call->in[2]), .dy = call->out[0]->grad,
                      .D = tensor_columns(call->in[0]), .k = call->whole[0]};

    if (call->in[0]->grad)
        m.dx = device_grad(device, call->in[0], NULL);
    if (call->in[2]->grad)
        m.dgate = device_grad(device, call->in[2], NULL);
    threads_run(device->threads, tensor_rows(call->out[0]), ROWS_LEAST, combine_back_share, &m);
}

/* The rows of expert e of x (or of y), times its matrix. */
static struct gemm expert_product(const struct op_call *call, int64_t e)
{
    const int32_t *starts = tensor_i32(call->in[2]);
    int64_t K = tensor_columns(call->in[0]), M = tensor_columns(call->out[0]);

    return (struct gemm){.b_transposed = true, .rows = starts[e + 1] - starts[e], .columns = M,
                         .inner = K, .a = tensor_f32(call->in[0]) + starts[e] * K, .a_stride = K,
                         .b = tensor_f32(call->in[1]) + e * M * K, .b_stride = K,
                         .c = tensor_f32(call->out[0]) + starts[e] * M, .c_stride = M};
}

void KERNEL(experts_forward)(struct device *device, const struct op_call *call)
{
    int64_t M = tensor_columns(call->out[0]), end = tensor_i32(call->in[2])[call->whole[0]];

    for (int64_t e = 0; e < call->whole[0]; e++) {
        struct gemm product = expert_product(call, e);

        if (product.rows > 0)
            KERNEL(gemm_run)(device, &product);
    }
    memset(tensor_f32(call->out[0]) + end * M, 0,
           4 * (size_t)(tensor_count(call->out[0]) - end * M));
}

void KERNEL(experts_backward)(struct device *device, const struct op_call *call)
{
    const int32_t *starts = tensor_i32(call->in[2]);
    int64_t K = tensor_columns(call->in[0]), M = tensor_columns(call->out[0]);
    float *dx = call->in[0]->grad ? device_grad(device, call->in[0], NULL) : NULL;
    float *dw = call->in[1]->grad ? device_grad(device, call->in[1], NULL) : NULL;

    for (int64_t e = 0; e < call->whole[0]; e++) {
        int64_t rows = starts[e + 1] - starts[e];
        const float *dy = call->out[0]->grad + starts[e] * M;
        struct gemm x = {.rows = rows, .columns = K, .inner = M, .a = dy, .a_stride = M,
                         .b = tensor_f32(call->in[1]) + e * M * K, .b_stride = K,
                         .c = dx + starts[e] * K, .c_stride = K, .accumulates = true};
        struct gemm w = {.a_transposed = true, .rows = M, .columns = K, .inner = rows, .a = dy,
                         .a_stride = M, .b = tensor_f32(call->in[0]) + starts[e] * K,
                         .b_stride = K, .c = dw + e * M * K, .c_stride = K, .accumulates = true};

        if (rows > 0 && dx)
            KERNEL(gemm_run)(device, &x);
        if (rows > 0 && dw)
            KERNEL(gemm_run)(device, &w);
    }
}
