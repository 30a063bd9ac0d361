/* merge.c - recipe finetuning/merge: a base model with its adapters added, as an ordinary model.
 *
 * The adapters name their base model (adapters.h); reading them is what every recipe does with a
 * folder of adapters, so that all this one has to do is to write the result. */
#include "worker/engine/io/adapters.h"
#include "worker/recipes/train.h"

struct merge {
    struct device *device;
    struct model *model;
};

static int merge_open(struct run *run, void *state, struct err *err)
{
    struct merge *merge = state;
    const struct run_input *given = run_input(run, "adapters");

    run->step_count = 1;
    if (given && !adapters_alone(given->path))
        return err_set(err, ERR_INVALID, "input 'adapters' (%s) holds no adapters alone; a model "
                       "that is there already needs no merge", given->ref);
    if (run_device_open(run, &merge->device, err) < 0)
        return -1;
    return run_model_open(run, "adapters", merge->device, false, &merge->model, err);
}

static int merge_step(struct run *run, void *state, struct err *err)
{
    struct merge *merge = state;

    (void)err;
    run_metric(run, "weights", (double)model_weight_count(&merge->model->config));
    return 0;
}

/* A resume finds all of it done, or begins anew. */
static int merge_load(struct run *run, void *state, struct checkpoint_reader *reader,
                      struct err *err)
{
    (void)run;
    return training_load(reader, ((struct merge *)state)->model, NULL, err);
}

static int merge_save(struct run *run, void *state, struct checkpoint_writer *writer,
                      struct err *err)
{
    struct merge *merge = state;

    if (training_save(writer, merge->model, NULL, err) < 0)
        return -1;
    return checkpoint_copy_tokenizer(writer, run_input(run, "adapters")->path, err);
}

static void merge_close(struct run *run, void *state)
{
    struct merge *merge = state;

    (void)run;
    model_free(merge->model);
    device_close(merge->device);
}

static const struct param merge_params[] = {DEVICE_PARAMS};

static const struct input merge_inputs[] = {
    {"adapters", INPUT_CHECKPOINT, true, "checkpoint of adapters, as sft with merge: false saves"},
};

const struct recipe recipe_finetuning_merge = {
    .name = "merge",
    .kind = RECIPE_FINETUNING,
    .version = 1,
    .summary = "Adds low-rank adapters to their base model.",
    .source = "Hu et al. 2022 (LoRA), section 4.1",
    .params = merge_params,
    .param_count = ARRAY_COUNT(merge_params),
    .inputs = merge_inputs,
    .input_count = ARRAY_COUNT(merge_inputs),
    .outputs = "checkpoint|metrics",
    .state_size = sizeof(struct merge),
    .open = merge_open,
    .load = merge_load,
    .step = merge_step,
    .save = merge_save,
    .close = merge_close,
};
