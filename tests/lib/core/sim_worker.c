/* sim_worker.c - nodes: a daemon that joins, beats and relays, shepherds that outlive it.
 *
 * All times of a node are of its own steady clock, which may run slow or fast. */
#include "tests/lib/core/sim_inner.h"

#include <stdio.h>
#include <string.h>

#define RESEND_MS 100u
#define WINDOW 24u /* reports ahead of the acknowledgements */

static uint64_t node_ms(const struct sim *sim, const struct sim_worker *worker)
{
    return clock_ms(sim, &worker->clock);
}

static void size_draw(struct sim *sim, struct sim_worker *worker)
{
    bool sturdy = worker->index < SIM_STURDY;
    worker->cores = sim_between(sim, sturdy ? 4 : 2, 8);
    worker->gpus = sturdy || rng_below(&sim->rng, 2) ? 2 : 0;
    worker->zone = sturdy || rng_below(&sim->rng, 3) == 0 ? "eu"
                   : rng_below(&sim->rng, 2)              ? "us"
                                                          : NULL;
    worker->small = !sturdy && rng_below(&sim->rng, 2);
    worker->slow = !sturdy && rng_below(&sim->rng, 2);
    worker->is_met = sturdy || rng_below(&sim->rng, 2);
}

void worker_init(struct sim *sim, uint32_t index)
{
    struct sim_worker *worker = &sim->workers[index];
    worker->index = index;
    snprintf(worker->name, sizeof worker->name, "w%u", index);
    worker->link = SIM_AWAY;
    worker->incarnation = rng_next(&sim->rng);
    worker->target = (uint32_t)rng_below(&sim->rng, sim->swarm.coordinators);
    worker->model = index < SIM_STURDY || rng_below(&sim->rng, 2) ? "Sim A100" : "Sim H100";
    size_draw(sim, worker);
    worker->heartbeat_ms = sim->config.heartbeat_ms;
    worker->lease_ms = sim->config.lease_ms;
}

static struct sim_attempt *attempt_of(struct sim_worker *worker, uint64_t attempt_id)
{
    for (size_t i = 0; i < worker->attempt_count; i++)
        if (worker->attempts[i].attempt_id == attempt_id)
            return &worker->attempts[i];
    return NULL;
}

void worker_done(struct sim_worker *worker)
{
    mem_free(worker->attempts);
}

/* The next coordinator of its list is tried after a moment. */
void worker_cut(struct sim *sim, struct sim_worker *worker)
{
    if (worker->link == SIM_OFF || worker->link == SIM_AWAY)
        return;
    worker->link = SIM_AWAY;
    worker->target = (worker->target + 1) % sim->swarm.coordinators;
    worker->up_ms = node_ms(sim, worker) + rng_below(&sim->rng, 100);
}

bool worker_is_clean(const struct sim_worker *worker)
{
    bool clean = worker->link == SIM_JOINED;
    if (worker->for_ever)
        return true;
    for (size_t i = 0; i < worker->attempt_count; i++)
        clean &= worker->attempts[i].gone && !worker->attempts[i].running;
    return clean;
}

/* ---- what attempts really do ------------------------------------------------------------- */

struct sim_truth *sim_truth(const struct sim *sim, uint64_t attempt_id, uint64_t node)
{
    struct sim_truth *truth = attempt_id < sim->truth_count ? sim->truths[attempt_id] : NULL;
    while (truth && truth->node != node)
        truth = truth->next;
    return truth;
}

static void truths_grow(struct sim *sim, uint64_t attempt_id)
{
    CHECK(attempt_id < 1u << 20);
    if (attempt_id < sim->truth_count)
        return;
    size_t count = 2 * attempt_id + 64;
    sim->truths = mem_grow(sim->truths, count, sizeof *sim->truths);
    memset(sim->truths + sim->truth_count, 0, (count - sim->truth_count) * sizeof *sim->truths);
    sim->truth_count = count;
}

