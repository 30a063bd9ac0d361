/* head.cu - losses at the vocabulary head, in chunks of rows, as in cpu/kernels/head.c. */
#include "worker/engine/cuda/cuda.h"

#define LOGIT_BYTES ((size_t)512 << 20) /* of one chunk's f32 logits */
#define LOWEST (-1e30f)

struct head {
    int64_t N, D, V, teacher_D, chunk;
    const float *w, *teacher_w;
    int64_t stride; /* V rounded up: tensor cores want aligned rows */
    const int32_t *target;
    const float *ce_weight, *kd_weight;
    float *nll, *kd;
    int32_t *argmax;
    int divergence;
    bool wants_gradient;
    float temperature, beta;
};

struct head_room {
    void *hidden, *w, *teacher_hidden, *teacher_w; /* bf16 copies            */
    float *z, *zt;                                 /* (chunk, stride)        */
    void *dz;                                      /* bf16 gradient, or z    */
};

static struct head head_of(const struct op_call *call)
{
    struct head h = {};

    h.N = tensor_rows(call->in[0]);
    h.D = tensor_columns(call->in[0]);
    h.V = tensor_rows(call->in[1]);
    h.teacher_D = call->in[4] ? tensor_columns(call->in[4]) : 0;
    h.w = tensor_f32(call->in[1]);
    h.teacher_w = call->in[5] ? tensor_f32(call->in[5]) : NULL;
    h.stride = (h.V + ROUNDED_ROWS - 1) / ROUNDED_ROWS * ROUNDED_ROWS;
    h.chunk = (int64_t)max_u64(1, min_u64(LOGIT_BYTES / (4 * (size_t)h.stride), (uint64_t)h.N));
    h.target = tensor_i32(call->in[2]);
    h.ce_weight = call->in[3] ? tensor_f32(call->in[3]) : NULL;
    h.kd_weight = call->in[6] ? tensor_f32(call->in[6]) : NULL;
    h.divergence = (int)call->whole[0];
    h.wants_gradient = call->whole[1] != 0;
    h.temperature = (float)call->real[0];
    h.beta = (float)call->real[1];
    h.nll = tensor_f32(call->out[0]);
    h.kd = tensor_f32(call->out[1]);
    h.argmax = tensor_i32(call->out[2]);
    return h;
}

static struct head_room room_cut(const struct device *device, const struct head *h,
                                 struct cutter *cutter)
{
    struct head_room r;
    size_t logits = 4 * (size_t)(h->chunk * h->stride);

    r.hidden = cut(cutter, operand_bytes(device, h->N * h->D));
    r.w = cut(cutter, weight_operand_bytes(device, h->w, h->stride * h->D));
    r.teacher_hidden = cut(cutter, operand_bytes(device, h->N * h->teacher_D));
    r.teacher_w = cut(cutter, weight_operand_bytes(device, h->teacher_w,
                                                   h->stride * h->teacher_D));
    r.z = (float *)cut(cutter, logits);
    r.zt = (float *)cut(cutter, h->teacher_D ? logits : 0);
    r.dz = cut(cutter, operand_bytes(device, h->chunk * h->stride));
    if (!device->config.bf16)
        r.dz = r.z;
    return r;
}

size_t cuda_head_scratch(const struct device *device, const struct op_call *call)
{
    struct head h = head_of(call);
    struct cutter cutter = {NULL, 0};

    room_cut(device, &h, &cutter);
    return cutter.used;
}

static __device__ float row_highest(const float *z, int64_t V)
{
    float most = LOWEST;

    for (int64_t i = threadIdx.x; i < V; i += ROW_THREADS)
        most = fmaxf(most, z[i]);
    return block_max(most);
}

/* V / 256 terms per thread, then a tree: short sums, so f32 keeps its digits. */
static __device__ float row_lse(const float *z, int64_t V, float highest, float scale)
{
    float sum = 0;

    for (int64_t i = threadIdx.x; i < V; i += ROW_THREADS)
        sum += expf((z[i] - highest) * scale);
    return highest * scale + logf(block_sum(sum));
}

static __device__ int32_t row_argmax(const float *z, int64_t V, float highest)
{
    float first = (float)V; /* ids below 2^24 are exact in f32; vocabularies are checked */

    for (int64_t i = threadIdx.x; i < V; i += ROW_THREADS)
        if (z[i] == highest)
            first = fminf(first, (float)i);
    return (int32_t)-block_max(-first);
}

