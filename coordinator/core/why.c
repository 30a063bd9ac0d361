/* why.c - what keeps a job from running: every binding constraint, not only the first.
 *
 * Reasons are worked out when somebody asks. For the record (table pending_reason) a slow walk
 * visits the pending jobs and writes only what has changed since its last visit: an interval
 * opens, an interval closes. Jobs that wait for less than reason_ms leave no record. */
#include "coordinator/core/state.h"

#include "common/base/parse.h"

#include <stdlib.h>
#include <string.h>

#define RECORD_WRITES_MAX 1000u /* rows of one walk: 1,000 x 100 B, a few ms of PostgreSQL */
#define RECORD_VISITS_MAX 20000u

static const char *const reason_names[REASON_END] = {
#define X(tag, name) [REASON_##tag] = name,
    REASONS(X)
#undef X
};

const char *reason_name(enum reason reason)
{
    CHECK(reason > 0 && reason < REASON_END);
    return reason_names[reason];
}

/* ---- a class against the workers --------------------------------------------------------- */

struct survey {
    size_t known, usable, drained, silent;    /* workers */
    size_t kept_away;                         /* by quarantine or failing health checks */
    const struct worker *kept_first;          /* the first of them */
    size_t allowed;                           /* usable, and labels and GPU model fit */
    struct policy_need free_most, total_most; /* of the allowed, each dimension alone */
    uint32_t *idle_ranks, *free_ranks; /* per allowed worker: that it takes empty, and as it is */
};

static void need_raise(struct policy_need *most, const struct policy_need *need)
{
    most->cores = max_u64(most->cores, need->cores);
    most->memory_bytes = max_u64(most->memory_bytes, need->memory_bytes);
    most->gpus = max_u64(most->gpus, need->gpus);
}

static void survey_allowed(struct survey *survey, const struct class *class,
                           const struct worker *worker)
{
    struct policy_need free = worker_free_need(worker);
    struct policy_need total = {worker->cores, worker->memory_bytes, worker->gpus};
    bool closed = worker->taken || (class->ask.exclusive && worker->part_count > 0);
    survey->idle_ranks[survey->allowed] = class_ranks_on(class, worker, total);
    survey->free_ranks[survey->allowed] = closed ? 0 : class_ranks_on(class, worker, free);
    survey->allowed++;
    uint64_t unfit = class_gpus_unfit(class, worker); /* GPUs of another model */
    total.gpus -= min_u64(unfit, total.gpus);
    free.gpus -= min_u64(unfit, free.gpus);
    need_raise(&survey->total_most, &total);
    if (!closed)
        need_raise(&survey->free_most, &free);
}

static void survey_make(const struct core *core, const struct class *class, struct arena *arena,
                        struct survey *survey)
{
    bool gang = class->ask.nodes_min > 1;
    *survey = (struct survey){0};
    survey->idle_ranks = arena_alloc(arena, core->worker_count * sizeof *survey->idle_ranks);
    survey->free_ranks = arena_alloc(arena, core->worker_count * sizeof *survey->free_ranks);
    for (size_t i = 0; i < core->worker_count; i++) {
        const struct worker *worker = core->workers[i];
        if (worker->state == WORKER_LEFT)
            continue;
        survey->known++;
        if (worker->state != WORKER_OK || !worker->joined)
            survey->silent++;
        else if (worker->drained)
            survey->drained++;
        else if (worker_kept_away(worker) && survey->kept_away++ == 0)
            survey->kept_first = worker;
        if (!worker_is_usable(worker))
            continue;
        survey->usable++;
        if (class_allows(class, worker) && (!gang || worker->endpoint[0]))
            survey_allowed(survey, class, worker);
    }
}

static int ranks_order(const void *a, const void *b)
{
    uint32_t left = *(const uint32_t *)a, right = *(const uint32_t *)b;
    return (left < right) - (left > right);
}

/* How many ranks the nodes_max workers with most room take; 0 when fewer than nodes_min take any.
 * Orders the list. */
