/* buf.h - growable bytes for building texts and frames. Always terminated. */
#ifndef ATHANOR_BUF_H
#define ATHANOR_BUF_H

#include "common/base/base.h"

struct buf {
    char *bytes; /* NULL while empty; else bytes[length] == 0 */
    size_t length;
    size_t capacity;
};

void buf_add(struct buf *buf, const void *bytes, size_t length);
void buf_puts(struct buf *buf, const char *text);
void buf_putc(struct buf *buf, char c);
void buf_printf(struct buf *buf, const char *format, ...) FORMAT(2, 3);
/* Removes the first `length` bytes (a consumed line, a sent prefix). */
void buf_drop(struct buf *buf, size_t length);
void buf_clear(struct buf *buf);      /* keeps the memory */
char *buf_take(struct buf *buf);      /* gives the text to the caller (mem_free); buf is empty */
const char *buf_text(const struct buf *buf); /* "" while empty */
void buf_done(struct buf *buf);

#endif