static struct sim_truth *truth_get(struct sim *sim, const struct msg_start *start, uint32_t worker)
{
    truths_grow(sim, start->attempt_id);
    struct sim_truth *truth = sim_truth(sim, start->attempt_id, start->node);
    if (!truth) {
        truth = mem_zalloc(sizeof *truth);
        truth->attempt_id = start->attempt_id;
        truth->job_id = start->job_id;
        truth->node = start->node;
        truth->worker = worker;
        truth->next = sim->truths[start->attempt_id];
        sim->truths[start->attempt_id] = truth;
    }
    if (truth->job_id != start->job_id || truth->worker != worker)
        sim_violation(sim, "invariant 1: attempt %llu was of job %llu on w%u, now of %llu on w%u",
                      (unsigned long long)start->attempt_id, (unsigned long long)truth->job_id,
                      truth->worker, (unsigned long long)start->job_id, worker);
    return truth;
}

static void report_add(struct sim_attempt *attempt, enum sim_report_what what, enum cause cause)
{
    struct sim_truth *truth = attempt->truth;
    VEC_RESERVE(truth->reports, truth->count, truth->capacity);
    truth->reports[truth->count++] =
        (struct sim_report){.what = what, .step = attempt->step, .cause = cause};
    if (what == SIM_FINISHED)
        attempt->running = attempt->waiting = false;
}

/* Some programs ignore the resume point and begin anew. */
static uint64_t first_step(struct sim *sim, const struct msg_start *start)
{
    unsigned long long step = 0;
    if (!*start->resume_path)
        return 0;
    sscanf(strrchr(start->resume_path, '/') + 1, "%llu", &step);
    return rng_below(&sim->rng, 5) == 0 ? 0 : step;
}

/* The daemon compares the manifest with the hash of START: an attempt that began anew, or one
 * that was given up and still runs somewhere, may have written over the files. */
static bool resume_is_whole(struct sim *sim, const struct msg_start *start)
{
    uint64_t saved_by;
    if (!*start->resume_path)
        return true;
    const struct sim_file *file = sim_file(sim, start->resume_path);
    memcpy(&saved_by, start->resume_content.bytes, sizeof saved_by);
    return file->there && file->content == saved_by;
}

/* ---- copies ------------------------------------------------------------------------------ */

static void copy_forget(struct sim_worker *worker, size_t index)
{
    worker->copy_count--;
    memmove(worker->copies + index, worker->copies + index + 1,
            (worker->copy_count - index) * sizeof *worker->copies);
    worker->copies_told = false;
}

/* Whether it is at its path only a real worker can see: here it is drawn. */
static void copy_fetch(struct sim *sim, struct sim_worker *worker, const struct hash *content)
{
    for (size_t i = 0; i < worker->copy_count; i++)
        if (hash_equal(&worker->copies[i].content, content))
            return;
    if (rng_below(&sim->rng, 2))
        return;
    if (worker->copy_count == SIM_COPIES)
        copy_forget(worker, 0);
    worker->copies[worker->copy_count++] =
        (struct sim_copy){*content, clock_us(sim, &worker->clock)};
    worker->copies_told = false;
    sim->result->copies++;
}

static void sources_take(struct sim *sim, struct sim_worker *worker, const struct msg_start *start)
{
    for (size_t i = 0; i < start->sources_count; i++) {
        judge_source(sim, worker, &start->sources[i]);
        copy_fetch(sim, worker, &start->sources[i].content);
    }
}

static struct rec_held_copy *copies_list(struct sim *sim, const struct sim_worker *worker,
                                         size_t *count)
{
    struct rec_held_copy *list = arena_alloc(&sim->arena, (SIM_COPIES + 1) * sizeof *list);
    *count = worker->copy_count;
    for (size_t i = 0; i < worker->copy_count; i++)
        list[i] = (struct rec_held_copy){.content = worker->copies[i].content,
                                         .size_bytes = 1,
                                         .fetched_us = worker->copies[i].fetched_us,
                                         .source = "w0"};
    if (sim_has_bug(sim, SIM_BUG_FALSE_COPY))
        list[(*count)++] = (struct rec_held_copy){
            .content = {{1, (unsigned char)worker->index}}, .size_bytes = 1, .fetched_us = 1,
            .source = "w0"};
    return list;
}

static uint64_t cores_busy(const struct sim_worker *worker)
{
    uint64_t busy = 0;
    for (size_t i = 0; i < worker->attempt_count; i++)
        busy += worker->attempts[i].running ? worker->attempts[i].cores : 0;
    return busy;
}

