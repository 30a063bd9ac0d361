/* model_test.c - whole models: gradients, agreement of backends, repeatability, refusals. */
#include "tests/unit/engine/model_checks.h"
#include "worker/engine/optim.h"

static void gpt2_gradients_match_differences_of_the_loss(void **state)
{
    (void)state;
    check_gradients(&small_gpt2, small_loss);
}

static void opt_gradients_match_differences_of_the_loss(void **state)
{
    (void)state;
    check_gradients(&small_opt, small_loss);
    check_gradients(&small_opt_350m, small_loss);
}

static void llama_gradients_match_differences_of_the_loss(void **state)
{
    struct model_config tied = small_llama;

    (void)state;
    check_gradients(&small_llama, small_loss);
    tied.tied = true;
    check_gradients(&tied, small_loss);
    check_gradients(&small_qwen, small_loss);
}

static void cpu_backend_agrees_with_the_reference(void **state)
{
    (void)state;
    check_agreement(&small_gpt2, small_loss);
    check_agreement(&small_opt, small_loss);
    check_agreement(&small_opt_350m, small_loss);
    check_agreement(&small_llama, small_loss);
    check_agreement(&small_qwen, small_loss);
}

static void run_steps(const struct model_config *config, double loss[10], float **out_weights)
{
    struct device *device = small_device(BACKEND_CPU, 2);
    struct model *model = small_model(device, config, 3);
    struct tape *tape = small_tape(device, TAPE_TRAIN);
    struct optim_config adamw = {.weight_decay = 0.1, .clip_norm = 1};
    struct optim *optim = NULL;
    struct err err;

    must(optim_new(model, &adamw, &optim, &err));
    for (int step = 0; step < 10; step++) {
        struct small_batch batch;
        double norm;

        small_batch_fill(&batch, config->vocab_size, (uint64_t)step);
        loss[step] = small_loss(tape, model, &batch);
        must(optim_step(optim, 1e-2, &norm, &err));
    }
    *out_weights = mem_array((size_t)model->flat_count, 4);
    tensor_read(&model->flat, *out_weights);
    optim_free(optim);
    tape_free(tape);
    model_free(model);
    device_close(device);
}

static void ten_steps_repeat_bit_for_bit(void **state)
{
    double first[10], second[10];
    float *weights[2];

    (void)state;
    run_steps(&small_gpt2, first, &weights[0]);
    run_steps(&small_gpt2, second, &weights[1]);
    assert_memory_equal(first, second, sizeof first);
    assert_memory_equal(weights[0], weights[1], 4 * (size_t)model_weight_count(&small_gpt2));
    assert_true(isfinite(first[9]));
    mem_free(weights[0]);
    mem_free(weights[1]);
}

static void training_on_one_batch_lowers_its_loss(void **state)
{
    struct device *device = small_device(BACKEND_CPU, 1);
    struct model *model = small_model(device, &small_llama, 3);
    struct tape *tape = small_tape(device, TAPE_TRAIN);
    struct optim *optim = NULL;
    struct small_batch batch;
    double first, last = 0, norm;
    struct err err;

    (void)state;
    must(optim_new(model, &(struct optim_config){0}, &optim, &err));
    small_batch_fill(&batch, small_llama.vocab_size, 8);
    first = small_loss(tape, model, &batch);
    for (int step = 0; step < 60; step++) {
        must(optim_step(optim, 1e-2, &norm, &err));
        last = small_loss(tape, model, &batch);
    }
    assert_true(last < 0.1 * first);
    optim_free(optim);
    tape_free(tape);
    model_free(model);
    device_close(device);
}

static void weights_depend_on_seed_and_name_only(void **state)
{
    struct device *device = small_device(BACKEND_CPU, 1), *wide = small_device(BACKEND_CPU, 3);
    struct model_config deeper = small_gpt2;
    struct model *model = small_model(device, &small_gpt2, 9), *other;
    float a[32 * 32 * 3], b[32 * 32 * 3];

    (void)state;
    deeper.layers = 5;
    deeper.vocab_size = 99;
    other = small_model(wide, &deeper, 9);
    model_weight_read(model_weight_find(model, "block.1.qkv.weight"), a);
    model_weight_read(model_weight_find(other, "transformer.h.1.attn.c_attn.weight"), b);
    assert_memory_equal(a, b, sizeof a);
    model_free(other);
    other = small_model(device, &small_gpt2, 10);
    model_weight_read(model_weight_find(other, "h.1.attn.c_attn.weight"), b);
    assert_memory_not_equal(a, b, sizeof a);
    model_free(other);
    model_free(model);
    device_close(device);
    device_close(wide);
}

