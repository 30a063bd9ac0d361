/* small_models.h - tiny models and batches that the engine's tests share. */
#ifndef ATHANOR_TESTS_SMALL_MODELS_H
#define ATHANOR_TESTS_SMALL_MODELS_H

#include "common/base/mem.h"
#include "common/base/rng.h"
#include "worker/engine/model.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include <string.h>

#define must(rc) \
    do { \
        if ((rc) != 0) \
            fail_msg("%s: %s", #rc, err.text); \
    } while (0)

static const struct model_config small_gpt2 = {
    .family = MODEL_GPT2, .vocab_size = 61, .context = 24, .width = 32, .layers = 2, .heads = 4,
    .init_std = 0.2, .tied = true, .bos_token = -1, .eos_token = -1};

static const struct model_config small_llama = {
    .family = MODEL_LLAMA, .vocab_size = 53, .context = 24, .width = 24, .layers = 2, .heads = 6,
    .kv_heads = 2, .head_width = 8, .ffn_width = 40, .init_std = 0.2, .bos_token = -1,
    .eos_token = -1};

static const struct model_config small_qwen = {
    .family = MODEL_LLAMA, .vocab_size = 53, .context = 24, .width = 24, .layers = 2, .heads = 6,
    .kv_heads = 2, .head_width = 8, .ffn_width = 40, .init_std = 0.2, .tied = true,
    .qkv_bias = true, .rope = {ROPE_YARN, 4, .slow = 1, .fast = 32, .original = 128},
    .bos_token = -1, .eos_token = -1};

static const struct model_config small_opt = {
    .family = MODEL_OPT, .vocab_size = 61, .context = 24, .width = 32, .layers = 2, .heads = 4,
    .init_std = 0.2, .tied = true, .bos_token = -1, .eos_token = -1};

/* As OPT's 350M differs from the others. */
static const struct model_config small_opt_350m = {
    .family = MODEL_OPT, .vocab_size = 61, .context = 24, .width = 24, .layers = 2, .heads = 3,
    .ffn_width = 40, .embed_width = 16, .post_norm = true, .init_std = 0.2, .tied = true,
    .bos_token = -1, .eos_token = -1};

static inline struct device *small_device(enum backend_kind kind, unsigned threads)
{
    struct device_config config = {.kind = kind, .threads = threads};
    struct device *device = NULL;
    struct err err;

    must(device_open(&config, &device, &err));
    return device;
}

static inline struct model *small_model(struct device *device, const struct model_config *config,
                                        uint64_t seed)
{
    struct model *model = NULL;
    struct err err;

    must(model_new(device, config, seed, &model, &err));
    return model;
}

static inline struct tape *small_tape(struct device *device, enum tape_mode mode)
{
    struct tape *tape = NULL;
    struct err err;

    must(tape_new(device, mode, &tape, &err));
    return tape;
}

#define SMALL_B 3
#define SMALL_T 20
#define SMALL_N (SMALL_B * SMALL_T)

/* Tokens, next-token targets (some ignored) and uniform weights. */
struct small_batch {
    int32_t token[SMALL_N], target[SMALL_N];
    float weight[SMALL_N];
    struct model_batch batch;
};

static inline void small_batch_fill(struct small_batch *b, int64_t vocab, uint64_t seed)
{
    struct rng rng;

    rng_init(&rng, seed);
    for (int i = 0; i < SMALL_N; i++)
        b->token[i] = (int32_t)rng_below(&rng, (uint64_t)vocab);
    for (int i = 0; i < SMALL_N; i++) {
        bool last = i % SMALL_T == SMALL_T - 1;

        b->target[i] = last || i % 5 == 0 ? -1 : b->token[i + 1];
        b->weight[i] = 1.0f / SMALL_N;
    }
    b->batch = (struct model_batch){.B = SMALL_B, .T = SMALL_T, .token = b->token};
}

/* Forward and head loss; on a TAPE_TRAIN tape also backward. */
static inline double small_loss(struct tape *tape, struct model *model, struct small_batch *b)
{
    struct model_states states = {0};
    struct loss_values values = {0};
    struct loss_head loss = {.head = model->head, .target = b->target, .ce_weight = b->weight};
    struct err err;

    tape_reset(tape);
    must(model_forward(tape, model, &b->batch, &states, &err));
    loss.hidden = states.hidden;
    must(loss_head(tape, &loss, &values, &err));
    if (tape_records(tape))
        must(tape_backward(tape, &err));
    return values.total;
}

static inline float *small_grads(const struct model *model)
{
    float *grads = mem_array((size_t)model->flat_count, sizeof *grads);

    tensor_read_grad(&model->flat, grads);
    return grads;
}

#endif
