/* attention.c - attention in blocks of queries: causal, and in general (op_attend).
 *
 * A block of QUERIES rows meets all keys it may see at once: its scores (QUERIES, T) fit the
 * second-level cache for T up to a few thousand, so one plain softmax serves and the online
 * form is not needed. Only the log-sum-exp of each row outlives forward; backward forms the
 * probabilities again from it (Dao et al. 2022, algorithm 4, without the inner key loop).
 * Threads share out (row, key head) pairs: each owns its keys' gradients. */
#include "worker/engine/cpu/kernels/gemm.h"
#include "worker/engine/cpu/kernels/softmax.h"

#include <math.h>
#include <string.h>

#define QUERIES 64

struct attention {
    const float *q, *k, *v;        /* of the first row, head 0                      */
    int64_t q_stride, kv_stride;   /* between rows                                  */
    const int32_t *first, *last;   /* of each query, or NULL                        */
    const float *bias;             /* (Tq + Tk - 1, H), or NULL                     */
    float *y, *lse;
    const float *dy;
    float *dq, *dk, *dv, *dbias;   /* NULL where no gradient is wanted              */
    float *scratch;                /* per thread (2, QUERIES, stride) + 2 (Tq + Tk) */
    int64_t stride;                /* of a score row: Tk rounded up to a vector     */
    int64_t B, Tq, Tk, H, Hk, d;
    bool causal;
    float scale;
};

static int64_t score_stride(int64_t T)
{
    return (T + VEC_WIDTH - 1) / VEC_WIDTH * VEC_WIDTH;
}

static int64_t thread_floats(int64_t Tq, int64_t Tk)
{
    return 2 * QUERIES * score_stride(Tk) + 2 * (Tq + Tk);
}

size_t KERNEL(attention_scratch)(const struct device *device, const struct op_call *call)
{
    int64_t Tq = call->whole[4], Tk = call->op == OP_ATTEND ? call->whole[5] : Tq;

    return 4 * (size_t)thread_floats(Tq, Tk) * threads_count(device->threads);
}

static struct attention attention_read(struct device *device, const struct op_call *call)
{
    struct attention a = {.q = tensor_f32(call->in[0]), .H = call->whole[0],
                          .Hk = call->whole[1], .d = call->whole[2], .B = call->whole[3],
                          .Tq = call->whole[4], .Tk = call->whole[4],
                          .scratch = device->scratch, .causal = true};

    a.k = a.q + a.H * a.d;
    a.v = a.k + a.Hk * a.d;
    a.q_stride = a.kv_stride = tensor_columns(call->in[0]);
    a.first = call->in[1] ? tensor_i32(call->in[1]) : NULL;
    a.stride = score_stride(a.Tk);
    a.scale = 1.0f / sqrtf((float)a.d);
    return a;
}

static struct attention attend_read(struct device *device, const struct op_call *call)
{
    struct attention a = {.q = tensor_f32(call->in[0]), .H = call->whole[0],
                          .Hk = call->whole[1], .d = call->whole[2], .B = call->whole[3],
                          .Tq = call->whole[4], .Tk = call->whole[5],
                          .scratch = device->scratch, .scale = (float)call->real[0]};

    a.k = call->in[1] ? tensor_f32(call->in[1]) : a.q + a.H * a.d;
    a.v = a.k + a.Hk * a.d;
    a.q_stride = tensor_columns(call->in[0]);
    a.kv_stride = tensor_columns(call->in[1] ? call->in[1] : call->in[0]);
    a.first = call->in[2] ? tensor_i32(call->in[2]) : NULL;
    a.last = call->in[3] ? tensor_i32(call->in[3]) : NULL;
    a.bias = call->in[4] ? tensor_f32(call->in[4]) : NULL;
    a.stride = score_stride(a.Tk);
    return a;
}

/* One block of queries of one head. Offsets are in elements of an array. */
struct span {
    int64_t row;        /* first row of the sequence's queries in the batch, b * Tq */
    int64_t from, to;   /* queries, within the sequence                             */
    int64_t low, high;  /* keys that any of them sees                               */
    int64_t head;
    int64_t q, kv, y;   /* offsets of the block's q, of key head and row low, of values of y */
    int64_t lse;        /* offset of lse[from]                                      */
};

