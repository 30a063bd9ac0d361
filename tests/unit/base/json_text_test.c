/* json_text_test.c - which JSON may reach a jsonb column. */
#include "common/base/json_text.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void strict_json_is_valid(void **state)
{
    (void)state;
    static const char *const good[] = {
        "{}",
        "[]",
        "null",
        "true",
        "-0",
        "12.5e-3",
        "\"\"",
        " { \"a\" : [ 1 , 2 , { } ] } ",
        "\"\\ud83d\\ude00 \\n \\u00e9\"",
        "{\"a\":{\"b\":[[]]}}",
        "\"h\xc3\xa9\"",
    };
    for (size_t i = 0; i < ARRAY_COUNT(good); i++)
        if (!json_text_is_valid(good[i], strlen(good[i])))
            fail_msg("refused: %s", good[i]);
}

static void what_postgresql_would_refuse_is_not_valid(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "",
        " ",
        "{",
        "}",
        "[1,]",
        "{\"a\"}",
        "{\"a\":}",
        "{a:1}",
        "{\"a\":1,}",
        "01",
        "1.",
        ".5",
        "+1",
        "1e",
        "1e1000",
        "nan",
        "NaN",
        "Infinity",
        "tru",
        "\"",
        "\"\\x\"",
        "\"\\u12\"",
        "\"\\u0000\"",
        "\"\\ud800\"",
        "\"\\udc00\"",
        "\"\\ud800\\u0041\"",
        "\"\x01\"",
        "\"\xff\"",
        "{} {}",
        "[1 2]",
        "{\"a\":1 \"b\":2}",
        "[}",
        "'a'",
        "{\"a\":1]",
        ("1111111111111111111111111111111111111111111111111111111111111111111111111111111111111111"
         "1111111111111111"), /* 104 digits */
    };
    for (size_t i = 0; i < ARRAY_COUNT(bad); i++)
        if (json_text_is_valid(bad[i], strlen(bad[i])))
            fail_msg("taken: %s", bad[i]);
    assert_false(json_text_is_valid("[1]\0", 4));
}

static void nesting_is_bounded(void **state)
{
    (void)state;
    char text[2 * JSON_TEXT_DEPTH_MAX + 2];
    for (size_t depth = JSON_TEXT_DEPTH_MAX; depth <= JSON_TEXT_DEPTH_MAX + 1; depth++) {
        memset(text, '[', depth);
        memset(text + depth, ']', depth);
        assert_int_equal(json_text_is_valid(text, 2 * depth), depth == JSON_TEXT_DEPTH_MAX);
    }
}

static void pieces_end_where_they_end(void **state)
{
    (void)state;
    static const char text[] = "  {\"a\": [1, \"]\"]} , 2";
    const char *end = text + sizeof text - 1, *value = json_text_space_end(text, end);
    assert_ptr_equal(value, text + 2);
    assert_ptr_equal(json_text_value_end(value, end), strstr(text, " , 2"));
    assert_ptr_equal(json_text_string_end(value + 1, end), value + 4);
    assert_null(json_text_string_end(value, end));
    assert_null(json_text_value_end(value, value + 6));
    assert_ptr_equal(json_text_space_end(end, end), end);
}

static void any_bytes_quoted_are_json(void **state)
{
    (void)state;
    static const char bytes[] = "a\"\\\n\xff\0\xc3\xa9";
    struct buf out = {0};
    json_text_quote(&out, bytes, sizeof bytes - 1);
    assert_string_equal(buf_text(&out), "\"a\\\"\\\\\\u000a\xEF\xBF\xBD\xEF\xBF\xBD\xc3\xa9\"");
    assert_true(json_text_is_valid(buf_text(&out), out.length));
    buf_done(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(strict_json_is_valid),
        cmocka_unit_test(what_postgresql_would_refuse_is_not_valid),
        cmocka_unit_test(nesting_is_bounded),
        cmocka_unit_test(pieces_end_where_they_end),
        cmocka_unit_test(any_bytes_quoted_are_json),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
