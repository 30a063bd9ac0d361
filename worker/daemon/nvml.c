/* nvml.c - see nvml.h. Names, types and values as in NVIDIA's nvml.h. */
#include "worker/daemon/nvml.h"

#include <dlfcn.h>
#include <stdio.h>

typedef int nvml_status; /* nvmlReturn_t; 0 is success */
typedef struct nvml_device *nvml_device;

struct nvml_pci { /* nvmlPciInfo_t, version 3 */
    char old_bus_id[16];
    unsigned domain, bus, device, ids, subsystem;
    char bus_id[32];
};

struct nvml_memory { /* nvmlMemory_t */
    unsigned long long total, free, used;
};

struct nvml_utilization { /* nvmlUtilization_t, percent */
    unsigned gpu, memory;
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
    nvml_status (*by_uuid)(const char *uuid, nvml_device *out);
    nvml_status (*utilization)(nvml_device device, struct nvml_utilization *out);
    /* Newer than the rest; NULL in old drivers. */
    nvml_status (*minor)(nvml_device device, unsigned *out);
    nvml_status (*pci)(nvml_device device, struct nvml_pci *out);
    nvml_status (*mig_mode)(nvml_device device, unsigned *current, unsigned *pending);
    nvml_status (*mig_count)(nvml_device device, unsigned *out);
    nvml_status (*mig_handle)(nvml_device device, unsigned index, nvml_device *out);
};

#define NEEDED 10u /* of the symbols below: the driver is of no use without them */

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
        {"nvmlDeviceGetHandleByUUID", (void **)&nvml->by_uuid},
        {"nvmlDeviceGetUtilizationRates", (void **)&nvml->utilization},
        {"nvmlDeviceGetMinorNumber", (void **)&nvml->minor},
        {"nvmlDeviceGetPciInfo_v3", (void **)&nvml->pci},
        {"nvmlDeviceGetMigMode", (void **)&nvml->mig_mode},
        {"nvmlDeviceGetMaxMigDeviceCount", (void **)&nvml->mig_count},
        {"nvmlDeviceGetMigDeviceHandleByIndex", (void **)&nvml->mig_handle},
    };
    nvml->library = dlopen("libnvidia-ml.so.1", RTLD_NOW | RTLD_LOCAL);
    if (!nvml->library)
        return err_set(err, ERR_NOT_FOUND, "no NVIDIA driver: %s", dlerror());
    for (size_t i = 0; i < ARRAY_COUNT(symbols); i++) {
        *symbols[i].function = dlsym(nvml->library, symbols[i].name);
        if (!*symbols[i].function && i < NEEDED) {
            dlclose(nvml->library);
            return err_set(err, ERR_IO, "libnvidia-ml.so.1 lacks %s", symbols[i].name);
        }
    }
    return 0;
}

/* What a slice has from the GPU that it is of. */
struct whole {
    const char *pci;
    int minor;
};

static nvml_status gpu_read(const struct nvml *nvml, nvml_device device, const struct whole *whole,
                            struct nvml_gpu *out)
{
    struct nvml_memory memory;
    nvml_status status = nvml->name(device, out->model, sizeof out->model);
    if (status == 0)
        status = nvml->uuid(device, out->uuid, sizeof out->uuid);
    if (status == 0)
        status = nvml->memory(device, &memory);
    if (status == 0)
        out->memory_bytes = memory.total;
    snprintf(out->pci, sizeof out->pci, "%s", whole->pci);
    out->minor = whole->minor;
    return status;
}

struct listing {
    struct nvml_gpu *gpus;
    size_t capacity, count;
};

static nvml_status listing_add(const struct nvml *nvml, nvml_device device,
                               const struct whole *whole, struct listing *list)
{
    nvml_status status = 0;
    if (list->count < list->capacity)
        status = gpu_read(nvml, device, whole, &list->gpus[list->count]);
    list->count++; /* beyond the capacity it says how many there are */
    return status;
}

