/* sim_client.c - people: pipelines submitted (again and again until answered), and controls. */
#include "tests/lib/core/sim_inner.h"

#include <string.h>

static const char *const command[] = {"true"};

/* A chain or fan of a few jobs with everything drawn: sizes, retries, conditions, inputs. */
static void job_draw(struct sim *sim, struct spec *spec, size_t index)
{
    struct arena *arena = &spec->arena;
    struct spec_job *job = &spec->jobs[index];
    static const char *const names[SIM_JOBS_PER_SUBMIT] = {"a", "b", "c", "d", "e"};
    *job = (struct spec_job){
        .queue = "default",
        .project = "default",
        .name = names[index],
        .experiment = spec->experiment,
        .description = "",
        .kind = "command",
        .recipe = "",
        .resources = {1 + (uint32_t)rng_below(&sim->rng, 2), 1, 0, (uint64_t)1 << 30},
        .limits = {.stop_grace_ms = 50},
        .retry = {.attempts = 1 + (uint32_t)rng_below(&sim->rng, 5),
                  .causes = (uint32_t)rng_below(&sim->rng, 1u << 13) & ~1u,
                  .backoff_ms = rng_below(&sim->rng, 300),
                  .backoff_max_ms = 1000,
                  .memory_factor_permille = 1000 + 500 * (uint32_t)rng_below(&sim->rng, 2)},
        .checkpoint = {.every_steps = 4,
                       .keep_last = (uint32_t)rng_below(&sim->rng, 3),
                       .keep_best = (uint32_t)rng_below(&sim->rng, 2),
                       .best_metric = "loss",
                       .best_mode = SPEC_BEST_MIN},
        .priority = (int32_t)rng_below(&sim->rng, 5) - 2,
        .hold = rng_below(&sim->rng, 12) == 0,
        .on_disconnect = rng_below(&sim->rng, 2) ? SPEC_DISCONNECT_WAIT : SPEC_DISCONNECT_REPLACE,
        .launcher = SPEC_LAUNCHER_AUTO,
        .params = "{}",
        .command = command,
        .command_count = 1,
    };
    job->checkpoint.best_metric = job->checkpoint.keep_best ? "loss" : "";
    if (rng_below(&sim->rng, 6) == 0)
        job->resources.gpus = 1;
    if (rng_below(&sim->rng, 6) == 0)
        job->limits.wall_time_ms = 100 + rng_below(&sim->rng, 1000);
    job->needs = arena_alloc(arena, SIM_JOBS_PER_SUBMIT * sizeof *job->needs);
    job->inputs = arena_alloc(arena, sizeof *job->inputs);
    for (size_t parent = 0; parent < index; parent++) {
        if (rng_below(&sim->rng, 2))
            continue;
        uint64_t kind = rng_below(&sim->rng, 4);
        if (kind == 3 && job->input_count == 0) {
            const char *ref = arena_printf(arena, "job:%s/checkpoint:last", names[parent]);
            job->inputs[job->input_count++] = (struct spec_input){
                .name = "model",
                .ref = {.kind = SPEC_REF_CHECKPOINT,
                        .text = ref,
                        .name = names[parent],
                        .part = "",
                        .select = rng_below(&sim->rng, 2) ? SPEC_SELECT_LAST : SPEC_SELECT_BEST},
                .job_index = (uint32_t)parent};
            if (job->inputs[0].ref.select == SPEC_SELECT_BEST)
                job->inputs[0].ref.text =
                    arena_printf(arena, "job:%s/checkpoint:best", names[parent]);
        } else {
            job->needs[job->need_count++] = (struct spec_need){
                .job = names[parent],
                .on = kind == 0 ? SPEC_ON_ANY : kind == 1 ? SPEC_ON_FAILURE : SPEC_ON_SUCCESS,
                .job_index = (uint32_t)parent};
        }
    }
}

static void submit_draw(struct sim *sim)
{
    struct sim_submit *submit = &sim->submits[sim->submit_count++];
    struct spec *spec = mem_zalloc(sizeof *spec);
    for (size_t i = 0; i < sizeof submit->key; i++)
        submit->key[i] = (uint8_t)rng_below(&sim->rng, 256);
    spec->name = "";
    spec->experiment =
        arena_printf(&spec->arena, "x%llu", (unsigned long long)rng_below(&sim->rng, 4));
    spec->job_count = 1 + rng_below(&sim->rng, SIM_JOBS_PER_SUBMIT);
    spec->jobs = arena_alloc(&spec->arena, spec->job_count * sizeof *spec->jobs);
    for (size_t i = 0; i < spec->job_count; i++)
        job_draw(sim, spec, i);
    submit->spec = spec;
    submit->next_ms = sim->now_ms;
}

