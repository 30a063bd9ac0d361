/* parse_test.c - numbers, durations, sizes, UTF-8 and distances. */
#include "tests/unit/base/support.h"

#include "common/base/parse.h"
#include "common/base/rng.h"

static struct err err;

static void whole_numbers_are_read_to_their_limits(void **state)
{
    (void)state;
    uint64_t u;
    int64_t i;
    assert_int_equal(parse_u64("18446744073709551615", &u, &err), 0);
    assert_true(u == UINT64_MAX);
    assert_int_equal(parse_i64("-9223372036854775808", &i, &err), 0);
    assert_true(i == INT64_MIN);
    static const char *const wrong_u[] = {"", "-1", "+1", " 1", "1 ", "1x", "0x10", "1.0",
                                          "18446744073709551616"};
    for (size_t n = 0; n < ARRAY_COUNT(wrong_u); n++) {
        u = 7;
        assert_int_equal(parse_u64(wrong_u[n], &u, &err), -1);
        assert_int_equal(err.kind, ERR_INVALID);
        assert_true(u == 7); /* outputs stay untouched on failure */
    }
    static const char *const wrong_i[] = {"", "-", "--1", "- 1", "9223372036854775808", "1e3"};
    for (size_t n = 0; n < ARRAY_COUNT(wrong_i); n++)
        assert_int_equal(parse_i64(wrong_i[n], &i, &err), -1);
}

static void numbers_are_finite(void **state)
{
    (void)state;
    double value;
    assert_int_equal(parse_f64("-1.5e-3", &value, &err), 0);
    assert_true(value == -1.5e-3);
    static const char *const wrong[] = {"", "nan", "inf", "-infinity", "1e999", " 1", "1 ", "one"};
    for (size_t n = 0; n < ARRAY_COUNT(wrong); n++)
        assert_int_equal(parse_f64(wrong[n], &value, &err), -1);
}

static void truth_is_true_or_false(void **state)
{
    (void)state;
    bool value = false;
    assert_int_equal(parse_bool("true", &value, &err), 0);
    assert_true(value);
    assert_int_equal(parse_bool("false", &value, &err), 0);
    assert_false(value);
    static const char *const wrong[] = {"", "yes", "True", "1", "truee"};
    for (size_t n = 0; n < ARRAY_COUNT(wrong); n++)
        assert_int_equal(parse_bool(wrong[n], &value, &err), -1);
}

static void durations_need_units(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        uint64_t ms;
    } right[] = {{"500ms", 500}, {"30s", 30000}, {"20m", 1200000}, {"1h30m", 5400000},
                 {"3d", 259200000}, {"0s", 0}, {"1d1h1m1s1ms", 90061001}};
    static const char *const wrong[] = {"", "20", "24:00", "1.5h", "5 m", "m", "1h30", "-5s",
                                        "99999999999999999d", "1w", "1H"};
    uint64_t ms;
    for (size_t n = 0; n < ARRAY_COUNT(right); n++) {
        assert_int_equal(parse_duration_ms(right[n].text, &ms, &err), 0);
        assert_true(ms == right[n].ms);
    }
    for (size_t n = 0; n < ARRAY_COUNT(wrong); n++) {
        assert_int_equal(parse_duration_ms(wrong[n], &ms, &err), -1);
        assert_non_null(strstr(err.text, "expected a number with a unit"));
    }
}

static void sizes_need_units(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        uint64_t bytes;
    } right[] = {{"0B", 0}, {"512B", 512}, {"64KiB", 65536}, {"1GiB", 1u << 30},
                 {"2TiB", UINT64_C(2) << 40}, {"1KB", 1000}, {"3GB", UINT64_C(3000000000)}};
    static const char *const wrong[] = {"", "1024", "1G", "1gib", "1.5GiB", "1 GiB", "1GiB1MiB",
                                        "-1B", "99999999TiB", "GiB"};
    uint64_t bytes;
    for (size_t n = 0; n < ARRAY_COUNT(right); n++) {
        assert_int_equal(parse_size_bytes(right[n].text, &bytes, &err), 0);
        assert_true(bytes == right[n].bytes);
    }
    for (size_t n = 0; n < ARRAY_COUNT(wrong); n++)
        assert_int_equal(parse_size_bytes(wrong[n], &bytes, &err), -1);
}

