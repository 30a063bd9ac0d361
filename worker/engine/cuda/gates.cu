/* gates.cu - activations, gated units, and moves of columns between matrices. */
#include "worker/engine/cuda/cuda.h"

/* f and its derivative, as in reference/gates.c. */
static __device__ float value(int f, float x)
{
    switch (f) {
    case ACTIVATION_RELU:
        return x > 0 ? x : 0;
    case ACTIVATION_SILU:
        return x * sigmoid(x);
    case ACTIVATION_GELU:
        return 0.5f * x * (1 + erff(x * 0.70710678f));
    case ACTIVATION_GELU_TANH:
        return x * gelu_gate(x);
    case ACTIVATION_TANH:
        return tanhf(x);
    case ACTIVATION_SIGMOID:
        return sigmoid(x);
    case ACTIVATION_ELU1:
        return x > 0 ? 1 + x : expf(x);
    default: /* ACTIVATION_NONE */
        return x;
    }
}

static __device__ float slope(int f, float x)
{
    float s;

    switch (f) {
    case ACTIVATION_RELU:
        return x > 0 ? 1 : 0;
    case ACTIVATION_SILU:
        s = sigmoid(x);
        return s * (1 + x * (1 - s));
    case ACTIVATION_GELU:
        return 0.5f * (1 + erff(x * 0.70710678f)) + x * expf(-0.5f * x * x) * 0.5f * GELU_SLOPE;
    case ACTIVATION_GELU_TANH:
        s = gelu_gate(x);
        return s + x * s * (1 - s) * 2 * GELU_SLOPE * (1 + 3 * GELU_CUBE * x * x);
    case ACTIVATION_TANH:
        s = tanhf(x);
        return 1 - s * s;
    case ACTIVATION_SIGMOID:
        s = sigmoid(x);
        return s * (1 - s);
    case ACTIVATION_ELU1:
        return x > 0 ? 1 : expf(x);
    default:
        return 1;
    }
}

static __global__ void activate_kernel(int f, const float *x, float *y, int64_t count)
{
    FOR_EACH(i, count)
        y[i] = value(f, x[i]);
}

void cuda_activate_forward(struct device *device, const struct op_call *call)
{
    int64_t count = tensor_count(call->in[0]);

    LAUNCH(device, activate_kernel, grid_of(count), THREADS, 0, (int)call->whole[0],
           tensor_f32(call->in[0]), tensor_f32(call->out[0]), count);
}

static __global__ void activate_back_kernel(int f, const float *x, const float *dy, float *dx,
                                            bool fresh, int64_t count)
{
    FOR_EACH(i, count)
        put(dx + i, dy[i] * slope(f, x[i]), fresh);
}

void cuda_activate_backward(struct device *device, const struct op_call *call)
{
    int64_t count = tensor_count(call->in[0]);
    bool fresh;
    float *dx = device_grad(device, call->in[0], &fresh);

    LAUNCH(device, activate_back_kernel, grid_of(count), THREADS, 0, (int)call->whole[0],
           tensor_f32(call->in[0]), call->out[0]->grad, dx, fresh, count);
}

static __global__ void glu_kernel(int f, const float *x, float *y, int64_t F, int64_t count)
{
    FOR_EACH(i, count) {
        int64_t at = i / F * 2 * F + i % F;

        y[i] = value(f, x[at]) * x[at + F];
    }
}

void cuda_glu_forward(struct device *device, const struct op_call *call)
{
    int64_t count = tensor_count(call->out[0]);

    LAUNCH(device, glu_kernel, grid_of(count), THREADS, 0, (int)call->whole[0],
           tensor_f32(call->in[0]), tensor_f32(call->out[0]), tensor_columns(call->out[0]), count);
}

static __global__ void glu_back_kernel(int f, const float *x, const float *dy, float *dx,
                                       bool fresh, int64_t F, int64_t count)
{
    FOR_EACH(i, count) {
        int64_t at = i / F * 2 * F + i % F;
        float gate = x[at], up = x[at + F];

        put(dx + at, dy[i] * up * slope(f, gate), fresh);
        put(dx + at + F, dy[i] * value(f, gate), fresh);
    }
}

void cuda_glu_backward(struct device *device, const struct op_call *call)
{
    int64_t count = tensor_count(call->out[0]);
    bool fresh;
    float *dx = device_grad(device, call->in[0], &fresh);

    LAUNCH(device, glu_back_kernel, grid_of(count), THREADS, 0, (int)call->whole[0],
           tensor_f32(call->in[0]), call->out[0]->grad, dx, fresh, tensor_columns(call->out[0]),
           count);
}

static __global__ void mul_kernel(const float *a, const float *b, float *y, bool fresh,
                                  int64_t count)
{
    FOR_EACH(i, count)
        put(y + i, a[i] * b[i], fresh);
}

void cuda_mul_forward(struct device *device, const struct op_call *call)
{
    int64_t count = tensor_count(call->in[0]);

    LAUNCH(device, mul_kernel, grid_of(count), THREADS, 0, tensor_f32(call->in[0]),
           tensor_f32(call->in[1]), tensor_f32(call->out[0]), true, count);
}

void cuda_mul_backward(struct device *device, const struct op_call *call)
{
    int64_t count = tensor_count(call->in[0]);

    for (int k = 0; k < 2; k++) {
        bool fresh;
        float *grad;

        if (!call->in[k]->grad)
            continue;
        grad = device_grad(device, call->in[k], &fresh);
        LAUNCH(device, mul_kernel, grid_of(count), THREADS, 0, call->out[0]->grad,
               tensor_f32(call->in[1 - k]), grad, fresh, count);
    }
}

