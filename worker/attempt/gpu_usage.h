/* gpu_usage.h - what is used of the node's GPUs: a file that the daemon's sampler replaces, and
 * that shepherds read. A driver that hangs then stops the file from changing, and nothing else.
 *
 *   athanor-gpu-usage 1 STEADY_MS
 *   WORD BUSY USED          for each device: its word of CUDA_VISIBLE_DEVICES, percent, bytes
 *
 * with '-' for what the device does not tell. */
#ifndef ATHANOR_ATTEMPT_GPU_USAGE_H
#define ATHANOR_ATTEMPT_GPU_USAGE_H

#include "common/base/buf.h"
#include "common/base/err.h"

#define GPU_USAGE_BYTES_MAX 65536u /* 64 devices of less than 200 bytes */

struct gpu_usage {
    bool busy_known, used_known;
    unsigned busy_percent;
    uint64_t used_bytes;
};

void gpu_usage_begin(struct buf *out, uint64_t steady_ms);
void gpu_usage_add(struct buf *out, const char *word, const struct gpu_usage *usage);

/* The sum over the devices in `words` ("0,1"), of which every one must tell. Nothing is known when
 * the text is older than age_max_ms, or in another form. */
void gpu_usage_sum(const char *text, const char *words, uint64_t now_ms, uint64_t age_max_ms,
                   struct gpu_usage *out);

#endif
