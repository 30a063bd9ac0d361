/* kernels.h - the vector kernels of the CPU backend.
 *
 * Every file of this folder is compiled once per instruction set (KERNEL_SET is avx512,
 * avx2 or base); backend.c chooses at start what the machine can run. Only names made by
 * KERNEL are visible outside their file. */
#ifndef ATHANOR_ENGINE_CPU_KERNELS_H
#define ATHANOR_ENGINE_CPU_KERNELS_H

#include "worker/engine/backend.h"
#include "worker/engine/threads.h"

#ifndef KERNEL_SET
#define KERNEL_SET base
#endif
#define KERNEL_PASTE(name, set) name##_##set
#define KERNEL_EXPAND(name, set) KERNEL_PASTE(name, set)
#define KERNEL(name) KERNEL_EXPAND(name, KERNEL_SET)

#define FORWARD_AND_BACKWARD(name) \
    void KERNEL(name##_forward)(struct device *device, const struct op_call *call); \
    void KERNEL(name##_backward)(struct device *device, const struct op_call *call)

FORWARD_AND_BACKWARD(embed);
FORWARD_AND_BACKWARD(linear);
FORWARD_AND_BACKWARD(layernorm);
FORWARD_AND_BACKWARD(rmsnorm);
FORWARD_AND_BACKWARD(gelu);
FORWARD_AND_BACKWARD(swiglu);
FORWARD_AND_BACKWARD(add);
FORWARD_AND_BACKWARD(softmax);
FORWARD_AND_BACKWARD(rope);
FORWARD_AND_BACKWARD(attention);
FORWARD_AND_BACKWARD(gather);
FORWARD_AND_BACKWARD(attend);
FORWARD_AND_BACKWARD(activate);
FORWARD_AND_BACKWARD(glu);
FORWARD_AND_BACKWARD(mul);
FORWARD_AND_BACKWARD(scale);
FORWARD_AND_BACKWARD(slice);
FORWARD_AND_BACKWARD(pool);
FORWARD_AND_BACKWARD(nll);
FORWARD_AND_BACKWARD(join);
FORWARD_AND_BACKWARD(add_columns);
FORWARD_AND_BACKWARD(dropout);
FORWARD_AND_BACKWARD(route);
FORWARD_AND_BACKWARD(dispatch);
FORWARD_AND_BACKWARD(experts);
FORWARD_AND_BACKWARD(combine);
FORWARD_AND_BACKWARD(lrpe);
FORWARD_AND_BACKWARD(lightning);
void KERNEL(lightning_step_forward)(struct device *device, const struct op_call *call);
FORWARD_AND_BACKWARD(head);
void KERNEL(attend_cached_forward)(struct device *device, const struct op_call *call);
void KERNEL(attention_cached_forward)(struct device *device, const struct op_call *call);
void KERNEL(sum_squares_forward)(struct device *device, const struct op_call *call);
void KERNEL(adamw_forward)(struct device *device, const struct op_call *call);

void KERNEL(linear_pack)(struct device *device, const struct tensor *w, float *out);
size_t KERNEL(linear_packed_bytes)(int64_t M, int64_t K);
size_t KERNEL(norm_scratch)(const struct device *device, const struct op_call *call);
size_t KERNEL(attention_scratch)(const struct device *device, const struct op_call *call);
size_t KERNEL(attention_cached_scratch)(const struct device *device, const struct op_call *call);
size_t KERNEL(route_scratch)(const struct device *device, const struct op_call *call);
size_t KERNEL(lightning_scratch)(const struct device *device, const struct op_call *call);
size_t KERNEL(head_scratch)(const struct device *device, const struct op_call *call);
size_t KERNEL(sum_squares_scratch)(const struct device *device, const struct op_call *call);

/* The table of each set; sets that the compiler's target lacks are absent. */
extern const struct op_kernels cpu_ops_base[OP_END];
#if defined(__x86_64__)
extern const struct op_kernels cpu_ops_avx2[OP_END];
extern const struct op_kernels cpu_ops_avx512[OP_END];
#endif

#endif