static void later_steps_of_a_shape_allocate_nothing(void **state)
{
    struct device *device = small_device(BACKEND_CPU, 2);
    struct model *model = small_model(device, &small_gpt2, 3);
    struct tape *tape = small_tape(device, TAPE_TRAIN);
    struct small_batch batch;
    uint64_t used_bytes;

    (void)state;
    small_batch_fill(&batch, small_gpt2.vocab_size, 1);
    small_loss(tape, model, &batch);
    small_loss(tape, model, &batch);
    used_bytes = device->used_bytes;
    device->config.memory_limit_bytes = used_bytes;
    small_loss(tape, model, &batch);
    assert_int_equal(device->used_bytes, used_bytes);
    tape_free(tape);
    model_free(model);
    assert_int_equal(device->used_bytes, device->scratch_bytes);
    device_close(device);
}

static void too_little_memory_is_an_error_that_states_the_bytes(void **state)
{
    struct device *device = small_device(BACKEND_CPU, 1);
    struct model *model = NULL;
    struct model_states states = {0};
    struct small_batch batch;
    struct tape *tape;
    struct err err;

    (void)state;
    device->config.memory_limit_bytes = 1000;
    assert_int_equal(model_new(device, &small_gpt2, 1, &model, &err), -1);
    assert_int_equal(err.kind, ERR_MEMORY);
    assert_non_null(strstr(err.text, "bytes"));
    device->config.memory_limit_bytes = 0;
    model = small_model(device, &small_gpt2, 1);
    tape = small_tape(device, TAPE_TRAIN);
    small_batch_fill(&batch, small_gpt2.vocab_size, 1);
    device->config.memory_limit_bytes = device->used_bytes + 20000;
    assert_int_equal(model_forward(tape, model, &batch.batch, &states, &err), -1);
    assert_int_equal(err.kind, ERR_MEMORY);
    device->config.memory_limit_bytes = 0;
    small_loss(tape, model, &batch); /* the tape works again after a reset */
    tape_free(tape);
    model_free(model);
    device_close(device);
}

static void bad_batches_are_refused(void **state)
{
    struct device *device = small_device(BACKEND_CPU, 1);
    struct model *model = small_model(device, &small_gpt2, 1);
    struct tape *tape = small_tape(device, TAPE_INFER);
    struct model_states states = {0};
    struct small_batch batch;
    int32_t first[SMALL_N] = {0};
    struct err err;

    (void)state;
    small_batch_fill(&batch, small_gpt2.vocab_size, 1);
    batch.token[7] = 61;
    assert_int_equal(model_forward(tape, model, &batch.batch, &states, &err), -1);
    assert_non_null(strstr(err.text, "token 61 at row 0, column 7, expected 0..60"));
    batch.token[7] = 0;
    batch.batch.T = 25;
    assert_int_equal(model_forward(tape, model, &batch.batch, &states, &err), -1);
    assert_int_equal(err.kind, ERR_INVALID);
    batch.batch.T = SMALL_T;
    first[3] = 4;
    batch.batch.first = first;
    assert_int_equal(model_forward(tape, model, &batch.batch, &states, &err), -1);
    assert_int_equal(err.kind, ERR_INVALID);
    tape_free(tape);
    model_free(model);
    device_close(device);
}

static void impossible_configurations_are_refused(void **state)
{
    struct model_config config = small_gpt2;
    struct err err;

    (void)state;
    config.heads = 5;
    assert_int_equal(model_config_complete(&config, &err), -1);
    config = small_gpt2;
    config.tied = false;
    assert_int_equal(model_config_complete(&config, &err), -1);
    config = small_llama;
    config.kv_heads = 4;
    assert_int_equal(model_config_complete(&config, &err), -1);
    config = small_llama;
    config.head_width = 7;
    assert_int_equal(model_config_complete(&config, &err), -1);
    config = small_llama;
    config.vocab_size = 0;
    assert_int_equal(model_config_complete(&config, &err), -1);
    assert_non_null(strstr(err.text, "vocab_size"));
    config = small_llama;
    config.rope = (struct rope_scaling){ROPE_LINEAR, .factor = 0.5};
    assert_int_equal(model_config_complete(&config, &err), -1);
    assert_non_null(strstr(err.text, "model rope_scaling: factor is 0.5"));
    config = small_qwen;
    config.window = 4;
    assert_int_equal(model_config_complete(&config, &err), -1);
    assert_non_null(strstr(err.text, "biases of queries, keys and values has a window"));
    config = small_llama;
    config.rope = (struct rope_scaling){ROPE_LINEAR, .factor = 2};
    config.alibi = true;
    assert_int_equal(model_config_complete(&config, &err), -1);
    assert_non_null(strstr(err.text, "of positions alibi has no rotary angles to scale"));
}

