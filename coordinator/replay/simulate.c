/* simulate.c - the shell's loop with made-up workers and a clock that jumps; see simulate.h. */
#include "coordinator/replay/simulate.h"

#include "common/base/buf.h"
#include "common/base/clock.h"
#include "common/base/mem.h"
#include "coordinator/core/core.h"
#include "coordinator/policy/policy.h"

#include <stdio.h>
#include <string.h>

#define START_MS 1u /* steady time of the first submit */
#define WALL_START_US ((uint64_t)1700000000000000)
#define SILENCE_MS ((uint64_t)1 << 50) /* leases and resends never come due */
#define PROGRESS_EVERY 256u
#define IDLE_WAKES_MAX 10000u /* timers that may fire while nothing runs and nothing comes */
#define ASK_NODES_MAX 4096u /* of one job, in a spec */

/* A node of an attempt that runs: when it will end. All nodes of one begin and end together. */
struct running {
    uint64_t end_ms, attempt_id, peer; /* ordered by end, then by start, then by node */
    uint32_t job, node;
};

/* Made-up workers can be reached by each other, so that jobs are placed on several. */
#define NODE_KEY "0000000000000000000000000000000000000000"

struct simulation {
    const struct trace *trace;
    struct core *core;
    struct effects effects;
    struct simulated *out;
    struct spec *template;
    struct arena arena; /* of one submit */
    struct running *heap;
    size_t heap_count, heap_capacity;
    struct running *starts; /* told to start, not yet reported */
    size_t start_count, start_capacity;
    uint64_t *stops; /* attempt ids told to stop */
    size_t stop_count, stop_capacity;
    uint32_t *job_of_id; /* trace index by job id - 1 */
    size_t id_count;
    uint64_t now_ms;
    size_t ended, submitted, refusals;
};

/* ---- what runs, in order of its end ------------------------------------------------------ */

static bool running_before(const struct running *a, const struct running *b)
{
    if (a->end_ms != b->end_ms)
        return a->end_ms < b->end_ms;
    return a->attempt_id != b->attempt_id ? a->attempt_id < b->attempt_id : a->node < b->node;
}

static void heap_swap(struct running *heap, size_t a, size_t b)
{
    struct running kept = heap[a];
    heap[a] = heap[b];
    heap[b] = kept;
}

static void heap_sink(struct simulation *sim, size_t at)
{
    for (;;) {
        size_t least = at;
        for (size_t child = 2 * at + 1; child <= 2 * at + 2 && child < sim->heap_count; child++)
            if (running_before(&sim->heap[child], &sim->heap[least]))
                least = child;
        if (least == at)
            return;
        heap_swap(sim->heap, at, least);
        at = least;
    }
}

static void heap_rise(struct simulation *sim, size_t at)
{
    for (; at && running_before(&sim->heap[at], &sim->heap[(at - 1) / 2]); at = (at - 1) / 2)
        heap_swap(sim->heap, at, (at - 1) / 2);
}

static void heap_add(struct simulation *sim, const struct running *running)
{
    VEC_RESERVE(sim->heap, sim->heap_count, sim->heap_capacity);
    sim->heap[sim->heap_count] = *running;
    heap_rise(sim, sim->heap_count++);
}

static struct running heap_take(struct simulation *sim, size_t at)
{
    struct running taken = sim->heap[at];
    sim->heap[at] = sim->heap[--sim->heap_count];
    if (at < sim->heap_count) {
        heap_sink(sim, at);
        heap_rise(sim, at);
    }
    return taken;
}

/* ---- stepping ---------------------------------------------------------------------------- */

static void keep_start(struct simulation *sim, const struct outgoing *outgoing)
{
    const struct msg_start *start = &outgoing->message.u.start;
    CHECK(start->job_id >= 1 && start->job_id <= sim->id_count);
    VEC_RESERVE(sim->starts, sim->start_count, sim->start_capacity);
    sim->starts[sim->start_count++] = (struct running){.attempt_id = start->attempt_id,
                                                       .peer = outgoing->peer,
                                                       .job = sim->job_of_id[start->job_id - 1],
                                                       .node = (uint32_t)start->node};
}

static void keep_refusal(struct simulation *sim, const struct msg_refused *refused)
{
    sim->refusals++;
    if (!sim->out->refusal[0])
        snprintf(sim->out->refusal, sizeof sim->out->refusal, "%s",
                 refused->refusals_count ? refused->refusals[0].text : refused->text);
}

