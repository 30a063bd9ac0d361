/* gates.c - the reference of activations, gated units and products of elements. */
#include "worker/engine/reference/reference.h"

#include "worker/engine/ops.h"

#include <math.h>
#include <string.h>

#define GELU_SLOPE 0.7978845608028654 /* sqrt(2 / pi) */
#define GELU_CUBE 0.044715

static double sigmoid(double x)
{
    return 1 / (1 + exp(-x));
}

static double value(int64_t f, double x)
{
    switch ((enum activation)f) {
    case ACTIVATION_NONE:
        return x;
    case ACTIVATION_RELU:
        return x > 0 ? x : 0;
    case ACTIVATION_SILU:
        return x * sigmoid(x);
    case ACTIVATION_GELU:
        return 0.5 * x * (1 + erf(x * sqrt(0.5)));
    case ACTIVATION_GELU_TANH:
        return 0.5 * x * (1 + tanh(GELU_SLOPE * (x + GELU_CUBE * x * x * x)));
    case ACTIVATION_TANH:
        return tanh(x);
    case ACTIVATION_SIGMOID:
        return sigmoid(x);
    case ACTIVATION_ELU1:
        return x > 0 ? 1 + x : exp(x);
    case ACTIVATION_END:
        break;
    }
    return 0;
}

static double slope(int64_t f, double x)
{
    double s = sigmoid(x), t;

    switch ((enum activation)f) {
    case ACTIVATION_NONE:
        return 1;
    case ACTIVATION_RELU:
        return x > 0;
    case ACTIVATION_SILU:
        return s * (1 + x * (1 - s));
    case ACTIVATION_GELU:
        return 0.5 * (1 + erf(x * sqrt(0.5))) + x * exp(-0.5 * x * x) * 0.5 * GELU_SLOPE;
    case ACTIVATION_GELU_TANH:
        t = tanh(GELU_SLOPE * (x + GELU_CUBE * x * x * x));
        return 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * GELU_SLOPE * (1 + 3 * GELU_CUBE * x * x);
    case ACTIVATION_TANH:
        return 1 - tanh(x) * tanh(x);
    case ACTIVATION_SIGMOID:
        return s * (1 - s);
    case ACTIVATION_ELU1:
        return x > 0 ? 1 : exp(x);
    case ACTIVATION_END:
        break;
    }
    return 0;
}

void reference_activate_forward(struct device *device, const struct op_call *call)
{
    (void)device;
    for (int64_t i = 0; i < tensor_count(call->in[0]); i++)
        tensor_f32(call->out[0])[i] = (float)value(call->whole[0], tensor_f32(call->in[0])[i]);
}

void reference_activate_backward(struct device *device, const struct op_call *call)
{
    float *dx = device_grad(device, call->in[0], NULL);

    for (int64_t i = 0; i < tensor_count(call->in[0]); i++)
        dx[i] += (float)(call->out[0]->grad[i] *
                         slope(call->whole[0], tensor_f32(call->in[0])[i]));
}

void reference_glu_forward(struct device *device, const struct op_call *call)
{
    int64_t N = tensor_rows(call->out[0]), F = tensor_columns(call->out[0]);

    (void)device;
    for (int64_t n = 0; n < N; n++) {
        const float *gate = tensor_f32(call->in[0]) + n * 2 * F, *up = gate + F;

        for (int64_t i = 0; i < F; i++)
            tensor_f32(call->out[0])[n * F + i] = (float)(value(call->whole[0], gate[i]) * up[i]);
    }
}

void reference_glu_backward(struct device *device, const struct op_call *call)
{
    int64_t N = tensor_rows(call->out[0]), F = tensor_columns(call->out[0]);
    float *dx = device_grad(device, call->in[0], NULL);

    for (int64_t n = 0; n < N; n++) {
        const float *gate = tensor_f32(call->in[0]) + n * 2 * F, *up = gate + F;
        const float *dy = call->out[0]->grad + n * F;

        for (int64_t i = 0; i < F; i++) {
            dx[n * 2 * F + i] += (float)(dy[i] * up[i] * slope(call->whole[0], gate[i]));
            dx[n * 2 * F + F + i] += (float)(dy[i] * value(call->whole[0], gate[i]));
        }
    }
}

