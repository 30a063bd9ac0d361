/* row_read.h - from binary results to row structs, for the files of this folder only. */
#ifndef ATHANOR_STORE_ROW_READ_H
#define ATHANOR_STORE_ROW_READ_H

#include "coordinator/rows/rows.h"
#include "coordinator/store/pg.h"

/* Reads row `index` into *out, a struct of the shape; columns are matched by name, those that the
 * result does not have stay zero. Texts live in arena. Errors: ERR_PROTOCOL. */
int row_read(const PGresult *result, int index, const struct row_shape *shape, struct arena *arena,
             void *out, struct err *err) WARN_UNUSED;
/* All rows, as an array in arena. */
int row_read_all(const PGresult *result, const struct row_shape *shape, struct arena *arena,
                 void *out_rows, size_t *out_count, struct err *err) WARN_UNUSED;

#endif
