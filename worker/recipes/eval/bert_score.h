/* bert_score.h - likeness of two texts by the vectors of their tokens, and what is made of it.
 *
 * BERTScore (Zhang et al. 2020): each token of the candidate finds the most similar one of the
 * reference by cosine, their mean is precision; the reverse is recall. No idf weights, no
 * baseline; special tokens do not count. Which encoder gives the vectors decides the figures:
 * compare only those of one. */
#ifndef ATHANOR_BERT_SCORE_H
#define ATHANOR_BERT_SCORE_H

#include "worker/recipes/embed.h"
#include "worker/recipes/text/overlap.h"

/* In [-1, 1]; 0 where a text has no token. Errors: the embedder's. */
int bert_score(struct embedder *embedder, const char *candidate, const char *reference,
               struct overlap *out, struct err *err) WARN_UNUSED;

/* BERT-iBLEU (Niu et al. 2021) of a paraphrase, in [0, 100]: the harmonic mean of its BERTScore
 * with the source, weighted by beta, and of 1 - BLEU with the source, weighted by 1; beta is 4 in
 * their text as we remember it. bert in [-1, 1], bleu in [0, 100]. 0 where either part is not
 * above 0: a copy, or nothing in common. */
double bert_ibleu(double bert, double bleu, double beta);

#endif
