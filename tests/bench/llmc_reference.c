/* llmc_reference.c - see llmc_reference.h. Compiled with -O3 -ffast-math -march=native -fopenmp, as
 * llm.c's Makefile does (it writes the first two as -Ofast). */
#include "tests/bench/llmc_reference.h"

#include "common/base/mem.h"

#include <math.h>
#include <omp.h>
#include <string.h>

#define TILE     8
#define NORM_EPS 1e-5f
#define PADDING  128

/* What forward keeps, N = B T rows each but where said; LN1 to STREAM for every layer. */
enum kept {
    ENCODED,
    LN1, LN1_MEAN, LN1_RSTD, QKV,
    SCORE, SHARE, /* (B, heads, T, T): before and after the softmax       */
    ATTENDED, PROJ,
    HALF,         /* the stream between attention and feed-forward        */
    LN2, LN2_MEAN, LN2_RSTD, FC, GELU, OUT,
    STREAM,       /* after the layer                                      */
    LNF, LNF_MEAN, LNF_RSTD,
    LOGIT, PROB,  /* (N, padded)                                          */
    KEPT_END,
};

struct llmc_reference {
    struct llmc_shape shape;
    int64_t padded; /* vocabulary */
    int64_t step;
    int64_t weight_each[LLMC_WEIGHT_END], weight_at[LLMC_WEIGHT_END], weight_count;
    int64_t kept_each[KEPT_END], kept_at[KEPT_END], kept_count;
    float *weight, *grad, *m, *v;
    float *kept, *kept_grad;
};

bool llmc_reference_in_layers(enum llmc_weight kind)
{
    return kind >= LLMC_LN1_G && kind <= LLMC_OUT_B;
}

static void measure_weights(struct llmc_reference *r)
{
    int64_t C = r->shape.C, layers = r->shape.layers;
    const int64_t each[LLMC_WEIGHT_END] = {
        [LLMC_WTE] = r->padded * C, [LLMC_WPE] = r->shape.context * C,
        [LLMC_LN1_G] = C, [LLMC_LN1_B] = C, [LLMC_QKV_W] = 3 * C * C, [LLMC_QKV_B] = 3 * C,
        [LLMC_PROJ_W] = C * C, [LLMC_PROJ_B] = C, [LLMC_LN2_G] = C, [LLMC_LN2_B] = C,
        [LLMC_FC_W] = 4 * C * C, [LLMC_FC_B] = 4 * C, [LLMC_OUT_W] = 4 * C * C, [LLMC_OUT_B] = C,
        [LLMC_LNF_G] = C, [LLMC_LNF_B] = C};

    memcpy(r->weight_each, each, sizeof each);
    for (int kind = 0; kind < LLMC_WEIGHT_END; kind++) {
        r->weight_at[kind] = r->weight_count;
        r->weight_count += each[kind] * (llmc_reference_in_layers(kind) ? layers : 1);
    }
}

static void measure_kept(struct llmc_reference *r)
{
    int64_t N = r->shape.B * r->shape.T, C = r->shape.C, T = r->shape.T;
    int64_t pairs = r->shape.B * r->shape.heads * T * T;
    const int64_t each[KEPT_END] = {
        [ENCODED] = N * C, [LN1] = N * C, [LN1_MEAN] = N, [LN1_RSTD] = N, [QKV] = 3 * N * C,
        [SCORE] = pairs, [SHARE] = pairs, [ATTENDED] = N * C, [PROJ] = N * C, [HALF] = N * C,
        [LN2] = N * C, [LN2_MEAN] = N, [LN2_RSTD] = N, [FC] = 4 * N * C, [GELU] = 4 * N * C,
        [OUT] = N * C, [STREAM] = N * C, [LNF] = N * C, [LNF_MEAN] = N, [LNF_RSTD] = N,
        [LOGIT] = N * r->padded, [PROB] = N * r->padded};

    memcpy(r->kept_each, each, sizeof each);
    for (int kind = 0; kind < KEPT_END; kind++) {
        r->kept_at[kind] = r->kept_count;
        r->kept_count += each[kind] * (kind >= LN1 && kind <= STREAM ? r->shape.layers : 1);
    }
}

struct llmc_reference *llmc_reference_new(const struct llmc_shape *shape)
{
    struct llmc_reference *r = mem_zalloc(sizeof *r);

