/* sim_db.c - the database: a lease row with its guard, and transactions that take time.
 *
 * A transaction is executed whole at one moment, under the guard of athanor.batch_begin; its
 * answer may be late or lost, the connection may break before or after, and the process that
 * sent it may be dead or stopped meanwhile. */
#include "tests/lib/core/sim_inner.h"

#define RECONNECT_MS 50u

void database_init(struct sim *sim)
{
    sim->database.rows = memory_db_new();
    sim->database.holder = UINT32_MAX;
    for (size_t i = 0; i < SIM_ORPHANS; i++)
        effects_init(&sim->database.orphans[i].effects);
}

void database_done(struct sim *sim)
{
    memory_db_free(sim->database.rows);
    for (size_t i = 0; i < SIM_ORPHANS; i++)
        effects_done(&sim->database.orphans[i].effects);
}

bool database_reaches(const struct sim *sim, uint32_t coordinator)
{
    return sim->database.away_until_ms <= sim->now_ms &&
           !net_is_cut(sim, SIM_AT_COORDINATOR + coordinator, SIM_AT_DATABASE) &&
           !net_is_cut(sim, SIM_AT_DATABASE, SIM_AT_COORDINATOR + coordinator);
}

bool database_lease_take(struct sim *sim, struct sim_coordinator *coordinator, bool by_force)
{
    struct sim_database *database = &sim->database;
    if (database->expires_ms > sim->now_ms && !by_force)
        return false;
    database->epoch++;
    database->holder = coordinator->index;
    database->expires_ms = sim->now_ms + sim->swarm.leader_ms;
    coordinator->config.epoch = database->epoch;
    coordinator->batch = database->batch;
    sim->result->takeovers++;
    return true;
}

/* ---- executing --------------------------------------------------------------------------- */

static enum sim_outcome guard(struct sim *sim, const struct sim_transaction *transaction)
{
    struct sim_database *database = &sim->database;
    if (sim_has_bug(sim, SIM_BUG_NO_EPOCH_GUARD))
        return SIM_COMMITTED;
    if (transaction->epoch != database->epoch || transaction->holder != database->holder)
        return SIM_FENCED;
    if (transaction->batch <= database->batch && !sim_has_bug(sim, SIM_BUG_UNKNOWN_IS_NOT))
        return SIM_WRITTEN;
    return SIM_COMMITTED;
}

static enum sim_outcome execute(struct sim *sim, const struct sim_transaction *transaction,
                                struct effects *effects)
{
    struct sim_database *database = &sim->database;
    enum sim_outcome outcome = guard(sim, transaction);
    sim->result->batches_fenced += outcome == SIM_FENCED;
    if (outcome != SIM_COMMITTED)
        return outcome;
    if (sim_fault(sim, SIM_FAULT_COMMIT_REFUSED))
        return SIM_REFUSED;
    database->batch = transaction->batch;
    database->expires_ms = sim->now_ms + sim->swarm.leader_ms;
    bug_in_batch(sim, effects);
    judge_rows(sim, effects);
    const char *fault =
        memory_db_apply(database->rows, effects->persist, effects->persist_count, &sim->arena);
    if (fault)
        sim_violation(sim, "%s", fault);
    else
        judge_commit(sim, effects);
    sim->result->commits++;
    return SIM_COMMITTED;
}

static void cut_off(struct sim *sim, struct sim_transaction *transaction)
{
    transaction->phase = SIM_CUT_OFF;
    transaction->due_ms = sim->now_ms + RECONNECT_MS + rng_below(&sim->rng, 200);
}

/* Unknown: the connection broke before the commit, after it, or while the server was still busy
 * with it: then it happens later, perhaps after the coordinator has looked and sent it again. */
static void transaction_execute(struct sim *sim, struct sim_coordinator *coordinator)
{
    struct sim_transaction *transaction = &coordinator->transaction;
    bool unknown = sim_fault(sim, SIM_FAULT_COMMIT_UNKNOWN);
    uint64_t when = rng_below(&sim->rng, 3);
    if (!database_reaches(sim, coordinator->index) || (unknown && when > 0)) {
        if (when == 2) {
            coordinator->ghost = *transaction;
            coordinator->ghost.due_ms += rng_below(&sim->rng, 500);
        }
        cut_off(sim, transaction);
        return;
    }
    transaction->outcome = execute(sim, transaction, coordinator_flying(coordinator));
    trace_line(sim, "db batch %llu of epoch %llu from c%u: %s",
               (unsigned long long)transaction->batch, (unsigned long long)transaction->epoch,
               coordinator->index,
               unknown ? "executed, answer lost"
                       : (const char *[]){"", "committed", "refused", "fenced",
                                          "written already"}[transaction->outcome]);
    if (unknown) {
        cut_off(sim, transaction);
        return;
    }
    transaction->phase = SIM_ANSWERED;
    transaction->due_ms = sim->now_ms + rng_below(&sim->rng, 5);
}

