/* positions_test.c - rotary angles far out, and models that go on with other positions.
 *
 * Bounds of the first test are those of the method card of Yi (section 8, 2). */
#include "tests/unit/engine/small_models.h"

#include <math.h>
#include <stdlib.h>

static bool long_mode(void)
{
    const char *mode = getenv("ATHANOR_TEST_MODE");

    return mode && strcmp(mode, "long") == 0;
}

/* -- angles --------------------------------------------------------------------------------- */

#define TOKENS 64
#define FAR    200000
#define BASE   10000.0

/* Query heads of one row times its key heads, scaled, of rows q, k, v of width d. */
static void scores_of(const float *rows, int64_t d, double out[TOKENS * TOKENS])
{
    for (int i = 0; i < TOKENS * TOKENS; i++) {
        const float *q = rows + i / TOKENS * 3 * d, *k = rows + i % TOKENS * 3 * d + d;
        double sum = 0;

        for (int64_t c = 0; c < d; c++)
            sum += (double)q[c] * k[c];
        out[i] = sum / sqrt((double)d);
    }
}

/* The same of rows that were not rotated: in double, from the difference of the positions. */
static void scores_in_double(const float *rows, int64_t d, double out[TOKENS * TOKENS])
{
    int64_t half = d / 2;

    for (int i = 0; i < TOKENS * TOKENS; i++) {
        const float *q = rows + i / TOKENS * 3 * d, *k = rows + i % TOKENS * 3 * d + d;
        double sum = 0;

        for (int64_t c = 0; c < half; c++) {
            double angle = (i / TOKENS - i % TOKENS) * pow(BASE, -(double)c / (double)half);

            sum += ((double)q[c] * k[c] + (double)q[c + half] * k[c + half]) * cos(angle) +
                   ((double)q[c] * k[c + half] - (double)q[c + half] * k[c]) * sin(angle);
        }
        out[i] = sum / sqrt((double)d);
    }
}

static double largest_difference(const double *a, const double *b)
{
    double largest = 0;

    for (int i = 0; i < TOKENS * TOKENS; i++)
        largest = fmax(largest, fabs(a[i] - b[i]));
    return largest;
}

static void rotate(struct tape *tape, const float *rows, struct tensor *turns, int64_t d,
                   int32_t start, float *out)
{
    struct heads heads = {1, 1, d};
    int32_t position[TOKENS];

    for (int32_t t = 0; t < TOKENS; t++)
        position[t] = start + t;
    tensor_read(op_rope(tape, tape_f32(tape, rows, TOKENS, 3 * d),
                        tape_i32(tape, position, TOKENS), turns, heads),
                out);
}

/* Heads of the card's width in long mode: their table of angles takes half a second. */
static void rotations_far_out_know_differences_of_positions_only(void **state)
{
    static double near[TOKENS * TOKENS], far[TOKENS * TOKENS], exact[TOKENS * TOKENS];
    int64_t d = long_mode() ? 64 : 8;
    struct device *device = small_device(BACKEND_CPU, 1);
    struct tape *tape = small_tape(device, TAPE_INFER);
    float *rows = mem_array((size_t)(TOKENS * 3 * d), sizeof *rows);
    float *turned = mem_array((size_t)(TOKENS * 3 * d), sizeof *turned);
    float *table = mem_array((size_t)((FAR + TOKENS) * d), sizeof *table);
    struct tensor *turns;
    struct rng rng;

    (void)state;
    rng_init(&rng, 5);
    for (int64_t i = 0; i < TOKENS * 3 * d; i++)
        rows[i] = (float)rng_normal(&rng);
    rope_turns(table, 0, FAR + TOKENS, d, BASE, &(struct rope_scaling){ROPE_PLAIN});
    turns = tape_f32(tape, table, FAR + TOKENS, d);
    rotate(tape, rows, turns, d, 0, turned);
    scores_of(turned, d, near);
    rotate(tape, rows, turns, d, FAR, turned);
    scores_of(turned, d, far);
    scores_in_double(rows, d, exact);
    assert_true(largest_difference(near, far) <= 1e-5);
    assert_true(largest_difference(far, exact) <= 1e-5);
    mem_free(rows);
    mem_free(turned);
    mem_free(table);
    tape_free(tape);
    device_close(device);
}

