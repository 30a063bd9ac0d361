/* table_test.c - tables as text and JSON, with texts that mean harm. */
#include "client/render/bar.h"
#include "client/render/table.h"

#include <jansson.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <time.h>

#include <cmocka.h>

#include "tests/unit/client/golden.h"

static struct rec_column columns[] = {
    {"job_id", "int"},         {"name", "text"},     {"state", "text"},
    {"value", "float"},        {"held", "bool"},     {"size_bytes", "int"},
    {"run_ms", "duration_ms"}, {"ended_at", "time"}, {"spec", "json"},
};

#define COUNT ARRAY_COUNT(columns)

static struct rec_cell cells[] = {
    {false, "1"},
    {false, "glosses-base"},
    {false, "SUCCEEDED"},
    {false, "3.25"},
    {false, "f"},
    {false, "1073741824"},
    {false, "5400000"},
    {false, "2026-01-31 12:34:56.789+00"},
    {false, "{\"a\": [1, 2.5]}"},
    {false, "22"},
    {false, "日本語 job"},
    {false, "RUNNING"},
    {false, "NaN"},
    {false, "t"},
    {true, ""},
    {true, ""},
    {true, ""},
    {true, ""},
    {false, "333"},
    {false, "evil\033[2Jname\nline"},
    {false, "FAILED"},
    {false, "-Infinity"},
    {false, "f"},
    {false, "0"},
    {false, "1"},
    {false, "2026-01-31 18:04:56+05:30"},
    {false, "not json"},
};

static const struct msg_table table = {.columns = columns,
                                       .columns_count = COUNT,
                                       .cells = cells,
                                       .cells_count = ARRAY_COUNT(cells)};

static const struct style plain = {false, false, 80};

static int setup(void **state)
{
    (void)state;
    setenv("TZ", "UTC", 1);
    tzset();
    return 0;
}

static void a_table_is_aligned_by_display_width(void **state)
{
    struct buf out = {0};
    (void)state;
    table_print(&table, NULL, 0, &plain, &out);
    assert_golden("table.txt", &out);
    buf_done(&out);
}

static void chosen_columns_come_in_the_order_asked_for(void **state)
{
    static const struct heading headings[] = {{"state", NULL},
                                              {"missing", NULL},
                                              {"job_id", "JOB"},
                                              {"name", NULL}};
    struct buf out = {0};
    (void)state;
    table_print(&table, headings, ARRAY_COUNT(headings), &plain, &out);
    assert_golden("table-chosen.txt", &out);
    buf_done(&out);
}

static void colour_marks_states_on_request(void **state)
{
    static const struct heading headings[] = {{"job_id", "JOB"}, {"state", NULL}};
    const struct style colour = {false, true, 80};
    struct buf out = {0};
    (void)state;
    table_print(&table, headings, ARRAY_COUNT(headings), &colour, &out);
    assert_golden("table-colour.txt", &out);
    buf_done(&out);
}

static void a_terminal_gets_lines_that_fit(void **state)
{
    static const struct heading headings[] = {{"job_id", "JOB"}, {"name", NULL}, {"spec", NULL}};
    const struct style narrow = {true, false, 34};
    struct buf out = {0};
    (void)state;
    table_print(&table, headings, ARRAY_COUNT(headings), &narrow, &out);
    assert_golden("table-narrow.txt", &out);
    char *save = NULL;
    for (char *line = strtok_r(out.bytes, "\n", &save); line; line = strtok_r(NULL, "\n", &save))
        assert_true(text_width(line) <= 34);
    buf_done(&out);
}

static void a_row_is_printed_as_facts_without_empty_ones(void **state)
{
    static const struct heading headings[] = {{"name", "name"},
                                              {"state", "state"},
                                              {"size_bytes", "size"},
                                              {"held", "held"}};
    struct buf out = {0};
    (void)state;
    table_print_row(&table, 1, headings, ARRAY_COUNT(headings), &plain, &out);
    assert_golden("row.txt", &out);
    buf_done(&out);
}

static void json_keeps_types_and_every_column(void **state)
{
    struct buf out = {0};
    (void)state;
    table_print_json(&table, &out);
    assert_golden("table.json", &out);
    json_t *rows = json_loads(out.bytes, 0, NULL);
    assert_int_equal(json_array_size(rows), 3);
    const json_t *first = json_array_get(rows, 0), *second = json_array_get(rows, 1);
    assert_true(json_is_integer(json_object_get(first, "job_id")));
    assert_true(json_is_real(json_object_get(first, "value")));
    assert_true(json_is_object(json_object_get(first, "spec")));
    assert_string_equal(json_string_value(json_object_get(first, "ended_at")),
                        "2026-01-31T12:34:56.789Z");
    assert_string_equal(json_string_value(json_object_get(second, "value")), "NaN");
    assert_true(json_is_true(json_object_get(second, "held")));
    assert_true(json_is_null(json_object_get(second, "run_ms")));
    json_decref(rows);
    buf_done(&out);
}

