/* sim_quota.c - quotas: operators set and lift them, the judge counts what runs against them. */
#include "tests/lib/core/sim_inner.h"

#include <stdio.h>
#include <string.h>

typedef unsigned long long ull; /* only for printf */

/* The scopes that operators use: one part each, a name or "*". */
static const struct {
    const char *part, *name;
} scopes[] = {{"user", "*"}, {"user", "ann"}, {"queue", "low"}, {"project", "birds"}};

static struct sim_request quota_request(const char *action, const char *part, const char *name)
{
    struct sim_request request = {.kind = SIM_CONFIGURE, .action = action, .target = "quota"};
    request.scope_part = part;
    snprintf(request.scope_name, sizeof request.scope_name, "%s", name);
    return request;
}

/* Large enough for most jobs: the largest that share a worker ask for 12 cores. */
struct sim_request quota_draw(struct sim *sim)
{
    static const struct {
        const char *setting;
        uint64_t least, most;
    } amounts[] = {{"jobs", 1, 5}, {"cores", 12, 16}, {"gpus", 6, 8}, {"gpu_ms", 1000, 20000}};
    size_t scope = rng_below(&sim->rng, ARRAY_COUNT(scopes));
    size_t amount = rng_below(&sim->rng, ARRAY_COUNT(amounts));
    bool lifts = rng_below(&sim->rng, 4) == 0;
    struct sim_request request =
        quota_request(lifts ? "remove" : "set", scopes[scope].part, scopes[scope].name);
    if (lifts)
        return request;
    request.setting = amounts[amount].setting;
    snprintf(request.to, sizeof request.to, "%llu",
             (ull)sim_between(sim, amounts[amount].least, amounts[amount].most));
    return request;
}

/* ---- the judge --------------------------------------------------------------------------- */

static bool part_meets(const char *part, const char *name)
{
    return !*part || strcmp(part, "*") == 0 || strcmp(part, name) == 0;
}

static bool meets(const struct row_quota *quota, const struct row_job *job,
                  const struct spec_job *spec)
{
    return part_meets(quota->account, job->account) && part_meets(quota->project, spec->project) &&
           part_meets(quota->queue, spec->queue);
}

/* A quota of the user's own goes before that of each user. */
static bool is_shadowed(const struct sim *sim, const struct row_quota *quota, const char *account)
{
    struct row_quota key = {.scope = arena_printf((struct arena *)&sim->arena, "user=%s", account)};
    const struct row_quota *own =
        strcmp(quota->scope, "user=*") == 0
            ? memory_db_find(sim->database.rows, ROW_TABLE_quota, &key)
            : NULL;
    return own && !own->removed_at;
}

static bool batch_changes(const struct effects *effects)
{
    for (size_t i = 0; i < effects->persist_count; i++)
        if (effects->persist[i].table == ROW_TABLE_quota)
            return true;
    return false;
}

/* What runs and counts against the quota together with the job. */
static void quota_check(struct sim *sim, const struct row_quota *quota, const struct row_job *job)
{
    bool each = strcmp(quota->account, "*") == 0;
    int64_t jobs = 0, cores = 0, gpus = 0;
    const uint64_t *live;
    size_t count = judge_live(sim, &live);
    for (size_t i = 0; i < count; i++) {
        struct row_attempt key = {.attempt_id = live[i]};
        const struct row_attempt *attempt =
            memory_db_find(sim->database.rows, ROW_TABLE_attempt, &key);
        struct row_job other_key = {.job_id = attempt->job_id};
        const struct row_job *other =
            memory_db_find(sim->database.rows, ROW_TABLE_job, &other_key);
        if (!meets(quota, other, judge_spec(sim, other->job_id)) ||
            (each && strcmp(other->account, job->account) != 0))
            continue;
        jobs++;
        cores += (int64_t)attempt->cores;
        gpus += (int64_t)attempt->gpus;
    }
    bool too_many = (quota->jobs >= 0 && jobs > quota->jobs) ||
                    (quota->cores >= 0 && cores > quota->cores) ||
                    (quota->gpus >= 0 && job->gpus && gpus > quota->gpus);
    if (too_many)
        sim_violation(sim, "quota %s: job %llu starts, then %lld jobs, %lld cores and %lld gpus "
                           "run of %lld, %lld and %lld",
                      quota->scope, (ull)job->job_id, (long long)jobs, (long long)cores,
                      (long long)gpus, (long long)quota->jobs, (long long)quota->cores,
                      (long long)quota->gpus);
}

/* Who shares pays for its ranks, who does not for no less; and who takes GPU time that is counted
 * has a limit that fits into all there is. */
static void charge_check(struct sim *sim, const struct row_quota *quota, const struct row_job *job,
                         const struct row_attempt *attempt)
{
    const struct spec_job *spec = judge_spec(sim, job->job_id);
    uint64_t cores = job->ranks * job->cores, gpus = job->ranks * job->gpus;
    bool sound = spec->resources.exclusive ? attempt->cores >= cores && attempt->gpus >= gpus
                                           : attempt->cores == cores && attempt->gpus == gpus;
    if (!sound)
        sim_violation(sim, "job %llu is charged for %llu cores and %llu gpus and asks for %llu "
                           "and %llu",
                      (ull)job->job_id, (ull)attempt->cores, (ull)attempt->gpus, (ull)cores,
                      (ull)gpus);
    if (quota->gpu_ms < 0 || attempt->gpus == 0)
        return;
    uint64_t wall_ms = spec->limits.wall_time_ms;
    if (wall_ms == 0 || attempt->gpus * wall_ms > (uint64_t)quota->gpu_ms)
        sim_violation(sim, "quota %s: job %llu may take %llu gpus for %llu ms of %lld",
                      quota->scope, (ull)job->job_id, (ull)attempt->gpus, (ull)wall_ms,
                      (long long)quota->gpu_ms);
}

void judge_quotas(struct sim *sim, const struct effects *effects, uint64_t job_id)
{
    struct row_job key = {.job_id = job_id};
    const struct row_job *job = memory_db_find(sim->database.rows, ROW_TABLE_job, &key);
    const struct row_attempt *attempt = NULL;
    const struct row_quota *quota;
    const uint64_t *live;
    size_t count = judge_live(sim, &live);
    if (batch_changes(effects))
        return; /* before or after it, nobody can tell */
    for (size_t i = 0; i < count && !(attempt && attempt->job_id == job_id); i++)
        attempt = memory_db_find(sim->database.rows, ROW_TABLE_attempt,
                                 &(struct row_attempt){.attempt_id = live[i]});
    for (size_t i = 0; (quota = memory_db_row(sim->database.rows, ROW_TABLE_quota, i)); i++) {
        if (quota->removed_at || !meets(quota, job, judge_spec(sim, job_id)) ||
            is_shadowed(sim, quota, job->account))
            continue;
        quota_check(sim, quota, job);
        if (attempt && attempt->job_id == job_id)
            charge_check(sim, quota, job, attempt);
    }
}

/* What is left to lift: the scope of the next quota from `from` on; false: none. */
bool quota_lift(const struct sim *sim, size_t *from, struct sim_request *out)
{
    const struct row_quota *quota;
    while ((quota = memory_db_row(sim->database.rows, ROW_TABLE_quota, (*from)++))) {
        if (quota->removed_at)
            continue;
        *out = *quota->account ? quota_request("remove", "user", quota->account)
               : *quota->queue ? quota_request("remove", "queue", quota->queue)
                               : quota_request("remove", "project", quota->project);
        return true;
    }
    return false;
}
