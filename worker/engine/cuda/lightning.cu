/* lightning.cu - linear attention with decay, as a recurrence: time linear in length.
 *
 * Forward and each gradient are one recurrence with other operands. With a state M (a, b),
 *   M = keep M + x_t z_t',  out_t[j] = sum_i w_t[i] M[i, j]
 *   y:  x = k,  z = v,  w = q           dq: x = v, z = k, w = dy
 *   dk: x = dy, z = q,  w = v, from the end;  dv: x = q, z = dy, w = k, from the end
 * keep is the head's decay, or 0 where a document begins. A block has LANES lanes to each of
 * COLUMNS columns of the state; a lane keeps every LANES-th row of it in registers. Tokens pass
 * by in tiles, so that a tile costs two barriers. */
#include "worker/engine/cuda/cuda.h"

#define LANES 8
#define COLUMNS (ROW_THREADS / LANES)
#define TILE 16
#define STATE_ROWS_MAX 256 /* of heads of 128 with angles, which double them */

static_assert(TILE * (2 * STATE_ROWS_MAX + COLUMNS + 1) * 4 <= SHARED_BYTES, "tiles fit");
static_assert(WARP % LANES == 0, "lanes of a column are in one warp");

/* Where a head's numbers lie: row r, head h at values[r * width + from + h * columns]. */
struct heads_at {
    const float *values;
    int64_t width, from, columns;
};

struct recurrence {
    struct heads_at x, z, w;
    float *out; /* row r, head h at out[r * out_width + out_from + h * b] */
    int64_t out_width, out_from;
    const float *slope;
    const int32_t *first, *take; /* or NULL */
    float *state;                /* (B, H, a, b), continued; or NULL: from zero */
    int64_t B, H, T, a, b;
    bool reversed, fresh;
};

/* Token s of the recurrence, counted in its direction. */
static __device__ int64_t token_at(const struct recurrence *r, int64_t count, int64_t s)
{
    return r->reversed ? count - 1 - s : s;
}

/* Whether the state starts anew at token s: a document begins at t, or ended before t + 1. */
static __device__ bool starts_anew(const struct recurrence *r, int64_t row, int64_t t)
{
    int64_t edge = r->reversed ? t + 1 : t;

    return r->first && edge < r->T && r->first[row + edge] == edge;
}

static __device__ float head_value(const struct heads_at *p, int64_t row, int64_t h, int64_t i)
{
    return i < p->columns ? p->values[row * p->width + p->from + h * p->columns + i] : 0;
}

template <int ROWS> /* of a lane */
static __global__ void recurrence_kernel(struct recurrence r)
{
    __shared__ float x[TILE][ROWS * LANES], w[TILE][ROWS * LANES], z[TILE][COLUMNS], keep[TILE];
    int64_t tiles = (r.b + COLUMNS - 1) / COLUMNS, unit = blockIdx.x / tiles, h = unit % r.H;
    int64_t row = unit / r.H * r.T, count = r.take ? r.take[unit / r.H] : r.T;
    int64_t base = blockIdx.x % tiles * COLUMNS, column = threadIdx.x / LANES, j = base + column;
    int lane = threadIdx.x % LANES;
    float m[ROWS], decay = expf(-r.slope[h]);

    for (int i = 0; i < ROWS; i++) {
        int64_t at = i * LANES + lane;

        m[i] = r.state && at < r.a && j < r.b ? r.state[(unit * r.a + at) * r.b + j] : 0;
    }
    for (int64_t from = 0; from < count; from += TILE) {
        int64_t tokens = from + TILE < count ? TILE : count - from;

        __syncthreads();
        for (int64_t i = threadIdx.x; i < tokens * ROWS * LANES; i += ROW_THREADS) {
            int64_t s = i / (ROWS * LANES), c = i % (ROWS * LANES);
            int64_t t = token_at(&r, count, from + s);

            x[s][c] = head_value(&r.x, row + t, h, c);
            w[s][c] = head_value(&r.w, row + t, h, c);
        }
        for (int64_t i = threadIdx.x; i < tokens * COLUMNS; i += ROW_THREADS)
            z[i / COLUMNS][i % COLUMNS] =
                head_value(&r.z, row + token_at(&r, count, from + i / COLUMNS), h,
                           base + i % COLUMNS);
        if ((int)threadIdx.x < tokens)
            keep[threadIdx.x] =
                starts_anew(&r, row, token_at(&r, count, from + threadIdx.x)) ? 0 : decay;
        __syncthreads();
        for (int64_t s = 0; s < tokens; s++) {
            float sum = 0;

#pragma unroll
            for (int i = 0; i < ROWS; i++) {
                m[i] = keep[s] * m[i] + x[s][i * LANES + lane] * z[s][column];
                sum += w[s][i * LANES + lane] * m[i];
            }
            for (int o = LANES / 2; o > 0; o /= 2)
                sum += __shfl_xor_sync(0xffffffffu, sum, o);
            if (lane == 0 && j < r.b)
                put(r.out + (row + token_at(&r, count, from + s)) * r.out_width + r.out_from +
                        h * r.b + j, sum, r.fresh);
        }
    }
    for (int i = 0; i < ROWS; i++)
        if (r.state && i * LANES + lane < r.a && j < r.b)
            r.state[(unit * r.a + i * LANES + lane) * r.b + j] = m[i];
}