static uint64_t ranks_at_most(const struct core *core, const struct class *class, uint32_t *ranks,
                              size_t count)
{
    uint64_t sum = 0;
    size_t nodes = 0, nodes_max = class_nodes_max(core, class);
    qsort(ranks, count, sizeof *ranks, ranks_order);
    for (; nodes < count && nodes < nodes_max && ranks[nodes]; nodes++)
        sum += ranks[nodes];
    return nodes < class->ask.nodes_min ? 0 : sum;
}

struct reasons {
    struct core_reason *list;
    size_t count;
    uint32_t mask;
};

static void reason_add(struct reasons *reasons, enum reason reason, const char *detail,
                       const char *remedy)
{
    reasons->list[reasons->count++] =
        (struct core_reason){.reason = reason_names[reason], .detail = detail, .remedy = remedy};
    reasons->mask |= 1u << reason;
}

/* "1 core", "4 cores", "0 GPUs". */
static const char *count_text(struct arena *arena, uint64_t count, const char *unit)
{
    return arena_printf(arena, "%llu %s%s", (unsigned long long)count, unit, count == 1 ? "" : "s");
}

static const char *size_text(struct arena *arena, uint64_t bytes)
{
    char text[PARSE_TEXT_SIZE];
    return arena_strdup(arena, format_size_short(bytes, text));
}

static const char *need_text(struct arena *arena, const struct policy_need *need)
{
    return arena_printf(arena, "%s, %s of memory and %s", count_text(arena, need->cores, "core"),
                        size_text(arena, need->memory_bytes), count_text(arena, need->gpus, "GPU"));
}

static void lacking(struct reasons *reasons, enum reason reason, struct arena *arena,
                    const char *unit, uint64_t need, uint64_t most, uint64_t total)
{
    if (need <= most || need > total)
        return; /* enough is free, or REASON_SIZE says it already */
    bool is_size = reason == REASON_MEMORY;
    const char *wanted = is_size ? size_text(arena, need) : count_text(arena, need, unit);
    const char *free = is_size ? size_text(arena, most) : count_text(arena, most, unit);
    const char *of = is_size ? " of memory" : "";
    reason_add(reasons, reason,
               arena_printf(arena, "needs %s%s on one worker, the most free is %s", wanted, of,
                            free),
               most ? arena_printf(arena, "a running job ends, or ask for at most %s%s", free, of)
                    : "a running job ends");
}

static const char *constraints_text(const struct class *class, struct arena *arena)
{
    const char *text = "";
    for (size_t i = 0; i < class->ask.constraint_count; i++) {
        const struct spec_label *label = &class->ask.constraints[i];
        bool other = i && label->alternative != label[-1].alternative;
        text = arena_printf(arena, "%s%s%s=", text, other ? " or " : i ? ", " : "", label->name);
        for (size_t k = 0; k < label->value_count; k++)
            text = arena_printf(arena, "%s%s%s", text, k ? "|" : "", label->values[k]);
    }
    return text;
}

/* "on one worker", "on 2 workers", "on 2 to 4 workers". */
static const char *where_text(const struct class *class, struct arena *arena)
{
    const struct ask *ask = &class->ask;
    const char *alone = ask->exclusive ? " with nothing else there" : "";
    if (ask->nodes_max == 1)
        return arena_printf(arena, "on one worker%s", alone);
    if (ask->nodes_min == ask->nodes_max)
        return arena_printf(arena, "on %u workers%s", ask->nodes_min, alone);
    return arena_printf(arena, "on %u to %u workers%s", ask->nodes_min, ask->nodes_max, alone);
}

/* "; w2 would take it, but is drained": a worker that was meant, and is kept from new work. ""
 * when there is none. */
static const char *shut_out_text(const struct core *core, const struct class *class,
                                 struct arena *arena)
{
    const struct worker *first = NULL;
    size_t count = 0;
    for (size_t i = 0; i < core->worker_count; i++) {
        const struct worker *worker = core->workers[i];
        struct policy_need total = {worker->cores, worker->memory_bytes, worker->gpus};
        if (worker->state == WORKER_LEFT || worker_is_usable(worker) ||
            !class_allows(class, worker) ||
            (class->ask.nodes_max == 1 && class_ranks_on(class, worker, total) < class->ask.ranks))
            continue;
        if (count++ == 0)
            first = worker;
    }
    if (!first)
        return "";
    const char *why = first->state != WORKER_OK || !first->joined ? "is silent"
                      : first->drained ? "is drained"
                                       : arena_printf(arena, "is kept from work (%s)",
                                                      worker_kept_away(first));
    const char *more = count > 1 ? arena_printf(arena, ", and so are %zu more", count - 1) : "";
    return arena_printf(arena, "; %s would do, but %s%s", first->name, why, more);
}

