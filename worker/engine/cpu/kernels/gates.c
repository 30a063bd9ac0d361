/* gates.c - activations, gated units, products of elements. */
#include "worker/engine/cpu/kernels/loop.h"

#include "worker/engine/ops.h"

struct gates {
    const float *a, *b, *dy;
    float *y, *da, *db;
    bool da_fresh, db_fresh;
    int64_t F; /* GLU: half a row */
    enum activation f;
    float factor;
};

#define GELU_SLOPE 0.7978845608028654f /* sqrt(2 / pi) */
#define GELU_CUBE 0.044715f
#define HALF_ROOT 0.7071067811865476f

static inline vec relu_gate(vec x)
{
    return vec_select(x > vec_set(0), vec_set(1), vec_set(0));
}

static inline vec value(enum activation f, vec x)
{
    switch (f) {
    case ACTIVATION_RELU:
        return vec_max(x, vec_set(0));
    case ACTIVATION_SILU:
        return x * vec_sigmoid(x);
    case ACTIVATION_GELU:
        return 0.5f * x * (1.0f + vec_erf(x * HALF_ROOT));
    case ACTIVATION_GELU_TANH:
        return x * vec_sigmoid(2 * GELU_SLOPE * (x + GELU_CUBE * x * x * x));
    case ACTIVATION_TANH:
        return 2.0f * vec_sigmoid(2.0f * x) - 1.0f;
    case ACTIVATION_SIGMOID:
        return vec_sigmoid(x);
    case ACTIVATION_ELU1:
        return vec_select(x > vec_set(0), 1.0f + x, vec_exp(vec_min(x, vec_set(0))));
    case ACTIVATION_NONE:
    case ACTIVATION_END:
        break;
    }
    return x;
}

static inline vec gelu_tanh_slope(vec x)
{
    vec s = vec_sigmoid(2 * GELU_SLOPE * (x + GELU_CUBE * x * x * x));

    return s + x * s * (1.0f - s) * 2 * GELU_SLOPE * (1.0f + 3 * GELU_CUBE * x * x);
}

static inline vec slope(enum activation f, vec x)
{
    vec s;

    switch (f) {
    case ACTIVATION_RELU:
        return relu_gate(x);
    case ACTIVATION_SILU:
        s = vec_sigmoid(x);
        return s * (1.0f + x * (1.0f - s));
    case ACTIVATION_GELU:
        return 0.5f * (1.0f + vec_erf(x * HALF_ROOT)) +
               0.5f * GELU_SLOPE * x * vec_exp(-0.5f * x * x);
    case ACTIVATION_GELU_TANH:
        return gelu_tanh_slope(x);
    case ACTIVATION_TANH:
        s = vec_sigmoid(2.0f * x);
        return 4.0f * s * (1.0f - s);
    case ACTIVATION_SIGMOID:
        s = vec_sigmoid(x);
        return s * (1.0f - s);
    case ACTIVATION_ELU1:
        return vec_select(x > vec_set(0), vec_set(1), vec_exp(vec_min(x, vec_set(0))));
    case ACTIVATION_NONE:
    case ACTIVATION_END:
        break;
    }
    return vec_set(1);
}

static void activate_share(void *argument, int64_t from, int64_t to, unsigned thread)
{
    const struct gates *g = argument;

    (void)thread;
    FOR_VECTORS(from, to, i, part, { store(g->y + i, value(g->f, load(g->a + i, part)), part); })
}

void KERNEL(activate_forward)(struct device *device, const struct op_call *call)
{
    struct gates g = {.a = tensor_f32(call->in[0]), .y = tensor_f32(call->out[0]),
                      .f = (enum activation)call->whole[0]};

    threads_run(device->threads, tensor_count(call->in[0]), ITEMS_LEAST, activate_share, &g);
}

static void activate_back_share(void *argument, int64_t from, int64_t to, unsigned thread)
{
    const struct gates *g = argument;

    (void)thread;
    FOR_VECTORS(from, to, i, part, {
        put(g->da + i, load(g->dy + i, part) * slope(g->f, load(g->a + i, part)), part,
            g->da_fresh);
    })
}

void KERNEL(activate_backward)(struct device *device, const struct op_call *call)
{
    struct gates g = {.a = tensor_f32(call->in[0]), .dy = call->out[0]->grad,
                      .f = (enum activation)call->whole[0]};

    g.da = device_grad(device, call->in[0], &g.da_fresh);
    threads_run(device->threads, tensor_count(call->in[0]), ITEMS_LEAST, activate_back_share, &g);
}

