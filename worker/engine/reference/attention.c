/* attention.c - the reference of attention: one query at a time. */
#include "worker/engine/reference/reference.h"

#include <math.h>
#include <string.h>

struct shape {
    int64_t H, Hk, d, B, T, width;
};

static struct shape shape_of(const struct op_call *call)
{
    struct shape s = {.H = call->whole[0], .Hk = call->whole[1], .d = call->whole[2],
                      .B = call->whole[3]};

    s.T = tensor_rows(call->in[0]) / s.B;
    s.width = (s.H + 2 * s.Hk) * s.d;
    return s;
}

size_t reference_attention_scratch(const struct device *device, const struct op_call *call)
{
    (void)device;
    if (call->op != OP_ATTENTION)
        return sizeof(double) * (size_t)call->in[2]->dim[1];
    return 2 * sizeof(double) * (size_t)call->whole[4];
}

/* score[j] := softmax over keys j = 0..count-1 of q k_j / sqrt(d); returns log-sum-exp. */
static double probabilities(const float *q, const float *k, int64_t k_stride, int64_t count,
                            int64_t d, double *score)
{
    double highest = -INFINITY, sum = 0;

    for (int64_t j = 0; j < count; j++) {
        double dot = 0;

        for (int64_t i = 0; i < d; i++)
            dot += (double)q[i] * k[j * k_stride + i];
        score[j] = dot / sqrt((double)d);
        highest = fmax(highest, score[j]);
    }
    for (int64_t j = 0; j < count; j++)
        sum += exp(score[j] - highest);
    for (int64_t j = 0; j < count; j++)
        score[j] = exp(score[j] - highest) / sum;
    return highest + log(sum);
}

static void weigh(const double *score, const float *v, int64_t v_stride, int64_t count, int64_t d,
                  float *y)
{
    for (int64_t i = 0; i < d; i++) {
        double sum = 0;

        for (int64_t j = 0; j < count; j++)
            sum += score[j] * v[j * v_stride + i];
        y[i] = (float)sum;
    }
}

/* One query: where its numbers lie in packed arrays. */
struct query {
    int64_t q, k, v, y, lse; /* k and v: of the first visible key */
    int64_t count;           /* keys it sees                      */
};

static struct query query_at(const struct op_call *call, const struct shape *s, int64_t unit)
{
    int64_t head = unit % s->H, t = unit / s->H % s->T, b = unit / s->H / s->T;
    int64_t row = b * s->T + t, kv = head / (s->H / s->Hk);
    int64_t first = call->in[1] ? tensor_i32(call->in[1])[row] : 0;
    int64_t key_row = (b * s->T + first) * s->width;

    return (struct query){.q = row * s->width + head * s->d, .k = key_row + (s->H + kv) * s->d,
                          .v = key_row + (s->H + s->Hk + kv) * s->d,
                          .y = (row * s->H + head) * s->d, .lse = (b * s->H + head) * s->T + t,
                          .count = t + 1 - first};
}

void reference_attention_forward(struct device *device, const struct op_call *call)
{
    struct shape s = shape_of(call);
    const float *qkv = tensor_f32(call->in[0]);
    double *score = device->scratch;

    for (int64_t unit = 0; unit < s.B * s.T * s.H; unit++) {
        struct query x = query_at(call, &s, unit);

        tensor_f32(call->out[1])[x.lse] =
            (float)probabilities(qkv + x.q, qkv + x.k, s.width, x.count, s.d, score);
        weigh(score, qkv + x.v, s.width, x.count, s.d, tensor_f32(call->out[0]) + x.y);
    }
}

/* dv_j += p_j dy;  dp_j = dy v_j;  ds_j = p_j (dp_j - sum p dp) / sqrt(d);
 * dq += ds_j k_j;  dk_j += ds_j q. */
static void query_backward(const struct shape *s, const struct query *x, const float *qkv,
                           const float *dy, double *p, double *dp, float *dqkv)
{
    double dot = 0;

    probabilities(qkv + x->q, qkv + x->k, s->width, x->count, s->d, p);
    for (int64_t j = 0; j < x->count; j++) {
        dp[j] = 0;
        for (int64_t i = 0; i < s->d; i++) {
            dp[j] += (double)dy[i] * qkv[x->v + j * s->width + i];
            dqkv[x->v + j * s->width + i] += (float)(p[j] * dy[i]);
        }
        dot += p[j] * dp[j];
    }
    for (int64_t j = 0; j < x->count; j++) {
        double ds = p[j] * (dp[j] - dot) / sqrt((double)s->d);

        for (int64_t i = 0; i < s->d; i++) {
            dqkv[x->q + i] += (float)(ds * qkv[x->k + j * s->width + i]);
            dqkv[x->k + j * s->width + i] += (float)(ds * qkv[x->q + i]);
        }
    }
}

