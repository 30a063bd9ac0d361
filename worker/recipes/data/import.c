/* import.c - recipe data/import: a model that another program wrote becomes a checkpoint.
 *
 * What comes out is a checkpoint like any other, in Hugging Face's layout, which every recipe and
 * transformers read; a tokenizer given beside it goes into it, as tokenizer.json. Inputs of jobs
 * take folders in that layout as they are (file:PATH); imported, they are one file of weights in
 * f32, checked, hashed and copied to other workers like any checkpoint. */
#include "common/base/file.h"
#include "common/base/mem.h"
#include "worker/engine/data/tokenizer.h"
#include "worker/engine/io/llama2c_import.h"
#include "worker/engine/io/model_files.h"
#include "worker/recipes/train.h"

#include <string.h>
#include <sys/stat.h>

#define TOKENIZER_BYTES_MAX ((size_t)256 << 20)

struct import {
    struct device *device;
    struct model *model;
    struct tokenizer *tokenizer; /* NULL: none was given */
};

/* Of llama2.c: its tokenizer.bin has no sizes of its own. */
static int read_bin(const char *path, uint32_t vocab_size, struct tokenizer **out, struct err *err)
{
    char *bytes = NULL;
    size_t length;
    int rc = file_read(path, TOKENIZER_BYTES_MAX, &bytes, &length, err);

    if (rc == 0 && tokenizer_parse_llama2c(bytes, length, vocab_size, out, err) < 0)
        rc = err_wrap(err, "'%s'", path);
    mem_free(bytes);
    return rc;
}

/* The one that was given, or what lies beside a model that is a folder. */
static int read_tokenizer(const struct run *run, bool folder, struct import *import,
                          struct err *err)
{
    const struct run_input *model = run_input(run, "model"), *given = run_input(run, "tokenizer");
    uint32_t most = (uint32_t)import->model->config.vocab_size;
    int rc = 0;

    if (given)
        rc = folder ? tokenizer_read(given->path, &import->tokenizer, err)
                    : read_bin(given->path, most, &import->tokenizer, err);
    else if (folder && tokenizer_is_in(model->path))
        rc = tokenizer_read(model->path, &import->tokenizer, err);
    if (rc == 0 && import->tokenizer && tokenizer_vocab_size(import->tokenizer) > most)
        rc = err_set(err, ERR_INVALID, "it has %u ids, the model knows only %u",
                     tokenizer_vocab_size(import->tokenizer), most);
    if (rc == 0)
        return 0;
    return given ? err_wrap(err, "input 'tokenizer' (%s)", given->ref)
                 : err_wrap(err, "input 'model' (%s)", model->ref);
}

static bool is_folder(const char *path)
{
    struct stat status;

    return stat(path, &status) == 0 && S_ISDIR(status.st_mode);
}

static int read_inputs(struct run *run, struct import *import, struct err *err)
{
    const struct run_input *given = run_input(run, "model");
    const char *format = run_string(run, "format");
    bool folder = strcmp(format, "huggingface") == 0 ||
                  (strcmp(format, "auto") == 0 && is_folder(given->path));
    int rc;

    rc = folder ? model_files_open(given->path, import->device, true, &import->model, err)
                : llama2c_import(given->path, import->device, &import->model, err);
    if (rc < 0)
        return err_wrap(err, "input 'model' (%s)", given->ref);
    return read_tokenizer(run, folder, import, err);
}

/* What is damaged, or of a kind that we do not read, is so in every attempt. */
static int import_open(struct run *run, void *state, struct err *err)
{
    struct import *import = state;

    run->step_count = 1;
    if (run_device_open(run, &import->device, err) < 0)
        return -1;
    if (read_inputs(run, import, err) == 0)
        return 0;
    if (err->kind == ERR_PROTOCOL || err->kind == ERR_INVALID) {
        struct err why = *err;

        return run_gave_up(run, err, "bad_input", "%s", why.text);
    }
    return -1;
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
    {"format", PARAM_CHOICE, "auto", 0, 0, "auto|llama2c|huggingface",
     "llama2c: a .bin of llama2.c's export.py, version 0 or 1; huggingface: a folder; auto: by "
     "which of the two it is"},
    DEVICE_PARAMS,
};

static const struct input import_inputs[] = {
    {"model", INPUT_FILE, true, "the checkpoint: file:stories15M.bin, file:opt-125m"},
    {"tokenizer", INPUT_FILE, false,
     "its tokenizer.bin, or file or folder of another; without it what the model's folder holds"},
};

const struct recipe recipe_data_import = {
    .name = "import",
    .kind = RECIPE_DATA,
    .version = 1,
    .summary = "A model of others, with its tokenizer, as a checkpoint that other jobs name.",
    .source = "export.py and tokenizer.py of github.com/karpathy/llama2.c; transformers",
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