/* u / q of skewed reverse KL, up to a constant that cancels in the gradient: log(1 - r) + r with
 * r = b p / m. Small r: the series, as the two would leave few digits of each other. */
static __device__ float skew_reverse_slope(float b, float r, float q_m)
{
    float sum = 0;

    if (r >= 0.25f)
        return q_m + logf(1 - b) + r;
    for (int power = 12; power >= 2; power--) /* 0.25^13 / 13 is below a digit of the first */
        sum = sum * r - 1.0f / power;
    return sum * r * r;
}

/* l and u of an entry, as in reference/head.c, from log-probabilities. */
static __device__ float2 entry(int kind, float b, float lq, float lp)
{
    bool real = lp > LOWEST / 2;
    float q = expf(lq), p = expf(lp), ratio = real ? lq - lp : 0, m, log_m, q_m, p_m;

    if (kind == DIVERGENCE_FORWARD_KL)
        return make_float2(-p * ratio, -p);
    if (kind == DIVERGENCE_REVERSE_KL)
        return make_float2(q * ratio, q * ratio);
    if (kind == DIVERGENCE_TOTAL_VARIATION) {
        m = q > p ? 0.5f : q < p ? -0.5f : 0;
        return make_float2(m * (q - p), m * q);
    }
    m = b * p + (1 - b) * q;
    log_m = logf(fmaxf(m, 1.17549435e-38f));
    q_m = q > 0 ? lq - log_m : 0;
    p_m = p > 0 ? lp - log_m : 0;
    if (kind == DIVERGENCE_JSD)
        return make_float2(b * p * p_m + (1 - b) * q * q_m, (1 - b) * q * q_m);
    m = m > 0 ? m : 1;
    if (kind == DIVERGENCE_SKEW_FORWARD)
        return make_float2(p * p_m, -(1 - b) * q * p / m);
    return make_float2(q * q_m, q * skew_reverse_slope(b, b * p / m, q_m));
}

/* One block a row. zt NULL: cross-entropy only. dz may be z itself: every element is read by
 * the thread that writes it, after the last pass that other threads take part in. */
template <typename item>
static __global__ void row_kernel(struct head h, int64_t from, const float *z_all, float *zt_all,
                                  item *dz_all)
{
    int64_t n = from + blockIdx.x;
    const float *z = z_all + blockIdx.x * h.stride;
    float *zt = zt_all ? zt_all + blockIdx.x * h.stride : NULL;
    item *dz = dz_all + blockIdx.x * h.stride;
    int32_t target = h.target[n];
    float ce = h.ce_weight && target >= 0 ? h.ce_weight[n] : 0, target_logit;
    float highest = row_highest(z, h.V), lse = row_lse(z, h.V, highest, 1);
    float scale = 1 / h.temperature, lse_tau = 0, u_sum = 0, l_sum = 0, factor = 0;
    int32_t best = row_argmax(z, h.V, highest);

    target_logit = target >= 0 ? z[target] : 0;
    __syncthreads();
    if (zt) {
        float high = row_highest(zt, h.V), lse_teacher = row_lse(zt, h.V, high, scale);

        lse_tau = h.temperature == 1 ? lse : row_lse(z, h.V, highest, scale);
        for (int64_t i = threadIdx.x; i < h.V; i += ROW_THREADS) {
            float2 e = entry(h.divergence, h.beta, z[i] * scale - lse_tau,
                             fmaxf(zt[i] * scale - lse_teacher, LOWEST));

            l_sum += e.x;
            u_sum += e.y;
            zt[i] = e.y;
        }
        l_sum = block_sum(l_sum);
        u_sum = block_sum(u_sum);
        factor = h.wants_gradient ? h.kd_weight[n] * h.temperature : 0;
    }
    if (threadIdx.x == 0) {
        h.nll[n] = target >= 0 ? lse - target_logit : 0;
        h.kd[n] = h.temperature * h.temperature * l_sum;
        h.argmax[n] = best;
    }
    if (!h.wants_gradient)
        return;
    for (int64_t i = threadIdx.x; i < h.V; i += ROW_THREADS) {
        float d = ce != 0 ? ce * (expf(z[i] - lse) - (i == target ? 1.0f : 0.0f)) : 0;

        if (zt)
            d += (zt[i] - expf(z[i] * scale - lse_tau) * u_sum) * factor;
        dz[i] = (item)d;
    }
    for (int64_t i = h.V + threadIdx.x; i < h.stride; i += ROW_THREADS)
        dz[i] = (item)0.0f;
}

