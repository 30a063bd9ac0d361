/* sweep.c - searches: trials of one job with different values, the bad ones stopped early.
 *
 * A trial is a job; its sweep knows it by number: job = first job + trial. What a sweep decides on
 * is in its rows (trial, trial_rung) and in the report at hand, so a new leader goes on where the
 * old one stopped. A sweep lives while one of its trials does.
 *
 * asha: asynchronous successive halving (Li et al. 2020, "A System for Massively Parallel
 * Hyperparameter Tuning"), in the form that stops instead of pausing: rungs lie at min, min x
 * reduction, ... below max of the resource. When a trial reports the metric at or past its next
 * rung, the value counts at that rung; the trial goes on if it is among the best 1/reduction of
 * what that rung has seen so far (at least one), and is stopped otherwise. No trial waits for
 * another, and nothing needs a checkpoint. The price is that the first trials at a rung are
 * compared with few others. Values are compared, never computed with: the same reports give the
 * same decisions on every machine. */
#include "coordinator/core/state.h"

#include "common/base/buf.h"

#include <stdlib.h>
#include <string.h>

struct sweep *sweep_find(const struct core *core, uint64_t sweep_id)
{
    struct sweep *sweep = NULL;
    HASH_FIND(hh, core->sweeps, &sweep_id, sizeof sweep_id, sweep);
    return sweep;
}

struct sweep *sweep_find_name(const struct core *core, const struct experiment *experiment,
                              const char *name)
{
    struct sweep *best = NULL, *sweep, *next;
    bool best_here = false;
    HASH_ITER(hh, core->sweeps, sweep, next)
    {
        bool here = experiment && sweep->experiment_id == experiment->experiment_id;
        if (sweep->live_count == 0 || strcmp(sweep->name, name) != 0 || (best_here && !here))
            continue;
        if (!best || (here && !best_here) || sweep->sweep_id > best->sweep_id) {
            best = sweep;
            best_here = here;
        }
    }
    return best;
}

/* NULL when the job is no trial, or its sweep has ended before a person asked for a retry. */
static struct sweep *sweep_of(const struct core *core, const struct job *job)
{
    return job->trial_count > 0 ? sweep_find(core, job->group_id) : NULL;
}

static void sweep_mark(struct core *core, struct sweep *sweep)
{
    if (sweep->dirty)
        return;
    sweep->dirty = true;
    list_add(&core->dirty_sweeps, sweep);
}

static void trial_mark(struct core *core, struct sweep *sweep, struct trial *trial)
{
    trial->dirty = true;
    sweep_mark(core, sweep);
}

/* ---- making and freeing ------------------------------------------------------------------ */

static size_t rungs_below(uint64_t low, uint64_t high, uint64_t factor)
{
    size_t count = 0;
    for (uint64_t at = low; at < high; at *= factor) {
        count++;
        if (at > UINT64_MAX / factor)
            break;
    }
    return count;
}

static struct sweep *sweep_add(struct core *core, const struct row_sweep *row)
{
    struct sweep *sweep = mem_zalloc(sizeof *sweep);
    sweep->sweep_id = row->sweep_id;
    sweep->experiment_id = row->experiment_id;
    sweep->name = mem_strdup(row->name);
    sweep->metric = mem_strdup(row->metric ? row->metric : "");
    sweep->resource = mem_strdup(row->resource ? row->resource : "step");
    sweep->is_max = strcmp(row->mode, "max") == 0;
    sweep->is_asha = strcmp(row->method, "asha") == 0;
    sweep->min_resource = row->min_resource;
    sweep->reduction = row->reduction;
    sweep->created_at = row->created_at;
    sweep->trial_count = row->trial_count;
    sweep->trials = mem_array(row->trial_count, sizeof *sweep->trials);
    if (sweep->is_asha)
        sweep->rung_count = rungs_below(row->min_resource, row->max_resource, row->reduction);
    sweep->rungs = mem_array(sweep->rung_count, sizeof *sweep->rungs);
    HASH_ADD(hh, core->sweeps, sweep_id, sizeof sweep->sweep_id, sweep);
    return sweep;
}

static void sweep_free(struct sweep *sweep)
{
    for (size_t i = 0; i < sweep->rung_count; i++)
        mem_free(sweep->rungs[i].items);
    mem_free(sweep->rungs);
    mem_free(sweep->trials);
    mem_free(sweep->name);
    mem_free(sweep->metric);
    mem_free(sweep->resource);
    mem_free(sweep);
}

