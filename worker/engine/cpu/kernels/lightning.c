/* lightning.c - linear attention with decay, in chunks: time linear in length.
 *
 * Within a chunk the masked products are formed as they are; what came before is a state of
 * (dk, e). All powers of the decay are of exponents >= 0 of a number <= 1, so nothing overflows
 * (Qin et al. 2024, Lightning Attention-2, algorithms 1 and 2, with 0-based rows: row r of a
 * chunk of m sees the state times decay^(r+1), and gives to it times decay^(m-1-r)).
 * Chunks also end where a document ends; its successor begins with an empty state. */
#include "worker/engine/cpu/kernels/gemm.h"
#include "worker/engine/cpu/kernels/loop.h"

#include "worker/engine/ops.h"

#include <math.h>
#include <string.h>

#define CHUNK 64
#define ROWS_LEAST 8

struct lights {
    const float *x, *slope;
    const int32_t *first, *take;
    float *y, *state;
    const float *dy;
    float *dx;
    float *scratch;
    int64_t H, dk, e, B, T, width;
};

static struct lights lightning_of(struct device *device, const struct op_call *call)
{
    struct lights l = {.x = tensor_f32(call->in[0]), .slope = tensor_f32(call->in[1]),
                          .scratch = device->scratch, .H = call->whole[0], .dk = call->whole[1],
                          .e = call->whole[2], .B = call->whole[3]};

    l.T = tensor_rows(call->in[0]) / l.B;
    l.width = l.H * (2 * l.dk + l.e);
    return l;
}

static int64_t thread_floats(int64_t dk, int64_t e, int64_t T)
{
    return dk * e + 2 * CHUNK * CHUNK + CHUNK * (dk > e ? dk : e) + CHUNK + 1 + T + 1;
}

size_t KERNEL(lightning_scratch)(const struct device *device, const struct op_call *call)
{
    int64_t T = tensor_rows(call->in[0]) / call->whole[3];

    return 4 * (size_t)thread_floats(call->whole[1], call->whole[2], T) *
           threads_count(device->threads);
}

/* A thread's memory, and the head it works on. */
struct desk {
    float *S, *A, *G, *rows; /* (dk, e), (CHUNK, CHUNK) twice, (CHUNK, max(dk, e)) */
    float *power;            /* decay^0 .. decay^CHUNK                             */
    int32_t *start;          /* of each chunk, and the end after the last          */
    int64_t chunks, row;     /* row: first of the sequence in the batch            */
    const float *q, *k, *v;  /* of the sequence's first row                        */
};

/* Chunks of at most CHUNK tokens that end with their document. */
static void cut_chunks(const struct lights *l, struct desk *d)
{
    d->chunks = 0;
    d->start[0] = 0;
    for (int64_t t = 1; t <= l->T; t++) {
        bool begins = t < l->T && l->first && l->first[d->row + t] == t;

        if (t == l->T || begins || t - d->start[d->chunks] == CHUNK)
            d->start[++d->chunks] = (int32_t)t;
    }
}

static struct desk desk_of(const struct lights *l, unsigned thread, int64_t unit)
{
    int64_t wide = l->dk > l->e ? l->dk : l->e, h = unit % l->H;
    struct desk d = {.S = l->scratch + (int64_t)thread * thread_floats(l->dk, l->e, l->T)};

    d.A = d.S + l->dk * l->e;
    d.G = d.A + CHUNK * CHUNK;
    d.rows = d.G + CHUNK * CHUNK;
    d.power = d.rows + CHUNK * wide;
    d.start = (int32_t *)(d.power + CHUNK + 1);
    d.row = unit / l->H * l->T;
    d.q = l->x + d.row * l->width + h * l->dk;
    d.k = d.q + l->H * l->dk;
    d.v = l->x + d.row * l->width + 2 * l->H * l->dk + h * l->e;
    for (int i = 0; i <= CHUNK; i++)
        d.power[i] = expf(-l->slope[h] * (float)i);
    cut_chunks(l, &d);
    return d;
}

