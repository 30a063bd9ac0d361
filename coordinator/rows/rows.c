/* rows.c - the column tables, made from the .def files; see rows.h. */
#include "coordinator/rows/rows.h"

#define COLUMN(type, name, sql) {#name, sql, ROW_##type, ROW_ROLE_COLUMN, offsetof(ROW, name)},
#define MUTABLE(type, name, sql) {#name, sql, ROW_##type, ROW_ROLE_MUTABLE, offsetof(ROW, name)},
#define KEY(type, name, sql) {#name, sql, ROW_##type, ROW_ROLE_KEY, offsetof(ROW, name)},

#define ROW struct row_setting
static const struct row_column columns_setting[] = {
#include "coordinator/rows/setting.def"
};
#undef ROW
#define ROW struct row_queue
static const struct row_column columns_queue[] = {
#include "coordinator/rows/queue.def"
};
#undef ROW
#define ROW struct row_project
static const struct row_column columns_project[] = {
#include "coordinator/rows/project.def"
};
#undef ROW
#define ROW struct row_quota
static const struct row_column columns_quota[] = {
#include "coordinator/rows/quota.def"
};
#undef ROW
#define ROW struct row_quota_usage
static const struct row_column columns_quota_usage[] = {
#include "coordinator/rows/quota_usage.def"
};
#undef ROW
#define ROW struct row_usage
static const struct row_column columns_usage[] = {
#include "coordinator/rows/usage.def"
};
#undef ROW
#define ROW struct row_reservation
static const struct row_column columns_reservation[] = {
#include "coordinator/rows/reservation.def"
};
#undef ROW
#define ROW struct row_experiment
static const struct row_column columns_experiment[] = {
#include "coordinator/rows/experiment.def"
};
#undef ROW
#define ROW struct row_worker
static const struct row_column columns_worker[] = {
#include "coordinator/rows/worker.def"
};
#undef ROW
#define ROW struct row_worker_device
static const struct row_column columns_worker_device[] = {
#include "coordinator/rows/worker_device.def"
};
#undef ROW
#define ROW struct row_worker_incident
static const struct row_column columns_worker_incident[] = {
#include "coordinator/rows/worker_incident.def"
};
#undef ROW
#define ROW struct row_job
static const struct row_column columns_job[] = {
#include "coordinator/rows/job.def"
};
#undef ROW
#define ROW struct row_job_dependency
static const struct row_column columns_job_dependency[] = {
#include "coordinator/rows/job_dependency.def"
};
#undef ROW
#define ROW struct row_sweep
static const struct row_column columns_sweep[] = {
#include "coordinator/rows/sweep.def"
};
#undef ROW
#define ROW struct row_trial
static const struct row_column columns_trial[] = {
#include "coordinator/rows/trial.def"
};
#undef ROW
#define ROW struct row_trial_rung
static const struct row_column columns_trial_rung[] = {
#include "coordinator/rows/trial_rung.def"
};
#undef ROW
#define ROW struct row_attempt
static const struct row_column columns_attempt[] = {
#include "coordinator/rows/attempt.def"
};
#undef ROW
#define ROW struct row_attempt_node
static const struct row_column columns_attempt_node[] = {
#include "coordinator/rows/attempt_node.def"
};
#undef ROW
#define ROW struct row_checkpoint
static const struct row_column columns_checkpoint[] = {
#include "coordinator/rows/checkpoint.def"
};
#undef ROW
#define ROW struct row_artifact
static const struct row_column columns_artifact[] = {
#include "coordinator/rows/artifact.def"
};
#undef ROW
#define ROW struct row_lineage
static const struct row_column columns_lineage[] = {
#include "coordinator/rows/lineage.def"
};
#undef ROW
#define ROW struct row_metric
static const struct row_column columns_metric[] = {
#include "coordinator/rows/metric.def"
};
#undef ROW
#define ROW struct row_log_chunk
static const struct row_column columns_log_chunk[] = {
#include "coordinator/rows/log_chunk.def"
};
#undef ROW
#define ROW struct row_job_event
static const struct row_column columns_job_event[] = {
#include "coordinator/rows/job_event.def"
};
#undef ROW
#define ROW struct row_pending_reason
static const struct row_column columns_pending_reason[] = {
#include "coordinator/rows/pending_reason.def"
};
#undef ROW
#define ROW struct row_report_cursor
static const struct row_column columns_report_cursor[] = {
#include "coordinator/rows/report_cursor.def"
};
#undef ROW
#define ROW struct row_snapshot
static const struct row_column columns_snapshot[] = {
#include "coordinator/rows/snapshot.def"
};
#undef ROW
#define ROW struct row_snapshot_chunk
static const struct row_column columns_snapshot_chunk[] = {
#include "coordinator/rows/snapshot_chunk.def"
};
#undef ROW
#define ROW struct row_copy
static const struct row_column columns_copy[] = {
#include "coordinator/rows/copy.def"
};
#undef ROW
#define ROW struct row_removal
static const struct row_column columns_removal[] = {
#include "coordinator/rows/removal.def"
};
#undef ROW
#define ROW struct row_principal
static const struct row_column columns_principal[] = {
#include "coordinator/rows/principal.def"
};
#undef ROW
#define ROW struct row_secret
static const struct row_column columns_secret[] = {
#include "coordinator/rows/secret.def"
};
#undef ROW
#define ROW struct row_project_secret
static const struct row_column columns_project_secret[] = {
#include "coordinator/rows/project_secret.def"
};
#undef ROW

static const struct row_shape shapes[ROW_TABLE_END] = {
#define TABLE(table) \
    [ROW_TABLE_##table] = {#table, columns_##table, ARRAY_COUNT(columns_##table), \
                           sizeof(struct row_##table)},
    ROW_TABLES(TABLE)
#undef TABLE
};

const struct row_shape *row_shape(enum row_table table)
{
    CHECK(table > ROW_TABLE_NONE && table < ROW_TABLE_END);
    return &shapes[table];
}
