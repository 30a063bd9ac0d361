/* backend.cu - the CUDA backend's table, memory and streams. */
#include "worker/engine/cuda/cuda.h"

#include <stdio.h>
#include <stdlib.h>

#define WORKSPACE_BYTES ((size_t)32 << 20) /* what cuBLAS asks for on Hopper */

void cuda_check(cudaError_t error, const char *call, const char *file, int line)
{
    char text[400];

    if (error == cudaSuccess)
        return;
    snprintf(text, sizeof text, "%s: %s", call, cudaGetErrorString(error));
    check_failed(text, file, line);
}

void blas_check(cublasStatus_t status, const char *call, const char *file, int line)
{
    char text[400];

    if (status == CUBLAS_STATUS_SUCCESS)
        return;
    snprintf(text, sizeof text, "%s: %s", call, cublasGetStatusString(status));
    check_failed(text, file, line);
}

static int refuse(struct err *err, const char *what, cudaError_t error)
{
    return err_set(err, ERR_NOT_FOUND, "cuda: %s: %s", what, cudaGetErrorString(error));
}

static int choose_gpu(const struct device *device, struct gpu *gpu, struct err *err)
{
    int count = 0;
    cudaError_t error = cudaGetDeviceCount(&count);

    if (error != cudaSuccess)
        return refuse(err, "looking for GPUs", error);
    if ((int)device->config.index >= count)
        return err_set(err, ERR_NOT_FOUND, "cuda: GPU %u is wanted, %d are visible",
                       device->config.index, count);
    error = cudaSetDevice((int)device->config.index);
    if (error != cudaSuccess)
        return refuse(err, "choosing the GPU", error);
    error = cudaDeviceGetAttribute(&gpu->processors, cudaDevAttrMultiProcessorCount,
                                   (int)device->config.index);
    if (error != cudaSuccess)
        return refuse(err, "asking for its processors", error);
    return 0;
}

static void gpu_free(struct gpu *gpu)
{
    plans_free(gpu);
    if (gpu->lt)
        cublasLtDestroy(gpu->lt);
    if (gpu->blas)
        cublasDestroy(gpu->blas);
    if (gpu->workspace)
        cudaFree(gpu->workspace);
    if (gpu->stream)
        cudaStreamDestroy(gpu->stream);
    free(gpu);
}

static int open_libraries(struct gpu *gpu, struct err *err)
{
    cudaError_t error = cudaStreamCreateWithFlags(&gpu->stream, cudaStreamNonBlocking);

    if (error != cudaSuccess)
        return refuse(err, "making a stream", error);
    error = cudaMalloc(&gpu->workspace, WORKSPACE_BYTES);
    if (error != cudaSuccess)
        return refuse(err, "32 MiB of workspace", error);
    if (cublasCreate(&gpu->blas) != CUBLAS_STATUS_SUCCESS ||
        cublasLtCreate(&gpu->lt) != CUBLAS_STATUS_SUCCESS)
        return err_set(err, ERR_NOT_FOUND, "cuda: cuBLAS did not start");
    BLAS_CHECK(cublasSetStream(gpu->blas, gpu->stream));
    BLAS_CHECK(cublasSetWorkspace(gpu->blas, gpu->workspace, WORKSPACE_BYTES));
    return 0;
}

static int cuda_open(struct device *device, struct err *err)
{
    struct gpu *gpu = (struct gpu *)calloc(1, sizeof *gpu);

    if (!gpu)
        return err_set(err, ERR_MEMORY, "cuda: %zu bytes", sizeof *gpu);
    if (choose_gpu(device, gpu, err) < 0 || open_libraries(gpu, err) < 0) {
        gpu_free(gpu);
        return -1;
    }
    device->state = gpu;
    return 0;
}

static void cuda_close(struct device *device)
{
    gpu_free(gpu_of(device));
    device->state = NULL;
}

static void *cuda_alloc(struct device *device, size_t size_bytes)
{
    void *memory = NULL;

    (void)device;
    if (cudaMalloc(&memory, size_bytes) == cudaSuccess)
        return memory;
    (void)cudaGetLastError(); /* out of memory is an answer, not a broken context */
    return NULL;
}

static void cuda_release(struct device *device, void *memory)
{
    (void)device;
    CUDA_CHECK(cudaFree(memory));
}

static void cuda_zero(struct device *device, void *memory, size_t size_bytes)
{
    CUDA_CHECK(cudaMemsetAsync(memory, 0, size_bytes, gpu_of(device)->stream));
}

static void cuda_copy(struct device *device, void *to, const void *from, size_t size_bytes)
{
    CUDA_CHECK(cudaMemcpyAsync(to, from, size_bytes, cudaMemcpyDeviceToDevice,
                               gpu_of(device)->stream));
}

