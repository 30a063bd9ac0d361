/* stack.h - where a process is right now, for people. */
#ifndef ATHANOR_SHEPHERD_STACK_H
#define ATHANOR_SHEPHERD_STACK_H

#include "common/base/buf.h"

#include <sys/types.h>

#define STACK_BYTES_MAX ((size_t)16 << 10)
#define STACK_WAIT_MS   5000u /* for a debugger; the process it looks at is stuck anyway */

/* Appends what the kernel says (state, the system call it waits in) and, where eu-stack or gdb is
 * installed and may look, the stack of each thread. Waits at most STACK_WAIT_MS. */
void stack_describe(pid_t pid, struct buf *out);

/* What a description says about a rank of a job that makes no progress. Pure. */
enum stack_finding {
    STACK_UNKNOWN = 1, /* no stack could be had */
    STACK_WAITING,     /* within MPI, NCCL or Gloo: it waits for another rank */
    STACK_STOPPED,     /* by a signal */
    STACK_ELSEWHERE,   /* in code of its own: the others wait for it */
};
enum stack_finding stack_find(const char *description);

#endif
