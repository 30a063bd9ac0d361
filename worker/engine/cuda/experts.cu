/* experts.cu - routing tokens to experts and back; products of each expert's rows.
 *
 * How many rows an expert gets is known on the device only, so cuBLAS, which wants shapes on the
 * host, would cost a wait in each layer: the products are tiles of our own, in f32. */
#include "worker/engine/cuda/cuda.h"

struct routing {
    int64_t N, E, k, mode, capacity, drop;
    const float *logits;
    float *gate, *stats, *loads; /* loads: f, then the means of probabilities */
    int32_t *expert, *slot, *starts;
    float *lse;           /* scratch: (N)                              */
    int32_t *want, *keep; /* scratch: (E) assignments; (N k) who stays */
};

static struct routing routing_of(const struct op_call *call, char *scratch, size_t *used)
{
    struct cutter cutter = {scratch, 0};
    struct routing r = {};

    r.N = tensor_rows(call->in[0]);
    r.E = tensor_columns(call->in[0]);
    r.k = call->whole[0];
    r.mode = call->whole[1];
    r.capacity = call->whole[2];
    r.drop = call->whole[3];
    r.logits = tensor_f32(call->in[0]);
    r.gate = tensor_f32(call->out[0]);
    r.expert = tensor_i32(call->out[1]);
    r.slot = tensor_i32(call->out[2]);
    r.starts = tensor_i32(call->out[3]);
    r.stats = tensor_f32(call->out[4]);
    r.loads = tensor_f32(call->out[5]);
    r.lse = (float *)cut(&cutter, 4 * (size_t)r.N);
    r.want = (int32_t *)cut(&cutter, 4 * (size_t)r.E);
    r.keep = (int32_t *)cut(&cutter, 4 * (size_t)(r.N * r.k));
    *used = cutter.used;
    return r;
}

size_t cuda_route_scratch(const struct device *device, const struct op_call *call)
{
    size_t used;

    (void)device;
    (void)routing_of(call, NULL, &used);
    return used;
}

static __device__ float log_sum(const float *x, int64_t count)
{
    float highest = x[0], sum = 0;

    for (int64_t i = 1; i < count; i++)
        highest = fmaxf(highest, x[i]);
    for (int64_t i = 0; i < count; i++)
        sum += expf(x[i] - highest);
    return highest + logf(sum);
}

/* One thread a token: insertion into the short list of the highest, the lower of equal ones. */
static __global__ void choose_kernel(struct routing r)
{
    FOR_EACH(n, r.N) {
        const float *x = r.logits + n * r.E;
        int32_t *expert = r.expert + n * r.k;
        float chosen[ROUTE_CHOICES_MAX], base;
        int64_t have = 0;

        for (int32_t i = 0; i < r.E; i++) {
            int64_t at = have;

            while (at > 0 && x[i] > chosen[at - 1])
                at--;
            if (at == r.k)
                continue;
            have += have < r.k;
            for (int64_t m = have - 1; m > at; m--) {
                chosen[m] = chosen[m - 1];
                expert[m] = expert[m - 1];
            }
            chosen[at] = x[i];
            expert[at] = i;
        }
        r.lse[n] = log_sum(x, r.E);
        base = r.mode == ROUTE_AFTER ? log_sum(chosen, r.k) : r.lse[n];
        for (int64_t j = 0; j < r.k; j++)
            r.gate[n * r.k + j] = expf(chosen[j] - base);
    }
}

/* One block an expert. Counts are sums of whole numbers below 2^24, exact in f32. */
static __global__ void loads_kernel(struct routing r)
{
    int64_t e = blockIdx.x, all = r.N * r.k;
    float count = 0, mean = 0;

    for (int64_t a = threadIdx.x; a < all; a += ROW_THREADS)
        count += r.expert[a] == e ? 1 : 0;
    for (int64_t n = threadIdx.x; n < r.N; n += ROW_THREADS)
        mean += expf(r.logits[n * r.E + e] - r.lse[n]);
    count = block_sum(count);
    mean = block_sum(mean);
    if (threadIdx.x == 0) {
        r.want[e] = (int32_t)count;
        r.loads[e] = count / (float)all;
        r.loads[r.E + e] = mean / (float)r.N;
    }
}

