/* quota.c - how much users, projects and queues may use at once, and of GPU time per period.
 *
 * A quota is a row: its scope names a user, a project, a queue or a crossing of them; "*" means
 * each one for itself. Of the quotas that name the same parts a job counts against one: names go
 * before "*", the user's before the project's before the queue's. There are seven choices of
 * parts, so that with the cap of its array a job counts against at most POLICY_LIMITS_MAX.
 *
 * GPU time is metered per period of 1, 7 or 30 days, counted from Monday 1970-01-05 UTC. A meter
 * grows with the GPUs that are held, so that its row changes only when an attempt begins or ends.
 * The cap is hard, as Slurm's GrpTRESMins with AccountingStorageEnforce=safe: a job starts only
 * if GPUs x limits.wall_time is left after what the running ones may still take by theirs is set
 * aside. So a job without a wall time of its own or by its queue's maximum never starts under one.
 * With R set aside and U used, R + U never exceeds the cap by a start, and R only shrinks: what is
 * overdrawn is the time between placing and the first instruction, and stop_grace of jobs that
 * do not heed their limit. */
#include "coordinator/core/state.h"

#include "common/base/buf.h"
#include "common/base/parse.h"

#include <stdlib.h>
#include <string.h>

#define PARTS      3u /* user, project, queue */
#define ANCHOR_US  (4ull * 86400 * 1000000)
#define GPU_MS_MAX ((int64_t)1 << 53)
#define COUNT_MAX  ((int64_t)1 << 40)

static const char *const part_names[PARTS] = {"user", "project", "queue"};

/* ---- scopes ------------------------------------------------------------------------------ */

/* "user=ada queue=*"; parts that are "" are left out. */
static const char *scope_text(const char *const parts[PARTS], struct buf *out)
{
    buf_clear(out);
    for (size_t i = 0; i < PARTS; i++)
        if (*parts[i])
            buf_printf(out, "%s%s=%s", out->length ? " " : "", part_names[i], parts[i]);
    return buf_text(out);
}

static struct quota *quota_by_scope(const struct core *core, const char *scope)
{
    struct quota *quota = NULL;
    HASH_FIND_STR(core->quotas, scope, quota);
    return quota;
}

/* The quota on exactly the parts of `mask` that counts; *out_instance is its scope with names. */
static struct quota *quota_for(const struct core *core, const char *const names[PARTS],
                               unsigned mask, struct buf *out_instance)
{
    struct quota *found = NULL;
    struct buf scope = {0};
    for (unsigned stars = 0; !found && stars < 1u << PARTS; stars++) {
        const char *parts[PARTS];
        if (stars & ~mask)
            continue;
        for (unsigned i = 0; i < PARTS; i++) /* the queue's star comes first, the user's last */
            parts[i] = !(mask & 1u << (PARTS - 1 - i)) ? ""
                       : stars & 1u << (PARTS - 1 - i) ? "*"
                                                       : names[i];
        found = quota_by_scope(core, scope_text(parts, &scope));
        if (found && found->removed)
            found = NULL;
    }
    if (found) {
        const char *parts[PARTS];
        for (unsigned i = 0; i < PARTS; i++)
            parts[i] = mask & 1u << (PARTS - 1 - i) ? names[i] : "";
        scope_text(parts, out_instance);
    }
    buf_done(&scope);
    return found;
}

/* ---- meters ------------------------------------------------------------------------------ */

static struct meter *meter_get(struct core *core, const char *scope)
{
    struct meter *meter = NULL;
    HASH_FIND_STR(core->meters_by_scope, scope, meter);
    if (meter)
        return meter;
    meter = mem_zalloc(sizeof *meter);
    meter->scope = mem_strdup(scope);
    meter->meter_id = core->meters.count + 1;
    meter->as_of = core->wall_us;
    HASH_ADD_KEYPTR(hh, core->meters_by_scope, meter->scope, strlen(meter->scope), meter);
    list_add(&core->meters, meter);
    return meter;
}

