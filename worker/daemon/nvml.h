/* nvml.h - NVIDIA's management library, opened at run time. */
#ifndef ATHANOR_DAEMON_NVML_H
#define ATHANOR_DAEMON_NVML_H

#include "common/base/err.h"

struct nvml_gpu {
    char model[96], uuid[96];
    char pci[32]; /* "00000000:17:00.0"; "": not told */
    int minor;    /* of the GPU's /dev/nvidiaN; -1: not told */
    uint64_t memory_bytes;
};

/* Whole GPUs; of one that is cut into slices (MIG) the slices in its place. Errors: ERR_NOT_FOUND
 * (no library: no driver), ERR_IO (the driver's word), ERR_LIMIT. */
int nvml_list(struct nvml_gpu *gpus, size_t capacity, size_t *out_count,
              struct err *err) WARN_UNUSED;

/* Bytes in use on the device, slices too. Errors: as nvml_list. */
int nvml_used(const char *uuid, uint64_t *out_used, struct err *err) WARN_UNUSED;

struct nvml_usage {
    bool busy_known, used_known; /* slices do not tell how busy they are */
    unsigned busy_percent;       /* of the time in which the driver last looked, up to 1 s */
    uint64_t used_bytes;
};

/* What is used of each device; one that does not answer tells nothing. Errors: as nvml_list. */
int nvml_usage(const char *const *uuids, size_t count, struct nvml_usage *out,
               struct err *err) WARN_UNUSED;

#endif
