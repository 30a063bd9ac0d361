/* cuda.h - what the files of the CUDA backend share.
 *
 * Everything runs on one stream per device, so kernels see their inputs in order. No kernel
 * uses atomic additions on floats: sums over rows are cut into a fixed number of parts that
 * are added in order, so that results repeat bit for bit on one kind of GPU.
 *
 * Activations are f32. With device->config.bf16 the operands of products are bf16: weights have a
 * copy (struct rounded), the others are rounded in scratch first; sums stay f32. */
#ifndef ATHANOR_ENGINE_CUDA_H
#define ATHANOR_ENGINE_CUDA_H

#ifndef ATHANOR_CUDA_HOST /* else tests/lib/cuda_host.h stands for these, and for LAUNCH */
#include <cublasLt.h>
#include <cublas_v2.h>
#include <cuda_bf16.h>
#include <cuda_runtime.h>
#endif

extern "C" {
#include "worker/engine/builtin.h"
#include "worker/engine/loss.h"
#include "worker/engine/ops.h"
}

#define WARP 32
#define ROW_THREADS 256 /* of a block that treats one row */
#define SHARED_BYTES ((size_t)48 << 10) /* of a block: what every GPU gives without asking */
static_assert(ROW_THREADS % WARP == 0 && ROW_THREADS <= 1024, "whole warps, as a GPU takes them");

struct plan;

struct gpu {
    cudaStream_t stream;
    cublasHandle_t blas;
    cublasLtHandle_t lt;
    void *workspace; /* of the BLAS */
    struct plan *plans;
    size_t plan_count, plan_capacity;
    int processors;
};

static inline struct gpu *gpu_of(const struct device *device)
{
    return (struct gpu *)device->state;
}

/* A failing CUDA or BLAS call is a broken machine or a bug: says so and ends the process. */
#define CUDA_CHECK(call) cuda_check((call), #call, __FILE__, __LINE__)
#define BLAS_CHECK(call) blas_check((call), #call, __FILE__, __LINE__)
void cuda_check(cudaError_t error, const char *call, const char *file, int line);
void blas_check(cublasStatus_t status, const char *call, const char *file, int line);

/* Runs a kernel on the device's stream. */
#ifndef LAUNCH
#define LAUNCH(device, kernel, blocks, threads, shared, ...) \
    do { \
        kernel<<<(unsigned)(blocks), (unsigned)(threads), (shared), gpu_of(device)->stream>>>( \
            __VA_ARGS__); \
        CUDA_CHECK(cudaGetLastError()); \
    } while (0)
#endif

/* What follows a product, on arrays of bf16, where product_fuses says that it can. */
enum epilogue {
    EPILOGUE_NONE = 0,
    EPILOGUE_GELU,       /* aux = a b + bias, c = gelu(aux); with a bias only */
    EPILOGUE_GELU_SLOPE, /* c = (a b) gelu'(aux), aux as EPILOGUE_GELU left it */
};

/* One matrix product, row-major: c = a b (+ c), operands f32 or bf16, c f32 or, where they are bf16
 * and nothing is added to, bf16. Sums are f32. */
struct product {
    bool a_transposed, b_transposed, is_bf16, c_is_bf16, accumulates;
    int64_t rows, columns, inner;
    const void *a;
    int64_t a_stride;
    const void *b;
    int64_t b_stride;
    void *c;
    int64_t c_stride;
    const void *bias; /* per column, of c's type; NULL: none; not with accumulates */
    enum epilogue epilogue;
    void *aux; /* of c's shape, stride and type */
};

bool product_fuses(struct device *device, const struct product *product);
void product_run(struct device *device, const struct product *product);
void plans_free(struct gpu *gpu);

/* Scratch is cut into 256-byte aligned pieces, in the same order by sizes and by kernels. */
struct cutter {
    char *base; /* NULL while only counting */
    size_t used;
};

static inline void *cut(struct cutter *cutter, size_t size_bytes)
{
    void *piece = cutter->base ? cutter->base + cutter->used : NULL;

    cutter->used += (size_bytes + 255) / 256 * 256;
    return piece;
}

static inline size_t operand_bytes(const struct device *device, int64_t count)
{
    return device->config.bf16 ? 2 * (size_t)count : 0;
}

/* The operand of a product: `from` itself, or rounded into `room` in bf16 mode. */
const void *operand(struct device *device, const float *from, void *room, int64_t count);

/* The same for a weight (count numbers), which has its copy in bf16 already if it is a model's. */
const void *weight_operand(struct device *device, const float *w, void *room, int64_t count);
static inline size_t weight_operand_bytes(const struct device *device, const float *w,
                                          int64_t count)
{
    return rounded_find(device, w, count) ? 0 : operand_bytes(device, count);
}

void cuda_round(struct device *device, const float *from, void *to, int64_t count);

/* Adds, for each column, the sum over rows of x (rows, columns) to `to`. */
#define SUM_PARTS 64
void column_sums(struct device *device, const float *x, int64_t rows, int64_t columns, float *to,
                 float *room); /* room: SUM_PARTS * columns floats */
void column_sums(struct device *device, const __nv_bfloat16 *x, int64_t rows, int64_t columns,
                 float *to, float *room);