/* Names as published, and how many weights: Qin et al. 2024 (384.9M, 1.02B; and the angles of
 * their first block), Yi's formula 2VD + L(2D^2 + 2D Hk d + 3DF + 2D) + D, Jiang et al. 2024
 * (46.7B, 12.9B of them for a token), and Hugging Face's num_parameters of the others. */
static void published_models_have_the_published_number_of_weights(void **state)
{
    static const struct {
        struct model_config config;
        int64_t count, active;
    } known[] = {
#define SHAPE(f, V, T, D, L, H) .family = MODEL_##f, .vocab_size = V, .context = T, .width = D, \
                                .layers = L, .heads = H
        {{SHAPE(TRANSNORMER, 50272, 2048, 1024, 24, 8), .ffn_width = 2816, .tied = true},
         384925696 + 1024},
        {{SHAPE(TRANSNORMER, 64000, 2048, 2048, 16, 16), .ffn_width = 5632, .tied = true},
         1020264448 + 2048},
        {{SHAPE(LLAMA, 64000, 4096, 4096, 32, 32), .kv_heads = 4, .ffn_width = 11008}, 6061035520},
        {{SHAPE(LLAMA, 64000, 4096, 4096, 48, 32), .kv_heads = 4, .ffn_width = 11008}, 8829407232},
        {{SHAPE(LLAMA, 64000, 4096, 7168, 60, 56), .kv_heads = 8, .ffn_width = 20480}, 34388917248},
        {{SHAPE(LLAMA, 151936, 32768, 896, 24, 14), .kv_heads = 2, .ffn_width = 4864, .tied = true,
          .qkv_bias = true}, 494032768},
        {{SHAPE(LLAMA, 128256, 131072, 2048, 16, 32), .kv_heads = 8, .ffn_width = 8192,
          .tied = true}, 1235814400},
        {{SHAPE(MOE, 32000, 32768, 4096, 32, 32), .kv_heads = 8, .ffn_width = 14336},
         46702792704, 12879925248},
        {{SHAPE(GPT2, 50257, 1024, 768, 12, 12), .tied = true}, 124439808},
        {{SHAPE(OPT, 50272, 2048, 768, 12, 12), .tied = true}, 125239296},
        {{SHAPE(T5, 32128, 512, 512, 6, 8), .ffn_width = 2048, .tied = true}, 60506624},
#undef SHAPE
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(known); i++) {
        struct model_config config = known[i].config;
        struct err err;

        must(model_config_complete(&config, &err));
        if (model_weight_count(&config) != known[i].count)
            fail_msg("model %zu has %lld weights", i, (long long)model_weight_count(&config));
        assert_int_equal(model_active_count(&config),
                         known[i].active ? known[i].active : known[i].count);
    }
}

/* Two documents in one row, each with its own positions, against the same two in two rows. */
static void packed_documents_do_not_see_each_other(void **state)
{
    static const struct model_config *const configs[] = {&small_gpt2, &small_llama};

    (void)state;
    for (size_t c = 0; c < ARRAY_COUNT(configs); c++) {
        struct device *device = small_device(BACKEND_CPU, 1);
        struct model *model = small_model(device, configs[c], 3);
        struct tape *tape = small_tape(device, TAPE_INFER);
        int64_t V = configs[c]->vocab_size;
        float *packed = mem_array((size_t)(20 * V), 4), *apart = mem_array((size_t)(20 * V), 4);
        int32_t position[20], first[20];
        struct small_batch batch;

        small_batch_fill(&batch, V, 2);
        for (int i = 0; i < 20; i++) {
            position[i] = i % 10;
            first[i] = i / 10 * 10;
        }
        batch.batch = (struct model_batch){
                .B = 1, .T = 20, .token = batch.token, .position = position, .first = first};
        read_logits(tape, model, &batch, packed);
        batch.batch = (struct model_batch){.B = 2, .T = 10, .token = batch.token};
        read_logits(tape, model, &batch, apart);
        for (int64_t i = 0; i < 20 * V; i++)
            assert_true(fabsf(packed[i] - apart[i]) < 1e-5f);
        mem_free(packed);
        mem_free(apart);
        tape_free(tape);
        model_free(model);
        device_close(device);
    }
}

