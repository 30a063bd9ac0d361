/* attention.cu - causal attention as batched products over a bounded set of heads.
 *
 * Units are (row, key head) pairs. A chunk of units has its scores (units, T, T) in scratch,
 * at most SCORE_BYTES, so nothing of size T^2 outlives a call; only the log-sum-exp is kept.
 * Query heads that share a key head go one after another: their gradients of keys and values
 * add up in a fixed order. */
#include "worker/engine/cuda/cuda.h"

#define SCORE_BYTES ((size_t)48 << 20) /* about the L2 cache of an H100 */

/* Shape, and what the pointers of a chunk are made from. */
struct attention {
    int64_t B, T, H, Hk, d, width; /* width of a packed row */
    int64_t units;                 /* in a chunk            */
    float scale;
    const int32_t *first;
};

struct attention_room {
    void *qkv, *dy;          /* bf16 copies                              */
    float *s, *dp;           /* (units, T, T)                            */
    void *p, *ds;            /* bf16 copies of probabilities and dS      */
    const void **pointers;   /* (POINTER_LISTS, units)                   */
};

enum list { LIST_Q, LIST_K, LIST_V, LIST_Y, LIST_DQ, LIST_DK, LIST_DV, LIST_S, LIST_DP, LIST_P,
            LIST_DS, POINTER_LISTS };

static struct attention shape_of(const struct op_call *call)
{
    struct attention a = {};
    size_t unit_bytes;

    a.H = call->whole[0];
    a.Hk = call->whole[1];
    a.d = call->whole[2];
    a.B = call->whole[3];
    a.T = call->whole[4];
    a.width = (a.H + 2 * a.Hk) * a.d;
    a.scale = 1.0f / sqrtf((float)a.d);
    a.first = call->in[1] ? tensor_i32(call->in[1]) : NULL;
    unit_bytes = 4 * (size_t)(a.T * a.T);
    a.units = (int64_t)max_u64(1, min_u64(SCORE_BYTES / unit_bytes, (uint64_t)(a.B * a.Hk)));
    return a;
}

static struct attention_room room_cut(const struct device *device, const struct attention *a,
                                      struct cutter *cutter)
{
    int64_t scores = a->units * a->T * a->T, N = a->B * a->T;
    struct attention_room r;

    r.qkv = cut(cutter, operand_bytes(device, N * a->width));
    r.dy = cut(cutter, operand_bytes(device, N * a->H * a->d));
    r.s = (float *)cut(cutter, 4 * (size_t)scores);
    r.dp = (float *)cut(cutter, 4 * (size_t)scores);
    r.p = cut(cutter, operand_bytes(device, scores));
    r.ds = cut(cutter, operand_bytes(device, scores));
    r.pointers = (const void **)cut(cutter, sizeof(void *) * POINTER_LISTS * (size_t)a->units);
    if (!device->config.bf16) {
        r.p = r.s;
        r.ds = r.dp;
    }
    return r;
}

size_t cuda_attention_scratch(const struct device *device, const struct op_call *call)
{
    struct attention a = shape_of(call);
    struct cutter cutter = {NULL, 0};

    room_cut(device, &a, &cutter);
    return cutter.used;
}

/* Bases of the arrays that a chunk's pointers lead into; item sizes in bytes. */
struct bases {
    const char *qkv, *y;       /* operands: y is dy in backward, and f32 y in forward */
    char *dqkv, *s, *dp, *p, *ds;
    int operand_size, y_size;
    int64_t unit, group;       /* first unit of the chunk; query head within its group */
};

static __global__ void pointers_kernel(struct attention a, struct bases b, const void **out,
                                       int64_t count)
{
    int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x, unit = b.unit + i;
    int64_t row = unit / a.Hk * a.T, kv = unit % a.Hk;
    int64_t q = row * a.width + (kv * (a.H / a.Hk) + b.group) * a.d;
    int64_t k = row * a.width + (a.H + kv) * a.d, v = k + a.Hk * a.d;
    int64_t y = row * a.H * a.d + (kv * (a.H / a.Hk) + b.group) * a.d, s = i * a.T * a.T;

    if (i >= count)
        return;
    out[LIST_Q * a.units + i] = b.qkv + q * b.operand_size;
    out[LIST_K * a.units + i] = b.qkv + k * b.operand_size;
    out[LIST_V * a.units + i] = b.qkv + v * b.operand_size;
    out[LIST_Y * a.units + i] = b.y + y * b.y_size;
    out[LIST_DQ * a.units + i] = b.dqkv + q * 4;
    out[LIST_DK * a.units + i] = b.dqkv + k * 4;
    out[LIST_DV * a.units + i] = b.dqkv + v * 4;
    out[LIST_S * a.units + i] = b.s + s * 4;
    out[LIST_DP * a.units + i] = b.dp + s * 4;
    out[LIST_P * a.units + i] = b.p + s * b.operand_size;
    out[LIST_DS * a.units + i] = b.ds + s * b.operand_size;
}

