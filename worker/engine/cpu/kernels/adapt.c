/* adapt.c - what adapters add to products, and dropout. */
#include "worker/engine/cpu/kernels/loop.h"

#include "worker/engine/ops.h"

#include <string.h>

#define ROWS_LEAST 8

struct adapt {
    const float *a, *b;
    float *y, *db;
    int64_t C, M, from;
    float factor;
    uint64_t seed, stream;
    uint32_t limit;
    bool fresh;
};

static struct adapt adapt_of(const struct op_call *call)
{
    return (struct adapt){.C = tensor_columns(call->in[0]), .M = tensor_columns(call->in[1]),
                          .from = call->whole[0], .factor = (float)call->real[0]};
}

static void add_columns_share(void *argument, int64_t from, int64_t to, unsigned thread)
{
    const struct adapt *p = argument;

    (void)thread;
    memcpy(p->y + from * p->C, p->a + from * p->C, 4 * (size_t)((to - from) * p->C));
    for (int64_t n = from; n < to; n++)
        FOR_VECTORS(0, p->M, i, part, {
            put(p->y + n * p->C + p->from + i, load(p->b + n * p->M + i, part) * p->factor, part,
                false);
        })
}

void KERNEL(add_columns_forward)(struct device *device, const struct op_call *call)
{
    struct adapt p = adapt_of(call);

    p.a = tensor_f32(call->in[0]);
    p.b = tensor_f32(call->in[1]);
    p.y = tensor_f32(call->out[0]);
    threads_run(device->threads, tensor_rows(call->in[0]), ROWS_LEAST, add_columns_share, &p);
}

static void add_columns_back_share(void *argument, int64_t from, int64_t to, unsigned thread)
{
    const struct adapt *p = argument;

    (void)thread;
    for (int64_t n = from; n < to; n++)
        FOR_VECTORS(0, p->M, i, part, {
            put(p->db + n * p->M + i, load(p->a + n * p->C + p->from + i, part) * p->factor, part,
                p->fresh);
        })
}

static void copy_share(void *argument, int64_t from, int64_t to, unsigned thread)
{
    const struct adapt *p = argument;

    (void)thread;
    FOR_VECTORS(from, to, i, part, { put(p->y + i, load(p->a + i, part), part, p->fresh); })
}

void KERNEL(add_columns_backward)(struct device *device, const struct op_call *call)
{
    struct adapt p = adapt_of(call);

    p.a = call->out[0]->grad;
    if (call->in[0]->grad) {
        p.y = device_grad(device, call->in[0], &p.fresh);
        threads_run(device->threads, tensor_count(call->in[0]), ITEMS_LEAST, copy_share, &p);
    }
    if (call->in[1]->grad) {
        p.db = device_grad(device, call->in[1], &p.fresh);
        threads_run(device->threads, tensor_rows(call->in[0]), ROWS_LEAST, add_columns_back_share,
                    &p);
    }
}

static void dropout_share(void *argument, int64_t from, int64_t to, unsigned thread)
{
    const struct adapt *p = argument;

    (void)thread;
    for (int64_t i = from; i < to; i++) {
        float kept = dropout_keeps(p->seed, p->stream, (uint64_t)i, p->limit) ? p->factor : 0;

        p->y[i] = p->a[i] * kept + (p->fresh ? 0 : p->y[i]);
    }
}

static void dropout_run(struct device *device, const struct op_call *call, struct adapt *p)
{
    p->seed = (uint64_t)call->whole[0];
    p->stream = (uint64_t)call->whole[1];
    p->limit = (uint32_t)(call->real[0] * 4294967296.0);
    p->factor = (float)(1 / (1 - call->real[0]));
    threads_run(device->threads, tensor_count(call->in[0]), ITEMS_LEAST, dropout_share, p);
}

void KERNEL(dropout_forward)(struct device *device, const struct op_call *call)
{
    struct adapt p = {.a = tensor_f32(call->in[0]), .y = tensor_f32(call->out[0]), .fresh = true};

    dropout_run(device, call, &p);
}

void KERNEL(dropout_backward)(struct device *device, const struct op_call *call)
{
    struct adapt p = {.a = call->out[0]->grad};

    p.y = device_grad(device, call->in[0], &p.fresh);
    dropout_run(device, call, &p);
}
