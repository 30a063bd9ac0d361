/* reuse.c - results of an identical job that has succeeded, taken instead of running again.
 *
 * Two jobs are identical when their identity is equal: a hash over the resolved spec without what
 * only names or schedules a job (spec_job_identity), the content hash of every input, and the hash
 * of the engine's program. The part that is known from the spec alone (spec_hash) is a column to
 * find candidates by; the identity is written when an attempt is placed, because only then inputs
 * and worker are known. A job that ran on different engines, or of which anything is not covered
 * by a hash, has none and is never reused: commands (their program is not hashed), data recipes
 * and inputs file:PATH (files outside of Athanor may change). */
#include "coordinator/core/state.h"

#include <string.h>

static bool hash_is_set(const struct hash *hash)
{
    static const struct hash zero;
    return !hash_equal(hash, &zero);
}

bool reuse_spec_hash(const struct spec_job *spec, struct hash *out)
{
    char *identity = spec_job_identity(spec);
    if (!identity)
        return false;
    hash_bytes(identity, strlen(identity), out);
    mem_free(identity);
    return true;
}

void reuse_take(struct job *job, const struct spec_job *spec, const struct hash *stored)
{
    struct hash spec_hash;
    if (stored && hash_is_set(stored))
        spec_hash = *stored;
    else if (!reuse_spec_hash(spec, &spec_hash)) /* a row of before the column may have one */
        return;
    job->reuse = mem_zalloc(sizeof *job->reuse);
    job->reuse->spec_hash = spec_hash;
}

static void identity_start(struct hash_stream *stream, const struct hash *spec_hash,
                           const char *engine)
{
    static const char scheme[] = "athanor job identity 1";
    hash_start(stream);
    hash_add(stream, scheme, sizeof scheme);
    hash_add(stream, spec_hash->bytes, sizeof spec_hash->bytes);
    hash_add(stream, engine, strlen(engine) + 1);
}

static void identity_input(struct hash_stream *stream, const char *name, const char *part,
                           const struct hash *content)
{
    hash_add(stream, name, strlen(name) + 1);
    hash_add(stream, part, strlen(part) + 1);
    hash_add(stream, content->bytes, sizeof content->bytes);
}

/* Of the attempt that is being placed. False when something is not covered by a hash. */
static bool identity_of(const struct job *job, const struct worker *worker, struct hash *out)
{
    struct hash_stream stream;
    if (!worker->engine || !*worker->engine)
        return false;
    identity_start(&stream, &job->reuse->spec_hash, worker->engine);
    for (size_t i = 0; i < job->input_count; i++) { /* sorted by name */
        const struct input *input = &job->inputs[i];
        if (!hash_is_set(&input->content))
            return false;
        identity_input(&stream, input->name, input->ref.part, &input->content);
    }
    hash_end(&stream, out);
    return true;
}

void reuse_placed(struct job *job, const struct worker *worker, bool first)
{
    struct hash identity;
    if (!job->reuse)
        return;
    bool known = identity_of(job, worker, &identity) &&
                 ((first && job->attempt_count == 1) ||
                  hash_equal(&identity, &job->reuse->identity));
    job->reuse->identity = known ? identity : (struct hash){0};
}

/* The newest of the event's rows that succeeded with this identity. */
static const struct row_job *row_identical(const struct event_found *found,
                                           const struct hash *identity)
{
    const struct row_job *newest = NULL;
    for (size_t i = 0; i < found->job_count; i++) {
        const struct row_job *row = &found->jobs[i];
        if (hash_equal(&row->identity, identity) && strcmp(row->state, "SUCCEEDED") == 0 &&
            !row->reused_job_id && (!newest || row->job_id > newest->job_id))
            newest = row;
    }
    return newest;
}

/* The engines that the job could run with now; of several any will do. */
struct job *reuse_find(struct core *core, const struct event_found *found,
                       const struct spec_job *spec, const struct reuse_input *inputs)
{
    struct hash spec_hash, identity;
    if (!reuse_spec_hash(spec, &spec_hash))
        return NULL;
    for (size_t i = 0; i < spec->input_count; i++)
        if (!hash_is_set(&inputs[i].content))
            return NULL;
    for (size_t i = 0; i < core->worker_count; i++) {
        const struct worker *worker = core->workers[i];
        struct hash_stream stream;
        if (!worker->joined || !worker->engine || !*worker->engine)
            continue;
        identity_start(&stream, &spec_hash, worker->engine);
        for (size_t k = 0; k < spec->input_count; k++)
            identity_input(&stream, spec->inputs[k].name, inputs[k].part, &inputs[k].content);
        hash_end(&stream, &identity);
        const struct row_job *row = row_identical(found, &identity);
        if (row)
            return job_find(core, row->job_id);
    }
    return NULL;
}
