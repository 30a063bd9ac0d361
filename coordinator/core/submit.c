/* submit.c - jobs of a spec come into being, once (invariant 10).
 *
 * First everything is resolved without changing anything: which job each need and input means.
 * What cannot be resolved, or could never start, is refused as a whole with every reason. Only
 * then are jobs made, with ids in one piece, so that a repeat of the submit is recognised from
 * its key alone. */
#include "coordinator/core/state.h"

#include "common/base/buf.h"

#include <string.h>

#define REFUSALS_MAX 100u
#define WORKERS_TOLD 16u /* by name, of those that could run a checked job */

/* A dependency being worked out: the parent is a job of the same spec or one in memory. */
struct planned_edge {
    uint64_t parent_id;
    struct job *parent; /* NULL: of the same spec */
    enum spec_condition condition;
    const char *artifact; /* for SPEC_ON_ARTIFACT */
    bool implied, reads;
};

struct planned_job {
    struct spec_job spec; /* with ids in its inputs and needs */
    struct planned_edge *edges;
    size_t edge_count;
    struct reuse_input *contents; /* of the inputs; only with --reuse */
    struct job *reused;           /* identical and in memory; NULL: it runs */
};

struct submit_pass {
    struct core *core;
    const struct event_submit *event;
    struct arena *arena;
    struct experiment *experiment; /* NULL: new */
    uint64_t first_job_id;
    struct planned_job *jobs;
    struct rec_refusal *refusals;
    size_t refusal_count, refused_count;
};

/* ---- refusing ---------------------------------------------------------------------------- */

static void refuse(struct submit_pass *pass, uint32_t line, uint32_t column, const char *path,
                   const char *text)
{
    pass->refused_count++;
    if (pass->refusal_count == REFUSALS_MAX)
        return;
    if (!pass->refusals)
        pass->refusals = arena_alloc(pass->arena, REFUSALS_MAX * sizeof *pass->refusals);
    pass->refusals[pass->refusal_count++] = (struct rec_refusal){
        .file = "", .line = line, .column = column, .path = path, .text = text};
}

static void limits_check(struct submit_pass *pass)
{
    const struct core *core = pass->core;
    const struct spec *spec = pass->event->spec;
    if (spec->job_count == 0 || spec->job_count > SUBMIT_JOBS_MAX)
        refuse(pass, 0, 0, "jobs",
               arena_printf(pass->arena, "%zu jobs in one submit, expected 1..%u", spec->job_count,
                            SUBMIT_JOBS_MAX));
    if (core->live_count + spec->job_count > core->config.jobs_max)
        refuse(pass, 0, 0, "",
               arena_printf(pass->arena,
                            "%llu jobs are queued or running and the limit is %u: submit again "
                            "when some have ended",
                            (unsigned long long)core->live_count, core->config.jobs_max));
    const char *fault = quota_submit_fault(core, pass->event->account, spec->jobs, spec->job_count,
                                           pass->arena);
    if (fault)
        refuse(pass, 0, 0, "quota", fault);
    if (!pass->experiment && HASH_COUNT(core->experiments) >= core->config.experiments_max)
        refuse(pass, 0, 0, "experiment",
               arena_printf(pass->arena, "%u experiments exist, which is the limit",
                            core->config.experiments_max));
}

