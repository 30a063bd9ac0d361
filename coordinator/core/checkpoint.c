/* checkpoint.c - the registry of a job's checkpoints: resume point, best, retention.
 *
 * A row exists only for a checkpoint whose manifest the worker has verified, so a torn one can
 * never be chosen (invariant 7). Removal is decided here: the row gets removed_at, from then on
 * nothing chooses it, and CHECKPOINT_DROP tells the worker to delete the files. A drop is not
 * acknowledged; it is repeated when the worker joins while the attempt goes on, after that a lost
 * drop leaves files behind.
 *
 * The other way round would be worse: a drop must never hit files that were written anew. Paths
 * follow steps and an attempt only goes forward, so files are deleted only where the live attempt
 * has saved that step or a later one itself. A program that began anew, behind an earlier
 * attempt, will come upon the earlier files again: they stay until it has passed them. */
#include "coordinator/core/state.h"

#include <string.h>

#define PATH_BYTES_MAX 4096u

void checkpoint_free(struct checkpoint *checkpoint)
{
    mem_free(checkpoint->path);
    mem_free(checkpoint->metrics_json);
}

struct checkpoint *checkpoint_by_id(const struct job *job, uint64_t checkpoint_id)
{
    for (size_t i = 0; checkpoint_id && i < job->checkpoint_count; i++)
        if (job->checkpoints[i].checkpoint_id == checkpoint_id)
            return &job->checkpoints[i];
    return NULL;
}

const struct checkpoint *checkpoint_at(const struct job *job, uint64_t step)
{
    for (size_t i = job->checkpoint_count; i > 0; i--)
        if (job->checkpoints[i - 1].step == step)
            return &job->checkpoints[i - 1];
    return NULL;
}

/* The newest one, also when a program that ignores ATHANOR_RESUME began anew and is behind an
 * earlier attempt. Readers: the next attempt, and `checkpoint:last`. */
const struct checkpoint *checkpoint_resume(const struct job *job)
{
    return job->checkpoint_count ? &job->checkpoints[job->checkpoint_count - 1] : NULL;
}

static bool is_better(const struct checkpoint *a, const struct checkpoint *b)
{
    if (a->has_score != b->has_score)
        return a->has_score;
    if (a->has_score && a->score != b->score)
        return a->score > b->score;
    return a->checkpoint_id > b->checkpoint_id;
}

/* By the job's keep-best metric; without one, or before any has it, the newest. */
const struct checkpoint *checkpoint_best(const struct job *job)
{
    const struct checkpoint *best = NULL;
    for (size_t i = 0; i < job->checkpoint_count; i++)
        if (!best || is_better(&job->checkpoints[i], best))
            best = &job->checkpoints[i];
    return best;
}

static void score_set(const struct job *job, struct checkpoint *checkpoint)
{
    double value;
    checkpoint->has_score =
        job->best_metric[0] && json_number(checkpoint->metrics_json, job->best_metric, &value);
    if (checkpoint->has_score)
        checkpoint->score = job->best_mode == SPEC_BEST_MAX ? value : -value;
}

static void row_write(struct core *core, const struct job *job, const struct checkpoint *checkpoint,
                      enum persist_op op)
{
    struct row_checkpoint row = {
        .checkpoint_id = checkpoint->checkpoint_id,
        .job_id = job->job_id,
        .attempt_id = checkpoint->attempt_id,
        .worker_id = checkpoint->worker_id,
        .step = checkpoint->step,
        .path = checkpoint->path,
        .size_bytes = checkpoint->size_bytes,
        .content_hash = checkpoint->content,
        .metrics = checkpoint->metrics_json,
        .saved_at = checkpoint->saved_at,
        .save_ms = checkpoint->save_ms,
        .removed_at = checkpoint->removed_at,
    };
    effects_persist(core->effects, ROW_TABLE_checkpoint, op, &row);
}

/* ---- removing ---------------------------------------------------------------------------- */

