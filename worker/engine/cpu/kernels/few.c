/* few.c - products y = x w' of few rows, as in decoding: most of the time goes into reading w.
 *
 * The columns of y are cut into panels of two vectors. For a panel the kernel reads w by k, the
 * panel's columns side by side, and multiplies them with a tile of rows whose sums fit the
 * registers; rows are put in the same order first. w comes from its copy in that order (packed.h),
 * or each stretch of it is turned just before it is used.
 *
 * An element is the sum over stretches of INNER products, each one chain of multiply-adds, then the
 * bias: whatever the number of rows, of threads, and whether there is a copy. So a text of a batch
 * is the text alone. */
#include "worker/engine/cpu/kernels/gemm.h"
#include "worker/engine/cpu/kernels/vec.h"
#include "worker/engine/packed.h"

#define VECS  2
#define PANEL (VECS * VEC_WIDTH)
#define INNER 256 /* a stretch of a panel (32 KiB) and of a tile (14 KiB) stay in near caches */
#if VEC_WIDTH == 16
#define TILE 14 /* 28 of 32 registers hold sums */
#else
#define TILE 6 /* 12 of 16 */
#endif
#define PANELS_LEAST 2 /* per thread */

struct few {
    const struct gemm *g;
    const float *packed; /* NULL: turned as needed */
    int64_t panels;
};

static int64_t least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* ---- w in order ---------------------------------------------------------------------------- */

#if VEC_WIDTH == 16
#define LOW  0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23
#define HIGH 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31
#elif VEC_WIDTH == 8
#define LOW  0, 8, 1, 9, 2, 10, 3, 11
#define HIGH 4, 12, 5, 13, 6, 14, 7, 15
#else
#define LOW  0, 4, 1, 5
#define HIGH 2, 6, 3, 7
#endif

/* Columns of a square as rows: in each round vectors i and i + half are shuffled into 2i, 2i + 1;
 * after log2(VEC_WIDTH) rounds each number has changed its row for its column. */
static inline void turn_square(const float *w, int64_t stride, float *out)
{
    vec a[VEC_WIDTH], b[VEC_WIDTH];

    for (int i = 0; i < VEC_WIDTH; i++)
        a[i] = vec_load(w + i * stride);
    for (int round = 1; round < VEC_WIDTH; round *= 2) {
        for (int i = 0; i < VEC_WIDTH / 2; i++) {
            b[2 * i] = __builtin_shufflevector(a[i], a[i + VEC_WIDTH / 2], LOW);
            b[2 * i + 1] = __builtin_shufflevector(a[i], a[i + VEC_WIDTH / 2], HIGH);
        }
        __builtin_memcpy(a, b, sizeof a);
    }
    for (int i = 0; i < VEC_WIDTH; i++)
        vec_store(out + i * PANEL, a[i]);
}

/* (count, PANEL) from `columns` rows of w; the panel's other columns are 0. */
static void turn_panel(const float *w, int64_t stride, int64_t columns, int64_t count, float *out)
{
    for (int64_t j = 0; j < PANEL; j += VEC_WIDTH) {
        int64_t k = 0;

        for (; columns - j >= VEC_WIDTH && k + VEC_WIDTH <= count; k += VEC_WIDTH)
            turn_square(w + j * stride + k, stride, out + k * PANEL + j);
        for (; k < count; k++)
            for (int64_t i = j; i < j + VEC_WIDTH; i++)
                out[k * PANEL + i] = i < columns ? w[i * stride + k] : 0;
    }
}

static int64_t panels_of(int64_t columns)
{
    return (columns + PANEL - 1) / PANEL;
}

/* Where stretch k of panel p begins in a copy: all panels of one stretch, then of the next. */
static int64_t place_of(int64_t panels, int64_t k, int64_t count, int64_t p)
{
    return (k * panels + p * count) * PANEL;
}

struct pack {
    const float *w;
    float *out;
    int64_t M, K;
};

static void pack_share(void *argument, int64_t from, int64_t to, unsigned thread)
{
    const struct pack *pack = argument;
    int64_t M = pack->M, K = pack->K, panels = panels_of(M);

    (void)thread;
    for (int64_t k = 0; k < K; k += INNER) {
        int64_t count = least(K - k, INNER);

        for (int64_t p = from; p < to; p++)
            turn_panel(pack->w + p * PANEL * K + k, K, least(M - p * PANEL, PANEL), count,
                       pack->out + place_of(panels, k, count, p));
    }
}

void KERNEL(linear_pack)(struct device *device, const struct tensor *w, float *out)
{
    struct pack pack = {tensor_f32(w), out, tensor_rows(w), tensor_columns(w)};

    threads_run(device->threads, panels_of(pack.M), PANELS_LEAST, pack_share, &pack);
}

size_t KERNEL(linear_packed_bytes)(int64_t M, int64_t K)
{
    return 4 * (size_t)(panels_of(M) * PANEL * K);
}

/* ---- the product --------------------------------------------------------------------------- */

