/* import.c - recipe data/import: a model in another program's format becomes a checkpoint.
 *
 * What comes out is a checkpoint like any other, in Hugging Face's layout, which every recipe and
 * transformers read; a tokenizer given beside it goes into it. Folders in that layout need no
 * import: an input takes them as file:PATH. */
#include "common/base/file.h"
#include "common/base/mem.h"
#include "worker/engine/data/tokenizer.h"
#include "worker/engine/io/llama2c_import.h"
#include "worker/recipes/train.h"

#define TOKENIZER_BYTES_MAX ((size_t)256 << 20)

struct import {
    struct device *device;
    struct model *model;
    struct tokenizer *tokenizer; /* NULL: none was given */
};

static int read_tokenizer(const struct run_input *given, uint32_t vocab_size,
                          struct tokenizer **out, struct err *err)
{
    char *bytes = NULL;
    size_t length;
    int rc = file_read(given->path, TOKENIZER_BYTES_MAX, &bytes, &length, err);

    if (rc == 0 && tokenizer_parse_llama2c(bytes, length, vocab_size, out, err) < 0)
        rc = err_wrap(err, "'%s'", given->path);
    mem_free(bytes);
    return rc < 0 ? err_wrap(err, "input 'tokenizer' (%s)", given->ref) : 0;
}

static int import_open(struct run *run, void *state, struct err *err)
{
    struct import *import = state;
    const struct run_input *given = run_input(run, "model");
    const struct run_input *beside = run_input(run, "tokenizer");

    run->step_count = 1;
    if (run_device_open(run, &import->device, err) < 0)
        return -1;
    if (llama2c_import(given->path, import->device, &import->model, err) < 0)
        return err_wrap(err, "input 'model' (%s)", given->ref);
    return beside ? read_tokenizer(beside, (uint32_t)import->model->config.vocab_size,
                                   &import->tokenizer, err)
                  : 0;
}

static int import_step(struct run *run, void *state, struct err *err)
{
    struct import *import = state;

    (void)err;
    run_metric(run, "weights", (double)model_weight_count(&import->model->config));
    return 0;
}

/* A resume finds all of it done, or begins anew. */
static int import_load(struct run *run, void *state, struct checkpoint_reader *reader,
                       struct err *err)
{
    (void)run;
    return training_load(reader, ((struct import *)state)->model, NULL, err);
}

static int import_save(struct run *run, void *state, struct checkpoint_writer *writer,
                       struct err *err)
{
    struct import *import = state;

    if (training_save(writer, import->model, NULL, err) < 0)
        return -1;
    if (!import->tokenizer || run->rank > 0)
        return 0;
    return tokenizer_write(import->tokenizer, checkpoint_folder(writer),
                           (uint64_t)import->model->config.context, err);
}

static void import_close(struct run *run, void *state)
{
    struct import *import = state;

    (void)run;
    tokenizer_free(import->tokenizer);
    model_free(import->model);
    device_close(import->device);
}

static const struct param import_params[] = {
    {"format", PARAM_CHOICE, "llama2c", 0, 0, "llama2c",
     "of the file: llama2c, a .bin of llama2.c's export.py, version 0 or 1"},
    DEVICE_PARAMS,
};

static const struct input import_inputs[] = {
    {"model", INPUT_FILE, true, "the checkpoint: file:stories15M.bin"},
    {"tokenizer", INPUT_FILE, false, "its tokenizer.bin; without it the model alone is imported"},
};

const struct recipe recipe_data_import = {
    .name = "import",
    .kind = RECIPE_DATA,
    .version = 1,
    .summary = "A checkpoint of llama2.c, and its tokenizer, in Hugging Face's layout.",
    .source = "export.py and tokenizer.py of github.com/karpathy/llama2.c",
    .params = import_params,
    .param_count = ARRAY_COUNT(import_params),
    .inputs = import_inputs,
    .input_count = ARRAY_COUNT(import_inputs),
    .outputs = "checkpoint|metrics",
    .state_size = sizeof(struct import),
    .open = import_open,
    .load = import_load,
    .step = import_step,
    .save = import_save,
    .close = import_close,
};
