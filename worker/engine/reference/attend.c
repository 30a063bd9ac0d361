/* attend.c - the reference of general attention: one query at a time. */
#include "worker/engine/reference/reference.h"

#include <math.h>

/* Where one query's numbers lie; keys are rows `row_stride` apart, counted from the first seen. */
struct seen {
    const float *q, *k, *v;
    int64_t q_at, k_at, v_at, y_at; /* the same as offsets into the arrays of gradients */
    int64_t row_stride, count;
    int64_t bias_at;                /* of the first key, in (Tq + Tk - 1, H)            */
    int64_t H, d;
};

static struct seen seen_at(const struct op_call *call, int64_t unit)
{
    int64_t H = call->whole[0], Hk = call->whole[1], d = call->whole[2];
    int64_t Tq = call->whole[4], Tk = call->whole[5];
    int64_t head = unit % H, t = unit / H % Tq, b = unit / H / Tq, row = b * Tq + t;
    int64_t first = call->in[2] ? tensor_i32(call->in[2])[row] : 0;
    int64_t last = call->in[3] ? tensor_i32(call->in[3])[row] : Tk - 1;
    const struct tensor *keys = call->in[1] ? call->in[1] : call->in[0];
    int64_t kv = head / (H / Hk), before = call->in[1] ? 0 : H * d;
    struct seen s = {.H = H, .d = d, .count = last - first + 1,
                     .row_stride = tensor_columns(keys)};

    s.q_at = row * tensor_columns(call->in[0]) + head * d;
    s.k_at = (b * Tk + first) * s.row_stride + before + kv * d;
    s.v_at = s.k_at + Hk * d;
    s.y_at = row * H * d + head * d;
    s.bias_at = (first - t + Tq - 1) * H + head;
    s.q = tensor_f32(call->in[0]) + s.q_at;
    s.k = tensor_f32(keys) + s.k_at;
    s.v = tensor_f32(keys) + s.v_at;
    return s;
}

size_t reference_attend_scratch(const struct device *device, const struct op_call *call)
{
    (void)device;
    return 2 * sizeof(double) * (size_t)call->whole[5];
}

/* p := softmax of the scores; returns their log-sum-exp. */
static double probabilities(const struct op_call *call, const struct seen *s, double *p)
{
    const float *bias = call->in[4] ? tensor_f32(call->in[4]) : NULL;
    double highest = -INFINITY, sum = 0;

    for (int64_t j = 0; j < s->count; j++) {
        double dot = 0;

        for (int64_t i = 0; i < s->d; i++)
            dot += (double)s->q[i] * s->k[j * s->row_stride + i];
        p[j] = call->real[0] * dot + (bias ? bias[s->bias_at + j * s->H] : 0);
        highest = fmax(highest, p[j]);
    }
    for (int64_t j = 0; j < s->count; j++)
        sum += exp(p[j] - highest);
    for (int64_t j = 0; j < s->count; j++)
        p[j] = exp(p[j] - highest) / sum;
    return highest + log(sum);
}

static int64_t unit_count(const struct op_call *call)
{
    return call->whole[3] * call->whole[4] * call->whole[0];
}

void reference_attend_forward(struct device *device, const struct op_call *call)
{
    int64_t H = call->whole[0], Tq = call->whole[4];
    double *p = device->scratch;

    for (int64_t unit = 0; unit < unit_count(call); unit++) {
        struct seen s = seen_at(call, unit);
        int64_t kept = (unit / H / Tq * H + unit % H) * Tq + unit / H % Tq;

        tensor_f32(call->out[1])[kept] = (float)probabilities(call, &s, p);
        for (int64_t i = 0; i < s.d; i++) {
            double sum = 0;

            for (int64_t j = 0; j < s.count; j++)
                sum += p[j] * s.v[j * s.row_stride + i];
            tensor_f32(call->out[0])[s.y_at + i] = (float)sum;
        }
    }
}

/* Gradients of one call; NULL where none is wanted. dk and dv count from the keys' array. */
struct wanted {
    float *dq, *dkv, *dbias;
};

/* ds_j = p_j (dp_j - sum p dp), dp_j = dy v_j; dq += scale ds_j k_j; dk_j += scale ds_j q;
 * dv_j += p_j dy; dbias_j += ds_j. */
static void query_backward(const struct op_call *call, const struct seen *s, const float *dy,
                           double *p, double *dp, const struct wanted *w)
{
    double dot = 0;

    probabilities(call, s, p);
    for (int64_t j = 0; j < s->count; j++) {
        dp[j] = 0;
        for (int64_t i = 0; i < s->d; i++) {
            dp[j] += (double)dy[i] * s->v[j * s->row_stride + i];
            if (w->dkv)
                w->dkv[s->v_at + j * s->row_stride + i] += (float)(p[j] * dy[i]);
        }
        dot += p[j] * dp[j];
    }
    for (int64_t j = 0; j < s->count; j++) {
        double ds = p[j] * (dp[j] - dot);

        if (w->dbias)
            w->dbias[s->bias_at + j * s->H] += (float)ds;
        for (int64_t i = 0; i < s->d; i++) {
            if (w->dq)
                w->dq[s->q_at + i] += (float)(call->real[0] * ds * s->k[j * s->row_stride + i]);
            if (w->dkv)
                w->dkv[s->k_at + j * s->row_stride + i] += (float)(call->real[0] * ds * s->q[i]);
        }
    }
}

void reference_attend_backward(struct device *device, const struct op_call *call)
{
    struct tensor *keys = call->in[1] ? call->in[1] : call->in[0];
    double *p = device->scratch;
    struct wanted w = {0};

    if (call->in[0]->grad)
        w.dq = device_grad(device, call->in[0], NULL);
    if (keys->grad)
        w.dkv = device_grad(device, keys, NULL);
    if (call->in[4] && call->in[4]->grad)
        w.dbias = device_grad(device, call->in[4], NULL);
    for (int64_t unit = 0; unit < unit_count(call); unit++) {
        struct seen s = seen_at(call, unit);

        query_backward(call, &s, call->out[0]->grad + s.y_at, p, p + call->whole[5], &w);
    }
}
