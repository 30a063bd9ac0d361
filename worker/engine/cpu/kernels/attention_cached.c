/* attention_cached.c - attention of new tokens to a cache of keys and values.
 *
 * New keys and values are stored first, then every query of the call looks at start + its
 * index + 1 keys. Few tokens are new, so the products are dots over cached rows. */
#include "worker/engine/cpu/kernels/gemm.h"
#include "worker/engine/cpu/kernels/softmax.h"

struct cached {
    const float *qkv;
    const int32_t *start;
    float *k, *v, *y;
    float *scratch; /* (threads, capacity) */
    int64_t capacity;
    int64_t B, T, H, Hk, d;
    const float *bias; /* (bias_rows, H) by distance, or NULL */
    int64_t bias_rows, window;
    float scale;
};

static int64_t row_width(const struct cached *c)
{
    return (c->H + 2 * c->Hk) * c->d;
}

size_t KERNEL(attention_cached_scratch)(const struct device *device, const struct op_call *call)
{
    return 4 * (size_t)call->in[2]->dim[1] * threads_count(device->threads);
}

static void cached_append(const struct cached *c, int64_t b)
{
    int64_t width = row_width(c), kv_width = c->Hk * c->d;
    const float *new_k = c->qkv + b * c->T * width + c->H * c->d;
    float *k = c->k + (b * c->capacity + c->start[b]) * kv_width;
    float *v = c->v + (b * c->capacity + c->start[b]) * kv_width;

    for (int64_t t = 0; t < c->T && c->start[b] + t < c->capacity; t++) {
        memcpy(k + t * kv_width, new_k + t * width, 4 * (size_t)kv_width);
        memcpy(v + t * kv_width, new_k + t * width + kv_width, 4 * (size_t)kv_width);
    }
}

/* Scores of keys low..at; with biases they are scaled here. */
static float cached_scores(const struct cached *c, const float *q, const float *k, int64_t low,
                           int64_t at, int64_t head, float *score)
{
    int64_t kv_width = c->Hk * c->d;

    for (int64_t j = low; j <= at; j++)
        score[j] = cblas_sdot((int)c->d, q, 1, k + j * kv_width, 1);
    if (!c->bias)
        return c->scale;
    for (int64_t j = low; j <= at; j++) {
        int64_t distance = at - j < c->bias_rows ? at - j : c->bias_rows - 1;

        score[j] = score[j] * c->scale + c->bias[distance * c->H + head];
    }
    return 1;
}

static void cached_query(const struct cached *c, int64_t b, int64_t t, int64_t head, float *score)
{
    int64_t kv_width = c->Hk * c->d, row = b * c->T + t, last = c->start[b] + t, low;
    int64_t in = b * c->capacity * kv_width + head / (c->H / c->Hk) * c->d;
    const float *q = c->qkv + row * row_width(c) + head * c->d;
    float *y = c->y + row * c->H * c->d + head * c->d, scale;

    last = last < c->capacity ? last : c->capacity - 1; /* padding sees what is there */
    low = c->window > 0 && last >= c->window ? last + 1 - c->window : 0;
    scale = cached_scores(c, q, c->k + in, low, last, head, score);
    softmax_row(score, low, last + 1, last + 1, scale);
    memset(y, 0, 4 * (size_t)c->d);
    for (int64_t j = low; j <= last; j++) {
        const float *v = c->v + in + j * kv_width;

        for (int64_t i = 0; i < c->d; i++)
            y[i] += score[j] * v[i];
    }
}

static void cached_share(void *argument, int64_t from, int64_t to, unsigned thread)
{
    const struct cached *c = argument;
    float *score = c->scratch + (int64_t)thread * c->capacity;

    for (int64_t b = from; b < to; b++) {
        cached_append(c, b);
        for (int64_t t = 0; t < c->T; t++)
            for (int64_t head = 0; head < c->H; head++)
                cached_query(c, b, t, head, score);
    }
}

static struct cached cached_of(struct device *device, const struct op_call *call)
{
    struct cached c = {.qkv = tensor_f32(call->in[0]), .k = tensor_f32(call->in[2]),
                       .v = tensor_f32(call->in[3]), .start = tensor_i32(call->in[1]),
                       .capacity = call->in[2]->dim[1], .y = tensor_f32(call->out[0]),
                       .H = call->whole[0], .Hk = call->whole[1], .d = call->whole[2],
                       .B = call->whole[3], .scratch = device->scratch};

    c.T = tensor_rows(call->in[0]) / c.B;
    return c;
}

void KERNEL(attention_cached_forward)(struct device *device, const struct op_call *call)
{
    struct cached c = cached_of(device, call);

    c.scale = 1.0f / sqrtf((float)c.d);
    threads_run(device->threads, c.B, 1, cached_share, &c);
}

void KERNEL(attend_cached_forward)(struct device *device, const struct op_call *call)
{
    struct cached c = cached_of(device, call);

    c.scale = (float)call->real[0];
    c.window = call->whole[4];
    if (call->in[4]) {
        c.bias = tensor_f32(call->in[4]);
        c.bias_rows = tensor_rows(call->in[4]);
    }
    threads_run(device->threads, c.B, 1, cached_share, &c);
}
