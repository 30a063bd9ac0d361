/* check.c - what must be true between steps. Cheap: workers and counts; thorough: every job. */
#include "coordinator/core/state.h"

#define BROKEN(statement, ...) \
    do { \
        if (!(statement)) \
            return arena_printf(arena, __VA_ARGS__); \
    } while (0)

typedef unsigned long long ull; /* only for printf */

/* Invariant 2: what is given away is the sum over parts, and no more than there is. */
static const char *worker_check(const struct worker *worker, struct arena *arena)
{
    struct policy_need sum = {0};
    size_t count = 0;
    bool exclusive = false;
    for (const struct part *part = worker->parts; part; part = part->next) {
        const struct attempt *attempt = part->attempt;
        struct policy_need need = job_need(attempt->job, part->ranks);
        sum.cores += need.cores;
        sum.memory_bytes += need.memory_bytes;
        sum.gpus += need.gpus;
        count++;
        exclusive |= attempt->job->class->ask.exclusive;
        BROKEN(part->worker == worker && !part->ended, "attempt %llu is listed by worker %llu",
               (ull)attempt->attempt_id, (ull)worker->worker_id);
        BROKEN(attempt->job->attempt == attempt,
               "invariant 1: job %llu has another attempt beside %llu", (ull)attempt->job->job_id,
               (ull)attempt->attempt_id);
    }
    BROKEN(count == worker->part_count && sum.cores == worker->cores_used &&
               sum.memory_bytes == worker->memory_used && sum.gpus == worker->gpus_used,
           "invariant 2: worker %llu miscounts what it has given away", (ull)worker->worker_id);
    BROKEN(worker->shrunk || (sum.cores <= worker->cores &&
                              sum.memory_bytes <= worker->memory_bytes &&
                              sum.gpus <= worker->gpus),
           "invariant 2: worker %llu is overbooked", (ull)worker->worker_id);
    BROKEN(worker->taken == exclusive && (!exclusive || count == 1),
           "invariant 2: worker %llu shares with an exclusive job", (ull)worker->worker_id);
    return NULL;
}

/* Its parts are its ranks, on as many workers, and those that live are listed there. */
static const char *attempt_check(const struct attempt *attempt, struct arena *arena)
{
    const struct job *job = attempt->job;
    uint64_t ranks = 0;
    size_t live = 0;
    for (size_t i = 0; i < attempt->part_count; i++) {
        const struct part *part = &attempt->parts[i];
        const struct part *listed = part->worker->parts;
        BROKEN(part->attempt == attempt && part->node == i && part->first_rank == ranks &&
                   part->ranks > 0 && attempt_part_on(attempt, part->worker) == part,
               "attempt %llu: node %zu is out of order", (ull)attempt->attempt_id, i);
        while (listed && listed != part)
            listed = listed->next;
        BROKEN((listed == part) == !part->ended,
               "invariant 2: node %zu of attempt %llu and its worker do not agree", i,
               (ull)attempt->attempt_id);
        ranks += part->ranks;
        live += !part->ended;
    }
    BROKEN(ranks == job->ranks && live == attempt->live_count && live > 0,
           "attempt %llu has %llu of %u ranks and %zu live nodes", (ull)attempt->attempt_id,
           (ull)ranks, job->ranks, live);
    return NULL;
}

static const char *edges_check(const struct job *job, struct arena *arena)
{
    size_t waiting = 0;
    for (size_t i = 0; i < job->edge_count; i++) {
        const struct edge *edge = &job->edges[i];
        waiting += edge->state == EDGE_WAITING;
        BROKEN(edge->state != EDGE_BROKEN, "job %llu lives with a broken dependency",
               (ull)job->job_id);
        BROKEN(edge->state != EDGE_WAITING ||
                   (edge->parent && !job_state_is_terminal(edge->parent->state)),
               "job %llu waits for job %llu, which has ended", (ull)job->job_id,
               (ull)edge->parent_id);
        BROKEN(!edge->reads || edge->parent, "job %llu reads from job %llu, which is gone",
               (ull)job->job_id, (ull)edge->parent_id);
    }
    BROKEN(waiting > 0 || !input_open(job),
           "invariant 8: job %llu waits for no trial, and has not chosen one", (ull)job->job_id);
    BROKEN(waiting == job->edges_waiting, "job %llu miscounts its parents", (ull)job->job_id);
    BROKEN((job->state == JOB_WAITING) == (waiting > 0),
           "invariant 8: job %llu is %s with %zu parents to wait for", (ull)job->job_id,
           job_state_name(job->state), waiting);
    return NULL;
}

static const char *checkpoints_check(const struct job *job, struct arena *arena)
{
    BROKEN(job->checkpoint_count <= CHECKPOINTS_MAX && job->artifact_count <= ARTIFACTS_MAX &&
               job->drop_count <= DROPS_MAX,
           "invariant 9: job %llu holds too many products", (ull)job->job_id);
    for (size_t i = 0; i < job->checkpoint_count; i++)
        BROKEN(job->checkpoints[i].removed_at == 0 && job->checkpoints[i].path[0],
               "invariant 7: job %llu could resume from a removed checkpoint", (ull)job->job_id);
    return NULL;
}