static const char *disallowed_text(const struct core *core, const struct class *class,
                                   const struct survey *survey, struct arena *arena)
{
    const char *wanted = constraints_text(class, arena);
    if (*class->ask.gpu_model)
        wanted = arena_printf(arena, "%s%sGPUs of model '%s'", wanted, *wanted ? " and " : "",
                              class->ask.gpu_model);
    if (class->ask.avoid_worker_id)
        wanted = arena_printf(arena, "%s%sanother name than the one where the last attempt failed "
                                     "(retry.elsewhere)", wanted, *wanted ? " and " : "");
    if (class->ask.nodes_min > 1)
        wanted = arena_printf(arena, "%s%san address where others reach it (--links)", wanted,
                              *wanted ? " and " : "");
    return arena_printf(arena, "none of %zu usable worker%s has %s%s", survey->usable,
                        survey->usable == 1 ? "" : "s", wanted,
                        shut_out_text(core, class, arena));
}

/* The fewest workers that would take its ranks when empty, were they spread; 0: not all of them. */
static size_t nodes_enough(const struct core *core, const struct class *class, struct arena *arena)
{
    uint32_t *ranks = arena_alloc(arena, core->worker_count * sizeof *ranks);
    size_t count = 0, nodes = 0;
    uint64_t sum = 0;
    for (size_t i = 0; i < core->worker_count; i++) {
        const struct worker *worker = core->workers[i];
        struct policy_need total = {worker->cores, worker->memory_bytes, worker->gpus};
        if (worker_is_usable(worker) && class_allows(class, worker) && worker->endpoint[0])
            ranks[count++] = class_ranks_on(class, worker, total);
    }
    if (count)
        qsort(ranks, count, sizeof *ranks, ranks_order);
    while (nodes < count && sum < class->ask.ranks)
        sum += ranks[nodes++];
    return sum < class->ask.ranks ? 0 : nodes;
}

/* What the spec would have to say. */
static const char *size_remedy(const struct core *core, const struct class *class,
                               bool is_shut_out, struct arena *arena)
{
    size_t nodes = class->ask.nodes_max > 1 ? 0 : nodes_enough(core, class, arena);
    if (nodes > 1)
        return arena_printf(arena,
                            "its %u ranks fit on %zu workers: resources: {nodes: %zu} spreads "
                            "them; or ask for less, or add a larger worker: waiting does not help",
                            class->ask.ranks, nodes, nodes);
    if (is_shut_out && class->ask.nodes_max == 1)
        return "that worker takes work again (see athanor workers), or ask for less";
    if (class->ask.nodes_max > 1)
        return "ask for less or for other nodes, or add workers: waiting does not help";
    return "ask for less, or add a larger worker: waiting does not help";
}

static void size_reason(struct reasons *reasons, const struct core *core,
                        const struct class *class, const struct survey *survey, uint64_t ranks,
                        struct arena *arena)
{
    const char *where = where_text(class, arena), *shut_out = shut_out_text(core, class, arena);
    const char *detail =
        class->ask.nodes_max == 1
            ? arena_printf(arena, "needs %s %s; the largest there are have %s%s",
                           need_text(arena, &class->need), where,
                           need_text(arena, &survey->total_most), shut_out)
        : survey->allowed < class->ask.nodes_min
            ? arena_printf(arena, "needs %u workers and %zu may take part", class->ask.nodes_min,
                           survey->allowed)
            : arena_printf(arena, "needs %s of %s each %s; empty ones take %llu",
                           count_text(arena, class->ask.ranks, "rank"),
                           need_text(arena, &class->ask.rank), where, (unsigned long long)ranks);
    reason_add(reasons, REASON_SIZE, detail, size_remedy(core, class, *shut_out, arena));
}

