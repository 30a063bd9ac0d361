/* json_test.c - what may reach a jsonb column, and what the core reads from JSON. */
#include "common/base/buf.h"
#include "coordinator/core/state.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void strict_json_is_storable(void **state)
{
    (void)state;
    static const char *const good[] = {
        "{}", "[]", "null", "true", "-0", "12.5e-3", "\"\"", " { \"a\" : [ 1 , 2 , { } ] } ",
        "\"\\ud83d\\ude00 \\n \\u00e9\"", "{\"a\":{\"b\":[[]]}}", "\"h\xc3\xa9\"",
    };
    for (size_t i = 0; i < ARRAY_COUNT(good); i++)
        if (!json_is_storable(good[i], 1000))
            fail_msg("refused: %s", good[i]);
}

static void what_postgresql_would_refuse_is_not_storable(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "", " ", "{", "}", "[1,]", "{\"a\"}", "{\"a\":}", "{a:1}", "{\"a\":1,}", "01", "1.", ".5",
        "+1", "1e", "1e1000", "nan", "NaN", "Infinity", "tru", "\"", "\"\\x\"", "\"\\u12\"",
        "\"\\u0000\"", "\"\\ud800\"", "\"\\udc00\"", "\"\\ud800\\u0041\"", "\"\x01\"", "\"\xff\"",
        "{} {}", "[1 2]", "{\"a\":1 \"b\":2}", "[}", "'a'", "{\"a\":1]",
        "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]",
        "1111111111111111111111111111111111111111111111111111111111111111111111111111111111111111"
        "1111111111111111",
    };
    for (size_t i = 0; i < ARRAY_COUNT(bad); i++)
        if (json_is_storable(bad[i], 1000))
            fail_msg("taken: %s", bad[i]);
    assert_false(json_is_storable(NULL, 1000));
    assert_false(json_is_storable("[1, 2, 3]", 5)); /* over the bound */
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
        cmocka_unit_test(strict_json_is_storable),
        cmocka_unit_test(what_postgresql_would_refuse_is_not_storable),
        cmocka_unit_test(numbers_and_texts_are_found_at_the_top_level_only),
        cmocka_unit_test(a_quoted_text_reads_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
