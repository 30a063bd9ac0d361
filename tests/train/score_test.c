/* score_test.c - a document scores the same alone and among others in packed rows. */
#include "common/base/rng.h"
#include "worker/engine/comm.h"
#include "worker/recipes/score.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#define DOCUMENTS 40
#define LENGTH    32
#define WORDS     61

static struct err err;

#define OK(call)                                                                                   \
    do {                                                                                           \
        if ((call) < 0)                                                                            \
            fail_msg("%s: %s", #call, err.text);                                                   \
    } while (0)

/* Lengths 1..24, and arbitrary tokens: a function of the number. */
static int64_t fill(void *argument, int64_t number, int64_t T, int32_t *token, int32_t *target)
{
    int64_t count = 1 + (int64_t)(rng_at(1, (uint64_t)number, 0) % 24);

    (void)argument;
    assert_true(count <= T);
    for (int64_t i = 0; i < count; i++) {
        token[i] = (int32_t)(rng_at(2, (uint64_t)number, (uint64_t)i) % WORDS);
        target[i] = (int32_t)(rng_at(2, (uint64_t)number, (uint64_t)i + 1) % WORDS);
    }
    return count;
}

static double alone(struct device *device, const struct model *model, int64_t number)
{
    int32_t token[LENGTH], target[LENGTH];
    int64_t count = fill(NULL, number, LENGTH, token, target);
    struct model_batch batch = {.B = 1, .T = count, .token = token};
    struct model_states states = {0};
    float nll[LENGTH];
    struct tape *tape = NULL;
    double sum = 0;

    OK(tape_new(device, TAPE_INFER, &tape, &err));
    OK(model_forward(tape, model, &batch, &states, &err));
    OK(loss_nll(tape, states.hidden, model->head, target, nll, &err));
    tape_free(tape);
    for (int64_t i = 0; i < count; i++)
        sum += (double)nll[i];
    return sum;
}

static void check_family(enum model_family family)
{
    struct device_config where = {.kind = BACKEND_CPU, .threads = 1};
    struct model_config shape = {.family = family,
                                 .vocab_size = WORDS,
                                 .context = LENGTH,
                                 .width = 32,
                                 .layers = 2,
                                 .heads = 4,
                                 .tied = true,
                                 .bos_token = -1,
                                 .eos_token = -1,
                                 .init_std = 0.3};
    struct score_source source = {DOCUMENTS, DOCUMENTS, fill, NULL};
    struct device *device = NULL;
    struct model *model = NULL;
    struct comm *comm = NULL;
    struct scorer scorer = {0};
    double packed[DOCUMENTS];

    OK(device_open(&where, &device, &err));
    OK(comm_open(&comm, &err));
    OK(model_config_complete(&shape, &err));
    OK(model_new(device, &shape, 4, &model, &err));
    OK(scorer_open(comm, device, LENGTH, &scorer, &err));
    OK(score_each(&scorer, &source, model, packed, &err));
    for (int64_t number = 0; number < DOCUMENTS; number++) {
        double lone = alone(device, model, number);

        /* float32 sums of another length: the last bits may differ */
        assert_float_equal(packed[number], lone, 1e-5 * fmax(1, lone));
    }
    scorer_close(&scorer);
    model_free(model);
    comm_close(comm);
    device_close(device);
}

static void neighbours_in_a_row_change_nothing(void **state)
{
    (void)state;
    check_family(MODEL_GPT2);
    check_family(MODEL_LLAMA);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(neighbours_in_a_row_change_nothing)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
