/* attention.cu - attention as batched products over a bounded set of heads: ATTENTION, and
 * ATTEND of which it is the causal case; both with a cache of keys and values.
 *
 * Units are (row, key head) pairs. Queries are treated in blocks of QUERY_ROWS, each with the keys
 * that it may see at most: causal attention makes 9/16 of all scores at 8 blocks. A chunk of units
 * has the scores of a block, (units, rows, keys), in scratch, at most SCORE_BYTES, so nothing of
 * size T^2 outlives a call; only the log-sum-exp is kept.
 * Query heads that share a key head go one after another: their gradients of keys and values
 * add up in a fixed order. */
#include "worker/engine/cuda/cuda.h"

#define SCORE_BYTES ((size_t)48 << 20) /* about the L2 cache of an H100 */
#define QUERY_ROWS 128

/* Shape, and what the pointers of a chunk are made from. */
struct attention {
    int64_t B, Tq, Tk, H, Hk, d;
    int64_t width;               /* of a row that holds queries               */
    int64_t key_width, key_from; /* of a row that holds keys; where they begin */
    int64_t units;               /* in a chunk                                */
    int64_t begin, rows, keys;   /* of the block: first query, queries, keys  */
    float scale;
    const int32_t *first, *last; /* (B, Tq), or NULL                          */
    const float *bias;           /* (Tq + Tk - 1, H), or NULL                 */
    bool causal;                 /* a query's last key is its own             */
};

struct attention_room {
    void *x, *kv, *dy;       /* bf16 copies                              */
    float *s, *dp;           /* (units, rows, keys)                      */
    void *p, *ds;            /* bf16 copies of probabilities and dS      */
    const void **pointers;   /* (POINTER_LISTS, units)                   */
};

enum list { LIST_Q, LIST_K, LIST_V, LIST_Y, LIST_DQ, LIST_DK, LIST_DV, LIST_S, LIST_DP, LIST_P,
            LIST_DS, POINTER_LISTS };

static struct tensor *keys_of(const struct op_call *call)
{
    return call->op == OP_ATTEND && call->in[1] ? call->in[1] : call->in[0];
}

static struct attention shape_of(const struct op_call *call)
{
    bool general = call->op == OP_ATTEND;
    const struct tensor *keys = keys_of(call);
    const struct tensor *first = call->in[general ? 2 : 1];
    struct attention a = {};
    size_t unit_bytes;

    a.H = call->whole[0];
    a.Hk = call->whole[1];
    a.d = call->whole[2];
    a.B = call->whole[3];
    a.Tq = call->whole[4];
    a.Tk = general ? call->whole[5] : a.Tq;
    a.width = tensor_columns(call->in[0]);
    a.key_width = tensor_columns(keys);
    a.key_from = keys == call->in[0] ? a.H * a.d : 0;
    a.scale = general ? (float)call->real[0] : 1.0f / sqrtf((float)a.d);
    a.first = first ? tensor_i32(first) : NULL;
    a.last = general && call->in[3] ? tensor_i32(call->in[3]) : NULL;
    a.bias = general && call->in[4] ? tensor_f32(call->in[4]) : NULL;
    a.causal = !general;
    a.rows = a.Tq < QUERY_ROWS ? a.Tq : QUERY_ROWS; /* at most */
    a.keys = a.Tk;
    unit_bytes = 4 * (size_t)(a.rows * a.keys);
    a.units = (int64_t)max_u64(1, min_u64(SCORE_BYTES / unit_bytes, (uint64_t)(a.B * a.Hk)));
    return a;
}

static struct attention_room room_cut(const struct device *device, const struct attention *a,
                                      struct cutter *cutter)
{
    int64_t scores = a->units * a->rows * a->keys, N = a->B * a->Tq;
    struct attention_room r;

