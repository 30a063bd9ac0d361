/* submit_plan.c - which job each need and input means. Nothing changes here. */
#include "coordinator/core/submit.h"

#include <stdlib.h>
#include <string.h>

static void size_check(struct submit_pass *pass, const struct spec_job *spec)
{
    const struct spec_resources *want = &spec->resources;
    if (want->ranks < 1 || (uint64_t)want->ranks * want->cores > WORKER_CORES_MAX ||
        want->memory_bytes > WORKER_MEMORY_MAX / want->ranks)
        submit_refuse(
            pass, submit_nowhere, arena_printf(pass->arena, "jobs.%s.resources", spec->name),
            arena_printf(pass->arena,
                         "ranks x cores is %u x %u and memory %llu bytes a rank; one worker "
                         "holds at most %u cores and 1 PiB",
                         want->ranks, want->cores, (unsigned long long)want->memory_bytes,
                         WORKER_CORES_MAX));
}

/* ---- finding what names mean ------------------------------------------------------------- */

/* By id; by name the newest of this experiment, else the newest of any that was looked up. */
static struct job *job_meant(const struct submit_pass *pass, const char *name)
{
    struct core *core = pass->core;
    const struct event_found *found = &pass->event->found;
    if (spec_name_is_id(name)) {
        uint64_t job_id = 0;
        for (const char *c = name; *c; c++)
            job_id = job_id > UINT64_MAX / 16 ? UINT64_MAX : job_id * 10 + (uint64_t)(*c - '0');
        return job_find(core, job_id);
    }
    struct job *job =
        pass->experiment ? job_find_name(core, pass->experiment->experiment_id, name) : NULL;
    bool here = job != NULL;
    for (size_t i = 0; i < found->job_count && !here; i++) { /* also twins, which are older */
        struct job *other =
            strcmp(found->jobs[i].name, name) == 0 ? job_find(core, found->jobs[i].job_id) : NULL;
        if (other && (!job || other->job_id > job->job_id))
            job = other;
    }
    return job;
}

static bool promises_dataset(const struct job *job, const char *name)
{
    for (size_t i = 0; i < job->output_count; i++)
        if (strcmp(job->outputs[i], name) == 0)
            return !job_state_is_terminal(job->state);
    return false;
}

/* How good a source a job is for a dataset; 0: none. Made here, promised here, made elsewhere,
 * promised elsewhere; the newest of each. */
static int dataset_rank(const struct submit_pass *pass, const struct job *job, const char *name)
{
    bool here = job->experiment == pass->experiment;
    if (artifact_dataset(job, name))
        return here ? 4 : 2;
    if (promises_dataset(job, name))
        return here ? 3 : 1;
    return 0;
}

static struct job *dataset_search(const struct submit_pass *pass, const char *name)
{
    struct job *best = NULL;
    int best_rank = 0;
    for (struct job *job = pass->core->makers; job; job = job->maker_next) {
        int rank = dataset_rank(pass, job, name);
        if (rank > best_rank || (rank && rank == best_rank && job->job_id > best->job_id)) {
            best = job;
            best_rank = rank;
        }
    }
    return best;
}

/* The jobs of an array or sweep ask for the same one after the other. */
static struct job *dataset_meant(struct submit_pass *pass, const char *name)
{
    if (!pass->dataset || strcmp(pass->dataset, name) != 0) {
        pass->dataset = name;
        pass->dataset_job = dataset_search(pass, name);
    }
    return pass->dataset_job;
}

/* What the name of a job outside the spec turns out to be. */
struct meant {
    struct job *job;           /* a job, also the best trial of a sweep that has ended */
    const struct sweep *sweep; /* one that lives, whose best trial is to be found */
    const struct row_trial *best; /* `job` is it; reports 0: no trial has a value */
};