/* What the shell does after a commit, with nothing to commit. */
static void release(struct simulation *sim)
{
    for (size_t i = 0; i < sim->effects.release_count; i++) {
        const struct outgoing *outgoing = &sim->effects.release[i];
        if (outgoing->message.tag == MSG_START) {
            keep_start(sim, outgoing);
        } else if (outgoing->message.tag == MSG_STOP) {
            VEC_RESERVE(sim->stops, sim->stop_count, sim->stop_capacity);
            sim->stops[sim->stop_count++] = outgoing->message.u.stop.attempt_id;
        } else if (outgoing->message.tag == MSG_REFUSED) {
            keep_refusal(sim, &outgoing->message.u.refused);
        }
    }
    effects_reset(&sim->effects);
}

static void step(struct simulation *sim, struct event *event)
{
    event->now_ms = START_MS + sim->now_ms;
    event->wall_us = WALL_START_US + sim->now_ms * 1000;
    core_step(sim->core, event, &sim->effects);
    sim->out->steps++;
    release(sim);
}

static void report(struct simulation *sim, const struct running *running,
                   struct rec_report *report)
{
    report->time_us = WALL_START_US + sim->now_ms * 1000;
    report->name = report->path = "";
    report->meta = "{}";
    struct msg_report message = {.attempt_id = running->attempt_id,
                                 .node = running->node,
                                 .reports = report,
                                 .reports_count = 1};
    struct event event = {.kind = EVENT_REPORTS,
                          .reports = {.peer = running->peer, .reports = &message}};
    step(sim, &event);
}

/* ---- workers ----------------------------------------------------------------------------- */

static void worker_join(struct simulation *sim, size_t index)
{
    const struct trace_node *node = &sim->trace->nodes[index];
    char name[32];
    snprintf(name, sizeof name, "node-%05zu", index);
    struct rec_name_value label = {.name = "gpu_model",
                                   .value = node->gpu_model ? node->gpu_model : ""};
    struct rec_device *devices = arena_alloc(&sim->arena, node->gpus * sizeof *devices);
    for (uint64_t i = 0; i < node->gpus; i++)
        devices[i] = (struct rec_device){.device_index = i,
                                         .kind = "gpu",
                                         .model = label.value,
                                         .uuid = arena_printf(&sim->arena, "GPU-%s-%llu", name,
                                                              (unsigned long long)i)};
    struct msg_worker_join join = {
        .name = name,
        .incarnation = 1,
        .host = name,
        .cores = node->cores,
        .memory_bytes = node->memory_bytes ? node->memory_bytes : TRACE_MEMORY_MAX,
        .devices = devices,
        .devices_count = node->gpus,
        .labels = &label,
        .labels_count = node->gpu_model != NULL,
        .topology = "{}",
        .endpoint = arena_printf(&sim->arena, "tcp://%s:1", name),
        .public_key = NODE_KEY,
    };
    struct event event = {.kind = EVENT_WORKER_JOIN, .join = {.peer = index + 1, .join = &join}};
    step(sim, &event);
    arena_reset(&sim->arena);
}

static void attempt_began(struct simulation *sim, struct running *running)
{
    const struct trace_job *job = &sim->trace->jobs[running->job];
    struct simulated *out = sim->out;
    report(sim, running, &(struct rec_report){.seq = 1, .kind = REPORT_STARTED, .cause = ""});
    if (running->node > 0) {
        /* counted with the first */
    } else if (out->start_ms[running->job] == SIMULATED_NEVER) {
        out->start_ms[running->job] = sim->now_ms;
        out->order[out->started++] = running->job;
    } else {
        out->preempted++;
    }
    running->end_ms = sim->now_ms + job->run_ms;
    heap_add(sim, running);
}

static void attempt_ended(struct simulation *sim, size_t at, enum cause cause)
{
    struct running running = heap_take(sim, at);
    report(sim, &running,
           &(struct rec_report){.seq = 2,
                                .kind = REPORT_FINISHED,
                                .cause = cause_name(cause),
                                .code = cause == CAUSE_EXIT});
    sim->out->end_ms[running.job] = sim->now_ms;
    sim->ended += running.node == 0;
}

/* Linear in what runs: stops are rare (preemption). */
static void stops_take(struct simulation *sim)
{
    for (size_t i = 0; i < sim->stop_count; i++)
        for (size_t k = 0; k < sim->heap_count; k++)
            if (sim->heap[k].attempt_id == sim->stops[i]) {
                sim->ended -= sim->heap[k].node == 0; /* it will run again */
                attempt_ended(sim, k, CAUSE_PREEMPTED);
                break;
            }
    sim->stop_count = 0;
}

