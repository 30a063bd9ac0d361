/* minhash.h - signatures whose equal parts betray texts with mostly the same words.
 *
 * A text is the set of its shingles: `ngram` words in a row (WORDS_ROUGE, so lower case without
 * punctuation), hashed below 2^61 - 1; a text of fewer words is one shingle. Minimum j is that of
 * (a_j x + c_j) mod (2^61 - 1), with a_j and c_j of the seed. `rows` minima make a band, and two
 * texts are candidates when some band is equal: with Jaccard similarity s of their sets, that has
 * probability 1 - (1 - s^rows)^bands. Sources: card data-yi-pipeline; Lee et al. 2022. */
#ifndef ATHANOR_WEB_MINHASH_H
#define ATHANOR_WEB_MINHASH_H

#include "common/base/err.h"

#define MINHASH_VALUES_MAX 16384 /* bands * rows */

struct minhash {
    unsigned bands, rows, ngram;
    uint64_t *a, *c; /* bands * rows of each */
    uint64_t *least; /* room */
};
/* Errors: ERR_INVALID when bands * rows passes MINHASH_VALUES_MAX. */
int minhash_init(struct minhash *minhash, unsigned bands, unsigned rows, unsigned ngram,
                 uint64_t seed, struct err *err) WARN_UNUSED;
void minhash_done(struct minhash *minhash);

/* A set: ascending, without repetitions. A zeroed struct is empty. */
struct shingles {
    uint64_t *items;
    size_t count, capacity;
    size_t words; /* of the text, repetitions included */
};
void shingles_set(struct shingles *shingles, unsigned ngram, const char *text, size_t length);
void shingles_done(struct shingles *shingles);
double shingles_jaccard(const struct shingles *a, const struct shingles *b); /* 0 of empty sets */

/* The keys (bands) of a set; false for the empty one, which is like nothing. */
bool minhash_keys(struct minhash *minhash, const struct shingles *shingles, uint64_t *out);

#endif
