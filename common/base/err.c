/* err.c - error texts; see err.h. */
#include "common/base/err.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

NORETURN void check_failed(const char *statement, const char *file, int line)
{
    fprintf(stderr, "CHECK failed: %s (%s:%d)\n", statement, file, line);
    abort();
}

static void text_ellipsis(struct err *err, int length)
{
    if (length >= (int)sizeof err->text)
        memcpy(err->text + sizeof err->text - 4, "...", 4);
}

int err_set(struct err *err, enum err_kind kind, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    int length = vsnprintf(err->text, sizeof err->text, format, args);
    va_end(args);
    text_ellipsis(err, length);
    err->kind = kind;
    return -1;
}

int err_errno(struct err *err, const char *format, ...)
{
    int saved = errno;
    char what[sizeof err->text];
    va_list args;
    va_start(args, format);
    vsnprintf(what, sizeof what, format, args);
    va_end(args);
    return err_set(err, saved == ENOENT ? ERR_NOT_FOUND : ERR_IO, "%s: %s", what, strerror(saved));
}

int err_wrap(struct err *err, const char *format, ...)
{
    CHECK(err->kind != ERR_NONE);
    char inner[sizeof err->text];
    memcpy(inner, err->text, sizeof inner);
    char context[sizeof err->text];
    va_list args;
    va_start(args, format);
    vsnprintf(context, sizeof context, format, args);
    va_end(args);
    return err_set(err, err->kind, "%s: %s", context, inner);
}

void err_clear(struct err *err)
{
    err->kind = ERR_NONE;
    err->text[0] = '\0';
}

const char *err_kind_name(enum err_kind kind)
{
    static const char *const names[ERR_KIND_END] = {
        [ERR_NONE] = "none",         [ERR_INVALID] = "invalid",   [ERR_NOT_FOUND] = "not found",
        [ERR_EXISTS] = "exists",     [ERR_IO] = "io",             [ERR_PROTOCOL] = "protocol",
        [ERR_DENIED] = "denied",     [ERR_LIMIT] = "limit",       [ERR_TIMEOUT] = "timeout",
        [ERR_CLOSED] = "closed",     [ERR_MEMORY] = "memory",     [ERR_STALE] = "stale",
    };
    return kind < ERR_KIND_END ? names[kind] : "unknown";
}
