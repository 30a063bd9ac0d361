/* rollouts_test.c - the estimator of the reverse KL of whole texts, on texts that can be counted.
 *
 * Card distillation-baselines, acceptance 5: two tokens out of five, so that the gradient is a sum
 * over 25 texts; 100,000 samples must give it to within three standard errors. */
#include "common/base/rng.h"
#include "worker/recipes/distillation/rollouts.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>

#define V       5
#define STATES  (V + 1) /* before the first token, and after each first token */
#define SAMPLES 100000

/* log-probabilities by state; the parameters of q are its logits */
struct toy {
    double q[STATES][V], p[STATES][V];
};

static void make_toy(struct toy *toy)
{
    struct rng rng;

    rng_init(&rng, 11);
    for (int side = 0; side < 2; side++)
        for (int s = 0; s < STATES; s++) {
            double *row = side ? toy->p[s] : toy->q[s], sum = 0;

            for (int v = 0; v < V; v++)
                sum += exp(row[v] = rng_normal(&rng));
            for (int v = 0; v < V; v++)
                row[v] -= log(sum);
        }
}

/* KL(q || p) of a state's distributions. */
static double kl(const struct toy *toy, int s)
{
    double sum = 0;

    for (int v = 0; v < V; v++)
        sum += exp(toy->q[s][v]) * (toy->q[s][v] - toy->p[s][v]);
    return sum;
}

/* Adds scale * grad KL(q_s || p_s) and scale * grad log q_s(y). */
static void add_kl(const struct toy *toy, int s, double scale, double g[STATES][V])
{
    double mean = kl(toy, s);

    for (int v = 0; v < V; v++)
        g[s][v] += scale * exp(toy->q[s][v]) * (toy->q[s][v] - toy->p[s][v] - mean);
}

static void add_score(const struct toy *toy, int s, int y, double scale, double g[STATES][V])
{
    for (int v = 0; v < V; v++)
        g[s][v] += scale * ((v == y) - exp(toy->q[s][v]));
}

/* KL of texts = KL of the first token + E_q of KL of the second. */
static void exact_gradient(const struct toy *toy, double g[STATES][V])
{
    memset(g, 0, sizeof(double[STATES][V]));
    add_kl(toy, 0, 1, g);
    for (int y = 0; y < V; y++) {
        add_kl(toy, 1 + y, exp(toy->q[0][y]), g);
        add_score(toy, 0, y, exp(toy->q[0][y]) * kl(toy, 1 + y), g);
    }
}

enum weights { WEIGH_TEXTS, WEIGH_TOKENS };

static int draw(const struct toy *toy, int s, double mix, struct rng *rng)
{
    float mixed[V], teacher[V];
    double at = rng_unit(rng);

    for (int v = 0; v < V; v++) {
        mixed[v] = (float)toy->q[s][v];
        teacher[v] = (float)toy->p[s][v];
    }
    rollout_mix(mixed, teacher, V, mix);
    for (int v = 0; v < V - 1; v++) {
        at -= exp((double)mixed[v]);
        if (at < 0)
            return v;
    }
    return V - 1;
}

/* The gradient that one text gives. */
static void estimate(const struct toy *toy, double mix, enum weights weights, struct rng *rng,
                     double g[STATES][V])
{
    int y[2], state[2] = {0, 0};
    double reward[2], returns[2], w[2];

    for (int t = 0; t < 2; t++) {
        y[t] = draw(toy, state[t], mix, rng);
        state[1] = 1 + y[0];
        reward[t] = toy->p[state[t]][y[t]] - toy->q[state[t]][y[t]];
        w[t] = rollout_weight(toy->q[state[t]][y[t]], toy->p[state[t]][y[t]], mix);
    }
    rollout_returns(reward, 2, true, returns);
    memset(g, 0, sizeof(double[STATES][V]));
    add_kl(toy, 0, 1, g);
    add_kl(toy, state[1], weights == WEIGH_TEXTS ? w[0] : 1, g);
    for (int t = 0; t < 2; t++)
        add_score(toy, state[t], y[t],
                  -returns[t] * (weights == WEIGH_TEXTS ? w[0] * w[1] : w[t]), g);
}

/* The largest distance of a component's mean from the exact one, in standard errors; *out_bias: of
 * the whole gradient, relative to its length. */
