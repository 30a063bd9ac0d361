/* llmc_test.c - token files of llm.c: both kinds, and what is wrong with others. */
#include "tests/unit/data/inputs.h"
#include "worker/engine/data/llmc.h"

struct file {
    int32_t header[256];
    uint8_t tokens[16];
};

static void both_widths_are_read(void **state)
{
    (void)state;
    struct file narrow = {{20240520, 1, 3}, {0x50, 0xC4, 1, 0, 0xFF, 0xFF}};
    struct file wide = {{20240801, 7, 2}, {0, 0xF4, 1, 0, 0xFF, 0xFF, 0xFF, 0xFF}};
    struct llmc_tokens read;
    struct err err = {0};
    assert_true(llmc_is(&narrow, 4));
    assert_int_equal(llmc_parse(&narrow, 1024 + 6, &read, &err), 0);
    assert_int_equal(read.count, 3);
    assert_int_equal(llmc_token(&read, 0), 50256);
    assert_int_equal(llmc_token(&read, 2), 65535);
    assert_int_equal(llmc_parse(&wide, 1024 + 8, &read, &err), 0);
    assert_int_equal(read.count, 2);
    assert_int_equal(llmc_token(&read, 0), 128000);
    assert_int_equal(llmc_token(&read, 1), UINT32_MAX);
}

static void assert_refused(const struct file *file, size_t length, const char *expected)
{
    struct llmc_tokens read;
    struct err err = {0};
    assert_int_equal(llmc_parse(file, length, &read, &err), -1);
    if (!strstr(err.text, expected))
        fail_msg("'%s' does not say '%s'", err.text, expected);
}

static void other_and_damaged_files_are_refused(void **state)
{
    (void)state;
    struct file good = {{20240520, 1, 3}, {0}}, version = {{20240801, 1, 3}, {0}};
    struct file negative = {{20240520, 1, -1}, {0}}, evaluation = {{20240522, 1, 3}, {0}};
    assert_false(llmc_is(&evaluation, sizeof evaluation));
    assert_false(llmc_is(&good, 3));
    assert_refused(&evaluation, sizeof evaluation, "its header of 1024 bytes is another");
    assert_refused(&good, 1000, "is cut off");
    assert_refused(&good, 1024 + 5, "promises 3 tokens of 2 bytes and holds 5 bytes");
    assert_refused(&good, 1024 + 8, "holds 8 bytes");
    assert_refused(&negative, 1024, "promises -1 tokens");
    assert_refused(&version, 1024 + 12, "version 1; 7 is accepted");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(both_widths_are_read),
        cmocka_unit_test(other_and_damaged_files_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