void sweeps_done(struct core *core)
{
    struct sweep *sweep, *next;
    HASH_ITER(hh, core->sweeps, sweep, next)
    {
        HASH_DEL(core->sweeps, sweep);
        sweep_free(sweep);
    }
}

static struct row_trial trial_row(const struct sweep *sweep, size_t index)
{
    const struct trial *trial = &sweep->trials[index];
    return (struct row_trial){
        .sweep_id = sweep->sweep_id,
        .trial = index,
        .job_id = sweep->sweep_id + index,
        .rung = trial->rung,
        .resource = trial->resource,
        .reports = trial->reports,
        .best_value = trial->best,
        .best_step = trial->best_step,
    };
}

void sweep_make(struct core *core, const struct spec_sweep *spec, uint64_t first_job_id,
                const struct experiment *experiment, const char *account)
{
    struct row_sweep row = {
        .sweep_id = first_job_id,
        .experiment_id = experiment->experiment_id,
        .name = spec->name,
        .account = account,
        .method = spec_sweep_method_name(spec->method),
        .metric = *spec->metric ? spec->metric : NULL,
        .mode = spec->mode == SPEC_BEST_MAX ? "max" : "min",
        .resource = spec->resource,
        .min_resource = spec->min_resource,
        .max_resource = spec->max_resource,
        .reduction = spec->reduction,
        .at_once = spec->at_once,
        .seed = spec->seed,
        .trial_count = spec->trial_count,
        .space = spec->space,
        .created_at = core->wall_us,
    };
    struct sweep *sweep = sweep_add(core, &row);
    sweep->live_count = sweep->trial_count;
    effects_persist(core->effects, ROW_TABLE_sweep, PERSIST_INSERT, &row);
    for (size_t i = 0; i < sweep->trial_count; i++) {
        struct row_trial trial = trial_row(sweep, i);
        trial.params = spec->params[i];
        effects_persist(core->effects, ROW_TABLE_trial, PERSIST_INSERT, &trial);
    }
}

/* ---- comparing --------------------------------------------------------------------------- */

static bool is_number(double value)
{
    return value == value; /* false for NaN only */
}

/* A NaN has a sign that a database does not keep. */
static const char *value_text(struct arena *arena, double value, int digits)
{
    return is_number(value) ? arena_printf(arena, "%.*g", digits, value) : "nan";
}

static bool is_better(const struct sweep *sweep, double a, double b)
{
    if (!is_number(a) || !is_number(b))
        return is_number(a) && !is_number(b);
    return sweep->is_max ? a > b : a < b;
}

/* How many of the rung are better; of equal ones the trial with the lower number is. */
static size_t ahead_of(const struct sweep *sweep, const struct rung *rung, size_t trial,
                       double value)
{
    size_t ahead = 0;
    for (size_t i = 0; i < rung->count; i++) {
        const struct rung_value *other = &rung->items[i];
        ahead += is_better(sweep, other->value, value) ||
                 (!is_better(sweep, value, other->value) && other->trial < trial);
    }
    return ahead;
}

static void rung_put(struct rung *rung, size_t trial, double value)
{
    VEC_RESERVE(rung->items, rung->count, rung->capacity);
    rung->items[rung->count++] = (struct rung_value){.trial = trial, .value = value};
}

/* ---- judging ----------------------------------------------------------------------------- */

static uint64_t rung_at(const struct sweep *sweep, size_t rung)
{
    uint64_t at = sweep->min_resource;
    for (size_t i = 0; i < rung; i++)
        at *= sweep->reduction;
    return at;
}

/* The trial makes room. Its attempt ends as one that was asked to stop, the job as CANCELLED with
 * cause `pruned`: that is no failure of anything. */
static void trial_prune(struct core *core, struct job *job, const char *detail)
{
    if (!job->attempt)
        return;
    text_set(&job->detail, detail);
    history_add(core, "pruned", job->job_id, job->attempt->attempt_id, 0, NULL, detail);
    job_move(core, job, JOB_ON_CANCEL);
    if (job->attempt->state == ATTEMPT_STOPPING) { /* for another reason: the rung's counts */
        job->attempt->stop_cause = CAUSE_PRUNED;
        attempt_mark(core, job->attempt);
    }
    attempt_stop(core, job->attempt, CAUSE_PRUNED);
}