/* ---- jobs -------------------------------------------------------------------------------- */

/* A spec with every default, whose resources each job of the trace fills in. */
static struct spec *template_make(void)
{
    static const char yaml[] = "athanor: 1\nname: replay\nexperiment: replay\nkind: command\n"
                               "command: [\"true\"]\nretry: {attempts: 1}\n";
    struct spec_source source = {.name = "replay", .bytes = yaml, .length = sizeof yaml - 1};
    struct catalogue catalogue = {0};
    struct spec_errors errors = {0};
    struct spec *spec = NULL;
    CHECK(spec_read(&source, &catalogue, &spec, &errors) == 0);
    return spec;
}

/* "A|B" as a constraint on the label gpu_model. */
static void constraint_add(struct simulation *sim, const char *models, struct spec_job *job)
{
    size_t count = 1, at = 0;
    for (const char *c = models; *c; c++)
        count += *c == '|';
    const char **values = arena_alloc(&sim->arena, count * sizeof *values);
    for (size_t length; at < count; models += length + 1) {
        length = strcspn(models, "|");
        values[at++] = arena_strndup(&sim->arena, models, length);
    }
    struct spec_label *label = arena_alloc(&sim->arena, sizeof *label);
    *label = (struct spec_label){.name = "gpu_model", .values = values, .value_count = count};
    job->constraints = label;
    job->constraint_count = 1;
}

/* On as many nodes as the trace says, else on any number: a machine of one node has no choice. */
static void nodes_ask(const struct trace *trace, const struct trace_job *from,
                      struct spec_resources *resources)
{
    uint64_t most = min_u64(min_u64(trace->node_count, from->ranks), ASK_NODES_MAX);
    resources->nodes_min = from->nodes && from->nodes <= most ? from->nodes : 1;
    resources->nodes_max = from->nodes && from->nodes <= most ? from->nodes : (uint32_t)most;
}

static void job_submit(struct simulation *sim, uint32_t index)
{
    const struct trace_job *from = &sim->trace->jobs[index];
    struct spec spec = *sim->template;
    struct spec_job job = spec.jobs[0];
    uint8_t key[16] = {0};
    uint64_t number = (uint64_t)index + 1;
    size_t refusals = sim->refusals;
    memcpy(key, &number, sizeof number);
    job.name = arena_printf(&sim->arena, "%llu", (unsigned long long)from->number);
    job.priority = from->priority;
    job.resources.ranks = from->ranks;
    job.resources.cores = from->cores;
    job.resources.gpus = from->gpus;
    job.resources.memory_bytes = from->memory_bytes ? from->memory_bytes : 1;
    nodes_ask(sim->trace, from, &job.resources);
    job.limits.wall_time_ms = from->wall_ms;
    if (from->gpu_models)
        constraint_add(sim, from->gpu_models, &job);
    spec.jobs = &job;
    struct event event = {.kind = EVENT_SUBMIT,
                          .submit = {.client = 1,
                                     .account = sim->trace->users[from->user],
                                     .submit_key = key,
                                     .spec = &spec,
                                     .source = ""}};
    sim->job_of_id[sim->id_count] = index;
    step(sim, &event);
    if (sim->refusals == refusals)
        sim->id_count++;
    else
        sim->ended++;
    arena_reset(&sim->arena);
}

/* ---- time -------------------------------------------------------------------------------- */

static void tick(struct simulation *sim)
{
    struct event event = {.kind = EVENT_TICK};
    uint64_t from_us = clock_steady_us();
    event.now_ms = START_MS + sim->now_ms;
    event.wall_us = WALL_START_US + sim->now_ms * 1000;
    core_step(sim->core, &event, &sim->effects);
    uint64_t took_us = clock_steady_us() - from_us;
    sim->out->steps++;
    sim->out->pass_us += took_us;
    sim->out->pass_us_max = max_u64(sim->out->pass_us_max, took_us);
    release(sim);
}

/* Passes until nothing more happens in this millisecond. */
static void settle(struct simulation *sim)
{
    do {
        tick(sim);
        for (size_t i = 0; i < sim->start_count; i++)
            attempt_began(sim, &sim->starts[i]);
        sim->start_count = 0;
        stops_take(sim);
    } while (sim->effects.wake_at_ms && sim->effects.wake_at_ms <= START_MS + sim->now_ms);
}

