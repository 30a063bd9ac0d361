/* until.c - workers whose time is limited: an allocation of another scheduler, a node that is due
 * for repair.
 *
 * Such a worker says at its join, and again when it changes, how long it has. A job starts there
 * only if its wall time is over before; one without a limit, and without its queue's default, only
 * if the worker says that it takes such jobs. What would still run at the end is asked to save two
 * of its own stop graces before (at least half a minute), then stopped as node_ended and requeued;
 * its attempt does not count. An attempt whose own limit ends it in time is left alone.
 *
 * The worker states a span and not a time, so its clock need not agree with ours. */
#include "coordinator/core/state.h"

#define GRACE_LEAST_MS 1000u
#define OPEN_LEAST_US  60000000u /* left on a worker that a job without a limit starts on */

static uint64_t wall_at(const struct core *core, uint64_t at_ms)
{
    return core->wall_us + (at_ms > core->now_ms ? at_ms - core->now_ms : 0) * 1000;
}

bool worker_leaves_before(const struct core *core, const struct class *class,
                          const struct worker *worker, uint64_t start_ms)
{
    uint64_t wall_ms = class_wall_ms(class), start_us = wall_at(core, start_ms);
    if (!worker->until_at)
        return false;
    return wall_ms ? start_us + wall_ms * 1000 > worker->until_at
                   : !worker->open_ended || start_us + OPEN_LEAST_US > worker->until_at;
}

static uint64_t left_ms(const struct core *core, const struct worker *worker)
{
    return worker->until_at > core->wall_us ? (worker->until_at - core->wall_us) / 1000 : 0;
}

uint64_t attempt_left_ms(const struct core *core, const struct attempt *attempt)
{
    uint64_t left = UINT64_MAX;
    for (size_t i = 0; i < attempt->part_count; i++)
        if (!attempt->parts[i].ended && attempt->parts[i].worker->until_at)
            left = min_u64(left, left_ms(core, attempt->parts[i].worker));
    return left;
}

uint64_t attempt_grace_ms(const struct core *core, const struct attempt *attempt)
{
    uint64_t left = attempt_left_ms(core, attempt);
    return min_u64(attempt->job->limits.stop_grace_ms,
                   left == UINT64_MAX ? left : max_u64(left, GRACE_LEAST_MS));
}

void worker_until_set(struct core *core, struct worker *worker, uint64_t ends_in_ms,
                      bool open_ended)
{
    uint64_t until_at = ends_in_ms ? core->wall_us + min_u64(ends_in_ms, UNTIL_MS_MAX) * 1000 : 0;
    if (until_at == worker->until_at && open_ended == worker->open_ended)
        return;
    bool gained = (until_at > worker->until_at || until_at == 0) && worker->until_at;
    worker->until_at = until_at;
    worker->open_ended = open_ended;
    worker_mark(core, worker);
    if (gained)
        worker_gained(core, worker);
    windows_look(core);
}

#define SIGTERM_NUMBER 15
#define END_NEAR_US    30000000u

/* Whoever takes a node back ends all its processes, shepherds and ranks too: what they say then is
 * no fault of theirs. One that is lost before its time is lost like any other. */
enum cause until_cause(const struct core *core, const struct part *part, enum cause cause,
                       int64_t code, bool told)
{
    uint64_t until_at = part->worker->until_at;
    if (!until_at)
        return cause == CAUSE_NODE_ENDED && part->attempt->stop_cause != cause ? CAUSE_WORKER_LOST
                                                                               : cause;
    bool is_over = until_at <= core->wall_us;
    bool is_near = until_at <= core->wall_us + END_NEAR_US;
    bool taken = (cause == CAUSE_WORKER_LOST && (told || is_over)) ||
                 (cause == CAUSE_SIGNAL && code == SIGTERM_NUMBER && is_near);
    return taken ? CAUSE_NODE_ENDED : cause;
}

/* ---- the end --------------------------------------------------------------------------------- */

/* Two stop graces before the end, and not later than half a minute before; but whoever was placed
 * late has half of the time that was left. */
static uint64_t saves_at(const struct worker *worker, const struct attempt *attempt)
{
    uint64_t grace_us = 2 * attempt->job->limits.stop_grace_ms * 1000;
    uint64_t had_us =
        worker->until_at > attempt->placed_at ? worker->until_at - attempt->placed_at : 0;
    uint64_t before_us = min_u64(max_u64(grace_us, END_NEAR_US), max_u64(had_us / 2, END_NEAR_US));
    return worker->until_at > before_us ? worker->until_at - before_us : 1;
}

static void worker_due(struct core *core, struct worker *worker)
{
    struct part *next;
    for (struct part *part = worker->parts; part; part = next) {
        struct attempt *attempt = part->attempt;
        uint64_t ends_ms = attempt_ends_ms(core, attempt);
        bool in_time = ends_ms != POLICY_NEVER && wall_at(core, ends_ms) <= worker->until_at;
        next = part->next; /* parts that end at once leave the list */
        if (worker->until_at <= core->wall_us ||
            (saves_at(worker, attempt) <= core->wall_us && !in_time))
            attempt_preempt(core, attempt, CAUSE_NODE_ENDED,
                            arena_printf(step_arena(core), "the time of worker %s is over",
                                         worker->name));
    }
}

void untils_due(struct core *core)
{
    for (size_t i = 0; i < core->worker_count; i++)
        if (core->workers[i]->until_at)
            worker_due(core, core->workers[i]);
}

uint64_t untils_next_at(const struct core *core)
{
    uint64_t next = UINT64_MAX;
    for (size_t i = 0; i < core->worker_count; i++) {
        const struct worker *worker = core->workers[i];
        if (!worker->until_at)
            continue;
        for (const struct part *part = worker->parts; part; part = part->next) {
            uint64_t at = saves_at(worker, part->attempt);
            if (at <= core->wall_us)
                at = worker->until_at;
            if (at > core->wall_us)
                next = min_u64(next, at);
        }
    }
    return next;
}

/* ---- why ------------------------------------------------------------------------------------- */

const char *until_why(const struct core *core, const struct class *class, struct arena *arena,
                      const char **out_remedy)
{
    size_t fitting = 0, leaving = 0;
    uint64_t most_ms = 0;
    for (size_t i = 0; i < core->worker_count; i++) {
        const struct worker *worker = core->workers[i];
        if (!worker_is_usable(worker) || !class_allows(class, worker))
            continue;
        fitting++;
        if (!worker_leaves_before(core, class, worker, core->now_ms))
            continue;
        leaving++;
        most_ms = max_u64(most_ms, left_ms(core, worker));
    }
    if (!leaving)
        return NULL;
    const char *most = why_span_text(arena, most_ms);
    *out_remedy = arena_printf(arena,
                               "state a limits.wall_time shorter than %s, or other workers "
                               "have room",
                               most);
    return arena_printf(arena, "%zu of %zu fitting workers leave, the last in %s, and the job %s",
                        leaving, fitting, most,
                        class_wall_ms(class) ? "may run longer" : "has no wall time limit");
}
