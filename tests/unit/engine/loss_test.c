/* loss_test.c - losses at the head: masks, identities, unlearning weights. */
#include "tests/unit/engine/small_models.h"

#include <math.h>

struct pair {
    struct device *device;
    struct model *model;
    struct tape *tape;
    struct small_batch batch;
    struct model_states states;
};

static void pair_open(struct pair *p, const struct model_config *config)
{
    struct err err;

    *p = (struct pair){.device = small_device(BACKEND_CPU, 2)};
    p->model = small_model(p->device, config, 4);
    p->tape = small_tape(p->device, TAPE_TRAIN);
    small_batch_fill(&p->batch, config->vocab_size, 6);
    must(model_forward(p->tape, p->model, &p->batch.batch, &p->states, &err));
}

static void pair_close(struct pair *p)
{
    tape_free(p->tape);
    model_free(p->model);
    device_close(p->device);
}

static struct loss_head head_of(const struct pair *p)
{
    return (struct loss_head){.hidden = p->states.hidden, .head = p->model->head,
                              .target = p->batch.target, .ce_weight = p->batch.weight};
}

static void rows_without_a_target_cost_nothing_and_others_sum_up(void **state)
{
    float nll[SMALL_N], kd[SMALL_N];
    int32_t argmax[SMALL_N];
    struct loss_values values = {.nll = nll, .kd = kd, .argmax = argmax};
    struct loss_head loss;
    struct pair p;
    struct err err;
    double sum = 0;

    (void)state;
    pair_open(&p, &small_gpt2);
    loss = head_of(&p);
    must(loss_head(p.tape, &loss, &values, &err));
    for (int i = 0; i < SMALL_N; i++) {
        assert_true(p.batch.target[i] >= 0 ? nll[i] > 0 : nll[i] == 0);
        assert_true(p.batch.target[i] >= 0 ? argmax[i] >= 0 : argmax[i] == -1);
        sum += (double)p.batch.weight[i] * nll[i];
    }
    assert_true(fabs(sum - values.total) < 1e-9);
    for (int i = 0; i < SMALL_N; i++)
        p.batch.target[i] = -1;
    must(loss_head(p.tape, &loss, &values, &err));
    assert_true(values.total == 0 && nll[1] == 0);
    pair_close(&p);
}

static void values_without_weights_leave_no_gradient(void **state)
{
    float nll[SMALL_N], *grads;
    struct pair p;
    struct err err;

    (void)state;
    pair_open(&p, &small_gpt2);
    must(loss_nll(p.tape, p.states.hidden, p.model->head, p.batch.target, nll, &err));
    must(tape_backward(p.tape, &err));
    grads = small_grads(p.model);
    for (int64_t i = 0; i < p.model->flat_count; i++)
        assert_true(grads[i] == 0);
    mem_free(grads);
    pair_close(&p);
}

/* Gradient ascent is the same backward pass with the sign turned: the bits agree. */
static void ascent_is_the_negative_of_descent(void **state)
{
    float *down, *up;
    struct pair p;

    (void)state;
    pair_open(&p, &small_gpt2);
    small_loss(p.tape, p.model, &p.batch);
    down = small_grads(p.model);
    model_zero_grad(p.model);
    for (int i = 0; i < SMALL_N; i++)
        p.batch.weight[i] = -p.batch.weight[i];
    small_loss(p.tape, p.model, &p.batch);
    up = small_grads(p.model);
    for (int64_t i = 0; i < p.model->flat_count; i++)
        assert_true(up[i] == -down[i]);
    mem_free(down);
    mem_free(up);
    pair_close(&p);
}

static void gradients_of_two_terms_on_one_tape_add_up(void **state)
{
    float *once, *twice, weight[SMALL_N];
    struct loss_values values = {0};
    struct loss_head loss;
    struct pair p;
    struct err err;

    (void)state;
    pair_open(&p, &small_gpt2);
    small_loss(p.tape, p.model, &p.batch);
    once = small_grads(p.model);
    model_zero_grad(p.model);
    tape_reset(p.tape);
    for (int k = 0; k < 2; k++) {
        must(model_forward(p.tape, p.model, &p.batch.batch, &p.states, &err));
        for (int i = 0; i < SMALL_N; i++)
            weight[i] = (k == 0 ? 3.0f : -2.0f) * p.batch.weight[i];
        loss = head_of(&p);
        loss.ce_weight = weight;
        must(loss_head(p.tape, &loss, &values, &err));
    }
    must(tape_backward(p.tape, &err));
    twice = small_grads(p.model);
    for (int64_t i = 0; i < p.model->flat_count; i++)
        assert_true(fabsf(twice[i] - once[i]) < 1e-5f);
    mem_free(once);
    mem_free(twice);
    pair_close(&p);
}

/* Every divergence of a model to itself is 0 with gradient 0, and none is below 0. */
static void divergences_to_oneself_vanish(void **state)
{
    (void)state;
    for (int kind = DIVERGENCE_FORWARD_KL; kind < DIVERGENCE_END; kind++) {
        struct model *teacher = NULL;
        struct model_states teacher_states = {0};
        struct loss_values values = {0};
        struct loss_head loss;
        struct tape *infer;
        struct pair p;
        struct err err;
        float *grads;

        pair_open(&p, &small_llama);
        must(model_clone_frozen(p.model, p.device, &teacher, &err));
        infer = small_tape(p.device, TAPE_INFER);
        must(model_forward(infer, teacher, &p.batch.batch, &teacher_states, &err));
        loss = head_of(&p);
        loss.ce_weight = NULL;
        loss.kd_weight = p.batch.weight;
        loss.divergence = (enum divergence)kind;
        loss.teacher_hidden = teacher_states.hidden;
        loss.teacher_head = teacher->head;
        loss.temperature = 2;
        loss.beta = 0.3;
        must(loss_head(p.tape, &loss, &values, &err));
        must(tape_backward(p.tape, &err));
        assert_true(fabs(values.total) < 1e-5);
        grads = small_grads(p.model);
        for (int64_t i = 0; i < p.model->flat_count; i++)
            assert_true(fabsf(grads[i]) < 1e-5f);
        mem_free(grads);
        tape_free(infer);
        model_free(teacher);
        pair_close(&p);
    }
}

