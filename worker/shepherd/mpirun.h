/* mpirun.h - `launcher: mpirun`: Open MPI's own launcher, for programs that need it
 * (MPI_Comm_spawn, tools that attach to it).
 *
 * mpirun runs on node 0 as a process of the attempt. Where it would call ssh it calls athanor-rsh,
 * which asks its shepherd (the socket ATHANOR_LAUNCH) to run orted on another node; the words go
 * there through the links of worker/gang, and orted runs as a process of the attempt's part
 * there. Each rank starts as `athanor-rsh --rank -- PROGRAM`, which binds it to its cores, gives it
 * its GPUs and the variables of a rank, connects its output to the shepherd of its node, and
 * becomes the program. So logs, cores and the report socket are per rank as with the embedded
 * launcher; exit codes are those that mpirun tells. */
#ifndef ATHANOR_SHEPHERD_MPIRUN_H
#define ATHANOR_SHEPHERD_MPIRUN_H

#include "common/base/err.h"
#include "worker/shepherd/line_server.h"

#include <sys/types.h>

#define MPIRUN_SOCKET    ".launch" /* in TMPDIR; ATHANOR_LAUNCH */
#define MPIRUN_SAID_SIZE 300u

struct run;
struct plan;

struct launcher {
    pid_t pid;   /* mpirun on node 0, orted elsewhere; 0: not started */
    bool ended;
    int status;  /* of waitpid */
    bool over;   /* mpirun has ended well: what else ends here is no failure */
    bool failed; /* it is the first thing that failed here */
    struct line_server *agents;   /* node 0 */
    char said[MPIRUN_SAID_SIZE];  /* by mpirun, about the rank whose signal ended the job */
};

int mpirun_start(struct run *run, struct err *err) WARN_UNUSED;
/* Of the links: orted is wanted here, or has ended elsewhere. */
void mpirun_wake(struct run *run);
/* A process has ended: it may have been mpirun or orted. */
void mpirun_reaped(struct run *run, pid_t pid, int status);
/* Nothing runs here, but orted may still be wanted. */
bool mpirun_waits(const struct run *run);
/* Node 0 says that mpirun has ended well. */
void mpirun_over(struct run *run);
/* Learns the processes of ranks, which the ranks note themselves. */
void mpirun_tick(struct run *run);
/* What mpirun prints, in whatever pieces. */
void mpirun_listen(struct run *run, const char *bytes, size_t length);

/* ---- pure, for tests ------------------------------------------------------------------------- */

/* mpirun's words about a rank that died of a signal; false: it says no such thing. */
bool mpirun_signal_told(const char *text, unsigned *out_rank, int *out_signal);
/* "node-3-name" -> 3. Node 0 goes by the host's own name, which mpirun knows as its own. */
bool mpirun_node_of(const char *host, unsigned *out_node);
/* The words that start it, NULL-terminated, in the arena. `host`: of node 0; `network`: in which
 * all nodes are, "10.0.0.0/24"; `agent`: path of athanor-rsh. */
struct arena;
char **mpirun_words(const struct plan *plan, const char *host, const char *network,
                    const char *agent, struct arena *arena);

#endif
