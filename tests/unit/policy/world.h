/* world.h - a little cluster in plain arrays for one pass of a policy; jobs of a class in order
 * of their queue. */
#ifndef ATHANOR_TESTS_POLICY_WORLD_H
#define ATHANOR_TESTS_POLICY_WORLD_H

#include "common/base/buf.h"
#include "common/base/mem.h"
#include "coordinator/policy/policy.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define CLASSES_MAX 8
#define WORKERS_MAX 16
#define JOBS_MAX    64
#define RUNNING_MAX 64
#define LIMITS_MAX  3
#define SHARES_MAX  4
#define STOP        5u /* ms, that an eviction takes */

struct world {
    struct policy_class classes[CLASSES_MAX];
    struct policy_worker workers[WORKERS_MAX];
    struct policy_job jobs[CLASSES_MAX][JOBS_MAX];
    struct policy_limit limits[LIMITS_MAX];
    bool allowed[CLASSES_MAX][WORKERS_MAX];
    uint64_t unfit[CLASSES_MAX][WORKERS_MAX];        /* GPUs */
    uint64_t closed_until[CLASSES_MAX][WORKERS_MAX]; /* not allowed before */
    struct policy_running running[RUNNING_MAX];
    struct policy_share shares[RUNNING_MAX][SHARES_MAX];
    size_t running_count;
    size_t changed[WORKERS_MAX];
    uint64_t times[WORKERS_MAX];
    uint64_t running_asked;
    struct policy_view view;
    struct policy_plan plan;
    struct arena arena;
};

static inline bool world_next_job(const void *core, size_t class_index,
                                  const struct policy_job *after, struct policy_job *out)
{
    const struct world *w = core;
    for (uint64_t i = 0; i < w->classes[class_index].ready_count; i++) {
        const struct policy_job *job = &w->jobs[class_index][i];
        bool behind = !after || job->key < after->key ||
                      (job->key == after->key && job->job_id > after->job_id);
        if (behind) {
            *out = *job;
            return true;
        }
    }
    return false;
}

static inline bool world_allows(const void *core, size_t class_index, size_t worker_index,
                                uint64_t start_ms, struct policy_fit *out)
{
    const struct world *w = core;
    *out = (struct policy_fit){.gpus_unfit = w->unfit[class_index][worker_index]};
    return w->allowed[class_index][worker_index] &&
           start_ms >= w->closed_until[class_index][worker_index];
}

static inline size_t world_running(const void *core, struct arena *arena,
                                   const struct policy_running **out)
{
    (void)arena;
    struct world *w = (struct world *)core;
    w->running_asked++;
    *out = w->running;
    return w->running_count;
}

static inline void world_plan(struct world *w, const struct policy *policy)
{
    assert_non_null(policy);
    arena_reset(&w->arena);
    w->plan = (struct policy_plan){.arena = &w->arena};
    w->plan.verdicts = arena_alloc(&w->arena, CLASSES_MAX * sizeof *w->plan.verdicts);
    w->view.core = w;
    w->view.classes = w->classes;
    w->view.workers = w->workers;
    w->view.changed = w->changed;
    w->view.times = w->times;
    w->view.limits = w->limits;
    w->view.next_job = world_next_job;
    w->view.allows = world_allows;
    w->view.running = world_running;
    policy->plan(&w->view, &w->plan);
}

static inline struct policy_worker *world_worker(struct world *w, size_t index, uint64_t cores,
                                                 uint64_t gpus)
{
    w->workers[index] = (struct policy_worker){.worker_id = index + 1,
                                               .usable = true,
                                               .has_gpus = gpus > 0,
                                               .idle = true,
                                               .free = {cores, 100, gpus},
                                               .total = {cores, 100, gpus}};
    if (w->view.worker_count <= index)
        w->view.worker_count = index + 1;
    return &w->workers[index];
}