/* Row-major c = a b for each unit; lists name where the pointers lie. */
struct batched {
    bool a_transposed, b_transposed, accumulates;
    int64_t rows, columns, inner;
    enum list a, b, c;
    int64_t a_stride, b_stride, c_stride;
};

static void batched_run(struct device *device, const struct attention *a, const void **pointers,
                        int64_t count, const struct batched *p)
{
    struct gpu *gpu = gpu_of(device);
    cudaDataType_t type = device->config.bf16 ? CUDA_R_16BF : CUDA_R_32F;
    float one = 1, beta = p->accumulates ? 1 : 0;

    BLAS_CHECK(cublasGemmBatchedEx(
        gpu->blas, p->b_transposed ? CUBLAS_OP_T : CUBLAS_OP_N,
        p->a_transposed ? CUBLAS_OP_T : CUBLAS_OP_N, (int)p->columns, (int)p->rows, (int)p->inner,
        &one, pointers + p->b * a->units, type, (int)p->b_stride, pointers + p->a * a->units, type,
        (int)p->a_stride, &beta, (void *const *)(pointers + p->c * a->units), CUDA_R_32F,
        (int)p->c_stride, (int)count, CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT));
}

/* Where the rows of a chunk lie in the kept log-sum-exp, (B, H, T). */
struct chunk_rows {
    struct attention a;
    int64_t unit, group;
    float *lse;
};

static __device__ int64_t lse_index(const struct chunk_rows *c, int64_t i, int64_t t)
{
    int64_t unit = c->unit + i, b = unit / c->a.Hk, kv = unit % c->a.Hk;

    return (b * c->a.H + kv * (c->a.H / c->a.Hk) + c->group) * c->a.T + t;
}

static __device__ int64_t first_key(const struct chunk_rows *c, int64_t i, int64_t t)
{
    return c->a.first ? c->a.first[(c->unit + i) / c->a.Hk * c->a.T + t] : 0;
}

/* One block a row of scores: probabilities over visible keys, 0 elsewhere. */
template <typename item>
static __global__ void probabilities_kernel(struct chunk_rows c, const float *s, item *p)
{
    int64_t T = c.a.T, i = blockIdx.x / T, t = blockIdx.x % T, low = first_key(&c, i, t);
    const float *row = s + blockIdx.x * T;
    item *out = p + blockIdx.x * T;
    float most = -INFINITY, sum = 0;

    for (int64_t j = low + threadIdx.x; j <= t; j += ROW_THREADS)
        most = fmaxf(most, row[j]);
    most = block_max(most);
    for (int64_t j = low + threadIdx.x; j <= t; j += ROW_THREADS)
        sum += expf((row[j] - most) * c.a.scale);
    sum = block_sum(sum);
    for (int64_t j = threadIdx.x; j < T; j += ROW_THREADS)
        out[j] = (item)(j >= low && j <= t ? expf((row[j] - most) * c.a.scale) / sum : 0.0f);
    if (threadIdx.x == 0)
        c.lse[lse_index(&c, i, t)] = most * c.a.scale + logf(sum);
}

/* P = exp(scale S - lse), dS = scale P (dP - sum P dP). Each thread reads an element of S
 * and dP before it writes it, so p may be s and ds may be dp. */
template <typename item>
static __global__ void scores_back_kernel(struct chunk_rows c, const float *s, const float *dp,
                                          item *p, item *ds)
{
    int64_t T = c.a.T, i = blockIdx.x / T, t = blockIdx.x % T, low = first_key(&c, i, t);
    int64_t at = blockIdx.x * T;
    float lse = c.lse[lse_index(&c, i, t)], dot = 0;

    for (int64_t j = low + threadIdx.x; j <= t; j += ROW_THREADS)
        dot += expf(s[at + j] * c.a.scale - lse) * dp[at + j];
    dot = block_sum(dot);
    for (int64_t j = threadIdx.x; j < T; j += ROW_THREADS) {
        bool seen = j >= low && j <= t;
        float prob = seen ? expf(s[at + j] * c.a.scale - lse) : 0;
        float slope = seen ? c.a.scale * prob * (dp[at + j] - dot) : 0;

        p[at + j] = (item)prob;
        ds[at + j] = (item)slope;
    }
}

