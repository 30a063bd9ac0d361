/* dolma.c - recipe data/dolma: web text as Dolma's pipeline filters it. See web/README.md. */
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

static const struct param dolma_params[] = {
    WEB_PARAMS("blocked;language;url;document;gopher;c4;toxicity;scores;pii;repetition;"
               "decontaminate;paragraph",
               "exact",
               "hate=hate/hate max=0.4 unit=sentence action=cut;"
               "nsfw=nsfw/nsfw max=0.4 unit=sentence action=cut",
               ""),
};

static const struct input dolma_inputs[] = {WEB_INPUTS};

const struct recipe recipe_data_dolma = {
    .name = "dolma",
    .kind = RECIPE_DATA,
    .version = 2,
    .summary = "Web text by Dolma's rules: language, duplicates, Gopher, C4, PII, eval sets, mix",
    .source = "Soldaini et al. 2024 (Dolma), section 5; allenai/dolma",
    .params = dolma_params,
    .param_count = ARRAY_COUNT(dolma_params),
    .inputs = dolma_inputs,
    .input_count = ARRAY_COUNT(dolma_inputs),
    .outputs = "dataset|metrics",
    .state_size = sizeof(struct web),
    .open = open_recipe,
    .step = step,
    .close = close_recipe,
};
