/* samples.h - what a model says when given the beginning of documents. */
#ifndef ATHANOR_SAMPLES_H
#define ATHANOR_SAMPLES_H

#include "common/base/buf.h"
#include "worker/recipes/corpus.h"

/* Continues `count` documents spread evenly over the corpus, greedily, by at most most_tokens.
 * The prompt of "lemmas: gloss" is "lemmas:"; of another text its first eighth, at least one
 * token. Appends one JSON object per sample to `out`, separated by commas: {"split", "id",
 * "prompt", "text", "truth"}; and notes prompt and text in the job's log.
 * A part without texts gives none. Errors: ERR_MEMORY and those of the texts file. */
int samples_write(struct run *run, struct corpus *corpus, const struct model *model, int64_t count,
                  int64_t most_tokens, struct buf *out, struct err *err) WARN_UNUSED;

/* Bytes of the prompt of a text; 0: take its first tokens instead. */
size_t samples_prompt_length(const char *text);

#endif
