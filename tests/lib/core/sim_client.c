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

/* A need of what has ended otherwise is refused for good; a full table is not. */
static void on_refused(struct sim *sim, const struct msg_refused *answer)
{
    if (answer->request_seq == 0 || answer->request_seq > SIM_SUBMITS_MAX)
        return;
    struct sim_submit *submit = &sim->submits[answer->request_seq - 1];
    for (size_t i = 0; i < answer->refusals_count; i++)
        if (submit->reaches_out && strncmp(answer->refusals[i].path, "jobs.", 5) == 0)
            submit->answered = true;
    if (strcmp(answer->kind, err_kind_name(ERR_EXISTS)) == 0)
        sim_violation(sim, "invariant 10: a submit is taken for another: %s", answer->text);
}

void people_on_answer(struct sim *sim, uint32_t coordinator, const struct message *message)
{
    sim->people_target = coordinator;
    trace_line(sim, "people get %s", msg_name(message->tag));
    if (message->tag == MSG_SUBMITTED)
        on_submitted(sim, &message->u.submitted);
    else if (message->tag == MSG_REFUSED)
        on_refused(sim, &message->u.refused);
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

/* Within three seconds, by the clock of the coordinator that they talk to. */
static uint64_t wall_soon(struct sim *sim)
{
    return clock_us(sim, &sim->coordinators[sim->people_target].clock) +
           rng_below(&sim->rng, 3000000);
}

/* ---- controls ---------------------------------------------------------------------------- */

static void control_send(struct sim *sim, const char *action, const char *target,
                         const char *value)
{
    struct sim_request request = {.kind = SIM_CONTROL, .action = action, .target = target};
    if (strcmp(action, "drain") == 0 && rng_below(&sim->rng, 2))
        request.deadline_us = wall_soon(sim);
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

/* ---- configuration ----------------------------------------------------------------------- */

static void configure_send(struct sim *sim, const char *action, const char *table,
                           const char *name, const char *setting, uint64_t value)
{
    struct sim_request request = {
        .kind = SIM_CONFIGURE, .action = action, .target = table, .setting = setting};
    snprintf(request.value, sizeof request.value, "%s", name);
    bool is_flag = setting && setting[0] == 'e'; /* evicts, evictable */
    if (is_flag)
        snprintf(request.to, sizeof request.to, "%s", value ? "true" : "false");
    else
        snprintf(request.to, sizeof request.to, "%llu", (unsigned long long)value);
    trace_line(sim, "people ask to %s %s %s: %s = %s", action, table, name,
               setting ? setting : "", request.to);
    net_request(sim, sim->people_target, request_add(sim, request));
}

static bool queue_is_there(const struct sim *sim, const char *name)
{
    struct row_queue key = {.name = name};
    const struct row_queue *row = memory_db_find(sim->database.rows, ROW_TABLE_queue, &key);
    return row && !row->removed_at;
}

static bool project_is_there(const struct sim *sim, const char *name)
{
    struct row_project key = {.name = name};
    const struct row_project *row = memory_db_find(sim->database.rows, ROW_TABLE_project, &key);
    return row && !row->removed_at;
}

/* Operators see to it that what jobs name is there; also when somebody has removed it. */
static void configuration_keep(struct sim *sim)
{
    if (rng_below(&sim->rng, 30) != 0)
        return;
    for (size_t i = 1; i < SIM_QUEUES; i++)
        if (!queue_is_there(sim, sim_queues[i]))
            configure_send(sim, "set", "queue", sim_queues[i], i == 1 ? "preemption" : "priority",
                           2);
    if (queue_is_there(sim, sim_queues[1]) && rng_below(&sim->rng, 4) == 0)
        configure_send(sim, "set", "queue", sim_queues[1], "evicts", 1);
    for (size_t i = 1; i < SIM_PROJECTS; i++)
        if (!project_is_there(sim, sim_projects[i]))
            configure_send(sim, "set", "project", sim_projects[i], "weight", i);
}

/* A window on some worker, or on all, that may stop what runs there. */
static void window_draw(struct sim *sim)
{
    static const char *const windows[] = {"noon", "night"};
    static const char *const actions[] = {"add", "add", "set", "remove"};
    struct sim_request request = {.kind = SIM_CONFIGURE,
                                  .action = actions[rng_below(&sim->rng, ARRAY_COUNT(actions))],
                                  .target = "reservation"};
    snprintf(request.value, sizeof request.value, "%s", windows[rng_below(&sim->rng, 2)]);
    if (request.action[0] != 'r') {
        bool stops = rng_below(&sim->rng, 2);
        request.from_us = wall_soon(sim);
        request.until_us = request.from_us + 1000000 + rng_below(&sim->rng, 3000000);
        request.setting = stops ? "stop" : rng_below(&sim->rng, 2) ? "for" : "worker";
        snprintf(request.to, sizeof request.to, "%s",
                 stops                        ? "true"
                 : request.setting[0] == 'f' ? "user:ann"
                                              : sim->workers[0].name);
    }
    trace_line(sim, "people %s window %s %s=%s", request.action, request.value,
               request.setting ? request.setting : "", request.to);
    net_request(sim, sim->people_target, request_add(sim, request));
}

static void configuration_draw(struct sim *sim)
{
    static const struct {
        const char *table, *setting;
        uint64_t least, most;
    } changes[] = {
        {"queue", "priority", 0, 2000},        {"queue", "preemption", 0, 3},
        {"queue", "evicts", 0, 1},             {"queue", "evictable", 0, 1},
        {"project", "weight", 1, 10},          {"setting", "half_life_ms", 60000, 600000},
        {"setting", "gpu_cores", 0, 20},       {"setting", "weight_account", 0, 2000},
        {"setting", "weight_size", 0, 500000}, {"setting", "age_per_hour", 0, 1000000},
    };
    size_t which = rng_below(&sim->rng, ARRAY_COUNT(changes) + 5);
    if (which >= ARRAY_COUNT(changes) + 2) {
        struct sim_request request = quota_draw(sim);
        trace_line(sim, "people %s quota %s=%s: %s %s", request.action, request.scope_part,
                   request.scope_name, request.setting ? request.setting : "", request.to);
        net_request(sim, sim->people_target, request_add(sim, request));
        return;
    }
    if (which >= ARRAY_COUNT(changes)) {
        window_draw(sim);
        return;
    }
    const char *table = changes[which].table, *setting = changes[which].setting;
    bool is_queue = strcmp(table, "queue") == 0, is_project = strcmp(table, "project") == 0;
    const char *name = is_queue     ? sim_queues[rng_below(&sim->rng, SIM_QUEUES)]
                       : is_project ? sim_projects[rng_below(&sim->rng, SIM_PROJECTS)]
                                    : setting;
    if ((is_queue || is_project) && rng_below(&sim->rng, 8) == 0)
        configure_send(sim, "remove", table, name, NULL, 0);
    else
        configure_send(sim, "set", table, name, setting,
                       sim_between(sim, changes[which].least, changes[which].most));
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

static bool is_gone_for_ever(const struct sim *sim, uint64_t worker_id)
{
    struct row_worker key = {.worker_id = worker_id};
    const struct row_worker *row = memory_db_find(sim->database.rows, ROW_TABLE_worker, &key);
    return sim->workers[row->name[1] - '0'].for_ever;
}

/* So does what is to wait for a node that will not come back. */
static void forsaken_cancel(struct sim *sim)
{
    const struct row_attempt *row;
    for (size_t i = 0; (row = memory_db_row(sim->database.rows, ROW_TABLE_attempt, i)); i++) {
        bool gone = is_gone_for_ever(sim, row->worker_id);
        struct row_attempt_node key = {.attempt_id = row->attempt_id};
        const struct row_attempt_node *node;
        while ((node = memory_db_find(sim->database.rows, ROW_TABLE_attempt_node, &key))) {
            key.node++;
            gone |= !node->ended_at && is_gone_for_ever(sim, node->worker_id);
        }
        if (row->ended_at == 0 && gone &&
            judge_spec(sim, row->job_id)->on_disconnect == SPEC_DISCONNECT_WAIT)
            control_send(sim, "cancel", "job", job_text(sim, row->job_id));
    }
}

static void drained_undrain(struct sim *sim)
{
    const struct row_worker *row;
    for (size_t i = 0; (row = memory_db_row(sim->database.rows, ROW_TABLE_worker, i)); i++)
        if (row->drained || row->quarantine_reason)
            control_send(sim, "undrain", "worker", row->name);
}

/* A clock that jumped back may have put them far into the future. */
static void windows_remove(struct sim *sim)
{
    const struct row_reservation *row;
    for (size_t i = 0; (row = memory_db_row(sim->database.rows, ROW_TABLE_reservation, i)); i++)
        if (!row->removed_at)
            configure_send(sim, "remove", "reservation", row->name, NULL, 0);
}

static void quotas_remove(struct sim *sim)
{
    struct sim_request request;
    for (size_t at = 0; quota_lift(sim, &at, &request);)
        net_request(sim, sim->people_target, request_add(sim, request));
}

/* What people left behind must not keep jobs from ending. */
static void tidy_up(struct sim *sim)
{
    if (rng_below(&sim->rng, 100) != 0)
        return;
    sim->people_target = (sim->people_target + 1) % sim->swarm.coordinators;
    drained_undrain(sim);
    windows_remove(sim);
    quotas_remove(sim);
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
    configuration_keep(sim);
    if (sim->healing)
        tidy_up(sim);
    else if (sim_fault(sim, SIM_FAULT_CONTROL))
        control_draw(sim);
    else if (sim_fault(sim, SIM_FAULT_CONFIGURE))
        configuration_draw(sim);
}

void people_done(struct sim *sim)
{
    for (size_t i = 0; i < sim->submit_count; i++) {
        arena_done(&sim->submits[i].spec->arena);
        mem_free(sim->submits[i].spec);
    }
    mem_free(sim->requests);
}
