/* encode.h - between row structs and PostgreSQL's binary format.
 *
 * A value is an int32 length (-1: NULL) and its bytes, the same within COPY tuples and arrays.
 * What PostgreSQL would refuse is bent here, because one refused value fails a whole batch that
 * was accepted already: bytes that are not UTF-8 become U+FFFD, a text that is not JSON becomes a
 * JSON string of it, numbers and times are clamped to their column's range. */
#ifndef ATHANOR_STORE_ENCODE_H
#define ATHANOR_STORE_ENCODE_H

#include "common/base/arena.h"
#include "common/base/buf.h"
#include "coordinator/rows/rows.h"

void encode_value(struct buf *out, const struct row_column *column, const void *row);
/* One array of a column over rows, to be a parameter. rows are pointers to row structs. */
void encode_array(struct buf *out, const struct row_column *column, const void *const *rows,
                  size_t count);
/* The stream of a binary COPY: header, a tuple for each row, trailer. */
void encode_copy_header(struct buf *out);
void encode_copy_row(struct buf *out, const struct row_shape *shape, const void *row);
void encode_copy_trailer(struct buf *out);

/* Reads one binary value into its column of *row; bytes NULL means SQL NULL. Texts and blobs are
 * copied to arena. Errors: ERR_PROTOCOL (length does not fit the type). */
int decode_value(const struct row_column *column, const char *bytes, size_t length,
                 struct arena *arena, void *row, struct err *err) WARN_UNUSED;

#endif
