/* dump.c - the durable state as text, to compare memory with what the rows say (invariant 6).
 *
 * JSON texts are left out where PostgreSQL reorders them; what was read from them is shown. */
#include "coordinator/core/state.h"

#include "common/base/buf.h"

#include <stdlib.h>
#include <string.h>

typedef unsigned long long ull; /* only for printf */

static const char *or_empty(const char *text)
{
    return text ? text : "";
}

static void hash_put(struct buf *out, const struct hash *hash)
{
    char hex[HASH_HEX_SIZE];
    hash_to_hex(hash, hex);
    buf_printf(out, " hash=%.8s", hex);
}

static void worker_dump(const struct worker *worker, struct buf *out)
{
    buf_printf(out,
               "worker %llu %s %s incarnation=%llu host=%s cores=%llu/%llu memory=%llu/%llu "
               "gpus=%llu/%llu engine=%.8s drained=%d '%s' by=%llu joined=%llu ended=%llu\n",
               (ull)worker->worker_id, worker->name, worker_state_name(worker->state),
               (ull)worker->incarnation, or_empty(worker->host), (ull)worker->cores_used,
               (ull)worker->cores, (ull)worker->memory_used, (ull)worker->memory_bytes,
               (ull)worker->gpus_used, (ull)worker->gpus, or_empty(worker->engine),
               worker->drained,
               or_empty(worker->drain_reason), (ull)worker->drain_by_at,
               (ull)worker->joined_at, (ull)worker->ended_at);
    buf_printf(out, "  reached at '%s' key '%s' taken=%d until=%llu open=%d\n", worker->endpoint,
               worker->public_key, worker->taken, (ull)worker->until_at, worker->open_ended);
    hygiene_dump(worker, out);
    for (size_t i = 0; i < worker->gpu_count; i++)
        buf_printf(out, "  gpu %llu %s\n", (ull)worker->gpu_list[i].device_index,
                   worker->gpu_list[i].model);
    copies_dump(worker, out);
    for (const struct part *part = worker->parts; part; part = part->next)
        buf_printf(out, "  attempt %llu node %u\n", (ull)part->attempt->attempt_id, part->node);
}

static void part_dump(const struct part *part, struct buf *out)
{
    buf_printf(out,
               "    node %u on %s ranks=%u+%u charge=%llu/%llu started=%llu seq=%llu ended=%d/%llu "
               "cause=%s code=%lld '%s'\n",
               part->node, part->worker->name, part->first_rank, part->ranks,
               (ull)part->charge.cores, (ull)part->charge.gpus,
               (ull)part->started_at, (ull)part->seq, part->ended, (ull)part->ended_at,
               cause_name(part->cause), (long long)part->code, or_empty(part->evidence));
    if (part->log_bytes)
        buf_printf(out, "      log=%llu\n", (ull)part->log_bytes);
}

static void attempt_dump(const struct attempt *a, struct buf *out)
{
    buf_printf(out,
               "  attempt %llu number=%llu %s epoch=%llu resume=%llu stop=%s cause=%s%s '%s' "
               "placed=%llu started=%llu stopping=%llu nodes=%zu charge=%llu/%llu\n",
               (ull)a->attempt_id, (ull)a->number, attempt_state_name(a->state), (ull)a->epoch,
               (ull)a->resume_checkpoint_id, cause_name(a->stop_cause), cause_name(a->cause),
               a->node_fault ? " (node)" : "",
               or_empty(a->evidence), (ull)a->placed_at, (ull)a->started_at,
               (ull)a->stopping_at, a->part_count, (ull)a->charge.cores, (ull)a->charge.gpus);
    if (a->data_skip || a->diverged_step)
        buf_printf(out, "    data_skip=%llu diverged=%llu\n", (ull)a->data_skip,
                   (ull)a->diverged_step);
    for (size_t i = 0; i < a->part_count; i++)
        part_dump(&a->parts[i], out);
}

/* What an ended job read is lineage: it is not held. */
static void inputs_dump(const struct job *job, struct buf *out)
{
    if (job_state_is_terminal(job->state))
        return;
    for (size_t i = 0; i < job->input_count; i++) {
        const struct input *input = &job->inputs[i];
        buf_printf(out, "  input %s %s source=%llu", input->name, input->ref.text,
                   (ull)input->source_job_id);
        if (input->trial_count)
            buf_printf(out, " best of %u", input->trial_count);
        if (job->attempt) {
            buf_printf(out, " path=%s checkpoint=%llu artifact=%llu", or_empty(input->path),
                       (ull)input->checkpoint_id, (ull)input->artifact_id);
            hash_put(out, &input->content);
        }
        buf_putc(out, '\n');
    }
}

static int edge_compare(const void *left, const void *right)
{
    const struct edge *const *a = left, *const *b = right;
    return ((*a)->parent_id > (*b)->parent_id) - ((*a)->parent_id < (*b)->parent_id);
}

static void edges_dump(const struct job *job, struct buf *out)
{
    struct arena arena = {0};
    if (job_state_is_terminal(job->state))
        return;
    const struct edge **edges = mem_array(job->edge_count, sizeof *edges);
    for (size_t i = 0; i < job->edge_count; i++)
        edges[i] = &job->edges[i];
    qsort(edges, job->edge_count, sizeof *edges, edge_compare);
    for (size_t i = 0; i < job->edge_count; i++)
        buf_printf(out, "  needs %s of %llu state=%d reads=%d%s\n",
                   spec_condition_text(&arena, edges[i]->condition, edges[i]->artifact),
                   (ull)edges[i]->parent_id, edges[i]->state, edges[i]->reads,
                   edges[i]->chosen ? " chosen" : "");
    arena_done(&arena);
    mem_free(edges);
}

