/* adapters_test.c - LoRA, dropout, and models made deeper. */
#include "tests/unit/engine/model_checks.h"
#include "worker/engine/lora.h"
#include "worker/engine/optim.h"

#include <stdio.h>
#include <stdlib.h>

static struct model *frozen_copy(struct model *model)
{
    struct model *copy = NULL;
    struct err err;

    must(model_clone_frozen(model, model->device, &copy, &err));
    return copy;
}

static float *logits_of(struct model *model, struct small_batch *b)
{
    struct tape *tape = small_tape(model->device, TAPE_INFER);
    float *logits = mem_array((size_t)(SMALL_N * model->config.vocab_size), sizeof *logits);

    read_logits(tape, model, b, logits);
    tape_free(tape);
    return logits;
}

static double farthest(const float *a, const float *b, int64_t count)
{
    double most = 0;

    for (int64_t i = 0; i < count; i++)
        most = fmax(most, fabs((double)a[i] - b[i]));
    return most;
}

static void train(struct model *model, struct lora *lora, struct small_batch *b, double out[2])
{
    struct tape *tape = small_tape(model->device, TAPE_TRAIN);
    struct optim *optim = NULL;
    double norm;
    struct err err;

    must(optim_new(lora_weights(lora), &(struct optim_config){0}, &optim, &err));
    out[0] = small_loss(tape, model, b);
    for (int step = 0; step < 25; step++) {
        must(optim_step(optim, 1e-2, &norm, &err));
        assert_true(norm > 0);
        out[1] = small_loss(tape, model, b);
    }
    optim_free(optim);
    tape_free(tape);
}

/* Nothing changes at first; only adapters learn; merged, the model alone says the same. */
static void adapters_learn_and_merge(void **state)
{
    static const struct model_config *const configs[] = {&small_gpt2, &small_llama, &small_qwen,
                                                         &small_opt};

    (void)state;
    for (size_t k = 0; k < ARRAY_COUNT(configs); k++) {
        struct device *device = small_device(BACKEND_CPU, 2);
        struct model *whole = small_model(device, configs[k], 3), *model = frozen_copy(whole);
        struct lora_config config = {.rank = 3, .alpha = 6};
        int64_t count = SMALL_N * configs[k]->vocab_size;
        float *before, *start, *learned, *merged;
        double loss[2];
        struct lora *lora = NULL;
        struct small_batch b;
        struct err err;

        small_batch_fill(&b, configs[k]->vocab_size, 8);
        before = logits_of(model, &b);
        must(lora_new(model, &config, 5, &lora, &err));
        start = logits_of(model, &b);
        assert_true(farthest(before, start, count) == 0);
        train(model, lora, &b, loss);
        assert_true(loss[1] < 0.8 * loss[0]);
        learned = logits_of(model, &b);
        lora_merge(lora);
        lora_free(lora);
        merged = logits_of(model, &b);
        assert_true(farthest(learned, before, count) > 0.1);
        assert_true(farthest(learned, merged, count) < 1e-3);
        mem_free(before);
        mem_free(start);
        mem_free(learned);
        mem_free(merged);
        model_free(model);
        model_free(whole);
        device_close(device);
    }
}

/* Adapters of q and v alone, within the matrix that q, k and v are multiplied as: each moved along
 * its gradient changes the loss by the gradient's length. */
