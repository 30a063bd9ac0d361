/* memory_db.c - see memory_db.h. */
#include "tests/lib/core/memory_db.h"

#include "common/base/mem.h"

#include <string.h>
#include <uthash.h>

struct stored {
    void *row; /* struct row_<table>, texts owned */
    char key[96];
    UT_hash_handle hh;
};

struct table {
    struct stored *by_key;
    struct stored **order;
    size_t count, capacity;
};

struct memory_db {
    struct table tables[ROW_TABLE_END];
};

struct memory_db *memory_db_new(void)
{
    return mem_zalloc(sizeof(struct memory_db));
}

/* ---- rows -------------------------------------------------------------------------------- */

static void *field_of(const struct row_column *column, const void *row)
{
    return (char *)row + column->offset;
}

static void field_copy(const struct row_column *column, void *to_row, const void *from_row)
{
    const void *from = field_of(column, from_row);
    void *to = field_of(column, to_row);
    switch (column->type) {
    case ROW_text:
        *(char **)to = mem_strdup(*(row_text *)from);
        break;
    case ROW_blob: {
        const row_blob *blob = from;
        *(row_blob *)to = (row_blob){blob->length ? mem_strndup(blob->bytes, blob->length) : NULL,
                                     blob->length};
        break;
    }
    case ROW_u64:
    case ROW_time:
        *(uint64_t *)to = *(const uint64_t *)from;
        break;
    case ROW_i64:
        *(int64_t *)to = *(const int64_t *)from;
        break;
    case ROW_f64:
        *(double *)to = *(const double *)from;
        break;
    case ROW_flag:
        *(bool *)to = *(const bool *)from;
        break;
    case ROW_hash:
        *(struct hash *)to = *(const struct hash *)from;
        break;
    }
}

static void field_free(const struct row_column *column, void *row)
{
    if (column->type == ROW_text)
        mem_free(*(char **)field_of(column, row));
    if (column->type == ROW_blob)
        mem_free((void *)((row_blob *)field_of(column, row))->bytes);
}

static void row_free(const struct row_shape *shape, void *row)
{
    for (size_t i = 0; i < shape->column_count; i++)
        field_free(&shape->columns[i], row);
    mem_free(row);
}

static void key_make(const struct row_shape *shape, const void *row, char key[96])
{
    size_t at = 0;
    memset(key, 0, 96);
    for (size_t i = 0; i < shape->column_count; i++) {
        const struct row_column *column = &shape->columns[i];
        if (column->role != ROW_ROLE_KEY)
            continue;
        const void *field = field_of(column, row);
        const char *bytes = column->type == ROW_text ? *(char *const *)field : field;
        size_t length = column->type == ROW_text ? min_u64(strlen(bytes), 60) : sizeof(uint64_t);
        CHECK(at + length <= 95);
        memcpy(key + at, bytes, length);
        at += length;
    }
}

static struct stored *stored_find(const struct table *table, const struct row_shape *shape,
                                  const void *row)
{
    char key[96];
    struct stored *stored = NULL;
    key_make(shape, row, key);
    HASH_FIND(hh, table->by_key, key, sizeof key, stored);
    return stored;
}

static void stored_add(struct table *table, const struct row_shape *shape, const void *row)
{
    struct stored *stored = mem_zalloc(sizeof *stored);
    stored->row = mem_zalloc(shape->size_bytes);
    for (size_t i = 0; i < shape->column_count; i++)
        field_copy(&shape->columns[i], stored->row, row);
    key_make(shape, row, stored->key);
    HASH_ADD(hh, table->by_key, key, sizeof stored->key, stored);
    VEC_RESERVE(table->order, table->count, table->capacity);
    table->order[table->count++] = stored;
}

static void stored_update(struct stored *stored, const struct row_shape *shape, const void *row)
{
    for (size_t i = 0; i < shape->column_count; i++) {
        const struct row_column *column = &shape->columns[i];
        if (column->role != ROW_ROLE_MUTABLE)
            continue;
        field_free(column, stored->row);
        field_copy(column, stored->row, row);
    }
}

static void table_clear(struct table *table, const struct row_shape *shape)
{
    HASH_CLEAR(hh, table->by_key);
    for (size_t i = 0; i < table->count; i++) {
        row_free(shape, table->order[i]->row);
        mem_free(table->order[i]);
    }
    mem_free(table->order);
    *table = (struct table){0};
}

