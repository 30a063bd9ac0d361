/* layers.cu - elementwise ops, normalisations, softmax, rotation, embedding, gather. */
#include "worker/engine/cuda/cuda.h"

static __global__ void gelu_kernel(const float *x, float *y, int64_t count)
{
    FOR_EACH(i, count)
        y[i] = x[i] * gelu_gate(x[i]);
}

void cuda_gelu_forward(struct device *device, const struct op_call *call)
{
    int64_t count = tensor_count(call->in[0]);

    LAUNCH(device, gelu_kernel, grid_of(count), THREADS, 0, tensor_f32(call->in[0]),
           tensor_f32(call->out[0]), count);
}

static __global__ void gelu_back_kernel(const float *x, const float *dy, float *dx, bool fresh,
                                        int64_t count)
{
    FOR_EACH(i, count)
        put(dx + i, dy[i] * gelu_slope(x[i]), fresh);
}

void cuda_gelu_backward(struct device *device, const struct op_call *call)
{
    int64_t count = tensor_count(call->in[0]);
    bool fresh;
    float *dx = device_grad(device, call->in[0], &fresh);

    LAUNCH(device, gelu_back_kernel, grid_of(count), THREADS, 0, tensor_f32(call->in[0]),
           call->out[0]->grad, dx, fresh, count);
}

static __global__ void swiglu_kernel(const float *x, float *y, int64_t F, int64_t count)
{
    FOR_EACH(i, count) {
        int64_t at = i / F * 2 * F + i % F;

        y[i] = x[at] * sigmoid(x[at]) * x[at + F];
    }
}

void cuda_swiglu_forward(struct device *device, const struct op_call *call)
{
    int64_t count = tensor_count(call->out[0]);

    LAUNCH(device, swiglu_kernel, grid_of(count), THREADS, 0, tensor_f32(call->in[0]),
           tensor_f32(call->out[0]), tensor_columns(call->out[0]), count);
}

static __global__ void swiglu_back_kernel(const float *x, const float *dy, float *dx, bool fresh,
                                          int64_t F, int64_t count)
{
    FOR_EACH(i, count) {
        int64_t at = i / F * 2 * F + i % F;
        float g = x[at], s = sigmoid(g);

        put(dx + at, dy[i] * x[at + F] * s * (1 + g * (1 - s)), fresh);
        put(dx + at + F, dy[i] * g * s, fresh);
    }
}

void cuda_swiglu_backward(struct device *device, const struct op_call *call)
{
    int64_t count = tensor_count(call->out[0]);
    bool fresh;
    float *dx = device_grad(device, call->in[0], &fresh);

    LAUNCH(device, swiglu_back_kernel, grid_of(count), THREADS, 0, tensor_f32(call->in[0]),
           call->out[0]->grad, dx, fresh, tensor_columns(call->out[0]), count);
}

static __global__ void add_kernel(const float *a, const float *b, float *y, int64_t count)
{
    FOR_EACH(i, count)
        y[i] = a[i] + b[i];
}

void cuda_add_forward(struct device *device, const struct op_call *call)
{
    int64_t count = tensor_count(call->in[0]);

    LAUNCH(device, add_kernel, grid_of(count), THREADS, 0, tensor_f32(call->in[0]),
           tensor_f32(call->in[1]), tensor_f32(call->out[0]), count);
}

static __global__ void pass_kernel(const float *dy, float *dx, bool fresh, int64_t count)
{
    FOR_EACH(i, count)
        put(dx + i, dy[i], fresh);
}

void pass(struct device *device, const float *dy, struct tensor *x)
{
    int64_t count = tensor_count(x);
    bool fresh;
    float *dx;

    if (!x->grad)
        return;
    dx = device_grad(device, x, &fresh);
    LAUNCH(device, pass_kernel, grid_of(count), THREADS, 0, dy, dx, fresh, count);
}

void cuda_add_backward(struct device *device, const struct op_call *call)
{
    pass(device, call->out[0]->grad, call->in[0]);
    pass(device, call->out[0]->grad, call->in[1]);
}

void cuda_head_backward(struct device *device, const struct op_call *call)
{
    pass(device, tensor_f32(call->out[3]), call->in[0]);
}