/* "NAME-tN" is trial N of the sweep NAME. */
static bool is_trial_of(const struct submit_pass *pass, const struct job *job, uint64_t trial,
                        const char *name)
{
    return strcmp(job->name, arena_printf(pass->arena, "%s-t%llu", name,
                                          (unsigned long long)trial)) == 0;
}

static bool is_newer(bool here, uint64_t id, bool than_here, uint64_t than_id)
{
    return here != than_here ? here : id > than_id;
}

/* The newest job or sweep of that name, in this experiment or else in any. Numbers are of jobs. */
static struct meant source_meant(const struct submit_pass *pass, const char *name)
{
    const struct event_found *found = &pass->event->found;
    struct meant meant = {.job = job_meant(pass, name)};
    bool here = meant.job && meant.job->experiment == pass->experiment;
    uint64_t id = meant.job ? meant.job->job_id : 0;
    struct sweep *living =
        spec_name_is_id(name) ? NULL : sweep_find_name(pass->core, pass->experiment, name);
    bool living_here = living && pass->experiment &&
                       living->experiment_id == pass->experiment->experiment_id;
    for (size_t i = 0; i < found->trial_count; i++) {
        const struct row_trial *row = &found->trials[i];
        struct job *job = job_find(pass->core, row->job_id);
        if (!job || !is_trial_of(pass, job, row->trial, name) ||
            !is_newer(job->experiment == pass->experiment, row->sweep_id, here, id))
            continue;
        here = job->experiment == pass->experiment;
        id = row->sweep_id;
        meant = (struct meant){.job = job, .best = row};
    }
    if (living && is_newer(living_here, living->sweep_id, here, id))
        meant = (struct meant){.sweep = living};
    return meant;
}

/* ---- edges ------------------------------------------------------------------------------- */

static void edge_plan(struct submit_pass *pass, struct planned_job *planned,
                      struct planned_edge edge)
{
    if (planned->edge_count == planned->edge_capacity) {
        planned->edge_capacity = max_u64(4, 2 * planned->edge_capacity);
        struct planned_edge *grown =
            arena_alloc(pass->arena, planned->edge_capacity * sizeof *grown);
        if (planned->edge_count)
            memcpy(grown, planned->edges, planned->edge_count * sizeof *grown);
        planned->edges = grown;
    }
    planned->edges[planned->edge_count++] = edge;
}

struct edge_order {
    uint64_t parent_id;
    size_t at;
};

static int edge_order_compare(const void *left, const void *right)
{
    const struct edge_order *a = left, *b = right;
    if (a->parent_id != b->parent_id)
        return a->parent_id < b->parent_id ? -1 : 1;
    return (a->at > b->at) - (a->at < b->at);
}

/* What was written counts before what an input implies; of several the first. */
static void edge_merge(struct planned_edge *known, const struct planned_edge *edge)
{
    known->reads |= edge->reads;
    if (known->implied && !edge->implied) {
        known->condition = edge->condition;
        known->artifact = edge->artifact;
        known->implied = false;
    }
}

/* One edge a parent, where the first of them stood. By sorting: 100,000 needs of one job are not
 * compared with each other. */
static void edges_merge(struct submit_pass *pass, struct planned_job *planned)
{
    size_t count = planned->edge_count, kept = 0;
    struct edge_order *order = arena_alloc(pass->arena, (count + 1) * sizeof *order);
    bool *gone = arena_alloc(pass->arena, (count + 1) * sizeof *gone);
    for (size_t i = 0; i < count; i++)
        order[i] = (struct edge_order){planned->edges[i].parent_id, i};
    qsort(order, count, sizeof *order, edge_order_compare);
    for (size_t i = 1, first = 0; i < count; i++) {
        if (order[i].parent_id != order[first].parent_id) {
            first = i;
            continue;
        }
        edge_merge(&planned->edges[order[first].at], &planned->edges[order[i].at]);
        gone[order[i].at] = true;
    }
    for (size_t i = 0; i < count; i++)
        if (!gone[i])
            planned->edges[kept++] = planned->edges[i];
    planned->edge_count = kept;
}

