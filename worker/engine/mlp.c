/* mlp.c - OP_MLP of backends in host memory: the three ops that it joins. Models there call those
 * themselves (op_mlp), since a tape uses the memory between them again. */
#include "worker/engine/builtin.h"

/* The calls; what lies between them are the call's own arrays. */
struct parts {
    struct tensor inner, active;
    struct op_call in, act, out;
};

static void parts_of(const struct op_call *call, struct parts *p)
{
    *p = (struct parts){.inner = *call->out[1], .active = *call->out[2]};
    p->in = (struct op_call){.op = OP_LINEAR, .in = {call->in[0], call->in[1], call->in[2]},
                             .out = {&p->inner}};
    p->act = (struct op_call){.op = call->whole[0] ? OP_SWIGLU : OP_GELU, .in = {&p->inner},
                              .out = {&p->active}};
    p->out = (struct op_call){.op = OP_LINEAR, .in = {&p->active, call->in[3], call->in[4]},
                              .out = {call->out[0]}};
}

/* Gradients of what lies between. The three need no scratch there. */
size_t mlp_scratch(const struct device *device, const struct op_call *call)
{
    (void)device;
    return 4 * (size_t)(tensor_count(call->out[1]) + tensor_count(call->out[2]));
}

void mlp_forward(struct device *device, const struct op_call *call)
{
    struct parts p;

    parts_of(call, &p);
    op_forward(device, &p.in);
    op_forward(device, &p.act);
    op_forward(device, &p.out);
}

void mlp_backward(struct device *device, const struct op_call *call)
{
    struct parts p;

    parts_of(call, &p);
    CHECK(device->scratch_bytes >= mlp_scratch(device, call));
    p.inner.grad = device->scratch;
    p.active.grad = p.inner.grad + tensor_count(&p.inner);
    p.inner.grad_ready = p.active.grad_ready = false;
    op_backward(device, &p.out);
    op_backward(device, &p.act);
    op_backward(device, &p.in);
}