static void attempt_begin(struct sim *sim, struct sim_worker *worker, struct sim_attempt *attempt)
{
    attempt->waiting = false;
    attempt->running = true;
    attempt->next_ms = node_ms(sim, worker) + sim_between(sim, 1, 100);
    report_add(attempt, SIM_STARTED, CAUSE_NONE);
}

static void attempt_start(struct sim *sim, struct sim_worker *worker, const struct msg_start *start)
{
    uint64_t ranks = start->nodes_count ? start->nodes[start->node].ranks : start->ranks;
    if (attempt_of(worker, start->attempt_id))
        return; /* idempotent, and remembered when it is gone */
    judge_started(sim, worker, start);
    sources_take(sim, worker, start);
    struct sim_attempt attempt = {
        .node = start->node,
        .node_count = start->nodes_count,
        .attempt_id = start->attempt_id,
        .job_id = start->job_id,
        .truth = truth_get(sim, start, worker->index),
        .cores = ranks * start->cores,
        .gpus = ranks * start->gpus,
        .waiting = true,
        .step = first_step(sim, start),
        .hung = sim_fault(sim, SIM_FAULT_SHEPHERD_HANG),
        .wall_due_ms = start->wall_time_ms ? node_ms(sim, worker) + start->wall_time_ms : 0,
    };
    if (attempt.truth->stored)
        sim_violation(sim, "invariant 1: attempt %llu is started a second time",
                      (unsigned long long)start->attempt_id);
    attempt.truth->count = 0; /* of a start that nobody heard of: its node has lost its disk */
    attempt.steps = attempt.step + sim_between(sim, 1, 20);
    attempt.deaf = attempt.hung && rng_below(&sim->rng, 2);
    bool whole = resume_is_whole(sim, start);
    sim->result->resumes_refused += !whole;
    if (!whole)
        report_add(&attempt, SIM_FINISHED, CAUSE_STALE_CHECKPOINT);
    else if (attempt.cores > worker->cores) /* it came back as a smaller machine */
        report_add(&attempt, SIM_FINISHED, CAUSE_LAUNCH_FAILED);
    else if (sim_fault(sim, SIM_FAULT_NODE_UNFIT)) {
        report_add(&attempt, SIM_FINISHED, CAUSE_LAUNCH_FAILED);
        attempt.truth->reports[attempt.truth->count - 1].node_fault = true;
    }
    VEC_RESERVE(worker->attempts, worker->attempt_count, worker->attempt_capacity);
    worker->attempts[worker->attempt_count++] = attempt;
}

/* The last thing a hung or stopped program does takes a while. */
static void attempt_stop(struct sim *sim, struct sim_worker *worker, struct sim_attempt *attempt,
                         enum cause cause)
{
    if (attempt->stopping || attempt->gone)
        return;
    attempt->stopping = true;
    attempt->stop_cause = cause;
    if (attempt->waiting)
        report_add(attempt, SIM_FINISHED, cause);
    else if (attempt->hung)
        attempt->next_ms = node_ms(sim, worker) + sim_between(sim, 50, 500);
}

/* Killed; while it dies it holds its cores. */
static void attempt_forget(struct sim *sim, struct sim_worker *worker, struct sim_attempt *attempt)
{
    attempt->gone = true;
    attempt->waiting = false;
    attempt->next_ms = node_ms(sim, worker) + rng_below(&sim->rng, 100);
}

static const char *checkpoint_path(struct sim *sim, uint64_t job_id, uint64_t step)
{
    return arena_printf(&sim->arena, "/job/%llu/%llu", (unsigned long long)job_id,
                        (unsigned long long)step);
}

static void checkpoint_save(struct sim *sim, struct sim_attempt *attempt)
{
    const char *path = checkpoint_path(sim, attempt->job_id, attempt->step);
    *sim_file(sim, path) = (struct sim_file){.there = true, .content = attempt->attempt_id};
    report_add(attempt, SIM_CHECKPOINT, CAUSE_NONE);
}

