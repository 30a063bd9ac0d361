/* control.c - what people ask of jobs and workers: all targets or none. */
#include "coordinator/core/state.h"

#include <string.h>

#define REFUSALS_MAX 100u
/* An experiment walks over all jobs in memory: 100 x 1,000,000 x 10 ns is a second at most. */
#define TARGETS_MAX            10000u
#define EXPERIMENT_TARGETS_MAX 100u

struct control_pass {
    struct core *core;
    const struct event_control *event;
    struct arena *arena;
    enum action action;
    struct pointer_list jobs; /* that the action will be applied to */
    struct pointer_list workers;
    struct rec_refusal *refusals;
    size_t refusal_count;
};

/* How each action moves a job. */
static const enum job_event job_event_of[ACTION_END] = {
    [ACTION_CANCEL] = JOB_ON_CANCEL,
    [ACTION_HOLD] = JOB_ON_HOLD,
    [ACTION_RELEASE] = JOB_ON_RELEASE,
    [ACTION_RETRY] = JOB_ON_REOPEN,
};

static bool is_for_workers(enum action action)
{
    return action == ACTION_DRAIN || action == ACTION_UNDRAIN;
}

static void refuse(struct control_pass *pass, const char *target, const char *text)
{
    if (pass->refusal_count == REFUSALS_MAX)
        return;
    if (!pass->refusals)
        pass->refusals = arena_alloc(pass->arena, REFUSALS_MAX * sizeof *pass->refusals);
    pass->refusals[pass->refusal_count++] =
        (struct rec_refusal){.file = "", .path = arena_strdup(pass->arena, target), .text = text};
}

/* ---- targets ----------------------------------------------------------------------------- */

static uint64_t id_read(const char *text)
{
    uint64_t id = 0;
    for (const char *c = text; *c && id < INT64_MAX / 16; c++)
        id = id * 10 + (uint64_t)(*c - '0');
    return id;
}

/* "NAME" or "EXPERIMENT/NAME". Returns the name; *out_experiment is "" for any. */
static const char *name_split(struct arena *arena, const char *value, const char **out_experiment)
{
    const char *slash = strchr(value, '/');
    *out_experiment = slash ? arena_strndup(arena, value, (size_t)(slash - value)) : "";
    return slash ? slash + 1 : value;
}

static struct job *job_newest_named(const struct core *core, const char *experiment_name,
                                    const char *name)
{
    struct job *newest = NULL;
    struct experiment *experiment, *next;
    HASH_ITER(hh, core->experiments, experiment, next)
    {
        if (*experiment_name && strcmp(experiment->name, experiment_name) != 0)
            continue;
        struct job *job = job_find_name(core, experiment->experiment_id, name);
        if (job && (!newest || job->job_id > newest->job_id))
            newest = job;
    }
    return newest;
}

static struct job *job_target(const struct control_pass *pass, const char *value)
{
    if (spec_name_is_id(value))
        return job_find(pass->core, id_read(value));
    const char *experiment;
    const char *name = name_split(pass->arena, value, &experiment);
    return job_newest_named(pass->core, experiment, name);
}

/* A job or worker may be named in several ways and is meant once. */
static void job_take(struct control_pass *pass, struct job *job)
{
    if (job->targeted)
        return;
    job->targeted = true;
    list_add(&pass->jobs, job);
}

static void worker_take(struct control_pass *pass, struct worker *worker)
{
    if (worker->targeted)
        return;
    worker->targeted = true;
    list_add(&pass->workers, worker);
}

/* Jobs do not leave memory before the step ends. */
static void targets_release(struct control_pass *pass)
{
    for (size_t i = 0; i < pass->jobs.count; i++)
        ((struct job *)pass->jobs.items[i])->targeted = false;
    for (size_t i = 0; i < pass->workers.count; i++)
        ((struct worker *)pass->workers.items[i])->targeted = false;
    mem_free(pass->jobs.items);
    mem_free(pass->workers.items);
}

static const char *job_fault(const struct control_pass *pass, const struct job *job)
{
    if (!pass->event->may_act_for_others && strcmp(job->account, pass->event->account) != 0)
        return arena_printf(pass->arena, "job %llu belongs to '%s'; operators may act for others",
                            (unsigned long long)job->job_id, job->account);
    if (job_next(job->state, job_event_of[pass->action]) == JOB_STATE_NONE)
        return arena_printf(pass->arena, "job %llu (%s) is %s: it cannot be asked to %s",
                            (unsigned long long)job->job_id, job->name, job_state_name(job->state),
                            action_name(pass->action));
    return NULL;
}

