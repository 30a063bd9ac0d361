/* device_filter.h - character devices that a cgroup's processes cannot open.
 *
 * A program of the kernel (BPF_PROG_TYPE_CGROUP_DEVICE, linux/bpf.h), attached to a group of
 * version 2: it is asked at each open and mknod of a device by a process in the group or below,
 * root included, refuses what is listed with EPERM, and allows everything else that the groups
 * above allow. It stays for as long as the group, and needs CAP_SYS_ADMIN to be attached. */
#ifndef ATHANOR_ATTEMPT_DEVICE_FILTER_H
#define ATHANOR_ATTEMPT_DEVICE_FILTER_H

#include "common/base/err.h"

#define DEVICE_FILTER_MAX 256u /* four for each of 64 GPUs; 4 instructions each */

struct device_number { /* of a character device */
    unsigned major, minor;
};

/* Of a device file. Errors: ERR_NOT_FOUND, ERR_IO; ERR_INVALID: it is none. */
int device_number_of(const char *path, struct device_number *out, struct err *err) WARN_UNUSED;

/* Attaches; with count 0 nothing is done. Errors: ERR_LIMIT; ERR_IO with the kernel's reason: not
 * allowed, no such feature, or the group is of version 1. */
int device_filter_attach(const char *cgroup, const struct device_number *refused, size_t count,
                         struct err *err) WARN_UNUSED;

#endif
