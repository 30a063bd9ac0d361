/* nvml.c - see nvml.h. Names, types and values as in NVIDIA's nvml.h. */
#include "worker/daemon/nvml.h"

#include <dlfcn.h>
#include <stdio.h>

typedef int nvml_status; /* nvmlReturn_t; 0 is success */
typedef struct nvml_device *nvml_device;

struct nvml_memory { /* nvmlMemory_t */
    unsigned long long total, free, used;
};

struct nvml {
    void *library;
    nvml_status (*init)(void);
    nvml_status (*shutdown)(void);
    const char *(*error_text)(nvml_status status);
    nvml_status (*count)(unsigned *out);
    nvml_status (*handle)(unsigned index, nvml_device *out);
    nvml_status (*name)(nvml_device device, char *out, unsigned size);
    nvml_status (*uuid)(nvml_device device, char *out, unsigned size);
    nvml_status (*memory)(nvml_device device, struct nvml_memory *out);
};

static int nvml_open(struct nvml *nvml, struct err *err)
{
    struct {
        const char *name;
        void **function;
    } symbols[] = {
        {"nvmlInit_v2", (void **)&nvml->init},
        {"nvmlShutdown", (void **)&nvml->shutdown},
        {"nvmlErrorString", (void **)&nvml->error_text},
        {"nvmlDeviceGetCount_v2", (void **)&nvml->count},
        {"nvmlDeviceGetHandleByIndex_v2", (void **)&nvml->handle},
        {"nvmlDeviceGetName", (void **)&nvml->name},
        {"nvmlDeviceGetUUID", (void **)&nvml->uuid},
        {"nvmlDeviceGetMemoryInfo", (void **)&nvml->memory},
    };
    nvml->library = dlopen("libnvidia-ml.so.1", RTLD_NOW | RTLD_LOCAL);
    if (!nvml->library)
        return err_set(err, ERR_NOT_FOUND, "no NVIDIA driver: %s", dlerror());
    for (size_t i = 0; i < ARRAY_COUNT(symbols); i++) {
        *symbols[i].function = dlsym(nvml->library, symbols[i].name);
        if (!*symbols[i].function) {
            dlclose(nvml->library);
            return err_set(err, ERR_IO, "libnvidia-ml.so.1 lacks %s", symbols[i].name);
        }
    }
    return 0;
}

static nvml_status gpu_read(const struct nvml *nvml, unsigned index, struct nvml_gpu *out)
{
    nvml_device device;
    struct nvml_memory memory;
    nvml_status status = nvml->handle(index, &device);
    if (status == 0)
        status = nvml->name(device, out->model, sizeof out->model);
    if (status == 0)
        status = nvml->uuid(device, out->uuid, sizeof out->uuid);
    if (status == 0)
        status = nvml->memory(device, &memory);
    if (status == 0)
        out->memory_bytes = memory.total;
    return status;
}

static int gpus_read(const struct nvml *nvml, struct nvml_gpu *gpus, size_t capacity,
                     size_t *out_count, struct err *err)
{
    unsigned count;
    nvml_status status = nvml->count(&count);
    if (status == 0 && count > capacity)
        return err_set(err, ERR_LIMIT, "%u GPUs, at most %zu are known here", count, capacity);
    for (unsigned i = 0; status == 0 && i < count; i++)
        status = gpu_read(nvml, i, &gpus[i]);
    if (status != 0)
        return err_set(err, ERR_IO, "NVML: %s", nvml->error_text(status));
    *out_count = count;
    return 0;
}

int nvml_list(struct nvml_gpu *gpus, size_t capacity, size_t *out_count, struct err *err)
{
    struct nvml nvml;
    if (nvml_open(&nvml, err) < 0)
        return -1;
    nvml_status status = nvml.init();
    int rc = status != 0 ? err_set(err, ERR_IO, "NVML: %s", nvml.error_text(status))
                         : gpus_read(&nvml, gpus, capacity, out_count, err);
    if (status == 0)
        nvml.shutdown();
    dlclose(nvml.library);
    return rc;
}
