/* mem.h - heap for processes whose state lives in PostgreSQL or on disk.
 *
 * Out of memory ends the process (CHECK): it restarts from durable state.
 * The engine allocates through its arenas instead and returns ERR_MEMORY. */
#ifndef ATHANOR_MEM_H
#define ATHANOR_MEM_H

#include "common/base/base.h"

void *mem_alloc(size_t size_bytes);                     /* not zeroed */
void *mem_zalloc(size_t size_bytes);
void *mem_array(size_t count, size_t item_bytes);       /* zeroed; overflow CHECKed */
void *mem_grow(void *memory, size_t count, size_t item_bytes);
char *mem_strdup(const char *text);                     /* NULL stays NULL */
char *mem_strndup(const char *text, size_t length);
char *mem_printf(const char *format, ...) FORMAT(1, 2);
void mem_free(void *memory);

/* Makes room for one more item in a doubling array; items, count and capacity are the
 * caller's fields. Example: VEC_RESERVE(list->items, list->count, list->capacity). */
#define VEC_RESERVE(items, count, capacity) \
    do { \
        if ((count) == (capacity)) { \
            (capacity) = (capacity) ? 2 * (capacity) : 8; \
            (items) = mem_grow((items), (capacity), sizeof *(items)); \
        } \
    } while (0)

#endif
