/* sim_worker.c - nodes: a daemon that joins, beats and relays, shepherds that outlive it. */
#include "tests/lib/core/sim_inner.h"

#include <stdio.h>
#include <string.h>

void worker_init(struct sim *sim, uint32_t index)
{
    struct sim_worker *worker = &sim->workers[index];
    worker->index = index;
    snprintf(worker->name, sizeof worker->name, "w%u", index);
    worker->link = SIM_AWAY;
    worker->incarnation = rng_next(&sim->rng);
    worker->cores = 2 + rng_below(&sim->rng, 6);
    worker->gpus = index == 0 || rng_below(&sim->rng, 3) == 0 ? 2 : 0; /* one at least has some */
    worker->heartbeat_ms = 200;
    worker->lease_ms = 2000;
}

struct sim_attempt *worker_attempt(struct sim_worker *worker, uint64_t attempt_id)
{
    for (size_t i = 0; i < worker->attempt_count; i++)
        if (worker->attempts[i].attempt_id == attempt_id)
            return &worker->attempts[i];
    return NULL;
}

void worker_done(struct sim_worker *worker)
{
    for (size_t i = 0; i < worker->attempt_count; i++)
        mem_free(worker->attempts[i].reports);
    mem_free(worker->attempts);
}

void worker_cut(struct sim *sim, struct sim_worker *worker)
{
    sim_session_cut(sim, worker->index);
    if (worker->link == SIM_DOWN)
        return;
    worker->link = SIM_AWAY;
    worker->up_ms = sim->now_ms + rng_below(&sim->rng, 100);
}

/* ---- attempts ---------------------------------------------------------------------------- */

static void report_add(struct sim_attempt *attempt, enum sim_report_what what, enum cause cause)
{
    VEC_RESERVE(attempt->reports, attempt->report_count, attempt->report_capacity);
    attempt->reports[attempt->report_count++] =
        (struct sim_report){.what = what, .step = attempt->step, .cause = cause};
    attempt->metrics += what == SIM_METRIC;
    if (what == SIM_FINISHED)
        attempt->running = false;
}

/* Some programs ignore the resume point and begin anew. */
static uint64_t first_step(struct sim *sim, const char *path)
{
    unsigned long long step = 0;
    if (!*path)
        return 0;
    if (!*sim_file(sim, path))
        sim_violation(sim, "invariant 7: an attempt resumes from files that were deleted");
    sscanf(strrchr(path, '/') + 1, "%llu", &step);
    return rng_below(&sim->rng, 5) == 0 ? 0 : step;
}

static void attempt_start(struct sim *sim, struct sim_worker *worker, const struct msg_start *start)
{
    if (worker_attempt(worker, start->attempt_id))
        return; /* idempotent, and remembered when it is gone */
    struct sim_attempt attempt = {
        .attempt_id = start->attempt_id,
        .job_id = start->job_id,
        .running = true,
        .step = first_step(sim, start->resume_path),
        .next_ms = sim->now_ms + 1 + rng_below(&sim->rng, 100),
    };
    attempt.steps = attempt.step + 1 + rng_below(&sim->rng, 20);
    report_add(&attempt, SIM_STARTED, CAUSE_NONE);
    VEC_RESERVE(worker->attempts, worker->attempt_count, worker->attempt_capacity);
    worker->attempts[worker->attempt_count++] = attempt;
}

static void attempt_forget(struct sim_attempt *attempt)
{
    attempt->gone = true;
    attempt->running = false;
    mem_free(attempt->reports);
    attempt->reports = NULL;
    attempt->report_count = attempt->report_capacity = 0;
}

static const char *checkpoint_path(struct sim *sim, const struct sim_attempt *attempt,
                                   uint64_t step)
{
    return arena_printf(&sim->arena, "/job/%llu/%llu", (unsigned long long)attempt->job_id,
                        (unsigned long long)step);
}

static void attempt_step(struct sim *sim, struct sim_attempt *attempt)
{
    static const enum cause failures[] = {CAUSE_EXIT, CAUSE_SIGNAL, CAUSE_OOM, CAUSE_STALLED};
    if (!attempt->running || sim->now_ms < attempt->next_ms)
        return;
    attempt->next_ms = sim->now_ms + 1 + rng_below(&sim->rng, 100);
    if (attempt->stopping) {
        report_add(attempt, SIM_FINISHED, attempt->stop_cause);
        return;
    }
    attempt->step++;
    report_add(attempt, SIM_METRIC, CAUSE_NONE);
    if (attempt->step % 4 == 0 || attempt->step == attempt->steps) {
        *sim_file(sim, checkpoint_path(sim, attempt, attempt->step)) = true;
        report_add(attempt, SIM_CHECKPOINT, CAUSE_NONE);
    }
    if (attempt->step >= attempt->steps)
        report_add(attempt, SIM_FINISHED, CAUSE_SUCCESS);
    else if (sim_chance(sim, sim->chances.fail_attempt))
        report_add(attempt, SIM_FINISHED, failures[rng_below(&sim->rng, ARRAY_COUNT(failures))]);
}

