/* write_models.c - small models of families that Hugging Face's library knows, in its layout, each
 * with a batch of tokens and the logits that the engine makes of it.
 *
 *   write_models BACKEND FOLDER
 *
 * FOLDER/NAME gets config.json, model.safetensors and numbers.safetensors for
 * transformers_check.py. It needs no test library, so that it also builds on a bare GPU machine
 * (tests/ops/cuda.sh), whose logits come from there; torch_test.c writes more families. */
#include "common/base/mem.h"
#include "common/base/rng.h"
#include "worker/engine/io/model_files.h"
#include "worker/engine/tape.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define ROWS 3
#define TOKENS (ROWS * 20)

#define SMALL .vocab_size = 61, .context = 24, .layers = 2, .init_std = 0.2, .bos_token = -1, \
              .eos_token = -1

static const struct written {
    const char *name;
    struct model_config config;
} models[] = {
    {"gpt2", {.family = MODEL_GPT2, SMALL, .width = 32, .heads = 4, .tied = true}},
    {"opt", {.family = MODEL_OPT, SMALL, .width = 32, .heads = 4, .tied = true}},
    {"llama", {.family = MODEL_LLAMA, SMALL, .width = 24, .heads = 6, .kv_heads = 2,
               .head_width = 8, .ffn_width = 40}},
    {"llama3", {.family = MODEL_LLAMA, SMALL, .width = 24, .heads = 6, .kv_heads = 2,
                .head_width = 8, .ffn_width = 40, .tied = true,
                .rope = {ROPE_LLAMA3, .factor = 8, .slow = 1, .fast = 4, .original = 128}}},
    {"qwen2", {.family = MODEL_LLAMA, SMALL, .width = 24, .heads = 6, .kv_heads = 2,
               .ffn_width = 40, .tied = true, .qkv_bias = true}},
    {"mistral", {.family = MODEL_LLAMA, SMALL, .width = 24, .heads = 6, .kv_heads = 3,
                 .head_width = 8, .ffn_width = 40, .window = 7}},
    {"mixtral", {.family = MODEL_MOE, SMALL, .width = 24, .heads = 6, .kv_heads = 2,
                 .head_width = 4, .ffn_width = 16, .experts = 5}},
};

static void must(int rc, const struct err *err)
{
    if (rc == 0)
        return;
    fprintf(stderr, "write_models: %s\n", err->text);
    exit(1);
}

/* Gains that differ from 1 and biases from 0, so that none may be lost. */
static void shake_weights(struct model *model)
{
    for (int64_t w = 0; w < model->weight_count; w++) {
        struct model_weight *weight = &model->weight[w];
        int64_t count = tensor_count(&weight->tensor);
        float *host = mem_array((size_t)count, sizeof *host);
        struct rng rng;

        rng_init(&rng, (uint64_t)w + 100);
        model_weight_read(weight, host);
        for (int64_t i = 0; i < count; i++)
            host[i] += weight->tensor.rank == 2 ? 0 : (float)(0.2 * rng_normal(&rng));
        model_weight_write(weight, host);
        mem_free(host);
    }
}

static void make_logits(const struct model *model, const int32_t *token, float *out)
{
    struct model_batch batch = {.B = ROWS, .T = TOKENS / ROWS, .token = token};
    struct model_states states = {0};
    struct tape *tape;
    struct err err;

    must(tape_new(model->device, TAPE_INFER, &tape, &err), &err);
    must(model_forward(tape, model, &batch, &states, &err), &err);
    tensor_read(model_logits(tape, model, states.hidden), out);
    tape_free(tape);
}

static void write_numbers(const char *folder, const struct model *model)
{
    uint64_t vocabulary = (uint64_t)model->config.vocab_size;
    int32_t token[TOKENS];
    float as_f32[TOKENS], rows = ROWS, *output = mem_array(TOKENS * vocabulary, sizeof *output);
    struct named_array arrays[] = {
        {.name = "batch", .values = &rows, .dim_count = 1, .shape = {1}},
        {.name = "token", .values = as_f32, .dim_count = 1, .shape = {TOKENS}},
        {.name = "output", .values = output, .dim_count = 2, .shape = {TOKENS, vocabulary}},
    };
    char *path = mem_printf("%s/numbers.safetensors", folder);
    struct rng rng;
    struct err err;

    rng_init(&rng, 5);
    for (int i = 0; i < TOKENS; i++)
        as_f32[i] = (float)(token[i] = (int32_t)rng_below(&rng, vocabulary));
    make_logits(model, token, output);
    must(arrays_write(path, arrays, ARRAY_COUNT(arrays), &err), &err);
    mem_free(path);
    mem_free(output);
}

static void write_model(struct device *device, const char *root, const struct written *written)
{
    char *folder = mem_printf("%s/%s", root, written->name);
    struct model *model;
    struct err err;

    if (mkdir(folder, 0755) < 0 && errno != EEXIST) {
        fprintf(stderr, "write_models: folder %s: %s\n", folder, strerror(errno));
        exit(1);
    }
    must(model_new(device, &written->config, 3, &model, &err), &err);
    shake_weights(model);
    must(model_files_write(folder, model, &err), &err);
    write_numbers(folder, model);
    model_free(model);
    mem_free(folder);
}

int main(int count, char **words)
{
    struct device_config config = {.threads = 1};
    struct device *device;
    struct err err;

    if (count != 3) {
        fprintf(stderr, "usage: write_models reference|cpu|cuda FOLDER\n");
        return 2;
    }
    must(backend_parse(words[1], &config.kind, &err), &err);
    must(device_open(&config, &device, &err), &err);
    for (size_t i = 0; i < ARRAY_COUNT(models); i++)
        write_model(device, words[2], &models[i]);
    device_close(device);
    printf("%zu models in %s, with the logits of %s\n", ARRAY_COUNT(models), words[2], words[1]);
    return 0;
}