static void drop_send(struct core *core, const struct worker *worker,
                      const struct checkpoint *checkpoint)
{
    struct msg_checkpoint_drop *drop =
        &effects_release(core->effects, ADDRESS_WORKER, worker->peer, MSG_CHECKPOINT_DROP)
             ->u.checkpoint_drop;
    drop->attempt_id = checkpoint->attempt_id;
    drop->checkpoint_id = checkpoint->checkpoint_id;
    drop->content = checkpoint->content; /* a later attempt may have saved there anew */
    drop->path = arena_strdup(step_arena(core), checkpoint->path);
}

static void drop_keep(struct job *job, struct checkpoint checkpoint)
{
    if (job->drop_count == DROPS_MAX) {
        checkpoint_free(&job->drops[0]);
        memmove(job->drops, job->drops + 1, (DROPS_MAX - 1) * sizeof *job->drops);
        job->drop_count--;
    }
    VEC_RESERVE(job->drops, job->drop_count, job->drop_capacity);
    job->drops[job->drop_count++] = checkpoint;
}

static struct checkpoint list_take(struct job *job, size_t index)
{
    struct checkpoint taken = job->checkpoints[index];
    job->checkpoint_count--;
    memmove(job->checkpoints + index, job->checkpoints + index + 1,
            (job->checkpoint_count - index) * sizeof *job->checkpoints);
    return taken;
}

static void remove_at(struct core *core, struct job *job, size_t index, bool with_files)
{
    struct checkpoint checkpoint = list_take(job, index);
    checkpoint.removed_at = core->wall_us;
    row_write(core, job, &checkpoint, PERSIST_UPDATE);
    if (!with_files) {
        checkpoint_free(&checkpoint);
        return;
    }
    struct worker *worker = worker_find(core, checkpoint.worker_id);
    if (worker && worker->joined)
        drop_send(core, worker, &checkpoint);
    drop_keep(job, checkpoint);
}

void checkpoint_discard(struct core *core, struct job *job, uint64_t checkpoint_id)
{
    for (size_t i = 0; i < job->checkpoint_count; i++) {
        const struct checkpoint *checkpoint = &job->checkpoints[i];
        if (checkpoint->checkpoint_id != checkpoint_id)
            continue;
        history_add(core, "checkpoint_refused", job->job_id, checkpoint->attempt_id,
                    checkpoint->worker_id, NULL,
                    arena_printf(step_arena(core), "step %llu: %s",
                                 (unsigned long long)checkpoint->step, checkpoint->path));
        remove_at(core, job, i, false); /* whatever is there now is not ours to delete */
        return;
    }
}

static void discard_newest(struct core *core, struct job *job)
{
    checkpoint_discard(core, job, job->checkpoints[job->checkpoint_count - 1].checkpoint_id);
}

/* What was saved at the step where the numbers went bad, or later, holds them. An attempt that
 * resumed from what is left and went bad nevertheless says that this is too late as well, as long
 * as there is an earlier one. The data goes on behind the batch of the bad step: a batch once seen
 * is not seen again (Chowdhery et al. 2022, section 5.1, skip 200 to 500 of them). */
void checkpoint_rewind(struct core *core, struct job *job, const struct attempt *attempt)
{
    uint64_t bad = attempt->diverged_step, step, more;
    while (job->checkpoint_count && checkpoint_resume(job)->step >= bad)
        discard_newest(core, job);
    if (job->checkpoint_count > 1 &&
        checkpoint_resume(job)->checkpoint_id == attempt->resume_checkpoint_id)
        discard_newest(core, job);
    step = job->checkpoint_count ? checkpoint_resume(job)->step : 0;
    more = (bad > step ? bad - step : 0) + job->skip_more;
    job->data_skip = min_u64(job->data_skip + more, INT64_MAX / 2);
    job_mark(core, job);
    history_add(core, "rewound", job->job_id, attempt->attempt_id, 0, NULL,
                arena_printf(step_arena(core),
                             "diverged at step %llu: goes on from step %llu, %llu batches of data "
                             "are left out",
                             (unsigned long long)bad, (unsigned long long)step,
                             (unsigned long long)job->data_skip));
}