/* One rung. True when the trial goes on. */
static bool rung_judge(struct core *core, struct sweep *sweep, size_t index, double value,
                       const char **out_detail)
{
    struct trial *trial = &sweep->trials[index];
    struct rung *rung = &sweep->rungs[trial->rung];
    size_t ahead = ahead_of(sweep, rung, index, value);
    rung_put(rung, index, value);
    size_t keep = max_u64(rung->count / sweep->reduction, 1);
    bool kept = is_number(value) && ahead < keep;
    struct row_trial_rung row = {
        .sweep_id = sweep->sweep_id,
        .rung = trial->rung,
        .trial = index,
        .value = value,
        .resource = trial->resource,
        .kept = kept,
        .at = core->wall_us,
    };
    effects_persist(core->effects, ROW_TABLE_trial_rung, PERSIST_INSERT, &row);
    *out_detail = arena_printf(
        step_arena(core), "rung %u (%s %llu): %s %s is in place %zu of %zu, and %zu may go on",
        trial->rung, sweep->resource, (unsigned long long)rung_at(sweep, trial->rung),
        sweep->metric, value_text(step_arena(core), value, 6), ahead + 1, rung->count, keep);
    trial->rung++;
    return kept;
}

static void trial_judge(struct core *core, struct sweep *sweep, struct job *job, double value)
{
    size_t index = job->job_id - sweep->sweep_id;
    struct trial *trial = &sweep->trials[index];
    const char *detail = NULL;
    bool goes_on = true;
    /* Reports that were on their way when it was stopped are metrics like any others, but a trial
     * that may not go on takes nobody's place at the rungs behind. */
    if (job->state == JOB_STOPPING)
        return;
    while (goes_on && trial->rung < sweep->rung_count &&
           trial->resource >= rung_at(sweep, trial->rung))
        goes_on = rung_judge(core, sweep, index, value, &detail);
    if (!goes_on)
        trial_prune(core, job, detail);
}

/* A metric of a running trial. Repeats after a retry find their rungs judged already. */
void sweep_on_metric(struct core *core, struct job *job, const char *name, uint64_t step,
                     double value)
{
    struct sweep *sweep = sweep_of(core, job);
    if (!sweep || !*sweep->metric)
        return;
    struct trial *trial = &sweep->trials[job->job_id - sweep->sweep_id];
    bool by_step = strcmp(sweep->resource, "step") == 0;
    if (!by_step && strcmp(name, sweep->resource) == 0 && value >= 0 &&
        value <= (double)SPEC_RESOURCE_MAX) {
        trial->resource = max_u64(trial->resource, (uint64_t)value);
        trial_mark(core, sweep, trial);
    }
    if (strcmp(name, sweep->metric) != 0)
        return;
    if (by_step)
        trial->resource = max_u64(trial->resource, min_u64(step, SPEC_RESOURCE_MAX));
    if (trial->reports++ == 0 || is_better(sweep, value, trial->best)) {
        trial->best = value;
        trial->best_step = step;
    }
    trial_mark(core, sweep, trial);
    if (sweep->is_asha)
        trial_judge(core, sweep, job, value);
}

/* ---- lives of the trials ----------------------------------------------------------------- */

void sweep_trial_ended(struct core *core, const struct job *job)
{
    struct sweep *sweep = sweep_of(core, job);
    if (!sweep)
        return;
    CHECK(sweep->live_count > 0);
    if (--sweep->live_count > 0)
        return;
    sweep->ended_at = core->wall_us;
    sweep_mark(core, sweep);
}

/* It may become the best after all: who reads the best trial waits for this one again. */
void sweep_trial_reopened(struct core *core, struct job *job)
{
    struct sweep *sweep = sweep_of(core, job);
    if (!sweep)
        return;
    sweep->live_count++;
    for (struct edge *edge = job->children; edge; edge = edge->next) {
        const struct input *open = edge->reads ? input_open(edge->child) : NULL;
        if (!open || edge->state != EDGE_MET || !inputs_read(edge->child, job->job_id))
            continue;
        edge->state = EDGE_WAITING;
        edge->dirty = true;
        edge->child->edges_waiting++;
        job_mark(core, edge->child);
    }
}

/* ---- the best trial as an input ---------------------------------------------------------- */

/* Of equal ones the trial with the lower number is: athanor.trials orders by that, too. */
const struct trial *sweep_best(const struct sweep *sweep)
{
    const struct trial *best = NULL;
    for (size_t i = 0; i < sweep->trial_count; i++) {
        const struct trial *trial = &sweep->trials[i];
        if (trial->reports && is_number(trial->best) &&
            (!best || is_better(sweep, trial->best, best->best)))
            best = trial;
    }
    return best;
}