static void hidden_states_of_every_layer_are_accessible(void **state)
{
    struct device *device = small_device(BACKEND_CPU, 1);
    struct model *model = small_model(device, &small_gpt2, 3);
    struct tape *infer = small_tape(device, TAPE_INFER), *train = small_tape(device, TAPE_TRAIN);
    float a[SMALL_N * 32], b[SMALL_N * 32];
    struct tensor *layer[3] = {0};
    struct model_states states = {.layer = layer}, plain = {0};
    struct small_batch batch;
    struct err err;

    (void)state;
    small_batch_fill(&batch, small_gpt2.vocab_size, 2);
    must(model_forward(infer, model, &batch.batch, &states, &err));
    for (int i = 0; i < 3; i++) {
        assert_non_null(layer[i]);
        assert_int_equal(tensor_count(layer[i]), SMALL_N * 32);
    }
    tensor_read(states.hidden, a);
    must(model_forward(train, model, &batch.batch, &plain, &err));
    tensor_read(plain.hidden, b);
    assert_memory_equal(a, b, sizeof a);
    tape_reset(infer);
    must(model_forward(infer, model, &batch.batch, &plain, &err));
    tensor_read(plain.hidden, b);
    assert_memory_equal(a, b, sizeof a);
    tape_free(infer);
    tape_free(train);
    model_free(model);
    device_close(device);
}

/* A loss of the caller's own on hidden states: L = sum c h, so dL/dh = c. */
static void seeded_gradients_of_hidden_states_flow_back(void **state)
{
    struct device *device = small_device(BACKEND_CPU, 1);
    struct model *model = small_model(device, &small_gpt2, 3);
    struct tape *tape = small_tape(device, TAPE_TRAIN);
    struct model_states states = {0};
    float c[SMALL_N * 32], h[SMALL_N * 32], gain[32], *grads;
    double expected[32] = {0};
    struct small_batch batch;
    struct err err;

    (void)state;
    small_batch_fill(&batch, small_gpt2.vocab_size, 2);
    model_weight_read(model_weight_find(model, "lnf.weight"), gain); /* all ones */
    must(model_forward(tape, model, &batch.batch, &states, &err));
    tensor_read(states.hidden, h);
    for (int i = 0; i < SMALL_N * 32; i++) {
        c[i] = (float)(i % 7) - 3;
        expected[i % 32] += (double)c[i] * h[i]; /* d(sum c h)/d gain = sum c x^, and h = x^ */
    }
    tape_seed(tape, states.hidden, c);
    must(tape_backward(tape, &err));
    grads = small_grads(model);
    for (int i = 0; i < 32; i++)
        assert_true(fabs(grads[model_weight_find(model, "lnf.weight")->offset + i] -
                         expected[i]) < 1e-3);
    mem_free(grads);
    tape_free(tape);
    model_free(model);
    device_close(device);
}

static void a_frozen_copy_gives_the_same_logits_and_no_gradients(void **state)
{
    struct device *device = small_device(BACKEND_CPU, 1);
    struct model *model = small_model(device, &small_llama, 3), *copy = NULL;
    struct tape *tape = small_tape(device, TAPE_TRAIN);
    float *a = mem_array(SMALL_N * 53, 4), *b = mem_array(SMALL_N * 53, 4);
    struct small_batch batch;
    struct err err;

    (void)state;
    must(model_clone_frozen(model, device, &copy, &err));
    assert_null(copy->flat.grad);
    small_batch_fill(&batch, 53, 2);
    read_logits(tape, model, &batch, a);
    read_logits(tape, copy, &batch, b);
    assert_memory_equal(a, b, SMALL_N * 53 * 4);
    small_loss(tape, copy, &batch);
    mem_free(a);
    mem_free(b);
    tape_free(tape);
    model_free(copy);
    model_free(model);
    device_close(device);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gpt2_gradients_match_differences_of_the_loss),
        cmocka_unit_test(opt_gradients_match_differences_of_the_loss),
        cmocka_unit_test(llama_gradients_match_differences_of_the_loss),
        cmocka_unit_test(cpu_backend_agrees_with_the_reference),
        cmocka_unit_test(ten_steps_repeat_bit_for_bit),
        cmocka_unit_test(training_on_one_batch_lowers_its_loss),
        cmocka_unit_test(weights_depend_on_seed_and_name_only),
        cmocka_unit_test(later_steps_of_a_shape_allocate_nothing),
        cmocka_unit_test(too_little_memory_is_an_error_that_states_the_bytes),
        cmocka_unit_test(bad_batches_are_refused),
        cmocka_unit_test(impossible_configurations_are_refused),
        cmocka_unit_test(published_models_have_the_published_number_of_weights),
        cmocka_unit_test(packed_documents_do_not_see_each_other),
        cmocka_unit_test(hidden_states_of_every_layer_are_accessible),
        cmocka_unit_test(seeded_gradients_of_hidden_states_flow_back),
        cmocka_unit_test(a_frozen_copy_gives_the_same_logits_and_no_gradients),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