/* One block a row. mean NULL: root mean square only. */
static __global__ void norm_kernel(const float *x, const float *g, const float *b, float *y,
                                   float *mean, float *rstd, int64_t C, float eps)
{
    const float *row = x + blockIdx.x * C;
    float m = 0, square = 0, r;

    if (mean) {
        for (int64_t i = threadIdx.x; i < C; i += ROW_THREADS)
            m += row[i];
        m = block_sum(m) / (float)C;
    }
    for (int64_t i = threadIdx.x; i < C; i += ROW_THREADS)
        square += (row[i] - m) * (row[i] - m);
    r = 1.0f / sqrtf(block_sum(square) / (float)C + eps);
    for (int64_t i = threadIdx.x; i < C; i += ROW_THREADS)
        y[blockIdx.x * C + i] = (row[i] - m) * r * g[i] + (b ? b[i] : 0);
    if (threadIdx.x == 0) {
        rstd[blockIdx.x] = r;
        if (mean)
            mean[blockIdx.x] = m;
    }
}

void cuda_layernorm_forward(struct device *device, const struct op_call *call)
{
    LAUNCH(device, norm_kernel, tensor_rows(call->in[0]), ROW_THREADS, 0,
           tensor_f32(call->in[0]), tensor_f32(call->in[1]), tensor_f32(call->in[2]),
           tensor_f32(call->out[0]), tensor_f32(call->out[1]), tensor_f32(call->out[2]),
           tensor_columns(call->in[0]), (float)call->real[0]);
}

void cuda_rmsnorm_forward(struct device *device, const struct op_call *call)
{
    LAUNCH(device, norm_kernel, tensor_rows(call->in[0]), ROW_THREADS, 0,
           tensor_f32(call->in[0]), tensor_f32(call->in[1]), (const float *)NULL,
           tensor_f32(call->out[0]), (float *)NULL, tensor_f32(call->out[1]),
           tensor_columns(call->in[0]), (float)call->real[0]);
}

struct norm_back {
    const float *x, *g, *dy, *mean, *rstd;
    float *dx, *part; /* part (NORM_PARTS, 2, C): dg, db */
    bool fresh;
    int64_t N, C;
};

#define NORM_PARTS 256

/* Block p treats rows p, p + NORM_PARTS, ...; its sums of dg and db lie in its own part. */
static __global__ void norm_back_kernel(struct norm_back n)
{
    float *dg = n.part + blockIdx.x * 2 * n.C, *db = dg + n.C;

    for (int64_t i = threadIdx.x; i < 2 * n.C; i += ROW_THREADS)
        dg[i] = 0;
    for (int64_t r = blockIdx.x; r < n.N; r += NORM_PARTS) {
        const float *x = n.x + r * n.C, *dy = n.dy + r * n.C;
        float m = n.mean ? n.mean[r] : 0, s = n.rstd[r], u_mean = 0, ux_mean = 0;

        for (int64_t i = threadIdx.x; i < n.C; i += ROW_THREADS) {
            float u = dy[i] * n.g[i];

            u_mean += u;
            ux_mean += u * (x[i] - m) * s;
        }
        u_mean = n.mean ? block_sum(u_mean) / (float)n.C : 0;
        ux_mean = block_sum(ux_mean) / (float)n.C;
        for (int64_t i = threadIdx.x; i < n.C; i += ROW_THREADS) {
            float normal = (x[i] - m) * s;

            dg[i] += dy[i] * normal;
            db[i] += dy[i];
            if (n.dx)
                put(n.dx + r * n.C + i, (dy[i] * n.g[i] - u_mean - normal * ux_mean) * s, n.fresh);
        }
    }
}

static __global__ void norm_add_kernel(const float *part, int64_t C, int64_t offset, float *to)
{
    int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    float sum = 0;

    if (i >= C)
        return;
    for (int64_t p = 0; p < NORM_PARTS; p++)
        sum += part[p * 2 * C + offset + i];
    to[i] += sum;
}

static void norm_backward(struct device *device, const struct op_call *call, const float *mean,
                          const float *rstd)
{
    struct tensor *x = call->in[0], *g = call->in[1], *b = call->in[2];
    struct norm_back n = {tensor_f32(x), tensor_f32(g), call->out[0]->grad, mean, rstd, NULL,
                          (float *)device->scratch, false, tensor_rows(x), tensor_columns(x)};

    if (x->grad)
        n.dx = device_grad(device, x, &n.fresh);
    LAUNCH(device, norm_back_kernel, NORM_PARTS, ROW_THREADS, 0, n);
    if (g->grad)
        LAUNCH(device, norm_add_kernel, blocks_for(n.C, 128), 128, 0, n.part, n.C, (int64_t)0,
               device_grad(device, g, NULL));
    if (b && b->grad)
        LAUNCH(device, norm_add_kernel, blocks_for(n.C, 128), 128, 0, n.part, n.C, n.C,
               device_grad(device, b, NULL));
}

