/* class.c - resource classes: jobs that ask for the same thing of a worker. */
#include "coordinator/core/state.h"

#include "common/base/buf.h"

#include <string.h>

struct policy_need job_need(const struct job *job, uint32_t ranks)
{
    return (struct policy_need){
        .cores = (uint64_t)ranks * job->cores,
        .memory_bytes = ranks * job->memory_bytes,
        .gpus = (uint64_t)ranks * job->gpus,
    };
}

static void limits_put(struct buf *key, const struct job *job)
{
    struct limit_key limits[POLICY_LIMITS_MAX];
    limit_keys(job, limits);
    buf_add(key, limits, sizeof limits);
}

/* The job's memory may have grown since its spec was written. */
static struct ask job_ask(const struct job *job, const struct spec_job *spec)
{
    const struct spec_resources *want = &spec->resources;
    return (struct ask){
        .rank = {job->cores, job->memory_bytes, job->gpus},
        .ranks = job->ranks,
        .nodes_min = want->nodes_min ? want->nodes_min : 1,
        .nodes_max = want->nodes_max ? want->nodes_max : 1,
        .ranks_per_node = want->ranks_per_node,
        .exclusive = want->exclusive,
        .spread = want->placement == SPEC_PLACEMENT_SPREAD,
        .wall_time_ms = job->limits.wall_time_ms,
        .gpu_model = want->gpu_model ? want->gpu_model : "",
        .constraints = spec->constraints,
        .constraint_count = spec->constraint_count,
        .avoid_worker_id = job->avoid_worker_id,
    };
}

static void key_text(struct buf *key, const char *text)
{
    buf_add(key, text, strlen(text) + 1);
}

static void key_build(struct buf *key, const struct ask *ask)
{
    const uint64_t numbers[] = {ask->rank.cores,     ask->rank.memory_bytes, ask->rank.gpus,
                                ask->ranks,          ask->nodes_min,         ask->nodes_max,
                                ask->ranks_per_node, ask->exclusive,         ask->spread,
                                ask->wall_time_ms,   ask->avoid_worker_id};
    buf_add(key, numbers, sizeof numbers);
    key_text(key, ask->gpu_model);
    for (size_t i = 0; i < ask->constraint_count; i++) {
        const struct spec_label *label = &ask->constraints[i];
        buf_putc(key, (char)('A' + label->alternative));
        key_text(key, label->name);
        for (size_t k = 0; k < label->value_count; k++)
            key_text(key, label->values[k]);
        buf_putc(key, '\n');
    }
}

static struct spec_label *constraints_copy(const struct spec_label *from, size_t count)
{
    struct spec_label *copy = mem_array(count, sizeof *copy);
    for (size_t i = 0; i < count; i++) {
        const char **values = mem_array(from[i].value_count, sizeof *values);
        for (size_t k = 0; k < from[i].value_count; k++)
            values[k] = mem_strdup(from[i].values[k]);
        copy[i] = from[i];
        copy[i].name = mem_strdup(from[i].name);
        copy[i].values = values;
    }
    return copy;
}

void class_free(struct class *class)
{
    for (size_t i = 0; i < class->ask.constraint_count; i++) {
        const struct spec_label *label = &class->ask.constraints[i];
        for (size_t k = 0; k < label->value_count; k++)
            mem_free((char *)label->values[k]);
        mem_free((void *)label->values);
        mem_free((char *)label->name);
    }
    mem_free((void *)class->ask.constraints);
    mem_free((char *)class->ask.gpu_model);
    mem_free(class->key);
    mem_free(class);
}