static uint64_t window_begin(uint64_t wall_us, uint64_t period_ms)
{
    uint64_t period_us = period_ms * 1000;
    return wall_us < ANCHOR_US ? 0 : wall_us - (wall_us - ANCHOR_US) % period_us;
}

/* GPU time of the present period; *out_from is since when the rate counts. */
static uint64_t meter_base(const struct core *core, const struct meter *meter, uint64_t period_ms,
                           uint64_t *out_from)
{
    uint64_t begin = window_begin(core->wall_us, period_ms);
    bool stands = meter->window_at >= begin; /* also with a clock that went back */
    *out_from = stands ? meter->as_of : max_u64(meter->as_of, begin);
    return stands ? meter->gpu_ms : 0;
}

static uint64_t meter_used(const struct core *core, const struct meter *meter, uint64_t period_ms)
{
    uint64_t from;
    uint64_t used = meter_base(core, meter, period_ms, &from);
    return used + (core->wall_us > from ? (core->wall_us - from) / 1000 * meter->rate : 0);
}

static void meter_settle(struct core *core, struct meter *meter, uint64_t period_ms)
{
    uint64_t from, begin = window_begin(core->wall_us, period_ms);
    uint64_t base = meter_base(core, meter, period_ms, &from);
    uint64_t elapsed = core->wall_us > from ? (core->wall_us - from) / 1000 : 0;
    meter->gpu_ms = min_u64(base + elapsed * meter->rate, (uint64_t)GPU_MS_MAX);
    meter->as_of = core->wall_us < from ? core->wall_us : from + elapsed * 1000;
    meter->window_at = max_u64(meter->window_at, begin);
    if (meter->dirty)
        return;
    meter->dirty = true;
    list_add(&core->dirty_meters, meter);
}

void meters_flush(struct core *core)
{
    for (size_t i = 0; i < core->dirty_meters.count; i++) {
        struct meter *meter = core->dirty_meters.items[i];
        struct row_quota_usage row = {.scope = meter->scope,
                                      .gpu_ms = meter->gpu_ms,
                                      .window_at = meter->window_at,
                                      .as_of = meter->as_of};
        effects_persist(core->effects, ROW_TABLE_quota_usage, PERSIST_UPSERT, &row);
        meter->dirty = false;
    }
    core->dirty_meters.count = 0;
}

void core_load_quota_usage(struct core *core, const struct row_quota_usage *row)
{
    struct meter *meter = meter_get(core, row->scope);
    meter->gpu_ms = row->gpu_ms;
    meter->window_at = row->window_at;
    meter->as_of = row->as_of;
}

/* ---- limits ------------------------------------------------------------------------------ */

static uint64_t most(int64_t allowed)
{
    return allowed < 0 ? UINT64_MAX : (uint64_t)allowed;
}

static void limit_fill(struct limit *limit, struct quota *quota, struct meter *meter)
{
    limit->quota = quota;
    limit->meter = meter;
    limit->jobs_max = most(quota->jobs);
    limit->cores_max = most(quota->cores);
    limit->gpus_max = most(quota->gpus);
}

void quotas_join(struct core *core, struct class *class)
{
    const char *names[PARTS] = {class->account, class->project->name, class->queue_config->name};
    struct buf instance = {0};
    for (unsigned mask = 1; HASH_COUNT(core->quotas) && mask < 1u << PARTS; mask++) {
        struct quota *quota = quota_for(core, names, mask, &instance);
        if (!quota)
            continue;
        struct meter *meter = meter_get(core, buf_text(&instance));
        struct limit *limit = limit_get(core, LIMIT_QUOTA, meter->meter_id, UINT64_MAX);
        limit_fill(limit, quota, meter);
        limit->class_count++;
        limit->live += class->job_count;
        CHECK(class->limit_count < POLICY_LIMITS_MAX);
        class->limits[class->limit_count++] = limit;
    }
    buf_done(&instance);
}