    CHECK(shape->T <= shape->context && shape->C % shape->heads == 0 && shape->layers > 0);
    r->shape = *shape;
    r->padded = (shape->V + PADDING - 1) / PADDING * PADDING;
    measure_weights(r);
    measure_kept(r);
    r->weight = mem_array((size_t)r->weight_count, sizeof(float));
    r->grad = mem_array((size_t)r->weight_count, sizeof(float));
    r->m = mem_array((size_t)r->weight_count, sizeof(float));
    r->v = mem_array((size_t)r->weight_count, sizeof(float));
    r->kept = mem_array((size_t)r->kept_count, sizeof(float));
    r->kept_grad = mem_array((size_t)r->kept_count, sizeof(float));
    return r;
}

void llmc_reference_free(struct llmc_reference *r)
{
    if (!r)
        return;
    mem_free(r->weight);
    mem_free(r->grad);
    mem_free(r->m);
    mem_free(r->v);
    mem_free(r->kept);
    mem_free(r->kept_grad);
    mem_free(r);
}

static int64_t weight_place(const struct llmc_reference *r, enum llmc_weight kind, int64_t layer)
{
    return r->weight_at[kind] + (llmc_reference_in_layers(kind) ? layer * r->weight_each[kind] : 0);
}

float *llmc_reference_weight(struct llmc_reference *r, enum llmc_weight kind, int64_t layer,
                             int64_t *out_count)
{
    *out_count = kind == LLMC_WTE ? r->shape.V * r->shape.C : r->weight_each[kind];
    return r->weight + weight_place(r, kind, layer);
}

const float *llmc_reference_grad(const struct llmc_reference *r, enum llmc_weight kind,
                                 int64_t layer)
{
    return r->grad + weight_place(r, kind, layer);
}

void llmc_reference_threads(int count)
{
    omp_set_num_threads(count);
}

/* ---- products --------------------------------------------------------------------------- */

/* Each weight that is read serves TILE rows of x. */
static void product_tile(float *restrict y, const float *restrict x, const float *restrict w,
                         const float *restrict b, int64_t K, int64_t M)
{
    for (int64_t m = 0; m < M; m++) {
        float sum[TILE];

        for (int i = 0; i < TILE; i++)
            sum[i] = b ? b[m] : 0;
        for (int64_t k = 0; k < K; k++) {
            float weight = w[m * K + k];

            for (int i = 0; i < TILE; i++)
                sum[i] += x[i * K + k] * weight;
        }
        for (int i = 0; i < TILE; i++)
            y[i * M + m] = sum[i];
    }
}

static void product_row(float *restrict y, const float *restrict x, const float *restrict w,
                        const float *restrict b, int64_t K, int64_t M)
{
    for (int64_t m = 0; m < M; m++) {
        float sum = b ? b[m] : 0;

        for (int64_t k = 0; k < K; k++)
            sum += x[k] * w[m * K + k];
        y[m] = sum;
    }
}

void llmc_reference_product(float *y, const float *x, const float *w, const float *b, int64_t N,
                            int64_t K, int64_t M)
{
    int64_t tiled = N - N % TILE;

#pragma omp parallel for
    for (int64_t n = 0; n < tiled; n += TILE)
        product_tile(y + n * M, x + n * K, w, b, K, M);
    for (int64_t n = tiled; n < N; n++)
        product_row(y + n * M, x + n * K, w, b, K, M);
}

static void add_scaled(float *restrict y, const float *restrict x, float factor, int64_t count)
{
    for (int64_t i = 0; i < count; i++)
        y[i] += factor * x[i];
}

void llmc_reference_product_backward(float *dx, float *dw, float *db, const float *dy,
                                     const float *x, const float *w, int64_t N, int64_t K,
                                     int64_t M)
{
#pragma omp parallel for
    for (int64_t n = 0; n < N; n++)
        for (int64_t m = 0; m < M; m++)
            add_scaled(dx + n * K, w + m * K, dy[n * M + m], K);
#pragma omp parallel for
    for (int64_t m = 0; m < M; m++) {
        for (int64_t n = 0; n < N; n++) {
            if (db)
                db[m] += dy[n * M + m];
            add_scaled(dw + m * K, x + n * K, dy[n * M + m], K);
        }
    }
}

/* ---- layers ----------------------------------------------------------------------------- */

