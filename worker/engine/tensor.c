/* tensor.c - counts, and copies between host and device. */
#include "worker/engine/tensor.h"

#include "worker/engine/backend.h"

#include <string.h>

int64_t tensor_count(const struct tensor *tensor)
{
    return tensor_rows(tensor) * tensor_columns(tensor);
}

int64_t tensor_rows(const struct tensor *tensor)
{
    int64_t rows = 1;

    for (int i = 0; i < tensor->rank - 1; i++)
        rows *= tensor->dim[i];
    return rows;
}

int64_t tensor_columns(const struct tensor *tensor)
{
    return tensor->dim[tensor->rank - 1];
}

void tensor_read(const struct tensor *tensor, void *out_host)
{
    struct device *device = tensor->device;

    device->backend->to_host(device, out_host, tensor->values, 4 * (size_t)tensor_count(tensor));
}

void tensor_write(struct tensor *tensor, const void *host)
{
    struct device *device = tensor->device;

    device->backend->from_host(device, tensor->values, host, 4 * (size_t)tensor_count(tensor));
    if (tensor->of_model && device->weights_written)
        device->weights_written(device, tensor->values, 4 * (size_t)tensor_count(tensor));
}

void tensor_read_grad(const struct tensor *tensor, float *out_host)
{
    struct device *device = tensor->device;
    size_t size_bytes = 4 * (size_t)tensor_count(tensor);

    if (tensor->grad && tensor->grad_ready)
        device->backend->to_host(device, out_host, tensor->grad, size_bytes);
    else
        memset(out_host, 0, size_bytes);
}

float *device_grad(struct device *device, struct tensor *tensor, bool *overwrites)
{
    bool fresh = !tensor->grad_ready;

    CHECK(tensor->grad != NULL);
    tensor->grad_ready = true;
    if (overwrites)
        *overwrites = fresh;
    else if (fresh)
        device->backend->zero(device, tensor->grad, 4 * (size_t)tensor_count(tensor));
    return tensor->grad;
}