static void room_reasons(struct reasons *reasons, const struct class *class,
                         const struct survey *survey, uint64_t ranks, struct arena *arena)
{
    uint32_t before = reasons->mask;
    if (class->ask.nodes_max == 1 && !class->ask.exclusive) {
        lacking(reasons, REASON_CORES, arena, "core", class->need.cores, survey->free_most.cores,
                survey->total_most.cores);
        lacking(reasons, REASON_MEMORY, arena, "", class->need.memory_bytes,
                survey->free_most.memory_bytes, survey->total_most.memory_bytes);
        lacking(reasons, REASON_GPUS, arena, "GPU", class->need.gpus, survey->free_most.gpus,
                survey->total_most.gpus);
        if (reasons->mask == before && !(before & 1u << REASON_SIZE))
            reason_add(reasons, REASON_FRAGMENTS,
                       "enough cores, memory and GPUs are free, but not all on one worker",
                       "a running job ends on one of them");
    } else if (!(before & 1u << REASON_SIZE)) {
        reason_add(reasons, REASON_NODES,
                   arena_printf(arena, "needs %s %s, all at once; now there is room for %llu",
                                count_text(arena, class->ask.ranks, "rank"),
                                where_text(class, arena), (unsigned long long)ranks),
                   "running jobs end there");
    }
}

static const char *no_worker_text(const struct survey *survey, struct arena *arena)
{
    const char *text = arena_printf(arena, "workers: %zu, of them silent: %zu, drained: %zu",
                                    survey->known, survey->silent, survey->drained);
    if (survey->kept_away)
        text = arena_printf(arena, "%s, kept from work: %zu (%s: %s)", text, survey->kept_away,
                            survey->kept_first->name, worker_kept_away(survey->kept_first));
    return text;
}

size_t why_class(const struct core *core, const struct class *class, struct arena *arena,
                 struct core_reason *out, uint32_t *out_mask)
{
    struct survey survey;
    struct reasons reasons = {.list = out};
    survey_make(core, class, arena, &survey);
    uint64_t idle = ranks_at_most(core, class, survey.idle_ranks, survey.allowed);
    uint64_t free = ranks_at_most(core, class, survey.free_ranks, survey.allowed);
    if (survey.usable == 0)
        reason_add(&reasons, REASON_NO_WORKER, no_worker_text(&survey, arena),
                   "start a worker, or undrain one");
    else if (survey.allowed == 0)
        reason_add(&reasons, REASON_CONSTRAINT, disallowed_text(core, class, &survey, arena),
                   *shut_out_text(core, class, arena)
                       ? "that worker takes work again (see athanor workers), or relax the "
                         "constraint"
                       : "relax the constraint, or label a worker so");
    else if (idle < class->ask.ranks)
        size_reason(&reasons, core, class, &survey, idle, arena);
    if (survey.allowed && free < class->ask.ranks)
        room_reasons(&reasons, class, &survey, free, arena);
    const char *remedy, *window = reservation_why(core, class, arena, &remedy);
    if (window)
        reason_add(&reasons, REASON_RESERVATION, window, remedy);
    const char *leaving = until_why(core, class, arena, &remedy);
    if (leaving)
        reason_add(&reasons, REASON_NODE_TIME, leaving, remedy);
    *out_mask = reasons.mask;
    return reasons.count;
}

/* ---- a job ------------------------------------------------------------------------------- */

/* "input 'model': the best of 9 trials of sweep 'search' by loss, of which 4 have not ended". */
static const char *sweeps_waited(const struct core *core, const struct job *job,
                                 struct arena *arena, size_t *named)
{
    const char *text = "";
    for (size_t i = 0; i < job->input_count && *named < 5; i++) {
        const struct input *input = &job->inputs[i];
        const struct sweep *sweep =
            input->trial_count ? sweep_find(core, input->source_job_id) : NULL;
        if (!sweep)
            continue;
        text = arena_printf(
            arena, "%s%sthe best of %zu trials of sweep '%s' by %s, of which %zu live (input '%s')",
            text, (*named)++ ? ", " : "", sweep->trial_count, sweep->name, sweep->metric,
            sweep->live_count, input->name);
    }
    return text;
}

