/* attention.c - causal attention in blocks of queries.
 *
 * A block of QUERIES rows meets all keys it may see at once: its scores (QUERIES, T) fit the
 * second-level cache for T up to a few thousand, so one plain softmax serves and the online
 * form is not needed. Only the log-sum-exp of each row outlives forward; backward forms the
 * probabilities again from it (Dao et al. 2022, algorithm 4, without the inner key loop).
 * Threads share out (row, key head) pairs: each owns its keys' gradients. */
#include "worker/engine/cpu/kernels/gemm.h"
#include "worker/engine/cpu/kernels/vec.h"

#include <math.h>
#include <string.h>

#define QUERIES 64

struct attention {
    const float *qkv;
    const int32_t *first;
    float *y, *lse;
    const float *dy;
    float *dqkv;
    float *scratch;         /* (threads, 2, QUERIES, stride) + (threads, QUERIES) */
    int64_t stride;         /* of a score row: T rounded up to a vector           */
    int64_t B, T, H, Hk, d;
    float scale;
};

static int64_t score_stride(int64_t T)
{
    return (T + VEC_WIDTH - 1) / VEC_WIDTH * VEC_WIDTH;
}

size_t KERNEL(attention_scratch)(const struct device *device, const struct op_call *call)
{
    int64_t T = call->op == OP_ATTENTION_CACHED ? call->in[2]->dim[1] : call->whole[4];
    size_t per_thread = 2 * QUERIES * (size_t)score_stride(T) + QUERIES;

    return 4 * per_thread * threads_count(device->threads);
}

static struct attention attention_read(struct device *device, const struct op_call *call)
{
    struct attention a = {.qkv = tensor_f32(call->in[0]), .H = call->whole[0],
                          .Hk = call->whole[1], .d = call->whole[2], .B = call->whole[3],
                          .T = call->whole[4], .scratch = device->scratch};

    a.first = call->in[1] ? tensor_i32(call->in[1]) : NULL;
    a.stride = score_stride(a.T);
    a.scale = 1.0f / sqrtf((float)a.d);
    return a;
}

static int64_t row_width(const struct attention *a)
{
    return (a->H + 2 * a->Hk) * a->d;
}

/* One block of queries of one head. Offsets are in elements of a packed array. */
struct span {
    int64_t row;        /* first row of the sequence in the batch, b * T */
    int64_t from, to;   /* queries, within the sequence                  */
    int64_t low;        /* first key any of them sees; keys are low..to  */
    int64_t q, k, v, y; /* offsets of the block's q, of keys from low, of values, of y */
    int64_t lse;        /* offset of lse[from]                           */
};

static int64_t key_low(const struct attention *a, int64_t row, int64_t from, int64_t to)
{
    int64_t low = 0;

    if (!a->first)
        return 0;
    low = a->first[row + from];
    for (int64_t i = from + 1; i < to; i++)
        low = a->first[row + i] < low ? a->first[row + i] : low;
    return low;
}

static struct span span_at(const struct attention *a, int64_t b, int64_t head, int64_t from)
{
    int64_t to = from + QUERIES < a->T ? from + QUERIES : a->T, width = row_width(a);
    int64_t kv = head / (a->H / a->Hk);
    struct span s = {.row = b * a->T, .from = from, .to = to};

    s.low = key_low(a, s.row, from, to);
    s.q = (s.row + from) * width + head * a->d;
    s.k = (s.row + s.low) * width + (a->H + kv) * a->d;
    s.v = (s.row + s.low) * width + (a->H + a->Hk + kv) * a->d;
    s.y = (s.row + from) * a->H * a->d + head * a->d;
    s.lse = (b * a->H + head) * a->T + from;
    return s;
}

/* out (queries, keys) = x of the queries times y of the keys, transposed. */
static void products(const struct attention *a, const struct span *s, const float *x,
                     int64_t x_stride, const float *y, float *out)
{
    struct gemm g = {.b_transposed = true, .rows = s->to - s->from, .columns = s->to - s->low,
                     .inner = a->d, .a = x, .a_stride = x_stride, .b = y,
                     .b_stride = row_width(a), .c = out, .c_stride = a->stride};

    gemm_single(&g);
}

/* Scores to probabilities, given a row's visible keys begin..end; others become 0.
 * Returns the log-sum-exp. */
