/* host.c - memory of the backends that compute on the host. */
#include "worker/engine/builtin.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define LINE_BYTES 64
#define HUGE_BYTES ((size_t)2 << 20) /* a transparent huge page: fewer TLB misses in products */

int host_open(struct device *device, struct err *err)
{
    (void)device;
    (void)err;
    return 0;
}

void host_close(struct device *device)
{
    (void)device;
}

void *host_alloc(struct device *device, size_t size_bytes)
{
    size_t align = size_bytes >= HUGE_BYTES ? HUGE_BYTES : LINE_BYTES;
    size_t rounded = (size_bytes + align - 1) / align * align;
    void *memory;

    (void)device;
    memory = aligned_alloc(align, rounded ? rounded : align);
    if (memory && align == HUGE_BYTES)
        (void)madvise(memory, rounded, MADV_HUGEPAGE); /* advice: pages work without it */
    return memory;
}

void host_release(struct device *device, void *memory)
{
    (void)device;
    free(memory);
}

void host_zero(struct device *device, void *memory, size_t size_bytes)
{
    (void)device;
    memset(memory, 0, size_bytes);
}

void host_copy(struct device *device, void *to, const void *from, size_t size_bytes)
{
    (void)device;
    memmove(to, from, size_bytes);
}

void host_finish(struct device *device)
{
    (void)device;
}