void reference_mul_forward(struct device *device, const struct op_call *call)
{
    (void)device;
    for (int64_t i = 0; i < tensor_count(call->in[0]); i++)
        tensor_f32(call->out[0])[i] = tensor_f32(call->in[0])[i] * tensor_f32(call->in[1])[i];
}

void reference_mul_backward(struct device *device, const struct op_call *call)
{
    for (int k = 0; k < 2; k++) {
        const float *other = tensor_f32(call->in[1 - k]);
        float *grad;

        if (!call->in[k]->grad)
            continue;
        grad = device_grad(device, call->in[k], NULL);
        for (int64_t i = 0; i < tensor_count(call->in[k]); i++)
            grad[i] += call->out[0]->grad[i] * other[i];
    }
}

void reference_scale_forward(struct device *device, const struct op_call *call)
{
    (void)device;
    for (int64_t i = 0; i < tensor_count(call->in[0]); i++)
        tensor_f32(call->out[0])[i] = (float)(call->real[0] * tensor_f32(call->in[0])[i]);
}

void reference_scale_backward(struct device *device, const struct op_call *call)
{
    float *dx = device_grad(device, call->in[0], NULL);

    for (int64_t i = 0; i < tensor_count(call->in[0]); i++)
        dx[i] += (float)(call->real[0] * call->out[0]->grad[i]);
}

void reference_add_columns_forward(struct device *device, const struct op_call *call)
{
    int64_t C = tensor_columns(call->in[0]), M = tensor_columns(call->in[1]);

    (void)device;
    for (int64_t i = 0; i < tensor_count(call->in[0]); i++) {
        int64_t column = i % C - call->whole[0];
        double y = tensor_f32(call->in[0])[i];

        if (column >= 0 && column < M)
            y += call->real[0] * tensor_f32(call->in[1])[i / C * M + column];
        tensor_f32(call->out[0])[i] = (float)y;
    }
}

void reference_add_columns_backward(struct device *device, const struct op_call *call)
{
    int64_t C = tensor_columns(call->in[0]), M = tensor_columns(call->in[1]);
    float *da = call->in[0]->grad ? device_grad(device, call->in[0], NULL) : NULL;
    float *db = call->in[1]->grad ? device_grad(device, call->in[1], NULL) : NULL;

    for (int64_t i = 0; i < tensor_count(call->in[0]); i++) {
        int64_t column = i % C - call->whole[0];

        if (da)
            da[i] += call->out[0]->grad[i];
        if (db && column >= 0 && column < M)
            db[i / C * M + column] += (float)(call->real[0] * call->out[0]->grad[i]);
    }
}

/* to += from / (1 - p) where the element stays. */
static void drop(const struct op_call *call, const float *from, float *to)
{
    uint32_t limit = (uint32_t)(call->real[0] * 4294967296.0);

    for (int64_t i = 0; i < tensor_count(call->in[0]); i++)
        if (dropout_keeps((uint64_t)call->whole[0], (uint64_t)call->whole[1], (uint64_t)i, limit))
            to[i] += (float)(from[i] / (1 - call->real[0]));
}

void reference_dropout_forward(struct device *device, const struct op_call *call)
{
    (void)device;
    memset(tensor_f32(call->out[0]), 0, 4 * (size_t)tensor_count(call->out[0]));
    drop(call, tensor_f32(call->in[0]), tensor_f32(call->out[0]));
}

void reference_dropout_backward(struct device *device, const struct op_call *call)
{
    drop(call, call->out[0]->grad, device_grad(device, call->in[0], NULL));
}
