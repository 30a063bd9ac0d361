/* torch_test.c - outputs and gradients of every architecture against PyTorch.
 *
 * Small models with random weights are written as transformers would write them, with a batch
 * and what the engine makes of it. reference.py, which shares no code with the engine, reads
 * config.json and model.safetensors, computes the same and compares. Where Debian's python3-torch
 * is absent the test is skipped. Then transformers_check.py loads the same files in Hugging Face's
 * library, or says why not. ATHANOR_TEST_PYTHON names another interpreter. */
#include "common/base/file.h"
#include "tests/unit/engine/small_models.h"

#include "worker/engine/encoder.h"
#include "worker/engine/io/model_files.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define SMALL_S 17

enum output { LOGITS, HIDDEN, OWN_VECTOR, MEAN_VECTOR, TOKENS, LABELS };

struct torch_case {
    const char *name;
    struct model_config config;
    enum output output;
    bool padded;
};

#define SMALL .vocab_size = 61, .context = 24, .layers = 2, .init_std = 0.2, .bos_token = -1, \
              .eos_token = -1
#define BERT .family = MODEL_BERT, SMALL, .width = 32, .heads = 4, .labels = 5

#define MOE .width = 24, .heads = 6, .head_width = 4, .ffn_width = 16, .experts = 5
#define T5 .width = 24, .heads = 3, .head_width = 10, .ffn_width = 40

static const struct torch_case cases[] = {
    {"gpt2", {.family = MODEL_GPT2, SMALL, .width = 32, .heads = 4, .tied = true}, LOGITS, false},
    {"opt", {.family = MODEL_OPT, SMALL, .width = 32, .heads = 4, .tied = true}, LOGITS, false},
    {"opt-350m", {.family = MODEL_OPT, SMALL, .width = 24, .heads = 3, .ffn_width = 40,
                  .embed_width = 16, .post_norm = true, .tied = true}, LOGITS, false},
    {"llama", {.family = MODEL_LLAMA, SMALL, .width = 24, .heads = 6, .kv_heads = 2,
               .head_width = 8, .ffn_width = 40}, LOGITS, false},
    {"llama3", {.family = MODEL_LLAMA, SMALL, .width = 24, .heads = 3, .head_width = 8,
                .ffn_width = 40, .tied = true,
                .rope = {ROPE_LLAMA3, .factor = 8, .slow = 1, .fast = 4, .original = 128}}, LOGITS,
     false},
    {"qwen2-yarn", {.family = MODEL_LLAMA, SMALL, .width = 24, .heads = 6, .kv_heads = 2,
                    .ffn_width = 40, .rope_theta = 500, .qkv_bias = true,
                    .rope = {ROPE_YARN, .factor = 6, .slow = 1, .fast = 32, .original = 200}},
     LOGITS, false},
    {"mistral", {.family = MODEL_LLAMA, SMALL, .width = 24, .heads = 6, .kv_heads = 3,
                 .head_width = 8, .ffn_width = 40, .window = 7}, LOGITS, false},
    {"alibi", {.family = MODEL_LLAMA, SMALL, .width = 24, .heads = 6, .head_width = 8,
               .ffn_width = 40, .alibi = true}, LOGITS, false},
    {"bert", {BERT}, HIDDEN, true},
    {"bert-pooler", {BERT}, OWN_VECTOR, true},
    {"bert-mean", {BERT, .activation = ACTIVATION_GELU_TANH}, MEAN_VECTOR, true},
    {"bert-tokens", {BERT, .top = MODEL_TOP_TOKENS}, TOKENS, true},
    {"bert-labels", {BERT, .top = MODEL_TOP_LABELS, .activation = ACTIVATION_RELU,
                     .label_name = {"no", "", "entailment"}}, LABELS, true},
    {"roberta-labels", {BERT, .top = MODEL_TOP_LABELS, .roberta = true, .norm_eps = 1e-5}, LABELS,
     true},
    {"mixtral", {.family = MODEL_MOE, SMALL, MOE, .kv_heads = 2, .balance_loss = 0.3}, LOGITS,
     false},
    {"olmoe", {.family = MODEL_MOE, SMALL, MOE, .choices = 3, .gate_before = true,
               .qk_norm = true, .balance_loss = 0.2, .z_loss = 0.1}, LOGITS, false},
    {"mixtral-one", {.family = MODEL_MOE, SMALL, MOE, .choices = 1, .balance_loss = 0.3}, LOGITS,
     false},
    {"moe-shared", {.family = MODEL_MOE, SMALL, MOE, .choices = 1, .gate_before = true,
                    .shared_experts = 2, .rope = {ROPE_LINEAR, .factor = 2.5}}, LOGITS, false},
    {"transnormer", {.family = MODEL_TRANSNORMER, SMALL, .width = 32, .heads = 4,
                     .ffn_width = 48, .tied = true}, LOGITS, false},
    {"transnormer-paper", {.family = MODEL_TRANSNORMER, SMALL, .width = 24, .heads = 3,
                           .ffn_width = 40, .lrpe = LRPE_ALL, .decay = DECAY_PAPER,
                           .plain_embedding = true}, LOGITS, false},
    {"transnormer-plain", {.family = MODEL_TRANSNORMER, SMALL, .width = 24, .heads = 3,
                           .ffn_width = 40, .lrpe = LRPE_NONE, .decay = DECAY_NONE,
                           .ungated = true, .tied = true}, LOGITS, false},
    {"t5", {.family = MODEL_T5, SMALL, T5, .tied = true, .decoder_layers = 3}, LOGITS, true},
    {"t5-gated", {.family = MODEL_T5, SMALL, T5, .gated = true, .buckets = 8, .bucket_span = 12},
     LOGITS, true},
    {"kona", {.family = MODEL_KONA, SMALL, .width = 32, .heads = 4, .ffn_width = 48}, OWN_VECTOR,
     true},
};

