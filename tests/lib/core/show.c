/* show.c - see show.h. Columns that are empty are left out. */
#include "tests/lib/core/show.h"

typedef unsigned long long ull; /* only for printf */

static void text_put(struct buf *out, const char *name, const char *text)
{
    if (text && *text)
        buf_printf(out, " %s='%s'", name, text);
}

static void number_put(struct buf *out, const char *name, uint64_t number)
{
    if (number)
        buf_printf(out, " %s=%llu", name, (ull)number);
}

static void time_put(struct buf *out, const char *name, uint64_t at, uint64_t base_us)
{
    if (at)
        buf_printf(out, " %s=%lld", name, ((long long)at - (long long)base_us) / 1000);
}

static void worker_put(const struct row_worker *row, uint64_t base_us, struct buf *out)
{
    buf_printf(out, "worker %llu %s", (ull)row->worker_id, row->state);
    number_put(out, "cores", row->cores);
    number_put(out, "gpus", row->gpus);
    if (row->drained)
        buf_printf(out, " drained");
    text_put(out, "reason", row->drain_reason);
    text_put(out, "quarantine", row->quarantine_reason);
    text_put(out, "unhealthy", row->unhealthy);
    time_put(out, "by", row->drain_by_at, base_us);
    time_put(out, "until", row->until_at, base_us);
    time_put(out, "ended", row->ended_at, base_us);
}

static void job_put(const struct row_job *row, uint64_t base_us, struct buf *out)
{
    buf_printf(out, "job %llu %s", (ull)row->job_id, row->state);
    text_put(out, "name", row->name);
    if (row->held)
        buf_puts(out, " held");
    if (row->attempt_count)
        buf_printf(out, " attempts=%llu/%llu", (ull)row->attempts_spent, (ull)row->attempt_count);
    number_put(out, "data_skip", row->data_skip);
    number_put(out, "avoid", row->avoid_worker_id);
    number_put(out, "log", row->log_bytes);
    text_put(out, "cause", row->cause);
    text_put(out, "detail", row->detail);
    time_put(out, "eligible", row->eligible_at, base_us);
    if (row->progress_total)
        buf_printf(out, " progress=%llu/%llu", (ull)row->progress_step, (ull)row->progress_total);
    time_put(out, "ended", row->ended_at, base_us);
}

static void attempt_put(const struct row_attempt *row, uint64_t base_us, struct buf *out)
{
    buf_printf(out, "attempt %llu %s", (ull)row->attempt_id, row->state);
    number_put(out, "job", row->job_id);
    number_put(out, "number", row->number);
    number_put(out, "worker", row->worker_id);
    number_put(out, "epoch", row->epoch);
    number_put(out, "resume", row->resume_checkpoint_id);
    text_put(out, "stop", row->stop_cause);
    text_put(out, "cause", row->cause);
    if (row->code)
        buf_printf(out, " code=%lld", (long long)row->code);
    text_put(out, "evidence", row->evidence);
    buf_puts(out, row->node_fault ? " node_fault" : "");
    time_put(out, "ended", row->ended_at, base_us);
}

static void node_put(const struct row_attempt_node *row, uint64_t base_us, struct buf *out)
{
    buf_printf(out, "node a%llu.%llu %s worker=%llu ranks=%llu+%llu", (ull)row->attempt_id,
               (ull)row->node, row->state, (ull)row->worker_id, (ull)row->first_rank,
               (ull)row->ranks);
    text_put(out, "cause", row->cause);
    if (row->code)
        buf_printf(out, " code=%lld", (long long)row->code);
    text_put(out, "evidence", row->evidence);
    time_put(out, "ended", row->ended_at, base_us);
}

static void product_put(const struct persist *persist, uint64_t base_us, struct buf *out)
{
    if (persist->table == ROW_TABLE_checkpoint) {
        const struct row_checkpoint *row = persist->row;
        buf_printf(out, "checkpoint %llu", (ull)row->checkpoint_id);
        number_put(out, "job", row->job_id);
        number_put(out, "attempt", row->attempt_id);
        number_put(out, "step", row->step);
        text_put(out, "path", row->path);
        time_put(out, "removed", row->removed_at, base_us);
    } else {
        const struct row_artifact *row = persist->row;
        buf_printf(out, "artifact %llu", (ull)row->artifact_id);
        if (row->name)
            buf_printf(out, " job=%llu %s %s", (ull)row->job_id, row->kind, row->name);
        time_put(out, "removed", row->removed_at, base_us);
    }
}