/* Turns within the original positions, by hand: 20.37, 2.0371832716, 0.2 and 0.02, so llama3 keeps
 * (2.0371832716 - 1) / 3 of the second; and yarn's 8 ln(128 / (2 pi 32)) / (2 ln 10000) is -0.2,
 * with 1 for 32 it is 1.31: from 0 to 2. */
static void scaled_speeds_are_those_of_the_formulas(void **state)
{
    static const struct {
        struct rope_scaling scaling;
        double speed[4];
    } known[] = {
        {{ROPE_PLAIN}, {1, 0.1, 0.01, 0.001}},
        {{ROPE_LINEAR, .factor = 2.5}, {0.4, 0.04, 0.004, 0.0004}},
        {{ROPE_LLAMA3, .factor = 8, .slow = 1, .fast = 4, .original = 128},
         {1, 0.04275117876, 0.00125, 0.000125}},
        {{ROPE_YARN, .factor = 4, .slow = 1, .fast = 32, .original = 128},
         {1, 0.0625, 0.0025, 0.00025}},
    };

    (void)state;
    for (size_t k = 0; k < ARRAY_COUNT(known); k++) {
        double speed[4];

        rope_speeds(speed, 8, 10000, &known[k].scaling);
        for (int i = 0; i < 4; i++)
            if (!(fabs(speed[i] / known[k].speed[i] - 1) < 1e-9))
                fail_msg("scaling %zu: speed %d is %.12g", k, i, speed[i]);
    }
}

/* Llama 3.1: waves of 2048 to 8192 positions are 64 ln(2048 / 2 pi) / ln(500000) = 28.2 to 35.0.
 * Qwen 2.5: 32 turns and 1 in 32768 positions are 23.6 and 39.7, rounded outwards. */
static void scaled_speeds_of_published_models_change_where_they_must(void **state)
{
    static const struct {
        struct rope_scaling scaling;
        double theta;
        int last_kept, first_squeezed;
    } known[] = {
        {{ROPE_LLAMA3, .factor = 8, .slow = 1, .fast = 4, .original = 8192}, 500000, 28, 35},
        {{ROPE_YARN, .factor = 4, .slow = 1, .fast = 32, .original = 32768}, 1000000, 23, 40},
    };
    float turns[128];

    (void)state;
    for (size_t k = 0; k < ARRAY_COUNT(known); k++) {
        double plain[64], speed[64];

        rope_speeds(plain, 128, known[k].theta, &(struct rope_scaling){ROPE_PLAIN});
        rope_speeds(speed, 128, known[k].theta, &known[k].scaling);
        for (int i = 0; i < 64; i++) {
            double squeezed = plain[i] / known[k].scaling.factor;

            assert_true((fabs(speed[i] - plain[i]) < 1e-12) == (i <= known[k].last_kept));
            assert_true((fabs(speed[i] - squeezed) < 1e-12) == (i >= known[k].first_squeezed));
            assert_true(speed[i] <= plain[i] && speed[i] >= squeezed - 1e-12);
        }
    }
    rope_turns(turns, 0, 1, 128, 1000000, &known[1].scaling);
    assert_true(fabsf(turns[0] - 1.13862944f) < 1e-6f && turns[64] == 0);
    rope_turns(turns, 0, 1, 128, 1000000, &(struct rope_scaling){
               ROPE_YARN, .factor = 4, .slow = 1, .fast = 32, .original = 32768, .attention = 2});
    assert_true(turns[0] == 2);
}

/* -- other positions ------------------------------------------------------------------------ */

#define LONGER 40 /* the small models see 24 tokens */

