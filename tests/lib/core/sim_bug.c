/* sim_bug.c - bugs to plant, each where the real one would do its harm. A simulation that does
 * not notice them would prove nothing. Those of the shell, the database and the workers are in
 * their own files, under sim_has_bug. */
#include "coordinator/core/state.h"
#include "tests/lib/core/sim_inner.h"

#include <string.h>

/* ---- in memory, around a step ------------------------------------------------------------ */

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

/* Takes reports whatever lies before them. */
static void cursor_bend(struct core *core, const struct event *event, bool repeats)
{
    if (event->kind != EVENT_REPORTS || event->reports.reports->reports_count == 0)
        return;
    struct attempt *attempt = attempt_find(core, event->reports.reports->attempt_id);
    uint64_t first = event->reports.reports->reports[0].seq;
    uint64_t node = event->reports.reports->node;
    struct part *part = attempt && node < attempt->part_count ? &attempt->parts[node] : NULL;
    if (part && (repeats ? first <= part->seq : first > part->seq + 1))
        part->seq = first - 1;
}

static void parents_forget(struct core *core)
{
    struct job *job, *next;
    HASH_ITER(hh_id, core->jobs, job, next)
    {
        if (job->state != JOB_WAITING)
            continue;
        for (size_t i = 0; i < job->edge_count; i++)
            if (job->edges[i].state == EDGE_WAITING) {
                job->edges[i].state = EDGE_MET;
                job->edges[i].dirty = true;
            }
        job->edges_waiting = 0;
        job_move(core, job, JOB_ON_PARENTS_MET);
    }
}

/* Only around a pass: no row of a worker is written then. */
static bool only_places(const struct core *core, const struct event *event)
{
    const struct timer *first = timer_first(&core->timers);
    return event->kind == EVENT_TICK && (!first || first->due_ms > event->now_ms);
}

static void workers_stretch(struct core *core, int64_t by)
{
    for (size_t i = 0; i < core->worker_count; i++)
        core->workers[i]->cores += (uint64_t)by;
}

#define FAR (1ull << 62)

static void untils_move(struct core *core, bool away)
{
    for (size_t i = 0; i < core->worker_count; i++)
        if (core->workers[i]->until_at)
            core->workers[i]->until_at ^= away == !(core->workers[i]->until_at & FAR) ? FAR : 0;
}

static void sweeps_turn(struct core *core)
{
    struct sweep *sweep, *next;
    HASH_ITER(hh, core->sweeps, sweep, next)
    {
        sweep->is_max = true;
    }
}

/* The worst looks best; asha would judge its rungs so, too, which another finding sees. */
static void choices_turn(struct core *core)
{
    struct sweep *sweep, *next;
    HASH_ITER(hh, core->sweeps, sweep, next)
    {
        sweep->is_max ^= !sweep->is_asha;
    }
}

/* Swapped with what every job wants, and back. */
static void labels_swap(struct sim *sim, struct core *core)
{
    static struct label wanted[] = {{(char *)"vram", (char *)"80"}, {(char *)"zone", (char *)"eu"}};
    for (size_t i = 0; i < core->worker_count; i++) {
        struct worker *worker = core->workers[i];
        bool hide = worker->labels != wanted;
        struct label *labels = hide ? wanted : sim->hidden[i];
        size_t count = hide ? ARRAY_COUNT(wanted) : sim->hidden_counts[i];
        sim->hidden[i] = worker->labels;
        sim->hidden_counts[i] = worker->label_count;
        worker->labels = labels;
        worker->label_count = count;
    }
}

static void models_swap(struct sim *sim, struct core *core)
{
    static struct gpu wanted[] = {{0, (char *)"Sim A100"}, {1, (char *)"Sim A100"}};
    for (size_t i = 0; i < core->worker_count; i++) {
        struct worker *worker = core->workers[i];
        if (worker->gpu_count != ARRAY_COUNT(wanted))
            continue;
        struct gpu *gpus = worker->gpu_list != wanted ? wanted : sim->hidden[i];
        sim->hidden[i] = worker->gpu_list;
        worker->gpu_list = gpus;
    }
}

