/* table.h - answers of the coordinator as aligned text or JSON, by column types alone. */
#ifndef ATHANOR_CLIENT_TABLE_H
#define ATHANOR_CLIENT_TABLE_H

#include "client/render/style.h"
#include "common/base/arena.h"
#include "common/wire/wire.h"

/* ---- reading ------------------------------------------------------------------------------ */

size_t table_rows(const struct msg_table *table);
int table_column(const struct msg_table *table, const char *name); /* -1: there is none */
/* Raw text of a cell; "" for NULL and for a column that does not exist. */
const char *table_text(const struct msg_table *table, size_t row, const char *column);
bool table_is_null(const struct msg_table *table, size_t row, const char *column);
uint64_t table_u64(const struct msg_table *table, size_t row, const char *column);
double table_f64(const struct msg_table *table, size_t row, const char *column); /* NAN */
/* Refuses what no renderer could print: cells that do not fill rows. */
int table_check(const struct msg_table *table, struct err *err) WARN_UNUSED;
/* Adds the rows of `more`; columns must be equal (CHECK). */
void table_append(struct msg_table *table, const struct msg_table *more, struct arena *arena);

/* ---- printing ----------------------------------------------------------------------------- */

/* A value as people read it: times local without fractions, durations and *_bytes rounded, yes and
 * no, "-" for NULL. Borrowed from the cell or arena. */
const char *value_text(const struct rec_column *column, const struct rec_cell *cell,
                       struct arena *arena);

/* One column of a listing. heading NULL: the name in capitals. */
struct heading {
    const char *column;
    const char *heading;
};

/* Prints the columns in this order (headings NULL: all). Numbers are right-aligned; on a terminal
 * the widest text column gives way. Columns named "state" get their tint. */
void table_print(const struct msg_table *table, const struct heading *headings, size_t count,
                 const struct style *style, struct buf *out);
/* "name  value" lines of one row; NULLs and empty texts are left out. */
void table_print_row(const struct msg_table *table, size_t row, const struct heading *headings,
                     size_t count, const struct style *style, struct buf *out);
/* An array of objects: int and duration_ms as integers, float as reals ("NaN" and "Infinity" as
 * strings), bool, time in ISO 8601, json embedded. */
void table_print_json(const struct msg_table *table, struct buf *out);
void table_print_json_row(const struct msg_table *table, size_t row, struct buf *out); /* one {} */
/* One column, one raw value a line. */
void table_print_column(const struct msg_table *table, const char *column, struct buf *out);

#endif
