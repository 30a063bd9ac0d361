/* bytemap.h - two hash tables: byte strings to their insertion number, and pairs of ids.
 *
 * Both are walked only in insertion order, so that nothing depends on hash order. */
#ifndef ATHANOR_BYTEMAP_H
#define ATHANOR_BYTEMAP_H

#include "common/base/arena.h"

#define BYTE_MAP_NONE UINT32_MAX

struct byte_entry {
    const char *bytes; /* owned by the map's arena */
    uint32_t length;
    uint32_t hash;
    uint64_t value; /* the caller's; 0 for a new entry */
};

/* A zeroed struct is a valid empty map. At most 2^31 entries (CHECK). */
struct byte_map {
    struct byte_entry *entries;
    size_t count, capacity;
    uint32_t *slots; /* entry number + 1; 0: free */
    size_t slot_count;
    struct arena arena;
};

/* The entry's number; a new entry is made when there is none. */
uint32_t byte_map_put(struct byte_map *map, const void *bytes, size_t length);
uint32_t byte_map_find(const struct byte_map *map, const void *bytes, size_t length);
void byte_map_done(struct byte_map *map);

/* (left, right) to a number below UINT32_MAX. A zeroed struct is a valid empty map. */
struct pair_map {
    uint64_t *keys; /* PAIR_FREE: free */
    uint32_t *values;
    size_t slot_count, count;
};

uint32_t pair_map_find(const struct pair_map *map, uint32_t left, uint32_t right);
/* The pair must be new (CHECK). */
void pair_map_add(struct pair_map *map, uint32_t left, uint32_t right, uint32_t value);
void pair_map_done(struct pair_map *map);

#endif
