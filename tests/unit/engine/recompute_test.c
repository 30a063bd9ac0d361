/* link: engine-core */
/* recompute_test.c - blocks that are computed again in backward give the same bits, in less. */
#include "tests/unit/engine/small_models.h"

#define LAYERS 12

/* Every family; with dropout where it has it, and experts with all that their routing can be asked
 * for: losses, places that run out, a shared one. */
static const struct model_config folded[] = {
    {.family = MODEL_GPT2, .vocab_size = 61, .context = 24, .width = 64, .layers = LAYERS,
     .heads = 4, .init_std = 0.2, .tied = true, .dropout = 0.1},
    {.family = MODEL_OPT, .vocab_size = 61, .context = 24, .width = 64, .layers = LAYERS,
     .heads = 4, .embed_width = 16, .post_norm = true, .init_std = 0.2, .tied = true},
    {.family = MODEL_LLAMA, .vocab_size = 61, .context = 24, .width = 64, .layers = LAYERS,
     .heads = 4, .kv_heads = 2, .init_std = 0.2, .dropout = 0.1},
    {.family = MODEL_LLAMA, .vocab_size = 61, .context = 24, .width = 64, .layers = LAYERS,
     .heads = 4, .init_std = 0.2, .alibi = true},
    {.family = MODEL_TRANSNORMER, .vocab_size = 61, .context = 24, .width = 64, .layers = LAYERS,
     .heads = 4, .ffn_width = 48, .init_std = 0.2, .lrpe = LRPE_ALL},
    {.family = MODEL_BERT, .vocab_size = 61, .context = 24, .width = 64, .layers = LAYERS,
     .heads = 4, .init_std = 0.2},
    {.family = MODEL_KONA, .vocab_size = 61, .context = 24, .width = 64, .layers = LAYERS,
     .heads = 4, .init_std = 0.2},
    {.family = MODEL_T5, .vocab_size = 61, .context = 24, .width = 64, .layers = LAYERS,
     .heads = 4, .init_std = 0.2},
    {.family = MODEL_MOE, .vocab_size = 61, .context = 24, .width = 64, .layers = LAYERS,
     .heads = 4, .ffn_width = 32, .experts = 5, .capacity_factor = 1.1, .balance_loss = 0.3,
     .z_loss = 0.1, .shared_experts = 1, .init_std = 0.2, .dropout = 0.1},
    {.family = MODEL_MOE, .vocab_size = 61, .context = 24, .width = 64, .layers = LAYERS,
     .heads = 4, .ffn_width = 32, .experts = 3, .choices = 1, .gate_before = true,
     .qk_norm = true, .balance_loss = 0.3, .init_std = 0.2},
};

#define MIDDLE (LAYERS / 2)

struct outcome {
    double loss;
    float *grads;
    uint64_t peak_bytes;
    size_t step_bytes; /* of activations and gradients */
    float middle[SMALL_N * 64];         /* the stream there, where states between are asked for */
    float route[LAYERS * ROUTE_STATS]; /* of experts */
};

/* A step whose loss also hangs on the stream in the middle, where `between`. */
static void one_step(struct tape *tape, struct model *model, struct small_batch *b, bool between,
                     struct outcome *outcome)
{
    static float ones[SMALL_N * 64];
    struct tensor *layer[LAYERS + 1], *route[LAYERS];
    struct model_states states = {.layer = between ? layer : NULL, .route = route};
    struct loss_head loss = {.head = model->head, .target = b->target, .ce_weight = b->weight};
    struct loss_values values = {0};
    struct err err;

    for (int i = 0; i < SMALL_N * 64; i++)
        ones[i] = 0.01f;
    tape_reset(tape);
    model_zero_grad(model);
    must(model_forward(tape, model, &b->batch, &states, &err));
    for (int i = 0; i < LAYERS && model->config.family == MODEL_MOE; i++)
        tensor_read(route[i], outcome->route + i * ROUTE_STATS);
    if (between) {
        tensor_read(layer[MIDDLE], outcome->middle);
        tape_seed(tape, layer[MIDDLE], ones);
    }
    if (model->config.family == MODEL_KONA) { /* its embedding is no head */
        tape_seed(tape, states.hidden, ones);
    } else {
        loss.hidden = states.hidden;
        must(loss_head(tape, &loss, &values, &err));
    }
    must(tape_backward(tape, &err));
    outcome->loss = values.total;
}

static void fill(struct small_batch *b, const struct model_config *config)
{
    small_batch_fill(b, config->vocab_size, 1);
    b->batch.share = 1;
    b->batch.dropout_seed = 9;
    b->batch.S = SMALL_T;
    b->batch.source = b->token;
}