static double distance(const struct toy *toy, double mix, enum weights weights, double *out_bias)
{
    double sum[STATES][V] = {{0}}, squares[STATES][V] = {{0}}, one[STATES][V], exact[STATES][V];
    double most = 0, off = 0, length = 0;
    struct rng rng;

    rng_init(&rng, 4); /* of thirty true means one is further off than 3 in every twelfth draw */
    exact_gradient(toy, exact);
    for (int i = 0; i < SAMPLES; i++) {
        estimate(toy, mix, weights, &rng, one);
        for (int k = 0; k < STATES * V; k++) {
            double g = one[k / V][k % V];

            sum[k / V][k % V] += g;
            squares[k / V][k % V] += g * g;
        }
    }
    for (int k = 0; k < STATES * V; k++) {
        double mean = sum[k / V][k % V] / SAMPLES, true_value = exact[k / V][k % V];
        double variance = squares[k / V][k % V] / SAMPLES - mean * mean;

        most = fmax(most, fabs(mean - true_value) / sqrt(variance / SAMPLES));
        off += (mean - true_value) * (mean - true_value);
        length += true_value * true_value;
    }
    *out_bias = sqrt(off / length);
    return most;
}

/* add_kl and add_score are the derivative of the sum over all texts. */
static void the_exact_gradient_is_that_of_the_counted_texts(void **state)
{
    struct toy toy;
    double g[STATES][V];
    const double h = 1e-5;

    (void)state;
    make_toy(&toy);
    exact_gradient(&toy, g);
    for (int k = 0; k < STATES * V; k++) {
        double value[2];

        for (int up = 0; up < 2; up++) {
            struct toy moved = toy;
            int s = k / V;
            double sum = 0;

            moved.q[s][k % V] += up ? h : -h;
            for (int v = 0; v < V; v++)
                sum += exp(moved.q[s][v]);
            for (int v = 0; v < V; v++)
                moved.q[s][v] -= log(sum);
            value[up] = kl(&moved, 0);
            for (int y = 0; y < V; y++)
                value[up] += exp(moved.q[0][y]) * kl(&moved, 1 + y);
        }
        assert_true(fabs((value[1] - value[0]) / (2 * h) - g[k / V][k % V]) < 1e-8);
    }
}

static void samples_of_the_student_give_the_gradient_of_whole_texts(void **state)
{
    struct toy toy;
    double bias;

    (void)state;
    make_toy(&toy);
    assert_true(distance(&toy, 0, WEIGH_TOKENS, &bias) < 3);
    assert_true(bias < 0.05);
}

/* The bias of one token's weight is what it is; only that it can be measured is asserted. */
static void samples_of_the_mixture_need_the_weights_of_whole_texts(void **state)
{
    struct toy toy;
    double exact_bias, bias, far;

    (void)state;
    make_toy(&toy);
    assert_true(distance(&toy, 0.2, WEIGH_TEXTS, &exact_bias) < 3);
    far = distance(&toy, 0.2, WEIGH_TOKENS, &bias);
    print_message("teacher's share 0.2: exact weights %.4f off, one token's %.4f off, %.0f "
                  "standard errors\n", exact_bias, bias, far);
    assert_true(far > 3 && bias > 2 * exact_bias);
}

static void returns_are_of_what_follows(void **state)
{
    const double reward[] = {8, 4, 2, 1};
    double sum[4], mean[4];

    (void)state;
    rollout_returns(reward, 4, false, sum);
    rollout_returns(reward, 4, true, mean);
    for (int t = 0; t < 4; t++) {
        static const double sums[] = {7, 3, 1, 0}, means[] = {7.0 / 3, 1.5, 1, 0};

        assert_true(sum[t] == sums[t]);
        assert_true(mean[t] == means[t]);
    }
}

static void a_ratio_that_went_far_enough_is_let_go(void **state)
{
    (void)state;
    assert_true(rollout_slope(2, 1.1, 0.2) == 2 * 1.1);
    assert_true(rollout_slope(2, 1.3, 0.2) == 0);
    assert_true(rollout_slope(2, 0.5, 0.2) == 2 * 0.5);
    assert_true(rollout_slope(-2, 0.5, 0.2) == 0);
    assert_true(rollout_slope(-2, 1.3, 0.2) == -2 * 1.3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_exact_gradient_is_that_of_the_counted_texts),
        cmocka_unit_test(samples_of_the_student_give_the_gradient_of_whole_texts),
        cmocka_unit_test(samples_of_the_mixture_need_the_weights_of_whole_texts),
        cmocka_unit_test(returns_are_of_what_follows),
        cmocka_unit_test(a_ratio_that_went_far_enough_is_let_go),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
