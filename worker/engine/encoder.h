/* encoder.h - what is built on an encoder's last states: sentence vectors, classes, tokens.
 *
 *   model_forward(tape, model, &batch, &states, err);
 *   vectors = encoder_pool(tape, model, &batch, states.hidden, ENCODER_MEAN, true);
 * Results belong to the tape; NULL once it has failed (tape_check says why). */
#ifndef ATHANOR_ENGINE_ENCODER_H
#define ATHANOR_ENGINE_ENCODER_H

#include "worker/engine/model.h"

enum encoder_pooling {
    ENCODER_OWN = 1, /* the model's own: BERT's pooler, kona's vector */
    ENCODER_FIRST,   /* the first token's state                       */
    ENCODER_MEAN,    /* mean of the states that batch->length counts  */
};

/* (B, width); with `unit` each row is divided by its length. */
struct tensor *encoder_pool(struct tape *tape, const struct model *model,
                            const struct model_batch *batch, struct tensor *hidden,
                            enum encoder_pooling pooling, bool unit);
struct tensor *encoder_mean(struct tape *tape, const struct model_batch *batch,
                            struct tensor *hidden);
struct tensor *encoder_unit(struct tape *tape, struct tensor *x);

/* Scores of classes (B, labels) from the pooler's vectors: MODEL_TOP_LABELS only. */
struct tensor *encoder_labels(struct tape *tape, const struct model *model,
                              struct tensor *pooled);
/* Logits (M, V) of chosen states (M, width), say op_gather of the masked ones:
 * MODEL_TOP_TOKENS only. With op_nll and tape_seed they make the loss of masked tokens. */
struct tensor *encoder_tokens(struct tape *tape, const struct model *model, struct tensor *states);

#endif
