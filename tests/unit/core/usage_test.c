/* usage_test.c - the arithmetic of fair share against libm. */
#include "coordinator/core/state.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#define DAY 86400000ull

/* The stated bound is 2^-26, so a tenth of a millionth is allowed with room. */
static void decay_halves_every_half_life_and_follows_two_to_the_minus_x_between(void **state)
{
    (void)state;
    static const uint64_t half_lives[] = {60000, 7 * DAY, 366 * DAY};
    for (size_t h = 0; h < 3; h++) {
        assert_true(decay_q32(0, half_lives[h]) == (uint64_t)1 << 32);
        assert_true(decay_q32(half_lives[h], half_lives[h]) == (uint64_t)1 << 31);
        assert_true(decay_q32(40 * half_lives[h], half_lives[h]) == 0);
        for (uint64_t part = 1; part < 2000; part++) {
            uint64_t elapsed = half_lives[h] / 500 * part;
            double want = exp2(-(double)elapsed / (double)half_lives[h]);
            double got = (double)decay_q32(elapsed, half_lives[h]) / 4294967296.0;
            assert_true(fabs(got - want) < 2e-8);
        }
    }
}

static void what_runs_leaves_behind_the_integral_of_the_decay(void **state)
{
    (void)state;
    double half_life = 7.0 * DAY;
    for (uint64_t elapsed = 1; elapsed < 60 * DAY; elapsed = elapsed * 3 / 2 + 1) {
        double want = half_life / log(2) * (1 - exp2(-(double)elapsed / half_life));
        double got = (double)decay_integral_ms(elapsed, 7 * DAY);
        assert_true(fabs(got - want) <= 0.0004 * want + 1);
    }
}

static void decay_never_grows_with_time(void **state)
{
    (void)state;
    uint64_t last = (uint64_t)1 << 32;
    for (uint64_t elapsed = 0; elapsed < 10 * DAY; elapsed += 61 * 60000) {
        uint64_t now = decay_q32(elapsed, DAY);
        assert_true(now <= last);
        last = now;
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(decay_halves_every_half_life_and_follows_two_to_the_minus_x_between),
        cmocka_unit_test(what_runs_leaves_behind_the_integral_of_the_decay),
        cmocka_unit_test(decay_never_grows_with_time),
    };
    return cmocka_run_group_tests_name("fair share", tests, NULL, NULL);
}