static void embed(float *y, const int32_t *token, const float *wte, const float *wpe,
                  const struct llmc_shape *s)
{
#pragma omp parallel for
    for (int64_t n = 0; n < s->B * s->T; n++)
        for (int64_t i = 0; i < s->C; i++)
            y[n * s->C + i] = wte[token[n] * s->C + i] + wpe[n % s->T * s->C + i];
}

static void embed_backward(float *dwte, float *dwpe, const float *dy, const int32_t *token,
                           const struct llmc_shape *s)
{
    for (int64_t n = 0; n < s->B * s->T; n++) {
        add_scaled(dwte + token[n] * s->C, dy + n * s->C, 1, s->C);
        add_scaled(dwpe + n % s->T * s->C, dy + n * s->C, 1, s->C);
    }
}

static void norm_row(float *restrict y, float *mean, float *rstd, const float *restrict x,
                     const float *restrict g, const float *restrict b, int64_t C)
{
    float sum = 0, squares = 0;

    for (int64_t i = 0; i < C; i++)
        sum += x[i];
    *mean = sum / (float)C;
    for (int64_t i = 0; i < C; i++)
        squares += (x[i] - *mean) * (x[i] - *mean);
    *rstd = 1 / sqrtf(squares / (float)C + NORM_EPS);
    for (int64_t i = 0; i < C; i++)
        y[i] = (x[i] - *mean) * *rstd * g[i] + b[i];
}

static void norm(float *y, float *mean, float *rstd, const float *x, const float *g,
                 const float *b, int64_t N, int64_t C)
{
#pragma omp parallel for
    for (int64_t n = 0; n < N; n++)
        norm_row(y + n * C, mean + n, rstd + n, x + n * C, g, b, C);
}

/* With x^ = (x - mean) / std and u = dy g: dx = (u - mean(u) - x^ mean(u x^)) / std. */
static void norm_row_backward(float *restrict dx, float *restrict dg, float *restrict db,
                              const float *restrict dy, const float *restrict x,
                              const float *restrict g, float mean, float rstd, int64_t C)
{
    float u_mean = 0, ux_mean = 0;

    for (int64_t i = 0; i < C; i++) {
        u_mean += dy[i] * g[i];
        ux_mean += dy[i] * g[i] * (x[i] - mean) * rstd;
    }
    u_mean /= (float)C;
    ux_mean /= (float)C;
    for (int64_t i = 0; i < C; i++) {
        float unit = (x[i] - mean) * rstd;

        dg[i] += dy[i] * unit;
        db[i] += dy[i];
        dx[i] += (dy[i] * g[i] - u_mean - unit * ux_mean) * rstd;
    }
}

#define GELU_SLOPE 0.7978845608f /* sqrt(2 / pi) */
#define GELU_CUBE  0.044715f

static void gelu(float *restrict y, const float *restrict x, int64_t count)
{
#pragma omp parallel for
    for (int64_t i = 0; i < count; i++)
        y[i] = 0.5f * x[i] * (1 + tanhf(GELU_SLOPE * (x[i] + GELU_CUBE * x[i] * x[i] * x[i])));
}

static void gelu_backward(float *restrict dx, const float *restrict dy, const float *restrict x,
                          int64_t count)
{
#pragma omp parallel for
    for (int64_t i = 0; i < count; i++) {
        float t = tanhf(GELU_SLOPE * (x[i] + GELU_CUBE * x[i] * x[i] * x[i]));
        float slope = GELU_SLOPE * (1 + 3 * GELU_CUBE * x[i] * x[i]);

        dx[i] += dy[i] * (0.5f * (1 + t) + 0.5f * x[i] * (1 - t * t) * slope);
    }
}

static void add(float *restrict y, const float *restrict a, const float *restrict b, int64_t count)
{
#pragma omp parallel for
    for (int64_t i = 0; i < count; i++)
        y[i] = a[i] + b[i];
}

static void add_backward(float *restrict da, float *restrict db, const float *restrict dy,
                         int64_t count)
{
#pragma omp parallel for
    for (int64_t i = 0; i < count; i++) {
        da[i] += dy[i];
        db[i] += dy[i];
    }
}

/* ---- attention -------------------------------------------------------------------------- */

static float dot(const float *restrict a, const float *restrict b, int64_t count)
{
    float sum = 0;

    for (int64_t i = 0; i < count; i++)
        sum += a[i] * b[i];
    return sum;
}

/* One head of one text: rows of q, k and v are `stride` apart, d wide; scores (T, T). */
struct head {
    const float *q, *k, *v;
    int64_t d, stride;
    float scale;
};

