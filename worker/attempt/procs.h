/* procs.h - looking at processes through /proc, without trusting their numbers to stay theirs. */
#ifndef ATHANOR_ATTEMPT_PROCS_H
#define ATHANOR_ATTEMPT_PROCS_H

#include "worker/attempt/folder.h"

struct process_list {
    struct process_id *items;
    size_t count, capacity;
};

void process_list_done(struct process_list *list);

/* Start time of a living process. Returns false when there is none (or a zombie). */
bool process_find(pid_t pid, struct process_id *out);
/* Sends a signal if the process is still the same one; through a pidfd, so that a number used
 * again between the check and the signal is not hit. Returns whether it was there. */
bool process_signal(struct process_id process, int signal_number);

/* All descendants of `root`, without it, zombies left out. */
void processes_below(pid_t root, struct process_list *out);
/* What the processes of one tree use: `roots[i]` and all that descend from it, in out[i]. Processor
 * time counts ended descendants that were waited for. One look at /proc for all roots. */
struct process_usage {
    uint64_t cpu_ms, rss_bytes;       /* rss: shared pages count in each process */
    uint64_t read_bytes, write_bytes; /* through the block layer, of living processes */
};
void processes_usage(const pid_t *roots, size_t count, struct process_usage *out);

/* All processes whose environment holds `marker` ("NAME=value") exactly. Only those of accounts
 * we may look at; a process that overwrote its environment is not found (a cgroup finds it). */
void processes_marked(const char *marker, struct process_list *out);

/* Memory that a process does not share with files: anonymous pages, by RSS; 0 when it is gone.
 * A page shared after fork counts in each process. */
uint64_t process_anonymous_bytes(pid_t pid);
/* Its proportional share of anonymous pages; slower (walks the page tables). */
uint64_t process_proportional_bytes(pid_t pid);

/* Kills by the kernel for lack of memory since boot, on this machine; 0 when not known. */
uint64_t machine_oom_kills(void);

/* In a child before exec: every signal as it is by default, none blocked. Async-signal-safe. */
void process_signals_reset(void);

#endif
