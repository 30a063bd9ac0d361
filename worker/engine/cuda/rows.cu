/* rows.cu - means of rows, losses of rows, and linearised relative positions. */
#include "worker/engine/cuda/cuda.h"

static __global__ void pool_kernel(const float *x, const int32_t *bound, float *y, int64_t C,
                                   int64_t count)
{
    FOR_EACH(i, count) {
        int32_t from = bound[2 * (i / C)], to = bound[2 * (i / C) + 1];
        float sum = 0;

        for (int64_t n = from; n < to; n++)
            sum += x[n * C + i % C];
        y[i] = sum / (float)(to > from ? to - from : 1);
    }
}

void cuda_pool_forward(struct device *device, const struct op_call *call)
{
    int64_t count = tensor_count(call->out[0]);

    LAUNCH(device, pool_kernel, grid_of(count), THREADS, 0, tensor_f32(call->in[0]),
           tensor_i32(call->in[1]), tensor_f32(call->out[0]), tensor_columns(call->in[0]), count);
}

/* Stretches do not overlap (ops.h), so an element has one writer. */
static __global__ void pool_back_kernel(const float *dy, const int32_t *bound, float *dx,
                                        int64_t C, int64_t count)
{
    FOR_EACH(i, count) {
        int32_t from = bound[2 * (i / C)], to = bound[2 * (i / C) + 1];

        for (int64_t n = from; n < to; n++)
            dx[n * C + i % C] += dy[i] / (float)(to - from);
    }
}

void cuda_pool_backward(struct device *device, const struct op_call *call)
{
    int64_t count = tensor_count(call->out[0]);
    float *dx = device_grad(device, call->in[0], NULL);

    LAUNCH(device, pool_back_kernel, grid_of(count), THREADS, 0, call->out[0]->grad,
           tensor_i32(call->in[1]), dx, tensor_columns(call->in[0]), count);
}

/* One block a row. */
static __global__ void nll_kernel(const float *x, const int32_t *target, float *nll, float *lse,
                                  int64_t V)
{
    const float *row = x + blockIdx.x * V;
    float most = -INFINITY, sum = 0;

    for (int64_t i = threadIdx.x; i < V; i += ROW_THREADS)
        most = fmaxf(most, row[i]);
    most = block_max(most);
    for (int64_t i = threadIdx.x; i < V; i += ROW_THREADS)
        sum += expf(row[i] - most);
    sum = block_sum(sum);
    if (threadIdx.x == 0) {
        int32_t t = target[blockIdx.x];

        lse[blockIdx.x] = most + logf(sum);
        nll[blockIdx.x] = t < 0 ? 0 : most + logf(sum) - row[t];
    }
}

void cuda_nll_forward(struct device *device, const struct op_call *call)
{
    LAUNCH(device, nll_kernel, tensor_rows(call->in[0]), ROW_THREADS, 0, tensor_f32(call->in[0]),
           tensor_i32(call->in[1]), tensor_f32(call->out[0]), tensor_f32(call->out[1]),
           tensor_columns(call->in[0]));
}

static __global__ void nll_back_kernel(const float *x, const int32_t *target, const float *lse,
                                       const float *dy, float *dx, bool fresh, int64_t V,
                                       int64_t count)
{
    FOR_EACH(i, count) {
        int64_t n = i / V;
        int32_t t = target[n];

        put(dx + i, t < 0 ? 0 : dy[n] * (expf(x[i] - lse[n]) - (i % V == t ? 1.0f : 0.0f)), fresh);
    }
}

void cuda_nll_backward(struct device *device, const struct op_call *call)
{
    int64_t count = tensor_count(call->in[0]);
    bool fresh;
    float *dx = device_grad(device, call->in[0], &fresh);

    LAUNCH(device, nll_back_kernel, grid_of(count), THREADS, 0, tensor_f32(call->in[0]),
           tensor_i32(call->in[1]), tensor_f32(call->out[1]), call->out[0]->grad, dx, fresh,
           tensor_columns(call->in[0]), count);
}

/* q and k heads of a row, then v heads: x (N, from), y (N, to), see op_lrpe. */
struct turned {
    const float *x, *theta, *dy;
    const int32_t *position;
    float *y, *dx, *dtheta;
    int64_t N, H, d, dk, from, to;
    int f;
    bool fresh;
};

static struct turned turned_of(const struct op_call *call)
{
    struct turned t = {};