/* (mem_free) of LONGER tokens */
static float *logits_of(struct model *model)
{
    struct tape *tape = small_tape(model->device, TAPE_INFER);
    float *out = mem_array((size_t)(LONGER * model->config.vocab_size), sizeof *out);
    struct model_states states = {0};
    int32_t token[LONGER];
    struct model_batch batch = {.B = 1, .T = LONGER, .token = token};
    struct err err;

    for (int i = 0; i < LONGER; i++)
        token[i] = i * 7 % (int32_t)model->config.vocab_size;
    must(model_forward(tape, model, &batch, &states, &err));
    tensor_read(model_logits(tape, model, states.hidden), out);
    tape_free(tape);
    return out;
}

/* Weights are a function of seed and name, so a new model of the other positions has them too. */
static void check_reached(const struct model_config *from, double theta)
{
    struct device *device = small_device(BACKEND_CPU, 1);
    struct model *reached = small_model(device, from, 3), *fresh;
    struct model_config to = *from;
    float *a, *b;
    struct err err;

    to.context = LONGER;
    to.rope_theta = theta;
    fresh = small_model(device, &to, 3);
    must(model_reach(reached, LONGER, theta, &err));
    assert_int_equal(reached->config.context, LONGER);
    assert_true(reached->config.rope_theta == fresh->config.rope_theta);
    a = logits_of(reached);
    b = logits_of(fresh);
    assert_memory_equal(a, b, (size_t)(LONGER * to.vocab_size) * sizeof *a);
    mem_free(a);
    mem_free(b);
    model_free(reached);
    model_free(fresh);
    device_close(device);
}

static void a_model_goes_on_with_other_positions_as_a_new_one_of_its_weights(void **state)
{
    struct model_config alibi = small_llama, moe = small_llama, transnormer = small_gpt2;
    struct model_config scaled = small_llama;

    (void)state;
    alibi.alibi = true;
    moe.family = MODEL_MOE;
    moe.experts = 4;
    transnormer.family = MODEL_TRANSNORMER;
    check_reached(&small_llama, 5e6);
    check_reached(&small_llama, 0);
    scaled.rope = (struct rope_scaling){ROPE_LLAMA3, 8, .slow = 1, .fast = 4, .original = 64};
    check_reached(&scaled, 5e6);
    check_reached(&moe, 5e6);
    check_reached(&alibi, 0);
    check_reached(&transnormer, 0);
}

static void check_refused(const struct model_config *config, int64_t context, double theta,
                          const char *complaint)
{
    struct device *device = small_device(BACKEND_CPU, 1);
    struct model *model = small_model(device, config, 3);
    double base = model->config.rope_theta;
    struct tensor *turns = model->turns;
    struct err err;

    assert_int_equal(model_reach(model, context, theta, &err), -1);
    assert_int_equal(err.kind, ERR_INVALID);
    if (!strstr(err.text, complaint))
        fail_msg("expected '%s' in: %s", complaint, err.text);
    assert_int_equal(model->config.context, config->context);
    assert_true(model->config.rope_theta == base);
    assert_ptr_equal(model->turns, turns);
    model_free(model);
    device_close(device);
}

static void positions_that_a_model_cannot_have_are_refused_and_change_nothing(void **state)
{
    struct model_config alibi = small_llama;

    (void)state;
    alibi.alibi = true;
    check_refused(&small_gpt2, LONGER, 0, "learned a row for each of its 24 positions");
    check_refused(&small_opt, 8, 0, "learned a row for each of its 24 positions");
    check_refused(&small_gpt2, 0, 5e6, "no rotary angles");
    check_refused(&alibi, 0, 5e6, "positions alibi has no rotary angles");
    check_refused(&small_llama, 0, 0.5, "rope_theta is 0.5");
    check_refused(&small_llama, -1, 0, "context is -1");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rotations_far_out_know_differences_of_positions_only),
        cmocka_unit_test(scaled_speeds_are_those_of_the_formulas),
        cmocka_unit_test(scaled_speeds_of_published_models_change_where_they_must),
        cmocka_unit_test(a_model_goes_on_with_other_positions_as_a_new_one_of_its_weights),
        cmocka_unit_test(positions_that_a_model_cannot_have_are_refused_and_change_nothing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