static bool begins_document(const struct lights *l, const struct desk *d, int64_t t)
{
    return t == 0 || (l->first && l->first[d->row + t] == t);
}

/* out (m, m) = (a b') with decay^(r-c) below and on the diagonal, 0 above. */
static void masked_product(const struct desk *d, const float *a, int64_t a_stride, const float *b,
                           int64_t b_stride, int64_t m, int64_t inner, float *out)
{
    struct gemm g = {.b_transposed = true, .rows = m, .columns = m, .inner = inner, .a = a,
                     .a_stride = a_stride, .b = b, .b_stride = b_stride, .c = out,
                     .c_stride = CHUNK};

    gemm_single(&g);
    for (int64_t r = 0; r < m; r++) {
        for (int64_t c = 0; c <= r; c++)
            out[r * CHUNK + c] *= d->power[r - c];
        memset(out + r * CHUNK + r + 1, 0, 4 * (size_t)(m - r - 1));
    }
}

/* rows (m, columns) = x, row r times decay^(r+1), or counted from the end decay^(m-1-r). */
static const float *decayed(const struct desk *d, const float *x, int64_t stride, int64_t m,
                            int64_t columns, bool from_end)
{
    for (int64_t r = 0; r < m; r++) {
        float factor = d->power[from_end ? m - 1 - r : r + 1];

        for (int64_t i = 0; i < columns; i++)
            d->rows[r * columns + i] = factor * x[r * stride + i];
    }
    return d->rows;
}

/* S (dk, e) = decay^m S + k' v, k already decayed. */
static void add_to_state(const struct lights *l, const struct desk *d, const float *k,
                         int64_t k_stride, const float *v, int64_t v_stride, int64_t m)
{
    struct gemm g = {.a_transposed = true, .rows = l->dk, .columns = l->e, .inner = m, .a = k,
                     .a_stride = k_stride, .b = v, .b_stride = v_stride, .c = d->S,
                     .c_stride = l->e, .accumulates = true};

    for (int64_t i = 0; i < l->dk * l->e; i++)
        d->S[i] *= d->power[m];
    gemm_single(&g);
}

static void forward_chunk(const struct lights *l, const struct desk *d, int64_t c, float *y)
{
    int64_t t = d->start[c], m = d->start[c + 1] - t, w = l->width, out = l->H * l->e;
    const float *q = d->q + t * w, *k = d->k + t * w, *v = d->v + t * w;
    struct gemm inside = {.rows = m, .columns = l->e, .inner = m, .a = d->A, .a_stride = CHUNK,
                          .b = v, .b_stride = w, .c = y + t * out, .c_stride = out};
    struct gemm before = {.rows = m, .columns = l->e, .inner = l->dk, .a_stride = l->dk,
                          .b = d->S, .b_stride = l->e, .c = y + t * out, .c_stride = out,
                          .accumulates = true};

    masked_product(d, q, w, k, w, m, l->dk, d->A);
    gemm_single(&inside);
    if (!begins_document(l, d, t)) {
        before.a = decayed(d, q, w, m, l->dk, false);
        gemm_single(&before);
    } else {
        memset(d->S, 0, 4 * (size_t)(l->dk * l->e));
    }
    add_to_state(l, d, decayed(d, k, w, m, l->dk, true), l->dk, v, w, m);
}

static void forward_share(void *argument, int64_t from, int64_t to, unsigned thread)
{
    const struct lights *l = argument;

    for (int64_t unit = from; unit < to; unit++) {
        struct desk d = desk_of(l, thread, unit);

        for (int64_t c = 0; c < d.chunks; c++)
            forward_chunk(l, &d, c, l->y + d.row * l->H * l->e + unit % l->H * l->e);
    }
}

void KERNEL(lightning_forward)(struct device *device, const struct op_call *call)
{
    struct lights l = lightning_of(device, call);

    l.first = call->in[2] ? tensor_i32(call->in[2]) : NULL;
    l.y = tensor_f32(call->out[0]);
    threads_run(device->threads, l.B * l.H, 1, forward_share, &l);
}

