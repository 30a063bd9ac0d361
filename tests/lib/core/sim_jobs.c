/* sim_jobs.c - what people submit, with everything drawn: pipelines of a few jobs that need each
 * other or jobs of earlier submits, arrays with a cap, sweeps that stop bad trials early. */
#include "tests/lib/core/sim_inner.h"

#include <math.h>
#include <string.h>

const char *const sim_queues[SIM_QUEUES] = {"default", "high", "low"};
const char *const sim_projects[SIM_PROJECTS] = {"default", "birds", "stars"};

static const char *const command[] = {"true"};
static const char *const accounts[] = {"ann", "bob", "eve"};
static const char *const names[SIM_JOBS_PER_SUBMIT] = {"a", "b", "c", "d", "e", "f", "g", "h"};

/* ---- one job ----------------------------------------------------------------------------- */

static struct spec_retry retry_draw(struct sim *sim)
{
    uint32_t attempts = (uint32_t)sim_between(sim, 1, 5);
    return (struct spec_retry){
        .attempts = attempts,
        .elsewhere = attempts % 2,
        .causes = (uint32_t)rng_below(&sim->rng, 1u << CAUSE_END) & ~1u,
        .backoff_ms = rng_below(&sim->rng, 300),
        .backoff_max_ms = 1000,
        .memory_factor_permille = 1000 + 500 * (uint32_t)rng_below(&sim->rng, 2),
    };
}

static struct spec_checkpoint checkpoint_draw(struct sim *sim)
{
    struct spec_checkpoint checkpoint = {
        .every_steps = 4,
        .keep_last = (uint32_t)rng_below(&sim->rng, 3),
        .keep_best = (uint32_t)rng_below(&sim->rng, 2),
        .best_mode = SPEC_BEST_MIN,
    };
    checkpoint.best_metric = checkpoint.keep_best ? "loss" : "";
    return checkpoint;
}

/* Small enough for the sturdy workers: two ranks of two cores on each. */
static void gang_draw(struct sim *sim, struct spec_resources *resources)
{
    resources->nodes_min = (uint32_t)sim_between(sim, 1, SIM_STURDY);
    resources->nodes_max = (uint32_t)sim_between(sim, max_u64(resources->nodes_min, 2), 4);
    resources->ranks =
        (uint32_t)sim_between(sim, resources->nodes_max, 2 * (uint64_t)resources->nodes_min + 2);
    if (resources->ranks > 2 * resources->nodes_min)
        resources->ranks = 2 * resources->nodes_min;
    if (resources->ranks < resources->nodes_max)
        resources->nodes_max = resources->ranks;
    if (resources->nodes_min > resources->ranks)
        resources->nodes_min = resources->ranks;
    resources->ranks_per_node = rng_below(&sim->rng, 2) ? 2 : 0;
    resources->placement = rng_below(&sim->rng, 2) ? SPEC_PLACEMENT_PACK : SPEC_PLACEMENT_SPREAD;
}

#define LABEL(label_name, which, ...)                                                              \
    {.name = label_name,                                                                           \
     .alternative = which,                                                                         \
     .values = (const char *const[]){__VA_ARGS__},                                                 \
     .value_count = ARRAY_COUNT(((const char *const[]){__VA_ARGS__}))}

/* What the sturdy workers fit all of (sim_worker.c); of the others some. */
static const struct {
    struct spec_label labels[2];
    size_t count;
} constraints[] = {
    {{LABEL("zone", 0, "eu")}, 1},
    {{LABEL("zone", 0, "!us")}, 1},
    {{LABEL("vram", 0, ">=40")}, 1},
    {{LABEL("vram", 0, ">=40"), LABEL("zone", 0, "eu", "us")}, 2},
    {{LABEL("zone", 0, "us"), LABEL("vram", 1, ">=40")}, 2}, /* one or the other */
    {{LABEL("slow", 0, "!*"), LABEL("zone", 1, "us")}, 2},
};

static void wishes_draw(struct sim *sim, struct spec_job *job)
{
    if (sim_permille(sim, sim->swarm.choosy)) {
        size_t which = rng_below(&sim->rng, ARRAY_COUNT(constraints));
        job->constraints = constraints[which].labels;
        job->constraint_count = constraints[which].count;
    }
    if (job->resources.gpus && sim_permille(sim, sim->swarm.choosy))
        job->resources.gpu_model = "a100";
}

