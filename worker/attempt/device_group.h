/* device_group.h - what device_filter.h does, where there are only cgroups of version 1: a group of
 * the devices hierarchy whose processes cannot open what is listed (linux:
 * Documentation/admin-guide/cgroup-v1/devices.rst). Only root may make one.
 *
 * A group begins with the rules of the one above. Most of those allow everything, and a rule in
 * devices.deny takes a device out. In a container they may be a list of what is allowed: then a
 * rule is taken out only as it stands there, and one for all devices of a major ("c 195:* rwm") is
 * replaced by one for each of the first 256 that is not refused. */
#ifndef ATHANOR_ATTEMPT_DEVICE_GROUP_H
#define ATHANOR_ATTEMPT_DEVICE_GROUP_H

#include "common/base/buf.h"
#include "worker/attempt/device_filter.h"

/* Makes `<base>/<name>`, in which nothing of `refused` can be opened; base: cgroup_devices_base.
 * *out_path: mem_free, removed by cgroup_remove. Nothing is left on failure. Errors: ERR_IO;
 * ERR_INVALID: the rules above cannot be narrowed so far. */
int device_group_make(const char *base, const char *name, const struct device_number *refused,
                      size_t count, char **out_path, struct err *err) WARN_UNUSED;

/* The decision, for tests: list is devices.list; appends rules for devices.deny, then for
 * devices.allow, a line each. Errors: ERR_INVALID. */
int device_group_rules(const char *list, const struct device_number *refused, size_t count,
                       struct buf *deny, struct buf *allow, struct err *err) WARN_UNUSED;

#endif