/* to[n, to_at + c] = factor * from[n, from_at + c] for c < columns, or += it. */
struct move {
    const float *from;
    float *to;
    int64_t from_width, from_at, to_width, to_at, columns, rows;
    float factor;
    bool fresh;
};

static __global__ void move_kernel(struct move m)
{
    FOR_EACH(i, m.rows * m.columns) {
        int64_t n = i / m.columns, c = i % m.columns;

        put(m.to + n * m.to_width + m.to_at + c,
            m.factor * m.from[n * m.from_width + m.from_at + c], m.fresh);
    }
}

static void move(struct device *device, const struct move *m)
{
    LAUNCH(device, move_kernel, grid_of(m->rows * m->columns), THREADS, 0, *m);
}

void cuda_scale_forward(struct device *device, const struct op_call *call)
{
    int64_t C = tensor_columns(call->in[0]);
    struct move m = {tensor_f32(call->in[0]), tensor_f32(call->out[0]), C, 0, C, 0, C,
                     tensor_rows(call->in[0]), (float)call->real[0], true};

    move(device, &m);
}

void cuda_scale_backward(struct device *device, const struct op_call *call)
{
    int64_t C = tensor_columns(call->in[0]);
    struct move m = {call->out[0]->grad, NULL, C, 0, C, 0, C, tensor_rows(call->in[0]),
                     (float)call->real[0], false};

    m.to = device_grad(device, call->in[0], &m.fresh);
    move(device, &m);
}

void cuda_slice_forward(struct device *device, const struct op_call *call)
{
    int64_t M = tensor_columns(call->out[0]);
    struct move m = {tensor_f32(call->in[0]), tensor_f32(call->out[0]),
                     tensor_columns(call->in[0]), call->whole[0], M, 0, M,
                     tensor_rows(call->in[0]), 1, true};

    move(device, &m);
}

void cuda_slice_backward(struct device *device, const struct op_call *call)
{
    int64_t M = tensor_columns(call->out[0]);
    struct move m = {call->out[0]->grad, device_grad(device, call->in[0], NULL), M, 0,
                     tensor_columns(call->in[0]), call->whole[0], M, tensor_rows(call->in[0]), 1,
                     false};

    move(device, &m);
}

void cuda_join_forward(struct device *device, const struct op_call *call)
{
    int64_t M = tensor_columns(call->out[0]), at = 0;

    for (int k = 0; k < 3 && call->in[k]; k++) {
        int64_t C = tensor_columns(call->in[k]);
        struct move m = {tensor_f32(call->in[k]), tensor_f32(call->out[0]), C, 0, M, at, C,
                         tensor_rows(call->in[k]), 1, true};

        move(device, &m);
        at += C;
    }
}

void cuda_join_backward(struct device *device, const struct op_call *call)
{
    int64_t M = tensor_columns(call->out[0]), at = 0;

    for (int k = 0; k < 3 && call->in[k]; k++) {
        int64_t C = tensor_columns(call->in[k]);
        struct move m = {call->out[0]->grad, NULL, M, at, C, 0, C, tensor_rows(call->in[k]), 1,
                         false};

        at += C;
        if (!call->in[k]->grad)
            continue;
        m.to = device_grad(device, call->in[k], &m.fresh);
        move(device, &m);
    }
}

void cuda_add_columns_forward(struct device *device, const struct op_call *call)
{
    int64_t M = tensor_columns(call->in[1]);
    struct move m = {tensor_f32(call->in[1]), tensor_f32(call->out[0]), M, 0,
                     tensor_columns(call->in[0]), call->whole[0], M, tensor_rows(call->in[0]),
                     (float)call->real[0], false};

    device->backend->copy(device, call->out[0]->values, call->in[0]->values,
                          4 * (size_t)tensor_count(call->in[0]));
    move(device, &m);
}

void cuda_add_columns_backward(struct device *device, const struct op_call *call)
{
    int64_t M = tensor_columns(call->in[1]);
    struct move m = {call->out[0]->grad, NULL, tensor_columns(call->in[0]), call->whole[0], M, 0, M,
                     tensor_rows(call->in[0]), (float)call->real[0], false};

    pass(device, call->out[0]->grad, call->in[0]);
    if (!call->in[1]->grad)
        return;
    m.to = device_grad(device, call->in[1], &m.fresh);
    move(device, &m);
}

struct dropped {
    const float *from;
    float *to;
    uint64_t seed, stream;
    uint32_t limit;
    float factor;
    bool fresh;
    int64_t count;
};

static __global__ void dropout_kernel(struct dropped d)
{
    FOR_EACH(i, d.count)
        put(d.to + i,
            dropout_keeps(d.seed, d.stream, (uint64_t)i, d.limit) ? d.factor * d.from[i] : 0,
            d.fresh);
}

static void drop(struct device *device, const struct op_call *call, const float *from, float *to,
                 bool fresh)
{
    struct dropped d = {from, to, (uint64_t)call->whole[0], (uint64_t)call->whole[1],
                        (uint32_t)(call->real[0] * 4294967296.0), (float)(1 / (1 - call->real[0])),
                        fresh, tensor_count(call->in[0])};

    LAUNCH(device, dropout_kernel, grid_of(d.count), THREADS, 0, d);
}

void cuda_dropout_forward(struct device *device, const struct op_call *call)
{
    drop(device, call, tensor_f32(call->in[0]), tensor_f32(call->out[0]), true);
}

void cuda_dropout_backward(struct device *device, const struct op_call *call)
{
    bool fresh;
    float *dx = device_grad(device, call->in[0], &fresh);

    drop(device, call, call->out[0]->grad, dx, fresh);
}