static void not_found_refuse(struct submit_pass *pass, const struct spec_job *spec,
                             const char *what, const char *name, struct spec_mark mark,
                             bool dataset)
{
    submit_refuse(
        pass, mark, arena_printf(pass->arena, "jobs.%s.%s", spec->name, what),
        dataset ? arena_printf(pass->arena,
                               "no job has made a dataset called '%s' and none will: name one "
                               "that exists, or add the job that makes it",
                               name)
                : arena_printf(pass->arena,
                               "no job '%s' in experiment '%s' or elsewhere: expected the "
                               "name or id of a submitted job",
                               name, pass->event->spec->experiment));
}

/* A job that took another's results has nothing of its own. */
static struct job *with_results(const struct submit_pass *pass, struct job *job)
{
    return job && job->reused_job_id ? job_find(pass->core, job->reused_job_id) : job;
}

/* An ended parent must have ended well, or, where only its output is read, have that output. */
static void ended_parent_check(struct submit_pass *pass, const struct spec_job *spec,
                               struct planned_edge *edge, struct spec_mark mark)
{
    struct job *parent = edge->parent;
    if (!parent || !job_state_is_terminal(parent->state))
        return;
    if (edge->implied) {
        edge->condition = SPEC_ON_ANY;
        return;
    }
    if (!condition_met(edge->condition, edge->artifact, parent))
        submit_refuse(pass, mark, arena_printf(pass->arena, "jobs.%s.needs", spec->name),
                      arena_printf(pass->arena,
                                   "needs %s of job %llu (%s), which has ended %s: this job could "
                                   "never start",
                                   condition_wanted(pass->arena, edge->condition, edge->artifact),
                                   (unsigned long long)parent->job_id, parent->name,
                                   job_state_name(parent->state)));
}

static void need_plan(struct submit_pass *pass, struct planned_job *planned, struct spec_need *need)
{
    struct planned_edge edge = {.condition = need->on,
                                .artifact = need->artifact,
                                .implied = need->implied};
    if (need->job_index != SPEC_EXTERNAL) {
        edge.parent_id = pass->first_job_id + need->job_index;
    } else if (need->implied) {
        struct meant meant = source_meant(pass, need->job);
        need->job_id = meant.job ? meant.job->job_id : meant.sweep ? meant.sweep->sweep_id : 0;
        return; /* input_plan makes the edge, or refuses */
    } else {
        edge.parent = with_results(pass, job_meant(pass, need->job));
        if (!edge.parent) {
            not_found_refuse(pass, &planned->spec, "needs", need->job, need->mark, false);
            return;
        }
        edge.parent_id = edge.parent->job_id;
        ended_parent_check(pass, &planned->spec, &edge, need->mark);
    }
    need->job_id = edge.parent_id;
    edge_plan(pass, planned, edge);
}

static void source_output_check(struct submit_pass *pass, const struct spec_job *spec,
                                const struct spec_input *input, const struct job *source)
{
    if (!job_state_is_terminal(source->state))
        return;
    bool there =
        input->ref.kind == SPEC_REF_DATASET     ? artifact_dataset(source, input->ref.name) != NULL
        : input->ref.select == SPEC_SELECT_STEP ? checkpoint_at(source, input->ref.step) != NULL
                                                : source->checkpoint_count > 0;
    if (!there)
        submit_refuse(pass, input->mark,
                      arena_printf(pass->arena, "jobs.%s.inputs.%s", spec->name, input->name),
                      arena_printf(pass->arena,
                                   "%s: job %llu (%s) has ended %s and has nothing of it",
                                   input->ref.text, (unsigned long long)source->job_id,
                                   source->name, job_state_name(source->state)));
}

