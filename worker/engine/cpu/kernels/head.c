/* head.c - losses at the vocabulary head, over chunks of rows.
 *
 * Per chunk: logits = hidden w' (and the teacher's), one pass per row turns logits into the
 * loss and, in place, into the gradient; then dhidden = dlogits w and dw += dlogits' hidden.
 * So the logits of one chunk are all that ever exists. Padding columns up to a whole vector
 * hold LOWEST, whose probability is 0. */
#include "worker/engine/cpu/kernels/gemm.h"
#include "worker/engine/cpu/kernels/vec.h"
#include "worker/engine/loss.h"

#include <math.h>
#include <string.h>

#define LOWEST (-1e30f)
/* A chunk is large enough that adding to dw (V, D) is cheap beside the product itself, and
 * about 4 MB of logits where the vocabulary is small. */
#define CHUNK_ROWS_LEAST 256
#define CHUNK_FLOATS ((int64_t)1 << 20)

struct head {
    const float *hidden, *w, *teacher_hidden, *teacher_w;
    const int32_t *target;
    const float *ce_weight, *kd_weight;
    float *nll, *kd, *dhidden, *dw;
    int32_t *argmax;
    float *z, *zt; /* (chunk, stride): logits of student and teacher */
    int64_t N, D, V, teacher_D, stride, chunk;
    enum divergence divergence;
    bool wants_gradient;
    float temperature, beta;
    int64_t from; /* first row of the current chunk */
};

static int64_t chunk_rows(const struct op_call *call)
{
    int64_t N = tensor_rows(call->in[0]), rows = CHUNK_FLOATS / tensor_rows(call->in[1]);

    rows = rows < CHUNK_ROWS_LEAST ? CHUNK_ROWS_LEAST : rows;
    return rows < N ? rows : N;
}

static int64_t head_stride(const struct op_call *call)
{
    return (tensor_rows(call->in[1]) + 15) / 16 * 16;
}

size_t KERNEL(head_scratch)(const struct device *device, const struct op_call *call)
{
    size_t logits = 4 * (size_t)(chunk_rows(call) * head_stride(call));

    (void)device;
    return call->in[4] ? 2 * logits : logits;
}

static const float *values_or_null(const struct tensor *tensor)
{
    return tensor ? tensor_f32(tensor) : NULL;
}

static struct head head_read(struct device *device, const struct op_call *call)
{
    struct head h = {
        .hidden = tensor_f32(call->in[0]), .w = tensor_f32(call->in[1]),
        .target = tensor_i32(call->in[2]), .ce_weight = values_or_null(call->in[3]),
        .teacher_hidden = values_or_null(call->in[4]), .teacher_w = values_or_null(call->in[5]),
        .kd_weight = values_or_null(call->in[6]), .nll = tensor_f32(call->out[0]),
        .kd = tensor_f32(call->out[1]), .argmax = tensor_i32(call->out[2]),
        .N = tensor_rows(call->in[0]), .D = tensor_columns(call->in[0]),
        .V = tensor_rows(call->in[1]), .stride = head_stride(call), .chunk = chunk_rows(call),
        .divergence = (enum divergence)call->whole[0], .wants_gradient = call->whole[1] != 0,
        .temperature = (float)call->real[0], .beta = (float)call->real[1],
        .z = device->scratch};

    if (h.teacher_hidden) {
        h.teacher_D = tensor_columns(call->in[4]);
        h.zt = h.z + h.chunk * h.stride;
    }
    if (h.wants_gradient && call->out[3])
        h.dhidden = tensor_f32(call->out[3]);
    if (h.wants_gradient && call->in[1]->grad)
        h.dw = device_grad(device, call->in[1], NULL);
    return h;
}

static void pad_row(const struct head *h, float *z)
{
    for (int64_t i = h->V; i < h->stride; i++)
        z[i] = LOWEST;
}

static float row_highest(const struct head *h, const float *z)
{
    vec high = vec_set(LOWEST);

    for (int64_t i = 0; i < h->stride; i += VEC_WIDTH)
        high = vec_max(high, vec_load(z + i));
    return vec_highest(high);
}

/* log sum exp(scale z) over a row, whose maximum is given. Lanes are folded in double every
 * SUM_BLOCK columns: 50,000 terms in one float lane would lose half the digits. */
#define SUM_BLOCK 4096

static float row_lse(const struct head *h, const float *z, float highest, float scale)
{
    double total = 0;

    for (int64_t at = 0; at < h->stride; at += SUM_BLOCK) {
        int64_t end = at + SUM_BLOCK < h->stride ? at + SUM_BLOCK : h->stride;
        vec sum = {0};

        for (int64_t i = at; i < end; i += VEC_WIDTH)
            sum += vec_exp((vec_load(z + i) - highest) * scale);
        total += vec_sum(sum);
    }
    return highest * scale + (float)log(total);
}

static int32_t row_argmax(const struct head *h, const float *z, float highest)
{
    for (int64_t i = 0; i < h->V; i++)
        if (z[i] == highest)
            return (int32_t)i;
    return 0;
}

