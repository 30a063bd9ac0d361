/* cgroup.h - a cgroup per attempt, where we may make one.
 *
 * Layout: <base>/<name> is the attempt's, given to the job's account, with two leaves:
 * `shepherd` (the shepherd alone) and `ranks` (everything it starts). The shepherd may move its
 * children between leaves because the group above them is its own; killing `ranks` leaves it
 * alive, killing the whole sweeps what a dead shepherd left behind.
 *
 * Version 2 needs no controllers; with `memory` delegated the limit and the evidence of an
 * out-of-memory kill come from the kernel. Where only version 1 is there, the same layout is made
 * in the freezer's hierarchy. Where version 2 cannot limit memory and version 1 can, an attempt has
 * a second group there. Without any of them everything here is a no-op and the shepherd relies on
 * being the subreaper of its ranks and on looking at what they use. */
#ifndef ATHANOR_ATTEMPT_CGROUP_H
#define ATHANOR_ATTEMPT_CGROUP_H

#include "worker/attempt/procs.h"

enum cgroup_kind { CGROUP_AUTO = 1, CGROUP_V2, CGROUP_V1, CGROUP_NONE };

/* Finds the group below which attempts may be made (mem_free); NULL when there is none. AUTO: of
 * version 2, else of the freezer of version 1. */
char *cgroup_base(enum cgroup_kind wanted);
/* The same of version 1's memory hierarchy; NULL also when `base` limits memory. */
char *cgroup_memory_base(enum cgroup_kind wanted, const char *base);

/* The same of version 1's devices hierarchy (device_group.h), which only root may narrow. */
char *cgroup_device_base(enum cgroup_kind wanted);

/* Makes the attempt's group with its leaves and gives it to uid, gid. memory_bytes 0: no limit.
 * *out_path: mem_free. Errors: ERR_IO. */
int cgroup_make(const char *base, const char *name, uint64_t memory_bytes, uid_t uid, gid_t gid,
                char **out_path, struct err *err) WARN_UNUSED;

/* An open descriptor of the directory `<path>[/<leaf>]` for the next two; -1 when there is none. */
int cgroup_open(const char *path, const char *leaf);
/* As fork(), and the child is born in the group of leaf_fd (-1: in ours). Moving a process that
 * exists already makes the kernel wait for every processor, which was measured at 10 to 15 ms; a
 * birth waits for none. *out_inside, for the child: false where the kernel cannot do it (clone3
 * came with 5.7, some containers forbid it) and the child has to call cgroup_join. The C library
 * takes no part: the child may only make async-signal-safe calls. -1 with errno. */
pid_t cgroup_fork(int leaf_fd, bool *out_inside);
/* Moves the calling process; async-signal-safe. False with errno. */
bool cgroup_join(int leaf_fd);
bool cgroup_limits_memory(const char *path);
/* SIGKILL to everything in the group (leaf NULL) or leaf. Returns whether the kernel did it. */
bool cgroup_kill(const char *path, const char *leaf);
/* Processes of the leaf. */
void cgroup_processes(const char *path, const char *leaf, struct process_list *out);
/* Kills for lack of memory within `ranks`, and its peak; 0 when not known. */
uint64_t cgroup_oom_kills(const char *path);
uint64_t cgroup_memory_peak(const char *path);

/* A group of version 1's memory hierarchy with this limit; its list of processes is the job's.
 * Joining such a group takes the kernel 0 to 14 ms (measured), so that ranks are not born into it
 * but moved when they have lived for a while: what they had allocated before stays outside, and
 * the shepherd goes on looking at the sum. Errors: ERR_IO. */
int cgroup_memory_make(const char *base, const char *name, uint64_t memory_bytes, uid_t uid,
                       gid_t gid, char **out_path, struct err *err) WARN_UNUSED;
bool cgroup_memory_move(const char *path, pid_t pid);
uint64_t cgroup_memory_kills(const char *path);
uint64_t cgroup_memory_most(const char *path); /* its peak */

/* Removes groups below base that have been empty for long: of daemons that never came back. */
void cgroup_tidy(const char *base);
/* Removes the empty group. Returns false when processes are still in it. */
bool cgroup_remove(const char *path);

#endif
