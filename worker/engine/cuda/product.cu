/* product.cu - matrix products by cuBLASLt, with one remembered algorithm per shape.
 *
 * cuBLAS is column-major: the row-major c = a b is computed as c' = b' a'. */
#include "worker/engine/cuda/cuda.h"

#include <stdlib.h>
#include <string.h>

#define WORKSPACE_BYTES ((size_t)32 << 20)

/* What a plan depends on; compared as bytes, so it is zeroed before it is filled. */
struct plan_key {
    int64_t rows, columns, inner, a_stride, b_stride, c_stride;
    int a_transposed, b_transposed, is_bf16, c_is_bf16, accumulates, has_bias, epilogue;
    int alignment; /* of the least aligned operand, in bytes, at most 16 */
};

struct plan {
    struct plan_key key;
    cublasLtMatmulDesc_t product;
    cublasLtMatrixLayout_t a, b, c;
    cublasLtMatmulAlgo_t algorithm;
    bool apart;     /* no algorithm adds the bias, or does the epilogue, itself         */
    bool unplanned; /* no algorithm at all (odd strides): cuBLAS chooses at each call */
};

void plans_free(struct gpu *gpu)
{
    for (size_t i = 0; i < gpu->plan_count; i++) {
        cublasLtMatrixLayoutDestroy(gpu->plans[i].a);
        cublasLtMatrixLayoutDestroy(gpu->plans[i].b);
        cublasLtMatrixLayoutDestroy(gpu->plans[i].c);
        cublasLtMatmulDescDestroy(gpu->plans[i].product);
    }
    free(gpu->plans);
}

static int alignment_of(const struct product *p)
{
    uintptr_t bits = (uintptr_t)p->a | (uintptr_t)p->b | (uintptr_t)p->c | (uintptr_t)p->bias |
                     (uintptr_t)p->aux | 16;

    return (int)(bits & -bits);
}

static struct plan_key key_of(const struct product *p)
{
    struct plan_key key;

    memset(&key, 0, sizeof key);
    key.rows = p->rows;
    key.columns = p->columns;
    key.inner = p->inner;
    key.a_stride = p->a_stride;
    key.b_stride = p->b_stride;
    key.c_stride = p->c_stride;
    key.a_transposed = p->a_transposed;
    key.b_transposed = p->b_transposed;
    key.is_bf16 = p->is_bf16;
    key.c_is_bf16 = p->c_is_bf16;
    key.accumulates = p->accumulates;
    key.has_bias = p->bias != NULL;
    key.epilogue = p->epilogue;
    key.alignment = alignment_of(p);
    return key;
}

static cudaDataType_t type_of(bool is_bf16)
{
    return is_bf16 ? CUDA_R_16BF : CUDA_R_32F;
}

static cublasLtEpilogue_t epilogue_of(const struct product *p)
{
    if (p->epilogue == EPILOGUE_GELU)
        return CUBLASLT_EPILOGUE_GELU_AUX_BIAS;
    if (p->epilogue == EPILOGUE_GELU_SLOPE)
        return CUBLASLT_EPILOGUE_DGELU;
    return p->bias ? CUBLASLT_EPILOGUE_BIAS : CUBLASLT_EPILOGUE_DEFAULT;
}

/* The arrays of the epilogue, which differ from call to call. */
static void point_epilogue(const struct product *p, struct plan *plan)
{
    if (p->bias)
        BLAS_CHECK(cublasLtMatmulDescSetAttribute(
            plan->product, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &p->bias, sizeof p->bias));
    if (p->aux)
        BLAS_CHECK(cublasLtMatmulDescSetAttribute(
            plan->product, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER, &p->aux, sizeof p->aux));
}

static void describe_epilogue(const struct product *p, struct plan *plan)
{
    cublasLtEpilogue_t epilogue = epilogue_of(p);
    cudaDataType_t type = type_of(p->c_is_bf16);

    BLAS_CHECK(cublasLtMatmulDescSetAttribute(plan->product, CUBLASLT_MATMUL_DESC_EPILOGUE,
                                              &epilogue, sizeof epilogue));
    BLAS_CHECK(cublasLtMatmulDescSetAttribute(
        plan->product, CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, &type, sizeof type));
    if (p->aux)
        BLAS_CHECK(cublasLtMatmulDescSetAttribute(plan->product,
                                                  CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD,
                                                  &p->c_stride, sizeof p->c_stride));
    point_epilogue(p, plan);
}

