/* rows.c - ops that move or reweigh whole rows: embedding, gather, softmax, rotation. */
#include "worker/engine/cpu/kernels/vec.h"

#include <math.h>
#include <string.h>

#define ROWS_LEAST 8

struct embed {
    const int32_t *token, *position;
    float *wte, *wpe; /* values in forward, gradients in backward; either may be NULL there */
    float *y;
    int64_t N, D;
};

static void embed_share(void *argument, int64_t from, int64_t to, unsigned thread)
{
    const struct embed *e = argument;

    (void)thread;
    for (int64_t n = from; n < to; n++) {
        const float *a = e->wte + e->token[n] * e->D;
        const float *b = e->wpe ? e->wpe + e->position[n] * e->D : NULL;

        if (!b)
            memcpy(e->y + n * e->D, a, 4 * (size_t)e->D);
        else
            for (int64_t i = 0; i < e->D; i++)
                e->y[n * e->D + i] = a[i] + b[i];
    }
}

void KERNEL(embed_forward)(struct device *device, const struct op_call *call)
{
    struct embed e = {.token = tensor_i32(call->in[0]), .wte = tensor_f32(call->in[2]),
                      .y = tensor_f32(call->out[0]), .N = tensor_count(call->in[0]),
                      .D = tensor_columns(call->in[2])};

    if (call->in[3]) {
        e.position = tensor_i32(call->in[1]);
        e.wpe = tensor_f32(call->in[3]);
    }
    threads_run(device->threads, e.N, ROWS_LEAST, embed_share, &e);
}

/* Tokens repeat, so threads share out columns, not rows: no two write the same number. */
static void embed_back_share(void *argument, int64_t from, int64_t to, unsigned thread)
{
    const struct embed *e = argument;

    (void)thread;
    for (int64_t n = 0; n < e->N; n++) {
        const float *dy = e->y + n * e->D;
        float *a = e->wte ? e->wte + e->token[n] * e->D : NULL;
        float *b = e->wpe ? e->wpe + e->position[n] * e->D : NULL;

        for (int64_t i = from; a && i < to; i++)
            a[i] += dy[i];
        for (int64_t i = from; b && i < to; i++)
            b[i] += dy[i];
    }
}

void KERNEL(embed_backward)(struct device *device, const struct op_call *call)
{
    struct tensor *wte = call->in[2], *wpe = call->in[3];
    struct embed e = {.token = tensor_i32(call->in[0]), .y = call->out[0]->grad,
                      .N = tensor_count(call->in[0]), .D = tensor_columns(wte)};

    if (wte->grad)
        e.wte = device_grad(device, wte, NULL);
    if (wpe && wpe->grad) {
        e.position = tensor_i32(call->in[1]);
        e.wpe = device_grad(device, wpe, NULL);
    }
    threads_run(device->threads, e.D, 64, embed_back_share, &e);
}

void KERNEL(gather_forward)(struct device *device, const struct op_call *call)
{
    const struct tensor *x = call->in[0], *y = call->out[0];
    const int32_t *index = tensor_i32(call->in[1]);
    int64_t C = tensor_columns(x);

    (void)device;
    for (int64_t m = 0; m < tensor_rows(y); m++)
        memcpy(tensor_f32(y) + m * C, tensor_f32(x) + index[m] * C, 4 * (size_t)C);
}

void KERNEL(gather_backward)(struct device *device, const struct op_call *call)
{
    struct tensor *x = call->in[0];
    const int32_t *index = tensor_i32(call->in[1]);
    const float *dy = call->out[0]->grad;
    float *dx = device_grad(device, x, NULL);
    int64_t C = tensor_columns(x);

    for (int64_t m = 0; m < tensor_rows(call->out[0]); m++)
        for (int64_t i = 0; i < C; i++)
            dx[index[m] * C + i] += dy[m * C + i];
}

struct softmax {
    const float *x, *dy;
    float *y, *dx;
    bool dx_fresh;
    float scale; /* 1 / temperature */
    int64_t C;
};

static void softmax_share(void *argument, int64_t from, int64_t to, unsigned thread)
{
    const struct softmax *s = argument;

    (void)thread;
    for (int64_t r = from; r < to; r++) {
        const float *x = s->x + r * s->C;
        float *y = s->y + r * s->C;
        float highest = x[0], sum = 0;

        for (int64_t i = 1; i < s->C; i++)
            highest = x[i] > highest ? x[i] : highest;
        for (int64_t i = 0; i < s->C; i += VEC_WIDTH) {
            int64_t part = s->C - i < VEC_WIDTH ? s->C - i : VEC_WIDTH;
            vec e = vec_exp((vec_load_part(x + i, part) - highest) * s->scale);

            vec_store_part(y + i, e, part);
            for (int64_t k = 0; k < part; k++)
                sum += e[k];
        }
        for (int64_t i = 0; i < s->C; i++)
            y[i] *= 1.0f / sum;
    }
}

