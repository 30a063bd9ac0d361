/* submit_make.c - jobs, edges and sweeps from a plan, in memory and as rows. */
#include "coordinator/core/submit.h"

#include <string.h>

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
    reuse_take(job, &planned->spec, NULL);
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

void submit_answer_made(struct submit_pass *pass, uint64_t first_job_id, const char *experiment,
                        bool repeated)
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

void submit_make(struct submit_pass *pass)
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
    submit_answer_made(pass, pass->first_job_id, experiment->name, false);
}
