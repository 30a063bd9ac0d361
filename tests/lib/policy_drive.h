/* policy_drive.h - a small cluster that lives through time under a policy.
 *
 * Jobs are submitted, started where the plan says, and end; after every such moment the policy
 * plans once. Every plan is verified before it is applied: a policy that overbooks fails here.
 * Each live job is a class of its own, so nothing rests on how the core groups them. */
#ifndef ATHANOR_TESTS_POLICY_DRIVE_H
#define ATHANOR_TESTS_POLICY_DRIVE_H

#include "common/base/mem.h"
#include "coordinator/policy/policy.h"

#include <string.h>

enum drive_state { DRIVE_FUTURE = 0, DRIVE_WAITING, DRIVE_RUNNING, DRIVE_STOPPING, DRIVE_ENDED };

struct drive_job {
    struct policy_class ask; /* what its class says of it */
    int64_t key;
    uint64_t submit_ms, run_ms;
    uint64_t stop_ms; /* how long it takes to stop */
    bool evictable;
    /* out */
    uint64_t start_ms;    /* of its last start */
    uint64_t promised_ms; /* its first firm reservation; POLICY_NEVER: none yet */
    uint64_t latest_promise_ms;
    uint64_t evictions;
    /* inner; job_id is its index + 1 */
    enum drive_state state;
    uint64_t ends_ms; /* really */
    struct policy_share *shares;
    size_t share_count;
};

struct drive {
    const struct policy *policy;
    struct policy_worker *workers; /* free, idle, taken are kept up to date */
    size_t worker_count;
    struct drive_job *jobs; /* in order of submit */
    size_t job_count;
    uint64_t now_ms, passes;
    /* inner */
    size_t submitted;
    size_t *live; /* jobs: class i of the view is job live[i] */
    size_t live_count;
    size_t *changed;
    struct policy_class *classes;
    struct arena arena;
};

static inline bool drive_next_job(const void *core, size_t class_index,
                                  const struct policy_job *after, struct policy_job *out)
{
    const struct drive *drive = core;
    const struct drive_job *job = &drive->jobs[drive->live[class_index]];
    if (after || job->state != DRIVE_WAITING)
        return false;
    *out = (struct policy_job){.job_id = drive->live[class_index] + 1, .key = job->key};
    return true;
}

static inline bool drive_allows(const void *core, size_t class_index, size_t worker_index,
                                uint64_t start_ms, struct policy_fit *out)
{
    (void)core, (void)class_index, (void)worker_index, (void)start_ms;
    *out = (struct policy_fit){0};
    return true;
}

static inline size_t drive_running(const void *core, struct arena *arena,
                                   const struct policy_running **out)
{
    const struct drive *drive = core;
    struct policy_running *list = arena_alloc(arena, drive->live_count * sizeof *list);
    size_t count = 0;
    for (size_t i = 0; i < drive->live_count; i++) { /* live is in order of index, so of id */
        const struct drive_job *job = &drive->jobs[drive->live[i]];
        if (job->state != DRIVE_RUNNING && job->state != DRIVE_STOPPING)
            continue;
        bool stopping = job->state == DRIVE_STOPPING;
        uint64_t limit = job->ask.wall_time_ms;
        list[count++] =
            (struct policy_running){.job_id = drive->live[i] + 1,
                                    .class_index = i,
                                    .shares = job->shares,
                                    .share_count = job->share_count,
                                    .ends_ms = stopping                ? job->ends_ms
                                               : limit == POLICY_NEVER ? POLICY_NEVER
                                                                       : job->start_ms + limit,
                                    .stop_ms = job->stop_ms,
                                    .lost_ms = (drive->now_ms - job->start_ms) * job->ask.ranks,
                                    .evictable = job->evictable && !stopping,
                                    .stopping = stopping};
    }
    *out = list;
    return count;
}

static inline void drive_occupy(struct drive *drive, const struct drive_job *job, bool occupy)
{
    uint64_t ranks = 0;
    CHECK(job->share_count >= job->ask.nodes_min && job->share_count <= job->ask.nodes_max);
    for (size_t i = 0; i < job->share_count; i++) {
        struct policy_worker *worker = &drive->workers[job->shares[i].worker_index];
        struct policy_need *free = &worker->free;
        uint64_t n = job->shares[i].ranks;
        ranks += n;
        CHECK(n > 0 && (!job->ask.ranks_per_node || n <= job->ask.ranks_per_node));
        if (!occupy) {
            free->cores += n * job->ask.rank.cores;
            free->memory_bytes += n * job->ask.rank.memory_bytes;
            free->gpus += n * job->ask.rank.gpus;
            worker->idle = free->cores == worker->total.cores;
            worker->taken = false;
            continue;
        }
        CHECK(!worker->taken && (!job->ask.exclusive || worker->idle));
        CHECK(free->cores >= n * job->ask.rank.cores);
        CHECK(free->memory_bytes >= n * job->ask.rank.memory_bytes);
        CHECK(free->gpus >= n * job->ask.rank.gpus);
        free->cores -= n * job->ask.rank.cores;
        free->memory_bytes -= n * job->ask.rank.memory_bytes;
        free->gpus -= n * job->ask.rank.gpus;
        worker->idle = false;
        worker->taken = job->ask.exclusive;
    }
    CHECK(ranks == job->ask.ranks);
}

