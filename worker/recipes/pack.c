/* pack.c - see pack.h. First fit: what lies where follows from the order of the documents
 * alone, and for lengths as in dictionaries about 5 % of the cells stay empty. */
#include "worker/recipes/pack.h"

#include "common/base/mem.h"

#include <stdlib.h>
#include <string.h>

int pack_init(struct pack *pack, int64_t T, int64_t rows_most, struct err *err)
{
    struct pack fresh = {.T = T, .rows_most = rows_most};
    size_t cells = (size_t)(T * rows_most), bytes = (4 * cells + 2 * (size_t)T) * sizeof(int32_t);
    int32_t *memory = NULL;

    CHECK(T > 0 && rows_most > 0);
    memory = malloc(bytes);
    fresh.used = malloc((size_t)rows_most * sizeof *fresh.used);
    if (!memory || !fresh.used) {
        free(memory);
        free(fresh.used);
        return err_set(err, ERR_MEMORY, "cannot allocate %zu bytes for packed rows", bytes);
    }
    fresh.token = memory;
    fresh.target = memory + cells;
    fresh.position = memory + 2 * cells;
    fresh.first = memory + 3 * cells;
    fresh.room = memory + 4 * cells;
    *pack = fresh;
    pack_clear(pack);
    return 0;
}

void pack_done(struct pack *pack)
{
    free(pack->token);
    free(pack->used);
    mem_free(pack->span);
    memset(pack, 0, sizeof *pack);
}

/* Padding sees only itself, so that softmax has one finite score. */
static void add_row(struct pack *pack)
{
    int64_t from = pack->rows * pack->T;

    pack->used[pack->rows++] = 0;
    for (int64_t column = 0; column < pack->T; column++) {
        pack->token[from + column] = 0;
        pack->target[from + column] = -1;
        pack->position[from + column] = 0;
        pack->first[from + column] = (int32_t)column;
    }
}

void pack_clear(struct pack *pack)
{
    pack->rows = 0;
    pack->span_count = 0;
    pack->target_count = 0;
    add_row(pack);
}

/* The first row with room for `count` cells, a new one if need be; -1 when all are full. */
static int64_t find_row(struct pack *pack, int64_t count)
{
    for (int64_t row = 0; row < pack->rows; row++) {
        if (pack->used[row] + count <= pack->T)
            return row;
    }
    if (pack->rows == pack->rows_most)
        return -1;
    add_row(pack);
    return pack->rows - 1;
}

bool pack_add(struct pack *pack, int64_t item, const int32_t *token, const int32_t *target,
              int64_t count)
{
    int64_t row, column, start;

    CHECK(count > 0 && count <= pack->T);
    row = find_row(pack, count);
    if (row < 0)
        return false;
    column = pack->used[row];
    start = row * pack->T + column;
    for (int64_t i = 0; i < count; i++) {
        pack->token[start + i] = token[i];
        pack->target[start + i] = target[i];
        pack->position[start + i] = (int32_t)i;
        pack->first[start + i] = (int32_t)column;
        pack->target_count += target[i] >= 0;
    }
    pack->used[row] += count;
    VEC_RESERVE(pack->span, pack->span_count, pack->span_capacity);
    pack->span[pack->span_count++] = (struct pack_span){item, start, count};
    return true;
}

int64_t pack_cells(const struct pack *pack)
{
    return pack->rows * pack->T;
}

struct model_batch pack_batch(const struct pack *pack)
{
    return (struct model_batch){.B = pack->rows,
                                .T = pack->T,
                                .token = pack->token,
                                .position = pack->position,
                                .first = pack->first};
}