/* Keys begin..end-1 that query t of a sequence sees. */
static int64_t sees_from(const struct attention *a, int64_t row, int64_t t)
{
    return a->first ? a->first[row + t] : 0;
}

static int64_t sees_to(const struct attention *a, int64_t row, int64_t t)
{
    if (a->causal)
        return t + 1;
    return a->last ? a->last[row + t] + 1 : a->Tk;
}

static struct span span_at(const struct attention *a, int64_t b, int64_t head, int64_t from)
{
    int64_t to = from + QUERIES < a->Tq ? from + QUERIES : a->Tq, kv = head / (a->H / a->Hk);
    struct span s = {.row = b * a->Tq, .from = from, .to = to, .head = head, .low = a->Tk};

    for (int64_t t = from; t < to; t++) {
        int64_t begin = sees_from(a, s.row, t), end = sees_to(a, s.row, t);

        s.low = begin < s.low ? begin : s.low;
        s.high = end > s.high ? end : s.high;
    }
    s.q = (s.row + from) * a->q_stride + head * a->d;
    s.kv = (b * a->Tk + s.low) * a->kv_stride + kv * a->d;
    s.y = (s.row + from) * a->H * a->d + head * a->d;
    s.lse = (b * a->H + head) * a->Tq + from;
    return s;
}

/* out (queries, keys) = x of the queries times y of the keys, transposed. */
static void products(const struct attention *a, const struct span *s, const float *x,
                     int64_t x_stride, const float *y, float *out)
{
    struct gemm g = {.b_transposed = true, .rows = s->to - s->from, .columns = s->high - s->low,
                     .inner = a->d, .a = x, .a_stride = x_stride, .b = y,
                     .b_stride = a->kv_stride, .c = out, .c_stride = a->stride};

    gemm_single(&g);
}

/* A thread's memory: scores, their gradients, and one head's biases by distance. */
struct desk {
    float *S, *dP, *bias, *dbias;
};

static struct desk desk_of(const struct attention *a, unsigned thread)
{
    float *S = a->scratch + (int64_t)thread * thread_floats(a->Tq, a->Tk);
    float *bias = S + 2 * QUERIES * a->stride;

    return (struct desk){S, S + QUERIES * a->stride, bias, bias + a->Tq + a->Tk};
}

/* The head's column of biases side by side, so that a row of scores adds a stretch of it. */
static void desk_take_bias(const struct attention *a, const struct desk *desk, int64_t head)
{
    if (!a->bias)
        return;
    for (int64_t r = 0; r < a->Tq + a->Tk - 1; r++)
        desk->bias[r] = a->bias[r * a->H + head];
    memset(desk->dbias, 0, 4 * (size_t)(a->Tq + a->Tk));
}

/* Where the bias of key low of query from + i lies. */
static int64_t bias_at(const struct attention *a, const struct span *s, int64_t i)
{
    return s->low - (s->from + i) + a->Tq - 1;
}

/* With biases the scores are scaled here, and their softmax takes them as they are. */
static float finish_scores(const struct attention *a, const struct span *s,
                           const struct desk *desk, int64_t i, float *score)
{
    const float *bias = desk->bias + (a->bias ? bias_at(a, s, i) : 0);
    int64_t keys = s->high - s->low;

    if (!a->bias)
        return a->scale;
    for (int64_t j = 0; j < keys; j++)
        score[j] = score[j] * a->scale + bias[j];
    return 1;
}

