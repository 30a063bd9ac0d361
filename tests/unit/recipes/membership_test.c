/* membership_test.c - golden values of the card eval-unlearning, acceptance item 1. */
#include "worker/recipes/eval/membership.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

static void extraction_is_zero_when_the_last_token_is_wrong(void **state)
{
    bool wrong_last[] = {true, true, false};
    bool single[] = {false};

    (void)state;
    assert_true(extraction_strength(wrong_last, 3) == 0);
    assert_true(extraction_strength(single, 1) == 0);
    assert_true(extraction_strength(single, 0) == 0);
}

static void extraction_counts_from_the_last_miss(void **state)
{
    bool half[] = {true, false, true, true};
    bool all[] = {true, true};

    (void)state;
    assert_float_equal(extraction_strength(half, 4), 0.5, 1e-15);
    assert_float_equal(extraction_strength(all, 2), 1.0, 1e-15);
}

static void memorisation_is_the_share_of_hits(void **state)
{
    bool hit[] = {true, false, true, true};

    (void)state;
    assert_float_equal(exact_memorisation(hit, 4), 0.75, 1e-15);
    assert_true(exact_memorisation(hit, 0) == 0);
}

static void min_k_takes_the_least_likely_tokens_and_at_least_one(void **state)
{
    float five[] = {1, 5, 2, 4, 3};
    float one[] = {2.5f};

    (void)state;
    assert_float_equal(min_k_score(five, 5, 0.4), 4.5, 1e-12);
    assert_float_equal(min_k_score(one, 1, 0.4), 2.5, 1e-12);
}

static void ties_count_half_in_the_auc(void **state)
{
    double a[] = {1, 1, 1}, b[] = {1, 1};
    double low[] = {0.1, 0.2}, high[] = {0.3, 0.4};
    double x[] = {1, 3}, y[] = {2, 3};

    (void)state;
    assert_float_equal(membership_auc(a, 3, b, 2), 0.5, 1e-15);
    assert_float_equal(membership_auc(low, 2, high, 2), 1.0, 1e-15);
    assert_float_equal(membership_auc(high, 2, low, 2), 0.0, 1e-15);
    /* pairs: 1<2, 1<3, 3>2, 3=3: 2.5 of 4 */
    assert_float_equal(membership_auc(x, 2, y, 2), 0.625, 1e-15);
    assert_true(isnan(membership_auc(x, 0, y, 2)));
}

static void privacy_leak_matches_the_card(void **state)
{
    (void)state;
    assert_float_equal(privacy_leak(0.0056, 0.465), 85.9, 0.05);
    assert_float_equal(privacy_leak(0.5, 0.5), 0, 1e-9);
    assert_float_equal(privacy_leak(1.0, 0.5), -100, 1e-6);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(extraction_is_zero_when_the_last_token_is_wrong),
        cmocka_unit_test(extraction_counts_from_the_last_miss),
        cmocka_unit_test(memorisation_is_the_share_of_hits),
        cmocka_unit_test(min_k_takes_the_least_likely_tokens_and_at_least_one),
        cmocka_unit_test(ties_count_half_in_the_auc),
        cmocka_unit_test(privacy_leak_matches_the_card),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
