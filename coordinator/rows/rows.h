/* rows.h - the columns of each table, as data.
 *
 * Every <table>.def in this folder is the only list of that table's columns. It is
 * included with different meanings of its two macros and so becomes the row struct,
 * and the column table (name, SQL type, C type, offset) that store/ composes its
 * statements from. A test compares the migrated schema with these files.
 *
 *   COLUMN(type, name, "sql type")   written once, by INSERT
 *   MUTABLE(type, name, "sql type")  written by INSERT and by UPDATE
 *   KEY(type, name, "sql type")      part of the primary key, written by INSERT
 *
 * C types: u64 i64 f64 flag text blob hash time. `text` borrows a terminated string, NULL is
 * SQL NULL; `blob` borrows bytes; `time` is microseconds since 1970, 0 is SQL NULL; `u64` columns
 * named *_id or *_at with value 0 are SQL NULL unless they are keys. */
#ifndef ATHANOR_ROWS_H
#define ATHANOR_ROWS_H

#include "common/base/hash.h"

struct row_blob {
    const void *bytes;
    size_t length;
};

typedef uint64_t row_u64;
typedef int64_t row_i64;
typedef double row_f64;
typedef bool row_flag;
typedef const char *row_text;
typedef struct row_blob row_blob;
typedef struct hash row_hash;
typedef uint64_t row_time;

enum row_type { ROW_u64 = 1, ROW_i64, ROW_f64, ROW_flag, ROW_text, ROW_blob, ROW_hash, ROW_time };
enum row_role { ROW_ROLE_COLUMN = 1, ROW_ROLE_MUTABLE, ROW_ROLE_KEY };

/* One line per table that is written row by row, by the core but for `principal` and the
 * secrets: TABLE(name). Order is that of writing within a transaction, parents before children. */
#define ROW_TABLES(TABLE) \
    TABLE(setting) \
    TABLE(queue) \
    TABLE(project) \
    TABLE(quota) \
    TABLE(quota_usage) \
    TABLE(usage) \
    TABLE(reservation) \
    TABLE(experiment) \
    TABLE(worker) \
    TABLE(worker_device) \
    TABLE(worker_incident) \
    TABLE(copy) \
    TABLE(job) \
    TABLE(job_dependency) \
    TABLE(sweep) \
    TABLE(trial) \
    TABLE(trial_rung) \
    TABLE(attempt) \
    TABLE(attempt_node) \
    TABLE(checkpoint) \
    TABLE(artifact) \
    TABLE(lineage) \
    TABLE(metric) \
    TABLE(log_chunk) \
    TABLE(job_event) \
    TABLE(pending_reason) \
    TABLE(report_cursor) \
    TABLE(snapshot) \
    TABLE(snapshot_chunk) \
    TABLE(removal) \
    TABLE(principal) \
    TABLE(secret) \
    TABLE(project_secret)

enum row_table {
    ROW_TABLE_NONE = 0,
#define TABLE(name) ROW_TABLE_##name,
    ROW_TABLES(TABLE)
#undef TABLE
    ROW_TABLE_END,
};

#define COLUMN(type, name, sql) row_##type name;
#define MUTABLE(type, name, sql) row_##type name;
#define KEY(type, name, sql) row_##type name;
struct row_setting {
#include "coordinator/rows/setting.def"
};
struct row_queue {
#include "coordinator/rows/queue.def"
};
struct row_project {
#include "coordinator/rows/project.def"
};
struct row_quota {
#include "coordinator/rows/quota.def"
};
struct row_quota_usage {
#include "coordinator/rows/quota_usage.def"
};
struct row_usage {
#include "coordinator/rows/usage.def"
};
struct row_reservation {
#include "coordinator/rows/reservation.def"
};
struct row_experiment {
#include "coordinator/rows/experiment.def"
};
struct row_worker {
#include "coordinator/rows/worker.def"
};
struct row_worker_device {
#include "coordinator/rows/worker_device.def"
};
struct row_worker_incident {
#include "coordinator/rows/worker_incident.def"
};
struct row_copy {
#include "coordinator/rows/copy.def"
};
struct row_job {
#include "coordinator/rows/job.def"
};
struct row_job_dependency {
#include "coordinator/rows/job_dependency.def"
};
struct row_sweep {
#include "coordinator/rows/sweep.def"
};
struct row_trial {
#include "coordinator/rows/trial.def"
};
struct row_trial_rung {
#include "coordinator/rows/trial_rung.def"
};
struct row_attempt {
#include "coordinator/rows/attempt.def"
};
struct row_attempt_node {
#include "coordinator/rows/attempt_node.def"
};
struct row_checkpoint {
#include "coordinator/rows/checkpoint.def"
};
struct row_artifact {
#include "coordinator/rows/artifact.def"
};
struct row_lineage {
#include "coordinator/rows/lineage.def"
};
struct row_metric {
#include "coordinator/rows/metric.def"
};
struct row_log_chunk {
#include "coordinator/rows/log_chunk.def"
};
struct row_job_event {
#include "coordinator/rows/job_event.def"
};
struct row_pending_reason {
#include "coordinator/rows/pending_reason.def"
};
struct row_report_cursor {
#include "coordinator/rows/report_cursor.def"
};
struct row_snapshot {
#include "coordinator/rows/snapshot.def"
};
struct row_snapshot_chunk {
#include "coordinator/rows/snapshot_chunk.def"
};
struct row_removal {
#include "coordinator/rows/removal.def"
};
struct row_principal {
#include "coordinator/rows/principal.def"
};
struct row_secret {
#include "coordinator/rows/secret.def"
};
struct row_project_secret {
#include "coordinator/rows/project_secret.def"
};
#undef COLUMN
#undef MUTABLE
#undef KEY

struct row_column {
    const char *name;
    const char *sql_type;
    enum row_type type;
    enum row_role role;
    size_t offset;
};

struct row_shape {
    const char *name; /* of the table */
    const struct row_column *columns;
    size_t column_count;
    size_t size_bytes; /* of the struct */
};

const struct row_shape *row_shape(enum row_table table);

#endif
