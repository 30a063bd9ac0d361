/* prefixes_test.c - what contexts begin with: lines of a file. */
#include "worker/recipes/distillation/impossible/prefixes.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

static void lines_are_prefixes_without_the_blanks_around_them(void **state)
{
    static const char text[] = "# where it happens\n\n  Paris, France (MEDIA) -- \r\nLima --";
    struct prefixes prefixes;
    struct err err;

    (void)state;
    assert_int_equal(prefixes_parse(text, strlen(text), &prefixes, &err), 0);
    assert_int_equal(prefixes.count, 2);
    assert_string_equal(prefixes.items[0], "Paris, France (MEDIA) --");
    assert_string_equal(prefixes.items[1], "Lima --");
    prefixes_done(&prefixes);
}

static void what_is_no_text_is_refused_by_its_line(void **state)
{
    struct prefixes prefixes;
    struct err err;

    (void)state;
    assert_int_equal(prefixes_parse("a\nK\xf6ln --\n", 10, &prefixes, &err), -1);
    assert_string_equal(err.text, "line 2 is not UTF-8 text");
    assert_int_equal(prefixes_parse("a\0b\n", 4, &prefixes, &err), -1);
    assert_string_equal(err.text, "line 1 is not UTF-8 text");
    assert_int_equal(prefixes_parse("# nothing\n\n", 11, &prefixes, &err), -1);
    assert_string_equal(err.text, "there is no prefix in it");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lines_are_prefixes_without_the_blanks_around_them),
        cmocka_unit_test(what_is_no_text_is_refused_by_its_line),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
