/* substitution.h - labelled pairs of sentences from WordNet, by putting one noun for another.
 *
 * A frame is an example sentence of WordNet's with one noun taken out: of `words_min` to
 * `words_max` words, the noun after a determiner or possessive (so that it is a noun there), and
 * without a word that turns entailments around (no, every, few, if, than, ...). Nouns are lemmas of
 * one lower-case word that belong to exactly one synset of all parts of speech, so that their
 * meaning needs no context. A family is a synset and nouns below it by one pointer. x and y are one
 * frame with
 *
 *   entailment      a noun          | its family's name, or another lemma of its synset
 *   neutral         a family's name | one of its nouns: true or not
 *   contradiction   a noun          | another noun of the family, by the convention of SNLI
 *                                     (Bowman et al. 2015) that both tell of one event
 *
 * each label as often. Only names of families may be ambiguous. a and an follow the noun.
 * Texts end in a full stop where they have no mark of their own.
 * WordNet 3.0: 2,400 frames; families are those with most nouns in them (ties: the earlier
 * synset). */
#ifndef ATHANOR_SUBSTITUTION_H
#define ATHANOR_SUBSTITUTION_H

#include "common/base/buf.h"
#include "common/base/rng.h"
#include "worker/engine/data/wordnet.h"

#define SUBSTITUTION_WORDS_MIN 3
#define SUBSTITUTION_WORDS_MAX 10

struct substitution;

struct substituted {
    struct buf x, y;
    const char *label;
    size_t frame;      /* its number                                                      */
    uint64_t relation; /* equal for the two nouns of x and y in any frame and either order */
};

/* Borrows the database. families, nouns: how many families, of at most how many nouns.
 * Errors: ERR_INVALID when the database has no such frames or families. */
int substitution_open(const struct wordnet *wordnet, size_t families, size_t nouns,
                      struct substitution **out, struct err *err) WARN_UNUSED;
void substitution_close(struct substitution *substitution); /* NULL is fine */
size_t substitution_frame_count(const struct substitution *substitution);
size_t substitution_family_count(const struct substitution *substitution);
/* The text around the gap of frame `frame`, for a split that keeps a frame on one side. */
const char *substitution_frame(const struct substitution *substitution, size_t frame);
/* A pair drawn from rng; out's texts are replaced. */
void substitution_draw(const struct substitution *substitution, struct rng *rng,
                       struct substituted *out);

#endif
