/* arena.c - bump allocation in doubling blocks; see arena.h. */
#include "common/base/arena.h"

#include "common/base/mem.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define ARENA_ALIGN 16
#define ARENA_BLOCK_MIN ((size_t)4 << 10)
#define ARENA_BLOCK_MAX ((size_t)1 << 20)

struct arena_block {
    struct arena_block *next;
    size_t size_bytes;
    size_t used_bytes;
    _Alignas(ARENA_ALIGN) char bytes[];
};

static struct arena_block *block_add(struct arena *arena, size_t wanted_bytes)
{
    size_t size = arena->block ? 2 * arena->block->size_bytes : ARENA_BLOCK_MIN;
    size = min_u64(size, ARENA_BLOCK_MAX);
    size = max_u64(size, wanted_bytes);
    struct arena_block *block = mem_alloc(sizeof *block + size);
    block->next = arena->block;
    block->size_bytes = size;
    block->used_bytes = 0;
    arena->block = block;
    return block;
}

void *arena_alloc(struct arena *arena, size_t size_bytes)
{
    CHECK(size_bytes <= SIZE_MAX / 2);
    size_t padded = (size_bytes + ARENA_ALIGN - 1) & ~(size_t)(ARENA_ALIGN - 1);
    struct arena_block *block = arena->block;
    if (!block || block->size_bytes - block->used_bytes < padded)
        block = block_add(arena, padded);
    void *memory = block->bytes + block->used_bytes;
    block->used_bytes += padded;
    arena->used_bytes += padded;
    return memset(memory, 0, padded);
}

char *arena_strndup(struct arena *arena, const char *text, size_t length)
{
    char *copy = arena_alloc(arena, length + 1);
    memcpy(copy, text, length);
    return copy;
}

char *arena_strdup(struct arena *arena, const char *text)
{
    return text ? arena_strndup(arena, text, strlen(text)) : NULL;
}

char *arena_printf(struct arena *arena, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    int length = vsnprintf(NULL, 0, format, args);
    va_end(args);
    CHECK(length >= 0);
    char *text = arena_alloc(arena, (size_t)length + 1);
    va_start(args, format);
    vsnprintf(text, (size_t)length + 1, format, args);
    va_end(args);
    return text;
}

static void blocks_free(struct arena_block *block)
{
    while (block) {
        struct arena_block *next = block->next;
        mem_free(block);
        block = next;
    }
}

void arena_reset(struct arena *arena)
{
    if (arena->block) {
        blocks_free(arena->block->next);
        arena->block->next = NULL;
        arena->block->used_bytes = 0;
    }
    arena->used_bytes = 0;
}

void arena_join(struct arena *arena)
{
    size_t used_bytes = arena->used_bytes;
    if (arena->block && arena->block->next) {
        arena_done(arena);
        block_add(arena, used_bytes);
    }
    arena_reset(arena);
}

void arena_done(struct arena *arena)
{
    blocks_free(arena->block);
    *arena = (struct arena){0};
}