static struct class *class_add(struct core *core, const struct job *job, const struct ask *ask,
                               struct buf *key)
{
    struct class *class = mem_zalloc(sizeof *class);
    class->ask = *ask;
    class->ask.gpu_model = mem_strdup(ask->gpu_model);
    class->ask.constraints = constraints_copy(ask->constraints, ask->constraint_count);
    class->need = (struct policy_need){.cores = ask->ranks * ask->rank.cores,
                                       .memory_bytes = ask->ranks * ask->rank.memory_bytes,
                                       .gpus = ask->ranks * ask->rank.gpus};
    class->account = job->account;
    class->queue_config = job->queue;
    class->project = job->project;
    class->key_length = key->length;
    class->key = buf_take(key);
    limits_join(core, class, job);
    class->index = core->class_count;
    HASH_ADD_KEYPTR(hh, core->classes_by_key, class->key, class->key_length, class);
    VEC_RESERVE(core->classes, core->class_count, core->class_capacity);
    core->classes[core->class_count++] = class;
    return class;
}

struct class *class_get(struct core *core, const struct job *job, const struct ask *ask)
{
    struct buf key = {0};
    struct class *class = NULL;
    key_build(&key, ask);
    rights_key_add(&key, job);
    limits_put(&key, job);
    HASH_FIND(hh, core->classes_by_key, key.bytes, key.length, class);
    if (!class)
        class = class_add(core, job, ask, &key);
    buf_done(&key);
    return class;
}

/* The class of the same ask but for the job's present memory and the worker it avoids now. */
struct class *class_again(struct core *core, const struct job *job)
{
    struct ask ask = job->class->ask;
    ask.rank.memory_bytes = job->memory_bytes;
    ask.avoid_worker_id = job->avoid_worker_id;
    return class_get(core, job, &ask);
}

void class_join(struct job *job, struct class *class)
{
    job->class = class;
    class->job_count++;
    class->reads |= job->input_count > 0 || job->checkpoint_count > 0;
    job->queue->job_count++;
    limits_live(class, true);
    job->project->job_count++;
}

void class_join_spec(struct core *core, struct job *job, const struct spec_job *spec)
{
    struct ask ask = job_ask(job, spec);
    class_join(job, class_get(core, job, &ask));
}

static void class_remove(struct core *core, struct class *class)
{
    HASH_DEL(core->classes_by_key, class);
    limits_leave(core, class);
    core->class_count--;
    for (size_t i = class->index; i < core->class_count; i++) {
        core->classes[i] = core->classes[i + 1];
        core->classes[i]->index = i;
    }
    class_free(class);
}

void class_leave(struct core *core, struct job *job)
{
    struct class *class = job->class;
    CHECK(class != NULL && class->job_count > 0);
    if (job->node.queued)
        queue_remove(&class->queue, &job->node);
    job->class = NULL;
    job->queue->job_count--;
    limits_live(class, false);
    job->project->job_count--;
    if (--class->job_count == 0)
        class_remove(core, class);
}

const char *worker_label(const struct worker *worker, const char *name)
{
    for (size_t i = 0; i < worker->label_count; i++)
        if (strcmp(worker->labels[i].name, name) == 0)
            return worker->labels[i].value;
    return NULL;
}

static bool labels_fit(const struct ask *ask, const struct worker *worker)
{
    bool fits = true; /* the alternative being read */
    for (size_t i = 0; i < ask->constraint_count; i++) {
        const struct spec_label *label = &ask->constraints[i];
        if (i && label->alternative != label[-1].alternative) {
            if (fits)
                return true;
            fits = true;
        }
        fits = fits && spec_label_holds(label, worker_label(worker, label->name));
    }
    return fits;
}

uint64_t class_gpus_unfit(const struct class *class, const struct worker *worker)
{
    const char *model = class->ask.gpu_model;
    return *model ? worker->gpus - worker_gpus_of(worker, model) : 0;
}

static bool suits(const struct class *class, const struct worker *worker)
{
    return labels_fit(&class->ask, worker) &&
           (!*class->ask.gpu_model || worker_gpus_of(worker, class->ask.gpu_model) > 0);
}

bool class_allows(const struct class *class, const struct worker *worker)
{
    return suits(class, worker) &&
           (class->avoids_nobody || worker->worker_id != class->ask.avoid_worker_id);
}