static void gradients_of_adapters_match_differences(void **state)
{
    struct device *device = small_device(BACKEND_CPU, 1);
    struct model *whole = small_model(device, &small_llama, 3), *model = frozen_copy(whole);
    struct tape *tape = small_tape(device, TAPE_TRAIN), *infer = small_tape(device, TAPE_INFER);
    struct lora_config config = {.rank = 2, .targets = "q,v"};
    struct lora *lora = NULL;
    struct small_batch b;
    struct model *w;
    float *grads;
    struct err err;

    (void)state;
    must(lora_new(model, &config, 5, &lora, &err));
    w = lora_weights(lora);
    assert_int_equal(w->weight_count, 2 * 2 * small_llama.layers);
    assert_string_equal(w->weight[0].hf_name,
                        "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight");
    small_batch_fill(&b, 53, 8);
    for (int64_t i = 1; i < w->weight_count; i += 2) { /* B away from zero, so that A matters */
        float host[200];
        int64_t count = tensor_count(&w->weight[i].tensor);

        assert_true(count <= 200);
        for (int64_t k = 0; k < count; k++)
            host[k] = (float)(k % 7 - 3) * 0.05f;
        model_weight_write(&w->weight[i], host);
    }
    small_loss(tape, model, &b);
    grads = mem_array((size_t)w->flat_count, 4);
    tensor_read_grad(&w->flat, grads);
    for (int64_t i = 0; i < w->weight_count; i++) {
        struct model_weight *weight = &w->weight[i];
        int64_t count = tensor_count(&weight->tensor);
        const float *g = grads + weight->offset;
        float before[200], moved[200];
        double length = 0, change = 0, step;

        for (int64_t k = 0; k < count; k++)
            length += (double)g[k] * g[k];
        length = sqrt(length);
        assert_true(length > 1e-5);
        step = 1e-3 / length;
        model_weight_read(weight, before);
        for (int sign = -1; sign <= 1; sign += 2) {
            for (int64_t k = 0; k < count; k++)
                moved[k] = (float)(before[k] + sign * step * g[k] / length);
            model_weight_write(weight, moved);
            change += sign * small_loss(infer, model, &b);
        }
        model_weight_write(weight, before);
        if (fabs(change / (2 * step) - length) > 0.02 * length)
            fail_msg("%s: differences give %g, backward %g", weight->name, change / (2 * step),
                     length);
    }
    mem_free(grads);
    tape_free(tape);
    tape_free(infer);
    lora_free(lora);
    model_free(model);
    model_free(whole);
    device_close(device);
}

static void adapters_that_cannot_be_are_refused(void **state)
{
    struct device *device = small_device(BACKEND_CPU, 1);
    struct model *whole = small_model(device, &small_gpt2, 3), *model = frozen_copy(whole);
    struct lora_config config = {.rank = 4, .targets = "nothing"};
    struct lora *lora = NULL;
    struct err err;

    (void)state;
    assert_int_equal(lora_new(model, &config, 1, &lora, &err), -1);
    assert_non_null(strstr(err.text, "no weight is called 'nothing'"));
    config = (struct lora_config){.rank = 32};
    assert_int_equal(lora_new(model, &config, 1, &lora, &err), -1);
    assert_non_null(strstr(err.text, "expected less than both"));
    model_free(model);
    model_free(whole);
    device_close(device);
}

/* Close to p of the elements, others at other sites; only in training; the same bits again. */
static void dropout_depends_on_its_seed_alone(void **state)
{
    struct model_config config = small_gpt2;
    struct device *device = small_device(BACKEND_CPU, 2);
    struct tape *tape = small_tape(device, TAPE_INFER);
    float x[4000], y[4000];
    int zero = 0;
    struct model *model;
    struct small_batch b;
    double with[3];

    (void)state;
    for (int i = 0; i < 4000; i++)
        x[i] = 1;
    tensor_read(op_dropout(tape, tape_f32(tape, x, 40, 100), 0.3, 9, 1), y);
    for (int i = 0; i < 4000; i++) {
        assert_true(y[i] == 0 || fabsf(y[i] - 1 / 0.7f) < 1e-6f);
        zero += y[i] == 0;
    }
    assert_true(abs(zero - 1200) < 120); /* four standard deviations of the binomial */
    config.dropout = 0.3;
    model = small_model(device, &config, 3);
    small_batch_fill(&b, 61, 8);
    with[0] = small_loss(tape, model, &b);
    b.batch.share = 1;
    b.batch.dropout_seed = 7;
    with[1] = small_loss(tape, model, &b);
    with[2] = small_loss(tape, model, &b);
    assert_true(with[1] == with[2] && with[1] != with[0]);
    b.batch.dropout_seed = 8;
    assert_true(small_loss(tape, model, &b) != with[1]);
    model_free(model);
    tape_free(tape);
    device_close(device);
}

static double dropped_loss(struct tape *tape, struct model *model, struct small_batch *b)
{
    b->batch.share = 1;
    b->batch.dropout_seed = 11;
    return small_loss(tape, model, b);
}