void cuda_layernorm_backward(struct device *device, const struct op_call *call)
{
    norm_backward(device, call, tensor_f32(call->out[1]), tensor_f32(call->out[2]));
}

void cuda_rmsnorm_backward(struct device *device, const struct op_call *call)
{
    norm_backward(device, call, NULL, tensor_f32(call->out[1]));
}

size_t cuda_norm_scratch(const struct device *device, const struct op_call *call)
{
    (void)device;
    return 4 * NORM_PARTS * 2 * (size_t)tensor_columns(call->in[0]);
}

static __global__ void softmax_kernel(const float *x, float *y, int64_t C, float scale)
{
    const float *row = x + blockIdx.x * C;
    float most = -INFINITY, sum = 0;

    for (int64_t i = threadIdx.x; i < C; i += ROW_THREADS)
        most = fmaxf(most, row[i]);
    most = block_max(most);
    for (int64_t i = threadIdx.x; i < C; i += ROW_THREADS)
        sum += expf((row[i] - most) * scale);
    sum = block_sum(sum);
    for (int64_t i = threadIdx.x; i < C; i += ROW_THREADS)
        y[blockIdx.x * C + i] = expf((row[i] - most) * scale) / sum;
}

void cuda_softmax_forward(struct device *device, const struct op_call *call)
{
    LAUNCH(device, softmax_kernel, tensor_rows(call->in[0]), ROW_THREADS, 0,
           tensor_f32(call->in[0]), tensor_f32(call->out[0]), tensor_columns(call->in[0]),
           (float)(1 / call->real[0]));
}

static __global__ void softmax_back_kernel(const float *y, const float *dy, float *dx, bool fresh,
                                           int64_t C, float scale)
{
    int64_t at = blockIdx.x * C;
    float dot = 0;

    for (int64_t i = threadIdx.x; i < C; i += ROW_THREADS)
        dot += y[at + i] * dy[at + i];
    dot = block_sum(dot);
    for (int64_t i = threadIdx.x; i < C; i += ROW_THREADS)
        put(dx + at + i, y[at + i] * (dy[at + i] - dot) * scale, fresh);
}

void cuda_softmax_backward(struct device *device, const struct op_call *call)
{
    bool fresh;
    float *dx = device_grad(device, call->in[0], &fresh);

    LAUNCH(device, softmax_back_kernel, tensor_rows(call->in[0]), ROW_THREADS, 0,
           tensor_f32(call->out[0]), call->out[0]->grad, dx, fresh,
           tensor_columns(call->in[0]), (float)(1 / call->real[0]));
}

struct rope {
    const float *x, *turns;
    float *y;
    const int32_t *position;
    int64_t rows, turning, all, half;
    float sign;
    bool fresh;
};

/* One thread a pair of elements. */
static __global__ void rope_kernel(struct rope r)
{
    FOR_EACH(unit, r.rows * r.all * r.half) {
        int64_t i = unit % r.half, head = unit / r.half % r.all, row = unit / r.half / r.all;
        int64_t at = (row * r.all + head) * 2 * r.half + i;
        const float *turn = r.turns + (int64_t)r.position[row] * 2 * r.half;
        float c = head < r.turning ? turn[i] : 1;
        float s = head < r.turning ? r.sign * turn[r.half + i] : 0;
        float low = r.x[at], high = r.x[at + r.half];

        put(r.y + at, low * c - high * s, r.fresh);
        put(r.y + at + r.half, high * c + low * s, r.fresh);
    }
}

static void rope_run(struct device *device, const struct op_call *call, struct rope r)
{
    r.turns = tensor_f32(call->in[2]);
    r.position = tensor_i32(call->in[1]);
    r.rows = tensor_rows(call->in[0]);
    r.turning = call->whole[0] + call->whole[1];
    r.all = r.turning + call->whole[1];
    r.half = call->whole[2] / 2;
    LAUNCH(device, rope_kernel, grid_of(r.rows * r.all * r.half), THREADS, 0, r);
}

void cuda_rope_forward(struct device *device, const struct op_call *call)
{
    struct rope r = {};

    r.x = tensor_f32(call->in[0]);
    r.y = tensor_f32(call->out[0]);
    r.sign = 1;
    r.fresh = true;
    rope_run(device, call, r);
}