/* A living job reads it, or will: chosen at its dispatch, or asked for by step. */
static bool is_wanted_by(const struct job *child, uint64_t job_id,
                         const struct checkpoint *checkpoint)
{
    for (size_t i = 0; i < child->input_count; i++) {
        const struct input *input = &child->inputs[i];
        if (input->source_job_id != job_id || input->ref.kind != SPEC_REF_CHECKPOINT)
            continue;
        if (input->resolved && input->checkpoint_id == checkpoint->checkpoint_id)
            return true;
        if (input->ref.select == SPEC_SELECT_STEP && input->ref.step == checkpoint->step)
            return true;
    }
    return false;
}

static bool is_wanted(const struct job *job, const struct checkpoint *checkpoint)
{
    for (const struct edge *edge = job->children; edge; edge = edge->next)
        if (edge->reads && is_wanted_by(edge->child, job->job_id, checkpoint))
            return true;
    return false;
}

static size_t rank_by_score(const struct job *job, const struct checkpoint *checkpoint)
{
    size_t ahead = 0;
    for (size_t i = 0; i < job->checkpoint_count; i++)
        ahead += is_better(&job->checkpoints[i], checkpoint);
    return ahead;
}

/* Kept: the newest keep_last, the best keep_best, what children want, what the attempt has yet to
 * pass, and always the newest, which is the resume point. Both zero keeps all. */
static bool is_surplus(const struct job *job, size_t index)
{
    const struct checkpoint *checkpoint = &job->checkpoints[index];
    size_t newer = job->checkpoint_count - 1 - index;
    if (newer == 0 || newer < job->keep_last || checkpoint->step > checkpoint_resume(job)->step)
        return false;
    if (job->keep_best && checkpoint->has_score && rank_by_score(job, checkpoint) < job->keep_best)
        return false;
    return !is_wanted(job, checkpoint);
}

void checkpoint_retain(struct core *core, struct job *job)
{
    if (job->keep_last == 0 && job->keep_best == 0)
        return;
    for (size_t i = 0; i < job->checkpoint_count;) {
        if (is_surplus(job, i))
            remove_at(core, job, i, true);
        else
            i++;
    }
}

static bool path_is_live(const struct job *job, const char *path)
{
    for (size_t i = 0; i < job->checkpoint_count; i++)
        if (strcmp(job->checkpoints[i].path, path) == 0)
            return true;
    return false;
}

/* Whether the live attempt has passed the step, and nothing was saved at that path since. */
static bool drop_is_safe(const struct job *job, const struct checkpoint *drop)
{
    const struct checkpoint *newest = checkpoint_resume(job);
    return newest && newest->attempt_id == job->attempt->attempt_id &&
           drop->step <= newest->step && !path_is_live(job, drop->path);
}

/* Drops for files on this worker that may have been lost with a connection or a leader. */
void checkpoint_drops_send(struct core *core, struct worker *worker)
{
    for (const struct part *part = worker->parts; part; part = part->next) {
        const struct job *job = part->attempt->job;
        for (size_t i = 0; i < job->drop_count; i++)
            if (job->drops[i].worker_id == worker->worker_id && drop_is_safe(job, &job->drops[i]))
                drop_send(core, worker, &job->drops[i]);
    }
}

/* ---- adding ------------------------------------------------------------------------------ */

/* An attempt goes forward: a step that it has saved, or one before that, is a repeat. */
static bool is_repeat(const struct job *job, uint64_t attempt_id, uint64_t step)
{
    for (size_t i = 0; i < job->checkpoint_count; i++)
        if (job->checkpoints[i].attempt_id == attempt_id && job->checkpoints[i].step >= step)
            return true;
    for (size_t i = 0; i < job->drop_count; i++)
        if (job->drops[i].attempt_id == attempt_id && job->drops[i].step >= step)
            return true;
    return false;
}

/* An attempt that repeats steps writes over the files of an earlier one: the older row goes,
 * and a drop of the same path that has not arrived yet must not be sent again. */