void memory_db_free(struct memory_db *db)
{
    for (int i = 1; db && i < ROW_TABLE_END; i++)
        table_clear(&db->tables[i], row_shape((enum row_table)i));
    mem_free(db);
}

void memory_db_forget_history(struct memory_db *db)
{
    static const enum row_table gone[] = {ROW_TABLE_job_event, ROW_TABLE_log_chunk};
    for (size_t i = 0; i < ARRAY_COUNT(gone); i++)
        table_clear(&db->tables[gone[i]], row_shape(gone[i]));
}

size_t memory_db_count(const struct memory_db *db, enum row_table table)
{
    return db->tables[table].count;
}

const void *memory_db_row(const struct memory_db *db, enum row_table table, size_t index)
{
    const struct table *t = &db->tables[table];
    return index < t->count ? t->order[index]->row : NULL;
}

const void *memory_db_find(const struct memory_db *db, enum row_table table, const void *key)
{
    const struct stored *stored = stored_find(&db->tables[table], row_shape(table), key);
    return stored ? stored->row : NULL;
}

/* ---- constraints ------------------------------------------------------------------------- */

static bool is_terminal(const char *state)
{
    return job_state_is_terminal(job_state_from_name(state));
}

static const char *job_fault(const struct memory_db *db, const struct row_job *row,
                             const struct row_job *before, bool is_insert, struct arena *arena)
{
    if (is_terminal(row->state) != (row->ended_at != 0))
        return arena_printf(arena, "job %llu is %s, ended_at %llu", (unsigned long long)row->job_id,
                            row->state, (unsigned long long)row->ended_at);
    if (before && strcmp(before->state, "SUCCEEDED") == 0 && strcmp(row->state, "SUCCEEDED") != 0)
        return arena_printf(arena, "invariant 4: job %llu has succeeded and becomes %s",
                            (unsigned long long)row->job_id, row->state);
    const struct table *jobs = &db->tables[ROW_TABLE_job];
    for (size_t i = jobs->count; is_insert && i > 0 && jobs->count - i < 64; i--) {
        const struct row_job *other = jobs->order[i - 1]->row;
        if (other->submit_index == row->submit_index &&
            other->submit_key.length == row->submit_key.length &&
            memcmp(other->submit_key.bytes, row->submit_key.bytes, row->submit_key.length) == 0)
            return arena_printf(arena, "invariant 10: jobs %llu and %llu of one submit",
                                (unsigned long long)other->job_id, (unsigned long long)row->job_id);
    }
    return NULL;
}

static const char *attempt_fault(const struct row_attempt *row, const struct row_attempt *before,
                                 struct arena *arena)
{
    bool ended = strcmp(row->state, "ENDED") == 0;
    if (ended != (row->ended_at != 0) || (ended && !row->cause))
        return arena_printf(arena, "attempt %llu is %s: ended_at or cause do not agree",
                            (unsigned long long)row->attempt_id, row->state);
    if (before && before->ended_at)
        return arena_printf(arena, "invariant 4: attempt %llu has ended and is changed",
                            (unsigned long long)row->attempt_id);
    return NULL;
}

/* CHECKs of table attempt_node. */
static const char *node_fault(const struct row_attempt_node *row,
                              const struct row_attempt_node *before, struct arena *arena)
{
    bool ended = strcmp(row->state, "ENDED") == 0;
    if (ended != (row->ended_at != 0) || ended != (row->cause != NULL) ||
        (row->node == 0) != (row->first_rank == 0) || row->ranks == 0)
        return arena_printf(arena, "node %llu of attempt %llu is %s: its columns do not agree",
                            (unsigned long long)row->node, (unsigned long long)row->attempt_id,
                            row->state);
    if (before && before->ended_at)
        return arena_printf(arena,
                            "invariant 4: node %llu of attempt %llu has ended and is changed",
                            (unsigned long long)row->node, (unsigned long long)row->attempt_id);
    return NULL;
}

