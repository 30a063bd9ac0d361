/* linear.c - y = x w' + b and its three gradients, as matrix products. */
#include "worker/engine/cpu/kernels/gemm.h"
#include "worker/engine/cpu/kernels/vec.h"
#include "worker/engine/packed.h"

/* Rows or columns per thread below which a product is not worth splitting. */
#define SHARE_LEAST 16

static void add_bias(float *c, int64_t rows, int64_t columns, int64_t stride, const float *bias)
{
    for (int64_t r = 0; r < rows; r++) {
        float *row = c + r * stride;
        int64_t i = 0;

        for (; i + VEC_WIDTH <= columns; i += VEC_WIDTH)
            vec_store(row + i, vec_load(row + i) + vec_load(bias + i));
        for (; i < columns; i++)
            row[i] += bias[i];
    }
}

static void run_part(const struct gemm *part)
{
    gemm_single(part);
    if (part->bias)
        add_bias(part->c, part->rows, part->columns, part->c_stride, part->bias);
}

static void rows_share(void *argument, int64_t from, int64_t to, unsigned thread)
{
    struct gemm part = *(const struct gemm *)argument;

    (void)thread;
    part.a += part.a_transposed ? from : from * part.a_stride;
    part.c += from * part.c_stride;
    part.rows = to - from;
    run_part(&part);
}

static void columns_share(void *argument, int64_t from, int64_t to, unsigned thread)
{
    struct gemm part = *(const struct gemm *)argument;

    (void)thread;
    part.b += part.b_transposed ? from * part.b_stride : from;
    part.c += from;
    part.columns = to - from;
    if (part.bias)
        part.bias += from;
    run_part(&part);
}

void KERNEL(gemm_run)(struct device *device, const struct gemm *gemm)
{
    struct gemm copy = *gemm;

    if (gemm->rows <= PACKED_ROWS && gemm->b_transposed && !gemm->a_transposed &&
        !gemm->accumulates)
        KERNEL(few_run)(device, gemm);
    else if (gemm->columns > gemm->rows)
        threads_run(device->threads, gemm->columns, SHARE_LEAST, columns_share, &copy);
    else
        threads_run(device->threads, gemm->rows, SHARE_LEAST, rows_share, &copy);
}

void KERNEL(linear_forward)(struct device *device, const struct op_call *call)
{
    const struct tensor *x = call->in[0], *w = call->in[1], *b = call->in[2], *y = call->out[0];
    int64_t K = tensor_columns(x), M = tensor_rows(w);
    struct gemm product = {.b_transposed = true, .rows = tensor_rows(x), .columns = M, .inner = K,
                           .a = tensor_f32(x), .a_stride = K, .b = tensor_f32(w), .b_stride = K,
                           .c = tensor_f32(y), .c_stride = M, .bias = b ? tensor_f32(b) : NULL};

    KERNEL(gemm_run)(device, &product);
}

struct column_sum {
    const float *from; /* (rows, columns) */
    float *to;
    int64_t rows, columns;
};

static void column_sum_share(void *argument, int64_t from, int64_t to, unsigned thread)
{
    const struct column_sum *sum = argument;

    (void)thread;
    for (int64_t r = 0; r < sum->rows; r++) {
        const float *row = sum->from + r * sum->columns;
        int64_t i = from;

        for (; i + VEC_WIDTH <= to; i += VEC_WIDTH)
            vec_store(sum->to + i, vec_load(sum->to + i) + vec_load(row + i));
        for (; i < to; i++)
            sum->to[i] += row[i];
    }
}

void KERNEL(linear_backward)(struct device *device, const struct op_call *call)
{
    struct tensor *x = call->in[0], *w = call->in[1], *b = call->in[2];
    const float *dy = call->out[0]->grad;
    int64_t N = tensor_rows(x), K = tensor_columns(x), M = tensor_rows(w);
    bool fresh;

    if (x->grad) {
        float *dx = device_grad(device, x, &fresh);
        struct gemm product = {.rows = N, .columns = K, .inner = M, .a = dy, .a_stride = M,
                               .b = tensor_f32(w), .b_stride = K, .c = dx, .c_stride = K,
                               .accumulates = !fresh};

        KERNEL(gemm_run)(device, &product);
    }
    if (w->grad) {
        float *dw = device_grad(device, w, &fresh);
        struct gemm product = {.a_transposed = true, .rows = M, .columns = K, .inner = N,
                               .a = dy, .a_stride = M, .b = tensor_f32(x), .b_stride = K,
                               .c = dw, .c_stride = K, .accumulates = !fresh};

        KERNEL(gemm_run)(device, &product);
    }
    if (b && b->grad) {
        struct column_sum sum = {dy, device_grad(device, b, NULL), N, M};

        threads_run(device->threads, M, 128, column_sum_share, &sum);
    }
}
