/* link: engine-core */
/* allocations_test.c - a training step that was made before takes no memory from the heap.
 *
 * malloc and its kin are this program's own, so calls of every library are counted too (the BLAS,
 * C's). Sanitizers bring an allocator themselves; there the test is skipped. */
#include "tests/unit/engine/small_models.h"
#include "worker/engine/encoder.h"
#include "worker/engine/optim.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define COUNTS 0
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define COUNTS 0
#endif
#endif
#ifndef COUNTS
#define COUNTS 1
#endif

static atomic_int counting, taken;

#if COUNTS
/* glibc's own, under the names that stay when malloc is replaced. */
void *__libc_malloc(size_t size);
void *__libc_calloc(size_t count, size_t size);
void *__libc_realloc(void *memory, size_t size);
void *__libc_memalign(size_t align, size_t size);

void *malloc(size_t size)
{
    taken += counting;
    return __libc_malloc(size);
}

void *calloc(size_t count, size_t size)
{
    taken += counting;
    return __libc_calloc(count, size);
}

void *realloc(void *memory, size_t size)
{
    taken += counting;
    return __libc_realloc(memory, size);
}

void *aligned_alloc(size_t align, size_t size)
{
    taken += counting;
    return __libc_memalign(align, size);
}

int posix_memalign(void **out, size_t align, size_t size)
{
    taken += counting;
    *out = __libc_memalign(align, size);
    return *out ? 0 : ENOMEM;
}
#endif

static int skips(void)
{
    if (COUNTS)
        return 0;
    print_message("skipped: a sanitizer brings its own allocator\n");
    return 1;
}

#define ROWS 10
#define COLUMNS 20
#define CELLS (ROWS * COLUMNS) /* more rows than the engine multiplies without the BLAS */
#define WIDTH 32

/* Every family with what it works out on the host: positions, windows, biases, slopes, lengths. */
static const struct model_config configs[] = {
    {.family = MODEL_GPT2, .vocab_size = 61, .context = 24, .width = WIDTH, .layers = 2,
     .heads = 4, .tied = true, .dropout = 0.1},
    {.family = MODEL_OPT, .vocab_size = 61, .context = 24, .width = WIDTH, .layers = 2,
     .heads = 4, .embed_width = 16, .post_norm = true, .tied = true},
    {.family = MODEL_LLAMA, .vocab_size = 61, .context = 24, .width = WIDTH, .layers = 2,
     .heads = 4, .kv_heads = 2, .window = 9},
    {.family = MODEL_LLAMA, .vocab_size = 61, .context = 24, .width = WIDTH, .layers = 2,
     .heads = 4, .alibi = true},
    {.family = MODEL_MOE, .vocab_size = 61, .context = 24, .width = WIDTH, .layers = 2,
     .heads = 4, .ffn_width = 16, .experts = 5, .capacity_factor = 1.1,
     .balance_loss = 0.1, .z_loss = 0.1, .shared_experts = 1},
    {.family = MODEL_TRANSNORMER, .vocab_size = 61, .context = 24, .width = WIDTH, .layers = 2,
     .heads = 4, .ffn_width = 48},
    {.family = MODEL_BERT, .vocab_size = 61, .context = 24, .width = WIDTH, .layers = 2,
     .heads = 4},
    {.family = MODEL_T5, .vocab_size = 61, .context = 24, .width = WIDTH, .layers = 2,
     .heads = 4},
    {.family = MODEL_KONA, .vocab_size = 61, .context = 24, .width = WIDTH, .layers = 2,
     .heads = 4},
};

struct training {
    struct device *device;
    struct model *model;
    struct tape *tape;
    struct optim *optim;
    struct model_batch batch;
    int32_t token[CELLS], target[CELLS], length[ROWS];
    float weight[CELLS];
};

