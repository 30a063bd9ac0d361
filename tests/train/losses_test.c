/* losses_test.c - every loss of the recipes at the logits: the card's gradient formulas against
 * central differences in double, the engine against the formulas, and the identities.
 *
 * Cards unlearning-baselines (section 10, item 1) and distillation-baselines (items 1 and 2).
 * With the identity as head, hidden states are logits. */
#include "common/base/rng.h"
#include "worker/engine/loss.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>

#define V    17
#define ROWS 200

static struct err err;

#define OK(call)                                                                                   \
    do {                                                                                           \
        if ((call) < 0)                                                                            \
            fail_msg("%s: %s", #call, err.text);                                                   \
    } while (0)

/* -- the formulas in double ------------------------------------------------------------------ */

static void soften(const double *z, double tau, double *p)
{
    double most = -INFINITY, sum = 0;

    for (int k = 0; k < V; k++)
        most = fmax(most, z[k] / tau);
    for (int k = 0; k < V; k++)
        sum += p[k] = exp(z[k] / tau - most);
    for (int k = 0; k < V; k++)
        p[k] /= sum;
}

static double kl(const double *p, const double *q)
{
    double sum = 0;

    for (int k = 0; k < V; k++)
        sum += p[k] > 0 ? p[k] * log(p[k] / q[k]) : 0;
    return sum;
}

/* tau^2 D of the table in card distillation-baselines; s: student's logits, t: teacher's. */
static double value_of(enum divergence divergence, const double *s, const double *t, double tau,
                       double b)
{
    double q[V], p[V], m[V], sum = 0;

    soften(s, tau, q);
    soften(t, tau, p);
    for (int k = 0; k < V; k++) {
        m[k] = b * p[k] + (1 - b) * q[k];
        sum += fabs(p[k] - q[k]) / 2;
    }
    switch (divergence) {
    case DIVERGENCE_FORWARD_KL:
        return tau * tau * kl(p, q);
    case DIVERGENCE_REVERSE_KL:
        return tau * tau * kl(q, p);
    case DIVERGENCE_JSD:
        return tau * tau * (b * kl(p, m) + (1 - b) * kl(q, m));
    case DIVERGENCE_SKEW_FORWARD:
        return tau * tau * kl(p, m);
    case DIVERGENCE_SKEW_REVERSE:
        return tau * tau * kl(q, m);
    case DIVERGENCE_TOTAL_VARIATION:
        return tau * tau * sum;
    case DIVERGENCE_NONE:
    case DIVERGENCE_END:
        break;
    }
    fail_msg("no formula for divergence %d", (int)divergence);
    return 0;
}

static double sign(double x)
{
    return (x > 0) - (x < 0);
}

/* g is q_k [x_k - sum_j q_j x_j] for most of them. */
static void centre(const double *q, const double *x, double scale, double *g)
{
    double mean = 0;

    for (int k = 0; k < V; k++)
        mean += q[k] * x[k];
    for (int k = 0; k < V; k++)
        g[k] = scale * q[k] * (x[k] - mean);
}

/* The gradients of the same table; the factor tau^2 / tau for tau other than 1. */
static void gradient_of(enum divergence divergence, const double *s, const double *t, double tau,
                        double b, double *g)
{
    double q[V], p[V], m[V], x[V], scale = tau;

    soften(s, tau, q);
    soften(t, tau, p);
    for (int k = 0; k < V; k++)
        m[k] = b * p[k] + (1 - b) * q[k];
    for (int k = 0; k < V; k++) {
        switch (divergence) {
        case DIVERGENCE_FORWARD_KL:
            x[k] = 1 - p[k] / q[k];
            break;
        case DIVERGENCE_REVERSE_KL:
            x[k] = log(q[k] / p[k]);
            break;
        case DIVERGENCE_JSD:
            x[k] = (1 - b) * log(q[k] / m[k]);
            break;
        case DIVERGENCE_SKEW_FORWARD:
            x[k] = -(1 - b) * p[k] / m[k];
            break;
        case DIVERGENCE_SKEW_REVERSE:
            x[k] = log(q[k] / m[k]) + 1 - (1 - b) * q[k] / m[k];
            break;
        case DIVERGENCE_TOTAL_VARIATION:
            x[k] = sign(q[k] - p[k]) / 2;
            break;
        case DIVERGENCE_NONE:
        case DIVERGENCE_END:
            fail_msg("no formula");
            break;
        }
    }
    centre(q, x, scale, g);
}

static void draw_logits(uint64_t stream, double *z)
{
    struct rng rng;

    rng_init(&rng, stream);
    for (int k = 0; k < V; k++)
        z[k] = rng_normal(&rng);
}

/* Largest difference relative to the largest component: components pass through zero. */
static double relative(const double *a, const double *b)
{
    double most = 0, scale = 0;

    for (int k = 0; k < V; k++) {
        most = fmax(most, fabs(a[k] - b[k]));
        scale = fmax(scale, fabs(b[k]));
    }
    return scale > 0 ? most / scale : most;
}

static void central_difference(enum divergence divergence, double *s, const double *t, double tau,
                               double b, double *g)
{
    const double h = 1e-6;

    for (int k = 0; k < V; k++) {
        double kept = s[k], up, down;

        s[k] = kept + h;
        up = value_of(divergence, s, t, tau, b);
        s[k] = kept - h;
        down = value_of(divergence, s, t, tau, b);
        s[k] = kept;
        g[k] = (up - down) / (2 * h);
    }
}

/* -- the engine -------------------------------------------------------------------------------- */

struct bench {
    struct device *device;
    struct tape *tape;
};

static int bench_open(void **state)
{
    static struct bench bench;
    struct device_config where = {.kind = BACKEND_CPU, .threads = 1};

    OK(device_open(&where, &bench.device, &err));
    OK(tape_new(bench.device, TAPE_TRAIN, &bench.tape, &err));
    *state = &bench;
    return 0;
}

static int bench_close(void **state)
{
    struct bench *bench = *state;

    tape_free(bench->tape);
    device_close(bench->device);
    return 0;
}

struct engine_result {
    float nll[ROWS], kd[ROWS], gradient[ROWS * V];
    double total;
};

/* Runs loss_head on given logits; teacher NULL: cross-entropy only. */
static void engine_loss(struct bench *bench, const float *student, const float *teacher,
                        const int32_t *target, const float *ce_weight, const float *kd_weight,
                        enum divergence divergence, double tau, double b, struct engine_result *out)
{
    float identity[V * V] = {0};
    struct loss_head loss = {.target = target,
                             .ce_weight = ce_weight,
                             .divergence = divergence,
                             .kd_weight = kd_weight,
                             .temperature = tau,
                             .beta = b};
    struct loss_values values = {.nll = out->nll, .kd = out->kd};

    for (int k = 0; k < V; k++)
        identity[k * V + k] = 1;
    tape_reset(bench->tape);
    loss.hidden = tape_f32(bench->tape, student, ROWS, V);
    loss.hidden->wants_grad = true;
    loss.head = tape_f32(bench->tape, identity, V, V);
    if (teacher) {
        loss.teacher_hidden = tape_f32(bench->tape, teacher, ROWS, V);
        loss.teacher_head = loss.head;
    }
    OK(loss_head(bench->tape, &loss, &values, &err));
    OK(tape_backward(bench->tape, &err));
    tensor_read_grad(loss.hidden, out->gradient);
    out->total = values.total;
}

static float student32[ROWS * V], teacher32[ROWS * V], ones[ROWS], zeros[ROWS];
static double student64[ROWS][V], teacher64[ROWS][V];
static int32_t no_target[ROWS], target32[ROWS];
static struct engine_result result;

static void fill_logits(void)
{
    for (int n = 0; n < ROWS; n++) {
        draw_logits(2 * (uint64_t)n, student64[n]);
        draw_logits(2 * (uint64_t)n + 1, teacher64[n]);
        for (int k = 0; k < V; k++) {
            student32[n * V + k] = (float)student64[n][k];
            teacher32[n * V + k] = (float)teacher64[n][k];
            /* what the engine sees, so that rounding of the input is no error */
            student64[n][k] = (double)student32[n * V + k];
            teacher64[n][k] = (double)teacher32[n * V + k];
        }
        ones[n] = 1;
        zeros[n] = 0;
        no_target[n] = -1;
        target32[n] = (int32_t)(rng_at(5, 0, (uint64_t)n) % V);
    }
}

static const struct {
    enum divergence divergence;
    double b;
} variants[] = {
    {DIVERGENCE_FORWARD_KL, 0},
    {DIVERGENCE_REVERSE_KL, 0},
    {DIVERGENCE_JSD, 0.1},
    {DIVERGENCE_JSD, 0.5},
    {DIVERGENCE_JSD, 0.9},
    {DIVERGENCE_SKEW_FORWARD, 0.1},
    {DIVERGENCE_SKEW_REVERSE, 0.1},
    {DIVERGENCE_TOTAL_VARIATION, 0},
};
static const double temperatures[] = {1, 2, 4};

static void formulas_are_the_derivatives_of_their_losses(void **state)
{
    (void)state;
    for (size_t v = 0; v < ARRAY_COUNT(variants); v++) {
        for (size_t i = 0; i < ARRAY_COUNT(temperatures); i++) {
            for (int n = 0; n < ROWS; n++) {
                double formula[V], difference[V];

                gradient_of(variants[v].divergence, student64[n], teacher64[n], temperatures[i],
                            variants[v].b, formula);
                central_difference(variants[v].divergence, student64[n], teacher64[n],
                                   temperatures[i], variants[v].b, difference);
                assert_true(relative(difference, formula) < 1e-6);
            }
        }
    }
}

static void the_engine_computes_the_formulas(void **state)
{
    for (size_t v = 0; v < ARRAY_COUNT(variants); v++) {
        for (size_t i = 0; i < ARRAY_COUNT(temperatures); i++) {
            double tau = temperatures[i], b = variants[v].b;

            engine_loss(*state, student32, teacher32, no_target, NULL, ones, variants[v].divergence,
                        tau, b, &result);
            for (int n = 0; n < ROWS; n++) {
                double formula[V], engine[V];

                gradient_of(variants[v].divergence, student64[n], teacher64[n], tau, b, formula);
                for (int k = 0; k < V; k++)
                    engine[k] = (double)result.gradient[n * V + k];
                assert_true(relative(engine, formula) < 1e-5);
                assert_float_equal(result.kd[n],
                                   value_of(variants[v].divergence, student64[n], teacher64[n], tau,
                                            b),
                                   1e-5 * tau * tau);
            }
        }
    }
}

/* CE and ascent: +-(p - e_y) w, and any weight is linear. */
static void cross_entropy_and_ascent_are_opposite(void **state)
{
    static struct engine_result down, up;
    float plus[ROWS], minus[ROWS];

    for (int n = 0; n < ROWS; n++) {
        plus[n] = 1.0f / ROWS;
        minus[n] = -plus[n];
    }
    engine_loss(*state, student32, NULL, target32, plus, NULL, DIVERGENCE_NONE, 1, 0, &down);
    engine_loss(*state, student32, NULL, target32, minus, NULL, DIVERGENCE_NONE, 1, 0, &up);
    assert_float_equal(down.total, -up.total, 1e-6);
    for (int n = 0; n < ROWS; n++) {
        double p[V], formula[V], engine[V];

        soften(student64[n], 1, p);
        for (int k = 0; k < V; k++) {
            formula[k] = (p[k] - (k == target32[n])) / ROWS;
            engine[k] = (double)down.gradient[n * V + k];
            assert_true(down.gradient[n * V + k] == -up.gradient[n * V + k]);
        }
        assert_true(relative(engine, formula) < 1e-5);
        assert_float_equal(down.nll[n], -log(p[target32[n]]), 1e-5);
    }
}

/* At any temperature a shift of all logits changes nothing, and nothing else is at distance 0. */
static void divergences_vanish_where_the_models_agree(void **state)
{
    static float shifted[ROWS * V];

    for (int i = 0; i < ROWS * V; i++)
        shifted[i] = student32[i] + 0.5f;
    for (size_t i = 0; i < ARRAY_COUNT(variants) * ARRAY_COUNT(temperatures); i++) {
        enum divergence divergence = variants[i / ARRAY_COUNT(temperatures)].divergence;
        double b = variants[i / ARRAY_COUNT(temperatures)].b;
        double tau = temperatures[i % ARRAY_COUNT(temperatures)];

        engine_loss(*state, student32, shifted, no_target, NULL, ones, divergence, tau, b, &result);
        for (int n = 0; n < ROWS; n++)
            assert_float_equal(result.kd[n], 0, 1e-5);
        engine_loss(*state, student32, teacher32, no_target, NULL, ones, divergence, tau, b,
                    &result);
        for (int n = 0; n < ROWS; n++)
            assert_true(result.kd[n] > 0);
    }
}

static void even_jsd_has_no_direction_and_is_at_most_log_two(void **state)
{
    static struct engine_result back;

    engine_loss(*state, student32, teacher32, no_target, NULL, ones, DIVERGENCE_JSD, 1, 0.5,
                &result);
    engine_loss(*state, teacher32, student32, no_target, NULL, ones, DIVERGENCE_JSD, 1, 0.5,
                &back);
    for (int n = 0; n < ROWS; n++) {
        assert_true(result.kd[n] >= 0 && result.kd[n] <= log(2));
        assert_float_equal(result.kd[n], back.kd[n], 1e-6);
    }
}

/* How far the gradients at a temperature are from the difference of centred logits over V, to
 * which they tend, of the length of all of them together. */
static double from_the_hot_limit(void *state, double tau)
{
    double difference = 0, length = 0;

    engine_loss(state, student32, teacher32, no_target, NULL, ones, DIVERGENCE_FORWARD_KL, tau, 0,
                &result);
    for (int n = 0; n < ROWS; n++) {
        double ms = 0, mt = 0;

        for (int k = 0; k < V; k++) {
            ms += student64[n][k] / V;
            mt += teacher64[n][k] / V;
        }
        for (int k = 0; k < V; k++) {
            double limit = (student64[n][k] - ms - teacher64[n][k] + mt) / V;
            double engine = (double)result.gradient[n * V + k];

            difference += (engine - limit) * (engine - limit);
            length += limit * limit;
        }
    }
    return sqrt(difference / length);
}

static void hot_forward_kl_compares_logits(void **state)
{
    double at_100 = from_the_hot_limit(*state, 100), at_1000 = from_the_hot_limit(*state, 1000);

    print_message("from the limit: %.5f at temperature 100, %.5f at 1000\n", at_100, at_1000);
    assert_true(at_100 < 0.02);
    assert_true(at_1000 < 0.002);
}

/* Rows of prompts and padding weigh nothing: whatever is there, the others' bits are the same. */
static void rows_without_weight_change_nothing(void **state)
{
    static float student[ROWS * V], teacher[ROWS * V], weight[ROWS];
    static struct engine_result before, after;
    int32_t target[ROWS];

    for (int n = 0; n < ROWS; n++) {
        weight[n] = n % 3 == 1 ? 0 : 1.0f / ROWS;
        target[n] = n % 3 == 1 ? -1 : target32[n];
        for (int k = 0; k < V; k++) {
            float by = n % 3 == 1 ? (k % 2 ? 1e3f : -1e3f) : 0;

            student[n * V + k] = student32[n * V + k] + by;
            teacher[n * V + k] = teacher32[n * V + k] - by;
        }
    }
    for (size_t v = 0; v < ARRAY_COUNT(variants); v++) {
        engine_loss(*state, student32, teacher32, target, weight, weight, variants[v].divergence, 2,
                    variants[v].b, &before);
        engine_loss(*state, student, teacher, target, weight, weight, variants[v].divergence, 2,
                    variants[v].b, &after);
        assert_true(before.total == after.total && before.total > 0);
        assert_memory_equal(before.gradient, after.gradient, sizeof before.gradient);
        for (int k = 0; k < V; k++)
            assert_true(before.gradient[V + k] == 0);
    }
}

static void npo_weighs_as_its_value_slopes(void **state)
{
    static const double betas[] = {1e-3, 0.1, 1, 4.5};

    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(betas); i++) {
        double beta = betas[i], h = 1e-6;

        assert_float_equal(loss_npo_weight(7, 7, beta), 1, 1e-12);
        for (double delta = -6; delta <= 6; delta += 1.5) {
            double slope =
                (loss_npo_value(7 + delta + h, 7, beta) - loss_npo_value(7 + delta - h, 7, beta)) /
                (2 * h);
            double simple = (loss_simnpo_value(7 + delta + h, 3, beta, 1) -
                             loss_simnpo_value(7 + delta - h, 3, beta, 1)) /
                            (2 * h);

            /* Differences of values near 2/beta lose digits: relative to the largest slope, 2. */
            assert_float_equal(-loss_npo_weight(7 + delta, 7, beta), slope, 2e-6);
            assert_float_equal(-loss_simnpo_weight(7 + delta, 3, beta, 1) / 3, simple, 2e-6);
            assert_float_equal(loss_simnpo_value(7 + delta, 1, beta, 0),
                               loss_npo_value(7 + delta, 0, beta), 1e-12);
        }
    }
    /* bounded: far past the reference it costs nothing and pulls no more */
    assert_true(loss_npo_weight(1000, 0, 1) < 1e-300);
    assert_true(loss_npo_value(1000, 0, 1) >= 0 && loss_npo_value(1000, 0, 1) < 1e-300);
    assert_float_equal(loss_npo_weight(0, 1000, 1), 2, 1e-12);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(formulas_are_the_derivatives_of_their_losses),
        cmocka_unit_test(the_engine_computes_the_formulas),
        cmocka_unit_test(cross_entropy_and_ascent_are_opposite),
        cmocka_unit_test(divergences_vanish_where_the_models_agree),
        cmocka_unit_test(even_jsd_has_no_direction_and_is_at_most_log_two),
        cmocka_unit_test(hot_forward_kl_compares_logits),
        cmocka_unit_test(rows_without_weight_change_nothing),
        cmocka_unit_test(npo_weighs_as_its_value_slopes),
    };

    fill_logits();
    return cmocka_run_group_tests(tests, bench_open, bench_close);
}
