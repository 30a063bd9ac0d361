/* errors.c - collecting, ordering and printing what is wrong; see errors.h. */
#include "common/spec/errors.h"

#include "common/base/buf.h"
#include "common/base/mem.h"
#include "common/base/parse.h"
#include "common/spec/json.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MESSAGE_BYTES_MAX 2000 /* lists of fields and choices fit; longer ones end in "..." */

/* Bytes of the UTF-8 character at `at`; 0 when there is none. */
static size_t character_length(const char *at)
{
    size_t left = strnlen(at, 4);
    for (size_t length = 1; length <= left; length++)
        if (text_is_utf8(at, length))
            return length;
    return 0;
}

/* A copy that is one line of UTF-8, whatever the user's text in it was. */
static const char *clean_copy(struct arena *arena, const char *text)
{
    struct buf out = {0};
    for (const char *at = text; *at;) {
        size_t length = character_length(at);
        if (length == 0)
            buf_putc(&out, '?');
        else if (length == 1 && ((unsigned char)*at < 0x20 || *at == 0x7F))
            buf_printf(&out, "\\x%02x", (unsigned)*at);
        else
            buf_add(&out, at, length);
        at += length ? length : 1;
    }
    char *copy = arena_strdup(arena, buf_text(&out));
    buf_done(&out);
    return copy;
}

static const char *message_format(struct arena *arena, const char *format, va_list args)
{
    char message[MESSAGE_BYTES_MAX];
    int length = vsnprintf(message, sizeof message, format, args);
    CHECK(length >= 0);
    if ((size_t)length >= sizeof message)
        memcpy(message + sizeof message - sizeof "...", "...", sizeof "...");
    return clean_copy(arena, message);
}

void spec_errors_add(struct spec_errors *errors, const struct spec_error *place,
                     const char *format, ...)
{
    if (errors->count == SPEC_ERRORS_MAX) {
        errors->dropped++;
        return;
    }
    VEC_RESERVE(errors->items, errors->count, errors->capacity);
    struct spec_error *error = &errors->items[errors->count++];
    *error = *place;
    error->file = clean_copy(&errors->arena, place->file ? place->file : "");
    error->path = clean_copy(&errors->arena, place->path ? place->path : "");
    va_list args;
    va_start(args, format);
    error->message = message_format(&errors->arena, format, args);
    va_end(args);
}

static bool error_before(const struct spec_error *a, const struct spec_error *b)
{
    if (a->source != b->source)
        return a->source < b->source;
    if (a->line != b->line)
        return a->line < b->line;
    return a->column < b->column;
}

/* Insertion sort: stable, and there are at most SPEC_ERRORS_MAX. */
void spec_errors_sort(struct spec_errors *errors)
{
    for (size_t i = 1; i < errors->count; i++) {
        struct spec_error moved = errors->items[i];
        size_t at = i;
        for (; at > 0 && error_before(&moved, &errors->items[at - 1]); at--)
            errors->items[at] = errors->items[at - 1];
        errors->items[at] = moved;
    }
}

static bool error_equal(const struct spec_error *a, const struct spec_error *b)
{
    return a->source == b->source && a->line == b->line && a->column == b->column &&
           strcmp(a->path, b->path) == 0 && strcmp(a->message, b->message) == 0;
}

/* Equal ones need not be neighbours: several errors may share a place. */
void spec_errors_unique(struct spec_errors *errors)
{
    size_t kept = 0;
    for (size_t i = 0; i < errors->count; i++) {
        bool known = false;
        for (size_t k = kept; k-- > 0 && !known && !error_before(&errors->items[k],
                                                                 &errors->items[i]);)
            known = error_equal(&errors->items[k], &errors->items[i]);
        if (!known)
            errors->items[kept++] = errors->items[i];
    }
    errors->count = kept;
}

char *spec_errors_text(const struct spec_errors *errors)
{
    struct buf text = {0};
    for (size_t i = 0; i < errors->count; i++) {
        const struct spec_error *error = &errors->items[i];
        buf_puts(&text, error->file);
        if (error->line > 0)
            buf_printf(&text, ":%u:%u", error->line, error->column);
        if (error->path[0] != '\0')
            buf_printf(&text, ": %s", error->path);
        buf_printf(&text, ": %s\n", error->message);
    }
    if (errors->dropped > 0)
        buf_printf(&text, "... and %zu more\n", errors->dropped);
    buf_add(&text, "", 0);
    return buf_take(&text);
}

char *spec_errors_json(const struct spec_errors *errors)
{
    struct buf text = {0};
    buf_putc(&text, '[');
    for (size_t i = 0; i < errors->count; i++) {
        const struct spec_error *error = &errors->items[i];
        buf_printf(&text, "%s{\"column\": %u, \"file\": ", i ? ", " : "", error->column);
        json_put_text(&text, error->file);
        buf_printf(&text, ", \"line\": %u, \"message\": ", error->line);
        json_put_text(&text, error->message);
        buf_puts(&text, ", \"path\": ");
        json_put_text(&text, error->path);
        buf_putc(&text, '}');
    }
    buf_putc(&text, ']');
    return buf_take(&text);
}

void spec_errors_done(struct spec_errors *errors)
{
    arena_done(&errors->arena);
    mem_free(errors->items);
    *errors = (struct spec_errors){0};
}