static void recur(struct device *device, struct recurrence r)
{
    int64_t blocks;

    r.a = r.x.columns;
    r.b = r.z.columns;
    blocks = r.B * r.H * ((r.b + COLUMNS - 1) / COLUMNS);
    CHECK(r.a <= STATE_ROWS_MAX && r.w.columns == r.a);
    if (r.a <= 64)
        LAUNCH(device, recurrence_kernel<64 / LANES>, blocks, ROW_THREADS, 0, r);
    else if (r.a <= 128)
        LAUNCH(device, recurrence_kernel<128 / LANES>, blocks, ROW_THREADS, 0, r);
    else
        LAUNCH(device, recurrence_kernel<STATE_ROWS_MAX / LANES>, blocks, ROW_THREADS, 0, r);
}

/* q, k and v of a packed row, and dy (or y), as heads. */
struct packed {
    struct heads_at q, k, v, y;
};

static struct packed packed_of(const struct op_call *call, const float *y)
{
    int64_t H = call->whole[0], dk = call->whole[1], e = call->whole[2];
    int64_t width = H * (2 * dk + e);
    const float *qkv = tensor_f32(call->in[0]);
    struct packed p = {{qkv, width, 0, dk}, {qkv, width, H * dk, dk}, {qkv, width, 2 * H * dk, e},
                       {y, H * e, 0, e}};

    return p;
}

static struct recurrence recurrence_of(const struct op_call *call)
{
    struct recurrence r = {};

    r.H = call->whole[0];
    r.B = call->whole[3];
    r.T = tensor_rows(call->in[0]) / r.B;
    r.slope = tensor_f32(call->in[1]);
    return r;
}

static void run_forward(struct device *device, const struct op_call *call, struct recurrence r)
{
    struct packed p = packed_of(call, NULL);

    r.x = p.k;
    r.z = p.v;
    r.w = p.q;
    r.out = tensor_f32(call->out[0]);
    r.out_width = p.y.width;
    r.fresh = true;
    recur(device, r);
}

void cuda_lightning_forward(struct device *device, const struct op_call *call)
{
    struct recurrence r = recurrence_of(call);

    r.first = call->in[2] ? tensor_i32(call->in[2]) : NULL;
    run_forward(device, call, r);
}

void cuda_lightning_step_forward(struct device *device, const struct op_call *call)
{
    struct recurrence r = recurrence_of(call);

    r.take = tensor_i32(call->in[2]);
    r.state = tensor_f32(call->in[3]);
    device->backend->zero(device, call->out[0]->values, 4 * (size_t)tensor_count(call->out[0]));
    run_forward(device, call, r);
}

void cuda_lightning_backward(struct device *device, const struct op_call *call)
{
    struct packed p = packed_of(call, call->out[0]->grad);
    struct recurrence r = recurrence_of(call);

    r.first = call->in[2] ? tensor_i32(call->in[2]) : NULL;
    r.out = device_grad(device, call->in[0], &r.fresh);
    r.out_width = p.q.width;
    r.x = p.v;
    r.z = p.k;
    r.w = p.y;
    recur(device, r);
    r.reversed = true;
    r.out_from = p.k.from;
    r.x = p.y;
    r.z = p.q;
    r.w = p.v;
    recur(device, r);
    r.out_from = p.v.from;
    r.x = p.q;
    r.z = p.y;
    r.w = p.k;
    recur(device, r);
}