static float softmax_row(float *score, int64_t begin, int64_t end, int64_t keys, float scale)
{
    float highest = score[begin], rest = 0, inverse;
    vec high = vec_set(highest), sum = {0};
    int64_t i = begin;

    for (; i + VEC_WIDTH <= end; i += VEC_WIDTH)
        high = vec_max(high, vec_load(score + i));
    highest = vec_highest(high);
    for (; i < end; i++)
        highest = score[i] > highest ? score[i] : highest;
    for (i = begin; i + VEC_WIDTH <= end; i += VEC_WIDTH) {
        vec e = vec_exp((vec_load(score + i) - highest) * scale);

        sum += e;
        vec_store(score + i, e);
    }
    if (i < end) {
        vec e = vec_exp((vec_load_part(score + i, end - i) - highest) * scale);

        vec_store_part(score + i, e, end - i);
        for (int64_t k = 0; k < end - i; k++)
            rest += e[k];
    }
    rest += vec_sum(sum);
    inverse = 1.0f / rest;
    memset(score, 0, 4 * (size_t)begin);
    for (i = begin; i < end; i++)
        score[i] *= inverse;
    memset(score + end, 0, 4 * (size_t)(keys - end));
    return highest * scale + logf(rest);
}

/* Where query `from + i` of a span may look, relative to low. */
static int64_t begin_of(const struct attention *a, const struct span *s, int64_t i)
{
    return a->first ? a->first[s->row + s->from + i] - s->low : 0;
}

static void forward_span(const struct attention *a, const struct span *s, float *score)
{
    int64_t keys = s->to - s->low;
    struct gemm g = {.rows = s->to - s->from, .columns = a->d, .inner = keys, .a = score,
                     .a_stride = a->stride, .b = a->qkv + s->v, .b_stride = row_width(a),
                     .c = a->y + s->y, .c_stride = a->H * a->d};

    products(a, s, a->qkv + s->q, row_width(a), a->qkv + s->k, score);
    for (int64_t i = 0; i < s->to - s->from; i++)
        a->lse[s->lse + i] = softmax_row(score + i * a->stride, begin_of(a, s, i),
                                         s->from + i + 1 - s->low, keys, a->scale);
    gemm_single(&g);
}

static void forward_share(void *argument, int64_t from, int64_t to, unsigned thread)
{
    const struct attention *a = argument;
    float *score = a->scratch + (int64_t)thread * 2 * QUERIES * a->stride;

    for (int64_t unit = from; unit < to; unit++) {
        for (int64_t q = 0; q < a->T; q += QUERIES) {
            struct span s = span_at(a, unit / a->H, unit % a->H, q);

            forward_span(a, &s, score);
        }
    }
}

void KERNEL(attention_forward)(struct device *device, const struct op_call *call)
{
    struct attention a = attention_read(device, call);

    a.y = tensor_f32(call->out[0]);
    a.lse = tensor_f32(call->out[1]);
    threads_run(device->threads, a.B * a.H, 1, forward_share, &a);
}

/* P = exp(scale S - lse) on visible keys, 0 elsewhere; dS = scale P (dP - delta),
 * where delta = sum_j P_j dP_j. Overwrites S by P and dP by dS. */
static void backward_row(const struct attention *a, float *S, float *dP, int64_t begin,
                         int64_t end, int64_t keys, float lse)
{
    vec sum = {0};
    float delta = 0;
    int64_t i = begin;

    for (; i + VEC_WIDTH <= end; i += VEC_WIDTH) {
        vec p = vec_exp(vec_load(S + i) * a->scale - lse);

        sum += p * vec_load(dP + i);
        vec_store(S + i, p);
    }
    if (i < end) {
        vec p = vec_exp(vec_load_part(S + i, end - i) * a->scale - lse);

        vec_store_part(S + i, p, end - i);
        for (int64_t k = 0; k < end - i; k++)
            delta += p[k] * dP[i + k];
    }
    delta += vec_sum(sum);
    for (i = begin; i < end; i++)
        dP[i] = a->scale * S[i] * (dP[i] - delta);
    memset(S, 0, 4 * (size_t)begin);
    memset(dP, 0, 4 * (size_t)begin);
    memset(S + end, 0, 4 * (size_t)(keys - end));
    memset(dP + end, 0, 4 * (size_t)(keys - end));
}

static void backward_span(const struct attention *a, const struct span *s, float *S, float *dP)
{
    int64_t keys = s->to - s->low, queries = s->to - s->from, width = row_width(a);
    struct gemm dq = {.rows = queries, .columns = a->d, .inner = keys, .a = dP,
                      .a_stride = a->stride, .b = a->qkv + s->k, .b_stride = width,
                      .c = a->dqkv + s->q, .c_stride = width, .accumulates = true};
    struct gemm dk = {.a_transposed = true, .rows = keys, .columns = a->d, .inner = queries,
                      .a = dP, .a_stride = a->stride, .b = a->qkv + s->q, .b_stride = width,
                      .c = a->dqkv + s->k, .c_stride = width, .accumulates = true};
    struct gemm dv = {.a_transposed = true, .rows = keys, .columns = a->d, .inner = queries,
                      .a = S, .a_stride = a->stride, .b = a->dy + s->y,
                      .b_stride = a->H * a->d, .c = a->dqkv + s->v, .c_stride = width,
                      .accumulates = true};

    products(a, s, a->qkv + s->q, width, a->qkv + s->k, S);
    products(a, s, a->dy + s->y, a->H * a->d, a->qkv + s->v, dP);
    for (int64_t i = 0; i < queries; i++)
        backward_row(a, S + i * a->stride, dP + i * a->stride, begin_of(a, s, i),
                     s->from + i + 1 - s->low, keys, a->lse[s->lse + i]);
    gemm_single(&dq);
    gemm_single(&dk);
    gemm_single(&dv);
}

