/* yi.c - recipe data/yi: web text through a cascade like Yi's. See web/README.md. */
#include "worker/recipes/data/web/params.h"
#include "worker/recipes/data/web/web.h"

static int open_recipe(struct run *run, void *state, struct err *err)
{
    return web_open(run, state, err);
}

static int step(struct run *run, void *state, struct err *err)
{
    (void)run;
    return web_step(state, err);
}

static void close_recipe(struct run *run, void *state)
{
    (void)run;
    web_close(state);
}

static const struct param yi_params[] = {
    WEB_PARAMS("blocked;language;garbled;gopher;c4;repetition;pii;perplexity;quality;coherence;"
               "paragraph;decontaminate;toxicity;scores;topic;minhash;exact;cluster",
               "words", "safety=safety/unsafe max=0.5", "ads=0.1"),
};

static const struct input yi_inputs[] = {WEB_INPUTS};

const struct recipe recipe_data_yi = {
    .name = "yi",
    .kind = RECIPE_DATA,
    .version = 2,
    .summary = "Web text by a cascade like Yi's: rules, scorers, duplicates of every size",
    .source = "01.AI 2024 (Yi), section 2.1; limits are Athanor's, as the report states none",
    .params = yi_params,
    .param_count = ARRAY_COUNT(yi_params),
    .inputs = yi_inputs,
    .input_count = ARRAY_COUNT(yi_inputs),
    .outputs = "dataset|metrics",
    .state_size = sizeof(struct web),
    .open = open_recipe,
    .step = step,
    .close = close_recipe,
};