    r.x = cut(cutter, operand_bytes(device, N * a->width));
    r.kv = cut(cutter, a->key_from ? 0 : operand_bytes(device, a->B * a->Tk * a->key_width));
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

size_t cuda_attend_scratch(const struct device *device, const struct op_call *call)
{
    return cuda_attention_scratch(device, call);
}

/* Bases of the arrays that a chunk's pointers lead into; item sizes in bytes. */
struct bases {
    const char *x, *kv, *y;    /* operands: y is dy in backward, and f32 y in forward */
    char *dx, *dkv, *s, *dp, *p, *ds;
    int operand_size, y_size;
    int64_t unit, group;       /* first unit of the chunk; query head within its group */
};

static __global__ void pointers_kernel(struct attention a, struct bases b, const void **out,
                                       int64_t count)
{
    int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x, unit = b.unit + i;
    int64_t row = unit / a.Hk * a.Tq + a.begin, kv = unit % a.Hk;
    int64_t head = kv * (a.H / a.Hk) + b.group;
    int64_t q = row * a.width + head * a.d, y = (row * a.H + head) * a.d;
    int64_t k = unit / a.Hk * a.Tk * a.key_width + a.key_from + kv * a.d, v = k + a.Hk * a.d;
    int64_t s = i * a.rows * a.keys;

    if (i >= count)
        return;
    out[LIST_Q * a.units + i] = b.x + q * b.operand_size;
    out[LIST_K * a.units + i] = b.kv + k * b.operand_size;
    out[LIST_V * a.units + i] = b.kv + v * b.operand_size;
    out[LIST_Y * a.units + i] = b.y + y * b.y_size;
    out[LIST_DQ * a.units + i] = b.dx + q * 4;
    out[LIST_DK * a.units + i] = b.dkv + k * 4;
    out[LIST_DV * a.units + i] = b.dkv + v * 4;
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

/* One row of scores: query t of unit i of the chunk, and the keys low..high that it sees. */
struct score_row {
    int64_t t, at, low, high, kept; /* kept: its place among the log-sum-exps */
    const float *bias;              /* of key 0; keys are H apart; or NULL    */
};

static __device__ struct score_row score_row_of(const struct chunk_rows *c, int64_t block)
{
    const struct attention *a = &c->a;
    int64_t unit = c->unit + block / a->rows, b = unit / a->Hk;
    int64_t head = unit % a->Hk * (a->H / a->Hk) + c->group;
    struct score_row r;

    r.t = a->begin + block % a->rows;
    r.at = block * a->keys;
    r.low = a->first ? a->first[b * a->Tq + r.t] : 0;
    r.high = a->causal ? r.t : a->last ? a->last[b * a->Tq + r.t] : a->Tk - 1;
    r.kept = (b * a->H + head) * a->Tq + r.t;
    r.bias = a->bias ? a->bias + (a->Tq - 1 - r.t) * a->H + head : NULL;
    return r;
}

static __device__ float score(const struct chunk_rows *c, const struct score_row *r,
                              const float *s, int64_t j)
{
    return c->a.scale * s[r->at + j] + (r->bias ? r->bias[j * c->a.H] : 0);
}

/* One block a row of scores: probabilities over visible keys, 0 elsewhere. p may be s: the
 * highest score and the sum are known to all before the first element is written. */
template <typename item>
static __global__ void probabilities_kernel(struct chunk_rows c, const float *s, item *p)
{
    struct score_row r = score_row_of(&c, blockIdx.x);
    float most = -INFINITY, sum = 0;

    for (int64_t j = r.low + threadIdx.x; j <= r.high; j += ROW_THREADS)
        most = fmaxf(most, score(&c, &r, s, j));
    most = block_max(most);
    for (int64_t j = r.low + threadIdx.x; j <= r.high; j += ROW_THREADS)
        sum += expf(score(&c, &r, s, j) - most);
    sum = block_sum(sum);
    for (int64_t j = threadIdx.x; j < c.a.keys; j += ROW_THREADS) {
        bool seen = j >= r.low && j <= r.high;

        p[r.at + j] = (item)(seen ? expf(score(&c, &r, s, j) - most) / sum : 0.0f);
    }
    if (threadIdx.x == 0)
        c.lse[r.kept] = most + logf(sum);
}

/* P = exp(scale S + bias - lse), dS = scale P (dP - sum P dP). Each thread reads an element of S
 * and dP before it writes it, so p may be s and ds may be dp. */
template <typename item>
static __global__ void scores_back_kernel(struct chunk_rows c, const float *s, const float *dp,
                                          item *p, item *ds)
{
    struct score_row r = score_row_of(&c, blockIdx.x);
    float lse = c.lse[r.kept], dot = 0;

    for (int64_t j = r.low + threadIdx.x; j <= r.high; j += ROW_THREADS)
        dot += expf(score(&c, &r, s, j) - lse) * dp[r.at + j];
    dot = block_sum(dot);
    for (int64_t j = threadIdx.x; j < c.a.keys; j += ROW_THREADS) {
        bool seen = j >= r.low && j <= r.high;
        float prob = seen ? expf(score(&c, &r, s, j) - lse) : 0;
        float slope = seen ? c.a.scale * prob * (dp[r.at + j] - dot) : 0;

        p[r.at + j] = (item)prob;
        ds[r.at + j] = (item)slope;
    }
}

/* One block a distance of keys from queries and key head of this group: its bias gets the sum of
 * dS / scale over the chunk's rows of the batch and along the diagonal, in a fixed order. */
template <typename item>
static __global__ void bias_back_kernel(struct chunk_rows c, int64_t count, const item *ds,
                                        float *dbias)
{
    const struct attention *a = &c.a;
    int64_t kv = blockIdx.x % a->Hk, distance = blockIdx.x / a->Hk; /* key - query + Tq - 1 */
    int64_t head = kv * (a->H / a->Hk) + c.group;
    int64_t i = (kv - c.unit % a->Hk + a->Hk) % a->Hk; /* the first unit of this key head */
    float sum = 0;

    for (; i < count; i += a->Hk)
        for (int64_t t = threadIdx.x; t < a->rows; t += ROW_THREADS) {
            int64_t j = distance + a->begin + t - (a->Tq - 1);

            if (j >= 0 && j < a->keys)
                sum += (float)ds[(i * a->rows + t) * a->keys + j];
        }
    sum = block_sum(sum);
    if (threadIdx.x == 0)
        dbias[distance * a->H + head] += sum / a->scale;
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
    struct batched p = {false, true, false, a->rows, a->keys, a->d, LIST_Q, LIST_K, LIST_S,
                        a->width, a->key_width, a->keys};

    batched_run(device, a, room->pointers, count, &p);
}

static void forward_chunk(struct device *device, const struct attention *a, struct bases *b,
                          const struct attention_room *room, float *lse, int64_t count)
{
    struct batched y = {false, false, false, a->rows, a->d, a->keys, LIST_P, LIST_V, LIST_Y,
                        a->keys, a->key_width, a->H * a->d};
    struct chunk_rows c = {*a, b->unit, b->group, lse};

    set_pointers(device, a, b, room, count);
    scores(device, a, room, count);
    if (device->config.bf16)
        LAUNCH(device, probabilities_kernel<__nv_bfloat16>, count * a->rows, ROW_THREADS, 0, c,
               room->s, (__nv_bfloat16 *)room->p);
    else
        LAUNCH(device, probabilities_kernel<float>, count * a->rows, ROW_THREADS, 0, c, room->s,
               (float *)room->p);
    batched_run(device, a, room->pointers, count, &y);
}

/* The operands of queries and of keys, which lie in one array or in two. */
static struct bases bases_of(struct device *device, const struct op_call *call,
                             const struct attention_room *room, const void *y, int y_size)
{
    struct tensor *x = call->in[0], *keys = keys_of(call);
    struct bases b = {};

    b.x = (const char *)operand(device, tensor_f32(x), room->x, tensor_count(x));
    b.kv = b.x;
    if (keys != x)
        b.kv = (const char *)operand(device, tensor_f32(keys), room->kv, tensor_count(keys));
    b.y = (const char *)y;
    b.s = (char *)room->s;
    b.dp = (char *)room->dp;
    b.p = (char *)room->p;
    b.ds = (char *)room->ds;
    b.operand_size = device->config.bf16 ? 2 : 4;
    b.y_size = y_size;
    return b;
}

/* The block of queries from `begin` on; keys behind its last query are not seen where causal. */
static void set_block(struct attention *a, int64_t begin)
{
    a->begin = begin;
    a->rows = a->Tq - begin < QUERY_ROWS ? a->Tq - begin : QUERY_ROWS;
    a->keys = a->causal ? begin + a->rows : a->Tk;
}

/* All chunks of all blocks, for each query head of the groups, in this order. */
static bool first_chunk(struct attention *a, struct bases *b)
{
    b->group = b->unit = 0;
    set_block(a, 0);
    return true;
}

static bool next_chunk(struct attention *a, struct bases *b)
{
    b->unit += a->units;
    if (b->unit < a->B * a->Hk)
        return true;
    b->unit = 0;
    if (a->begin + a->rows < a->Tq) {
        set_block(a, a->begin + a->rows);
        return true;
    }
    set_block(a, 0);
    return ++b->group < a->H / a->Hk;
}

static int64_t units_of(const struct attention *a, const struct bases *b)
{
    int64_t left = a->B * a->Hk - b->unit;

    return left < a->units ? left : a->units;
}

void cuda_attention_forward(struct device *device, const struct op_call *call)
{
    struct attention a = shape_of(call);
    struct cutter cutter = {(char *)device->scratch, 0};
    struct attention_room room = room_cut(device, &a, &cutter);
    struct bases b = bases_of(device, call, &room, call->out[0]->values, 4);

    for (bool more = first_chunk(&a, &b); more; more = next_chunk(&a, &b))
        forward_chunk(device, &a, &b, &room, tensor_f32(call->out[1]), units_of(&a, &b));
}

void cuda_attend_forward(struct device *device, const struct op_call *call)
{
    cuda_attention_forward(device, call);
}

/* dS and P from the chunk's scores and dP; then what the biases get. */
template <typename item>
static void rows_back(struct device *device, const struct chunk_rows *c,
                      const struct attention_room *room, float *dbias, int64_t count)
{
    const struct attention *a = &c->a;

    LAUNCH(device, scores_back_kernel<item>, count * a->rows, ROW_THREADS, 0, *c, room->s, room->dp,
           (item *)room->p, (item *)room->ds);
    if (dbias)
        LAUNCH(device, bias_back_kernel<item>, (a->Tq + a->Tk - 1) * a->Hk, ROW_THREADS, 0, *c,
               count, (const item *)room->ds, dbias);
}

/* Gradients of keys and queries of one array are in one array too. */
struct gradients {
    float *lse, *dbias;
    bool queries, keys; /* which are wanted */
};

static void backward_chunk(struct device *device, const struct attention *a, struct bases *b,
                           const struct attention_room *room, const struct gradients *g,
                           int64_t count)
{
    struct batched dp = {false, true, false, a->rows, a->keys, a->d, LIST_Y, LIST_V, LIST_DP,
                         a->H * a->d, a->key_width, a->keys};
    struct batched dq = {false, false, true, a->rows, a->d, a->keys, LIST_DS, LIST_K, LIST_DQ,
                         a->keys, a->key_width, a->width};
    struct batched dk = {true, false, true, a->keys, a->d, a->rows, LIST_DS, LIST_Q, LIST_DK,
                         a->keys, a->width, a->key_width};
    struct batched dv = {true, false, true, a->keys, a->d, a->rows, LIST_P, LIST_Y, LIST_DV,
                         a->keys, a->H * a->d, a->key_width};
    struct chunk_rows c = {*a, b->unit, b->group, g->lse};

    set_pointers(device, a, b, room, count);
    scores(device, a, room, count);
    batched_run(device, a, room->pointers, count, &dp);
    if (device->config.bf16)
        rows_back<__nv_bfloat16>(device, &c, room, g->dbias, count);
    else
        rows_back<float>(device, &c, room, g->dbias, count);
    if (g->queries)
        batched_run(device, a, room->pointers, count, &dq);
    if (!g->keys)
        return;
    batched_run(device, a, room->pointers, count, &dk);
    batched_run(device, a, room->pointers, count, &dv);
}

void cuda_attention_backward(struct device *device, const struct op_call *call)
{
    struct attention a = shape_of(call);
    struct tensor *x = call->in[0], *keys = keys_of(call);
    struct tensor *bias = call->op == OP_ATTEND ? call->in[4] : NULL;
    struct cutter cutter = {(char *)device->scratch, 0};
    struct attention_room room = room_cut(device, &a, &cutter);
    const void *dy = operand(device, call->out[0]->grad, room.dy, tensor_count(call->out[0]));
    struct bases b = bases_of(device, call, &room, dy, device->config.bf16 ? 2 : 4);
    struct gradients g = {tensor_f32(call->out[1]), NULL, x->grad != NULL, keys->grad != NULL};

    if (g.queries)
        b.dx = (char *)device_grad(device, x, NULL);
    if (g.keys)
        b.dkv = (char *)device_grad(device, keys, NULL);
    if (bias && bias->grad)
        g.dbias = device_grad(device, bias, NULL);
    for (bool more = first_chunk(&a, &b); more; more = next_chunk(&a, &b))
        backward_chunk(device, &a, &b, &room, &g, units_of(&a, &b));
}

void cuda_attend_backward(struct device *device, const struct op_call *call)
{
    cuda_attention_backward(device, call);
}

struct cached {
    const float *qkv;
    const int32_t *start;
    float *k, *v, *y;
    const float *bias; /* (biases, H) by distance, or NULL */
    int64_t B, T, H, Hk, d, capacity, window, biases;
    float scale;
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
    int64_t last = c.start[b] + t < c.capacity ? c.start[b] + t : c.capacity - 1;
    int64_t low = c.window > 0 && last >= c.window ? last + 1 - c.window : 0, keys = last + 1;
    float most = -INFINITY, total = 0, sums[4] = {0, 0, 0, 0}; /* head widths up to 1024 */

    for (int64_t base = low; base < keys; base += ROW_THREADS) {
        int64_t j = base + threadIdx.x;
        float score = -INFINITY, highest, shrink;

        if (j < keys) {
            score = 0;
            for (int64_t i = 0; i < c.d; i++)
                score += q[i] * c.k[at + j * kv_width + i];
            score *= c.scale;
            if (c.bias)
                score += c.bias[(last - j < c.biases ? last - j : c.biases - 1) * c.H + head];
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

static void cached_run(struct device *device, const struct op_call *call, struct cached c)
{
    c.qkv = tensor_f32(call->in[0]);
    c.start = tensor_i32(call->in[1]);
    c.k = tensor_f32(call->in[2]);
    c.v = tensor_f32(call->in[3]);
    c.y = tensor_f32(call->out[0]);
    c.H = call->whole[0];
    c.Hk = call->whole[1];
    c.d = call->whole[2];
    c.B = call->whole[3];
    c.T = tensor_rows(call->in[0]) / c.B;
    c.capacity = call->in[2]->dim[1];
    CHECK(c.d <= 4 * ROW_THREADS);
    LAUNCH(device, append_kernel, c.B * c.T, 128, 0, c);
    LAUNCH(device, cached_kernel, c.B * c.T * c.H, ROW_THREADS, 0, c);
}

void cuda_attention_cached_forward(struct device *device, const struct op_call *call)
{
    struct cached c = {};

    c.scale = 1.0f / sqrtf((float)call->whole[2]);
    cached_run(device, call, c);
}

void cuda_attend_cached_forward(struct device *device, const struct op_call *call)
{
    struct cached c = {};

    c.window = call->whole[4];
    c.scale = (float)call->real[0];
    c.bias = call->in[4] ? tensor_f32(call->in[4]) : NULL;
    c.biases = call->in[4] ? call->in[4]->dim[0] : 0;
    cached_run(device, call, c);
}
