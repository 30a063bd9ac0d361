/* update.cu - the optimiser's passes over flat arrays. */
#include "worker/engine/cuda/cuda.h"

#include <math.h>

#define PARTS 1024

/* Part p is the sum over its own stretch, in double; the last kernel adds parts in order. */
static __global__ void squares_kernel(const float *x, int64_t count, double *part)
{
    __shared__ double sums[ROW_THREADS];
    int64_t length = (count + PARTS - 1) / PARTS, from = blockIdx.x * length;
    int64_t to = from + length < count ? from + length : count;
    double sum = 0;

    for (int64_t i = from + threadIdx.x; i < to; i += ROW_THREADS)
        sum += (double)x[i] * x[i];
    sums[threadIdx.x] = sum;
    for (int half = ROW_THREADS / 2; half > 0; half /= 2) {
        __syncthreads();
        if ((int)threadIdx.x < half)
            sums[threadIdx.x] += sums[threadIdx.x + half];
    }
    if (threadIdx.x == 0)
        part[blockIdx.x] = sums[0];
}

static __global__ void squares_add_kernel(const double *part, float *out)
{
    double sum = 0;

    for (int p = 0; p < PARTS; p++)
        sum += part[p];
    *out = (float)sum;
}

size_t cuda_sum_squares_scratch(const struct device *device, const struct op_call *call)
{
    (void)device;
    (void)call;
    return sizeof(double) * PARTS;
}

void cuda_sum_squares_forward(struct device *device, const struct op_call *call)
{
    double *part = (double *)device->scratch;

    LAUNCH(device, squares_kernel, PARTS, ROW_THREADS, 0, tensor_f32(call->in[0]),
           tensor_count(call->in[0]), part);
    LAUNCH(device, squares_add_kernel, 1, 1, 0, part, tensor_f32(call->out[0]));
}

struct adamw {
    float *p, *g, *m, *v;
    __nv_bfloat16 *rounded; /* the copy of p, or NULL */
    float rate, beta1, beta2, eps, keep, scale, m_fix, v_fix;
    int64_t count;
};

/* One pass: reads p, g, m, v, 16 bytes a weight; writes them and the copy, 18. */
static __global__ void adamw_kernel(struct adamw a)
{
    for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < a.count;
         i += (int64_t)gridDim.x * blockDim.x) {
        float g = a.g[i] * a.scale;
        float m = a.beta1 * a.m[i] + (1 - a.beta1) * g;
        float v = a.beta2 * a.v[i] + (1 - a.beta2) * g * g, p;

        a.m[i] = m;
        a.v[i] = v;
        p = a.keep * a.p[i] - a.rate * (m * a.m_fix) / (sqrtf(v * a.v_fix) + a.eps);
        a.p[i] = p;
        if (a.rounded)
            a.rounded[i] = __float2bfloat16(p);
        a.g[i] = 0;
    }
}

void cuda_adamw_forward(struct device *device, const struct op_call *call)
{
    const double *real = call->real;
    double step = (double)call->whole[0];
    int64_t count = tensor_count(call->in[0]);
    void *rounded = rounded_find(device, call->in[0]->values, count);
    struct adamw a = {tensor_f32(call->in[0]), tensor_f32(call->in[1]), tensor_f32(call->in[2]),
                      tensor_f32(call->in[3]), (__nv_bfloat16 *)rounded, (float)real[0],
                      (float)real[1], (float)real[2], (float)real[3],
                      (float)(1 - real[0] * real[4]), (float)real[5],
                      (float)(1 / (1 - pow(real[1], step))), (float)(1 / (1 - pow(real[2], step))),
                      count};
    unsigned blocks = (unsigned)min_u64(blocks_for(a.count, 256), 8192);

    LAUNCH(device, adamw_kernel, blocks, 256, 0, a);
}
