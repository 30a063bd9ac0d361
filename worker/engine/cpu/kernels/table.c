/* table.c - which kernels serve which op, for one instruction set. */
#include "worker/engine/cpu/kernels/kernels.h"

#define PAIR(name) .forward = KERNEL(name##_forward), .backward = KERNEL(name##_backward)

const struct op_kernels KERNEL(cpu_ops)[OP_END] = {
    [OP_EMBED] = {PAIR(embed)},
    [OP_LINEAR] = {PAIR(linear)},
    [OP_LAYERNORM] = {PAIR(layernorm), .scratch = KERNEL(norm_scratch)},
    [OP_RMSNORM] = {PAIR(rmsnorm), .scratch = KERNEL(norm_scratch)},
    [OP_GELU] = {PAIR(gelu)},
    [OP_SWIGLU] = {PAIR(swiglu)},
    [OP_ADD] = {PAIR(add)},
    [OP_SOFTMAX] = {PAIR(softmax)},
    [OP_ROPE] = {PAIR(rope)},
    [OP_ATTENTION] = {PAIR(attention), .scratch = KERNEL(attention_scratch)},
    [OP_ATTENTION_CACHED] = {.forward = KERNEL(attention_cached_forward),
                             .scratch = KERNEL(attention_cached_scratch)},
    [OP_ATTEND] = {PAIR(attend), .scratch = KERNEL(attention_scratch)},
    [OP_ACTIVATE] = {PAIR(activate)},
    [OP_GLU] = {PAIR(glu)},
    [OP_MUL] = {PAIR(mul)},
    [OP_SCALE] = {PAIR(scale)},
    [OP_SLICE] = {PAIR(slice)},
    [OP_POOL] = {PAIR(pool)},
    [OP_NLL] = {PAIR(nll)},
    [OP_GATHER] = {PAIR(gather)},
    [OP_HEAD] = {PAIR(head), .scratch = KERNEL(head_scratch)},
    [OP_SUM_SQUARES] = {.forward = KERNEL(sum_squares_forward),
                        .scratch = KERNEL(sum_squares_scratch)},
    [OP_ADAMW] = {.forward = KERNEL(adamw_forward)},
};
