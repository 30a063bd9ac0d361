/* link: engine-core */
/* recompute_test.c - blocks that are computed again in backward give the same bits, in less. */
#include "tests/unit/engine/small_models.h"

#define LAYERS 12

/* Every family whose training may fold its blocks; with dropout where it has it. */
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
};

struct outcome {
    double loss;
    float *grads;
    uint64_t peak_bytes;
    size_t step_bytes; /* of activations and gradients */
};

static struct outcome run(const struct model_config *config, bool recomputes)
{
    struct device *device = small_device(BACKEND_CPU, 1);
    struct model *model = small_model(device, config, 3);
    struct tape *tape = small_tape(device, TAPE_TRAIN);
    struct small_batch batch;
    struct outcome outcome;

    tape_recompute(tape, recomputes);
    small_batch_fill(&batch, config->vocab_size, 1);
    batch.batch.share = 1;
    batch.batch.dropout_seed = 9;
    small_loss(tape, model, &batch);
    model_zero_grad(model);
    small_loss(tape, model, &batch);
    model_zero_grad(model);
    device->config.memory_limit_bytes = device->used_bytes; /* the third allocates nothing */
    outcome.loss = small_loss(tape, model, &batch);
    outcome.grads = small_grads(model);
    outcome.peak_bytes = device->peak_bytes;
    outcome.step_bytes = tape_bytes(tape);
    tape_free(tape);
    model_free(model);
    device_close(device);
    return outcome;
}

static void blocks_computed_again_give_the_same_bits_in_less_memory(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(folded); i++) {
        struct outcome kept = run(&folded[i], false), again = run(&folded[i], true);

        assert_true(kept.loss == again.loss);
        assert_memory_equal(kept.grads, again.grads, 4 * (size_t)model_weight_count(&folded[i]));
        /* Twelve blocks of about 17 rows of width each against one of them and twelve streams. */
        assert_true(2 * again.step_bytes < kept.step_bytes);
        assert_true(again.peak_bytes < kept.peak_bytes);
        mem_free(kept.grads);
        mem_free(again.grads);
    }
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
        cmocka_unit_test(two_forwards_on_one_tape_are_computed_again_each),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