void bug_before_step(struct sim *sim, struct core *core, const struct event *event)
{
    if (sim_has_bug(sim, SIM_BUG_OVERBOOK) && only_places(core, event)) {
        workers_stretch(core, 100);
        sim->stretched = true;
    }
    for (size_t i = 0; i < core->limit_count; i++) {
        struct limit *limit = core->limits[i];
        if (sim_has_bug(sim, limit->quota ? SIM_BUG_NO_QUOTA : SIM_BUG_NO_CAP))
            limit->jobs_max = limit->cores_max = limit->gpus_max = UINT64_MAX;
    }
    if (sim_has_bug(sim, SIM_BUG_WRONG_RUNG))
        sweeps_turn(core);
    if (sim_has_bug(sim, SIM_BUG_NO_WINDOW) && only_places(core, event)) {
        sim->windows_hidden = core->reservations.count;
        core->reservations.count = 0;
    }
    if (sim_has_bug(sim, SIM_BUG_NO_UNTIL) && only_places(core, event))
        untils_move(core, true);
    sim->swapped = only_places(core, event) && (sim_has_bug(sim, SIM_BUG_NO_LABELS) ||
                                                sim_has_bug(sim, SIM_BUG_NO_MODEL));
    if (sim->swapped)
        (sim_has_bug(sim, SIM_BUG_NO_LABELS) ? labels_swap : models_swap)(sim, core);
    sim->turned = sim_has_bug(sim, SIM_BUG_WRONG_BEST);
    if (sim->turned)
        choices_turn(core);
    if (sim_has_bug(sim, SIM_BUG_NO_LIMIT))
        core->config.jobs_max = UINT32_MAX;
    if (sim_has_bug(sim, SIM_BUG_DOUBLE_SUBMIT))
        submits_forget(core);
    if (sim_has_bug(sim, SIM_BUG_REPORT_TWICE))
        cursor_bend(core, event, true);
    if (sim_has_bug(sim, SIM_BUG_REPORT_GAP))
        cursor_bend(core, event, false);
    if (sim_has_bug(sim, SIM_BUG_EARLY_CHILD) && event->kind == EVENT_TICK)
        parents_forget(core);
}

static void resends_forget(struct core *core, enum attempt_state state)
{
    struct attempt *attempt, *next;
    HASH_ITER(hh, core->attempts, attempt, next)
    {
        if (attempt->state == state)
            timer_clear(&core->timers, &attempt->timer);
    }
}

static void backoffs_forget(struct core *core)
{
    struct job *job, *next;
    HASH_ITER(hh_id, core->jobs, job, next)
    {
        timer_clear(&core->timers, &job->timer);
    }
}

