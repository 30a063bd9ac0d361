/* pointwise.c - ops that treat each element, or pair of elements, alone. */
#include "worker/engine/cpu/kernels/loop.h"

#include <math.h>
#include <string.h>

struct pointwise {
    const float *a, *b, *dy;
    float *y, *da, *db;
    bool da_fresh, db_fresh;
    int64_t F; /* SWIGLU: half a row */
};

/* x/2 (1 + tanh u) is x vec_sigmoid(2u), with u = sqrt(2/pi) (x + 0.044715 x^3). */
#define GELU_SLOPE 0.7978845608028654f
#define GELU_CUBE 0.044715f

static inline vec gelu_gate(vec x)
{
    return vec_sigmoid(2 * GELU_SLOPE * (x + GELU_CUBE * x * x * x));
}

static void gelu_share(void *argument, int64_t from, int64_t to, unsigned thread)
{
    const struct pointwise *p = argument;

    (void)thread;
    FOR_VECTORS(from, to, i, part, {
        vec x = load(p->a + i, part);

        store(p->y + i, x * gelu_gate(x), part);
    })
}

void KERNEL(gelu_forward)(struct device *device, const struct op_call *call)
{
    struct pointwise p = {.a = tensor_f32(call->in[0]), .y = tensor_f32(call->out[0])};

    threads_run(device->threads, tensor_count(call->in[0]), ITEMS_LEAST, gelu_share, &p);
}

static void gelu_back_share(void *argument, int64_t from, int64_t to, unsigned thread)
{
    const struct pointwise *p = argument;

    (void)thread;
    FOR_VECTORS(from, to, i, part, {
        vec x = load(p->a + i, part);
        vec s = gelu_gate(x);
        vec slope = s + x * s * (1.0f - s) * 2 * GELU_SLOPE * (1.0f + 3 * GELU_CUBE * x * x);

        put(p->da + i, load(p->dy + i, part) * slope, part, p->da_fresh);
    })
}

void KERNEL(gelu_backward)(struct device *device, const struct op_call *call)
{
    struct pointwise p = {.a = tensor_f32(call->in[0]), .dy = call->out[0]->grad};

    p.da = device_grad(device, call->in[0], &p.da_fresh);
    threads_run(device->threads, tensor_count(call->in[0]), ITEMS_LEAST, gelu_back_share, &p);
}

static void swiglu_share(void *argument, int64_t from, int64_t to, unsigned thread)
{
    const struct pointwise *p = argument;

    (void)thread;
    for (int64_t r = from; r < to; r++) {
        const float *gate = p->a + r * 2 * p->F, *up = gate + p->F;
        float *y = p->y + r * p->F;

        FOR_VECTORS(0, p->F, i, part, {
            vec g = load(gate + i, part);

            store(y + i, g * vec_sigmoid(g) * load(up + i, part), part);
        })
    }
}

void KERNEL(swiglu_forward)(struct device *device, const struct op_call *call)
{
    struct pointwise p = {.a = tensor_f32(call->in[0]), .y = tensor_f32(call->out[0]),
                          .F = tensor_columns(call->out[0])};

    threads_run(device->threads, tensor_rows(call->in[0]), ITEMS_LEAST / p.F + 1, swiglu_share,
                &p);
}

static void swiglu_back_share(void *argument, int64_t from, int64_t to, unsigned thread)
{
    const struct pointwise *p = argument;

    (void)thread;
    for (int64_t r = from; r < to; r++) {
        const float *gate = p->a + r * 2 * p->F, *up = gate + p->F, *dy = p->dy + r * p->F;
        float *dgate = p->da + r * 2 * p->F, *dup = dgate + p->F;

        FOR_VECTORS(0, p->F, i, part, {
            vec g = load(gate + i, part);
            vec d = load(dy + i, part);
            vec s = vec_sigmoid(g);

            put(dgate + i, d * load(up + i, part) * s * (1.0f + g * (1.0f - s)), part,
                p->da_fresh);
            put(dup + i, d * g * s, part, p->da_fresh);
        })
    }
}

void KERNEL(swiglu_backward)(struct device *device, const struct op_call *call)
{
    struct pointwise p = {.a = tensor_f32(call->in[0]), .dy = call->out[0]->grad,
                          .F = tensor_columns(call->out[0])};

    p.da = device_grad(device, call->in[0], &p.da_fresh);
    threads_run(device->threads, tensor_rows(call->in[0]), ITEMS_LEAST / p.F + 1,
                swiglu_back_share, &p);
}

static void add_share(void *argument, int64_t from, int64_t to, unsigned thread)
{
    const struct pointwise *p = argument;

    (void)thread;
    FOR_VECTORS(from, to, i, part,
                { store(p->y + i, load(p->a + i, part) + load(p->b + i, part), part); })
}

void KERNEL(add_forward)(struct device *device, const struct op_call *call)
{
    struct pointwise p = {.a = tensor_f32(call->in[0]), .b = tensor_f32(call->in[1]),
                          .y = tensor_f32(call->out[0])};

    threads_run(device->threads, tensor_count(call->in[0]), ITEMS_LEAST, add_share, &p);
}

static void add_back_share(void *argument, int64_t from, int64_t to, unsigned thread)
{
    const struct pointwise *p = argument;

    (void)thread;
    FOR_VECTORS(from, to, i, part, {
        vec d = load(p->dy + i, part);

        if (p->da)
            put(p->da + i, d, part, p->da_fresh);
        if (p->db)
            put(p->db + i, d, part, p->db_fresh);
    })
}

void KERNEL(add_backward)(struct device *device, const struct op_call *call)
{
    struct pointwise p = {.dy = call->out[0]->grad};

    if (call->in[0]->grad)
        p.da = device_grad(device, call->in[0], &p.da_fresh);
    if (call->in[1]->grad)
        p.db = device_grad(device, call->in[1], &p.db_fresh);
    threads_run(device->threads, tensor_count(call->in[0]), ITEMS_LEAST, add_back_share, &p);
}
