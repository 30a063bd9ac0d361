/* near.h - the stages minhash and minhash_paragraph: documents or paragraphs with nearly the same
 * words as an earlier one (minhash.h).
 *
 * A unit whose shingles are those of an earlier one is a copy, found by its key as in seen.h. The
 * others get signatures; units with an equal band are candidates, and near duplicates when their
 * sets' Jaccard similarity is above params.minhash_jaccard. Of each connected component the first
 * in the order of the corpus stays. A bucket of more than NEAR_PARTNERS + 1 units is paired with
 * its first ones only, and the search is repeated among what stays for as long as there is such a
 * bucket and something was dropped: so nothing that a second run would drop is left.
 *
 * Paragraphs are text up to and including '\n', of at least params.minhash_min_words words (runs
 * of letters and digits). Shorter ones are left alone: headings and turns of speech recur by right,
 * and with 5-word shingles and 0.8, 14 words are the fewest of which a copy with one word exchanged
 * can be told at all: n words are n - 4 shingles, the first or last word is in one of them, and
 * (n - 5) / (n - 3) > 0.8 from n = 14.
 *
 * Memory of a rank: 24 to 48 bytes a distinct unit / P and 8 (bands + 1) for each of its own while
 * signing, 40 a unit / P for one band at a time, 16 a pair of candidates on every rank, 8 a word of
 * its share of them, and for what was found 8 a unit and 24 a paragraph. */
#ifndef ATHANOR_WEB_NEAR_H
#define ATHANOR_WEB_NEAR_H

#include "worker/recipes/data/web/group.h"

#define NEAR_PARTNERS 32

/* All ranks get the same. Errors: those of blocks and exchanges; ERR_LIMIT for 2^32 paragraphs in a
 * block. */
int near_documents(struct web *web, uint64_t **out_dropped, size_t *out_count,
                   struct err *err) WARN_UNUSED;
int near_paragraphs(struct web *web, struct passage **out, size_t *out_count,
                    struct err *err) WARN_UNUSED;

#endif