static void forward_span(const struct attention *a, const struct span *s,
                         const struct desk *desk)
{
    int64_t keys = s->high - s->low;
    struct gemm g = {.rows = s->to - s->from, .columns = a->d, .inner = keys, .a = desk->S,
                     .a_stride = a->stride, .b = a->v + s->kv, .b_stride = a->kv_stride,
                     .c = a->y + s->y, .c_stride = a->H * a->d};

    products(a, s, a->q + s->q, a->q_stride, a->k + s->kv, desk->S);
    for (int64_t i = 0; i < s->to - s->from; i++) {
        float *score = desk->S + i * a->stride;
        float scale = finish_scores(a, s, desk, i, score);

        a->lse[s->lse + i] = softmax_row(score, sees_from(a, s->row, s->from + i) - s->low,
                                         sees_to(a, s->row, s->from + i) - s->low, keys, scale);
    }
    gemm_single(&g);
}

static void forward_share(void *argument, int64_t from, int64_t to, unsigned thread)
{
    const struct attention *a = argument;
    struct desk desk = desk_of(a, thread);

    for (int64_t unit = from; unit < to; unit++) {
        desk_take_bias(a, &desk, unit % a->H);
        for (int64_t q = 0; q < a->Tq; q += QUERIES) {
            struct span s = span_at(a, unit / a->H, unit % a->H, q);

            forward_span(a, &s, &desk);
        }
    }
}

static void attention_run(struct device *device, const struct op_call *call, struct attention *a)
{
    a->y = tensor_f32(call->out[0]);
    a->lse = tensor_f32(call->out[1]);
    threads_run(device->threads, a->B * a->H, 1, forward_share, a);
}

void KERNEL(attention_forward)(struct device *device, const struct op_call *call)
{
    struct attention a = attention_read(device, call);

    attention_run(device, call, &a);
}

void KERNEL(attend_forward)(struct device *device, const struct op_call *call)
{
    struct attention a = attend_read(device, call);

    attention_run(device, call, &a);
}

/* P = exp(scale S - lse) on visible keys begin..end-1, 0 elsewhere; dS = factor P (dP - delta),
 * where delta = sum_j P_j dP_j. Overwrites S by P and dP by dS. */
struct row {
    int64_t begin, end, keys;
    float scale, factor, lse;
};

static void backward_row(float *S, float *dP, const struct row *row)
{
    int64_t begin = row->begin, end = row->end, keys = row->keys;
    vec sum = {0};
    float delta = 0;
    int64_t i = begin;

    for (; i + VEC_WIDTH <= end; i += VEC_WIDTH) {
        vec p = vec_exp(vec_load(S + i) * row->scale - row->lse);

        sum += p * vec_load(dP + i);
        vec_store(S + i, p);
    }
    if (i < end) {
        vec p = vec_exp(vec_load_part(S + i, end - i) * row->scale - row->lse);

        vec_store_part(S + i, p, end - i);
        for (int64_t k = 0; k < end - i; k++)
            delta += p[k] * dP[i + k];
    }
    delta += vec_sum(sum);
    for (i = begin; i < end; i++)
        dP[i] = row->factor * S[i] * (dP[i] - delta);
    memset(S, 0, 4 * (size_t)begin);
    memset(dP, 0, 4 * (size_t)begin);
    memset(S + end, 0, 4 * (size_t)(keys - end));
    memset(dP + end, 0, 4 * (size_t)(keys - end));
}

/* dbias += dS by distance; then dS becomes the gradient of the products. */
static void finish_gradients(const struct attention *a, const struct span *s,
                             const struct desk *desk, int64_t i, float *dS)
{
    float *dbias = desk->dbias + bias_at(a, s, i);

    for (int64_t j = 0; j < s->high - s->low; j++) {
        dbias[j] += dS[j];
        dS[j] *= a->scale;
    }
}

