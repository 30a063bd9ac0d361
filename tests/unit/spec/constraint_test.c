/* constraint_test.c - what labels and GPU models fit. */
#include "tests/unit/spec/support.h"

static bool holds(const char *first, const char *second, const char *value)
{
    const char *values[] = {first, second};
    struct spec_label label = {.name = "x", .values = values, .value_count = second ? 2 : 1};
    return spec_label_holds(&label, value);
}

static void a_plain_value_is_one_of_several(void **state)
{
    (void)state;
    assert_true(holds("a100", NULL, "a100"));
    assert_true(holds("a100", "h100", "h100"));
    assert_false(holds("a100", "h100", "v100"));
    assert_false(holds("a100", NULL, NULL));
}

static void a_negated_value_also_fits_workers_without_the_label(void **state)
{
    (void)state;
    assert_false(holds("!us", NULL, "us"));
    assert_true(holds("!us", NULL, "eu"));
    assert_true(holds("!us", NULL, NULL));
    assert_false(holds("!us", "!eu", "eu"));
}

static void a_star_asks_whether_the_label_is_there(void **state)
{
    (void)state;
    assert_true(holds("*", NULL, "anything"));
    assert_false(holds("*", NULL, NULL));
    assert_true(holds("!*", NULL, NULL));
    assert_false(holds("!*", NULL, "anything"));
}

static void comparisons_all_hold_and_want_whole_numbers(void **state)
{
    (void)state;
    assert_true(holds(">=40", "<80", "40"));
    assert_true(holds(">=40", "<80", "79"));
    assert_false(holds(">=40", "<80", "80"));
    assert_true(holds(">-1", "<=0", "0"));
    assert_false(holds(">=40", NULL, "80GiB"));
    assert_false(holds(">=40", NULL, NULL));
}

static void values_that_mean_nothing_are_named(void **state)
{
    (void)state;
    static const char *const wrong[] = {"!", ">", ">=x", "<1.5", "*a", "!*a", "a*"};
    static const char *const right[] = {"a", "!a", "*", "!*", ">=-3", "a>b"};
    for (size_t i = 0; i < ARRAY_COUNT(wrong); i++)
        assert_non_null(spec_label_fault(wrong[i]));
    for (size_t i = 0; i < ARRAY_COUNT(right); i++)
        assert_null(spec_label_fault(right[i]));
}

static void a_gpu_model_is_named_by_a_part_of_it_in_any_case(void **state)
{
    (void)state;
    assert_true(spec_gpu_model_fits("h100", "NVIDIA H100 80GB HBM3"));
    assert_true(spec_gpu_model_fits("", "anything"));
    assert_true(spec_gpu_model_fits("", ""));
    assert_false(spec_gpu_model_fits("a100", "NVIDIA H100 80GB HBM3"));
    assert_false(spec_gpu_model_fits("h100", "H10"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_plain_value_is_one_of_several),
        cmocka_unit_test(a_negated_value_also_fits_workers_without_the_label),
        cmocka_unit_test(a_star_asks_whether_the_label_is_there),
        cmocka_unit_test(comparisons_all_hold_and_want_whole_numbers),
        cmocka_unit_test(values_that_mean_nothing_are_named),
        cmocka_unit_test(a_gpu_model_is_named_by_a_part_of_it_in_any_case),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