/* z := weight (softmax(z) - e_target). */
static void ce_gradient(const struct head *h, float *z, float lse, int32_t target, float weight)
{
    if (weight == 0) {
        memset(z, 0, 4 * (size_t)h->stride);
        return;
    }
    for (int64_t i = 0; i < h->stride; i += VEC_WIDTH)
        vec_store(z + i, vec_exp(vec_load(z + i) - lse) * weight);
    z[target] -= weight;
}

/* Term l of the divergence and u = q dD/dq per vocabulary entry, from log-probabilities.
 * The gradient on logits is then u - q sum(u). loss.h names the divergences. */
struct terms {
    vec l, u;
};

/* u of skewed reverse KL is q (log(q/m) + r) with r = b p / m, the teacher's share of the mixture,
 * up to a constant that cancels in the gradient: q (log(1 - r) + r), where r is small and the two
 * would leave few digits of each other. */
static inline vec skew_reverse_slope(float b, vec q, vec p, vec m, vec q_m)
{
    vec r = b * p / m;

    return q * vec_select(r < vec_set(0.25f), vec_log1p_rest(-r),
                          q_m + vec_set(logf(1 - b)) + r);
}

static inline struct terms terms_at(enum divergence kind, float b, vec lq, vec lp)
{
    ivec real = lp > vec_set(LOWEST / 2);
    vec q = vec_exp(lq), p = vec_exp(lp);
    vec ratio = vec_select(real, lq - lp, vec_set(0)); /* log q/p; a term with p = 0 counts 0 */
    vec m, q_m, p_m;

    switch (kind) {
    case DIVERGENCE_FORWARD_KL:
        return (struct terms){-p * ratio, -p};
    case DIVERGENCE_REVERSE_KL:
        return (struct terms){q * ratio, q * ratio};
    case DIVERGENCE_TOTAL_VARIATION:
        m = vec_select(q > p, vec_set(0.5f), vec_select(q < p, vec_set(-0.5f), vec_set(0)));
        return (struct terms){m * (q - p), m * q};
    case DIVERGENCE_JSD:
    case DIVERGENCE_SKEW_FORWARD:
    case DIVERGENCE_SKEW_REVERSE:
    case DIVERGENCE_NONE:
    case DIVERGENCE_END:
        break;
    }
    m = b * p + (1 - b) * q;
    q_m = vec_select(q > vec_set(0), lq - vec_log(m), vec_set(0));
    p_m = vec_select(p > vec_set(0), lp - vec_log(m), vec_set(0));
    if (kind == DIVERGENCE_JSD)
        return (struct terms){b * p * p_m + (1 - b) * q * q_m, (1 - b) * q * q_m};
    m = vec_select(m > vec_set(0), m, vec_set(1));
    if (kind == DIVERGENCE_SKEW_FORWARD)
        return (struct terms){p * p_m, -(1 - b) * q * p / m};
    return (struct terms){q * q_m, skew_reverse_slope(b, q, p, m, q_m)};
}

struct sums {
    double l, u;
};

/* One pass over a row of a fixed kind, so that the compiler drops the other kinds. With
 * gradient, u replaces the teacher's logits. */
static inline struct sums terms_pass(const struct head *h, enum divergence kind, const float *z,
                                     float *zt, float lse, float lse_teacher)
{
    float scale = 1 / h->temperature;
    struct sums sums = {0};

    for (int64_t at = 0; at < h->stride; at += SUM_BLOCK) {
        int64_t end = at + SUM_BLOCK < h->stride ? at + SUM_BLOCK : h->stride;
        vec l = {0}, u = {0};

        for (int64_t i = at; i < end; i += VEC_WIDTH) {
            vec lq = vec_load(z + i) * scale - lse;
            vec lp = vec_max(vec_load(zt + i) * scale - lse_teacher, vec_set(LOWEST));
            struct terms t = terms_at(kind, h->beta, lq, lp);

            l += t.l;
            u += t.u;
            vec_store(zt + i, t.u);
        }
        sums.l += vec_sum(l);
        sums.u += vec_sum(u);
    }
    return sums;
}

static struct sums divergence_row(const struct head *h, const float *z, float *zt, float lse,
                                  float lse_teacher)
{
    switch (h->divergence) {
    case DIVERGENCE_FORWARD_KL:
        return terms_pass(h, DIVERGENCE_FORWARD_KL, z, zt, lse, lse_teacher);
    case DIVERGENCE_REVERSE_KL:
        return terms_pass(h, DIVERGENCE_REVERSE_KL, z, zt, lse, lse_teacher);
    case DIVERGENCE_JSD:
        return terms_pass(h, DIVERGENCE_JSD, z, zt, lse, lse_teacher);
    case DIVERGENCE_SKEW_FORWARD:
        return terms_pass(h, DIVERGENCE_SKEW_FORWARD, z, zt, lse, lse_teacher);
    case DIVERGENCE_SKEW_REVERSE:
        return terms_pass(h, DIVERGENCE_SKEW_REVERSE, z, zt, lse, lse_teacher);
    case DIVERGENCE_TOTAL_VARIATION:
        return terms_pass(h, DIVERGENCE_TOTAL_VARIATION, z, zt, lse, lse_teacher);
    case DIVERGENCE_NONE:
    case DIVERGENCE_END:
        break;
    }
    CHECK(!"divergence is known");
    return (struct sums){0};
}

