/* preempt.c - making room: a running attempt is asked to save, then stopped, and its job requeued.
 *
 * The order to stop goes out when a checkpoint that was saved after the request has arrived, at
 * the latest after the job's stop grace. Nothing of it is in rows: whoever wanted the room (the
 * policy, the deadline of a drain, a window) wants it again after a change of leader. */
#include "coordinator/core/state.h"

#include <string.h>

static void checkpoint_ask(struct core *core, const struct attempt *attempt)
{
    effects_release(core->effects, ADDRESS_WORKER, attempt->worker->peer, MSG_CHECKPOINT_NOW)
        ->u.checkpoint_now.attempt_id = attempt->attempt_id;
}

void attempt_preempt(struct core *core, struct attempt *attempt, const char *why)
{
    const struct worker *worker = attempt->worker;
    if (attempt->state == ATTEMPT_STOPPING || attempt->preempt_due_ms)
        return;
    history_add(core, "preempt", attempt->job->job_id, attempt->attempt_id, worker->worker_id, NULL,
                why);
    bool reachable = worker->joined && worker->state != WORKER_LOST && worker->state != WORKER_LEFT;
    if (attempt->state != ATTEMPT_RUNNING || !reachable || attempt->job->limits.stop_grace_ms == 0) {
        attempt_stop(core, attempt, CAUSE_PREEMPTED);
        return;
    }
    attempt->preempt_due_ms = core->now_ms + attempt->job->limits.stop_grace_ms;
    attempt_timer_set(core, attempt);
    checkpoint_ask(core, attempt);
}

void attempt_preempt_go_on(struct core *core, struct attempt *attempt)
{
    if (!attempt->preempt_due_ms)
        return;
    attempt->preempt_due_ms = 0;
    if (attempt->state != ATTEMPT_STOPPING)
        attempt_stop(core, attempt, CAUSE_PREEMPTED);
}

/* It lost its place through no fault of its own: the attempt does not count against
 * retry.attempts, and it waits for no backoff. */
void job_requeue(struct core *core, struct job *job, const char *detail)
{
    job->attempts_spent -= job->attempts_spent > 0;
    job_move(core, job, JOB_ON_RETRY);
    job->cause = CAUSE_PREEMPTED;
    text_set(&job->detail, detail);
    job->eligible_at = 0;
    history_add(core, "requeued", job->job_id, 0, 0, NULL, NULL);
    job_move(core, job, JOB_ON_DUE);
}
