/* json_test.c - what may reach a jsonb column, and what the core reads from JSON. */
#include "common/base/buf.h"
#include "coordinator/core/state.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void storable_json_is_there_and_bounded(void **state)
{
    (void)state;
    assert_true(json_is_storable("[1, 2, 3]", 9));
    assert_false(json_is_storable("[1, 2, 3]", 8));
    assert_false(json_is_storable("[1, 2,", 9));
    assert_false(json_is_storable("", 9));
    assert_false(json_is_storable(NULL, 9));
}

static void numbers_and_texts_are_found_at_the_top_level_only(void **state)
{
    (void)state;
    struct arena arena = {0};
    const char *text = "{\"deep\": {\"loss\": 9}, \"loss\": -2.5e1, \"kind\": \"dataset\", "
                       "\"list\": [1, {\"kind\": 2}], \"esc\\u0061ped\": 3}";
    double number;
    const char *kind;
    assert_true(json_number(text, "loss", &number));
    assert_true(number == -25.0);
    assert_true(json_text(text, "kind", &arena, &kind));
    assert_string_equal(kind, "dataset");
    assert_false(json_number(text, "kind", &number));
    assert_false(json_number(text, "absent", &number));
    assert_false(json_number("[1]", "loss", &number));
    assert_false(json_number("{}", "loss", &number));
    assert_true(json_number("{\"a\": 1, \"a\": 2}", "a", &number));
    assert_true(number == 2.0); /* as jsonb */
    arena_done(&arena);
}

static void a_quoted_text_reads_back(void **state)
{
    (void)state;
    struct arena arena = {0};
    struct buf out = {0};
    struct json_pair *pairs;
    buf_puts(&out, "{");
    json_quote(&out, "zone");
    buf_puts(&out, ": ");
    json_quote(&out, "a \"b\" \\ \n");
    buf_puts(&out, ", \"n\": 1, \"gpu\": \"h100\"}");
    assert_true(json_is_storable(buf_text(&out), 1000));
    assert_int_equal(json_pairs(buf_text(&out), &arena, &pairs), 2);
    assert_string_equal(pairs[0].name, "zone");
    assert_string_equal(pairs[1].name, "gpu");
    assert_string_equal(pairs[1].value, "h100");
    buf_done(&out);
    arena_done(&arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(storable_json_is_there_and_bounded),
        cmocka_unit_test(numbers_and_texts_are_found_at_the_top_level_only),
        cmocka_unit_test(a_quoted_text_reads_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
