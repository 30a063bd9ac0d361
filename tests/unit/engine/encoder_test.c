/* encoder_test.c - BERT and kona: gradients, padding, pooling, refusals. */
#include "tests/unit/engine/model_checks.h"
#include "worker/engine/encoder.h"

static const struct model_config small_bert = {
    .family = MODEL_BERT, .vocab_size = 53, .context = 24, .width = 32, .layers = 2, .heads = 4,
    .init_std = 0.2, .norm_eps = 1e-5, .labels = 5, .bos_token = -1, .eos_token = -1};

static const struct model_config small_kona = {
    .family = MODEL_KONA, .vocab_size = 53, .context = 24, .width = 32, .layers = 1, .heads = 4,
    .ffn_width = 48, .init_std = 0.3, .bos_token = -1, .eos_token = -1};

static const int32_t lengths[SMALL_B] = {SMALL_T, 7, 13};

static void run(struct tape *tape, const struct model *model, struct small_batch *b,
                struct model_states *states)
{
    static const int32_t type[SMALL_N] = {[3] = 1, [30] = 1, [31] = 1};
    struct err err;

    tape_reset(tape);
    b->batch.length = lengths;
    if (model->config.family == MODEL_BERT)
        b->batch.type = type;
    must(model_forward(tape, model, &b->batch, states, &err));
}

/* Seeds dL/dx = c, so L = sum c x, and goes back. */
static double finish(struct tape *tape, struct tensor *x, const float *c)
{
    int64_t count;
    double loss = 0;
    float *host;
    struct err err;

    must(tape_check(tape, &err));
    count = tensor_count(x);
    host = mem_array((size_t)count, sizeof *host);
    tensor_read(x, host);
    for (int64_t i = 0; i < count; i++)
        loss += (double)c[i] * host[i];
    mem_free(host);
    if (tape_records(tape)) {
        tape_seed(tape, x, c);
        must(tape_backward(tape, &err));
    }
    return loss;
}

/* A sum of a vector's elements with weights that differ. */
static double vector_loss(struct tape *tape, struct tensor *x)
{
    float c[512];

    for (int i = 0; i < 512; i++)
        c[i] = 1 + (float)(i * 7 % 5);
    return finish(tape, x, c);
}

static double tokens_loss(struct tape *tape, struct model *model, struct small_batch *b)
{
    static const int32_t masked[6] = {1, 4, 21, 25, 41, 50}, target[6] = {3, 9, 52, 0, -1, 17};
    static const float weight[6] = {0.2f, 0.2f, 0.2f, 0.2f, 0.2f, 0.2f};
    struct model_states states = {0};
    struct tensor *x;

    run(tape, model, b, &states);
    x = op_gather(tape, states.hidden, tape_i32(tape, masked, 6));
    x = op_nll(tape, encoder_tokens(tape, model, x), tape_i32(tape, target, 6));
    return finish(tape, x, weight);
}

static double labels_loss(struct tape *tape, struct model *model, struct small_batch *b)
{
    static const int32_t target[SMALL_B] = {4, 0, 2};
    static const float weight[SMALL_B] = {0.3f, 0.3f, 0.3f};
    struct model_states states = {0};
    struct tensor *x;

    run(tape, model, b, &states);
    x = encoder_pool(tape, model, &b->batch, states.hidden, ENCODER_OWN, false);
    x = op_nll(tape, encoder_labels(tape, model, x), tape_i32(tape, target, SMALL_B));
    return finish(tape, x, weight);
}

static double own_vector_loss(struct tape *tape, struct model *model, struct small_batch *b)
{
    struct model_states states = {0};

    run(tape, model, b, &states);
    return vector_loss(tape, encoder_pool(tape, model, &b->batch, states.hidden, ENCODER_OWN,
                                          model->config.family == MODEL_BERT));
}

static struct model_config with_top(enum model_top top)
{
    struct model_config config = small_bert;

    config.top = top;
    return config;
}

static void gradients_of_every_head_match_differences(void **state)
{
    struct model_config tokens = with_top(MODEL_TOP_TOKENS), labels = with_top(MODEL_TOP_LABELS);

    (void)state;
    check_gradients(&tokens, tokens_loss);
    check_gradients(&labels, labels_loss);
    check_gradients(&small_bert, own_vector_loss);
    check_gradients(&small_kona, own_vector_loss);
}