static void program_step(struct sim *sim, struct sim_attempt *attempt)
{
    static const enum cause failures[] = {CAUSE_EXIT, CAUSE_SIGNAL, CAUSE_OOM, CAUSE_STALLED,
                                          CAUSE_DIVERGED};
    attempt->step++;
    report_add(attempt, SIM_METRIC, CAUSE_NONE);
    if (attempt->step % 6 == 3)
        report_add(attempt, SIM_ARTIFACT, CAUSE_NONE);
    bool saves = attempt->node == 0; /* the others have their part in it */
    if (saves && (attempt->step % 4 == 0 || attempt->step == attempt->steps || attempt->save_now))
        checkpoint_save(sim, attempt);
    attempt->save_now = false;
    if (attempt->step >= attempt->steps)
        report_add(attempt, SIM_FINISHED, CAUSE_SUCCESS);
    else if (sim_fault(sim, SIM_FAULT_ATTEMPT_FAIL))
        report_add(attempt, SIM_FINISHED, failures[rng_below(&sim->rng, ARRAY_COUNT(failures))]);
    else if (sim_fault(sim, SIM_FAULT_SHEPHERD_CRASH))
        report_add(attempt, SIM_FINISHED, CAUSE_SHEPHERD_LOST);
}

/* The ranks of a gang begin together: each node waits until all others have begun. */
static bool gang_has_met(const struct sim *sim, const struct sim_attempt *attempt)
{
    for (uint64_t node = 0; node < attempt->node_count; node++) {
        const struct sim_truth *truth = sim_truth(sim, attempt->attempt_id, node);
        if (!truth || truth->count == 0)
            return false;
    }
    return true;
}

static void attempt_round(struct sim *sim, struct sim_worker *worker, struct sim_attempt *attempt)
{
    uint64_t now_ms = node_ms(sim, worker);
    if (attempt->waiting && cores_busy(worker) + attempt->cores <= worker->cores)
        attempt_begin(sim, worker, attempt);
    if (attempt->wall_due_ms && now_ms >= attempt->wall_due_ms && !attempt->deaf)
        attempt_stop(sim, worker, attempt, CAUSE_TIME_LIMIT);
    if (!attempt->running || now_ms < attempt->next_ms)
        return;
    if (attempt->gone) {
        attempt->running = false;
        return;
    }
    attempt->next_ms = now_ms + sim_between(sim, 1, 100);
    if (!attempt->stopping && !gang_has_met(sim, attempt))
        return;
    if (attempt->stopping)
        report_add(attempt, SIM_FINISHED, attempt->stop_cause);
    else if (!attempt->hung)
        program_step(sim, attempt);
}

/* ---- messages to the leader -------------------------------------------------------------- */

static void worker_send(struct sim *sim, const struct sim_worker *worker,
                        const struct message *message)
{
    net_send(sim, SIM_AT_WORKER + worker->index, SIM_AT_COORDINATOR + worker->target,
             worker->session, worker->epoch, message);
}

static void join_devices(struct sim *sim, const struct sim_worker *worker,
                         struct msg_worker_join *join)
{
    join->devices = arena_alloc(&sim->arena, worker->gpus * sizeof *join->devices);
    join->devices_count = worker->gpus;
    for (size_t i = 0; i < worker->gpus; i++)
        join->devices[i] = (struct rec_device){
            .device_index = i,
            .kind = "gpu",
            .model = worker->model,
            .uuid = "",
            .memory_bytes = 1};
}

static void join_labels(struct sim *sim, const struct sim_worker *worker,
                        struct msg_worker_join *join)
{
    struct rec_name_value *labels = arena_alloc(&sim->arena, 3 * sizeof *labels);
    join->labels = labels;
    labels[join->labels_count++] =
        (struct rec_name_value){.name = "vram", .value = worker->small ? "16" : "80"};
    if (worker->zone)
        labels[join->labels_count++] =
            (struct rec_name_value){.name = "zone", .value = worker->zone};
    if (worker->slow)
        labels[join->labels_count++] = (struct rec_name_value){.name = "slow", .value = "yes"};
}