/* Gradients of one head's sequence: dy, and where those of q, k and v lie. */
struct back {
    const float *dy;
    float *dq, *dk, *dv;
};

/* dq += masked(dy v') k + decayed(dy S'), S as in forward. */
static void backward_queries(const struct lights *l, const struct desk *d,
                             const struct back *b, int64_t c)
{
    int64_t t = d->start[c], m = d->start[c + 1] - t, w = l->width, out = l->H * l->e;
    const float *k = d->k + t * w, *v = d->v + t * w, *dy = b->dy + t * out;
    struct gemm inside = {.rows = m, .columns = l->dk, .inner = m, .a = d->G, .a_stride = CHUNK,
                          .b = k, .b_stride = w, .c = b->dq + t * w, .c_stride = w,
                          .accumulates = true};
    struct gemm before = {.b_transposed = true, .rows = m, .columns = l->dk, .inner = l->e,
                          .a_stride = l->e, .b = d->S, .b_stride = l->e, .c = b->dq + t * w,
                          .c_stride = w, .accumulates = true};

    masked_product(d, dy, out, v, w, m, l->e, d->G);
    gemm_single(&inside);
    if (!begins_document(l, d, t)) {
        before.a = decayed(d, dy, out, m, l->e, false);
        gemm_single(&before);
    } else {
        memset(d->S, 0, 4 * (size_t)(l->dk * l->e));
    }
    add_to_state(l, d, decayed(d, k, w, m, l->dk, true), l->dk, v, w, m);
}

/* to (m, columns) += a' from, a (m, m) the masked products. */
static void turned_product(const float *a, const float *from, int64_t from_stride, int64_t m,
                           int64_t columns, float *to, int64_t to_stride)
{
    struct gemm g = {.a_transposed = true, .rows = m, .columns = columns, .inner = m, .a = a,
                     .a_stride = CHUNK, .b = from, .b_stride = from_stride, .c = to,
                     .c_stride = to_stride, .accumulates = true};

    gemm_single(&g);
}

/* With T the state of gradients from later chunks, in the place of S:
 * dk += masked(dy v')' q + decayed(v T'), dv += masked(q k')' dy + decayed(k T),
 * T = decay^m T + decayed(q)' dy. */
static void backward_keys(const struct lights *l, const struct desk *d, const struct back *b,
                          int64_t c)
{
    int64_t t = d->start[c], m = d->start[c + 1] - t, w = l->width, out = l->H * l->e;
    const float *q = d->q + t * w, *k = d->k + t * w, *v = d->v + t * w, *dy = b->dy + t * out;
    struct gemm to_k = {.b_transposed = true, .rows = m, .columns = l->dk, .inner = l->e,
                        .a_stride = l->e, .b = d->S, .b_stride = l->e, .c = b->dk + t * w,
                        .c_stride = w, .accumulates = true};
    struct gemm to_v = {.rows = m, .columns = l->e, .inner = l->dk, .a_stride = l->dk, .b = d->S,
                        .b_stride = l->e, .c = b->dv + t * w, .c_stride = w, .accumulates = true};

    masked_product(d, q, w, k, w, m, l->dk, d->A);
    masked_product(d, dy, out, v, w, m, l->e, d->G);
    turned_product(d->G, q, w, m, l->dk, b->dk + t * w, w);
    turned_product(d->A, dy, out, m, l->e, b->dv + t * w, w);
    to_k.a = decayed(d, v, w, m, l->e, true);
    gemm_single(&to_k);
    to_v.a = decayed(d, k, w, m, l->dk, true);
    gemm_single(&to_v);
    add_to_state(l, d, decayed(d, q, w, m, l->dk, false), l->dk, dy, out, m);
    if (begins_document(l, d, t))
        memset(d->S, 0, 4 * (size_t)(l->dk * l->e));
}