void reference_attention_backward(struct device *device, const struct op_call *call)
{
    struct shape s = shape_of(call);
    float *dqkv = device_grad(device, call->in[0], NULL);
    double *score = device->scratch;

    for (int64_t unit = 0; unit < s.B * s.T * s.H; unit++) {
        struct query x = query_at(call, &s, unit);

        query_backward(&s, &x, tensor_f32(call->in[0]), call->out[0]->grad + x.y, score,
                       score + s.T, dqkv);
    }
}

static void append(const struct op_call *call, const struct shape *s, int64_t b)
{
    int64_t capacity = call->in[2]->dim[1], start = tensor_i32(call->in[1])[b];
    int64_t width = s->Hk * s->d;

    for (int64_t t = 0; t < s->T && start + t < capacity; t++) {
        const float *k = tensor_f32(call->in[0]) + (b * s->T + t) * s->width + s->H * s->d;
        int64_t at = (b * capacity + start + t) * width;

        memcpy(tensor_f32(call->in[2]) + at, k, 4 * (size_t)width);
        memcpy(tensor_f32(call->in[3]) + at, k + width, 4 * (size_t)width);
    }
}

void reference_attention_cached_forward(struct device *device, const struct op_call *call)
{
    struct shape s = shape_of(call);
    int64_t capacity = call->in[2]->dim[1], width = s.Hk * s.d;

    for (int64_t b = 0; b < s.B; b++)
        append(call, &s, b);
    for (int64_t unit = 0; unit < s.B * s.T * s.H; unit++) {
        int64_t head = unit % s.H, t = unit / s.H % s.T, b = unit / s.H / s.T;
        int64_t at = b * capacity * width + head / (s.H / s.Hk) * s.d;
        int64_t count = tensor_i32(call->in[1])[b] + t + 1;
        const float *q = tensor_f32(call->in[0]) + (b * s.T + t) * s.width + head * s.d;

        count = count < capacity ? count : capacity;
        probabilities(q, tensor_f32(call->in[2]) + at, width, count, s.d, device->scratch);
        weigh(device->scratch, tensor_f32(call->in[3]) + at, width, count, s.d,
              tensor_f32(call->out[0]) + ((b * s.T + t) * s.H + head) * s.d);
    }
}

/* Scores of the keys from low to the query's own, with biases by distance, to probabilities. */
static void cached_probabilities(const struct op_call *call, const float *q, const float *k,
                                 int64_t low, int64_t at, int64_t head, double *p)
{
    int64_t width = call->whole[1] * call->whole[2], d = call->whole[2];
    const struct tensor *bias = call->in[4];
    double highest = -INFINITY, sum = 0;

    for (int64_t j = low; j <= at; j++) {
        double dot = 0;

        for (int64_t i = 0; i < d; i++)
            dot += (double)q[i] * k[j * width + i];
        p[j] = call->real[0] * dot;
        if (bias)
            p[j] += tensor_f32(bias)[(int64_t)fmin((double)(at - j), (double)bias->dim[0] - 1) *
                                         call->whole[0] + head];
        highest = fmax(highest, p[j]);
    }
    for (int64_t j = low; j <= at; j++)
        sum += exp(p[j] - highest);
    for (int64_t j = low; j <= at; j++)
        p[j] = exp(p[j] - highest) / sum;
}

void reference_attend_cached_forward(struct device *device, const struct op_call *call)
{
    struct shape s = shape_of(call);
    int64_t capacity = call->in[2]->dim[1], width = s.Hk * s.d, window = call->whole[4];

    for (int64_t b = 0; b < s.B; b++)
        append(call, &s, b);
    for (int64_t unit = 0; unit < s.B * s.T * s.H; unit++) {
        int64_t head = unit % s.H, t = unit / s.H % s.T, b = unit / s.H / s.T;
        int64_t in = b * capacity * width + head / (s.H / s.Hk) * s.d;
        int64_t at = (int64_t)fmin(tensor_i32(call->in[1])[b] + (double)t, (double)capacity - 1);
        int64_t low = window > 0 && at >= window ? at + 1 - window : 0;
        const float *q = tensor_f32(call->in[0]) + (b * s.T + t) * s.width + head * s.d;
        double *p = device->scratch;

        cached_probabilities(call, q, tensor_f32(call->in[2]) + in, low, at, head, p);
        weigh(p + low, tensor_f32(call->in[3]) + in + low * width, width, at + 1 - low, s.d,
              tensor_f32(call->out[0]) + ((b * s.T + t) * s.H + head) * s.d);
    }
}
