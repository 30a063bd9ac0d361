/* row_read.c - see row_read.h. */
#include "coordinator/store/row_read.h"

#include "coordinator/store/encode.h"

#include <string.h>

int row_read(const PGresult *result, int index, const struct row_shape *shape, struct arena *arena,
             void *out, struct err *err)
{
    memset(out, 0, shape->size_bytes);
    for (size_t i = 0; i < shape->column_count; i++) {
        /* Statements of sql_select list columns in order, so the first guess mostly holds. */
        int field = (int)i < PQnfields(result) &&
                            strcmp(PQfname(result, (int)i), shape->columns[i].name) == 0
                        ? (int)i
                        : PQfnumber(result, shape->columns[i].name);
        if (field < 0 || PQgetisnull(result, index, field))
            continue;
        CHECK(PQfformat(result, field) == 1);
        if (decode_value(&shape->columns[i], PQgetvalue(result, index, field),
                         (size_t)PQgetlength(result, index, field), arena, out, err) < 0)
            return err_wrap(err, "reading table '%s'", shape->name);
    }
    return 0;
}

int row_read_all(const PGresult *result, const struct row_shape *shape, struct arena *arena,
                 void *out_rows, size_t *out_count, struct err *err)
{
    size_t count = (size_t)PQntuples(result);
    char *rows = arena_alloc(arena, (count ? count : 1) * shape->size_bytes);

    for (size_t i = 0; i < count; i++)
        if (row_read(result, (int)i, shape, arena, rows + i * shape->size_bytes, err) < 0)
            return -1;
    memcpy(out_rows, &rows, sizeof rows);
    *out_count = count;
    return 0;
}