static void set_pointers(struct device *device, const struct attention *a, const struct bases *b,
                         const struct attention_room *room, int64_t count)
{
    LAUNCH(device, pointers_kernel, blocks_for(count, 128), 128, 0, *a, *b, room->pointers, count);
}

/* Scores of the chunk: S = Q K'. */
static void scores(struct device *device, const struct attention *a,
                   const struct attention_room *room, int64_t count)
{
    struct batched p = {false, true, false, a->T, a->T, a->d, LIST_Q, LIST_K, LIST_S,
                        a->width, a->width, a->T};

    batched_run(device, a, room->pointers, count, &p);
}

static void forward_chunk(struct device *device, const struct attention *a, struct bases *b,
                          const struct attention_room *room, float *lse, int64_t count)
{
    struct batched y = {false, false, false, a->T, a->d, a->T, LIST_P, LIST_V, LIST_Y,
                        a->T, a->width, a->H * a->d};
    struct chunk_rows c = {*a, b->unit, b->group, lse};

    set_pointers(device, a, b, room, count);
    scores(device, a, room, count);
    if (device->config.bf16)
        LAUNCH(device, probabilities_kernel<__nv_bfloat16>, count * a->T, ROW_THREADS, 0, c,
               room->s, (__nv_bfloat16 *)room->p);
    else
        LAUNCH(device, probabilities_kernel<float>, count * a->T, ROW_THREADS, 0, c, room->s,
               (float *)room->p);
    batched_run(device, a, room->pointers, count, &y);
}

static struct bases bases_of(const struct device *device, const struct attention_room *room,
                             const void *qkv, const void *y, int y_size)
{
    struct bases b = {};

    b.qkv = (const char *)qkv;
    b.y = (const char *)y;
    b.s = (char *)room->s;
    b.dp = (char *)room->dp;
    b.p = (char *)room->p;
    b.ds = (char *)room->ds;
    b.operand_size = device->config.bf16 ? 2 : 4;
    b.y_size = y_size;
    return b;
}

void cuda_attention_forward(struct device *device, const struct op_call *call)
{
    struct attention a = shape_of(call);
    struct cutter cutter = {(char *)device->scratch, 0};
    struct attention_room room = room_cut(device, &a, &cutter);
    const void *qkv = operand(device, tensor_f32(call->in[0]), room.qkv, tensor_count(call->in[0]));
    struct bases b = bases_of(device, &room, qkv, call->out[0]->values, 4);

    for (b.group = 0; b.group < a.H / a.Hk; b.group++)
        for (b.unit = 0; b.unit < a.B * a.Hk; b.unit += a.units)
            forward_chunk(device, &a, &b, &room, tensor_f32(call->out[1]),
                          (int64_t)min_u64((uint64_t)a.units, (uint64_t)(a.B * a.Hk - b.unit)));
}

static void backward_chunk(struct device *device, const struct attention *a, struct bases *b,
                           const struct attention_room *room, float *lse, int64_t count)
{
    struct batched dp = {false, true, false, a->T, a->T, a->d, LIST_Y, LIST_V, LIST_DP,
                         a->H * a->d, a->width, a->T};
    struct batched dq = {false, false, true, a->T, a->d, a->T, LIST_DS, LIST_K, LIST_DQ,
                         a->T, a->width, a->width};
    struct batched dk = {true, false, true, a->T, a->d, a->T, LIST_DS, LIST_Q, LIST_DK,
                         a->T, a->width, a->width};
    struct batched dv = {true, false, true, a->T, a->d, a->T, LIST_P, LIST_Y, LIST_DV,
                         a->T, a->H * a->d, a->width};
    struct chunk_rows c = {*a, b->unit, b->group, lse};

    set_pointers(device, a, b, room, count);
    scores(device, a, room, count);
    batched_run(device, a, room->pointers, count, &dp);
    if (device->config.bf16)
        LAUNCH(device, scores_back_kernel<__nv_bfloat16>, count * a->T, ROW_THREADS, 0, c, room->s,
               room->dp, (__nv_bfloat16 *)room->p, (__nv_bfloat16 *)room->ds);
    else
        LAUNCH(device, scores_back_kernel<float>, count * a->T, ROW_THREADS, 0, c, room->s,
               room->dp, (float *)room->p, (float *)room->ds);
    batched_run(device, a, room->pointers, count, &dq);
    batched_run(device, a, room->pointers, count, &dk);
    batched_run(device, a, room->pointers, count, &dv);
}