void quotas_swap(struct core *core, struct class *copy)
{
    while (copy->limit_count > 0 && copy->limits[copy->limit_count - 1]->quota)
        copy->limit_count--; /* the original's: not ours to leave */
    quotas_join(core, copy);
    quotas_measure(core);
}

static uint64_t minus(uint64_t left, uint64_t taken)
{
    return left - min_u64(left, taken);
}

static bool is_metered(const struct limit *limit)
{
    return limit->quota && limit->quota->gpu_ms >= 0;
}

void quota_take(struct core *core, struct limit *limit, const struct attempt *attempt)
{
    if (!is_metered(limit) || attempt->charge.gpus == 0)
        return;
    if (core->effects) { /* else it is being loaded, and the row says it */
        meter_settle(core, limit->meter, limit->quota->period_ms);
        limit->gpu_ms_left =
            minus(limit->gpu_ms_left, class_gpu_ms(attempt->job->class, attempt->charge));
    }
    limit->meter->rate += attempt->charge.gpus;
}

void quota_give(struct core *core, struct limit *limit, const struct attempt *attempt)
{
    if (!is_metered(limit) || attempt->charge.gpus == 0)
        return;
    CHECK(limit->meter->rate >= attempt->charge.gpus);
    meter_settle(core, limit->meter, limit->quota->period_ms);
    limit->meter->rate -= attempt->charge.gpus;
}

/* What a running attempt may still take until its limit. All of it is set aside, also what lies
 * behind the end of the period: so what runs on into the next one has its place there. */
static uint64_t attempt_reserve(const struct core *core, const struct attempt *attempt)
{
    uint64_t wall_ms = attempt->job->limits.wall_time_ms;
    uint64_t began = attempt->started_at ? attempt->started_at : core->wall_us;
    uint64_t ends = began + wall_ms * 1000;
    if (wall_ms == 0)
        return UINT64_MAX;
    return ends > core->wall_us ? (ends - core->wall_us) / 1000 * attempt->charge.gpus : 0;
}

/* One walk over the attempts, and only where GPU time is metered. */
void quotas_measure(struct core *core)
{
    bool any = false;
    for (size_t i = 0; i < core->limit_count; i++) {
        struct limit *limit = core->limits[i];
        if (!is_metered(limit))
            continue;
        any = true;
        limit->gpu_ms_left = minus((uint64_t)limit->quota->gpu_ms,
                                   meter_used(core, limit->meter, limit->quota->period_ms));
    }
    struct attempt *attempt, *next;
    for (attempt = any ? core->attempts : NULL; attempt; attempt = next) {
        const struct class *class = attempt->job->class;
        next = attempt->hh.next;
        for (size_t i = 0; attempt->charge.gpus && i < class->limit_count; i++)
            if (is_metered(class->limits[i]))
                class->limits[i]->gpu_ms_left =
                    minus(class->limits[i]->gpu_ms_left, attempt_reserve(core, attempt));
    }
    if (any && !core->window_timer.slot)
        windows_timer_set(core);
}

/* Everybody counts anew: after a change, and after loading. */
static void limits_recount(struct core *core)
{
    for (size_t i = 0; i < core->class_count; i++)
        quotas_leave(core, core->classes[i]);
    for (size_t i = 0; i < core->meters.count; i++)
        ((struct meter *)core->meters.items[i])->rate = 0;
    for (size_t i = 0; i < core->class_count; i++)
        quotas_join(core, core->classes[i]);
    struct attempt *attempt, *next;
    HASH_ITER(hh, core->attempts, attempt, next)
    {
        limits_retake(core, attempt);
    }
    for (size_t i = 0; i < core->limit_count; i++)
        core->limits[i]->over = limit_is_over(core->limits[i]);
}

static void quotas_change(struct core *core)
{
    for (size_t i = 0; i < core->limit_count; i++) {
        struct limit *limit = core->limits[i];
        if (is_metered(limit))
            meter_settle(core, limit->meter, limit->quota->period_ms);
    }
}