static void backward_share(void *argument, int64_t from, int64_t to, unsigned thread)
{
    const struct attention *a = argument;
    float *S = a->scratch + (int64_t)thread * 2 * QUERIES * a->stride;
    int64_t group = a->H / a->Hk;

    for (int64_t unit = from; unit < to; unit++) {
        int64_t b = unit / a->Hk, kv = unit % a->Hk;

        for (int64_t head = kv * group; head < (kv + 1) * group; head++) {
            for (int64_t q = 0; q < a->T; q += QUERIES) {
                struct span s = span_at(a, b, head, q);

                backward_span(a, &s, S, S + QUERIES * a->stride);
            }
        }
    }
}

void KERNEL(attention_backward)(struct device *device, const struct op_call *call)
{
    struct attention a = attention_read(device, call);

    a.lse = tensor_f32(call->out[1]);
    a.dy = call->out[0]->grad;
    a.dqkv = device_grad(device, call->in[0], NULL);
    threads_run(device->threads, a.B * a.Hk, 1, backward_share, &a);
}

/* Decoding. New keys and values are stored first, then every query of the call looks at
 * start + its index + 1 keys. T is small, so the products are dots over cached rows. */
struct cached {
    struct attention a;
    const int32_t *start;
    float *k, *v;
    int64_t capacity;
};

static void cached_append(const struct cached *c, int64_t b)
{
    int64_t width = row_width(&c->a), kv_width = c->a.Hk * c->a.d;
    const float *new_k = c->a.qkv + b * c->a.T * width + c->a.H * c->a.d;
    float *k = c->k + (b * c->capacity + c->start[b]) * kv_width;
    float *v = c->v + (b * c->capacity + c->start[b]) * kv_width;

    for (int64_t t = 0; t < c->a.T && c->start[b] + t < c->capacity; t++) {
        memcpy(k + t * kv_width, new_k + t * width, 4 * (size_t)kv_width);
        memcpy(v + t * kv_width, new_k + t * width + kv_width, 4 * (size_t)kv_width);
    }
}

static void cached_query(const struct cached *c, int64_t b, int64_t t, int64_t head, float *score)
{
    const struct attention *a = &c->a;
    int64_t kv_width = a->Hk * a->d, keys = c->start[b] + t + 1, row = b * a->T + t;
    int64_t at = b * c->capacity * kv_width + head / (a->H / a->Hk) * a->d;
    const float *q = a->qkv + row * row_width(a) + head * a->d;
    float *y = a->y + row * a->H * a->d + head * a->d;

    keys = keys < c->capacity ? keys : c->capacity; /* padding beyond the end sees what is there */
    for (int64_t j = 0; j < keys; j++)
        score[j] = cblas_sdot((int)a->d, q, 1, c->k + at + j * kv_width, 1);
    softmax_row(score, 0, keys, keys, a->scale);
    memset(y, 0, 4 * (size_t)a->d);
    for (int64_t j = 0; j < keys; j++) {
        const float *v = c->v + at + j * kv_width;

        for (int64_t i = 0; i < a->d; i++)
            y[i] += score[j] * v[i];
    }
}

static void cached_share(void *argument, int64_t from, int64_t to, unsigned thread)
{
    const struct cached *c = argument;
    float *score = c->a.scratch + (int64_t)thread * 2 * QUERIES * c->a.stride;

    for (int64_t b = from; b < to; b++) {
        cached_append(c, b);
        for (int64_t t = 0; t < c->a.T; t++)
            for (int64_t head = 0; head < c->a.H; head++)
                cached_query(c, b, t, head, score);
    }
}

void KERNEL(attention_cached_forward)(struct device *device, const struct op_call *call)
{
    struct cached c = {.k = tensor_f32(call->in[2]), .v = tensor_f32(call->in[3]),
                       .start = tensor_i32(call->in[1]), .capacity = call->in[2]->dim[1]};

    c.a = (struct attention){.qkv = tensor_f32(call->in[0]), .H = call->whole[0],
                             .Hk = call->whole[1], .d = call->whole[2],
                             .T = tensor_rows(call->in[0]) / call->whole[3],
                             .B = call->whole[3], .y = tensor_f32(call->out[0]),
                             .scratch = device->scratch, .stride = score_stride(c.capacity)};
    c.a.scale = 1.0f / sqrtf((float)c.a.d);
    threads_run(device->threads, c.a.B, 1, cached_share, &c);
}
