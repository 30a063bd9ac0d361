/* corpus.h - a dataset input of a job: one part of documents, and the tokens it speaks.
 *
 * A document of n tokens is n+1 cells: what begins texts (<|endoftext|>, or Llama's <s>) and its
 * tokens as inputs, its tokens and what ends texts (<|endoftext|>, </s>) as targets; so its first
 * token is predicted, and so is its end. */
#ifndef ATHANOR_CORPUS_H
#define ATHANOR_CORPUS_H

#include "worker/engine/data/batch.h"
#include "worker/engine/model.h"
#include "worker/recipes/recipe.h"

struct corpus {
    const char *input; /* the input's name, for messages */
    struct dataset *dataset;
    const struct dataset_part *part;
    int32_t begin_of_text, end_of_text;
    int32_t separator; /* -1: all of a document is a target; see corpus_mask_prompts */
    struct token_list scratch;
};

/* Errors: ERR_INVALID when the input is missing, names no part (the parts are listed) or its
 * tokenizer has nothing that ends texts; ERR_NOT_FOUND, ERR_PROTOCOL of the files. */
int corpus_open(const struct run *run, const char *input, struct corpus *out,
                struct err *err) WARN_UNUSED;
void corpus_close(struct corpus *corpus); /* a zeroed struct is fine */
/* Whether the input was given at all. */
bool corpus_is_open(const struct corpus *corpus);

/* Refuses a model that was trained on other tokens: identity of the tokenizer beside the
 * weights, or only the vocabulary's size where there is none. */
int corpus_match_model(const struct corpus *corpus, const char *model_folder,
                       const struct model *model, struct err *err) WARN_UNUSED;
/* Whether the corpus is cut by the model's own tokenizer with special tokens added, as control
 * codes are: *out_tokens is then how many the model must know, and 0 otherwise. */
int corpus_widens_model(const struct corpus *corpus, const char *model_folder,
                        int64_t *out_tokens, struct err *err) WARN_UNUSED;
/* Refuses a second corpus with another tokenizer. */
int corpus_match(const struct corpus *corpus, const struct corpus *other,
                 struct err *err) WARN_UNUSED;

/* From now on a document is a prompt, a separator and a response, and only the response's tokens
 * (and the end of text) are targets: what follows the last separator. The separator must be one
 * token of the corpus's tokenizer, and in every document (ERR_INVALID, naming the document). */
int corpus_mask_prompts(struct corpus *corpus, const char *separator, struct err *err) WARN_UNUSED;

int64_t corpus_count(const struct corpus *corpus); /* documents */
/* Cells of a document, at most T of them. Returns their number; *out_cut says whether the
 * document was longer. token and target have room for T. */
int64_t corpus_document(struct corpus *corpus, int64_t index, int64_t T, int32_t *token,
                        int32_t *target, bool *out_cut);

#endif
