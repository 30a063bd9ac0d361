/* repeats.h - passages that occur more than once in a corpus of words.
 *
 * A sorted array of the suffixes of all texts, compared over their first `least` words only (a
 * suffix array cut at that depth, so that no comparison is long): suffixes that agree in all of
 * them are neighbours, and each is a passage that occurs elsewhere too. What a longer suffix array
 * with its common prefixes would report as repeated runs of at least `least` words is the union of
 * these windows. Passages lie within one text. Sources: Lee et al. 2022; card data-yi-pipeline.
 *
 * Memory: 8 bytes a word of the corpus on every rank, and 8 for each suffix that a rank sorts
 * (those whose first word's hash falls to it). */
#ifndef ATHANOR_WEB_REPEATS_H
#define ATHANOR_WEB_REPEATS_H

#include "common/base/base.h"

struct corpus_words { /* a zeroed struct is empty */
    uint64_t *word; /* hashes of words, text after text */
    size_t count, capacity;
    size_t *start; /* text_count + 1 once a text was added */
    size_t text_count, text_capacity;
};
/* Appends a text's words: runs without white space, as written. */
void corpus_words_add(struct corpus_words *words, const char *text, size_t length);
void corpus_words_done(struct corpus_words *words);

struct word_range {
    uint64_t text, begin, end; /* words of the text */
};
struct word_ranges {
    struct word_range *items;
    size_t count, capacity;
};
/* Windows of `least` words that occur again: all of them or, with keep_first, all but the first
 * occurrence of each; merged, in order. Only suffixes of share `rank` of `ranks` are looked at. */
void repeats_find(const struct corpus_words *words, size_t least, bool keep_first, unsigned rank,
                  unsigned ranks, struct word_ranges *out);
/* Sorts and merges ranges of several shares. */
void word_ranges_merge(struct word_ranges *ranges);
/* The bytes of a text that words [begin, end) take, white space behind them included. */
void word_range_bytes(const char *text, size_t length, size_t begin, size_t end, size_t *out_begin,
                      size_t *out_end);

#endif
