/* rows.h - texts out of tables: labelled sets as they are published, without a script between.
 *
 * PATTERN?text=FIELD&any=A|B&none=C|D&is=E:VALUE reads the files of a shell pattern, .csv (RFC
 * 4180, the first row names the columns) or .jsonl (an object a line), and visits the text of each
 * row for which all holds that is asked:
 *   any=A|B     one of these fields is set     none=C|D   none of them is
 *   is=E:VALUE  the field is exactly VALUE
 * A field is set when it is true or a number of at least 0.5: labels are 0 and 1, or shares of
 * judges who gave them (Jigsaw's sets have the one and the other). */
#ifndef ATHANOR_WEB_ROWS_H
#define ATHANOR_WEB_ROWS_H

#include "worker/recipes/data/web/texts.h"

bool rows_is_query(const char *pattern); /* has "?text=" */
/* Errors: those of visit; ERR_INVALID for a query that cannot be read; ERR_NOT_FOUND when no file
 * matches; ERR_PROTOCOL naming file and row: damaged, or without a field that is asked for. */
int rows_read(const char *query, texts_visit visit, void *argument, struct err *err) WARN_UNUSED;
/* The rows of one table, for rows_read and fuzzing: query as above, of which PATTERN is ignored. */
int rows_of_csv(const char *query, const char *csv, size_t length, texts_visit visit,
                void *argument, struct err *err) WARN_UNUSED;
int rows_of_json_lines(const char *query, const char *lines, size_t length, texts_visit visit,
                       void *argument, struct err *err) WARN_UNUSED;

#endif