static void what_is_formatted_reads_back_the_same(void **state)
{
    (void)state;
    struct rng rng;
    char text[PARSE_TEXT_SIZE];
    rng_init(&rng, 1);
    for (int n = 0; n < 20000; n++) {
        uint64_t value = rng_next(&rng) >> rng_below(&rng, 64), again;
        assert_int_equal(parse_duration_ms(format_duration_ms(value, text), &again, &err), 0);
        assert_true(value == again);
        assert_int_equal(parse_size_bytes(format_size_bytes(value, text), &again, &err), 0);
        assert_true(value == again);
    }
    assert_string_equal(format_duration_ms(5400000, text), "1h30m");
    assert_string_equal(format_size_bytes((uint64_t)1536 << 20, text), "1536MiB");
    assert_string_equal(format_size_bytes(0, text), "0B");
}

static void short_forms_are_for_people(void **state)
{
    (void)state;
    char text[PARSE_TEXT_SIZE];
    assert_string_equal(format_size_short(1610612736, text), "1.5 GiB");
    assert_string_equal(format_size_short(12, text), "12 B");
    assert_string_equal(format_duration_short(250, text), "250 ms");
    assert_string_equal(format_duration_short(1500, text), "1.5 s");
    assert_string_equal(format_duration_short(61000, text), "1m01s");
    assert_string_equal(format_duration_short(3660000, text), "1h01m");
    assert_string_equal(format_duration_short(90000000, text), "1d01h");
}

/* Edges of Unicode's table of well-formed sequences (version 15, table 3-7). */
static void only_well_formed_utf8_is_utf8(void **state)
{
    (void)state;
    static const char *const right[] = {"", "a", "\xc2\x80", "\xdf\xbf", "\xe0\xa0\x80",
                                        "\xed\x9f\xbf", "\xee\x80\x80", "\xf0\x90\x80\x80",
                                        "\xf4\x8f\xbf\xbf"};
    static const char *const wrong[] = {"\x80", "\xc0\x80", "\xc1\xbf", "\xc2", "\xc2g",
                                        "\xe0\x9f\xbf", "\xed\xa0\x80", "\xe2\x82",
                                        "\xf0\x8f\xbf\xbf", "\xf4\x90\x80\x80", "\xf5\x80\x80\x80",
                                        "\xff", "\xf0\x9f\x98"};
    for (size_t n = 0; n < ARRAY_COUNT(right); n++)
        assert_true(text_is_utf8(right[n], strlen(right[n])));
    for (size_t n = 0; n < ARRAY_COUNT(wrong); n++)
        assert_false(text_is_utf8(wrong[n], strlen(wrong[n])));
    assert_true(text_is_utf8("a\0b", 3));
}

static void distance_counts_edits_and_swaps(void **state)
{
    (void)state;
    assert_int_equal(text_distance("", ""), 0);
    assert_int_equal(text_distance("abc", ""), 3);
    assert_int_equal(text_distance("ranks", "rank"), 1);
    assert_int_equal(text_distance("ranks", "rnaks"), 1);
    assert_int_equal(text_distance("kitten", "sitting"), 3);
    char longer[65];
    memset(longer, 'x', 64);
    longer[64] = '\0';
    assert_int_equal(text_distance(longer, longer), 64); /* not measured: no near name */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(whole_numbers_are_read_to_their_limits),
        cmocka_unit_test(numbers_are_finite),
        cmocka_unit_test(truth_is_true_or_false),
        cmocka_unit_test(durations_need_units),
        cmocka_unit_test(sizes_need_units),
        cmocka_unit_test(what_is_formatted_reads_back_the_same),
        cmocka_unit_test(short_forms_are_for_people),
        cmocka_unit_test(only_well_formed_utf8_is_utf8),
        cmocka_unit_test(distance_counts_edits_and_swaps),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
