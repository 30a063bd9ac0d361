/* sim_bug.c - one bug per invariant, planted where the real one would do its harm. A simulation
 * that does not notice them would prove nothing. */
#include "coordinator/core/state.h"
#include "tests/lib/core/sim_inner.h"

#include <string.h>

static bool due(struct sim *sim, enum sim_bug bug)
{
    return sim->options.bug == bug && sim->now_ms > 2000;
}

/* ---- in memory, before a step ------------------------------------------------------------ */

static void submits_forget(struct core *core)
{
    struct submit_memory *submit, *next;
    HASH_ITER(hh, core->submits, submit, next)
    {
        HASH_DEL(core->submits, submit);
        mem_free(submit->experiment);
        mem_free(submit);
    }
}

void bug_before_step(struct sim *sim)
{
    struct core *core = sim->core;
    if (due(sim, SIM_BUG_OVERBOOK))
        for (size_t i = 0; i < core->worker_count; i++)
            core->workers[i]->cores_used = 0;
    if (due(sim, SIM_BUG_NO_LIMIT))
        core->config.jobs_max = UINT32_MAX;
    if (due(sim, SIM_BUG_DOUBLE_SUBMIT))
        submits_forget(core);
}

/* ---- in the rows of a batch -------------------------------------------------------------- */

static void attempt_again(struct effects *effects)
{
    for (size_t i = 0; i < effects->persist_count; i++) {
        const struct persist *persist = &effects->persist[i];
        if (persist->table != ROW_TABLE_attempt || persist->op != PERSIST_INSERT)
            continue;
        struct row_attempt second = *(const struct row_attempt *)persist->row;
        second.attempt_id += 1000000;
        effects_persist(effects, ROW_TABLE_attempt, PERSIST_INSERT, &second);
        return;
    }
}

static void job_resurrect(struct sim *sim, struct effects *effects)
{
    const struct row_job *row;
    for (size_t i = 0; (row = memory_db_row(sim->db, ROW_TABLE_job, i)); i++) {
        if (strcmp(row->state, "SUCCEEDED") != 0)
            continue;
        struct row_job again = *row;
        again.state = "RUNNING";
        again.ended_at = 0;
        effects_persist(effects, ROW_TABLE_job, PERSIST_UPDATE, &again);
        return;
    }
}

static void report_late(struct sim *sim, struct effects *effects)
{
    const struct row_attempt *row;
    for (size_t i = 0; (row = memory_db_row(sim->db, ROW_TABLE_attempt, i)); i++) {
        if (!row->ended_at)
            continue;
        struct row_metric late = {.attempt_id = row->attempt_id,
                                  .seq = 1000000,
                                  .job_id = row->job_id,
                                  .name = "late"};
        effects_persist(effects, ROW_TABLE_metric, PERSIST_INSERT, &late);
        return;
    }
}

static void row_lose(struct sim *sim, struct effects *effects)
{
    for (size_t i = 0; i < effects->persist_count; i++) {
        if (effects->persist[i].table != ROW_TABLE_job ||
            effects->persist[i].op != PERSIST_UPDATE || rng_below(&sim->rng, 4))
            continue;
        memmove(&effects->persist[i], &effects->persist[i + 1],
                (effects->persist_count - i - 1) * sizeof *effects->persist);
        effects->persist_count--;
        return;
    }
}

static void resume_tear(struct effects *effects)
{
    for (size_t i = 0; i < effects->persist_count; i++)
        if (effects->persist[i].table == ROW_TABLE_attempt &&
            effects->persist[i].op == PERSIST_INSERT)
            ((struct row_attempt *)effects->persist[i].row)->resume_checkpoint_id = 1000000;
}

static void child_hurry(struct sim *sim, struct effects *effects)
{
    for (size_t i = 0; i < effects->persist_count; i++) {
        const struct row_attempt *attempt = effects->persist[i].row;
        const struct row_job_dependency *row;
        if (effects->persist[i].table != ROW_TABLE_attempt)
            continue;
        for (size_t k = 0; (row = memory_db_row(sim->db, ROW_TABLE_job_dependency, k)); k++) {
            if (row->job_id != attempt->job_id)
                continue;
            struct row_job_dependency unmet = *row;
            unmet.state = "waiting";
            effects_persist(effects, ROW_TABLE_job_dependency, PERSIST_UPDATE, &unmet);
            return;
        }
    }
}

void bug_in_batch(struct sim *sim, struct effects *effects)
{
    if (due(sim, SIM_BUG_SECOND_ATTEMPT))
        attempt_again(effects);
    if (due(sim, SIM_BUG_RESURRECTION))
        job_resurrect(sim, effects);
    if (due(sim, SIM_BUG_LATE_REPORT))
        report_late(sim, effects);
    if (due(sim, SIM_BUG_LOST_ROW))
        row_lose(sim, effects);
    if (due(sim, SIM_BUG_TORN_RESUME))
        resume_tear(effects);
    if (due(sim, SIM_BUG_EARLY_CHILD))
        child_hurry(sim, effects);
    if (due(sim, SIM_BUG_EARLY_RELEASE))
        for (size_t i = 0; i < effects->release_count; i++)
            check_release(sim, &effects->release[i]);
}