/* One tile of rows and one panel over one stretch. */
struct tile {
    const float *x; /* (count, rows) */
    const float *w; /* (count, PANEL) */
    float *y;
    int64_t count, stride, columns;
    bool first; /* stretch: store, do not add */
};

static inline void put(const struct tile *t, int r, vec sum[VECS])
{
    float *y = t->y + r * t->stride, lane[PANEL];

    if (t->columns == PANEL) {
        for (int j = 0; j < VECS; j++)
            vec_store(y + j * VEC_WIDTH,
                      t->first ? sum[j] : vec_load(y + j * VEC_WIDTH) + sum[j]);
        return;
    }
    __builtin_memcpy(lane, sum, sizeof lane);
    for (int64_t i = 0; i < t->columns; i++)
        y[i] = t->first ? lane[i] : y[i] + lane[i];
}

/* R is a constant where this is called. */
__attribute__((always_inline)) static inline void multiply(const struct tile *t, int R)
{
    const float *x = t->x, *w = t->w;
    vec sum[TILE][VECS] = {0};

    for (int64_t k = 0; k < t->count; k++, x += R, w += PANEL) {
        vec v[VECS];

        for (int j = 0; j < VECS; j++)
            v[j] = vec_load(w + j * VEC_WIDTH);
        for (int r = 0; r < R; r++)
            for (int j = 0; j < VECS; j++)
                sum[r][j] += vec_set(x[r]) * v[j];
    }
    for (int r = 0; r < R; r++)
        put(t, r, sum[r]);
}

#define TILE_OF(R) \
    static void multiply_##R(const struct tile *t) \
    { \
        multiply(t, R); \
    }
TILE_OF(1) TILE_OF(2) TILE_OF(3) TILE_OF(4) TILE_OF(5) TILE_OF(6)
#if TILE == 14
TILE_OF(7) TILE_OF(8) TILE_OF(9) TILE_OF(10) TILE_OF(11) TILE_OF(12) TILE_OF(13) TILE_OF(14)
#endif
static void (*const multiply_rows[TILE + 1])(const struct tile *) = {
    NULL, multiply_1, multiply_2, multiply_3, multiply_4, multiply_5, multiply_6,
#if TILE == 14
    multiply_7, multiply_8, multiply_9, multiply_10, multiply_11, multiply_12, multiply_13,
    multiply_14,
#endif
};

/* Rows are cut into tiles of nearly one size: tile i of n has rows / n of them, or one more. */
static int64_t tiles_of(int64_t rows)
{
    return (rows + TILE - 1) / TILE;
}

static int64_t tile_rows(int64_t rows, int64_t i)
{
    return rows / tiles_of(rows) + (i < rows % tiles_of(rows));
}

/* Columns k.. of x, one tile (count, rows of it) after the other. */
static void order_rows(const struct gemm *g, int64_t k, int64_t count, float *out)
{
    const float *x = g->a + k;

    for (int64_t i = 0; i < tiles_of(g->rows); i++) {
        int64_t rows = tile_rows(g->rows, i);

        for (int64_t c = 0; c < count; c++)
            for (int64_t r = 0; r < rows; r++)
                *out++ = x[r * g->a_stride + c];
        x += rows * g->a_stride;
    }
}

static void multiply_panel(const struct gemm *g, struct tile t)
{
    for (int64_t i = 0; i < tiles_of(g->rows); i++) {
        int64_t rows = tile_rows(g->rows, i);

        multiply_rows[rows](&t);
        t.x += rows * t.count;
        t.y += rows * t.stride;
    }
}

static void add_bias(const struct gemm *g, int64_t from, int64_t to)
{
    for (int64_t r = 0; r < g->rows; r++)
        for (int64_t i = from; i < to; i++)
            g->c[r * g->c_stride + i] += g->bias[i];
}

static void few_share(void *argument, int64_t from, int64_t to, unsigned thread)
{
    const struct few *few = argument;
    const struct gemm *g = few->g;
    float x[PACKED_ROWS * INNER], turned[INNER * PANEL];

    (void)thread;
    for (int64_t k = 0; k < g->inner; k += INNER) {
        struct tile t = {.x = x, .count = least(g->inner - k, INNER), .stride = g->c_stride,
                         .first = k == 0};

        order_rows(g, k, t.count, x);
        for (int64_t p = from; p < to; p++) {
            t.y = g->c + p * PANEL;
            t.columns = least(g->columns - p * PANEL, PANEL);
            t.w = few->packed ? few->packed + place_of(few->panels, k, t.count, p) : turned;
            if (!few->packed)
                turn_panel(g->b + p * PANEL * g->b_stride + k, g->b_stride, t.columns, t.count,
                           turned);
            multiply_panel(g, t);
        }
    }
    if (g->bias)
        add_bias(g, from * PANEL, least(to * PANEL, g->columns));
}

void KERNEL(few_run)(struct device *device, const struct gemm *g)
{
    struct few few = {g, packed_find(device, g->b, g->columns, g->inner), panels_of(g->columns)};

    threads_run(device->threads, few.panels, PANELS_LEAST, few_share, &few);
}
