/* sim_check.c - what must hold of rows and messages, judged without the core. */
#include "tests/lib/core/sim_inner.h"

#include <string.h>

typedef unsigned long long ull; /* only for printf */

#define ROWS(sim, table_name, variable)                                                            \
    const struct row_##table_name *variable;                                                       \
    for (size_t at_ = 0; (variable = memory_db_row((sim)->db, ROW_TABLE_##table_name, at_)); at_++)

static const struct row_attempt *attempt_row(const struct sim *sim, uint64_t attempt_id)
{
    ROWS(sim, attempt, row)
    {
        if (row->attempt_id == attempt_id)
            return row;
    }
    return NULL;
}

static const struct row_job *job_row(const struct sim *sim, uint64_t job_id)
{
    ROWS(sim, job, row)
    {
        if (row->job_id == job_id)
            return row;
    }
    return NULL;
}

/* ---- a batch, before it is applied ------------------------------------------------------- */

/* Invariant 5: nothing is stored of an attempt that has ended. */
static void stream_check(struct sim *sim, uint64_t attempt_id)
{
    const struct row_attempt *attempt = attempt_row(sim, attempt_id);
    if (attempt && attempt->ended_at)
        sim_violation(sim, arena_printf(&sim->arena,
                                        "invariant 5: a report of attempt %llu, which has ended",
                                        (ull)attempt_id));
}

/* Invariant 7: what an attempt resumes from is there when it is placed. The rows of one batch
 * are in the order of the decisions: a later removal does not count. */
static void resume_batch_check(struct sim *sim, const struct effects *effects, size_t at)
{
    const struct row_attempt *attempt = effects->persist[at].row;
    bool there = attempt->resume_checkpoint_id == 0;
    ROWS(sim, checkpoint, row)
    {
        there |= row->checkpoint_id == attempt->resume_checkpoint_id && row->removed_at == 0;
    }
    for (size_t i = 0; i < at; i++) {
        const struct row_checkpoint *saved = effects->persist[i].row;
        if (effects->persist[i].table == ROW_TABLE_checkpoint &&
            saved->checkpoint_id == attempt->resume_checkpoint_id)
            there = saved->removed_at == 0;
    }
    if (!there)
        sim_violation(sim,
                      arena_printf(&sim->arena,
                                   "invariant 7: attempt %llu resumes from checkpoint %llu, "
                                   "which is not there",
                                   (ull)attempt->attempt_id, (ull)attempt->resume_checkpoint_id));
}

void check_batch(struct sim *sim, const struct effects *effects)
{
    for (size_t i = 0; i < effects->persist_count; i++) {
        const struct persist *persist = &effects->persist[i];
        if (persist->table == ROW_TABLE_attempt && persist->op == PERSIST_INSERT)
            resume_batch_check(sim, effects, i);
        if (persist->table == ROW_TABLE_metric)
            stream_check(sim, ((const struct row_metric *)persist->row)->attempt_id);
        if (persist->table == ROW_TABLE_checkpoint && persist->op == PERSIST_INSERT)
            stream_check(sim, ((const struct row_checkpoint *)persist->row)->attempt_id);
        sim->result->metrics += persist->table == ROW_TABLE_metric;
        sim->result->attempts +=
            persist->table == ROW_TABLE_attempt && persist->op == PERSIST_INSERT;
        sim->result->jobs += persist->table == ROW_TABLE_job && persist->op == PERSIST_INSERT;
    }
}

/* ---- a message, before it leaves --------------------------------------------------------- */

static uint64_t cursor_of(const struct sim *sim, uint64_t attempt_id)
{
    ROWS(sim, report_cursor, row)
    {
        if (row->attempt_id == attempt_id)
            return row->seq;
    }
    return 0;
}

void check_release(struct sim *sim, const struct outgoing *outgoing)
{
    const struct message *message = &outgoing->message;
    bool durable = true;
    if (message->tag == MSG_START)
        durable = attempt_row(sim, message->u.start.attempt_id) != NULL;
    else if (message->tag == MSG_REPORT_ACK)
        durable = cursor_of(sim, message->u.report_ack.attempt_id) >= message->u.report_ack.seq;
    else if (message->tag == MSG_SUBMITTED)
        durable = job_row(sim, message->u.submitted.jobs[0].job_id) != NULL;
    if (!durable)
        sim_violation(sim, arena_printf(&sim->arena, "invariant 3: %s leaves before its rows",
                                        msg_name(message->tag)));
}

/* ---- the rows after a commit ------------------------------------------------------------- */

/* Invariant 7: the resume point was there, whole and the job's own, when it was chosen. */
static void resume_check(struct sim *sim, const struct row_attempt *attempt)
{
    if (!attempt->resume_checkpoint_id)
        return;
    ROWS(sim, checkpoint, row)
    {
        if (row->checkpoint_id == attempt->resume_checkpoint_id && row->job_id == attempt->job_id)
            return;
    }
    sim_violation(sim, arena_printf(&sim->arena,
                                    "invariant 7: attempt %llu resumes from checkpoint %llu, "
                                    "which is not its job's",
                                    (ull)attempt->attempt_id, (ull)attempt->resume_checkpoint_id));
}

/* Invariant 8: whoever has an attempt has all its dependencies met. */
static void parents_check(struct sim *sim, uint64_t job_id)
{
    ROWS(sim, job_dependency, row)
    {
        if (row->job_id == job_id && strcmp(row->state, "met") != 0)
            sim_violation(sim, arena_printf(&sim->arena,
                                            "invariant 8: job %llu runs and its need of job %llu "
                                            "is %s",
                                            (ull)job_id, (ull)row->parent_id, row->state));
    }
}

/* Invariant 2, from the rows alone. */
static void capacity_check(struct sim *sim, uint64_t worker_id, uint64_t cores, uint64_t gpus)
{
    ROWS(sim, worker, row)
    {
        if (row->worker_id == worker_id && (row->cores < cores || row->gpus < gpus))
            sim_violation(sim, arena_printf(&sim->arena,
                                            "invariant 2: worker %llu gives %llu of %llu cores "
                                            "and %llu of %llu gpus",
                                            (ull)worker_id, (ull)cores, (ull)row->cores, (ull)gpus,
                                            (ull)row->gpus));
    }
}

void check_commit(struct sim *sim)
{
    uint64_t cores[64] = {0}, gpus[64] = {0};
    ROWS(sim, attempt, attempt)
    {
        if (attempt->ended_at)
            continue;
        const struct row_job *job = job_row(sim, attempt->job_id);
        CHECK(attempt->worker_id < 64);
        cores[attempt->worker_id] += job->ranks * job->cores;
        gpus[attempt->worker_id] += job->ranks * job->gpus;
        resume_check(sim, attempt);
        parents_check(sim, attempt->job_id);
        if (job->ended_at)
            sim_violation(sim, arena_printf(&sim->arena, "job %llu has ended with a live attempt",
                                            (ull)job->job_id));
    }
    uint64_t live = 0;
    ROWS(sim, job, job)
    {
        live += job->ended_at == 0;
    }
    if (live > sim->config.jobs_max)
        sim_violation(sim, arena_printf(&sim->arena, "invariant 9: %llu live jobs, the limit is %u",
                                        (ull)live, sim->config.jobs_max));
    for (uint64_t i = 0; i < 64; i++)
        capacity_check(sim, i, cores[i], gpus[i]);
}

/* The first line that differs. */
static const char *difference(struct sim *sim, const char *a, const char *b)
{
    const char *line_a = a, *line_b = b;
    for (; *a && *a == *b; a++, b++)
        if (*a == '\n') {
            line_a = a + 1;
            line_b = b + 1;
        }
    return arena_printf(&sim->arena, "invariant 6: memory has\n%.*s\nrows have\n%.*s",
                        (int)strcspn(line_a, "\n"), line_a, (int)strcspn(line_b, "\n"), line_b);
}

/* Only between batches: memory runs ahead of the rows. */
void check_rebuilt(struct sim *sim)
{
    struct buf memory = {0}, rows = {0};
    uint64_t wake;
    struct core *rebuilt =
        memory_db_load(sim->db, &sim->config, sim->now_ms, sim_wall_us(sim), &wake);
    core_dump(sim->core, &memory);
    core_dump(rebuilt, &rows);
    if (strcmp(buf_text(&memory), buf_text(&rows)) != 0)
        sim_violation(sim, difference(sim, buf_text(&memory), buf_text(&rows)));
    const char *broken = core_check(rebuilt, true, &sim->arena);
    if (broken)
        sim_violation(sim, arena_printf(&sim->arena, "rebuilt: %s", broken));
    core_free(rebuilt);
    buf_done(&memory);
    buf_done(&rows);
}

/* ---- the end ----------------------------------------------------------------------------- */

bool check_all_ended(struct sim *sim)
{
    for (size_t i = 0; i < sim->submit_count; i++)
        if (!sim->submits[i].answered)
            return false;
    if (!sim->core || sim->committing || sim->effects.persist_count)
        return false;
    ROWS(sim, job, row)
    {
        if (!row->ended_at)
            return false;
    }
    return true;
}

/* Every metric that the worker's stream had is stored, once (its key says once). */
static void metrics_check(struct sim *sim, const struct row_attempt *attempt)
{
    const struct sim_attempt *truth = NULL;
    for (int i = 0; i < SIM_WORKERS && !truth; i++)
        truth = worker_attempt(&sim->workers[i], attempt->attempt_id);
    uint64_t stored = 0;
    ROWS(sim, metric, row)
    {
        stored += row->attempt_id == attempt->attempt_id;
    }
    if (truth && attempt->cause && strcmp(attempt->cause, "success") == 0 &&
        stored != truth->metrics)
        sim_violation(sim,
                      arena_printf(&sim->arena,
                                   "attempt %llu reported %llu metrics, %llu are stored",
                                   (ull)attempt->attempt_id, (ull)truth->metrics, (ull)stored));
}

/* Invariant 7: the files of what the rows offer are there. */
static void files_check(struct sim *sim)
{
    ROWS(sim, checkpoint, row)
    {
        if (!row->removed_at && !*sim_file(sim, row->path))
            sim_violation(sim,
                          arena_printf(&sim->arena, "invariant 7: %s is registered and deleted",
                                       row->path));
    }
}

void check_end(struct sim *sim)
{
    files_check(sim);
    ROWS(sim, job, job)
    {
        if (!job->ended_at)
            sim_violation(sim, arena_printf(&sim->arena,
                                            "liveness: job %llu is %s long after all faults ended",
                                            (ull)job->job_id, job->state));
    }
    for (size_t i = 0; i < sim->submit_count; i++)
        if (!sim->submits[i].answered)
            sim_violation(sim, arena_printf(&sim->arena, "liveness: submit %zu has no answer", i));
    ROWS(sim, attempt, attempt)
    {
        metrics_check(sim, attempt);
    }
}