void quotas_load_end(struct core *core)
{
    for (size_t i = 0; i < core->limit_count; i++)
        core->limits[i]->over = limit_is_over(core->limits[i]);
    for (size_t i = 0; i < core->meters.count; i++) {
        struct meter *meter = core->meters.items[i];
        if (meter->as_of == 0)
            meter->as_of = core->wall_us;
    }
}

/* When a period ends there is GPU time again; 0: nobody meters. */
uint64_t quotas_next_at(const struct core *core)
{
    uint64_t next = UINT64_MAX;
    for (size_t i = 0; i < core->limit_count; i++) {
        const struct quota *quota = core->limits[i]->quota;
        if (quota && quota->gpu_ms >= 0)
            next = min_u64(next,
                           window_begin(core->wall_us, quota->period_ms) + quota->period_ms * 1000);
    }
    return next;
}

/* ---- configuration ----------------------------------------------------------------------- */

static void quota_write(struct core *core, const struct quota *quota)
{
    struct row_quota row = {
        .scope = quota->scope,
        .account = quota->parts[0],
        .project = quota->parts[1],
        .queue = quota->parts[2],
        .jobs = quota->jobs,
        .cores = quota->cores,
        .gpus = quota->gpus,
        .queued = quota->queued,
        .gpu_ms = quota->gpu_ms,
        .period_ms = quota->period_ms,
        .removed_at = quota->removed ? core->wall_us : 0,
    };
    effects_persist(core->effects, ROW_TABLE_quota, PERSIST_UPSERT, &row);
}

static struct quota *quota_get(struct core *core, const char *scope, const char *const parts[PARTS])
{
    struct quota *quota = quota_by_scope(core, scope);
    if (quota)
        return quota;
    quota = mem_zalloc(sizeof *quota);
    quota->scope = mem_strdup(scope);
    for (size_t i = 0; i < PARTS; i++)
        quota->parts[i] = mem_strdup(parts[i]);
    quota->removed = true;
    HASH_ADD_KEYPTR(hh, core->quotas, quota->scope, strlen(quota->scope), quota);
    return quota;
}

void quotas_free(struct core *core)
{
    struct quota *quota, *next;
    HASH_ITER(hh, core->quotas, quota, next)
    {
        HASH_DEL(core->quotas, quota);
        for (size_t i = 0; i < PARTS; i++)
            mem_free(quota->parts[i]);
        mem_free(quota->scope);
        mem_free(quota);
    }
    HASH_CLEAR(hh, core->meters_by_scope);
    for (size_t i = 0; i < core->meters.count; i++) {
        struct meter *meter = core->meters.items[i];
        mem_free(meter->scope);
        mem_free(meter);
    }
    mem_free(core->meters.items);
    mem_free(core->dirty_meters.items);
}

static void part_check(struct configure_pass *pass, size_t part, const char *name)
{
    if (!*name || strcmp(name, "*") == 0)
        return;
    if (part == 0)
        configure_principal(pass, "user", name);
    else if (part == 1 && !project_find(pass->core, name))
        configure_refuse(pass, "project",
                         arena_printf(pass->arena, "there is no project '%.80s'%s", name,
                                      project_hint(pass->core, name, pass->arena)));
    else if (part == 2 && !queue_config_find(pass->core, name))
        configure_refuse(pass, "queue",
                         arena_printf(pass->arena, "there is no queue '%.80s'%s", name,
                                      queue_hint(pass->core, name, pass->arena)));
}

static void parts_read(struct configure_pass *pass, const char *parts[PARTS])
{
    size_t given = 0;
    for (size_t i = 0; i < PARTS; i++) {
        const char *name = configure_value(pass, part_names[i]);
        parts[i] = name ? name : "";
        given += *parts[i] != 0;
        part_check(pass, i, parts[i]);
    }
    if (given == 0)
        configure_refuse(pass, "scope", "a quota needs a user, a project or a queue");
}