void cuda_rope_backward(struct device *device, const struct op_call *call)
{
    struct rope r = {};

    r.x = call->out[0]->grad;
    r.y = device_grad(device, call->in[0], &r.fresh);
    r.sign = -1;
    rope_run(device, call, r);
}

static __global__ void embed_kernel(const int32_t *token, const int32_t *position,
                                    const float *wte, const float *wpe, float *y, int64_t D,
                                    int64_t count)
{
    FOR_EACH(i, count) {
        int64_t n = i / D, c = i % D;

        y[i] = wte[token[n] * D + c] + (wpe ? wpe[position[n] * D + c] : 0);
    }
}

void cuda_embed_forward(struct device *device, const struct op_call *call)
{
    const struct tensor *position = call->in[1], *wte = call->in[2], *wpe = call->in[3];
    int64_t count = tensor_count(call->out[0]);

    LAUNCH(device, embed_kernel, grid_of(count), THREADS, 0, tensor_i32(call->in[0]),
           position ? tensor_i32(position) : NULL, tensor_f32(wte), wpe ? tensor_f32(wpe) : NULL,
           tensor_f32(call->out[0]), tensor_columns(wte), count);
}

/* Block n adds, in order, the rows of dy whose index equals index[n], if n is the first of
 * them; other blocks leave at once. So each row of the table has one writer. */
static __global__ void add_rows_kernel(const int32_t *index, const float *dy, float *table,
                                       int64_t N, int64_t D)
{
    __shared__ int32_t found[THREADS];
    __shared__ int found_count;
    int32_t wanted = index[blockIdx.x];
    int earlier = 0;

    for (int64_t n = threadIdx.x; n < blockIdx.x; n += THREADS)
        earlier |= index[n] == wanted;
    if (__syncthreads_or(earlier))
        return;
    for (int64_t base = blockIdx.x; base < N; base += THREADS) {
        int64_t n = base + threadIdx.x;
        bool same = n < N && index[n] == wanted;

        if (!__syncthreads_or(same))
            continue;
        found[threadIdx.x] = same;
        __syncthreads();
        if (threadIdx.x == 0) {
            int count = 0;

            for (int k = 0; k < THREADS; k++)
                if (found[k])
                    found[count++] = k;
            found_count = count;
        }
        __syncthreads();
        for (int64_t c = threadIdx.x; c < D; c += THREADS) {
            float sum = table[wanted * D + c];

            for (int k = 0; k < found_count; k++)
                sum += dy[(base + found[k]) * D + c];
            table[wanted * D + c] = sum;
        }
        __syncthreads();
    }
}

static void add_rows(struct device *device, const struct tensor *index, const float *dy,
                     struct tensor *table)
{
    if (!table || !table->grad)
        return;
    LAUNCH(device, add_rows_kernel, tensor_count(index), THREADS, 0, tensor_i32(index), dy,
           device_grad(device, table, NULL), tensor_count(index), tensor_columns(table));
}

void cuda_embed_backward(struct device *device, const struct op_call *call)
{
    add_rows(device, call->in[0], call->out[0]->grad, call->in[2]);
    add_rows(device, call->in[1], call->out[0]->grad, call->in[3]);
}

static __global__ void gather_kernel(const float *x, const int32_t *index, float *y, int64_t C,
                                     int64_t count)
{
    FOR_EACH(i, count)
        y[i] = x[index[i / C] * C + i % C];
}

void cuda_gather_forward(struct device *device, const struct op_call *call)
{
    int64_t count = tensor_count(call->out[0]);

    LAUNCH(device, gather_kernel, grid_of(count), THREADS, 0, tensor_f32(call->in[0]),
           tensor_i32(call->in[1]), tensor_f32(call->out[0]), tensor_columns(call->in[0]), count);
}

static __global__ void scatter_kernel(const float *dy, const int32_t *index, float *dx, int64_t C,
                                      int64_t count)
{
    FOR_EACH(i, count)
        dx[index[i / C] * C + i % C] += dy[i]; /* indices do not repeat: ops.h */
}

void cuda_gather_backward(struct device *device, const struct op_call *call)
{
    int64_t count = tensor_count(call->out[0]);

    LAUNCH(device, scatter_kernel, grid_of(count), THREADS, 0, call->out[0]->grad,
           tensor_i32(call->in[1]), device_grad(device, call->in[0], NULL),
           tensor_columns(call->in[0]), count);
}