static void join_held(struct sim *sim, const struct sim_worker *worker,
                      struct msg_worker_join *join)
{
    join->held = arena_alloc(&sim->arena, worker->attempt_count * sizeof *join->held);
    for (size_t i = 0; i < worker->attempt_count; i++) {
        struct sim_attempt *attempt = &worker->attempts[i];
        attempt->sent = attempt->acked;
        if (!attempt->gone)
            join->held[join->held_count++] =
                (struct rec_held_attempt){.attempt_id = attempt->attempt_id,
                                          .running = attempt->running || attempt->waiting,
                                          .last_seq = attempt->truth->count};
    }
}

/* Of every other worker that may be lost the time is limited, and what it says of it changes. */
static bool leaves(const struct sim_worker *worker)
{
    return worker->index >= SIM_STURDY && worker->index % 2;
}

static uint64_t ends_in_ms(const struct sim *sim, const struct sim_worker *worker)
{
    uint64_t phase = node_ms(sim, worker) / 1000 % 5;
    if (sim->healing)
        return 86400000ull * 3660; /* the clock may jump by an hour and more */
    if (phase == 0)
        return 200 + worker->incarnation % 2000;
    return phase == 2 ? 90000 + worker->incarnation % 3000 : 1000 + worker->incarnation % 4000;
}

static void join_send(struct sim *sim, struct sim_worker *worker)
{
    struct message message = {.tag = MSG_WORKER_JOIN};
    struct msg_worker_join *join = &message.u.worker_join;
    worker->session = sim->next_session++;
    *join = (struct msg_worker_join){.name = worker->name,
                                     .incarnation = worker->incarnation,
                                     .host = "sim",
                                     .cores = worker->cores,
                                     .memory_bytes = (uint64_t)16 << 30,
                                     .endpoint = worker->is_met ? "tcp://sim" : "",
                                     .public_key = worker->is_met ? SIM_PUBLIC_KEY : "",
                                     .topology = "{}",
                                     .ends_in_ms = leaves(worker) ? ends_in_ms(sim, worker) : 0,
                                     .open_ended = worker->incarnation % 2};
    join_devices(sim, worker, join);
    join_labels(sim, worker, join);
    join_held(sim, worker, join);
    join->copies = copies_list(sim, worker, &join->copies_count);
    worker->copies_told = true;
    worker->link = SIM_JOINING;
    worker->heard_ms = node_ms(sim, worker);
    worker_send(sim, worker, &message);
}

static void report_fill(struct sim *sim, const struct sim_worker *worker,
                        const struct sim_attempt *attempt, size_t index, struct rec_report *out)
{
    const struct sim_report *report = &attempt->truth->reports[index];
    *out = (struct rec_report){
        .seq = index + 1, .time_us = clock_us(sim, &worker->clock), .step = report->step};
    switch (report->what) {
    case SIM_STARTED:
        out->kind = REPORT_STARTED;
        out->meta = "{\"pid\": 1}";
        break;
    case SIM_METRIC:
        out->kind = REPORT_METRIC;
        out->name = "loss";
        out->value = (double)(1 + attempt->job_id * 7919 % 13) / (double)report->step;
        break;
    case SIM_ARTIFACT:
        out->kind = REPORT_ARTIFACT;
        out->name = SIM_ARTIFACT_NAME;
        out->path = checkpoint_path(sim, attempt->job_id, report->step);
        out->meta = "{\"kind\": \"file\"}";
        break;
    case SIM_CHECKPOINT:
        out->kind = REPORT_CHECKPOINT;
        out->path = checkpoint_path(sim, attempt->job_id, report->step);
        memcpy(out->content.bytes, &attempt->attempt_id, sizeof attempt->attempt_id);
        out->meta = arena_printf(&sim->arena, "{\"loss\": %llu.5}",
                                 (unsigned long long)(report->step * 7919 % 13));
        break;
    case SIM_FINISHED:
        out->kind = REPORT_FINISHED;
        out->cause = cause_name(report->cause);
        out->name = report->node_fault ? "node" : "";
        break;
    }
}

/* A part of the stream, ahead of the acknowledgements; all that is not acknowledged again after
 * a while. */
