/* cgroup.h - a cgroup v2 per attempt, where we may make one.
 *
 * Layout: <base>/<name> is the attempt's, given to the job's account, with two leaves:
 * `shepherd` (the shepherd alone) and `ranks` (everything it starts). The shepherd may move its
 * children between leaves because the group above them is its own; killing `ranks` leaves it
 * alive, killing the whole sweeps what a dead shepherd left behind.
 *
 * Needs no controllers; with `memory` delegated the limit and the evidence of an out-of-memory
 * kill come from the kernel. Without a writable cgroup v2 everything here is a no-op and the
 * shepherd relies on being the subreaper of its ranks. */
#ifndef ATHANOR_ATTEMPT_CGROUP_H
#define ATHANOR_ATTEMPT_CGROUP_H

#include "worker/attempt/procs.h"

/* Finds the group below which attempts may be made (mem_free); NULL when there is none. */
char *cgroup_base(void);

/* Makes the attempt's group with its leaves and gives it to uid, gid. memory_bytes 0: no limit.
 * *out_path: mem_free. Errors: ERR_IO. */
int cgroup_make(const char *base, const char *name, uint64_t memory_bytes, uid_t uid, gid_t gid,
                char **out_path, struct err *err) WARN_UNUSED;

/* An open descriptor of `<path>/<leaf>/cgroup.procs`; -1 when there is none. Writing "0" to it
 * moves the writer: async-signal-safe, so a child does it before exec. */
int cgroup_open_procs(const char *path, const char *leaf);
bool cgroup_limits_memory(const char *path);
/* SIGKILL to everything in the group (leaf NULL) or leaf. Returns whether the kernel did it. */
bool cgroup_kill(const char *path, const char *leaf);
/* Processes of the leaf. */
void cgroup_processes(const char *path, const char *leaf, struct process_list *out);
/* Kills for lack of memory within `ranks`, and its peak; 0 when not known. */
uint64_t cgroup_oom_kills(const char *path);
uint64_t cgroup_memory_peak(const char *path);
/* Removes groups below base that have been empty for long: of daemons that never came back. */
void cgroup_tidy(const char *base);
/* Removes the empty group. Returns false when processes are still in it. */
bool cgroup_remove(const char *path);

#endif