static void run(const struct model_config *config, bool recomputes, bool between,
                struct outcome *outcome)
{
    struct device *device = small_device(BACKEND_CPU, 1);
    struct model *model = small_model(device, config, 3);
    struct tape *tape = small_tape(device, TAPE_TRAIN);
    struct small_batch b;

    memset(outcome, 0, sizeof *outcome);
    tape_recompute(tape, recomputes);
    fill(&b, config);
    one_step(tape, model, &b, between, outcome);
    one_step(tape, model, &b, between, outcome);
    device->config.memory_limit_bytes = device->used_bytes; /* the third allocates nothing */
    one_step(tape, model, &b, between, outcome);
    outcome->grads = small_grads(model);
    outcome->peak_bytes = device->peak_bytes;
    outcome->step_bytes = tape_bytes(tape);
    tape_free(tape);
    model_free(model);
    device_close(device);
}

/* Inference gives blocks back too, and leaves the states between them as they were. */
static void check_inference(const struct model_config *config, const struct outcome *trained)
{
    struct device *device = small_device(BACKEND_CPU, 1);
    struct model *model = small_model(device, config, 3);
    struct tape *tape = small_tape(device, TAPE_INFER);
    struct tensor *layer[LAYERS + 1];
    struct model_states states = {.layer = layer};
    static float middle[SMALL_N * 64];
    struct small_batch b;
    struct err err;

    fill(&b, config);
    must(model_forward(tape, model, &b.batch, &states, &err));
    tensor_read(layer[MIDDLE], middle);
    assert_memory_equal(middle, trained->middle, sizeof middle);
    tape_free(tape);
    model_free(model);
    device_close(device);
}

static void compare(const struct model_config *config, bool between)
{
    static struct outcome kept, again;

    run(config, false, between, &kept);
    run(config, true, between, &again);
    assert_true(kept.loss == again.loss);
    assert_memory_equal(kept.grads, again.grads, 4 * (size_t)model_weight_count(config));
    assert_memory_equal(kept.middle, again.middle, sizeof kept.middle);
    assert_memory_equal(kept.route, again.route, sizeof kept.route);
    /* Twelve blocks of about 17 rows of width each against one of them and twelve streams. */
    assert_true(2 * again.step_bytes < kept.step_bytes);
    assert_true(again.peak_bytes < kept.peak_bytes);
    if (between)
        check_inference(config, &kept);
    assert_true((config->capacity_factor > 0) == (kept.route[ROUTE_STAT_DROPPED] > 0));
    mem_free(kept.grads);
    mem_free(again.grads);
}

static void blocks_computed_again_give_the_same_bits_in_less_memory(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(folded); i++)
        compare(&folded[i], false);
}

/* What hidden-state distillation needs. */
static void states_between_blocks_that_are_computed_again_can_be_read_and_taught(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(folded); i++)
        compare(&folded[i], true);
}

/* What loss.h's own example needs: two batches on one tape, then one backward. */
static void two_forwards_on_one_tape_are_computed_again_each(void **state)
{
    struct device *device = small_device(BACKEND_CPU, 1);
    struct model *model = small_model(device, &small_llama, 3);
    float *grads[2];

    (void)state;
    for (int recomputes = 0; recomputes < 2; recomputes++) {
        struct tape *tape = small_tape(device, TAPE_TRAIN);
        struct small_batch first, second;
        struct err err;

        tape_recompute(tape, recomputes);
        small_batch_fill(&first, small_llama.vocab_size, 1);
        small_batch_fill(&second, small_llama.vocab_size, 2);
        model_zero_grad(model);
        for (struct small_batch *b = &first; b; b = b == &first ? &second : NULL) {
            struct model_states states = {0};
            struct loss_values values = {0};
            struct loss_head loss = {.head = model->head, .target = b->target,
                                     .ce_weight = b->weight};

            must(model_forward(tape, model, &b->batch, &states, &err));
            loss.hidden = states.hidden;
            must(loss_head(tape, &loss, &values, &err));
        }
        must(tape_backward(tape, &err));
        grads[recomputes] = small_grads(model);
        tape_free(tape);
    }
    assert_memory_equal(grads[0], grads[1], 4 * (size_t)model->flat_count);
    mem_free(grads[0]);
    mem_free(grads[1]);
    model_free(model);
    device_close(device);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(blocks_computed_again_give_the_same_bits_in_less_memory),
        cmocka_unit_test(states_between_blocks_that_are_computed_again_can_be_read_and_taught),
        cmocka_unit_test(two_forwards_on_one_tape_are_computed_again_each),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