/* A trial that is only waited for because it may be the best. */
static bool is_told_by_sweep(const struct job *job, const struct edge *edge)
{
    const struct input *open = input_open(job);
    return open && edge->reads && edge->condition == SPEC_ON_ANY && edge->parent->trial_count > 0;
}

static void dependency_reason(const struct core *core, struct reasons *reasons,
                              const struct job *job, struct arena *arena)
{
    size_t named = 0, told = 0;
    const char *text = sweeps_waited(core, job, arena, &named);
    for (size_t i = 0; i < job->edge_count; i++) {
        const struct edge *edge = &job->edges[i];
        if (edge->state != EDGE_WAITING || named == 5)
            continue;
        told++;
        if (is_told_by_sweep(job, edge))
            continue;
        named++;
        text = arena_printf(arena, "%s%s%s of job %llu (%s, %s)", text, named > 1 ? ", " : "",
                            spec_condition_text(arena, edge->condition, edge->artifact),
                            (unsigned long long)edge->parent_id, edge->parent->name,
                            job_state_name(edge->parent->state));
    }
    reason_add(reasons, REASON_DEPENDENCY,
               arena_printf(arena, "waits for %s%s", text,
                            job->edges_waiting > told ? " and others" : ""),
               "those jobs end as needed");
}

static uint64_t ahead_in_class(const struct job *job)
{
    const struct queue *queue = &job->class->queue;
    uint64_t ahead = 0;
    const struct queue_node *node = queue_first(queue);
    for (; node && node != &job->node && ahead < 1000; ahead++)
        node = queue_after(queue, node->priority, node->job_id);
    return ahead;
}

const char *why_span_text(struct arena *arena, uint64_t ms)
{
    uint64_t seconds = (ms + 999) / 1000, minutes = (seconds + 30) / 60, hours = minutes / 60;
    if (seconds < 120)
        return arena_printf(arena, "%llu s", (unsigned long long)seconds);
    if (minutes < 120)
        return arena_printf(arena, "%llu min", (unsigned long long)minutes);
    return arena_printf(arena, "%llu h %llu min", (unsigned long long)hours,
                        (unsigned long long)(minutes % 60));
}

/* A job with a worker waits for nothing, unless the worker is gone and the job waits for it. */
static void attempt_reasons(const struct core *core, const struct job *job, struct arena *arena,
                            struct reasons *reasons)
{
    const struct worker *worker = NULL;
    for (size_t i = 0; i < job->attempt->part_count && !worker; i++) {
        const struct part *part = &job->attempt->parts[i];
        if (!part->ended && part->worker->state == WORKER_LOST)
            worker = part->worker;
    }
    if (!worker)
        return;
    uint64_t lost_ms = core->wall_us > worker->ended_at && worker->ended_at
                           ? (core->wall_us - worker->ended_at) / 1000
                           : 0;
    reason_add(reasons, REASON_NODE_LOST,
               arena_printf(arena,
                            "%s, where attempt %llu runs, is lost for %s; on_disconnect: wait "
                            "keeps the attempt until it comes back",
                            worker->name, (unsigned long long)job->attempt->number,
                            why_span_text(arena, lost_ms)),
               "the worker joins again, or athanor cancel, then athanor retry to run it elsewhere");
}

static void order_reason(const struct core *core, struct reasons *reasons,
                         const struct policy_verdict *verdict, struct arena *arena)
{
    const struct job *other = job_find(core, verdict->by);
    reason_add(reasons, REASON_ORDER,
               arena_printf(arena,
                            "would fit now, but job %llu (%s) comes first and would have to wait "
                            "longer",
                            (unsigned long long)verdict->by, other ? other->name : "ended"),
               "that one starts; or a higher priority, or a wall time that ends before it starts");
}

/* The same for all jobs of a class within a step: the record visits thousands of them. */
static size_t why_class_once(const struct core *core, struct class *class, struct arena *arena,
                             struct core_reason *out, uint32_t *out_mask)
{
    uint64_t step = core->counts.steps + 1; /* counted when it is over; 0 is none */
    if (class->why_step != step) {
        class->why_step = step;
        class->why = arena_alloc(arena, REASON_END * sizeof *class->why);
        class->why_count = why_class(core, class, arena, class->why, &class->why_mask);
    }
    if (class->why_count)
        memcpy(out, class->why, class->why_count * sizeof *out);
    *out_mask = class->why_mask;
    return class->why_count;
}

