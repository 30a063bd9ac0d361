/* builtin.h - the backends of this build; for device.c and the backends themselves. */
#ifndef ATHANOR_ENGINE_BUILTIN_H
#define ATHANOR_ENGINE_BUILTIN_H

#include "worker/engine/backend.h"

#ifdef __cplusplus
extern "C" {
#endif
extern const struct backend backend_reference;
extern const struct backend backend_cpu;
extern const struct backend backend_cuda; /* in the module; see device.c */
#ifdef __cplusplus
}
#endif

/* Memory functions of both backends that live in host memory. */
int host_open(struct device *device, struct err *err);
void host_close(struct device *device);
void *host_alloc(struct device *device, size_t size_bytes);
void host_release(struct device *device, void *memory);
void host_zero(struct device *device, void *memory, size_t size_bytes);
void host_copy(struct device *device, void *to, const void *from, size_t size_bytes);
void host_finish(struct device *device);

/* OP_EXCHANGE: of both, and of a backend with memory of its own (exchange.c). */
extern const struct op_kernels exchange_staged;
void exchange_forward(struct device *device, const struct op_call *call);
void exchange_backward(struct device *device, const struct op_call *call);
size_t exchange_scratch(const struct device *device, const struct op_call *call);

/* OP_MLP of both, as the three ops that it joins (mlp.c). */
void mlp_forward(struct device *device, const struct op_call *call);
void mlp_backward(struct device *device, const struct op_call *call);
size_t mlp_scratch(const struct device *device, const struct op_call *call);

#endif