/* `ranks` ranks of so many cores and GPUs on one worker, without a limit in time. */
static inline struct policy_class *world_class(struct world *w, size_t index, uint32_t ranks,
                                               uint64_t cores, uint64_t gpus)
{
    w->classes[index] = (struct policy_class){.rank = {cores, 1, gpus},
                                              .ranks = ranks,
                                              .nodes_min = 1,
                                              .nodes_max = 1,
                                              .wall_time_ms = POLICY_NEVER,
                                              .charged_ms = POLICY_NEVER};
    if (w->view.class_count <= index)
        w->view.class_count = index + 1;
    return &w->classes[index];
}

static inline void world_job(struct world *w, size_t class_index, uint64_t job_id, int64_t key)
{
    uint64_t at = w->classes[class_index].ready_count++;
    assert_true(at < JOBS_MAX);
    w->jobs[class_index][at] = (struct policy_job){.job_id = job_id, .key = key};
}

/* A job of the class that runs with `ranks` on a worker; more workers with world_share. */
static inline struct policy_running *world_run(struct world *w, uint64_t job_id, size_t class_index,
                                               size_t worker_index, uint32_t ranks,
                                               uint64_t ends_ms)
{
    size_t at = w->running_count++;
    struct policy_running *running = &w->running[at];
    assert_true(w->running_count <= RUNNING_MAX);
    *running = (struct policy_running){.job_id = job_id,
                                       .class_index = class_index,
                                       .shares = w->shares[at],
                                       .ends_ms = ends_ms,
                                       .stop_ms = STOP};
    struct policy_worker *worker = &w->workers[worker_index];
    const struct policy_class *class = &w->classes[class_index];
    w->shares[at][running->share_count++] =
        (struct policy_share){.worker_index = worker_index, .ranks = ranks};
    assert_true(worker->free.cores >= ranks * class->rank.cores);
    worker->free.cores -= ranks * class->rank.cores;
    worker->free.memory_bytes -= ranks * class->rank.memory_bytes;
    worker->free.gpus -= ranks * class->rank.gpus;
    worker->idle = false;
    worker->taken |= class->exclusive;
    return running;
}

/* All that a plan says, as text. */
static inline void world_text(const struct world *w, struct buf *out)
{
    for (size_t i = 0; i < w->plan.placement_count; i++) {
        const struct policy_placement *p = &w->plan.placements[i];
        buf_printf(out, "place %llu of %zu:", (unsigned long long)p->job_id, p->class_index);
        for (size_t k = 0; k < p->share_count; k++)
            buf_printf(out, " %zux%u", p->shares[k].worker_index, p->shares[k].ranks);
        buf_putc(out, '\n');
    }
    for (size_t i = 0; i < w->plan.reservation_count; i++) {
        const struct policy_reservation *r = &w->plan.reservations[i];
        buf_printf(out, "reserve %llu at %llu firm %d:", (unsigned long long)r->job_id,
                   (unsigned long long)r->start_ms, r->firm);
        for (size_t k = 0; k < r->share_count; k++)
            buf_printf(out, " %zux%u", r->shares[k].worker_index, r->shares[k].ranks);
        buf_putc(out, '\n');
    }
    for (size_t i = 0; i < w->plan.eviction_count; i++)
        buf_printf(out, "evict %llu for %llu\n", (unsigned long long)w->plan.evictions[i].job_id,
                   (unsigned long long)w->plan.evictions[i].for_job_id);
    for (size_t i = 0; i < w->view.class_count; i++)
        buf_printf(out, "verdict %d %llu %d\n", w->plan.verdicts[i].block,
                   (unsigned long long)w->plan.verdicts[i].by, w->plan.verdicts[i].exhausted);
}

static inline int world_set_up(void **state)
{
    *state = mem_zalloc(sizeof(struct world));
    return 0;
}

static inline int world_tear_down(void **state)
{
    struct world *w = *state;
    arena_done(&w->arena);
    mem_free(w);
    return 0;
}

#define WORLD_TEST(name) cmocka_unit_test_setup_teardown(name, world_set_up, world_tear_down)

#endif