bool class_can_avoid(const struct core *core, const struct class *class, uint64_t worker_id)
{
    uint32_t nodes = max_u64(class->ask.nodes_min, 1), others = 0;
    uint32_t share = (class->ask.ranks + nodes - 1) / nodes;
    for (size_t i = 0; i < core->worker_count; i++) {
        const struct worker *worker = core->workers[i];
        struct policy_need total = {worker->cores, worker->memory_bytes, worker->gpus};
        others += worker->worker_id != worker_id && worker_is_usable(worker) &&
                  suits(class, worker) && (nodes == 1 || worker->endpoint[0]) &&
                  !worker_leaves_before(core, class, worker, core->now_ms) &&
                  class_ranks_on(class, worker, total) >= share;
    }
    return others >= nodes;
}

void class_review_avoided(struct core *core)
{
    core->some_avoid = false;
    for (size_t i = 0; i < core->class_count; i++) {
        struct class *class = core->classes[i];
        if (!class->ask.avoid_worker_id)
            continue;
        bool nobody = !class_can_avoid(core, class, class->ask.avoid_worker_id);
        if (nobody != class->avoids_nobody)
            class->blocked = false; /* also workers that have not changed are others now */
        class->avoids_nobody = nobody;
        core->some_avoid = true;
    }
}

uint32_t class_nodes_max(const struct core *core, const struct class *class)
{
    return class->ask.nodes_min > 1 || core->meshed ? class->ask.nodes_max : 1;
}

struct charge class_charge_on(const struct class *class, const struct worker *worker,
                              uint32_t ranks)
{
    if (class->ask.exclusive)
        return (struct charge){.cores = worker->cores, .gpus = worker->gpus};
    return (struct charge){.cores = ranks * class->ask.rank.cores,
                           .gpus = ranks * class->ask.rank.gpus};
}

/* Of an exclusive job: the smallest worker that takes it, as often as it needs workers. */
struct charge class_charge_least(const struct core *core, const struct class *class)
{
    struct charge least = {UINT64_MAX, UINT64_MAX};
    uint32_t ranks = class_nodes_max(core, class) == 1 ? class->ask.ranks : 1;
    for (size_t i = 0; class->ask.exclusive && i < core->worker_count; i++) {
        const struct worker *worker = core->workers[i];
        struct policy_need total = {worker->cores, worker->memory_bytes, worker->gpus};
        if (!worker_is_usable(worker) || !class_allows(class, worker) ||
            class_ranks_on(class, worker, total) < ranks)
            continue;
        least.cores = min_u64(least.cores, worker->cores);
        least.gpus = min_u64(least.gpus, worker->gpus);
    }
    if (least.cores == UINT64_MAX)
        return (struct charge){class->need.cores, class->need.gpus};
    return (struct charge){max_u64(least.cores * class->ask.nodes_min, class->need.cores),
                           max_u64(least.gpus * class->ask.nodes_min, class->need.gpus)};
}

/* By its limit alone: the default of a queue is a guess that nobody enforces. */
uint64_t class_gpu_ms(const struct class *class, struct charge charge)
{
    uint64_t wall_ms = class->ask.wall_time_ms;
    return policy_gpu_ms(charge.gpus, wall_ms ? wall_ms : UINT64_MAX);
}

static uint64_t times(uint64_t free, uint64_t each, uint64_t most)
{
    return each ? min_u64(free / each, most) : most;
}

uint32_t class_ranks_on(const struct class *class, const struct worker *worker,
                        struct policy_need room)
{
    const struct ask *ask = &class->ask;
    uint64_t unfit = class_gpus_unfit(class, worker);
    uint64_t most = ask->ranks_per_node ? min_u64(ask->ranks_per_node, ask->ranks) : ask->ranks;
    most = times(room.cores, ask->rank.cores, most);
    most = times(room.memory_bytes, ask->rank.memory_bytes, most);
    return (uint32_t)times(room.gpus > unfit ? room.gpus - unfit : 0, ask->rank.gpus, most);
}