    t.x = tensor_f32(call->in[0]);
    t.theta = call->in[2] ? tensor_f32(call->in[2]) : NULL;
    t.position = call->in[2] ? tensor_i32(call->in[1]) : NULL;
    t.y = tensor_f32(call->out[0]);
    t.dy = call->out[0]->grad;
    t.N = tensor_rows(call->in[0]);
    t.H = call->whole[0];
    t.d = call->whole[1];
    t.f = (int)call->whole[2];
    t.dk = t.theta ? 2 * t.d : t.d;
    t.from = tensor_columns(call->in[0]);
    t.to = tensor_columns(call->out[0]);
    return t;
}

static __device__ float turned_value(int f, float x)
{
    if (f == ACTIVATION_SILU)
        return x * sigmoid(x);
    if (f == ACTIVATION_ELU1)
        return x > 0 ? 1 + x : expf(x);
    return x;
}

static __device__ float turned_slope(int f, float x)
{
    float s = sigmoid(x);

    if (f == ACTIVATION_SILU)
        return s * (1 + x * (1 - s));
    if (f == ACTIVATION_ELU1)
        return x > 0 ? 1 : expf(x);
    return 1;
}

/* Cosine and sine of position n times angle u. The product is brought into a turn in double:
 * at position 10^5 its f32 form would be off by 0.01. */
static __device__ float2 turn_at(const struct turned *t, int64_t n, int64_t u)
{
    double p;

    if (!t->theta)
        return make_float2(1, 0);
    p = (double)t->position[n] * t->theta[u % (t->H * t->d)];
    p -= 6.283185307179586 * rint(p * 0.15915494309189535);
    return make_float2(cosf((float)p), sinf((float)p));
}

static __global__ void lrpe_kernel(struct turned t)
{
    FOR_EACH(i, t.N * 3 * t.H * t.d) {
        int64_t n = i / (3 * t.H * t.d), u = i % (3 * t.H * t.d);
        float x = t.x[n * t.from + u];
        float *row = t.y + n * t.to, *at = row + u / t.d * t.dk + u % t.d;

        if (u >= 2 * t.H * t.d) {
            row[2 * t.H * t.dk + u - 2 * t.H * t.d] = x;
        } else {
            float2 turn = turn_at(&t, n, u);
            float a = turned_value(t.f, x);

            at[0] = a * turn.x;
            if (t.theta)
                at[t.d] = a * turn.y;
        }
    }
}

void cuda_lrpe_forward(struct device *device, const struct op_call *call)
{
    struct turned t = turned_of(call);

    LAUNCH(device, lrpe_kernel, grid_of(t.N * 3 * t.H * t.d), THREADS, 0, t);
}

static __global__ void lrpe_back_kernel(struct turned t)
{
    FOR_EACH(i, t.N * 3 * t.H * t.d) {
        int64_t n = i / (3 * t.H * t.d), u = i % (3 * t.H * t.d);
        const float *row = t.dy + n * t.to, *g = row + u / t.d * t.dk + u % t.d;
        float slope = row[2 * t.H * t.dk + u % (t.H * t.d)];

        if (u < 2 * t.H * t.d) {
            float2 turn = turn_at(&t, n, u);

            slope = turned_slope(t.f, t.x[n * t.from + u]) *
                    (g[0] * turn.x + (t.theta ? g[t.d] * turn.y : 0));
        }
        put(t.dx + n * t.from + u, slope, t.fresh);
    }
}

/* One block an angle: rows of q, then of k. */
static __global__ void lrpe_theta_kernel(struct turned t)
{
    float sum = 0;

    for (int64_t r = threadIdx.x; r < 2 * t.N; r += ROW_THREADS) {
        int64_t n = r % t.N, u = r / t.N * t.H * t.d + blockIdx.x;
        const float *g = t.dy + n * t.to + u / t.d * t.dk + u % t.d;
        float2 turn = turn_at(&t, n, u);

        sum += (float)t.position[n] * turned_value(t.f, t.x[n * t.from + u]) *
               (g[t.d] * turn.x - g[0] * turn.y);
    }
    sum = block_sum(sum);
    if (threadIdx.x == 0)
        t.dtheta[blockIdx.x] += sum;
}

void cuda_lrpe_backward(struct device *device, const struct op_call *call)
{
    struct turned t = turned_of(call);

    if (call->in[0]->grad) {
        /* Columns after the v heads, if any, get nothing. */
        t.dx = device_grad(device, call->in[0], t.from == 3 * t.H * t.d ? &t.fresh : NULL);
        LAUNCH(device, lrpe_back_kernel, grid_of(t.N * 3 * t.H * t.d), THREADS, 0, t);
    }
    if (call->in[2] && call->in[2]->grad) {
        t.dtheta = device_grad(device, call->in[2], NULL);
        LAUNCH(device, lrpe_theta_kernel, t.H * t.d, ROW_THREADS, 0, t);
    }
}