static __device__ int64_t rows_of(const struct routing *r, int64_t e)
{
    return r->capacity > 0 && r->want[e] > r->capacity ? r->capacity : r->want[e];
}

/* One block: the terms of the loss. */
static __global__ void stats_kernel(struct routing r)
{
    float z = 0;

    for (int64_t n = threadIdx.x; n < r.N; n += ROW_THREADS)
        z += r.lse[n] * r.lse[n];
    z = block_sum(z);
    if (threadIdx.x == 0) {
        float aux = 0, highest = 0, lowest = (float)r.E;
        int64_t rows = 0;

        for (int64_t e = 0; e < r.E; e++) {
            aux += (float)r.E * r.loads[e] * r.loads[r.E + e];
            highest = fmaxf(highest, r.loads[e] * (float)r.E);
            lowest = fminf(lowest, r.loads[e] * (float)r.E);
            rows += rows_of(&r, e);
        }
        r.stats[ROUTE_STAT_BALANCE] = aux;
        r.stats[ROUTE_STAT_Z] = z / (float)r.N;
        r.stats[ROUTE_STAT_HIGHEST_LOAD] = highest;
        r.stats[ROUTE_STAT_LOWEST_LOAD] = lowest;
        r.stats[ROUTE_STAT_DROPPED] = (float)(r.N * r.k - rows) / (float)(r.N * r.k);
    }
}

/* One thread an assignment: it stays if fewer than `capacity` of its expert go before it. */
static __global__ void keep_kernel(struct routing r)
{
    int64_t all = r.N * r.k;

    FOR_EACH(a, all) {
        int32_t e = r.expert[a];
        float gate = r.gate[a];
        int64_t before = 0;

        r.keep[a] = 1;
        if (r.capacity <= 0 || r.want[e] <= r.capacity)
            continue;
        for (int64_t b = 0; b < all; b++) {
            bool earlier = b < a;

            if (r.drop == ROUTE_DROP_WEAK && r.gate[b] != gate)
                earlier = r.gate[b] > gate;
            before += r.expert[b] == e && earlier;
        }
        r.keep[a] = before < r.capacity;
    }
}

/* One block an expert: its rows follow those of the experts before it, in order of tokens. */
static __global__ void place_kernel(struct routing r)
{
    __shared__ int warp_count[ROW_THREADS / WARP];
    int64_t e = blockIdx.x, all = r.N * r.k, next = 0;
    unsigned lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;

    for (int64_t before = 0; before < e; before++)
        next += rows_of(&r, before);
    if (threadIdx.x == 0) {
        r.starts[e] = (int32_t)next;
        if (e == r.E - 1)
            r.starts[r.E] = (int32_t)(next + rows_of(&r, e));
    }
    for (int64_t base = 0; base < all; base += ROW_THREADS) {
        int64_t a = base + threadIdx.x, at = next;
        bool mine = a < all && r.expert[a] == e, stays = mine && r.keep[a];
        unsigned staying = __ballot_sync(0xffffffffu, stays);

        if (lane == 0)
            warp_count[warp] = __popc(staying);
        __syncthreads();
        for (unsigned w = 0; w < ROW_THREADS / WARP; w++) {
            at += w < warp ? warp_count[w] : 0;
            next += warp_count[w];
        }
        if (mine)
            r.slot[a] = stays ? (int32_t)(at + __popc(staying & ((1u << lane) - 1))) : -1;
        __syncthreads();
    }
}

void cuda_route_forward(struct device *device, const struct op_call *call)
{
    size_t used;
    struct routing r = routing_of(call, (char *)device->scratch, &used);

    CHECK(r.k <= ROUTE_CHOICES_MAX && r.N * r.k < 1 << 24);
    LAUNCH(device, choose_kernel, grid_of(r.N), THREADS, 0, r);
    LAUNCH(device, loads_kernel, r.E, ROW_THREADS, 0, r);
    LAUNCH(device, stats_kernel, 1, ROW_THREADS, 0, r);
    LAUNCH(device, keep_kernel, grid_of(r.N * r.k), THREADS, 0, r);
    LAUNCH(device, place_kernel, r.E, ROW_THREADS, 0, r);
}