/* The named numbers of one case, written as safetensors. */
struct sheet {
    struct named_array array[200];
    char name[200][MODEL_NAME_SIZE];
    size_t count;
};

static float *sheet_add(struct sheet *sheet, const char *name, uint64_t rows, uint64_t columns)
{
    struct named_array *array = &sheet->array[sheet->count++];
    char *own = sheet->name[sheet->count - 1];

    assert_true(sheet->count < ARRAY_COUNT(sheet->array));
    snprintf(own, MODEL_NAME_SIZE, "%s", name);
    *array = (struct named_array){.name = own, .dim_count = columns ? 2 : 1,
                                  .shape = {rows, columns}};
    array->values = mem_array((size_t)(rows * (columns ? columns : 1)), sizeof(float));
    return array->values;
}

static void sheet_add_ids(struct sheet *sheet, const char *name, const int32_t *ids, size_t count)
{
    float *values = ids ? sheet_add(sheet, name, count, 0) : NULL;

    for (size_t i = 0; values && i < count; i++)
        values[i] = (float)ids[i];
}

static void sheet_write(struct sheet *sheet, const char *folder, const char *file)
{
    char *path = mem_printf("%s/%s", folder, file);
    struct err err;

    must(arrays_write(path, sheet->array, sheet->count, &err));
    for (size_t i = 0; i < sheet->count; i++)
        mem_free(sheet->array[i].values);
    sheet->count = 0;
    mem_free(path);
}

/* Weights that hide nothing: gains differ from 1 and biases from 0. */
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

static struct tensor *output_of(struct tape *tape, const struct model *model,
                                const struct model_batch *batch, struct tensor *hidden,
                                enum output output)
{
    switch (output) {
    case LOGITS:
        return model_logits(tape, model, hidden);
    case HIDDEN:
        return hidden;
    case OWN_VECTOR:
        return encoder_pool(tape, model, batch, hidden, ENCODER_OWN, false);
    case MEAN_VECTOR:
        return encoder_pool(tape, model, batch, hidden, ENCODER_MEAN, true);
    case TOKENS:
        return encoder_tokens(tape, model, hidden);
    case LABELS:
        return encoder_labels(tape, model, encoder_pool(tape, model, batch, hidden, ENCODER_OWN,
                                                        false));
    }
    return NULL;
}

/* Output y and the gradients of sum c y with c[i] = (7 i mod 11 - 5) / 10. */
static void run_case(const struct torch_case *c, struct model *model, struct small_batch *b,
                     struct sheet *numbers)
{
    struct tape *tape = small_tape(model->device, TAPE_TRAIN);
    struct model_states states = {0};
    struct tensor *y;
    int64_t count;
    float *host;
    struct err err;

    must(model_forward(tape, model, &b->batch, &states, &err));
    y = output_of(tape, model, &b->batch, states.hidden, c->output);
    must(tape_check(tape, &err));
    count = tensor_count(y);
    tensor_read(y, sheet_add(numbers, "output", (uint64_t)tensor_rows(y),
                             (uint64_t)tensor_columns(y)));
    host = mem_array((size_t)count, sizeof *host);
    for (int64_t i = 0; i < count; i++)
        host[i] = (float)(i * 7 % 11 - 5) / 10;
    tape_seed(tape, y, host);
    must(tape_backward(tape, &err));
    mem_free(host);
    tape_free(tape);
}