static const struct quota quota_none = {
    .jobs = -1, .cores = -1, .gpus = -1, .queued = -1, .gpu_ms = -1};

static void amounts_read(struct configure_pass *pass, struct quota *wanted)
{
    static const int64_t none = -1, no_period = 0;
    int64_t period_ms = (int64_t)wanted->period_ms;
    configure_number(pass, "jobs", 0, COUNT_MAX, &none, &wanted->jobs);
    configure_number(pass, "cores", 0, COUNT_MAX, &none, &wanted->cores);
    configure_number(pass, "gpus", 0, COUNT_MAX, &none, &wanted->gpus);
    configure_number(pass, "queued", 0, COUNT_MAX, &none, &wanted->queued);
    configure_number(pass, "gpu_ms", 0, GPU_MS_MAX, &none, &wanted->gpu_ms);
    configure_number(pass, "period_ms", 0, INT64_MAX, &no_period, &period_ms);
    wanted->period_ms = wanted->gpu_ms < 0 ? 0 : (uint64_t)period_ms;
    if (wanted->gpu_ms >= 0 && period_ms != 86400000 && period_ms != 604800000 &&
        period_ms != 2592000000)
        configure_refuse(pass, "period_ms",
                         "GPU time needs a period of a day, a week or a month of 30 days");
}

/* The weight of a user's fair share goes with the quotas of that user alone. */
static void weight_set(struct configure_pass *pass, const char *const parts[PARTS], bool apply)
{
    int64_t weight = 0;
    configure_number(pass, "weight", 1, WEIGHT_MAX, NULL, &weight);
    if (!configure_value(pass, "weight"))
        return;
    if (!*parts[0] || strcmp(parts[0], "*") == 0 || *parts[1] || *parts[2])
        configure_refuse(pass, "weight",
                         "is of one user alone: for projects see athanor project set --weight");
    else if (apply && weight)
        pass->changed |= share_weigh(pass->core, parts[0], (uint64_t)weight);
}

static bool amounts_equal(const struct quota *a, const struct quota *b)
{
    return a->jobs == b->jobs && a->cores == b->cores && a->gpus == b->gpus &&
           a->queued == b->queued && a->gpu_ms == b->gpu_ms && a->period_ms == b->period_ms &&
           a->removed == b->removed;
}

static void quota_apply(struct configure_pass *pass, const char *scope,
                        const char *const parts[PARTS], const struct quota *wanted)
{
    struct core *core = pass->core;
    struct quota *quota = quota_get(core, scope, parts);
    if (amounts_equal(quota, wanted) || (quota->removed && wanted->removed))
        return;
    quotas_change(core);
    quota->jobs = wanted->jobs;
    quota->cores = wanted->cores;
    quota->gpus = wanted->gpus;
    quota->queued = wanted->queued;
    quota->gpu_ms = wanted->gpu_ms;
    quota->period_ms = wanted->period_ms;
    quota->removed = wanted->removed;
    quota_write(core, quota);
    limits_recount(core);
    quotas_change(core); /* those that are metered from now on have a row to begin with */
    rights_changed(core);
    windows_look(core);
    pass->changed = true;
}