static void cuda_finish(struct device *device)
{
    CUDA_CHECK(cudaStreamSynchronize(gpu_of(device)->stream));
}

static void cuda_to_host(struct device *device, void *host, const void *from, size_t size_bytes)
{
    CUDA_CHECK(cudaMemcpyAsync(host, from, size_bytes, cudaMemcpyDeviceToHost,
                               gpu_of(device)->stream));
    cuda_finish(device);
}

/* Pageable host memory is staged before the call returns, so the caller may reuse it. */
static void cuda_from_host(struct device *device, void *to, const void *host, size_t size_bytes)
{
    CUDA_CHECK(cudaMemcpyAsync(to, host, size_bytes, cudaMemcpyHostToDevice,
                               gpu_of(device)->stream));
}

#define PAIR(name) cuda_##name##_forward, cuda_##name##_backward

/* In the order of ops.def; checked by name when the table is built. */
struct named {
    enum op op;
    struct op_kernels kernels;
};

static const struct named named[] = {
    {OP_EMBED, {PAIR(embed), NULL}},
    {OP_LINEAR, {PAIR(linear), cuda_linear_scratch}},
    {OP_MLP, {PAIR(mlp), cuda_mlp_scratch}},
    {OP_LAYERNORM, {PAIR(layernorm), cuda_norm_scratch}},
    {OP_RMSNORM, {PAIR(rmsnorm), cuda_norm_scratch}},
    {OP_GELU, {PAIR(gelu), NULL}},
    {OP_SWIGLU, {PAIR(swiglu), NULL}},
    {OP_ADD, {PAIR(add), NULL}},
    {OP_SOFTMAX, {PAIR(softmax), NULL}},
    {OP_ROPE, {PAIR(rope), NULL}},
    {OP_ATTENTION, {PAIR(attention), cuda_attention_scratch}},
    {OP_ATTENTION_CACHED, {cuda_attention_cached_forward, NULL, NULL}},
    {OP_ATTEND, {PAIR(attend), cuda_attend_scratch}},
    {OP_ATTEND_CACHED, {cuda_attend_cached_forward, NULL, NULL}},
    {OP_ACTIVATE, {PAIR(activate), NULL}},
    {OP_GLU, {PAIR(glu), NULL}},
    {OP_MUL, {PAIR(mul), NULL}},
    {OP_SCALE, {PAIR(scale), NULL}},
    {OP_SLICE, {PAIR(slice), NULL}},
    {OP_POOL, {PAIR(pool), NULL}},
    {OP_NLL, {PAIR(nll), NULL}},
    {OP_JOIN, {PAIR(join), NULL}},
    {OP_ADD_COLUMNS, {PAIR(add_columns), NULL}},
    {OP_DROPOUT, {PAIR(dropout), NULL}},
    {OP_ROUTE, {PAIR(route), cuda_route_scratch}},
    {OP_DISPATCH, {PAIR(dispatch), NULL}},
    {OP_EXPERTS, {PAIR(experts), NULL}},
    {OP_COMBINE, {PAIR(combine), NULL}},
    {OP_LRPE, {PAIR(lrpe), NULL}},
    {OP_LIGHTNING, {PAIR(lightning), NULL}},
    {OP_LIGHTNING_STEP, {cuda_lightning_step_forward, NULL, NULL}},
    {OP_GATHER, {PAIR(gather), NULL}},
    {OP_HEAD, {PAIR(head), cuda_head_scratch}},
    {OP_SUM_SQUARES, {cuda_sum_squares_forward, NULL, cuda_sum_squares_scratch}},
    {OP_ADAMW, {cuda_adamw_forward, NULL, NULL}},
};
/* Of MPI and the host: the engine adds it (device.c, exchange.c). */
static const enum op absent[] = {
    OP_EXCHANGE,
};
static_assert(sizeof named / sizeof named[0] + sizeof absent / sizeof absent[0] == OP_END,
              "every op has CUDA kernels, or is known to have none");

/* C++17 has no array designators: the table is filled from the named list when loaded. */
struct table {
    struct op_kernels ops[OP_END];
    table() : ops()
    {
        for (const struct named &entry : named)
            ops[entry.op] = entry.kernels;
    }
};
static const struct table table;

extern "C" __attribute__((visibility("default"))) const struct backend backend_cuda = {
    BACKEND_CUDA, "cuda", cuda_open, cuda_close, cuda_alloc, cuda_release, cuda_zero, cuda_copy,
    cuda_to_host, cuda_from_host, cuda_finish, cuda_round, table.ops, cuda_links,
};