static void write_gradients(const struct model *model, const char *folder)
{
    struct sheet *sheet = mem_zalloc(sizeof *sheet);
    float *grads = small_grads(model);

    for (int64_t w = 0; w < model->weight_count; w++) {
        const struct model_weight *weight = &model->weight[w];
        int64_t parts = model_weight_parts(weight), count = tensor_count(&weight->tensor) / parts;

        for (int64_t k = 0; k < parts; k++) {
            uint64_t rows = (uint64_t)(weight->tensor.dim[0] / parts);
            char name[MODEL_NAME_SIZE];
            float *values;

            model_weight_part_name(weight, k, name);
            values = sheet_add(sheet, name, rows,
                               weight->tensor.rank == 2 ? (uint64_t)weight->tensor.dim[1] : 0);
            sheet->array[sheet->count - 1].transposed = weight->hf_transposed;
            memcpy(values, grads + weight->offset + k * count, 4 * (size_t)count);
        }
    }
    sheet_write(sheet, folder, "gradients.safetensors");
    mem_free(sheet);
    mem_free(grads);
}

static void write_case(const struct torch_case *c, const char *root)
{
    static const int32_t lengths[SMALL_B] = {SMALL_T, 7, 13}, types[SMALL_N] = {[3] = 1, [30] = 1};
    static const int32_t source_lengths[SMALL_B] = {9, SMALL_S, 4};
    int32_t source[SMALL_B * SMALL_S];
    bool reads = c->config.family == MODEL_T5;
    struct device *device = small_device(BACKEND_CPU, 2);
    struct model *model = small_model(device, &c->config, 3);
    char *folder = mem_printf("%s/%s", root, c->name);
    struct sheet numbers = {0};
    struct small_batch b;
    struct err err;

    assert_int_equal(mkdir(folder, 0755), 0);
    shake_weights(model);
    must(model_files_write(folder, model, &err));
    small_batch_fill(&b, c->config.vocab_size, 5);
    b.batch.length = c->padded && !reads ? lengths : NULL;
    b.batch.share = 1;
    for (int i = 0; i < SMALL_B * SMALL_S; i++)
        source[i] = (i * 7 + 3) % 61;
    if (reads) {
        b.batch.source = source;
        b.batch.S = SMALL_S;
        b.batch.source_length = source_lengths;
    }
    b.batch.type = c->config.family == MODEL_BERT ? types : NULL;
    run_case(c, model, &b, &numbers);
    sheet_add(&numbers, "batch", 1, 0)[0] = SMALL_B;
    sheet_add_ids(&numbers, "token", b.token, SMALL_N);
    sheet_add_ids(&numbers, "length", b.batch.length, SMALL_B);
    sheet_add_ids(&numbers, "source", b.batch.source, SMALL_B * SMALL_S);
    sheet_add_ids(&numbers, "source_length", b.batch.source_length, SMALL_B);
    sheet_add(&numbers, "z_loss", 1, 0)[0] = (float)c->config.z_loss;
    sheet_add_ids(&numbers, "type", b.batch.type, SMALL_N);
    *sheet_add(&numbers, "what", 1, 0) = (float)c->output;
    sheet_write(&numbers, folder, "numbers.safetensors");
    write_gradients(model, folder);
    mem_free(folder);
    model_free(model);
    device_close(device);
}

static int run_script(const char *script, const char *root)
{
    const char *python = getenv("ATHANOR_TEST_PYTHON");
    int status;
    pid_t child = fork();

    assert_true(child >= 0);
    if (child == 0) {
        execl(python ? python : "/usr/bin/python3", "python3", script, root, (char *)NULL);
        _exit(77); /* no such interpreter */
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void every_architecture_equals_an_independent_pytorch_program(void **state)
{
    char root[] = "/tmp/athanor-torch-XXXXXX";
    struct err err;
    int rc, library;

    (void)state;
    assert_non_null(mkdtemp(root));
    for (size_t i = 0; i < ARRAY_COUNT(cases); i++)
        write_case(&cases[i], root);
    rc = run_script("tests/models/reference.py", root);
    library = run_script("tests/models/transformers_check.py", root);
    assert_int_equal(file_remove_tree(root, &err), 0);
    assert_true(library == 0 || library == 77);
    if (rc == 77) {
        print_message("skipped: no PyTorch (deploy/packages.sh test installs python3-torch)\n");
        skip();
    }
    assert_int_equal(rc, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_architecture_equals_an_independent_pytorch_program),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