static void reports_send(struct sim *sim, struct sim_worker *worker, struct sim_attempt *attempt)
{
    uint64_t now_ms = node_ms(sim, worker);
    if (attempt->gone)
        return;
    if (attempt->sent > attempt->acked && now_ms > attempt->sent_ms + RESEND_MS)
        attempt->sent = attempt->acked;
    size_t waiting = attempt->truth->count - attempt->sent;
    if (!waiting || attempt->sent - attempt->acked >= WINDOW)
        return;
    size_t count = min_u64(waiting, sim_between(sim, 1, 8));
    struct message message = {.tag = MSG_REPORT};
    struct msg_report *report = &message.u.report;
    report->attempt_id = attempt->attempt_id;
    report->node = attempt->node;
    report->reports = arena_alloc(&sim->arena, count * sizeof *report->reports);
    report->reports_count = count;
    for (size_t i = 0; i < count; i++)
        report_fill(sim, worker, attempt, attempt->sent + i, &report->reports[i]);
    attempt->sent += count;
    attempt->sent_ms = now_ms;
    worker_send(sim, worker, &message);
}

static void beat_send(struct sim *sim, struct sim_worker *worker)
{
    uint64_t now_ms = node_ms(sim, worker);
    if (now_ms < worker->beat_ms)
        return;
    struct message message = {.tag = MSG_HEARTBEAT};
    message.u.heartbeat.worker_id = worker->worker_id;
    message.u.heartbeat.incarnation = worker->incarnation;
    if (leaves(worker) && now_ms / 500 % 2)
        message.u.heartbeat.ends_in_ms = ends_in_ms(sim, worker);
    worker->beat_ms = now_ms + worker->heartbeat_ms;
    worker_send(sim, worker, &message);
}

/* One at a time, again until it is acknowledged. */
static void node_report_send(struct sim *sim, struct sim_worker *worker)
{
    uint64_t now_ms = node_ms(sim, worker);
    struct message message = {.tag = MSG_NODE_REPORT};
    struct msg_node_report *report = &message.u.node_report;
    bool health = !worker->health_told || worker->ill != worker->ill_told;
    if (!worker->stamp_open && !health && !worker->incident)
        return;
    if (worker->stamp_open && now_ms < worker->told_ms + RESEND_MS)
        return;
    if (!worker->stamp_open) {
        worker->stamp_open = ++worker->stamp;
        worker->open_is_health = health;
        if (health) {
            worker->health_told = true;
            worker->ill_told = worker->ill;
        }
    }
    *report = (struct msg_node_report){.worker_id = worker->worker_id,
                                       .incarnation = worker->incarnation,
                                       .stamp = worker->stamp_open,
                                       .kind = worker->open_is_health ? "health" : "epilog",
                                       .text = "epilog exited with code 1",
                                       .severe = true};
    if (worker->open_is_health)
        report->text = worker->ill_told ? "disk: failed" : "";
    worker->told_ms = now_ms;
    worker_send(sim, worker, &message);
}

static void copies_send(struct sim *sim, struct sim_worker *worker)
{
    struct message message = {.tag = MSG_COPIES};
    struct msg_copies *out = &message.u.copies;
    if (worker->copy_count && rng_below(&sim->rng, 200) == 0 && !sim->healing)
        copy_forget(worker, 0); /* room for others */
    if (worker->copies_told)
        return;
    *out = (struct msg_copies){.worker_id = worker->worker_id,
                               .incarnation = worker->incarnation};
    out->copies = copies_list(sim, worker, &out->copies_count);
    worker->copies_told = true;
    worker_send(sim, worker, &message);
}

static void node_report_acked(struct sim_worker *worker, uint64_t stamp)
{
    if (!worker->stamp_open || stamp < worker->stamp_open)
        return;
    worker->stamp_open = 0;
    if (!worker->open_is_health)
        worker->incident = false;
}

/* A daemon that starts anew has forgotten what it told, and what it had to tell. */
static void node_reports_forget(struct sim_worker *worker)
{
    worker->stamp = worker->stamp_open = 0;
    worker->incident = false;
    worker->health_told = false;
}

/* As the daemon does: only when nothing is left here. */
static void leave(struct sim *sim, struct sim_worker *worker)
{
    struct message message = {.tag = MSG_WORKER_LEAVE};
    message.u.worker_leave.worker_id = worker->worker_id;
    message.u.worker_leave.incarnation = worker->incarnation;
    worker_send(sim, worker, &message);
    worker->incarnation = rng_next(&sim->rng);
    node_reports_forget(worker);
    worker_cut(sim, worker);
    worker->up_ms += rng_below(&sim->rng, 2000);
}

