/* reference.h - the plain C ops, grouped by file. Same conventions as backend.h. */
#ifndef ATHANOR_ENGINE_REFERENCE_H
#define ATHANOR_ENGINE_REFERENCE_H

#include "worker/engine/builtin.h"

#define REFERENCE_PAIR(name) \
    void reference_##name##_forward(struct device *device, const struct op_call *call); \
    void reference_##name##_backward(struct device *device, const struct op_call *call)

REFERENCE_PAIR(embed);
REFERENCE_PAIR(linear);
REFERENCE_PAIR(layernorm);
REFERENCE_PAIR(rmsnorm);
REFERENCE_PAIR(gelu);
REFERENCE_PAIR(swiglu);
REFERENCE_PAIR(add);
REFERENCE_PAIR(softmax);
REFERENCE_PAIR(rope);
REFERENCE_PAIR(attention);
REFERENCE_PAIR(gather);
REFERENCE_PAIR(attend);
REFERENCE_PAIR(activate);
REFERENCE_PAIR(glu);
REFERENCE_PAIR(mul);
REFERENCE_PAIR(scale);
REFERENCE_PAIR(slice);
REFERENCE_PAIR(pool);
REFERENCE_PAIR(nll);
REFERENCE_PAIR(join);
REFERENCE_PAIR(add_columns);
REFERENCE_PAIR(dropout);
REFERENCE_PAIR(route);
REFERENCE_PAIR(dispatch);
REFERENCE_PAIR(experts);
REFERENCE_PAIR(combine);
REFERENCE_PAIR(lrpe);
REFERENCE_PAIR(lightning);
void reference_lightning_step_forward(struct device *device, const struct op_call *call);
REFERENCE_PAIR(head);
void reference_attend_cached_forward(struct device *device, const struct op_call *call);
void reference_attention_cached_forward(struct device *device, const struct op_call *call);
void reference_sum_squares_forward(struct device *device, const struct op_call *call);
void reference_adamw_forward(struct device *device, const struct op_call *call);

/* Scratch, in bytes. */
size_t reference_attention_scratch(const struct device *device, const struct op_call *call);
size_t reference_route_scratch(const struct device *device, const struct op_call *call);
size_t reference_attend_scratch(const struct device *device, const struct op_call *call);
size_t reference_head_scratch(const struct device *device, const struct op_call *call);

#endif
