/* mlp.cu - two products with an activation between them, as one op. In bf16 what lies between is
 * bf16 only: the first product writes it so, and GELU and its slope are epilogues of the products
 * where cuBLASLt has an algorithm with them; else kernels do it in place. (Of its other epilogues,
 * those that sum gradients of biases would leave them in bf16; SwiGLU is none.) */
#include "worker/engine/cuda/cuda.h"

struct shape {
    int64_t N, K, F, M, width; /* width: of the first product, 2 F where gated */
    bool gated;
    const float *w1, *b1, *w2;
    void *inner, *active; /* (N, width), (N, F): what forward keeps */
};

struct mlp_room {
    void *x, *dy, *w1, *w2, *b1;
    void *slope; /* gradient of inner; that of active first, where F is the width */
    void *dactive;
    float *sums;
};

static struct shape shape_of(const struct op_call *call)
{
    struct shape m = {};

    m.N = tensor_rows(call->in[0]);
    m.K = tensor_columns(call->in[0]);
    m.width = tensor_rows(call->in[1]);
    m.M = tensor_rows(call->in[3]);
    m.gated = call->whole[0] != 0;
    m.F = m.gated ? m.width / 2 : m.width;
    m.w1 = tensor_f32(call->in[1]);
    m.b1 = call->in[2] ? tensor_f32(call->in[2]) : NULL;
    m.w2 = tensor_f32(call->in[3]);
    m.inner = call->out[1]->values;
    m.active = call->out[2]->values;
    return m;
}

static struct mlp_room room_cut(const struct device *device, const struct shape *m,
                                struct cutter *cutter)
{
    size_t item = device->config.bf16 ? 2 : 4;
    struct mlp_room r;

    r.x = cut(cutter, operand_bytes(device, m->N * m->K));
    r.dy = cut(cutter, operand_bytes(device, m->N * m->M));
    r.w1 = cut(cutter, weight_operand_bytes(device, m->w1, m->width * m->K));
    r.w2 = cut(cutter, weight_operand_bytes(device, m->w2, m->M * m->F));
    r.b1 = cut(cutter, m->b1 ? weight_operand_bytes(device, m->b1, m->width) : 0);
    r.slope = cut(cutter, item * (size_t)(m->N * m->width));
    r.dactive = m->gated ? cut(cutter, item * (size_t)(m->N * m->F)) : r.slope;
    r.sums = (float *)cut(cutter, 4 * SUM_PARTS * max_u64((uint64_t)m->width, (uint64_t)m->M));
    return r;
}

size_t cuda_mlp_scratch(const struct device *device, const struct op_call *call)
{
    struct shape m = shape_of(call);
    struct cutter cutter = {NULL, 0};

    room_cut(device, &m, &cutter);
    return cutter.used;
}

template <typename item>
static __global__ void active_kernel(const item *inner, item *active, bool gated, int64_t F,
                                     int64_t count)
{
    FOR_EACH(i, count) {
        int64_t at = gated ? i / F * 2 * F + i % F : i;
        float v = (float)inner[at];

        active[i] = (item)(gated ? v * sigmoid(v) * (float)inner[at + F] : v * gelu_gate(v));
    }
}

/* dactive may be slope: each element is read by the thread that writes it. */
template <typename item>
static __global__ void slope_kernel(const item *inner, const item *dactive, item *slope,
                                    bool gated, int64_t F, int64_t count)
{
    FOR_EACH(i, count) {
        int64_t at = gated ? i / F * 2 * F + i % F : i;
        float v = (float)inner[at], dy = (float)dactive[i];

        if (gated) {
            float s = sigmoid(v);

            slope[at] = (item)(dy * (float)inner[at + F] * s * (1 + v * (1 - s)));
            slope[at + F] = (item)(dy * v * s);
        } else {
            slope[at] = (item)(dy * gelu_slope(v));
        }
    }
}

static void activate(struct device *device, const struct shape *m)
{
    int64_t count = m->N * m->F;

    if (device->config.bf16)
        LAUNCH(device, active_kernel<__nv_bfloat16>, grid_of(count), THREADS, 0,
               (const __nv_bfloat16 *)m->inner, (__nv_bfloat16 *)m->active, m->gated, m->F, count);
    else
        LAUNCH(device, active_kernel<float>, grid_of(count), THREADS, 0, (const float *)m->inner,
               (float *)m->active, m->gated, m->F, count);
}

static void slopes(struct device *device, const struct shape *m, const struct mlp_room *r)
{
    int64_t count = m->N * m->F;

    if (device->config.bf16)
        LAUNCH(device, slope_kernel<__nv_bfloat16>, grid_of(count), THREADS, 0,
               (const __nv_bfloat16 *)m->inner, (const __nv_bfloat16 *)r->dactive,
               (__nv_bfloat16 *)r->slope, m->gated, m->F, count);
    else
        LAUNCH(device, slope_kernel<float>, grid_of(count), THREADS, 0, (const float *)m->inner,
               (const float *)r->dactive, (float *)r->slope, m->gated, m->F, count);
}