static void job_draw(struct sim *sim, struct spec *spec, size_t index)
{
    struct spec_job *job = &spec->jobs[index];
    *job = (struct spec_job){
        .name = names[index],
        .experiment = spec->experiment,
        .queue = sim_queues[0],
        .project = sim_projects[0],
        .description = "",
        .kind = "command",
        .recipe = "",
        .resources = {.ranks = (uint32_t)sim_between(sim, 1, 2),
                      .cores = (uint32_t)sim_between(sim, 1, 2),
                      .memory_bytes = (uint64_t)1 << 30},
        .limits = {.stop_grace_ms = 50},
        .retry = retry_draw(sim),
        .checkpoint = checkpoint_draw(sim),
        .notify = {.on = SPEC_END_FAILED, .webhook = "", .mail = ""},
        .diverge = {.metric = "",
                    .above = (double)NAN,
                    .below = (double)NAN,
                    .nan = true,
                    .reports = 1,
                    .then = rng_below(&sim->rng, 2) ? SPEC_DIVERGE_REWIND : SPEC_DIVERGE_FAIL,
                    .skip = rng_below(&sim->rng, 3)},
        .priority = (int32_t)rng_below(&sim->rng, 5) - 2,
        .hold = sim_permille(sim, sim->swarm.held_jobs),
        .on_disconnect = rng_below(&sim->rng, 2) ? SPEC_DISCONNECT_WAIT : SPEC_DISCONNECT_REPLACE,
        .launcher = SPEC_LAUNCHER_AUTO,
        .params = "{}",
        .command = command,
        .command_count = 1,
    };
    job->resources.gpus = sim_permille(sim, sim->swarm.gpu_jobs);
    job->resources.nodes_min = job->resources.nodes_max = 1;
    job->resources.placement = SPEC_PLACEMENT_PACK;
    job->resources.gpu_model = "";
    wishes_draw(sim, job);
    job->resources.exclusive = sim_permille(sim, sim->swarm.lonely);
    if (sim_permille(sim, sim->swarm.gangs))
        gang_draw(sim, &job->resources);
    if (sim_permille(sim, sim->swarm.limited_jobs))
        job->limits.wall_time_ms = sim_between(sim, 100, 3000);
    if (sim_permille(sim, sim->swarm.queued_jobs))
        job->queue = sim_queues[rng_below(&sim->rng, SIM_QUEUES)];
    if (sim_permille(sim, sim->swarm.queued_jobs))
        job->project = sim_projects[rng_below(&sim->rng, SIM_PROJECTS)];
    job->needs = arena_alloc(&spec->arena, (SIM_JOBS_PER_SUBMIT + 1) * sizeof *job->needs);
    job->inputs = arena_alloc(&spec->arena, sizeof *job->inputs);
}

/* ---- pipelines --------------------------------------------------------------------------- */

static void input_draw(struct sim *sim, struct arena *arena, struct spec_job *job,
                       const char *parent, uint32_t parent_index)
{
    bool last = rng_below(&sim->rng, 2);
    job->inputs[job->input_count++] = (struct spec_input){
        .name = "model",
        .ref = {.kind = SPEC_REF_CHECKPOINT,
                .text = arena_printf(arena, "job:%s/checkpoint:%s", parent, last ? "last" : "best"),
                .name = parent,
                .part = "",
                .select = last ? SPEC_SELECT_LAST : SPEC_SELECT_BEST},
        .job_index = parent_index,
    };
}

static void need_draw(struct sim *sim, struct spec_job *job, const char *parent,
                      uint32_t parent_index)
{
    static const enum spec_condition conditions[] = {SPEC_ON_ANY, SPEC_ON_FAILURE, SPEC_ON_SUCCESS,
                                                     SPEC_ON_ARTIFACT};
    enum spec_condition on = conditions[rng_below(&sim->rng, ARRAY_COUNT(conditions))];
    job->needs[job->need_count++] = (struct spec_need){
        .job = parent,
        .on = on,
        .artifact = on == SPEC_ON_ARTIFACT ? SIM_ARTIFACT_NAME : "",
        .job_index = parent_index,
    };
}

static void parents_draw(struct sim *sim, struct arena *arena, struct spec_job *job, size_t index)
{
    for (size_t parent = 0; parent < index; parent++) {
        if (!sim_permille(sim, sim->swarm.needy_jobs))
            continue;
        if (rng_below(&sim->rng, 4) == 0 && job->input_count == 0)
            input_draw(sim, arena, job, names[parent], (uint32_t)parent);
        else
            need_draw(sim, job, names[parent], (uint32_t)parent);
    }
}

/* A job of another submit, by its number: it may run, or be history. */
static void reach_out(struct sim *sim, struct sim_submit *submit, struct spec_job *job)
{
    uint64_t jobs = memory_db_count(sim->database.rows, ROW_TABLE_job);
    if (jobs == 0)
        return;
    const char *parent = arena_printf(&submit->spec->arena, "%llu",
                                      (unsigned long long)(1 + rng_below(&sim->rng, jobs)));
    submit->reaches_out = true;
    if (rng_below(&sim->rng, 2) && job->input_count == 0)
        input_draw(sim, &submit->spec->arena, job, parent, SPEC_EXTERNAL);
    else
        need_draw(sim, job, parent, SPEC_EXTERNAL);
}