static struct head head_of(const float *qkv, const struct llmc_shape *s, int64_t b, int64_t h)
{
    int64_t d = s->C / s->heads, stride = 3 * s->C;
    const float *q = qkv + b * s->T * stride + h * d;

    return (struct head){q, q + s->C, q + 2 * s->C, d, stride, 1 / sqrtf((float)d)};
}

static void attend_row(float *restrict y, float *restrict score, float *restrict share,
                       const struct head *head, int64_t t)
{
    float most, sum = 0;

    for (int64_t u = 0; u <= t; u++)
        score[u] = head->scale *
                   dot(head->q + t * head->stride, head->k + u * head->stride, head->d);
    most = score[0];
    for (int64_t u = 1; u <= t; u++)
        most = score[u] > most ? score[u] : most;
    for (int64_t u = 0; u <= t; u++) {
        share[u] = expf(score[u] - most);
        sum += share[u];
    }
    memset(y, 0, (size_t)head->d * sizeof *y);
    for (int64_t u = 0; u <= t; u++) {
        share[u] /= sum;
        add_scaled(y, head->v + u * head->stride, share[u], head->d);
    }
}

static void attend(float *y, float *score, float *share, const float *qkv,
                   const struct llmc_shape *s)
{
#pragma omp parallel for collapse(3)
    for (int64_t b = 0; b < s->B; b++)
        for (int64_t t = 0; t < s->T; t++)
            for (int64_t h = 0; h < s->heads; h++) {
                struct head head = head_of(qkv, s, b, h);
                int64_t row = ((b * s->heads + h) * s->T + t) * s->T;

                attend_row(y + (b * s->T + t) * s->C + h * head.d, score + row, share + row, &head,
                           t);
            }
}

/* dq, dk, dv: of the head, as its q, k and v. d share -> d score is p (dp - sum p dp). */
static void attend_row_backward(float *restrict dqkv, float *restrict dscore,
                                float *restrict dshare, const float *restrict dy,
                                const float *restrict share, const struct head *head, int64_t C,
                                int64_t t)
{
    float *dq = dqkv + t * head->stride, *dk = dqkv + C, *dv = dqkv + 2 * C, mean = 0;

    for (int64_t u = 0; u <= t; u++) {
        dshare[u] = dot(dy, head->v + u * head->stride, head->d);
        add_scaled(dv + u * head->stride, dy, share[u], head->d);
    }
    for (int64_t u = 0; u <= t; u++)
        mean += share[u] * dshare[u];
    for (int64_t u = 0; u <= t; u++) {
        dscore[u] = share[u] * (dshare[u] - mean);
        add_scaled(dq, head->k + u * head->stride, head->scale * dscore[u], head->d);
        add_scaled(dk + u * head->stride, head->q + t * head->stride, head->scale * dscore[u],
                   head->d);
    }
}

/* Tokens of a head add to the same keys, so one thread has all of them. */
static void attend_backward(float *dqkv, float *dscore, float *dshare, const float *dy,
                            const float *share, const float *qkv, const struct llmc_shape *s)
{
#pragma omp parallel for collapse(2)
    for (int64_t b = 0; b < s->B; b++)
        for (int64_t h = 0; h < s->heads; h++) {
            struct head head = head_of(qkv, s, b, h);
            float *grads = dqkv + (head.q - qkv);

            for (int64_t t = 0; t < s->T; t++) {
                int64_t row = ((b * s->heads + h) * s->T + t) * s->T;

                attend_row_backward(grads, dscore + row, dshare + row,
                                    dy + (b * s->T + t) * s->C + h * head.d, share + row, &head,
                                    s->C, t);
            }
        }
}

/* ---- the head's softmax ----------------------------------------------------------------- */

/* Of the V logits that stand for a token; the padding has no part. */
static void softmax_row(float *restrict prob, const float *restrict logit, int64_t V,
                        int64_t padded)
{
    float most = logit[0], sum = 0;

    for (int64_t i = 1; i < V; i++)
        most = logit[i] > most ? logit[i] : most;
    for (int64_t i = 0; i < V; i++) {
        prob[i] = expf(logit[i] - most);
        sum += prob[i];
    }
    for (int64_t i = 0; i < V; i++)
        prob[i] /= sum;
    for (int64_t i = V; i < padded; i++)
        prob[i] = 0;
}