/* Why the best trial is no source for the input; NULL: it is. */
static const char *choice_fault(struct core *core, const struct sweep *sweep,
                                const struct trial *best, const struct input *input)
{
    struct arena *arena = step_arena(core);
    if (!best)
        return arena_printf(arena,
                            "input '%s' (%s): none of the %zu trials of sweep '%s' reported %s",
                            input->name, input->ref.text, sweep->trial_count, sweep->name,
                            sweep->metric);
    uint64_t job_id = sweep->sweep_id + (size_t)(best - sweep->trials);
    const struct job *job = job_find(core, job_id);
    CHECK(job != NULL); /* the child's edge keeps it */
    if (input_checkpoint(job, &input->ref))
        return NULL;
    return arena_printf(arena,
                        "input '%s' (%s): job %llu (%s), the best trial of sweep '%s' with %s %s, "
                        "ended %s without a checkpoint",
                        input->name, input->ref.text, (unsigned long long)job_id, job->name,
                        sweep->name, sweep->metric, value_text(arena, best->best, 6),
                        job_state_name(job->state));
}

/* A trial that failed makes the child FAILED, as any parent does. */
static void choice_break(struct core *core, const struct sweep *sweep, struct job *child,
                         const char *fault)
{
    bool failed = false;
    for (size_t i = 0; i < sweep->trial_count && !failed; i++) {
        const struct job *trial = job_find(core, sweep->sweep_id + i);
        failed = trial && trial->state == JOB_FAILED;
    }
    job_end(core, child, failed ? JOB_ON_PARENT_BROKEN : JOB_ON_PARENT_SKIPPED, CAUSE_DEPENDENCY,
            fault);
}

/* The chosen one stays; nobody reads the others for this child any more. */
static void choice_apply(struct core *core, struct job *child)
{
    bool *had = arena_alloc(step_arena(core), (child->edge_count + 1) * sizeof *had);
    for (size_t i = 0; i < child->edge_count; i++)
        had[i] = child->edges[i].reads;
    inputs_decide(child);
    for (size_t i = 0; i < child->edge_count; i++) {
        struct edge *edge = &child->edges[i];
        if (!had[i] || edge->reads || !edge->parent)
            continue;
        edge->reads = true; /* as it was linked */
        if (edge->state == EDGE_WAITING)
            edge->parent->readers--;
        else
            edge_unlink(core, edge);
        edge->reads = false;
    }
}

bool sweep_choose(struct core *core, struct job *child, const struct job *parent)
{
    const struct sweep *sweep = sweep_of(core, parent);
    const struct input *open = NULL;
    if (!sweep || sweep->live_count > 0)
        return true;
    const struct trial *best = sweep_best(sweep);
    for (size_t i = 0; i < child->input_count; i++) {
        const struct input *input = &child->inputs[i];
        if (input->trial_count == 0 || input->source_job_id != sweep->sweep_id)
            continue;
        const char *fault = choice_fault(core, sweep, best, input);
        open = input;
        if (!fault)
            continue;
        choice_break(core, sweep, child, fault);
        return false;
    }
    if (!open)
        return true;
    uint64_t job_id = sweep->sweep_id + (size_t)(best - sweep->trials);
    for (size_t i = 0; i < child->edge_count; i++)
        if (child->edges[i].parent_id == job_id)
            child->edges[i].chosen = child->edges[i].dirty = true;
    history_add(core, "chosen", child->job_id, 0, 0, NULL,
                arena_printf(step_arena(core),
                             "%s: job %llu is the best trial of sweep '%s', with %s %s at step "
                             "%llu",
                             open->ref.text, (unsigned long long)job_id, sweep->name,
                             sweep->metric, value_text(step_arena(core), best->best, 6),
                             (unsigned long long)best->best_step));
    choice_apply(core, child);
    return true;
}

static void sweep_write(struct core *core, struct sweep *sweep)
{
    for (size_t i = 0; i < sweep->trial_count; i++) {
        if (!sweep->trials[i].dirty)
            continue;
        struct row_trial row = trial_row(sweep, i);
        effects_persist(core->effects, ROW_TABLE_trial, PERSIST_UPDATE, &row);
        sweep->trials[i].dirty = false;
    }
    sweep->dirty = false;
    if (!sweep->ended_at)
        return;
    struct row_sweep row = {.sweep_id = sweep->sweep_id, .ended_at = sweep->ended_at};
    effects_persist(core->effects, ROW_TABLE_sweep, PERSIST_UPDATE, &row);
    HASH_DEL(core->sweeps, sweep);
    sweep_free(sweep);
}