static void backward_share(void *argument, int64_t from, int64_t to, unsigned thread)
{
    const struct lights *l = argument;

    for (int64_t unit = from; unit < to; unit++) {
        struct desk d = desk_of(l, thread, unit);
        struct back b = {.dy = l->dy + d.row * l->H * l->e + unit % l->H * l->e,
                         .dq = l->dx + (d.q - l->x), .dk = l->dx + (d.k - l->x),
                         .dv = l->dx + (d.v - l->x)};

        for (int64_t c = 0; c < d.chunks; c++)
            backward_queries(l, &d, &b, c);
        memset(d.S, 0, 4 * (size_t)(l->dk * l->e));
        for (int64_t c = d.chunks; c-- > 0;)
            backward_keys(l, &d, &b, c);
    }
}

void KERNEL(lightning_backward)(struct device *device, const struct op_call *call)
{
    struct lights l = lightning_of(device, call);

    l.first = call->in[2] ? tensor_i32(call->in[2]) : NULL;
    l.dy = call->out[0]->grad;
    l.dx = device_grad(device, call->in[0], NULL);
    threads_run(device->threads, l.B * l.H, 1, backward_share, &l);
}

static void step_token(const struct lights *l, int64_t unit, int64_t t)
{
    int64_t h = unit % l->H, row = unit / l->H * l->T + t;
    const float *q = l->x + row * l->width + h * l->dk, *k = q + l->H * l->dk;
    const float *v = l->x + row * l->width + 2 * l->H * l->dk + h * l->e;
    float *y = l->y + row * l->H * l->e + h * l->e, *S = l->state + unit * l->dk * l->e;
    float decay = expf(-l->slope[h]);

    for (int64_t i = 0; i < l->dk; i++)
        FOR_VECTORS(0, l->e, j, part, {
            vec s = load(S + i * l->e + j, part) * decay + load(v + j, part) * k[i];

            store(S + i * l->e + j, s, part);
            put(y + j, s * q[i], part, false);
        })
}

static void step_share(void *argument, int64_t from, int64_t to, unsigned thread)
{
    const struct lights *l = argument;

    (void)thread;
    for (int64_t unit = from; unit < to; unit++)
        for (int64_t t = 0; t < l->take[unit / l->H]; t++)
            step_token(l, unit, t);
}

void KERNEL(lightning_step_forward)(struct device *device, const struct op_call *call)
{
    struct lights l = lightning_of(device, call);

    l.take = tensor_i32(call->in[2]);
    l.state = tensor_f32(call->in[3]);
    l.y = tensor_f32(call->out[0]);
    memset(l.y, 0, 4 * (size_t)tensor_count(call->out[0]));
    threads_run(device->threads, l.B * l.H, 1, step_share, &l);
}

struct lrpe {
    const float *x, *theta, *dy;
    const int32_t *position;
    float *y, *dx, *dtheta;
    int64_t H, d, dk, from, to, N;
    enum activation f;
};

static struct lrpe lrpe_of(const struct op_call *call)
{
    struct lrpe l = {.x = tensor_f32(call->in[0]), .H = call->whole[0], .d = call->whole[1],
                     .f = (enum activation)call->whole[2], .from = tensor_columns(call->in[0]),
                     .to = tensor_columns(call->out[0]), .N = tensor_rows(call->in[0])};

    if (call->in[2]) {
        l.theta = tensor_f32(call->in[2]);
        l.position = tensor_i32(call->in[1]);
    }
    l.dk = l.theta ? 2 * l.d : l.d;
    return l;
}

static float act(enum activation f, float x)
{
    if (f == ACTIVATION_SILU)
        return x / (1 + expf(-x));
    if (f == ACTIVATION_ELU1)
        return x > 0 ? 1 + x : expf(x);
    return x;
}

