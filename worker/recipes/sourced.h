/* sourced.h - packed documents (pack.h) as sources and targets, for models with an encoder.
 *
 * A document is a prompt, a separator and a response. A decoder reads all of it in one row; a T5's
 * encoder reads the prompt and an end of text, and its decoder writes the response after token 0
 * (Raffel et al. 2020, section 2.1). States are given for the pack's cells all the same, so that
 * losses, weights, scores and teachers do not know which kind of model it was. Documents share no
 * row here: rows are as many as documents, padded to the longest. */
#ifndef ATHANOR_SOURCED_H
#define ATHANOR_SOURCED_H

#include "worker/recipes/pack.h"

struct trainer;

struct sourced {
    struct model_batch batch;
    int32_t *source, *token; /* (B, S), (B, T)                                         */
    int32_t *length;         /* (B) of each source                                     */
    int32_t *cell;           /* of each cell of the pack: its row of (B * T); 0: none  */
    size_t source_room, token_room, length_room, cell_room;
};

/* Whether this kind of model needs it. */
bool sourced_is_needed(const struct model *model);
/* The prompt up to its separator as an encoder reads it: the separator, which is last, becomes the
 * end of text that is first. token: `count` cells as corpus_document gives them; out: room for
 * as many, or token itself. Returns how many there are. */
int64_t sourced_prompt(const int32_t *token, int64_t count, int32_t *out);
/* Fills batch from the pack, whose documents have their prompts masked. A zeroed struct may be
 * filled again and again. */
void sourced_fill(struct sourced *sourced, const struct pack *pack);
void sourced_done(struct sourced *sourced); /* a zeroed struct is fine */
/* The decoder's states (B * T, D) as states of the pack's cells. */
struct tensor *sourced_states(struct tape *tape, const struct sourced *sourced,
                              const struct pack *pack, struct tensor *hidden);

/* A frozen or trained model's states of the pack's cells, whichever kind it is. Errors: as
 * model_forward; ERR_INVALID for an encoder and documents without a prompt. */
int documents_forward(struct tape *tape, const struct model *model, const struct pack *pack,
                      struct sourced *sourced, struct tensor **out_hidden,
                      struct err *err) WARN_UNUSED;
/* The same as a pass of training: trainer_forward. */
int documents_train(struct trainer *trainer, const struct pack *pack, struct sourced *sourced,
                    struct tensor **out_hidden, struct err *err) WARN_UNUSED;

#endif