/* ---- messages to the leader -------------------------------------------------------------- */

static void join_send(struct sim *sim, struct sim_worker *worker)
{
    struct message message = {.tag = MSG_WORKER_JOIN};
    struct msg_worker_join *join = &message.u.worker_join;
    worker->session = sim->next_session++;
    join->name = worker->name;
    join->incarnation = worker->incarnation;
    join->host = "sim";
    join->cores = worker->cores;
    join->memory_bytes = (uint64_t)16 << 30;
    join->topology = "{}";
    join->devices = arena_alloc(&sim->arena, worker->gpus * sizeof *join->devices);
    join->devices_count = worker->gpus;
    for (size_t i = 0; i < worker->gpus; i++)
        join->devices[i] = (struct rec_device){
            .device_index = i, .kind = "gpu", .model = "", .uuid = "", .memory_bytes = 1};
    join->held = arena_alloc(&sim->arena, worker->attempt_count * sizeof *join->held);
    for (size_t i = 0; i < worker->attempt_count; i++) {
        struct sim_attempt *attempt = &worker->attempts[i];
        attempt->sent_ms = 0;
        if (!attempt->gone)
            join->held[join->held_count++] =
                (struct rec_held_attempt){.attempt_id = attempt->attempt_id,
                                          .running = attempt->running,
                                          .last_seq = attempt->report_count};
    }
    worker->link = SIM_JOINING;
    worker->heard_ms = sim->now_ms;
    sim_send(sim, worker->index, true, worker->session, worker->epoch, &message);
}

static void report_fill(struct sim *sim, const struct sim_attempt *attempt, size_t index,
                        struct rec_report *out)
{
    const struct sim_report *report = &attempt->reports[index];
    *out = (struct rec_report){.seq = index + 1, .time_us = sim_wall_us(sim), .step = report->step};
    switch (report->what) {
    case SIM_STARTED:
        out->kind = REPORT_STARTED;
        out->meta = "{\"pid\": 1}";
        break;
    case SIM_METRIC:
        out->kind = REPORT_METRIC;
        out->name = "loss";
        out->value = 1.0 / (double)report->step;
        break;
    case SIM_CHECKPOINT:
        out->kind = REPORT_CHECKPOINT;
        out->path = checkpoint_path(sim, attempt, report->step);
        out->meta = arena_printf(&sim->arena, "{\"loss\": %llu.5}",
                                 (unsigned long long)(report->step * 7919 % 13));
        break;
    case SIM_FINISHED:
        out->kind = REPORT_FINISHED;
        out->cause = cause_name(report->cause);
        break;
    }
}

/* Unacknowledged reports, again after a while. */
static void reports_send(struct sim *sim, struct sim_worker *worker, struct sim_attempt *attempt)
{
    bool news = attempt->report_count > attempt->acked;
    bool waited = attempt->sent_ms == 0 || sim->now_ms > attempt->sent_ms + 100;
    if (attempt->gone || !news || !waited)
        return;
    size_t count = min_u64(attempt->report_count - attempt->acked, 1 + rng_below(&sim->rng, 8));
    struct message message = {.tag = MSG_REPORT};
    struct msg_report *report = &message.u.report;
    report->attempt_id = attempt->attempt_id;
    report->reports = arena_alloc(&sim->arena, count * sizeof *report->reports);
    report->reports_count = count;
    for (size_t i = 0; i < count; i++)
        report_fill(sim, attempt, attempt->acked + i, &report->reports[i]);
    attempt->sent_ms = sim->now_ms;
    sim_send(sim, worker->index, true, worker->session, worker->epoch, &message);
}

static void beat_send(struct sim *sim, struct sim_worker *worker)
{
    if (sim->now_ms < worker->beat_ms)
        return;
    struct message message = {.tag = MSG_HEARTBEAT};
    message.u.heartbeat.worker_id = worker->worker_id;
    message.u.heartbeat.incarnation = worker->incarnation;
    worker->beat_ms = sim->now_ms + worker->heartbeat_ms;
    sim_send(sim, worker->index, true, worker->session, worker->epoch, &message);
}

/* ---- messages from the leader ------------------------------------------------------------ */