static float act_slope(enum activation f, float x)
{
    float s = 1 / (1 + expf(-x));

    if (f == ACTIVATION_SILU)
        return s * (1 + x * (1 - s));
    if (f == ACTIVATION_ELU1)
        return x > 0 ? 1 : expf(x);
    return 1;
}

/* Angles in double: positions times angles reach thousands, and float32 would lose them. */
static void turn_of(const struct lrpe *l, int64_t n, int64_t u, float *cosine, float *sine)
{
    double p = l->theta ? (double)l->position[n] * l->theta[u % (l->H * l->d)] : 0;

    *cosine = l->theta ? (float)cos(p) : 1;
    *sine = l->theta ? (float)sin(p) : 0;
}

static void lrpe_share(void *argument, int64_t from, int64_t to, unsigned thread)
{
    const struct lrpe *l = argument;

    (void)thread;
    for (int64_t n = from; n < to; n++) {
        const float *x = l->x + n * l->from;
        float *y = l->y + n * l->to;

        for (int64_t u = 0; u < 2 * l->H * l->d; u++) {
            float a = act(l->f, x[u]), cosine, sine, *at = y + u / l->d * l->dk + u % l->d;

            turn_of(l, n, u, &cosine, &sine);
            at[0] = a * cosine;
            if (l->theta)
                at[l->d] = a * sine;
        }
        memcpy(y + 2 * l->H * l->dk, x + 2 * l->H * l->d, 4 * (size_t)(l->H * l->d));
    }
}

void KERNEL(lrpe_forward)(struct device *device, const struct op_call *call)
{
    struct lrpe l = lrpe_of(call);

    l.y = tensor_f32(call->out[0]);
    threads_run(device->threads, l.N, ROWS_LEAST, lrpe_share, &l);
}

static void lrpe_back_share(void *argument, int64_t from, int64_t to, unsigned thread)
{
    const struct lrpe *l = argument;

    (void)thread;
    for (int64_t n = from; n < to; n++) {
        const float *x = l->x + n * l->from, *dy = l->dy + n * l->to;
        float *dx = l->dx + n * l->from;

        for (int64_t u = 0; u < 2 * l->H * l->d; u++) {
            const float *g = dy + u / l->d * l->dk + u % l->d;
            float cosine, sine;

            turn_of(l, n, u, &cosine, &sine);
            dx[u] += act_slope(l->f, x[u]) * (g[0] * cosine + (l->theta ? g[l->d] * sine : 0));
        }
        for (int64_t u = 0; u < l->H * l->d; u++)
            dx[2 * l->H * l->d + u] += dy[2 * l->H * l->dk + u];
    }
}

/* Angles get their gradient from all rows: threads share out angles, not rows. */
static void theta_share(void *argument, int64_t from, int64_t to, unsigned thread)
{
    const struct lrpe *l = argument;
    int64_t half = l->H * l->d;

    (void)thread;
    for (int64_t w = from; w < to; w++) {
        double sum = 0;

        for (int64_t n = 0; n < l->N; n++) {
            for (int64_t u = w; u < 2 * half; u += half) {
                const float *g = l->dy + n * l->to + u / l->d * l->dk + u % l->d;
                float cosine, sine;

                turn_of(l, n, u, &cosine, &sine);
                sum += (double)l->position[n] * act(l->f, l->x[n * l->from + u]) *
                       (g[l->d] * cosine - g[0] * sine);
            }
        }
        l->dtheta[w] += (float)sum;
    }
}

void KERNEL(lrpe_backward)(struct device *device, const struct op_call *call)
{
    struct lrpe l = lrpe_of(call);

    l.dy = call->out[0]->grad;
    if (call->in[0]->grad) {
        l.dx = device_grad(device, call->in[0], NULL);
        threads_run(device->threads, l.N, ROWS_LEAST, lrpe_back_share, &l);
    }
    if (call->in[2] && call->in[2]->grad) {
        l.dtheta = device_grad(device, call->in[2], NULL);
        threads_run(device->threads, l.H * l.d, ROWS_LEAST, theta_share, &l);
    }
}