/* z := ce (softmax(z) - e_target) + kd tau (u - q sum u); u lies in zt. */
static void mixed_gradient(const struct head *h, float *z, const float *u, float u_sum,
                           float lse_tau, float lse, int32_t target, float ce, float kd)
{
    float scale = 1 / h->temperature, factor = kd * h->temperature;

    for (int64_t i = 0; i < h->stride; i += VEC_WIDTH) {
        vec v = vec_load(z + i);
        vec d = (vec_load(u + i) - vec_exp(v * scale - lse_tau) * u_sum) * factor;

        if (ce != 0)
            d += vec_exp(v - lse) * ce;
        vec_store(z + i, d);
    }
    if (ce != 0)
        z[target] -= ce;
}

static void head_row(const struct head *h, int64_t row)
{
    int64_t n = h->from + row;
    float *z = h->z + row * h->stride, *zt = h->zt ? h->zt + row * h->stride : NULL;
    int32_t target = h->target[n];
    float ce = h->ce_weight && target >= 0 ? h->ce_weight[n] : 0, highest, lse, lse_tau;
    struct sums sums;

    pad_row(h, z);
    highest = row_highest(h, z);
    lse = row_lse(h, z, highest, 1);
    h->argmax[n] = row_argmax(h, z, highest);
    h->nll[n] = target >= 0 ? lse - z[target] : 0;
    h->kd[n] = 0;
    if (!zt) {
        if (h->wants_gradient)
            ce_gradient(h, z, lse, target, ce);
        return;
    }
    pad_row(h, zt);
    lse_tau = h->temperature == 1 ? lse : row_lse(h, z, highest, 1 / h->temperature);
    sums = divergence_row(h, z, zt, lse_tau,
                          row_lse(h, zt, row_highest(h, zt), 1 / h->temperature));
    h->kd[n] = h->temperature * h->temperature * (float)sums.l;
    if (h->wants_gradient)
        mixed_gradient(h, z, zt, (float)sums.u, lse_tau, lse, target, ce, h->kd_weight[n]);
}

static void head_share(void *argument, int64_t from, int64_t to, unsigned thread)
{
    const struct head *h = argument;

    (void)thread;
    for (int64_t row = from; row < to; row++)
        head_row(h, row);
}

static void chunk_logits(struct device *device, const struct head *h, int64_t rows)
{
    struct gemm g = {.b_transposed = true, .rows = rows, .columns = h->V, .inner = h->D,
                     .a = h->hidden + h->from * h->D, .a_stride = h->D, .b = h->w,
                     .b_stride = h->D, .c = h->z, .c_stride = h->stride};

    KERNEL(gemm_run)(device, &g);
    if (!h->zt)
        return;
    g.inner = g.a_stride = g.b_stride = h->teacher_D;
    g.a = h->teacher_hidden + h->from * h->teacher_D;
    g.b = h->teacher_w;
    g.c = h->zt;
    KERNEL(gemm_run)(device, &g);
}

static void chunk_gradients(struct device *device, const struct head *h, int64_t rows)
{
    struct gemm dhidden = {.rows = rows, .columns = h->D, .inner = h->V, .a = h->z,
                           .a_stride = h->stride, .b = h->w, .b_stride = h->D,
                           .c = h->dhidden + h->from * h->D, .c_stride = h->D};
    struct gemm dw = {.a_transposed = true, .rows = h->V, .columns = h->D, .inner = rows,
                      .a = h->z, .a_stride = h->stride, .b = h->hidden + h->from * h->D,
                      .b_stride = h->D, .c = h->dw, .c_stride = h->D, .accumulates = true};

    if (h->dhidden)
        KERNEL(gemm_run)(device, &dhidden);
    if (h->dw)
        KERNEL(gemm_run)(device, &dw);
}

void KERNEL(head_forward)(struct device *device, const struct op_call *call)
{
    struct head h = head_read(device, call);

    for (h.from = 0; h.from < h.N; h.from += h.chunk) {
        int64_t rows = h.N - h.from < h.chunk ? h.N - h.from : h.chunk;

        chunk_logits(device, &h, rows);
        threads_run(device->threads, rows, 4, head_share, &h);
        if (h.wants_gradient)
            chunk_gradients(device, &h, rows);
    }
}

void KERNEL(head_backward)(struct device *device, const struct op_call *call)
{
    struct tensor *hidden = call->in[0];
    const float *from = tensor_f32(call->out[3]);
    float *to;
    bool fresh;

    if (!hidden->grad)
        return;
    to = device_grad(device, hidden, &fresh);
    if (fresh) {
        memcpy(to, from, 4 * (size_t)tensor_count(hidden));
        return;
    }
    for (int64_t i = 0; i < tensor_count(hidden); i++)
        to[i] += from[i];
}