void bug_after_step(struct sim *sim, struct core *core, const struct event *event)
{
    if (sim->windows_hidden)
        core->reservations.count = sim->windows_hidden;
    sim->windows_hidden = 0;
    untils_move(core, false);
    if (sim->swapped)
        (sim->options.bug == SIM_BUG_NO_LABELS ? labels_swap : models_swap)(sim, core);
    if (sim->turned)
        choices_turn(core);
    sim->swapped = sim->turned = false;
    if (sim->stretched)
        workers_stretch(core, -100);
    sim->stretched = false;
    if (sim_has_bug(sim, SIM_BUG_NO_START_AGAIN))
        resends_forget(core, ATTEMPT_PLACED);
    if (sim_has_bug(sim, SIM_BUG_NO_STOP_AGAIN))
        resends_forget(core, ATTEMPT_STOPPING);
    if (sim_has_bug(sim, SIM_BUG_NO_LEASE))
        for (size_t i = 0; i < core->worker_count; i++)
            timer_clear(&core->timers, &core->workers[i]->timer);
    if (sim_has_bug(sim, SIM_BUG_NO_BACKOFF_END))
        backoffs_forget(core);
    if (sim_has_bug(sim, SIM_BUG_NO_PASS) && event->kind == EVENT_REPORTS)
        core->placement_wanted = false;
    if (sim_has_bug(sim, SIM_BUG_LOST_MEMORY) && core->jobs)
        core->jobs->progress_step++;
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
    for (size_t i = 0; (row = memory_db_row(sim->database.rows, ROW_TABLE_job, i)); i++) {
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
    for (size_t i = 0; (row = memory_db_row(sim->database.rows, ROW_TABLE_attempt, i)); i++) {
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

/* A worker's, because a core cannot be built from rows of jobs that contradict each other. */
static void row_lose(struct effects *effects)
{
    for (size_t i = 0; i < effects->persist_count; i++) {
        if (effects->persist[i].table != ROW_TABLE_worker ||
            effects->persist[i].op != PERSIST_UPDATE)
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

static void node_lose(struct effects *effects)
{
    for (size_t i = 0; i < effects->persist_count; i++) {
        if (effects->persist[i].table != ROW_TABLE_attempt_node ||
            effects->persist[i].op != PERSIST_INSERT)
            continue;
        memmove(&effects->persist[i], &effects->persist[i + 1],
                (effects->persist_count - i - 1) * sizeof *effects->persist);
        effects->persist_count--;
        return;
    }
}

static void gang_go_on(struct effects *effects)
{
    for (size_t i = 0; i < effects->persist_count; i++) {
        struct row_attempt *row = (struct row_attempt *)effects->persist[i].row;
        if (effects->persist[i].table == ROW_TABLE_attempt && row->stop_cause &&
            strcmp(row->stop_cause, "peer_failed") == 0 && !row->ended_at)
            row->state = "RUNNING";
    }
}

static void requeue_forget(struct effects *effects)
{
    for (size_t i = 0; i < effects->persist_count; i++) {
        struct row_job *row = (struct row_job *)effects->persist[i].row;
        if (effects->persist[i].table != ROW_TABLE_job || !row->cause || row->ended_at ||
            strcmp(row->cause, "preempted") != 0 || strcmp(row->state, "READY") != 0)
            continue;
        row->state = "FAILED";
        row->ended_at = SIM_BASE_US;
    }
}

static void failure_praise(struct effects *effects)
{
    for (size_t i = 0; i < effects->persist_count; i++) {
        struct row_job *row = (struct row_job *)effects->persist[i].row;
        if (effects->persist[i].table != ROW_TABLE_job || strcmp(row->state, "FAILED") != 0)
            continue;
        row->state = "SUCCEEDED";
        row->cause = "success";
    }
}

void bug_in_batch(struct sim *sim, struct effects *effects)
{
    if (sim_has_bug(sim, SIM_BUG_SECOND_ATTEMPT))
        attempt_again(effects);
    if (sim_has_bug(sim, SIM_BUG_RESURRECTION))
        job_resurrect(sim, effects);
    if (sim_has_bug(sim, SIM_BUG_LATE_REPORT))
        report_late(sim, effects);
    if (sim_has_bug(sim, SIM_BUG_LOST_ROW))
        row_lose(effects);
    if (sim_has_bug(sim, SIM_BUG_TORN_RESUME))
        resume_tear(effects);
    if (sim_has_bug(sim, SIM_BUG_HALF_GANG))
        node_lose(effects);
    if (sim_has_bug(sim, SIM_BUG_LONE_NODE))
        gang_go_on(effects);
    if (sim_has_bug(sim, SIM_BUG_NO_REQUEUE))
        requeue_forget(effects);
    if (sim_has_bug(sim, SIM_BUG_WRONG_END))
        failure_praise(effects);
}
