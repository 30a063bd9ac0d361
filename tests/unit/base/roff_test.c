/* roff_test.c - no text of ours becomes a request of roff. */
#include "common/base/roff.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

static void characters_of_a_text_stay_what_they_are(void **state)
{
    struct buf out = {0};
    (void)state;
    roff_text(&out, ".so x\n'y' a\\b --c\n.d \"e\"");
    assert_string_equal(out.bytes,
                        "\\&.so x\n\\(aqy\\(aq a\\eb \\-\\-c\n\\&.d \\(dqe\\(dq\n");
    buf_done(&out);
}

static void an_empty_line_starts_a_paragraph(void **state)
{
    struct buf out = {0};
    (void)state;
    roff_text(&out, "a\n\n\n.b\nc");
    assert_string_equal(out.bytes, "a\n.PP\n\\&.b\nc\n");
    buf_done(&out);
}

static void an_item_has_its_value_in_italics(void **state)
{
    struct buf out = {0};
    (void)state;
    roff_item(&out, "--db", "CONNINFO", "where");
    roff_item(&out, "0", NULL, "done");
    assert_string_equal(out.bytes, ".TP\n\\fB\\-\\-db\\fR \\fICONNINFO\\fR\nwhere\n"
                                   ".TP\n\\fB0\\fR\ndone\n");
    buf_done(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(characters_of_a_text_stay_what_they_are),
        cmocka_unit_test(an_empty_line_starts_a_paragraph),
        cmocka_unit_test(an_item_has_its_value_in_italics),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