static void glu_share(void *argument, int64_t from, int64_t to, unsigned thread)
{
    const struct gates *g = argument;

    (void)thread;
    for (int64_t r = from; r < to; r++) {
        const float *gate = g->a + r * 2 * g->F, *up = gate + g->F;
        float *y = g->y + r * g->F;

        FOR_VECTORS(0, g->F, i, part, {
            store(y + i, value(g->f, load(gate + i, part)) * load(up + i, part), part);
        })
    }
}

void KERNEL(glu_forward)(struct device *device, const struct op_call *call)
{
    struct gates g = {.a = tensor_f32(call->in[0]), .y = tensor_f32(call->out[0]),
                      .F = tensor_columns(call->out[0]), .f = (enum activation)call->whole[0]};

    threads_run(device->threads, tensor_rows(call->in[0]), ITEMS_LEAST / g.F + 1, glu_share, &g);
}

static void glu_back_share(void *argument, int64_t from, int64_t to, unsigned thread)
{
    const struct gates *g = argument;

    (void)thread;
    for (int64_t r = from; r < to; r++) {
        const float *gate = g->a + r * 2 * g->F, *up = gate + g->F, *dy = g->dy + r * g->F;
        float *dgate = g->da + r * 2 * g->F, *dup = dgate + g->F;

        FOR_VECTORS(0, g->F, i, part, {
            vec x = load(gate + i, part);
            vec d = load(dy + i, part);

            put(dgate + i, d * load(up + i, part) * slope(g->f, x), part, g->da_fresh);
            put(dup + i, d * value(g->f, x), part, g->da_fresh);
        })
    }
}

void KERNEL(glu_backward)(struct device *device, const struct op_call *call)
{
    struct gates g = {.a = tensor_f32(call->in[0]), .dy = call->out[0]->grad,
                      .F = tensor_columns(call->out[0]), .f = (enum activation)call->whole[0]};

    g.da = device_grad(device, call->in[0], &g.da_fresh);
    threads_run(device->threads, tensor_rows(call->in[0]), ITEMS_LEAST / g.F + 1, glu_back_share,
                &g);
}

static void mul_share(void *argument, int64_t from, int64_t to, unsigned thread)
{
    const struct gates *g = argument;

    (void)thread;
    FOR_VECTORS(from, to, i, part,
                { store(g->y + i, load(g->a + i, part) * load(g->b + i, part), part); })
}

void KERNEL(mul_forward)(struct device *device, const struct op_call *call)
{
    struct gates g = {.a = tensor_f32(call->in[0]), .b = tensor_f32(call->in[1]),
                      .y = tensor_f32(call->out[0])};

    threads_run(device->threads, tensor_count(call->in[0]), ITEMS_LEAST, mul_share, &g);
}

static void mul_back_share(void *argument, int64_t from, int64_t to, unsigned thread)
{
    const struct gates *g = argument;

    (void)thread;
    FOR_VECTORS(from, to, i, part, {
        vec d = load(g->dy + i, part);

        if (g->da)
            put(g->da + i, d * load(g->b + i, part), part, g->da_fresh);
        if (g->db)
            put(g->db + i, d * load(g->a + i, part), part, g->db_fresh);
    })
}

void KERNEL(mul_backward)(struct device *device, const struct op_call *call)
{
    struct gates g = {.a = tensor_f32(call->in[0]), .b = tensor_f32(call->in[1]),
                      .dy = call->out[0]->grad};

    if (call->in[0]->grad)
        g.da = device_grad(device, call->in[0], &g.da_fresh);
    if (call->in[1]->grad)
        g.db = device_grad(device, call->in[1], &g.db_fresh);
    threads_run(device->threads, tensor_count(call->in[0]), ITEMS_LEAST, mul_back_share, &g);
}

static void scale_share(void *argument, int64_t from, int64_t to, unsigned thread)
{
    const struct gates *g = argument;

    (void)thread;
    FOR_VECTORS(from, to, i, part,
                { put(g->y + i, load(g->a + i, part) * g->factor, part, g->da_fresh); })
}

void KERNEL(scale_forward)(struct device *device, const struct op_call *call)
{
    struct gates g = {.a = tensor_f32(call->in[0]), .y = tensor_f32(call->out[0]),
                      .da_fresh = true, .factor = (float)call->real[0]};

    threads_run(device->threads, tensor_count(call->in[0]), ITEMS_LEAST, scale_share, &g);
}

void KERNEL(scale_backward)(struct device *device, const struct op_call *call)
{
    struct gates g = {.a = call->out[0]->grad, .factor = (float)call->real[0]};

    g.y = device_grad(device, call->in[0], &g.da_fresh);
    threads_run(device->threads, tensor_count(call->in[0]), ITEMS_LEAST, scale_share, &g);
}