static void job_target_add(struct control_pass *pass, const char *value)
{
    struct job *job = job_target(pass, value);
    if (!job) {
        refuse(
            pass, value,
            arena_printf(pass->arena,
                         pass->action == ACTION_RETRY
                             ? "no job '%s' that has ended"
                             : "no job '%s' that is queued or running: it has ended or never was",
                         value));
        return;
    }
    const char *fault = job_fault(pass, job);
    if (fault)
        refuse(pass, value, fault);
    else
        job_take(pass, job);
}

/* Of an experiment the action takes those jobs that it applies to. */
static void experiment_target_add(struct control_pass *pass, const char *value)
{
    struct core *core = pass->core;
    struct experiment *experiment = experiment_find(core, value);
    if (!experiment) {
        refuse(pass, value, arena_printf(pass->arena, "no experiment '%s'", value));
        return;
    }
    size_t denied = 0;
    struct job *job, *next;
    HASH_ITER(hh_id, core->jobs, job, next)
    {
        if (job->experiment != experiment ||
            job_next(job->state, job_event_of[pass->action]) == JOB_STATE_NONE)
            continue;
        if (job_fault(pass, job))
            denied++;
        else
            job_take(pass, job);
    }
    if (denied)
        refuse(pass, value,
               arena_printf(pass->arena, "%zu job%s of '%s' belong%s to others", denied,
                            denied == 1 ? "" : "s", value, denied == 1 ? "s" : ""));
}

static void worker_target_add(struct control_pass *pass, const char *value)
{
    struct worker *worker = worker_find_name(pass->core, value);
    if (!worker && spec_name_is_id(value))
        worker = worker_find(pass->core, id_read(value));
    if (!worker)
        refuse(pass, value, arena_printf(pass->arena, "no worker '%s' has ever joined", value));
    else if (!pass->event->may_act_for_others)
        refuse(pass, value, "only operators may drain workers");
    else
        worker_take(pass, worker);
}

static void target_add(struct control_pass *pass, const struct rec_name_value *target)
{
    const char *what = target->name;
    bool workers = is_for_workers(pass->action);
    if (!workers && strcmp(what, "job") == 0)
        job_target_add(pass, target->value);
    else if (!workers && strcmp(what, "experiment") == 0)
        experiment_target_add(pass, target->value);
    else if (workers && strcmp(what, "worker") == 0)
        worker_target_add(pass, target->value);
    else
        refuse(pass, target->value,
               arena_printf(pass->arena, "'%s' cannot be the target of %s, expected %s", what,
                            action_name(pass->action), workers ? "worker" : "job or experiment"));
}

/* ---- retry of ended jobs ----------------------------------------------------------------- */

static bool edge_is_met_by_artifact(const struct row_job_dependency *row, const struct job *parent)
{
    enum spec_condition condition;
    const char *artifact;
    return spec_condition_read(row->condition, &condition, &artifact) &&
           condition == SPEC_ON_ARTIFACT && artifact_exists(parent, artifact);
}

/* How an edge stands when its child is reopened. BROKEN: the retry is refused. */
static enum edge_state edge_reopened(const struct control_pass *pass, const struct job *job,
                                     const struct row_job_dependency *row)
{
    const struct job *parent = job_find(pass->core, row->parent_id);
    if (parent && (!job_state_is_terminal(parent->state) || parent->targeted))
        return edge_is_met_by_artifact(row, parent) ? EDGE_MET : EDGE_WAITING;
    if (!parent)
        return strcmp(row->state, "met") == 0 && !inputs_read(job, row->parent_id) ? EDGE_MET
                                                                                      : EDGE_BROKEN;
    enum spec_condition condition;
    const char *artifact;
    CHECK(spec_condition_read(row->condition, &condition, &artifact)); /* we wrote it */
    return condition_met(condition, artifact, parent) ? EDGE_MET : EDGE_BROKEN;
}

