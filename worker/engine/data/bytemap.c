/* bytemap.c - open addressing with linear probing; see bytemap.h. */
#include "worker/engine/data/bytemap.h"

#include "common/base/mem.h"
#include "common/base/rng.h"

#include <string.h>
#include <xxhash.h>

#define PAIR_FREE UINT64_MAX

static void byte_map_grow(struct byte_map *map)
{
    size_t slot_count = map->slot_count ? 2 * map->slot_count : 64;
    uint32_t *slots = mem_array(slot_count, sizeof *slots);
    for (size_t i = 0; i < map->count; i++) {
        size_t at = map->entries[i].hash & (slot_count - 1);
        while (slots[at])
            at = (at + 1) & (slot_count - 1);
        slots[at] = (uint32_t)i + 1;
    }
    mem_free(map->slots);
    map->slots = slots;
    map->slot_count = slot_count;
}

/* The slot that holds the string, or the free one where it belongs. */
static size_t byte_map_slot(const struct byte_map *map, const void *bytes, size_t length,
                            uint32_t hash)
{
    size_t at = hash & (map->slot_count - 1);
    for (;; at = (at + 1) & (map->slot_count - 1)) {
        if (!map->slots[at])
            return at;
        const struct byte_entry *entry = &map->entries[map->slots[at] - 1];
        if (entry->hash == hash && entry->length == length &&
            (length == 0 || memcmp(entry->bytes, bytes, length) == 0))
            return at;
    }
}

static uint32_t hash_of(const void *bytes, size_t length)
{
    return (uint32_t)XXH3_64bits(bytes, length);
}

uint32_t byte_map_find(const struct byte_map *map, const void *bytes, size_t length)
{
    if (map->count == 0)
        return BYTE_MAP_NONE;
    uint32_t slot = map->slots[byte_map_slot(map, bytes, length, hash_of(bytes, length))];
    return slot ? slot - 1 : BYTE_MAP_NONE;
}

uint32_t byte_map_put(struct byte_map *map, const void *bytes, size_t length)
{
    CHECK(map->count < (1u << 31) && length < UINT32_MAX);
    if (2 * (map->count + 1) > map->slot_count)
        byte_map_grow(map);
    uint32_t hash = hash_of(bytes, length);
    size_t at = byte_map_slot(map, bytes, length, hash);
    if (map->slots[at])
        return map->slots[at] - 1;
    VEC_RESERVE(map->entries, map->count, map->capacity);
    map->entries[map->count] = (struct byte_entry){
        .bytes = arena_strndup(&map->arena, bytes, length),
        .length = (uint32_t)length,
        .hash = hash,
    };
    map->slots[at] = (uint32_t)++map->count;
    return (uint32_t)map->count - 1;
}

void byte_map_done(struct byte_map *map)
{
    mem_free(map->entries);
    mem_free(map->slots);
    arena_done(&map->arena);
    *map = (struct byte_map){0};
}

static size_t pair_slot(const struct pair_map *map, uint64_t key)
{
    size_t at = rng_mix(key) & (map->slot_count - 1);
    while (map->keys[at] != PAIR_FREE && map->keys[at] != key)
        at = (at + 1) & (map->slot_count - 1);
    return at;
}

uint32_t pair_map_find(const struct pair_map *map, uint32_t left, uint32_t right)
{
    if (map->count == 0)
        return BYTE_MAP_NONE;
    size_t at = pair_slot(map, (uint64_t)left << 32 | right);
    return map->keys[at] == PAIR_FREE ? BYTE_MAP_NONE : map->values[at];
}

static void pair_map_grow(struct pair_map *map)
{
    struct pair_map grown = {.slot_count = map->slot_count ? 2 * map->slot_count : 64};
    grown.keys = mem_array(grown.slot_count, sizeof *grown.keys);
    grown.values = mem_array(grown.slot_count, sizeof *grown.values);
    memset(grown.keys, 0xFF, grown.slot_count * sizeof *grown.keys);
    for (size_t i = 0; i < map->slot_count; i++) {
        if (map->keys[i] == PAIR_FREE)
            continue;
        size_t at = pair_slot(&grown, map->keys[i]);
        grown.keys[at] = map->keys[i];
        grown.values[at] = map->values[i];
    }
    grown.count = map->count;
    pair_map_done(map);
    *map = grown;
}

void pair_map_add(struct pair_map *map, uint32_t left, uint32_t right, uint32_t value)
{
    if (2 * (map->count + 1) > map->slot_count)
        pair_map_grow(map);
    uint64_t key = (uint64_t)left << 32 | right;
    size_t at = pair_slot(map, key);
    CHECK(map->keys[at] == PAIR_FREE && key != PAIR_FREE);
    map->keys[at] = key;
    map->values[at] = value;
    map->count++;
}

void pair_map_done(struct pair_map *map)
{
    mem_free(map->keys);
    mem_free(map->values);
    *map = (struct pair_map){0};
}