void quota_configure(struct configure_pass *pass)
{
    static const char *const known[] = {"user",   "project", "queue",     "jobs",   "cores", "gpus",
                                        "queued", "gpu_ms",  "period_ms", "weight", NULL};
    const char *parts[PARTS];
    struct buf scope = {0};
    bool removes = strcmp(pass->request->action, "remove") == 0;
    configure_known(pass, known);
    if (removes) /* also of users and projects that are gone */
        for (size_t i = 0; i < PARTS; i++)
            parts[i] =
                configure_value(pass, part_names[i]) ? configure_value(pass, part_names[i]) : "";
    else
        parts_read(pass, parts);
    const struct quota *present = quota_by_scope(pass->core, scope_text(parts, &scope));
    struct quota wanted = present && !present->removed ? *present : quota_none;
    wanted.removed = removes;
    if (removes && !present)
        configure_refuse(pass, "scope",
                         arena_printf(pass->arena, "there is no quota of '%.200s'",
                                      buf_text(&scope)));
    amounts_read(pass, &wanted);
    weight_set(pass, parts, false);
    if (!present && HASH_COUNT(pass->core->quotas) >= QUOTAS_MAX)
        configure_refuse(pass, "scope",
                         arena_printf(pass->arena, "there are %u quotas, which is the limit",
                                      QUOTAS_MAX));
    bool says = wanted.jobs >= 0 || wanted.cores >= 0 || wanted.gpus >= 0 || wanted.queued >= 0 ||
                wanted.gpu_ms >= 0;
    if (!says)
        wanted.removed = true; /* one that allows everything */
    if (pass->refusal_count == 0)
        weight_set(pass, parts, true);
    if (pass->refusal_count == 0 && (says || present))
        quota_apply(pass, buf_text(&scope), parts, &wanted);
    buf_done(&scope);
}

void core_load_quota(struct core *core, const struct row_quota *row)
{
    const char *parts[PARTS] = {row->account, row->project, row->queue};
    struct quota *quota = quota_get(core, row->scope, parts);
    quota->jobs = row->jobs;
    quota->cores = row->cores;
    quota->gpus = row->gpus;
    quota->queued = row->queued;
    quota->gpu_ms = row->gpu_ms;
    quota->period_ms = row->period_ms;
    quota->removed = row->removed_at != 0;
}

/* ---- submits ----------------------------------------------------------------------------- */

/* Jobs of a submit that count against one quota on waiting jobs. */
struct tally {
    const char *instance;
    const struct quota *quota;
    uint64_t count;
};

static uint64_t waiting_now(const struct core *core, const char *instance)
{
    struct meter *meter = NULL;
    HASH_FIND_STR(core->meters_by_scope, instance, meter);
    const struct limit *limit = meter ? limit_find(core, LIMIT_QUOTA, meter->meter_id) : NULL;
    return limit ? limit->live - limit->jobs_used : 0;
}

static size_t tally_add(struct tally *tallies, size_t count, const struct quota *quota,
                        const char *instance, uint64_t jobs, struct arena *arena)
{
    size_t at = 0;
    while (at < count && strcmp(tallies[at].instance, instance) != 0)
        at++;
    if (at == count)
        tallies[count++] =
            (struct tally){.instance = arena_strdup(arena, instance), .quota = quota};
    tallies[at].count += jobs;
    return count;
}

static bool asker_equal(const struct quota_asker *a, const struct quota_asker *b)
{
    return strcmp(a->account, b->account) == 0 && strcmp(a->project, b->project) == 0 &&
           strcmp(a->queue, b->queue) == 0;
}

/* Adds so many jobs of the asker to the tallies of the quotas that they count against. */
static size_t tallies_add(const struct core *core, const struct quota_asker *asker, uint64_t jobs,
                          struct arena *arena, struct tally *tallies, size_t count)
{
    const char *names[PARTS] = {asker->account, asker->project, asker->queue};
    struct buf instance = {0};
    for (unsigned mask = 1; mask < 1u << PARTS; mask++) {
        const struct quota *quota = quota_for(core, names, mask, &instance);
        if (quota && quota->queued >= 0)
            count = tally_add(tallies, count, quota, buf_text(&instance), jobs, arena);
    }
    buf_done(&instance);
    return count;
}

/* Looked up once for each run of jobs of the same queue and project. */
static size_t tallies_make(const struct core *core, const struct quota_asker *askers, size_t count,
                           struct arena *arena, struct tally *tallies)
{
    size_t tally_count = 0;
    for (size_t from = 0, to; from < count; from = to) {
        to = from + 1;
        while (to < count && asker_equal(&askers[from], &askers[to]))
            to++;
        tally_count = tallies_add(core, &askers[from], to - from, arena, tallies, tally_count);
    }
    return tally_count;
}