static const char *row_fault(const struct memory_db *db, const struct persist *persist,
                             const struct stored *known, struct arena *arena)
{
    const struct row_shape *shape = row_shape(persist->table);
    if (persist->op == PERSIST_INSERT && known)
        return arena_printf(arena, "%s: a key is inserted twice", shape->name);
    if (persist->op == PERSIST_UPDATE && !known)
        return arena_printf(arena, "%s: a row to update is not there", shape->name);
    if (persist->table == ROW_TABLE_job)
        return job_fault(db, persist->row, known ? known->row : NULL, !known, arena);
    if (persist->table == ROW_TABLE_attempt)
        return attempt_fault(persist->row, known ? known->row : NULL, arena);
    if (persist->table == ROW_TABLE_attempt_node)
        return node_fault(persist->row, known ? known->row : NULL, arena);
    return NULL;
}

/* Partial unique index attempt_live: at commit, over all rows that are not ended. */
static const char *live_attempts_fault(const struct memory_db *db, const struct persist *rows,
                                       size_t count, struct arena *arena)
{
    for (size_t i = 0; i < count; i++) {
        if (rows[i].table != ROW_TABLE_attempt || rows[i].op != PERSIST_INSERT)
            continue;
        const struct row_attempt *placed = rows[i].row;
        const struct table *attempts = &db->tables[ROW_TABLE_attempt];
        size_t live = 0;
        for (size_t k = 0; k < attempts->count; k++) {
            const struct row_attempt *row = attempts->order[k]->row;
            live += row->job_id == placed->job_id && row->ended_at == 0;
        }
        if (live > 1)
            return arena_printf(arena, "invariant 1: job %llu has %zu live attempts",
                                (unsigned long long)placed->job_id, live);
    }
    return NULL;
}

const char *memory_db_apply(struct memory_db *db, const struct persist *rows, size_t count,
                            struct arena *arena)
{
    for (size_t i = 0; i < count; i++) {
        struct table *table = &db->tables[rows[i].table];
        const struct row_shape *shape = row_shape(rows[i].table);
        struct stored *known = stored_find(table, shape, rows[i].row);
        const char *fault = row_fault(db, &rows[i], known, arena);
        if (fault)
            return fault;
        if (known)
            stored_update(known, shape, rows[i].row);
        else
            stored_add(table, shape, rows[i].row);
    }
    return live_attempts_fault(db, rows, count, arena);
}

/* ---- loading ----------------------------------------------------------------------------- */

static const struct row_job *job_row(const struct memory_db *db, uint64_t job_id)
{
    struct row_job key = {.job_id = job_id};
    const struct stored *stored =
        stored_find(&db->tables[ROW_TABLE_job], row_shape(ROW_TABLE_job), &key);
    return stored ? stored->row : NULL;
}

static bool job_is_live(const struct memory_db *db, uint64_t job_id)
{
    const struct row_job *row = job_row(db, job_id);
    return row && row->ended_at == 0;
}