static void describe(const struct product *p, struct plan *plan)
{
    cudaDataType_t type = type_of(p->is_bf16);
    cublasOperation_t left = p->b_transposed ? CUBLAS_OP_T : CUBLAS_OP_N;
    cublasOperation_t right = p->a_transposed ? CUBLAS_OP_T : CUBLAS_OP_N;

    BLAS_CHECK(cublasLtMatmulDescCreate(&plan->product, CUBLAS_COMPUTE_32F, CUDA_R_32F));
    BLAS_CHECK(cublasLtMatmulDescSetAttribute(plan->product, CUBLASLT_MATMUL_DESC_TRANSA, &left,
                                              sizeof left));
    BLAS_CHECK(cublasLtMatmulDescSetAttribute(plan->product, CUBLASLT_MATMUL_DESC_TRANSB, &right,
                                              sizeof right));
    if (p->bias || p->epilogue)
        describe_epilogue(p, plan);
    BLAS_CHECK(cublasLtMatrixLayoutCreate(
        &plan->b, type, (uint64_t)(p->b_transposed ? p->inner : p->columns),
        (uint64_t)(p->b_transposed ? p->columns : p->inner), p->b_stride));
    BLAS_CHECK(cublasLtMatrixLayoutCreate(
        &plan->a, type, (uint64_t)(p->a_transposed ? p->rows : p->inner),
        (uint64_t)(p->a_transposed ? p->inner : p->rows), p->a_stride));
    BLAS_CHECK(cublasLtMatrixLayoutCreate(&plan->c, type_of(p->c_is_bf16), (uint64_t)p->columns,
                                          (uint64_t)p->rows, p->c_stride));
}

static bool choose_algorithm(struct gpu *gpu, int alignment, struct plan *plan)
{
    cublasLtMatmulPreference_t preference;
    cublasLtMatmulHeuristicResult_t result;
    uint32_t least = (uint32_t)alignment;
    size_t workspace = WORKSPACE_BYTES;
    int found = 0;

    BLAS_CHECK(cublasLtMatmulPreferenceCreate(&preference));
    BLAS_CHECK(cublasLtMatmulPreferenceSetAttribute(
        preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace, sizeof workspace));
    BLAS_CHECK(cublasLtMatmulPreferenceSetAttribute(
        preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, &least, sizeof least));
    BLAS_CHECK(cublasLtMatmulPreferenceSetAttribute(
        preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, &least, sizeof least));
    BLAS_CHECK(cublasLtMatmulPreferenceSetAttribute(
        preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, &least, sizeof least));
    BLAS_CHECK(cublasLtMatmulPreferenceSetAttribute(
        preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, &least, sizeof least));
    if (cublasLtMatmulAlgoGetHeuristic(gpu->lt, plan->product, plan->b, plan->a, plan->c, plan->c,
                                       preference, 1, &result, &found) != CUBLAS_STATUS_SUCCESS)
        found = 0;
    BLAS_CHECK(cublasLtMatmulPreferenceDestroy(preference));
    if (found)
        plan->algorithm = result.algo;
    return found > 0;
}

static struct plan *plan_of(struct gpu *gpu, const struct product *p)
{
    struct plan_key key = key_of(p);
    cublasLtEpilogue_t plain = CUBLASLT_EPILOGUE_DEFAULT;
    struct plan *plan;

    for (size_t i = 0; i < gpu->plan_count; i++)
        if (memcmp(&gpu->plans[i].key, &key, sizeof key) == 0)
            return &gpu->plans[i];
    if (gpu->plan_count == gpu->plan_capacity) {
        gpu->plan_capacity = gpu->plan_capacity ? 2 * gpu->plan_capacity : 64;
        gpu->plans = (struct plan *)realloc(gpu->plans, gpu->plan_capacity * sizeof *gpu->plans);
        CHECK(gpu->plans != NULL);
    }
    plan = &gpu->plans[gpu->plan_count++];
    memset(plan, 0, sizeof *plan);
    plan->key = key;
    describe(p, plan);
    if (choose_algorithm(gpu, key.alignment, plan))
        return plan;
    plan->apart = p->bias || p->epilogue;
    BLAS_CHECK(cublasLtMatmulDescSetAttribute(plan->product, CUBLASLT_MATMUL_DESC_EPILOGUE, &plain,
                                              sizeof plain));
    plan->unplanned = !choose_algorithm(gpu, key.alignment, plan);
    return plan;
}

template <typename item>
static __global__ void bias_kernel(item *c, int64_t columns, int64_t stride, const item *bias)
{
    for (int64_t i = threadIdx.x; i < columns; i += blockDim.x) {
        item *to = c + blockIdx.x * stride + i;

        *to = (item)((float)*to + (float)bias[i]);
    }
}