static void ghost_execute(struct sim *sim, struct sim_coordinator *coordinator)
{
    coordinator->ghost.phase = SIM_IDLE;
    enum sim_outcome outcome =
        execute(sim, &coordinator->ghost, coordinator_flying(coordinator));
    trace_line(sim, "db batch %llu of epoch %llu from c%u, late: %s",
               (unsigned long long)coordinator->ghost.batch,
               (unsigned long long)coordinator->ghost.epoch, coordinator->index,
               outcome == SIM_COMMITTED ? "committed" : "not committed");
}

static void orphans_round(struct sim *sim)
{
    for (size_t i = 0; i < SIM_ORPHANS; i++) {
        struct sim_transaction *transaction = &sim->database.orphans[i].transaction;
        if (transaction->phase != SIM_SENT || transaction->due_ms > sim->now_ms)
            continue;
        transaction->phase = SIM_IDLE;
        enum sim_outcome outcome = execute(sim, transaction, &sim->database.orphans[i].effects);
        sim->result->late_commits += outcome == SIM_COMMITTED;
        trace_line(sim, "db batch %llu of epoch %llu, whose process is dead: %s",
                   (unsigned long long)transaction->batch, (unsigned long long)transaction->epoch,
                   outcome == SIM_COMMITTED ? "committed" : "not committed");
        effects_reset(&sim->database.orphans[i].effects);
    }
}

void database_round(struct sim *sim)
{
    if (sim_fault(sim, SIM_FAULT_DATABASE_AWAY)) {
        sim->database.away_until_ms = sim->now_ms + sim_between(sim, 50, 3000);
        trace_line(sim, "db away until %llu", (unsigned long long)sim->database.away_until_ms);
    }
    if (sim->database.away_until_ms <= sim->now_ms)
        orphans_round(sim);
    for (uint32_t i = 0; i < sim->swarm.coordinators && !sim->violated; i++) {
        struct sim_coordinator *coordinator = &sim->coordinators[i];
        if (coordinator->ghost.phase == SIM_SENT && coordinator->ghost.due_ms <= sim->now_ms)
            ghost_execute(sim, coordinator);
        if (coordinator->transaction.phase == SIM_SENT &&
            coordinator->transaction.due_ms <= sim->now_ms)
            transaction_execute(sim, coordinator);
    }
}

void database_send(struct sim *sim, struct sim_coordinator *coordinator)
{
    uint64_t wait = rng_below(&sim->rng, 5);
    if (sim_fault(sim, SIM_FAULT_COMMIT_SLOW))
        wait += rng_below(&sim->rng, 300);
    coordinator->transaction = (struct sim_transaction){.phase = SIM_SENT,
                                                        .due_ms = sim->now_ms + wait,
                                                        .holder = coordinator->index,
                                                        .epoch = coordinator->config.epoch,
                                                        .batch = coordinator->batch};
}

void database_orphan(struct sim *sim, struct sim_coordinator *coordinator)
{
    const struct sim_transaction *transaction = coordinator->ghost.phase == SIM_SENT
                                                    ? &coordinator->ghost
                                                    : &coordinator->transaction;
    bool arrives = transaction->phase == SIM_SENT && rng_below(&sim->rng, 2);
    for (size_t i = 0; arrives && i < SIM_ORPHANS; i++) {
        if (sim->database.orphans[i].transaction.phase != SIM_IDLE)
            continue;
        struct effects empty = sim->database.orphans[i].effects;
        sim->database.orphans[i].transaction = *transaction;
        sim->database.orphans[i].effects = *coordinator_flying(coordinator);
        *coordinator_flying(coordinator) = empty;
        break;
    }
    coordinator->transaction.phase = coordinator->ghost.phase = SIM_IDLE;
}

void database_heal(struct sim *sim)
{
    sim->database.away_until_ms = 0;
}