static void stream_put(const struct persist *persist, struct buf *out)
{
    if (persist->table == ROW_TABLE_metric) {
        const struct row_metric *row = persist->row;
        buf_printf(out, "metric a%llu #%llu %s@%llu=%g", (ull)row->attempt_id, (ull)row->seq,
                   row->name, (ull)row->step, row->value);
        number_put(out, "node", row->node);
    } else if (persist->table == ROW_TABLE_log_chunk) {
        const struct row_log_chunk *row = persist->row;
        buf_printf(out, "log a%llu #%llu %s", (ull)row->attempt_id, (ull)row->seq, row->stream);
        if (row->bytes.length > 80)
            number_put(out, "bytes", row->bytes.length);
        else
            buf_printf(out, " '%.*s'", (int)row->bytes.length, (const char *)row->bytes.bytes);
    } else {
        const struct row_report_cursor *row = persist->row;
        buf_printf(out, "cursor a%llu %llu", (ull)row->attempt_id, (ull)row->seq);
        number_put(out, "node", row->node);
        number_put(out, "log", row->log_bytes);
    }
}

static void history_put(const struct row_job_event *row, struct buf *out)
{
    buf_printf(out, "event %s", row->name);
    number_put(out, "job", row->job_id);
    number_put(out, "attempt", row->attempt_id);
    number_put(out, "worker", row->worker_id);
    text_put(out, "by", row->account);
    text_put(out, "detail", row->detail);
}

static void lineage_put(const struct row_lineage *row, struct buf *out)
{
    buf_printf(out, "lineage a%llu %s %s -> %s", (ull)row->attempt_id, row->input, row->ref,
               row->path);
    number_put(out, "job", row->source_job_id);
    number_put(out, "checkpoint", row->checkpoint_id);
    number_put(out, "artifact", row->artifact_id);
}

static void sweep_put(const struct persist *persist, uint64_t base_us, struct buf *out)
{
    if (persist->table == ROW_TABLE_sweep) {
        const struct row_sweep *row = persist->row;
        buf_printf(out, "sweep %llu", (ull)row->sweep_id);
        text_put(out, "name", row->name);
        text_put(out, "method", row->method);
        number_put(out, "trials", row->trial_count);
        time_put(out, "ended", row->ended_at, base_us);
    } else if (persist->table == ROW_TABLE_trial) {
        const struct row_trial *row = persist->row;
        buf_printf(out, "trial %llu.%llu", (ull)row->sweep_id, (ull)row->trial);
        text_put(out, "params", row->params);
        number_put(out, "rung", row->rung);
        number_put(out, "resource", row->resource);
        if (row->reports)
            buf_printf(out, " best=%g@%llu", row->best_value, (ull)row->best_step);
    } else {
        const struct row_trial_rung *row = persist->row;
        buf_printf(out, "rung %llu of trial %llu.%llu %g at %llu %s", (ull)row->rung,
                   (ull)row->sweep_id, (ull)row->trial, row->value, (ull)row->resource,
                   row->kept ? "goes on" : "stops");
    }
}

static void reason_put(const struct row_pending_reason *row, uint64_t base_us, struct buf *out)
{
    buf_printf(out, "reason job=%llu %s", (ull)row->job_id, row->reason);
    time_put(out, "from", row->from_at, base_us);
    time_put(out, "until", row->until_at, base_us);
    text_put(out, "detail", row->detail);
}

static void rights_put(const struct persist *persist, struct buf *out)
{
    if (persist->table == ROW_TABLE_setting) {
        const struct row_setting *row = persist->row;
        buf_printf(out, "setting %s=%lld", row->name, (long long)row->value);
    } else if (persist->table == ROW_TABLE_queue) {
        const struct row_queue *row = persist->row;
        buf_printf(out, "queue %s priority=%lld wall=%llu/%llu preemption=%llu%s%s%s", row->name,
                   (long long)row->priority, (ull)row->default_wall_ms, (ull)row->max_wall_ms,
                   (ull)row->preemption, row->evicts ? " evicts" : "",
                   row->evictable ? " evictable" : "", row->removed_at ? " removed" : "");
    } else {
        const struct row_project *row = persist->row;
        buf_printf(out, "project %s weight=%llu members=%s%s%s", row->name, (ull)row->weight,
                   row->members, row->open ? " open" : "", row->removed_at ? " removed" : "");
    }
}

