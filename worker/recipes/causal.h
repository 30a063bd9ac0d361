/* causal.h - next-token training of one model, as the recipes clm and sft share it.
 *
 * State: model, AdamW moments and the step number; which rows a step sees is a function of
 * (seed, step), so a resumed run goes on with the same bits. The recipe's table needs the
 * parameters steps, eval_every, ARCH_PARAMS, REACH_PARAMS and TRAIN_PARAMS, and the inputs data,
 * valid (optional) and init (optional). Metrics: loss, val_loss and those of train.h; without a
 * separator also unigram_loss and bigram_loss of the validation documents. */
#ifndef ATHANOR_CAUSAL_H
#define ATHANOR_CAUSAL_H

#include "worker/recipes/rows.h"
#include "worker/recipes/score.h"
#include "worker/recipes/sourced.h"

struct causal {
    struct trainer trainer;
    struct scorer scorer;
    struct corpus train, valid;
    struct rows rows;
    struct sourced sourced; /* of a model with an encoder */
    struct windows valid_windows;
    const char *separator; /* NULL: every token is a target */
    bool documents;
    /* Set before causal_open: adapters are trained (LORA_PARAMS); experts are spread over ranks. */
    bool adapts, spreads;
    int64_t eval_every;
};

/* unit: "windows" or "documents". separator: only what follows its last occurrence in a document
 * is trained on (documents only); NULL or "": everything. */
int causal_open(struct run *run, struct causal *causal, const char *unit, const char *separator,
                struct err *err) WARN_UNUSED;
/* The rest of a recipe's life; state is the struct causal. */
int causal_load(struct run *run, void *state, struct checkpoint_reader *reader,
                struct err *err) WARN_UNUSED;
int causal_step(struct run *run, void *state, struct err *err) WARN_UNUSED;
int causal_save(struct run *run, void *state, struct checkpoint_writer *writer,
                struct err *err) WARN_UNUSED;
void causal_close(struct run *run, void *state);

#endif
