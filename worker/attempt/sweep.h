/* sweep.h - what an attempt left behind: processes, directories, shared memory. */
#ifndef ATHANOR_ATTEMPT_SWEEP_H
#define ATHANOR_ATTEMPT_SWEEP_H

#include "worker/attempt/procs.h"

#define SWEEP_SEEN_MAX 4096u /* x 16 B; more are killed and not remembered */

/* Kills whatever is left of an attempt whose shepherd is dead: its cgroup (NULL: none), the pids
 * noted in `ranks` and their descendants, everything that carries the attempt's ATHANOR_RUN_DIR.
 * One round; returns the number of processes found, so that the caller repeats it until 0. Adds to
 * *seen, unless it is full (SWEEP_SEEN_MAX), whom it found, and the noted ones that have ended. */
size_t sweep_processes(const char *folder, const char *cgroup, struct process_list *seen);

/* Removes the directories noted in `places`, the run directory and, in /dev/shm, entries of the
 * folder's owner whose name carries the number of one of `pids` (torch_PID_..., and the like) and
 * that were made after `since_us` (wall clock). Only absolute places with a component that starts
 * with "athanor-" and of the folder's owner are believed, because the job's account may write
 * the list. Errors: ERR_IO, the first one; the rest is removed nevertheless. */
int sweep_places(const char *folder, const pid_t *pids, size_t pid_count, uint64_t since_us,
                 struct err *err) WARN_UNUSED;

/* What attempts below `attempts_dir` (a real path) left whose folder is gone, with the list of what
 * to sweep in it: a node whose state was lost, or a job that removed its folder, shepherd and all.
 * Kills their processes and removes their private directories from `places`, and their groups from
 * the cgroup bases (some may be NULL). Returns how many directories and groups were found. Called
 * before anything is started; waits up to 2 s for the killed to be gone. Errors: as sweep_places.
 */
size_t sweep_strays(const char *attempts_dir, const char *const *places, size_t place_count,
                    const char *const *bases, size_t base_count, struct err *err);

/* Whether `name` holds `pid` as a whole number: "torch_4711_1" does, "torch_14711" does not. */
bool sweep_name_has_pid(const char *name, pid_t pid);

#endif
