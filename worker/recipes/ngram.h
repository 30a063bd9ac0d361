/* ngram.h - what counting alone predicts: the baselines a language model has to beat.
 *
 * Interpolated Witten-Bell estimates (Witten and Bell 1991, method C): with c tokens and t
 * distinct ones seen after a history, p(w) = (count(w) + t lower(w)) / (c + t); the unigram's
 * lower order is uniform over the vocabulary, the bigram's is the unigram. */
#ifndef ATHANOR_NGRAM_H
#define ATHANOR_NGRAM_H

#include "worker/engine/data/dataset.h"

struct ngram_losses {
    double unigram; /* nats a token of `valid` */
    double bigram;
};

/* Counts over `train`, loss over `valid`: every token but the first of each shard.
 * Both parts must be of one tokenizer. Errors: ERR_MEMORY, ERR_INVALID (a part of under two
 * tokens). */
int ngram_losses(const struct dataset_part *train, const struct dataset_part *valid,
                 struct ngram_losses *out, struct err *err) WARN_UNUSED;

#endif