/* c (rows, columns) = a b' or a b, of row-major dense arrays. */
static struct product product_of(const struct device *device, int64_t rows, int64_t columns,
                                 int64_t inner, const void *a, const void *b, bool b_transposed,
                                 void *c)
{
    struct product p = {};

    p.is_bf16 = device->config.bf16;
    p.b_transposed = b_transposed;
    p.rows = rows;
    p.columns = p.c_stride = columns;
    p.inner = p.a_stride = inner;
    p.b_stride = b_transposed ? inner : columns;
    p.a = a;
    p.b = b;
    p.c = c;
    return p;
}

/* inner = x w1' + b1, active = f(inner). */
static void first_forward(struct device *device, const struct shape *m, const void *x,
                          const struct mlp_room *r)
{
    const void *w1 = weight_operand(device, m->w1, r->w1, m->width * m->K);
    struct product p = product_of(device, m->N, m->width, m->K, x, w1, true, m->inner);

    p.c_is_bf16 = p.is_bf16;
    p.bias = m->b1;
    if (p.c_is_bf16 && m->b1)
        p.bias = weight_operand(device, m->b1, r->b1, m->width);
    if (!m->gated && p.bias) {
        struct product fused = p;

        fused.c = m->active;
        fused.aux = m->inner;
        fused.epilogue = EPILOGUE_GELU;
        if (product_fuses(device, &fused)) {
            product_run(device, &fused);
            return;
        }
    }
    product_run(device, &p);
    activate(device, m);
}

void cuda_mlp_forward(struct device *device, const struct op_call *call)
{
    struct shape m = shape_of(call);
    struct cutter cutter = {(char *)device->scratch, 0};
    struct mlp_room r = room_cut(device, &m, &cutter);
    const void *x = operand(device, tensor_f32(call->in[0]), r.x, m.N * m.K);
    struct product p;

    first_forward(device, &m, x, &r);
    p = product_of(device, m.N, m.M, m.F, m.active,
                   weight_operand(device, m.w2, r.w2, m.M * m.F), true, call->out[0]->values);
    p.bias = call->in[4] ? call->in[4]->values : NULL;
    product_run(device, &p);
}

/* The gradient of inner, into r->slope. */
static void slope_backward(struct device *device, const struct shape *m, const void *dy,
                           const struct mlp_room *r)
{
    const void *w2 = weight_operand(device, m->w2, r->w2, m->M * m->F);
    struct product p = product_of(device, m->N, m->F, m->M, dy, w2, false, r->dactive);

    p.c_is_bf16 = p.is_bf16;
    if (!m->gated) {
        struct product fused = p;

        fused.aux = m->inner;
        fused.epilogue = EPILOGUE_GELU_SLOPE;
        if (product_fuses(device, &fused)) {
            product_run(device, &fused);
            return;
        }
    }
    product_run(device, &p);
    slopes(device, m, r);
}

/* dw (M, K) += dy' x. */
static void weight_backward(struct device *device, struct tensor *w, const void *dy,
                            const void *x, int64_t N)
{
    int64_t M = tensor_rows(w), K = tensor_columns(w);
    struct product p;
    bool fresh;

    if (!w->grad)
        return;
    p = product_of(device, M, K, N, dy, x, false, device_grad(device, w, &fresh));
    p.a_transposed = true;
    p.a_stride = M;
    p.accumulates = !fresh;
    product_run(device, &p);
}

void cuda_mlp_backward(struct device *device, const struct op_call *call)
{
    struct tensor *x = call->in[0], *b1 = call->in[2], *b2 = call->in[4];
    struct shape m = shape_of(call);
    struct cutter cutter = {(char *)device->scratch, 0};
    struct mlp_room r = room_cut(device, &m, &cutter);
    const void *dy = operand(device, call->out[0]->grad, r.dy, m.N * m.M);
    struct product p;
    bool fresh;

    if (b2 && b2->grad)
        column_sums(device, call->out[0]->grad, m.N, m.M, device_grad(device, b2, NULL), r.sums);
    weight_backward(device, call->in[3], dy, m.active, m.N);
    slope_backward(device, &m, dy, &r);
    if (b1 && b1->grad && device->config.bf16)
        column_sums(device, (const __nv_bfloat16 *)r.slope, m.N, m.width,
                    device_grad(device, b1, NULL), r.sums);
    else if (b1 && b1->grad)
        column_sums(device, (const float *)r.slope, m.N, m.width, device_grad(device, b1, NULL),
                    r.sums);
    if (call->in[1]->grad)
        weight_backward(device, call->in[1], r.slope,
                        operand(device, tensor_f32(x), r.x, m.N * m.K), m.N);
    if (!x->grad)
        return;
    p = product_of(device, m.N, m.K, m.width, r.slope,
                   weight_operand(device, m.w1, r.w1, m.width * m.K), false,
                   device_grad(device, x, &fresh));
    p.accumulates = !fresh;
    product_run(device, &p);
}