/* The head as an operand. In bf16 it has rows up to the stride, so that products need not end at
 * an odd column: zeros in scratch; in the model's copy, whatever comes next there. Their logits
 * are not read, and their gradients are 0. */
static const void *head_operand(struct device *device, const struct head *h, const float *w,
                                void *room, int64_t D)
{
    const void *operand_w = rounded_find(device, w, h->stride * D);

    if (operand_w)
        return operand_w;
    operand_w = operand(device, w, room, h->V * D);
    if (device->config.bf16)
        device->backend->zero(device, (char *)room + 2 * h->V * D,
                              2 * (size_t)((h->stride - h->V) * D));
    return operand_w;
}

static int64_t product_width(const struct device *device, const struct head *h)
{
    return device->config.bf16 ? h->stride : h->V;
}

static void logits(struct device *device, const struct head *h, int64_t rows, int64_t D,
                   const void *x, const void *w, float *z)
{
    struct product p = {};

    p.b_transposed = true;
    p.is_bf16 = device->config.bf16;
    p.rows = rows;
    p.columns = product_width(device, h);
    p.c_stride = h->stride;
    p.inner = p.a_stride = p.b_stride = D;
    p.a = x;
    p.b = w;
    p.c = z;
    product_run(device, &p);
}

static void gradients(struct device *device, const struct head *h, int64_t rows, const void *dz,
                      const void *hidden, const void *w, float *dhidden, float *dw)
{
    struct product p = {};

    p.is_bf16 = device->config.bf16;
    p.a = dz;
    p.a_stride = h->stride;
    p.columns = p.b_stride = p.c_stride = h->D;
    if (dhidden) {
        p.rows = rows;
        p.inner = product_width(device, h);
        p.b = w;
        p.c = dhidden;
        product_run(device, &p);
    }
    if (dw) {
        p.a_transposed = true;
        p.rows = h->V;
        p.inner = rows;
        p.b = hidden;
        p.c = dw;
        p.accumulates = true;
        product_run(device, &p);
    }
}

static void rows_pass(struct device *device, const struct head *h, int64_t from, int64_t rows,
                      const struct head_room *r)
{
    float *zt = h->teacher_D ? r->zt : NULL;

    if (device->config.bf16)
        LAUNCH(device, row_kernel<__nv_bfloat16>, rows, ROW_THREADS, 0, *h, from, r->z, zt,
               (__nv_bfloat16 *)r->dz);
    else
        LAUNCH(device, row_kernel<float>, rows, ROW_THREADS, 0, *h, from, r->z, zt, r->z);
}

static const char *at_row(const struct device *device, const void *base, int64_t row, int64_t width)
{
    return (const char *)base + (device->config.bf16 ? 2 : 4) * row * width;
}

void cuda_head_forward(struct device *device, const struct op_call *call)
{
    struct head h = head_of(call);
    struct cutter cutter = {(char *)device->scratch, 0};
    struct head_room r = room_cut(device, &h, &cutter);
    const void *hidden = operand(device, tensor_f32(call->in[0]), r.hidden, h.N * h.D);
    const void *w = head_operand(device, &h, h.w, r.w, h.D);
    const void *teacher = NULL, *teacher_w = NULL;
    float *dhidden = call->out[3] ? tensor_f32(call->out[3]) : NULL;
    float *dw = h.wants_gradient && call->in[1]->grad ? device_grad(device, call->in[1], NULL)
                                                      : NULL;

    if (h.teacher_D) {
        teacher = operand(device, tensor_f32(call->in[4]), r.teacher_hidden, h.N * h.teacher_D);
        teacher_w = head_operand(device, &h, h.teacher_w, r.teacher_w, h.teacher_D);
    }
    for (int64_t from = 0; from < h.N; from += h.chunk) {
        int64_t rows = (int64_t)min_u64((uint64_t)h.chunk, (uint64_t)(h.N - from));

        logits(device, &h, rows, h.D, at_row(device, hidden, from, h.D), w, r.z);
        if (teacher)
            logits(device, &h, rows, h.teacher_D, at_row(device, teacher, from, h.teacher_D),
                   teacher_w, r.zt);
        rows_pass(device, &h, from, rows, &r);
        if (h.wants_gradient)
            gradients(device, &h, rows, r.dz, at_row(device, hidden, from, h.D), w,
                      dhidden ? dhidden + from * h.D : NULL, dw);
    }
}
