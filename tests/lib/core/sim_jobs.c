/* sim_jobs.c - what people submit: chains and fans of a few jobs with everything drawn. */
#include "tests/lib/core/sim_inner.h"

#include <string.h>

static const char *const command[] = {"true"};
static const char *const names[SIM_JOBS_PER_SUBMIT] = {"a", "b", "c", "d", "e"};

static struct spec_retry retry_draw(struct sim *sim)
{
    return (struct spec_retry){
        .attempts = (uint32_t)sim_between(sim, 1, 5),
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

static void input_draw(struct sim *sim, struct arena *arena, struct spec_job *job, size_t parent)
{
    bool last = rng_below(&sim->rng, 2);
    job->inputs[job->input_count++] = (struct spec_input){
        .name = "model",
        .ref = {.kind = SPEC_REF_CHECKPOINT,
                .text = arena_printf(arena, "job:%s/checkpoint:%s", names[parent],
                                     last ? "last" : "best"),
                .name = names[parent],
                .part = "",
                .select = last ? SPEC_SELECT_LAST : SPEC_SELECT_BEST},
        .job_index = (uint32_t)parent,
    };
}

static void parents_draw(struct sim *sim, struct arena *arena, struct spec_job *job, size_t index)
{
    static const enum spec_condition conditions[] = {SPEC_ON_ANY, SPEC_ON_FAILURE,
                                                     SPEC_ON_SUCCESS};
    job->needs = arena_alloc(arena, SIM_JOBS_PER_SUBMIT * sizeof *job->needs);
    job->inputs = arena_alloc(arena, sizeof *job->inputs);
    for (size_t parent = 0; parent < index; parent++) {
        if (!sim_permille(sim, sim->swarm.needy_jobs))
            continue;
        uint64_t kind = rng_below(&sim->rng, 4);
        if (kind == 3 && job->input_count == 0)
            input_draw(sim, arena, job, parent);
        else
            job->needs[job->need_count++] = (struct spec_need){
                .job = names[parent],
                .on = conditions[kind % 3],
                .job_index = (uint32_t)parent,
            };
    }
}

static void job_draw(struct sim *sim, struct spec *spec, size_t index)
{
    struct spec_job *job = &spec->jobs[index];
    *job = (struct spec_job){
        .name = names[index],
        .experiment = spec->experiment,
        .queue = "default",
        .project = "default",
        .description = "",
        .kind = "command",
        .recipe = "",
        .resources = {.ranks = (uint32_t)sim_between(sim, 1, 2),
                      .cores = (uint32_t)sim_between(sim, 1, 2),
                      .memory_bytes = (uint64_t)1 << 30},
        .limits = {.stop_grace_ms = 50},
        .retry = retry_draw(sim),
        .checkpoint = checkpoint_draw(sim),
        .priority = (int32_t)rng_below(&sim->rng, 5) - 2,
        .hold = sim_permille(sim, sim->swarm.held_jobs),
        .on_disconnect = rng_below(&sim->rng, 2) ? SPEC_DISCONNECT_WAIT : SPEC_DISCONNECT_REPLACE,
        .launcher = SPEC_LAUNCHER_AUTO,
        .params = "{}",
        .command = command,
        .command_count = 1,
    };
    job->resources.gpus = sim_permille(sim, sim->swarm.gpu_jobs);
    if (sim_permille(sim, sim->swarm.limited_jobs))
        job->limits.wall_time_ms = sim_between(sim, 100, 3000);
    parents_draw(sim, &spec->arena, job, index);
}

/* The jobs become the trials of a sweep, or items of an array, with a cap or without. */
static void group_draw(struct sim *sim, struct spec *spec)
{
    uint32_t count = (uint32_t)spec->job_count;
    uint32_t at_once = (uint32_t)rng_below(&sim->rng, 3);
    bool is_sweep = rng_below(&sim->rng, 3) > 0;
    for (uint32_t i = 0; i < count; i++) {
        struct spec_job *job = &spec->jobs[i];
        job->at_once = at_once;
        *(is_sweep ? &job->trial_count : &job->array_count) = count;
        *(is_sweep ? &job->trial_index : &job->array_index) = i;
    }
    if (!is_sweep)
        return;
    struct spec_sweep *sweep = mem_zalloc(sizeof *sweep);
    *sweep = (struct spec_sweep){
        .name = "sweep",
        .method = rng_below(&sim->rng, 4) ? SPEC_SWEEP_ASHA : SPEC_SWEEP_GRID,
        .metric = "loss",
        .mode = rng_below(&sim->rng, 2) ? SPEC_BEST_MIN : SPEC_BEST_MAX,
        .resource = "step",
        .min_resource = sim_between(sim, 1, 3),
        .max_resource = sim_between(sim, 4, 12),
        .reduction = 2,
        .at_once = at_once,
        .trial_count = count,
        .space = "{}",
        .params = arena_alloc(&spec->arena, count * sizeof *sweep->params),
    };
    for (uint32_t i = 0; i < count; i++)
        sweep->params[i] = "{}";
    spec->sweeps = sweep;
    spec->sweep_count = 1;
}

void jobs_draw(struct sim *sim, struct sim_submit *submit)
{
    struct spec *spec = mem_zalloc(sizeof *spec);
    for (size_t i = 0; i < sizeof submit->key; i++)
        submit->key[i] = (uint8_t)rng_below(&sim->rng, 256);
    spec->name = "";
    spec->experiment = arena_printf(&spec->arena, "x%llu",
                                    (unsigned long long)rng_below(&sim->rng, SIM_EXPERIMENTS));
    spec->job_count = sim_between(sim, 1, SIM_JOBS_PER_SUBMIT);
    spec->jobs = arena_alloc(&spec->arena, spec->job_count * sizeof *spec->jobs);
    for (size_t i = 0; i < spec->job_count; i++)
        job_draw(sim, spec, i);
    if (rng_below(&sim->rng, 4) == 0)
        group_draw(sim, spec);
    submit->spec = spec;
}