static void on_ack(struct sim_worker *worker, const struct msg_report_ack *ack)
{
    struct sim_attempt *attempt = worker_attempt(worker, ack->attempt_id);
    if (!attempt || attempt->gone || ack->seq <= attempt->acked)
        return;
    attempt->acked = min_u64(ack->seq, attempt->report_count);
    attempt->sent_ms = 0;
    if (!attempt->running && attempt->acked == attempt->report_count)
        attempt_forget(attempt);
}

static void on_stop(struct sim_worker *worker, const struct msg_stop *stop)
{
    struct sim_attempt *attempt = worker_attempt(worker, stop->attempt_id);
    struct err err;
    if (!attempt || attempt->gone || attempt->stopping)
        return;
    attempt->stopping = true;
    if (cause_from_name(stop->cause, &attempt->stop_cause, &err) < 0)
        attempt->stop_cause = CAUSE_CANCELLED;
}

void worker_on_message(struct sim *sim, struct sim_worker *worker, uint64_t epoch,
                       const struct message *message)
{
    struct sim_attempt *attempt;
    if (epoch < worker->epoch)
        return; /* of a leader that has been succeeded */
    worker->epoch = epoch;
    worker->heard_ms = sim->now_ms;
    switch ((int)message->tag) {
    case MSG_WORKER_WELCOME:
        worker->worker_id = message->u.worker_welcome.worker_id;
        worker->link = SIM_JOINED;
        break;
    case MSG_START:
        attempt_start(sim, worker, &message->u.start);
        break;
    case MSG_STOP:
        on_stop(worker, &message->u.stop);
        break;
    case MSG_REPORT_ACK:
        on_ack(worker, &message->u.report_ack);
        break;
    case MSG_ATTEMPT_FENCE:
        attempt = worker_attempt(worker, message->u.attempt_fence.attempt_id);
        if (attempt && !attempt->gone)
            attempt_forget(attempt);
        break;
    case MSG_CHECKPOINT_DROP:
        *sim_file(sim, message->u.checkpoint_drop.path) = false;
        break;
    case MSG_REFUSED:
        worker_cut(sim, worker);
        break;
    default:
        break;
    }
}

/* ---- faults and rounds ------------------------------------------------------------------- */

/* The node goes down with all its processes; its disk may go as well. */
static void node_lose(struct sim *sim, struct sim_worker *worker)
{
    bool disk = sim_chance(sim, sim->chances.disk_loss);
    for (size_t i = 0; i < worker->attempt_count; i++) {
        struct sim_attempt *attempt = &worker->attempts[i];
        if (disk)
            attempt_forget(attempt);
        else if (attempt->running)
            report_add(attempt, SIM_FINISHED, CAUSE_SHEPHERD_LOST);
    }
    if (disk)
        worker->attempt_count = 0; /* also what it remembered of ended ones */
    sim_session_cut(sim, worker->index);
    worker->link = SIM_DOWN;
    worker->incarnation = rng_next(&sim->rng);
    worker->up_ms = sim->now_ms + rng_below(&sim->rng, 6000);
    sim->result->nodes_lost++;
}

static void faults(struct sim *sim, struct sim_worker *worker)
{
    if (worker->link == SIM_DOWN)
        return;
    if (sim_chance(sim, sim->chances.node_loss)) {
        node_lose(sim, worker);
    } else if (sim_chance(sim, sim->chances.daemon_restart)) {
        worker->incarnation = rng_next(&sim->rng); /* shepherds go on */
        worker_cut(sim, worker);
        worker->up_ms += rng_below(&sim->rng, 4000);
        sim->result->daemon_restarts++;
    } else if (sim_chance(sim, sim->chances.cut)) {
        worker_cut(sim, worker);
        worker->up_ms += rng_below(&sim->rng, 3000);
        sim->result->cut++;
    }
}

void worker_round(struct sim *sim, struct sim_worker *worker)
{
    faults(sim, worker);
    if (worker->link == SIM_DOWN && sim->now_ms >= worker->up_ms)
        worker->link = SIM_AWAY;
    if (worker->link == SIM_DOWN)
        return;
    for (size_t i = 0; i < worker->attempt_count; i++)
        attempt_step(sim, &worker->attempts[i]);
    bool silent = sim->now_ms > worker->heard_ms + worker->lease_ms / 2;
    if (worker->link == SIM_AWAY && sim->now_ms >= worker->up_ms)
        join_send(sim, worker);
    else if (worker->link != SIM_AWAY && silent)
        worker_cut(sim, worker);
    if (worker->link != SIM_JOINED)
        return;
    beat_send(sim, worker);
    for (size_t i = 0; i < worker->attempt_count; i++)
        reports_send(sim, worker, &worker->attempts[i]);
}
