/* backend.c - the CPU backend: picks the widest kernels that the machine runs. */
#include "worker/engine/builtin.h"
#include "worker/engine/cpu/kernels/kernels.h"

#include <cblas.h>
#include <string.h>

static struct op_kernels chosen[OP_END];

static const struct op_kernels *best_kernels(void)
{
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl"))
        return cpu_ops_avx512;
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        return cpu_ops_avx2;
#endif
    return cpu_ops_base;
}

static int cpu_open(struct device *device, struct err *err)
{
    /* Our pool calls the BLAS from each of its threads; see kernels/gemm.h. */
    openblas_set_num_threads(1);
    memcpy(chosen, best_kernels(), sizeof chosen);
    return host_open(device, err);
}

static void cpu_to_host(struct device *device, void *host, const void *from, size_t size_bytes)
{
    host_copy(device, host, from, size_bytes);
}

static void cpu_from_host(struct device *device, void *to, const void *host, size_t size_bytes)
{
    host_copy(device, to, host, size_bytes);
}

const struct backend backend_cpu = {
    .kind = BACKEND_CPU, .name = "cpu", .open = cpu_open, .close = host_close,
    .alloc = host_alloc, .release = host_release, .zero = host_zero, .copy = host_copy,
    .to_host = cpu_to_host, .from_host = cpu_from_host, .finish = host_finish, .ops = chosen,
};