static void an_empty_table_is_an_empty_array(void **state)
{
    const struct msg_table empty = {.columns = columns, .columns_count = COUNT};
    struct buf out = {0};
    (void)state;
    table_print_json(&empty, &out);
    assert_string_equal(out.bytes, "[]\n");
    buf_done(&out);
}

static void cells_that_do_not_fill_rows_are_refused(void **state)
{
    struct msg_table ragged = table, bare = {0};
    struct err err;
    (void)state;
    assert_int_equal(table_check(&table, &err), 0);
    ragged.cells_count--;
    assert_int_equal(table_check(&ragged, &err), -1);
    assert_int_equal(table_check(&bare, &err), -1);
}

static void cells_are_found_by_name(void **state)
{
    (void)state;
    assert_int_equal(table_rows(&table), 3);
    assert_int_equal(table_u64(&table, 1, "job_id"), 22);
    assert_string_equal(table_text(&table, 0, "name"), "glosses-base");
    assert_string_equal(table_text(&table, 0, "no such column"), "");
    assert_string_equal(table_text(&table, 9, "name"), "");
    assert_true(table_is_null(&table, 1, "run_ms"));
    assert_true(isnan(table_f64(&table, 1, "value")));
}

static void pages_are_joined(void **state)
{
    struct arena arena = {0};
    struct msg_table joined = table;
    (void)state;
    table_append(&joined, &table, &arena);
    assert_int_equal(table_rows(&joined), 6);
    assert_int_equal(table_u64(&joined, 4, "job_id"), 22);
    arena_done(&arena);
}

/* ---- texts -------------------------------------------------------------------------------- */

static void assert_clean(const char *text, unsigned width, const char *expected)
{
    struct buf out = {0};
    text_add_clean(&out, text, width);
    assert_string_equal(buf_text(&out), expected);
    buf_done(&out);
}

static void control_characters_cannot_drive_the_terminal(void **state)
{
    (void)state;
    assert_clean("a\033[31mb\ac\x7f", 0, "a?[31mb?c?");
    assert_clean("a\nb\tc\rd", 0, "a b c d");
    assert_clean("\xc2\x9b"
                 "31m",
                 0, "?31m"); /* C1: CSI in one character */
    assert_clean("a\xe2\x80\xae"
                 "b",
                 0, "a?b");              /* right-to-left override */
    assert_clean("a\xff\xfe", 0, "a??"); /* not UTF-8 */
}

static void long_texts_are_cut_at_their_display_width(void **state)
{
    (void)state;
    assert_int_equal(text_width("日本語"), 6);
    assert_int_equal(text_width("e\xcc\x81"), 1); /* e with a combining accent */
    assert_clean("abcdef", 6, "abcdef");
    assert_clean("abcdefg", 6, "abcde…");
    assert_clean("日本語", 5, "日本…");
    assert_clean("日本語", 4, "日…");
}

static void program_output_keeps_its_lines(void **state)
{
    struct buf out = {0};
    (void)state;
    static const char said[] = "one\n\ttwo\033]0;title\a\n";
    text_add_output(&out, said, strlen(said));
    assert_string_equal(buf_text(&out), "one\n\ttwo?]0;title?\n");
    buf_done(&out);
}

static void bars_fill_in_eighths(void **state)
{
    static const struct {
        uint64_t done, total;
        const char *expected;
    } cases[] = {
        {0, 8, "▕  ▏"}, {1, 16, "▕▏ ▏"}, {2, 8, "▕▌ ▏"}, {4, 8, "▕█ ▏"},
        {8, 8, "▕██▏"}, {9, 8, "▕██▏"},  {0, 0, "▕  ▏"},
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
        struct buf out = {0};
        bar_add(&out, cases[i].done, cases[i].total, 2);
        assert_string_equal(out.bytes, cases[i].expected);
        buf_done(&out);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_table_is_aligned_by_display_width),
        cmocka_unit_test(chosen_columns_come_in_the_order_asked_for),
        cmocka_unit_test(colour_marks_states_on_request),
        cmocka_unit_test(a_terminal_gets_lines_that_fit),
        cmocka_unit_test(a_row_is_printed_as_facts_without_empty_ones),
        cmocka_unit_test(json_keeps_types_and_every_column),
        cmocka_unit_test(an_empty_table_is_an_empty_array),
        cmocka_unit_test(cells_that_do_not_fill_rows_are_refused),
        cmocka_unit_test(cells_are_found_by_name),
        cmocka_unit_test(pages_are_joined),
        cmocka_unit_test(control_characters_cannot_drive_the_terminal),
        cmocka_unit_test(long_texts_are_cut_at_their_display_width),
        cmocka_unit_test(program_output_keeps_its_lines),
        cmocka_unit_test(bars_fill_in_eighths),
    };
    return cmocka_run_group_tests(tests, setup, NULL);
}
