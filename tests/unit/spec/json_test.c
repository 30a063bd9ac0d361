/* json_test.c - canonical JSON: one text per value, and the numbers survive. */
#include "tests/unit/spec/support.h"

#include "common/base/rng.h"

#include <math.h>

static void assert_canonical(const char *text, const char *expected)
{
    json_t *value;
    struct err err;
    struct buf out = {0};
    assert_int_equal(json_read(text, strlen(text), &value, &err), 0);
    json_put(&out, value);
    assert_string_equal(buf_text(&out), expected);
    json_decref(value);
    buf_done(&out);
}

static void keys_are_sorted_and_numbers_shortest(void **state)
{
    (void)state;
    assert_canonical("{\"b\":1,\"a\":[1,2.50,1e2,0.1,1E-7],\"aa\":null}",
                     "{\"a\": [1, 2.5, 100.0, 0.1, 1e-07], \"aa\": null, \"b\": 1}");
    assert_canonical("[0.30000000000000004, -0.0, 1e18, 123456789012345678]",
                     "[0.30000000000000004, 0.0, 1000000000000000000.0, 123456789012345678]");
    assert_canonical("\"a\\u0001\\n\\\"\\\\\\u00e9/\"", "\"a\\u0001\\n\\\"\\\\\xc3\xa9/\"");
    assert_canonical("[[], {}, true, false]", "[[], {}, true, false]");
}

static void every_float_reads_back_the_same(void **state)
{
    (void)state;
    struct rng rng;
    rng_init(&rng, 7);
    for (int i = 0; i < 20000; i++) {
        struct buf out = {0};
        double number = (rng_unit(&rng) - 0.5) * pow(10, (double)rng_below(&rng, 60) - 30);
        json_put_float(&out, number);
        assert_true(strtod(buf_text(&out), NULL) == number);
        assert_true(strpbrk(buf_text(&out), ".e") != NULL);
        buf_done(&out);
    }
}

static void nesting_is_limited_before_it_is_parsed(void **state)
{
    (void)state;
    struct buf text = {0};
    json_t *value;
    struct err err;
    for (int i = 0; i < JSON_DEPTH_MAX; i++)
        buf_putc(&text, '[');
    for (int i = 0; i < JSON_DEPTH_MAX; i++)
        buf_putc(&text, ']');
    assert_int_equal(json_read(text.bytes, text.length, &value, &err), 0);
    json_decref(value);
    buf_putc(&text, ' ');
    memmove(text.bytes + 1, text.bytes, text.length - 1);
    text.bytes[0] = '[';
    assert_int_equal(json_read(text.bytes, text.length, &value, &err), -1);
    assert_int_equal(err.kind, ERR_PROTOCOL);
    assert_int_equal(json_read("\"[[[[\\\"[[[\"", 12, &value, &err), -1); /* cut text, not depth */
    assert_null(strstr(err.text, "nests"));
    buf_done(&text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(keys_are_sorted_and_numbers_shortest),
        cmocka_unit_test(every_float_reads_back_the_same),
        cmocka_unit_test(nesting_is_limited_before_it_is_parsed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
