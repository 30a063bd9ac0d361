/* bpe.c - applying merges; see bpe.h. */
#include "worker/engine/data/bpe.h"

#include "common/base/mem.h"

#include <string.h>

#define RANK_NONE BYTE_MAP_NONE

bool merge_table_add(struct merge_table *table, struct merge merge)
{
    if (pair_map_find(&table->rank, merge.left, merge.right) != RANK_NONE)
        return false;
    VEC_RESERVE(table->merges, table->count, table->capacity);
    pair_map_add(&table->rank, merge.left, merge.right, (uint32_t)table->count);
    table->merges[table->count++] = merge;
    return true;
}

void merge_table_done(struct merge_table *table)
{
    mem_free(table->merges);
    pair_map_done(&table->rank);
    *table = (struct merge_table){0};
}

size_t bpe_merge_scan(const struct merge_table *table, uint32_t *ids, size_t count)
{
    uint32_t rank[BPE_SCAN_MAX]; /* of the pair that starts here */
    CHECK(count <= BPE_SCAN_MAX);
    for (size_t i = 0; i + 1 < count; i++)
        rank[i] = pair_map_find(&table->rank, ids[i], ids[i + 1]);
    while (count > 1) {
        size_t best = 0;
        for (size_t i = 1; i + 1 < count; i++)
            if (rank[i] < rank[best])
                best = i;
        if (rank[best] == RANK_NONE)
            break;
        ids[best] = table->merges[rank[best]].id;
        count--;
        memmove(&ids[best + 1], &ids[best + 2], (count - best - 1) * sizeof *ids);
        memmove(&rank[best], &rank[best + 1], (count - best) * sizeof *rank);
        if (best > 0)
            rank[best - 1] = pair_map_find(&table->rank, ids[best - 1], ids[best]);
        if (best + 1 < count)
            rank[best] = pair_map_find(&table->rank, ids[best], ids[best + 1]);
    }
    return count;
}

/* Candidate merges, smallest (rank, position) first, in one number each. */
struct candidates {
    uint64_t *keys;
    size_t count, capacity;
};

static void candidates_push(struct candidates *heap, uint64_t key)
{
    VEC_RESERVE(heap->keys, heap->count, heap->capacity);
    size_t at = heap->count++;
    while (at > 0 && heap->keys[(at - 1) / 2] > key) {
        heap->keys[at] = heap->keys[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    heap->keys[at] = key;
}

static uint64_t candidates_pop(struct candidates *heap)
{
    uint64_t top = heap->keys[0];
    uint64_t last = heap->keys[--heap->count];
    size_t at = 0;
    for (;;) {
        size_t child = 2 * at + 1;
        if (child >= heap->count)
            break;
        if (child + 1 < heap->count && heap->keys[child + 1] < heap->keys[child])
            child++;
        if (heap->keys[child] >= last)
            break;
        heap->keys[at] = heap->keys[child];
        at = child;
    }
    heap->keys[at] = last;
    return top;
}

/* A piece as a doubly linked list over its original positions. */
struct chain {
    const struct merge_table *table;
    uint32_t *ids;  /* at each live position */
    uint32_t *rank; /* of the pair that starts there; RANK_NONE: none, or not live */
    uint32_t *next, *previous;
    size_t count; /* positions; also the "none" of next and previous */
    struct candidates heap;
};

static void chain_rate(struct chain *chain, size_t at)
{
    size_t next = chain->next[at];
    chain->rank[at] = next == chain->count
                          ? RANK_NONE
                          : pair_map_find(&chain->table->rank, chain->ids[at], chain->ids[next]);
    if (chain->rank[at] != RANK_NONE)
        candidates_push(&chain->heap, (uint64_t)chain->rank[at] << 32 | at);
}

static void chain_merge(struct chain *chain, size_t at)
{
    size_t gone = chain->next[at];
    chain->ids[at] = chain->table->merges[chain->rank[at]].id;
    chain->rank[gone] = RANK_NONE;
    chain->next[at] = chain->next[gone];
    if (chain->next[at] != chain->count)
        chain->previous[chain->next[at]] = (uint32_t)at;
    chain_rate(chain, at);
    if (chain->previous[at] != chain->count)
        chain_rate(chain, chain->previous[at]);
}

static void chain_init(struct chain *chain, const struct merge_table *table, uint32_t *ids,
                       size_t count)
{
    *chain = (struct chain){.table = table, .ids = ids, .count = count};
    chain->rank = mem_array(count, sizeof *chain->rank);
    chain->next = mem_array(count, sizeof *chain->next);
    chain->previous = mem_array(count, sizeof *chain->previous);
    for (size_t i = 0; i < count; i++) {
        chain->next[i] = (uint32_t)(i + 1);
        chain->previous[i] = (uint32_t)(i ? i - 1 : count);
    }
    for (size_t i = 0; i < count; i++)
        chain_rate(chain, i);
}

size_t bpe_merge_heap(const struct merge_table *table, uint32_t *ids, size_t count)
{
    CHECK(count < UINT32_MAX);
    if (count < 2)
        return count;
    struct chain chain;
    chain_init(&chain, table, ids, count);
    while (chain.heap.count > 0) {
        uint64_t key = candidates_pop(&chain.heap);
        size_t at = (uint32_t)key;
        if (chain.rank[at] == key >> 32) /* else the pair changed since it was pushed */
            chain_merge(&chain, at);
    }
    size_t kept = 0;
    for (size_t at = 0; at != count; at = chain.next[at])
        ids[kept++] = ids[at];
    mem_free(chain.rank);
    mem_free(chain.next);
    mem_free(chain.previous);
    mem_free(chain.heap.keys);
    return kept;
}
