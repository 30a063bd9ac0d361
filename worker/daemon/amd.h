/* amd.h - AMD's GPUs, as the kernel shows them in sysfs: no library is needed.
 *
 * Which there are, and their numbers, are in class/kfd/kfd/topology/nodes/N/properties (lines of a
 * name and a number: drivers/gpu/drm/amd/amdkfd/kfd_topology.c); memory and use in
 * class/drm/renderDN/device (mem_info_vram_total, mem_info_vram_used, gpu_busy_percent: the
 * kernel's documentation of amdgpu). A GPU's word for ROCR_VISIBLE_DEVICES is "GPU-" and its
 * unique_id in 16 hexadecimal digits, or its place among the GPUs where it has none. */
#ifndef ATHANOR_DAEMON_AMD_H
#define ATHANOR_DAEMON_AMD_H

#include "worker/daemon/inventory.h"

/* Appends what is below `sysfs` ("/sys"), in order of nodes. None when there is no such driver.
 * Errors: ERR_LIMIT, ERR_PROTOCOL (a file that says something else), ERR_IO. */
int amd_list(const char *sysfs, struct inventory *inventory, struct err *err) WARN_UNUSED;

#endif