static void cpu_backend_agrees_with_the_reference(void **state)
{
    struct model_config tokens = with_top(MODEL_TOP_TOKENS);

    (void)state;
    check_agreement(&tokens, tokens_loss);
    check_agreement(&small_kona, own_vector_loss);
}

/* The vector of a padded row is that of the row alone. */
static void padding_changes_nothing(void **state)
{
    static const struct model_config *const configs[] = {&small_bert, &small_kona};

    (void)state;
    for (size_t k = 0; k < ARRAY_COUNT(configs); k++) {
        struct device *device = small_device(BACKEND_CPU, 1);
        struct model *model = small_model(device, configs[k], 3);
        struct tape *tape = small_tape(device, TAPE_INFER);
        struct model_states states = {0};
        float together[SMALL_B * 32], alone[32];
        struct small_batch b;
        struct err err;

        small_batch_fill(&b, 53, 4);
        b.batch.length = lengths;
        must(model_forward(tape, model, &b.batch, &states, &err));
        tensor_read(encoder_pool(tape, model, &b.batch, states.hidden, ENCODER_MEAN, true),
                    together);
        for (int r = 0; r < SMALL_B; r++) {
            struct model_batch one = {.B = 1, .T = lengths[r], .token = b.token + r * SMALL_T};

            tape_reset(tape);
            must(model_forward(tape, model, &one, &states, &err));
            tensor_read(encoder_pool(tape, model, &one, states.hidden, ENCODER_MEAN, true), alone);
            for (int i = 0; i < 32; i++)
                assert_true(fabsf(alone[i] - together[r * 32 + i]) < 1e-5f);
        }
        tape_free(tape);
        model_free(model);
        device_close(device);
    }
}

static void vectors_of_unit_length_have_length_one(void **state)
{
    struct device *device = small_device(BACKEND_CPU, 1);
    struct model *model = small_model(device, &small_bert, 3);
    struct tape *tape = small_tape(device, TAPE_INFER);
    struct model_states states = {0};
    float x[SMALL_B * 32];
    struct small_batch b;

    (void)state;
    small_batch_fill(&b, 53, 4);
    for (int pooling = ENCODER_OWN; pooling <= ENCODER_MEAN; pooling++) {
        run(tape, model, &b, &states);
        tensor_read(encoder_pool(tape, model, &b.batch, states.hidden,
                                 (enum encoder_pooling)pooling, true), x);
        for (int r = 0; r < SMALL_B; r++) {
            double sum = 0;

            for (int i = 0; i < 32; i++)
                sum += (double)x[r * 32 + i] * x[r * 32 + i];
            assert_true(fabs(sum - 1) < 1e-5);
        }
    }
    tape_free(tape);
    model_free(model);
    device_close(device);
}

static void what_a_model_has_not_is_refused_by_name(void **state)
{
    struct device *device = small_device(BACKEND_CPU, 1);
    struct model *model = small_model(device, &small_bert, 3), *llama;
    struct tape *tape = small_tape(device, TAPE_INFER);
    struct model_states states = {0};
    struct small_batch b;
    int32_t too_long[SMALL_B] = {1, 21, 1};
    struct err err;

    (void)state;
    small_batch_fill(&b, 53, 4);
    run(tape, model, &b, &states);
    assert_null(encoder_labels(tape, model, states.hidden));
    assert_int_equal(tape_check(tape, &err), -1);
    assert_non_null(strstr(err.text, "no classes"));
    tape_reset(tape);
    b.batch.length = too_long;
    assert_int_equal(model_forward(tape, model, &b.batch, &states, &err), -1);
    assert_non_null(strstr(err.text, "length 21 of row 1, expected 1..20"));
    llama = small_model(device, &small_llama, 3);
    b.batch.length = NULL;
    assert_null(encoder_pool(tape, llama, &b.batch, NULL, ENCODER_MEAN, false));
    assert_int_equal(tape_check(tape, &err), -1);
    assert_non_null(strstr(err.text, "llama is no encoder"));
    tape_free(tape);
    model_free(llama);
    model_free(model);
    device_close(device);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gradients_of_every_head_match_differences),
        cmocka_unit_test(cpu_backend_agrees_with_the_reference),
        cmocka_unit_test(padding_changes_nothing),
        cmocka_unit_test(vectors_of_unit_length_have_length_one),
        cmocka_unit_test(what_a_model_has_not_is_refused_by_name),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