static double cross_entropy(float *prob, const float *logit, const int32_t *target, int64_t N,
                            int64_t V, int64_t padded)
{
    double sum = 0;

#pragma omp parallel for
    for (int64_t n = 0; n < N; n++)
        softmax_row(prob + n * padded, logit + n * padded, V, padded);
    for (int64_t n = 0; n < N; n++)
        sum -= logf(prob[n * padded + target[n]]);
    return sum / (double)N;
}

static void cross_entropy_backward(float *dlogit, const float *prob, const int32_t *target,
                                   int64_t N, int64_t padded)
{
    float each = 1 / (float)N;

#pragma omp parallel for
    for (int64_t n = 0; n < N; n++) {
        for (int64_t i = 0; i < padded; i++)
            dlogit[n * padded + i] += prob[n * padded + i] * each;
        dlogit[n * padded + target[n]] -= each;
    }
}

/* ---- the step --------------------------------------------------------------------------- */

/* Where a layer's numbers lie, of values (w, a) and of gradients (dw, da). */
struct view {
    float *w[LLMC_WEIGHT_END], *dw[LLMC_WEIGHT_END];
    float *a[KEPT_END], *da[KEPT_END];
    float *before, *dbefore; /* the stream that enters the layer */
};

static struct view view_of(const struct llmc_reference *r, int64_t layer)
{
    struct view view;

    for (int kind = 0; kind < LLMC_WEIGHT_END; kind++) {
        view.w[kind] = r->weight + weight_place(r, kind, layer);
        view.dw[kind] = r->grad + weight_place(r, kind, layer);
    }
    for (int kind = 0; kind < KEPT_END; kind++) {
        int64_t at = r->kept_at[kind];

        at += kind >= LN1 && kind <= STREAM ? layer * r->kept_each[kind] : 0;
        view.a[kind] = r->kept + at;
        view.da[kind] = r->kept_grad + at;
    }
    view.before = layer > 0 ? view.a[STREAM] - r->kept_each[STREAM] : view.a[ENCODED];
    view.dbefore = layer > 0 ? view.da[STREAM] - r->kept_each[STREAM] : view.da[ENCODED];
    return view;
}

static void layer_forward(const struct llmc_shape *s, const struct view *l)
{
    int64_t N = s->B * s->T, C = s->C;

    norm(l->a[LN1], l->a[LN1_MEAN], l->a[LN1_RSTD], l->before, l->w[LLMC_LN1_G], l->w[LLMC_LN1_B],
         N, C);
    llmc_reference_product(l->a[QKV], l->a[LN1], l->w[LLMC_QKV_W], l->w[LLMC_QKV_B], N, C, 3 * C);
    attend(l->a[ATTENDED], l->a[SCORE], l->a[SHARE], l->a[QKV], s);
    llmc_reference_product(l->a[PROJ], l->a[ATTENDED], l->w[LLMC_PROJ_W], l->w[LLMC_PROJ_B], N, C,
                           C);
    add(l->a[HALF], l->before, l->a[PROJ], N * C);
    norm(l->a[LN2], l->a[LN2_MEAN], l->a[LN2_RSTD], l->a[HALF], l->w[LLMC_LN2_G],
         l->w[LLMC_LN2_B], N, C);
    llmc_reference_product(l->a[FC], l->a[LN2], l->w[LLMC_FC_W], l->w[LLMC_FC_B], N, C, 4 * C);
    gelu(l->a[GELU], l->a[FC], 4 * N * C);
    llmc_reference_product(l->a[OUT], l->a[GELU], l->w[LLMC_OUT_W], l->w[LLMC_OUT_B], N, 4 * C, C);
    add(l->a[STREAM], l->a[HALF], l->a[OUT], N * C);
}

double llmc_reference_forward(struct llmc_reference *r, const int32_t *token, const int32_t *target)
{
    const struct llmc_shape *s = &r->shape;
    int64_t N = s->B * s->T;
    struct view last = view_of(r, s->layers - 1);

    embed(last.a[ENCODED], token, last.w[LLMC_WTE], last.w[LLMC_WPE], s);
    for (int64_t i = 0; i < s->layers; i++) {
        struct view layer = view_of(r, i);

        layer_forward(s, &layer);
    }
    norm(last.a[LNF], last.a[LNF_MEAN], last.a[LNF_RSTD], last.a[STREAM], last.w[LLMC_LNF_G],
         last.w[LLMC_LNF_B], N, s->C);
    llmc_reference_product(last.a[LOGIT], last.a[LNF], last.w[LLMC_WTE], NULL, N, s->C, r->padded);
    return cross_entropy(last.a[PROB], last.a[LOGIT], target, N, s->V, r->padded);
}

