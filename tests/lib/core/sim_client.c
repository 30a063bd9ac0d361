/* sim_client.c - people: pipelines submitted (again and again until answered), and controls. */
#include "tests/lib/core/sim_inner.h"

#include <stdio.h>
#include <string.h>

#define ANSWER_MS 500u       /* after this long without an answer they ask elsewhere */
#define PATIENCE_MS 5000u    /* after which they cancel what hangs, once all is well again */

static size_t request_add(struct sim *sim, struct sim_request request)
{
    VEC_RESERVE(sim->requests, sim->request_count, sim->request_capacity);
    sim->requests[sim->request_count] = request;
    return sim->request_count++;
}

/* ---- submits ----------------------------------------------------------------------------- */

static void submit_send(struct sim *sim, size_t index)
{
    struct sim_submit *submit = &sim->submits[index];
    if (!submit->answered && submit->next_ms)
        sim->people_target = (sim->people_target + 1) % sim->swarm.coordinators;
    submit->next_ms = sim->now_ms + ANSWER_MS;
    net_request(sim, sim->people_target,
                request_add(sim, (struct sim_request){.kind = SIM_SUBMIT, .submit = index}));
}

static void on_submitted(struct sim *sim, const struct msg_submitted *answer)
{
    struct sim_submit *submit = &sim->submits[answer->request_seq - 1];
    uint64_t first = answer->jobs[0].job_id;
    if (submit->first_job_id && submit->first_job_id != first)
        sim_violation(sim, "invariant 10: a submit became job %llu and job %llu",
                      (unsigned long long)submit->first_job_id, (unsigned long long)first);
    submit->first_job_id = first;
    submit->answered = true;
}

void people_on_answer(struct sim *sim, uint32_t coordinator, const struct message *message)
{
    sim->people_target = coordinator;
    trace_line(sim, "people get %s", msg_name(message->tag));
    if (message->tag == MSG_SUBMITTED)
        on_submitted(sim, &message->u.submitted);
}

static void submits_round(struct sim *sim)
{
    bool wanted = rng_below(&sim->rng, sim->swarm.submit_every) == 0;
    if (!sim->healing && sim->submit_count < SIM_SUBMITS_MAX && wanted)
        jobs_draw(sim, &sim->submits[sim->submit_count++]);
    for (size_t i = 0; i < sim->submit_count; i++) {
        struct sim_submit *submit = &sim->submits[i];
        bool again = submit->answered && rng_below(&sim->rng, 200) == 0 &&
                     sim_fault(sim, SIM_FAULT_RESUBMIT);
        if ((!submit->answered && sim->now_ms >= submit->next_ms) || again)
            submit_send(sim, i);
    }
}

/* ---- controls ---------------------------------------------------------------------------- */

static void control_send(struct sim *sim, const char *action, const char *target,
                         const char *value)
{
    struct sim_request request = {.kind = SIM_CONTROL, .action = action, .target = target};
    snprintf(request.value, sizeof request.value, "%s", value);
    judge_asked(sim, &request);
    trace_line(sim, "people ask to %s %s %s", action, target, value);
    net_request(sim, sim->people_target, request_add(sim, request));
}

static const char *job_text(struct sim *sim, uint64_t job_id)
{
    return arena_printf(&sim->arena, "%llu", (unsigned long long)job_id);
}

static const char *experiment_text(struct sim *sim, uint64_t index)
{
    return arena_printf(&sim->arena, "x%llu", (unsigned long long)index);
}

/* Any job, or one of the newest, which probably lives. */
static uint64_t job_chosen(struct sim *sim, uint64_t jobs)
{
    uint64_t newest = rng_below(&sim->rng, 2) ? min_u64(jobs, 12) : jobs;
    return 1 + jobs - newest + rng_below(&sim->rng, newest);
}

static void control_draw(struct sim *sim)
{
    static const char *const actions[] = {"cancel", "hold", "release", "retry", "drain", "undrain"};
    size_t which = rng_below(&sim->rng, ARRAY_COUNT(actions));
    uint64_t jobs = memory_db_count(sim->database.rows, ROW_TABLE_job);
    if (which >= 4)
        control_send(sim, actions[which], "worker",
                     sim->workers[rng_below(&sim->rng, sim->swarm.workers)].name);
    else if (rng_below(&sim->rng, 10) == 0)
        control_send(sim, actions[which], "experiment",
                     experiment_text(sim, rng_below(&sim->rng, SIM_EXPERIMENTS)));
    else if (jobs)
        control_send(sim, actions[which], "job", job_text(sim, job_chosen(sim, jobs)));
}

/* ---- once the faults are over ------------------------------------------------------------ */

/* What hangs without a limit of time needs a person. */
static void hung_cancel(struct sim *sim, const struct sim_worker *worker)
{
    for (size_t i = 0; i < worker->attempt_count; i++) {
        const struct sim_attempt *attempt = &worker->attempts[i];
        if (attempt->hung && attempt->running && !attempt->gone && !attempt->wall_due_ms)
            control_send(sim, "cancel", "job", job_text(sim, attempt->job_id));
    }
}

/* So does what is to wait for a node that will not come back. */
static void forsaken_cancel(struct sim *sim)
{
    const struct row_attempt *row;
    for (size_t i = 0; (row = memory_db_row(sim->database.rows, ROW_TABLE_attempt, i)); i++) {
        struct row_worker key = {.worker_id = row->worker_id};
        const struct row_worker *worker =
            memory_db_find(sim->database.rows, ROW_TABLE_worker, &key);
        if (row->ended_at == 0 && sim->workers[worker->name[1] - '0'].for_ever &&
            judge_spec(sim, row->job_id)->on_disconnect == SPEC_DISCONNECT_WAIT)
            control_send(sim, "cancel", "job", job_text(sim, row->job_id));
    }
}

static void drained_undrain(struct sim *sim)
{
    const struct row_worker *row;
    for (size_t i = 0; (row = memory_db_row(sim->database.rows, ROW_TABLE_worker, i)); i++)
        if (row->drained)
            control_send(sim, "undrain", "worker", row->name);
}

/* What people left behind must not keep jobs from ending. */
static void tidy_up(struct sim *sim)
{
    if (rng_below(&sim->rng, 100) != 0)
        return;
    sim->people_target = (sim->people_target + 1) % sim->swarm.coordinators;
    drained_undrain(sim);
    for (uint32_t i = 0; i < SIM_EXPERIMENTS; i++)
        control_send(sim, "release", "experiment", experiment_text(sim, i));
    if (sim->now_ms < sim->healed_ms + PATIENCE_MS)
        return;
    forsaken_cancel(sim);
    for (uint32_t i = 0; i < sim->swarm.workers; i++)
        hung_cancel(sim, &sim->workers[i]);
}

void people_round(struct sim *sim)
{
    submits_round(sim);
    if (sim->healing)
        tidy_up(sim);
    else if (sim_fault(sim, SIM_FAULT_CONTROL))
        control_draw(sim);
}

void people_done(struct sim *sim)
{
    for (size_t i = 0; i < sim->submit_count; i++) {
        arena_done(&sim->submits[i].spec->arena);
        mem_free(sim->submits[i].spec->sweeps);
        mem_free(sim->submits[i].spec);
    }
    mem_free(sim->requests);
}