void KERNEL(softmax_forward)(struct device *device, const struct op_call *call)
{
    struct softmax s = {.x = tensor_f32(call->in[0]), .y = tensor_f32(call->out[0]),
                        .scale = (float)(1.0 / call->real[0]), .C = tensor_columns(call->in[0])};

    threads_run(device->threads, tensor_rows(call->in[0]), ROWS_LEAST, softmax_share, &s);
}

static void softmax_back_share(void *argument, int64_t from, int64_t to, unsigned thread)
{
    const struct softmax *s = argument;

    (void)thread;
    for (int64_t r = from; r < to; r++) {
        const float *y = s->y + r * s->C, *dy = s->dy + r * s->C;
        float *dx = s->dx + r * s->C;
        double dot = 0;

        for (int64_t i = 0; i < s->C; i++)
            dot += (double)y[i] * dy[i];
        for (int64_t i = 0; i < s->C; i++) {
            float d = y[i] * (dy[i] - (float)dot) * s->scale;

            dx[i] = s->dx_fresh ? d : dx[i] + d;
        }
    }
}

void KERNEL(softmax_backward)(struct device *device, const struct op_call *call)
{
    struct softmax s = {.y = tensor_f32(call->out[0]), .dy = call->out[0]->grad,
                        .scale = (float)(1.0 / call->real[0]), .C = tensor_columns(call->in[0])};

    s.dx = device_grad(device, call->in[0], &s.dx_fresh);
    threads_run(device->threads, tensor_rows(call->in[0]), ROWS_LEAST, softmax_back_share, &s);
}

/* Rotation: `sign` +1 turns forward; -1 is the transpose, for backward. */
struct rope {
    const float *x, *turns; /* turns (P, d): cosines, then sines, of each position */
    float *y;
    const int32_t *position;
    int64_t turning, heads_all, half; /* q and k heads turn; v heads are copied */
    float sign;
    bool adds;
};

static void rope_head(const struct rope *r, const float *x, float *y, const float *turn)
{
    for (int64_t i = 0; i < r->half; i++) {
        float c = turn[i], s = r->sign * turn[r->half + i];
        float low = x[i] * c - x[r->half + i] * s, high = x[r->half + i] * c + x[i] * s;

        y[i] = r->adds ? y[i] + low : low;
        y[r->half + i] = r->adds ? y[r->half + i] + high : high;
    }
}

static void rope_share(void *argument, int64_t from, int64_t to, unsigned thread)
{
    const struct rope *r = argument;
    int64_t d = 2 * r->half, width = r->heads_all * d;

    (void)thread;
    for (int64_t row = from; row < to; row++) {
        const float *x = r->x + row * width, *turn = r->turns + r->position[row] * d;
        float *y = r->y + row * width;

        for (int64_t h = 0; h < r->turning; h++)
            rope_head(r, x + h * d, y + h * d, turn);
        for (int64_t i = r->turning * d; i < width; i++)
            y[i] = r->adds ? y[i] + x[i] : x[i];
    }
}

static void rope_run(struct device *device, const struct op_call *call, struct rope *r)
{
    r->position = tensor_i32(call->in[1]);
    r->turns = tensor_f32(call->in[2]);
    r->turning = call->whole[0] + call->whole[1];
    r->heads_all = call->whole[0] + 2 * call->whole[1];
    r->half = call->whole[2] / 2;
    threads_run(device->threads, tensor_rows(call->in[0]), ROWS_LEAST, rope_share, r);
}

void KERNEL(rope_forward)(struct device *device, const struct op_call *call)
{
    struct rope r = {.x = tensor_f32(call->in[0]), .y = tensor_f32(call->out[0]), .sign = 1};

    rope_run(device, call, &r);
}

void KERNEL(rope_backward)(struct device *device, const struct op_call *call)
{
    struct rope r = {.x = call->out[0]->grad, .sign = -1};
    bool fresh;

    r.y = device_grad(device, call->in[0], &fresh);
    r.adds = !fresh;
    rope_run(device, call, &r);
}