static void found_read(struct sim *sim, struct event *event, struct event_found *found)
{
    struct core_lookup *lookups;
    size_t count = core_lookups(sim->core, event, &sim->arena, &lookups);
    if (sim->options.bug == SIM_BUG_DOUBLE_SUBMIT)
        count = 0;
    memory_db_lookup(sim->db, lookups, count, &sim->arena, found);
}

static void submit_send(struct sim *sim, size_t index)
{
    struct sim_submit *submit = &sim->submits[index];
    submit->next_ms = sim->now_ms + 500;
    if (!sim->core || sim_chance(sim, sim->chances.lose))
        return;
    struct event event = {.kind = EVENT_SUBMIT,
                          .submit = {.client = SIM_CLIENT_PEER,
                                     .request_seq = index + 1,
                                     .account = "ann",
                                     .submit_key = submit->key,
                                     .spec = submit->spec,
                                     .source = "simulated"}};
    found_read(sim, &event, &event.submit.found);
    leader_step(sim, &event);
}

void client_on_answer(struct sim *sim, const struct message *message)
{
    if (message->tag != MSG_SUBMITTED || sim_chance(sim, sim->chances.lose))
        return;
    const struct msg_submitted *answer = &message->u.submitted;
    struct sim_submit *submit = &sim->submits[answer->request_seq - 1];
    uint64_t first = answer->jobs[0].job_id;
    if (submit->first_job_id && submit->first_job_id != first)
        sim_violation(sim, arena_printf(&sim->arena,
                                        "invariant 10: a submit became job %llu and job %llu",
                                        (unsigned long long)submit->first_job_id,
                                        (unsigned long long)first));
    submit->first_job_id = first;
    submit->answered = true;
}

/* ---- controls ---------------------------------------------------------------------------- */

static void control_send(struct sim *sim, const char *action, const char *kind, const char *value)
{
    if (!sim->core)
        return;
    struct rec_name_value target = {.name = kind, .value = value};
    struct msg_control control = {
        .action = action, .targets = &target, .targets_count = 1, .reason = "drawn"};
    struct event event = {.kind = EVENT_CONTROL,
                          .control = {.client = SIM_CLIENT_PEER,
                                      .request_seq = 1,
                                      .account = "root",
                                      .may_act_for_others = true,
                                      .control = &control}};
    bool looks = strcmp(action, "retry") == 0;
    if (looks && (sim->effects.persist_count || sim->committing))
        return; /* the shell commits before it looks things up; here the person tries later */
    found_read(sim, &event, &event.control.found);
    leader_step(sim, &event);
}

static void control_draw(struct sim *sim)
{
    static const char *const actions[] = {"cancel", "hold", "release", "retry", "drain", "undrain"};
    size_t which = rng_below(&sim->rng, ARRAY_COUNT(actions));
    sim->result->controls++;
    if (which >= 4) {
        uint32_t worker = (uint32_t)rng_below(&sim->rng, SIM_WORKERS);
        control_send(sim, actions[which], "worker", sim->workers[worker].name);
        return;
    }
    uint64_t jobs = memory_db_count(sim->db, ROW_TABLE_job);
    if (rng_below(&sim->rng, 10) == 0)
        control_send(sim, actions[which], "experiment",
                     arena_printf(&sim->arena, "x%llu",
                                  (unsigned long long)rng_below(&sim->rng, 4)));
    else if (jobs)
        control_send(sim, actions[which], "job",
                     arena_printf(&sim->arena, "%llu",
                                  (unsigned long long)(1 + rng_below(&sim->rng, jobs))));
}

/* What people left behind must not keep jobs from ending. */
static void heal_controls(struct sim *sim)
{
    if (rng_below(&sim->rng, 100) != 0)
        return;
    for (int i = 0; i < SIM_WORKERS; i++)
        control_send(sim, "undrain", "worker", sim->workers[i].name);
    for (int i = 0; i < 4; i++)
        control_send(sim, "release", "experiment", arena_printf(&sim->arena, "x%d", i));
}

void client_round(struct sim *sim)
{
    if (!sim->healing && sim->submit_count < SIM_SUBMITS_MAX && rng_below(&sim->rng, 40) == 0)
        submit_draw(sim);
    for (size_t i = 0; i < sim->submit_count; i++) {
        bool again = sim->submits[i].answered && rng_below(&sim->rng, 200) == 0 &&
                     sim_chance(sim, sim->chances.resubmit);
        sim->result->resubmits += again;
        if ((!sim->submits[i].answered && sim->now_ms >= sim->submits[i].next_ms) || again)
            submit_send(sim, i);
    }
    if (sim->healing)
        heal_controls(sim);
    else if (sim_chance(sim, sim->chances.control))
        control_draw(sim);
}

void client_done(struct sim *sim)
{
    for (size_t i = 0; i < sim->submit_count; i++) {
        arena_done(&sim->submits[i].spec->arena);
        mem_free(sim->submits[i].spec);
    }
}
