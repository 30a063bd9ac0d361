/* sql.h - statements composed from the column tables (rows.h). Texts are the caller's (mem_free).
 *
 * Rows travel as one array per column, in PostgreSQL's binary format:
 *   INSERT INTO athanor.job (job_id, ...) SELECT * FROM unnest($1::bigint[], ...) */
#ifndef ATHANOR_STORE_SQL_H
#define ATHANOR_STORE_SQL_H

#include "coordinator/rows/rows.h"

enum sql_verb { SQL_UPDATE = 1, SQL_UPSERT, SQL_INSERT, SQL_VERB_END };

char *sql_statement(const struct row_shape *shape, enum sql_verb verb);
/* COPY athanor.job (job_id, ...) FROM STDIN BINARY */
char *sql_copy(const struct row_shape *shape);
/* SELECT t.job_id, ... FROM athanor.job AS t <rest>; read with row_decode. */
char *sql_select(const struct row_shape *shape, const char *rest);
/* Whether a column is a parameter of the verb: UPDATE takes keys and mutable columns only. */
bool sql_takes(enum sql_verb verb, const struct row_column *column);

#endif
