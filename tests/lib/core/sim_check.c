/* sim_check.c - the judge: what must hold of rows and messages, decided without the core.
 *
 * It knows what was submitted, what people asked and what attempts really did (sim_truth), and
 * compares each batch, message and the end with that. Numbers are those of the invariants. */
#include "tests/lib/core/sim_inner.h"

#include <stdlib.h>
#include <string.h>

typedef unsigned long long ull; /* only for printf */

#define ROWS(sim, table_name, variable)                                                            \
    const struct row_##table_name *variable;                                                       \
    for (size_t at_ = 0;                                                                           \
         (variable = memory_db_row((sim)->database.rows, ROW_TABLE_##table_name, at_)); at_++)

struct asked {
    bool cancel, retry;
};

struct judge {
    struct asked jobs[SIM_FILE_JOBS];
    struct asked experiments[SIM_EXPERIMENTS];
    uint64_t live[SIM_FILE_JOBS]; /* attempts that have not ended */
    size_t live_count;
    struct {
        bool placed, gpus_placed; /* by this batch: something, something with GPUs */
        struct row_worker size;   /* what the worker had at the newest of these, */
        uint64_t gpus;            /* and of those */
    } crowds[SIM_WORKERS + 1];
};

size_t judge_live(const struct sim *sim, const uint64_t **out)
{
    *out = sim->judge->live;
    return sim->judge->live_count;
}

struct judge *judge_new(void)
{
    return mem_zalloc(sizeof(struct judge));
}

void judge_free(struct judge *judge)
{
    mem_free(judge);
}

/* ---- rows by id -------------------------------------------------------------------------- */

static const struct row_attempt *attempt_row(const struct sim *sim, uint64_t attempt_id)
{
    struct row_attempt key = {.attempt_id = attempt_id};
    return memory_db_find(sim->database.rows, ROW_TABLE_attempt, &key);
}

static const struct row_job *job_row(const struct sim *sim, uint64_t job_id)
{
    struct row_job key = {.job_id = job_id};
    return memory_db_find(sim->database.rows, ROW_TABLE_job, &key);
}

static const struct row_checkpoint *checkpoint_row(const struct sim *sim, uint64_t checkpoint_id)
{
    struct row_checkpoint key = {.checkpoint_id = checkpoint_id};
    return memory_db_find(sim->database.rows, ROW_TABLE_checkpoint, &key);
}

static const struct row_worker *worker_row(const struct sim *sim, uint64_t worker_id)
{
    struct row_worker key = {.worker_id = worker_id};
    return memory_db_find(sim->database.rows, ROW_TABLE_worker, &key);
}

static uint64_t cursor_of(const struct sim *sim, uint64_t attempt_id, uint64_t node)
{
    struct row_report_cursor key = {.attempt_id = attempt_id, .node = node};
    const struct row_report_cursor *row =
        memory_db_find(sim->database.rows, ROW_TABLE_report_cursor, &key);
    return row ? row->seq : 0;
}

static const struct row_attempt_node *node_row(const struct sim *sim, uint64_t attempt_id,
                                               uint64_t node)
{
    struct row_attempt_node key = {.attempt_id = attempt_id, .node = node};
    return memory_db_find(sim->database.rows, ROW_TABLE_attempt_node, &key);
}

static const struct sim_submit *submit_of(const struct sim *sim, const struct row_job *job)
{
    for (size_t i = 0; i < sim->submit_count; i++)
        if (memcmp(sim->submits[i].key, job->submit_key.bytes, sizeof sim->submits[i].key) == 0)
            return &sim->submits[i];
    return NULL;
}

static const struct spec_job *spec_of(const struct sim *sim, const struct row_job *job)
{
    const struct sim_submit *submit = submit_of(sim, job);
    CHECK(submit && job->submit_index < submit->spec->job_count);
    return &submit->spec->jobs[job->submit_index];
}

const struct spec_job *judge_spec(const struct sim *sim, uint64_t job_id)
{
    return spec_of(sim, job_row(sim, job_id));
}

/* ---- what people asked ------------------------------------------------------------------- */

void judge_asked(struct sim *sim, const struct sim_request *request)
{
    bool cancel = strcmp(request->action, "cancel") == 0;
    bool retry = strcmp(request->action, "retry") == 0;
    struct asked *asked = NULL;
    if (strcmp(request->target, "job") == 0)
        asked = &sim->judge->jobs[strtoull(request->value, NULL, 10)];
    else if (strcmp(request->target, "experiment") == 0)
        asked = &sim->judge->experiments[request->value[1] - '0'];
    if (asked) {
        asked->cancel |= cancel;
        asked->retry |= retry;
    }
}

static struct asked asked_of(const struct sim *sim, uint64_t job_id)
{
    struct asked job = sim->judge->jobs[job_id];
    char experiment = judge_spec(sim, job_id)->experiment[1];
    const struct asked *all = &sim->judge->experiments[experiment - '0'];
    return (struct asked){.cancel = job.cancel || all->cancel, .retry = job.retry || all->retry};
}

/* ---- a batch, before it is applied ------------------------------------------------------- */

/* Invariant 5: of an attempt that has ended nothing is stored, and of one that lives only what it
 * has really reported, once and in order. */
static struct sim_truth *stream_check(struct sim *sim, uint64_t attempt_id, uint64_t node)
{
    const struct row_attempt *attempt = attempt_row(sim, attempt_id);
    struct sim_truth *truth = sim_truth(sim, attempt_id, node);
    if (attempt && attempt->ended_at)
        sim_violation(sim, "invariant 5: a report of attempt %llu, which has ended",
                      (ull)attempt_id);
    else if (!truth)
        sim_violation(sim, "invariant 5: a report of attempt %llu, which no worker has",
                      (ull)attempt_id);
    return truth;
}

static void metric_check(struct sim *sim, const struct row_metric *row)
{
    struct sim_truth *truth = stream_check(sim, row->attempt_id, row->node);
    sim->result->metrics++;
    if (!truth)
        return;
    truth->in_rows++;
    if (row->seq <= max_u64(truth->stored, truth->newest_row))
        sim_violation(sim, "invariant 5: report %llu of attempt %llu is stored a second time",
                      (ull)row->seq, (ull)row->attempt_id);
    else if (row->seq > truth->count || truth->reports[row->seq - 1].what != SIM_METRIC ||
             truth->reports[row->seq - 1].step != row->step)
        sim_violation(sim, "invariant 5: attempt %llu never made report %llu, step %llu",
                      (ull)row->attempt_id, (ull)row->seq, (ull)row->step);
    truth->newest_row = row->seq;
}

static void checkpoint_check(struct sim *sim, const struct row_checkpoint *row)
{
    const struct sim_truth *truth = stream_check(sim, row->attempt_id, 0);
    bool made = false;
    for (size_t i = 0; truth && i < truth->count; i++)
        made |= truth->reports[i].what == SIM_CHECKPOINT && truth->reports[i].step == row->step;
    if (!made)
        sim_violation(sim, "invariant 7: attempt %llu never saved step %llu",
                      (ull)row->attempt_id, (ull)row->step);
}

/* Invariant 7: what an attempt resumes from is there when it is placed. The rows of one batch
 * are in the order of the decisions: a later removal does not count. */
static void resume_check(struct sim *sim, const struct effects *effects, size_t at)
{
    const struct row_attempt *attempt = effects->persist[at].row;
    uint64_t id = attempt->resume_checkpoint_id;
    if (id == 0)
        return;
    const struct row_checkpoint *row = checkpoint_row(sim, id);
    bool there = row && row->removed_at == 0 && row->job_id == attempt->job_id;
    for (size_t i = 0; i < at; i++) {
        const struct row_checkpoint *saved = effects->persist[i].row;
        if (effects->persist[i].table == ROW_TABLE_checkpoint && saved->checkpoint_id == id)
            there = saved->removed_at == 0 && saved->job_id == attempt->job_id;
    }
    if (!there)
        sim_violation(sim, "invariant 7: attempt %llu resumes from checkpoint %llu, which is not "
                           "there",
                      (ull)attempt->attempt_id, (ull)id);
}

static bool has_finished(const struct sim_truth *truth, enum cause cause)
{
    const struct sim_report *last =
        truth && truth->count ? &truth->reports[truth->count - 1] : NULL;
    return last && last->what == SIM_FINISHED && last->cause == cause;
}

/* What a node reported as the end is what the rows must say, and success is that of all nodes. */
static void cause_check(struct sim *sim, const struct row_attempt *row)
{
    static const enum cause reported[] = {CAUSE_SUCCESS, CAUSE_EXIT, CAUSE_SIGNAL, CAUSE_OOM,
                                          CAUSE_STALLED, CAUSE_DIVERGED, CAUSE_SHEPHERD_LOST};
    uint64_t said = 0, nodes = 0;
    enum cause cause;
    struct err err;
    bool must_be_said = false;
    if (cause_from_name(row->cause, &cause, &err) < 0) {
        sim_violation(sim, "attempt %llu ends with '%s'", (ull)row->attempt_id, row->cause);
        return;
    }
    for (size_t i = 0; i < ARRAY_COUNT(reported); i++)
        must_be_said |= cause == reported[i];
    const struct sim_truth *truth =
        row->attempt_id < sim->truth_count ? sim->truths[row->attempt_id] : NULL;
    for (; truth; truth = truth->next) {
        said += has_finished(truth, cause);
        nodes++;
    }
    uint64_t needed = cause == CAUSE_SUCCESS ? max_u64(nodes, 1) : 1;
    if (must_be_said && said < needed)
        sim_violation(sim, "invariant 5: attempt %llu ends with %s, which %llu of %llu nodes said",
                      (ull)row->attempt_id, row->cause, (ull)said, (ull)nodes);
}

static void live_add(struct sim *sim, uint64_t attempt_id)
{
    struct judge *judge = sim->judge;
    CHECK(judge->live_count < SIM_FILE_JOBS);
    judge->live[judge->live_count++] = attempt_id;
}

/* The job's and the worker's rows may be in the same batch. */
static const struct row_job *job_in(const struct sim *sim, const struct effects *effects,
                                    uint64_t job_id)
{
    const struct row_job *known = job_row(sim, job_id);
    for (size_t i = 0; !known && i < effects->persist_count; i++) {
        const struct row_job *row = effects->persist[i].row;
        if (effects->persist[i].table == ROW_TABLE_job && row->job_id == job_id)
            known = row;
    }
    return known;
}

static const char *name_of_worker(const struct sim *sim, uint64_t worker_id)
{
    const struct row_worker *row = worker_row(sim, worker_id);
    return row ? row->name : "";
}

static void crowd_add(struct sim *sim, const struct effects *effects, size_t at,
                      uint64_t worker_id, bool gpus)
{
    const struct row_worker *size = worker_row(sim, worker_id);
    for (size_t i = 0; i < at; i++) {
        const struct row_worker *row = effects->persist[i].row;
        if (effects->persist[i].table == ROW_TABLE_worker && row->worker_id == worker_id)
            size = row;
    }
    CHECK(worker_id <= SIM_WORKERS && size);
    if (size->drained || strcmp(size->state, "OK") != 0)
        sim_violation(sim, "something is placed on %s, which is %s%s", size->name, size->state,
                      size->drained ? " and drained" : "");
    sim->judge->crowds[worker_id].placed = true;
    sim->judge->crowds[worker_id].size = *size;
    if (!gpus)
        return;
    sim->judge->crowds[worker_id].gpus_placed = true;
    sim->judge->crowds[worker_id].gpus = size->gpus;
}

static bool batch_changes(const struct effects *effects, const struct row_reservation *window)
{
    for (size_t i = 0; i < effects->persist_count; i++)
        if (effects->persist[i].table == ROW_TABLE_reservation &&
            strcmp(((const struct row_reservation *)effects->persist[i].row)->name, window->name) ==
                0)
            return true;
    return false;
}

/* Nobody but the entitled starts on a worker while a window is open there. */
static void window_check(struct sim *sim, const struct effects *effects,
                         const struct row_attempt *attempt, uint64_t worker_id)
{
    const struct row_job *job = job_in(sim, effects, attempt->job_id);
    const char *worker = arena_printf(&sim->arena, "\"%s\"", name_of_worker(sim, worker_id));
    const char *account = arena_printf(&sim->arena, "\"user:%s\"", job->account);
    ROWS(sim, reservation, window)
    {
        bool open = !window->removed_at && window->from_at <= attempt->placed_at &&
                    attempt->placed_at < window->until_at && !batch_changes(effects, window);
        bool here = strcmp(window->workers, "[]") == 0 || strstr(window->workers, worker);
        if (open && here && !strstr(window->entitled, account))
            sim_violation(sim, "window: job %llu of %s starts on %s, which is kept for %s",
                          (ull)job->job_id, job->account, worker, window->entitled);
    }
}

/* Nobody starts on a worker that leaves before the job's time is over. */
static void until_check(struct sim *sim, const struct effects *effects,
                        const struct row_attempt *attempt, uint64_t worker_id)
{
    const struct row_job *job = job_in(sim, effects, attempt->job_id);
    const struct row_worker *worker = &sim->judge->crowds[worker_id].size;
    uint64_t wall_us = spec_of(sim, job)->limits.wall_time_ms * 1000;
    if (worker->until_at && attempt->placed_at + wall_us > worker->until_at)
        sim_violation(sim, "job %llu starts on %s, which leaves before its time is over",
                      (ull)job->job_id, worker->name);
}

/* The value of a label in the JSON of a worker's row; NULL: it has none. */
static const char *label_of(struct sim *sim, const struct row_worker *worker, const char *name)
{
    const char *key = arena_printf(&sim->arena, "\"%s\"", name);
    const char *at = worker->labels ? strstr(worker->labels, key) : NULL;
    const char *from = at ? strchr(at + strlen(key), '"') : NULL;
    return from ? arena_strndup(&sim->arena, from + 1, strcspn(from + 1, "\"")) : NULL;
}

/* The forms that sim_jobs.c draws: names, "!x", "!*", ">=N". */
static bool value_holds(const char *wanted, const char *value)
{
    if (strcmp(wanted, "!*") == 0)
        return !value;
    if (*wanted == '!')
        return !value || strcmp(value, wanted + 1) != 0;
    if (strncmp(wanted, ">=", 2) == 0)
        return value && strtoull(value, NULL, 10) >= strtoull(wanted + 2, NULL, 10);
    return value && strcmp(value, wanted) == 0;
}

static bool label_fits(struct sim *sim, const struct spec_label *label,
                       const struct row_worker *worker)
{
    const char *value = label_of(sim, worker, label->name);
    for (size_t i = 0; i < label->value_count; i++)
        if (value_holds(label->values[i], value))
            return true;
    return false;
}

/* Some alternative holds whole. */
static bool constraint_fits(struct sim *sim, const struct spec_job *spec,
                            const struct row_worker *worker)
{
    bool fits = spec->constraint_count == 0;
    for (size_t i = 0; i < spec->constraint_count && !fits;) {
        uint32_t alternative = spec->constraints[i].alternative;
        fits = true;
        for (; i < spec->constraint_count && spec->constraints[i].alternative == alternative; i++)
            fits &= label_fits(sim, &spec->constraints[i], worker);
    }
    return fits;
}

/* Where it is placed has the labels and the GPUs that its spec asks for. */
static void wishes_check(struct sim *sim, const struct row_job *job, uint64_t worker_id)
{
    const struct spec_job *spec = spec_of(sim, job);
    const struct row_worker *worker = &sim->judge->crowds[worker_id].size;
    const char *wanted = spec->resources.gpu_model;
    sim->result->choosy += spec->constraint_count > 0 || *wanted;
    if (!constraint_fits(sim, spec, worker))
        sim_violation(sim, "job %llu starts on %s, whose labels %s are not as its constraint says",
                      (ull)job->job_id, worker->name, worker->labels);
    for (uint32_t i = 0; *wanted && i < SIM_WORKERS; i++)
        if (strcmp(sim->workers[i].name, worker->name) == 0 &&
            strcmp(sim->workers[i].model, "Sim A100") != 0)
            sim_violation(sim, "job %llu starts on %s, which has GPUs of %s, not of gpu_model %s",
                          (ull)job->job_id, worker->name, sim->workers[i].model, wanted);
}

/* A gang is placed whole: as many nodes as its spec says, all its ranks, on different workers. */
static void gang_check(struct sim *sim, const struct effects *effects, size_t at)
{
    const struct row_attempt *attempt = effects->persist[at].row;
    const struct row_job *job = job_in(sim, effects, attempt->job_id);
    const struct spec_job *spec = spec_of(sim, job);
    uint64_t nodes = 0, ranks = 0, workers = 0;
    sim->result->attempts++;
    for (size_t i = 0; i < effects->persist_count; i++) {
        const struct row_attempt_node *row = effects->persist[i].row;
        if (effects->persist[i].table != ROW_TABLE_attempt_node ||
            effects->persist[i].op != PERSIST_INSERT || row->attempt_id != attempt->attempt_id)
            continue;
        nodes++;
        ranks += row->ranks;
        workers |= (uint64_t)1 << row->worker_id;
        crowd_add(sim, effects, at, row->worker_id, job->gpus > 0);
        window_check(sim, effects, attempt, row->worker_id);
        until_check(sim, effects, attempt, row->worker_id);
        wishes_check(sim, job, row->worker_id);
    }
    if (nodes == 0) {
        crowd_add(sim, effects, at, attempt->worker_id, job->gpus > 0);
        window_check(sim, effects, attempt, attempt->worker_id);
        until_check(sim, effects, attempt, attempt->worker_id);
        wishes_check(sim, job, attempt->worker_id);
    }
    sim->result->gangs += nodes > 1;
    uint64_t least = max_u64(spec->resources.nodes_min, 1);
    uint64_t most = max_u64(spec->resources.nodes_max, 1);
    uint64_t lies = max_u64(nodes, 1);
    if (lies < least || lies > most || (nodes && ranks != job->ranks) ||
        (nodes && (uint64_t)__builtin_popcountll(workers) != nodes))
        sim_violation(sim, "gang: attempt %llu lies on %llu nodes with %llu of %llu ranks, its "
                           "spec says %llu..%llu nodes",
                      (ull)attempt->attempt_id, (ull)lies, (ull)ranks, (ull)job->ranks, (ull)least,
                      (ull)most);
}

static void attempt_check(struct sim *sim, const struct effects *effects, size_t at)
{
    const struct row_attempt *row = effects->persist[at].row;
    if (effects->persist[at].op == PERSIST_INSERT) {
        resume_check(sim, effects, at);
        live_add(sim, row->attempt_id);
        gang_check(sim, effects, at);
    }
    if (row->ended_at && row->cause)
        cause_check(sim, row);
    sim->result->preemptions += row->cause && (strcmp(row->cause, "preempted") == 0 ||
                                               strcmp(row->cause, "node_ended") == 0 ||
                                               strcmp(row->cause, "drained") == 0);
    sim->result->prunings += row->cause && strcmp(row->cause, "pruned") == 0;
}

/* Invariant 4: only a person's retry brings back a job that has ended, and none that succeeded. */
static void job_check(struct sim *sim, const struct persist *persist)
{
    const struct row_job *row = persist->row, *before = job_row(sim, row->job_id);
    sim->result->jobs += persist->op == PERSIST_INSERT;
    if (persist->op == PERSIST_INSERT && !submit_of(sim, row))
        sim_violation(sim, "job %llu was never submitted", (ull)row->job_id);
    if (before && before->ended_at && row->ended_at != before->ended_at &&
        (strcmp(before->state, "SUCCEEDED") == 0 || !asked_of(sim, row->job_id).retry))
        sim_violation(sim, "invariant 4: job %llu has ended %s and becomes %s", (ull)row->job_id,
                      before->state, row->state);
}

void judge_rows(struct sim *sim, const struct effects *effects)
{
    for (size_t i = 0; i < effects->persist_count && !sim->violated; i++) {
        const struct persist *persist = &effects->persist[i];
        switch ((int)persist->table) {
        case ROW_TABLE_job:
            job_check(sim, persist);
            break;
        case ROW_TABLE_attempt:
            attempt_check(sim, effects, i);
            break;
        case ROW_TABLE_metric:
            metric_check(sim, persist->row);
            break;
        case ROW_TABLE_checkpoint:
            if (persist->op == PERSIST_INSERT)
                checkpoint_check(sim, persist->row);
            break;
        default:
            break;
        }
    }
}

/* ---- the rows after a commit ------------------------------------------------------------- */

/* Invariant 5: between the old and the new cursor nothing was lost. */
static void cursor_check(struct sim *sim, const struct row_report_cursor *row)
{
    uint64_t attempt_id = row->attempt_id;
    struct sim_truth *truth = sim_truth(sim, attempt_id, row->node);
    uint64_t seq = cursor_of(sim, attempt_id, row->node);
    if (!truth || seq < truth->stored || seq > truth->count) {
        sim_violation(sim, "invariant 5: the cursor of attempt %llu is %llu, it made %zu reports",
                      (ull)attempt_id, (ull)seq, truth ? truth->count : 0);
        return;
    }
    for (; truth->stored < seq; truth->stored++)
        truth->metrics += truth->reports[truth->stored].what == SIM_METRIC;
    if (truth->metrics != truth->in_rows)
        sim_violation(sim, "invariant 5: attempt %llu reported %llu metrics up to its cursor, "
                           "%llu are stored",
                      (ull)attempt_id, (ull)truth->metrics, (ull)truth->in_rows);
}

static bool has_made(const struct sim *sim, uint64_t job_id)
{
    ROWS(sim, artifact, row)
    {
        if (row->job_id == job_id && strcmp(row->name, SIM_ARTIFACT_NAME) == 0)
            return true;
    }
    return false;
}

static bool parent_meets(const struct sim *sim, const struct row_job *parent,
                         enum spec_condition condition)
{
    switch (condition) {
    case SPEC_ON_SUCCESS:
        return strcmp(parent->state, "SUCCEEDED") == 0;
    case SPEC_ON_FAILURE:
        return strcmp(parent->state, "FAILED") == 0;
    case SPEC_ON_ARTIFACT:
        return has_made(sim, parent->job_id);
    case SPEC_ON_ANY:
        break;
    }
    return job_state_is_terminal(job_state_from_name(parent->state));
}

/* Invariant 8, from what was submitted: each parent has ended as needed. One that a person asked
 * to retry may have gone on since. */
static void parent_check(struct sim *sim, uint64_t job_id, uint64_t parent_id,
                         enum spec_condition condition)
{
    const struct row_job *parent = job_row(sim, parent_id);
    if (!parent_meets(sim, parent, condition) && !asked_of(sim, parent->job_id).retry)
        sim_violation(sim, "invariant 8: job %llu runs and needs %s of job %llu, which is %s",
                      (ull)job_id, spec_condition_text(&sim->arena, condition, ""),
                      (ull)parent->job_id, parent->state);
}

static uint64_t parent_of(uint64_t first_job_id, uint32_t index, const char *name)
{
    return index == SPEC_EXTERNAL ? strtoull(name, NULL, 10) : first_job_id + index;
}

static void parents_check(struct sim *sim, uint64_t job_id)
{
    const struct spec_job *spec = judge_spec(sim, job_id);
    uint64_t first = job_id - job_row(sim, job_id)->submit_index;
    for (size_t i = 0; i < spec->need_count; i++)
        parent_check(sim, job_id, parent_of(first, spec->needs[i].job_index, spec->needs[i].job),
                     spec->needs[i].on);
    for (size_t i = 0; i < spec->input_count; i++) {
        uint32_t index = spec->inputs[i].job_index;
        bool explicit = index == SPEC_EXTERNAL; /* or a need of the same job says otherwise */
        for (size_t k = 0; k < spec->need_count; k++)
            explicit |= spec->needs[k].job_index == index;
        if (!explicit)
            parent_check(sim, job_id, first + index, SPEC_ON_SUCCESS);
    }
    ROWS(sim, job_dependency, row)
    {
        if (row->job_id == job_id && strcmp(row->state, "met") != 0)
            sim_violation(sim, "invariant 8: job %llu runs and its need of job %llu is %s",
                          (ull)job_id, (ull)row->parent_id, row->state);
    }
}

/* The best value of the metric that the rows hold of a trial; false: none. */
static bool trial_value(const struct sim *sim, const struct row_sweep *sweep, uint64_t job_id,
                        double *out)
{
    bool is_max = strcmp(sweep->mode, "max") == 0, any = false;
    ROWS(sim, metric, row)
    {
        if (row->job_id != job_id || strcmp(row->name, sweep->metric) != 0)
            continue;
        if (!any || (is_max ? row->value > *out : row->value < *out))
            *out = row->value;
        any = true;
    }
    return any;
}

/* Of a sweep that has just ended, the trial that a job is to read from is its best: of all metrics
 * stored, the first of those that are equal. */
static void choice_check(struct sim *sim, const struct row_job_dependency *choice)
{
    uint64_t first = choice->parent_id - job_row(sim, choice->parent_id)->submit_index;
    struct row_sweep key = {.sweep_id = first};
    const struct row_sweep *sweep = memory_db_find(sim->database.rows, ROW_TABLE_sweep, &key);
    uint64_t best_id = 0;
    double best = 0, value;
    sim->result->choices++;
    for (uint64_t i = 0; sweep && i < sweep->trial_count; i++) {
        bool is_max = strcmp(sweep->mode, "max") == 0;
        if (!trial_value(sim, sweep, first + i, &value) ||
            (best_id && !(is_max ? value > best : value < best)))
            continue;
        best = value;
        best_id = first + i;
    }
    if (!sweep || !sweep->ended_at || best_id != choice->parent_id)
        sim_violation(sim, "job %llu reads from job %llu, the best of sweep %llu is %llu",
                      (ull)choice->job_id, (ull)choice->parent_id, (ull)first, (ull)best_id);
}

/* Who was given the best trial of a sweep reads from that one. */
static void lineage_check(struct sim *sim, const struct row_lineage *lineage)
{
    uint64_t job_id = attempt_row(sim, lineage->attempt_id)->job_id;
    ROWS(sim, job_dependency, row)
    {
        if (row->job_id == job_id && row->chosen && row->parent_id != lineage->source_job_id)
            sim_violation(sim, "job %llu reads from job %llu, the best of its sweep is %llu",
                          (ull)job_id, (ull)lineage->source_job_id, (ull)row->parent_id);
    }
}

/* Invariant 2, from the rows alone, where something was placed. A worker that rejoins smaller
 * than what it has given away is not overbooked by that. */
struct use {
    uint64_t cores, gpus, memory, parts, exclusive;
};

static void use_add(struct use *use, const struct row_job *job, uint64_t ranks, bool exclusive)
{
    use->cores += ranks * job->cores;
    use->gpus += ranks * job->gpus;
    use->memory += ranks * job->memory_bytes;
    use->parts++;
    use->exclusive += exclusive;
}

static void uses_count(const struct sim *sim, struct use used[SIM_WORKERS + 1])
{
    const struct judge *judge = sim->judge;
    for (size_t i = 0; i < judge->live_count; i++) {
        const struct row_attempt *attempt = attempt_row(sim, judge->live[i]);
        const struct row_job *job = job_row(sim, attempt->job_id);
        const struct row_attempt_node *node = node_row(sim, attempt->attempt_id, 0);
        bool exclusive = spec_of(sim, job)->resources.exclusive;
        if (!node)
            use_add(&used[attempt->worker_id], job, job->ranks, exclusive);
        for (uint64_t k = 1; node; node = node_row(sim, attempt->attempt_id, k++))
            if (!node->ended_at)
                use_add(&used[node->worker_id], job, node->ranks, exclusive);
    }
}

static void capacity_check(struct sim *sim)
{
    struct judge *judge = sim->judge;
    struct use used[SIM_WORKERS + 1] = {0};
    uses_count(sim, used);
    for (uint64_t id = 1; id <= SIM_WORKERS; id++) {
        const struct row_worker *row = &judge->crowds[id].size;
        bool placed = judge->crowds[id].placed, gpus_placed = judge->crowds[id].gpus_placed;
        judge->crowds[id].placed = judge->crowds[id].gpus_placed = false;
        if (placed && (row->cores < used[id].cores || row->memory_bytes < used[id].memory ||
                       (gpus_placed && judge->crowds[id].gpus < used[id].gpus)))
            sim_violation(sim, "invariant 2: worker %llu gives %llu of %llu cores, %llu of %llu "
                               "gpus, %llu of %llu bytes",
                          (ull)id, (ull)used[id].cores, (ull)row->cores, (ull)used[id].gpus,
                          (ull)row->gpus, (ull)used[id].memory, (ull)row->memory_bytes);
        if (placed && used[id].exclusive && used[id].parts > 1)
            sim_violation(sim, "invariant 2: an exclusive job shares worker %llu", (ull)id);
    }
}

/* Of an array or a sweep no more than its cap live at once. */
static void caps_check(struct sim *sim)
{
    const struct judge *judge = sim->judge;
    for (size_t i = 0; i < judge->live_count; i++) {
        const struct row_job *job = job_row(sim, attempt_row(sim, judge->live[i])->job_id);
        uint32_t cap = judge_spec(sim, job->job_id)->at_once, count = 0;
        for (size_t k = 0; cap && k < judge->live_count; k++) {
            uint64_t other = attempt_row(sim, judge->live[k])->job_id;
            uint64_t first = other - job_row(sim, other)->submit_index;
            bool same = first == job->job_id - job->submit_index;
            count += same && judge_spec(sim, other)->at_once; /* not who reads the best of them */
        }
        if (count > cap)
            sim_violation(sim, "limit: %u jobs of the group of job %llu live, its cap is %u", count,
                          (ull)job->job_id, cap);
    }
}

/* Once a node has failed or is lost, the whole attempt ends or is being stopped. */
static void gang_whole_check(struct sim *sim, const struct row_attempt *attempt)
{
    const struct row_attempt_node *node = node_row(sim, attempt->attempt_id, 0);
    for (uint64_t k = 1; node; node = node_row(sim, attempt->attempt_id, k++))
        if (node->ended_at && strcmp(node->cause, "success") != 0 &&
            strcmp(attempt->state, "STOPPING") != 0)
            sim_violation(sim, "gang: attempt %llu is %s, and its node %llu has ended: %s",
                          (ull)attempt->attempt_id, attempt->state, (ull)node->node, node->cause);
}

static void live_update(struct sim *sim)
{
    struct judge *judge = sim->judge;
    size_t kept = 0;
    for (size_t i = 0; i < judge->live_count; i++) {
        const struct row_attempt *row = attempt_row(sim, judge->live[i]);
        if (row->ended_at)
            continue;
        judge->live[kept++] = judge->live[i];
        gang_whole_check(sim, row);
        if (job_row(sim, row->job_id)->ended_at)
            sim_violation(sim, "invariant 1: job %llu has ended with the live attempt %llu",
                          (ull)row->job_id, (ull)row->attempt_id);
    }
    judge->live_count = kept;
}

static void limits_check(struct sim *sim)
{
    uint64_t live = 0;
    ROWS(sim, job, job)
    {
        live += job->ended_at == 0;
    }
    if (live > sim->config.jobs_max)
        sim_violation(sim, "invariant 9: %llu live jobs, the limit is %u", (ull)live,
                      sim->config.jobs_max);
}

/* ---- an end as specified ----------------------------------------------------------------- */

/* The attempt with the greatest number, and how many succeeded. */
static const struct row_attempt *last_attempt(const struct sim *sim, uint64_t job_id,
                                              size_t *out_successes)
{
    const struct row_attempt *last = NULL;
    *out_successes = 0;
    ROWS(sim, attempt, row)
    {
        if (row->job_id != job_id)
            continue;
        last = !last || row->number > last->number ? row : last;
        *out_successes += row->cause && strcmp(row->cause, "success") == 0;
    }
    return last;
}

static bool retries(const struct sim *sim, const struct row_job *job, enum cause cause)
{
    const struct spec_job *spec = judge_spec(sim, job->job_id);
    bool rewinds = cause == CAUSE_DIVERGED && spec->diverge.then == SPEC_DIVERGE_REWIND;
    return ((spec->retry.causes & SPEC_CAUSE_BIT(cause)) || rewinds) &&
           job->attempts_spent < spec->retry.attempts;
}

/* A rung at which its trial was not kept. */
static bool was_pruned(const struct sim *sim, const struct row_job *job)
{
    uint64_t sweep_id = job->job_id - job->submit_index;
    ROWS(sim, trial_rung, row)
    {
        if (row->sweep_id == sweep_id && row->trial == job->submit_index && !row->kept)
            return strcmp(job->state, "CANCELLED") == 0;
    }
    return false;
}

/* NULL, or what is wrong with how the job ended. */
static const char *end_fault(const struct sim *sim, const struct row_job *job)
{
    size_t successes;
    struct err err;
    enum cause cause;
    const struct row_attempt *last = last_attempt(sim, job->job_id, &successes);
    bool succeeded = strcmp(job->state, "SUCCEEDED") == 0;
    if (succeeded != (successes > 0) || successes > 1)
        return "its attempts say otherwise";
    if (succeeded)
        return strcmp(last->cause, "success") == 0 ? NULL : "another attempt came after success";
    if (!job->cause || cause_from_name(job->cause, &cause, &err) < 0)
        return "no cause is given";
    if (cause == CAUSE_DEPENDENCY || (cause == CAUSE_LAUNCH_FAILED && job->detail))
        return NULL; /* parents_check and the inputs decide; see broken_check */
    if (cause == CAUSE_PREEMPTED || cause == CAUSE_NODE_ENDED || cause == CAUSE_DRAINED)
        return "who is preempted goes on";
    if (cause == CAUSE_STALE_CHECKPOINT)
        return "there are older checkpoints, or the start";
    if (cause == CAUSE_PRUNED)
        return was_pruned(sim, job) ? NULL : "its trial was not among the bad ones";
    if (strcmp(job->state, "CANCELLED") == 0)
        return asked_of(sim, job->job_id).cancel ? NULL : "nobody asked for that";
    if (!last || !last->cause || strcmp(last->cause, job->cause) != 0)
        return "its last attempt ended otherwise";
    return retries(sim, job, cause) ? "its spec says that it is tried again" : NULL;
}

static bool some_parent_broken(const struct sim *sim, uint64_t job_id)
{
    ROWS(sim, job_dependency, row)
    {
        if (row->job_id == job_id && strcmp(row->state, "broken") == 0)
            return true;
    }
    return false;
}

static void end_check(struct sim *sim, const struct row_job *job)
{
    const char *fault = end_fault(sim, job);
    bool dependency = job->cause && strcmp(job->cause, "dependency") == 0;
    if (!fault && dependency && !some_parent_broken(sim, job->job_id))
        fault = "no parent is to blame";
    if (fault)
        sim_violation(sim, "job %llu is %s (%s), not as specified: %s", (ull)job->job_id,
                      job->state, job->cause ? job->cause : "", fault);
}

void judge_commit(struct sim *sim, const struct effects *effects)
{
    bool placed = false, jobs = false, attempts = false;
    for (size_t i = 0; i < effects->persist_count && !sim->violated; i++) {
        const struct persist *persist = &effects->persist[i];
        const struct row_attempt *attempt = persist->row;
        const struct row_job *job = persist->row;
        bool is_insert = persist->op == PERSIST_INSERT;
        attempts |= persist->table == ROW_TABLE_attempt;
        jobs |= persist->table == ROW_TABLE_job;
        placed |= persist->table == ROW_TABLE_attempt && is_insert;
        if (persist->table == ROW_TABLE_attempt && is_insert)
            parents_check(sim, attempt->job_id);
        if (persist->table == ROW_TABLE_report_cursor)
            cursor_check(sim, persist->row);
        const struct row_job_dependency *dependency = persist->row;
        if (persist->table == ROW_TABLE_job_dependency && !is_insert && dependency->chosen)
            choice_check(sim, dependency);
        if (persist->table == ROW_TABLE_lineage)
            lineage_check(sim, persist->row);
        if (persist->table == ROW_TABLE_job && job->ended_at && job_row(sim, job->job_id)->ended_at)
            end_check(sim, job_row(sim, job->job_id));
    }
    if (attempts && !sim->violated)
        live_update(sim);
    if (placed && !sim->violated)
        capacity_check(sim);
    if (placed && !sim->violated)
        caps_check(sim);
    for (size_t i = 0; placed && i < effects->persist_count && !sim->violated; i++) {
        const struct row_attempt *attempt = effects->persist[i].row;
        if (effects->persist[i].table == ROW_TABLE_attempt &&
            effects->persist[i].op == PERSIST_INSERT &&
            !attempt_row(sim, attempt->attempt_id)->ended_at)
            judge_quotas(sim, effects, attempt->job_id);
    }
    if (jobs && !sim->violated)
        limits_check(sim);
}

/* ---- messages ---------------------------------------------------------------------------- */

static bool cancel_is_durable(const struct sim *sim, const struct msg_done *done)
{
    const struct sim_request *request = &sim->requests[done->request_seq - SIM_SUBMITS_MAX - 1];
    if (strcmp(request->action, "cancel") != 0 || strcmp(request->target, "job") != 0)
        return true;
    const struct row_job *job = job_row(sim, strtoull(request->value, NULL, 10));
    return job->ended_at || strcmp(job->state, "STOPPING") == 0 ||
           asked_of(sim, job->job_id).retry;
}

static bool is_durable(const struct sim *sim, const struct message *message)
{
    const struct row_attempt *attempt;
    const struct row_checkpoint *checkpoint;
    switch ((int)message->tag) {
    case MSG_START:
        attempt = attempt_row(sim, message->u.start.attempt_id);
        return attempt && (message->u.start.nodes_count == 0 ||
                           node_row(sim, attempt->attempt_id, message->u.start.node));
    case MSG_STOP:
        attempt = attempt_row(sim, message->u.stop.attempt_id);
        return attempt && (attempt->ended_at || attempt->stop_cause);
    case MSG_REPORT_ACK:
        return cursor_of(sim, message->u.report_ack.attempt_id, message->u.report_ack.node) >=
               message->u.report_ack.seq;
    case MSG_CHECKPOINT_DROP:
        checkpoint = checkpoint_row(sim, message->u.checkpoint_drop.checkpoint_id);
        return checkpoint && checkpoint->removed_at;
    case MSG_NODE_ACK:
        return worker_row(sim, message->u.node_ack.worker_id)->node_stamp >=
               message->u.node_ack.stamp;
    case MSG_WORKER_WELCOME:
        return worker_row(sim, message->u.worker_welcome.worker_id) != NULL;
    case MSG_SUBMITTED:
        for (size_t i = 0; i < message->u.submitted.jobs_count; i++)
            if (!job_row(sim, message->u.submitted.jobs[i].job_id))
                return false;
        return true;
    case MSG_DONE:
        return cancel_is_durable(sim, &message->u.done);
    default:
        return true;
    }
}

void judge_release(struct sim *sim, const struct outgoing *outgoing)
{
    if (!is_durable(sim, &outgoing->message))
        sim_violation(sim, "invariant 3: %s leaves before its rows",
                      msg_name(outgoing->message.tag));
}

/* The worker that runs node `node` of the attempt by its rows; NULL: none does. */
static const struct row_worker *home_of(const struct sim *sim, uint64_t attempt_id, uint64_t node)
{
    const struct row_attempt *attempt = attempt_row(sim, attempt_id);
    const struct row_attempt_node *part = node_row(sim, attempt_id, node);
    if (!attempt || attempt->ended_at || (part && part->ended_at))
        return NULL;
    return worker_row(sim, part ? part->worker_id : attempt->worker_id);
}

/* A process that was stopped may obey late what was sent to it: then the attempt has ended. */
void judge_started(struct sim *sim, const struct sim_worker *worker, const struct msg_start *start)
{
    const struct row_worker *home = home_of(sim, start->attempt_id, start->node);
    if (!attempt_row(sim, start->attempt_id))
        sim_violation(sim, "invariant 3: attempt %llu starts and has no row",
                      (ull)start->attempt_id);
    else if (home && strcmp(home->name, worker->name) != 0)
        sim_violation(sim, "invariant 1: attempt %llu starts on %s, its rows say %s",
                      (ull)start->attempt_id, worker->name, home->name);
    else if (home && *start->resume_path && !sim_file(sim, start->resume_path)->there)
        sim_violation(sim, "invariant 7: attempt %llu resumes from %s, which was deleted",
                      (ull)start->attempt_id, start->resume_path);
}

/* Whoever is named has made it, or has said that it keeps a copy and had one. */
void judge_source(struct sim *sim, const struct sim_worker *reader,
                  const struct rec_copy_source *source)
{
    ROWS(sim, checkpoint, checkpoint)
    {
        const struct row_worker *maker = worker_row(sim, checkpoint->worker_id);
        if (hash_equal(&checkpoint->content_hash, &source->content) && maker &&
            strcmp(maker->name, source->worker) == 0)
            return;
    }
    ROWS(sim, copy, copy)
    {
        const struct row_worker *holder = worker_row(sim, copy->worker_id);
        if (hash_equal(&copy->content_hash, &source->content) &&
            strcmp(holder->name, source->worker) == 0 && strcmp(source->worker, reader->name) != 0)
            return;
    }
    sim_violation(sim, "a START names %s as a source that has neither original nor copy",
                  source->worker);
}

/* Of a worker that has joined: rows and disk. */
static bool copies_agree(struct sim *sim, const struct sim_worker *worker)
{
    size_t rows = 0, found = 0;
    ROWS(sim, copy, copy)
    {
        const struct row_worker *holder = worker_row(sim, copy->worker_id);
        if (copy->removed_at || strcmp(holder->name, worker->name) != 0)
            continue;
        rows++;
        for (size_t i = 0; i < worker->copy_count; i++)
            found += hash_equal(&worker->copies[i].content, &copy->content_hash) &&
                     worker->copies[i].fetched_us == copy->fetched_at;
    }
    return rows == found && found == worker->copy_count;
}

void judge_fenced(struct sim *sim, const struct sim_worker *worker,
                  const struct sim_attempt *attempt)
{
    const struct row_worker *home = home_of(sim, attempt->attempt_id, attempt->node);
    if (home && strcmp(home->name, worker->name) == 0)
        sim_violation(sim, "invariant 5: w%u obeys a fence of attempt %llu, which lives there",
                      worker->index, (ull)attempt->attempt_id);
}

/* ---- memory and rows --------------------------------------------------------------------- */

/* The first line that differs. */
static const char *difference(struct sim *sim, const char *a, const char *b)
{
    const char *line_a = a, *line_b = b;
    for (; *a && *a == *b; a++, b++)
        if (*a == '\n') {
            line_a = a + 1;
            line_b = b + 1;
        }
    return arena_printf(&sim->arena, "memory has\n%.*s\nrows have\n%.*s",
                        (int)strcspn(line_a, "\n"), line_a, (int)strcspn(line_b, "\n"), line_b);
}

void judge_rebuilt(struct sim *sim, struct sim_coordinator *coordinator)
{
    struct buf memory = {0}, rows = {0};
    uint64_t wake;
    struct core *rebuilt = memory_db_load(sim->database.rows, &coordinator->config,
                                          clock_ms(sim, &coordinator->clock),
                                          clock_us(sim, &coordinator->clock), &wake);
    core_dump(coordinator->core, &memory);
    core_dump(rebuilt, &rows);
    sim->result->rebuilds++;
    if (strcmp(buf_text(&memory), buf_text(&rows)) != 0)
        sim_violation(sim, "invariant 6: %s", difference(sim, buf_text(&memory), buf_text(&rows)));
    const char *broken = core_check(rebuilt, true, &sim->arena);
    if (broken)
        sim_violation(sim, "rebuilt: %s", broken);
    core_free(rebuilt);
    buf_done(&memory);
    buf_done(&rows);
}

/* ---- the end ----------------------------------------------------------------------------- */

/* NULL, or what has not come to rest. */
static const char *unrest(struct sim *sim)
{
    uint32_t leading = 0;
    for (uint32_t i = 0; i < sim->swarm.coordinators; i++)
        leading += sim->coordinators[i].role == SIM_LEADING;
    ROWS(sim, job, job)
    {
        if (!job->ended_at)
            return arena_printf(&sim->arena, "job %llu is %s", (ull)job->job_id, job->state);
    }
    for (size_t i = 0; i < sim->submit_count; i++)
        if (!sim->submits[i].answered)
            return arena_printf(&sim->arena, "submit %zu has no answer", i);
    for (uint32_t i = 0; i < sim->swarm.workers; i++)
        if (!worker_is_clean(&sim->workers[i]))
            return arena_printf(&sim->arena, "w%u has not joined, or keeps attempts", i);
    for (uint32_t i = 0; i < sim->swarm.workers; i++)
        if (!sim->workers[i].for_ever && !copies_agree(sim, &sim->workers[i]))
            return arena_printf(&sim->arena, "the rows of copies are not what w%u keeps", i);
    if (leading != 1)
        return arena_printf(&sim->arena, "%u coordinators lead", leading);
    if (!coordinator_true(sim) || !coordinator_is_quiet(coordinator_true(sim)))
        return "the leader does not come to rest";
    return NULL;
}

bool judge_all_ended(struct sim *sim)
{
    return !unrest(sim);
}

/* ---- sweeps ------------------------------------------------------------------------------ */

/* What the rule of asynchronous halving says of the value, from the rows that came before. */
static bool rung_keeps(const struct sim *sim, const struct row_sweep *sweep,
                       const struct row_trial_rung *judged)
{
    uint64_t seen = 1, ahead = 0;
    bool is_max = strcmp(sweep->mode, "max") == 0;
    ROWS(sim, trial_rung, row)
    {
        if (row == judged)
            break;
        if (row->sweep_id != judged->sweep_id || row->rung != judged->rung)
            continue;
        seen++;
        bool better = is_max ? row->value > judged->value : row->value < judged->value;
        ahead += better || (row->value == judged->value && row->trial < judged->trial);
    }
    uint64_t keep = max_u64(seen / sweep->reduction, 1);
    return ahead < keep;
}

/* Who was stopped at a rung is judged at no other, unless a person brought the trial back. */
static bool rung_is_open(const struct sim *sim, const struct row_trial_rung *judged)
{
    ROWS(sim, job_event, event)
    {
        if (event->job_id == judged->sweep_id + judged->trial &&
            strcmp(event->name, "reopened") == 0)
            return true;
    }
    struct row_trial_rung before = *judged;
    before.rung--;
    const struct row_trial_rung *row =
        judged->rung ? memory_db_find(sim->database.rows, ROW_TABLE_trial_rung, &before) : NULL;
    return judged->rung == 0 || (row && row->kept);
}

/* A sweep ends with its last trial, and whatever leaders it had, its trials were judged as one
 * leader would have. A person's retry may bring a trial back after that. */
static void sweeps_check(struct sim *sim)
{
    ROWS(sim, trial_rung, rung)
    {
        struct row_sweep key = {.sweep_id = rung->sweep_id};
        const struct row_sweep *sweep = memory_db_find(sim->database.rows, ROW_TABLE_sweep, &key);
        if (!sweep || rung->kept != rung_keeps(sim, sweep, rung))
            sim_violation(sim, "sweep %llu: trial %llu at rung %llu is wrongly %s",
                          (ull)rung->sweep_id, (ull)rung->trial, (ull)rung->rung,
                          rung->kept ? "kept" : "stopped");
        if (!rung_is_open(sim, rung))
            sim_violation(sim, "sweep %llu: trial %llu was stopped and is judged at rung %llu",
                          (ull)rung->sweep_id, (ull)rung->trial, (ull)rung->rung);
    }
}

static void sweep_ends_check(struct sim *sim)
{
    ROWS(sim, sweep, sweep)
    {
        if (!sweep->ended_at)
            sim_violation(sim, "sweep %llu has not ended, all its trials have",
                          (ull)sweep->sweep_id);
    }
}

/* Invariant 7: the files of what the rows offer are there. */
static void files_check(struct sim *sim)
{
    ROWS(sim, checkpoint, row)
    {
        if (!row->removed_at && !sim_file(sim, row->path)->there)
            sim_violation(sim, "invariant 7: %s is registered and deleted", row->path);
    }
}

void judge_end(struct sim *sim)
{
    const char *left = unrest(sim);
    if (left)
        sim_violation(sim, "liveness: %s long after all faults ended", left);
    files_check(sim);
    sweeps_check(sim);
    sweep_ends_check(sim);
    ROWS(sim, job, job)
    {
        if (!sim->violated)
            end_check(sim, job);
    }
    if (!sim->violated)
        judge_rebuilt(sim, coordinator_true(sim));
}
