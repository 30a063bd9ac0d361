/* batch.c - see batch.h.
 *
 * The index from key to entry is an open-addressing table per batch; order comes from the entry
 * list, never from the table. */
#include "coordinator/store/batch.h"

#include "common/base/mem.h"
#include "common/base/rng.h"

#include <string.h>

struct entry {
    enum row_table table;
    enum sql_verb verb;
    const void *row;
    bool copied; /* row is ours to change */
};

struct merge {
    struct batch *batch;
    struct entry *entries;
    size_t count, capacity;
    uint32_t *slots; /* index + 1 of an entry; 0: free */
    size_t slot_count;
};

static uint64_t hash_text(const char *text)
{
    uint64_t hash = 0xcbf29ce484222325; /* FNV-1a */

    for (; text && *text; text++)
        hash = (hash ^ (unsigned char)*text) * 0x100000001b3;
    return hash;
}

static const void *field_of(const struct row_column *column, const void *row)
{
    return (const char *)row + column->offset;
}

static uint64_t key_hash(enum row_table table, const void *row)
{
    const struct row_shape *shape = row_shape(table);
    uint64_t hash = rng_mix(table);

    for (size_t i = 0; i < shape->column_count; i++) {
        const struct row_column *column = &shape->columns[i];
        if (column->role != ROW_ROLE_KEY)
            continue;
        uint64_t part = column->type == ROW_text
                            ? hash_text(*(const char *const *)field_of(column, row))
                            : *(const uint64_t *)field_of(column, row);
        hash = rng_mix(hash ^ part);
    }
    return hash;
}

static bool key_equal(enum row_table table, const void *a, const void *b)
{
    const struct row_shape *shape = row_shape(table);

    for (size_t i = 0; i < shape->column_count; i++) {
        const struct row_column *column = &shape->columns[i];
        if (column->role != ROW_ROLE_KEY)
            continue;
        if (column->type == ROW_text) {
            if (strcmp(*(const char *const *)field_of(column, a),
                       *(const char *const *)field_of(column, b)) != 0)
                return false;
        } else if (*(const uint64_t *)field_of(column, a) !=
                   *(const uint64_t *)field_of(column, b)) {
            return false;
        }
    }
    return true;
}

/* The slot of this key: its entry's, or a free one. */
static uint32_t *slot_of(struct merge *merge, enum row_table table, const void *row)
{
    size_t mask = merge->slot_count - 1;

    for (size_t at = key_hash(table, row) & mask;; at = (at + 1) & mask) {
        uint32_t *slot = &merge->slots[at];
        if (*slot == 0)
            return slot;
        const struct entry *entry = &merge->entries[*slot - 1];
        if (entry->table == table && key_equal(table, entry->row, row))
            return slot;
    }
}

static size_t field_size(enum row_type type)
{
    switch (type) {
    case ROW_u64:
    case ROW_i64:
    case ROW_f64:
    case ROW_time:
        return 8;
    case ROW_flag:
        return sizeof(bool);
    case ROW_text:
        return sizeof(char *);
    case ROW_blob:
        return sizeof(struct row_blob);
    case ROW_hash:
        return sizeof(struct hash);
    }
    CHECK(!"every row type has a size");
    return 0;
}

/* The mutable columns of `row` become those of the entry. */
static void entry_merge(struct merge *merge, struct entry *entry, const void *row)
{
    const struct row_shape *shape = row_shape(entry->table);

    if (!entry->copied) {
        void *copy = arena_alloc(&merge->batch->arena, shape->size_bytes);
        memcpy(copy, entry->row, shape->size_bytes);
        entry->row = copy;
        entry->copied = true;
    }
    for (size_t i = 0; i < shape->column_count; i++) {
        const struct row_column *column = &shape->columns[i];
        if (column->role == ROW_ROLE_MUTABLE)
            memcpy((char *)(uintptr_t)entry->row + column->offset, field_of(column, row),
                   field_size(column->type));
    }
}

static enum sql_verb verb_of(enum persist_op op)
{
    switch (op) {
    case PERSIST_INSERT:
        return SQL_INSERT;
    case PERSIST_UPDATE:
        return SQL_UPDATE;
    case PERSIST_UPSERT:
        return SQL_UPSERT;
    }
    CHECK(!"every persist_op has a verb");
    return SQL_INSERT;
}

static void entry_add(struct merge *merge, const struct persist *persist)
{
    uint32_t *slot = slot_of(merge, persist->table, persist->row);
    enum sql_verb verb = verb_of(persist->op);

    if (*slot == 0) {
        VEC_RESERVE(merge->entries, merge->count, merge->capacity);
        merge->entries[merge->count++] = (struct entry){persist->table, verb, persist->row, false};
        *slot = (uint32_t)merge->count;
        return;
    }
    struct entry *entry = &merge->entries[*slot - 1];
    CHECK(verb != SQL_INSERT); /* ids are given once */
    if (verb == SQL_UPSERT && entry->verb == SQL_UPDATE) {
        entry->verb = SQL_UPSERT; /* carries every column, which the UPDATE did not */
        entry->row = persist->row;
        entry->copied = false;
        return;
    }
    entry_merge(merge, entry, persist->row);
}

static bool has_mutable(const struct row_shape *shape)
{
    for (size_t i = 0; i < shape->column_count; i++)
        if (shape->columns[i].role == ROW_ROLE_MUTABLE)
            return true;
    return false;
}

static void group_add(struct batch *batch, enum row_table table, enum sql_verb verb,
                      const void *row)
{
    struct batch_rows *group = &batch->groups[table][verb];

    VEC_RESERVE(group->rows, group->count, group->capacity);
    group->rows[group->count++] = row;
}

void batch_group(struct batch *batch, const struct effects *effects)
{
    struct merge merge = {.batch = batch};
    bool merges[ROW_TABLE_END];
    size_t merged = 0;

    for (int table = 1; table < ROW_TABLE_END; table++)
        merges[table] = has_mutable(row_shape((enum row_table)table));
    for (size_t i = 0; i < effects->persist_count; i++)
        merged += merges[effects->persist[i].table];
    for (merge.slot_count = 16; merge.slot_count < 2 * merged;)
        merge.slot_count *= 2;
    merge.slots = mem_array(merge.slot_count, sizeof *merge.slots);
    for (size_t i = 0; i < effects->persist_count; i++) {
        const struct persist *persist = &effects->persist[i];
        if (merges[persist->table])
            entry_add(&merge, persist);
        else
            group_add(batch, persist->table, verb_of(persist->op), persist->row);
    }
    for (size_t i = 0; i < merge.count; i++)
        group_add(batch, merge.entries[i].table, merge.entries[i].verb, merge.entries[i].row);
    mem_free(merge.slots);
    mem_free(merge.entries);
}

void batch_reset(struct batch *batch)
{
    arena_reset(&batch->arena);
    for (int table = 0; table < ROW_TABLE_END; table++)
        for (int verb = 0; verb < SQL_VERB_END; verb++)
            batch->groups[table][verb].count = 0;
}

void batch_done(struct batch *batch)
{
    arena_done(&batch->arena);
    for (int table = 0; table < ROW_TABLE_END; table++)
        for (int verb = 0; verb < SQL_VERB_END; verb++)
            mem_free(batch->groups[table][verb].rows);
    *batch = (struct batch){0};
}