/* Only what an ended job has made stays what it is. */
static void content_note(struct planned_job *planned, const struct spec_input *input,
                         const struct job *source)
{
    if (!planned->contents)
        return;
    struct reuse_input *content = &planned->contents[input - planned->spec.inputs];
    content->part = input->ref.part ? input->ref.part : "";
    if (source && job_state_is_terminal(source->state))
        (void)input_content(source, &input->ref, &content->content);
}

static void input_refuse(struct submit_pass *pass, const struct spec_job *spec,
                         const struct spec_input *input, const char *text)
{
    submit_refuse(pass, input->mark,
                  arena_printf(pass->arena, "jobs.%s.inputs.%s", spec->name, input->name), text);
}

/* Its numbers are in memory but for those of trials that took other jobs' results. */
static const char *sweep_fault(const struct submit_pass *pass, const struct sweep *sweep)
{
    if (!*sweep->metric)
        return "has no best trial, for it has no metric: name one trial";
    for (size_t i = 0; i < sweep->trial_count; i++) {
        const struct job *trial = job_find(pass->core, sweep->sweep_id + i);
        if (!trial)
            return "is losing a trial just now: submit again";
        if (trial->reused_job_id)
            return "has trials that took the results of others: submit when it has ended";
    }
    return NULL;
}

/* The best trial of a sweep that lives: it waits for all of them. */
static void sweep_input_plan(struct submit_pass *pass, struct planned_job *planned,
                             struct spec_input *input, const struct sweep *sweep)
{
    const char *fault = sweep_fault(pass, sweep);
    if (fault) {
        input_refuse(pass, &planned->spec, input,
                     arena_printf(pass->arena, "%s: sweep '%s' %s", input->ref.text, sweep->name,
                                  fault));
        return;
    }
    pass->edge_total += sweep->trial_count;
    if (pass->edge_total > SPEC_NEEDS_MAX) {
        pass->edge_total = SPEC_NEEDS_MAX;
        input_refuse(pass, &planned->spec, input,
                     arena_printf(pass->arena,
                                  "%s: %zu trials; the jobs of one submit wait for at most %u: "
                                  "submit when the sweep has ended",
                                  input->ref.text, sweep->trial_count, SPEC_NEEDS_MAX));
        return;
    }
    input->job_id = sweep->sweep_id;
    input->trial_count = (uint32_t)sweep->trial_count;
    for (size_t i = 0; i < sweep->trial_count; i++)
        edge_plan(pass, planned,
                  (struct planned_edge){.parent_id = sweep->sweep_id + i,
                                        .parent = job_find(pass->core, sweep->sweep_id + i),
                                        .condition = SPEC_ON_ANY,
                                        .implied = true,
                                        .reads = true});
}

/* An input from a job outside of the spec; edge->parent stays NULL when that is all. */
static void outside_plan(struct submit_pass *pass, struct planned_job *planned,
                         struct spec_input *input, struct planned_edge *edge)
{
    bool dataset = input->ref.kind == SPEC_REF_DATASET;
    struct meant meant = dataset ? (struct meant){.job = dataset_meant(pass, input->ref.name)}
                                 : source_meant(pass, input->ref.name);
    bool any_step = input->ref.select != SPEC_SELECT_STEP;
    if ((meant.sweep || meant.best) && !any_step)
        input_refuse(pass, &planned->spec, input,
                     arena_printf(pass->arena,
                                  "%s: '%s' is a sweep: expected checkpoint:best or "
                                  "checkpoint:last for that of its best trial, or one trial, such "
                                  "as %s-t0",
                                  input->ref.text, input->ref.name, input->ref.name));
    else if (meant.best && meant.best->reports == 0)
        input_refuse(pass, &planned->spec, input,
                     arena_printf(pass->arena,
                                  "%s: sweep '%s' has ended, and none of its trials reported what "
                                  "they are compared by",
                                  input->ref.text, input->ref.name));
    else if (meant.sweep)
        sweep_input_plan(pass, planned, input, meant.sweep);
    else if (!(edge->parent = with_results(pass, meant.job)))
        not_found_refuse(pass, &planned->spec, arena_printf(pass->arena, "inputs.%s", input->name),
                         input->ref.name, input->mark, dataset);
}