static void add_bias(struct device *device, const struct product *p)
{
    if (p->c_is_bf16)
        LAUNCH(device, bias_kernel<__nv_bfloat16>, p->rows, 256, 0, (__nv_bfloat16 *)p->c,
               p->columns, p->c_stride, (const __nv_bfloat16 *)p->bias);
    else
        LAUNCH(device, bias_kernel<float>, p->rows, 256, 0, (float *)p->c, p->columns,
               p->c_stride, (const float *)p->bias);
}

static void run_unplanned(struct gpu *gpu, const struct product *p)
{
    cudaDataType_t type = type_of(p->is_bf16), c_type = type_of(p->c_is_bf16);
    float one = 1, beta = p->accumulates ? 1 : 0;

    BLAS_CHECK(cublasGemmEx(gpu->blas, p->b_transposed ? CUBLAS_OP_T : CUBLAS_OP_N,
                            p->a_transposed ? CUBLAS_OP_T : CUBLAS_OP_N, (int)p->columns,
                            (int)p->rows, (int)p->inner, &one, p->b, type, (int)p->b_stride, p->a,
                            type, (int)p->a_stride, &beta, p->c, c_type, (int)p->c_stride,
                            CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT));
}

static void run_planned(struct gpu *gpu, const struct product *p, struct plan *plan)
{
    float one = 1, beta = p->accumulates ? 1 : 0;

    if (!plan->apart)
        point_epilogue(p, plan);
    BLAS_CHECK(cublasLtMatmul(gpu->lt, plan->product, &one, p->b, plan->b, p->a, plan->a, &beta,
                              p->c, plan->c, p->c, plan->c, &plan->algorithm, gpu->workspace,
                              WORKSPACE_BYTES, gpu->stream));
}

void product_run(struct device *device, const struct product *p)
{
    struct gpu *gpu = gpu_of(device);
    struct plan *plan = plan_of(gpu, p);

    CHECK(!(p->bias && p->accumulates) && !(p->c_is_bf16 && p->accumulates));
    CHECK(!(p->epilogue && plan->apart));
    if (plan->unplanned)
        run_unplanned(gpu, p);
    else
        run_planned(gpu, p, plan);
    if (plan->apart)
        add_bias(device, p);
}

bool product_fuses(struct device *device, const struct product *p)
{
    return p->c_is_bf16 && !plan_of(gpu_of(device), p)->apart;
}

static __global__ void round_kernel(const float *from, __nv_bfloat16 *to, int64_t count)
{
    int64_t step = (int64_t)gridDim.x * blockDim.x;

    for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < count; i += step)
        to[i] = __float2bfloat16(from[i]);
}

/* Four at a time, where both sides are aligned for it. */
static __global__ void round4_kernel(const float4 *from, uint2 *to, int64_t count)
{
    int64_t step = (int64_t)gridDim.x * blockDim.x;

    for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < count; i += step) {
        float4 v = from[i];
        __nv_bfloat162 low = __floats2bfloat162_rn(v.x, v.y);
        __nv_bfloat162 high = __floats2bfloat162_rn(v.z, v.w);
        uint2 packed;

        memcpy(&packed.x, &low, 4);
        memcpy(&packed.y, &high, 4);
        to[i] = packed;
    }
}

void cuda_round(struct device *device, const float *from, void *to, int64_t count)
{
    if (count % 4 == 0 && (uintptr_t)from % 16 == 0 && (uintptr_t)to % 8 == 0) {
        unsigned blocks = (unsigned)min_u64(blocks_for(count / 4, 256), 8192);

        LAUNCH(device, round4_kernel, blocks, 256, 0, (const float4 *)from, (uint2 *)to,
               count / 4);
    } else {
        unsigned blocks = (unsigned)min_u64(blocks_for(count, 256), 8192);

        LAUNCH(device, round_kernel, blocks, 256, 0, from, (__nv_bfloat16 *)to, count);
    }
}

const void *operand(struct device *device, const float *from, void *room, int64_t count)
{
    if (!device->config.bf16)
        return from;
    cuda_round(device, from, room, count);
    return room;
}

const void *weight_operand(struct device *device, const float *w, void *room, int64_t count)
{
    const void *copy = rounded_find(device, w, count);

    return copy ? copy : operand(device, w, room, count);
}

/* Part p of a column is the sum of rows p, p + SUM_PARTS, ... in that order. */
template <typename item>
static __global__ void column_parts_kernel(const item *x, int64_t rows, int64_t columns,
                                           float *part)
{
    int64_t c = (int64_t)blockIdx.x % ((columns + blockDim.x - 1) / blockDim.x) * blockDim.x +
                threadIdx.x;
    int64_t p = blockIdx.x / ((columns + blockDim.x - 1) / blockDim.x);
    float sum = 0;

    if (c >= columns)
        return;
    for (int64_t r = p; r < rows; r += SUM_PARTS)
        sum += (float)x[r * columns + c];
    part[p * columns + c] = sum;
}