static inline unsigned blocks_for(int64_t items, int threads)
{
    return (unsigned)((items + threads - 1) / threads);
}

#define THREADS 256 /* of a block of elementwise kernels */

static inline unsigned grid_of(int64_t count)
{
    return (unsigned)min_u64(blocks_for(count, THREADS), 16384);
}

/* Adds dy to the gradient of x, if it wants one. */
void pass(struct device *device, const float *dy, struct tensor *x);

#ifdef __CUDACC__
/* for (each i below count, over the whole grid) */
#define FOR_EACH(i, count) \
    for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < (count); \
         i += (int64_t)gridDim.x * blockDim.x)

static __device__ inline void put(float *to, float v, bool fresh)
{
    *to = fresh ? v : *to + v;
}

static __device__ inline float sigmoid(float x)
{
    return 1.0f / (1.0f + expf(-x));
}

#define GELU_SLOPE 0.7978845608028654f
#define GELU_CUBE 0.044715f

static __device__ inline float gelu_gate(float x)
{
    return sigmoid(2 * GELU_SLOPE * (x + GELU_CUBE * x * x * x));
}

static __device__ inline float gelu_slope(float x)
{
    float s = gelu_gate(x);

    return s + x * s * (1 - s) * 2 * GELU_SLOPE * (1 + 3 * GELU_CUBE * x * x);
}

static __device__ inline float warp_sum(float v)
{
    for (int o = WARP / 2; o > 0; o /= 2)
        v += __shfl_xor_sync(0xffffffffu, v, o);
    return v;
}

static __device__ inline float warp_max(float v)
{
    for (int o = WARP / 2; o > 0; o /= 2)
        v = fmaxf(v, __shfl_xor_sync(0xffffffffu, v, o));
    return v;
}

/* Of a block of ROW_THREADS; every thread gets the result. Two barriers, in a fixed order. */
static __device__ inline float block_sum(float v)
{
    __shared__ float part[ROW_THREADS / WARP];
    float sum = 0;

    v = warp_sum(v);
    __syncthreads();
    if (threadIdx.x % WARP == 0)
        part[threadIdx.x / WARP] = v;
    __syncthreads();
    for (int i = 0; i < ROW_THREADS / WARP; i++)
        sum += part[i];
    return sum;
}

static __device__ inline float block_max(float v)
{
    __shared__ float part[ROW_THREADS / WARP];
    float most;

    v = warp_max(v);
    __syncthreads();
    if (threadIdx.x % WARP == 0)
        part[threadIdx.x / WARP] = v;
    __syncthreads();
    most = part[0];
    for (int i = 1; i < ROW_THREADS / WARP; i++)
        most = fmaxf(most, part[i]);
    return most;
}
#endif

#define CUDA_PAIR(name) \
    void cuda_##name##_forward(struct device *device, const struct op_call *call); \
    void cuda_##name##_backward(struct device *device, const struct op_call *call)

CUDA_PAIR(embed);
CUDA_PAIR(linear);
CUDA_PAIR(mlp);
CUDA_PAIR(layernorm);
CUDA_PAIR(rmsnorm);
CUDA_PAIR(gelu);
CUDA_PAIR(swiglu);
CUDA_PAIR(add);
CUDA_PAIR(softmax);
CUDA_PAIR(rope);
CUDA_PAIR(attention);
CUDA_PAIR(attend);
CUDA_PAIR(activate);
CUDA_PAIR(glu);
CUDA_PAIR(mul);
CUDA_PAIR(scale);
CUDA_PAIR(slice);
CUDA_PAIR(pool);
CUDA_PAIR(nll);
CUDA_PAIR(join);
CUDA_PAIR(add_columns);
CUDA_PAIR(dropout);
CUDA_PAIR(route);
CUDA_PAIR(dispatch);
CUDA_PAIR(experts);
CUDA_PAIR(combine);
CUDA_PAIR(lrpe);
CUDA_PAIR(lightning);
CUDA_PAIR(gather);
CUDA_PAIR(head);
void cuda_attend_cached_forward(struct device *device, const struct op_call *call);
void cuda_lightning_step_forward(struct device *device, const struct op_call *call);
void cuda_attention_cached_forward(struct device *device, const struct op_call *call);
void cuda_sum_squares_forward(struct device *device, const struct op_call *call);
void cuda_adamw_forward(struct device *device, const struct op_call *call);

extern const struct rank_links *const cuda_links; /* NULL: built without NCCL's header */

size_t cuda_linear_scratch(const struct device *device, const struct op_call *call);
size_t cuda_mlp_scratch(const struct device *device, const struct op_call *call);
size_t cuda_norm_scratch(const struct device *device, const struct op_call *call);
size_t cuda_attention_scratch(const struct device *device, const struct op_call *call);
size_t cuda_attend_scratch(const struct device *device, const struct op_call *call);
size_t cuda_route_scratch(const struct device *device, const struct op_call *call);
size_t cuda_head_scratch(const struct device *device, const struct op_call *call);
size_t cuda_sum_squares_scratch(const struct device *device, const struct op_call *call);

#endif
