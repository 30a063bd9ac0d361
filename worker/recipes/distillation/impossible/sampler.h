/* sampler.h - sentences that a language model writes after a text.
 *
 * Draws depend on (seed, context number, sample number, position) only, and the samples of one
 * context are one batch whatever else is sampled: the same sentences on any number of ranks. */
#ifndef ATHANOR_SAMPLER_SENTENCES_H
#define ATHANOR_SAMPLER_SENTENCES_H

#include "worker/engine/data/tokenizer.h"
#include "worker/engine/generate.h"

struct sentence_sampler {
    const struct model *model;         /* borrowed */
    const struct tokenizer *tokenizer; /* borrowed */
    bool newline;                      /* a newline divides text and answer, as sft trains it;
                                          otherwise the next words are the answer             */
    struct sampling sampling;          /* stop_token: the end of text                          */
    int64_t max_tokens;
    int64_t no_repeat;                 /* no sequence of so many tokens twice, the prompt's
                                          included (transformers' no_repeat_ngram_size); 0: off */
    const uint32_t *code; /* tokens before the text, as control codes are; borrowed */
    size_t code_count;
};

/* count texts after `text` ("" starts a document), each the first sentence of what was written, or
 * "" when that is none (sentence.h). whole: all that was written instead, blanks around it
 * removed. out[i] is the caller's (mem_free). *out_tokens is added to.
 * A text longer than the model's context loses its beginning. Errors: ERR_MEMORY. */
int sampler_sentences(const struct sentence_sampler *sampler, const char *text, uint64_t context,
                      size_t count, bool whole, char **out, uint64_t *out_tokens,
                      struct err *err) WARN_UNUSED;
/* Appends the tokens that stand before what is written after `text`. */
void sampler_prompt(const struct sentence_sampler *sampler, const char *text,
                    struct token_list *out);

#endif