static __global__ void column_add_kernel(const float *part, int64_t columns, float *to)
{
    int64_t c = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    float sum = 0;

    if (c >= columns)
        return;
    for (int p = 0; p < SUM_PARTS; p++)
        sum += part[p * columns + c];
    to[c] += sum;
}

template <typename item>
static void sum_columns(struct device *device, const item *x, int64_t rows, int64_t columns,
                        float *to, float *room)
{
    unsigned width = blocks_for(columns, 128);

    LAUNCH(device, column_parts_kernel<item>, width * SUM_PARTS, 128, 0, x, rows, columns, room);
    LAUNCH(device, column_add_kernel, width, 128, 0, room, columns, to);
}

void column_sums(struct device *device, const float *x, int64_t rows, int64_t columns, float *to,
                 float *room)
{
    sum_columns(device, x, rows, columns, to, room);
}

void column_sums(struct device *device, const __nv_bfloat16 *x, int64_t rows, int64_t columns,
                 float *to, float *room)
{
    sum_columns(device, x, rows, columns, to, room);
}

/* Scratch of LINEAR, in order: x, w (without a copy), dy as bf16; column sums. */
struct linear_room {
    void *x, *w, *dy;
    float *sums;
};

static struct linear_room linear_cut(const struct device *device, const struct op_call *call,
                                     struct cutter *cutter)
{
    int64_t N = tensor_rows(call->in[0]), M = tensor_rows(call->in[1]);
    struct linear_room room;

    room.x = cut(cutter, operand_bytes(device, tensor_count(call->in[0])));
    room.w = cut(cutter, weight_operand_bytes(device, tensor_f32(call->in[1]),
                                              tensor_count(call->in[1])));
    room.dy = cut(cutter, operand_bytes(device, N * M));
    room.sums = (float *)cut(cutter, 4 * SUM_PARTS * (size_t)M);
    return room;
}

size_t cuda_linear_scratch(const struct device *device, const struct op_call *call)
{
    struct cutter cutter = {NULL, 0};

    linear_cut(device, call, &cutter);
    return cutter.used;
}

void cuda_linear_forward(struct device *device, const struct op_call *call)
{
    struct tensor *x = call->in[0], *w = call->in[1], *b = call->in[2];
    struct cutter cutter = {(char *)device->scratch, 0};
    struct linear_room room = linear_cut(device, call, &cutter);
    int64_t K = tensor_columns(x), M = tensor_rows(w);
    struct product p = {};

    p.b_transposed = true;
    p.is_bf16 = device->config.bf16;
    p.rows = tensor_rows(x);
    p.columns = M;
    p.inner = p.a_stride = p.b_stride = K;
    p.a = operand(device, tensor_f32(x), room.x, tensor_count(x));
    p.b = weight_operand(device, tensor_f32(w), room.w, tensor_count(w));
    p.c = tensor_f32(call->out[0]);
    p.c_stride = M;
    p.bias = b ? tensor_f32(b) : NULL;
    product_run(device, &p);
}

void cuda_linear_backward(struct device *device, const struct op_call *call)
{
    struct tensor *x = call->in[0], *w = call->in[1], *b = call->in[2];
    struct cutter cutter = {(char *)device->scratch, 0};
    struct linear_room room = linear_cut(device, call, &cutter);
    int64_t N = tensor_rows(x), K = tensor_columns(x), M = tensor_rows(w);
    const void *dy = operand(device, call->out[0]->grad, room.dy, N * M);
    struct product p = {};
    bool fresh;

    p.is_bf16 = device->config.bf16;
    p.a = dy;
    p.a_stride = M;
    p.columns = p.b_stride = p.c_stride = K;
    if (x->grad) {
        p.rows = N;
        p.inner = M;
        p.b = weight_operand(device, tensor_f32(w), room.w, M * K);
        p.c = device_grad(device, x, &fresh);
        p.accumulates = !fresh;
        product_run(device, &p);
    }
    if (w->grad) {
        p.a_transposed = true;
        p.rows = M;
        p.inner = N;
        p.b = operand(device, tensor_f32(x), room.x, N * K);
        p.c = device_grad(device, w, &fresh);
        p.accumulates = !fresh;
        product_run(device, &p);
    }
    if (b && b->grad)
        column_sums(device, call->out[0]->grad, N, M, device_grad(device, b, NULL), room.sums);
}