/* One thread a token; the equations are at gate_gradient in reference/experts.c. */
static __global__ void route_back_kernel(struct routing r, const float *gammas, float *dx_all,
                                         float balance, float z)
{
    FOR_EACH(n, r.N) {
        const float *x = r.logits + n * r.E, *gamma = gammas + n * r.k, *gate = r.gate + n * r.k;
        float *dx = dx_all + n * r.E;
        float lse = log_sum(x, r.E), mean = 0, dot = 0;

        for (int64_t j = 0; j < r.k; j++)
            dot += gate[j] * gamma[j];
        for (int64_t i = 0; i < r.E; i++)
            mean += expf(x[i] - lse) * r.loads[i];
        for (int64_t i = 0; i < r.E; i++) {
            float p = expf(x[i] - lse);

            dx[i] += balance * p * (r.loads[i] - mean) + z * lse * p -
                     (r.mode == ROUTE_AFTER ? 0 : p * dot);
        }
        for (int64_t j = 0; j < r.k; j++)
            dx[r.expert[n * r.k + j]] +=
                gate[j] * (gamma[j] - (r.mode == ROUTE_AFTER ? dot : 0));
    }
}

void cuda_route_backward(struct device *device, const struct op_call *call)
{
    size_t used;
    struct routing r = routing_of(call, (char *)device->scratch, &used);

    LAUNCH(device, route_back_kernel, grid_of(r.N), THREADS, 0, r, call->out[0]->grad,
           device_grad(device, call->in[0], NULL),
           (float)(call->real[0] * (double)r.E / (double)r.N),
           (float)(2 * call->real[1] / (double)r.N));
}

static __global__ void dispatch_kernel(const float *x, const int32_t *slot, float *y, int64_t k,
                                       int64_t D, int64_t count)
{
    FOR_EACH(i, count) {
        int64_t a = i / D, c = i % D;

        if (slot[a] >= 0)
            y[slot[a] * D + c] = x[a / k * D + c];
    }
}

void cuda_dispatch_forward(struct device *device, const struct op_call *call)
{
    int64_t D = tensor_columns(call->in[0]), count = tensor_count(call->in[1]) * D;

    device->backend->zero(device, call->out[0]->values, 4 * (size_t)tensor_count(call->out[0]));
    LAUNCH(device, dispatch_kernel, grid_of(count), THREADS, 0, tensor_f32(call->in[0]),
           tensor_i32(call->in[1]), tensor_f32(call->out[0]), call->whole[0], D, count);
}

/* to[n] (+)= sum over the token's choices of gate * from[slot]; gate NULL: 1. */
static __global__ void collect_kernel(const float *from, const int32_t *slot, const float *gate,
                                      float *to, bool fresh, int64_t k, int64_t D, int64_t count)
{
    FOR_EACH(i, count) {
        int64_t n = i / D, c = i % D;
        float sum = 0;

        for (int64_t a = n * k; a < (n + 1) * k; a++)
            if (slot[a] >= 0)
                sum += (gate ? gate[a] : 1) * from[slot[a] * D + c];
        put(to + i, sum, fresh);
    }
}

void cuda_dispatch_backward(struct device *device, const struct op_call *call)
{
    int64_t count = tensor_count(call->in[0]);
    bool fresh;
    float *dx = device_grad(device, call->in[0], &fresh);

    LAUNCH(device, collect_kernel, grid_of(count), THREADS, 0, call->out[0]->grad,
           tensor_i32(call->in[1]), (const float *)NULL, dx, fresh, call->whole[0],
           tensor_columns(call->in[0]), count);
}

void cuda_combine_forward(struct device *device, const struct op_call *call)
{
    int64_t count = tensor_count(call->out[0]);

    LAUNCH(device, collect_kernel, grid_of(count), THREADS, 0, tensor_f32(call->in[0]),
           tensor_i32(call->in[1]), tensor_f32(call->in[2]), tensor_f32(call->out[0]), true,
           call->whole[0], tensor_columns(call->in[0]), count);
}

