/* packed_test.c - copies of weights: when they are made, what they take, and that nothing shows. */
#include "tests/unit/engine/small_models.h"
#include "worker/engine/generate.h"
#include "worker/engine/optim.h"
#include "worker/engine/packed.h"

#define TOKENS 12
#define TEXTS  3

static const int32_t words[] = {3, 1, 4, 1, 5, 9};

/* Draws texts at random, so that any change of a probability tends to show. */
static void write_texts(const struct model *model, int32_t out[TEXTS][TOKENS])
{
    struct sampling sampling = {.stop_token = -1, .temperature = 1, .seed = 5};
    struct generation texts[TEXTS];
    struct prompt prompts[TEXTS];
    struct err err;

    for (int i = 0; i < TEXTS; i++) {
        texts[i] = (struct generation){.token = out[i], .index = (uint64_t)i};
        prompts[i] = (struct prompt){words + i, 3};
    }
    must(generate(model, prompts, texts, TEXTS, TOKENS, &sampling, &err));
    for (int i = 0; i < TEXTS; i++)
        assert_int_equal(texts[i].count, TOKENS);
}

/* Hidden states of one more pass, bit for bit. */
static void read_states(const struct model *model, float *out)
{
    struct model_batch batch = {.B = 1, .T = 6, .token = words};
    struct tape *tape = small_tape(model->device, TAPE_INFER);
    struct model_states states = {0};
    struct err err;

    must(model_forward(tape, model, &batch, &states, &err));
    tensor_read(model_logits(tape, model, states.hidden), out);
    tape_free(tape);
}

static void copies_are_counted_and_change_no_bit(void **state)
{
    static const struct model_config *const configs[] = {&small_gpt2, &small_llama};

    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(configs); i++) {
        struct device *with = small_device(BACKEND_CPU, 2), *without = small_device(BACKEND_CPU, 1);
        struct model *model, *plain;
        int32_t text[TEXTS][TOKENS], expected[TEXTS][TOKENS];
        float got[6 * 64], wanted[6 * 64];
        size_t logits_bytes = 4 * 6 * (size_t)configs[i]->vocab_size;
        uint64_t before;

        without->config.memory_bytes = 1;
        model = small_model(with, configs[i], 4);
        plain = small_model(without, configs[i], 4);
        before = with->used_bytes;
        write_texts(model, text);
        write_texts(plain, expected);
        assert_memory_equal(text, expected, sizeof text);
        read_states(model, got);
        read_states(plain, wanted);
        assert_memory_equal(got, wanted, logits_bytes);
        assert_int_equal(packed_bytes(without), 0);
        assert_true(packed_bytes(with) >= 2 * 4 * (uint64_t)(configs[i]->width * 24));
        assert_true(with->used_bytes >= before + packed_bytes(with));
        model_free(model);
        assert_int_equal(packed_bytes(with), 0);
        assert_int_equal(with->used_bytes, with->scratch_bytes);
        model_free(plain);
        device_close(with);
        device_close(without);
    }
}

static void fill_gradient(struct model *model)
{
    float *grad = mem_array((size_t)model->flat_count, sizeof *grad);

    for (int64_t i = 0; i < model->flat_count; i++)
        grad[i] = (float)(i % 7 - 3);
    model->device->backend->from_host(model->device, model->flat.grad, grad,
                                      4 * (size_t)model->flat_count);
    mem_free(grad);
}

/* After each way of writing weights: as a model that never had copies of others. */
static void weights_written_since_are_those_that_count(void **state)
{
    struct device *device = small_device(BACKEND_CPU, 2), *other = small_device(BACKEND_CPU, 2);
    struct model *model = small_model(device, &small_gpt2, 4), *same;
    struct optim_config adamw = {.clip_norm = 1};
    float before[6 * 64], got[6 * 64], wanted[6 * 64], row[32] = {1, -2, 3};
    size_t logits_bytes = 4 * 6 * (size_t)small_gpt2.vocab_size;
    int32_t text[TEXTS][TOKENS];
    struct optim *optim;
    double norm;
    struct err err;

    (void)state;
    must(optim_new(model, &adamw, &optim, &err));
    write_texts(model, text);
    read_states(model, before);
    for (int way = 0; way < 2; way++) {
        assert_true(packed_bytes(device) > 0);
        if (way == 0) {
            fill_gradient(model);
            must(optim_step(optim, 0.01, &norm, &err));
        } else {
            struct model_weight *weight = model_weight_find(model, "block.1.proj.weight");
            float *host = mem_array((size_t)tensor_count(&weight->tensor), sizeof *host);

            model_weight_read(weight, host);
            memcpy(host, row, sizeof row);
            model_weight_write(weight, host);
            mem_free(host);
        }
        read_states(model, got);
        assert_memory_not_equal(got, before, logits_bytes);
        must(model_clone_frozen(model, other, &same, &err));
        read_states(same, wanted);
        assert_memory_equal(got, wanted, logits_bytes);
        write_texts(model, text); /* copies again */
        read_states(model, got);
        assert_memory_equal(got, wanted, logits_bytes);
        memcpy(before, got, sizeof got);
        model_free(same);
    }
    optim_free(optim);
    model_free(model);
    device_close(device);
    device_close(other);
}

static void copies_give_way_when_memory_is_short(void **state)
{
    struct device *device = small_device(BACKEND_CPU, 1);
    struct model *model = small_model(device, &small_gpt2, 4);
    int32_t text[TEXTS][TOKENS], again[TEXTS][TOKENS];
    uint64_t copies, used;
    struct err err;
    void *memory;

    (void)state;
    write_texts(model, text);
    copies = packed_bytes(device);
    used = device->used_bytes;
    assert_true(copies > 0);
    device->config.memory_limit_bytes = used + 10;
    must(device_alloc(device, copies, &memory, &err));
    assert_int_equal(packed_bytes(device), 0);
    assert_int_equal(device->used_bytes, used);
    assert_int_equal(device_alloc(device, copies, &memory, &err), -1);
    assert_int_equal(err.kind, ERR_MEMORY);
    device->config.memory_limit_bytes = 0;
    write_texts(model, again);
    assert_memory_equal(text, again, sizeof text);
    assert_int_equal(packed_bytes(device), 0); /* and are not made again */
    device_release(device, memory, copies);
    model_free(model);
    device_close(device);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(copies_are_counted_and_change_no_bit),
        cmocka_unit_test(weights_written_since_are_those_that_count),
        cmocka_unit_test(copies_give_way_when_memory_is_short),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
