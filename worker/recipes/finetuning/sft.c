/* sft.c - recipe finetuning/sft: next-token cross-entropy on the responses of prompts. */
#include "worker/recipes/arch.h"
#include "worker/recipes/causal.h"

static int sft_open(struct run *run, void *state, struct err *err)
{
    struct causal *causal = state;

    causal->adapts = run_int(run, "lora_rank") > 0;
    return causal_open(run, causal, "documents", run_string(run, "separator"), err);
}

static const struct param sft_params[] = {
    {"steps", PARAM_INT, "300", 1, 1e9, NULL, "optimiser steps"},
    {"eval_every", PARAM_INT, "50", 0, 1e9, NULL,
     "steps between validation losses; 0: only after the last step"},
    {"separator", PARAM_STRING, "\n", 0, 0, NULL,
     "one token between prompt and response: only what follows its last place in a document is "
     "trained on; empty: everything is"},
    LORA_PARAMS,
    ARCH_PARAMS,
    REACH_PARAMS,
    TRAIN_PARAMS("1e-3", "cosine", "32", "0.1"),
};

static const struct input sft_inputs[] = {
    {"data", INPUT_DATASET, true,
     "documents of a prompt, the separator and a response"},
    {"valid", INPUT_DATASET, false, "the same for val_loss, same tokenizer"},
    {"init", INPUT_CHECKPOINT, false,
     "model to finetune (its shape then holds, not the parameters', but for new_context, "
     "new_rope_theta and upscale); without it a new one"},
};

const struct recipe recipe_finetuning_sft = {
    .name = "sft",
    .kind = RECIPE_FINETUNING,
    .version = 1,
    .summary = "Trains a language model to answer prompts: only responses are targets.",
    .source = "Ouyang et al. 2022, section 3.5 (SFT); Hu et al. 2022 (LoRA)",
    .params = sft_params,
    .param_count = ARRAY_COUNT(sft_params),
    .inputs = sft_inputs,
    .input_count = ARRAY_COUNT(sft_inputs),
    .outputs = "checkpoint|metrics",
    .state_size = sizeof(struct causal),
    .open = sft_open,
    .load = causal_load,
    .step = causal_step,
    .save = causal_save,
    .close = causal_close,
};