void show_persist(const struct persist *persist, uint64_t base_us, struct buf *out)
{
    static const char *const marks[] = {"", "+", "", "*"};
    buf_puts(out, marks[persist->op]);
    switch (persist->table) {
    case ROW_TABLE_experiment: {
        const struct row_experiment *row = persist->row;
        buf_printf(out, "experiment %llu %s", (ull)row->experiment_id, row->name);
        break;
    }
    case ROW_TABLE_worker_device: {
        const struct row_worker_device *row = persist->row;
        buf_printf(out, "device worker=%llu %llu %s", (ull)row->worker_id,
                   (ull)row->device_index, row->kind);
        break;
    }
    case ROW_TABLE_worker_incident: {
        const struct row_worker_incident *row = persist->row;
        buf_printf(out, "incident worker=%llu #%llu %s", (ull)row->worker_id, (ull)row->number,
                   row->kind);
        number_put(out, "job", row->job_id);
        number_put(out, "attempt", row->attempt_id);
        text_put(out, "evidence", row->evidence);
        time_put(out, "cleared", row->cleared_at, base_us);
        break;
    }
    case ROW_TABLE_job_dependency: {
        const struct row_job_dependency *row = persist->row;
        buf_printf(out, "dependency job=%llu on %llu %s %s%s", (ull)row->job_id,
                   (ull)row->parent_id, row->condition, row->state,
                   row->chosen ? " chosen" : "");
        break;
    }
    case ROW_TABLE_sweep:
    case ROW_TABLE_trial:
    case ROW_TABLE_trial_rung:
        sweep_put(persist, base_us, out);
        break;
    case ROW_TABLE_worker:
        worker_put(persist->row, base_us, out);
        break;
    case ROW_TABLE_job:
        job_put(persist->row, base_us, out);
        break;
    case ROW_TABLE_attempt:
        attempt_put(persist->row, base_us, out);
        break;
    case ROW_TABLE_attempt_node:
        node_put(persist->row, base_us, out);
        break;
    case ROW_TABLE_checkpoint:
    case ROW_TABLE_artifact:
        product_put(persist, base_us, out);
        break;
    case ROW_TABLE_metric:
    case ROW_TABLE_log_chunk:
    case ROW_TABLE_report_cursor:
        stream_put(persist, out);
        break;
    case ROW_TABLE_job_event:
        history_put(persist->row, out);
        break;
    case ROW_TABLE_copy: {
        const struct row_copy *row = persist->row;
        buf_printf(out, "copy %llu", (ull)row->copy_id);
        if (row->kind) {
            text_put(out, "of", row->kind);
            number_put(out, "worker", row->worker_id);
            number_put(out, "bytes", row->size_bytes);
            text_put(out, "from", row->source);
        }
        time_put(out, "removed", row->removed_at, base_us);
        break;
    }
    case ROW_TABLE_removal: {
        const struct row_removal *row = persist->row;
        buf_printf(out, "removal %llu", (ull)row->removal_id);
        text_put(out, "of", row->kind);
        number_put(out, "object", row->object_id);
        number_put(out, "job", row->job_id);
        number_put(out, "worker", row->worker_id);
        text_put(out, "path", row->path);
        time_put(out, "done", row->done_at, base_us);
        break;
    }
    case ROW_TABLE_lineage:
        lineage_put(persist->row, out);
        break;
    case ROW_TABLE_pending_reason:
        reason_put(persist->row, base_us, out);
        break;
    case ROW_TABLE_usage: {
        const struct row_usage *row = persist->row;
        buf_printf(out, "usage %s %s core_ms=%llu", row->kind, row->name, (ull)row->core_ms);
        time_put(out, "at", row->as_of, base_us);
        break;
    }
    case ROW_TABLE_reservation: {
        const struct row_reservation *row = persist->row;
        buf_printf(out, "reservation %s", row->name);
        time_put(out, "from", row->from_at, base_us);
        time_put(out, "until", row->until_at, base_us);
        buf_printf(out, " workers=%s labels=%s for=%s%s", row->workers, row->worker_constraint,
                   row->entitled, row->stop ? " stop" : "");
        text_put(out, "reason", row->reason);
        time_put(out, "removed", row->removed_at, base_us);
        break;
    }
    case ROW_TABLE_quota: {
        const struct row_quota *row = persist->row;
        buf_printf(out, "quota %s jobs=%lld cores=%lld gpus=%lld queued=%lld gpu_ms=%lld/%llu%s",
                   row->scope, (long long)row->jobs, (long long)row->cores, (long long)row->gpus,
                   (long long)row->queued, (long long)row->gpu_ms, (ull)row->period_ms,
                   row->removed_at ? " removed" : "");
        break;
    }
    case ROW_TABLE_quota_usage: {
        const struct row_quota_usage *row = persist->row;
        buf_printf(out, "quota_usage %s gpu_ms=%llu", row->scope, (ull)row->gpu_ms);
        time_put(out, "at", row->as_of, base_us);
        break;
    }
    case ROW_TABLE_setting:
    case ROW_TABLE_queue:
    case ROW_TABLE_project:
        rights_put(persist, out);
        break;
    default:
        buf_printf(out, "%s", row_shape(persist->table)->name);
    }
}

