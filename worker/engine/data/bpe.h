/* bpe.h - byte-pair encoding itself: merge rules, their application, their training.
 *
 * Sources: Sennrich, Haddow and Birch 2016 (algorithm 1); GPT-2's encoder.py (rank order);
 * card data-tokenizers-and-shards, sections 2 and 3 (ties, counting, anchors). */
#ifndef ATHANOR_BPE_H
#define ATHANOR_BPE_H

#include "worker/engine/data/bytemap.h"
#include "worker/engine/data/pieces.h"

struct merge {
    uint32_t left, right, id; /* ids that become `id` */
};

/* Rules in rank order: lower index first. A zeroed struct has none. */
struct merge_table {
    struct merge *merges;
    size_t count, capacity;
    struct pair_map rank; /* (left, right) to index */
};

/* False when the pair has a rule already. */
bool merge_table_add(struct merge_table *table, struct merge merge);
void merge_table_done(struct merge_table *table);

/* Merges ids[0 .. count) in place until no adjacent pair has a rule; returns the new count.
 * Lowest rank first, leftmost on ties. The scan is O(count * merges) and fastest below
 * BPE_SCAN_MAX ids; the heap is O(count log count). Both give the same ids. */
#define BPE_SCAN_MAX 100
size_t bpe_merge_scan(const struct merge_table *table, uint32_t *ids, size_t count);
size_t bpe_merge_heap(const struct merge_table *table, uint32_t *ids, size_t count);

/* Pieces and how often each occurs: what training sees. A zeroed struct is empty. */
struct word_counts {
    struct byte_map words;   /* value: occurrences */
    size_t piece_max_bytes;  /* longer pieces are split here; 0: BPE_PIECE_MAX_BYTES */
    enum piece_pattern pattern;
    uint64_t piece_count;
};
#define BPE_PIECE_MAX_BYTES 512

void word_counts_add_text(struct word_counts *counts, const char *text, size_t length);
void word_counts_done(struct word_counts *counts);

/* Adds rules over byte ids 0..255 until there are vocab_count ids (256 and more: new ids follow),
 * or the best pair occurs less than min_count times. Ties: higher count, then smaller left id,
 * then smaller right id. Two pairs that spell the same bytes share an id, as a vocabulary file
 * demands. *counts_out (vocab_count - 256 entries, may be NULL) receives the count of each of
 * the first rules when it was made. */
void bpe_train(const struct word_counts *counts, size_t vocab_count, uint64_t min_count,
               struct merge_table *out, int64_t *counts_out);

#endif