static void input_plan(struct submit_pass *pass, struct planned_job *planned,
                       struct spec_input *input)
{
    if (input->ref.kind == SPEC_REF_FILE)
        return;
    struct planned_edge edge = {.condition = SPEC_ON_SUCCESS, .implied = true, .reads = true};
    bool inside = input->job_index != SPEC_EXTERNAL;
    struct job *reused =
        inside && !input->trial_count ? pass->jobs[input->job_index].reused : NULL;
    if (reused) {
        edge.parent = reused;
        edge.parent_id = reused->job_id;
        edge.condition = SPEC_ON_ANY;
        source_output_check(pass, &planned->spec, input, reused);
    } else if (inside) {
        edge.parent_id = pass->first_job_id + input->job_index;
        edge.condition = input->trial_count ? SPEC_ON_ANY : SPEC_ON_SUCCESS;
    } else {
        outside_plan(pass, planned, input, &edge);
        if (!edge.parent)
            return;
        edge.parent_id = edge.parent->job_id;
        ended_parent_check(pass, &planned->spec, &edge, input->mark);
        source_output_check(pass, &planned->spec, input, edge.parent);
    }
    input->job_id = edge.parent_id;
    edge_plan(pass, planned, edge);
    for (uint32_t i = 1; i < input->trial_count; i++) { /* of a sweep in the spec */
        edge.parent_id++;
        edge_plan(pass, planned, edge);
    }
    content_note(planned, input, edge.parent);
}

/* Queue and project exist and take the job. A job without a limit gets the queue's longest. */
static void rights_check(struct submit_pass *pass, struct spec_job *spec)
{
    const char *field;
    const char *fault = rights_fault(pass->core, pass->event->account, spec, pass->arena, &field);
    if (fault) {
        struct spec_mark mark = strcmp(field, "queue") == 0     ? spec->queue_mark
                                : strcmp(field, "project") == 0 ? spec->project_mark
                                                                : spec->wall_time_mark;
        submit_refuse(pass, mark, arena_printf(pass->arena, "jobs.%s.%s", spec->name, field),
                      fault);
        return;
    }
    if (spec->limits.wall_time_ms == 0)
        spec->limits.wall_time_ms = queue_config_find(pass->core, spec->queue)->max_wall_ms;
}

/* Trials that report have to run: asha compares what they report as they go, and the best one is
 * found among what they reported here. */
static bool is_judged(const struct submit_pass *pass, size_t index)
{
    const struct spec *spec = pass->event->spec;
    for (size_t i = 0; i < spec->sweep_count; i++) {
        const struct spec_sweep *sweep = &spec->sweeps[i];
        if (index >= sweep->first_job && index - sweep->first_job < sweep->trial_count)
            return sweep->method == SPEC_SWEEP_ASHA || pass->is_wanted[sweep->first_job];
    }
    return false;
}

/* A job waits as long as it must: what it will run has to be here before. */
static void code_check(struct submit_pass *pass, const struct spec_job *spec)
{
    struct hash content;
    struct err err;
    if (!spec->code.hash || !spec->code.hash[0] || pass->event->check_only)
        return;
    const char *fault = hash_from_hex(spec->code.hash, &content, &err) < 0
                            ? "is no hash"
                            : snapshot_fault(pass->core, &content);
    if (fault)
        submit_refuse(pass, submit_nowhere,
                      arena_printf(pass->arena, "jobs.%s.code.snapshot", spec->name),
                      arena_printf(pass->arena, "the code of '%s' (%.12s) %s: submit again",
                                   spec->code.folder, spec->code.hash, fault));
}