/* A row of y has one assignment at most, so one writer. */
static __global__ void spread_kernel(const float *d, const int32_t *slot, const float *gate,
                                     float *dy, int64_t k, int64_t D, int64_t count)
{
    FOR_EACH(i, count) {
        int64_t a = i / D, c = i % D;

        if (slot[a] >= 0)
            dy[slot[a] * D + c] += gate[a] * d[a / k * D + c];
    }
}

/* One block an assignment. */
static __global__ void gate_back_kernel(const float *d, const int32_t *slot, const float *y,
                                        float *dgate, int64_t k, int64_t D)
{
    int64_t a = blockIdx.x;
    float sum = 0;

    if (slot[a] < 0)
        return;
    for (int64_t c = threadIdx.x; c < D; c += ROW_THREADS)
        sum += d[a / k * D + c] * y[slot[a] * D + c];
    sum = block_sum(sum);
    if (threadIdx.x == 0)
        dgate[a] += sum;
}

void cuda_combine_backward(struct device *device, const struct op_call *call)
{
    int64_t D = tensor_columns(call->in[0]), all = tensor_count(call->in[1]), k = call->whole[0];

    if (call->in[0]->grad)
        LAUNCH(device, spread_kernel, grid_of(all * D), THREADS, 0, call->out[0]->grad,
               tensor_i32(call->in[1]), tensor_f32(call->in[2]),
               device_grad(device, call->in[0], NULL), k, D, all * D);
    if (call->in[2]->grad)
        LAUNCH(device, gate_back_kernel, all, ROW_THREADS, 0, call->out[0]->grad,
               tensor_i32(call->in[1]), tensor_f32(call->in[0]),
               device_grad(device, call->in[2], NULL), k, D);
}

/* Tiles of EDGE by EDGE, DEPTH terms at a time; a thread has 4 by 4 of them. */
#define EDGE 64
#define DEPTH 16
#define EACH 4

static_assert(EDGE / EACH * (EDGE / EACH) == ROW_THREADS, "a thread for each part of a tile");
static_assert(2 * DEPTH * EDGE * 4 <= SHARED_BYTES, "two tiles fit into shared memory");

/* An operand's element (row, term) of a product that starts at values. */
struct side {
    const float *values;
    int64_t row_step, term_step, rows; /* rows of this tile, then zeros */
};

/* c (+)= sum over terms of a[row, term] b[column, term], c_step apart, terms in order. */
static __device__ void tile_product(const struct side *a, const struct side *b, int64_t terms,
                                    float *c, int64_t c_step, bool adds)
{
    __shared__ float left[DEPTH][EDGE], right[DEPTH][EDGE];
    int row = threadIdx.x / (EDGE / EACH) * EACH, column = threadIdx.x % (EDGE / EACH) * EACH;
    float sum[EACH][EACH] = {};

    for (int64_t from = 0; from < terms; from += DEPTH) {
        __syncthreads();
        for (int i = threadIdx.x; i < DEPTH * EDGE; i += ROW_THREADS) {
            int64_t r = i % EDGE, s = i / EDGE, term = from + s;

            left[s][r] = term < terms && r < a->rows
                             ? a->values[r * a->row_step + term * a->term_step] : 0;
            right[s][r] = term < terms && r < b->rows
                              ? b->values[r * b->row_step + term * b->term_step] : 0;
        }
        __syncthreads();
        for (int s = 0; s < DEPTH; s++)
            for (int i = 0; i < EACH; i++)
                for (int j = 0; j < EACH; j++)
                    sum[i][j] += left[s][row + i] * right[s][column + j];
    }
    for (int i = 0; i < EACH; i++)
        for (int j = 0; j < EACH; j++)
            if (row + i < a->rows && column + j < b->rows)
                put(c + (row + i) * c_step + column + j, sum[i][j], !adds);
}

/* out[r, n] (+)= sum over c of x[r, c] w[expert of r][n, c], for the rows that experts have. */
struct grouped {
    const float *x, *w;
    float *out;
    const int32_t *starts;
    int64_t E, inner, columns, w_size, w_row_step, w_term_step;
    bool adds;
};