/* With `once` the arena is the step's, and what holds for its class is worked out once a step. */
static void job_reasons(const struct core *core, const struct job *job, const struct class *class,
                        const struct policy_verdict *verdict, struct arena *arena, bool once,
                        struct reasons *reasons)
{
    if (job->held)
        reason_add(reasons, REASON_HELD, "held by its spec or by a person", "athanor release");
    if (job->state == JOB_WAITING)
        dependency_reason(core, reasons, job, arena);
    if (job->state == JOB_BACKOFF) {
        uint64_t left_ms = job->timer.due_ms > core->now_ms ? job->timer.due_ms - core->now_ms : 0;
        reason_add(reasons, REASON_BACKOFF,
                   arena_printf(arena, "retries in %s after %s", why_span_text(arena, left_ms),
                                cause_name(job->cause)),
                   "the backoff ends (retry.backoff)");
    }
    struct charge charge = class_charge_least(core, class);
    const struct limit *full = limits_full(class, charge);
    const char *remedy;
    if (!full && class->ask.exclusive && verdict->block == POLICY_BLOCK_LIMIT &&
        verdict->by < core->limit_count && core->limits[verdict->by]->quota)
        full = core->limits[verdict->by];
    if (full && full->quota && job->state == JOB_READY) {
        const char *detail = quota_why(core, full, class, charge, arena, &remedy);
        reason_add(reasons, REASON_LIMIT, detail, remedy);
    } else if (full && job->state == JOB_READY)
        reason_add(reasons, REASON_AT_ONCE,
                   arena_printf(arena, "%llu of its array or sweep run, and %llu may at once",
                                (unsigned long long)full->jobs_used,
                                (unsigned long long)full->jobs_max),
                   "one of them ends");
    uint32_t mask;
    struct core_reason *rest = reasons->list + reasons->count;
    reasons->count += once ? why_class_once(core, job->class, arena, rest, &mask)
                           : why_class(core, class, arena, rest, &mask);
    reasons->mask |= mask;
    if (reasons->count == 0 && verdict->block == POLICY_BLOCK_ORDER)
        order_reason(core, reasons, verdict, arena);
    if (reasons->count == 0)
        reason_add(
            reasons, REASON_QUEUE,
            class == job->class ? arena_printf(arena,
                                               "%llu like it are ahead; the next pass places it",
                                               (unsigned long long)ahead_in_class(job))
                                : "nothing keeps it: the next pass would place it",
            "nothing");
}

size_t why_job(const struct core *core, const struct job *job, const struct class *class,
               const struct policy_verdict *verdict, struct arena *arena, struct core_reason *out)
{
    struct reasons reasons = {.list = out};
    if (job->attempt && class == job->class)
        attempt_reasons(core, job, arena, &reasons);
    else
        job_reasons(core, job, class, verdict, arena, false, &reasons);
    return reasons.count;
}

size_t why_job_and_inputs(const struct core *core, const struct job *job,
                          const struct class *class, const struct policy_verdict *verdict,
                          struct arena *arena, struct core_reason *out)
{
    const char *remedy, *where;
    size_t count = why_job(core, job, class, verdict, arena, out);
    if ((!job->attempt || class != job->class) &&
        (where = copies_why(core, job, class, arena, &remedy)))
        out[count++] = (struct core_reason){"inputs", where, remedy};
    return count;
}

bool core_waits(const struct core *core, uint64_t job_id)
{
    const struct job *job = job_find(core, job_id);
    return job && !job_state_is_terminal(job->state) && !job->attempt;
}

int core_why(const struct core *core, uint64_t job_id, struct arena *arena,
             struct core_reason **out)
{
    const struct job *job = job_find(core, job_id);
    if (!job || job_state_is_terminal(job->state))
        return -1;
    struct reasons reasons = {.list = arena_alloc(arena, REASON_END * sizeof **out)};
    reasons.count =
        why_job_and_inputs(core, job, job->class, &job->class->verdict, arena, reasons.list);
    *out = reasons.list;
    return (int)reasons.count;
}