static void pipeline_draw(struct sim *sim, struct sim_submit *submit)
{
    struct spec *spec = submit->spec;
    spec->job_count = sim_between(sim, 1, 5);
    for (size_t i = 0; i < spec->job_count; i++) {
        job_draw(sim, spec, i);
        parents_draw(sim, &spec->arena, &spec->jobs[i], i);
    }
    if (rng_below(&sim->rng, 6) == 0)
        reach_out(sim, submit, &spec->jobs[0]);
    else if (sim_permille(sim, sim->swarm.best) && spec->jobs[0].input_count == 0) {
        input_draw(sim, &spec->arena, &spec->jobs[0], "search", SPEC_EXTERNAL);
        submit->reaches_out = true; /* there may be no sweep */
    }
}

/* ---- many of one ------------------------------------------------------------------------- */

static void copies_make(struct sim *sim, struct spec *spec)
{
    spec->job_count = sim_between(sim, 2, SIM_JOBS_PER_SUBMIT);
    job_draw(sim, spec, 0);
    spec->jobs[0].at_once = (uint32_t)rng_below(&sim->rng, 4);
    for (size_t i = 1; i < spec->job_count; i++) {
        spec->jobs[i] = spec->jobs[0];
        spec->jobs[i].name = names[i];
    }
}

static void array_draw(struct sim *sim, struct spec *spec)
{
    copies_make(sim, spec);
    for (size_t i = 0; i < spec->job_count; i++) {
        spec->jobs[i].array_index = (uint32_t)i;
        spec->jobs[i].array_count = (uint32_t)spec->job_count;
    }
}

/* A job behind the trials that reads the best of them. */
static void reader_draw(struct sim *sim, struct spec *spec, uint32_t trial_count)
{
    struct spec_job *job = &spec->jobs[spec->job_count];
    job_draw(sim, spec, spec->job_count++);
    input_draw(sim, &spec->arena, job, "search", 0);
    job->inputs[0].trial_count = trial_count;
    for (uint32_t i = 0; i < trial_count; i++)
        job->needs[job->need_count++] = (struct spec_need){.job = spec->jobs[i].name,
                                                           .on = SPEC_ON_ANY,
                                                           .artifact = "",
                                                           .implied = true,
                                                           .job_index = i};
}

static void sweep_draw(struct sim *sim, struct spec *spec)
{
    bool asha = rng_below(&sim->rng, 4) != 0;
    copies_make(sim, spec);
    spec->sweeps = arena_alloc(&spec->arena, sizeof *spec->sweeps);
    spec->sweep_count = 1;
    struct spec_sweep *sweep = &spec->sweeps[0];
    *sweep = (struct spec_sweep){
        .name = "search",
        .method = asha ? SPEC_SWEEP_ASHA : SPEC_SWEEP_RANDOM,
        .metric = "loss",
        .mode = rng_below(&sim->rng, 2) ? SPEC_BEST_MIN : SPEC_BEST_MAX,
        .resource = "step",
        .min_resource = asha ? sim_between(sim, 1, 4) : 0,
        .max_resource = asha ? 20 : 0,
        .reduction = asha ? (uint32_t)sim_between(sim, 2, 3) : 0,
        .at_once = spec->jobs[0].at_once,
        .trial_count = (uint32_t)spec->job_count,
        .space = "{}",
    };
    sweep->params = arena_alloc(&spec->arena, spec->job_count * sizeof *sweep->params);
    for (size_t i = 0; i < spec->job_count; i++) {
        sweep->params[i] = "{}";
        spec->jobs[i].name = arena_printf(&spec->arena, "search-t%zu", i);
        spec->jobs[i].trial_index = (uint32_t)i;
        spec->jobs[i].trial_count = (uint32_t)spec->job_count;
    }
    if (spec->job_count < SIM_JOBS_PER_SUBMIT && sim_permille(sim, sim->swarm.best))
        reader_draw(sim, spec, (uint32_t)spec->job_count);
}

void jobs_draw(struct sim *sim, struct sim_submit *submit)
{
    struct spec *spec = submit->spec = mem_zalloc(sizeof *spec);
    for (size_t i = 0; i < sizeof submit->key; i++)
        submit->key[i] = (uint8_t)rng_below(&sim->rng, 256);
    submit->account = accounts[rng_below(&sim->rng, ARRAY_COUNT(accounts))];
    spec->name = "";
    spec->experiment = arena_printf(&spec->arena, "x%llu",
                                    (unsigned long long)rng_below(&sim->rng, SIM_EXPERIMENTS));
    spec->jobs = arena_alloc(&spec->arena, SIM_JOBS_PER_SUBMIT * sizeof *spec->jobs);
    uint64_t kind = rng_below(&sim->rng, 1000);
    if (kind < sim->swarm.arrays)
        array_draw(sim, spec);
    else if (kind < sim->swarm.arrays + sim->swarm.sweeps)
        sweep_draw(sim, spec);
    else
        pipeline_draw(sim, submit);
}
