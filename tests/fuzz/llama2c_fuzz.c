/* link: engine-io */
/* llama2c_fuzz.c - whatever is accepted as a checkpoint of llama2.c is a model with as many weights
 * as the file has room for, of finite numbers. */
#include "common/base/mem.h"
#include "worker/engine/backend.h"
#include "worker/engine/io/llama2c_import.h"

#include <math.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length);

/* Angles of positions need memory that no file has: what is more than this is refused. */
#define MEMORY_BYTES ((uint64_t)64 << 20)

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
    static struct device *device;
    struct device_config where = {.kind = BACKEND_CPU, .threads = 1,
                                  .memory_limit_bytes = MEMORY_BYTES};
    struct model *model = NULL;
    struct err err;

    if (!device)
        CHECK(device_open(&where, &device, &err) == 0);
    if (llama2c_parse(bytes, length, device, &model, &err) < 0)
        return 0;
    CHECK(4 * (uint64_t)model_weight_count(&model->config) < length);
    float *values = mem_array((size_t)model->flat_count, sizeof *values);
    tensor_read(&model->flat, values);
    for (int64_t i = 0; i < model->flat_count; i++)
        CHECK(isfinite(values[i]));
    mem_free(values);
    model_free(model);
    return 0;
}
