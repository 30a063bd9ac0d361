/* backend.c - the reference backend: every op as its equation says, summed in double.
 *
 * Slow and plain on purpose. It is what a reader checks against the papers, and what the
 * other backends are checked against. It never overwrites: gradients are zeroed, then added. */
#include "worker/engine/builtin.h"
#include "worker/engine/reference/reference.h"

#define PAIR(name) \
    .forward = reference_##name##_forward, .backward = reference_##name##_backward

static const struct op_kernels ops[OP_END] = {
    [OP_EMBED] = {PAIR(embed)},
    [OP_LINEAR] = {PAIR(linear)},
    [OP_MLP] = {.forward = mlp_forward, .backward = mlp_backward, .scratch = mlp_scratch},
    [OP_LAYERNORM] = {PAIR(layernorm)},
    [OP_RMSNORM] = {PAIR(rmsnorm)},
    [OP_GELU] = {PAIR(gelu)},
    [OP_SWIGLU] = {PAIR(swiglu)},
    [OP_ADD] = {PAIR(add)},
    [OP_SOFTMAX] = {PAIR(softmax)},
    [OP_ROPE] = {PAIR(rope)},
    [OP_ATTENTION] = {PAIR(attention), .scratch = reference_attention_scratch},
    [OP_ATTENTION_CACHED] = {.forward = reference_attention_cached_forward,
                             .scratch = reference_attention_scratch},
    [OP_ATTEND] = {PAIR(attend), .scratch = reference_attend_scratch},
    [OP_ATTEND_CACHED] = {.forward = reference_attend_cached_forward,
                          .scratch = reference_attention_scratch},
    [OP_ACTIVATE] = {PAIR(activate)},
    [OP_GLU] = {PAIR(glu)},
    [OP_MUL] = {PAIR(mul)},
    [OP_SCALE] = {PAIR(scale)},
    [OP_SLICE] = {PAIR(slice)},
    [OP_POOL] = {PAIR(pool)},
    [OP_NLL] = {PAIR(nll)},
    [OP_JOIN] = {PAIR(join)},
    [OP_ADD_COLUMNS] = {PAIR(add_columns)},
    [OP_DROPOUT] = {PAIR(dropout)},
    [OP_ROUTE] = {PAIR(route), .scratch = reference_route_scratch},
    [OP_DISPATCH] = {PAIR(dispatch)},
    [OP_EXPERTS] = {PAIR(experts)},
    [OP_COMBINE] = {PAIR(combine)},
    [OP_EXCHANGE] = {.forward = exchange_forward, .backward = exchange_backward,
                     .scratch = exchange_scratch},
    [OP_LRPE] = {PAIR(lrpe)},
    [OP_LIGHTNING] = {PAIR(lightning)},
    [OP_LIGHTNING_STEP] = {.forward = reference_lightning_step_forward},
    [OP_GATHER] = {PAIR(gather)},
    [OP_HEAD] = {PAIR(head), .scratch = reference_head_scratch},
    [OP_SUM_SQUARES] = {.forward = reference_sum_squares_forward},
    [OP_ADAMW] = {.forward = reference_adamw_forward},
};

static void to_host(struct device *device, void *host, const void *from, size_t size_bytes)
{
    host_copy(device, host, from, size_bytes);
}

static void from_host(struct device *device, void *to, const void *host, size_t size_bytes)
{
    host_copy(device, to, host, size_bytes);
}

const struct backend backend_reference = {
    .kind = BACKEND_REFERENCE, .name = "reference", .open = host_open, .close = host_close,
    .alloc = host_alloc, .release = host_release, .zero = host_zero, .copy = host_copy,
    .to_host = to_host, .from_host = from_host, .finish = host_finish, .ops = ops,
};