static bool has_secret(const struct event_submit *event, const char *project, const char *name)
{
    size_t low = 0, high = event->secret_count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        int order = strcmp(event->secrets[middle].project, project);
        order = order ? order : strcmp(event->secrets[middle].name, name);
        if (order == 0)
            return true;
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return false;
}

/* The account's own, or those of the job's project: there is no way to name another's. */
static void secrets_check(struct submit_pass *pass, const struct spec_job *spec)
{
    const char *shared = "";
    if (project_find(pass->core, spec->project))
        shared = arena_printf(pass->arena,
                              ", or for project '%s', which has none either, with --project",
                              spec->project);
    for (size_t i = 0; i < spec->secret_count; i++) {
        const struct spec_variable *secret = &spec->secrets[i];
        if (!has_secret(pass->event, "", secret->value) &&
            !has_secret(pass->event, spec->project, secret->value))
            submit_refuse(
                pass, secret->mark,
                arena_printf(pass->arena, "jobs.%s.secrets.%s", spec->name, secret->name),
                arena_printf(pass->arena,
                             "%s has no secret '%s': store it with 'athanor secret set %s'%s",
                             pass->event->account, secret->value, secret->value, shared));
    }
}

static void job_plan(struct submit_pass *pass, size_t index)
{
    const struct spec_job *spec = &pass->event->spec->jobs[index];
    struct planned_job *planned = &pass->jobs[index];
    planned->spec = *spec;
    planned->spec.needs = arena_alloc(pass->arena, spec->need_count * sizeof *spec->needs);
    planned->spec.inputs = arena_alloc(pass->arena, spec->input_count * sizeof *spec->inputs);
    size_check(pass, spec);
    rights_check(pass, &planned->spec);
    code_check(pass, spec);
    secrets_check(pass, spec);
    if (pass->event->reuse && !is_judged(pass, index))
        planned->contents =
            arena_alloc(pass->arena, (spec->input_count + 1) * sizeof *planned->contents);
    for (size_t i = 0; i < spec->need_count; i++) {
        planned->spec.needs[i] = spec->needs[i];
        need_plan(pass, planned, &planned->spec.needs[i]);
    }
    for (size_t i = 0; i < spec->input_count; i++) {
        planned->spec.inputs[i] = spec->inputs[i];
        input_plan(pass, planned, &planned->spec.inputs[i]);
    }
    edges_merge(pass, planned);
    if (planned->contents)
        planned->reused = reuse_find(pass->core, &pass->event->found, spec, planned->contents);
}

/* Whether all jobs of the spec that this one reads from are planned. */
static bool sources_are_planned(const struct spec_job *spec, const bool *done)
{
    for (size_t i = 0; i < spec->input_count; i++)
        if (spec->inputs[i].job_index != SPEC_EXTERNAL && !done[spec->inputs[i].job_index])
            return false;
    return true;
}

/* With reuse a job is planned after those it reads from: what they are decides what it is. The
 * spec has no cycles, so each round plans at least one; a chain written backwards costs as many
 * rounds as it has jobs. */
void submit_plan(struct submit_pass *pass)
{
    const struct spec *spec = pass->event->spec;
    pass->jobs = arena_alloc(pass->arena, spec->job_count * sizeof *pass->jobs);
    bool *done = arena_alloc(pass->arena, spec->job_count * sizeof *done);
    pass->is_wanted = arena_alloc(pass->arena, spec->job_count * sizeof *pass->is_wanted);
    for (size_t i = 0; i < spec->job_count; i++)
        for (size_t k = 0; k < spec->jobs[i].input_count; k++)
            if (spec->jobs[i].inputs[k].trial_count)
                pass->is_wanted[spec->jobs[i].inputs[k].job_index] = true;
    for (size_t left = spec->job_count; left > 0;) {
        for (size_t i = 0; i < spec->job_count; i++) {
            if (done[i] || (pass->event->reuse && !sources_are_planned(&spec->jobs[i], done)))
                continue;
            job_plan(pass, i);
            done[i] = true;
            left--;
        }
    }
}