static void span_gradients(const struct attention *a, const struct span *s,
                           const struct desk *desk)
{
    int64_t keys = s->high - s->low, queries = s->to - s->from;
    struct gemm dq = {.rows = queries, .columns = a->d, .inner = keys, .a = desk->dP,
                      .a_stride = a->stride, .b = a->k + s->kv, .b_stride = a->kv_stride,
                      .c = a->dq + s->q, .c_stride = a->q_stride, .accumulates = true};
    struct gemm dk = {.a_transposed = true, .rows = keys, .columns = a->d, .inner = queries,
                      .a = desk->dP, .a_stride = a->stride, .b = a->q + s->q,
                      .b_stride = a->q_stride, .c = a->dk + s->kv, .c_stride = a->kv_stride,
                      .accumulates = true};
    struct gemm dv = {.a_transposed = true, .rows = keys, .columns = a->d, .inner = queries,
                      .a = desk->S, .a_stride = a->stride, .b = a->dy + s->y,
                      .b_stride = a->H * a->d, .c = a->dv + s->kv, .c_stride = a->kv_stride,
                      .accumulates = true};

    if (a->dq)
        gemm_single(&dq);
    if (!a->dk)
        return;
    gemm_single(&dk);
    gemm_single(&dv);
}

static void backward_span(const struct attention *a, const struct span *s,
                          const struct desk *desk)
{
    products(a, s, a->q + s->q, a->q_stride, a->k + s->kv, desk->S);
    products(a, s, a->dy + s->y, a->H * a->d, a->v + s->kv, desk->dP);
    for (int64_t i = 0; i < s->to - s->from; i++) {
        float *S = desk->S + i * a->stride, *dP = desk->dP + i * a->stride;
        struct row row = {.begin = sees_from(a, s->row, s->from + i) - s->low,
                          .end = sees_to(a, s->row, s->from + i) - s->low,
                          .keys = s->high - s->low, .lse = a->lse[s->lse + i],
                          .factor = a->dbias ? 1 : a->scale};

        row.scale = finish_scores(a, s, desk, i, S);
        backward_row(S, dP, &row);
        if (a->dbias)
            finish_gradients(a, s, desk, i, dP);
    }
    span_gradients(a, s, desk);
}

static void backward_head(const struct attention *a, int64_t b, int64_t head,
                          const struct desk *desk)
{
    desk_take_bias(a, desk, head);
    for (int64_t q = 0; q < a->Tq; q += QUERIES) {
        struct span s = span_at(a, b, head, q);

        backward_span(a, &s, desk);
    }
    for (int64_t r = 0; a->dbias && r < a->Tq + a->Tk - 1; r++)
        a->dbias[r * a->H + head] += desk->dbias[r];
}

/* A share is a range of key heads of all rows of the batch: unit = key head * B + b, and with
 * biases, whose gradients sum over rows, a head's rows are not parted. */
static void backward_share(void *argument, int64_t from, int64_t to, unsigned thread)
{
    const struct attention *a = argument;
    struct desk desk = desk_of(a, thread);
    int64_t group = a->H / a->Hk, per = a->dbias ? a->B : 1;

    for (int64_t unit = from * per; unit < to * per; unit++) {
        int64_t kv = unit / a->B, b = unit % a->B;

        for (int64_t head = kv * group; head < (kv + 1) * group; head++)
            backward_head(a, b, head, &desk);
    }
}

static void attention_back(struct device *device, const struct op_call *call, struct attention *a)
{
    a->lse = tensor_f32(call->out[1]);
    a->dy = call->out[0]->grad;
    threads_run(device->threads, a->dbias ? a->Hk : a->B * a->Hk, 1, backward_share, a);
}

void KERNEL(attention_backward)(struct device *device, const struct op_call *call)
{
    struct attention a = attention_read(device, call);

    a.dq = device_grad(device, call->in[0], NULL);
    a.dk = a.dq + a.H * a.d;
    a.dv = a.dk + a.Hk * a.d;
    attention_back(device, call, &a);
}

void KERNEL(attend_backward)(struct device *device, const struct op_call *call)
{
    struct attention a = attend_read(device, call);
    struct tensor *keys = call->in[1];

    if (call->in[0]->grad)
        a.dq = device_grad(device, call->in[0], NULL);
    if (keys && keys->grad)
        a.dk = device_grad(device, keys, NULL);
    if (!keys && a.dq)
        a.dk = a.dq + a.H * a.d;
    if (a.dk)
        a.dv = a.dk + a.Hk * a.d;
    if (call->in[4] && call->in[4]->grad)
        a.dbias = device_grad(device, call->in[4], NULL);
    attention_back(device, call, &a);
}