static void refused_put(const struct msg_refused *refused, struct buf *out)
{
    buf_printf(out, " %s '%s'", refused->kind, refused->text);
    for (size_t i = 0; i < refused->refusals_count; i++)
        buf_printf(out, "\n<                  %s: %s", refused->refusals[i].path,
                   refused->refusals[i].text);
}

static void start_put(const struct msg_start *start, struct buf *out)
{
    buf_printf(out, " a%llu job=%llu number=%llu", (ull)start->attempt_id, (ull)start->job_id,
               (ull)start->attempt_number);
    if (start->nodes_count)
        buf_printf(out, " node=%llu of", (ull)start->node);
    for (size_t i = 0; i < start->nodes_count; i++)
        buf_printf(out, "%s%s:%llu+%llu@%s", i ? "," : " ", start->nodes[i].name,
                   (ull)start->nodes[i].first_rank, (ull)start->nodes[i].ranks,
                   start->nodes[i].endpoint);
    if (start->log_bytes != LOG_BYTES_DEFAULT)
        buf_printf(out, " log=%llu", (ull)start->log_bytes);
    text_put(out, "resume", start->resume_path);
    for (size_t i = 0; i < start->sources_count; i++)
        buf_printf(out, "%s%s%s", i ? "," : " from=", start->sources[i].worker,
                   start->sources[i].endpoint[0] ? "" : "(away)");
    for (size_t i = 0; i < start->inputs_count; i++)
        buf_printf(out, " %s=%s%s%s", start->inputs[i].name, start->inputs[i].path,
                   *start->inputs[i].part ? "#" : "", start->inputs[i].part);
}

void show_message(const struct message *message, struct buf *out)
{
    buf_printf(out, "%s", msg_name(message->tag));
    switch ((int)message->tag) {
    case MSG_REFUSED:
        refused_put(&message->u.refused, out);
        break;
    case MSG_DONE:
        buf_printf(out, " '%s'", message->u.done.text);
        break;
    case MSG_SUBMITTED:
        buf_printf(out, " %s", message->u.submitted.experiment);
        for (size_t i = 0; i < message->u.submitted.jobs_count; i++)
            buf_printf(out, " %llu:%s", (ull)message->u.submitted.jobs[i].job_id,
                       message->u.submitted.jobs[i].name);
        if (message->u.submitted.repeated)
            buf_puts(out, " repeated");
        break;
    case MSG_CHECKED:
        buf_printf(out, " %s", message->u.checked.resolved);
        break;
    case MSG_WORKER_WELCOME:
        buf_printf(out, " id=%llu epoch=%llu", (ull)message->u.worker_welcome.worker_id,
                   (ull)message->u.worker_welcome.epoch);
        break;
    case MSG_START:
        start_put(&message->u.start, out);
        break;
    case MSG_STOP:
        buf_printf(out, " a%llu %s grace=%llu", (ull)message->u.stop.attempt_id,
                   message->u.stop.cause, (ull)message->u.stop.grace_ms);
        break;
    case MSG_REPORT_ACK:
        buf_printf(out, " a%llu %llu", (ull)message->u.report_ack.attempt_id,
                   (ull)message->u.report_ack.seq);
        number_put(out, "node", message->u.report_ack.node);
        break;
    case MSG_NODE_ACK:
        number_put(out, "stamp", message->u.node_ack.stamp);
        break;
    case MSG_CHECKPOINT_NOW:
        buf_printf(out, " a%llu", (ull)message->u.checkpoint_now.attempt_id);
        break;
    case MSG_ATTEMPT_FENCE:
        buf_printf(out, " a%llu", (ull)message->u.attempt_fence.attempt_id);
        break;
    case MSG_EXEC_START:
        buf_printf(out, " x%llu a%llu rank=%llu %s", (ull)message->u.exec_start.exec_id,
                   (ull)message->u.exec_start.attempt_id, (ull)message->u.exec_start.rank,
                   message->u.exec_start.arguments[0].text);
        break;
    case MSG_EXEC_OPENED:
        buf_printf(out, " x%llu on %s", (ull)message->u.exec_opened.exec_id,
                   message->u.exec_opened.worker);
        break;
    case MSG_COPY_PERMIT:
        buf_printf(out, " %s to %.1s",
                   *message->u.copy_permit.path ? message->u.copy_permit.path : "its copy",
                   message->u.copy_permit.public_key);
        break;
    case MSG_REMOVE:
        buf_printf(out, " %llu %s", (ull)message->u.remove.removal_id, message->u.remove.path);
        break;
    case MSG_CHECKPOINT_DROP:
        buf_printf(out, " a%llu checkpoint=%llu %s", (ull)message->u.checkpoint_drop.attempt_id,
                   (ull)message->u.checkpoint_drop.checkpoint_id,
                   message->u.checkpoint_drop.path);
        break;
    default:
        break;
    }
}