static void path_supersede(struct core *core, struct job *job, const char *path)
{
    for (size_t i = job->checkpoint_count; i > 0; i--)
        if (strcmp(job->checkpoints[i - 1].path, path) == 0)
            remove_at(core, job, i - 1, false);
    for (size_t i = job->drop_count; i > 0; i--) {
        if (strcmp(job->drops[i - 1].path, path) != 0)
            continue;
        checkpoint_free(&job->drops[i - 1]);
        job->drop_count--;
        memmove(job->drops + i - 1, job->drops + i,
                (job->drop_count - (i - 1)) * sizeof *job->drops);
    }
}

static void list_put(struct job *job, struct checkpoint checkpoint)
{
    if (job->checkpoint_count == CHECKPOINTS_MAX) {
        struct checkpoint oldest = list_take(job, 0); /* its row and files stay */
        checkpoint_free(&oldest);
    }
    VEC_RESERVE(job->checkpoints, job->checkpoint_count, job->checkpoint_capacity);
    if (job->class)
        job->class->reads = true; /* it may go on from there */
    size_t at = job->checkpoint_count++;
    for (; at > 0 && job->checkpoints[at - 1].checkpoint_id > checkpoint.checkpoint_id; at--)
        job->checkpoints[at] = job->checkpoints[at - 1]; /* only when rows came unordered */
    job->checkpoints[at] = checkpoint;
}

static bool path_is_fit(struct core *core, const struct part *part, const char *path)
{
    if (path[0] == '/' && strlen(path) <= PATH_BYTES_MAX)
        return true;
    history_add(core, "bad_report", part->attempt->job->job_id, part->attempt->attempt_id,
                part->worker->worker_id, NULL,
                "a path is empty, relative or over 4096 bytes; the report was ignored");
    return false;
}

void checkpoint_report(struct core *core, struct part *part, const struct rec_report *report)
{
    struct attempt *attempt = part->attempt;
    struct job *job = attempt->job;
    uint64_t step = min_u64(report->step, INT64_MAX);
    if (!path_is_fit(core, part, report->path) || is_repeat(job, attempt->attempt_id, step))
        return;
    path_supersede(core, job, report->path);
    const char *metrics =
        json_is_storable(report->meta, REPORT_TEXT_BYTES_MAX) ? report->meta : "{}";
    struct checkpoint checkpoint = {
        .checkpoint_id = ++core->ids.checkpoint,
        .attempt_id = attempt->attempt_id,
        .worker_id = part->worker->worker_id,
        .step = step,
        .size_bytes = min_u64(report->total, INT64_MAX),
        .saved_at = core->wall_us,
        .save_ms = min_u64(report->span_ms, SAVE_MS_MAX),
        .path = mem_strdup(report->path),
        .metrics_json = mem_strdup(metrics),
        .content = report->content,
    };
    score_set(job, &checkpoint);
    row_write(core, job, &checkpoint, PERSIST_INSERT);
    list_put(job, checkpoint);
    checkpoint_retain(core, job);
    attempt_preempt_go_on(core, attempt);
}

void checkpoint_load(struct core *core, struct job *job, const struct row_checkpoint *row)
{
    (void)core;
    struct checkpoint checkpoint = {
        .checkpoint_id = row->checkpoint_id,
        .attempt_id = row->attempt_id,
        .worker_id = row->worker_id,
        .step = row->step,
        .size_bytes = row->size_bytes,
        .saved_at = row->saved_at,
        .save_ms = row->save_ms,
        .removed_at = row->removed_at,
        .path = mem_strdup(row->path),
        .metrics_json = mem_strdup(row->metrics ? row->metrics : "{}"),
        .content = row->content_hash,
    };
    score_set(job, &checkpoint);
    if (row->removed_at)
        drop_keep(job, checkpoint);
    else
        list_put(job, checkpoint);
}

/* ---- artifacts --------------------------------------------------------------------------- */

void artifact_free(struct artifact *artifact)
{
    mem_free(artifact->kind);
    mem_free(artifact->name);
    mem_free(artifact->path);
    mem_free(artifact->meta_json);
}

