/* responses.h - the documents of a step, with responses that a model writes instead of their own.
 *
 * A document is a prompt, a separator and a response (corpus_mask_prompts). Which documents a
 * step has follows from (seed, step), as for rows.h. A sampled response follows from
 * (seed, position in the stream of documents), so it is the same for any number of ranks and
 * passes; a resume draws it again. */
#ifndef ATHANOR_RESPONSES_H
#define ATHANOR_RESPONSES_H

#include "worker/engine/generate.h"
#include "worker/recipes/sourced.h"
#include "worker/recipes/train.h"

struct responses {
    const struct trainer *trainer;
    struct corpus *corpus;
    int64_t T;           /* the model's context                                        */
    int64_t most_tokens; /* of a response                                              */
    int64_t most;        /* documents of this rank in a step                           */
    int64_t *item;       /* (most) document                                            */
    uint64_t *position;  /* (most) in the shuffled stream                              */
    int64_t *cells;      /* (most) in use of the row below                             */
    int32_t *token, *target; /* (most, T); as corpus_document                          */
    int32_t *room;       /* (most, most_tokens) what a model wrote                     */
    int32_t *source;     /* (most, T) prompts as an encoder reads them                 */
    struct pack pack;    /* one pass                                                   */
    int64_t written, written_tokens, written_ends; /* of the last fill, by this rank   */
};

/* The trainer's model must be set, and the corpus's prompts masked. Errors: ERR_MEMORY. */
int responses_init(const struct trainer *trainer, struct corpus *corpus, int64_t most_tokens,
                   struct responses *out, struct err *err) WARN_UNUSED;
void responses_done(struct responses *responses); /* a zeroed struct is fine */

/* This rank's documents of the step as they are in the corpus. */
void responses_read(struct responses *responses);
/* Replaces their responses by samples of the model. sampling: seed and stop_token are set here.
 * A document whose prompt leaves no room in the context stays as it is. */
int responses_sample(struct responses *responses, const struct model *model, uint64_t seed,
                     const struct sampling *sampling, struct err *err) WARN_UNUSED;
/* Replaces the response of document `row` by `count` tokens; ended: the end of text follows. */
void responses_put(struct responses *responses, int64_t row, const int32_t *response,
                   int64_t count, bool ended);
/* Cells up to the separator's; 0 when the document was cut before it. */
int64_t responses_prompt(const struct responses *responses, int64_t row);
/* The prompt of document `row`, as the model reads it: cells up to the separator's, or their source
 * (sourced.h), borrowed until the next call for that row. Count 0: as responses_prompt. */
struct prompt responses_given(struct responses *responses, int64_t row,
                              const struct model *model);
/* Documents of this rank in the step, and targets over all ranks. */
int64_t responses_rows(const struct responses *responses);
int64_t responses_count(const struct responses *responses);
/* Packs those of one pass, in order. */
void responses_pack(struct responses *responses, int64_t pass);

#endif
