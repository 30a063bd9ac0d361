/* pack.c - see pack.h. Rows are filled in order: no search for a better fit, because the
 * composition of a row must follow from the order of the documents alone. */
#include "worker/recipes/pack.h"

#include "common/base/mem.h"

#include <stdlib.h>
#include <string.h>

int pack_init(struct pack *pack, int64_t T, int64_t rows_most, struct err *err)
{
    struct pack fresh = {.T = T, .rows_most = rows_most};
    size_t cells = (size_t)(T * rows_most);
    int32_t *memory = NULL;

    CHECK(T > 0 && rows_most > 0);
    memory = malloc(4 * cells * sizeof *memory);
    if (!memory)
        return err_set(err, ERR_MEMORY, "cannot allocate %zu bytes for packed rows",
                       4 * cells * sizeof *memory);
    fresh.token = memory;
    fresh.target = memory + cells;
    fresh.position = memory + 2 * cells;
    fresh.first = memory + 3 * cells;
    *pack = fresh;
    pack_clear(pack);
    return 0;
}

void pack_done(struct pack *pack)
{
    free(pack->token);
    mem_free(pack->span);
    memset(pack, 0, sizeof *pack);
}

/* Padding sees only itself, so that softmax has one finite score. */
static void pad_row(struct pack *pack, int64_t row)
{
    int64_t from = row * pack->T;

    for (int64_t column = 0; column < pack->T; column++) {
        pack->token[from + column] = 0;
        pack->target[from + column] = -1;
        pack->position[from + column] = 0;
        pack->first[from + column] = (int32_t)column;
    }
}

void pack_clear(struct pack *pack)
{
    pack->rows = 1;
    pack->column = 0;
    pack->span_count = 0;
    pack->target_count = 0;
    pad_row(pack, 0);
}

bool pack_add(struct pack *pack, int64_t item, const int32_t *token, const int32_t *target,
              int64_t count)
{
    int64_t start;

    CHECK(count > 0 && count <= pack->T);
    if (pack->column + count > pack->T) {
        if (pack->rows == pack->rows_most)
            return false;
        pad_row(pack, pack->rows++);
        pack->column = 0;
    }
    start = (pack->rows - 1) * pack->T + pack->column;
    for (int64_t i = 0; i < count; i++) {
        pack->token[start + i] = token[i];
        pack->target[start + i] = target[i];
        pack->position[start + i] = (int32_t)i;
        pack->first[start + i] = (int32_t)pack->column;
        pack->target_count += target[i] >= 0;
    }
    pack->column += count;
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
