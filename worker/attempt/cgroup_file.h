/* cgroup_file.h - files of cgroups, and which group we are in. */
#ifndef ATHANOR_ATTEMPT_CGROUP_FILE_H
#define ATHANOR_ATTEMPT_CGROUP_FILE_H

#include "common/base/err.h"

/* The directory of our own group (mem_free): in version 2 (controller NULL), or in the hierarchy of
 * version 1 that has the controller. *out_is_root: it is the top of what is mounted. NULL when
 * there is no such mount. */
char *cgroup_own(const char *controller, bool *out_is_root);

/* "<path>[/<leaf>]/<file>" (mem_free). */
char *cgroup_file(const char *path, const char *leaf, const char *file);
bool cgroup_write(const char *path, const char *leaf, const char *file, const char *text);
/* At most 1 MiB (mem_free); NULL when there is no such controller, or the group is gone. */
char *cgroup_read(const char *path, const char *leaf, const char *file);
bool cgroup_is_v1(const char *path);

/* The parsers, exposed for tests. mountinfo: text of /proc/self/mountinfo; groups: of
 * /proc/self/cgroup. */
char *cgroup_own_in(const char *mountinfo, const char *groups, const char *controller,
                    bool *out_is_root);

#endif
