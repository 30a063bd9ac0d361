/* input.c - what the inputs of a job are, found when it is placed.
 *
 * Which job an input comes from was bound at submit (submit.c), or, of the best trial of a sweep,
 * at the sweep's end (sweep.c); which of that job's checkpoints or datasets it is, is decided here,
 * and written as lineage in the same transaction. */
#include "coordinator/core/state.h"

#include <string.h>

static int missing(struct err *err, const struct input *input, const struct job *source,
                   const char *what)
{
    return err_set(err, ERR_NOT_FOUND, "input '%s' (%s): job %llu (%s) has %s", input->name,
                   input->ref.text, (unsigned long long)source->job_id, source->name, what);
}

const struct checkpoint *input_checkpoint(const struct job *source, const struct spec_ref *ref)
{
    switch (ref->select) {
    case SPEC_SELECT_BEST:
        return checkpoint_best(source);
    case SPEC_SELECT_STEP:
        return checkpoint_at(source, ref->step);
    case SPEC_SELECT_LAST:
    case SPEC_SELECT_NONE:
        break;
    }
    return checkpoint_resume(source);
}

static bool covers(const struct input *input, uint64_t parent_id)
{
    return input->source_job_id && parent_id >= input->source_job_id &&
           parent_id - input->source_job_id < max_u64(input->trial_count, 1);
}

bool inputs_read(const struct job *job, uint64_t parent_id)
{
    for (size_t i = 0; i < job->input_count; i++)
        if (covers(&job->inputs[i], parent_id))
            return true;
    return false;
}

const struct input *input_open(const struct job *job)
{
    for (size_t i = 0; i < job->input_count; i++)
        if (job->inputs[i].trial_count > 0)
            return &job->inputs[i];
    return NULL;
}

void inputs_decide(struct job *job)
{
    for (size_t i = 0; i < job->edge_count; i++) {
        uint64_t parent_id = job->edges[i].parent_id;
        for (size_t k = 0; job->edges[i].chosen && k < job->input_count; k++) {
            struct input *input = &job->inputs[k];
            if (input->trial_count == 0 || !covers(input, parent_id))
                continue;
            input->source_job_id = parent_id;
            input->trial_count = 0;
        }
    }
    for (size_t i = 0; i < job->edge_count; i++)
        job->edges[i].reads = inputs_read(job, job->edges[i].parent_id);
}

bool input_content(const struct job *source, const struct spec_ref *ref, struct hash *out)
{
    const struct checkpoint *checkpoint =
        ref->kind == SPEC_REF_CHECKPOINT ? input_checkpoint(source, ref) : NULL;
    const struct artifact *artifact =
        ref->kind == SPEC_REF_DATASET ? artifact_dataset(source, ref->name) : NULL;
    if (checkpoint)
        *out = checkpoint->content;
    else if (artifact)
        *out = artifact->content;
    return checkpoint || artifact;
}

static int resolve_checkpoint(struct input *input, const struct job *source, struct err *err)
{
    const struct checkpoint *checkpoint = input_checkpoint(source, &input->ref);
    if (!checkpoint)
        return missing(err, input, source, "no such checkpoint");
    text_set(&input->path, checkpoint->path);
    input->checkpoint_id = checkpoint->checkpoint_id;
    input->content = checkpoint->content;
    return 0;
}

static int resolve_dataset(struct input *input, const struct job *source, struct err *err)
{
    const struct artifact *artifact = artifact_dataset(source, input->ref.name);
    if (!artifact)
        return missing(err, input, source, "made no such dataset");
    text_set(&input->path, artifact->path);
    input->artifact_id = artifact->artifact_id;
    input->content = artifact->content;
    return 0;
}

static int input_resolve(struct core *core, struct input *input, struct err *err)
{
    input->checkpoint_id = input->artifact_id = 0;
    input->content = (struct hash){0};
    if (input->ref.kind == SPEC_REF_FILE) {
        text_set(&input->path, input->ref.name);
        return 0;
    }
    const struct job *source = job_find(core, input->source_job_id);
    if (!source)
        return err_set(err, ERR_NOT_FOUND, "input '%s' (%s): job %llu is not known here",
                       input->name, input->ref.text, (unsigned long long)input->source_job_id);
    if (input->ref.kind == SPEC_REF_CHECKPOINT)
        return resolve_checkpoint(input, source, err);
    return resolve_dataset(input, source, err);
}

int input_resolve_all(struct core *core, struct job *job, struct err *err)
{
    for (size_t i = 0; i < job->input_count; i++)
        if (input_resolve(core, &job->inputs[i], err) < 0)
            return -1;
    for (size_t i = 0; i < job->input_count; i++)
        job->inputs[i].resolved = true;
    return 0;
}

void input_rows(struct core *core, const struct attempt *attempt)
{
    const struct job *job = attempt->job;
    for (size_t i = 0; i < job->input_count; i++) {
        const struct input *input = &job->inputs[i];
        struct row_lineage row = {
            .attempt_id = attempt->attempt_id,
            .input = input->name,
            .ref = input->ref.text,
            .path = input->path,
            .source_job_id = input->source_job_id,
            .checkpoint_id = input->checkpoint_id,
            .artifact_id = input->artifact_id,
            .content_hash = input->content,
        };
        effects_persist(core->effects, ROW_TABLE_lineage, PERSIST_INSERT, &row);
    }
}
