/* clm.c - recipe pretraining/clm: next-token cross-entropy on windows or documents. */
#include "worker/recipes/arch.h"
#include "worker/recipes/causal.h"

static int clm_open(struct run *run, void *state, struct err *err)
{
    struct causal *causal = state;

    causal->spreads = run_bool(run, "expert_parallel") && run->rank_count > 1;
    return causal_open(run, causal, run_string(run, "unit"), NULL, err);
}

static const struct param clm_params[] = {
    {"steps", PARAM_INT, "400", 1, 1e9, NULL, "optimiser steps"},
    {"unit", PARAM_CHOICE, "windows", 0, 0, "windows|documents",
     "what a row is: `context` tokens of the stream, or one document that sees only itself"},
    {"eval_every", PARAM_INT, "50", 0, 1e9, NULL,
     "steps between validation losses; 0: only after the last step"},
    ARCH_PARAMS,
    REACH_PARAMS,
    {"expert_parallel", PARAM_BOOL, "false", 0, 0, NULL,
     "each rank has its share of the experts and sees all tokens for them (moe): less memory"},
    TRAIN_PARAMS("1e-3", "cosine", "32", "0.1"),
};

static const struct input clm_inputs[] = {
    {"data", INPUT_DATASET, true, "documents to train on"},
    {"valid", INPUT_DATASET, false, "documents for val_loss, same tokenizer"},
    {"init", INPUT_CHECKPOINT, false,
     "model to go on from (its shape then holds, not the parameters', but for new_context, "
     "new_rope_theta and upscale); fresh optimiser"},
};

const struct recipe recipe_pretraining_clm = {
    .name = "clm",
    .kind = RECIPE_PRETRAINING,
    .version = 1,
    .summary = "Trains a language model of any decoder architecture to predict the next token.",
    .source = "Radford et al. 2019 (gpt2); Zhang et al. 2022 (opt); Touvron et al. 2023 (llama); "
              "Jiang et al. 2024, Fedus et al. 2022 (moe); Qin et al. 2024 (transnormer)",
    .params = clm_params,
    .param_count = ARRAY_COUNT(clm_params),
    .inputs = clm_inputs,
    .input_count = ARRAY_COUNT(clm_inputs),
    .outputs = "checkpoint|metrics",
    .state_size = sizeof(struct causal),
    .open = clm_open,
    .load = causal_load,
    .step = causal_step,
    .save = causal_save,
    .close = causal_close,
};