/* ---- messages from the leader ------------------------------------------------------------ */

static void on_ack(struct sim *sim, struct sim_worker *worker, const struct msg_report_ack *ack)
{
    struct sim_attempt *attempt = attempt_of(worker, ack->attempt_id);
    if (!attempt || attempt->gone || ack->node != attempt->node || ack->seq <= attempt->acked)
        return;
    attempt->acked = min_u64(ack->seq, attempt->truth->count);
    attempt->sent = max_u64(attempt->sent, attempt->acked);
    if (!attempt->running && !attempt->waiting && attempt->acked == attempt->truth->count)
        attempt_forget(sim, worker, attempt);
}

static void on_stop(struct sim *sim, struct sim_worker *worker, const struct msg_stop *stop)
{
    struct sim_attempt *attempt = attempt_of(worker, stop->attempt_id);
    enum cause cause;
    struct err err;
    if (!attempt || !(attempt->running || attempt->waiting))
        return;
    if (cause_from_name(stop->cause, &cause, &err) < 0)
        sim_violation(sim, "STOP with the unknown cause '%s'", stop->cause);
    else
        attempt_stop(sim, worker, attempt, cause);
}

/* Late ones must not take what a later attempt has saved at the same path. */
static void on_drop(struct sim *sim, const struct msg_checkpoint_drop *drop)
{
    struct sim_file *file = sim_file(sim, drop->path);
    uint64_t saved_by;
    memcpy(&saved_by, drop->content.bytes, sizeof saved_by);
    if (file->content == saved_by)
        file->there = false;
}

static void obey(struct sim *sim, struct sim_worker *worker, const struct message *message)
{
    struct sim_attempt *attempt;
    switch ((int)message->tag) {
    case MSG_WORKER_WELCOME:
        worker->worker_id = message->u.worker_welcome.worker_id;
        worker->link = SIM_JOINED;
        worker->stamp = max_u64(worker->stamp, message->u.worker_welcome.node_stamp);
        node_report_acked(worker, message->u.worker_welcome.node_stamp);
        break;
    case MSG_START:
        attempt_start(sim, worker, &message->u.start);
        break;
    case MSG_STOP:
        on_stop(sim, worker, &message->u.stop);
        break;
    case MSG_NODE_ACK:
        node_report_acked(worker, message->u.node_ack.stamp);
        break;
    case MSG_REPORT_ACK:
        on_ack(sim, worker, &message->u.report_ack);
        break;
    case MSG_CHECKPOINT_NOW:
        attempt = attempt_of(worker, message->u.checkpoint_now.attempt_id);
        if (attempt)
            attempt->save_now = true;
        break;
    case MSG_ATTEMPT_FENCE:
        attempt = attempt_of(worker, message->u.attempt_fence.attempt_id);
        if (attempt && !attempt->gone) {
            judge_fenced(sim, worker, attempt);
            attempt_forget(sim, worker, attempt);
        }
        break;
    case MSG_CHECKPOINT_DROP:
        on_drop(sim, &message->u.checkpoint_drop);
        break;
    case MSG_REFUSED:
        worker_cut(sim, worker);
        break;
    default:
        break;
    }
}

void worker_on_message(struct sim *sim, struct sim_worker *worker, uint64_t epoch,
                       const struct message *message)
{
    if (epoch < worker->epoch)
        return; /* of a leader that has been succeeded */
    worker->epoch = epoch;
    worker->heard_ms = node_ms(sim, worker);
    trace_line(sim, "w%u gets %s", worker->index, msg_name(message->tag));
    obey(sim, worker, message);
}

/* ---- faults and rounds ------------------------------------------------------------------- */

/* The node goes down with all its processes; its disk may go as well, and it may come back as
 * another machine. */