/* Every fifth token is not predicted, so that rows of the head are picked. */
static void fill(struct training *t, const struct model_config *config)
{
    for (int i = 0; i < CELLS; i++) {
        t->token[i] = (int32_t)(rng_at(1, (uint64_t)i, 0) % (uint64_t)config->vocab_size);
        t->target[i] = i % 5 == 0 ? -1 : (t->token[i] + 1) % (int32_t)config->vocab_size;
        t->weight[i] = 1.0f / CELLS;
    }
    for (int b = 0; b < ROWS; b++)
        t->length[b] = COLUMNS - b;
    t->batch = (struct model_batch){.B = ROWS, .T = COLUMNS, .token = t->token, .share = 1,
                                    .S = COLUMNS, .source = t->token,
                                    .source_length = t->length};
    if (config->family == MODEL_BERT || config->family == MODEL_KONA)
        t->batch.length = t->length;
}

static void training_open(struct training *t, const struct model_config *config, bool recomputes)
{
    struct optim_config adamw = {.weight_decay = 0.1, .clip_norm = 1};
    struct err err;

    memset(t, 0, sizeof *t);
    t->device = small_device(BACKEND_CPU, 2);
    t->model = small_model(t->device, config, 1);
    t->tape = small_tape(t->device, TAPE_TRAIN);
    tape_recompute(t->tape, recomputes);
    must(optim_new(t->model, &adamw, &t->optim, &err));
    fill(t, config);
}

static void training_close(struct training *t)
{
    optim_free(t->optim);
    tape_free(t->tape);
    model_free(t->model);
    device_close(t->device);
}

/* As a trainer makes it, with a gradient from outside beside the loss; an encoder that is no
 * language model has only that. */
static void train_step(struct training *t)
{
    static float ones[CELLS * WIDTH];
    struct tensor *layer[3], *route[2], *vector;
    struct model_states states = {.layer = layer, .route = route};
    struct loss_head loss = {.head = t->model->head, .target = t->target,
                             .ce_weight = t->weight};
    struct loss_values values = {0};
    double norm;
    struct err err;

    for (int i = 0; i < CELLS * WIDTH; i++)
        ones[i] = 0.01f;
    tape_reset(t->tape);
    must(model_forward(t->tape, t->model, &t->batch, &states, &err));
    tape_seed(t->tape, layer[1], ones);
    tape_seed(t->tape, layer[1], ones);
    if (t->model->config.family == MODEL_KONA) {
        vector = encoder_pool(t->tape, t->model, &t->batch, states.hidden, ENCODER_OWN, true);
        tape_seed(t->tape, vector, ones);
    } else {
        loss.hidden = states.hidden;
        must(loss_head(t->tape, &loss, &values, &err));
        assert_true(values.total > 0);
    }
    must(tape_backward(t->tape, &err));
    must(optim_step(t->optim, 1e-3, &norm, &err));
}

static int allocations_of_a_step(const struct model_config *config, bool recomputes)
{
    struct training training;

    training_open(&training, config, recomputes);
    train_step(&training);
    tape_reset(training.tape); /* as a trainer ends a step: the blocks become one */
    taken = 0;
    counting = 1;
    train_step(&training);
    tape_reset(training.tape);
    train_step(&training);
    counting = 0;
    training_close(&training);
    return taken;
}

static void a_training_step_takes_nothing_from_the_heap_after_the_first(void **state)
{
    (void)state;
    if (skips())
        skip();
    for (size_t i = 0; i < ARRAY_COUNT(configs); i++)
        for (int recomputes = 0; recomputes < 2; recomputes++) {
            int count = allocations_of_a_step(&configs[i], recomputes);

            if (count != 0)
                fail_msg("configuration %zu (%s%s): %d allocations in two steps", i,
                         model_family_name(configs[i].family), recomputes ? ", recomputed" : "",
                         count);
        }
}

static void the_counter_sees_this_program_and_its_libraries(void **state)
{
    void *(*volatile take)(size_t) = malloc;
    char *(*volatile copy)(const char *) = strdup;
    char text[64];
    FILE *stream;

    (void)state;
    if (skips())
        skip();
    taken = 0;
    counting = 1;
    free(take(100));
    free(copy("in the C library"));
    stream = fmemopen(text, sizeof text, "w");
    counting = 0;
    assert_non_null(stream);
    fclose(stream);
    assert_true(taken >= 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_counter_sees_this_program_and_its_libraries),
        cmocka_unit_test(a_training_step_takes_nothing_from_the_heap_after_the_first),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
