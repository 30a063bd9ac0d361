/* mem.c - allocation that cannot fail; see mem.h. */
#include "common/base/mem.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void *mem_alloc(size_t size_bytes)
{
    void *memory = malloc(size_bytes ? size_bytes : 1);
    CHECK(memory != NULL);
    return memory;
}

void *mem_zalloc(size_t size_bytes)
{
    return mem_array(1, size_bytes);
}

void *mem_array(size_t count, size_t item_bytes)
{
    void *memory = calloc(count ? count : 1, item_bytes ? item_bytes : 1);
    CHECK(memory != NULL);
    return memory;
}

void *mem_grow(void *memory, size_t count, size_t item_bytes)
{
    void *grown = reallocarray(memory, count ? count : 1, item_bytes);
    CHECK(grown != NULL);
    return grown;
}

char *mem_strdup(const char *text)
{
    return text ? mem_strndup(text, strlen(text)) : NULL;
}

char *mem_strndup(const char *text, size_t length)
{
    char *copy = mem_alloc(length + 1);
    memcpy(copy, text, length);
    copy[length] = '\0';
    return copy;
}

char *mem_printf(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    int length = vsnprintf(NULL, 0, format, args);
    va_end(args);
    CHECK(length >= 0);
    char *text = mem_alloc((size_t)length + 1);
    va_start(args, format);
    vsnprintf(text, (size_t)length + 1, format, args);
    va_end(args);
    return text;
}

void mem_free(void *memory)
{
    free(memory);
}
