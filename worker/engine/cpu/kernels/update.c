/* update.c - the optimiser's two passes over flat arrays. */
#include "worker/engine/cpu/kernels/loop.h"

#include <math.h>

/* The sum has one partial per block and adds them in order: the same bits for any number
 * of threads. */
#define BLOCK 65536

struct squares {
    const float *x;
    double *partial;
    int64_t count;
};

static double block_squares(const float *x, int64_t count)
{
    double total = 0;
    int64_t i = 0;

    while (count - i >= VEC_WIDTH) {
        /* 64 vectors per float sum: short enough to keep full accuracy. */
        int64_t end = count - i > 64 * VEC_WIDTH ? i + 64 * VEC_WIDTH : count;
        vec sum = {0};

        for (; i + VEC_WIDTH <= end; i += VEC_WIDTH) {
            vec v = vec_load(x + i);

            sum += v * v;
        }
        total += vec_sum(sum);
    }
    for (; i < count; i++)
        total += (double)x[i] * x[i];
    return total;
}

static void squares_share(void *argument, int64_t from, int64_t to, unsigned thread)
{
    const struct squares *s = argument;

    (void)thread;
    for (int64_t b = from; b < to; b++) {
        int64_t left = s->count - b * BLOCK;

        s->partial[b] = block_squares(s->x + b * BLOCK, left < BLOCK ? left : BLOCK);
    }
}

static int64_t block_count(const struct op_call *call)
{
    return (tensor_count(call->in[0]) + BLOCK - 1) / BLOCK;
}

size_t KERNEL(sum_squares_scratch)(const struct device *device, const struct op_call *call)
{
    (void)device;
    return sizeof(double) * (size_t)block_count(call);
}

void KERNEL(sum_squares_forward)(struct device *device, const struct op_call *call)
{
    struct squares s = {tensor_f32(call->in[0]), device->scratch, tensor_count(call->in[0])};
    double total = 0;

    threads_run(device->threads, block_count(call), 1, squares_share, &s);
    for (int64_t b = 0; b < block_count(call); b++)
        total += s.partial[b];
    tensor_f32(call->out[0])[0] = (float)total;
}

struct adamw {
    float *p, *g, *m, *v;
    float rate, beta1, beta2, eps, keep, scale, m_fix, v_fix;
};

static inline vec vec_root(vec x)
{
    for (int i = 0; i < VEC_WIDTH; i++)
        x[i] = sqrtf(x[i]);
    return x;
}

/* Whole vectors and a padded tail alike: an element's bits do not depend on where the range that it
 * is in begins, so optimisers that share the work out agree with one that does all of it. */
static void adamw_share(void *argument, int64_t from, int64_t to, unsigned thread)
{
    const struct adamw *a = argument;

    (void)thread;
    FOR_VECTORS(from, to, i, part, {
        vec g = load(a->g + i, part) * a->scale;
        vec m = a->beta1 * load(a->m + i, part) + (1 - a->beta1) * g;
        vec v = a->beta2 * load(a->v + i, part) + (1 - a->beta2) * g * g;
        vec step = a->rate * (m * a->m_fix) / (vec_root(v * a->v_fix) + a->eps);

        store(a->m + i, m, part);
        store(a->v + i, v, part);
        store(a->p + i, a->keep * load(a->p + i, part) - step, part);
        store(a->g + i, vec_set(0), part);
    })
}

void KERNEL(adamw_forward)(struct device *device, const struct op_call *call)
{
    const double *real = call->real;
    double step = (double)call->whole[0];
    struct adamw a = {.p = tensor_f32(call->in[0]), .g = tensor_f32(call->in[1]),
                      .m = tensor_f32(call->in[2]), .v = tensor_f32(call->in[3]),
                      .rate = (float)real[0], .beta1 = (float)real[1], .beta2 = (float)real[2],
                      .eps = (float)real[3], .keep = (float)(1 - real[0] * real[4]),
                      .scale = (float)real[5], .m_fix = (float)(1 / (1 - pow(real[1], step))),
                      .v_fix = (float)(1 / (1 - pow(real[2], step)))};

    threads_run(device->threads, tensor_count(call->in[0]), 16384, adamw_share, &a);
}
