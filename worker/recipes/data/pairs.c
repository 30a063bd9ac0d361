/* pairs.c - recipe data/pairs: sentence pairs that a model writes and critics accept.
 *
 * Step 1 calibrates the critic, then a step is a block of contexts, in order, whichever rank made
 * it, and the last one builds the dataset. Blocks are files, so a killed run repeats at most one a
 * rank. */
#include "worker/recipes/distillation/impossible/pairs.h"

static int open_recipe(struct run *run, void *state, struct err *err)
{
    struct pairs *pairs = state;

    if (pairs_open(run, pairs, err) < 0)
        return -1;
    run->step_count = pairs->block_count + 2;
    return 0;
}

static int step(struct run *run, void *state, struct err *err)
{
    struct pairs *pairs = state;

    if (run->step == 0) {
        run->pace.apart = true; /* blocks are made by whoever is free */
        return pairs_check_source(pairs, err) < 0 ? -1 : pairs_calibrate(pairs, err);
    }
    return run->step + 1 == run->step_count ? pairs_build(pairs, err) : pairs_work(pairs, err);
}

static void close_recipe(struct run *run, void *state)
{
    (void)run;
    pairs_close(state);
}

static const struct param pairs_params[] = {PAIRS_PARAMS};

static const struct input pairs_inputs[] = {
    PAIRS_INPUTS,
    {"student", INPUT_CHECKPOINT, false,
     "model that rewrites the teacher's sentences: a round of self-distillation"},
};

const struct recipe recipe_data_pairs = {
    .name = "pairs",
    .kind = RECIPE_DATA,
    .version = 1,
    .summary = "Sentence pairs for a task the model cannot do, from its own samples and critics",
    .source = "Jung et al. 2024 (Impossible Distillation), sections 2 and 3",
    .params = pairs_params,
    .param_count = ARRAY_COUNT(pairs_params),
    .inputs = pairs_inputs,
    .input_count = ARRAY_COUNT(pairs_inputs),
    .outputs = "dataset|metrics",
    .state_size = sizeof(struct pairs),
    .open = open_recipe,
    .step = step,
    .close = close_recipe,
};