const char *quota_waiting_fault(const struct core *core, const struct quota_asker *askers,
                                size_t count, const char *what, struct arena *arena)
{
    if (HASH_COUNT(core->quotas) == 0)
        return NULL;
    struct tally *tallies = arena_alloc(arena, (7 * count + 1) * sizeof *tallies);
    size_t tally_count = tallies_make(core, askers, count, arena, tallies);
    for (size_t i = 0; i < tally_count; i++) {
        uint64_t waiting = waiting_now(core, tallies[i].instance);
        if (waiting + tallies[i].count > (uint64_t)tallies[i].quota->queued)
            return arena_printf(arena,
                                "%llu jobs of %s wait, this %s adds %llu, and the quota of "
                                "'%s' lets %lld wait: %s again when some have started",
                                (unsigned long long)waiting, tallies[i].instance, what,
                                (unsigned long long)tallies[i].count, tallies[i].quota->scope,
                                (long long)tallies[i].quota->queued, what);
    }
    return NULL;
}

/* ---- why --------------------------------------------------------------------------------- */

static const char *gpu_time(struct arena *arena, uint64_t ms)
{
    char text[PARSE_TEXT_SIZE];
    return arena_strdup(arena, format_duration_short(ms, text));
}

static const char *option_text(const struct quota *quota, struct arena *arena)
{
    const char *text = "";
    for (size_t i = 0; i < PARTS; i++)
        if (*quota->parts[i])
            text = arena_printf(arena, "%s --%s '%s'", text, part_names[i], quota->parts[i]);
    return text;
}

static const char *amount_why(const struct limit *limit, const char *unit, uint64_t used,
                              uint64_t need, uint64_t allowed, struct arena *arena,
                              const char **out_remedy)
{
    const char *raise =
        arena_printf(arena, "an operator raises it: athanor quota set%s --%s %llu",
                     option_text(limit->quota, arena), unit, (unsigned long long)(used + need));
    *out_remedy = need > allowed
                      ? arena_printf(arena, "ask for less, or %s: waiting does not help", raise)
                      : arena_printf(arena, "jobs of it end, or %s", raise);
    return arena_printf(arena,
                        "quota '%s' (%s): %llu of %llu %s are in use, and the job needs %llu",
                        limit->quota->scope, limit->meter->scope, (unsigned long long)used,
                        (unsigned long long)allowed, unit, (unsigned long long)need);
}

static const char *gpu_time_why(const struct core *core, const struct limit *limit,
                                const struct class *class, struct charge charge,
                                struct arena *arena, const char **out_remedy)
{
    const struct quota *quota = limit->quota;
    uint64_t wanted = class_gpu_ms(class, charge), allowed = (uint64_t)quota->gpu_ms;
    uint64_t ends = window_begin(core->wall_us, quota->period_ms) + quota->period_ms * 1000;
    const char *raise =
        arena_printf(arena, "an operator raises it: athanor quota set%s --gpu-hours ...",
                     option_text(quota, arena));
    if (wanted == UINT64_MAX) {
        *out_remedy = arena_printf(arena,
                                   "submit it with limits.wall_time, or an operator gives queue "
                                   "'%s' a --max-time: waiting does not help",
                                   class->queue_config->name);
        return arena_printf(arena,
                            "quota '%s' (%s) counts GPU time, and the job has no limits.wall_time "
                            "to set aside",
                            quota->scope, limit->meter->scope);
    }
    *out_remedy =
        wanted > allowed
            ? arena_printf(arena, "ask for less, or %s: waiting does not help", raise)
            : arena_printf(arena,
                           "running jobs end before their limits, the period ends in %s, or %s",
                           gpu_time(arena, (ends - core->wall_us) / 1000), raise);
    return arena_printf(arena,
                        "quota '%s' (%s): of %s of GPU time in this period %s are used or set "
                        "aside for what runs, and the job may take %s",
                        quota->scope, limit->meter->scope, gpu_time(arena, allowed),
                        gpu_time(arena, allowed - limit->gpu_ms_left), gpu_time(arena, wanted));
}

