/* pool.c - the reference of slices of columns, means of rows, and losses of rows. */
#include "worker/engine/reference/reference.h"

#include <math.h>

void reference_slice_forward(struct device *device, const struct op_call *call)
{
    int64_t C = tensor_columns(call->in[0]), M = tensor_columns(call->out[0]);

    (void)device;
    for (int64_t n = 0; n < tensor_rows(call->in[0]); n++)
        for (int64_t i = 0; i < M; i++)
            tensor_f32(call->out[0])[n * M + i] =
                tensor_f32(call->in[0])[n * C + call->whole[0] + i];
}

void reference_slice_backward(struct device *device, const struct op_call *call)
{
    int64_t C = tensor_columns(call->in[0]), M = tensor_columns(call->out[0]);
    float *dx = device_grad(device, call->in[0], NULL);

    for (int64_t n = 0; n < tensor_rows(call->in[0]); n++)
        for (int64_t i = 0; i < M; i++)
            dx[n * C + call->whole[0] + i] += call->out[0]->grad[n * M + i];
}

/* Where input k begins in a row of the output. */
static int64_t join_from(const struct op_call *call, int k)
{
    int64_t from = 0;

    for (int i = 0; i < k; i++)
        from += tensor_columns(call->in[i]);
    return from;
}

void reference_join_forward(struct device *device, const struct op_call *call)
{
    int64_t M = tensor_columns(call->out[0]);

    (void)device;
    for (int k = 0; k < 3 && call->in[k]; k++) {
        int64_t C = tensor_columns(call->in[k]), from = join_from(call, k);

        for (int64_t i = 0; i < tensor_count(call->in[k]); i++)
            tensor_f32(call->out[0])[i / C * M + from + i % C] = tensor_f32(call->in[k])[i];
    }
}

void reference_join_backward(struct device *device, const struct op_call *call)
{
    int64_t M = tensor_columns(call->out[0]);

    for (int k = 0; k < 3 && call->in[k]; k++) {
        int64_t C = tensor_columns(call->in[k]), from = join_from(call, k);
        float *dx = call->in[k]->grad ? device_grad(device, call->in[k], NULL) : NULL;

        for (int64_t i = 0; dx && i < tensor_count(call->in[k]); i++)
            dx[i] += call->out[0]->grad[i / C * M + from + i % C];
    }
}

void reference_pool_forward(struct device *device, const struct op_call *call)
{
    const int32_t *bound = tensor_i32(call->in[1]);
    int64_t C = tensor_columns(call->in[0]);

    (void)device;
    for (int64_t s = 0; s < tensor_rows(call->out[0]); s++)
        for (int64_t i = 0; i < C; i++) {
            double sum = 0;

            for (int64_t n = bound[2 * s]; n < bound[2 * s + 1]; n++)
                sum += tensor_f32(call->in[0])[n * C + i];
            tensor_f32(call->out[0])[s * C + i] =
                (float)(sum / fmax(1, bound[2 * s + 1] - bound[2 * s]));
        }
}

void reference_pool_backward(struct device *device, const struct op_call *call)
{
    const int32_t *bound = tensor_i32(call->in[1]);
    int64_t C = tensor_columns(call->in[0]);
    float *dx = device_grad(device, call->in[0], NULL);

    for (int64_t s = 0; s < tensor_rows(call->out[0]); s++)
        for (int64_t n = bound[2 * s]; n < bound[2 * s + 1]; n++)
            for (int64_t i = 0; i < C; i++)
                dx[n * C + i] +=
                    call->out[0]->grad[s * C + i] / (float)(bound[2 * s + 1] - bound[2 * s]);
}

void reference_nll_forward(struct device *device, const struct op_call *call)
{
    int64_t V = tensor_columns(call->in[0]);

    (void)device;
    for (int64_t n = 0; n < tensor_rows(call->in[0]); n++) {
        const float *x = tensor_f32(call->in[0]) + n * V;
        int32_t target = tensor_i32(call->in[1])[n];
        double highest = -INFINITY, sum = 0;

        for (int64_t i = 0; i < V; i++)
            highest = fmax(highest, x[i]);
        for (int64_t i = 0; i < V; i++)
            sum += exp(x[i] - highest);
        tensor_f32(call->out[1])[n] = (float)(highest + log(sum));
        tensor_f32(call->out[0])[n] =
            target < 0 ? 0 : (float)(highest + log(sum) - x[target]);
    }
}

void reference_nll_backward(struct device *device, const struct op_call *call)
{
    int64_t V = tensor_columns(call->in[0]);
    float *dx = device_grad(device, call->in[0], NULL);

    for (int64_t n = 0; n < tensor_rows(call->in[0]); n++) {
        const float *x = tensor_f32(call->in[0]) + n * V;
        int32_t target = tensor_i32(call->in[1])[n];
        double dy = call->out[0]->grad[n];

        for (int64_t i = 0; i < V && target >= 0; i++)
            dx[n * V + i] += (float)(dy * (exp((double)x[i] - tensor_f32(call->out[1])[n]) -
                                           (i == target)));
    }
}