void cuda_attention_backward(struct device *device, const struct op_call *call)
{
    struct attention a = shape_of(call);
    struct cutter cutter = {(char *)device->scratch, 0};
    struct attention_room room = room_cut(device, &a, &cutter);
    int64_t y_count = tensor_count(call->out[0]);
    const void *qkv = operand(device, tensor_f32(call->in[0]), room.qkv, tensor_count(call->in[0]));
    const void *dy = operand(device, call->out[0]->grad, room.dy, y_count);
    struct bases b = bases_of(device, &room, qkv, dy, device->config.bf16 ? 2 : 4);

    b.dqkv = (char *)device_grad(device, call->in[0], NULL);
    for (b.group = 0; b.group < a.H / a.Hk; b.group++)
        for (b.unit = 0; b.unit < a.B * a.Hk; b.unit += a.units)
            backward_chunk(device, &a, &b, &room, tensor_f32(call->out[1]),
                           (int64_t)min_u64((uint64_t)a.units, (uint64_t)(a.B * a.Hk - b.unit)));
}

struct cached {
    const float *qkv;
    const int32_t *start;
    float *k, *v, *y;
    int64_t B, T, H, Hk, d, capacity;
};

static __global__ void append_kernel(struct cached c)
{
    int64_t row = blockIdx.x, b = row / c.T, t = row % c.T, kv_width = c.Hk * c.d;
    const float *k = c.qkv + row * (c.H + 2 * c.Hk) * c.d + c.H * c.d;
    int64_t at = c.start[b] + t;

    if (at >= c.capacity)
        return;
    for (int64_t i = threadIdx.x; i < kv_width; i += blockDim.x) {
        c.k[(b * c.capacity + at) * kv_width + i] = k[i];
        c.v[(b * c.capacity + at) * kv_width + i] = k[kv_width + i];
    }
}

/* One block a query and head. Keys pass by in tiles of ROW_THREADS, with the running maximum
 * and sum of Milakov and Gimelshein 2018; thread i sums element i of the output. */
static __global__ void cached_kernel(struct cached c)
{
    __shared__ float weight[ROW_THREADS];
    int64_t head = blockIdx.x % c.H, row = blockIdx.x / c.H, b = row / c.T, t = row % c.T;
    int64_t kv_width = c.Hk * c.d, at = b * c.capacity * kv_width + head / (c.H / c.Hk) * c.d;
    const float *q = c.qkv + row * (c.H + 2 * c.Hk) * c.d + head * c.d;
    int64_t keys = min((int64_t)c.start[b] + t + 1, c.capacity);
    float most = -INFINITY, total = 0, sums[4] = {0, 0, 0, 0}; /* head widths up to 1024 */

    for (int64_t base = 0; base < keys; base += ROW_THREADS) {
        int64_t j = base + threadIdx.x;
        float score = -INFINITY, highest, shrink;

        if (j < keys) {
            score = 0;
            for (int64_t i = 0; i < c.d; i++)
                score += q[i] * c.k[at + j * kv_width + i];
            score *= rsqrtf((float)c.d);
        }
        highest = fmaxf(most, block_max(score));
        shrink = expf(most - highest);
        most = highest;
        weight[threadIdx.x] = j < keys ? expf(score - most) : 0;
        total = total * shrink + block_sum(weight[threadIdx.x]);
        for (int n = 0; n < 4; n++) {
            int64_t i = threadIdx.x + n * ROW_THREADS;

            if (i >= c.d)
                break;
            sums[n] *= shrink;
            for (int64_t k = 0; k < ROW_THREADS && base + k < keys; k++)
                sums[n] += weight[k] * c.v[at + (base + k) * kv_width + i];
        }
        __syncthreads();
    }
    for (int n = 0; n < 4; n++)
        if (threadIdx.x + n * ROW_THREADS < c.d)
            c.y[(row * c.H + head) * c.d + threadIdx.x + n * ROW_THREADS] = sums[n] / total;
}

void cuda_attention_cached_forward(struct device *device, const struct op_call *call)
{
    struct cached c = {tensor_f32(call->in[0]), tensor_i32(call->in[1]), tensor_f32(call->in[2]),
                       tensor_f32(call->in[3]), tensor_f32(call->out[0]), call->whole[3],
                       tensor_rows(call->in[0]) / call->whole[3], call->whole[0], call->whole[1],
                       call->whole[2], call->in[2]->dim[1]};

    CHECK(c.d <= 4 * ROW_THREADS);
    LAUNCH(device, append_kernel, c.B * c.T, 128, 0, c);
    LAUNCH(device, cached_kernel, c.B * c.T * c.H, ROW_THREADS, 0, c);
}
