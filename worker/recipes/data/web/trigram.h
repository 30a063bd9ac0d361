/* trigram.h - how likely a text is, by counts of words in a reference.
 *
 * p(w | u, v) = 0.5 c(uvw)/c(uv) + 0.35 c(vw)/c(v) + 0.15 (c(w) + 1/2) / (N + (V + 1)/2), the
 * last with one unseen word; terms without a context are 0. Words are WORDS_ROUGE's (words.h); two
 * markers begin a text. On documents of five WordNet glosses a cut at mu - 2 sigma flags 99 % of
 * shuffled and 1.8 % of intact ones; with words cut at white space it would be 89 and 3 %, which
 * are the figures of the card data-yi-pipeline (acceptance 3).
 *
 * A tenth of the reference's texts is not counted: their scores give mu and sigma, so that the
 * filter's limit is of texts that the model has not seen, like those it judges. */
#ifndef ATHANOR_WEB_TRIGRAM_H
#define ATHANOR_WEB_TRIGRAM_H

#include "common/base/err.h"

struct trigram;

struct trigram *trigram_new(uint64_t seed);
void trigram_free(struct trigram *trigram);
/* Counts a text, or keeps it to measure with: a function of (seed, its bytes). */
void trigram_add(struct trigram *trigram, const char *text, size_t length);
/* After the last text. Errors: ERR_INVALID with fewer than 2 texts to measure with. */
int trigram_finish(struct trigram *trigram, struct err *err) WARN_UNUSED;
/* Mean log-probability of a word, in nats; mu for a text without words. */
double trigram_mean(const struct trigram *trigram, const char *text, size_t length);
double trigram_limit(const struct trigram *trigram, double sigmas); /* mu - sigmas * sigma */
void trigram_stats(const struct trigram *trigram, double *out_mu, double *out_sigma,
                   size_t *out_texts);

#endif
