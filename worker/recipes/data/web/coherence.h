/* coherence.h - whether the sentences of a text belong together, by counts of a reference.
 *
 * The score of two sentences a, b in a row is the mean over the words w of b of
 *     log p(w | a) - log p(w),   p(w | a) = 1/2 mean over v of a of c(v, w) / c(v, .) + 1/2 p(w),
 * c(v, w): how often, in the reference, w is in the sentence after one with v. A text's score is
 * the mean over its neighbours; below the limit it is split where its neighbours fit worst, and
 * the parts are judged again. The limit is the score that a share of those of the reference's
 * texts that were not counted (a tenth) does not reach. Card data-yi-pipeline ("coherence
 * scorer"); the card leaves the model of p(s' | s) open, this one is of words in neighbouring
 * sentences, in a count-min sketch of two rows (Cormode and Muthukrishnan 2005): 64 MiB whatever
 * the reference. */
#ifndef ATHANOR_WEB_COHERENCE_H
#define ATHANOR_WEB_COHERENCE_H

#include "common/base/err.h"

#define COHERENCE_WORDS      32 /* of a sentence that count: its first different ones */
#define COHERENCE_PARTS_MAX  32 /* of a text; what is still below the limit then is dropped */
#define COHERENCE_LEAST_WORDS 50 /* of a part to be kept */

struct coherence;

struct coherence *coherence_new(uint64_t seed);
void coherence_free(struct coherence *coherence);
/* Counts a text, or keeps it to measure with: a function of (seed, its bytes). */
void coherence_add(struct coherence *coherence, const char *text, size_t length);
/* After the last text; percent of the texts to measure with are below the limit. Errors:
 * ERR_INVALID with fewer than 20 of at least two sentences to measure with. */
int coherence_finish(struct coherence *coherence, double percent, struct err *err) WARN_UNUSED;
double coherence_limit(const struct coherence *coherence);

/* NAN for a text of fewer than two sentences with words. */
double coherence_score(struct coherence *coherence, const char *text, size_t length);

struct coherent_part {
    size_t begin, end; /* bytes; parts follow each other without gaps */
    bool kept;         /* has COHERENCE_LEAST_WORDS, and a score not below the limit or none */
    double score;      /* NAN: none */
};
/* The parts of a text, at most COHERENCE_PARTS_MAX; one that is kept when it is not below the
 * limit. *out_score: of the whole. Returns how many. */
size_t coherence_parts(struct coherence *coherence, const char *text, size_t length,
                       struct coherent_part out[COHERENCE_PARTS_MAX], double *out_score);

#endif