static inline void drive_place(struct drive *drive, const struct policy_placement *placement)
{
    struct drive_job *job = &drive->jobs[placement->job_id - 1];
    CHECK(job->state == DRIVE_WAITING);
    job->shares = mem_array(placement->share_count, sizeof *job->shares);
    memcpy(job->shares, placement->shares, placement->share_count * sizeof *job->shares);
    job->share_count = placement->share_count;
    drive_occupy(drive, job, true);
    job->state = DRIVE_RUNNING;
    job->start_ms = drive->now_ms;
    job->ends_ms = drive->now_ms + job->run_ms;
}

static inline void drive_evict(struct drive *drive, const struct policy_eviction *eviction)
{
    struct drive_job *job = &drive->jobs[eviction->job_id - 1];
    const struct drive_job *gainer = &drive->jobs[eviction->for_job_id - 1];
    CHECK(job->state == DRIVE_RUNNING && job->evictable);
    CHECK(gainer->state == DRIVE_WAITING && gainer->ask.evicts);
    CHECK(job->ask.preemption < gainer->ask.preemption);
    job->state = DRIVE_STOPPING;
    job->evictions++;
    job->ends_ms = min_u64(job->ends_ms, drive->now_ms + job->stop_ms);
}

static inline void drive_pass(struct drive *drive)
{
    arena_reset(&drive->arena);
    for (size_t i = 0; i < drive->live_count; i++) {
        drive->classes[i] = drive->jobs[drive->live[i]].ask;
        drive->classes[i].ready_count = drive->jobs[drive->live[i]].state == DRIVE_WAITING;
    }
    struct policy_view view = {.core = drive,
                               .now_ms = drive->now_ms,
                               .classes = drive->classes,
                               .class_count = drive->live_count,
                               .workers = drive->workers,
                               .worker_count = drive->worker_count,
                               .changed = drive->changed,
                               .next_job = drive_next_job,
                               .allows = drive_allows,
                               .running = drive_running};
    struct policy_plan plan = {.arena = &drive->arena};
    plan.verdicts = arena_alloc(&drive->arena, drive->live_count * sizeof *plan.verdicts);
    drive->policy->plan(&view, &plan);
    drive->passes++;
    for (size_t i = 0; i < plan.reservation_count; i++) {
        const struct policy_reservation *reservation = &plan.reservations[i];
        struct drive_job *job = &drive->jobs[reservation->job_id - 1];
        if (!reservation->firm)
            continue;
        job->promised_ms = min_u64(job->promised_ms, reservation->start_ms);
        job->latest_promise_ms = reservation->start_ms;
    }
    for (size_t i = 0; i < plan.placement_count; i++)
        drive_place(drive, &plan.placements[i]);
    for (size_t i = 0; i < plan.eviction_count; i++)
        drive_evict(drive, &plan.evictions[i]);
}

/* What was evicted before it was done waits again. */
static inline void drive_end_due(struct drive *drive)
{
    size_t kept = 0;
    for (size_t i = 0; i < drive->live_count; i++) {
        struct drive_job *job = &drive->jobs[drive->live[i]];
        bool holds = job->state == DRIVE_RUNNING || job->state == DRIVE_STOPPING;
        if (holds && job->ends_ms <= drive->now_ms) {
            drive_occupy(drive, job, false);
            mem_free(job->shares);
            job->shares = NULL;
            bool done = job->ends_ms >= job->start_ms + job->run_ms;
            job->state = done ? DRIVE_ENDED : DRIVE_WAITING;
        }
        if (job->state != DRIVE_ENDED)
            drive->live[kept++] = drive->live[i];
    }
    drive->live_count = kept;
}

static inline uint64_t drive_next_ms(const struct drive *drive)
{
    uint64_t next =
        drive->submitted < drive->job_count ? drive->jobs[drive->submitted].submit_ms : UINT64_MAX;
    for (size_t i = 0; i < drive->live_count; i++) {
        const struct drive_job *job = &drive->jobs[drive->live[i]];
        if (job->state == DRIVE_RUNNING || job->state == DRIVE_STOPPING)
            next = min_u64(next, job->ends_ms);
    }
    return next;
}

/* Until every job has ended, or nothing can happen any more; returns how many have not. */
static inline size_t drive_run(struct drive *drive)
{
    drive->live = mem_array(drive->job_count + 1, sizeof *drive->live);
    drive->changed = mem_array(drive->worker_count + 1, sizeof *drive->changed);
    drive->classes = mem_array(drive->job_count + 1, sizeof *drive->classes);
    for (size_t i = 0; i < drive->job_count; i++) {
        drive->jobs[i].state = DRIVE_FUTURE;
        drive->jobs[i].promised_ms = drive->jobs[i].latest_promise_ms = POLICY_NEVER;
        drive->jobs[i].evictions = 0;
    }
    for (uint64_t next = drive_next_ms(drive); next != UINT64_MAX; next = drive_next_ms(drive)) {
        drive->now_ms = next;
        drive_end_due(drive);
        for (;
             drive->submitted < drive->job_count && drive->jobs[drive->submitted].submit_ms <= next;
             drive->submitted++) {
            drive->jobs[drive->submitted].state = DRIVE_WAITING;
            drive->live[drive->live_count++] = drive->submitted;
        }
        drive_pass(drive);
    }
    size_t left = drive->live_count;
    mem_free(drive->live);
    mem_free(drive->changed);
    mem_free(drive->classes);
    arena_done(&drive->arena);
    return left;
}

#endif