/* ---- the record -------------------------------------------------------------------------- */

/* UPSERT: with a wall clock that was set back an interval may begin where one began before. */
static void interval_write(struct core *core, const struct job *job, enum reason reason,
                           uint64_t from_at, uint64_t until_at, const char *detail)
{
    struct row_pending_reason row = {
        .job_id = job->job_id,
        .reason = reason_names[reason],
        .from_at = from_at,
        .detail = detail,
        .until_at = until_at,
    };
    effects_persist(core->effects, ROW_TABLE_pending_reason,
                    until_at ? PERSIST_UPDATE : PERSIST_UPSERT, &row);
}

/* An interval must not end before it began, also when the wall clock was set back. */
static uint64_t until(const struct core *core, uint64_t from_at)
{
    return max_u64(core->wall_us, from_at + 1);
}

void why_close(struct core *core, struct job *job)
{
    for (size_t i = 0; i < job->reason_count; i++)
        interval_write(core, job, job->reasons[i].reason, job->reasons[i].from_at,
                       until(core, job->reasons[i].from_at), NULL);
    mem_free(job->reasons);
    job->reasons = NULL;
    job->reason_count = job->reason_capacity = 0;
}

static bool is_open(const struct job *job, enum reason reason)
{
    for (size_t i = 0; i < job->reason_count; i++)
        if (job->reasons[i].reason == reason)
            return true;
    return false;
}

static size_t intervals_close(struct core *core, struct job *job, uint32_t mask)
{
    size_t written = 0;
    for (size_t i = job->reason_count; i > 0; i--) {
        struct open_reason open = job->reasons[i - 1];
        if (mask & (1u << open.reason))
            continue;
        interval_write(core, job, open.reason, open.from_at, until(core, open.from_at), NULL);
        job->reasons[i - 1] = job->reasons[--job->reason_count];
        written++;
    }
    return written;
}

static size_t intervals_open(struct core *core, struct job *job, const struct core_reason *list,
                             size_t count)
{
    size_t written = 0;
    for (size_t i = 0; i < count; i++) {
        enum reason reason = REASON_NONE;
        for (int k = 1; k < REASON_END; k++)
            if (strcmp(reason_names[k], list[i].reason) == 0)
                reason = (enum reason)k;
        if (reason == REASON_QUEUE || is_open(job, reason))
            continue; /* the next pass places it: not worth an interval */
        VEC_RESERVE(job->reasons, job->reason_count, job->reason_capacity);
        job->reasons[job->reason_count++] =
            (struct open_reason){.reason = reason, .from_at = core->wall_us};
        interval_write(core, job, reason, core->wall_us, 0, list[i].detail);
        written++;
    }
    return written;
}

static size_t job_record(struct core *core, struct job *job)
{
    bool pending = !job->attempt && !job_state_is_terminal(job->state);
    uint64_t waited_us = core->wall_us - job->submitted_at;
    if (!pending || core->wall_us < job->submitted_at || waited_us < core->config.reason_ms * 1000)
        return 0;
    struct reasons reasons = {
        .list = arena_alloc(step_arena(core), REASON_END * sizeof(struct core_reason))};
    job_reasons(core, job, job->class, &job->class->verdict, step_arena(core), true, &reasons);
    return intervals_close(core, job, reasons.mask) +
           intervals_open(core, job, reasons.list, reasons.count);
}

/* Goes on where it stopped; job_evict keeps the place valid. */
void why_record_due(struct core *core)
{
    size_t written = 0;
    struct job *job = core->reason_next ? core->reason_next : core->jobs;
    for (size_t i = 0; job && i < RECORD_VISITS_MAX && written < RECORD_WRITES_MAX; i++) {
        written += job_record(core, job);
        job = job->hh_id.next;
    }
    core->reason_next = job;
    why_timer_set(core);
}

void why_timer_set(struct core *core)
{
    bool wanted = core->live_count > HASH_COUNT(core->attempts);
    timer_set(&core->timers, &core->reason_timer,
              wanted ? max_u64(core->now_ms + core->config.reason_ms, 1) : 0);
}