/* A column that the teacher excludes (`scale` of -1e35: 1 keeps it finite, 1e10 makes it -inf)
 * gives finite losses and gradients. */
static void check_excluded(float scale)
{
    struct device *device = small_device(BACKEND_CPU, 1);
    struct tape *tape = small_tape(device, TAPE_TRAIN);
    float student[4 * 5], teacher[4 * 5], identity[25] = {0}, scaled[25] = {0};
    float weight[4] = {1, 1, 1, 1};
    int32_t target[4] = {-1, -1, -1, -1};
    struct err err;

    for (int i = 0; i < 20; i++) {
        student[i] = (float)(i % 3);
        teacher[i] = i % 5 == 2 ? -1e35f : (float)(i % 4) / scale;
    }
    for (int i = 0; i < 5; i++) {
        identity[6 * i] = 1;
        scaled[6 * i] = scale;
    }
    for (int kind = DIVERGENCE_FORWARD_KL; kind < DIVERGENCE_END; kind++) {
        struct loss_values values = {0};
        struct loss_head loss = {.target = target, .kd_weight = weight, .beta = 0.3,
                                 .divergence = (enum divergence)kind};
        float grad[20];

        tape_reset(tape);
        loss.hidden = tape_f32(tape, student, 4, 5);
        loss.hidden->wants_grad = true;
        loss.head = tape_f32(tape, identity, 5, 5);
        loss.teacher_head = tape_f32(tape, scaled, 5, 5);
        loss.teacher_hidden = tape_f32(tape, teacher, 4, 5);
        must(loss_head(tape, &loss, &values, &err));
        must(tape_backward(tape, &err));
        tensor_read_grad(loss.hidden, grad);
        assert_true(isfinite(values.total) && values.total > 0);
        for (int i = 0; i < 20; i++)
            assert_true(isfinite(grad[i]));
    }
    tape_free(tape);
    device_close(device);
}

static void excluded_teacher_columns_stay_finite(void **state)
{
    (void)state;
    check_excluded(1);
    check_excluded(1e10f);
}

static void foreign_targets_and_vocabularies_are_refused(void **state)
{
    struct loss_values values = {0};
    struct loss_head loss;
    struct pair p, other;
    struct err err;

    (void)state;
    pair_open(&p, &small_gpt2);
    pair_open(&other, &small_llama);
    loss = head_of(&p);
    loss.kd_weight = p.batch.weight;
    loss.divergence = DIVERGENCE_FORWARD_KL;
    loss.teacher_hidden = other.states.hidden;
    loss.teacher_head = other.model->head;
    assert_int_equal(loss_head(p.tape, &loss, &values, &err), -1);
    assert_non_null(strstr(err.text, "vocabularies"));
    p.batch.target[4] = 61;
    assert_int_equal(loss_head(p.tape, &loss, &values, &err), -1);
    assert_non_null(strstr(err.text, "target 61 in row 4"));
    pair_close(&p);
    pair_close(&other);
}

/* The weights are the derivatives of the values, with the sign that lowers the loss. */
static void unlearning_weights_are_slopes_of_their_values(void **state)
{
    (void)state;
    assert_true(fabs(loss_npo_weight(3, 3, 0.1) - 1) < 1e-12);
    for (double beta = 0.05; beta < 5; beta *= 3) {
        for (double nll = 1; nll < 60; nll += 7) {
            double h = 1e-5;
            double npo = (loss_npo_value(nll + h, 20, beta) - loss_npo_value(nll - h, 20, beta)) /
                         (2 * h);
            double sim = (loss_simnpo_value(nll + h, 6, beta, 0.5) -
                          loss_simnpo_value(nll - h, 6, beta, 0.5)) / (2 * h);

            assert_true(fabs(npo + loss_npo_weight(nll, 20, beta)) < 1e-6);
            assert_true(fabs(sim + loss_simnpo_weight(nll, 6, beta, 0.5) / 6) < 1e-6);
        }
        assert_true(loss_simnpo_weight(4, 1, beta, 0) == loss_npo_weight(4, 0, beta));
    }
    assert_true(loss_npo_value(1e6, 0, 1) == 0 && isfinite(loss_npo_value(-1e6, 0, 1)));
}

static void sequences_sum_their_own_rows(void **state)
{
    static const float nll[] = {1, 2, 0, 4, 5, 6};
    static const int32_t target[] = {7, 7, -1, 7, -1, 7};
    double sum[2];
    int64_t count[2];

    (void)state;
    loss_sequences(nll, target, 2, 3, sum, count);
    assert_true(sum[0] == 3 && sum[1] == 10);
    assert_true(count[0] == 2 && count[1] == 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_without_a_target_cost_nothing_and_others_sum_up),
        cmocka_unit_test(values_without_weights_leave_no_gradient),
        cmocka_unit_test(ascent_is_the_negative_of_descent),
        cmocka_unit_test(gradients_of_two_terms_on_one_tape_add_up),
        cmocka_unit_test(divergences_to_oneself_vanish),
        cmocka_unit_test(excluded_teacher_columns_stay_finite),
        cmocka_unit_test(foreign_targets_and_vocabularies_are_refused),
        cmocka_unit_test(unlearning_weights_are_slopes_of_their_values),
        cmocka_unit_test(sequences_sum_their_own_rows),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
