/* lightning_test.c - linear attention with decay against its recurrence in double, which is exact
 * at any length: S = decay S + k v', y = S' q, and backwards T = decay T + q dy'.
 *
 * Lengths, decays and the bound are those of the method card of TransNormerLLM (section 10, 1 and
 * 3). The table of ops compares with the quadratic form, gradients with differences. */
#include "tests/unit/engine/small_models.h"

#include <math.h>

#define KEYS   16
#define VALUES 24
#define WIDTH  (2 * KEYS + VALUES)
#define MOST   8192 /* tokens */
#define BOUND  1e-5

struct sums {
    double S[KEYS][VALUES];
};

static void sums_add(struct sums *sums, double decay, const float *left, const float *right)
{
    for (int i = 0; i < KEYS; i++)
        for (int j = 0; j < VALUES; j++)
            sums->S[i][j] = decay * sums->S[i][j] + (double)left[i] * right[j];
}

static void sums_times(const struct sums *sums, const float *values, double out[KEYS])
{
    for (int i = 0; i < KEYS; i++) {
        out[i] = 0;
        for (int j = 0; j < VALUES; j++)
            out[i] += sums->S[i][j] * values[j];
    }
}

static void times_sums(const float *keys, const struct sums *sums, double out[VALUES])
{
    for (int j = 0; j < VALUES; j++) {
        out[j] = 0;
        for (int i = 0; i < KEYS; i++)
            out[j] += sums->S[i][j] * keys[i];
    }
}

static double exact_y[MOST][VALUES], exact_dx[MOST][WIDTH];
static float x[MOST * WIDTH], dy[MOST * VALUES], y[MOST * VALUES], dx[MOST * WIDTH];

static void work_out(int n, double decay)
{
    struct sums sums = {0};

    for (int t = 0; t < n; t++) {
        const float *row = x + t * WIDTH;

        sums_add(&sums, decay, row + KEYS, row + 2 * KEYS);
        times_sums(row, &sums, exact_y[t]);
        sums_times(&sums, dy + t * VALUES, exact_dx[t]);
    }
    sums = (struct sums){0};
    for (int t = n; t-- > 0;) {
        const float *row = x + t * WIDTH;

        sums_add(&sums, decay, row, dy + t * VALUES);
        sums_times(&sums, row + 2 * KEYS, exact_dx[t] + KEYS);
        times_sums(row + KEYS, &sums, exact_dx[t] + 2 * KEYS);
    }
}

/* Some columns of n rows, to BOUND of the largest. */
static void compare(const char *what, const float *got, const double *exact, int columns, int from,
                    int to, int n, float slope)
{
    double largest = 0, off = 0;

    for (int t = 0; t < n; t++)
        for (int c = from; c < to; c++) {
            double value = got[t * columns + c], wanted = exact[t * columns + c];

            largest = fmax(largest, fabs(wanted));
            off = fmax(off, isfinite(value) ? fabs(value - wanted) : INFINITY);
        }
    if (!(off <= BOUND * largest))
        fail_msg("%s of %d tokens, slope %g: off by %g, largest %g", what, n, (double)slope, off,
                 largest);
}

static void check_chunks(struct device *device, int n, float slope)
{
    struct tape *tape = small_tape(device, TAPE_TRAIN);
    struct tensor *input = tape_f32(tape, x, n, WIDTH), *output;
    struct lightning l = {.H = 1, .dk = KEYS, .e = VALUES, .B = 1,
                          .slope = tape_f32(tape, &slope, 1, 1)};
    struct err err;

    input->wants_grad = true;
    output = op_lightning(tape, input, &l);
    tensor_read(output, y);
    tape_seed(tape, output, dy);
    must(tape_backward(tape, &err));
    tensor_read_grad(input, dx);
    compare("output", y, exact_y[0], VALUES, 0, VALUES, n, slope);
    compare("gradient of queries", dx, exact_dx[0], WIDTH, 0, KEYS, n, slope);
    compare("gradient of keys", dx, exact_dx[0], WIDTH, KEYS, 2 * KEYS, n, slope);
    compare("gradient of values", dx, exact_dx[0], WIDTH, 2 * KEYS, WIDTH, n, slope);
    tape_free(tape);
}

/* Token by token, the state handed on in the middle. */
static void check_steps(struct device *device, int n, float slope)
{
    static const float zeros[KEYS * VALUES];
    struct tape *tape = small_tape(device, TAPE_INFER);
    struct tensor *state = tape_f32(tape, zeros, 1, KEYS * VALUES);
    struct lightning l = {.H = 1, .dk = KEYS, .e = VALUES, .B = 1,
                          .slope = tape_f32(tape, &slope, 1, 1)};

    for (int32_t at = 0, take = n / 2; at < n; at += take, take = n - at) {
        struct tensor *rows = tape_f32(tape, x + at * WIDTH, take, WIDTH);

        tensor_read(op_lightning_step(tape, rows, &l, tape_i32(tape, &take, 1), state),
                    y + at * VALUES);
    }
    compare("output token by token", y, exact_y[0], VALUES, 0, VALUES, n, slope);
    tape_free(tape);
}

static void chunks_and_single_tokens_equal_the_recurrence_in_double(void **state)
{
    static const int lengths[] = {37, 64, 513, MOST};
    static const double decays[] = {0.5, 0.9, 0.999, 1, 0.36787944117144233 /* slope 1 */};
    struct device *device = small_device(BACKEND_CPU, 2);
    struct rng rng;

    (void)state;
    rng_init(&rng, 6);
    for (int i = 0; i < MOST * WIDTH; i++)
        x[i] = (float)rng_normal(&rng);
    for (int i = 0; i < MOST * VALUES; i++)
        dy[i] = (float)rng_normal(&rng);
    for (size_t i = 0; i < ARRAY_COUNT(lengths); i++)
        for (size_t k = 0; k < ARRAY_COUNT(decays); k++) {
            float slope = (float)-log(decays[k]);

            work_out(lengths[i], exp(-(double)slope));
            check_chunks(device, lengths[i], slope);
            check_steps(device, lengths[i], slope);
        }
    device_close(device);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(chunks_and_single_tokens_equal_the_recurrence_in_double),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