static void products_dump(const struct job *job, struct buf *out)
{
    for (size_t i = 0; i < job->checkpoint_count; i++) {
        const struct checkpoint *c = &job->checkpoints[i];
        buf_printf(out, "  checkpoint %llu attempt=%llu worker=%llu step=%llu size=%llu %s",
                   (ull)c->checkpoint_id, (ull)c->attempt_id, (ull)c->worker_id, (ull)c->step,
                   (ull)c->size_bytes, c->path);
        if (c->has_score)
            buf_printf(out, " score=%.17g", c->score);
        hash_put(out, &c->content);
        buf_putc(out, '\n');
    }
    for (size_t i = 0; i < job->artifact_count; i++) {
        const struct artifact *a = &job->artifacts[i];
        buf_printf(out, "  artifact %llu attempt=%llu %s %s %s", (ull)a->artifact_id,
                   (ull)a->attempt_id, a->kind, a->name, a->path);
        hash_put(out, &a->content);
        buf_putc(out, '\n');
    }
}

static int reason_compare(const void *left, const void *right)
{
    const struct open_reason *a = left, *b = right;
    return (a->reason > b->reason) - (a->reason < b->reason);
}

static void reasons_dump(const struct job *job, struct buf *out)
{
    struct open_reason *sorted = mem_array(job->reason_count, sizeof *sorted);
    for (size_t i = 0; i < job->reason_count; i++)
        sorted[i] = job->reasons[i];
    qsort(sorted, job->reason_count, sizeof *sorted, reason_compare);
    for (size_t i = 0; i < job->reason_count; i++)
        buf_printf(out, "  reason %s from=%llu\n", reason_name((enum reason)sorted[i].reason),
                   (ull)sorted[i].from_at);
    mem_free(sorted);
}

static void job_dump(const struct job *job, struct buf *out)
{
    buf_printf(
        out,
        "job %llu %s/%s by %s %s held=%d cause=%s detail='%s' priority=%lld attempts=%llu/%llu"
        " memory=%llu submitted=%llu eligible=%llu started=%llu ended=%llu"
        " progress=%llu/%llu '%s' queue=%s project=%s\n",
        (ull)job->job_id, job->experiment->name, job->name, job->account,
        job_state_name(job->state), job->held, cause_name(job->cause), or_empty(job->detail),
        (long long)job->priority, (ull)job->attempts_spent, (ull)job->attempt_count,
        (ull)job->memory_bytes, (ull)job->submitted_at, (ull)job->eligible_at, (ull)job->started_at,
        (ull)job->ended_at, (ull)job->progress_step, (ull)job->progress_total,
        or_empty(job->progress_phase), job->queue->name, job->project->name);
    if (job->data_skip)
        buf_printf(out, "  data_skip=%llu\n", (ull)job->data_skip);
    if (job->log_bytes)
        buf_printf(out, "  log=%llu\n", (ull)job->log_bytes);
    if (job->avoid_worker_id)
        buf_printf(out, "  avoid=%llu\n", (ull)job->avoid_worker_id);
    if (job->reuse) {
        buf_puts(out, "  identity");
        hash_put(out, &job->reuse->identity);
        buf_putc(out, '\n');
    }
    if (job->attempt)
        attempt_dump(job->attempt, out);
    edges_dump(job, out);
    inputs_dump(job, out);
    products_dump(job, out);
    reasons_dump(job, out);
}

static int job_compare(const void *left, const void *right)
{
    const struct job *const *a = left, *const *b = right;
    return ((*a)->job_id > (*b)->job_id) - ((*a)->job_id < (*b)->job_id);
}

static int experiment_compare(const void *left, const void *right)
{
    const struct experiment *const *a = left, *const *b = right;
    return ((*a)->experiment_id > (*b)->experiment_id) -
           ((*a)->experiment_id < (*b)->experiment_id);
}

static void experiments_dump(const struct core *core, struct buf *out)
{
    size_t count = HASH_COUNT(core->experiments), at = 0;
    struct experiment **sorted = mem_array(count, sizeof *sorted);
    struct experiment *experiment, *next;
    HASH_ITER(hh, core->experiments, experiment, next)
    {
        sorted[at++] = experiment;
    }
    qsort(sorted, count, sizeof *sorted, experiment_compare);
    for (size_t i = 0; i < count; i++)
        buf_printf(out, "experiment %llu %s by %s\n", (ull)sorted[i]->experiment_id,
                   sorted[i]->name, sorted[i]->account);
    mem_free(sorted);
}

void core_dump(const struct core *core, struct buf *out)
{
    const struct core_ids *ids = &core->ids;
    buf_printf(out,
               "ids experiment=%llu worker=%llu job=%llu attempt=%llu checkpoint=%llu "
               "artifact=%llu snapshot=%llu removal=%llu copy=%llu\n",
               (ull)ids->experiment, (ull)ids->worker, (ull)ids->job, (ull)ids->attempt,
               (ull)ids->checkpoint, (ull)ids->artifact, (ull)ids->snapshot,
               (ull)ids->removal, (ull)ids->copy);
    snapshots_dump(core, out);
    removals_dump(core, out);
    rights_dump(core, out);
    experiments_dump(core, out);
    sweeps_dump(core, out);
    for (size_t i = 0; i < core->worker_count; i++)
        worker_dump(core->workers[i], out);
    size_t count = HASH_CNT(hh_id, core->jobs), at = 0;
    struct job **sorted = mem_array(count, sizeof *sorted);
    struct job *job, *next;
    HASH_ITER(hh_id, core->jobs, job, next)
    {
        sorted[at++] = job;
    }
    qsort(sorted, count, sizeof *sorted, job_compare);
    for (size_t i = 0; i < count; i++)
        job_dump(sorted[i], out);
    mem_free(sorted);
}
