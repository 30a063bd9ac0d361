/* peers.c - ends of an attempt on several nodes; see run.h.
 *
 * A rank that dies leaves the others waiting in a collective, for ever as a rule. So the node where
 * something fails tells the others itself, which needs neither daemons nor the coordinator. */
#include "common/base/clock.h"
#include "worker/shepherd/run.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void peers_tell(struct run *run, uint64_t grace_ms)
{
    struct verdict verdict;
    if (!run->links || run->failed_ms)
        return;
    run->failed_ms = clock_steady_ms();
    run_judge(run, &verdict);
    struct gang_end end = {
        .node = run->plan.gang->node, .began_ms = run->failed_ms, .grace_ms = grace_ms};
    snprintf(end.cause, sizeof end.cause, "%s", cause_name(verdict.cause));
    snprintf(end.text, sizeof end.text, "%.*s", (int)sizeof end.text - 1, verdict.text);
    run->links->end(&end);
}

/* How a rank ended counts for nothing when something else failed before: it fell over its dead
 * peer. What was a stop remains one. */
static void cause_take(struct run *run, const char *text)
{
    if (run->stop_cause != CAUSE_NONE || run->launch_error)
        return;
    run->stop_cause = CAUSE_PEER_FAILED;
    snprintf(run->stop_text, sizeof run->stop_text, "%s", text);
}

void peers_end(struct run *run, const char *text)
{
    if (!run->failed)
        cause_take(run, text);
    run_input(run, INPUT_FAILED);
}

void peers_heard(struct run *run)
{
    struct gang_end end;
    char text[sizeof run->stop_text];
    if (!run->links || !run->links->ended(&end) || end.node == run->plan.gang->node ||
        (run->failed_ms && run->failed_ms <= end.began_ms))
        return;
    if (strcmp(end.cause, cause_name(CAUSE_SUCCESS)) == 0) {
        mpirun_over(run);
        return;
    }
    if (strcmp(end.cause, cause_name(CAUSE_STALLED)) == 0)
        watch_stacks(run, 0); /* while they still are there */
    snprintf(text, sizeof text, "%s at node %u (%s): %s", end.cause, end.node,
             run->plan.gang->nodes[end.node].name, end.text);
    if (run->failed)
        cause_take(run, text);
    else if (end.grace_ms > 0)
        run_stop(run, CAUSE_PEER_FAILED, end.grace_ms, "%s", text);
    else
        peers_end(run, text);
}

/* Ranks die with us, and the daemon sweeps the rest. */
void peers_leave(struct run *run)
{
    struct gang_end end = {.cause = "worker_lost",
                           .text = "the coordinator has given up this attempt"};
    if (run->links) {
        end.node = run->plan.gang->node;
        end.began_ms = clock_steady_ms();
        run->links->end(&end);
        run->links->close();
    }
    kill(getpid(), SIGKILL);
    _exit(1);
}