#define EACH(db, table_name, variable) \
    for (size_t at_##variable = 0; at_##variable < (db)->tables[ROW_TABLE_##table_name].count; \
         at_##variable++) \
        for (const struct row_##table_name *variable = \
                 (db)->tables[ROW_TABLE_##table_name].order[at_##variable]->row; \
             variable; variable = NULL)

static void ids_load(const struct memory_db *db, struct core *core)
{
    struct core_ids ids = {0};
    EACH(db, experiment, row) ids.experiment = max_u64(ids.experiment, row->experiment_id);
    EACH(db, worker, row) ids.worker = max_u64(ids.worker, row->worker_id);
    EACH(db, job, row) ids.job = max_u64(ids.job, row->job_id);
    EACH(db, attempt, row) ids.attempt = max_u64(ids.attempt, row->attempt_id);
    EACH(db, checkpoint, row) ids.checkpoint = max_u64(ids.checkpoint, row->checkpoint_id);
    EACH(db, artifact, row) ids.artifact = max_u64(ids.artifact, row->artifact_id);
    EACH(db, removal, row) ids.removal = max_u64(ids.removal, row->removal_id);
    EACH(db, copy, row) ids.copy = max_u64(ids.copy, row->copy_id);
    EACH(db, snapshot, row) ids.snapshot = max_u64(ids.snapshot, row->snapshot_id);
    EACH(db, job_event, row) ids.event = max_u64(ids.event, row->event_id);
    core_load_ids(core, &ids);
}

/* Jobs that live and the parents of those; the others only for repeated submits. */
static void jobs_load(const struct memory_db *db, struct core *core)
{
    uint64_t most = 0;
    EACH(db, job, row) most = max_u64(most, row->job_id);
    bool *wanted = mem_array(most + 1, sizeof *wanted);
    EACH(db, job, row) wanted[row->job_id] = row->ended_at == 0;
    EACH(db, job_dependency, row)
    {
        if (job_is_live(db, row->job_id))
            wanted[row->parent_id] = true;
    }
    EACH(db, job, row)
    {
        if (wanted[row->job_id])
            core_load_job(core, row);
    }
    EACH(db, job, row)
    {
        if (!wanted[row->job_id])
            core_load_submit(core, row);
    }
    mem_free(wanted);
}

struct core *memory_db_load(const struct memory_db *db, const struct core_config *config,
                            uint64_t now_ms, uint64_t wall_us, uint64_t *out_wake_ms)
{
    struct core *core = core_new(config);
    ids_load(db, core);
    EACH(db, setting, row) core_load_setting(core, row);
    EACH(db, queue, row) core_load_queue(core, row);
    EACH(db, project, row) core_load_project(core, row);
    EACH(db, usage, row) core_load_usage(core, row);
    EACH(db, reservation, row) core_load_reservation(core, row);
    EACH(db, quota, row) core_load_quota(core, row);
    EACH(db, quota_usage, row) core_load_quota_usage(core, row);
    EACH(db, experiment, row) core_load_experiment(core, row);
    EACH(db, worker, row) core_load_worker(core, row);
    EACH(db, worker_device, row) core_load_worker_device(core, row);
    EACH(db, worker_incident, row)
    {
        if (row->cleared_at == 0)
            core_load_worker_incident(core, row);
    }
    EACH(db, snapshot, row) core_load_snapshot(core, row);
    EACH(db, copy, row)
    {
        if (row->removed_at == 0)
            core_load_copy(core, row);
    }
    EACH(db, removal, row)
    {
        if (row->done_at == 0)
            core_load_removal(core, row);
    }
    jobs_load(db, core);
    EACH(db, job_dependency, row)
    {
        if (job_is_live(db, row->job_id))
            core_load_job_dependency(core, row);
    }
    EACH(db, sweep, row) core_load_sweep(core, row);
    EACH(db, trial, row) core_load_trial(core, row);
    EACH(db, trial_rung, row) core_load_trial_rung(core, row);
    EACH(db, attempt, row)
    {
        if (row->ended_at == 0)
            core_load_attempt(core, row);
    }
    EACH(db, attempt_node, row) core_load_attempt_node(core, row);
    EACH(db, checkpoint, row)
    {
        if (row->removed_at == 0 || row->removed_at + 3600000000u > wall_us)
            core_load_checkpoint(core, row);
    }
    EACH(db, artifact, row)
    {
        if (row->removed_at == 0)
            core_load_artifact(core, row);
    }
    EACH(db, lineage, row) core_load_lineage(core, row);
    EACH(db, report_cursor, row) core_load_report_cursor(core, row);
    EACH(db, pending_reason, row) core_load_pending_reason(core, row);
    *out_wake_ms = core_load_end(core, now_ms, wall_us);
    return core;
}

/* ---- lookups ----------------------------------------------------------------------------- */

struct answer {
    const struct memory_db *db;
    struct arena *arena;
    struct row_job *jobs;
    size_t count;
    struct row_trial *trials; /* the best of sweeps that have ended */
    size_t trial_count;
};

static void answer_add(struct answer *answer, const struct row_job *row)
{
    for (size_t i = 0; i < answer->count; i++)
        if (answer->jobs[i].job_id == row->job_id)
            return;
    answer->jobs[answer->count++] = *row;
}

static void answer_parents(struct answer *answer, uint64_t job_id)
{
    EACH(answer->db, job_dependency, row)
    {
        const struct row_job *parent = job_row(answer->db, row->parent_id);
        if (row->job_id == job_id && parent)
            answer_add(answer, parent);
    }
}

static const char *experiment_name(const struct memory_db *db, uint64_t experiment_id)
{
    EACH(db, experiment, row)
    {
        if (row->experiment_id == experiment_id)
            return row->name;
    }
    return "";
}

static bool made_dataset(const struct memory_db *db, uint64_t job_id, const char *name)
{
    EACH(db, artifact, row)
    {
        if (row->job_id == job_id && row->removed_at == 0 && strcmp(row->kind, "dataset") == 0 &&
            strcmp(row->name, name) == 0)
            return true;
    }
    return false;
}

/* Newest of those that match, of the experiment before all others. */
static const struct row_job *newest(const struct memory_db *db, const struct core_lookup *lookup)
{
    const struct row_job *best = NULL;
    bool best_here = false;
    EACH(db, job, row)
    {
        bool here = strcmp(experiment_name(db, row->experiment_id), lookup->experiment) == 0;
        bool fits = lookup->kind == LOOKUP_DATASET ? made_dataset(db, row->job_id, lookup->name)
                                                   : strcmp(row->name, lookup->name) == 0;
        if (!fits || row->ended_at == 0 || (best && best_here && !here))
            continue;
        if (!best || (here && !best_here) || row->job_id > best->job_id) {
            best = row;
            best_here = here;
        }
    }
    return best;
}

static void twins_add(struct answer *answer, const char *hex)
{
    struct hash wanted, none = {0};
    struct err err;
    if (hash_from_hex(hex, &wanted, &err) < 0)
        return;
    size_t left = LOOKUP_TWINS_MAX;
    const struct table *jobs = &answer->db->tables[ROW_TABLE_job];
    for (size_t i = jobs->count; i > 0 && left > 0; i--) {
        const struct row_job *row = jobs->order[i - 1]->row;
        if (!hash_equal(&row->spec_hash, &wanted) || hash_equal(&row->identity, &none) ||
            strcmp(row->state, "SUCCEEDED") != 0 || row->reused_job_id)
            continue;
        answer_add(answer, row);
        left--;
    }
}

/* Who took another's results is of no use without that job. */
static void reused_add(struct answer *answer)
{
    for (size_t i = 0, count = answer->count; i < count; i++) {
        const struct row_job *row = job_row(answer->db, answer->jobs[i].reused_job_id);
        if (row)
            answer_add(answer, row);
    }
}

/* ---- what nothing needs ------------------------------------------------------------------ */

static uint64_t job_of_attempt(const struct memory_db *db, uint64_t attempt_id)
{
    EACH(db, attempt, row)
    {
        if (row->attempt_id == attempt_id)
            return row->job_id;
    }
    return 0;
}

/* Per job, by number: whether it lives, or one that descends from it does. The caller frees. */
static bool *jobs_needed(const struct memory_db *db)
{
    uint64_t most = 0;
    bool more = true;
    EACH(db, job, row) most = max_u64(most, row->job_id);
    bool *needed = mem_array(most + 1, sizeof *needed);
    EACH(db, job, row) needed[row->job_id] = row->ended_at == 0;
    while (more) {
        more = false;
#define NEEDS(child, parent)                                                                       \
    if (needed[child] && !needed[parent])                                                          \
    needed[parent] = more = true
        EACH(db, job_dependency, row) NEEDS(row->job_id, row->parent_id);
        EACH(db, job, row)
        NEEDS(row->job_id, row->reused_job_id ? row->reused_job_id : row->job_id);
        EACH(db, lineage, row)
        NEEDS(job_of_attempt(db, row->attempt_id),
              row->source_job_id ? row->source_job_id : job_of_attempt(db, row->attempt_id));
#undef NEEDS
    }
    return needed;
}

static bool is_listed(const struct row_removal *list, size_t count, const char *kind, uint64_t id)
{
    for (size_t i = 0; i < count; i++)
        if (strcmp(list[i].kind, kind) == 0 && list[i].object_id == id)
            return true;
    return false;
}

/* 0: something of the content stays; else a job that made it. */
static uint64_t content_gone(const struct memory_db *db, const struct row_removal *list,
                             size_t count, const struct hash *content)
{
    uint64_t job_id = 0;
    bool stays = false;
    EACH(db, checkpoint, row)
    {
        if (!hash_equal(&row->content_hash, content))
            continue;
        job_id = row->job_id;
        stays |= !row->removed_at && !is_listed(list, count, "checkpoint", row->checkpoint_id);
    }
    EACH(db, artifact, row)
    {
        if (!hash_equal(&row->content_hash, content))
            continue;
        job_id = row->job_id;
        stays |= !row->removed_at && !is_listed(list, count, "artifact", row->artifact_id);
    }
    return stays ? 0 : job_id;
}

static bool copy_is_ordered(const struct memory_db *db, uint64_t copy_id)
{
    EACH(db, removal, row)
    {
        if (strcmp(row->kind, "copy") == 0 && row->object_id == copy_id && !row->done_at)
            return true;
    }
    return false;
}

static size_t garbage_copies(const struct memory_db *db, struct row_removal *list, size_t count)
{
    size_t originals = count;
    EACH(db, copy, row)
    {
        uint64_t job_id = content_gone(db, list, originals, &row->content_hash);
        if (job_id && !row->removed_at && !copy_is_ordered(db, row->copy_id))
            list[count++] = (struct row_removal){.kind = "copy",
                                                 .object_id = row->copy_id,
                                                 .job_id = job_id,
                                                 .worker_id = row->worker_id,
                                                 .path = "",
                                                 .size_bytes = row->size_bytes,
                                                 .content_hash = row->content_hash};
    }
    return count;
}

static void garbage_find(const struct memory_db *db, const char *kind, struct arena *arena,
                         struct event_found *out)
{
    size_t most = db->tables[ROW_TABLE_checkpoint].count + db->tables[ROW_TABLE_artifact].count +
                  db->tables[ROW_TABLE_copy].count;
    struct row_removal *list = arena_alloc(arena, (most + 1) * sizeof *list);
    bool *needed = jobs_needed(db);
    size_t count = 0;
    EACH(db, checkpoint, row)
    {
        if (strcmp(kind, "checkpoint") == 0 && !row->removed_at && !needed[row->job_id])
            list[count++] = (struct row_removal){.kind = "checkpoint",
                                                 .object_id = row->checkpoint_id,
                                                 .job_id = row->job_id,
                                                 .worker_id = row->worker_id,
                                                 .path = row->path,
                                                 .size_bytes = row->size_bytes,
                                                 .content_hash = row->content_hash};
    }
    EACH(db, artifact, row)
    {
        if (strcmp(kind, "artifact") == 0 && !row->removed_at && !needed[row->job_id])
            list[count++] = (struct row_removal){.kind = "artifact",
                                                 .object_id = row->artifact_id,
                                                 .job_id = row->job_id,
                                                 .worker_id = row->worker_id,
                                                 .path = row->path,
                                                 .size_bytes = row->size_bytes,
                                                 .content_hash = row->content_hash};
    }
    mem_free(needed);
    count = garbage_copies(db, list, count);
    out->removals = list;
    out->removal_count = count;
}

static const struct row_sweep *newest_sweep(const struct memory_db *db,
                                            const struct core_lookup *lookup)
{
    const struct row_sweep *best = NULL;
    bool best_here = false;
    EACH(db, sweep, row)
    {
        bool here = strcmp(experiment_name(db, row->experiment_id), lookup->experiment) == 0;
        if (strcmp(row->name, lookup->name) != 0 || (best_here && !here))
            continue;
        if (!best || (here && !best_here) || row->sweep_id > best->sweep_id) {
            best = row;
            best_here = here;
        }
    }
    return best;
}

static bool trial_has_value(const struct row_trial *row)
{
    return row->reports > 0 && row->best_value == row->best_value;
}

/* As the view orders them: by the value, then by number; those without one behind. */
static bool trial_is_ahead(const struct row_sweep *sweep, const struct row_trial *a,
                           const struct row_trial *b)
{
    if (trial_has_value(a) != trial_has_value(b))
        return trial_has_value(a);
    if (trial_has_value(a) && a->best_value != b->best_value)
        return (strcmp(sweep->mode, "max") == 0) == (a->best_value > b->best_value);
    return a->trial < b->trial;
}

/* While a sweep lives its trials that have ended, afterwards the best. */
static void sweep_add(struct answer *answer, const struct core_lookup *lookup)
{
    const struct row_sweep *sweep = newest_sweep(answer->db, lookup);
    const struct row_trial *best = NULL;
    if (!sweep)
        return;
    EACH(answer->db, trial, row)
    {
        const struct row_job *job = job_row(answer->db, row->job_id);
        if (row->sweep_id != sweep->sweep_id)
            continue;
        if (!sweep->ended_at && job && job->ended_at)
            answer_add(answer, job);
        if (!best || trial_is_ahead(sweep, row, best))
            best = row;
    }
    if (!sweep->ended_at || !best)
        return;
    answer_add(answer, job_row(answer->db, best->job_id));
    answer->trials[answer->trial_count] = *best;
    answer->trials[answer->trial_count++].reports = trial_has_value(best);
}

static void lookup_one(struct answer *answer, const struct core_lookup *lookup)
{
    const struct memory_db *db = answer->db;
    size_t first = answer->count;
    const struct row_job *row = NULL;
    switch (lookup->kind) {
    case LOOKUP_SUBMIT:
        EACH(db, job, job)
        {
            if (memcmp(job->submit_key.bytes, lookup->submit_key, 16) == 0)
                answer_add(answer, job);
        }
        return;
    case LOOKUP_JOB_ID:
        row = job_row(db, lookup->job_id);
        break;
    case LOOKUP_JOB_NAME:
    case LOOKUP_DATASET:
        row = newest(db, lookup);
        break;
    case LOOKUP_TWIN:
        twins_add(answer, lookup->name);
        return;
    case LOOKUP_GARBAGE:
        return; /* of memory_db_lookup */
    case LOOKUP_SWEEP:
        sweep_add(answer, lookup);
        return;
    case LOOKUP_EXPERIMENT:
        EACH(db, job, job)
        {
            if (strcmp(experiment_name(db, job->experiment_id), lookup->experiment) == 0 &&
                (strcmp(job->state, "FAILED") == 0 || strcmp(job->state, "CANCELLED") == 0))
                answer_add(answer, job);
        }
        break;
    }
    if (row && row->ended_at)
        answer_add(answer, row);
    size_t last = answer->count;
    for (size_t i = first; lookup->with_parents && i < last; i++)
        answer_parents(answer, answer->jobs[i].job_id);
}

static bool answer_has(const struct answer *answer, uint64_t job_id)
{
    for (size_t i = 0; i < answer->count; i++)
        if (answer->jobs[i].job_id == job_id)
            return true;
    return false;
}

void memory_db_lookup(const struct memory_db *db, const struct core_lookup *lookups, size_t count,
                      struct arena *arena, struct event_found *out)
{
    struct answer answer = {.db = db, .arena = arena};
    answer.jobs =
        arena_alloc(arena, (db->tables[ROW_TABLE_job].count + 1) * sizeof *answer.jobs);
    answer.trials = arena_alloc(arena, (count + 1) * sizeof *answer.trials);
    *out = (struct event_found){0};
    for (size_t i = 0; i < count; i++) {
        lookup_one(&answer, &lookups[i]);
        if (lookups[i].kind == LOOKUP_GARBAGE)
            garbage_find(db, lookups[i].name, arena, out);
    }
    reused_add(&answer);
    struct row_job_dependency *dependencies = arena_alloc(
        arena, (db->tables[ROW_TABLE_job_dependency].count + 1) * sizeof *dependencies);
    struct row_checkpoint *checkpoints =
        arena_alloc(arena, (db->tables[ROW_TABLE_checkpoint].count + 1) * sizeof *checkpoints);
    struct row_artifact *artifacts =
        arena_alloc(arena, (db->tables[ROW_TABLE_artifact].count + 1) * sizeof *artifacts);
    EACH(db, job_dependency, row)
    {
        if (answer_has(&answer, row->job_id))
            dependencies[out->dependency_count++] = *row;
    }
    EACH(db, checkpoint, row)
    {
        if (answer_has(&answer, row->job_id) && row->removed_at == 0)
            checkpoints[out->checkpoint_count++] = *row;
    }
    EACH(db, artifact, row)
    {
        if (answer_has(&answer, row->job_id) && row->removed_at == 0)
            artifacts[out->artifact_count++] = *row;
    }
    out->trials = answer.trials;
    out->trial_count = answer.trial_count;
    out->jobs = answer.jobs;
    out->job_count = answer.count;
    out->dependencies = dependencies;
    out->checkpoints = checkpoints;
    out->artifacts = artifacts;
}
