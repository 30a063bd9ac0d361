/* sourced_test.c - documents as sources and targets. */
#include "tests/unit/engine/small_models.h"
#include "worker/recipes/sourced.h"

#include <math.h>

#define END 46 /* of text */
#define TO  9  /* separator */

static const struct model_config small_t5 = {
    .family = MODEL_T5, .vocab_size = 47, .context = 24, .width = 24, .layers = 2, .heads = 3,
    .init_std = 0.2, .bos_token = -1, .eos_token = END};

/* Two documents as corpus_document gives them: prompts masked, the separator's cell the first
 * with a target; and one that was cut before its response. */
static const int32_t first[] = {END, 3, 4, 5, TO, 6, 7}, first_to[] = {-1, -1, -1, -1, 6, 7, END};
static const int32_t second[] = {END, 8, TO, 2, 1, 5}, second_to[] = {-1, -1, 2, 1, 5, END};
static const int32_t cut[] = {END, 5, 5}, cut_to[] = {-1, -1, -1};

static void start(struct pack *pack)
{
    struct err err;

    must(pack_init(pack, 24, 2, &err));
}

static void a_prompt_loses_its_separator_and_ends_like_a_text(void **state)
{
    static const int32_t want[] = {3, 4, 5, END};
    int32_t out[7];

    (void)state;
    assert_int_equal(sourced_prompt(first, 5, out), 4);
    assert_memory_equal(out, want, sizeof want);
    memcpy(out, first, sizeof first);
    assert_int_equal(sourced_prompt(out, 5, out), 4); /* in place */
    assert_memory_equal(out, want, sizeof want);
    assert_int_equal(sourced_prompt(first, 1, out), 1); /* nothing but the start */
    assert_int_equal(out[0], END);
}

static void documents_become_rows_of_sources_and_targets(void **state)
{
    static const int32_t source[] = {3, 4, 5, END, 8, END, 0, 0, 5, END, 0, 0};
    static const int32_t token[] = {0, 6, 7, 0, 0, 2, 1, 5, 0, 0, 0, 0};
    struct sourced sourced = {0};
    struct pack pack;

    (void)state;
    start(&pack);
    assert_true(pack_add(&pack, 0, first, first_to, 7));
    assert_true(pack_add(&pack, 1, second, second_to, 6));
    assert_true(pack_add(&pack, 2, cut, cut_to, 3));
    sourced_fill(&sourced, &pack);
    assert_int_equal(sourced.batch.B, 3);
    assert_int_equal(sourced.batch.S, 4);
    assert_int_equal(sourced.batch.T, 4);
    assert_memory_equal(sourced.source, source, sizeof source);
    assert_memory_equal(sourced.token, token, sizeof token);
    assert_int_equal(sourced.length[0], 4);
    assert_int_equal(sourced.length[1], 2);
    for (int i = 4; i < 7; i++)
        assert_int_equal(sourced.cell[i], i - 4);
    for (int i = 9; i < 13; i++)
        assert_int_equal(sourced.cell[i], 4 + i - 9);
    sourced_done(&sourced);
    pack_done(&pack);
}

static double loss_of(struct model *model, const struct pack *pack, struct sourced *sourced)
{
    struct tape *tape = small_tape(model->device, TAPE_TRAIN);
    struct loss_head head = {.head = model->head, .target = pack->target};
    struct loss_values values = {0};
    float weight[48] = {0};
    struct err err;

    for (int64_t i = 0; i < pack_cells(pack); i++)
        weight[i] = pack->target[i] >= 0 ? 1.0f : 0.0f;
    head.ce_weight = weight;
    must(documents_forward(tape, model, pack, sourced, &head.hidden, &err));
    must(loss_head(tape, &head, &values, &err));
    must(tape_backward(tape, &err));
    tape_free(tape);
    return values.total;
}

/* Loss and gradient of packed documents are the sums of those of each alone: padding and
 * neighbours count nothing, nor do the cells that all show the first state. */
static void packed_documents_learn_as_each_alone(void **state)
{
    struct device *device = small_device(BACKEND_CPU, 1);
    struct model *model = small_model(device, &small_t5, 5);
    struct sourced sourced = {0};
    struct pack both, one;

    (void)state;
    start(&both);
    start(&one);
    assert_true(pack_add(&both, 0, first, first_to, 7));
    assert_true(pack_add(&both, 2, cut, cut_to, 3));
    assert_true(pack_add(&both, 1, second, second_to, 6));
    double together = loss_of(model, &both, &sourced), apart;
    float *sum = small_grads(model), *parts;
    model_zero_grad(model);
    assert_true(pack_add(&one, 0, first, first_to, 7));
    apart = loss_of(model, &one, &sourced);
    pack_clear(&one);
    assert_true(pack_add(&one, 1, second, second_to, 6));
    apart += loss_of(model, &one, &sourced);
    parts = small_grads(model); /* of both: they add up */
    assert_true(together > 1 && fabs(together - apart) < 1e-4 * together);
    for (int64_t i = 0; i < model->flat_count; i++)
        assert_true(fabsf(sum[i] - parts[i]) < 1e-4f);
    mem_free(sum);
    mem_free(parts);
    sourced_done(&sourced);
    pack_done(&both);
    pack_done(&one);
    model_free(model);
    device_close(device);
}

static void documents_without_a_prompt_are_refused(void **state)
{
    static const int32_t plain[] = {END, 3, 4}, plain_to[] = {3, 4, END};
    struct device *device = small_device(BACKEND_CPU, 1);
    struct model *model = small_model(device, &small_t5, 5);
    struct tape *tape = small_tape(device, TAPE_INFER);
    struct sourced sourced = {0};
    struct tensor *hidden;
    struct pack pack;
    struct err err;

    (void)state;
    start(&pack);
    assert_true(pack_add(&pack, 0, plain, plain_to, 3));
    assert_int_equal(documents_forward(tape, model, &pack, &sourced, &hidden, &err), -1);
    assert_non_null(strstr(err.text, "t5 needs a source"));
    sourced_done(&sourced);
    pack_done(&pack);
    tape_free(tape);
    model_free(model);
    device_close(device);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_prompt_loses_its_separator_and_ends_like_a_text),
        cmocka_unit_test(documents_become_rows_of_sources_and_targets),
        cmocka_unit_test(packed_documents_learn_as_each_alone),
        cmocka_unit_test(documents_without_a_prompt_are_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
