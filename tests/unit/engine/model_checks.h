/* model_checks.h - what must hold for every architecture: gradients, and agreement of backends. */
#ifndef ATHANOR_TESTS_MODEL_CHECKS_H
#define ATHANOR_TESTS_MODEL_CHECKS_H

#include "tests/unit/engine/small_models.h"
#include "worker/engine/optim.h"

#include <math.h>

/* Forward and a loss; on a TAPE_TRAIN tape also backward. */
typedef double (*small_loss_function)(struct tape *tape, struct model *model,
                                      struct small_batch *batch);

/* Moves each weight tensor along its own gradient, up and down, and compares the change of
 * the loss with the gradient's length. 1 %: f32 losses of about 4 carry 5e-7 of rounding,
 * over a change of at least 1e-3, and the second step of the expansion. */
static inline void check_gradients(const struct model_config *config, small_loss_function loss)
{
    struct device *device = small_device(BACKEND_CPU, 2);
    struct model *model = small_model(device, config, 3);
    struct tape *train = small_tape(device, TAPE_TRAIN), *infer = small_tape(device, TAPE_INFER);
    struct small_batch batch;
    float *grads;

    small_batch_fill(&batch, config->vocab_size, 5);
    loss(train, model, &batch);
    grads = small_grads(model);
    for (int64_t w = 0; w < model->weight_count; w++) {
        struct model_weight *weight = &model->weight[w];
        int64_t count = tensor_count(&weight->tensor);
        float *before = mem_array((size_t)count, 4), *moved = mem_array((size_t)count, 4);
        const float *g = grads + weight->offset;
        double length = 0, step, change = 0;

        for (int64_t i = 0; i < count; i++)
            length += (double)g[i] * g[i];
        length = sqrt(length);
        /* Unless positions turn it, it adds the same to all scores: no effect. */
        if (strstr(weight->name, ".k.bias") && config->family != MODEL_LLAMA) {
            assert_true(length < 1e-5);
            mem_free(before);
            mem_free(moved);
            continue;
        }
        assert_true(length > 1e-6);
        /* Angles are multiplied by positions, so the loss bends sooner along them; and ReLU has a
         * corner, which fewer units cross in a shorter step. */
        bool bends = strstr(weight->name, ".angles") || config->family == MODEL_OPT;

        step = (bends ? 4e-4 : 2e-3) / length;
        model_weight_read(weight, before);
        for (int sign = -1; sign <= 1; sign += 2) {
            for (int64_t i = 0; i < count; i++)
                moved[i] = (float)(before[i] + sign * step * g[i] / length);
            model_weight_write(weight, moved);
            change += sign * loss(infer, model, &batch);
        }
        model_weight_write(weight, before);
        if (fabs(change / (2 * step) - length) > 0.01 * length)
            fail_msg("%s: differences give %g, backward %g", weight->name, change / (2 * step),
                     length);
        mem_free(before);
        mem_free(moved);
    }
    mem_free(grads);
    tape_free(train);
    tape_free(infer);
    model_free(model);
    device_close(device);
}

static inline void read_logits(struct tape *tape, struct model *model, struct small_batch *b,
                               float *out)
{
    struct model_states states = {0};
    struct tensor *logits;
    struct err err;

    tape_reset(tape);
    must(model_forward(tape, model, &b->batch, &states, &err));
    logits = model_logits(tape, model, states.hidden);
    must(tape_check(tape, &err));
    tensor_read(logits, out);
}

/* The loss within 1e-5 of itself, each gradient tensor within 1e-3 of its largest entry: what
 * f32 sums of this depth keep, against sums in double. */
static inline void check_agreement(const struct model_config *config, small_loss_function loss)
{
    struct device *device[2] = {small_device(BACKEND_REFERENCE, 1), small_device(BACKEND_CPU, 2)};
    struct small_batch batch;
    struct model *model[2];
    double value[2];
    float *grads[2];

    small_batch_fill(&batch, config->vocab_size, 5);
    for (int k = 0; k < 2; k++) {
        struct tape *tape = small_tape(device[k], TAPE_TRAIN);

        model[k] = small_model(device[k], config, 3);
        value[k] = loss(tape, model[k], &batch);
        grads[k] = small_grads(model[k]);
        tape_free(tape);
    }
    assert_true(fabs(value[0] - value[1]) <= 1e-5 * fabs(value[0]));
    for (int64_t w = 0; w < model[0]->weight_count; w++) {
        struct model_weight *weight = &model[0]->weight[w];
        float most = 0, scale = 0;

        for (int64_t i = weight->offset; i < weight->offset + tensor_count(&weight->tensor); i++) {
            most = fmaxf(most, fabsf(grads[0][i] - grads[1][i]));
            scale = fmaxf(scale, fabsf(grads[0][i]));
        }
        if (!(most <= 1e-3f * scale + 1e-6f)) /* some gradients are zero but for rounding */
            fail_msg("%s: gradients differ by %g of %g", weight->name, (double)most,
                     (double)scale);
    }
    for (int k = 0; k < 2; k++) {
        mem_free(grads[k]);
        model_free(model[k]);
        device_close(device[k]);
    }
}

/* Two steps of training with AdamW; the third finds no byte more, and needs none. */
static inline void check_memory(const struct model_config *config, small_loss_function loss)
{
    struct device *device = small_device(BACKEND_CPU, 2);
    struct model *model = small_model(device, config, 3);
    struct tape *tape = small_tape(device, TAPE_TRAIN);
    struct optim_config adamw = {.weight_decay = 0.1, .clip_norm = 1};
    struct optim *optim = NULL;
    struct err err;

    must(optim_new(model, &adamw, &optim, &err));
    for (int step = 0; step < 4; step++) {
        uint64_t used_bytes = device->used_bytes, peak_bytes = device->peak_bytes;
        struct small_batch batch;
        double norm;

        if (step >= 2)
            device->config.memory_limit_bytes = used_bytes;
        small_batch_fill(&batch, config->vocab_size, (uint64_t)step);
        loss(tape, model, &batch);
        must(optim_step(optim, 1e-2, &norm, &err));
        if (step >= 2) {
            assert_int_equal(device->used_bytes, used_bytes);
            assert_int_equal(device->peak_bytes, peak_bytes);
        }
    }
    optim_free(optim);
    tape_free(tape);
    model_free(model);
    assert_int_equal(device->used_bytes, device->scratch_bytes);
    device_close(device);
}

#endif