static void gradients_through_dropout_match_differences(void **state)
{
    struct model_config config = small_llama;

    (void)state;
    config.dropout = 0.2;
    check_gradients(&config, dropped_loss);
}

static void a_deeper_model_has_copies_of_the_blocks_it_names(void **state)
{
    static const int64_t map[] = {0, 1, 0, 1, 1};
    struct device *device = small_device(BACKEND_CPU, 1);
    struct model *model = small_model(device, &small_llama, 3), *deep = NULL;
    float a[53 * 24], b[53 * 24];
    struct err err;

    (void)state;
    must(model_deepen(model, map, 5, &deep, &err));
    assert_int_equal(deep->config.layers, 5);
    for (int64_t i = 0; i < 5; i++) {
        char from[64], to[64];

        snprintf(from, sizeof from, "block.%lld.down.weight", (long long)map[i]);
        snprintf(to, sizeof to, "block.%lld.down.weight", (long long)i);
        model_weight_read(model_weight_find(model, from), a);
        model_weight_read(model_weight_find(deep, to), b);
        assert_memory_equal(a, b, 24 * 40 * 4);
    }
    model_weight_read(model_weight_find(model, "head"), a);
    model_weight_read(model_weight_find(deep, "head"), b);
    assert_memory_equal(a, b, sizeof a);
    model_free(deep);
    assert_int_equal(model_deepen(model, (int64_t[]){0, 2}, 2, &deep, &err), -1);
    assert_non_null(strstr(err.text, "expected 0..1"));
    model_free(model);
    device_close(device);
}

/* Known tokens keep their rows; new ones are near the mean, and differ. */
static void a_wider_model_knows_its_old_tokens_as_before(void **state)
{
    static const struct model_config *const configs[] = {&small_gpt2, &small_llama};
    struct err err;

    (void)state;
    for (size_t k = 0; k < ARRAY_COUNT(configs); k++) {
        int64_t V = configs[k]->vocab_size, D = configs[k]->width;
        struct device *device = small_device(BACKEND_CPU, 1);
        struct model *model = small_model(device, configs[k], 3), *wide = NULL, *again = NULL;
        float *a, *b;

        must(model_widen(model, V + 3, 5, &wide, &err));
        a = mem_array((size_t)wide->flat_count, 4);
        b = mem_array((size_t)wide->flat_count, 4);
        must(model_widen(model, V + 3, 5, &again, &err));
        assert_int_equal(wide->config.vocab_size, V + 3);
        for (int64_t w = 0; w < model->weight_count; w++) {
            int64_t count = tensor_count(&model->weight[w].tensor);
            model_weight_read(&model->weight[w], a);
            model_weight_read(&wide->weight[w], b);
            assert_memory_equal(a, b, 4 * (size_t)count);
            model_weight_read(&again->weight[w], a);
            assert_memory_equal(a, b, 4 * (size_t)tensor_count(&wide->weight[w].tensor));
            if (tensor_count(&wide->weight[w].tensor) == count)
                continue;
            for (int64_t d = 0; d < D; d++) {
                double mean = 0;
                for (int64_t r = 0; r < V; r++)
                    mean += b[r * D + d] / (double)V;
                assert_true(fabs(b[V * D + d] - mean) < 5 * configs[k]->init_std + 1e-6);
            }
            assert_memory_not_equal(b + V * D, b + (V + 1) * D, 4 * (size_t)D);
        }
        assert_int_equal(model_widen(model, V - 1, 5, &again, &err), -1);
        mem_free(a);
        mem_free(b);
        model_free(again);
        model_free(wide);
        model_free(model);
        device_close(device);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(adapters_learn_and_merge),
        cmocka_unit_test(gradients_of_adapters_match_differences),
        cmocka_unit_test(adapters_that_cannot_be_are_refused),
        cmocka_unit_test(dropout_depends_on_its_seed_alone),
        cmocka_unit_test(gradients_through_dropout_match_differences),
        cmocka_unit_test(a_wider_model_knows_its_old_tokens_as_before),
        cmocka_unit_test(a_deeper_model_has_copies_of_the_blocks_it_names),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