/* The best trial is chosen once, when the sweep ends: the numbers are history afterwards. */
static void choice_reopen_check(struct control_pass *pass, const struct job *job)
{
    const struct event_found *found = &pass->event->found;
    const struct input *open = input_open(job);
    const struct sweep *sweep = open ? sweep_find(pass->core, open->source_job_id) : NULL;
    bool chosen = !open || (sweep && sweep->live_count > 0);
    for (size_t i = 0; i < found->dependency_count && !chosen; i++)
        chosen = found->dependencies[i].job_id == job->job_id && found->dependencies[i].chosen;
    if (!chosen)
        refuse(pass, job->name,
               arena_printf(pass->arena,
                            "job %llu reads the best trial of a sweep (%s), which has ended and "
                            "gave it none: submit it anew",
                            (unsigned long long)job->job_id, open->ref.text));
}

static void reopen_check(struct control_pass *pass, const struct job *job)
{
    const struct event_found *found = &pass->event->found;
    choice_reopen_check(pass, job);
    for (size_t i = 0; i < found->dependency_count; i++) {
        const struct row_job_dependency *row = &found->dependencies[i];
        if (row->job_id != job->job_id || edge_reopened(pass, job, row) != EDGE_BROKEN)
            continue;
        const struct job *parent = job_find(pass->core, row->parent_id);
        refuse(pass, job->name,
               arena_printf(pass->arena,
                            "job %llu needs job %llu, which ended %s: retry that one first",
                            (unsigned long long)job->job_id, (unsigned long long)row->parent_id,
                            parent ? job_state_name(parent->state) : "long ago"));
    }
}

/* Its queue or project may have gone since, or its owner have left the project. */
static void rights_reopen_check(struct control_pass *pass, const struct job *job)
{
    const char *gone = job->queue->removed ? "queue" : job->project->removed ? "project" : NULL;
    if (gone)
        refuse(pass, job->name,
               arena_printf(pass->arena, "the %s of job %llu was removed: submit it anew", gone,
                            (unsigned long long)job->job_id));
    else if (!project_admits(job->project, job->account))
        refuse(pass, job->name,
               arena_printf(pass->arena,
                            "'%s' is no member of project '%s' of job %llu any more, and the "
                            "project is not open",
                            job->account, job->project->name, (unsigned long long)job->job_id));
}

/* What it ran may have been removed since it ended. */
static void code_reopen_check(struct control_pass *pass, const struct job *job)
{
    const char *fault = job->code ? snapshot_fault(pass->core, job->code) : NULL;
    if (fault)
        refuse(pass, job->name,
               arena_printf(pass->arena, "the code of job %llu %s: submit it anew",
                            (unsigned long long)job->job_id, fault));
}

/* What is opened again waits again, and counts as a submit does. */
static void limits_reopen_check(struct control_pass *pass)
{
    const struct core *core = pass->core;
    if (core->live_count + pass->jobs.count > core->config.jobs_max)
        refuse(pass, "jobs",
               arena_printf(pass->arena, "jobs queued or running: %llu, and the limit is %u",
                            (unsigned long long)core->live_count, core->config.jobs_max));
    struct quota_asker *askers = arena_alloc(pass->arena, pass->jobs.count * sizeof *askers);
    for (size_t i = 0; i < pass->jobs.count; i++) {
        const struct job *job = pass->jobs.items[i];
        askers[i] = (struct quota_asker){job->account, job->project->name, job->queue->name};
    }
    const char *fault = quota_waiting_fault(core, askers, pass->jobs.count, "retry", pass->arena);
    if (fault)
        refuse(pass, "quota", fault);
}

static void reopen_checks(struct control_pass *pass)
{
    for (size_t i = 0; i < pass->jobs.count; i++) {
        reopen_check(pass, pass->jobs.items[i]);
        rights_reopen_check(pass, pass->jobs.items[i]);
        code_reopen_check(pass, pass->jobs.items[i]);
    }
    limits_reopen_check(pass);
}

