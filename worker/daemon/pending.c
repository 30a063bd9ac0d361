/* pending.c - STARTs whose cores or GPUs are still held by attempts that are being killed, or whose
 * code, checkpoints or secrets are on their way here (code.h, copies.h, secrets.h).
 *
 * The coordinator gives away what a fenced attempt had as soon as it has decided so; here the
 * processes may take a moment to die. Starting the next one beside them would share its cores, and
 * refusing it would charge it with a failure that is not its own. */
#include "common/base/log.h"
#include "common/base/mem.h"
#include "worker/daemon/daemon.h"

#include <inttypes.h>

struct pending {
    struct pending *next;
    struct arena arena; /* holds start */
    struct msg_start start;
    uint64_t epoch;
};

static bool somebody_is_dying(const struct daemon *daemon)
{
    for (const struct attempt *attempt = daemon->attempts; attempt; attempt = attempt->next)
        if (attempt->state == ATTEMPT_FENCED || attempt->state == ATTEMPT_SWEEPING ||
            attempt->cleaning)
            return true;
    return false;
}

bool pending_must_wait(const struct daemon *daemon, const struct msg_start *start)
{
    return !start_has_room(daemon, start) && somebody_is_dying(daemon);
}

bool pending_has(const struct daemon *daemon, uint64_t attempt_id)
{
    const struct pending *pending = daemon->pending;
    while (pending && pending->start.attempt_id != attempt_id)
        pending = pending->next;
    return pending != NULL;
}

void pending_add(struct daemon *daemon, const struct msg_start *start, uint64_t epoch)
{
    struct err err = {0};
    struct pending *pending = mem_zalloc(sizeof *pending), **end = &daemon->pending;
    if (start_copy(start, &pending->arena, &pending->start, &err) < 0) {
        log_error("attempt %" PRIu64 ": %s", start->attempt_id, err.text);
        mem_free(pending);
        return; /* it is sent again */
    }
    pending->epoch = epoch;
    while (*end)
        end = &(*end)->next;
    *end = pending;
}

static void pending_free(struct pending *pending)
{
    arena_done(&pending->arena);
    mem_free(pending);
}

static struct pending *pending_unlink(struct daemon *daemon, uint64_t attempt_id)
{
    struct pending **at = &daemon->pending;
    while (*at && (*at)->start.attempt_id != attempt_id)
        at = &(*at)->next;
    struct pending *pending = *at;
    if (pending)
        *at = pending->next;
    return pending;
}

/* In the order in which they came; one that still has to wait goes to the end again. */
void pending_retry(struct daemon *daemon)
{
    struct pending *list = daemon->pending;
    daemon->pending = NULL;
    daemon->retrying = true;
    for (struct pending *next; list; list = next) {
        next = list->next;
        start_attempt(daemon, &list->start, list->epoch);
        pending_free(list);
    }
    daemon->retrying = false;
}

/* Not at once: whoever calls may be walking through the attempts. */
void pending_wake(struct daemon *daemon)
{
    if (daemon->pending)
        loop_timer_start(daemon->loop, &daemon->tick_timer, 0);
}

void pending_stop(struct daemon *daemon, uint64_t attempt_id, enum cause cause)
{
    struct pending *pending = pending_unlink(daemon, attempt_id);
    if (!pending)
        return;
    code_forget(daemon, attempt_id);
    copies_forget(daemon, attempt_id);
    secrets_forget(daemon, attempt_id);
    start_failed(daemon, &pending->start, pending->epoch, cause,
                 "stopped before its ranks were started");
    pending_free(pending);
}

void pending_forget(struct daemon *daemon, uint64_t attempt_id)
{
    struct pending *pending = pending_unlink(daemon, attempt_id);
    code_forget(daemon, attempt_id);
    copies_forget(daemon, attempt_id);
    secrets_forget(daemon, attempt_id);
    if (pending)
        pending_free(pending);
}

void pending_close(struct daemon *daemon)
{
    while (daemon->pending)
        pending_forget(daemon, daemon->pending->start.attempt_id);
}
