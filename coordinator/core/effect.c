/* effect.c - growing lists in an arena; see effect.h. */
#include "coordinator/core/effect.h"

#include "common/base/mem.h"

#include <string.h>

void effects_init(struct effects *effects)
{
    *effects = (struct effects){0};
}

void effects_reset(struct effects *effects)
{
    effects->persist_count = 0;
    effects->release_count = 0;
    arena_reset(&effects->arena);
}

void effects_done(struct effects *effects)
{
    mem_free(effects->persist);
    mem_free(effects->release);
    arena_done(&effects->arena);
    *effects = (struct effects){0};
}

/* Texts and blobs of the row move to the arena: the core may change or free its own. */
static void row_own_texts(struct arena *arena, const struct row_shape *shape, char *row)
{
    for (size_t i = 0; i < shape->column_count; i++) {
        const struct row_column *column = &shape->columns[i];
        void *field = row + column->offset;
        if (column->type == ROW_text) {
            row_text *text = field;
            *text = arena_strdup(arena, *text);
        } else if (column->type == ROW_blob) {
            row_blob *blob = field;
            if (blob->length)
                blob->bytes = arena_strndup(arena, blob->bytes, blob->length);
        }
    }
}

void effects_persist(struct effects *effects, enum row_table table, enum persist_op op,
                     const void *row)
{
    const struct row_shape *shape = row_shape(table);
    char *copy = arena_alloc(&effects->arena, shape->size_bytes);
    memcpy(copy, row, shape->size_bytes);
    row_own_texts(&effects->arena, shape, copy);
    VEC_RESERVE(effects->persist, effects->persist_count, effects->persist_capacity);
    effects->persist[effects->persist_count++] =
        (struct persist){.table = table, .op = op, .row = copy};
}

struct message *effects_release(struct effects *effects, enum address_kind to, uint64_t peer,
                                enum msg_tag tag)
{
    VEC_RESERVE(effects->release, effects->release_count, effects->release_capacity);
    struct outgoing *outgoing = &effects->release[effects->release_count++];
    *outgoing = (struct outgoing){.to = to, .peer = peer};
    outgoing->message.tag = tag;
    return &outgoing->message;
}