/* Numbers of slices have gaps. A device without slices in MIG mode can run nothing. */
static nvml_status slices_add(const struct nvml *nvml, nvml_device device,
                              const struct whole *whole, struct listing *list)
{
    unsigned most = 0;
    nvml_device slice;
    nvml_status status = nvml->mig_count(device, &most);
    for (unsigned i = 0; status == 0 && i < most; i++)
        if (nvml->mig_handle(device, i, &slice) == 0)
            status = listing_add(nvml, slice, whole, list);
    return status;
}

static nvml_status device_add(const struct nvml *nvml, unsigned index, struct listing *list)
{
    nvml_device device;
    struct nvml_pci pci = {.bus_id = ""};
    unsigned mode = 0, pending, minor;
    nvml_status status = nvml->handle(index, &device);
    if (status != 0)
        return status;
    if (nvml->pci && nvml->pci(device, &pci) != 0)
        pci.bus_id[0] = '\0';
    bool told = nvml->minor && nvml->minor(device, &minor) == 0 && minor < 4096;
    const struct whole whole = {pci.bus_id, told ? (int)minor : -1};
    bool knows_mig = nvml->mig_mode && nvml->mig_count && nvml->mig_handle;
    if (knows_mig && nvml->mig_mode(device, &mode, &pending) == 0 && mode)
        return slices_add(nvml, device, &whole, list);
    return listing_add(nvml, device, &whole, list);
}

static int gpus_read(const struct nvml *nvml, struct nvml_gpu *gpus, size_t capacity,
                     size_t *out_count, struct err *err)
{
    unsigned count;
    struct listing list = {gpus, capacity, 0};
    nvml_status status = nvml->count(&count);
    for (unsigned i = 0; status == 0 && i < count; i++)
        status = device_add(nvml, i, &list);
    if (status != 0)
        return err_set(err, ERR_IO, "NVML: %s", nvml->error_text(status));
    if (list.count > capacity)
        return err_set(err, ERR_LIMIT, "%zu GPUs and slices, at most %zu are known here",
                       list.count, capacity);
    *out_count = list.count;
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

static int used_read(const struct nvml *nvml, const char *uuid, uint64_t *out_used,
                     struct err *err)
{
    nvml_device device;
    struct nvml_memory memory;
    nvml_status status = nvml->by_uuid(uuid, &device);
    if (status == 0)
        status = nvml->memory(device, &memory);
    if (status != 0)
        return err_set(err, ERR_IO, "NVML: %s: %s", uuid, nvml->error_text(status));
    *out_used = memory.used;
    return 0;
}

int nvml_used(const char *uuid, uint64_t *out_used, struct err *err)
{
    struct nvml nvml;
    if (nvml_open(&nvml, err) < 0)
        return -1;
    nvml_status status = nvml.init();
    int rc = status != 0 ? err_set(err, ERR_IO, "NVML: %s", nvml.error_text(status))
                         : used_read(&nvml, uuid, out_used, err);
    if (status == 0)
        nvml.shutdown();
    dlclose(nvml.library);
    return rc;
}

static void usage_read(const struct nvml *nvml, const char *uuid, struct nvml_usage *out)
{
    nvml_device device;
    struct nvml_memory memory;
    struct nvml_utilization utilization;
    *out = (struct nvml_usage){0};
    if (nvml->by_uuid(uuid, &device) != 0)
        return;
    out->used_known = nvml->memory(device, &memory) == 0;
    out->used_bytes = out->used_known ? memory.used : 0;
    out->busy_known = nvml->utilization(device, &utilization) == 0;
    out->busy_percent = out->busy_known ? utilization.gpu : 0;
}

int nvml_usage(const char *const *uuids, size_t count, struct nvml_usage *out, struct err *err)
{
    struct nvml nvml;
    if (nvml_open(&nvml, err) < 0)
        return -1;
    nvml_status status = nvml.init();
    int rc = status != 0 ? err_set(err, ERR_IO, "NVML: %s", nvml.error_text(status)) : 0;
    for (size_t i = 0; rc == 0 && i < count; i++)
        usage_read(&nvml, uuids[i], &out[i]);
    if (status == 0)
        nvml.shutdown();
    dlclose(nvml.library);
    return rc;
}