static void edges_reopen(struct control_pass *pass, struct job *job)
{
    const struct event_found *found = &pass->event->found;
    size_t count = 0;
    for (size_t i = 0; i < found->dependency_count; i++)
        count += found->dependencies[i].job_id == job->job_id;
    job_edges_free(job);
    job_edges_make(job, count);
    job->edges_waiting = 0;
    size_t at = 0;
    for (size_t i = 0; i < found->dependency_count; i++) {
        const struct row_job_dependency *row = &found->dependencies[i];
        if (row->job_id != job->job_id)
            continue;
        struct edge *edge = &job->edges[at++];
        edge->parent_id = row->parent_id;
        const char *artifact = "";
        CHECK(spec_condition_read(row->condition, &edge->condition, &artifact));
        edge->artifact = *artifact ? mem_strdup(artifact) : NULL;
        edge->chosen = row->chosen;
        edge->state = edge_reopened(pass, job, row);
        edge->dirty = true;
        job->edges_waiting += edge->state == EDGE_WAITING;
    }
    inputs_decide(job);
    for (size_t i = 0; i < job->edge_count; i++) {
        struct edge *edge = &job->edges[i];
        if (edge->state == EDGE_WAITING || edge->reads)
            edge_link(edge, job_find(pass->core, edge->parent_id));
    }
}

static void job_reopen(struct control_pass *pass, struct job *job)
{
    struct core *core = pass->core;
    struct spec_job spec;
    struct err err;
    int rc = spec_job_from_json(job->spec_json, pass->arena, &spec, &err);
    CHECK(rc == 0); /* it was read when the job came into memory */
    job->avoid_worker_id = 0;
    class_join_spec(core, job, &spec);
    job->held = false;
    job->cause = CAUSE_NONE;
    text_set(&job->detail, NULL);
    job->attempts_spent = 0;
    job->ended_at = 0;
    sweep_trial_reopened(core, job);
    job_move(core, job, JOB_ON_REOPEN);
}

static void jobs_reopen(struct control_pass *pass)
{
    for (size_t i = 0; i < pass->jobs.count; i++)
        job_reopen(pass, pass->jobs.items[i]);
    for (size_t i = 0; i < pass->jobs.count; i++)
        edges_reopen(pass, pass->jobs.items[i]);
    for (size_t i = 0; i < pass->jobs.count; i++)
        job_parents_check(pass->core, pass->jobs.items[i]);
}

/* ---- applying ---------------------------------------------------------------------------- */

static const char *reason_of(const struct control_pass *pass)
{
    const char *reason = pass->event->control->reason;
    size_t length = reason ? min_u64(strlen(reason), TEXT_KEPT_MAX) : 0;
    while (length && reason[length] && ((unsigned char)reason[length] & 0xC0) == 0x80)
        length--; /* not inside a character */
    return length ? arena_strndup(pass->arena, reason, length) : "";
}

static void job_cancel(struct control_pass *pass, struct job *job)
{
    struct core *core = pass->core;
    if (job_state_is_terminal(job->state))
        return; /* a parent of the same request took it along */
    if (!job->attempt) {
        job_end(core, job, JOB_ON_CANCEL, CAUSE_CANCELLED,
                arena_printf(pass->arena, "by %s", pass->event->account));
        return;
    }
    bool first = job->state != JOB_STOPPING;
    job_move(core, job, JOB_ON_CANCEL);
    if (first)
        attempt_stop(core, job->attempt, CAUSE_CANCELLED);
}

static void job_apply(struct control_pass *pass, struct job *job)
{
    struct core *core = pass->core;
    static const char *const names[ACTION_END] = {[ACTION_CANCEL] = "cancel",
                                                  [ACTION_HOLD] = "held",
                                                  [ACTION_RELEASE] = "released",
                                                  [ACTION_RETRY] = "reopened"};
    history_add(core, names[pass->action], job->job_id, 0, 0, pass->event->account,
                reason_of(pass));
    if (pass->action == ACTION_CANCEL) {
        job_cancel(pass, job);
    } else if (pass->action == ACTION_HOLD || pass->action == ACTION_RELEASE) {
        job->held = pass->action == ACTION_HOLD;
        job_move(core, job, job_event_of[pass->action]);
    }
}

static void worker_apply(struct control_pass *pass, struct worker *worker)
{
    struct core *core = pass->core;
    if (pass->action == ACTION_UNDRAIN)
        quarantine_end(core, worker);
    worker->drained = pass->action == ACTION_DRAIN;
    text_set(&worker->drain_reason, worker->drained ? reason_of(pass) : NULL);
    worker->drain_by_at = worker->drained ? pass->event->control->deadline_us : 0;
    windows_look(core);
    worker_mark(core, worker);
    if (!worker->drained)
        worker_gained(core, worker);
    history_add(core, worker->drained ? "worker_drained" : "worker_undrained", 0, 0,
                worker->worker_id, pass->event->account, reason_of(pass));
}