static void size_check(struct submit_pass *pass, const struct spec_job *spec)
{
    const struct spec_resources *want = &spec->resources;
    if (want->ranks < 1 || (uint64_t)want->ranks * want->cores > WORKER_CORES_MAX ||
        want->memory_bytes > WORKER_MEMORY_MAX / want->ranks)
        refuse(pass, 0, 0, arena_printf(pass->arena, "jobs.%s.resources", spec->name),
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
        struct job *other = strcmp(found->jobs[i].name, name) == 0
                                ? job_find(core, found->jobs[i].job_id)
                                : NULL;
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

static struct job *dataset_meant(const struct submit_pass *pass, const char *name)
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

/* ---- edges ------------------------------------------------------------------------------- */

static void edge_plan(struct submit_pass *pass, struct planned_job *planned,
                      struct planned_edge edge)
{
    (void)pass;
    for (size_t i = 0; i < planned->edge_count; i++) {
        struct planned_edge *known = &planned->edges[i];
        if (known->parent_id != edge.parent_id)
            continue;
        known->reads |= edge.reads;
        if (known->implied && !edge.implied) {
            known->condition = edge.condition;
            known->artifact = edge.artifact;
            known->implied = false;
        }
        return;
    }
    planned->edges[planned->edge_count++] = edge;
}

/* A need or input on a job outside the spec. */
static struct job *external_find(struct submit_pass *pass, const struct spec_job *spec,
                                 const char *what, const char *name, uint32_t line, uint32_t column,
                                 bool dataset)
{
    struct job *job = dataset ? dataset_meant(pass, name) : job_meant(pass, name);
    if (job && job->reused_job_id) /* it has nothing of its own */
        job = job_find(pass->core, job->reused_job_id);
    if (job)
        return job;
    const char *path = arena_printf(pass->arena, "jobs.%s.%s", spec->name, what);
    refuse(pass, line, column, path,
           dataset ? arena_printf(pass->arena,
                                  "no job has made a dataset called '%s' and none will: name one "
                                  "that exists, or add the job that makes it",
                                  name)
                   : arena_printf(pass->arena,
                                  "no job '%s' in experiment '%s' or elsewhere: expected the "
                                  "name or id of a submitted job",
                                  name, pass->event->spec->experiment));
    return NULL;
}

/* An ended parent must have ended well, or, where only its output is read, have that output. */
static void ended_parent_check(struct submit_pass *pass, const struct spec_job *spec,
                               struct planned_edge *edge, uint32_t line, uint32_t column)
{
    struct job *parent = edge->parent;
    if (!parent || !job_state_is_terminal(parent->state))
        return;
    if (edge->implied) {
        edge->condition = SPEC_ON_ANY;
        return;
    }
    if (!condition_met(edge->condition, edge->artifact, parent))
        refuse(pass, line, column, arena_printf(pass->arena, "jobs.%s.needs", spec->name),
               arena_printf(pass->arena,
                            "needs %s of job %llu (%s), which has ended %s: this job could "
                            "never start",
                            condition_wanted(pass->arena, edge->condition, edge->artifact),
                            (unsigned long long)parent->job_id, parent->name,
                            job_state_name(parent->state)));
}

static void need_plan(struct submit_pass *pass, struct planned_job *planned, struct spec_need *need)
{
    struct planned_edge edge = {
        .condition = need->on, .artifact = need->artifact, .implied = need->implied};
    if (need->job_index != SPEC_EXTERNAL) {
        edge.parent_id = pass->first_job_id + need->job_index;
    } else if (need->implied) {
        edge.parent = job_meant(pass, need->job); /* input_plan makes the edge, or refuses */
        need->job_id = edge.parent ? edge.parent->job_id : 0;
        return;
    } else {
        edge.parent = external_find(pass, &planned->spec, "needs", need->job, need->line,
                                    need->column, false);
        if (!edge.parent)
            return;
        edge.parent_id = edge.parent->job_id;
        ended_parent_check(pass, &planned->spec, &edge, need->line, need->column);
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
        refuse(pass, input->line, input->column,
               arena_printf(pass->arena, "jobs.%s.inputs.%s", spec->name, input->name),
               arena_printf(pass->arena, "%s: job %llu (%s) has ended %s and has nothing of it",
                            input->ref.text, (unsigned long long)source->job_id, source->name,
                            job_state_name(source->state)));
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

static void input_plan(struct submit_pass *pass, struct planned_job *planned,
                       struct spec_input *input)
{
    if (input->ref.kind == SPEC_REF_FILE)
        return;
    struct planned_edge edge = {.condition = SPEC_ON_SUCCESS, .implied = true, .reads = true};
    struct job *reused =
        input->job_index != SPEC_EXTERNAL ? pass->jobs[input->job_index].reused : NULL;
    if (reused) {
        edge.parent = reused;
        edge.parent_id = reused->job_id;
        edge.condition = SPEC_ON_ANY;
        source_output_check(pass, &planned->spec, input, reused);
    } else if (input->job_index != SPEC_EXTERNAL) {
        edge.parent_id = pass->first_job_id + input->job_index;
    } else {
        edge.parent =
            external_find(pass, &planned->spec, arena_printf(pass->arena, "inputs.%s", input->name),
                          input->ref.name, input->line, input->column,
                          input->ref.kind == SPEC_REF_DATASET);
        if (!edge.parent)
            return;
        edge.parent_id = edge.parent->job_id;
        ended_parent_check(pass, &planned->spec, &edge, input->line, input->column);
        source_output_check(pass, &planned->spec, input, edge.parent);
    }
    input->job_id = edge.parent_id;
    edge_plan(pass, planned, edge);
    content_note(planned, input, edge.parent);
}

/* Queue and project exist and take the job. A job without a limit gets the queue's longest. */
static void rights_check(struct submit_pass *pass, struct spec_job *spec)
{
    const char *field;
    const char *fault = rights_fault(pass->core, pass->event->account, spec, pass->arena, &field);
    if (fault) {
        refuse(pass, 0, 0, arena_printf(pass->arena, "jobs.%s.%s", spec->name, field), fault);
        return;
    }
    if (spec->limits.wall_time_ms == 0)
        spec->limits.wall_time_ms = queue_config_find(pass->core, spec->queue)->max_wall_ms;
}

/* asha compares what trials report as they go: each has to run. */
static bool is_judged(const struct spec *spec, size_t index)
{
    for (size_t i = 0; i < spec->sweep_count; i++) {
        const struct spec_sweep *sweep = &spec->sweeps[i];
        if (sweep->method == SPEC_SWEEP_ASHA && index >= sweep->first_job &&
            index - sweep->first_job < sweep->trial_count)
            return true;
    }
    return false;
}

static void job_plan(struct submit_pass *pass, size_t index)
{
    const struct spec_job *spec = &pass->event->spec->jobs[index];
    struct planned_job *planned = &pass->jobs[index];
    planned->spec = *spec;
    planned->spec.needs = arena_alloc(pass->arena, spec->need_count * sizeof *spec->needs);
    planned->spec.inputs = arena_alloc(pass->arena, spec->input_count * sizeof *spec->inputs);
    planned->edges =
        arena_alloc(pass->arena, (spec->need_count + spec->input_count) * sizeof *planned->edges);
    size_check(pass, spec);
    rights_check(pass, &planned->spec);
    if (pass->event->reuse && !is_judged(pass->event->spec, index))
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
    if (planned->contents)
        planned->reused = reuse_find(pass->core, &pass->event->found, spec, planned->contents);
}

/* Whether all jobs of the spec that this one reads from are planned. */
static bool sources_are_planned(const struct submit_pass *pass, const struct spec_job *spec,
                                const bool *done)
{
    (void)pass;
    for (size_t i = 0; i < spec->input_count; i++)
        if (spec->inputs[i].job_index != SPEC_EXTERNAL && !done[spec->inputs[i].job_index])
            return false;
    return true;
}

/* With reuse a job is planned after those it reads from: what they are decides what it is. The
 * spec has no cycles, so each round plans at least one; a chain written backwards costs as many
 * rounds as it has jobs. */
static void jobs_plan(struct submit_pass *pass)
{
    const struct spec *spec = pass->event->spec;
    bool *done = arena_alloc(pass->arena, spec->job_count * sizeof *done);
    for (size_t left = spec->job_count; left > 0;) {
        for (size_t i = 0; i < spec->job_count; i++) {
            if (done[i] ||
                (pass->event->reuse && !sources_are_planned(pass, &spec->jobs[i], done)))
                continue;
            job_plan(pass, i);
            done[i] = true;
            left--;
        }
    }
}

/* ---- making ------------------------------------------------------------------------------ */

static struct experiment *experiment_ensure(struct submit_pass *pass)
{
    if (pass->experiment)
        return pass->experiment;
    struct core *core = pass->core;
    struct experiment *experiment =
        experiment_add(core, ++core->ids.experiment, pass->event->spec->experiment,
                       pass->event->account, core->wall_us);
    struct row_experiment row = {
        .experiment_id = experiment->experiment_id,
        .name = experiment->name,
        .account = experiment->account,
        .created_at = experiment->created_at,
    };
    effects_persist(core->effects, ROW_TABLE_experiment, PERSIST_INSERT, &row);
    return experiment;
}

static struct job *job_make(struct submit_pass *pass, size_t index, struct experiment *experiment)
{
    struct core *core = pass->core;
    const struct planned_job *planned = &pass->jobs[index];
    char *json = spec_job_json(&planned->spec);
    struct job *job = job_new(core, pass->first_job_id + index, experiment, pass->event->account,
                              &planned->spec, json);
    mem_free(json);
    job->is_new = job->dirty = true; /* submit writes it, so it needs no mark */
    job->reused_job_id = planned->reused ? planned->reused->job_id : 0;
    job->submitted_at = core->wall_us;
    class_join_spec(core, job, &planned->spec);
    job_edges_make(job, planned->reused ? 0 : planned->edge_count);
    job_add(core, job);
    return job;
}

static void edges_make(struct submit_pass *pass, struct job *job, const struct planned_job *planned)
{
    for (size_t i = 0; i < job->edge_count; i++) {
        const struct planned_edge *from = &planned->edges[i];
        struct job *parent = from->parent ? from->parent : job_find(pass->core, from->parent_id);
        struct edge *edge = &job->edges[i];
        bool is_artifact = from->condition == SPEC_ON_ARTIFACT;
        bool waits = !job_state_is_terminal(parent->state) &&
                     !(is_artifact && artifact_exists(parent, from->artifact));
        edge->artifact = is_artifact ? mem_strdup(from->artifact) : NULL;
        edge->parent_id = from->parent_id;
        edge->condition = from->condition;
        edge->reads = from->reads;
        edge->state = waits ? EDGE_WAITING : EDGE_MET;
        edge->dirty = edge->is_new = true;
        job->edges_waiting += waits;
        if (waits || from->reads)
            edge_link(edge, parent);
    }
}

static void job_insert(struct submit_pass *pass, size_t index)
{
    struct core *core = pass->core;
    struct job *job = job_find(core, pass->first_job_id + index);
    const struct spec_job *spec = &pass->jobs[index].spec;
    struct row_job row = {
        .job_id = job->job_id,
        .experiment_id = job->experiment->experiment_id,
        .name = job->name,
        .kind = spec->kind,
        .recipe = spec->recipe,
        .account = job->account,
        .submit_key = {.bytes = pass->event->submit_key, .length = 16},
        .submit_index = index,
        .spec = job->spec_json,
        .reused_job_id = job->reused_job_id,
        .spec_source = index == 0 ? pass->event->source : NULL,
        .ranks = job->ranks,
        .cores = job->cores,
        .memory_bytes = job->memory_bytes,
        .gpus = job->gpus,
        .submitted_at = job->submitted_at,
        .priority = job->priority,
        .state = job_state_name(job->state),
        .held = job->held,
        .queue = job->queue->name,
        .project = job->project->name,
    };
    if (job->reuse)
        row.spec_hash = job->reuse->spec_hash;
    effects_persist(core->effects, ROW_TABLE_job, PERSIST_INSERT, &row);
    job->is_new = job->dirty = false;
    edges_write(core, job);
}

static void answer_submitted(struct submit_pass *pass, uint64_t first_job_id,
                             const char *experiment, bool repeated)
{
    const struct spec *spec = pass->event->spec;
    struct msg_submitted *answer =
        &effects_release(pass->core->effects, ADDRESS_CLIENT, pass->event->client, MSG_SUBMITTED)
             ->u.submitted;
    answer->request_seq = pass->event->request_seq;
    answer->experiment = arena_strdup(pass->arena, experiment);
    answer->jobs = arena_alloc(pass->arena, spec->job_count * sizeof *answer->jobs);
    answer->jobs_count = spec->job_count;
    answer->repeated = repeated;
    for (size_t i = 0; i < spec->job_count; i++)
        answer->jobs[i] =
            (struct rec_job_ref){.job_id = first_job_id + i,
                                 .name = arena_strdup(pass->arena, spec->jobs[i].name)};
}

/* Jobs that took another's results have nothing to wait for and nothing to do. */
static void reused_end(struct submit_pass *pass)
{
    struct core *core = pass->core;
    for (size_t i = 0; i < pass->event->spec->job_count; i++) {
        const struct job *source = pass->jobs[i].reused;
        if (!source)
            continue;
        job_end(core, job_find(core, pass->first_job_id + i), JOB_ON_REUSE, CAUSE_REUSED,
                arena_printf(pass->arena, "results of job %llu (%s/%s)",
                             (unsigned long long)source->job_id, source->experiment->name,
                             source->name));
    }
}

static void submit_make(struct submit_pass *pass)
{
    struct core *core = pass->core;
    size_t count = pass->event->spec->job_count;
    struct experiment *experiment = experiment_ensure(pass);
    core->ids.job += count;
    for (size_t i = 0; i < count; i++)
        job_make(pass, i, experiment);
    for (size_t i = 0; i < pass->event->spec->sweep_count; i++) {
        const struct spec_sweep *sweep = &pass->event->spec->sweeps[i];
        sweep_make(core, sweep, pass->first_job_id + sweep->first_job, experiment,
                   pass->event->account);
    }
    for (size_t i = 0; i < count; i++)
        edges_make(pass, job_find(core, pass->first_job_id + i), &pass->jobs[i]);
    for (size_t i = 0; i < count; i++)
        job_parents_check(core, job_find(core, pass->first_job_id + i));
    for (size_t i = 0; i < count; i++)
        job_insert(pass, i);
    reused_end(pass);
    submit_remember(core, pass->event->submit_key, pass->first_job_id + count - 1, count - 1,
                    experiment->name);
    answer_submitted(pass, pass->first_job_id, experiment->name, false);
}

/* ---- repeats ----------------------------------------------------------------------------- */

/* True when the key is known and the answer was given. */
static bool repeat_answer(struct submit_pass *pass)
{
    struct core *core = pass->core;
    const struct event_submit *event = pass->event;
    for (size_t i = 0; i < event->found.job_count; i++) {
        const struct row_job *row = &event->found.jobs[i];
        if (row->submit_key.length == 16 &&
            memcmp(row->submit_key.bytes, event->submit_key, 16) == 0)
            submit_remember(core, event->submit_key, row->job_id, row->submit_index,
                            event->spec->experiment);
    }
    const struct submit_memory *known = submit_find(core, event->submit_key);
    if (!known)
        return false;
    if (known->job_count != event->spec->job_count)
        answer_refused(core, ADDRESS_CLIENT, event->client, event->request_seq, ERR_EXISTS,
                       arena_printf(pass->arena,
                                    "this submit key was used for another submit, of %llu job%s",
                                    (unsigned long long)known->job_count,
                                    known->job_count == 1 ? "" : "s"),
                       NULL, 0);
    else
        answer_submitted(pass, known->first_job_id, known->experiment, true);
    return true;
}

/* ---- dry run ----------------------------------------------------------------------------- */

static void reasons_json(struct buf *out, const struct core_reason *reasons, size_t count)
{
    buf_putc(out, '[');
    for (size_t i = 0; i < count; i++) {
        buf_puts(out, i ? ",{\"reason\":" : "{\"reason\":");
        json_quote(out, reasons[i].reason);
        buf_puts(out, ",\"detail\":");
        json_quote(out, reasons[i].detail);
        buf_puts(out, ",\"remedy\":");
        json_quote(out, reasons[i].remedy);
        buf_putc(out, '}');
    }
    buf_putc(out, ']');
}

/* A worker that could take a part of it if nothing else ran there. */
static bool could_run(const struct core *core, const struct class *class,
                      const struct worker *worker)
{
    struct policy_need total = {worker->cores, worker->memory_bytes, worker->gpus};
    uint32_t ranks = class_nodes_max(core, class) == 1 ? class->ask.ranks : 1;
    return worker_is_usable(worker) && class_allows(class, worker) &&
           class_ranks_on(class, worker, total) >= ranks;
}

static void could_run_json(const struct core *core, const struct class *class, struct buf *out)
{
    size_t count = 0;
    buf_puts(out, ",\"could_run\":[");
    for (size_t i = 0; i < core->worker_count; i++) {
        if (!could_run(core, class, core->workers[i]))
            continue;
        if (count++ >= WORKERS_TOLD)
            continue;
        buf_puts(out, count > 1 ? "," : "");
        json_quote(out, core->workers[i]->name);
    }
    buf_printf(out, "],\"could_run_count\":%zu", count);
}

static void starts_json(const struct core_outlook *outlook, struct buf *out)
{
    bool dated = outlook->when == CORE_STARTS_NOW || outlook->when == CORE_STARTS_BY;
    buf_puts(out, ",\"worker\":");
    if (outlook->when == CORE_STARTS_NOW)
        json_quote(out, outlook->workers[0]);
    else
        buf_puts(out, "null");
    buf_puts(out, ",\"starts\":");
    json_quote(out, outlook->text);
    if (dated)
        buf_printf(out, ",\"starts_in_ms\":%llu", (unsigned long long)outlook->in_ms);
    else
        buf_puts(out, ",\"starts_in_ms\":null");
}

/* Cost is at most what it asks for, for as long as it may. */
static void cost_json(const struct class *class, struct buf *out)
{
    uint64_t own_ms = class->ask.wall_time_ms, default_ms = class->queue_config->default_wall_ms;
    buf_printf(out, ",\"cores\":%llu,\"gpus\":%llu,\"memory_bytes\":%llu,\"wall_time_ms\":%llu",
               (unsigned long long)class->need.cores, (unsigned long long)class->need.gpus,
               (unsigned long long)class->need.memory_bytes,
               (unsigned long long)(own_ms ? own_ms : default_ms));
    buf_printf(out, ",\"wall_time_of\":%s",
               own_ms       ? "\"job\""
               : default_ms ? "\"queue\""
                            : "null");
}

/* Jobs of one class have one answer: an array costs as much as its first element. */
struct checked_class {
    const struct class *class;
    struct core_outlook outlook;
};

static void outlook_check(struct submit_pass *pass, const struct job *job,
                          struct checked_class *known)
{
    struct core *core = pass->core;
    struct policy_verdict verdict;
    if (known->class == job->class)
        return;
    *known = (struct checked_class){.class = job->class};
    struct core_outlook *outlook = &known->outlook;
    struct policy_job place = {job->job_id, job_key(core, job)};
    outlook_find(core, job->class, place, pass->arena, outlook, &verdict);
    outlook->reasons = arena_alloc(pass->arena, REASON_END * sizeof *outlook->reasons);
    if (outlook->when != CORE_STARTS_NOW)
        outlook->reason_count =
            why_job(core, job, job->class, &verdict, pass->arena, outlook->reasons);
}

/* {"name", "parents", "could_run": [...], "could_run_count", "worker" or null, "starts",
 *  "starts_in_ms" or null, "waits_for": [...], "cores", "gpus", "memory_bytes", "wall_time_ms",
 *  "wall_time_of", "spec"}: cost is cores x wall_time, which the client words. */
static void checked_job_json(struct submit_pass *pass, size_t index, struct job *job,
                             const struct core_outlook *outlook, struct buf *out)
{
    const struct planned_job *planned = &pass->jobs[index];
    buf_puts(out, "{\"name\":");
    json_quote(out, planned->spec.name);
    buf_printf(out, ",\"parents\":%zu", planned->edge_count);
    could_run_json(pass->core, job->class, out);
    starts_json(outlook, out);
    buf_puts(out, ",\"waits_for\":");
    reasons_json(out, outlook->reasons, outlook->reason_count);
    cost_json(job->class, out);
    buf_printf(out, ",\"spec\":%s}", job->spec_json);
}

/* The jobs stay until the end, so that their classes do, and equal ones are seen as such. */
static void checked_json(struct submit_pass *pass, struct buf *out)
{
    struct core *core = pass->core;
    size_t count = pass->event->spec->job_count;
    struct experiment none = {.name = ""};
    struct checked_class known = {0};
    struct job **jobs = arena_alloc(pass->arena, count * sizeof *jobs);
    const char *comma = "[";
    for (size_t i = 0; i < count; i++) {
        const struct spec_job *spec = &pass->jobs[i].spec;
        if (!queue_config_find(core, spec->queue) || !project_find(core, spec->project))
            continue; /* refused; a class of it would remember the name */
        char *spec_json = spec_job_json(spec);
        jobs[i] = job_new(core, UINT64_MAX, &none, pass->event->account, spec, spec_json);
        jobs[i]->submitted_at = core->wall_us;
        jobs[i]->state = JOB_READY; /* what it waits for is told as its parents */
        class_join_spec(core, jobs[i], spec);
        mem_free(spec_json);
        outlook_check(pass, jobs[i], &known);
        buf_puts(out, comma);
        comma = ",";
        checked_job_json(pass, i, jobs[i], &known.outlook, out);
    }
    buf_puts(out, *comma == '[' ? "[]" : "]");
    for (size_t i = 0; i < count; i++) {
        if (!jobs[i])
            continue;
        class_leave(core, jobs[i]);
        job_free(jobs[i]);
    }
}

static void answer_checked(struct submit_pass *pass)
{
    struct buf json = {0};
    checked_json(pass, &json);
    struct msg_checked *answer =
        &effects_release(pass->core->effects, ADDRESS_CLIENT, pass->event->client, MSG_CHECKED)
             ->u.checked;
    answer->request_seq = pass->event->request_seq;
    answer->resolved = arena_strdup(pass->arena, buf_text(&json));
    answer->refusals = pass->refusals;
    answer->refusals_count = pass->refusal_count;
    buf_done(&json);
}

/* ---- entry ------------------------------------------------------------------------------- */

static void answer_refusals(struct submit_pass *pass)
{
    const struct event_submit *event = pass->event;
    const char *text = arena_printf(pass->arena, "the submit was refused for %zu reason%s",
                                    pass->refused_count, pass->refused_count == 1 ? "" : "s");
    answer_refused(pass->core, ADDRESS_CLIENT, event->client, event->request_seq, ERR_INVALID, text,
                   pass->refusals, pass->refusal_count);
}

void submit_on_submit(struct core *core, const struct event_submit *event)
{
    struct submit_pass pass = {.core = core, .event = event, .arena = step_arena(core)};
    const struct spec *spec = event->spec;
    pass.experiment = experiment_find(core, spec->experiment);
    pass.first_job_id = core->ids.job + 1;
    if (!event->check_only && repeat_answer(&pass))
        return;
    for (size_t i = 0; i < event->found.job_count; i++)
        found_take(core, &event->found, event->found.jobs[i].job_id);
    limits_check(&pass);
    if (pass.refused_count == 0 || (event->check_only && spec->job_count <= SUBMIT_JOBS_MAX)) {
        pass.jobs = arena_alloc(pass.arena, spec->job_count * sizeof *pass.jobs);
        jobs_plan(&pass);
    }
    if (event->check_only && pass.jobs)
        answer_checked(&pass);
    else if (pass.refused_count)
        answer_refusals(&pass);
    else
        submit_make(&pass);
}

/* ---- what must be looked up -------------------------------------------------------------- */

static void lookup_add(struct core_lookup *list, size_t *count, struct core_lookup lookup)
{
    for (size_t i = 0; i < *count; i++)
        if (list[i].kind == lookup.kind && lookup.name && strcmp(list[i].name, lookup.name) == 0)
            return;
    list[(*count)++] = lookup;
}

static struct core_lookup job_lookup(const char *name, const char *experiment)
{
    struct core_lookup lookup = {.kind = LOOKUP_JOB_NAME, .name = name, .experiment = experiment};
    if (!spec_name_is_id(name))
        return lookup;
    lookup.kind = LOOKUP_JOB_ID;
    for (const char *c = name; *c && lookup.job_id < INT64_MAX / 16; c++)
        lookup.job_id = lookup.job_id * 10 + (uint64_t)(*c - '0');
    return lookup;
}

static void job_lookups(const struct spec *spec, const struct spec_job *job,
                        struct core_lookup *list, size_t *count)
{
    for (size_t i = 0; i < job->need_count; i++)
        if (job->needs[i].job_index == SPEC_EXTERNAL)
            lookup_add(list, count, job_lookup(job->needs[i].job, spec->experiment));
    for (size_t i = 0; i < job->input_count; i++) {
        const struct spec_input *input = &job->inputs[i];
        if (input->job_index != SPEC_EXTERNAL || input->ref.kind == SPEC_REF_FILE)
            continue;
        if (input->ref.kind == SPEC_REF_DATASET)
            lookup_add(list, count,
                       (struct core_lookup){.kind = LOOKUP_DATASET,
                                            .name = input->ref.name,
                                            .experiment = spec->experiment});
        else
            lookup_add(list, count, job_lookup(input->ref.name, spec->experiment));
    }
}

static void twin_lookup(const struct spec_job *job, struct arena *arena, struct core_lookup *list,
                        size_t *count)
{
    struct hash spec_hash;
    char hex[HASH_HEX_SIZE];
    if (!reuse_spec_hash(job, &spec_hash))
        return;
    hash_to_hex(&spec_hash, hex);
    lookup_add(list, count,
               (struct core_lookup){.kind = LOOKUP_TWIN, .name = arena_strdup(arena, hex)});
}

size_t submit_lookups(const struct core *core, const struct event_submit *event,
                      struct arena *arena, struct core_lookup **out)
{
    const struct spec *spec = event->spec;
    size_t most = 1;
    for (size_t i = 0; i < spec->job_count; i++)
        most += 1 + spec->jobs[i].need_count + spec->jobs[i].input_count;
    struct core_lookup *list = arena_alloc(arena, most * sizeof *list);
    size_t count = 0;
    if (!event->check_only && submit_find(core, event->submit_key))
        return 0; /* a repeat: the answer is known */
    for (size_t i = 0; i < spec->job_count; i++)
        job_lookups(spec, &spec->jobs[i], list, &count);
    for (size_t i = 0; event->reuse && i < spec->job_count; i++)
        twin_lookup(&spec->jobs[i], arena, list, &count);
    if (!event->check_only)
        list[count++] =
            (struct core_lookup){.kind = LOOKUP_SUBMIT, .submit_key = event->submit_key};
    *out = list;
    return count;
}