const struct artifact *artifact_by_id(const struct job *job, uint64_t artifact_id)
{
    for (size_t i = 0; artifact_id && i < job->artifact_count; i++)
        if (job->artifacts[i].artifact_id == artifact_id)
            return &job->artifacts[i];
    return NULL;
}

const struct artifact *artifact_dataset(const struct job *job, const char *name)
{
    for (size_t i = job->artifact_count; i > 0; i--) {
        const struct artifact *artifact = &job->artifacts[i - 1];
        if (strcmp(artifact->kind, "dataset") == 0 && strcmp(artifact->name, name) == 0)
            return artifact;
    }
    return NULL;
}

static void artifact_put(struct core *core, struct job *job, struct artifact artifact)
{
    if (job->artifact_count == ARTIFACTS_MAX) {
        artifact_free(&job->artifacts[0]);
        job->artifact_count--;
        memmove(job->artifacts, job->artifacts + 1, job->artifact_count * sizeof *job->artifacts);
    }
    VEC_RESERVE(job->artifacts, job->artifact_count, job->artifact_capacity);
    size_t at = job->artifact_count++;
    for (; at > 0 && job->artifacts[at - 1].artifact_id > artifact.artifact_id; at--)
        job->artifacts[at] = job->artifacts[at - 1];
    job->artifacts[at] = artifact;
    if (job_find(core, job->job_id))
        job_make_maker(core, job);
}

/* References such as dataset:NAME could not mean another name, so it is refused, not changed. */
static bool name_is_fit(struct core *core, const struct part *part, const char *name)
{
    if (spec_name_is_valid(name))
        return true;
    const char *shown = report_text(core, name, min_u64(strlen(name), SPEC_NAME_BYTES_MAX));
    history_add(core, "bad_report", part->attempt->job->job_id, part->attempt->attempt_id,
                part->worker->worker_id, NULL,
                arena_printf(step_arena(core),
                             "an artifact called '%s' was ignored: names have 1 to %u letters, "
                             "digits, '.', '_' and '-'",
                             shown, SPEC_NAME_BYTES_MAX));
    return false;
}

void artifact_report(struct core *core, struct part *part, const struct rec_report *report)
{
    struct attempt *attempt = part->attempt;
    struct job *job = attempt->job;
    if (!path_is_fit(core, part, report->path) || !name_is_fit(core, part, report->name))
        return;
    const char *meta = json_is_storable(report->meta, REPORT_TEXT_BYTES_MAX) ? report->meta : "{}";
    const char *kind = "file";
    if (!json_text(meta, "kind", step_arena(core), &kind) || strlen(kind) > TEXT_KEPT_MAX)
        kind = "file";
    struct row_artifact row = {
        .artifact_id = ++core->ids.artifact,
        .job_id = job->job_id,
        .attempt_id = attempt->attempt_id,
        .worker_id = part->worker->worker_id,
        .kind = kind,
        .name = report->name,
        .path = report->path,
        .size_bytes = min_u64(report->total, INT64_MAX),
        .content_hash = report->content,
        .meta = meta,
        .created_at = core->wall_us,
    };
    effects_persist(core->effects, ROW_TABLE_artifact, PERSIST_INSERT, &row);
    artifact_load(core, job, &row);
    job_artifact_made(core, job, row.name);
}

bool artifact_exists(const struct job *job, const char *name)
{
    for (size_t i = 0; i < job->artifact_count; i++)
        if (strcmp(job->artifacts[i].name, name) == 0)
            return true;
    return false;
}

void artifact_load(struct core *core, struct job *job, const struct row_artifact *row)
{
    artifact_put(core, job,
                 (struct artifact){
                     .artifact_id = row->artifact_id,
                     .attempt_id = row->attempt_id,
                     .worker_id = row->worker_id,
                     .size_bytes = row->size_bytes,
                     .created_at = row->created_at,
                     .kind = mem_strdup(row->kind),
                     .name = mem_strdup(row->name),
                     .path = mem_strdup(row->path),
                     .meta_json = mem_strdup(row->meta ? row->meta : "{}"),
                     .content = row->content_hash,
                 });
}