/* Block b treats tile b / column tiles of the row tiles counted expert by expert. */
static __global__ void grouped_kernel(struct grouped g)
{
    int64_t across = (g.columns + EDGE - 1) / EDGE, tile = blockIdx.x / across, e, from = 0;
    int64_t column = blockIdx.x % across * EDGE;
    struct side a, b;

    for (e = 0; e < g.E; e++) {
        int64_t tiles = (g.starts[e + 1] - g.starts[e] + EDGE - 1) / EDGE;

        if (tile < tiles)
            break;
        tile -= tiles;
    }
    if (e == g.E)
        return;
    from = g.starts[e] + tile * EDGE;
    a.values = g.x + from * g.inner;
    a.row_step = g.inner;
    a.term_step = 1;
    a.rows = min((int64_t)EDGE, (int64_t)g.starts[e + 1] - from);
    b.values = g.w + e * g.w_size + column * g.w_row_step;
    b.row_step = g.w_row_step;
    b.term_step = g.w_term_step;
    b.rows = min((int64_t)EDGE, g.columns - column);
    tile_product(&a, &b, g.inner, g.out + from * g.columns + column, g.columns, g.adds);
}

/* Row tiles: one an expert that is not full, besides the full ones. */
static void grouped_run(struct device *device, const struct grouped *g, int64_t rows)
{
    int64_t down = rows / EDGE + g->E, across = (g->columns + EDGE - 1) / EDGE;

    LAUNCH(device, grouped_kernel, down * across, ROW_THREADS, 0, *g);
}

/* dw[e][m, c] += sum over the expert's rows of dy[r, m] x[r, c]. */
struct weights_back {
    const float *x, *dy;
    float *dw;
    const int32_t *starts;
    int64_t K, M;
};

static __global__ void weights_back_kernel(struct weights_back g)
{
    int64_t across = (g.K + EDGE - 1) / EDGE, down = (g.M + EDGE - 1) / EDGE;
    int64_t e = blockIdx.x / (across * down), m = blockIdx.x / across % down * EDGE;
    int64_t c = blockIdx.x % across * EDGE, from = g.starts[e];
    struct side a = {g.dy + from * g.M + m, 1, g.M, min((int64_t)EDGE, g.M - m)};
    struct side b = {g.x + from * g.K + c, 1, g.K, min((int64_t)EDGE, g.K - c)};

    tile_product(&a, &b, g.starts[e + 1] - from, g.dw + (e * g.M + m) * g.K + c, g.K, true);
}

void cuda_experts_forward(struct device *device, const struct op_call *call)
{
    int64_t K = tensor_columns(call->in[0]), M = tensor_columns(call->out[0]);
    struct grouped g = {tensor_f32(call->in[0]), tensor_f32(call->in[1]),
                        tensor_f32(call->out[0]), tensor_i32(call->in[2]), call->whole[0], K, M,
                        M * K, K, 1, false};

    /* Rows after the last expert's are nobody's. */
    device->backend->zero(device, call->out[0]->values, 4 * (size_t)tensor_count(call->out[0]));
    grouped_run(device, &g, tensor_rows(call->in[0]));
}

void cuda_experts_backward(struct device *device, const struct op_call *call)
{
    int64_t K = tensor_columns(call->in[0]), M = tensor_columns(call->out[0]);
    struct grouped g = {call->out[0]->grad, tensor_f32(call->in[1]), NULL,
                        tensor_i32(call->in[2]), call->whole[0], M, K, M * K, 1, K, true};
    struct weights_back b = {tensor_f32(call->in[0]), call->out[0]->grad, NULL,
                             tensor_i32(call->in[2]), K, M};

    if (call->in[0]->grad) {
        g.out = device_grad(device, call->in[0], NULL);
        grouped_run(device, &g, tensor_rows(call->in[0]));
    }
    if (call->in[1]->grad) {
        b.dw = device_grad(device, call->in[1], NULL);
        LAUNCH(device, weights_back_kernel,
               call->whole[0] * ((M + EDGE - 1) / EDGE) * ((K + EDGE - 1) / EDGE), ROW_THREADS, 0,
               b);
    }
}