static const char *job_check(const struct job *job, struct arena *arena)
{
    bool terminal = job_state_is_terminal(job->state);
    size_t readers = 0;
    for (const struct edge *edge = job->children; edge; edge = edge->next)
        readers += edge->reads;
    BROKEN(readers == job->readers, "job %llu miscounts its readers", (ull)job->job_id);
    BROKEN(terminal == (job->ended_at != 0), "job %llu is %s and ended_at does not agree",
           (ull)job->job_id, job_state_name(job->state));
    BROKEN(job_state_has_attempt(job->state) == (job->attempt != NULL),
           "invariant 1: job %llu is %s and its attempt does not agree", (ull)job->job_id,
           job_state_name(job->state));
    BROKEN(!terminal || job->readers, "job %llu has ended and nobody reads from it",
           (ull)job->job_id);
    BROKEN((job->state == JOB_READY && !job->held) == job->node.queued,
           "job %llu is %s and its place in the queue does not agree", (ull)job->job_id,
           job_state_name(job->state));
    BROKEN((job->state == JOB_BACKOFF) == (job->timer.slot != 0), "job %llu: timer of a backoff",
           (ull)job->job_id);
    BROKEN(terminal == (job->class == NULL), "job %llu: class", (ull)job->job_id);
    const char *broken = checkpoints_check(job, arena);
    if (!broken && job->attempt)
        broken = attempt_check(job->attempt, arena);
    return broken || terminal ? broken : edges_check(job, arena);
}

static const char *counts_check(const struct core *core, struct arena *arena)
{
    uint64_t live = 0, queued = 0, in_classes = 0;
    for (int state = 1; state < JOB_STATE_END; state++)
        live += core->counts.jobs_by_state[state];
    BROKEN(live == core->live_count, "live jobs are miscounted: %llu, %llu", (ull)live,
           (ull)core->live_count);
    BROKEN(live <= core->config.jobs_max, "invariant 9: too many live jobs");
    BROKEN(core->worker_count <= core->config.workers_max, "invariant 9: too many workers");
    BROKEN(HASH_COUNT(core->submits) <= CORE_SUBMITS_MAX, "invariant 9: too many submits");
    for (size_t i = 0; i < core->class_count; i++) {
        BROKEN(core->classes[i]->index == i && core->classes[i]->job_count > 0,
               "class %zu is empty or misplaced", i);
        queued += core->classes[i]->queue.count;
        in_classes += core->classes[i]->job_count;
    }
    BROKEN(in_classes == live, "classes hold %llu of %llu live jobs", (ull)in_classes, (ull)live);
    BROKEN(queued <= core->counts.jobs_by_state[JOB_READY], "more jobs are queued than ready");
    return NULL;
}

/* What is used is what runs; more only where the cap came later than the attempts. */
static const char *limit_check(const struct core *core, const struct limit *limit,
                               struct arena *arena)
{
    uint64_t used = 0, cores = 0, gpus = 0;
    for (const struct attempt *attempt = core->attempts; attempt; attempt = attempt->hh.next) {
        const struct class *class = attempt->job->class;
        for (size_t i = 0; i < class->limit_count; i++) {
            bool counts = class->limits[i] == limit;
            used += counts;
            cores += counts ? attempt->charge.cores : 0;
            gpus += counts ? attempt->charge.gpus : 0;
        }
    }
    BROKEN(cores == limit->cores_used && gpus == limit->gpus_used,
           "limit %llu/%llu miscounts cores or GPUs", (ull)limit->key.kind, (ull)limit->key.id);
    BROKEN(limit->over || !limit_is_over(limit), "limit %llu/%llu is exceeded",
           (ull)limit->key.kind, (ull)limit->key.id);
    BROKEN(used == limit->jobs_used && limit->class_count > 0,
           "limit %llu/%llu: %llu of %llu jobs run and %llu are counted", (ull)limit->key.kind,
           (ull)limit->key.id, (ull)used, (ull)limit->jobs_max, (ull)limit->jobs_used);
    return NULL;
}

const char *core_check(const struct core *core, bool thorough, struct arena *arena)
{
    const char *broken = counts_check(core, arena);
    for (size_t i = 0; !broken && i < core->worker_count; i++)
        broken = worker_check(core->workers[i], arena);
    for (size_t i = 0; !broken && i < core->limit_count; i++)
        broken = limit_check(core, core->limits[i], arena);
    if (!broken)
        broken = sweeps_check(core, arena);
    if (!broken && thorough)
        broken = snapshots_check(core, arena);
    if (!thorough)
        return broken;
    const struct job *job, *next;
    HASH_ITER(hh_id, core->jobs, job, next)
    {
        if (!broken)
            broken = job_check(job, arena);
    }
    return broken;
}
