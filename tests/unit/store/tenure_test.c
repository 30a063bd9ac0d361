/* tenure_test.c - until when a leader may believe that it leads, with clocks made here. */
#include "coordinator/store/tenure.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#define LEASE_MS 2000u

static void a_tenure_ends_a_tenth_before_the_lease_counted_from_the_request(void **state)
{
    struct tenure tenure;
    (void)state;
    tenure_begin(&tenure, LEASE_MS, 10000);
    assert_true(tenure_holds(&tenure, 10000));
    assert_true(tenure_holds(&tenure, 11799));
    assert_false(tenure_holds(&tenure, 11800));
}

static void a_renewal_that_was_answered_late_stretches_nothing(void **state)
{
    struct tenure tenure;
    (void)state;
    tenure_begin(&tenure, LEASE_MS, 10000);
    tenure_confirm(&tenure, 10400); /* heard at 12300: the answer took 1.9 s */
    assert_false(tenure_holds(&tenure, 12300));
    assert_true(tenure_holds(&tenure, 12199));
}

static void answers_that_overtake_each_other_keep_the_latest_request(void **state)
{
    struct tenure tenure;
    (void)state;
    tenure_begin(&tenure, LEASE_MS, 10000);
    tenure_confirm(&tenure, 11000); /* a renewal */
    tenure_confirm(&tenure, 10200); /* a batch, sent before it and answered after */
    assert_true(tenure_holds(&tenure, 12799));
    assert_false(tenure_holds(&tenure, 12800));
}

static void a_tenure_that_was_over_holds_again_after_a_renewal(void **state)
{
    struct tenure tenure;
    (void)state;
    tenure_begin(&tenure, LEASE_MS, 10000);
    assert_false(tenure_holds(&tenure, 20000));
    tenure_confirm(&tenure, 20000);
    assert_true(tenure_holds(&tenure, 20001));
}

static void a_silent_leader_gives_up_after_the_lease_is_over_for_everybody(void **state)
{
    struct tenure tenure;
    (void)state;
    tenure_begin(&tenure, LEASE_MS, 10000);
    assert_int_equal(tenure_gives_up_ms(&tenure, 11800), 12800);
    assert_true(tenure_gives_up_ms(&tenure, 11800) > 10000 + LEASE_MS);
}

static void a_leader_that_was_stopped_for_long_still_asks_before_it_gives_up(void **state)
{
    struct tenure tenure;
    (void)state;
    tenure_begin(&tenure, LEASE_MS, 10000);
    assert_int_equal(tenure_gives_up_ms(&tenure, 90000), 90500);
}

/* The lease that the shortest option allows. */
static void four_renewals_may_fail(void **state)
{
    struct tenure tenure;
    uint64_t now_ms = 1000;
    (void)state;
    tenure_begin(&tenure, 500, now_ms);
    for (int i = 0; i < 4; i++)
        now_ms += tenure_renew_ms(500);
    assert_true(tenure_holds(&tenure, now_ms));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_tenure_ends_a_tenth_before_the_lease_counted_from_the_request),
        cmocka_unit_test(a_renewal_that_was_answered_late_stretches_nothing),
        cmocka_unit_test(answers_that_overtake_each_other_keep_the_latest_request),
        cmocka_unit_test(a_tenure_that_was_over_holds_again_after_a_renewal),
        cmocka_unit_test(a_silent_leader_gives_up_after_the_lease_is_over_for_everybody),
        cmocka_unit_test(a_leader_that_was_stopped_for_long_still_asks_before_it_gives_up),
        cmocka_unit_test(four_renewals_may_fail),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