static void node_lose(struct sim *sim, struct sim_worker *worker)
{
    bool disk = sim_fault(sim, SIM_FAULT_DISK_LOSS);
    trace_line(sim, "w%u is lost%s", worker->index, disk ? " with its disk" : "");
    for (size_t i = 0; i < worker->attempt_count; i++) {
        struct sim_attempt *attempt = &worker->attempts[i];
        if (disk)
            attempt->gone = true;
        else if (!attempt->gone && (attempt->running || attempt->waiting))
            report_add(attempt, SIM_FINISHED,
                       attempt->waiting ? CAUSE_LAUNCH_FAILED : CAUSE_SHEPHERD_LOST);
        attempt->running = attempt->waiting = false;
    }
    if (disk) {
        worker->attempt_count = 0; /* also what it remembered of ended ones */
        worker->epoch = 0;
        worker->copy_count = 0;
        size_draw(sim, worker);
    }
    worker->link = SIM_OFF;
    worker->for_ever = worker->index >= SIM_STURDY && rng_below(&sim->rng, 4) == 0;
    worker->paused_until_ms = 0;
    worker->incarnation = rng_next(&sim->rng);
    node_reports_forget(worker);
    worker->up_ms = node_ms(sim, worker) + rng_below(&sim->rng, 6000);
}

/* Shepherds go on. */
static void daemon_restart(struct sim *sim, struct sim_worker *worker)
{
    trace_line(sim, "w%u: daemon restarts", worker->index);
    worker->incarnation = rng_next(&sim->rng);
    node_reports_forget(worker);
    worker->link = SIM_AWAY;
    worker->up_ms = node_ms(sim, worker) + rng_below(&sim->rng, 4000);
}

static void faults(struct sim *sim, struct sim_worker *worker)
{
    if (worker->link == SIM_OFF)
        return;
    if (sim_fault(sim, SIM_FAULT_NODE_LOSS)) {
        node_lose(sim, worker);
    } else if (sim_fault(sim, SIM_FAULT_DAEMON_RESTART)) {
        daemon_restart(sim, worker);
    } else if (sim_fault(sim, SIM_FAULT_DAEMON_PAUSE)) {
        worker->paused_until_ms = sim->now_ms + sim_between(sim, 50, 5000);
        trace_line(sim, "w%u: daemon is stopped until %llu", worker->index,
                   (unsigned long long)worker->paused_until_ms);
    } else if (sim_fault(sim, SIM_FAULT_CUT)) {
        worker_cut(sim, worker);
        worker->up_ms += rng_below(&sim->rng, 3000);
    } else if (sim_fault(sim, SIM_FAULT_NODE_ILL)) {
        worker->ill = !worker->ill;
    } else if (sim_fault(sim, SIM_FAULT_NODE_INCIDENT)) {
        worker->incident = true;
    } else if (worker_is_clean(worker) && sim_fault(sim, SIM_FAULT_DAEMON_LEAVE)) {
        leave(sim, worker);
    }
}

static void daemon_round(struct sim *sim, struct sim_worker *worker)
{
    uint64_t now_ms = node_ms(sim, worker);
    bool silent = now_ms > worker->heard_ms + worker->lease_ms / 2;
    if (worker->link == SIM_AWAY && now_ms >= worker->up_ms)
        join_send(sim, worker);
    else if (worker->link != SIM_AWAY && silent)
        worker_cut(sim, worker);
    if (worker->link != SIM_JOINED)
        return;
    beat_send(sim, worker);
    node_report_send(sim, worker);
    copies_send(sim, worker);
    for (size_t i = 0; i < worker->attempt_count; i++)
        reports_send(sim, worker, &worker->attempts[i]);
}

void worker_round(struct sim *sim, struct sim_worker *worker)
{
    faults(sim, worker);
    if (worker->link == SIM_OFF && !worker->for_ever && node_ms(sim, worker) >= worker->up_ms)
        worker->link = SIM_AWAY;
    if (worker->link == SIM_OFF)
        return;
    for (size_t i = 0; i < worker->attempt_count; i++)
        attempt_round(sim, worker, &worker->attempts[i]);
    if (worker->paused_until_ms <= sim->now_ms)
        daemon_round(sim, worker);
}

void worker_heal(struct sim *sim, struct sim_worker *worker)
{
    worker->paused_until_ms = min_u64(worker->paused_until_ms, sim->now_ms);
    worker->up_ms = min_u64(worker->up_ms, node_ms(sim, worker));
    worker->ill = false;
}
