/* optim_test.c - updates, clipping, divergence, schedules, shares of threads. */
#include "tests/unit/engine/small_models.h"
#include "worker/engine/optim.h"
#include "worker/engine/threads.h"

#include <math.h>

static void set_grads(struct model *model, float value)
{
    float *grads = mem_array((size_t)model->flat_count, 4);

    for (int64_t i = 0; i < model->flat_count; i++)
        grads[i] = value;
    model->device->backend->from_host(model->device, model->flat.grad, grads,
                                      4 * (size_t)model->flat_count);
    mem_free(grads);
}

/* The first AdamW step moves by the learning rate against the gradient's sign; decay touches
 * matrices only; gradients are zero afterwards. */
static void the_first_update_moves_by_the_learning_rate(void **state)
{
    struct device *device = small_device(BACKEND_CPU, 2);
    struct model *model = small_model(device, &small_gpt2, 1);
    struct optim_config config = {.weight_decay = 0.5};
    struct optim *optim = NULL;
    float gain[32], before[32 * 32], after[32 * 32], *grads;
    double norm;
    struct err err;

    (void)state;
    must(optim_new(model, &config, &optim, &err));
    model_weight_read(model_weight_find(model, "block.0.proj.weight"), before);
    set_grads(model, 0.01f);
    must(optim_step(optim, 0.1, &norm, &err));
    assert_true(fabs(norm - 0.01 * sqrt((double)model->flat_count)) < 1e-4);
    model_weight_read(model_weight_find(model, "lnf.weight"), gain);
    model_weight_read(model_weight_find(model, "block.0.proj.weight"), after);
    assert_true(fabsf(gain[5] - 0.9f) < 1e-5f);
    assert_true(fabsf(after[7] - (before[7] * 0.95f - 0.1f)) < 1e-5f);
    grads = small_grads(model);
    for (int64_t i = 0; i < model->flat_count; i++)
        assert_true(grads[i] == 0);
    assert_int_equal(optim->step, 1);
    mem_free(grads);
    optim_free(optim);
    model_free(model);
    device_close(device);
}

static void clipping_scales_the_gradient_to_the_norm(void **state)
{
    struct device *device = small_device(BACKEND_CPU, 1);
    struct model *model = small_model(device, &small_gpt2, 1);
    struct optim_config config = {.clip_norm = 0.5};
    struct optim *optim = NULL;
    float *m = mem_array((size_t)model->flat_count, 4);
    double norm, length = 0;
    struct err err;

    (void)state;
    must(optim_new(model, &config, &optim, &err));
    set_grads(model, 2.0f);
    must(optim_step(optim, 0.1, &norm, &err));
    tensor_read(&optim->m, m);
    for (int64_t i = 0; i < model->flat_count; i++)
        length += (double)m[i] * m[i];
    assert_true(fabs(sqrt(length) / (1 - 0.9) - 0.5) < 1e-4);
    mem_free(m);
    optim_free(optim);
    model_free(model);
    device_close(device);
}

static void a_gradient_that_is_not_finite_changes_nothing(void **state)
{
    struct device *device = small_device(BACKEND_CPU, 1);
    struct model *model = small_model(device, &small_gpt2, 1);
    size_t size_bytes = 4 * (size_t)model->flat_count;
    float *before = mem_alloc(size_bytes), *after = mem_alloc(size_bytes);
    struct optim *optim = NULL;
    double norm;
    struct err err;

    (void)state;
    must(optim_new(model, &(struct optim_config){.clip_norm = 1}, &optim, &err));
    tensor_read(&model->flat, before);
    set_grads(model, NAN);
    assert_int_equal(optim_step(optim, 0.1, &norm, &err), -1);
    assert_int_equal(err.kind, ERR_LIMIT);
    tensor_read(&model->flat, after);
    assert_memory_equal(before, after, size_bytes);
    assert_int_equal(optim->step, 0);
    mem_free(before);
    mem_free(after);
    optim_free(optim);
    model_free(model);
    device_close(device);
}

static void near(double got, double expected)
{
    if (fabs(got - expected) > 1e-12)
        fail_msg("rate %.12f, expected %.12f", got, expected);
}

static void schedules_start_peak_and_end_where_they_say(void **state)
{
    struct schedule_config c = {.learning_rate = 2, .final_fraction = 0.1, .steps = 101,
                                .warmup_steps = 10};

    (void)state;
    for (int kind = SCHEDULE_CONSTANT; kind < SCHEDULE_END; kind++) {
        c.kind = (enum schedule)kind;
        near(schedule_rate(&c, 0), 0.2);
        near(schedule_rate(&c, 9), 2);
        near(schedule_rate(&c, 10), 2);
        near(schedule_rate(&c, 100), kind == SCHEDULE_CONSTANT ? 2 : 0.2);
        near(schedule_rate(&c, 5000), kind == SCHEDULE_CONSTANT ? 2 : 0.2);
    }
    c.kind = SCHEDULE_LINEAR;
    near(schedule_rate(&c, 55), 1.1);
    c.kind = SCHEDULE_COSINE;
    near(schedule_rate(&c, 55), 1.1);
    c.kind = SCHEDULE_WSD;
    near(schedule_rate(&c, 80), 2);
    near(schedule_rate(&c, 90), 1.1);
}

static void count_share(void *argument, int64_t from, int64_t to, unsigned thread)
{
    int32_t *seen = argument;

    (void)thread;
    for (int64_t i = from; i < to; i++)
        seen[i]++;
}

static void shares_cover_every_item_once(void **state)
{
    struct threads *threads = NULL;
    struct err err;

    (void)state;
    must(threads_new(4, &threads, &err));
    for (int64_t items = 0; items < 300; items++) {
        int32_t seen[300] = {0};

        threads_run(threads, items, 1 + items % 9, count_share, seen);
        for (int64_t i = 0; i < 300; i++)
            assert_int_equal(seen[i], i < items);
    }
    threads_free(threads);
    assert_int_equal(threads_new(0, &threads, &err), -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_first_update_moves_by_the_learning_rate),
        cmocka_unit_test(clipping_scales_the_gradient_to_the_norm),
        cmocka_unit_test(a_gradient_that_is_not_finite_changes_nothing),
        cmocka_unit_test(schedules_start_peak_and_end_where_they_say),
        cmocka_unit_test(shares_cover_every_item_once),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