static void answer_done(struct control_pass *pass)
{
    size_t count = pass->jobs.count + pass->workers.count;
    struct msg_done *done =
        &effects_release(pass->core->effects, ADDRESS_CLIENT, pass->event->client, MSG_DONE)
             ->u.done;
    done->request_seq = pass->event->request_seq;
    done->count = count;
    done->text =
        arena_printf(pass->arena, "%s: %zu %s%s", action_name(pass->action), count,
                     is_for_workers(pass->action) ? "worker" : "job", count == 1 ? "" : "s");
}

static void apply_all(struct control_pass *pass)
{
    for (size_t i = 0; i < pass->jobs.count; i++)
        job_apply(pass, pass->jobs.items[i]);
    if (pass->action == ACTION_RETRY)
        jobs_reopen(pass);
    for (size_t i = 0; i < pass->workers.count; i++)
        worker_apply(pass, pass->workers.items[i]);
    answer_done(pass);
}

static size_t experiments_named(const struct msg_control *control)
{
    size_t count = 0;
    for (size_t i = 0; i < control->targets_count; i++)
        count += strcmp(control->targets[i].name, "experiment") == 0;
    return count;
}

static bool targets_are_too_many(const struct msg_control *control)
{
    return control->targets_count > TARGETS_MAX ||
           experiments_named(control) > EXPERIMENT_TARGETS_MAX;
}

static void targets_add(struct control_pass *pass)
{
    const struct msg_control *control = pass->event->control;
    if (control->targets_count == 0)
        refuse(pass, "targets", "nothing was named");
    if (targets_are_too_many(control))
        refuse(pass, "targets",
               arena_printf(pass->arena,
                            "%zu targets in one request, of them experiments: %zu; expected at "
                            "most %u and %u",
                            control->targets_count, experiments_named(control), TARGETS_MAX,
                            EXPERIMENT_TARGETS_MAX));
    else
        for (size_t i = 0; i < control->targets_count; i++)
            target_add(pass, &control->targets[i]);
}

void control_on_control(struct core *core, const struct event_control *event)
{
    const struct msg_control *control = event->control;
    struct control_pass pass = {.core = core, .event = event, .arena = step_arena(core)};
    pass.action = action_from_name(control->action);
    for (size_t i = 0; pass.action == ACTION_RETRY && i < event->found.job_count; i++)
        found_take(core, &event->found, event->found.jobs[i].job_id);
    if (pass.action == ACTION_NONE)
        refuse(&pass, "action",
               arena_printf(pass.arena,
                            "'%.40s' is not an action, expected cancel, hold, release, retry, "
                            "drain or undrain",
                            control->action));
    else
        targets_add(&pass);
    if (pass.action == ACTION_RETRY)
        reopen_checks(&pass);
    if (pass.refusal_count)
        answer_refused(core, ADDRESS_CLIENT, event->client, event->request_seq, ERR_INVALID,
                       pass.refusal_count == 1
                           ? pass.refusals[0].text
                           : arena_printf(pass.arena, "%zu things are wrong, nothing was changed",
                                          pass.refusal_count),
                       pass.refusals, pass.refusal_count);
    else
        apply_all(&pass);
    targets_release(&pass);
}

/* ---- what must be looked up -------------------------------------------------------------- */

size_t control_lookups(const struct core *core, const struct event_control *event,
                       struct arena *arena, struct core_lookup **out)
{
    (void)core;
    const struct msg_control *control = event->control;
    if (action_from_name(control->action) != ACTION_RETRY || targets_are_too_many(control))
        return 0;
    struct core_lookup *list = arena_alloc(arena, control->targets_count * sizeof *list);
    for (size_t i = 0; i < control->targets_count; i++) {
        const struct rec_name_value *target = &control->targets[i];
        struct core_lookup *lookup = &list[i];
        lookup->with_parents = true;
        if (strcmp(target->name, "experiment") == 0) {
            lookup->kind = LOOKUP_EXPERIMENT;
            lookup->experiment = target->value;
        } else if (spec_name_is_id(target->value)) {
            lookup->kind = LOOKUP_JOB_ID;
            lookup->job_id = id_read(target->value);
        } else {
            lookup->kind = LOOKUP_JOB_NAME;
            lookup->name = name_split(arena, target->value, &lookup->experiment);
        }
    }
    *out = list;
    return control->targets_count;
}
