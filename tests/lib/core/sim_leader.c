/* sim_leader.c - the shell's part: steps, batches, commits with all their outcomes, restarts. */
#include "tests/lib/core/show.h"
#include "tests/lib/core/sim_inner.h"

#include <string.h>

/* Peers tell worker and session, as the shell's tokens tell connections. */
uint64_t sim_peer(uint32_t worker, uint64_t session)
{
    return (uint64_t)(worker + 1) << 32 | session;
}

static void trace_add(struct sim *sim, size_t first_row, size_t first_message)
{
    struct buf text = {0};
    for (size_t i = first_row; i < sim->effects.persist_count; i++)
        show_persist(&sim->effects.persist[i], SIM_BASE_US, &text);
    for (size_t i = first_message; i < sim->effects.release_count; i++)
        show_message(&sim->effects.release[i].message, &text);
    for (size_t i = 0; i < text.length; i++)
        sim->result->trace_hash = rng_mix(sim->result->trace_hash ^ (uint8_t)text.bytes[i]);
    buf_done(&text);
}

/* A new leader: from the committed rows, under the next epoch. */
static void leader_start(struct sim *sim)
{
    sim->config.epoch++;
    sim->core = memory_db_load(sim->db, &sim->config, sim->now_ms, sim_wall_us(sim), &sim->wake_ms);
    memset(sim->sessions, 0, sizeof sim->sessions);
}

/* What was not committed is gone, and so is what was not released. Sessions break. */
void leader_kill(struct sim *sim)
{
    core_free(sim->core);
    sim->core = NULL;
    sim->committing = false;
    effects_reset(&sim->effects);
    sim->leader_up_ms = sim->now_ms + rng_below(&sim->rng, 500);
    for (uint32_t i = 0; i < SIM_WORKERS; i++)
        worker_cut(sim, &sim->workers[i]);
}

void leader_step(struct sim *sim, struct event *event)
{
    if (!sim->core || sim->violated)
        return;
    size_t rows = sim->effects.persist_count, messages = sim->effects.release_count;
    event->now_ms = sim->now_ms;
    event->wall_us = sim_wall_us(sim);
    bug_before_step(sim);
    core_step(sim->core, event, &sim->effects);
    sim->wake_ms = sim->effects.wake_at_ms;
    sim->result->steps++;
    trace_add(sim, rows, messages);
    const char *broken = core_check(sim->core, true, &sim->arena);
    if (broken)
        sim_violation(sim, broken);
    struct core_counts counts;
    core_counts(sim->core, &counts);
    if (counts.placements_refused)
        sim_violation(sim, "the core refused a placement of the policy");
}

void leader_on_packet(struct sim *sim, uint32_t worker, uint64_t session,
                      const struct message *message)
{
    if (!sim->core || session < sim->sessions[worker])
        return; /* the shell drops frames of sessions that were succeeded */
    struct event event = {0};
    uint64_t peer = sim_peer(worker, session);
    if (message->tag == MSG_WORKER_JOIN) {
        sim->sessions[worker] = session;
        event.kind = EVENT_WORKER_JOIN;
        event.join = (struct event_join){.peer = peer, .join = &message->u.worker_join};
    } else if (message->tag == MSG_HEARTBEAT) {
        event.kind = EVENT_HEARTBEAT;
        event.heartbeat =
            (struct event_heartbeat){.peer = peer, .heartbeat = &message->u.heartbeat};
    } else {
        event.kind = EVENT_REPORTS;
        event.reports = (struct event_reports){.peer = peer, .reports = &message->u.report};
    }
    leader_step(sim, &event);
}

/* ---- commit ------------------------------------------------------------------------------ */

static void release_one(struct sim *sim, const struct outgoing *outgoing)
{
    check_release(sim, outgoing);
    if (outgoing->to == ADDRESS_CLIENT) {
        client_on_answer(sim, &outgoing->message);
        return;
    }
    uint32_t worker = (uint32_t)(outgoing->peer >> 32) - 1;
    sim_send(sim, worker, false, outgoing->peer & UINT32_MAX, sim->config.epoch,
             &outgoing->message);
}

static void batch_apply(struct sim *sim)
{
    bug_in_batch(sim, &sim->effects);
    check_batch(sim, &sim->effects);
    const char *fault =
        memory_db_apply(sim->db, sim->effects.persist, sim->effects.persist_count, &sim->arena);
    if (fault)
        sim_violation(sim, fault);
    else
        check_commit(sim);
    sim->result->commits++;
}

/* The leader may die after the commit and before, or amid, the release. */
static void batch_release(struct sim *sim)
{
    size_t count = sim->effects.release_count;
    size_t cut =
        sim_chance(sim, sim->chances.leader_kill) ? rng_below(&sim->rng, count + 1) : count;
    for (size_t i = 0; i < cut && !sim->violated; i++)
        release_one(sim, &sim->effects.release[i]);
    if (cut < count) {
        sim->result->leader_kills++;
        leader_kill(sim);
        return;
    }
    effects_reset(&sim->effects);
    if (!sim->violated && rng_below(&sim->rng, 16) == 0)
        check_rebuilt(sim);
}

static void commit_finish(struct sim *sim)
{
    sim->committing = false;
    if (sim_chance(sim, sim->chances.commit_fail)) { /* definite: the process ends */
        sim->result->commit_failures++;
        leader_kill(sim);
        return;
    }
    if (sim_chance(sim, sim->chances.commit_unknown)) {
        sim->result->commits_unknown++;
        bool applied = rng_below(&sim->rng, 2);
        bool resolved = rng_below(&sim->rng, 2); /* by the batch number */
        if (applied)
            batch_apply(sim);
        if (!applied || !resolved)
            leader_kill(sim);
        else
            batch_release(sim);
        return;
    }
    batch_apply(sim);
    if (!sim->violated)
        batch_release(sim);
}

static void commit_begin(struct sim *sim)
{
    sim->committing = true;
    sim->commit_due_ms = sim->now_ms;
    if (sim_chance(sim, sim->chances.commit_slow))
        sim->commit_due_ms += rng_below(&sim->rng, 300);
}

void leader_round(struct sim *sim)
{
    if (!sim->core) {
        if (sim->now_ms >= sim->leader_up_ms)
            leader_start(sim);
        return;
    }
    if (sim_chance(sim, sim->chances.leader_kill)) {
        sim->result->leader_kills++;
        leader_kill(sim);
        return;
    }
    if (sim->wake_ms && sim->wake_ms <= sim->now_ms) {
        struct event tick = {.kind = EVENT_TICK};
        leader_step(sim, &tick);
    }
    bool something = sim->effects.persist_count || sim->effects.release_count;
    if (!sim->committing && something)
        commit_begin(sim);
    /* Steps go on while a commit is under way; here they join the batch that is open. */
    if (sim->committing && sim->now_ms >= sim->commit_due_ms && !sim->violated)
        commit_finish(sim);
}
