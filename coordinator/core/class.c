/* class.c - resource classes: jobs that ask for the same thing of a worker. */
#include "coordinator/core/state.h"

#include "common/base/buf.h"

#include <string.h>

struct policy_need job_need(const struct job *job)
{
    return (struct policy_need){
        .cores = (uint64_t)job->ranks * job->cores,
        .memory_bytes = job->ranks * job->memory_bytes,
        .gpus = (uint64_t)job->ranks * job->gpus,
    };
}

static void key_build(struct buf *key, const struct policy_need *need, uint32_t ranks,
                      uint64_t wall_time_ms, const struct spec_label *constraints,
                      size_t constraint_count)
{
    buf_add(key, need, sizeof *need);
    buf_add(key, &ranks, sizeof ranks);
    buf_add(key, &wall_time_ms, sizeof wall_time_ms);
    for (size_t i = 0; i < constraint_count; i++) {
        buf_add(key, constraints[i].name, strlen(constraints[i].name) + 1);
        for (size_t k = 0; k < constraints[i].value_count; k++)
            buf_add(key, constraints[i].values[k], strlen(constraints[i].values[k]) + 1);
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
        copy[i] = (struct spec_label){.name = mem_strdup(from[i].name),
                                      .values = values,
                                      .value_count = from[i].value_count};
    }
    return copy;
}

void class_free(struct class *class)
{
    for (size_t i = 0; i < class->constraint_count; i++) {
        const struct spec_label *label = &class->constraints[i];
        for (size_t k = 0; k < label->value_count; k++)
            mem_free((char *)label->values[k]);
        mem_free((void *)label->values);
        mem_free((char *)label->name);
    }
    mem_free(class->constraints);
    mem_free(class->key);
    mem_free(class);
}

struct class *class_get(struct core *core, const struct job *job,
                        const struct spec_label *constraints, size_t constraint_count)
{
    struct policy_need need = job_need(job);
    struct buf key = {0};
    key_build(&key, &need, job->ranks, job->limits.wall_time_ms, constraints, constraint_count);
    rights_key_add(&key, job);
    struct class *class = NULL;
    HASH_FIND(hh, core->classes_by_key, key.bytes, key.length, class);
    if (class) {
        buf_done(&key);
        return class;
    }
    class = mem_zalloc(sizeof *class);
    class->need = need;
    class->account = job->account;
    class->queue_config = job->queue;
    class->project = job->project;
    class->ranks = job->ranks;
    class->wall_time_ms = job->limits.wall_time_ms;
    class->constraints = constraints_copy(constraints, constraint_count);
    class->constraint_count = constraint_count;
    class->key_length = key.length;
    class->key = buf_take(&key);
    class->index = core->class_count;
    HASH_ADD_KEYPTR(hh, core->classes_by_key, class->key, class->key_length, class);
    VEC_RESERVE(core->classes, core->class_count, core->class_capacity);
    core->classes[core->class_count++] = class;
    return class;
}

/* The class of the same constraints for the job's present memory. */
struct class *class_with_memory(struct core *core, const struct job *job)
{
    return class_get(core, job, job->class->constraints, job->class->constraint_count);
}

void class_join(struct job *job, struct class *class)
{
    job->class = class;
    class->job_count++;
    job->queue->job_count++;
    job->project->job_count++;
}

static void class_remove(struct core *core, struct class *class)
{
    HASH_DEL(core->classes_by_key, class);
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
    job->project->job_count--;
    if (--class->job_count == 0)
        class_remove(core, class);
}

static bool worker_has_label(const struct worker *worker, const struct spec_label *wanted)
{
    for (size_t i = 0; i < worker->label_count; i++) {
        if (strcmp(worker->labels[i].name, wanted->name) != 0)
            continue;
        for (size_t k = 0; k < wanted->value_count; k++)
            if (strcmp(worker->labels[i].value, wanted->values[k]) == 0)
                return true;
    }
    return false;
}

bool class_allows(const struct class *class, const struct worker *worker)
{
    for (size_t i = 0; i < class->constraint_count; i++)
        if (!worker_has_label(worker, &class->constraints[i]))
            return false;
    return true;
}
