/* microworld.h - a tiny language whose meaning can be computed: facts, their sentences, entailment.
 *
 * A fact is who does what to what, and where. Each of its slots has two words of one WordNet
 * synset, a sentence is one of four templates, and the place may be left out; so many sentences
 * say the same, and which do is exact. A context tells a fact piece by piece, one slot a
 * sentence. A model trained to finish contexts has never seen one sentence rewritten as another,
 * which is what distillation of paraphrasing from it must create. Uninflected on purpose:
 *
 *   the A V the P [near the L] .               the P is V by the A [near the L] .
 *   [near the L ,] the A V the P .             it is the P that the A V [near the L] .
 *   context: someone is the A . someone acts V . something is the P . somewhere is the L .
 *
 * Source: Athanor, after the premise of Jung et al. 2024 (Impossible Distillation). */
#ifndef ATHANOR_MICROWORLD_H
#define ATHANOR_MICROWORLD_H

#include "common/base/buf.h"
#include "common/base/rng.h"

enum microworld_slot { SLOT_AGENT = 0, SLOT_VERB, SLOT_PATIENT, SLOT_PLACE, SLOT_END };

#define MICROWORLD_FACTS     4800 /* 10 agents x 8 verbs x 10 patients x 6 places */
#define MICROWORLD_UNSAID    (-1)
#define MICROWORLD_SENTENCES SLOT_END /* of a whole context */

struct fact {
    int value[SLOT_END]; /* 0 ..; MICROWORLD_UNSAID: not told */
};

struct fact microworld_fact(unsigned number); /* 0 .. MICROWORLD_FACTS-1, all slots told */
/* Appends a random sentence of the fact, or the random `sentences` (0..4) of its context. */
void microworld_sentence(const struct fact *fact, struct rng *rng, struct buf *out);
void microworld_context(const struct fact *fact, unsigned sentences, struct rng *rng,
                        struct buf *out);
/* What a sentence tells; false when it is none of the language. */
bool microworld_parse(const char *text, size_t length, struct fact *out);
/* Whether every told slot of y is told the same by x. */
bool microworld_entails(const struct fact *x, const struct fact *y);

#endif
