/* cuda_host.h - lets the .cu files of worker/engine/cuda be compiled by a C++ compiler and run on
 * the host: for tests of the kernels where there is no GPU. Given to the compiler with -include.
 *
 * One block runs at a time. Its threads are fibers that run until they finish or reach a barrier
 * or an operation of the warp, so every value passes between threads as on a GPU, and a barrier
 * that some threads of a block miss, or a warp operation that some lanes miss, ends the process.
 * Launches take turns in running blocks and threads first to last and last to first: kernels that
 * lack a barrier then differ between runs. New memory is NaN, and ends at a guard page: reads of
 * what nobody wrote and writes past an array show.
 *
 * Products: cuBLAS and cuBLASLt are plain loops; the latter has no algorithm for odd sizes, which
 * take the path of run_unplanned. Not seen here: memory ordering without barriers, launch limits
 * of a GPU, its rounding (exp, fused multiply-add), speed. */
#ifndef ATHANOR_TESTS_CUDA_HOST_H
#define ATHANOR_TESTS_CUDA_HOST_H

#define ATHANOR_CUDA_HOST 1
#define __CUDACC__ 1

#include <cmath>
#include <csetjmp>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <sys/mman.h>
#include <ucontext.h>

#define __global__
#define __device__
#define __host__
#define __shared__ static /* one block at a time */

struct dim3 { unsigned x, y, z; };
extern struct dim3 threadIdx, blockIdx, blockDim, gridDim;

void host_run(unsigned blocks, unsigned threads, const std::function<void()> &thread);
/* Waits for the warp's 32 lanes; every lane gives a value and sees all. */
const uint32_t *host_warp(uint32_t value);
/* Waits for the block's threads; how many of them gave a value other than 0. */
int host_block(int value);

template <typename... P, typename... A>
static void host_launch(unsigned blocks, unsigned threads, void (*kernel)(P...), A... arguments)
{
    host_run(blocks, threads, [=]() { kernel(arguments...); });
}

#define LAUNCH(device, kernel, blocks, threads, shared, ...) \
    ((void)(device), host_launch((unsigned)(blocks), (unsigned)(threads), kernel, __VA_ARGS__))

static inline void __syncthreads() { (void)host_block(0); }
static inline int __syncthreads_or(int value) { return host_block(value) != 0; }
static inline int __popc(unsigned bits) { return __builtin_popcount(bits); }

static inline unsigned __ballot_sync(unsigned, int value)
{
    const uint32_t *all = host_warp(value != 0);
    unsigned bits = 0;

    for (int lane = 0; lane < 32; lane++)
        bits |= all[lane] << lane;
    return bits;
}

static inline float __shfl_xor_sync(unsigned, float value, int mask)
{
    uint32_t bits;

    memcpy(&bits, &value, 4);
    bits = host_warp(bits)[threadIdx.x % 32 ^ (unsigned)mask];
    memcpy(&value, &bits, 4);
    return value;
}

static inline int64_t min(int64_t a, int64_t b) { return a < b ? a : b; }

struct float2 { float x, y; };
struct float4 { float x, y, z, w; };
struct uint2 { unsigned x, y; };
static inline float2 make_float2(float x, float y) { return {x, y}; }

/* Rounds to nearest, ties to even. */
struct __nv_bfloat16 {
    uint16_t bits;
    __nv_bfloat16() = default;
    explicit __nv_bfloat16(float v)
    {
        uint32_t all;

        memcpy(&all, &v, 4);
        bits = (uint16_t)((all + 0x7fff + (all >> 16 & 1)) >> 16);
    }
    explicit operator float() const
    {
        uint32_t all = (uint32_t)bits << 16;
        float v;

        memcpy(&v, &all, 4);
        return v;
    }
};
struct __nv_bfloat162 { __nv_bfloat16 x, y; };
static inline __nv_bfloat16 __float2bfloat16(float v) { return __nv_bfloat16(v); }
static inline __nv_bfloat162 __floats2bfloat162_rn(float x, float y)
{
    return {__nv_bfloat16(x), __nv_bfloat16(y)};
}

/* The runtime's calls that backend.cu makes; all succeed, memory apart. */
typedef void *cudaStream_t;
enum cudaError_t { cudaSuccess, cudaErrorMemoryAllocation };
enum { cudaMemcpyDeviceToDevice, cudaMemcpyDeviceToHost, cudaMemcpyHostToDevice };
enum { cudaStreamNonBlocking = 1, cudaDevAttrMultiProcessorCount = 16 };
cudaError_t cudaMalloc(void **out, size_t size);
template <typename T> static cudaError_t cudaMalloc(T **out, size_t size)
{
    return cudaMalloc((void **)out, size);
}
cudaError_t cudaFree(void *memory);
static inline cudaError_t cudaGetDeviceCount(int *count) { *count = 1; return cudaSuccess; }
static inline cudaError_t cudaSetDevice(int) { return cudaSuccess; }
static inline cudaError_t cudaDeviceGetAttribute(int *value, int, int)
{
    *value = 1;
    return cudaSuccess;
}
static inline cudaError_t cudaStreamCreateWithFlags(cudaStream_t *, int) { return cudaSuccess; }
static inline cudaError_t cudaStreamDestroy(cudaStream_t) { return cudaSuccess; }
static inline cudaError_t cudaStreamSynchronize(cudaStream_t) { return cudaSuccess; }
static inline cudaError_t cudaGetLastError() { return cudaSuccess; }
static inline const char *cudaGetErrorString(cudaError_t) { return "out of memory"; }
static inline cudaError_t cudaMemsetAsync(void *to, int byte, size_t size, cudaStream_t)
{
    memset(to, byte, size);
    return cudaSuccess;
}
static inline cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t size, int,
                                          cudaStream_t)
{
    memcpy(to, from, size);
    return cudaSuccess;
}

#include "tests/lib/cuda_host_blas.h"

#endif