/* Backward of the product w, b of `from` into `to`. */
static void product_back(const struct view *l, enum kept to, enum kept from, enum llmc_weight w,
                         int64_t N, int64_t K, int64_t M)
{
    llmc_reference_product_backward(l->da[from], l->dw[w], l->dw[w + 1], l->da[to], l->a[from],
                                    l->w[w], N, K, M);
}

/* Backward of the norm `to` (mean and 1/std follow it) with gain g, bias g + 1. */
static void norm_back(const struct view *l, enum kept to, enum llmc_weight g, float *dx,
                      const float *x, int64_t N, int64_t C)
{
    for (int64_t n = 0; n < N; n++)
        norm_row_backward(dx + n * C, l->dw[g], l->dw[g + 1], l->da[to] + n * C, x + n * C,
                          l->w[g], l->a[to + 1][n], l->a[to + 2][n], C);
}

static void layer_backward(const struct llmc_shape *s, const struct view *l)
{
    int64_t N = s->B * s->T, C = s->C;

    add_backward(l->da[HALF], l->da[OUT], l->da[STREAM], N * C);
    product_back(l, OUT, GELU, LLMC_OUT_W, N, 4 * C, C);
    gelu_backward(l->da[FC], l->da[GELU], l->a[FC], 4 * N * C);
    product_back(l, FC, LN2, LLMC_FC_W, N, C, 4 * C);
    norm_back(l, LN2, LLMC_LN2_G, l->da[HALF], l->a[HALF], N, C);
    add_backward(l->dbefore, l->da[PROJ], l->da[HALF], N * C);
    product_back(l, PROJ, ATTENDED, LLMC_PROJ_W, N, C, C);
    attend_backward(l->da[QKV], l->da[SCORE], l->da[SHARE], l->da[ATTENDED], l->a[SHARE],
                    l->a[QKV], s);
    product_back(l, QKV, LN1, LLMC_QKV_W, N, C, 3 * C);
    norm_back(l, LN1, LLMC_LN1_G, l->dbefore, l->before, N, C);
}

void llmc_reference_backward(struct llmc_reference *r, const int32_t *token, const int32_t *target)
{
    const struct llmc_shape *s = &r->shape;
    int64_t N = s->B * s->T;
    struct view last = view_of(r, s->layers - 1);

    memset(r->grad, 0, (size_t)r->weight_count * sizeof *r->grad);
    memset(r->kept_grad, 0, (size_t)r->kept_count * sizeof *r->kept_grad);
    cross_entropy_backward(last.da[LOGIT], last.a[PROB], target, N, r->padded);
    llmc_reference_product_backward(last.da[LNF], last.dw[LLMC_WTE], NULL, last.da[LOGIT],
                                    last.a[LNF], last.w[LLMC_WTE], N, s->C, r->padded);
    norm_back(&last, LNF, LLMC_LNF_G, last.da[STREAM], last.a[STREAM], N, s->C);
    for (int64_t i = s->layers; i-- > 0;) {
        struct view layer = view_of(r, i);

        layer_backward(s, &layer);
    }
    embed_backward(last.dw[LLMC_WTE], last.dw[LLMC_WPE], last.da[ENCODED], token, s);
}

void llmc_reference_update(struct llmc_reference *r, const struct llmc_adamw *adamw)
{
    struct llmc_adamw a = *adamw;
    float *restrict w = r->weight, *restrict m = r->m, *restrict v = r->v;
    const float *restrict grad = r->grad;
    float m_whole, v_whole;

    r->step++;
    m_whole = 1 / (1 - powf(a.beta1, (float)r->step));
    v_whole = 1 / (1 - powf(a.beta2, (float)r->step));
#pragma omp parallel for
    for (int64_t i = 0; i < r->weight_count; i++) {
        m[i] = a.beta1 * m[i] + (1 - a.beta1) * grad[i];
        v[i] = a.beta2 * v[i] + (1 - a.beta2) * grad[i] * grad[i];
        w[i] -= a.rate * (m[i] * m_whole / (sqrtf(v[i] * v_whole) + a.eps) + a.decay * w[i]);
    }
}
