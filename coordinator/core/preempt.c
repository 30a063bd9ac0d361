/* preempt.c - making room: a running attempt is asked to save, then stopped, and its job requeued.
 *
 * The order to stop goes out when a checkpoint that was saved after the request has arrived, at
 * the latest after the job's stop grace. Nothing of it is in rows: whoever wanted the room (the
 * policy, the deadline of a drain, a window, the end of a worker) wants it again
 * after a change of leader. */
#include "coordinator/core/state.h"

#include <string.h>

/* How many of its workers were asked. What was saved before the request may still be on its way: it
 * counts as well, since little is lost then and no clock of another machine need be trusted. */
static size_t checkpoint_ask(struct core *core, const struct attempt *attempt)
{
    size_t asked = 0;
    for (size_t i = 0; i < attempt->part_count; i++) {
        const struct part *part = &attempt->parts[i];
        if (part->ended || !worker_is_reachable(part->worker))
            continue;
        effects_release(core->effects, ADDRESS_WORKER, part->worker->peer, MSG_CHECKPOINT_NOW)
            ->u.checkpoint_now.attempt_id = attempt->attempt_id;
        asked++;
    }
    return asked;
}

void attempt_preempt(struct core *core, struct attempt *attempt, enum cause cause, const char *why)
{
    if (attempt->state == ATTEMPT_STOPPING || attempt->preempt_due_ms)
        return;
    history_add(core, "preempt", attempt->job->job_id, attempt->attempt_id,
                attempt->parts[0].worker->worker_id, NULL, why);
    /* Of a worker that leaves, half of the time is for saving and half for the stop. */
    uint64_t patience_ms =
        min_u64(attempt->job->limits.stop_grace_ms, attempt_left_ms(core, attempt) / 2);
    attempt->preempt_cause = cause;
    if (attempt->state != ATTEMPT_RUNNING || patience_ms == 0 ||
        checkpoint_ask(core, attempt) == 0) {
        attempt_stop(core, attempt, cause);
        return;
    }
    attempt->preempt_due_ms = core->now_ms + patience_ms;
    attempt_timer_set(core, attempt);
}

void attempt_preempt_go_on(struct core *core, struct attempt *attempt)
{
    if (!attempt->preempt_due_ms)
        return;
    attempt->preempt_due_ms = 0;
    if (attempt->state != ATTEMPT_STOPPING)
        attempt_stop(core, attempt, attempt->preempt_cause);
}

/* It lost its place through no fault of its own: the attempt does not count against
 * retry.attempts, and it waits for no backoff. */
void job_requeue(struct core *core, struct job *job, enum cause cause, const char *detail)
{
    job->attempts_spent -= job->attempts_spent > 0;
    job->cause = cause;
    text_set(&job->detail, detail);
    job_move(core, job, JOB_ON_REQUEUE);
    history_add(core, "requeued", job->job_id, 0, 0, NULL, NULL);
}