const char *quota_why(const struct core *core, const struct limit *limit, const struct class *class,
                      struct charge charge, struct arena *arena, const char **out_remedy)
{
    if (limit->jobs_used >= limit->jobs_max)
        return amount_why(limit, "jobs", limit->jobs_used, 1, limit->jobs_max, arena, out_remedy);
    if (!fits_below(limit->cores_used, charge.cores, limit->cores_max))
        return amount_why(limit, "cores", limit->cores_used, charge.cores, limit->cores_max, arena,
                          out_remedy);
    if (!fits_below(limit->gpus_used, charge.gpus, limit->gpus_max))
        return amount_why(limit, "gpus", limit->gpus_used, charge.gpus, limit->gpus_max, arena,
                          out_remedy);
    if (class_gpu_ms(class, charge) > limit->gpu_ms_left)
        return gpu_time_why(core, limit, class, charge, arena, out_remedy);
    *out_remedy = "smaller workers become free, or name them with constraint";
    return arena_printf(arena,
                        "quota '%s' (%s): an exclusive job is charged for all that its workers "
                        "have, and those that are free have more than is left",
                        limit->quota->scope, limit->meter->scope);
}

/* ---- dump -------------------------------------------------------------------------------- */

static int quota_compare(const void *left, const void *right)
{
    const struct quota *const *a = left, *const *b = right;
    return strcmp((*a)->scope, (*b)->scope);
}

static int limit_compare(const void *left, const void *right)
{
    const struct limit *const *a = left, *const *b = right;
    return strcmp((*a)->meter->scope, (*b)->meter->scope);
}

static void uses_dump(const struct core *core, struct buf *out)
{
    struct limit **sorted = mem_array(core->limit_count, sizeof *sorted);
    size_t count = 0;
    for (size_t i = 0; i < core->limit_count; i++)
        if (core->limits[i]->quota)
            sorted[count++] = core->limits[i];
    qsort(sorted, count, sizeof *sorted, limit_compare);
    for (size_t i = 0; i < count; i++) {
        const struct limit *limit = sorted[i];
        const struct meter *meter = limit->meter;
        buf_printf(out, "  use %s live=%llu jobs=%llu cores=%llu gpus=%llu", meter->scope,
                   (unsigned long long)limit->live, (unsigned long long)limit->jobs_used,
                   (unsigned long long)limit->cores_used, (unsigned long long)limit->gpus_used);
        if (meter->gpu_ms || meter->rate)
            buf_printf(out, " gpu_ms=%llu at=%llu window=%llu rate=%llu",
                       (unsigned long long)meter->gpu_ms, (unsigned long long)meter->as_of,
                       (unsigned long long)meter->window_at, (unsigned long long)meter->rate);
        buf_putc(out, '\n');
    }
    mem_free(sorted);
}

void quotas_dump(const struct core *core, struct buf *out)
{
    size_t count = HASH_COUNT(core->quotas), at = 0;
    struct quota **sorted = mem_array(count, sizeof *sorted);
    struct quota *quota, *next;
    HASH_ITER(hh, core->quotas, quota, next)
    {
        sorted[at++] = quota;
    }
    qsort(sorted, count, sizeof *sorted, quota_compare);
    for (size_t i = 0; i < count; i++)
        if (!sorted[i]->removed)
            buf_printf(out,
                       "quota %s jobs=%lld cores=%lld gpus=%lld queued=%lld gpu_ms=%lld/%llu\n",
                       sorted[i]->scope, (long long)sorted[i]->jobs, (long long)sorted[i]->cores,
                       (long long)sorted[i]->gpus, (long long)sorted[i]->queued,
                       (long long)sorted[i]->gpu_ms, (unsigned long long)sorted[i]->period_ms);
    mem_free(sorted);
    uses_dump(core, out);
}
