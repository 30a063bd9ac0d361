/* lora.h - low-rank adapters of a frozen model: W + (alpha / rank) B A for chosen matrices.
 *
 * The adapters are a small model of their own (weights, gradients, names), so the optimiser, the
 * ranks' sum and checkpoints take them as they take any model:
 *   lora_new(model, &config, seed, &lora, err);   optim_new(lora_weights(lora), ..)
 *   forward and losses of `model` as usual; gradients flow into the adapters only
 *   lora_merge(lora); lora_free(lora);             model is an ordinary model again
 * A is random and B zero at first, so the model is unchanged. Hu et al. 2022, section 4.1. */
#ifndef ATHANOR_ENGINE_LORA_H
#define ATHANOR_ENGINE_LORA_H

#include "worker/engine/model.h"

struct lora;

struct lora_config {
    int64_t rank;        /* 1..1024                                                       */
    double alpha;        /* 0: rank                                                       */
    const char *targets; /* "q,v": weights of blocks whose name has ".q." or ".v."; NULL: all
                            matrices of blocks that are products                          */
};

/* model must be frozen (model_new_frozen, model_files_open) and outlive the adapters.
 * Errors: ERR_INVALID (no weight is meant, a rank that is no smaller than a matrix), ERR_MEMORY. */
int lora_new(struct model *model, const struct lora_config *config, uint64_t seed,
             struct lora **out, struct err *err) WARN_UNUSED;
/* Takes the adapters out of the model again. */
void lora_free(struct lora *lora);
/* The adapters as a model without a forward pass, A and B of each weight in turn; names in files
 * are PEFT's. */
struct model *lora_weights(struct lora *lora);
const struct lora_config *lora_config_of(const struct lora *lora); /* alpha as it is used */
/* The name in files of the adapter `which` ('A' or 'B') of a weight. */
void lora_file_name(const struct model_weight *of, char which, char out[MODEL_NAME_SIZE]);
/* Adds the adapters to the model's weights and sets B to zero: outputs stay as they are. */
void lora_merge(struct lora *lora);

#endif
