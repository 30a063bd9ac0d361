/* arena.h - memory that is freed all at once: per message, per step, per parse.
 *
 * Blocks double up to ARENA_BLOCK_MAX; allocations are 16-byte aligned.
 * Out of memory ends the process (see mem.h). */
#ifndef ATHANOR_ARENA_H
#define ATHANOR_ARENA_H

#include "common/base/base.h"

struct arena_block;

struct arena {
    struct arena_block *block; /* newest first; NULL when empty */
    size_t used_bytes;         /* sum of all allocations since the last reset */
};

/* A zeroed struct is a valid empty arena. */
void *arena_alloc(struct arena *arena, size_t size_bytes); /* zeroed */
char *arena_strndup(struct arena *arena, const char *text, size_t length);
char *arena_strdup(struct arena *arena, const char *text);
char *arena_printf(struct arena *arena, const char *format, ...) FORMAT(2, 3);
/* Forgets all allocations; keeps the newest (largest) block for reuse. */
void arena_reset(struct arena *arena);
/* The same; what was taken in several blocks comes in one from now on, so that the same work again
 * allocates nothing. */
void arena_join(struct arena *arena);
void arena_done(struct arena *arena);

#endif
