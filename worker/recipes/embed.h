/* embed.h - vectors of sentences, from whatever sentence encoder a folder holds.
 *
 *   config.json, model_type "model2vec"   a table of token vectors (Tulkens and van Dongen 2024):
 *                                         the mean of those of the sentence's tokens, unknown ones
 *                                         left out
 *   config.json of a BERT                 mean of the last states (Reimers and Gurevych 2019)
 *   kona, or npm's dist/ folder           the model's own vector
 */
#ifndef ATHANOR_EMBED_H
#define ATHANOR_EMBED_H

#include "worker/recipes/encode.h"

struct embedder;

/* Errors: ERR_NOT_FOUND, ERR_PROTOCOL of the files, ERR_INVALID for what is no such model. */
int embedder_open(const char *folder, struct device *device, struct embedder **out,
                  struct err *err) WARN_UNUSED;
void embedder_close(struct embedder *embedder); /* NULL is fine */
size_t embedder_width(const struct embedder *embedder);

/* out: (count, width), each row of length 1, or zeros for a text without a known token. */
int embedder_vectors(struct embedder *embedder, const char *const *texts, size_t count, float *out,
                     struct err *err) WARN_UNUSED;
/* The vector of each token of each text, as the encoder leaves them: (rows, width). */
int embedder_tokens(struct embedder *embedder, const char *const *texts, size_t count,
                    encode_visit visit, void *argument, struct err *err) WARN_UNUSED;
/* Texts so far, and those of them that were too long for the encoder and lost their ends. */
uint64_t embedder_text_count(const struct embedder *embedder);
uint64_t embedder_cut_count(const struct embedder *embedder);

double embed_cosine(const float *a, const float *b, size_t width); /* 0 where one is zero */

#endif
