/* buf.c - growable bytes; see buf.h. */
#include "common/base/buf.h"

#include "common/base/mem.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static void buf_reserve(struct buf *buf, size_t more)
{
    CHECK(more < SIZE_MAX / 4 - buf->length);
    size_t wanted = buf->length + more + 1;
    if (wanted <= buf->capacity)
        return;
    size_t capacity = buf->capacity ? buf->capacity : 64;
    while (capacity < wanted)
        capacity *= 2;
    buf->bytes = mem_grow(buf->bytes, capacity, 1);
    buf->capacity = capacity;
}

void buf_add(struct buf *buf, const void *bytes, size_t length)
{
    buf_reserve(buf, length);
    if (length)
        memcpy(buf->bytes + buf->length, bytes, length);
    buf->length += length;
    buf->bytes[buf->length] = '\0';
}

void buf_puts(struct buf *buf, const char *text)
{
    buf_add(buf, text, strlen(text));
}

void buf_putc(struct buf *buf, char c)
{
    buf_add(buf, &c, 1);
}

void buf_printf(struct buf *buf, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    int length = vsnprintf(NULL, 0, format, args);
    va_end(args);
    CHECK(length >= 0);
    buf_reserve(buf, (size_t)length);
    va_start(args, format);
    vsnprintf(buf->bytes + buf->length, (size_t)length + 1, format, args);
    va_end(args);
    buf->length += (size_t)length;
}

void buf_drop(struct buf *buf, size_t length)
{
    CHECK(length <= buf->length);
    if (length == 0)
        return;
    memmove(buf->bytes, buf->bytes + length, buf->length - length + 1);
    buf->length -= length;
}

void buf_clear(struct buf *buf)
{
    buf->length = 0;
    if (buf->bytes)
        buf->bytes[0] = '\0';
}

char *buf_take(struct buf *buf)
{
    if (!buf->bytes)
        buf_add(buf, "", 0);
    char *text = buf->bytes;
    *buf = (struct buf){0};
    return text;
}

const char *buf_text(const struct buf *buf)
{
    return buf->bytes ? buf->bytes : "";
}

void buf_done(struct buf *buf)
{
    mem_free(buf->bytes);
    *buf = (struct buf){0};
}