/* The next moment at which something happens; SIMULATED_NEVER when all is over. */
static uint64_t next_ms(const struct simulation *sim)
{
    uint64_t next = SIMULATED_NEVER, wake = sim->effects.wake_at_ms;
    if (sim->submitted < sim->trace->job_count)
        next = sim->trace->jobs[sim->submitted].submit_ms;
    if (sim->heap_count)
        next = min_u64(next, sim->heap[0].end_ms);
    if (wake && wake < SILENCE_MS / 4)
        next = min_u64(next, wake - START_MS);
    return next;
}

static void moment(struct simulation *sim)
{
    while (sim->heap_count && sim->heap[0].end_ms <= sim->now_ms) {
        const struct trace_job *job = &sim->trace->jobs[sim->heap[0].job];
        attempt_ended(sim, 0, job->failed ? CAUSE_EXIT : CAUSE_SUCCESS);
    }
    while (sim->submitted < sim->trace->job_count &&
           sim->trace->jobs[sim->submitted].submit_ms <= sim->now_ms)
        job_submit(sim, (uint32_t)sim->submitted++);
    settle(sim);
}

static void run(struct simulation *sim, simulate_progress *progress, void *user)
{
    size_t told = 0, total = sim->trace->job_count;
    unsigned idle = 0;
    for (uint64_t next; (next = next_ms(sim)) != SIMULATED_NEVER;) {
        bool only_timers = !sim->heap_count && sim->submitted == total;
        if (only_timers && (sim->ended == total || ++idle > IDLE_WAKES_MAX))
            break;
        sim->now_ms = max_u64(sim->now_ms, next);
        moment(sim);
        if (progress && sim->ended >= told + PROGRESS_EVERY) {
            told = sim->ended;
            progress(user, told, total);
        }
    }
    for (size_t i = 0; i < total; i++)
        sim->out->refused += sim->out->start_ms[i] == SIMULATED_NEVER;
}

static void simulation_open(struct simulation *sim, const char *policy)
{
    size_t jobs = sim->trace->job_count;
    sim->core = core_new(&(struct core_config){.epoch = 1,
                                               .lease_ms = SILENCE_MS,
                                               .heartbeat_ms = SILENCE_MS,
                                               .resend_ms = SILENCE_MS,
                                               .reason_ms = SILENCE_MS,
                                               .jobs_max = (uint32_t)jobs + 1,
                                               .policy = policy});
    effects_init(&sim->effects);
    sim->template = template_make();
    sim->job_of_id = mem_array(jobs, sizeof *sim->job_of_id);
    sim->out->start_ms = mem_array(jobs, sizeof *sim->out->start_ms);
    sim->out->end_ms = mem_array(jobs, sizeof *sim->out->end_ms);
    sim->out->order = mem_array(jobs, sizeof *sim->out->order);
    for (size_t i = 0; i < jobs; i++)
        sim->out->start_ms[i] = sim->out->end_ms[i] = SIMULATED_NEVER;
    for (size_t i = 0; i < sim->trace->node_count; i++)
        worker_join(sim, i);
}

static void simulation_close(struct simulation *sim)
{
    core_free(sim->core);
    effects_done(&sim->effects);
    spec_free(sim->template);
    arena_done(&sim->arena);
    mem_free(sim->heap);
    mem_free(sim->starts);
    mem_free(sim->stops);
    mem_free(sim->job_of_id);
}

int simulate(const struct trace *trace, const char *policy, simulate_progress *progress,
             void *user, struct simulated *out, struct err *err)
{
    *out = (struct simulated){0};
    if (!policy_find(policy)) {
        struct buf names = {0};
        for (size_t i = 0; policy_at(i); i++)
            buf_printf(&names, "%s%s", i ? ", " : "", policy_at(i)->name);
        err_set(err, ERR_INVALID, "there is no policy '%.60s', expected one of: %s", policy,
                buf_text(&names));
        buf_done(&names);
        return -1;
    }
    if (trace->node_count == 0)
        return err_set(err, ERR_INVALID,
                       "the trace does not describe a machine: give --nodes and --cores, or "
                       "--machine with a CSV of nodes");
    struct simulation sim = {.trace = trace, .out = out};
    struct core_counts counts;
    simulation_open(&sim, policy);
    run(&sim, progress, user);
    core_counts(sim.core, &counts);
    out->passes = counts.passes;
    simulation_close(&sim);
    return 0;
}

void simulated_free(struct simulated *simulated)
{
    mem_free(simulated->start_ms);
    mem_free(simulated->end_ms);
    mem_free(simulated->order);
    *simulated = (struct simulated){0};
}