void sweeps_flush(struct core *core)
{
    for (size_t i = 0; i < core->dirty_sweeps.count; i++)
        sweep_write(core, core->dirty_sweeps.items[i]);
    core->dirty_sweeps.count = 0;
}

/* ---- from rows --------------------------------------------------------------------------- */

void core_load_sweep(struct core *core, const struct row_sweep *row)
{
    if (row->ended_at == 0)
        sweep_add(core, row);
}

void core_load_trial(struct core *core, const struct row_trial *row)
{
    struct sweep *sweep = sweep_find(core, row->sweep_id);
    if (!sweep)
        return;
    CHECK(row->trial < sweep->trial_count);
    const struct job *job = job_find(core, row->job_id);
    sweep->trials[row->trial] = (struct trial){
        .rung = (uint32_t)row->rung,
        .resource = row->resource,
        .reports = row->reports,
        .best = row->best_value,
        .best_step = row->best_step,
    };
    sweep->live_count += job && !job_state_is_terminal(job->state);
}

void core_load_trial_rung(struct core *core, const struct row_trial_rung *row)
{
    struct sweep *sweep = sweep_find(core, row->sweep_id);
    if (!sweep)
        return;
    CHECK(row->rung < sweep->rung_count);
    rung_put(&sweep->rungs[row->rung], row->trial, row->value);
}

/* ---- to text ----------------------------------------------------------------------------- */

typedef unsigned long long ull; /* only for printf */

static int value_compare(const void *left, const void *right)
{
    const struct rung_value *a = left, *b = right;
    return (a->trial > b->trial) - (a->trial < b->trial);
}

static void sweep_dump(const struct sweep *sweep, struct buf *out)
{
    struct arena arena = {0};
    buf_printf(out, "sweep %llu %s experiment=%llu live=%llu/%llu rungs=%zu by %s\n",
               (ull)sweep->sweep_id, sweep->name, (ull)sweep->experiment_id,
               (ull)sweep->live_count, (ull)sweep->trial_count, sweep->rung_count, sweep->metric);
    for (size_t i = 0; i < sweep->trial_count; i++) {
        const struct trial *trial = &sweep->trials[i];
        if (trial->reports || trial->resource)
            buf_printf(out, "  trial %zu rung=%u resource=%llu reports=%llu best=%s@%llu\n", i,
                       trial->rung, (ull)trial->resource, (ull)trial->reports,
                       value_text(&arena, trial->best, 17), (ull)trial->best_step);
    }
    for (size_t i = 0; i < sweep->rung_count; i++) {
        const struct rung *rung = &sweep->rungs[i];
        if (rung->count == 0)
            continue;
        struct rung_value *sorted = mem_array(rung->count, sizeof *sorted);
        memcpy(sorted, rung->items, rung->count * sizeof *sorted);
        qsort(sorted, rung->count, sizeof *sorted, value_compare);
        buf_printf(out, "  rung %zu:", i);
        for (size_t k = 0; k < rung->count; k++)
            buf_printf(out, " %zu=%s", sorted[k].trial, value_text(&arena, sorted[k].value, 17));
        buf_putc(out, '\n');
        mem_free(sorted);
    }
    arena_done(&arena);
}

static int sweep_compare(const void *left, const void *right)
{
    const struct sweep *const *a = left, *const *b = right;
    return ((*a)->sweep_id > (*b)->sweep_id) - ((*a)->sweep_id < (*b)->sweep_id);
}

void sweeps_dump(const struct core *core, struct buf *out)
{
    size_t count = HASH_COUNT(core->sweeps), at = 0;
    struct sweep **sorted = mem_array(count, sizeof *sorted);
    struct sweep *sweep, *next;
    HASH_ITER(hh, core->sweeps, sweep, next)
    {
        sorted[at++] = sweep;
    }
    qsort(sorted, count, sizeof *sorted, sweep_compare);
    for (size_t i = 0; i < count; i++)
        sweep_dump(sorted[i], out);
    mem_free(sorted);
}

const char *sweeps_check(const struct core *core, struct arena *arena)
{
    const struct sweep *sweep, *next;
    HASH_ITER(hh, core->sweeps, sweep, next)
    {
        uint64_t live = 0;
        for (size_t i = 0; i < sweep->trial_count; i++) {
            const struct job *job = job_find(core, sweep->sweep_id + i);
            live += job && !job_state_is_terminal(job->state);
        }
        if (live != sweep->live_count || live == 0)
            return arena_printf(arena, "sweep %llu counts %llu of %llu living trials",
                                (ull)sweep->sweep_id, (ull)sweep->live_count, (ull)live);
    }
    return NULL;
}
