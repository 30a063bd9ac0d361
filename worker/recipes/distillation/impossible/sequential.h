/* sequential.h - rewrites of a sentence that are decoded after it, with its words as constraints.
 *
 * The first version of Impossible Distillation makes a pair in sequence: x after the context, then
 * y after context and x, where y must have the content words of x (from memory of its abstract;
 * the second version samples both apart). Here y is decoded by constrained.h after
 *   context, a blank, x [, newline]
 * with a clause for each different content word of x, the first 64 of them: the word as the
 * tokenizer cuts it after a blank, or at the start of a text. Content words are all but the
 * function words (text/function_words.h). Texts end at a token that ends in . ? or !,
 * newlines and special tokens are banned, the beams are as many as the texts, and the other
 * settings are those of constrained.h. */
#ifndef ATHANOR_SEQUENTIAL_H
#define ATHANOR_SEQUENTIAL_H

#include "worker/recipes/distillation/impossible/sampler.h"

/* Gives `count` (1..1024) texts, best first: sentences with every content word of x, as words and
 * not only as tokens, or "". x without content words is rewritten without clauses. Deterministic:
 * nothing is drawn. Errors: as constrained_search. */
int sequential_sentences(const struct sentence_sampler *sampler, const char *context,
                         const char *x, size_t count, char **out, uint64_t *out_tokens,
                         struct err *err) WARN_UNUSED;

/* Whether y has every content word of x; upper and lower case are one. */
bool sequential_has_words(const char *x, const char *y);

#endif
